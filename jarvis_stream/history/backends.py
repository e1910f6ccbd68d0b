"""What differs between databases: the port that each kind of them has a module for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import sqlalchemy as sa

if TYPE_CHECKING:  # a dialect takes long to import, and one of them is not needed
    from sqlalchemy.dialects import postgresql, sqlite

    Insert = postgresql.Insert | sqlite.Insert

T = TypeVar("T")


class Backend(Protocol):
    """One kind of database, at one place."""

    insert: Callable[[sa.Table], Insert]
    known_as: str
    """The name of this process among the instances, known once `prepare` has returned."""
    now: sa.ColumnElement[float]
    """The database's clock, in seconds: the same for all its processes."""
    has_lateral: bool
    """Whether a subquery in FROM may refer to the items before it (LATERAL)."""

    def exists(self) -> bool:
        """Whether connecting would not make it; a server's database always does."""
        ...

    async def prepare(self) -> None:
        """Open new connections, and show a sign of life that ends with this process."""
        ...

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        """Make a change in one transaction, on the one connection that writes.

        The change may be called several times; only the last call takes effect. Raise OSError when
        the written data would be lost.
        """
        ...

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        """Look at one state of the database, on one of a few connections."""
        ...

    async def change_schema(self, change: Callable[[sa.Connection], T]) -> T:
        """Make a change to the schema in one transaction, whatever time it takes.

        Waits for as long as another process changes the schema. The change must look first
        whether it is still to be made.
        """
        ...

    def lock_sessions(
        self, connection: sa.Connection, session_ids: Sequence[str], stream_ids: Sequence[str]
    ) -> None:
        """Keep other processes from changing these sessions, and the sessions of these streams,
        until the transaction ends.

        Every process takes these locks first and in the same order, so they cannot deadlock.
        """
        ...

    def gone(self, connection: sa.Connection, instance_id: str) -> bool:
        """Whether that process shows no sign of life; False when that cannot be told."""
        ...

    def remedy(self, error: Exception) -> str | None:
        """Return the remedy for an error at the opening, as one clause; None if unknown."""
        ...

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """Whether a text holds another, whatever the case of the ASCII letters."""
        ...

    def find(self, word: str, owner: str) -> Sequence[sa.Select[Any]] | None:
        """Select session_id and stream_id of the turns that contain a word, by an index.

        The result may include turns of other owners. None for a word that the index cannot
        find, or without an index.
        """
        ...

    async def prepare_search(self) -> None:
        """Create the index of texts if the database supports it; else log that it does not."""
        ...

    async def keep_searchable(self) -> None:
        """Add texts to the index in small steps until this call is cancelled."""
        ...

    async def search(self, look: Callable[[sa.Connection], T]) -> T:
        """Read one state of the database, on connections that only searches use.

        On cancellation the database stops the search.
        """
        ...

    async def close(self) -> None:
        """Close every connection, end the sign of life."""
        ...


def on_connect(engine: sa.Engine, *statements: str) -> None:
    """Run these on every new connection."""

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

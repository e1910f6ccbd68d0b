"""What the writer asks of a database: one batch of changes, one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jarvis_stream.history.base import SessionPage, SessionRecord, Span, TurnRecord


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer that is still streaming, from byte `start` on."""

    stream_id: str
    start: int
    text: str


@dataclass(slots=True)
class Batch:
    """Changes for one transaction, made in the order of the fields."""

    interrupts: list[str] = field(default_factory=list)
    """This process's turns to end as interrupted, with the text of their pieces."""
    removals: list[Span] = field(default_factory=list)
    """Turns to remove for good."""
    begins: list[TurnRecord] = field(default_factory=list)
    """Turns to insert, unless a removal covers them. A turn of this process that is already stored
    is overwritten."""
    replaced: dict[str, Span] = field(default_factory=dict)
    """Turns to remove for good, unless the begin with this stream_id was left out."""
    titles: list[tuple[str, str, float]] = field(default_factory=list)
    """Sessions, their new titles, and the age of each title in seconds. A newer removal of all
    turns of the session also removes the title."""
    ends: list[TurnRecord] = field(default_factory=list)
    """This process's turns to end."""
    pieced: list[str] = field(default_factory=list)
    """Of the turns that end, those of which pieces may be there."""
    pieces: list[Piece] = field(default_factory=list)
    """Text of this process's streaming turns; for a turn that is none it is left out."""


@dataclass(slots=True)
class Written:
    """What a batch has done, and found."""

    removed: set[str] = field(default_factory=set)
    """The sessions of which there was something to remove."""
    begun: set[str] = field(default_factory=set)
    """The begins that are in the database after this batch."""
    fenced: set[str] = field(default_factory=set)
    """The begins that a removal covers. A begin in neither set has another turn's stream_id."""
    ended: set[str] = field(default_factory=set)
    """The ends that found their turn."""
    titled: set[str] = field(default_factory=set)
    """The sessions that got a title; the others with one in the batch are not there."""
    earlier: dict[str, list[TurnRecord]] = field(default_factory=dict)
    """Of each session with a begin: its recent turns, oldest first, without this batch's begins."""


class Store(Protocol):
    """A database. Every call may raise whatever the database raises; then nothing has happened,
    or, when the connection broke at the commit, everything: every change can be made again."""

    async def renew(self) -> bool:
        """Say that this process is alive; False when that was not known: then none of its turns
        can be relied on to be there, or to be streaming."""
        ...

    async def reclaim(self, *, opening: bool) -> int:
        """End as interrupted the streaming turns of processes that are gone; how many.

        Gone are those whose lease has run out; when `opening`, those that have let go of their
        lock too.
        """
        ...

    async def write(self, batch: Batch) -> Written:
        """Make the changes, all or none."""
        ...

    async def recent(self, session_id: str) -> list[TurnRecord]:
        """The turns an agent might be told of, oldest first."""
        ...

    async def turn(self, stream_id: str) -> TurnRecord | None:
        """See History.turn."""
        ...

    async def turns(
        self, session_id: str, *, limit: int | None, before: int | None
    ) -> Sequence[TurnRecord]:
        """See History.turns."""
        ...

    async def page(
        self,
        session_id: str,
        *,
        limit: int,
        max_chars: int,
        before: int | None,
        after: int | None,
    ) -> tuple[list[TurnRecord], bool]:
        """Return one page of turns, oldest first, and whether more turns follow in its direction.

        As History.page, but the texts are measured in characters.
        """
        ...

    async def sessions(
        self, *, owner: str, limit: int, before: str | None, query: str | None
    ) -> SessionPage:
        """See History.sessions."""
        ...

    async def count(self, owner: str) -> int:
        """See History.count."""
        ...

    async def session(self, session_id: str) -> SessionRecord | None:
        """See History.session."""
        ...

    async def last_epoch(self) -> int:
        """See History.last_epoch."""
        ...

    def refused(self, error: Exception) -> bool:
        """Whether the database refuses the data itself: trying again is no use."""
        ...

    def describe(self, error: Exception) -> str:
        """An error for the log: its class, and nothing of what was written or of the password."""
        ...

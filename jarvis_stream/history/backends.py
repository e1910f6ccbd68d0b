"""What differs between SQLite and PostgreSQL. Drivers are imported when an engine is made."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

if sys.platform != "win32":  # there the lease alone tells who is alive
    import fcntl

BUSY_TIMEOUT: Final = 5.0
"""Seconds SQLite waits for another process's transaction."""
CONNECT_TIMEOUT: Final = 5
"""Seconds to connect to PostgreSQL."""
STATEMENT_TIMEOUT: Final = 10
"""Seconds a statement of PostgreSQL may take, waiting for locks included."""
READERS: Final = 3
"""Connections for reading."""

Insert = postgresql.Insert | sqlite.Insert


class Backend(Protocol):
    """One kind of database, at one place."""

    writer: AsyncEngine
    """Has one connection. Its transactions take the write lock when they begin."""
    reader: AsyncEngine
    """Its transactions see one state of the database, and cannot change it."""
    insert: Callable[[sa.Table], Insert]
    now: sa.ColumnElement[float]
    """The database's clock, in seconds: the same for all its processes."""

    async def prepare(self) -> None:
        """Make it possible to connect, and show a sign of life that ends with this process."""
        ...

    async def lock_schema(self, connection: AsyncConnection) -> None:
        """Let no other process change the schema during this transaction."""
        ...

    async def gone(self, connection: AsyncConnection, instance_id: str) -> bool:
        """Whether that process is certainly no more; False when that cannot be told."""
        ...

    def check(self) -> None:
        """Raise OSError when what was written could not be found again."""
        ...

    async def close(self) -> None:
        """Close every connection, end the sign of life."""
        ...


class SqliteBackend:
    """A file, in WAL mode with `synchronous=NORMAL`.

    A commit survives the end of the process, however violent. When the machine loses power the
    newest commits can be lost (those since the last checkpoint of the WAL), never the file's
    integrity. For the sign of life, each process locks a small file beside the database.
    """

    def __init__(self, url: sa.URL, instance_id: str) -> None:
        self._path = Path(url.database or "").absolute()
        self._instance_id = instance_id
        self._identity: tuple[int, int] | None = None
        self._alive: int | None = None
        self.insert: Callable[[sa.Table], Insert] = sqlite.insert
        self.now: sa.ColumnElement[float] = (sa.func.julianday("now") - 2440587.5) * 86400.0
        arguments: dict[str, Any] = {"timeout": BUSY_TIMEOUT, "isolation_level": None}
        self.writer = create_async_engine(
            url, connect_args=arguments, pool_size=1, max_overflow=0, hide_parameters=True
        )
        self.reader = create_async_engine(
            url, connect_args=arguments, pool_size=READERS, max_overflow=0, hide_parameters=True
        )
        _on_connect(self.writer, "PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON")
        _on_connect(self.reader, "PRAGMA query_only=ON")
        _on_begin(self.writer, "BEGIN IMMEDIATE")
        _on_begin(self.reader, "BEGIN")

    async def prepare(self) -> None:
        """See Backend.prepare."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._show_life()
        async with self.writer.connect() as connection:
            await connection.run_sync(_switch_to_wal)
        self._identity = self._find()

    async def lock_schema(self, connection: AsyncConnection) -> None:
        """See Backend.lock_schema: BEGIN IMMEDIATE has done it."""

    async def gone(self, connection: AsyncConnection, instance_id: str) -> bool:
        """See Backend.gone."""
        if sys.platform == "win32":
            return False
        file = self._sign_of(instance_id)
        try:
            descriptor = os.open(file, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            file.unlink(missing_ok=True)
            return True
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """See Backend.check: SQLite goes on writing to a file that was deleted."""
        if self._find() != self._identity:
            raise FileNotFoundError("the database's file is not where it was")

    async def close(self) -> None:
        """See Backend.close."""
        await self.reader.dispose()
        await self.writer.dispose()
        if self._alive is not None:
            self._sign_of(self._instance_id).unlink(missing_ok=True)
            os.close(self._alive)
            self._alive = None

    def _find(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _sign_of(self, instance_id: str) -> Path:
        return self._path.with_name(f"{self._path.name}-alive-{instance_id}")

    def _show_life(self) -> None:
        if sys.platform == "win32":
            return
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None
        # Where no file can be made, the lease has to do.
        with contextlib.suppress(OSError):
            file = self._sign_of(self._instance_id)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            self._alive = descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class PostgresBackend:
    """A server. For the sign of life, each process's writing connection holds an advisory lock."""

    def __init__(self, url: sa.URL, instance_id: str) -> None:
        self.insert: Callable[[sa.Table], Insert] = postgresql.insert
        self.now: sa.ColumnElement[float] = sa.cast(
            sa.extract("epoch", sa.func.clock_timestamp()), sa.Double
        )
        arguments = {
            "connect_timeout": CONNECT_TIMEOUT,
            "application_name": "jarvis-stream",
            # A server that has vanished without a word is noticed.
            "keepalives_idle": STATEMENT_TIMEOUT,
            "tcp_user_timeout": STATEMENT_TIMEOUT * 1000,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT}s"
            f" -c idle_in_transaction_session_timeout={2 * STATEMENT_TIMEOUT}s",
        }
        # What the URL says goes first.
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
        self.writer = create_async_engine(
            url, connect_args=arguments, pool_size=1, max_overflow=0, hide_parameters=True
        )
        self.reader = create_async_engine(
            url,
            connect_args=arguments,
            pool_size=READERS,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            isolation_level="REPEATABLE READ",
        )
        _on_connect(
            self.writer, f"SELECT pg_try_advisory_lock(hashtextextended('{instance_id}', 0))"
        )

    async def prepare(self) -> None:
        """See Backend.prepare: connecting shows life."""
        async with self.writer.connect():
            pass

    async def lock_schema(self, connection: AsyncConnection) -> None:
        """See Backend.lock_schema."""
        await connection.execute(
            sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended("jarvis_schema", 0)))
        )

    async def gone(self, connection: AsyncConnection, instance_id: str) -> bool:
        """See Backend.gone."""
        free: bool | None = await connection.scalar(
            sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended(instance_id, 0)))
        )
        return bool(free)

    def check(self) -> None:
        """See Backend.check: a server answers for what it has committed."""

    async def close(self) -> None:
        """See Backend.close."""
        await self.reader.dispose()
        await self.writer.dispose()


def _on_connect(engine: AsyncEngine, *statements: str) -> None:
    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()


def _on_begin(engine: AsyncEngine, statement: str) -> None:
    # The driver's own transactions are switched off with isolation_level=None.
    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(statement)


def _switch_to_wal(connection: sa.Connection) -> None:
    # Not in a transaction, so past SQLAlchemy. The file remembers it: nothing is written when it
    # is set already, and a file that cannot be written stays as it is.
    driver: Any = connection.connection
    cursor = driver.cursor()
    with contextlib.suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()

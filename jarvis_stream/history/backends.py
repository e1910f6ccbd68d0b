"""What differs between SQLite and PostgreSQL. Drivers are imported when an engine is made."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

if sys.platform != "win32":  # there the lease alone tells who is alive
    import fcntl

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's transaction on SQLite."""
BUSY_ROUND: Final = 0.05
"""Seconds SQLite itself waits; then it is asked again. It asks ever more rarely while it waits, and
would starve beside processes that write all the time."""
CONNECT_TIMEOUT: Final = 5
"""Seconds to connect to PostgreSQL."""
STATEMENT_TIMEOUT: Final = 10
"""Seconds a statement of PostgreSQL may take, waiting for locks included."""
READERS: Final = 3
"""Connections for reading."""

Insert = postgresql.Insert | sqlite.Insert


class Backend(Protocol):
    """One kind of database, at one place."""

    reader: AsyncEngine
    """For reading: a few connections, each statement on one state of the database."""
    insert: Callable[[sa.Table], Insert]
    now: sa.ColumnElement[float]
    """The database's clock, in seconds: the same for all its processes."""

    async def prepare(self) -> None:
        """Make it possible to connect, and show a sign of life that ends with this process."""
        ...

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that writes, on the one connection that does; committed at the end."""
        ...

    async def lock_schema(self, connection: AsyncConnection) -> None:
        """Let no other process change the schema during this transaction."""
        ...

    async def gone(self, connection: AsyncConnection, instance_id: str) -> bool:
        """Whether that process shows no sign of life; False when that cannot be told."""
        ...

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """Whether a text holds another, whatever the case of the ASCII letters."""
        ...

    def check(self) -> None:
        """Raise OSError when what was written could not be found again."""
        ...

    async def disconnect(self) -> None:
        """Close every connection; those that are needed are made anew."""
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
        self._writer, self.reader = (
            create_async_engine(
                url,
                connect_args={"timeout": timeout, "isolation_level": None},
                pool_size=size,
                max_overflow=0,
                hide_parameters=True,
            )
            for timeout, size in ((BUSY_ROUND, 1), (BUSY_TIMEOUT, READERS))
        )
        _on_connect(self._writer, "PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON")
        _on_connect(self.reader, "PRAGMA query_only=ON")
        _on_begin(self._writer, "BEGIN IMMEDIATE")
        _on_begin(self.reader, "BEGIN")

    async def prepare(self) -> None:
        """See Backend.prepare."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody else's business. O_EXCL: to open and close a file that SQLite uses would undo the
        # locks this process has on it.
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._show_life()
        async with self._writer.connect() as connection:
            await connection.run_sync(_switch_to_wal)
        self._identity = self._find()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """See Backend.writing. Only the beginning can meet another process's lock."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BUSY_TIMEOUT
        async with self._writer.connect() as connection:
            while True:
                try:
                    await connection.begin()
                    break
                except OperationalError as error:
                    if not _is_busy(error) or loop.time() > deadline:
                        raise
            yield connection
            await connection.commit()

    async def lock_schema(self, connection: AsyncConnection) -> None:
        """See Backend.lock_schema: BEGIN IMMEDIATE has done it."""

    async def gone(self, connection: AsyncConnection, instance_id: str) -> bool:
        """See Backend.gone."""
        return sys.platform != "win32" and _is_free(self._sign_of(instance_id))

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """See Backend.holds: LIKE does."""
        return text.contains(part, autoescape=True)

    def check(self) -> None:
        """See Backend.check: SQLite goes on writing to a file that was deleted."""
        if self._find() != self._identity:
            raise FileNotFoundError("the database's file is not where it was")

    async def disconnect(self) -> None:
        """See Backend.disconnect."""
        await self.reader.dispose()
        await self._writer.dispose()

    async def close(self) -> None:
        """See Backend.close."""
        await self.disconnect()
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
        sign = self._sign_of(self._instance_id)
        if self._alive is not None:
            if sign.exists():
                return
            os.close(self._alive)
            self._alive = None
        # Where no file can be made, the lease has to do.
        with contextlib.suppress(OSError):
            for left in self._path.parent.glob(f"{glob.escape(self._path.name)}-alive-*"):
                if _is_free(left):
                    left.unlink(missing_ok=True)
            self._alive = os.open(sign, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._alive, fcntl.LOCK_EX)  # others only look, and do not hold it


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
        }
        # What the URL says goes first.
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
        self._writer = create_async_engine(
            url, connect_args=arguments, pool_size=1, max_overflow=0, hide_parameters=True
        )
        self.reader = create_async_engine(
            url,
            connect_args=arguments,
            pool_size=READERS,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        _on_connect(
            self._writer,
            f"SET statement_timeout = '{STATEMENT_TIMEOUT}s'",
            f"SET idle_in_transaction_session_timeout = '{2 * STATEMENT_TIMEOUT}s'",
            f"SELECT pg_try_advisory_lock(hashtextextended('{instance_id}', 0))",
        )

    async def prepare(self) -> None:
        """See Backend.prepare: connecting shows life."""
        async with self._writer.connect():
            pass

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """See Backend.writing."""
        return self._writer.begin()

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

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """See Backend.holds."""
        return text.icontains(part, autoescape=True)

    def check(self) -> None:
        """See Backend.check: a server answers for what it has committed."""

    async def disconnect(self) -> None:
        """See Backend.disconnect."""
        await self.reader.dispose()
        await self._writer.dispose()

    async def close(self) -> None:
        """See Backend.close."""
        await self.disconnect()


if sys.platform != "win32":

    def _is_free(file: Path) -> bool:
        """Whether no living process holds this sign of life."""
        try:
            descriptor = os.open(file, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


def _is_busy(error: OperationalError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return bool(code & 0xFF == sqlite3.SQLITE_BUSY)


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

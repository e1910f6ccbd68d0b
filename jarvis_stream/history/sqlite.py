"""A SQLite file as a backend."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import glob
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import sqlalchemy as sa
from loguru import logger
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError

from jarvis_stream.history.backends import on_connect
from jarvis_stream.history.base import HistoryUnusable
from jarvis_stream.history.sqlite_search import SearchIndex
from jarvis_stream.history.threads import Threads

if sys.platform != "win32":  # there the lease alone tells who is alive
    import fcntl

if TYPE_CHECKING:
    from jarvis_stream.history.backends import Insert

T = TypeVar("T")

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's transaction."""
BUSY_ROUND: Final = 0.05
"""Seconds SQLite itself waits; then it is asked again. It asks ever more rarely while it waits, and
would starve beside processes that write all the time."""
READERS: Final = 3
"""Connections for reading, and threads."""
SEARCHERS: Final = 2
"""Connections for searches, and threads for them."""
SCHEMA: Final = "schema"
"""The name of the sign of a process that changes the schema, in place of an instance's."""
STEPS_BETWEEN_CHECKS: Final = 10_000
"""The virtual machine steps of SQLite between two checks of whether a search was cancelled."""


_REMEDIES: Final = {
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database: name another file",
    sqlite3.SQLITE_CANTOPEN: "the path must name a file, in a folder that this user may write to",
    sqlite3.SQLITE_READONLY: "this user may not write to the file or its folder: change its owner",
    sqlite3.SQLITE_PERM: "this user may not read or write the file: change its owner",
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk fails or is full: check the system's log",
    sqlite3.SQLITE_BUSY: "another process keeps it locked: stop that process",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked: stop that process",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a backup, or try sqlite3's .recover",
}
_REMEDIES_OF_SYSTEM: Final = {
    errno.EACCES: "this user may not enter or write to the folder: change its owner",
    errno.EPERM: "this user may not enter or write to the folder: change its owner",
    errno.EROFS: "the file system is read-only: name a path on another one",
    errno.ENOSPC: "the disk is full: free some space",
    errno.ENOTDIR: "a part of the path is a file, not a folder: name another path",
    errno.EEXIST: "a part of the path is a file, not a folder: name another path",
    errno.ENAMETOOLONG: "the path is too long: name a shorter one",
}


class SqliteBackend:
    """A file, in WAL mode.

    A commit survives the end of the process, however violent. When the machine loses power the
    newest commits can be lost (those since the last checkpoint of the WAL), never the file's
    integrity; with `?synchronous=full` in the URL, each waits for the disk and survives that too.
    For the sign of life, each process locks a small file beside the database.
    """

    def __init__(self, url: sa.URL, instance_id: str) -> None:
        """Raises HistoryUnusable for a `synchronous` that is neither `normal` nor `full`."""
        synchronous = url.query.get("synchronous", "normal")
        if synchronous not in ("normal", "full"):
            raise HistoryUnusable("synchronous in the database URL is normal or full")
        url = url.difference_update_query(["synchronous"])
        for name in url.query:
            raise HistoryUnusable(
                f"{name} in the database URL is unknown: SQLite supports only synchronous"
            )
        self._path = Path(url.database or "").absolute()
        self._instance_id = instance_id
        self._identity: tuple[int, int] | None = None
        self._alive: int | None = None
        self._connection: sa.Connection | None = None
        self.known_as = instance_id
        self.has_lateral = False
        self.insert: Callable[[sa.Table], Insert] = sqlite.insert
        self.now: sa.ColumnElement[float] = (sa.func.julianday("now") - 2440587.5) * 86400.0
        # Transactions are begun here, not by the driver, hence isolation_level=None; nor in a
        # listener of SQLAlchemy's, which would look for more of them at every statement.
        self._writer, self._reader = (
            sa.create_engine(
                url,
                connect_args={"timeout": timeout, "isolation_level": None},
                pool_size=size,
                max_overflow=0,
                hide_parameters=True,
            )
            for timeout, size in ((BUSY_ROUND, 1), (BUSY_TIMEOUT, READERS))
        )
        self._writing = Threads(1, "history-writer")
        self._reading = Threads(READERS, "history-reader")
        # Separate connections, so that searches never delay other reads.
        self._searcher = sa.create_engine(
            url,
            connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None},
            pool_size=SEARCHERS,
            max_overflow=0,
            hide_parameters=True,
        )
        self._searching = Threads(SEARCHERS, "history-search")
        self._index = SearchIndex(self)
        on_connect(self._writer, f"PRAGMA synchronous={synchronous}", "PRAGMA foreign_keys=ON")
        on_connect(self._reader, "PRAGMA query_only=ON")
        on_connect(self._searcher, "PRAGMA query_only=ON")

    def exists(self) -> bool:
        """See Backend.exists."""
        return self._path.exists()

    async def prepare(self) -> None:
        """See Backend.prepare.

        This is one job on the writing thread: a cancellation leaves it complete, hanging reads do
        not delay it, and a hanging disk does not block the event loop.
        """
        await self._writing.run(self._reconnect)

    def _reconnect(self) -> None:
        self._disconnect()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody else's business. O_EXCL: to open and close a file that SQLite uses would undo the
        # locks this process has on it.
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._show_life()
        _switch_to_wal(self._writer)
        self._identity = self._find()

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        """See Backend.write. Only the beginning can meet another process's lock."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BUSY_TIMEOUT
        while True:
            try:
                result = await self._writing.run(partial(self._make, change))
                self._index.due.set()
                return result
            except OperationalError as error:
                if not _is_busy(error) or loop.time() > deadline:
                    raise

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        """See Backend.read."""
        return await _Look(self._reader, look).run_on(self._reading)

    def _make(self, change: Callable[[sa.Connection], T]) -> T:
        # Kept, and not taken from the pool each time: nobody else writes.
        if self._connection is None:
            self._connection = self._writer.connect()
        with self._connection.begin():
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            result = change(self._connection)
        # SQLite continues to write to a deleted file.
        if self._find() != self._identity:
            raise FileNotFoundError("the database's file was moved or deleted")
        return result

    async def prepare_search(self) -> None:
        """See Backend.prepare_search."""
        await self._index.prepare()

    async def keep_searchable(self) -> None:
        """See Backend.keep_searchable."""
        await self._index.keep()

    async def search(self, look: Callable[[sa.Connection], T]) -> T:
        """See Backend.search."""
        return await _Look(self._searcher, look).run_on(self._searching)

    def find(self, word: str, owner: str) -> Sequence[sa.Select[Any]] | None:
        """See Backend.find."""
        return self._index.find(word, owner)

    async def change_schema(self, change: Callable[[sa.Connection], T]) -> T:
        """See Backend.change_schema.

        A change may take longer than BUSY_TIMEOUT: processes wait for each other at a lock file.
        """
        return await self._writing.run(partial(self._make_alone, change))

    def _make_alone(self, change: Callable[[sa.Connection], T]) -> T:
        lock = self._lock_schema()
        try:
            deadline = time.monotonic() + BUSY_TIMEOUT
            while True:
                try:
                    return self._make(change)
                except OperationalError as error:
                    if not _is_busy(error) or time.monotonic() > deadline:
                        raise
        finally:
            if lock is not None:
                self._sign_of(SCHEMA).unlink(missing_ok=True)
                os.close(lock)

    def _lock_schema(self) -> int | None:
        """Return the descriptor that holds the lock; None where no file can be made."""
        if sys.platform == "win32":
            return None
        sign = self._sign_of(SCHEMA)
        with contextlib.suppress(OSError):
            if not _is_free(sign):
                logger.info("history_schema_busy")
            return _lock(sign)
        return None

    def lock_sessions(
        self, connection: sa.Connection, session_ids: Sequence[str], stream_ids: Sequence[str]
    ) -> None:
        """See Backend.lock_sessions. BEGIN IMMEDIATE has already locked the whole file."""

    def gone(self, connection: sa.Connection, instance_id: str) -> bool:
        """See Backend.gone."""
        return sys.platform != "win32" and _is_free(self._sign_of(instance_id))

    def remedy(self, error: Exception) -> str | None:
        """See Backend.remedy."""
        if isinstance(error, OSError):
            return _REMEDIES_OF_SYSTEM.get(error.errno or 0)
        code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) & 0xFF
        return _REMEDIES.get(code)

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """See Backend.holds: LIKE does."""
        return text.contains(part, autoescape=True)

    async def close(self) -> None:
        """See Backend.close. Does not wait for hanging threads and connections."""
        try:
            await self._writing.run(self._end)
        finally:
            self._reading.close()
            self._searching.close()
            self._writing.close()

    def _end(self) -> None:
        self._disconnect()
        if self._alive is not None:
            self._sign_of(self._instance_id).unlink(missing_ok=True)
            os.close(self._alive)
            self._alive = None

    def _disconnect(self) -> None:
        """Close the connections; a connection with a running read closes after that read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._writer.dispose()
        self._reader.dispose()
        self._searcher.dispose()

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
            if _is_at(sign, self._alive):
                return
            os.close(self._alive)
            self._alive = None
        # Where no file can be made, the lease has to do.
        with contextlib.suppress(OSError):
            for left in self._path.parent.glob(f"{glob.escape(self._path.name)}-alive-*"):
                _is_free(left, remove=True)
            self._alive = _lock(sign)


if sys.platform != "win32":

    def _lock(file: Path) -> int:
        """Create a sign of life; return the descriptor that holds its lock."""
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                # Other processes hold the lock only for a moment. One that locked the file between
                # the two calls has removed it: our lock is then on a file without a name.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_at(file, descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_free(file: Path, *, remove: bool = False) -> bool:
        """Return whether no living process holds this sign of life; then `remove` deletes it."""
        try:
            descriptor = os.open(file, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # While the lock is held, no process can lock this file as its own.
            if remove and _is_at(file, descriptor):
                file.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _is_at(file: Path, descriptor: int) -> bool:
        """Return whether a path still names the open file."""
        try:
            found = os.stat(file)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(descriptor))


class _Look(Generic[T]):
    """One read transaction, which ends soon after its caller is cancelled."""

    def __init__(self, engine: sa.Engine, look: Callable[[sa.Connection], T]) -> None:
        self._engine = engine
        self._look = look
        self._lock = threading.Lock()
        self._abandoned = False
        self._driver: sqlite3.Connection | None = None

    async def run_on(self, threads: Threads) -> T:
        """Run it on one of the threads; a cancellation interrupts it."""
        try:
            return await threads.run(self._run)
        except asyncio.CancelledError:
            with self._lock:
                self._abandoned = True
                if self._driver is not None:
                    self._driver.interrupt()
            raise

    def _run(self) -> T:
        with self._engine.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            # interrupt() has no effect between two statements.
            driver.set_progress_handler(lambda: self._abandoned, STEPS_BETWEEN_CHECKS)
            with self._lock:
                self._driver = driver
            try:
                connection.exec_driver_sql("BEGIN")
                return self._look(connection)
            finally:
                with self._lock:
                    self._driver = None
                driver.set_progress_handler(None, 0)


def _is_busy(error: OperationalError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return bool(code & 0xFF == sqlite3.SQLITE_BUSY)


def _switch_to_wal(engine: sa.Engine) -> None:
    # Not in a transaction, so past SQLAlchemy. The file remembers it: nothing is written when it
    # is set already, and a file that cannot be written stays as it is.
    connection = engine.raw_connection()
    with contextlib.suppress(sqlite3.OperationalError):
        connection.cursor().execute("PRAGMA journal_mode=WAL").close()
    connection.close()

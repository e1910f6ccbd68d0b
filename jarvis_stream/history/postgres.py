"""A PostgreSQL server as a backend."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa
from loguru import logger
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from jarvis_stream.history.base import HistoryUnusable
from jarvis_stream.history.schema import turns
from jarvis_stream.history.search import holds_word

if TYPE_CHECKING:
    from jarvis_stream.history.backends import Insert

T = TypeVar("T")

CONNECT_TIMEOUT: Final = 5
"""Seconds to connect."""
STATEMENT_TIMEOUT: Final = 10
"""Seconds a statement may take, waiting for locks included."""
READERS: Final = 3
"""Connections for reading."""
SEARCHERS: Final = 2
"""Connections for searches."""
_TRIGRAM: Final = re.compile(r"\w{3}")
"""A part that a word needs, so that an index of trigrams can find it."""
MAX_ATTEMPTS: Final = 5
"""The most attempts at a transaction that the server aborts in favour of another one."""

POOLED: Final = "pooled-"
"""The prefix of the name of a process whose only sign of life is its lease."""
# SQLSTATEs, parts of messages (libpq has no SQLSTATEs), and the remedy.
_REMEDIES: Final[tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...]] = (
    (
        ("28P01",),
        ("password authentication failed", "no password supplied"),
        "check user and password: in the URL, in PGPASSWORD, or in ~/.pgpass",
    ),
    (("3D000",), ("does not exist", "no such database"), "create it, or name another one"),
    (("28000",), ("pg_hba.conf",), "add a line to the server's pg_hba.conf for this user and host"),
    (
        ("42501",),
        ("permission denied",),
        "the user needs CREATE and USAGE on the schema, and must own the tables",
    ),
    ((), ("Connection refused", "No such file"), "check host and port, and whether it runs there"),
    ((), ("failed to resolve", "translate host name", "Name or service"), "check the host's name"),
    ((), ("timeout expired", "timed out"), "it does not respond: check the address and firewalls"),
    (("53300",), ("too many clients",), "it has too many connections: raise max_connections"),
    (("53100",), (), "its disk is full: free some space"),
    (("25006",), (), "it is read-only, perhaps a standby: name the primary"),
    (("57P03",), ("starting up",), "it is starting: try again"),
    (("08P01",), ("unsupported startup parameter",), "the pooler rejects it: check its settings"),
    ((), ("invalid", "bad value"), "check the parameters in the URL"),
)
LARGE: Final = 1_000
"""The number of turns from which the creation of the index is logged."""

# Every statement looks rows up by their keys. Without statistics of a table, the planner would
# read a whole session, or all sessions, instead of using the index.
_BY_KEYS: Final = (
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
)

_LOCK_SESSIONS: Final = sa.text(
    "SELECT count(pg_advisory_xact_lock(key)) FROM ("
    ' SELECT DISTINCT hashtextextended(session_id COLLATE "C", 1) AS key FROM ('
    "  SELECT unnest(CAST(:session_ids AS text[])) AS session_id"
    "  UNION ALL"
    "  SELECT session_id FROM jarvis_turns WHERE stream_id = ANY(CAST(:stream_ids AS text[]))"
    " ) AS these ORDER BY key"
    ") AS sorted"
)


class PostgresBackend:
    """A PostgreSQL server. The writing connection of each process holds an advisory lock as its
    sign of life.

    Behind a pooler that may give each transaction another connection (PgBouncer with pool_mode =
    transaction), no setting, prepared statement or lock is kept on a connection. The lease is then
    the only sign of life, and the name of the process shows this to other processes.
    """

    def __init__(self, url: sa.URL, instance_id: str) -> None:
        """Raise HistoryUnusable for an unknown parameter in the URL."""
        url, threshold = _checked(url)
        self.known_as = instance_id
        self._instance_id = instance_id
        self._pooled = False
        self.has_lateral = True
        self.insert: Callable[[sa.Table], Insert] = postgresql.insert
        self.now: sa.ColumnElement[float] = sa.cast(
            sa.extract("epoch", sa.func.clock_timestamp()), sa.Double
        )
        arguments: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "application_name": "jarvis-stream",
            # A server that has vanished without a word is noticed.
            "keepalives_idle": STATEMENT_TIMEOUT,
            "tcp_user_timeout": STATEMENT_TIMEOUT * 1000,
        }
        # What the URL says goes first.
        arguments = {name: value for name, value in arguments.items() if name not in url.query}
        arguments["client_encoding"] = "utf8"
        arguments |= threshold
        self._writer = create_async_engine(
            url, connect_args=arguments, pool_size=1, max_overflow=0, hide_parameters=True
        )
        self._reader = create_async_engine(
            url,
            connect_args=arguments,
            pool_size=READERS,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        self._set_up(
            self._writer,
            f"SET statement_timeout = '{STATEMENT_TIMEOUT}s'",
            f"SET idle_in_transaction_session_timeout = '{2 * STATEMENT_TIMEOUT}s'",
            *_BY_KEYS,
        )
        self._set_up(self._reader, *_BY_KEYS)
        # Separate connections, so that searches never delay other reads.
        self._searcher = create_async_engine(
            url,
            # The plan depends on the word: no prepared statements.
            connect_args={**arguments, "prepare_threshold": None},
            pool_size=SEARCHERS,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        self._set_up(
            self._searcher,
            f"SET statement_timeout = '{STATEMENT_TIMEOUT}s'",
            "SET enable_seqscan = off",  # the planner underestimates long texts
            "SET jit = off",
        )
        self._indexed = False
        """Whether there is an index of texts."""
        self._indexes_unicode = False
        """Whether that index supports letters outside ASCII."""
        # What nobody waits for any more. Each holds one of the connections, so they are few.
        self._left: set[asyncio.Task[Any]] = set()

    def exists(self) -> bool:
        """See Backend.exists."""
        return True

    async def prepare(self) -> None:
        """See Backend.prepare: connecting shows life."""
        await self._disconnect()
        async with self._writer.connect() as connection:
            encoding = await connection.scalar(sa.text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise HistoryUnusable(
                f"the database has the encoding {encoding}, which cannot store every character:"
                " create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )

    def _set_up(self, engine: AsyncEngine, *settings: str) -> None:
        """Apply these settings to every connection or, behind a pooler, to every transaction."""
        local = "; ".join(one.replace("SET ", "SET LOCAL ", 1) for one in settings)

        @sa.event.listens_for(engine.sync_engine, "connect")
        def connected(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("SELECT pg_backend_pid()")
            driver = connection.driver_connection
            # A pooler reports process ids of its own.
            self._pooled = cursor.fetchone()[0] != driver.info.backend_pid
            if self._pooled:
                driver.prepare_threshold = None
                self.known_as = POOLED + self._instance_id
            else:
                for setting in settings:  # one by one: they may be prepared
                    cursor.execute(setting)
                if engine is self._writer:
                    cursor.execute(
                        f"SELECT pg_try_advisory_lock(hashtextextended('{self._instance_id}', 0))"
                    )
            cursor.close()
            connection.commit()

        @sa.event.listens_for(engine.sync_engine, "begin")
        def begun(connection: sa.Connection) -> None:
            if self._pooled:
                connection.exec_driver_sql(local)

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        """See Backend.write."""

        async def make() -> T:
            async with self._writer.begin() as connection:
                return await connection.run_sync(change)

        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await self._unless_cancelled(make())
            except DBAPIError as error:
                if not _is_conflict(error):
                    raise
                await asyncio.sleep(random.uniform(0.0, 0.02))
        return await self._unless_cancelled(make())

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        """See Backend.read."""

        async def see() -> T:
            async with self._reader.connect() as connection:
                return await connection.run_sync(look)

        return await self._unless_cancelled(see())

    async def _unless_cancelled(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it; who is cancelled leaves at once.

        The driver, when it is cancelled, asks the server to stop, and waits for seconds for one
        that hangs. It has the connection until then.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            self._left.add(task)
            task.add_done_callback(self._forget)
            raise
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: nobody is to be told

    async def change_schema(self, change: Callable[[sa.Connection], T]) -> T:
        """See Backend.change_schema."""

        def make(connection: sa.Connection) -> T:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            lock = sa.func.hashtextextended("jarvis_schema", 0)
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(lock))):
                logger.info("history_schema_busy")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            return change(connection)

        return await self.write(make)

    def lock_sessions(
        self, connection: sa.Connection, session_ids: Sequence[str], stream_ids: Sequence[str]
    ) -> None:
        """See Backend.lock_sessions. Advisory locks also work for a session without a row.

        The sorting subquery ends before the locks are taken, so they are taken in its order.
        """
        connection.execute(
            _LOCK_SESSIONS, {"session_ids": [*session_ids], "stream_ids": [*stream_ids]}
        )

    def gone(self, connection: sa.Connection, instance_id: str) -> bool:
        """See Backend.gone."""
        if instance_id.startswith(POOLED):
            return False
        free: bool | None = connection.scalar(
            sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended(instance_id, 0)))
        )
        return bool(free)

    async def prepare_search(self) -> None:
        """See Backend.prepare_search. Needs the extension pg_trgm."""
        try:
            found = await self.read(_find_index)
            if found is None:
                found = await self.change_schema(self._make_index)
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            logger.warning("search_index_unavailable error={} sqlstate={}", _name(error), state)
            return
        self._indexed, self._indexes_unicode = True, found

    def _make_index(self, connection: sa.Connection) -> bool:
        if (found := _find_index(connection)) is not None:
            return found
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        (schema,) = connection.exec_driver_sql(
            "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n"
            " ON n.oid = extnamespace WHERE extname = 'pg_trgm'"
        ).one()
        count = connection.exec_driver_sql(
            "SELECT reltuples FROM pg_class WHERE oid = 'jarvis_turns'::regclass"
        ).scalar_one()
        if count >= LARGE:
            logger.info("search_index_building turns={:.0f}", count)
        began = time.monotonic()
        # A turn enters the index when its answer has ended, so that it is indexed once. A short
        # list of pending entries is fast to merge and to search.
        connection.exec_driver_sql(
            "CREATE INDEX IF NOT EXISTS jarvis_turns_texts ON jarvis_turns USING gin"
            f" (prompt {schema}.gin_trgm_ops, answer {schema}.gin_trgm_ops)"
            " WITH (gin_pending_list_limit = 256) WHERE status <> 'streaming'"
        )
        if count >= LARGE:
            seconds = time.monotonic() - began
            logger.info("search_index_built turns={:.0f} seconds={:.1f}", count, seconds)
        found = _find_index(connection)
        assert found is not None
        return found

    async def keep_searchable(self) -> None:
        """See Backend.keep_searchable. Does nothing: PostgreSQL updates the index."""

    async def search(self, look: Callable[[sa.Connection], T]) -> T:
        """See Backend.search."""

        async def see() -> T:
            async with self._searcher.connect() as connection:
                return await connection.run_sync(look)

        return await self._unless_cancelled(see())

    def find(self, word: str, owner: str) -> Sequence[sa.Select[Any]] | None:
        """See Backend.find."""
        if not self._indexed or not _TRIGRAM.search(word):
            return None
        if not (self._indexes_unicode or word.isascii()):
            return None
        streaming: sa.ColumnElement[str] = sa.literal_column("'streaming'")
        # No other condition with an index: without statistics, the planner would use that index.
        these = sa.select(turns.c.session_id, turns.c.stream_id)
        return (
            these.where(
                turns.c.status != streaming,
                holds_word(self, word, turns.c.prompt, turns.c.answer),
            ),
            these.where(turns.c.status == streaming, holds_word(self, word, turns.c.prompt)),
        )

    def remedy(self, error: Exception) -> str | None:
        """See Backend.remedy."""
        cause = getattr(error, "orig", None) or error
        state = getattr(cause, "sqlstate", None)
        text = str(cause)
        for states, words, remedy in _REMEDIES:
            if state in states or any(word in text for word in words):
                return remedy
        return None

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """See Backend.holds."""
        return text.icontains(part, autoescape=True)

    async def _disconnect(self) -> None:
        await self._searcher.dispose()
        await self._reader.dispose()
        await self._writer.dispose()

    async def close(self) -> None:
        """See Backend.close."""
        if self._left:
            for task in self._left:
                task.cancel()  # again: now the driver waits for no answer
            await asyncio.wait(self._left)
        await self._disconnect()


def _checked(url: sa.URL) -> tuple[sa.URL, dict[str, int | None]]:
    """Return the URL with libpq's parameters, and `prepare_threshold`; raise HistoryUnusable."""
    import psycopg

    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    place = url.set(query={}).render_as_string(hide_password=True)
    for name in url.query:
        if name not in known and name != "prepare_threshold":
            raise HistoryUnusable(
                f"{name} in the database URL of {place} is unknown: use prepare_threshold or a"
                " parameter of libpq, like sslmode"
            )
    threshold = url.query.get("prepare_threshold")
    if threshold is None:
        return url, {}
    if not isinstance(threshold, str) or not re.fullmatch("[0-9]{1,9}|none", threshold, re.ASCII):
        raise HistoryUnusable(
            f"prepare_threshold in the database URL of {place} must be a whole number (the"
            " executions of a statement before it is prepared) or none"
        )
    value = None if threshold == "none" else int(threshold)
    return url.difference_update_query(["prepare_threshold"]), {"prepare_threshold": value}


def _find_index(connection: sa.Connection) -> bool | None:
    """Return whether the index of texts supports letters outside ASCII; None without an index."""
    found = connection.exec_driver_sql(
        "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
        " WHERE extname = 'pg_trgm' AND EXISTS (SELECT 1 FROM pg_index"
        " WHERE indexrelid = to_regclass('jarvis_turns_texts') AND indisvalid)"
    ).one_or_none()
    if found is None:
        return None
    question = f"SELECT cardinality({found[0]}.show_trgm('\u65e5\u672c\u8a9e')) > 0"
    return bool(connection.exec_driver_sql(question).scalar_one())


def _name(error: DBAPIError) -> str:
    return type(error.orig or error).__name__


def _is_conflict(error: DBAPIError) -> bool:
    """Return whether the server aborted the transaction only because of concurrent ones."""
    return getattr(error.orig, "sqlstate", None) in ("40001", "40P01")

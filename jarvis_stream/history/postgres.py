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
"""What a word must hold, so that an index of trigrams can find it."""
MAX_ATTEMPTS: Final = 5
"""How often a transaction is made that the server aborts for the sake of another one."""

POOLED: Final = "pooled-"
"""How the name of a process begins that shows no life but its lease."""
# SQLSTATEs, and words of the server or of libpq, which has none: for each what to do.
_REMEDIES: Final[tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...]] = (
    (
        ("28P01",),
        ("password authentication failed", "no password supplied"),
        "check user and password: in the URL, in PGPASSWORD, or in ~/.pgpass",
    ),
    (("3D000",), ("does not exist", "no such database"), "create it, or name another one"),
    (("28000",), ("pg_hba.conf",), "the server does not admit this user from here: pg_hba.conf"),
    (
        ("42501",),
        ("permission denied",),
        "the user needs CREATE and USAGE on the schema, and must own the tables",
    ),
    ((), ("Connection refused", "No such file"), "check host and port, and whether it runs there"),
    ((), ("failed to resolve", "translate host name", "Name or service"), "check the host's name"),
    ((), ("timeout expired", "timed out"), "it does not answer: check the address, and firewalls"),
    (("53300",), ("too many clients",), "it has too many connections: raise max_connections"),
    (("53100",), (), "its disk is full: make room"),
    (("25006",), (), "it is read-only, a standby perhaps: name the primary"),
    (("57P03",), ("starting up",), "it is starting: try again"),
    (("08P01",), ("unsupported startup parameter",), "the pooler refuses it: see its settings"),
    ((), ("invalid", "bad value"), "check the parameters in the URL"),
)
LARGE: Final = 1_000
"""Turns from which on the making of their index is logged."""

# Every statement looks rows up by their keys. While the server has no statistics of a table, it
# would rather read a whole session, or all sessions, than use the index.
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
    """A server. For the sign of life, each process's writing connection holds an advisory lock.

    Between us and the server there may be a pooler that gives each transaction another connection
    (PgBouncer, pool_mode = transaction): nothing is kept on a connection then, no setting, no
    prepared statement and no lock. The sign of life is then the lease alone, and the name of the
    process says so to others.
    """

    def __init__(self, url: sa.URL, instance_id: str) -> None:
        """Raises HistoryUnusable for a parameter in the URL that is unknown."""
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
        # Of their own: searches never keep a conversation from being read.
        self._searcher = create_async_engine(
            url,
            # Planned for each word anew.
            connect_args={**arguments, "prepare_threshold": None},
            pool_size=SEARCHERS,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
        )
        self._set_up(
            self._searcher,
            f"SET statement_timeout = '{STATEMENT_TIMEOUT}s'",
            "SET enable_seqscan = off",  # the server thinks that long texts are read quickly
            "SET jit = off",
        )
        self._indexed = False
        """Whether there is an index of texts,"""
        self._indexes_unicode = False
        """and whether it knows other letters than ASCII's."""
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
                f"the database has the encoding {encoding}, which cannot hold every character:"
                " use one made by CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )

    def _set_up(self, engine: AsyncEngine, *settings: str) -> None:
        """Make these settings on every connection, or, behind a pooler, in every transaction."""
        local = "; ".join(one.replace("SET ", "SET LOCAL ", 1) for one in settings)

        @sa.event.listens_for(engine.sync_engine, "connect")
        def connected(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("SELECT pg_backend_pid()")
            driver = connection.driver_connection
            # A pooler gives its clients numbers of its own.
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
        """See Backend.lock_sessions: advisory locks, which a session has before its row is there.

        A subquery that sorts is finished before the locks are taken, in its order.
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
        """See Backend.prepare_search: pg_trgm, which the server's owner may not have installed."""
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
        # A question is not in it before its answer has ended: neither waits for it twice. A short
        # list of pending entries is soon merged, and soon searched.
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
        """See Backend.keep_searchable: the server does it."""

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
        # No other condition that an index serves: the planner, while it has no statistics, would
        # choose that one.
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
    """The URL with what libpq knows, and `prepare_threshold`; raises HistoryUnusable."""
    import psycopg

    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    place = url.set(query={}).render_as_string(hide_password=True)
    for name in url.query:
        if name not in known and name != "prepare_threshold":
            raise HistoryUnusable(
                f"{name} in the database URL of {place} is unknown; known are libpq's parameters,"
                " like sslmode, and prepare_threshold"
            )
    threshold = url.query.get("prepare_threshold")
    if threshold is None:
        return url, {}
    if not isinstance(threshold, str) or not re.fullmatch("[0-9]{1,9}|none", threshold, re.ASCII):
        raise HistoryUnusable(
            f"prepare_threshold in the database URL of {place} is a whole number (how often a"
            " statement is made before it is prepared) or none"
        )
    value = None if threshold == "none" else int(threshold)
    return url.difference_update_query(["prepare_threshold"]), {"prepare_threshold": value}


def _find_index(connection: sa.Connection) -> bool | None:
    """Whether the index of texts knows other letters than ASCII's; None without an index."""
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
    """Whether the server aborted the transaction only because of others at the same time."""
    return getattr(error.orig, "sqlstate", None) in ("40001", "40P01")

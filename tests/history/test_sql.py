"""What the statements of a SQL store cost, on both databases."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from contracts.history import PATIENCE, eventually
from postgres_server import PostgresServer

from jarvis_stream.errors import Unavailable
from jarvis_stream.history import postgres, sql, sqlite_search
from jarvis_stream.history.base import Limits, Span, TurnEnd, TurnStart
from jarvis_stream.history.open import make_backend, make_store
from jarvis_stream.history.search import Found, find_sessions
from jarvis_stream.history.sql import SqlStore
from jarvis_stream.history.store import Batch
from jarvis_stream.history.views import record_of

LONG = 5_000
"""Turns of a long session; many times as many as an agent is told of."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.sqlite3'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


class Meter:
    """Counts what statements cost: steps of SQLite's machine, rows that PostgreSQL looks at."""

    def __init__(self) -> None:
        self.steps = 0

    def on(self, connection: sa.Connection, change: Callable[[sa.Connection], object]) -> int:
        """Make a change, and return what it cost."""
        if connection.dialect.name == "sqlite":
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            self.steps = 0
            driver.set_progress_handler(self._step, 1)
            change(connection)
            driver.set_progress_handler(None, 0)
            return self.steps
        looked_at = sa.text(
            "SELECT CAST(sum(seq_tup_read + idx_tup_fetch) AS integer)"
            " FROM pg_stat_xact_user_tables WHERE relname LIKE 'jarvis%'"
        )
        before = connection.scalar(looked_at) or 0
        change(connection)
        return int(connection.scalar(looked_at) or 0) - before

    def _step(self) -> int:
        self.steps += 1
        return 0


@asynccontextmanager
async def opened(url: str, name: str = "me") -> AsyncIterator[SqlStore]:
    store = make_store(make_backend(url, name), name, Limits(max_messages=20))
    await store.prepare()
    try:
        await store.renew()
        yield store
    finally:
        await store.close()


def start(session_id: str, number: int) -> TurnStart:
    return TurnStart(
        session_id=session_id,
        stream_id=f"{session_id}-{number:06}",
        epoch=number,
        prompt="question",
        created_at=float(number),
    )


async def fill(store: SqlStore, session_id: str, first: int, count: int) -> None:
    for lowest in range(first, first + count, 1000):
        numbers = range(lowest, min(lowest + 1000, first + count))
        ended = TurnEnd(status="complete")
        begins = [record_of(start(session_id, n), "answer", ended) for n in numbers]
        await store.write(Batch(begins=begins))


async def cost(store: SqlStore, change: Callable[[sa.Connection], Any], *, read: bool) -> int:
    use: Any = store._backend.read if read else store._backend.write
    return int(await use(lambda connection: Meter().on(connection, change)))


async def test_what_a_question_costs_does_not_depend_on_its_session(url: str) -> None:
    async with opened(url) as store:
        await fill(store, "short", 1, 100)
        await fill(store, "long", 1000, LONG)

        async def question(session_id: str, number: int) -> list[int]:
            begun = record_of(start(session_id, number), "", None)
            ended = record_of(start(session_id, number), "a", TurnEnd(status="complete"))
            leaving = Span(session_id, number, number + 1)
            batches = (
                Batch(begins=[begun]),
                Batch(ends=[ended]),
                Batch(titles=[(session_id, "title", 0.0)]),
                Batch(removals=[leaving]),
                Batch(begins=[record_of(start(session_id, number + 1), "", None)]),
                Batch(removals=[Span(session_id, number + 1, number + 2)]),
                Batch(begins=[begun]),
            )
            return [
                await cost(store, lambda c, b=batch: store._make(b, c), read=False)  # type: ignore[misc]
                for batch in batches
            ]

        # Without the server's statistics, and with them.
        for number in (10_000, 20_000):
            short = await question("short", number)
            long = await question("long", number + 1)
            assert all(b < 1.5 * a + 50 for a, b in zip(short, long, strict=True)), (short, long)
            await store._backend.write(lambda c: c.exec_driver_sql("ANALYZE"))


async def test_what_reading_costs_does_not_depend_on_the_session(url: str) -> None:
    async with opened(url) as store:
        assert store._indexing is not None
        store._indexing.cancel()  # it reads too
        await asyncio.wait({store._indexing})
        await fill(store, "s", 1, 100)

        async def readings() -> list[int]:
            statements = (
                store.recent("s"),
                store.turns("s", limit=10, before=None),
                store.turns("s", limit=10, before=50),
                store.session("s"),
                store.sessions(owner="", limit=10, before=None, query=None),
                store.last_epoch(),
                store.count(""),
            )
            costs: list[int] = []
            read = store._backend.read

            async def measured(look: Callable[[sa.Connection], Any]) -> Any:
                found: list[Any] = []
                costs.append(await read(lambda c: Meter().on(c, lambda c: found.append(look(c)))))
                return found[0]

            store._backend.read = measured  # type: ignore[method-assign]
            try:
                for statement in statements:
                    await statement
            finally:
                del store._backend.read
            return costs

        short = await readings()
        await fill(store, "s", 101, LONG)
        for _ in range(2):  # without the server's statistics, and with them
            long = await readings()
            assert all(b < 1.5 * a + 50 for a, b in zip(short, long, strict=True)), (short, long)
            await store._backend.write(lambda c: c.exec_driver_sql("ANALYZE"))


async def test_a_session_knows_how_many_messages_it_has(url: str) -> None:
    async with opened(url) as store:
        await fill(store, "s", 1, 10)
        await fill(store, "t", 1, 3)
        await fill(store, "s", 5, 1)  # one that is there already is not counted again

        async def counts() -> list[int]:
            page = await store.sessions(owner="", limit=10, before=None, query=None)
            return sorted(one.message_count for one in page.sessions)

        assert await counts() == [6, 20]
        await store.write(Batch(removals=[Span("s", 0, 4), Span("t", 3, 4)]))
        assert await counts() == [4, 14]
        await store.write(Batch(removals=[Span("t", 1, 3)]))
        assert await counts() == [14]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_two_processes_that_change_the_same_sessions_never_deadlock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conflicts: list[Exception] = []
    monkeypatch.setattr(postgres, "_is_conflict", conflicts.append)
    async with opened(url) as one, opened(url, "two") as two:

        async def change(store: SqlStore, names: list[str], numbers: range) -> None:
            for number in numbers:
                turns = [record_of(start(name, number), "", None) for name in names]
                ended = TurnEnd(status="complete")
                await store.write(Batch(begins=turns))
                await store.write(
                    Batch(
                        removals=[Span(name, 0, number - 3) for name in names],
                        titles=[(name, str(number), 0.0) for name in names],
                        ends=[record_of(start(name, number), "a", ended) for name in names],
                    )
                )

        names = [f"s{number}" for number in range(40)]
        backwards = names[::-1]
        await asyncio.gather(
            change(one, names, range(1, 21, 2)), change(two, backwards, range(2, 22, 2))
        )
    assert conflicts == []


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("state", ["40P01", "40001"])
async def test_a_transaction_that_the_server_aborts_for_another_is_repeated(
    url: str, state: str
) -> None:
    async with opened(url) as store:
        attempts: list[int] = []

        def change(connection: sa.Connection) -> str:
            attempts.append(len(attempts))
            if len(attempts) < 3:
                connection.exec_driver_sql(
                    f"DO $$ BEGIN RAISE EXCEPTION 'aborted' USING ERRCODE = '{state}'; END $$"
                )
            return "done"

        assert await store._backend.write(change) == "done"
        assert attempts == [0, 1, 2]


async def test_a_search_for_what_occurs_nowhere_reads_no_texts(url: str) -> None:
    async with opened(url) as store:
        await fill(store, "s", 1, 2000)
        if url.startswith("sqlite"):
            await eventually(lambda: all_is_indexed(store))

        def search(connection: sa.Connection, *words: str) -> list[Found]:
            return find_sessions(connection, store._backend, "", words, before=None, limit=10)

        def measured(connection: sa.Connection, *words: str) -> int:
            return Meter().on(connection, lambda connection: search(connection, *words))

        few = 5000 if url.startswith("sqlite") else 500
        assert await store._backend.search(lambda c: search(c, "question", "answer")) != []
        assert await store._backend.search(lambda c: search(c, "question", "zzqqzz")) == []
        assert await store._backend.search(lambda c: measured(c, "zzqqzz")) < few
        assert await store._backend.search(lambda c: measured(c, "question", "zzqqzz")) < few


async def all_is_indexed(store: SqlStore) -> bool:
    return not await store._backend.read(sqlite_search._is_due)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_without_the_right_to_create_the_extension_texts_are_read(
    url: str, postgres: PostgresServer, log_lines: list[str]
) -> None:
    postgres.execute("CREATE ROLE humble LOGIN")
    postgres.execute("GRANT CREATE ON SCHEMA public TO humble", url)
    async with opened(url.replace("jarvis@", "humble@")) as store:
        await fill(store, "s", 1, 400)
        page = await store.sessions(owner="", limit=10, before=None, query="answer question")
        assert [(one.session_id, one.snippet) for one in page.sessions] == [("s", "question")]
    assert [line.split(" ")[0] for line in log_lines] == ["search_index_unavailable"]


async def test_a_search_that_takes_too_long_ends_with_a_clear_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "SEARCH_TIMEOUT", 0.2)
    monkeypatch.setattr(sql, "find_sessions", lambda connection, *rest, **more: forever(connection))
    async with opened(url) as store, asyncio.timeout(PATIENCE):
        for _ in range(4):  # more than there are connections for it
            with pytest.raises(Unavailable, match="longer or rarer words"):
                await store.sessions(owner="ann", limit=10, before=None, query="x")
        assert store._searching == {}


def forever(connection: sa.Connection) -> list[Found]:
    return [
        (str(count), None)
        for count in connection.scalars(
            sa.text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT (i + 1) % 1000 FROM n)"
                " SELECT count(*) FROM n"
            )
        )
    ]


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_a_step_of_the_databases_clock_ends_no_living_answer(url: str, step: float) -> None:
    stores = [
        make_store(make_backend(url, name), name, Limits(lease=3.0)) for name in ("ours", "theirs")
    ]
    ours, theirs = stores
    start = TurnStart(session_id="s", stream_id="1", epoch=1, prompt="q", created_at=0.0)
    try:
        for store in stores:
            await store.prepare()
            await store.renew()
            assert await store.reclaim(opening=True) == 0
        await ours.write(Batch(begins=[record_of(start, "", None)]))
        theirs._clock.steady_since -= 10.0  # it has looked at the clock for a while
        theirs._backend.now = theirs._backend.now + step
        assert await theirs.reclaim(opening=False) == 0
        ours._backend.now = ours._backend.now + step
        await ours.renew()
        theirs._clock.steady_since -= 10.0
        assert await theirs.reclaim(opening=False) == 0
        (turn,) = await theirs.recent("s")
        assert turn.status == "streaming"
        # Of who does not renew, nothing is kept for longer than without a step.
        theirs._backend.now = theirs._backend.now - step
        assert await theirs.reclaim(opening=False) == 0
        theirs._clock.steady_since -= 10.0
        assert await theirs.reclaim(opening=False) == 1
    finally:
        for store in stores:
            await store.close()

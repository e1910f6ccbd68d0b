"""History in a PostgreSQL database, on a real server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from contracts.history import (
    PATIENCE,
    PATIENT,
    Backend,
    DurableContract,
    Speaker,
    eventually,
    plain,
    saved,
    shapes,
)
from pgbouncer import pooling
from postgres_server import PostgresServer

from jarvis_stream.errors import Unavailable
from jarvis_stream.history import postgres as postgres_module
from jarvis_stream.history import schema
from jarvis_stream.history.base import HistoryUnusable, Span
from jarvis_stream.history.open import open_history
from jarvis_stream.history.postgres import READERS

from .crashing import kill_again_and_again


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


class TestPostgres(DurableContract):
    """See the contract."""


async def test_killed_again_and_again_it_loses_nothing_acknowledged(
    url: str, tmp_path: Path
) -> None:
    await kill_again_and_again(url, tmp_path, times=15, seed=44)


async def test_while_the_server_is_down_the_chat_goes_on(
    postgres: PostgresServer, url: str, log_lines: list[str]
) -> None:
    impatient = replace(PATIENT, begin_timeout=3.0, checkpoint_every=0.05)
    async with open_history(url, impatient) as history:
        speaker = Speaker(history)
        await speaker.keep("s", "1", "q1", "a1")
        live, answer = speaker.ask("s", "2", "q2")
        await live
        postgres.stop()
        try:
            begun, _ = speaker.ask("s", "3", "q3")
            result = await begun
            assert not result.saved
            assert plain(result.messages) == ["u:q2", "u:q3"]
            answer.say("a2")
            assert not await speaker.end("2")
            assert not await speaker.end("3", "cancelled")
            with pytest.raises(Unavailable):
                await history.turns("s")
        finally:
            postgres.start()
        await saved(history)
        await speaker.turn("s", "4", "q4", "a4")
        assert shapes(await history.turns("s")) == [
            ("1", "q1", "a1", "complete"),
            ("2", "q2", "a2", "complete"),
            ("3", "q3", "", "cancelled"),
            ("4", "q4", "a4", "complete"),
        ]
        assert (history.health.dropped, history.health.backlog_bytes) == (0, 0)
    assert "history_recovered" in {line.split(" ")[0] for line in log_lines}


async def test_of_a_server_that_hangs_nobody_waits_for_the_cancelling(
    postgres: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = asyncio.Event()

    async def cancel(connection: object, **how: object) -> None:
        await answered.wait()

    monkeypatch.setattr(psycopg.AsyncConnection, "cancel_safe", cancel)
    impatient = replace(PATIENT, begin_timeout=1.0, read_timeout=1.0)
    async with asyncio.timeout(2 * PATIENCE), AsyncExitStack() as stack:
        history = await stack.enter_async_context(open_history(url, impatient, flush_timeout=0.1))
        with postgres.hanging():
            more_than_connections = (history.turns("s") for _ in range(READERS + 1))
            results = await asyncio.gather(*more_than_connections, return_exceptions=True)
            assert [type(result) for result in results] == [Unavailable] * (READERS + 1)
            begun, _ = Speaker(history).ask("s", "1")
            assert not (await begun).saved
        answered.set()

        async def readable() -> bool:
            with suppress(Unavailable):
                return shapes(await history.turns("s")) == [("1", "q", "", "streaming")]
            return False

        await eventually(readable)
        answered.clear()
        with postgres.hanging():
            with pytest.raises(Unavailable):
                await history.turns("t")
            await stack.aclose()


async def test_a_connection_that_breaks_is_made_anew(
    postgres: PostgresServer, backend: Backend
) -> None:
    async with backend() as history:
        speaker = Speaker(history)
        begun, answer = speaker.ask("s", "1")
        await begun
        answer.say("a")
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'jarvis-stream'"
        )
        assert await speaker.end("1")
        assert shapes(await history.turns("s")) == [("1", "q", "a", "complete")]
        # And it shows life again: nobody who comes now thinks it dead.
        begun, _ = speaker.ask("s", "2")
        await begun
        async with backend() as other:
            assert (await other.turns("s"))[1].status == "streaming"


async def test_what_the_server_refuses_stops_nothing_else(
    backend: Backend, log_lines: list[str]
) -> None:
    async with backend() as history:
        speaker = Speaker(history)
        begun = [
            speaker.ask("s", str(number), "\ud800" if number in (3, 30) else "q")[0]
            for number in range(50)
        ]
        results = await asyncio.gather(*begun)
        assert [number for number, result in enumerate(results) if not result.saved] == [3, 30]
        assert history.health.dropped == 2
    assert {line.split(" ")[0] for line in log_lines} == {"history_refused"}


async def test_a_newer_schema_is_refused(postgres: PostgresServer, url: str) -> None:
    async with open_history(url):
        pass
    postgres.execute("UPDATE jarvis_schema SET version_num = '9999'", url)
    with pytest.raises(HistoryUnusable, match=r"schema version 9999.*never downgraded"):
        async with open_history(url):
            pass
    assert postgres.execute("SELECT version_num FROM jarvis_schema", url) == [("9999",)]


async def test_many_processes_may_create_it_together(backend: Backend) -> None:
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(backend()) for _ in range(8))
        for number, history in enumerate(await asyncio.gather(*opening)):
            await Speaker(history).turn("s", str(number))


async def test_processes_that_start_together_wait_for_a_long_upgrade(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = schema.upgrade

    def upgrade_slowly(connection: sa.Connection) -> None:
        upgrade(connection)
        connection.exec_driver_sql("SELECT pg_sleep(2)")

    monkeypatch.setattr(postgres_module, "STATEMENT_TIMEOUT", 1)
    monkeypatch.setattr(schema, "upgrade", upgrade_slowly)
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(open_history(url, PATIENT)) for _ in range(2))
        first, _ = await asyncio.gather(*opening)
        await Speaker(first).turn("s", "one")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://jarvis:hunter2-secret@127.0.0.1:1/nowhere",
        "postgresql://jarvis@127.0.0.1:1/nowhere?password=hunter2-secret",
        "postgresql://jarvis:hunter2-secret@127.0.0.1:1/nowhere?no_such_option=1",
    ],
)
async def test_a_server_that_is_not_there_is_said_without_the_password(
    url: str, log_lines: list[str]
) -> None:
    with pytest.raises(HistoryUnusable, match=r"127\.0\.0\.1:1/nowhere") as caught:
        async with open_history(url):
            pass
    assert "hunter2" not in str(caught.value) + "".join(log_lines)


# Opening


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("no_such_option=1", "no_such_option in the database URL .* is unknown"),
        ("autocommit=1", "autocommit in the database URL .* is unknown"),
        ("prepare_threshold=often", "prepare_threshold in .* must be a whole number"),
        ("prepare_threshold=-1", "prepare_threshold in .* must be a whole number"),
        ("connect_timeout=soon", "check the parameters in the URL"),
        ("sslmode=perhaps", "check the parameters in the URL"),
    ],
)
async def test_a_wrong_parameter_in_the_url_is_named(url: str, query: str, reason: str) -> None:
    with pytest.raises(HistoryUnusable, match=reason):
        async with open_history(f"{url}&{query}"):
            pass


@pytest.mark.parametrize("threshold", ["0", "1000000", "none"])
async def test_the_url_says_when_statements_are_prepared(url: str, threshold: str) -> None:
    async with open_history(f"{url}&prepare_threshold={threshold}") as history:
        await Speaker(history).turn("s", "1")


async def test_whatever_keeps_it_from_opening_the_cause_and_the_remedy_are_said(
    postgres: PostgresServer, url: str, tmp_path: Path
) -> None:
    postgres.execute("CREATE ROLE stranger LOGIN")
    reasons = {
        url.replace("/test", "/nowhere"): r"does not exist; create it",
        url.replace("jarvis@", "nobody_knows@"): r"does not exist; create it",
        url.replace("jarvis@", "stranger@"): r"the user needs CREATE",
        url.replace(str(postgres.directory), str(tmp_path)): r"whether it runs there",
        "postgresql://me@127.0.0.1:1/x": r"check host and port",
        "postgresql://me@no-such-host.invalid/x": r"check the host's name",
    }
    for wrong, reason in reasons.items():
        with pytest.raises(HistoryUnusable, match=reason) as caught:
            async with open_history(wrong):
                pass
        assert "cannot be opened" in str(caught.value)


async def test_a_wrong_password_is_said(postgres: PostgresServer, url: str) -> None:
    postgres.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    access = postgres.directory / "data" / "pg_hba.conf"
    before = access.read_text()
    access.write_text("local all guarded scram-sha-256\n" + before)
    postgres.execute("SELECT pg_reload_conf()")
    try:
        for password in ("", ":hunter2-secret"):

            async def refused(password: str = password) -> bool:
                with suppress(HistoryUnusable):
                    async with open_history(url.replace("jarvis@", f"guarded{password}@")):
                        return False
                return True

            await eventually(refused)
            with pytest.raises(HistoryUnusable, match="check user and password") as caught:
                async with open_history(url.replace("jarvis@", f"guarded{password}@")):
                    pass
            assert "hunter2" not in str(caught.value)
    finally:
        access.write_text(before)
        postgres.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_character_is_refused(
    postgres: PostgresServer, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    postgres.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
        " LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    with pytest.raises(HistoryUnusable, match=f"{encoding}.*ENCODING 'UTF8'"):
        async with open_history(postgres.url(name)):
            pass


# A pooler


async def test_behind_a_pooler_of_transactions_nothing_is_kept_on_a_connection(
    postgres: PostgresServer, url: str, log_lines: list[str]
) -> None:
    with pooling(postgres, url) as pooled:
        async with AsyncExitStack() as stack:
            opening = (stack.enter_async_context(open_history(pooled, PATIENT)) for _ in range(3))
            histories = await asyncio.gather(*opening)

            async def talk(number: int) -> None:
                history = histories[number % 3]
                speaker = Speaker(history, first=1000 * number)
                for turn in range(12):
                    await speaker.turn(f"s{number}", f"{number}-{turn}", f"hello {turn}")
                    assert len(await history.turns(f"s{number}")) == turn + 1
                    assert (await history.sessions(query="hello")).sessions

            await asyncio.gather(*(talk(number) for number in range(6)))
            # One that comes later, on whatever way, lets the others' answers go on.
            live, _ = Speaker(histories[0], first=9000).ask("live", "live")
            await live
            for other in (pooled, url):
                async with open_history(other, PATIENT) as later:
                    (turn,) = await later.turns("live")
                    assert turn.status == "streaming"
            assert [history.health.failures for history in histories] == [0, 0, 0]
        assert postgres.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [
            (0,)
        ]
        settings = "SELECT current_setting('statement_timeout'), current_setting('enable_seqscan')"
        for _ in range(5):
            assert postgres.execute(settings, pooled) == [("0", "on")]
    assert {line.split(" ")[0] for line in log_lines} <= {
        "history_interrupted",
        "history_schema_busy",  # three start together
    }


async def test_a_session_that_another_process_deleted_cannot_be_renamed(backend: Backend) -> None:
    async with backend() as one, backend() as other:
        begun, _ = Speaker(one).ask("s", "1")
        await begun
        assert (await other.remove(Span("s", 0, 100))).existed
        assert await one.rename("s", "title") is None

"""History in a PostgreSQL database, on a real server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
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
from postgres_server import PostgresServer

from jarvis_stream.errors import Unavailable
from jarvis_stream.history.base import HistoryUnusable
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

"""`--workers` as operators run it: one address, several processes, a Redis and a PostgreSQL."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

import orjson
import pytest
from acceptance.clients import lines, new_id, talking_to, text_of
from conftest import ROOT
from postgres_server import PostgresServer
from processes import PATIENCE, Server, serving
from redis_server import RedisServer

from .servers import COUNTING


@pytest.fixture
def server(
    postgres: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> Iterator[tuple[Server, int]]:
    """Two workers, and the port of the first one's own."""
    env = {
        "AGENT_DIARY": str(tmp_path / "diary"),
        "JARVIS_DATABASE_URL": postgres.new_database(),
        "JARVIS_REDIS_URL": redis_server.url,
    }
    command: list[str | Path] = [
        sys.executable,
        ROOT / "run.py",
        "--agent",
        COUNTING,
        "--workers",
        "2",
    ]
    with ExitStack() as stack:
        for _ in range(20):  # somebody else may have a port
            port = random.randrange(12_000, 30_000)
            with suppress(AssertionError):
                started = stack.enter_context(
                    serving(*command, "--worker-port", str(port), env=env)
                )
                break
        eventually(lambda: is_ready(started, port + 1))
        yield started, port


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at(server: Server, port: int) -> Server:
    """One worker's own address."""
    return Server(server.process, f"http://127.0.0.1:{port}", (), server.stderr)


def is_ready(server: Server, port: int) -> bool:
    try:
        return b"true" in at(server, port).get("/readyz")
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return False
    except (urllib.error.URLError, ConnectionError):
        return False


def pids(server: Server, number: int) -> list[int]:
    """The processes that have been this worker, the newest last."""
    return [
        int(pid) for pid in re.findall(rf"worker_started worker={number} pid=(\d+)", server.log)
    ]


def workers_in(log: str) -> set[str | None]:
    """Who has written into it."""
    return {orjson.loads(line).get("worker") for line in log.splitlines()}


async def test_an_answer_of_one_is_is_read_at_the_other(
    server: tuple[Server, int],
) -> None:
    one, port = server
    stream_id = new_id()
    async with (
        talking_to(f"http://127.0.0.1:{port}") as here,
        talking_to(f"http://127.0.0.1:{port + 1}") as there,
        here.posting("60 0.01 0", stream_id=stream_id, session_id="s") as response,
    ):
        await response.content.readline()
        assert text_of(lines(await there.replay(stream_id))) == text_of(
            lines(await response.read())
        )
        # The parent has no number.
        await here.until(lambda now: workers_in(one.log) >= {None, "1"})


async def test_each_gets_its_share_of_the_connections(server: tuple[Server, int]) -> None:
    one, port = server
    async with talking_to(one.url) as api, AsyncExitStack() as stack:
        for _ in range(40):
            await stack.enter_async_context(api.http.ws_connect(f"{api.url}/ws"))
        shares = [sockets(at(one, port + number)) for number in range(2)]
    assert sum(shares) == 40
    assert all(shares)


def sockets(worker: Server) -> int:
    (found,) = re.findall(
        r"^jarvis_websockets (\d+)", worker.get("/metrics").decode(), re.MULTILINE
    )
    return int(found)


async def test_one_that_is_killed_comes_back(server: tuple[Server, int]) -> None:
    one, port = server
    (old,) = pids(one, 1)
    os.kill(old, signal.SIGKILL)
    eventually(lambda: len(pids(one, 1)) == 2)
    eventually(lambda: is_ready(one, port))
    assert len(pids(one, 2)) == 1
    async with talking_to(f"http://127.0.0.1:{port}") as api:
        assert text_of(await api.chat("3 0 0", session_id="s")) == "0 1 2 "


async def test_told_to_stop_each_lets_its_answers_come_to_their_ends(
    server: tuple[Server, int],
) -> None:
    one, port = server
    async with (
        talking_to(f"http://127.0.0.1:{port}") as here,
        talking_to(f"http://127.0.0.1:{port + 1}") as there,
        here.posting("50 0.01 0", session_id="a") as first,
        there.posting("50 0.01 0", session_id="b") as second,
    ):
        for response in (first, second):
            await response.content.readline()
        one.process.send_signal(signal.SIGTERM)
        for response in (first, second):
            assert lines(await response.read())[-1]["finish_reason"] == "stop"
    assert one.process.wait(timeout=PATIENCE) == 0

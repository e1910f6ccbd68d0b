"""Two thousand that say nothing and two hundred that never finish: a chat is answered at once."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Iterator

import orjson
import pytest
from profiles import EVENT_LOOPS

from .clients import PATIENCE, Wire, lines, outcome, talking_to, wire
from .conftest import assert_quiet, start
from .memory import MEGABYTE, on_linux, resident

IDLE = 2000
DRIPPING = 200
FILES = IDLE + DRIPPING + 300
PROMPT = 0.2
"""Seconds to a fresh chat's first token."""

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: "


@pytest.fixture(autouse=True)
def _files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.fail(
            f"needs {FILES} open files, and may have {hard}: raise the hard limit (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def first_token(url: str) -> float:
    """Seconds from connecting to the first token of a fresh chat."""
    begun = time.monotonic()
    async with wire(url) as peer:
        peer.post("say hello")
        await peer.until(b'"token"')
        return time.monotonic() - begun


async def drip(peers: list[Wire]) -> None:
    """One more byte from each of them, every second."""
    while True:
        await asyncio.sleep(1)
        for peer in peers:
            if not peer.writer.is_closing():
                peer.send(b"x")


@on_linux
@pytest.mark.parametrize("loop", EVENT_LOOPS)
async def test_a_crowd_costs_a_chat_nothing(loop: str) -> None:
    with start(loop=loop) as server:
        await first_token(server.url)  # what is loaded once is loaded
        before = resident(server)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(IDLE):
                await stack.enter_async_context(wire(server.url))
            peers = [await stack.enter_async_context(wire(server.url)) for _ in range(DRIPPING)]
            half = DRIPPING // 2
            for peer in peers[:half]:
                peer.send(HEAD)
            for peer in peers[half:]:
                peer.send(
                    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n"
                    b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
                )
            begun = time.monotonic()
            dripping = asyncio.create_task(drip(peers))
            try:
                ends = asyncio.gather(*(peer.rest() for peer in peers))
                delays = []
                while not ends.done():
                    delays.append(await first_token(server.url))
                    await asyncio.sleep(0.1)
                answers = await ends
            finally:
                dripping.cancel()
            # The defaults' ten seconds, and what a busy machine adds.
            assert time.monotonic() - begun < 10 + PATIENCE
            assert {answer[:13] for answer in answers} == {b"HTTP/1.1 408 "}
            assert {orjson.loads(a.partition(b"\r\n\r\n")[2])["code"] for a in answers} == {
                "timeout"
            }
            # A quarter of them: this test's process has two thousand connections of its own to see
            # to, and the machine and its disk other things to do.
            assert sorted(delays)[len(delays) // 4] < PROMPT, sorted(delays)
            assert resident(server) - before < 64 * MEGABYTE
            async with talking_to(server.url) as api:
                assert (await api.metrics())["jarvis_connections"] >= IDLE
        assert_quiet(server.log)


async def test_answers_go_on_in_a_crowd_that_keeps_coming() -> None:
    with start("--max-connections", "50", loop="uvloop") as server:
        async with talking_to(server.url) as api, api.posting("tick 100 0.02") as response:
            await response.content.readuntil(b'"thinking"')
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(500):
                    await stack.enter_async_context(wire(server.url))
            torn = await response.content.read()
            assert outcome(lines(b"{" + torn.partition(b"\n{")[2])) == "stop"
        assert_quiet(server.log)

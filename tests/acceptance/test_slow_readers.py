"""A reader that stalls is let go, costs the others nothing, and can come back for the rest."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from processes import Server
from profiles import EVENT_LOOPS

from .clients import PATIENCE, Api, check_stream, lines, new_id, outcome, talking_to, text_of, wire
from .conftest import assert_quiet, start
from .test_one_stream_per_session import is_idle

STALL = ("--stall-timeout", "3", "--heartbeat", "60")
"""Longer than a busy machine lets this process wait, which is then no slow reader."""
NARROW = 4096
"""A receive buffer so small that the server notices a stalled reader after a few frames."""

MEGABYTE = 2**20

transports = pytest.mark.parametrize("transport", ["http", "websocket"])


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of little patience."""
    with start(*STALL, loop=request.param) as server:
        yield server
        assert_quiet(server.log)


def connections(metrics: dict[str, float]) -> float:
    """How many there are; each has a file descriptor, but so have other things."""
    return metrics["jarvis_connections"]


@transports
async def test_a_stalled_reader_is_let_go_and_can_resume(
    server: Server, api: Api, transport: str
) -> None:
    before = connections(await api.metrics())
    stream_id = new_id()
    async with wire(server.url, receive_buffer=NARROW) as stalled:
        fields = {"stream_id": stream_id, "on_disconnect": "continue"}
        if transport == "http":
            stalled.post("flood 2000", **fields)
        else:
            await stalled.upgrade()
            stalled.start("flood 2000", **fields)
        stalled.pause()
        await api.until(lambda now: is_idle(now) and connections(now) <= before)
        stalled.unpause()
        got = await stalled.rest()
    assert len(got) < MEGABYTE
    frames = lines(await api.replay(stream_id))
    check_stream(frames)
    assert outcome(frames) == "stop"
    assert len(text_of(frames)) == 2_000_000


@transports
async def test_a_stalled_reader_whose_answer_has_ended_is_let_go_too(
    server: Server, api: Api, transport: str
) -> None:
    before = connections(await api.metrics())
    sizes = range(0, 800, 20)  # some of them end within the last buffer's length
    async with AsyncExitStack() as stack:
        for size in sizes:
            stalled = await stack.enter_async_context(wire(server.url, receive_buffer=NARROW))
            if transport == "http":
                stalled.post(f"flood {size}", on_disconnect="continue")
            else:
                await stalled.upgrade()
                stalled.start(f"flood {size}", on_disconnect="continue")
            stalled.pause()
        # An answer that fits into the buffers was delivered: nobody is stalled there.
        fits = sum(size < 300 for size in sizes)
        await api.until(lambda now: connections(now) <= before + fits)
    await api.until(lambda now: is_idle(now) and connections(now) <= before)


async def test_stalled_readers_cost_the_others_nothing(server: Server, api: Api) -> None:
    memory = (await api.metrics())["process_resident_memory_bytes"]
    stream_id = new_id()
    async with wire(server.url, receive_buffer=NARROW) as http, wire(server.url) as ws:
        http.post("flood 3000", stream_id=stream_id, on_disconnect="continue")
        http.pause()
        await ws.upgrade()
        ws.start("flood 3000", on_disconnect="continue")
        ws.pause()
        frames = await api.chat("flood 3000", stream_id=stream_id)
        check_stream(frames)
        assert len(text_of(frames)) == 3_000_000
        assert outcome(await api.chat("tick 20 0.001")) == "stop"
        now = (await api.metrics())["process_resident_memory_bytes"]
        # Two answers of three megabytes, once each, and buffers.
        assert now - memory < 32 * MEGABYTE
    await api.until(is_idle)


@transports
async def test_a_slow_reader_that_takes_something_is_kept(
    server: Server, api: Api, transport: str
) -> None:
    async with wire(server.url, receive_buffer=32 * NARROW) as slow:
        if transport == "http":
            slow.post("flood 1000")
        else:
            await slow.upgrade()
            slow.start("flood 1000")
        got, begun = b"", time.monotonic()
        while b'"done"' not in got[-1000:]:
            more = await slow.reader.read(16 * NARROW)
            assert more, "let go"
            got += more
            await asyncio.sleep(0.25)
        assert time.monotonic() - begun > 3, "not slow at all"
    assert got.count(b'"token"') == 1000


async def spoken(api: Api, stream_id: str) -> None:
    """Until a stream that somebody else reads has its first token."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with api.http.get(f"{api.url}/api/streams/{stream_id}") as response:
                if response.status == 200:
                    await response.content.readuntil(b'"token"')
                    return


async def test_two_streams_share_a_narrow_socket_fairly(server: Server, api: Api) -> None:
    first, second = new_id(), new_id()
    async with wire(server.url, receive_buffer=NARROW) as slow:
        await slow.upgrade()
        slow.start("flood 3000", stream_id=first)
        await slow.until(b'"token"')
        slow.start("flood 3000", stream_id=second)
        speaking = asyncio.create_task(spoken(api, second))
        while not speaking.done():  # from then on both have something to say
            assert await slow.reader.read(4 * NARROW), "let go"
            await asyncio.sleep(0.02)
        await speaking
        got = b""
        while second.encode() not in got:
            more = await slow.reader.read(65536)
            assert more, "let go"
            got += more
            assert got.count(first.encode()) < 1000, "the second stream starves"


@transports
async def test_questions_without_end_and_no_reading_take_no_memory(
    server: Server, api: Api, transport: str
) -> None:
    memory = (await api.metrics())["process_resident_memory_bytes"]
    async with wire(server.url, receive_buffer=NARROW) as rude:
        rude.pause()
        if transport == "websocket":
            rude.send(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\n"
                b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
        end = time.monotonic() + 1.5
        try:
            while time.monotonic() < end:
                async with asyncio.timeout(0.2):
                    for _ in range(100):
                        if transport == "http":
                            rude.post("", headers="X-Padding: " + "x" * 100 + "\r\n")
                        else:
                            rude.start("")
                    await rude.writer.drain()
        except (TimeoutError, ConnectionError):
            pass
        now = (await api.metrics())["process_resident_memory_bytes"]
        assert now - memory < 8 * MEGABYTE
        assert outcome(await api.chat("say hello")) == "stop"


@transports
@pytest.mark.parametrize("loop", EVENT_LOOPS)
async def test_a_stalled_reader_does_not_hold_up_the_shutdown(transport: str, loop: str) -> None:
    with start("--stall-timeout", "600", loop=loop) as server:
        async with (
            talking_to(server.url) as api,
            wire(server.url, receive_buffer=NARROW) as stalled,
        ):
            if transport == "http":
                stalled.post("flood 2000")
            else:
                await stalled.upgrade()
                stalled.start("flood 2000")
            stalled.pause()
            await api.until(lambda now: now.get('jarvis_streams_ended_total{outcome="stop"}') == 1)
            begun = time.monotonic()
            code, log = await asyncio.to_thread(server.stop, signal.SIGTERM)
        assert code == 0
        assert time.monotonic() - begun < PATIENCE
        assert_quiet(log)

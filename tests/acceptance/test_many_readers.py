"""Ten tabs show one session and one of them stalls: that is nobody else's business."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import orjson
import pytest
from processes import Server

from .clients import Api, check_stream, lines, masked, new_id, outcome, request, text_of, wire
from .conftest import assert_quiet, start
from .memory import MEGABYTE, on_linux, peak, resident
from .reciter import RECITER
from .steadfast import Reading, Transport, read
from .test_one_stream_per_session import is_idle

NARROW = 4096
PAGES = 2_000

pytestmark = on_linux


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own for each test: patient enough for the nine to be done first."""
    with start(*RECITER, "--stall-timeout", "15") as server:
        yield server
        assert_quiet(server.log)


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_nine_tabs_get_everything_while_the_tenth_stalls_and_it_can_resume(
    server: Server, api: Api, transport: Transport
) -> None:
    await api.chat(f"pages {PAGES} 0")
    await api.until(is_idle)
    memory = resident(server)
    stream_id, session_id = new_id(), new_id()
    async with AsyncExitStack() as stack:
        watching = [await stack.enter_async_context(api.socket()) for _ in range(6)]
        for tab in watching:
            await tab.send(type="watch", session_id=session_id)
            await tab.send(type="nothing")  # so that its answer tells that the first was obeyed
            await tab.until(lambda frame: "seq" not in frame)
        asking = await stack.enter_async_context(
            api.posting(f"pages {PAGES} 0.001", stream_id=stream_id, session_id=session_id)
        )
        path = f"/api/streams/{stream_id}"
        resuming = [await stack.enter_async_context(api.http.get(api.url + path)) for _ in range(2)]
        stalled = await stack.enter_async_context(wire(server.url, receive_buffer=NARROW))
        if transport == "http":
            stalled.send(request("GET", path))
        else:
            await stalled.upgrade()
            stalled.send(masked(1, orjson.dumps({"type": "watch", "session_id": session_id})))
        begun = await stalled.until(b'"seq":1,')
        stalled.pause()

        bodies = await asyncio.gather(*(tab.read() for tab in (asking, *resuming)))
        watched = await asyncio.gather(*(tab.ended(stream_id) for tab in watching))
        assert "reader_let_go" not in server.log, "the nine had to wait for the tenth"
        frames = lines(bodies[0])
        check_stream(frames)
        assert outcome(frames) == "stop"
        assert len(text_of(frames)) == PAGES * 1000
        assert bodies == [bodies[0]] * 3
        assert watched == [frames] * 6

        await api.until(lambda now: "reader_let_go" in server.log)
        grown = peak(server) - memory
        stalled.unpause()
        got = begun + await stalled.rest()
    print(f"grown by {grown / MEGABYTE:.1f} MiB")
    # The answer's two megabytes, in the log and on their way into the history, and buffers.
    assert grown < 16 * MEGABYTE
    reading = Reading("", stream_id=stream_id)
    for line in whole_lines(got):
        reading.take(line)
    assert 0 < reading.after < PAGES // 2
    await read(reading, server.url, "websocket" if transport == "http" else "http")
    assert reading.body == bodies[0]


def whole_lines(got: bytes) -> list[bytes]:
    """The frames in what came over a bare connection, without what wraps them."""
    parts = got.split(b"\n")[:-1]
    return [part[part.index(b'{"type"') :] + b"\n" for part in parts if b'{"type"' in part]

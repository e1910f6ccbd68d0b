"""Who takes forever to ask, or never does, is let go; who asks is answered meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import orjson
import pytest
from processes import Server
from profiles import EVENT_LOOPS

from .clients import PATIENCE, Wire, new_id, outcome, request, talking_to, wire
from .conftest import assert_quiet, start

loops = pytest.mark.parametrize("loop", EVENT_LOOPS)

HEAD = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-A: "
POST = (
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n"
)


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that waits for nobody."""
    # Longer than a busy machine holds this process up, which is to be in time where it means to.
    times = ("--header-timeout", "1.5", "--body-timeout", "1.5", "--idle-timeout", "2")
    sockets = ("--heartbeat", "2", "--socket-idle-timeout", "1.5")
    with start(*times, *sockets, loop=request.param) as server:
        yield server
        assert_quiet(server.log)


def refused(got: bytes) -> tuple[int, str]:
    """The status and the code of the only answer there is."""
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split(b" ")[1]), orjson.loads(body)["code"]


async def drip(peer: Wire, data: bytes, pause: float = 0.05) -> None:
    """Send byte by byte, for as long as the other side listens."""
    for byte in data:
        peer.send(bytes((byte,)))
        await asyncio.sleep(pause)


async def dripping(peer: Wire, data: bytes) -> bytes:
    """What the server answers to a client that never comes to an end."""
    task = asyncio.create_task(drip(peer, data))
    try:
        return await peer.rest()
    finally:
        task.cancel()


async def test_half_sent_headers_are_answered_408_and_closed(server: Server) -> None:
    async with wire(server.url) as peer:
        peer.send(HEAD)
        assert refused(await peer.rest()) == (408, "timeout")


async def test_headers_that_come_drop_by_drop_have_no_longer(server: Server) -> None:
    async with wire(server.url) as peer:
        assert refused(await dripping(peer, HEAD + b"x" * 5000)) == (408, "timeout")


async def test_a_second_request_has_the_same_time_as_the_first(server: Server) -> None:
    async with wire(server.url) as peer:
        peer.send(request("GET", "/livez"))
        await peer.until(b'{"alive":true}')
        peer.send(HEAD)
        assert refused(await peer.rest()) == (408, "timeout")


async def test_a_half_sent_body_is_answered_408_and_closed(server: Server) -> None:
    async with wire(server.url) as peer:
        peer.send(POST + b'{"prompt":')
        assert refused(await peer.rest()) == (408, "timeout")


async def test_a_body_that_comes_drop_by_drop_has_no_longer(server: Server) -> None:
    async with wire(server.url) as peer:
        peer.send(POST)
        assert refused(await dripping(peer, b"x" * 900)) == (408, "timeout")


async def test_a_chunked_body_without_its_end_is_answered_408(server: Server) -> None:
    async with wire(server.url) as peer:
        head = POST.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked")
        peer.send(head + b"5\r\nhello\r\n")
        assert refused(await peer.rest()) == (408, "timeout")


async def test_a_body_nobody_wants_is_not_waited_for(server: Server) -> None:
    async with wire(server.url) as peer:
        peer.send(POST.replace(b"/api/chat", b"/api/streams/x/cancel") + b"{")
        got = await peer.rest()
    assert got.startswith(b"HTTP/1.1 404 ")


async def test_a_connection_without_a_request_is_closed(server: Server) -> None:
    async with wire(server.url) as silent, wire(server.url) as kept:
        kept.send(request("GET", "/livez"))
        await kept.until(b'{"alive":true}')
        assert await silent.rest() == b""
        assert await kept.rest() == b""


async def test_an_answer_may_take_longer_than_any_of_these(server: Server) -> None:
    async with wire(server.url) as peer:
        peer.post("tick 4 0.6")
        assert b'"finish_reason":"stop"' in await peer.until(b"\r\n0\r\n\r\n")
        assert await peer.rest() == b""


async def test_half_a_message_does_not_keep_a_socket(server: Server) -> None:
    async with wire(server.url) as peer:
        await peer.upgrade()
        peer.send(b"\x81\xfe\x10\x00" + bytes(4) + b"{")  # 4096 bytes are announced
        await dripping(peer, b"x" * 4000)


async def test_an_idle_socket_is_closed_and_one_that_watches_is_not(server: Server) -> None:
    session_id = new_id()
    async with talking_to(server.url) as api, api.socket() as idle, api.socket() as watcher:
        await watcher.send(type="watch", session_id=session_id)
        # It reads on all the time: a client that does not is not there any more, by its silence.
        waiting = asyncio.create_task(watcher.until(lambda frame: frame["type"] == "done"))
        assert await idle.closed() == 1001
        async with asyncio.timeout(PATIENCE):
            await api.chat("say hello", session_id=session_id)
            await waiting


@loops
async def test_those_that_wait_longest_make_room_for_those_that_ask(loop: str) -> None:
    with start("--max-connections", "3", loop=loop) as server:
        async with wire(server.url) as first, wire(server.url) as second, wire(server.url) as busy:
            busy.post("silent")
            await busy.until(b"thinking")
            second.send(HEAD)
            async with talking_to(server.url) as api:
                assert (await api.metrics())["jarvis_connections"] == 3
                assert await first.rest() == b""
            async with wire(server.url) as fourth, wire(server.url) as fifth:
                for peer in (fourth, fifth):
                    peer.post("silent")
                    await peer.until(b"thinking")
                assert await second.rest() == b""
                async with wire(server.url) as sixth:
                    sixth.send(request("GET", "/livez"))
                    got = await sixth.rest()
                    assert refused(got) == (503, "overloaded")
                    assert b"\r\nRetry-After: 1\r\n" in got
        async with talking_to(server.url) as api:
            while True:  # those three have just left
                async with api.http.get(server.url + "/livez") as response:
                    if response.status == 200:
                        break
            assert outcome(await api.chat("say hello")) == "stop"
        assert_quiet(server.log)


@loops
@pytest.mark.skipif(not hasattr(__import__("socket"), "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_a_reader_that_stalls_at_the_very_end_is_let_go(loop: str) -> None:
    # Its answer has ended, and what it has not taken is in buffers below the mark at which a pump
    # looks after it.
    with start("--stall-timeout", "0.5", "--idle-timeout", "600", loop=loop) as server:
        async with talking_to(server.url) as api, wire(server.url, receive_buffer=4096) as peer:
            peer.post("flood 100")
            peer.pause()
            await api.until(lambda now: now.get('jarvis_streams_ended_total{outcome="stop"}') == 1)
            await api.until(lambda now: now["jarvis_connections"] == 1)


@loops
async def test_a_flood_on_one_socket_is_nobody_elses(loop: str) -> None:
    with start(loop=loop) as server:
        async with talking_to(server.url) as api, wire(server.url) as flood:
            await flood.upgrade()
            over = asyncio.Event()

            async def send() -> None:
                message = b'{"type":"resume","stream_id":"x"}'
                frames = bytes((0x81, 0x80 | len(message))) + bytes(4) + message
                while not over.is_set():
                    flood.send(frames * 100)
                    await flood.writer.drain()

            async def read() -> None:
                while await flood.reader.read(2**20):
                    pass

            tasks = [asyncio.create_task(send()), asyncio.create_task(read())]
            delays = []
            for _ in range(20):
                begun = time.monotonic()
                async with api.posting("say hello") as response:
                    await response.content.readuntil(b'"token"')
                    delays.append(time.monotonic() - begun)
            over.set()
            for task in tasks:
                task.cancel()
            # The best of twenty: this test's own loop is flooded as well.
            assert min(delays) < 0.2
        assert_quiet(server.log)

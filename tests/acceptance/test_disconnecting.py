"""A reader that vanishes is noticed at once, however silent the agent is; then `on_disconnect`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from processes import Server

from .clients import (
    PATIENCE,
    Api,
    Wire,
    check_stream,
    lines,
    masked,
    new_id,
    outcome,
    talking_to,
    text_of,
    wire,
)
from .test_one_stream_per_session import is_idle

MOST_TRIES = 50
"""What a server can do at all it does in one of these, however busy the machine is now and then."""

Leaving = Callable[[Wire], None]
leavings = pytest.mark.parametrize("leave", [Wire.leave, Wire.reset], ids=["fin", "rst"])
transports = pytest.mark.parametrize("transport", ["http", "websocket"])


async def begin(connection: Wire, transport: str, prompt: str, **fields: Any) -> None:
    """Ask, and read the first frame, or the one that tells that a listening agent has begun."""
    if transport == "websocket":
        await connection.upgrade()
        connection.start(prompt, **fields)
    else:
        connection.post(prompt, **fields)
    await connection.until(b'"listening"' if prompt == "listen" else b'"thinking"')


async def lag(
    api: Api, url: str, leave: Leaving, begin: Callable[[Wire, str], Awaitable[None]]
) -> float:
    """Seconds from a reader's leaving to its agent's cleanup."""
    stream_id = new_id()
    async with wire(url) as connection:
        await begin(connection, stream_id)
        left_at = time.monotonic()
        leave(connection)
        return await api.cleanup(stream_id) - left_at


async def in_time(lag: Callable[[], Awaitable[float]]) -> bool:
    """Whether it can be so little."""
    for _ in range(MOST_TRIES):
        if await lag() < 0.1:
            return True
    return False


@leavings
@transports
async def test_a_silent_agent_is_stopped_within_100_ms(
    server: Server, api: Api, transport: str, leave: Leaving
) -> None:
    async def silent(connection: Wire, stream_id: str) -> None:
        await begin(connection, transport, "listen", stream_id=stream_id)

    assert await in_time(lambda: lag(api, server.url, leave, silent))


@leavings
@transports
async def test_a_speaking_agent_is_stopped_within_100_ms(
    server: Server, api: Api, transport: str, leave: Leaving
) -> None:
    async def speaking(connection: Wire, stream_id: str) -> None:
        await begin(connection, transport, "tick 100000 0.005", stream_id=stream_id)
        await connection.until(b'"text":"3 "')

    assert await in_time(lambda: lag(api, server.url, leave, speaking))


async def test_a_websocket_that_says_goodbye_is_a_reader_that_left(
    server: Server, api: Api
) -> None:
    stream_id = new_id()
    async with api.socket() as ws:
        await ws.send(type="start", prompt="tidy 0", stream_id=stream_id)
        await ws.spoke(stream_id)
        left_at = time.monotonic()
        await ws.ws.close()
        assert await api.cleanup(stream_id) - left_at < PATIENCE
    assert outcome(lines(await api.replay(stream_id))) == "cancelled"
    await api.until(lambda now: "reason=client_disconnected" in server.log)


def cancelled(metrics: dict[str, float]) -> float:
    """How many streams have ended so."""
    return metrics.get('jarvis_streams_ended_total{outcome="cancelled"}', 0)


@leavings
@transports
async def test_a_reader_that_leaves_while_its_stream_waits_ends_it_before_it_began(
    patient_server: Server, transport: str, leave: Leaving
) -> None:
    session, stream_id = new_id(), new_id()
    async with (
        talking_to(patient_server.url) as api,
        api.posting(f"linger {session}", session_id=session) as old,
        wire(patient_server.url) as connection,
    ):
        await old.content.readuntil(b"here")
        before = cancelled(await api.metrics())
        if transport == "websocket":
            await connection.upgrade()
            connection.start("say no", session_id=session, stream_id=stream_id)
        else:
            connection.post("say no", session_id=session, stream_id=stream_id)
        assert b"superseded" in await old.read()
        leave(connection)
        await api.until(lambda now: cancelled(now) > before)
        frames = lines(await api.replay(stream_id))
        check_stream(frames)
        assert outcome(frames) == "cancelled"
        await api.chat(f"open {session}")
        await api.until(is_idle)
        assert await api.evidence(stream_id) == {}


@leavings
@transports
async def test_a_stream_that_is_to_continue_does(
    server: Server, api: Api, transport: str, leave: Leaving
) -> None:
    stream_id = new_id()
    async with wire(server.url) as connection:
        await begin(
            connection, transport, "tick 30 0.01", stream_id=stream_id, on_disconnect="continue"
        )
        leave(connection)
    frames = lines(await api.replay(stream_id))
    check_stream(frames)
    assert outcome(frames) == "stop"
    assert text_of(frames) == "".join(f"{n} " for n in range(30))


@transports
async def test_of_two_readers_one_may_leave(server: Server, api: Api, transport: str) -> None:
    stream_id = new_id()
    async with wire(server.url) as first, api.socket() as second:
        await begin(first, transport, "tick 30 0.01", stream_id=stream_id)
        await second.send(type="resume", stream_id=stream_id, after=0)
        await second.spoke(stream_id)
        first.reset()
        frames = await second.ended(stream_id)
    check_stream(frames)
    assert outcome(frames) == "stop"


async def test_when_the_second_reader_leaves_too_the_agent_is_stopped(
    server: Server, api: Api
) -> None:
    stream_id = new_id()
    async with wire(server.url) as first, wire(server.url) as second:
        await begin(first, "http", "listen", stream_id=stream_id)
        await begin(second, "http", "listen", stream_id=stream_id)
        first.leave()
        await asyncio.sleep(0.05)
        assert "cleanup_began" not in await api.evidence(stream_id)
        second.leave()
        await api.cleanup(stream_id)


async def test_a_socket_takes_all_its_streams_with_it(server: Server, api: Api) -> None:
    ids = [new_id() for _ in range(20)]
    async with wire(server.url) as connection:
        await connection.upgrade()
        for stream_id in ids:
            connection.start("listen", stream_id=stream_id)
            await connection.until(b'"listening"')
        connection.reset()
        await asyncio.gather(*map(api.cleanup, ids))


async def test_a_request_whose_client_is_gone_at_once_leaves_nothing_behind(
    server: Server, api: Api
) -> None:
    for leave in (Wire.leave, Wire.reset) * 25:
        async with wire(server.url) as connection:
            connection.post("silent")
            await asyncio.sleep(0)
            leave(connection)
        async with wire(server.url) as connection:
            await connection.upgrade()
            connection.start("silent")
            leave(connection)
        async with wire(server.url) as connection:
            connection.post("say hello")
            await connection.until(b'"done"')
            leave(connection)
    await api.until(is_idle)


async def test_a_socket_that_stops_and_leaves_in_one_breath_is_no_trouble(
    server: Server, api: Api
) -> None:
    for _ in range(20):
        stream_id = new_id()
        async with wire(server.url) as connection:
            await begin(connection, "websocket", "tidy 0.2", stream_id=stream_id)
            stop = orjson.dumps({"type": "cancel", "stream_id": stream_id})
            connection.send(masked(1, stop) + masked(8, b"\x03\xe8"))
            connection.leave()
    await api.until(is_idle)


async def test_an_upload_that_breaks_off_is_no_failure_of_the_server(
    server: Server, api: Api
) -> None:
    for leave in (Wire.leave, Wire.reset) * 5:
        async with wire(server.url) as connection:
            connection.send(
                b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b'Content-Length: 1000\r\n\r\n{"prompt": "to be cont'
            )
            await asyncio.sleep(0.01)
            leave(connection)
    await api.until(is_idle)

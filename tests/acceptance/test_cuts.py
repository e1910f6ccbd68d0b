"""A connection may break anywhere, and any transport goes on: nothing is lost, nothing twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from processes import Server
from profiles import EVENT_LOOPS

from .clients import Api, check_stream, lines, new_id, outcome, talking_to, text_of
from .conftest import assert_quiet, start
from .faults import Fate, between
from .reciter import RECITER, recital
from .steadfast import Reading, Transport, read
from .test_one_stream_per_session import is_idle

TRANSPORTS: tuple[Transport, ...] = ("http", "websocket")

PIECES = 200
STEP = 5
"""Bytes from one cut to the next: prime to everything a frame is made of."""


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that recites."""
    with start(*RECITER, loop=request.param) as server:
        yield server
        assert_quiet(server.log)


@pytest.mark.parametrize("first", TRANSPORTS)
@pytest.mark.parametrize("second", TRANSPORTS)
async def test_a_live_answer_cut_after_any_frame_goes_on_where_it_was(
    server: Server, api: Api, first: Transport, second: Transport
) -> None:
    stream_id = new_id()
    prompt = f"recite {PIECES} 0.01"

    async def cut_after(position: int) -> bytes:
        reading = Reading(prompt, stream_id=stream_id)
        await read(reading, server.url, first, until=position)
        assert reading.after == position
        await read(reading, server.url, second)
        return reading.body

    async with api.posting(prompt, stream_id=stream_id) as undisturbed:
        # After none of its frames, after each of them, and after the last.
        bodies = await asyncio.gather(*map(cut_after, range(PIECES + 3)))
        body = await undisturbed.read()
    check_stream(lines(body))
    assert text_of(lines(body)) == recital(PIECES)
    assert [at for at, other in enumerate(bodies) if other != body] == []


@pytest.mark.parametrize("first", TRANSPORTS)
async def test_a_connection_cut_at_any_byte_loses_no_frame(
    server: Server, api: Api, first: Transport
) -> None:
    """Within the handshake, a chunk's size, a frame, a character of several bytes."""
    prompt, text = "recite 9 0.002", recital(9)
    async with api.posting(prompt) as response:
        total = len(await response.read()) + 500  # the head, and how the body is wrapped
    at_a_time = asyncio.Semaphore(16)
    seconds = itertools.cycle(TRANSPORTS)

    async def cut_after(size: int, reset: bool) -> int:
        reading = Reading(prompt)
        async with at_a_time, between(server.url, lambda: Fate(down=size, reset=reset)) as proxy:
            await read(reading, proxy.url, first, by_request=True)
            came = reading.after
            if not reading.ended:
                # A client that got nothing cannot know whether its request arrived.
                await read(reading, server.url, next(seconds), by_request=not came)
        check_stream(reading.frames)
        assert text_of(reading.frames) == text
        assert await api.replay(reading.stream_id) == reading.body
        return came

    came = await asyncio.gather(*(cut_after(size, size % 2 == 0) for size in range(0, total, STEP)))
    # There were cuts before the first frame, and between any two of them.
    assert set(came) >= set(range(11))


async def test_reconnecting_when_there_is_nothing_new_replays_nothing(
    server: Server, api: Api
) -> None:
    stream_id, gate = new_id(), new_id()
    prompt = f"halt 20 {gate}"
    body = {"prompt": prompt, "stream_id": stream_id, "after": 11}
    url = f"{api.url}/api/streams/{stream_id}?after=11"
    unknown = new_id()
    async with api.posting(prompt, stream_id=stream_id) as undisturbed:
        await undisturbed.content.readuntil(b'"seq":11,')
        for _ in range(2):
            async with api.socket() as ws:
                for message in ({"type": "resume"}, {"type": "start"}):
                    await ws.send(**message, **body)
                    await ws.send(type="cancel", stream_id=unknown)
                    assert (await ws.until(lambda frame: True))["stream_id"] == unknown
        async with (
            api.http.get(url),
            api.http.get(url) as by_id,
            api.http.post(api.url + "/api/chat", json=body) as by_request,
            api.socket() as ws,
        ):
            await ws.send(type="resume", **body)
            await api.chat(f"open {gate}")
            rest = lines(await by_id.read())
            assert [frame["seq"] for frame in rest] == list(range(12, 23))
            assert outcome(rest) == "stop"
            assert lines(await by_request.read()) == rest
            assert await ws.ended(stream_id) == rest
    # And when it has ended.
    for _ in range(2):
        assert await api.replay(stream_id, after=22) == b""
        async with api.socket() as ws:
            await ws.send(type="resume", stream_id=stream_id, after=22)
            await ws.send(type="cancel", stream_id=unknown)
            assert (await ws.until(lambda frame: True))["stream_id"] == unknown


@pytest.mark.parametrize("flags", [("--replay-seconds", "0"), ("--replay-bytes", "100")])
async def test_what_is_known_and_can_no_longer_be_replayed_is_gone(flags: tuple[str, str]) -> None:
    with start(*RECITER, *flags) as server:
        async with talking_to(server.url) as api:
            stream_id, session_id = new_id(), new_id()
            request = {"prompt": "recite 9 0", "stream_id": stream_id, "session_id": session_id}
            frames = await api.chat(**request)
            await api.until(is_idle)
            for after in (0, 5, len(frames), 10_000):
                path = f"{api.url}/api/streams/{stream_id}?after={after}"
                async with api.http.get(path) as response:
                    assert (response.status, (await response.json())["code"]) == (410, "gone")
                body = {**request, "after": after}
                async with api.http.post(api.url + "/api/chat", json=body) as response:
                    assert (response.status, (await response.json())["code"]) == (410, "gone")
                async with api.socket() as ws:
                    for kind in ("resume", "start"):
                        await ws.send(type=kind, **body)
                        refused = await ws.until(lambda frame: True)
                        assert (refused["type"], refused["code"]) == ("error", "gone")
                        assert refused["stream_id"] == stream_id
            # It was answered once, and is there to be read.
            async with api.http.get(f"{api.url}/api/sessions/{session_id}/messages") as response:
                question, answer = (await response.json())["messages"]
            assert question["content"] == request["prompt"]
            assert answer["content"] == recital(9)
            assert answer["status"] == "complete"
        assert_quiet(server.log)

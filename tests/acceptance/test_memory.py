"""Long answers and readers that stall cost the server what their text takes, and little more."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator

import pytest
from processes import Server
from profiles import patience

from .clients import Api, new_id, talking_to, text_of, wire
from .conftest import assert_quiet, start
from .memory import MEGABYTE, on_linux, peak, resident
from .reciter import RECITER, letter, word
from .steadfast import Reading, Transport, read
from .test_one_stream_per_session import is_idle

pytestmark = on_linux

NARROW = 4096
PATIENCE = patience(120.0)

transports = pytest.mark.parametrize("transport", ["http", "websocket"])


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own for each test: memory is counted."""
    with start(*RECITER) as server:
        yield server
        assert_quiet(server.log)


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    """A client of a server that has done everything before, but nothing large."""
    async with talking_to(server.url) as api:
        for _ in range(20):
            session_id = new_id()
            await api.chat("words 1000", session_id=session_id)
            await messages(api, session_id)
        await api.until(is_idle)
        yield api


async def messages(api: Api, session_id: str) -> list[dict[str, str]]:
    """What the history has of a session."""
    async with api.http.get(f"{api.url}/api/sessions/{session_id}/messages") as response:
        found: list[dict[str, str]] = (await response.json())["messages"]
        return found


@transports
async def test_a_million_tokens_and_a_stalled_reader_cost_less_than_24_mebibytes(
    server: Server, api: Api, transport: Transport
) -> None:
    before = resident(server)
    session_id = new_id()
    fields = {"session_id": session_id, "on_disconnect": "continue"}
    async with wire(server.url, receive_buffer=NARROW) as stalled:
        if transport == "http":
            stalled.post("letters 1000000", **fields)
        else:
            await stalled.upgrade()
            stalled.start("letters 1000000", **fields)
        stalled.pause()
        await api.until(lambda now: now.get('jarvis_streams_ended_total{outcome="stop"}') == 21)
        grown = peak(server) - before
    print(f"grown by {grown / MEGABYTE:.1f} MiB")
    assert grown < 24 * MEGABYTE
    _, answer = await messages(api, session_id)
    assert answer["content"] == "".join(map(letter, range(1_000_000)))
    assert answer["status"] == "complete"


async def test_an_answer_of_200000_tokens_replays_from_anywhere_for_16_mebibytes(
    server: Server, api: Api
) -> None:
    count = 200_000
    before = resident(server)
    reading = Reading(f"words {count}")
    await read(reading, server.url, "http", by_request=True)
    assert text_of(reading.frames) == "".join(map(word, range(count)))
    dice = random.Random(3)
    positions = [0, count, count + 1, *(dice.randrange(count) for _ in range(7))]
    for position in positions:
        assert await api.replay(reading.stream_id, position) == b"".join(reading.lines[position:])
        again = Reading(reading.request["prompt"], stream_id=reading.stream_id)
        again.lines = reading.lines[:position]
        await read(again, server.url, "websocket")
        assert again.lines == reading.lines
    grown = peak(server) - before
    print(f"grown by {grown / MEGABYTE:.1f} MiB")
    assert grown < 16 * MEGABYTE

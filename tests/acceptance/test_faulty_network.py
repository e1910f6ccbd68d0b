"""Whatever the network does to five hundred chats, each is answered, whole and once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from processes import Server
from profiles import amount

from .clients import check_stream, outcome, talking_to, text_of
from .conftest import assert_quiet, start
from .faults import Weather, between
from .reciter import RECITER, recital
from .steadfast import PATIENCE, Reading, read
from .test_one_stream_per_session import is_idle

EXAMPLES = amount("NETWORK_EXAMPLES", default=4, long=10)
CHATS = 50
"""At a time, in each example."""

weathers = st.builds(
    Weather,
    seed=st.integers(0, 2**32 - 1),
    mean_life=st.integers(1_000, 5_000),
    largest_piece=st.sampled_from([20, 200, 1_500, 16_384]),
    longest_delay=st.sampled_from([0.0, 0.005, 0.05]),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that recites."""
    with start(*RECITER) as server:
        yield server
        assert_quiet(server.log)


# What a falsifying example prints is the weather, its seed included. It is not shrunk: the same
# weather need not strike twice, as the timing is the machine's.
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(weather=weathers)
def test_every_chat_comes_through_whole_and_once(server: Server, weather: Weather) -> None:
    print(weather)
    asyncio.run(chats_come_through(server, weather))


async def chats_come_through(server: Server, weather: Weather) -> None:
    dice = random.Random(weather.seed)
    async with between(server.url, weather.fates()) as proxy, talking_to(server.url) as api:
        before = await api.until(is_idle)
        readings = await asyncio.gather(
            *(one_chat(proxy.url, random.Random(dice.getrandbits(32))) for _ in range(CHATS))
        )
        assert proxy.cuts > CHATS // 2, "fine weather"
        for reading in readings:
            # What the server itself says the answer was, byte for byte.
            assert await api.replay(reading.stream_id) == reading.body
            path = f"/api/sessions/{reading.request['session_id']}/messages"
            async with api.http.get(api.url + path) as response:
                messages = (await response.json())["messages"]
            assert [message["content"] for message in messages] == [
                reading.request["prompt"],
                text_of(reading.frames),
            ]
            assert messages[1]["status"] == "complete"
        after = await api.until(is_idle)
    ended = 'jarvis_streams_ended_total{outcome="stop"}'
    assert after[ended] - before.get(ended, 0) == CHATS, "not one answer per chat"


async def one_chat(url: str, dice: random.Random) -> Reading:
    """Ask, and go on until the answer is whole, each time on whichever transport."""
    count = dice.randint(20, 60)
    reading = Reading(f"recite {count} {dice.choice(['0', '0.002', '0.01'])}")
    reading.request["session_id"] = reading.stream_id
    async with asyncio.timeout(PATIENCE):
        while not reading.ended:
            await read(
                reading,
                url,
                dice.choice(["http", "websocket"]),
                # Nothing came: nobody can know whether the request arrived.
                by_request=not reading.lines or dice.random() < 0.3,
            )
    check_stream(reading.frames)
    assert outcome(reading.frames) == "stop"
    assert text_of(reading.frames) == recital(count)
    return reading

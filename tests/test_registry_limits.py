"""How much there may be at a time, of everybody and of each owner; and how long it may take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from explorer import in_virtual_time
from fakes import says, stubborn, talks
from house import MAX_QUEUE, House, now

from jarvis_stream.errors import Overloaded, ShuttingDown, TooMany
from jarvis_stream.history.base import Answer, Begun, TurnStart
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.registry import Opening, StreamRegistry
from jarvis_stream.stream import Stream


def house_with(**limits: Any) -> House:
    house = House(talks=talks("a"), hello=says("b"), stubborn=stubborn(5.0))
    house.registry = StreamRegistry(house.agents, house.history, max_queue=MAX_QUEUE, **limits)
    return house


class SlowHistory(MemoryHistory):
    """A history whose questions become durable, and are counted, a moment later."""

    def begin(self, turn: TurnStart, answer: Answer) -> asyncio.Future[Begun]:
        loop = asyncio.get_running_loop()
        begun = loop.create_future()
        loop.call_later(0.02, self._write, turn, answer, begun)
        return begun

    def _write(self, turn: TurnStart, answer: Answer, begun: asyncio.Future[Begun]) -> None:
        written = super().begin(turn, answer).result()
        if not begun.done():
            begun.set_result(written)

    async def count(self, owner: str = "") -> int:
        await asyncio.sleep(0.005)
        counted = await super().count(owner)
        await asyncio.sleep(0.005)
        return counted


def asks(owner: str, session_id: str | None, stream_id: str = "X") -> Opening:
    return Opening(
        prompt="hello", stream_id=stream_id, trace_id="t", owner=owner, session_id=session_id
    )


@in_virtual_time
async def test_a_server_gives_so_many_answers_at_a_time() -> None:
    house = house_with(max_streams=2)
    a = house.read("A", "talks", session_id="1")
    house.read("B", "talks", session_id="2", owner="ann")
    with pytest.raises(Overloaded) as refused:
        house.open("C", "talks", session_id="3")
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    house.open("A", "talks", session_id="1")  # which attaches
    # A newer message takes the place of what it supersedes; one that waits does not.
    c = house.read("C", "talks", session_id="1")
    with pytest.raises(Overloaded):
        house.open("D", "hello", session_id="1", on_conflict="enqueue")
    await a.stream.ended
    await c.sees("a")
    assert c.stream.is_open
    await house.registry.cancel("C")
    house.open("E", "hello", session_id="5")
    await house.registry.shutdown()
    assert not house.registry._of_owner


@in_virtual_time
async def test_and_so_many_to_one_of_those_who_have_names() -> None:
    house = house_with(max_streams_each=2)
    for number in range(5):
        house.open(f"nobody {number}", "talks", session_id=f"{number}")
    for number in range(2):
        house.open(f"{number}", "talks", session_id=f"{number}", owner="ann")
    with pytest.raises(TooMany) as refused:
        house.open("2", "talks", session_id="2", owner="ann")
    assert refused.value.retry_after == 1
    house.open("2", "talks", session_id="2", owner="bob")
    house.open("3", "hello", session_id="1", owner="ann")
    await house.registry.shutdown()


async def started(house: House, opening: Opening) -> None:
    """Start an answer and wait for its end."""
    stream = await house.registry.start(opening)
    assert isinstance(stream, Stream)
    await stream.stopped


@in_virtual_time
async def test_and_so_many_sessions() -> None:
    house = house_with(max_sessions_each=2)
    for session in ("1", "2"):
        await started(house, asks("ann", session, session))
    for other in ("3", None):
        with pytest.raises(TooMany):
            await house.registry.start(asks("ann", other))
    for number, (owner, session) in enumerate((("ann", "1"), ("bob", "3"), ("", "3"))):
        await started(house, asks(owner, session, f"more {number}"))
    assert await house.registry.delete("2", "ann")
    await started(house, asks("ann", "3"))
    assert not house.registry._founding


@in_virtual_time
async def test_concurrent_first_questions_found_no_more_sessions_than_allowed() -> None:
    house = house_with(max_sessions_each=3)
    house.registry.history = slow = SlowHistory()
    starts = [house.registry.start(asks("ann", None, f"{n}")) for n in range(10)]
    others = [house.registry.start(asks("bob", f"{n}", f"{n}")) for n in range(3)]
    told = await asyncio.gather(*starts, *others, return_exceptions=True)
    assert sum(isinstance(each, Stream) for each in told[:10]) == 3
    assert sum(isinstance(each, TooMany) for each in told[:10]) == 7
    assert all(isinstance(each, Stream) for each in told[10:])
    await asyncio.gather(*(each.stopped for each in told if isinstance(each, Stream)))
    assert await slow.count("ann") == 3
    assert not house.registry._founding
    with pytest.raises(TooMany):
        await house.registry.start(asks("ann", None, "more"))


@in_virtual_time
async def test_questions_of_one_new_session_take_one_place() -> None:
    house = house_with(max_sessions_each=1)
    house.registry.history = SlowHistory()
    starts = [house.registry.start(asks("ann", "1", f"{n}")) for n in range(4)]
    streams = await asyncio.gather(*starts)
    assert all(isinstance(stream, Stream) for stream in streams)
    await house.registry.shutdown()
    await asyncio.sleep(1.0)  # the history is told of them
    assert not house.registry._founding


@in_virtual_time
async def test_a_start_that_fails_gives_its_place_back() -> None:
    house = house_with(max_sessions_each=1, max_streams_each=1)
    await started(house, asks("bob", "1", "1"))
    house.registry.drain()
    with pytest.raises(ShuttingDown):
        await house.registry.start(asks("ann", "1"))
    assert not house.registry._founding


@in_virtual_time
@pytest.mark.parametrize("script", ["talks", "stubborn"])
async def test_an_answer_takes_so_long_at_most(script: str) -> None:
    house = house_with(max_seconds=3.0)
    begun_at = now()
    reader = house.read("A", script)
    await reader.stream.ended
    assert now() - begun_at == 3.0
    last = reader.frames[-1]
    assert (last["type"], last["code"], last["retryable"]) == ("error", "too_long", False)
    assert last["error"] == "The answer exceeded the time limit of this server."
    assert house.registry.endings["too_long"] in (0, 1)
    assert await house.kept() == [("A", "error")]
    await house.registry.shutdown()


@in_virtual_time
async def test_what_ends_in_time_leaves_no_timer_behind() -> None:
    house = house_with(max_seconds=3.0)
    reader = house.read("A", "hello")
    await reader.stream.ended
    assert reader.frames[-1]["finish_reason"] == "stop"
    assert now() < 1

"""How much there may be at a time, of everybody and of each owner; and how long it may take."""

from __future__ import annotations

from typing import Any

import pytest
from explorer import in_virtual_time
from fakes import says, stubborn, talks
from house import MAX_QUEUE, House, now

from jarvis_stream.errors import Overloaded, TooMany
from jarvis_stream.registry import Opening, StreamRegistry


def house_with(**limits: Any) -> House:
    house = House(talks=talks("a"), hello=says("b"), stubborn=stubborn(5.0))
    house.registry = StreamRegistry(house.agents, house.history, max_queue=MAX_QUEUE, **limits)
    return house


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


@in_virtual_time
async def test_and_so_many_sessions() -> None:
    house = house_with(max_sessions_each=2)
    for session in ("1", "2"):
        await house.registry.look_up(asks("ann", session, session))
        await house.open(session, "hello", session_id=session, owner="ann").ended
    for other in ("3", None):
        with pytest.raises(TooMany):
            await house.registry.look_up(asks("ann", other))
    for owner, session in (("ann", "1"), ("bob", "3"), ("", "3")):
        await house.registry.look_up(asks(owner, session))
    assert await house.registry.delete("2", "ann")
    await house.registry.look_up(asks("ann", "3"))


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
    assert last["error"] == "The answer took longer than this server lets it."
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

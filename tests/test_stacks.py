"""Where a suspended task waits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from house import House, settle

from jarvis_stream.agents.base import Turn
from jarvis_stream.stacks import MAX_DEPTH, Place, agent_place, running_at, waiting_at


async def rests() -> None:
    await asyncio.sleep(1000)


async def says_and_rests() -> AsyncIterator[str]:
    yield "a"
    await rests()


async def layered(turn: Turn) -> AsyncIterator[str]:
    async for piece in says_and_rests():
        yield piece


async def in_a_subtask(turn: Turn) -> AsyncIterator[str]:
    yield "a"
    async with asyncio.TaskGroup() as group:
        await group.create_task(rests())


async def for_ever() -> None:
    await nested(2 * MAX_DEPTH)


async def nested(depth: int) -> None:
    if depth:
        await nested(depth - 1)
    else:
        await asyncio.Event().wait()


async def place_in(agent: object) -> tuple[list[str], str]:
    house = House(hello=agent)
    stream = house.open("A", "hello")
    while not stream.first_token_at:
        await settle()
    stack = stream.stack
    place = agent_place(stack)
    assert place is not None
    await house.registry.shutdown()
    assert stream.stack == []
    return [each.function for each in stack], str(place)


async def test_an_agents_chain_of_generators_is_followed_to_its_innermost_await() -> None:
    functions, place = await place_in(layered)
    assert functions[-6:] == [
        "StreamRegistry._run",
        "Stream.produce",
        "layered",
        "says_and_rests",
        "rests",
        "sleep",
    ]
    line = rests.__code__.co_firstlineno + 1
    assert place == f"{__file__}:{line} rests"


async def test_a_subtask_that_is_awaited_is_followed() -> None:
    functions, place = await place_in(in_a_subtask)
    assert "in_a_subtask" in functions
    assert place.endswith(" rests")


async def test_a_stack_is_bounded() -> None:
    task = asyncio.create_task(for_ever())
    await settle()
    assert len(waiting_at(task)) == MAX_DEPTH
    task.cancel()
    await asyncio.wait([task])


def test_a_running_stack_ends_with_the_innermost_frame() -> None:
    places = running_at(sys._getframe())
    assert places[-1].function == "test_a_running_stack_ends_with_the_innermost_frame"
    assert agent_place(places) == places[-1]


def test_no_stack_has_no_place() -> None:
    assert agent_place([]) is None


class Lazy:
    """A proxy as frameworks have them: outside of its context it fails, whatever is asked."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("outside of its context")


class Waiting:
    __slots__ = ("a_proxy", "future")

    def __init__(self) -> None:
        self.a_proxy = Lazy()
        self.future = asyncio.get_running_loop().create_future()

    def __await__(self) -> Any:
        return self

    def __next__(self) -> asyncio.Future[None]:
        self.future._asyncio_future_blocking = True
        return self.future


async def test_no_code_of_an_agents_objects_runs() -> None:
    async def waits() -> None:
        await Waiting()

    task = asyncio.create_task(waits())
    await settle()
    assert [place.function.rpartition(".")[2] for place in waiting_at(task)] == ["waits"]
    task.cancel()


def test_a_place_in_a_file_whose_name_is_no_utf8_is_text() -> None:
    assert str(Place("/tmp/\udc80.py", 3, "agent")) == "/tmp/\\udc80.py:3 agent"

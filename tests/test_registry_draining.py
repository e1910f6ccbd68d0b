"""A registry that takes nothing new: what it has goes on, and its end is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from explorer import in_virtual_time
from fake_history import SlowHistory
from fakes import Tidy, says, stubborn, talks
from house import House, now, settle

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.errors import ShuttingDown

CANCEL_TIMEOUT = 2.0


@in_virtual_time
async def test_what_lives_goes_on_and_what_is_new_is_refused() -> None:
    house = House(tidy=talks("a"), hello=says("b"))
    a = await house.busy("tidy")
    house.registry.drain()
    house.registry.drain()
    assert house.registry.draining
    with pytest.raises(ShuttingDown) as refused:
        house.open("B", "hello", session_id="t")
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    assert house.open("A", "tidy") is a.stream
    assert a.stream.is_open


@in_virtual_time
async def test_what_waits_in_line_has_its_turn() -> None:
    house = House(slow=_slow, hello=says("b"))
    await house.busy("slow")
    (b,) = house.line_up("B")
    house.registry.drain()
    begun_at = now()
    await house.registry.settled()
    assert now() - begun_at == 3.0
    assert b.frames[-1]["finish_reason"] == "stop"
    assert house.empty


@in_virtual_time
async def test_what_is_still_being_kept_is_waited_for() -> None:
    house = House(SlowHistory(finish_after=2.0), hello=says("b"))
    house.read("A", "hello")
    house.registry.drain()
    await house.registry.settled()
    assert now() >= 2.0
    assert house.empty


@in_virtual_time
async def test_nothing_is_waited_for_when_nothing_lives() -> None:
    house = House()
    house.registry.drain()
    begun_at = now()
    await house.registry.settled()
    assert now() == begun_at


@in_virtual_time
async def test_the_undead_are_not_waited_for() -> None:
    house = House(stubborn=stubborn(100.0, "a"), hello=says("b"))
    house.open("A", "stubborn")
    await settle()
    b = house.read("B", "hello")
    await b.end()
    house.registry.drain()
    begun_at = now()
    await house.registry.settled()
    assert now() == begun_at
    assert len(house.registry) == 1


@in_virtual_time
async def test_nor_are_those_that_become_undead_meanwhile() -> None:
    house = House(stubborn=stubborn(100.0, "a"))
    house.open("A", "stubborn")
    await settle()
    house.registry.drain()
    begun_at = now()
    waiting = asyncio.ensure_future(house.registry.settled())
    await settle()
    assert not (await house.registry.cancel("A")).clean
    await waiting
    assert now() - begun_at <= 2 * CANCEL_TIMEOUT


@in_virtual_time
async def test_nor_are_those_that_do_not_stop_though_nobody_asked_them_to_wait() -> None:
    house = House(stubborn=stubborn(100.0, "a"))
    a = house.read("A", "stubborn")
    await settle()
    a.follower.close()  # the last reader has left, and nobody is interested any more
    await asyncio.sleep(10.0)
    house.registry.drain()
    begun_at = now()
    await house.registry.settled()
    assert now() - begun_at <= 2 * CANCEL_TIMEOUT
    assert len(house.registry) == 1


@in_virtual_time
async def test_giving_up_the_wait_harms_no_stream() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy)
    a = house.read("A", "tidy")
    await settle()
    house.registry.drain()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await house.registry.settled()
    assert a.stream.is_open
    await house.registry.shutdown()
    assert a.frames[-1]["finish_reason"] == "shutdown"
    assert tidy.complete == 1


async def _slow(turn: Turn) -> AsyncGenerator[Piece, None]:
    yield "a"
    await asyncio.sleep(3.0)

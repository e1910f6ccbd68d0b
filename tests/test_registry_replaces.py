"""Streams that take the place of earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from explorer import in_virtual_time
from fake_history import SlowHistory
from fakes import FakeReader, Tidy, says, stubborn, talks
from house import House, now, settle

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.errors import Conflict, NotFound, Unavailable
from jarvis_stream.registry import LOOKUP_TIMEOUT, Opening


async def asked(house: House, *stream_ids: str) -> None:
    """Ask and be answered, one after the other."""
    for stream_id in stream_ids:
        await house.read(stream_id, "hello").end()


def opening(stream_id: str, replaces: str, session_id: str | None = "s") -> Opening:
    return Opening(
        prompt="hello",
        stream_id=stream_id,
        trace_id="t",
        session_id=session_id,
        replaces=replaces,
        may_be_known=True,
    )


async def reopened(house: House, stream_id: str, replaces: str) -> FakeReader:
    """As the transports do it."""
    return FakeReader(
        house.registry.open(await house.registry.look_up(opening(stream_id, replaces)))
    )


@in_virtual_time
async def test_a_turn_and_all_that_follow_it_leave() -> None:
    house = House(hello=says("a"))
    await asked(house, "A", "B", "C")
    d = house.read("D", "hello", replaces="B")
    await d.end()
    assert d.frames[0]["replaces"] == "B"
    assert await house.kept() == [("A", "complete"), ("D", "complete")]
    told = [message["content"] for message in house.agents.turns[-1].messages]
    assert told == ["hello", "a", "hello"]
    await (e := house.read("E", "hello")).end()
    assert "replaces" not in e.frames[0]


@in_virtual_time
async def test_what_only_the_history_knows_is_replaced_too() -> None:
    house = House(hello=says("a"))
    await asked(house, "A", "B")
    house.registry.shelf.clear()
    with pytest.raises(NotFound):
        house.open("C", "hello", replaces="B")
    await (await reopened(house, "C", "B")).end()
    assert await house.kept() == [("A", "complete"), ("C", "complete")]


@in_virtual_time
async def test_what_lives_is_superseded_first_and_leaves() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    await asked(house, "A")
    old = await house.busy("tidy", "B")
    began = now()
    new = house.read("C", "hello", replaces="A")
    last = await old.end()
    assert (last["finish_reason"], last["superseded_by"]) == ("superseded", "C")
    assert "saved" not in last, "it was not to be kept"
    assert await house.kept() == [("C", "streaming")]
    await new.end()
    assert now() - began == pytest.approx(1.0), "it did not wait for the cleanup"
    assert await house.kept() == [("C", "complete")]
    assert house.empty


@in_virtual_time
async def test_the_late_end_of_an_agent_that_does_not_stop_brings_nothing_back() -> None:
    house = House(stubborn=stubborn(10.0, "a"), hello=says("b"))
    old = await house.busy("stubborn")
    await house.read("B", "hello", replaces="A").end()
    await old.stream.stopped
    assert await house.kept() == [("B", "complete")]


@in_virtual_time
async def test_an_answer_that_the_history_was_still_keeping_leaves() -> None:
    house = House(SlowHistory(finish_after=1.0), hello=says("a"))
    a = house.read("A", "hello")
    await a.sees("a")
    await settle()
    await house.read("B", "hello", replaces="A").end()
    assert await house.kept() == [("B", "complete")]


@in_virtual_time
async def test_the_line_is_cleared_and_what_waited_there_leaves() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await asked(house, "first")
    await house.busy()
    b, c = house.line_up("B", "C")
    await house.read("D", "hello", replaces="B").end()
    assert [reader.frames[-1]["superseded_by"] for reader in (b, c)] == ["D", "D"]
    assert await house.kept() == [
        ("first", "complete"),
        ("A", "superseded"),
        ("D", "complete"),
    ]


@in_virtual_time
async def test_the_same_request_again_attaches_though_what_it_replaced_is_gone() -> None:
    house = House(hello=says("a"))
    await asked(house, "A")
    house.registry.shelf.clear()
    b = await reopened(house, "B", "A")
    assert (await reopened(house, "B", "A")).stream is b.stream
    await b.end()
    assert (await reopened(house, "B", "A")).stream is b.stream
    assert await house.kept() == [("B", "complete")]


@in_virtual_time
async def test_a_replaced_turn_can_be_neither_replayed_nor_replaced_again() -> None:
    house = House(hello=says("a"))
    await asked(house, "A", "B")
    await house.read("C", "hello", replaces="A").end()
    for gone in "AB":
        assert house.registry.find(gone) is None
        with pytest.raises(NotFound):
            await house.registry.reach(gone)
        with pytest.raises(NotFound):
            house.open("D", "hello", replaces=gone)
        with pytest.raises(NotFound):
            await house.registry.look_up(opening("D", gone))
    assert await house.kept() == [("C", "complete")]


@in_virtual_time
@pytest.mark.parametrize("target", ["nothing", "elsewhere", "rolled back"])
async def test_an_unknown_target_is_refused_before_anything_is_interrupted(target: str) -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.read("elsewhere", "hello", session_id="t").end()
    await house.busy(stream_id="rolled back")
    house.read("A", "talks", on_conflict="rollback")
    await settle()
    for kept in (True, False):
        with pytest.raises(NotFound, match=r"^replaces: "):
            await house.registry.look_up(opening("B", target))
        with pytest.raises(NotFound, match=r"^replaces: "):
            house.open("B", "hello", replaces=target)
        if kept:
            house.registry.shelf.clear()
    with pytest.raises(NotFound):
        await house.registry.look_up(opening("B", "A", session_id=None))
    assert await house.kept() == [("A", "streaming")]
    assert house.registry.find("B") is None


@in_virtual_time
async def test_it_cannot_wait_in_line_behind_what_it_replaces() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    for on_conflict in ("enqueue", "reject"):
        with pytest.raises(Conflict):
            house.open("B", "hello", replaces="A", on_conflict=on_conflict)
    assert await house.kept() == [("A", "streaming")]
    await house.registry.cancel("A")
    await house.read("B", "hello", replaces="A", on_conflict="enqueue").end()
    await house.read("C", "hello", replaces="B", on_conflict="reject").end()
    assert await house.kept() == [("C", "complete")]


@in_virtual_time
async def test_a_history_that_cannot_be_read_refuses_only_what_it_alone_knows() -> None:
    house = House(hello=says("a"))
    await asked(house, "A", "B")

    async def fail(stream_id: str) -> None:
        await asyncio.sleep(5)
        raise Unavailable("the database cannot be read now; retry later")

    house.history.turn = fail  # type: ignore[method-assign]
    began = now()
    with pytest.raises(Unavailable):
        await reopened(house, "C", "nothing")
    # The second read is not cut short: nothing else knows what is to be replaced.
    assert now() - began == pytest.approx(LOOKUP_TIMEOUT + 5)
    await (await reopened(house, "C", "B")).end()
    assert await house.kept() == [("A", "complete"), ("C", "complete")]


@in_virtual_time
async def test_when_nothing_can_be_saved_it_goes_on_and_says_so() -> None:
    house = House(SlowHistory(saves=False), hello=says("a"), talks=talks("a"))
    old = await house.busy()
    last = await house.read("B", "hello", replaces="A").end()
    assert last["saved"] is False
    assert (await old.end())["superseded_by"] == "B"


@in_virtual_time
async def test_an_epoch_from_a_clock_that_was_ahead_is_passed() -> None:
    house = House(hello=says("a"))
    house.registry._epoch_floor = 10**15
    await asked(house, "A")
    ahead = house.registry.find("A")
    assert ahead is not None
    house.registry._epoch_floor = 0
    house.registry._sessions.clear()
    b = house.open("B", "hello", replaces="A")
    assert b.epoch > ahead.epoch
    await b.stopped
    assert await house.kept() == [("B", "complete")]


@in_virtual_time
async def test_a_deleted_undead_stream_cannot_be_replayed_when_it_has_stopped() -> None:
    async def deaf(turn: Turn) -> AsyncGenerator[Piece, None]:
        async for piece in stubborn(10.0, "a")(turn):
            yield piece

    house = House(stubborn=deaf)
    old = await house.busy("stubborn")
    assert await house.registry.delete("s")
    assert not old.stream.stopped.done()
    await old.stream.stopped
    assert house.registry.find("A") is None
    assert len(house.registry.shelf) == 0
    assert house.empty

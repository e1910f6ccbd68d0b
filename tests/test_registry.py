"""One live stream per session, whatever the streams before it do. Times are virtual and exact."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import pytest
from explorer import in_virtual_time
from fake_history import SlowHistory
from fakes import (
    SECRET,
    Tidy,
    fails,
    forever,
    parse,
    read_all,
    says,
    stubborn,
    talks,
)
from house import House, now, settle
from loguru import logger

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.errors import (
    Conflict,
    CursorAhead,
    Gone,
    NotFound,
    StreamFailure,
    Unavailable,
    UpstreamTimeout,
)
from jarvis_stream.frames import Done, Status
from jarvis_stream.history.base import Span, TurnEnd
from jarvis_stream.registry import (
    LOOKUP_TIMEOUT,
    MAX_TOMBSTONES,
    MAX_ZOMBIES,
    Opening,
    StreamRegistry,
)
from jarvis_stream.shelf import Shelf
from jarvis_stream.stream import State, Stream


def ending(stream: Stream) -> str:
    last = parse(read_all(stream))[-1]
    return str(last["finish_reason"] if last["type"] == "done" else last["code"])


# The fourteen situations in which the sketch of the registry went wrong


@in_virtual_time
async def test_two_messages_that_see_the_same_predecessor_leave_one_live_stream() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    house.open("A", "tidy")
    await settle()
    b, c = house.open("B", "hello"), house.open("C", "hello")
    await asyncio.wait([b.stopped, c.stopped])
    assert (ending(b), ending(c)) == ("superseded", "stop")
    assert house.empty


@pytest.mark.parametrize("error", [asyncio.CancelledError(SECRET), ValueError(SECRET)])
@in_virtual_time
async def test_what_an_old_agent_raises_stays_out_of_the_new_stream(error: BaseException) -> None:
    async def raises_in_cleanup(turn: Turn) -> AsyncGenerator[Piece, None]:
        try:
            yield "a"
            await forever()
        finally:
            raise error

    house = House(old=raises_in_cleanup, hello=says("b"))
    old = house.read("A", "old")
    await settle()
    new = house.read("B", "hello")
    assert (await new.end())["finish_reason"] == "stop"
    assert SECRET.encode() not in old.data + new.data


@in_virtual_time
async def test_an_old_agent_that_swallows_cancellation_costs_the_bound_and_no_more() -> None:
    house = House(stubborn=stubborn(10.0, "a"), hello=says("b"))
    house.open("A", "stubborn")
    await settle()
    asked_at = now()
    await house.read("B", "hello").sees("b")
    assert now() - asked_at == 2.0
    assert house.registry.timeouts == 1


@in_virtual_time
async def test_a_cleanup_within_the_bound_is_cancelled_once_and_awaited() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy, hello=says("b"))
    house.open("A", "tidy")
    await settle()
    asked_at = now()
    await house.read("B", "hello").sees("b")
    assert now() - asked_at == 1.0
    assert tidy.complete == 1


@in_virtual_time
async def test_a_cleanup_past_the_bound_is_left_behind_and_cancelled_once_more() -> None:
    tidy = Tidy(5.0, "a")
    house = House(tidy=tidy, hello=says("b"))
    a = house.open("A", "tidy")
    await settle()
    asked_at = now()
    b = house.read("B", "hello")
    await b.end()
    await a.stopped
    assert now() - asked_at == 2.0
    assert (tidy.begun, tidy.complete) == (1, 0)
    assert house.empty


@in_virtual_time
async def test_a_waiting_stream_that_is_killed_touches_nobody_and_leaks_nothing() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy, hello=says("b"))
    house.open("A", "tidy")
    await settle()
    b = house.open("B", "hello")
    await settle()
    assert b._task is not None
    b._task.cancel()
    await b.stopped
    assert tidy.complete == 0
    await asyncio.sleep(2.0)
    assert tidy.complete == 1
    assert house.empty


@in_virtual_time
async def test_a_finished_stream_is_forgotten() -> None:
    house = House(hello=says("a"))
    await house.open("A", "hello").stopped
    assert house.empty
    assert house.registry.head("s") is None


@in_virtual_time
async def test_a_stop_while_a_stream_is_pending_hits_it_and_no_other() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy, hello=says("b"))
    a = house.open("A", "tidy")
    await settle()
    b = house.open("B", "hello")
    told = await house.registry.cancel("B")
    assert (told.cancelled, told.clean, told.cleanup_ms) == (True, True, 0)
    assert (ending(a), ending(b)) == ("superseded", "cancelled")
    assert [turn.stream_id for turn in house.agents.turns] == ["A"]
    c = house.read("C", "hello")
    assert (await c.end())["finish_reason"] == "stop"


@in_virtual_time
async def test_the_end_of_an_old_stream_does_not_remove_the_newer_one() -> None:
    house = House(tidy=Tidy(1.0, "a"), talks=talks("b"), hello=says("c"))
    a = house.open("A", "tidy")
    await settle()
    b = house.open("B", "talks")
    await a.stopped
    await settle()
    assert house.registry.head("s") is b
    c = house.read("C", "hello")
    await c.end()
    assert ending(b) == "superseded"


@in_virtual_time
async def test_an_agent_that_supersedes_itself_is_fenced_and_not_killed_by_it() -> None:
    went_on: list[float] = []

    async def heir(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        house.open("B", "hello")
        await asyncio.sleep(0.5)
        went_on.append(now())
        yield "never seen"

    house = House(heir=heir, hello=says("b"))
    a = house.read("A", "heir")
    assert (await a.end())["superseded_by"] == "B"
    b = house.registry.find("B")
    assert b is not None
    await b.stopped
    assert (went_on, a.text, ending(b)) == ([0.5], "a", "stop")
    assert house.empty


@in_virtual_time
async def test_nothing_of_a_stuck_stream_comes_after_the_new_one_has_claimed() -> None:
    async def deaf(turn: Turn) -> AsyncGenerator[Piece, None]:
        for n in range(1000):
            yield f"old {n} "
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    house = House(deaf=deaf, hello=says("b"))
    a = house.read("A", "deaf")
    await a.sees("old 20")
    b = house.read("B", "hello")
    seq = a.stream.seq
    await b.end()
    assert a.stream.seq == seq
    assert a.frames[-1]["finish_reason"] == "superseded"


@in_virtual_time
async def test_a_second_cancellation_during_a_cleanup_leaks_nothing() -> None:
    house = House(tidy=Tidy(1.0, "a"))
    streams = [house.open(f"A{n}", "tidy", session_id=f"s{n}") for n in range(100)]
    await settle()
    for stream in streams:
        stream.revoke(Done("cancelled"), "client_stop")
    await settle()
    for stream in streams:
        assert stream._task is not None
        stream._task.cancel()
    await asyncio.wait([stream.stopped for stream in streams])
    assert house.empty


@in_virtual_time
async def test_a_message_sent_under_a_lock_that_the_old_cleanup_needs_does_not_wait() -> None:
    lock = asyncio.Lock()

    async def locks(turn: Turn) -> AsyncGenerator[Piece, None]:
        try:
            yield "a"
            await forever()
        finally:
            async with lock:
                pass

    house = House(locks=locks, hello=says("b"))
    house.open("A", "locks")
    await settle()
    asked_at = now()
    async with lock:
        b = house.read("B", "hello")
    await b.end()
    assert now() == asked_at
    assert house.registry.timeouts == 0


@in_virtual_time
async def test_the_newest_waits_for_all_older_agents_and_not_only_for_the_last() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy, hello=says("b"))
    house.open("A", "tidy")
    await settle()
    asked_at = now()
    house.open("B", "hello")
    await settle()
    await house.read("C", "hello").sees("b")
    assert now() - asked_at == 1.0
    assert tidy.complete == 1


@in_virtual_time
async def test_a_stream_cancelled_before_its_first_step_leaks_nothing() -> None:
    house = House(hello=says("a"))
    a = house.open("A", "hello")
    assert a._task is not None
    a._task.cancel()
    await a.stopped
    assert house.empty
    assert ending(a) == "shutdown"
    assert house.agents.turns == []


@in_virtual_time
async def test_an_agent_that_tidies_up_after_its_own_end_is_not_cancelled_by_a_newer_one() -> None:
    tidied: list[float] = []

    async def ends_itself(turn: Turn) -> AsyncGenerator[Piece, None]:
        try:
            yield Done("stop")
        finally:
            await asyncio.sleep(1.0)
            tidied.append(now())

    house = House(ends_itself=ends_itself, hello=says("b"))
    house.open("A", "ends_itself")
    await asyncio.sleep(0.5)
    await house.read("B", "hello").sees("b")
    assert tidied == [1.0]
    assert now() == 1.0


@in_virtual_time
async def test_a_stream_is_retired_once() -> None:
    house = House(hello=says("a"))
    a = house.open("A", "hello")
    await a.stopped
    house.registry._retire(a)
    assert house.registry.endings == {"stop": 1}


# One session, many messages


@in_virtual_time
async def test_the_second_message_supersedes_the_first() -> None:
    house = House(talks=talks("a"), hello=says("b", "c"))
    a = house.read("A", "talks")
    await a.sees("a")
    b = house.read("B", "hello")
    assert (await b.end())["finish_reason"] == "stop"
    assert a.frames[-1]["finish_reason"] == "superseded"
    assert a.frames[-1]["superseded_by"] == "B"
    assert b.text == "bc"
    assert house.registry.endings == {"superseded": 1, "stop": 1}


@in_virtual_time
async def test_of_a_thousand_messages_the_last_one_answers() -> None:
    house = House(hello=says("a"))
    readers = [house.read(f"A{n}", "hello") for n in range(1000)]
    last = await readers[-1].end()
    assert last["finish_reason"] == "stop"
    endings = [reader.frames[-1]["finish_reason"] for reader in readers]
    assert endings == ["superseded"] * 999 + ["stop"]
    epochs = [reader.stream.epoch for reader in readers]
    assert all(older < newer for older, newer in itertools.pairwise(epochs))
    await settle()
    assert house.empty
    assert house.registry.timeouts == 0


@in_virtual_time
async def test_a_polite_message_is_refused_while_the_session_is_busy() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = house.open("A", "talks")
    with pytest.raises(Conflict):
        house.open("B", "hello", on_conflict="reject")
    assert house.registry.find("B") is None
    assert [turn.stream_id for turn in await house.history.turns("s")] == ["A"]
    await house.registry.cancel("A")
    b = house.read("B", "hello", on_conflict="reject")
    assert (await b.end())["finish_reason"] == "stop"
    assert ending(a) == "cancelled"


@in_virtual_time
async def test_a_polite_message_is_taken_while_a_stopped_agent_still_tidies_up() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    a = house.read("A", "tidy")
    await a.sees("a")
    stop = asyncio.ensure_future(house.registry.cancel("A"))
    await settle()
    b = house.read("B", "hello", on_conflict="reject")
    await b.end()
    assert (await stop).clean


@in_virtual_time
async def test_sessions_do_not_disturb_each_other() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = house.open("A", "talks", session_id="s")
    await house.open("B", "hello", session_id="t").stopped
    assert a.state is State.ACTIVE
    await house.registry.cancel("A")


@in_virtual_time
async def test_a_message_without_a_session_founds_one() -> None:
    house = House(hello=says("a"))
    a = house.open("A", "hello", session_id=None)
    b = house.open("B", "hello", session_id=None)
    assert a.session_id != b.session_id
    await asyncio.wait([a.stopped, b.stopped])
    assert (ending(a), ending(b)) == ("stop", "stop")


@in_virtual_time
async def test_an_agent_is_given_the_session_so_far_the_new_message_last() -> None:
    house = House(talks=talks("half an "), hello=says("b"))
    a = house.read("A", "talks")
    await a.sees("half an ")
    await house.open("B", "hello").stopped
    turn = house.agents.turns[-1]
    assert turn.messages == [
        {"role": "user", "content": "talks"},
        {"role": "assistant", "content": "half an "},
        {"role": "user", "content": "hello"},
    ]
    assert (turn.prompt, turn.session_id) == ("hello", "s")
    assert (turn.stream_id, turn.trace_id) == ("B", "trace-B")
    assert [(kept.text, kept.status) for kept in await house.history.turns("s")] == [
        ("half an ", "superseded"),
        ("b", "complete"),
    ]


# The same request again


@in_virtual_time
async def test_the_same_request_again_attaches_and_starts_nothing() -> None:
    house = House(hello=says("a", "b"))
    a = house.open("A", "hello")
    assert house.open("A", "hello") is a
    assert house.open("A", "hello", session_id=None) is a
    await a.stopped
    assert house.open("A", "hello") is a
    assert len(house.agents.turns) == 1
    assert len(await house.history.turns("s")) == 1


@in_virtual_time
async def test_the_same_request_after_its_stream_was_dropped_starts_no_second_one() -> None:
    house = House(hello=says("a"))
    await house.open("A", "hello").stopped
    house.registry.shelf.clear()
    again = Opening(prompt="hello", stream_id="A", trace_id="t", session_id="s", may_be_known=True)
    with pytest.raises(Gone):
        await house.registry.look_up(again)
    with pytest.raises(Conflict):
        await house.registry.look_up(replace(again, session_id="t"))
    # And should the history find out too late:
    assert (await house.read("A", "hello").end())["code"] == "interrupted"
    assert len(house.agents.turns) == 1
    [turn] = await house.history.turns("s")
    assert (turn.text, turn.status) == ("a", "complete")


@in_virtual_time
async def test_a_stream_that_comes_while_the_history_is_asked_for_it_is_found() -> None:
    house = House(hello=says("a"))
    ask, answers = house.history.turn, asyncio.Event()

    async def slowly(stream_id: str) -> Any:
        await answers.wait()
        return await ask(stream_id)

    house.history.turn = slowly  # type: ignore[method-assign]
    request = Opening(prompt="hello", stream_id="A", trace_id="t", may_be_known=True)
    again = asyncio.create_task(house.registry.start(request))
    reader = asyncio.create_task(house.registry.reach("A"))
    await asyncio.sleep(0)
    stream = house.registry.open(request)
    answers.set()
    assert await again is await reader is stream
    await stream.stopped
    assert len(house.agents.turns) == 1


@in_virtual_time
async def test_a_history_that_cannot_tell_does_not_stand_in_the_way_of_a_start() -> None:
    house = House(hello=says("a"))

    async def hang(stream_id: str) -> None:
        await forever()

    house.history.turn = hang  # type: ignore[method-assign]
    await house.registry.look_up(
        Opening(prompt="hello", stream_id="A", trace_id="t", may_be_known=True)
    )
    assert now() == pytest.approx(LOOKUP_TIMEOUT)
    # Nor does it hold up whoever asks for a stream that is not here: a socket waits for this.
    assert isinstance(await house.registry.why_missing("A"), NotFound)
    assert now() == pytest.approx(2 * LOOKUP_TIMEOUT)


@in_virtual_time
async def test_a_stream_id_of_another_session_is_a_conflict() -> None:
    house = House(hello=says("a"))
    a = house.open("A", "hello", session_id="s")
    with pytest.raises(Conflict):
        house.open("A", "hello", session_id="t")
    await a.stopped
    with pytest.raises(Conflict):
        house.open("A", "hello", session_id="t")


@in_virtual_time
async def test_a_cursor_into_a_stream_that_has_not_begun_is_refused() -> None:
    house = House(hello=says("a"))
    with pytest.raises(CursorAhead):
        house.open("A", "hello", after=1)
    assert house.empty
    assert await house.history.turns("s") == []


# Stopping


@in_virtual_time
async def test_a_stop_does_not_cancel_what_the_history_promised() -> None:
    house = House(SlowHistory(begin_after=1.0), hello=says("a"))
    a = house.read("A", "hello")
    begun = a.stream.begun
    await settle()
    await house.registry.cancel("A")
    assert (await a.end())["finish_reason"] == "cancelled"
    assert not begun.done()
    assert (await begun).saved
    assert house.empty


@in_virtual_time
async def test_a_stop_that_comes_before_its_stream_is_not_lost() -> None:
    house = House(hello=says("a"))
    house.stop_early("A")
    a = house.read("A", "hello")
    assert a.frames[-1]["finish_reason"] == "cancelled"
    assert [frame["seq"] for frame in a.frames] == [1, 2]
    assert house.agents.turns == []
    assert house.empty
    assert [turn.status for turn in await house.history.turns("s")] == ["cancelled"]
    told = await house.registry.cancel("A")
    assert (told.cancelled, told.clean) == (True, True)


@in_virtual_time
async def test_a_stream_stopped_before_it_came_supersedes_the_one_before_it() -> None:
    """As it would if the stop had come after it: its epoch makes the older frames stale."""
    house = House(talks=talks("a"))
    a = house.read("A", "talks")
    await a.sees("a")
    house.stop_early("B")
    b = house.open("B", "talks")
    assert a.stream.epoch < b.epoch
    assert (await a.end())["superseded_by"] == "B"
    assert ending(b) == "cancelled"
    await settle()
    assert house.empty


@in_virtual_time
async def test_a_stop_is_remembered_for_one_stream_only_and_used_up() -> None:
    house = House(hello=says("a"))
    house.stop_early("A")
    assert await house.read("B", "hello").end()
    house.open("A", "hello", session_id="s")
    house.registry.shelf.clear()
    await house.history.remove(Span("s", 0, 2**62))
    again = house.read("A", "hello", session_id="t")
    assert (await again.end())["finish_reason"] == "stop"


@in_virtual_time
async def test_only_so_many_early_stops_are_remembered_and_the_oldest_go_first() -> None:
    house = House(hello=says("a"))
    for n in range(MAX_TOMBSTONES + 1):
        house.stop_early(f"A{n}")
    first, second = house.open("A0", "hello", "s"), house.open("A1", "hello", "t")
    await first.stopped
    assert (ending(first), ending(second)) == ("stop", "cancelled")


@in_virtual_time
async def test_one_principals_early_stops_do_not_make_the_server_forget_anothers() -> None:
    house = House(hello=says("a"))
    house.stop_early("B", "bob")
    for n in range(MAX_TOMBSTONES + 1):
        house.stop_early(f"A{n}", "ann")
    b = house.open("B", "hello", "t", owner="bob")
    await b.stopped
    assert ending(b) == "cancelled"


@in_virtual_time
async def test_a_stop_while_streaming_answers_when_the_agent_has_stopped() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy)
    a = house.read("A", "tidy")
    await a.sees("a")
    asked_at = now()
    told = await house.registry.cancel("A")
    assert now() - asked_at == 1.0
    assert tidy.complete == 1
    assert (told.cancelled, told.clean) == (True, True)
    assert a.frames[-1]["finish_reason"] == "cancelled"
    assert house.empty


@in_virtual_time
async def test_a_stop_takes_effect_before_its_answer_is_awaited() -> None:
    house = House(tidy=Tidy(1.0, "a"))
    a = house.open("A", "tidy")
    await settle()
    answer = house.registry.cancel("A")
    assert a.state is State.ENDED
    await answer


@in_virtual_time
async def test_a_stop_of_a_stuck_agent_answers_at_the_bound_that_it_is_not_clean() -> None:
    house = House(stubborn=stubborn(10.0, "a"))
    a = house.open("A", "stubborn")
    await settle()
    asked_at = now()
    told = await house.registry.cancel("A")
    assert now() - asked_at == 2.0
    assert (told.cancelled, told.clean, a.undead) == (True, False, True)
    await a.stopped
    assert not a.undead
    assert house.empty


@in_virtual_time
async def test_a_stop_after_the_end_changes_nothing() -> None:
    house = House(hello=says("a"), talks=talks("b"))
    a = house.read("A", "hello")
    await a.end()
    before = a.data
    b = house.open("B", "talks")
    await settle()
    told = await house.registry.cancel("A")
    assert (told.cancelled, told.clean) == (False, True)
    assert read_all(a.stream) == before
    assert b.state is State.ACTIVE
    await house.registry.cancel("B")


@in_virtual_time
async def test_a_stop_of_a_superseded_stream_does_not_touch_the_newer_one() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    a = house.open("A", "tidy")
    await settle()
    b = house.read("B", "hello")
    told = await house.registry.cancel("A")
    assert (told.cancelled, told.clean) == (False, True)
    assert (await b.end())["finish_reason"] == "stop"
    assert ending(a) == "superseded"


@in_virtual_time
async def test_an_agent_that_stops_itself_and_then_hangs_is_ended_at_the_bound() -> None:
    async def suicide(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        await house.registry.cancel("A")
        await forever()

    house = House(suicide=suicide)
    a = house.open("A", "suicide")
    await a.stopped
    assert now() == 2.0
    await settle()
    assert house.empty


@in_virtual_time
async def test_the_last_reader_gone_is_a_stop_of_its_own_kind() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy)
    a = house.read("A", "tidy")
    await a.sees("a")
    a.leave()
    await tidy.cleaning.wait()
    assert now() == 0.0
    assert ending(a.stream) == "cancelled"
    assert a.stream.revoked_for == "client_disconnected"


# Agents that fail


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(SECRET), "agent_error"),
        (asyncio.CancelledError(SECRET), "agent_error"),
        (StreamFailure(), "agent_error"),
        (UpstreamTimeout(), "upstream_timeout"),
        (StopAsyncIteration(SECRET), "agent_error"),
        (KeyError(SECRET), "agent_error"),
        (SystemExit(SECRET), "agent_error"),
        (KeyboardInterrupt(SECRET), "agent_error"),
        (GeneratorExit(SECRET), "agent_error"),
        (BaseException(SECRET), "agent_error"),
        (BaseExceptionGroup(SECRET, [SystemExit()]), "agent_error"),
        (BaseExceptionGroup(SECRET, [KeyboardInterrupt(), GeneratorExit()]), "agent_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@in_virtual_time
async def test_whatever_an_agent_raises_is_one_error_frame_that_tells_no_secret(
    error: BaseException, code: str
) -> None:
    house = House(fails=fails(error, "half "), hello=says("b"))
    a = house.read("A", "fails")
    last = await a.end()
    assert (last["type"], last["code"]) == ("error", code)
    assert last["retryable"] is True
    assert a.text == "half "
    assert SECRET.encode() not in a.data
    assert [turn.status for turn in await house.history.turns("s")] == ["error"]
    await settle()
    assert house.empty
    assert house.registry.endings == {code: 1}
    assert (await house.read("B", "hello").end())["finish_reason"] == "stop"


def is_no_generator(turn: Turn) -> Any:
    return ["a list is no agent"]


async def yields_a_number(turn: Turn) -> AsyncGenerator[Any, None]:
    yield 7


async def yields_a_strange_status(turn: Turn) -> AsyncGenerator[Piece, None]:
    yield Status("tool", detail=object())


async def ends_with_a_strange_reason(turn: Turn) -> AsyncGenerator[Piece, None]:
    yield Done("shutdown")


async def ends_with_a_strange_usage(turn: Turn) -> AsyncGenerator[Piece, None]:
    yield "a"
    yield Done("stop", usage={"tokens": object()})


async def says_it_was_superseded(turn: Turn) -> AsyncGenerator[Piece, None]:
    yield Done("stop", superseded_by=cast(str, object()))


async def fails_in_its_cleanup(turn: Turn) -> AsyncGenerator[Piece, None]:
    try:
        yield Done("stop")
    finally:
        raise ValueError(SECRET)


async def does_not_close(turn: Turn) -> AsyncGenerator[Piece, None]:
    try:
        yield Done("stop")
    except GeneratorExit:
        yield "never seen"


def raises_at_once(turn: Turn) -> AsyncGenerator[Piece, None]:
    raise ValueError(SECRET)


@pytest.mark.parametrize(
    "agent",
    [
        is_no_generator,
        yields_a_number,
        yields_a_strange_status,
        ends_with_a_strange_reason,
        ends_with_a_strange_usage,
        says_it_was_superseded,
        fails_in_its_cleanup,
        does_not_close,
        raises_at_once,
    ],
    ids=lambda agent: agent.__name__,
)
@in_virtual_time
async def test_an_agent_that_breaks_its_contract_is_an_agent_error(agent: Any) -> None:
    house = House(agent=agent)
    a = house.read("A", "agent")
    assert (await a.end())["code"] == "agent_error"
    assert SECRET.encode() not in a.data
    await settle()
    assert house.empty


@pytest.mark.parametrize(
    "sentence", ["Cannot read \udcff.pdf.", 7, object()], ids=["surrogate", "int", "object"]
)
@in_virtual_time
async def test_a_failure_ends_its_stream_as_an_error_whatever_its_sentence_is(
    sentence: Any,
) -> None:
    house = House(fails=fails(StreamFailure(sentence), "a"))
    a = house.read("A", "fails")
    last = await a.end()
    assert (last["type"], last["code"]) == ("error", "agent_error")
    (kept,) = await house.history.turns("s")
    assert (kept.status, kept.error_code, kept.error) == ("error", "agent_error", last["error"])


@in_virtual_time
async def test_a_usage_is_kept_as_it_was_when_the_agent_ended() -> None:
    usage = {"mo\udcffdel": "x"}

    async def agent(turn: Turn) -> AsyncGenerator[Piece, None]:
        try:
            yield Done("stop", usage=usage)
        finally:
            usage["more"] = cast(str, object())

    house = House(SlowHistory(finish_after=1.0), agent=agent)
    a = house.read("A", "agent")
    assert (await a.end())["usage"] == {"mo\ufffddel": "x"}
    (kept,) = await house.history.turns("s")
    assert kept.usage == {"mo\ufffddel": "x"}


@in_virtual_time
async def test_a_task_that_fails_outside_of_its_agent_ends_its_stream_as_an_error() -> None:
    house = House(hello=says("a"))
    house.registry._fail = None  # type: ignore[assignment,method-assign]
    house.agents.scripts["hello"] = fails(ValueError())
    a = house.read("A", "hello")
    assert (await a.end())["code"] == "agent_error"


@in_virtual_time
async def test_an_agent_that_cancels_itself_ends_its_stream() -> None:
    async def suicide(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await forever()

    house = House(suicide=suicide)
    a = house.read("A", "suicide")
    assert (await a.end())["type"] in ("done", "error")
    await settle()
    assert house.empty


@in_virtual_time
async def test_an_answer_that_grows_too_long_ends_as_that() -> None:
    house = House(long=says("x" * 600, "y" * 600))
    house.registry._max_answer_bytes = 1000
    a = house.read("A", "long")
    last = await a.end()
    assert (last["code"], last["retryable"]) == ("too_long", False)
    assert a.text == "x" * 600


@in_virtual_time
async def test_a_cleanup_that_fails_does_not_hide_why_the_answer_ended() -> None:
    async def long(turn: Turn) -> AsyncGenerator[Piece, None]:
        try:
            yield "x" * 2000
        finally:
            raise OSError("the cleanup failed too")

    house = House(long=long)
    house.registry._max_answer_bytes = 1000
    last = await house.read("A", "long").end()
    assert (last["code"], last["retryable"]) == ("too_long", False)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, OSError])
@in_virtual_time
async def test_an_agent_that_raises_in_its_cleanup_stays_cancelled(
    error: type[BaseException],
) -> None:
    async def agent(turn: Turn) -> AsyncGenerator[Piece, None]:
        try:
            yield "a"
            await forever()
        finally:
            raise error

    house = House(agent=agent)
    a = house.read("A", "agent")
    await a.sees("a")
    await house.registry.cancel("A")
    assert (await a.end())["finish_reason"] == "cancelled"
    await settle()
    assert house.empty


# Streams that do not stop


@in_virtual_time
async def test_an_agent_that_does_not_stop_is_told_of_though_nobody_waits(
    log_lines: list[str],
) -> None:
    house = House(stubborn=stubborn(10.0, "a"))
    a = house.read("A", "stubborn")
    await a.sees("a")
    a.leave()
    await asyncio.sleep(1.0)
    assert not a.stream.undead
    await asyncio.sleep(1.5)
    assert (a.stream.undead, house.registry.timeouts) == (True, 1)
    told = (
        "stream_timeout_on_cancel trace=trace-A reason=client_disconnected session=s"
        " timeout_ms=2000"
    )
    assert log_lines.count(told) == 1
    await a.stream.stopped
    await settle()
    assert house.empty


@in_virtual_time
async def test_nor_does_it_matter_that_whoever_stopped_it_has_left() -> None:
    house = House(stubborn=stubborn(10.0, "a"))
    a = house.open("A", "stubborn")
    await settle()
    stopping = asyncio.ensure_future(house.registry.cancel("A"))
    await settle()
    stopping.cancel()
    await asyncio.sleep(2.0)
    assert (a.undead, house.registry.timeouts) == (True, 1)


@in_virtual_time
async def test_one_that_many_wait_for_is_counted_once(log_lines: list[str]) -> None:
    house = House(stubborn=stubborn(10.0, "a"), hello=says("b"))
    house.open("A", "stubborn")
    await settle()
    stopping = asyncio.ensure_future(house.registry.cancel("A"))
    await settle()
    await house.open("B", "hello").stopped
    assert not (await stopping).clean
    assert house.registry.timeouts == 1
    assert sum(line.startswith("stream_timeout_on_cancel ") for line in log_lines) == 1


@in_virtual_time
async def test_a_session_with_too_many_undead_streams_takes_no_new_one() -> None:
    house = House(stubborn=stubborn(1000.0, "a"), hello=says("b"))
    for n in range(MAX_ZOMBIES + 1):
        await house.read(f"A{n}", "stubborn").sees("a")
    with pytest.raises(Unavailable) as refused:
        house.open("B", "hello")
    assert refused.value.retry_after == 2.0
    await house.open("C", "hello", session_id="t").stopped
    assert house.registry.find("B") is None
    await asyncio.sleep(1000.0)
    assert (await house.read("B", "hello").end())["finish_reason"] == "stop"
    await settle()
    assert house.empty


@in_virtual_time
async def test_shutdown_ends_every_stream_and_waits_for_the_cleanup() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy, hello=says("b"))
    a, b = house.read("A", "tidy", session_id="s"), house.read("B", "tidy", session_id="t")
    await settle()
    asked_at = now()
    await house.registry.shutdown()
    assert now() - asked_at == 1.0
    assert [reader.frames[-1]["finish_reason"] for reader in (a, b)] == ["shutdown"] * 2
    assert tidy.complete == 2
    assert house.empty
    assert [turn.status for turn in await house.history.turns("s")] == ["interrupted"]
    assert house.registry.draining
    with pytest.raises(Unavailable):
        house.open("C", "hello")


@in_virtual_time
async def test_shutdown_waits_no_longer_than_the_bound() -> None:
    house = House(stubborn=stubborn(10.0, "a"))
    house.open("A", "stubborn")
    await settle()
    asked_at = now()
    await house.registry.shutdown()
    assert now() - asked_at == 2.0


@in_virtual_time
async def test_while_draining_a_live_stream_can_still_be_attached_to() -> None:
    house = House(tidy=Tidy(1.0, "a"))
    a = house.open("A", "tidy")
    await settle()
    shutdown = asyncio.ensure_future(house.registry.shutdown())
    await settle()
    assert house.open("A", "tidy") is a
    await shutdown


# Epochs, the shelf, history


@in_virtual_time
async def test_epochs_grow_under_a_frozen_clock_and_over_the_sessions_end() -> None:
    house = House(hello=says("a"))
    house.registry = StreamRegistry(house.agents, house.history, clock=lambda: 1000)
    epochs = []
    for n in range(3):
        epochs += [house.open(f"A{n}", "hello").epoch, house.open(f"B{n}", "hello").epoch]
        await settle()
        assert house.empty
    assert epochs == [1000, 1001, 1002, 1003, 1004, 1005]


@in_virtual_time
async def test_epochs_are_the_time_in_milliseconds() -> None:
    house = House(hello=says("a"))
    time = iter(range(1_800_000_000_000, 1_800_000_001_000, 5))
    house.registry = StreamRegistry(house.agents, house.history, clock=lambda: next(time))
    assert house.open("A", "hello").epoch == 1_800_000_000_000
    assert house.open("B", "hello").epoch == 1_800_000_000_005
    await settle()


@in_virtual_time
async def test_an_ended_stream_is_found_while_the_shelf_keeps_it() -> None:
    house = House(hello=says("a"))
    house.registry = StreamRegistry(house.agents, house.history, shelf=Shelf(seconds=10.0))
    a = house.open("A", "hello")
    await a.stopped
    await asyncio.sleep(9.0)
    assert house.registry.find("A") is a
    await asyncio.sleep(1.0)
    assert house.registry.find("A") is None


@in_virtual_time
async def test_history_has_the_answer_before_a_reader_has_the_end() -> None:
    house = House(hello=says("a", "b"))
    keeping: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    finish = house.history.finish

    def slowly(stream_id: str, end: TurnEnd) -> asyncio.Future[bool]:
        finish(stream_id, end)
        return keeping

    house.history.finish = slowly  # type: ignore[method-assign]
    a = house.read("A", "hello")
    await settle()
    assert a.text == "ab"
    stream = house.registry.find("A")
    assert stream is not None
    assert stream.state is State.SEALED
    assert a.frames[-1]["type"] == "token"
    keeping.set_result(True)
    assert (await a.end())["finish_reason"] == "stop"
    assert "saved" not in a.frames[-1]
    [turn] = await house.history.turns("s")
    assert (turn.text, turn.status) == ("ab", "complete")


@in_virtual_time
async def test_a_history_that_fails_to_keep_an_answer_does_not_keep_the_stream_from_ending() -> (
    None
):
    house = House(hello=says("a"))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    house.history.finish = fail  # type: ignore[assignment, method-assign]
    last = await house.read("A", "hello").end()
    assert (last["finish_reason"], last["saved"]) == ("stop", False)
    await settle()
    assert house.empty


# What the log tells


def lines_about(lines: list[str]) -> list[str]:
    """Without what differs from run to run."""
    return [re.sub(r"_ms=\d+", "_ms=N", line) for line in lines]


@in_virtual_time
async def test_the_log_tells_a_supersede_in_the_words_operators_know(log_lines: list[str]) -> None:
    house = House(talks=talks("a"), hello=says("b"))
    house.open("A", "talks")
    await settle()
    await house.open("B", "hello").stopped
    assert lines_about(log_lines) == [
        "stream_started trace=trace-A session=s owner=-",
        "stream_activated trace=trace-A wait_ms=N",
        "stream_first_token trace=trace-A wait_ms=N",
        "stream_cancelled trace=trace-A reason=registry_new_stream session=s",
        "stream_started trace=trace-B session=s owner=-",
        "stream_generator_cancelled trace=trace-A",
        "stream_cleanup trace=trace-A",
        "stream_end trace=trace-A duration_ms=N",
        "prev_stream_finished_cleanly session=s trace=trace-A",
        "stream_activated trace=trace-B wait_ms=N",
        "stream_first_token trace=trace-B wait_ms=N",
        "stream_cleanup trace=trace-B",
        "stream_end trace=trace-B duration_ms=N",
    ]


@in_virtual_time
async def test_the_log_tells_of_a_predecessor_that_outran_the_bound(log_lines: list[str]) -> None:
    house = House(stubborn=stubborn(10.0, "a"), hello=says("b"))
    house.open("A", "stubborn")
    await settle()
    await house.open("B", "hello").stopped
    assert "prev_stream_timeout_on_cancel session=s trace=trace-A timeout_ms=2000" in log_lines
    assert not any("finished_cleanly" in line for line in log_lines)


@in_virtual_time
async def test_the_log_tells_why_a_stream_was_cancelled(log_lines: list[str]) -> None:
    house = House(talks=talks("a"))
    house.open("A", "talks", session_id="s")
    b = house.read("B", "talks", session_id="t")
    house.open("C", "talks", session_id="u")
    await settle()
    await house.registry.cancel("A")
    b.leave()
    await house.registry.shutdown()
    assert "stream_cancelled trace=trace-A reason=client_stop session=s" in log_lines
    at = log_lines.index("stream_client_disconnected trace=trace-B")
    assert log_lines[at + 1] == (
        "stream_cancelled trace=trace-B reason=client_disconnected session=t"
    )
    assert "stream_cancelled trace=trace-C reason=shutdown session=u" in log_lines


def test_the_log_has_the_details_of_a_failure_and_every_line_its_ids() -> None:
    records: list[Any] = []
    sink = logger.add(lambda message: records.append(message.record), level="TRACE")

    @in_virtual_time
    async def test() -> None:
        async def agent(turn: Turn) -> AsyncGenerator[Piece, None]:
            logger.info("the agent's own line")
            yield "a"
            raise ValueError(SECRET)

        await House(agent=agent).open("A", "agent").stopped

    try:
        test()
    finally:
        logger.remove(sink)
    failed = [r for r in records if r["message"].startswith("stream_generator_exception")]
    assert [record["message"] for record in failed] == [
        "stream_generator_exception trace=trace-A code=agent_error"
    ]
    assert SECRET in str(failed[0]["exception"].value)
    ids = {"trace": "trace-A", "session": "s", "stream": "A"}
    assert all(record["extra"] == ids for record in records)
    assert any(record["message"] == "the agent's own line" for record in records)


@in_virtual_time
async def test_a_registry_and_a_stream_say_what_they_are() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    assert repr(house.registry) == "<StreamRegistry sessions=0 streams=0 kept=0>"
    a = house.read("A", "talks")
    await a.sees("a")
    assert repr(house.registry) == "<StreamRegistry sessions=1 streams=1 kept=0>"
    epoch = a.stream.epoch
    assert repr(a.stream) == f"<Stream A epoch={epoch} active seq=2 followers=1>"
    assert list(house.registry) == [a.stream]
    await house.registry.shutdown()
    assert repr(house.registry) == "<StreamRegistry sessions=0 streams=0 kept=0 draining>"

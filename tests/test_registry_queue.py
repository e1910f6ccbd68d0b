"""Messages that wait in line, turns that are rolled back, and a history that is slow or fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from explorer import in_virtual_time
from fake_history import SlowHistory
from fakes import (
    FakeReader,
    Tidy,
    fails,
    parse,
    read_all,
    says,
    stubborn,
    talks,
)
from house import House, now, settle

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.errors import Conflict, Gone, NotFound, Overloaded, TooMany, Unavailable
from jarvis_stream.history.base import Removed, Span
from jarvis_stream.history.views import resolved
from jarvis_stream.stream import Followed, State


def positions(reader: FakeReader) -> list[int]:
    """The places in the queue that a reader was told, in their order."""
    return [frame["position"] for frame in reader.frames if frame.get("status") == "queued"]


def outcome(reader: FakeReader) -> str:
    last = reader.frames[-1]
    return str(last["finish_reason"] if last["type"] == "done" else last["code"])


def seqs(reader: FakeReader) -> list[int]:
    return [frame["seq"] for frame in reader.frames]


# Waiting in line


@in_virtual_time
async def test_a_message_that_waits_leaves_the_live_answer_alone_and_says_where_it_stands() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = await house.busy()
    b, c = house.line_up("B", "C")
    await settle()
    assert a.stream.state is State.ACTIVE
    assert [frame.get("status") for frame in b.frames] == ["thinking", "queued"]
    assert (positions(b), positions(c)) == ([1], [2])
    assert len(house.agents.turns) == 1
    assert await house.kept() == [("A", "streaming"), ("B", "streaming"), ("C", "streaming")]


@in_virtual_time
async def test_a_message_that_finds_the_session_idle_does_not_wait() -> None:
    house = House(hello=says("b"))
    [b] = house.line_up("B")
    await b.end()
    assert (b.text, positions(b)) == ("b", [])


@pytest.mark.parametrize("how", ["natural", "stop", "error"])
@in_virtual_time
async def test_the_next_one_starts_when_the_answer_before_it_has_ended(how: str) -> None:
    may_end = asyncio.Event()

    async def head(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        await may_end.wait()
        if how == "error":
            raise ValueError

    house = House(head=head, hello=says("b"))
    a = await house.busy("head")
    b, c = house.line_up("B", "C")
    if how == "stop":
        await house.registry.cancel("A")
    else:
        may_end.set()
    await asyncio.wait([b.stream.stopped, c.stream.stopped])
    await settle()
    ended = {"natural": "stop", "stop": "cancelled", "error": "agent_error"}[how]
    assert [outcome(reader) for reader in (a, b, c)] == [ended, "stop", "stop"]
    assert (positions(b), positions(c)) == ([1], [2, 1])
    assert [turn.stream_id for turn in house.agents.turns] == ["A", "B", "C"]
    assert seqs(c) == list(range(1, len(seqs(c)) + 1))
    assert house.empty


@in_virtual_time
async def test_the_next_one_speaks_only_after_the_cleanup_of_the_one_before_it() -> None:
    tidy = Tidy(1.5, "a")
    house = House(tidy=tidy, hello=says("b"))
    await house.busy("tidy")
    [b] = house.line_up("B")
    asked_at = now()
    stopping = asyncio.ensure_future(house.registry.cancel("A"))
    await b.sees("b")
    assert now() - asked_at == 1.5
    assert tidy.complete == 1
    assert (await stopping).clean


@in_virtual_time
async def test_an_agent_that_does_not_stop_holds_the_queue_up_for_the_bound_and_no_longer() -> None:
    house = House(stubborn=stubborn(10.0, "a"), hello=says("b"))
    await house.busy("stubborn")
    b, c = house.line_up("B", "C")
    asked_at = now()
    cancellation = await house.registry.cancel("A")
    assert not cancellation.clean
    await b.sees("b")
    assert now() - asked_at == 2.0
    await c.end()
    assert now() - asked_at == 4.0  # for the same undead one: the bound is each one's own
    assert (outcome(b), outcome(c)) == ("stop", "stop")
    await asyncio.sleep(10.0)
    assert house.empty


@in_virtual_time
async def test_the_queue_is_bounded() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    house.line_up("B", "C", "D")
    with pytest.raises(TooMany) as refused:
        house.line_up("E")
    assert refused.value.retry_after == 1
    assert house.registry.find("E") is None
    await house.registry.cancel("C")
    house.line_up("E")


@in_virtual_time
async def test_a_stop_takes_a_message_out_of_the_line_and_those_behind_it_move_up() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = await house.busy()
    b, c, d = house.line_up("B", "C", "D")
    cancellation = await house.registry.cancel("C")
    assert (cancellation.cancelled, cancellation.clean) == (True, True)
    await settle()
    assert (outcome(c), c.frames[-1]["seq"]) == ("cancelled", 3)
    assert [positions(reader) for reader in (b, c, d)] == [[1], [2], [3, 2]]
    assert a.stream.state is State.ACTIVE
    await house.registry.cancel("A")
    assert [await reader.end() for reader in (b, d)]
    assert [turn.stream_id for turn in house.agents.turns] == ["A", "B", "D"]
    assert [stream_id for stream_id, _ in await house.kept()] == ["A", "B", "D"]
    assert house.empty


@in_virtual_time
async def test_a_reader_that_leaves_takes_its_waiting_message_along() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    b, c = house.line_up("B", "C")
    b.leave()
    await settle()
    stream = house.registry.find("B")
    assert stream is not None
    assert parse(read_all(stream))[-1]["finish_reason"] == "cancelled"
    assert positions(c) == [2, 1]


@in_virtual_time
async def test_a_message_that_interrupts_clears_the_line() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = await house.busy()
    b, c = house.line_up("B", "C")
    d = house.read("D", "hello")
    await d.end()
    for reader in (a, b, c):
        assert (outcome(reader), reader.frames[-1]["superseded_by"]) == ("superseded", "D")
    assert (positions(b), positions(c)) == ([1], [2])
    assert [turn.stream_id for turn in house.agents.turns] == ["A", "D"]
    await settle()
    assert house.empty


@in_virtual_time
async def test_a_polite_message_is_refused_while_somebody_waits() -> None:
    house = House(tidy=Tidy(1.0, "a"), talks=talks("b"), hello=says("b"))
    await house.busy("tidy")
    [b] = house.line_up("B", prompt="talks")
    with pytest.raises(Conflict):
        house.open("C", "hello", on_conflict="reject")
    stopping = house.registry.cancel("A")
    with pytest.raises(Conflict):  # the answer has ended, and B's turn has come
        house.open("C", "hello", on_conflict="reject")
    await stopping
    await b.sees("b")


@in_virtual_time
async def test_a_message_is_lined_up_behind_one_that_is_about_to_be_called() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    [b] = house.line_up("B")
    stopping = house.registry.cancel("A")
    [c] = house.line_up("C")
    await stopping
    await c.end()
    assert [turn.stream_id for turn in house.agents.turns] == ["A", "B", "C"]
    assert (positions(b), positions(c)) == ([1], [2, 1])


@in_virtual_time
async def test_an_agent_is_told_the_final_answers_before_its_question_and_nothing_after_it() -> (
    None
):
    may_end = asyncio.Event()

    async def head(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        await may_end.wait()
        yield "nd more"

    house = House(head=head, hello=says("b"), bye=says("c"))
    await house.busy("head")
    b = house.read("B", "hello", on_conflict="enqueue")
    c = house.read("C", "bye", on_conflict="enqueue")
    await settle()
    may_end.set()
    await b.sees("b")
    before_b = [
        {"role": "user", "content": "head"},
        {"role": "assistant", "content": "and more"},
        {"role": "user", "content": "hello"},
    ]
    assert house.agents.turns[1].messages == before_b
    await c.end()
    assert house.agents.turns[2].messages == [
        *before_b,
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "bye"},
    ]
    assert await house.kept() == [("A", "complete"), ("B", "complete"), ("C", "complete")]


@in_virtual_time
async def test_what_waits_stands_in_the_history_behind_what_goes_first() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    [b] = house.line_up("B", prompt="talks")
    house.line_up("C")
    await house.registry.cancel("A")
    await b.sees("a")
    assert await house.kept() == [("A", "cancelled"), ("B", "streaming"), ("C", "streaming")]


@in_virtual_time
async def test_what_waits_never_says_a_higher_epoch_than_what_lives() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = await house.busy()
    b, c = house.line_up("B", "C", prompt="talks")
    live = a.frames[-1]["epoch"]
    assert {frame["epoch"] for frame in b.frames + c.frames} == {live}
    await house.registry.cancel("A")
    await b.sees("a")
    claimed = b.frames[-1]["epoch"]
    assert claimed > live
    [d] = house.line_up("D")
    # C has moved up; told with the older epoch, a client would take it for stale.
    assert c.frames[-1]["position"] == 1
    assert [frame["epoch"] for frame in c.frames] == [live, live, claimed]
    assert {frame["epoch"] for frame in d.frames} == {claimed}
    await house.registry.cancel("B")
    await c.sees("a")
    spoken = c.frames[-1]["epoch"]
    e = house.read("E", "hello")
    await e.end()
    assert claimed < spoken < e.frames[-1]["epoch"]
    assert [turn.epoch for turn in await house.history.turns("s")][-1] == e.frames[-1]["epoch"]


@in_virtual_time
async def test_a_stop_that_came_before_its_message_keeps_it_out_of_the_line() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = await house.busy()
    with pytest.raises(NotFound):
        _ = house.registry.cancel("B")
    b, c = house.line_up("B", "C")
    await settle()
    assert outcome(b) == "cancelled"
    assert positions(c) == [1]
    assert a.stream.state is State.ACTIVE
    assert [stream_id for stream_id, _ in await house.kept()] == ["A", "C"]


@in_virtual_time
async def test_the_same_request_again_attaches_to_the_message_that_waits() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    [b] = house.line_up("B")
    [again] = house.line_up("B")
    assert again.stream is b.stream
    assert again.data == read_all(b.stream)
    await house.registry.cancel("A")
    await b.end()
    await again.end()
    assert again.data == b.data
    assert len(house.agents.turns) == 2


@in_virtual_time
async def test_a_shutdown_ends_what_waits_and_calls_nobody_up() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    a = await house.busy("tidy")
    b, c = house.line_up("B", "C")
    await house.registry.shutdown()
    assert [outcome(reader) for reader in (a, b, c)] == ["shutdown"] * 3
    assert (positions(b), positions(c)) == ([1], [2])
    assert len(house.agents.turns) == 1
    assert house.empty
    with pytest.raises(Unavailable):
        house.line_up("D")


@in_virtual_time
async def test_a_waiting_message_whose_task_is_killed_leaves_the_line() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    b, c = house.line_up("B", "C")
    task = b.stream._task
    assert task is not None
    task.cancel()
    await settle()
    assert outcome(b) == "shutdown"
    assert positions(c) == [2, 1]
    await house.registry.cancel("A")
    assert (await c.end())["finish_reason"] == "stop"


@in_virtual_time
async def test_the_line_moves_on_although_the_history_cannot_keep_an_answer() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = await house.busy()
    [b] = house.line_up("B")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    house.history.finish = fail  # type: ignore[assignment, method-assign]
    await house.registry.cancel("A")
    await b.end()
    assert [reader.frames[-1]["saved"] for reader in (a, b)] == [False, False]


# Rolling back


@in_virtual_time
async def test_a_rollback_takes_the_interrupted_turn_out_of_the_history_and_only_that_one() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.read("first", "hello").end()
    a = await house.busy()
    b = house.read("B", "hello", on_conflict="rollback")
    await b.end()
    assert (outcome(a), a.frames[-1]["superseded_by"]) == ("superseded", "B")
    assert await house.kept() == [("first", "complete"), ("B", "complete")]
    assert [message["content"] for message in house.agents.turns[-1].messages] == [
        "hello",
        "b",
        "hello",
    ]


@in_virtual_time
async def test_a_rollback_leaves_a_finished_turn_where_it_is() -> None:
    house = House(SlowHistory(finish_after=5.0), hello=says("a"))
    a = house.read("A", "hello")
    await a.sees("a")
    await settle()
    assert a.stream.state is State.SEALED
    await house.read("B", "hello", on_conflict="rollback").end()
    assert await house.kept() == [("A", "complete"), ("B", "complete")]


@in_virtual_time
async def test_a_rollback_leaves_a_stopped_turn_whose_agent_still_tidies_up() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    await house.busy("tidy")
    stopping = house.registry.cancel("A")
    b = house.read("B", "hello", on_conflict="rollback")
    await stopping
    await b.end()
    assert await house.kept() == [("A", "cancelled"), ("B", "complete")]


@in_virtual_time
async def test_a_rollback_clears_the_line_and_keeps_what_was_asked_there() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.busy()
    [b] = house.line_up("B")
    await house.read("C", "hello", on_conflict="rollback").end()
    assert outcome(b) == "superseded"
    assert await house.kept() == [("B", "superseded"), ("C", "complete")]


@in_virtual_time
async def test_a_rollback_of_one_that_has_not_spoken_yet() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    await house.busy("tidy")
    house.open("B", "hello")
    await settle()
    await house.read("C", "hello", on_conflict="rollback").end()
    assert await house.kept() == [("A", "superseded"), ("C", "complete")]


# A slow history


@in_virtual_time
async def test_the_end_waits_until_the_answer_is_kept() -> None:
    house = House(SlowHistory(finish_after=1.0), hello=says("a"))
    asked_at = now()
    a = house.read("A", "hello")
    await a.sees("a")
    await settle()
    assert house.registry.find("A") is a.stream
    assert a.frames[-1]["type"] == "token"
    last = await a.end()
    assert now() - asked_at == 1.0
    assert (last["finish_reason"], "saved" in last) == ("stop", False)
    assert house.empty


@pytest.mark.parametrize("how", ["natural", "stop", "error"])
@in_virtual_time
async def test_an_answer_that_could_not_be_kept_says_so(how: str) -> None:
    script = {"natural": says("a"), "stop": talks("a"), "error": fails(ValueError(), "a")}[how]
    house = House(SlowHistory(finish_after=1.0, saves=False), head=script)
    a = await house.busy("head")
    if how == "stop":
        await house.registry.cancel("A")
    assert (await a.end())["saved"] is False


@in_virtual_time
async def test_a_stop_is_answered_when_the_agent_has_stopped_and_the_answer_is_kept() -> None:
    house = House(SlowHistory(finish_after=1.0), talks=talks("a"))
    a = await house.busy()
    asked_at = now()
    stopping = asyncio.ensure_future(house.registry.cancel("A"))
    await a.stream.stopped
    assert now() == asked_at
    assert (await stopping).cancelled
    assert now() - asked_at == 1.0
    assert a.stream.state is State.ENDED


@pytest.mark.parametrize("on_conflict", ["interrupt", "enqueue", "reject", "rollback"])
@in_virtual_time
async def test_the_next_one_does_not_wait_until_the_one_before_it_is_kept(on_conflict: str) -> None:
    house = House(SlowHistory(finish_after=1.0), hello=says("a"), bye=talks("b"))
    a = house.read("A", "hello")
    await a.sees("a")
    await settle()
    asked_at = now()
    b = house.read("B", "bye", on_conflict=on_conflict)
    await b.sees("b")
    assert (now(), a.ends) == (asked_at, 0)
    assert {"role": "assistant", "content": "a"} in house.agents.turns[-1].messages
    await a.end()
    assert seqs(a) == [1, 2, 3]


@in_virtual_time
async def test_nothing_is_admitted_while_the_answer_is_being_kept() -> None:
    house = House(SlowHistory(finish_after=1.0), stubborn=stubborn(0.5, "a"))
    a = await house.busy("stubborn")
    await house.registry.cancel("A")
    await a.end()
    assert a.text == "a"
    assert [turn.text for turn in await house.history.turns("s")] == ["a"]


@in_virtual_time
async def test_a_reader_that_comes_while_the_answer_is_being_kept_sees_it_whole() -> None:
    house = House(SlowHistory(finish_after=1.0), hello=says("a"))
    a = house.read("A", "hello")
    await a.sees("a")
    await settle()
    late = house.read("A", "hello")
    await a.end()
    await late.end()
    assert late.data == a.data


@in_virtual_time
async def test_a_shutdown_waits_until_every_answer_is_kept() -> None:
    house = House(SlowHistory(finish_after=1.0), hello=says("a"), talks=talks("b"))
    a = house.read("A", "hello")
    await a.sees("a")
    await settle()  # its agent has gone, its answer is not kept yet
    b = house.read("B", "talks")
    await b.sees("b")
    asked_at = now()
    await house.registry.shutdown()
    assert now() - asked_at == 1.0
    await settle()
    assert (outcome(a), outcome(b)) == ("stop", "shutdown")
    assert house.empty


@in_virtual_time
async def test_a_shutdown_waits_for_an_answer_that_has_ended_before_it() -> None:
    house = House(SlowHistory(finish_after=1.0), hello=says("a"))
    a = house.read("A", "hello")
    await a.sees("a")
    await settle()
    await house.registry.shutdown()
    await settle()
    assert outcome(a) == "stop"


@in_virtual_time
async def test_an_agent_does_not_begin_before_its_question_is_durable() -> None:
    house = House(SlowHistory(begin_after=1.0), hello=says("a"))
    asked_at = now()
    a = house.read("A", "hello")
    await settle()
    assert [frame["type"] for frame in a.frames] == ["status"]
    assert not house.agents.turns
    await a.sees("a")
    assert now() - asked_at == 1.0


@in_virtual_time
async def test_a_stop_does_not_wait_for_the_question_to_become_durable() -> None:
    house = House(SlowHistory(begin_after=1.0), hello=says("a"))
    a = house.read("A", "hello")
    await settle()
    asked_at = now()
    assert (await house.registry.cancel("A")).clean
    assert now() == asked_at
    await settle()
    assert outcome(a) == "cancelled"
    assert not house.agents.turns


@in_virtual_time
async def test_an_answer_begins_although_its_question_could_not_be_kept_in_time() -> None:
    house = House(SlowHistory(begin_after=1.0, saves=False), hello=says("a"))
    a = house.read("A", "hello")
    last = await a.end()
    assert (a.text, last["finish_reason"], last["saved"]) == ("a", "stop", False)


@pytest.mark.parametrize("on_conflict", ["interrupt", "enqueue"])
@in_virtual_time
async def test_an_id_that_was_answered_before_asks_no_agent_and_overwrites_nothing(
    on_conflict: str,
) -> None:
    house = House(talks=talks("a"), hello=says("b"))
    await house.read("B", "hello").end()
    house.registry.shelf.clear()
    await house.busy()
    again = house.read("B", "hello", on_conflict=on_conflict)
    await house.registry.cancel("A")
    last = await again.end()
    assert (last["code"], last["retryable"]) == ("interrupted", False)
    assert [turn.stream_id for turn in house.agents.turns] == ["B", "A"]
    kept = await house.history.turn("B")
    assert kept is not None
    assert (kept.text, kept.status) == ("b", "complete")
    await settle()
    assert house.empty


# Deleting


@in_virtual_time
async def test_deleting_a_session_stops_what_lives_and_what_waits() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy, hello=says("b"))
    a = await house.busy("tidy")
    b, c = house.line_up("B", "C")
    asked_at = now()
    assert await house.registry.delete("s")
    assert now() - asked_at == 1.0
    assert tidy.complete == 1
    assert [outcome(reader) for reader in (a, b, c)] == ["cancelled"] * 3
    assert (positions(b), positions(c)) == ([1], [2])
    assert len(house.agents.turns) == 1
    assert await house.kept() == []
    assert house.empty


@in_virtual_time
async def test_deleting_what_is_not_there() -> None:
    house = House()
    assert not await house.registry.delete("s")


@in_virtual_time
async def test_a_message_while_its_session_is_being_deleted_starts_a_fresh_one() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    await house.busy("tidy")
    house.line_up("B")
    deleting = asyncio.ensure_future(house.registry.delete("s"))
    await settle()
    c = house.read("C", "hello")
    assert await deleting
    await c.end()
    assert house.agents.turns[-1].messages == [{"role": "user", "content": "hello"}]
    assert await house.kept() == [("C", "complete")]


@in_virtual_time
async def test_a_message_right_after_a_deletion_has_a_higher_epoch() -> None:
    house = House(talks=talks("a"), hello=says("b"))
    a = await house.busy()
    await house.registry.delete("s")
    b = house.read("B", "hello")
    await b.end()
    assert b.frames[0]["epoch"] > a.frames[0]["epoch"]


@in_virtual_time
async def test_a_history_that_cannot_delete_now_does_not_keep_the_streams_alive() -> None:
    house = House(tidy=Tidy(1.0, "a"), hello=says("b"))
    a = await house.busy("tidy")
    [b] = house.line_up("B")

    def fail(span: Span) -> asyncio.Future[Removed]:
        return resolved(Removed(saved=False, existed=True))

    house.history.remove = fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await house.registry.delete("s")
    assert [outcome(reader) for reader in (a, b)] == ["cancelled"] * 2
    assert house.empty


@in_virtual_time
async def test_a_deletion_is_finished_after_its_caller_has_left() -> None:
    tidy = Tidy(1.0, "a")
    house = House(tidy=tidy)
    await house.busy("tidy")
    deleting = asyncio.ensure_future(house.registry.delete("s"))
    await settle()
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    await house.registry.shutdown()
    assert tidy.complete == 1
    assert await house.kept() == []
    assert house.empty


@in_virtual_time
async def test_two_deletions_at_once_do_no_harm() -> None:
    house = House(tidy=Tidy(1.0, "a"))
    a = await house.busy("tidy")
    deleted = await asyncio.gather(house.registry.delete("s"), house.registry.delete("s"))
    assert deleted[0]
    assert outcome(a) == "cancelled"
    assert await house.kept() == []


@in_virtual_time
async def test_deletions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis_stream.registry.MAX_DELETIONS", 1)
    house = House(tidy=Tidy(1.0, "a"))
    await house.busy("tidy")
    deleting = asyncio.ensure_future(house.registry.delete("s"))
    await settle()
    with pytest.raises(Overloaded):
        await house.registry.delete("s")
    assert await deleting
    assert not await house.registry.delete("s")


class Tab:
    """A watcher that remembers what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Followed] = []

    def see(self, stream: Followed) -> None:
        """See node.Watcher."""
        self.shown.append(stream)


@in_virtual_time
async def test_a_deleted_stream_cannot_be_read_while_its_agent_does_not_stop() -> None:
    house = House(stubborn=stubborn(10.0, "a"))
    old = await house.busy("stubborn")
    deleting = asyncio.ensure_future(house.registry.delete("s"))
    await settle()
    tab = Tab()
    house.registry.watch("s", tab)
    assert tab.shown == []
    assert house.registry.head("s") is None
    with pytest.raises(NotFound):
        await house.registry.reach("A")
    with pytest.raises(Gone):
        house.open("A", "hello")
    assert await deleting
    with pytest.raises(NotFound):
        await house.registry.reach("A")
    assert not (await house.registry.cancel("A")).clean
    await old.stream.stopped

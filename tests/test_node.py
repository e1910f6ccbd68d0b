"""Two nodes, one store: what holds for a session however many processes serve it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from contracts.history import FakeAnswer
from fakes import FakeReader, Tidy, parse, read_all, says, stubborn, talks
from nodes import BOUND, LEASE, cloud, in_virtual_time, until

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.cluster.base import Appended, Batch, Claim, Renewed, StoreLost
from jarvis_stream.cluster.memory import Fate
from jarvis_stream.errors import Conflict, CursorAhead, Gone, NotFound, Unavailable
from jarvis_stream.history.base import Removed, Span, TurnStart
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.mirror import Mirror
from jarvis_stream.stream import Followed, Stream


class Tab:
    """Watches a session, and reads what it is shown."""

    def __init__(self) -> None:
        self.readers: dict[str, FakeReader] = {}

    def see(self, stream: Followed) -> None:
        """See node.Watcher."""
        earlier = self.readers.get(stream.stream_id)
        assert earlier is None or (earlier.follower.closed and not earlier.data)
        self.readers[stream.stream_id] = FakeReader(stream)


def reason(reader: FakeReader) -> str:
    frame = reader.frames[-1]
    return str(frame.get("finish_reason") or frame.get("code"))


# Reading


@in_virtual_time
async def test_a_stream_is_read_on_another_node_byte_for_byte() -> None:
    async with cloud("a", "b", hi=says("Hello", " ", "world")) as (_, a, b):
        here = await a.start("1", "hi")
        there = await b.follow("1")
        assert isinstance(there.stream, Mirror)
        await there.end()
        assert there.data == here.data
        assert there.text == "Hello world"


@in_virtual_time
async def test_it_is_resumed_on_another_node_from_any_position() -> None:
    async with cloud("a", "b", hi=says(*"abcdefgh")) as (_, a, b):
        here = await a.start("1", "hi")
        await here.end()
        frames = here.data.splitlines(keepends=True)
        for after in range(len(frames) + 1):
            there = await b.follow("1", after)
            await until(lambda there=there: there.ends)  # type: ignore[misc]
            assert there.data == b"".join(frames[after:])


@in_virtual_time
async def test_a_position_that_its_node_has_shown_already_is_waited_for() -> None:
    async with cloud("a", "b", hi=talks("one", "two")) as (_, a, b):
        here = await a.start("1", "hi")
        await here.sees("two")
        seq = here.stream.seq
        there = await b.follow("1", seq)  # at once: nothing of it can be in the store yet
        assert await b.registry.cancel("1")
        assert (await there.end())["seq"] == seq + 1


@in_virtual_time
async def test_a_position_that_is_not_there_is_refused() -> None:
    async with cloud("a", "b", hi=talks("one")) as (_, a, b):
        await a.start("1", "hi")
        with pytest.raises(CursorAhead):
            await b.follow("1", 99)


@in_virtual_time
async def test_a_slow_reader_of_another_nodes_stream_costs_no_more_than_its_window() -> None:
    async with cloud("a", "b", long=says(*["x" * 30_000] * 100)) as (_, a, b):
        here = await a.start("1", "long")
        there = await b.follow("1")
        there.full = True
        await here.end()
        await asyncio.sleep(5)
        assert there.stream._size < 512 * 1024
        there.full = False
        while not there.ends:
            there.fell_behind(there.follower)
            await asyncio.sleep(0.05)
        assert there.data == here.data


@in_virtual_time
async def test_an_unknown_stream_is_unknown_and_one_whose_log_has_gone_is_gone() -> None:
    async with cloud("a", "b", hi=says("x")) as (shared, a, b):
        with pytest.raises(NotFound):
            await b.follow("1")
        await (await a.start("1", "hi")).end()
        await asyncio.sleep(2 * shared.store.keep)
        with pytest.raises(Gone):
            await b.follow("1")


@in_virtual_time
async def test_many_ends_at_once_do_not_silence_readers_on_other_nodes() -> None:
    gate = asyncio.Event()

    async def waits(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        await gate.wait()

    async def ticks(turn: Turn) -> AsyncGenerator[Piece, None]:
        while True:
            yield "x"
            await asyncio.sleep(0.02)

    async with cloud("a", "b", long=ticks, short=waits) as (shared, a, b):
        shared.store.fate = lambda node, call: Fate(out=0.001, back=0.001)
        await a.start("1", "long")
        for number in range(300):
            await a.start(f"short{number}", "short", session_id=f"s{number}")
        there = await b.follow("1")
        await there.sees("xx")
        gate.set()
        over_at = asyncio.get_running_loop().time() + 3
        longest = 0.0
        while asyncio.get_running_loop().time() < over_at:
            seen_at, seen = asyncio.get_running_loop().time(), len(there.data)
            await until(lambda seen=seen: len(there.data) > seen)  # type: ignore[misc]
            longest = max(longest, asyncio.get_running_loop().time() - seen_at)
        assert longest < 0.1
        assert len(a.node._holds) == 1, "the others are closed and released"
        await a.registry.cancel("1")


@in_virtual_time
async def test_the_rest_of_a_fenced_log_is_closed_in_bounded_pieces() -> None:
    long = talks(*["x" * 30_000] * 40, "end")
    async with cloud("a", "b", long=long, new=says("new")) as (shared, a, b):
        closed: list[int] = []
        close: Callable[[Batch], Appended] = shared.store.close

        def note(batch: Batch) -> Appended:
            closed.append(len(batch.frames))
            return close(batch)

        shared.store.close = note
        shared.store.fate = lambda node, call: Fate(lost=node == "a" and call == "append")
        here = await a.start("1", "long")
        await here.sees("end")
        there = await b.start("2", "new")
        await there.end()
        await here.end()
        shared.store.fate = lambda node, call: Fate()
        await until(lambda: not a.node._holds)
        assert len(closed) > 5
        assert max(closed) < 128 * 1024
        again = await b.follow("1")
        await again.end()
        assert again.data == here.data


@in_virtual_time
async def test_one_trip_carries_a_bounded_number_of_bytes() -> None:
    scripts = {f"q{number}": says(*["x" * 30_000] * 20, "end") for number in range(20)}
    async with cloud("a", **scripts) as (_, a):
        largest = 0
        append = a.node._cluster.append

        async def note(batches: Sequence[Batch]) -> Sequence[Appended | StoreLost]:
            nonlocal largest
            largest = max(largest, sum(len(batch.frames) for batch in batches))
            return await append(batches)  # type: ignore[no-any-return]

        a.node._cluster.append = note
        readers = [
            await a.start(f"{number}", f"q{number}", session_id=f"s{number}")
            for number in range(20)
        ]
        for reader in readers:
            await reader.end()
        await until(lambda: not a.node._holds)
        assert 0 < largest < 512 * 1024


# One live stream per session


@in_virtual_time
async def test_the_newest_message_wins_on_whatever_node_it_lands() -> None:
    tidy = Tidy(0.5, "old")
    async with cloud("a", "b", old=tidy, new=says("new")) as (_, a, b):
        old = await a.start("1", "old")
        await old.sees("old")
        new = await b.start("2", "new")
        await new.begins()
        assert tidy.complete == 1
        await new.end()
        assert old.frames[-1]["superseded_by"] == "2"
        assert new.frames[0]["epoch"] > old.frames[0]["epoch"]


@in_virtual_time
async def test_it_wins_when_every_word_is_lost() -> None:
    async with cloud("a", "b", old=talks("old"), new=says("new")) as (shared, a, b):
        shared.mute = True
        old = await a.start("1", "old")
        await old.sees("old")
        new = await b.start("2", "new")
        await new.end()
        await old.end()
        assert old.frames[-1]["superseded_by"] == "2"
        assert new.text == "new"


@in_virtual_time
async def test_an_agent_that_does_not_stop_is_waited_for_no_longer_than_the_bound() -> None:
    async with cloud("a", "b", old=stubborn(20, "old"), new=says("new")) as (_, a, b):
        old = await a.start("1", "old")
        await old.sees("old")
        asked_at = asyncio.get_running_loop().time()
        new = await b.start("2", "new")
        await new.begins()
        waited = asyncio.get_running_loop().time() - asked_at
        assert BOUND <= waited < BOUND + 0.5
        await old.end()
        assert "late" not in old.text
        await until(lambda: not a.agents.running("1"))


@in_virtual_time
async def test_the_agent_is_told_of_what_another_nodes_agent_has_said() -> None:
    async with cloud("a", "b", one=talks("partly"), two=says("x")) as (_, a, b):
        first = await a.start("1", "one")
        await first.sees("partly")
        await (await b.start("2", "two")).end()
        told = [message["content"] for message in b.agents.turns[0].messages]
        assert told == ["one", "partly", "two"]


@in_virtual_time
async def test_many_starts_on_all_nodes_leave_one_that_speaks() -> None:
    async with cloud("a", "b", "c", q=talks("x")) as (_, *members):
        starts = [members[n % 3].start(f"{n}", "q") for n in range(9)]
        readers = await asyncio.gather(*starts)
        await asyncio.sleep(3 * BOUND)
        speaking = [reader for reader in readers if not reader.ends]
        assert len(speaking) == 1
        epochs = [reader.frames[0]["epoch"] for reader in readers]
        assert speaking[0].frames[0]["epoch"] == max(epochs)
        assert {reason(reader) for reader in readers if reader.ends} == {"superseded"}
        assert (
            sum(member.agents.running(r.stream.stream_id) for member in members for r in readers)
            == 1
        )


@in_virtual_time
async def test_one_stream_id_on_two_nodes_at_once_is_one_stream() -> None:
    async with cloud("a", "b", q=says("one")) as (_, a, b):
        readers = await asyncio.gather(a.start("1", "q"), b.start("1", "q"), a.start("1", "q"))
        for reader in readers:
            await reader.end()
        assert len({reader.data for reader in readers}) == 1
        assert len(a.agents.turns) + len(b.agents.turns) == 1


@in_virtual_time
async def test_a_stream_id_of_another_session_is_a_conflict_on_every_node() -> None:
    async with cloud("a", "b", q=talks("x")) as (_, a, b):
        await a.start("1", "q")
        with pytest.raises(Conflict):
            await b.start("1", "q", session_id="other")


@in_virtual_time
async def test_reject_is_refused_while_another_node_is_busy() -> None:
    async with cloud("a", "b", old=talks("x"), new=says("new")) as (_, a, b):
        old = await a.start("1", "old")
        await old.sees("x")
        with pytest.raises(Conflict, match="busy with stream 1"):
            await b.start("2", "new", on_conflict="reject")
        await a.registry.cancel("1")
        await asyncio.sleep(0.2)
        again = await b.start("2", "new", on_conflict="reject")  # the name was given back
        await again.end()
        assert again.text == "new"


@in_virtual_time
async def test_a_queue_is_one_over_all_nodes() -> None:
    async with cloud("a", "b", q=talks("x"), one=says("1"), two=says("2")) as (_, a, b):
        head = await a.start("1", "q")
        await head.sees("x")
        first = await b.start("2", "one", on_conflict="enqueue")
        second = await a.start("3", "two", on_conflict="enqueue")
        assert [frame.get("position") for frame in first.frames] == [None, 1]
        assert [frame.get("position") for frame in second.frames] == [None, 2]
        assert {frame["epoch"] for frame in second.frames} == {head.frames[0]["epoch"]}
        await a.registry.cancel("1")
        await first.end()
        await second.end()
        assert second.frames[-1]["epoch"] > first.frames[-1]["epoch"]
        assert (first.text, second.text) == ("1", "2")
        told = [message["content"] for message in a.agents.turns[-1].messages]
        assert told == ["q", "x", "one", "1", "two"]


@in_virtual_time
async def test_what_waits_in_the_queue_can_be_stopped_from_another_node() -> None:
    async with cloud("a", "b", q=talks("x"), one=says("1")) as (_, a, b):
        await a.start("1", "q")
        waits = await a.start("2", "one", on_conflict="enqueue")
        told = await b.registry.cancel("2")
        assert told.cancelled
        assert told.clean
        assert reason(waits) == "cancelled"
        assert not (await a.follow("1")).ends


@in_virtual_time
async def test_rollback_takes_another_nodes_turn_out_of_the_history() -> None:
    async with cloud("a", "b", old=talks("x"), new=says("new")) as (shared, a, b):
        old = await a.start("1", "old")
        await old.sees("x")
        await (await b.start("2", "new", on_conflict="rollback")).end()
        assert [turn.prompt for turn in await shared.history.turns("s")] == ["new"]


class Outage:
    """The calls of one kind, and of one node, that do not reach the store for some time."""

    def __init__(self, shared: Any, node: str, call: str, *, seconds: float) -> None:
        self.count = 0
        self.over = asyncio.create_task(asyncio.sleep(seconds))
        self._call = node, call
        shared.store.fate = lambda node, call: Fate(lost=self._is_lost(node, call))

    def _is_lost(self, node: str, call: str) -> bool:
        is_lost = (node, call) == self._call and not self.over.done()
        self.count += is_lost
        return is_lost


class NothingRemoved:
    """A history whose database does not come to the removals it was told of."""

    def __init__(self, history: MemoryHistory) -> None:
        self._history = history

    def __getattr__(self, name: str) -> Any:
        return getattr(self._history, name)

    def remove(self, span: Span) -> asyncio.Future[Removed]:
        return asyncio.get_running_loop().create_future()


@in_virtual_time
async def test_who_rolls_back_another_nodes_turn_is_not_told_of_it_however_late_that_is() -> None:
    async with cloud("a", "b", q=says("x"), old=talks("x"), new=says("new")) as (shared, a, b):
        await (await a.start("1", "q")).end()
        await (await a.start("2", "old")).sees("x")
        a.registry.history = NothingRemoved(shared.history)
        await (await b.start("3", "new", on_conflict="rollback")).end()
        told = [message["content"] for message in b.agents.turns[-1].messages]
        assert told == ["q", "x", "new"]
        assert [turn.prompt for turn in await shared.history.turns("s")] == ["q", "new"]


@in_virtual_time
async def test_a_dead_nodes_turn_can_be_rolled_back() -> None:
    async with cloud("a", "b", old=talks("x"), new=says("new")) as (shared, a, b):
        await (await a.start("1", "old")).sees("x")
        shared.cut_off.add("a")
        await (await b.start("2", "new", on_conflict="rollback")).end()
        assert [turn.prompt for turn in await shared.history.turns("s")] == ["new"]
        shared.cut_off.clear()


@in_virtual_time
async def test_what_ended_before_it_heard_of_a_rollback_stays() -> None:
    finish = asyncio.Event()

    async def old(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "x"
        await finish.wait()

    async with cloud("a", "b", old=old, new=says("new")) as (shared, a, b):
        await (await a.start("1", "old")).sees("x")
        shared.mute = True
        new = await b.start("2", "new", on_conflict="rollback")
        finish.set()
        await new.end()
        assert [turn.prompt for turn in await shared.history.turns("s")] == ["old", "new"]


@in_virtual_time
async def test_what_is_refused_interrupts_nothing_on_another_node() -> None:
    async with cloud("a", "b", old=talks("x"), new=says("new")) as (_, a, b):
        old = await a.start("1", "old")
        await old.sees("x")
        with pytest.raises(CursorAhead):
            await b.start("2", "new", after=7)
        with pytest.raises(NotFound):
            await b.start("3", "new", replaces="unknown")
        b.registry.drain()
        with pytest.raises(Unavailable):
            await b.start("4", "new")
        await asyncio.sleep(1)
        assert not old.ends
        for stream_id in ("2", "3", "4"):
            with pytest.raises(NotFound):
                await a.follow(stream_id)


# A start that came to nothing


@in_virtual_time
@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.2, 1.0, 10.0])
@pytest.mark.parametrize("again_at", ["a", "b"])
@pytest.mark.parametrize("is_lost", [False, True])
async def test_what_was_refused_is_started_when_it_is_repeated(
    seconds: float, again_at: str, is_lost: bool
) -> None:
    async with cloud("a", "b", long=talks("busy"), hi=says("hello")) as (shared, a, b):
        await asyncio.sleep(LEASE + 1)
        usual = shared.store.fate
        shared.store.fate = lambda node, call: Fate(
            out=0.0075, back=0.0075, lost=is_lost and call == "free"
        )
        await a.start("1", "long")
        with pytest.raises(Conflict):
            await b.start("2", "hi", on_conflict="reject", may_be_known=True)
        asyncio.get_running_loop().call_later(0.5, setattr, shared.store, "fate", usual)
        await asyncio.sleep(seconds)
        node = a if again_at == "a" else b
        again = await node.start("2", "hi", may_be_known=True)
        await again.end()
        assert again.text == "hello"
        assert len(await shared.history.turns("s")) == 2


@in_virtual_time
async def test_what_the_store_was_away_for_is_started_when_it_is_repeated() -> None:
    async with cloud("a", "b", hi=says("hello")) as (shared, a, b):
        await asyncio.sleep(LEASE + 1)
        is_away = False

        def fate(node: str, call: str) -> Fate:
            nonlocal is_away
            is_away = is_away or call == "claim"
            return Fate(lost=is_away)

        shared.store.fate = fate
        with pytest.raises(Unavailable):
            await b.start("1", "hi", may_be_known=True)
        await asyncio.sleep(0.4)
        shared.store.fate = lambda node, call: Fate()
        await asyncio.sleep(0.6)
        for node in (a, b):
            again = await node.start("1", "hi", may_be_known=True)
            await again.end()
            assert again.text == "hello"
        assert len(await shared.history.turns("s")) == 1


@in_virtual_time
async def test_a_start_of_a_node_that_crashed_is_started_when_it_is_repeated() -> None:
    async with cloud("a", "b", hi=says("hello")) as (shared, a, b):
        tab = Tab()
        b.registry.watch("s", tab)
        await asyncio.sleep(LEASE + 1)
        # The claim is carried out, and its reply never comes: the node is gone by then.
        shared.store.fate = lambda node, call: Fate(
            back=60.0 if call == "claim" else 0.0, lost=node == "a" and call == "free"
        )
        with pytest.raises(Unavailable):
            await a.start("1", "hi", may_be_known=True)
        shared.store.fate = lambda node, call: Fate()
        shared.cut_off.add("a")
        shared.store.fate = lambda node, call: Fate(lost=node in shared.cut_off)
        await asyncio.sleep(LEASE + 1)
        again = await b.start("1", "hi", may_be_known=True)
        await again.end()
        assert again.text == "hello"
        shared.cut_off.clear()
        await asyncio.sleep(LEASE)
        assert len(await shared.history.turns("s")) == 1
        assert not any(reader.losses for reader in tab.readers.values())
        b.registry.unwatch("s", tab)


@in_virtual_time
async def test_a_start_that_outlasted_its_lease_attaches_to_its_repetition() -> None:
    async with cloud("a", "b", hi=says("hello")) as (shared, a, b):
        await asyncio.sleep(LEASE + 1)
        async with a.node.line("s"):
            slow = asyncio.create_task(a.start("1", "hi", may_be_known=True))
            await asyncio.sleep(LEASE + 1)
            again = await b.start("1", "hi", may_be_known=True)
        first = await slow
        assert isinstance(first.stream, Mirror)
        for reader in (first, again):
            await reader.end()
        assert first.data == again.data
        assert len(await shared.history.turns("s")) == 1


@in_virtual_time
async def test_a_repetition_waits_while_the_first_start_is_on_its_way() -> None:
    async with cloud("a", "b", hi=says("hello")) as (_, a, b):
        async with a.node.line("s"):
            first = asyncio.create_task(a.start("1", "hi", may_be_known=True))
            await asyncio.sleep(0.1)
            again = asyncio.create_task(b.start("1", "hi", may_be_known=True))
            await asyncio.sleep(0.1)
            assert not again.done()
        readers = [await first, await again]
        for reader in readers:
            await reader.end()
        assert readers[0].data == readers[1].data


@in_virtual_time
async def test_a_stop_that_hit_a_start_that_crashed_hits_its_repetition() -> None:
    async with cloud("a", "b", hi=says("hello")) as (shared, a, b):
        await asyncio.sleep(LEASE + 1)
        shared.store.fate = lambda node, call: Fate(lost=node == "a" and call != "reserve")
        with pytest.raises(Unavailable):
            await a.start("1", "hi", may_be_known=True)
        stopping = b.registry.cancel("1")
        await stopping
        await asyncio.sleep(LEASE + 1)
        again = await b.start("1", "hi", may_be_known=True)
        await again.end()
        assert reason(again) == "cancelled"
        shared.store.fate = lambda node, call: Fate()


# Stopping


@in_virtual_time
async def test_a_stop_from_another_node_is_answered_when_the_agent_has_stopped() -> None:
    tidy = Tidy(0.5, "x")
    async with cloud("a", "b", q=tidy) as (_, a, b):
        reader = await a.start("1", "q")
        await reader.sees("x")
        told = await b.registry.cancel("1")
        assert told.cancelled
        assert told.clean
        assert told.cleanup_ms >= 500
        assert tidy.complete == 1
        assert reason(reader) == "cancelled"


@in_virtual_time
async def test_a_stop_from_another_node_gets_there_within_a_beat_when_words_are_lost() -> None:
    tidy = Tidy(0.0, "x")
    async with cloud("a", "b", q=tidy) as (shared, a, b):
        shared.mute = True
        reader = await a.start("1", "q")
        await reader.sees("x")
        asked_at = asyncio.get_running_loop().time()
        stop = asyncio.create_task(b.registry.cancel("1"))
        await tidy.cleaning.wait()
        assert asyncio.get_running_loop().time() - asked_at <= LEASE / 3 + 0.1
        assert (await stop).cancelled


@in_virtual_time
async def test_an_agent_that_outlasts_a_stop_is_told_to_be_unclean() -> None:
    async with cloud("a", "b", q=stubborn(10, "x")) as (_, a, b):
        reader = await a.start("1", "q")
        await reader.sees("x")
        told = await b.registry.cancel("1")
        assert told.cancelled
        assert not told.clean
        await until(lambda: not a.agents.running("1"))


@in_virtual_time
async def test_a_stop_that_comes_before_its_stream_is_not_lost() -> None:
    async with cloud("a", "b", q=talks("x")) as (_, a, b):
        with pytest.raises(NotFound):
            await b.registry.cancel("1")
        reader = await a.start("1", "q")
        await reader.end()
        assert reason(reader) == "cancelled"
        assert not a.agents.turns


@in_virtual_time
async def test_one_principals_early_stops_are_bounded_in_the_store_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jarvis_stream.node.MAX_EARLY_STOPS", 10)
    async with cloud("a", "b", q=talks("x")) as (shared, a, b):
        with pytest.raises(NotFound):
            await b.registry.cancel("1", "bob")
        for n in range(50):
            with pytest.raises(NotFound):
                await b.registry.cancel(f"{n}", "ann")
        await asyncio.sleep(1)
        assert len(shared.store._state.names) == 10
        reader = await a.start("1", "q", owner="bob")
        await reader.end()
        assert reason(reader) == "cancelled"


@in_virtual_time
async def test_an_evicted_early_stop_leaves_the_store_after_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jarvis_stream.node.MAX_EARLY_STOPS", 1)
    async with cloud("a", "b", q=says("x")) as (shared, a, b):
        outage = Outage(shared, "b", "unstop", seconds=2 * LEASE)
        for stream_id in ("1", "2"):
            with pytest.raises(NotFound):
                await b.registry.cancel(stream_id)
        await asyncio.sleep(LEASE)
        assert outage.count > 1
        await outage.over
        await asyncio.sleep(1)
        reader = await a.start("1", "q")
        await reader.end()
        assert reason(reader) == "stop"


@in_virtual_time
async def test_a_repeated_early_stop_outlasts_its_pending_eviction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jarvis_stream.node.MAX_EARLY_STOPS", 1)
    async with cloud("a", "b", q=says("x")) as (shared, a, b):
        outage = Outage(shared, "b", "unstop", seconds=2 * LEASE)
        for stream_id in ("1", "2", "1"):
            with pytest.raises(NotFound):
                await b.registry.cancel(stream_id)
        await outage.over
        await asyncio.sleep(1)
        reader = await a.start("1", "q")
        await reader.end()
        assert reason(reader) == "cancelled"


@in_virtual_time
async def test_pending_calls_are_bounded(
    monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    monkeypatch.setattr("jarvis_stream.node.MAX_EARLY_STOPS", 1)
    monkeypatch.setattr("jarvis_stream.node.MAX_PENDING_CALLS", 3)
    async with cloud("a") as (shared, a):
        outage = Outage(shared, "a", "unstop", seconds=2 * LEASE)
        for n in range(10):
            with pytest.raises(NotFound):
                await a.registry.cancel(f"{n}")
        assert len(a.node._pending_calls) == 3
        assert "store_call_dropped call=unstop" in log_lines
        await outage.over


@in_virtual_time
async def test_a_stop_of_a_stream_that_has_ended_tells_how() -> None:
    async with cloud("a", "b", q=says("x")) as (_, a, b):
        await (await a.start("1", "q")).end()
        await asyncio.sleep(1)
        told = await b.registry.cancel("1")
        assert not told.cancelled
        assert told.clean


# Readers who leave


@in_virtual_time
async def test_a_stream_that_is_read_only_elsewhere_goes_on_until_nobody_does() -> None:
    tidy = Tidy(0.0, "x")
    async with cloud("a", "b", q=tidy) as (_, a, b):
        here = await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("x")
        here.leave()
        await asyncio.sleep(4 * LEASE)
        assert not there.ends
        assert not tidy.begun
        there.leave()
        await asyncio.sleep(LEASE * 1.5)
        assert tidy.complete == 1


@in_virtual_time
async def test_a_stream_that_nobody_reads_is_stopped_at_once() -> None:
    tidy = Tidy(0.0, "x")
    async with cloud("a", "b", q=tidy) as (_, a, _b):
        here = await a.start("1", "q")
        await here.sees("x")
        here.leave()
        await asyncio.sleep(0.1)
        assert tidy.complete == 1


# Watching


@pytest.mark.parametrize("mute", [False, True])
@in_virtual_time
async def test_a_session_is_watched_on_every_node(mute: bool) -> None:
    async with cloud("a", "b", q=talks("x"), r=talks("y")) as (shared, a, b):
        shared.mute = mute
        one = await a.start("1", "q")
        tab = Tab()
        b.registry.watch("s", tab)
        await until(lambda: "1" in tab.readers)
        two = await a.start("2", "r")
        await until(lambda: "2" in tab.readers)
        three = await b.start("3", "q")
        assert isinstance(tab.readers["3"].stream, Stream)
        await tab.readers["2"].end()
        for here in (one, two):
            await here.end()
            assert tab.readers[here.stream.stream_id].data == here.data
        await three.sees("x")
        b.registry.unwatch("s", tab)
        await a.start("4", "q")
        await asyncio.sleep(3)
        assert set(tab.readers) == {"1", "2", "3"}


# What a session has


@in_virtual_time
async def test_a_session_that_is_deleted_on_one_node_is_gone_on_all() -> None:
    tidy = Tidy(0.2, "x")
    async with cloud("a", "b", old=says("old"), q=tidy) as (shared, a, b):
        await (await a.start("0", "old")).end()
        reader = await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("x")
        assert await b.registry.delete("s")
        assert reason(there) == "cancelled"
        assert tidy.complete == 1
        assert reason(reader) == "cancelled"
        assert await shared.history.turns("s") == []
        for member in (a, b):
            for stream_id in ("0", "1"):
                with pytest.raises((NotFound, Gone)):
                    await member.follow(stream_id)


@in_virtual_time
async def test_a_session_with_epochs_that_the_store_has_forgotten_is_deleted_too() -> None:
    async with cloud("a", q=says("x")) as (shared, a):
        await (await a.start("1", "q")).end()
        (turn,) = await shared.history.turns("s")
        ahead = TurnStart(
            session_id="s", stream_id="2", epoch=turn.epoch + 10**9, prompt="q", created_at=0
        )
        shared.history.begin(ahead, FakeAnswer("x"))
        assert await a.registry.delete("s")
        assert await shared.history.turns("s") == []


@in_virtual_time
async def test_what_begins_on_one_node_while_another_deletes_its_session_stays() -> None:
    tidy = Tidy(1.0, "x")
    async with cloud("a", "b", q=tidy, new=talks("new")) as (shared, a, b):
        await (await a.start("1", "q")).sees("x")
        deleting = asyncio.ensure_future(b.registry.delete("s"))
        await tidy.cleaning.wait()
        new = await a.start("2", "new")
        assert await deleting
        there = await b.follow("2")
        await there.sees("new")
        await a.registry.cancel("2")
        await there.end()
        assert [reason(reader) for reader in (new, there)] == ["cancelled"] * 2
        assert [turn.prompt for turn in await shared.history.turns("s")] == ["new"]
        with pytest.raises((NotFound, Gone)):
            await b.follow("1")


@in_virtual_time
async def test_what_another_node_owes_its_database_goes_with_its_session() -> None:
    async with cloud("a", "b", q=says("x")) as (_, a, b):
        a.registry.history = MemoryHistory()
        await (await a.start("1", "q")).end()
        await b.registry.delete("s")
        await until(lambda: not a.registry.shelf.of("s"))
        assert await a.registry.history.turns("s") == []


@in_virtual_time
async def test_where_the_live_stream_of_another_node_stands_is_known() -> None:
    async with cloud("a", "b", q=talks("one ", "two")) as (_, a, b):
        here = await a.start("1", "q")
        await here.sees("two")
        await asyncio.sleep(0.1)
        (head, nobody) = await b.node.heads(["s", "other"])
        assert nobody is None
        transcript = await b.node.transcript(head.name)
        assert transcript.text == "one two"
        assert (transcript.epoch, transcript.seq) == (here.frames[0]["epoch"], here.stream.seq)
        assert await a.node.heads(["s"]) == [None]  # which knows better than the store


# Watching


class Quiet:
    """Watches, and reads nothing."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def see(self, stream: Followed) -> None:
        """See node.Watcher."""
        self.seen.append(stream.stream_id)


def count_looks(shared: Any) -> list[str]:
    looks: list[str] = []
    living = shared.store.living

    def note(session: str, *more: Any) -> Any:
        looks.append(session)
        return living(session, *more)

    shared.store.living = note
    return looks


@in_virtual_time
async def test_quiet_watched_sessions_cost_little_and_busy_ones_only_themselves() -> None:
    async with cloud("a", "b", hi=says("x")) as (shared, a, b):
        watcher = Quiet()
        sessions = [f"s{number}" for number in range(500)]
        for session in sessions:
            a.registry.watch(session, watcher)
        await until(lambda: not a.node._looks)
        await asyncio.sleep(5)
        looks = count_looks(shared)
        await asyncio.sleep(10)
        assert len(looks) <= 11 * 32
        looks.clear()
        for number in range(100):
            await b.start(str(number), "hi", session_id="s7")
            await asyncio.sleep(0.05)
        await until(lambda: len(watcher.seen) == 100)
        assert len([session for session in looks if session != "s7"]) <= 7 * 32
        for session in sessions:
            a.registry.unwatch(session, watcher)
        await until(lambda: not a.node._subscribed)


@in_virtual_time
async def test_every_watched_session_is_looked_at_in_turn_when_words_are_lost() -> None:
    async with cloud("a", "b", hi=talks("x")) as (shared, a, b):
        watcher = Quiet()
        for number in range(200):
            a.registry.watch(f"s{number}", watcher)
        await asyncio.sleep(5)
        shared.mute = True
        await b.start("1", "hi", session_id="s150")
        await until(lambda: watcher.seen == ["1"], 20)


@in_virtual_time
async def test_watched_sessions_are_looked_at_when_words_are_heard_again() -> None:
    async with cloud("a", "b", hi=talks("x")) as (shared, a, _b):
        watcher = Quiet()
        for number in range(200):
            a.registry.watch(f"s{number}", watcher)
        await asyncio.sleep(5)
        looks = count_looks(shared)
        a.node.health.listening_since = time.monotonic()
        await until(lambda: len(set(looks)) == 200, 2)


# Heartbeats


@in_virtual_time
async def test_leases_are_renewed_in_bounded_slices() -> None:
    async with cloud("a", q=talks("x")) as (_, a):
        sizes: list[int] = []
        renew = a.node._cluster.renew

        async def note(claims: Sequence[Claim]) -> Sequence[Renewed | StoreLost]:
            sizes.append(len(claims))
            return await renew(claims)  # type: ignore[no-any-return]

        a.node._cluster.renew = note
        readers = [await a.start(f"{n}", "q", session_id=f"s{n}") for n in range(300)]
        await asyncio.sleep(2 * LEASE)
        assert max(sizes) <= 128
        assert not any(reader.ends for reader in readers)
        sizes.clear()
        await asyncio.sleep(LEASE / 3)
        assert 300 <= sum(sizes) <= 600


@in_virtual_time
async def test_a_reader_who_leaves_costs_the_renewal_of_one_lease() -> None:
    async with cloud("a", q=talks("x")) as (shared, a):
        renewed: list[str] = []
        renew = shared.store.renew

        def note(claim: Claim, *more: Any) -> Renewed:
            renewed.append(claim.name.stream)
            return renew(claim, *more)  # type: ignore[no-any-return]

        readers = [await a.start(f"{n}", "q", session_id=f"s{n}") for n in range(50)]
        await asyncio.sleep(LEASE / 3)
        a.node._beat_at = time.monotonic() + LEASE / 3
        shared.store.renew = note
        readers[7].leave()
        await until(lambda: readers[7].stream.stopped.done())
        assert renewed == ["7"]


@in_virtual_time
async def test_many_claims_that_the_store_has_lost_are_made_again_together() -> None:
    async with cloud("a", q=talks("x")) as (shared, a):
        shared.store.fate = lambda node, call: Fate(out=0.01, back=0.01)
        copied = shared.store.copied()
        readers = await asyncio.gather(
            *(a.start(f"{n}", "q", session_id=f"s{n}") for n in range(300))
        )
        await asyncio.sleep(1)
        shared.store.fall_back(copied)
        await asyncio.sleep(2 * LEASE)
        assert not any(reader.ends for reader in readers)
        assert a.node.counts.regressed >= 300


@in_virtual_time
async def test_what_another_nodes_stream_has_said_is_read_in_pieces_whatever_the_text() -> None:
    text = ['"', "\\n\n", "é\u2028", "]},{"] * 2000
    async with cloud("a", "b", q=talks(*text, "end")) as (_, a, b):
        here = await a.start("1", "q")
        await here.sees("end")
        await asyncio.sleep(1)
        transcript = await b.registry.abroad("s")
        assert transcript is not None
        assert transcript.text == "".join(text) + "end"
        assert transcript.seq == here.stream.seq


def count_calls(shared: Any, call: str) -> list[str]:
    """Note which node makes each call of a kind, from now on."""
    calls: list[str] = []
    fate = shared.store.fate

    def note(node: str, made: str) -> Fate:
        if made == call:
            calls.append(node)
        found: Fate = fate(node, made)
        return found

    shared.store.fate = note
    return calls


@in_virtual_time
async def test_a_repeated_look_at_another_nodes_stream_reads_only_what_is_new() -> None:
    more = asyncio.Event()
    text = ["x" * 100] * 4000

    async def long(turn: Turn) -> AsyncGenerator[Piece, None]:
        for piece in text:
            yield piece
        await more.wait()
        yield "end"
        await asyncio.Event().wait()

    async with cloud("a", "b", q=long) as (shared, a, b):
        here = await a.start("1", "q")
        await until(lambda: here.stream.seq == len(text) + 1)
        await asyncio.sleep(1)
        reads = count_calls(shared, "read")
        first = await b.registry.abroad("s")
        assert first is not None
        assert first.text == "".join(text)
        assert len(reads) > 2
        reads.clear()
        assert await b.registry.abroad("s") == first
        assert len(reads) == 1
        more.set()
        await here.sees("end")
        await asyncio.sleep(1)
        reads.clear()
        last = await b.registry.abroad("s")
        assert last is not None
        assert last.text == "".join(text) + "end"
        assert last.seq == here.stream.seq
        assert len(reads) == 2


@in_virtual_time
async def test_a_look_after_the_store_has_lost_writes_has_the_text_of_its_position() -> None:
    text = ["x" * 100] * 400
    more = asyncio.Event()

    async def long(turn: Turn) -> AsyncGenerator[Piece, None]:
        for piece in text:
            yield piece
        await more.wait()
        for piece in text:
            yield piece
        await asyncio.Event().wait()

    async with cloud("a", "b", q=long) as (shared, a, b):
        here = await a.start("1", "q")
        await until(lambda: here.stream.seq == len(text) + 1)
        await asyncio.sleep(1)
        old = shared.store.copied()
        more.set()
        await until(lambda: here.stream.seq == 2 * len(text) + 1)
        await asyncio.sleep(1)
        transcript = await b.registry.abroad("s")
        assert transcript is not None
        assert transcript.text == "".join(text * 2)
        shared.cut_off.add("a")  # before it puts back what was lost
        shared.store.fall_back(old)
        transcript = await b.registry.abroad("s")
        assert transcript is not None
        assert (transcript.text, transcript.seq) == ("".join(text), len(text) + 1)
        shared.cut_off.clear()


@in_virtual_time
async def test_the_texts_that_a_node_keeps_are_bounded_and_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jarvis_stream.node.MIN_KEPT_TEXT", 10)
    monkeypatch.setattr("jarvis_stream.node.MAX_KEPT_TEXTS_BYTES", 1000)
    async with cloud("a", "b", q=talks("x" * 300)) as (_, a, b):
        for number in range(5):
            reader = await a.start(str(number), "q", session_id=f"s{number}")
            await reader.sees("x")
        await asyncio.sleep(1)
        for number in range(5):
            transcript = await b.registry.abroad(f"s{number}")
            assert transcript is not None
            assert transcript.text == "x" * 300
        assert 0 < sum(len(kept.text) for _, kept in b.node._transcripts.values()) <= 1000
        await asyncio.sleep(60)
        assert not b.node._transcripts


# The undertaker


@in_virtual_time
async def test_the_streams_of_a_dead_node_that_are_read_here_are_buried_in_slices() -> None:
    count = 100
    async with cloud("a", "b", q=talks("x")) as (shared, a, b):
        readers = []
        for number in range(count):
            here = await a.start(str(number), "q", session_id=f"s{number}")
            await here.sees("x")
        await asyncio.sleep(0.2)
        for number in range(count):
            readers.append(await b.follow(str(number)))
        buries = count_calls(shared, "bury")
        shared.cut_off.add("a")
        for reader in readers:
            assert (await reader.end())["code"] == "interrupted"
        assert b.node.counts.buried == count
        assert count / 32 <= buries.count("b") < count / 4
        shared.cut_off.clear()


@in_virtual_time
async def test_all_streams_of_a_deleted_session_are_stopped_in_one_trip() -> None:
    async with cloud("a", "b", q=talks("x")) as (shared, a, b):
        await (await a.start("0", "q")).sees("x")
        for number in range(1, 6):
            await a.start(str(number), "q", on_conflict="enqueue")
        trip = 0.1
        shared.store.fate = lambda node, call: Fate(out=trip if call == "stop" else 0.0)
        began = time.monotonic()
        stopped = await b.node.stop_all("s", 2**53, BOUND)
        assert stopped == 6
        assert time.monotonic() - began < 3 * trip
        shared.store.fate = lambda node, call: Fate()


# When nodes and the store lose each other


@in_virtual_time
async def test_a_node_that_is_cut_off_ends_its_streams_when_its_lease_is_over() -> None:
    async with cloud("a", "b", q=talks("x"), new=says("new")) as (shared, a, b):
        here = await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("x")
        shared.cut_off.add("a")
        cut_at = asyncio.get_running_loop().time()
        await here.end()
        assert reason(here) == "coordination_lost"
        assert asyncio.get_running_loop().time() - cut_at <= LEASE + 0.1
        await there.end()
        assert reason(there) == "interrupted"
        assert there.frames[:-1] == here.frames[:-1]
        new = await b.start("2", "new")
        await new.end()
        assert new.text == "new"
        with pytest.raises(Unavailable):
            await a.start("3", "new")
        shared.cut_off.clear()
        await asyncio.sleep(1)
        again = await a.follow("1")  # the end that others have seen, here too
        await again.end()
        assert again.data == there.data


@in_virtual_time
async def test_a_short_cut_is_not_felt_by_local_readers() -> None:
    async with cloud("a", "b", q=says(*["x"] * 50, "end"), r=talks("x")) as (shared, a, b):
        here = await a.start("1", "r")
        await here.sees("x")
        shared.cut_off.add("a")
        await asyncio.sleep(LEASE * 0.5)
        shared.cut_off.clear()
        await asyncio.sleep(LEASE)
        assert not here.ends
        there = await b.follow("1")
        await there.sees("x")
        assert there.data == here.data


@in_virtual_time
async def test_a_newer_stream_does_not_wait_for_a_dead_nodes_lease() -> None:
    async with cloud("a", "b", q=talks("x"), new=says("new")) as (shared, a, b):
        here = await a.start("1", "q")
        await here.sees("x")
        shared.cut_off.add("a")
        asked_at = asyncio.get_running_loop().time()
        await (await b.start("2", "new")).end()
        assert asyncio.get_running_loop().time() - asked_at < BOUND + 0.5
        await here.end()
        shared.cut_off.clear()


@in_virtual_time
async def test_after_a_fall_back_to_an_old_copy_no_position_names_two_frames() -> None:
    async with cloud("a", "b", q=talks("one", "two"), r=talks("three")) as (shared, a, b):
        copied = shared.store.copied()
        here = await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("two")
        shared.store.fall_back(copied)
        await asyncio.sleep(LEASE)
        again = await b.follow("1")
        await again.sees("two")
        await a.registry.cancel("1")
        for reader in (again, there, here):
            await reader.end()
        assert again.data == there.data == here.data
        assert a.node.counts.regressed


@in_virtual_time
async def test_after_a_failover_to_a_clock_that_is_behind_the_newest_question_wins() -> None:
    async with cloud("a", "b", old=talks("old"), new=talks("new")) as (shared, a, b):
        await asyncio.sleep(10)
        replica = shared.store.copied()
        one = await a.start("1", "old", on_disconnect="continue")
        await asyncio.sleep(0.3)
        shared.store.fall_back(replica)
        clock = shared.store.clock
        shared.store.clock = lambda: clock() - 2.0
        two = await b.start("2", "new", on_disconnect="continue")
        assert two.stream.epoch > one.stream.epoch
        await one.end()
        assert reason(one) == "superseded"
        await asyncio.sleep(5)
        assert two.stream.is_open
        assert [turn.stream_id for turn in await shared.history.turns("s")] == ["1", "2"]
        await b.registry.cancel("2")


@in_virtual_time
async def test_so_it_does_when_only_the_history_knows_the_older_epoch() -> None:
    async with cloud("a", old=talks("old"), new=talks("new")) as (shared, a):
        await asyncio.sleep(10)
        replica = shared.store.copied()
        one = await a.start("1", "old", on_disconnect="continue")
        shared.store.fall_back(replica)
        clock = shared.store.clock
        shared.store.clock = lambda: clock() - 3600.0
        b = await shared.join("b")  # which has never seen the clock that was ahead
        two = await b.start("2", "new", on_disconnect="continue")
        assert two.stream.epoch > one.stream.epoch
        await one.end()
        assert reason(one) == "superseded"
        await b.registry.cancel("2")


@pytest.mark.parametrize("step", [1.0, 4.0, 60.0, 100.0, -1.0, -4.0, -3600.0])
@in_virtual_time
async def test_a_step_of_the_stores_clock_ends_no_living_stream(step: float) -> None:
    async with cloud("a", "b", "c", q=talks("x"), later=talks("y")) as (shared, a, b, c):
        await asyncio.sleep(10)
        one = await a.start("1", "q")
        await asyncio.sleep(2)
        two = await b.follow("1")
        queued = await c.start("2", "later", on_conflict="enqueue", on_disconnect="continue")
        await asyncio.sleep(1.4)
        clock = shared.store.clock
        shared.store.clock = lambda: clock() + step
        with pytest.raises(Conflict):
            await c.start("3", "later", on_conflict="reject")
        one.leave()
        await asyncio.sleep(20)
        assert one.stream.is_open
        assert parse(b"".join(two.writes))[-1]["type"] == "token"
        assert not queued.text
        assert not any(member.node.counts.buried for member in (a, b, c))
        await a.registry.cancel("1")
        await queued.sees("y")
        await c.registry.cancel("2")


@in_virtual_time
async def test_who_has_gone_is_buried_though_the_stores_clock_has_stepped_back() -> None:
    async with cloud("a", "b", q=talks("x")) as (shared, a, b):
        await asyncio.sleep(10)
        one = await a.start("1", "q", on_disconnect="continue")
        two = await b.follow("1")
        await asyncio.sleep(1)
        shared.cut_off.add("a")
        clock = shared.store.clock
        shared.store.clock = lambda: clock() - 3600.0
        await asyncio.sleep(70)
        assert (await two.end())["code"] == "interrupted"
        shared.cut_off.clear()
        await one.end()


@in_virtual_time
async def test_after_one_to_a_copy_without_the_last_heartbeats_nobody_alive_is_buried() -> None:
    async with cloud("a", "b", q=talks("x")) as (shared, a, b):
        here = await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("x")
        copied = shared.store.copied()
        await asyncio.sleep(2 * LEASE)
        shared.store.fall_back(copied)
        await asyncio.sleep(2 * LEASE)
        assert not here.ends
        assert not there.ends
        await a.registry.cancel("1")
        for reader in (there, here):
            await reader.end()
        assert there.data == here.data


@in_virtual_time
async def test_readers_of_another_nodes_stream_are_let_go_when_the_store_is_lost() -> None:
    async with cloud("a", "b", q=talks("x")) as (shared, a, b):
        await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("x")
        shared.cut_off.add("b")
        await until(lambda: there.losses == 1)
        shared.cut_off.clear()
        again = await b.follow("1", there.frames[-1]["seq"])
        await a.registry.cancel("1")
        await again.end()


async def counts(turn: Turn) -> AsyncGenerator[Piece, None]:
    """A number every tenth of a second."""
    for number in itertools.count():
        yield f"{number} "
        await asyncio.sleep(0.1)


@in_virtual_time
async def test_a_part_of_the_store_that_is_away_ends_its_sessions_and_the_others_go_on() -> None:
    async with cloud("a", "b", counts=counts, new=says("new")) as (shared, a, b):
        lost = await a.start("1", "counts", session_id="s")
        kept = await a.start("2", "counts", session_id="t")
        far = await b.follow("2")
        await far.sees("5 ")
        shared.away.add("s")
        await lost.end()
        assert reason(lost) == "coordination_lost"
        with pytest.raises(Unavailable):
            await a.start("3", "new", session_id="s")
        await asyncio.sleep(2 * LEASE)
        for node in (a.node, b.node):
            assert node.is_in_touch
        behind = kept.frames[-1]["seq"] - far.frames[-1]["seq"]
        assert behind <= 2  # as ever
        assert await b.registry.active(["s", "t"]) == [False, True]
        await (await b.start("4", "new", session_id="u")).end()
        await b.registry.cancel("2")
        for reader in (kept, far):
            assert (await reader.end())["finish_reason"] == "cancelled"
        assert far.data == kept.data
        shared.away.clear()
        await asyncio.sleep(1)  # its end was owed to the store until now
        again = await b.follow("1")
        await again.end()
        assert again.data == lost.data


@in_virtual_time
async def test_a_part_that_is_away_for_less_than_a_lease_is_not_felt() -> None:
    async with cloud("a", "b", counts=counts) as (shared, a, b):
        here = await a.start("1", "counts")
        far = await b.follow("1")
        shared.store.fate = lambda node, call: Fate(out=0.02, back=0.02)
        await asyncio.sleep(LEASE / 3)
        await until(lambda: here.stream.deadline > time.monotonic() + LEASE - 0.1)  # a heartbeat
        shared.away.add("s")
        await asyncio.sleep(LEASE * 0.9)
        shared.away.clear()
        await asyncio.sleep(LEASE)
        assert not here.ends
        assert far.losses == 0
        await a.registry.cancel("1")
        for reader in (here, far):
            await reader.end()
        assert far.data == here.data


@in_virtual_time
async def test_readers_of_a_part_that_is_away_are_let_go_and_the_others_are_not() -> None:
    async with cloud("a", "b", counts=counts) as (shared, a, b):
        for stream, session in (("1", "s"), ("2", "t")):
            await a.start(stream, "counts", session_id=session)
        lost, kept = await b.follow("1"), await b.follow("2")
        await lost.sees("5 ")
        shared.away.add("s")
        await until(lambda: lost.losses == 1)
        await asyncio.sleep(LEASE)
        assert kept.losses == 0
        shared.away.clear()
        await a.registry.cancel("2")
        await kept.end()


@in_virtual_time
async def test_a_node_that_stops_ends_what_it_has_for_all_readers() -> None:
    async with cloud("a", "b", q=talks("x")) as (_, a, b):
        await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("x")
        await a.registry.shutdown()
        await there.end()
        assert reason(there) == "shutdown"


@in_virtual_time
async def test_readers_on_a_node_that_stops_are_sent_elsewhere() -> None:
    async with cloud("a", "b", q=talks("x")) as (_, a, b):
        here = await a.start("1", "q")
        there = await b.follow("1")
        await there.sees("x")
        await b.registry.shutdown()
        assert there.losses == 1
        assert not here.ends


@in_virtual_time
async def test_the_log_in_the_store_and_its_nodes_own_say_the_same() -> None:
    async with cloud("a", "b", q=says(*[f"{n} " for n in range(500)])) as (_, a, b):
        here = await a.start("1", "q")
        await here.end()
        there: Any = await b.follow("1")
        await there.end()
        assert there.data == read_all(here.stream)


# Removals


@in_virtual_time
async def test_a_question_whose_claim_comes_after_a_deletion_gets_a_newer_epoch() -> None:
    async with cloud("a", "b", q=talks("x")) as (shared, a, b):
        slow = Fate(out=0.2)
        shared.store.fate = lambda node, call: slow if (node, call) == ("b", "claim") else Fate()
        asking = asyncio.ensure_future(b.start("1", "q", on_disconnect="continue"))
        await asyncio.sleep(0.1)  # its ticket is older than that of the deletion
        assert not await a.registry.delete("s")
        here = await asking
        await here.sees("x")
        there = await a.follow("1")
        await there.sees("x")
        assert [turn.stream_id for turn in await shared.history.turns("s")] == ["1"]
        await b.registry.cancel("1")
        await there.end()


@in_virtual_time
async def test_a_node_that_misses_a_deletion_learns_of_it() -> None:
    async with cloud("a", "b", old=says("old"), q=talks("x")) as (shared, a, b):
        await (await a.start("0", "old")).end()
        await asyncio.sleep(0.5)
        shared.mute = True
        live = await a.start("1", "q")
        await live.sees("x")
        stop = shared.store.stop
        shared.store.stop = lambda stream: None  # it is told by no stop, either
        assert await b.registry.delete("s")
        for member in (a, b):
            with pytest.raises((NotFound, Gone)):
                await member.follow("0")
            with pytest.raises((NotFound, Gone)):
                await member.start("0", "old", may_be_known=True)
        await live.end()
        assert reason(live) == "cancelled"
        assert a.registry.find("1") is None
        shared.store.stop = stop


@in_virtual_time
async def test_what_is_replaced_or_rolled_back_cannot_be_replayed_at_another_node() -> None:
    async with cloud("a", "b", q=says("x"), old=talks("y"), new=says("z")) as (_, a, b):
        for stream_id in ("0", "1"):
            await (await a.start(stream_id, "q")).end()
        following = await b.follow("1")
        await (await b.start("2", "q", replaces="1")).end()
        await following.end()
        assert following.text == "x"
        await (await a.start("3", "old")).sees("y")
        await (await b.start("4", "new", on_conflict="rollback")).end()
        for member in (a, b):
            for stream_id in ("0", "2", "4"):
                await (await member.follow(stream_id)).end()
            for stream_id in ("1", "3"):
                with pytest.raises((NotFound, Gone)):
                    await member.follow(stream_id)


@in_virtual_time
async def test_a_removal_reaches_the_store_however_long_it_is_away() -> None:
    async with cloud("a", "b", q=says("x")) as (shared, a, b):
        for stream_id in ("1", "2"):
            await (await a.start(stream_id, "q")).end()
        outage = Outage(shared, "b", "remove", seconds=4 * LEASE)
        await (await b.start("3", "q", replaces="2")).end()
        await outage.over
        await asyncio.sleep(1)
        for member in (a, b):
            await (await member.follow("1")).end()
            with pytest.raises((NotFound, Gone)):
                await member.follow("2")


@in_virtual_time
async def test_a_deletion_that_answers_503_is_finished_when_the_store_is_back() -> None:
    async with cloud("a", "b", q=says("x")) as (shared, a, b):
        await (await b.start("1", "q")).end()
        outage = Outage(shared, "a", "remove", seconds=4 * LEASE)
        with pytest.raises(Unavailable):
            await a.registry.delete("s")
        await outage.over
        await asyncio.sleep(1)
        for member in (a, b):
            with pytest.raises((NotFound, Gone)):
                await member.follow("1")


@in_virtual_time
async def test_a_deletion_is_repeated_while_the_store_does_not_answer() -> None:
    async with cloud("a", "b", q=says("x")) as (shared, a, b):
        await (await b.start("1", "q")).end()
        lost = iter([True, True])
        shared.store.fate = lambda node, call: Fate(
            lost=(node, call) == ("a", "remove") and next(lost, False)
        )
        assert await a.registry.delete("s")
        for member in (a, b):
            with pytest.raises((NotFound, Gone)):
                await member.follow("1")

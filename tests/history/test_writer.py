"""The writer, over a store that does what a test tells it."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from contracts.history import FakeAnswer, Speaker, eventually, plain, saved, shapes

from jarvis_stream.errors import Unavailable
from jarvis_stream.history.base import (
    Begun,
    Limits,
    SessionPage,
    SessionRecord,
    Span,
    TurnRecord,
    TurnStart,
)
from jarvis_stream.history.store import Batch, Written
from jarvis_stream.history.writer import HistoryWriter

T = TypeVar("T")

POISON = "poison"


class Outage(Exception):
    """The database does not work."""


class Refusal(Exception):
    """The database does not take this."""


class FakeStore:
    """Keeps what it is given, in memory; can be held up, fail, and refuse."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        """Every batch it was asked to write, those that failed too."""
        self.kept: dict[str, TurnRecord] = {}
        self.titles: dict[str, str] = {}
        self.titled: dict[str, int] = {}
        """By session: the newest epoch that there was when it was given its title."""
        self.removals: list[Span] = []
        self.failing = False
        self.failing_if: Callable[[Batch], bool] = lambda batch: False
        self.hanging_if: Callable[[Batch], bool] = lambda batch: False
        self.readable = True
        self.knows_us = True
        self.reads = 0
        self.reclaims: list[bool] = []
        """With `opening` or without."""
        self.asked = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    async def renew(self) -> bool:
        if self.failing:
            raise Outage
        known, self.knows_us = self.knows_us, True
        return known

    async def reclaim(self, *, opening: bool) -> int:
        if self.failing:
            raise Outage
        self.reclaims.append(opening)
        return 0

    async def write(self, batch: Batch) -> Written:
        self.batches.append(batch)
        self.asked.set()
        await self.free.wait()
        if self.hanging_if(batch):
            await asyncio.Event().wait()
        prompts = [turn.prompt for turn in batch.begins]
        if self.failing or self.failing_if(batch):
            raise Outage
        if POISON in prompts:
            raise Refusal
        written = Written()
        for stream_id in self.kept.keys() & set(batch.interrupts):
            self.kept[stream_id] = replace(self.kept[stream_id], status="interrupted")
        written.removed = self._remove(batch.removals)
        for turn in batch.begins:
            earlier = [other for other in self.kept.values() if other.session_id == turn.session_id]
            written.earlier[turn.session_id] = earlier
            if any(span.holds(turn) for span in self.removals):
                written.fenced.add(turn.stream_id)
            else:
                written.begun.add(turn.stream_id)
                self.kept[turn.stream_id] = turn
        self._remove([span for id, span in batch.replaced.items() if id in written.begun])
        for session_id, title, _ in batch.titles:
            epochs = [turn.epoch for turn in self.kept.values() if turn.session_id == session_id]
            if epochs:
                written.titled.add(session_id)
                self.titles[session_id] = title
                self.titled[session_id] = max(epochs)
        for turn in batch.ends:
            if turn.stream_id in self.kept:
                written.ended.add(turn.stream_id)
                self.kept[turn.stream_id] = turn
        return written

    def _remove(self, spans: list[Span]) -> set[str]:
        removed: set[str] = set()
        for span in spans:
            self.removals.append(span)
            removed |= {turn.session_id for turn in self.kept.values() if span.holds(turn)}
            self.kept = {id: turn for id, turn in self.kept.items() if not span.holds(turn)}
            if not span.first and self.titled.get(span.session_id, 0) < span.before:
                self.titles.pop(span.session_id, None)
        return removed

    async def recent(self, session_id: str) -> list[TurnRecord]:
        self.reads += 1
        return await self.turns(session_id, limit=None, before=None)

    async def turn(self, stream_id: str) -> TurnRecord | None:
        return self.kept.get(stream_id)

    async def turns(
        self, session_id: str, *, limit: int | None, before: int | None
    ) -> list[TurnRecord]:
        if not self.readable:
            raise Outage
        return [turn for turn in self.kept.values() if turn.session_id == session_id]

    async def page(
        self,
        session_id: str,
        *,
        limit: int,
        max_chars: int,
        before: int | None,
        after: int | None,
    ) -> tuple[list[TurnRecord], bool]:
        turns = await self.turns(session_id, limit=None, before=None)
        low, high = after or 0, before or math.inf
        found = [turn for turn in turns if low < turn.epoch < high]
        page = found[-limit:] if after is None else found[:limit]
        return page, len(found) > limit

    async def sessions(
        self, *, owner: str, limit: int, before: str | None, query: str | None
    ) -> SessionPage:
        raise Outage

    async def count(self, owner: str) -> int:
        raise NotImplementedError

    async def session(self, session_id: str) -> SessionRecord | None:
        turns = await self.turns(session_id, limit=None, before=None)
        if not turns:
            return None
        return SessionRecord(
            session_id=session_id,
            title=self.titles.get(session_id, turns[0].prompt),
            created_at=turns[0].created_at,
            updated_at=turns[-1].created_at,
            message_count=2 * len(turns),
        )

    async def last_epoch(self) -> int:
        return 0

    def refused(self, error: Exception) -> bool:
        return isinstance(error, Refusal)

    def describe(self, error: Exception) -> str:
        return type(error).__name__

    def has(self, *stream_ids: str) -> Callable[[], Awaitable[bool]]:
        """A condition for `eventually`."""

        async def is_there() -> bool:
            return self.kept.keys() >= set(stream_ids)

        return is_there

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Inside, a write that has begun does not end."""
        self.free.clear()
        self.asked.clear()
        try:
            yield
        finally:
            self.free.set()


LIMITS = Limits(begin_timeout=0.05, save_timeout=0.05, checkpoint_every=0.01)
"""Impatient, for the tests that wait for a bound to pass."""
PATIENT = Limits(begin_timeout=30.0, save_timeout=30.0, checkpoint_every=3600.0)
"""For those in which none may pass."""


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def history(store: FakeStore) -> AsyncIterator[HistoryWriter]:
    async with HistoryWriter(store, LIMITS).running(flush_timeout=0.5) as history:
        yield history


@pytest.fixture
async def patient(store: FakeStore) -> AsyncIterator[HistoryWriter]:
    async with HistoryWriter(store, PATIENT).running() as history:
        yield history


# Few transactions


async def test_what_came_during_a_transaction_shares_the_next(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    async with store.held():
        first, _ = speaker.ask("s", "0")
        await store.asked.wait()
        begun = [speaker.ask("s", str(number))[0] for number in range(1, 100)]
        speaker.end("0")
        ended = [speaker.end(str(number)) for number in range(1, 50)]
    await asyncio.gather(first, *begun, *ended)
    assert len(store.batches) == 2
    assert [len(batch.begins) for batch in store.batches] == [1, 99]
    assert [len(batch.ends) for batch in store.batches] == [0, 1]
    assert [turn.status for turn in store.batches[1].begins].count("complete") == 49


async def test_tokens_alone_cost_a_transaction_per_checkpoint_for_all_answers_together(
    store: FakeStore,
) -> None:
    clock = Limits(checkpoint_every=0.1)
    async with HistoryWriter(store, clock).running() as history:
        speaker = Speaker(history)
        live = [speaker.ask("s", str(number)) for number in range(50)]
        await asyncio.gather(*(begun for begun, _ in live))
        before = len(store.batches)
        started = asyncio.get_running_loop().time()
        for _ in range(200):
            for _, answer in live:
                answer.say("token ")
            await asyncio.sleep(0.001)
        took = asyncio.get_running_loop().time() - started

        async def all_kept() -> bool:
            pieces = [piece for batch in store.batches for piece in batch.pieces]
            return sum(len(piece.text) for piece in pieces) == 50 * 200 * len("token ")

        await eventually(all_kept)
        assert len(store.batches) - before <= took / 0.1 + 2


async def test_only_new_text_is_checkpointed(store: FakeStore, history: HistoryWriter) -> None:
    begun, answer = Speaker(history).ask("s", "1")
    await begun
    text = ""
    for piece in ("one ", "zwölf ", "drei"):
        answer.say(piece)
        text += piece

        async def kept(text: str = text) -> bool:
            return text == "".join(p.text for batch in store.batches for p in batch.pieces)

        await eventually(kept)
    pieces = [piece for batch in store.batches for piece in batch.pieces]
    assert [piece.start for piece in pieces] == [0, 4, 11]


async def test_an_idle_history_writes_nothing(store: FakeStore, history: HistoryWriter) -> None:
    speaker = Speaker(history)
    await speaker.keep("s", "1")
    begun, _ = speaker.ask("s", "2")
    await begun
    before = len(store.batches)
    await asyncio.sleep(0.1)  # ten checkpoints
    assert len(store.batches) == before


async def test_a_large_backlog_is_written_in_batches(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    begun = [speaker.ask(f"s{number}", str(number))[0] for number in range(1000)]
    await asyncio.gather(*begun)
    assert max(len(batch.begins) for batch in store.batches) == 256
    store.batches.clear()
    ended = []
    for number in range(8):
        _, answer = speaker.ask("big", f"big{number}")
        answer.say("x" * 4 * 1024 * 1024)
        ended.append(speaker.end(f"big{number}"))
    assert all(await asyncio.gather(*ended))
    assert max(len(batch.begins) for batch in store.batches) == 2


# A database that does not answer


async def test_nobody_waits_longer_than_the_bound_for_a_slow_database(
    store: FakeStore, history: HistoryWriter
) -> None:
    speaker = Speaker(history)
    async with store.held():
        begun, answer = speaker.ask("s", "1", "q1")
        assert not (await begun).saved
        answer.say("a1")
        assert not await speaker.end("1", "cancelled")
        begun, _ = speaker.ask("s", "2", "q2")
        assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2"]
        assert shapes(await history.turns("s")) == [
            ("1", "q1", "a1", "cancelled"),
            ("2", "q2", "", "streaming"),
        ]
    await saved(history)
    assert shapes(list(store.kept.values())) == [
        ("1", "q1", "a1", "cancelled"),
        ("2", "q2", "", "streaming"),
    ]


async def test_nobody_waits_at_all_for_a_database_that_is_known_to_be_down(
    store: FakeStore, patient: HistoryWriter
) -> None:
    store.failing = True
    speaker = Speaker(patient)
    waiting, _ = speaker.ask("s", "0")

    async def down() -> bool:
        return patient.health.failures >= 2

    await eventually(down)
    async with asyncio.timeout(PATIENT.save_timeout / 2):
        begun, answer = speaker.ask("s", "1")
        assert not (await begun).saved
        answer.say("a")
        assert not await speaker.end("1")
        assert not (await patient.remove(Span("s", 0, 9))).saved
        assert not (await waiting).saved
    store.failing = False


async def test_a_cancelled_question_says_nothing_about_the_database(store: FakeStore) -> None:
    limits = replace(PATIENT, begin_timeout=0.05)
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        begun, _ = speaker.ask("s", "1")
        begun.cancel()
        await eventually(store.has("1"))
        await asyncio.sleep(2 * limits.begin_timeout)  # the timer of its promise is over
        assert await speaker.discard("1")
        assert history.health.failures == 0


async def test_a_question_that_ran_out_of_time_does_not_make_others_give_up(
    store: FakeStore,
) -> None:
    limits = replace(PATIENT, begin_timeout=0.05)
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        async with store.held():
            begun, _ = speaker.ask("s", "1")
            assert not (await begun).saved
            discarded = speaker.discard("1")
        assert await discarded


async def test_nothing_waits_while_one_attempt_takes_longer_than_any_promise(
    store: FakeStore, history: HistoryWriter
) -> None:
    speaker = Speaker(history)
    async with store.held():
        speaker.ask("s", "1")
        await store.asked.wait()
        await asyncio.sleep(2 * LIMITS.save_timeout)
        assert speaker.discard("1").done()
    await saved(history)
    assert (
        await history.remove(Span("s", 2, 3))
    ).saved  # and after a success everything waits again


async def test_a_cancelled_deletion_or_renaming_is_made_all_the_same(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    await speaker.turn("s", "1")
    await speaker.turn("t", "2")
    async with store.held():
        works = [
            asyncio.create_task(speaker.delete("s")),
            asyncio.create_task(patient.rename("t", "title")),
        ]
        await store.asked.wait()
        for work in works:
            work.cancel()
        await asyncio.wait(works)
    await saved(patient)
    assert list(store.kept) == ["2"]
    assert store.titles == {"t": "title"}


async def test_a_batch_that_takes_too_long_is_halved_until_it_fits(
    store: FakeStore, patient: HistoryWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_stream.history.writer.WRITE_TIMEOUT", 0.05)
    store.hanging_if = lambda batch: len(batch.begins) > 10
    speaker = Speaker(patient)
    begun = [speaker.ask("s", str(number))[0] for number in range(40)]
    assert all(result.saved for result in await asyncio.gather(*begun))
    assert [len(batch.begins) for batch in store.batches[:3]] == [40, 20, 10]
    assert patient.health.last_error == "TimeoutError"


async def test_a_turn_that_alone_takes_too_long_is_set_aside(
    store: FakeStore, patient: HistoryWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_stream.history.writer.WRITE_TIMEOUT", 0.05)
    store.hanging_if = lambda batch: any(turn.prompt == "slow" for turn in batch.begins)
    speaker = Speaker(patient)
    slow, _ = speaker.ask("s", "0", "slow")
    begun = [speaker.ask("s", str(number))[0] for number in range(1, 10)]
    assert all(result.saved for result in await asyncio.gather(*begun))
    store.hanging_if = lambda batch: False
    assert (await slow).saved


async def test_what_could_not_be_saved_is_saved_when_it_can_be(
    store: FakeStore, history: HistoryWriter, log_lines: list[str]
) -> None:
    store.failing = True
    speaker = Speaker(history)
    for number in range(20):
        begun, answer = speaker.ask("s", str(number))
        assert not (await begun).saved
        answer.say(f"a{number}")
        assert not await speaker.end(str(number))
    health = history.health
    assert (health.writable, health.backlog, health.last_error) == (False, 20, "Outage")
    assert health.backlog_bytes == sum(len(f"qa{number}") for number in range(20))
    assert health.lag > 0
    store.failing = False
    await saved(history)
    assert [turn.text for turn in store.kept.values()] == [f"a{number}" for number in range(20)]
    health = history.health
    assert (health.writable, health.backlog_bytes, health.lag) == (True, 0, 0)
    assert (history.health.saved, history.health.dropped) == (40, 0)
    assert [line.split(" ")[0] for line in log_lines] == [
        "history_write_failed",
        "history_recovered",
    ]
    numbers = itertools.count()

    async def told() -> bool:
        return (await speaker.ask("s", f"now {next(numbers)}")[0]).saved

    await eventually(told)  # and everybody waits again


async def test_what_is_replaced_is_gone_while_it_cannot_be_removed_and_leaves_with_the_coming(
    store: FakeStore, history: HistoryWriter
) -> None:
    speaker = Speaker(history)
    for number in range(1, 4):
        await speaker.keep("s", str(number), f"q{number}", f"a{number}")
    store.failing = True
    live, answer = speaker.ask("s", "4", "q4")  # never saved, and still live
    answer.say("half")
    begun, _ = speaker.ask("s", "5", "q2 again", replaces_from=2)
    result = await begun
    assert not result.saved
    assert plain(result.messages) == ["u:q1", "a:a1", "u:q2 again"]
    assert not await speaker.end("4")
    assert not (await live).saved
    assert [turn.stream_id for turn in await history.turns("s")] == ["1", "5"]
    assert await history.turn("2") is None
    # Whatever comes before it is saved: what that one replaced does not come back.
    begun, answer = speaker.ask("s", "6", "q2 once more", replaces_from=5)
    answer.say("a6")
    assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2 once more"]
    await speaker.discard("6")
    begun, _ = speaker.ask("s", "7", "q7")
    assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q7"]
    assert set(store.kept) == {"1", "2", "3"}
    store.failing = False
    await saved(history)
    assert set(store.kept) == {"1", "7"}


async def test_what_is_replaced_leaves_in_the_transaction_in_which_the_question_comes(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    await speaker.turn("s", "1", "q1", "a1")
    async with store.held():
        first, _ = speaker.ask("t", "2")
        await store.asked.wait()
        many = [speaker.ask("t", str(number))[0] for number in range(10, 10 + 255)]
        begun, _ = speaker.ask("s", "3", "q1 again", replaces_from=1)
        many += [speaker.ask("t", str(number))[0] for number in range(300, 310)]
    assert (await begun).saved
    [batch] = [batch for batch in store.batches if batch.replaced]
    assert "3" in [turn.stream_id for turn in batch.begins]
    assert batch.replaced["3"].first == 1
    assert "1" not in store.kept
    await asyncio.gather(first, *many)


async def test_one_that_is_replaced_while_it_is_being_written_leaves_next(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    async with store.held():
        _, answer = speaker.ask("s", "1", "q1")
        await store.asked.wait()
        answer.say("half")
        begun, _ = speaker.ask("s", "2", "q1 again", replaces_from=1)
        ended = speaker.end("1", "superseded")
    assert (await begun).saved
    assert plain((await begun).messages) == ["u:q1 again"]
    assert not await ended
    assert set(store.kept) == {"2"}


async def test_a_title_that_could_not_be_given_in_time_is_given_when_it_can_be(
    store: FakeStore, history: HistoryWriter
) -> None:
    speaker = Speaker(history)
    await speaker.keep("s", "1")
    store.failing = True
    for title in ("one", "two"):
        with pytest.raises(Unavailable):
            await history.rename("s", title)
    speaker.ask("t", "2")
    with pytest.raises(Unavailable):  # its question is not saved yet
        await history.rename("t", "three")
    with pytest.raises(Unavailable):
        await speaker.delete("t")
    store.failing = False
    await saved(history)
    assert store.titles == {"s": "two"}


async def test_a_database_that_can_be_read_but_not_written_still_tells_the_agent(
    store: FakeStore, history: HistoryWriter
) -> None:
    speaker = Speaker(history)
    await speaker.keep("s", "1", "q1", "a1")
    store.failing = True
    begun, answer = speaker.ask("s", "2", "q2")
    answer.say("a2")
    assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2"]
    await speaker.end("2")
    begun, _ = speaker.ask("s", "3", "q3")
    assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2", "a:a2", "u:q3"]


async def test_a_database_that_cannot_be_read_is_not_asked_again_and_again(
    store: FakeStore, history: HistoryWriter, log_lines: list[str]
) -> None:
    store.failing, store.readable = True, False
    speaker = Speaker(history)
    begun, _ = speaker.ask("s", "0")
    assert not (await begun).saved

    async def down() -> bool:
        return history.health.failures >= 4  # the pauses are long by now

    await eventually(down)
    before = store.reads
    for number in range(1, 100):
        begun, _ = speaker.ask("s", str(number), f"q{number}")
        assert (await begun).messages[-1] == {"role": "user", "content": f"q{number}"}
    assert store.reads - before <= 3
    with pytest.raises(Unavailable):
        await history.turns("s")
    with pytest.raises(Unavailable):
        await history.sessions()
    assert "history_read_failed error=Outage" in log_lines


async def test_a_database_that_can_be_read_again_is_read_again(
    store: FakeStore, history: HistoryWriter
) -> None:
    speaker = Speaker(history)
    await speaker.keep("s", "1", "q1", "a1")
    store.failing, store.readable = True, False
    begun, _ = speaker.ask("s", "2", "q2")
    assert plain((await begun).messages) == ["u:q2"]
    store.readable = True
    numbers = itertools.count(3)

    async def told() -> bool:
        begun, _ = speaker.ask("s", str(next(numbers)), "q")
        return plain((await begun).messages)[:2] == ["u:q1", "a:a1"]

    await eventually(told)


async def test_a_database_that_is_down_at_the_start_is_used_when_it_is_up(
    store: FakeStore,
) -> None:
    store.failing = True
    async with HistoryWriter(store, LIMITS).running() as history:
        speaker = Speaker(history)
        begun, answer = speaker.ask("s", "1")
        assert not (await begun).saved
        store.failing = False
        answer.say("a")

        async def ended() -> bool:
            return await speaker.end("1") or "1" in store.kept

        await eventually(ended)


async def test_the_locks_of_others_are_looked_at_only_at_the_start(store: FakeStore) -> None:
    # Later, a process without its lock may just be making a new connection.
    async with HistoryWriter(store, Limits(lease=0.01)).running():

        async def again() -> bool:
            return len(store.reclaims) > 2

        await eventually(again)
    assert store.reclaims[0]
    assert not any(store.reclaims[1:])


async def test_leaving_is_bounded_however_the_database_is(store: FakeStore) -> None:
    store.failing = True
    async with HistoryWriter(store, LIMITS).running(flush_timeout=0.1) as history:
        speaker = Speaker(history)
        begun, _ = speaker.ask("s", "1")
        ended = speaker.end("1")
        promise = history.remove(Span("s", 0, 1))
        impatient = asyncio.timeout(20)
        await impatient.__aenter__()
    await impatient.__aexit__(None, None, None)
    assert not (await begun).saved
    assert (await ended, (await promise).saved) == (False, False)
    assert not (await speaker.ask("s", "2")[0]).saved
    assert not await speaker.discard("1")
    with pytest.raises(Unavailable):
        await speaker.delete("s")


async def test_a_transaction_in_flight_at_the_end_is_finished(store: FakeStore) -> None:
    async with HistoryWriter(store, PATIENT).running() as history, store.held():
        speaker = Speaker(history)
        _, answer = speaker.ask("s", "1")
        await store.asked.wait()
        answer.say("a")
        speaker.end("1")
    assert shapes(list(store.kept.values())) == [("1", "q", "a", "complete")]


# Reads that last while something changes


async def overlapping(
    store: FakeStore,
    name: str,
    read: Callable[[], Awaitable[T]],
    meanwhile: Callable[[], Awaitable[object]],
) -> T:
    """The result of a read, when something happens after it has seen the database."""
    method = getattr(store, name)
    has_read, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **how: Any) -> Any:
        found = await method(*args, **how)
        has_read.set()
        await goes_on.wait()
        return found

    setattr(store, name, slow)
    reading = asyncio.ensure_future(read())
    await has_read.wait()
    setattr(store, name, method)
    await meanwhile()
    goes_on.set()
    return await reading


async def test_a_read_that_overlaps_an_ending_shows_the_ended_answer(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    begun, answer = speaker.ask("s", "1", "q1")
    await begun
    answer.say("half")

    async def end() -> None:
        answer.say(" and half")
        assert await speaker.end("1")

    turns = await overlapping(store, "turns", lambda: patient.turns("s"), end)
    assert shapes(turns) == [("1", "q1", "half and half", "complete")]


async def test_a_read_that_overlaps_a_replacement_shows_either_the_old_or_the_new(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    await speaker.turn("s", "1", "q1", "a1")

    async def replace_it() -> None:
        begun, answer = speaker.ask("s", "2", "q1 again", replaces_from=1)
        assert (await begun).saved
        answer.say("a2")
        assert await speaker.end("2")

    turns = await overlapping(store, "turns", lambda: patient.turns("s"), replace_it)
    assert shapes(turns) == [("2", "q1 again", "a2", "complete")]
    turn = await overlapping(store, "turn", lambda: patient.turn("2"), lambda: speaker.delete("s"))
    assert turn is None


async def test_a_turn_that_begins_while_the_database_is_read_is_found(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    turn = await overlapping(
        store, "turn", lambda: patient.turn("1"), lambda: speaker.ask("s", "1")[0]
    )
    assert turn is not None
    assert turn.status == "streaming"


async def test_an_agent_is_given_what_ended_while_the_database_was_read_for_it(
    store: FakeStore, history: HistoryWriter
) -> None:
    speaker = Speaker(history)
    await speaker.keep("s", "1", "q1", "a1")
    store.failing = True
    _, answer = speaker.ask("s", "2", "q2")
    answer.say("half")

    async def end() -> None:
        answer.say(" and half")
        speaker.end("2")

    async def ask() -> Begun:
        return await speaker.ask("s", "3", "q3")[0]

    begun = await overlapping(store, "recent", ask, end)
    assert plain(begun.messages) == ["u:q1", "a:a1", "u:q2", "a:half and half", "u:q3"]


@pytest.mark.parametrize("seed", range(10))
async def test_a_read_shows_the_state_at_its_end_whatever_happens_meanwhile(
    store: FakeStore, patient: HistoryWriter, seed: int
) -> None:
    dice = random.Random(seed)
    speaker = Speaker(patient)
    numbers = itertools.count()
    epochs: dict[str, int] = {}
    live: dict[str, FakeAnswer] = {}

    async def step() -> None:
        match dice.choice(["ask", "ask", "replace", "say", "end", "end", "discard", "delete"]):
            case "ask":
                stream_id = str(next(numbers))
                _, live[stream_id] = speaker.ask("s", stream_id)
                epochs[stream_id] = speaker.after_all - 1
            case "replace" if epochs:
                stream_id, first = str(next(numbers)), dice.choice(list(epochs.values()))
                _, live[stream_id] = speaker.ask("s", stream_id, replaces_from=first)
                epochs[stream_id] = speaker.after_all - 1
            case "say" if live:
                dice.choice(list(live.values())).say("text ")
            case "end" if live:
                stream_id = dice.choice(list(live))
                del live[stream_id]
                speaker.end(stream_id)
            case "discard" if epochs:
                speaker.discard(dice.choice(list(epochs)))
            case "delete" if dice.random() < 0.2:
                epochs.clear()
                await speaker.delete("s")
        if dice.random() < 0.5:
            await saved(patient)

    async def steps() -> None:
        for _ in range(dice.randrange(8)):
            await step()

    for _ in range(10):
        await steps()
        turns = await overlapping(store, "turns", lambda: patient.turns("s"), steps)
        assert turns == await patient.turns("s")
        page = await overlapping(
            store, "page", lambda: patient.page("s", limit=100, max_bytes=10**6), steps
        )
        assert page.turns == await patient.turns("s")
        assert page.next is None


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_fails_or_is_cancelled_all_is_written_and_nothing_is_left_behind(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("jarvis_stream.history.writer.WRITE_TIMEOUT", 0.03)
    monkeypatch.setattr("jarvis_stream.history.writer.LONGEST_PAUSE", 0.05)
    dice = random.Random(seed)
    write, is_healthy = store.write, False

    async def write_or_fail(batch: Batch) -> Written:
        how = "well" if is_healthy else dice.choice(["well"] * 6 + ["fails", "hangs", "half"])
        if how == "hangs":
            await asyncio.Event().wait()
        if how == "half":
            await write(batch)  # it happens, and nobody is told
        if how in ("fails", "half"):
            raise Outage
        await asyncio.sleep(0.001 * dice.random())
        return await write(batch)

    monkeypatch.setattr(store, "write", write_or_fail)
    limits = replace(LIMITS, max_backlog_bytes=dice.choice([2000, 1_000_000]))
    waiting: list[asyncio.Future[Any]] = []
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        live: dict[str, FakeAnswer] = {}
        for number in range(1, 200):
            session_id, stream_id = dice.choice("abc"), str(number)
            earlier = str(dice.randrange(1, number + 1))
            match dice.choice(["ask", "ask", "replace", "end", "end", "discard", "rest", "cancel"]):
                case "ask":
                    begun, live[stream_id] = speaker.ask(session_id, stream_id, epoch=number)
                    live[stream_id].say("x" * dice.randrange(300))
                    waiting.append(begun)
                case "replace":
                    begun, live[stream_id] = speaker.ask(
                        session_id, stream_id, epoch=number, replaces_from=int(earlier)
                    )
                    waiting.append(begun)
                case "end" if live:
                    waiting.append(speaker.end(live.popitem()[0]))
                case "discard":
                    span = Span(session_id, int(earlier), int(earlier) + 1)
                    waiting.append(history.remove(span))
                case "rest":
                    calls = (
                        history.remove(Span(session_id, 0, number)),
                        history.rename(session_id, "title"),
                        history.turns(session_id),
                    )
                    waiting += map(asyncio.ensure_future, calls)
                    await asyncio.sleep(0.002 * dice.random())
                case "cancel":
                    for future in waiting:
                        if dice.random() < 0.2:
                            future.cancel()
        is_healthy = True
        waiting += map(speaker.end, live)
        await saved(history)
        await asyncio.wait(waiting)
        for session_id in "abc":
            kept = [turn for turn in store.kept.values() if turn.session_id == session_id]
            assert await history.turns(session_id) == sorted(kept, key=lambda turn: turn.epoch)
            assert "streaming" not in [turn.status for turn in kept]
        left = [*history._turns, *history._sessions, *history._spans, *history._overlays]
        left += [*history._removals, *history._renamings, *history._interruptions]
        assert left == []
        assert history.health.backlog_bytes == 0
        for future in waiting:
            if not future.cancelled():
                assert isinstance(future.exception(), Unavailable | None)


# A bounded backlog


async def test_the_oldest_are_dropped_when_too_much_is_owed(
    store: FakeStore, log_lines: list[str]
) -> None:
    store.failing = True
    limits = Limits(begin_timeout=0.05, save_timeout=0.05, max_backlog_bytes=1000)
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        for number in range(10):
            begun, answer = speaker.ask("s", str(number), "x" * 100)
            assert not (await begun).saved
            answer.say("y" * 100)
            assert not await speaker.end(str(number))
            assert history.health.backlog_bytes <= 1000
        assert history.health.dropped == 5
        store.failing = False
        await saved(history)
        assert sorted(store.kept) == list("56789")
    assert sum(line.startswith("history_backlog_full") for line in log_lines) == 1


async def end_by_drop(store: FakeStore, history: HistoryWriter) -> None:
    history.drop(Span("s", 2, 3))


async def end_by_fence(store: FakeStore, history: HistoryWriter) -> None:
    store.removals.append(Span("s", 2, 3))


async def end_by_backlog(store: FakeStore, history: HistoryWriter) -> None:
    history.begin(
        TurnStart(session_id="t", stream_id="long", epoch=9, prompt="x" * 900, created_at=9.0),
        FakeAnswer(),
    )


@pytest.mark.parametrize("end", [end_by_drop, end_by_fence, end_by_backlog])
async def test_what_a_turn_replaced_stays_removed_when_the_turn_itself_is_not_kept(
    store: FakeStore, end: Callable[[FakeStore, HistoryWriter], Awaitable[None]]
) -> None:
    limits = replace(LIMITS, max_backlog_bytes=1000)
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        begun, _ = speaker.ask("s", "old", "question")
        assert (await begun).saved
        store.failing = True
        begun, _ = speaker.ask("s", "new", "y" * 200, replaces_from=1)
        assert not (await begun).saved
        await end(store, history)
        store.failing = False
        await saved(history)
        assert "old" not in store.kept
        assert [turn.stream_id for turn in await history.turns("s")] == []


async def test_an_accepted_removal_or_title_is_never_dropped_for_turns(store: FakeStore) -> None:
    limits = Limits(begin_timeout=0.05, save_timeout=0.05, max_backlog_bytes=1000)
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        for session_id in ("deleted", "discarded", "titled"):
            await speaker.keep(session_id, session_id)
        store.failing = True
        with pytest.raises(Unavailable):
            await speaker.delete("deleted")
        with pytest.raises(Unavailable):
            await history.rename("titled", "title")
        assert not await speaker.discard("discarded")
        for number in range(10):
            speaker.ask("s", str(number), "x" * 500)
        assert history.health.dropped == 8
        assert await history.turns("deleted") == []
        assert await history.turns("discarded") == []
        store.failing = False
        await saved(history)
    assert sorted(store.kept) == ["8", "9", "titled"]
    assert store.titles == {"titled": "title"}


async def test_only_so_many_removals_and_titles_wait_and_further_ones_change_nothing(
    store: FakeStore, log_lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_stream.history.writer.MAX_CHANGES", 3)
    async with HistoryWriter(store, LIMITS).running() as history:
        speaker = Speaker(history)
        for number in range(5):
            await speaker.keep(f"s{number}", str(number))
        store.failing = True
        speaker.ask("s4", "live")
        for number in range(3):
            speaker.discard(str(number))
        assert not (await history.remove(Span("s3", 0, speaker.after_all))).accepted
        with pytest.raises(Unavailable, match="3 deletions and new titles already wait"):
            await history.rename("s3", "title")
        assert not await speaker.discard("live")
        assert [turn.stream_id for turn in await history.turns("s4")] == ["4", "live"]
        history.drop(Span("s4", 0, speaker.after_all))
        assert await history.turn("live") is None
        store.failing = False
        await saved(history)
        assert await speaker.delete("s3")
    assert sorted(store.kept) == ["4"]
    assert sum(line.startswith("history_changes_full") for line in log_lines) == 1


async def test_a_turn_larger_than_the_bound_is_dropped_alone(store: FakeStore) -> None:
    limits = replace(PATIENT, max_backlog_bytes=1000)
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        begun, _ = speaker.ask("s", "1", "x" * 1001)
        assert not (await begun).saved
        begun, answer = speaker.ask("s", "2")
        assert (await begun).saved
        answer.say("x" * 1001)
        assert not await speaker.end("2")
        await speaker.turn("s", "3")

        async def told() -> bool:
            return any(batch.interrupts == ["2"] for batch in store.batches)

        await eventually(told)  # its beginning was saved: it may not stream for ever
        assert history.health.dropped == 2


async def lose_a_begun_turn(store: FakeStore, history: HistoryWriter, stream_id: str) -> None:
    """Drop a turn of which the database has the beginning: its end is over the bound."""
    speaker = Speaker(history)
    begun, answer = speaker.ask("lost", stream_id)
    assert (await begun).saved
    answer.say("x" * 1001)
    assert not await speaker.end(stream_id)


async def test_an_interruption_that_cannot_be_written_stops_nothing_else(
    store: FakeStore,
) -> None:
    store.failing_if = lambda batch: bool(batch.interrupts)
    limits = replace(PATIENT, max_backlog_bytes=1000)
    async with HistoryWriter(store, limits).running() as history:
        await lose_a_begun_turn(store, history, "lost")
        speaker = Speaker(history, first=10)
        for number in range(10):
            await speaker.turn("s", str(number))
        assert store.kept["lost"].status == "streaming"
        store.failing_if = lambda batch: False
        await saved(history)
    assert [turn.status for turn in store.kept.values()].count("interrupted") == 1


async def test_an_interruption_is_written_before_the_history_is_left(store: FakeStore) -> None:
    limits = replace(PATIENT, max_backlog_bytes=1000)
    async with HistoryWriter(store, limits).running() as history:
        await lose_a_begun_turn(store, history, "lost")
    assert store.kept["lost"].status == "interrupted"


async def test_a_turn_begun_again_is_not_interrupted_any_more(store: FakeStore) -> None:
    limits = replace(PATIENT, max_backlog_bytes=1000)
    async with HistoryWriter(store, limits).running() as history:
        store.failing_if = lambda batch: bool(batch.interrupts)
        await lose_a_begun_turn(store, history, "lost")
        begun, _ = Speaker(history).ask("lost", "lost")
        assert (await begun).saved
        store.failing_if = lambda batch: False
        await saved(history)
        assert store.kept["lost"].status == "streaming"


async def test_a_second_cancel_while_the_history_is_left_leaves_no_promise_open(
    store: FakeStore,
) -> None:
    cancelled, goes_on = asyncio.Event(), asyncio.Event()
    promises: list[asyncio.Future[Any]] = []

    async def stubborn(batch: Batch) -> Written:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await goes_on.wait()
        raise AssertionError

    async def live() -> None:
        async with HistoryWriter(store, PATIENT).running(flush_timeout=0.0) as history:
            store.write = stubborn  # type: ignore[method-assign]
            promises.append(Speaker(history).ask("s", "1")[0])
            promises.append(history.remove(Span("s", 2, 3)))
            await asyncio.Event().wait()

    living = asyncio.create_task(live())
    while not promises:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    living.cancel()
    await cancelled.wait()
    living.cancel()
    await asyncio.wait([living])
    goes_on.set()
    assert all(promise.done() for promise in promises)


async def test_a_fault_of_the_writer_itself_is_logged_and_does_not_end_it(
    store: FakeStore, patient: HistoryWriter, log_lines: list[str]
) -> None:
    speaker = Speaker(patient)
    begun, answer = speaker.ask("s", "1")
    await begun

    async def logged() -> bool:
        return "history_round_failed" in log_lines

    text_from, answer.text_from = answer.text_from, None  # type: ignore[assignment,method-assign]
    answer.say("a")
    speaker.ask("s", "2")
    patient._checkpoint_at = 0.0
    await eventually(logged)
    answer.text_from = text_from  # type: ignore[method-assign]
    assert await speaker.end("1")


# Data that cannot be written


async def test_what_the_database_refuses_stops_nothing_else(
    store: FakeStore, patient: HistoryWriter, log_lines: list[str]
) -> None:
    speaker = Speaker(patient)
    async with store.held():
        speaker.ask("s", "first")
        await store.asked.wait()
        begun = [
            speaker.ask("s", str(number), POISON if number in (7, 40) else "q")[0]
            for number in range(100)
        ]
    results = await asyncio.gather(*begun)
    assert [number for number, result in enumerate(results) if not result.saved] == [7, 40]
    assert patient.health.dropped == 2
    assert patient.health.writable
    assert not await speaker.end("7")
    assert await speaker.end("8")
    assert log_lines == ["history_refused error=Refusal"] * 2


async def test_what_alone_cannot_be_written_now_is_set_aside(
    store: FakeStore, patient: HistoryWriter, log_lines: list[str]
) -> None:
    # As on a full disk, where short texts still fit.
    def too_long(batch: Batch) -> bool:
        return any(len(turn.text) > 100 for turn in batch.begins)

    store.failing_if = too_long
    speaker = Speaker(patient)
    _, answer = speaker.ask("s", "long")
    answer.say("x" * 101)
    long = speaker.end("long")
    for number in range(100):
        await speaker.turn("s", str(number))
    health = patient.health
    assert (health.backlog, health.writable) == (1, False)
    failed = sum(too_long(batch) for batch in store.batches)
    assert 0 < failed < 10  # ever more rarely
    store.failing_if = lambda batch: False
    assert await long
    health = patient.health
    assert (health.backlog, health.writable) == (0, True)
    assert [line.split(" ")[0] for line in log_lines] == [
        "history_write_failed",
        "history_recovered",
    ]


# The same turn, whatever happens around it


async def test_a_turn_that_ends_while_its_beginning_is_written_is_ended_next(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    async with store.held():
        begun, answer = speaker.ask("s", "1")
        await store.asked.wait()
        answer.say("a")
        ended = speaker.end("1")
    assert (await begun).saved
    assert await ended
    assert shapes(list(store.kept.values())) == [("1", "q", "a", "complete")]
    assert patient.health.backlog_bytes == 0


async def test_a_deletion_that_fails_for_a_while_does_not_take_what_came_after_it(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    await speaker.turn("s", "1")
    store.failing_if = lambda batch: bool(batch.removals)
    deleting = asyncio.ensure_future(speaker.delete("s"))
    await asyncio.sleep(0)
    speaker.ask("s", "2")
    await eventually(store.has("1", "2"))
    assert [turn.stream_id for turn in await patient.turns("s")] == ["2"]
    store.failing_if = lambda batch: False
    assert await deleting
    assert set(store.kept) == {"2"}


async def test_a_title_given_after_a_deletion_that_fails_for_a_while_stays(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    for session_id in "st":
        await speaker.turn(session_id, session_id)
        await patient.rename(session_id, "old")
    store.failing_if = lambda batch: bool(batch.removals)
    deleting = [asyncio.ensure_future(speaker.delete(session_id)) for session_id in "st"]
    await asyncio.sleep(0)
    speaker.ask("s", "2")
    assert await patient.rename("s", "given") is not None
    store.failing_if = lambda batch: False
    assert await asyncio.gather(*deleting) == [True, True]
    assert store.titles == {"s": "given"}


async def test_a_turn_begun_again_while_its_beginning_is_written_is_not_interrupted(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    async with store.held():
        speaker.ask("s", "1", "q")
        await store.asked.wait()
        again, answer = speaker.ask("s", "1", "q", epoch=1)
    assert (await again).saved
    assert [turn.status for turn in store.kept.values()] == ["streaming"]
    answer.say("a")
    assert await speaker.end("1")


async def test_a_turn_discarded_while_its_beginning_is_written_leaves_again(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    async with store.held():
        begun, _ = speaker.ask("s", "1")
        await store.asked.wait()
        discarded = speaker.discard("1")
        assert await patient.turns("s") == []
        again, answer = speaker.ask("s", "1", "again")
    assert await discarded
    assert not (await begun).saved
    assert plain((await again).messages) == ["u:again"]
    answer.say("a")
    assert await speaker.end("1")
    assert shapes(list(store.kept.values())) == [("1", "again", "a", "complete")]
    assert patient.health.backlog_bytes == 0


async def test_what_failed_goes_before_what_came_meanwhile(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    async with store.held():
        begun = [speaker.ask("s", str(number))[0] for number in range(2)]
        await store.asked.wait()
        begun += [speaker.ask("s", str(number))[0] for number in range(2, 6)]
        store.failing_if = lambda batch: len(batch.begins) > 1
    await asyncio.gather(*begun)
    assert list(store.kept) == [str(number) for number in range(6)]


async def test_text_in_a_failed_checkpoint_is_sent_again(
    store: FakeStore, history: HistoryWriter
) -> None:
    begun, answer = Speaker(history).ask("s", "1")
    await begun
    store.failing = True
    answer.say("one ")

    async def tried() -> bool:
        return any(batch.pieces for batch in store.batches)

    await eventually(tried)
    answer.say("two")
    store.failing = False
    store.batches.clear()
    await eventually(tried)
    assert [(piece.start, piece.text) for piece in store.batches[0].pieces] == [(0, "one two")]


async def test_pieces_that_may_be_there_are_forgotten_at_the_end(
    store: FakeStore, history: HistoryWriter
) -> None:
    begun, answer = Speaker(history).ask("s", "1")
    await begun
    # It fails, perhaps only after it was made.
    store.failing_if = lambda batch: bool(batch.pieces)
    answer.say("text")

    async def tried() -> bool:
        return any(batch.pieces for batch in store.batches)

    async def ended() -> bool:
        return store.kept["1"].text == "text"

    await eventually(tried)
    Speaker(history).end("1")
    await eventually(ended)
    assert [batch.pieced for batch in store.batches if batch.ends] == [["1"]]


async def test_where_there_were_never_any_none_are_looked_for(
    store: FakeStore, history: HistoryWriter
) -> None:
    await Speaker(history).keep("s", "1")
    assert store.kept["1"].text == "a"
    assert not any(batch.pieces or batch.pieced for batch in store.batches)


async def test_a_database_that_has_forgotten_this_process_gets_everything_again(
    store: FakeStore,
) -> None:
    limits = replace(PATIENT, lease=0.03, checkpoint_every=0.01)
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        await speaker.turn("s", "ended")
        begun, answer = speaker.ask("s", "live")
        answer.say("text")
        await begun
        store.batches.clear()
        store.kept.clear()
        store.knows_us = False

        async def again() -> bool:
            return [piece.text for batch in store.batches for piece in batch.pieces] == ["text"]

        await eventually(again)
        assert list(store.kept) == ["live"]


async def test_a_page_of_turns_that_are_leaving_is_not_the_last_one(
    history: HistoryWriter, store: FakeStore
) -> None:
    speaker = Speaker(history)
    for number in range(1, 5):
        await speaker.turn("s", str(number))
    store.free.clear()
    for number in (3, 4):
        speaker.discard(str(number))
    page = await history.page("s", limit=2, max_bytes=100)
    assert [turn.stream_id for turn in page.turns] == ["1", "2"]
    store.free.set()


async def test_a_title_waits_for_the_question_that_creates_the_session_again(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    store.asked.clear()
    store.free.clear()
    renaming = asyncio.ensure_future(patient.rename("s", "title"))
    await store.asked.wait()  # it is being written to a session that is not there
    speaker.ask("s", "1")
    store.free.set()
    assert await renaming is not None
    assert store.titles == {"s": "title"}


async def test_a_rename_that_a_deletion_overtakes_finds_no_session(
    store: FakeStore, patient: HistoryWriter
) -> None:
    speaker = Speaker(patient)
    await speaker.turn("s", "1")
    store.asked.clear()
    store.free.clear()
    speaker.ask("t", "2")
    await store.asked.wait()  # what comes now waits for this batch
    renaming = asyncio.ensure_future(patient.rename("s", "title"))
    await asyncio.sleep(0)
    deleting = asyncio.ensure_future(speaker.delete("s"))
    await asyncio.sleep(0)
    store.free.set()
    assert await renaming is None
    assert await deleting

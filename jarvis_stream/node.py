"""This process as one node of several: what its registry asks of the store that they share.

    start:    reserve a name ──► ticket ──► claim ──► the registry opens the stream
    meanwhile                                            │
      beat    keeps the leases, learns what other nodes have decided
      guard   ends the streams whose lease is over
      ship    copies what is fresh in the streams' logs to the store, in batches
      poll    feeds the mirrors: other nodes' streams that are read here
      look    shows watchers the streams of other nodes
    end:      close the log ──► the agent has stopped ──► release

A reader of this node never waits for the store. What is said between the nodes (words) makes
things quick; all of them happen without it too, a beat later.

Five tasks do this, each one round after the other, so that nothing of one kind overtakes itself:
what a round finds undone, the next one finds again. A store that does not answer is asked again
and again; what becomes of a stream then, its deadline decides. When only a part of the store is
away, that is so for the sessions in it, and the others go on.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import orjson
from loguru import logger

from jarvis_stream.cluster.base import (
    Batch,
    Busy,
    Claim,
    Cluster,
    Health,
    Living,
    Name,
    OnConflict,
    Outdated,
    Outrun,
    Reserved,
    StoreLost,
    Tail,
    Vacated,
    Verdict,
    Word,
    only,
)
from jarvis_stream.errors import CoordinationLost, Interrupted
from jarvis_stream.frames import Failed, FrameEncoder
from jarvis_stream.ids import id_of
from jarvis_stream.mirror import Mirror
from jarvis_stream.recurring import RecurringLog
from jarvis_stream.shares import FairSet
from jarvis_stream.stream import State, Stream
from jarvis_stream.tally import Tally

TICK: Final = 0.03
"""Seconds between two batches of one log, and between two looks at the logs that are read here."""

SLICE: Final = 32
"""Logs that are given to the store in one batch of batches; claims that are released in one."""

BEAT_SLICE: Final = 128
"""Leases that are renewed in one trip."""

SLICE_BYTES: Final = 256 * 1024
"""Bytes of frames after which a batch of batches takes no further log."""

MOST_A_SECOND: Final = 4000
"""Batches: with more logs than that allows at every tick, each tick takes longer."""

DOZE: Final = 0.15
"""Seconds between two looks at logs that have not moved for a second."""

RETRY: Final = 0.1
"""Seconds until a store that did not answer is asked again."""

WAIT_POLL: Final = 0.05
"""Seconds between two looks whether another node's agent has stopped."""

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at watched sessions of which nothing was said."""

LOOK_SLICE: Final = 32
"""Sessions that one look is at; with more of them, each is looked at less often."""

SETTLE_TIME: Final = 2.0
"""Seconds that a node which stops has for what it owes the store."""

CATCH_UP_TIME: Final = 0.3
"""Seconds that a log may lag behind what its node has shown to its own readers."""

MAX_EARLY_STOPS: Final = 10_000
"""Stops of streams that have not come yet, which this node has left in the store. Past it, the
principal with the most of them loses the oldest."""

FAILOVER_DOUBT: Final = 60.0
"""Seconds after a new connection to the store in which the history is asked for epochs, too."""

START_TIME: Final = 1.0
"""Seconds that a repetition waits for another start with its stream_id to claim its session."""

GIVE_BACK_TIME: Final = 0.5
"""Seconds that the refusal of a start waits until the stream_id is free again."""

TRANSCRIPT_BYTES: Final = 256 * 1024
"""Bytes of frames that are read, and parsed, at a time of a log of which the text is wanted."""

MIN_KEPT_TEXT: Final = 16 * 1024
"""Characters of the shortest text of another node's live stream that is kept for the next look."""

MAX_KEPT_TEXTS_BYTES: Final = 16 * 1024 * 1024
"""Memory for these texts."""

KEPT_TEXT_TIME: Final = 30.0
"""Seconds that such a text is kept after the last look."""

MAX_PENDING_CALLS: Final = 10_000
"""Removals, and early stops to take back, that wait for a store that does not answer."""

END: Final = 2**53 - 1
"""A cursor behind every log."""

_CallKey = tuple[str | int, ...]
"""The name of a pending call and its arguments."""


class Watcher(Protocol):
    """Who wants to see every stream of a session."""

    def see(self, stream: Stream | Mirror) -> None:
        """A stream was accepted. Called in the same step; must not raise."""
        ...


@dataclass(slots=True, eq=False)
class Entry:
    """How far a start has come in the store."""

    name: Name
    stopped: bool
    """Whether somebody stopped it before it came."""
    claim: Claim | None = None
    sent: float = 0.0
    """When the claim was."""
    older: Sequence[Living] = ()
    rolls_back: Sequence[Living] = ()
    """Other nodes' streams whose turns leave the history for it."""
    busy: Busy | None = None
    """It waits in the session's queue."""
    outrun_by: str | None = None
    """A newer stream has the session."""
    give_back_until: float = 0.0
    """When the store has freed it by itself, on the monotonic clock."""


@dataclass(slots=True, eq=False)
class _Hold:
    """A stream of this node, until the store has all of it and knows that its agent has stopped."""

    stream: Stream
    claim: Claim
    older: Sequence[Living] = ()
    rolls_back: Sequence[Living] = ()
    shipped: int = 0
    """The seq up to which the store has its log."""
    fenced: bool = False
    closed: bool = False
    unread_from: float = 0.0
    """Since when the store knows whether other nodes read it, on the monotonic clock."""
    retry_at: float = 0.0
    """Its part of the store did not answer: when it is asked again, on the monotonic clock."""

    @property
    def is_fresh(self) -> bool:
        """Whether the store lacks frames of it, takes them, and may be asked now."""
        is_fresh = not self.closed and self.shipped < self.stream.seq
        if self.fenced and self.stream.state is not State.ENDED:
            return False  # the store takes the rest by `close`, with the end
        return is_fresh and self.may_ask

    @property
    def may_ask(self) -> bool:
        """Whether the store may be asked about it now."""
        return not self.retry_at or time.monotonic() >= self.retry_at

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do but to release it, and that may be done now."""
        return self.closed and self.stream.stopped.done() and self.may_ask


@dataclass(frozen=True, slots=True)
class Stopped:
    """What became of a stop of another node's stream."""

    cancelled: bool
    clean: bool


@dataclass(frozen=True, slots=True)
class Transcript:
    """What another node's stream has said, as far as the store has it."""

    stream_id: str
    epoch: int
    seq: int
    text: str
    closed: bool


@dataclass(slots=True)
class Counts:
    """What a node counts, since it began."""

    batches: int = 0
    frames: int = 0
    fenced: int = 0
    """How often the store refused frames because the session was another stream's."""
    regressed: int = 0
    """How often the store had forgotten what it knew."""
    buried: int = 0
    """Streams of dead nodes that were ended here."""
    rounds: Tally = field(default_factory=lambda: Tally((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)))
    """How long each round of shipping took, in seconds."""


class Node:
    """See above. Works inside `async with node.running(hear):`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._hear: Callable[[Word], None] = lambda word: None
        self._disown: Callable[[Stream], None] = lambda stream: None
        self._holds: dict[str, _Hold] = {}
        self._entering: dict[str, asyncio.Future[None]] = {}
        """Names that a start here has reserved, and has not opened or given back."""
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._mirrors: set[Mirror] = set()
        self._watched: dict[str, dict[Watcher, set[str]]] = {}
        """By session: who watches it, and which streams (their nonces) each has been shown."""
        self._subscribed: set[str] = set()
        self._looks: dict[str, None] = {}
        """Sessions to look at, the next one first."""
        self._rotation: deque[str] = deque()
        """Those that are looked at in turn, before it is everybody's turn again."""
        self._look_due = 0.0
        self._listening_since = math.inf
        self._deserted: set[_Hold] = set()
        self._unrenewed: set[_Hold] = set()
        """Those to renew at once: the last heartbeat learnt nothing of them, a reader left,
        or the store refused their frames."""
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        """By session: who waits for something to happen there."""
        self._transcripts: dict[Name, tuple[float, Transcript]] = {}
        """Texts of other nodes' live streams, and when each was looked at, the newest last."""
        self._early_stops = FairSet(MAX_EARLY_STOPS)
        self._pending_calls: dict[_CallKey, Callable[[], Awaitable[None]]] = {}
        """Calls that the store has not answered yet, and that are repeated until it does."""
        self._to_send = asyncio.Event()
        self._dropped = RecurringLog()
        self._given_back: dict[Entry, None] = {}
        """Those that the store still has to free."""
        self._to_free = asyncio.Event()
        self._to_beat = asyncio.Event()
        self._to_ship = asyncio.Event()
        self._to_poll = asyncio.Event()
        self._to_look = asyncio.Event()
        self._beat_at = 0.0
        self._moved_at = 0.0
        self._turn: deque[_Hold] = deque()
        """Whose logs are still to be looked at, before it is everybody's turn again."""
        self._turn_began = 0.0
        self._ended: dict[_Hold, None] = {}
        """Those whose end need not wait for that, in the order of their ends."""
        self.counts = Counts()

    def __repr__(self) -> str:
        return f"<Node {self._cluster.node} holds={len(self._holds)} mirrors={len(self._mirrors)}>"

    @property
    def health(self) -> Health:
        """How the store answers."""
        return self._cluster.health

    @property
    def is_in_touch(self) -> bool:
        """Whether the store has answered within a lease."""
        return time.monotonic() - self.health.last_answer <= self._cluster.lease

    @property
    def may_lack_epochs(self) -> bool:
        """Whether the store may have lost its newest writes a short while ago."""
        return time.monotonic() - self.health.since < FAILOVER_DOUBT

    @property
    def mirrors(self) -> int:
        """How many readers here follow streams of other nodes."""
        return len(self._mirrors)

    # Its life

    @asynccontextmanager
    async def running(
        self, hear: Callable[[Word], None], disown: Callable[[Stream], None]
    ) -> AsyncIterator[Node]:
        """Be a node while inside; StoreLost on entry when the store cannot be had.

        `hear` is told what other nodes have decided about streams of this one; `disown` of those
        for which they have written another end. At the end, the streams must have ended.
        """
        self._hear, self._disown = hear, disown
        async with self._cluster.running(self._listen):
            rounds = (
                self._beat,
                self._guard,
                self._ship,
                self._poll,
                self._look,
                self._free,
                self._send_pending,
            )
            tasks = [asyncio.create_task(self._again(round_)) for round_ in rounds]
            try:
                yield self
            finally:
                try:
                    await self._settle()
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)

    async def _again(self, round_: Callable[[], Awaitable[None]]) -> None:
        failures = RecurringLog()
        while True:
            try:
                await round_()
            except StoreLost:
                await asyncio.sleep(RETRY)
            except Exception as error:
                failures.log("ERROR", "node_round_failed", error=error)
                await asyncio.sleep(RETRY)

    async def _settle(self) -> None:
        """Until the store has everything, for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_TIME):
                while self._holds or self._given_back or self._pending_calls:
                    self._to_ship.set()
                    await asyncio.sleep(TICK)

    def _listen(self, word: Word) -> None:
        if word.kind == "claimed" and word.session in self._watched:
            self._look_at(word.session)
        self._stir(word.session)
        self._hear(word)

    # A start, before its stream is there

    def line(self, session: str) -> asyncio.Lock:
        """Tickets of a session are taken, and used, in one order: whoever has this lock is next."""
        lock = self._lines.get(session)
        if lock is None:
            lock = self._lines[session] = asyncio.Lock()
        return lock

    async def reserve(self, session: str, stream: str, trace_id: str) -> Entry | Name | None:
        """Take the name of a new stream, or tell which other start has it.

        None when a start of this node had it that is over now: ask again. Raises StoreLost. An
        entry must be opened (`hold`) or given back.
        """
        if (entering := self._entering.get(stream)) is not None:
            await asyncio.wait([entering])
            return None
        name = Name(
            stream=stream,
            session=session,
            nonce=os.urandom(8).hex(),
            node=self._cluster.node,
            trace_id=trace_id,
        )
        entering = self._entering[stream] = asyncio.get_running_loop().create_future()
        entry = Entry(name, stopped=False)
        try:
            taken = await self._cluster.reserve(name)
        except BaseException:
            self.give_back(entry)
            raise
        if isinstance(taken, Reserved):
            entry.stopped = taken is Reserved.STOPPED
            self._early_stops.discard(stream)
            return entry
        self._entered(stream)
        return taken

    async def bound(self, session: str, floor: int) -> int:
        """An epoch above those of all that has come so far, and under those of what comes."""
        async with self.line(session):
            return await self._cluster.ticket(session, max(floor, self.health.epoch_floor))

    async def claim(self, entry: Entry, on_conflict: OnConflict, floor: int) -> None:
        """Claim the session, in the `line` of the session; `entry` tells how that went.

        Raises StoreLost, Busy for `reject`, and Vacated when another node has freed the name since
        it was reserved: the lease had run out. A removal that outruns the claim takes what came
        before it: the question gets a newer ticket, and comes after it.
        """
        floor = max(floor, self.health.epoch_floor)
        while True:
            epoch = await self._cluster.ticket(entry.name.session, floor)
            entry.claim = Claim(name=entry.name, epoch=epoch)
            entry.sent = time.monotonic()
            with suppress(Outdated):
                await self._claim(entry, entry.claim, on_conflict)
                return

    async def _claim(self, entry: Entry, claim: Claim, on_conflict: OnConflict) -> None:
        try:
            entry.older = await self._cluster.claim(claim, on_conflict=on_conflict)
            if on_conflict == "rollback":
                entry.rolls_back = [
                    one
                    for one in entry.older
                    if one.by == entry.name.stream and not one.closed and self._is_abroad(one)
                ]
        except Vacated:
            raise
        except Outrun as outrun:
            entry.outrun_by = outrun.by
        except Busy as busy:
            if not busy.position:
                raise
            entry.busy = busy

    def give_back(self, entry: Entry) -> None:
        """Free the name and the claim of a start that was refused, or failed.

        That is repeated until the store has done it, or does it by itself, after the lease.
        """
        entry.give_back_until = time.monotonic() + self._cluster.lease
        self._given_back[entry] = None
        self._to_free.set()

    async def given_back(self, entry: Entry) -> None:
        """Wait until what was given back is free, or the store did not answer."""
        if (entering := self._entering.get(entry.name.stream)) is not None:
            await asyncio.wait([entering], timeout=GIVE_BACK_TIME)

    async def _free(self) -> None:
        if not self._given_back:
            await _pause(self._to_free, None)
        self._to_free.clear()
        entries = list(islice(self._given_back, SLICE))
        results = await self._cluster.free([entry.name for entry in entries])
        now = time.monotonic()
        is_lost = False
        for entry, result in zip(entries, results, strict=True):
            del self._given_back[entry]
            self._entered(entry.name.stream)
            if isinstance(result, StoreLost) and now < entry.give_back_until:
                self._given_back[entry] = None
                is_lost = True
        if is_lost:
            await asyncio.sleep(RETRY)

    def hold(self, stream: Stream, entry: Entry) -> None:
        """From now on the stream is this node's; its frames go to the store."""
        assert entry.claim is not None
        self._entered(stream.key)
        hold = self._holds[stream.key] = _Hold(stream, entry.claim, entry.older, entry.rolls_back)
        stream.deadline = entry.sent + self._cluster.lease
        stream.deserted = self._on_deserted
        for end in (stream.ended, stream.stopped):
            end.add_done_callback(partial(self._on_end, hold))
        self._to_ship.set()

    def _entered(self, stream: str) -> None:
        entering = self._entering.pop(stream, None)
        if entering is not None:
            entering.set_result(None)

    # Calls that nothing waits for

    def _send(self, key: _CallKey, call: Callable[[], Awaitable[None]]) -> None:
        """Send a call to the store, and again until the store answers; no effect if it is pending.

        Past MAX_PENDING_CALLS the oldest is dropped.
        """
        self._pending_calls.setdefault(key, call)
        if len(self._pending_calls) > MAX_PENDING_CALLS:
            oldest = next(iter(self._pending_calls))
            del self._pending_calls[oldest]
            self._dropped.log("WARNING", "store_call_dropped call={}", oldest[0])
        self._to_send.set()

    async def _send_pending(self) -> None:
        if not self._pending_calls:
            await _pause(self._to_send, None)
        self._to_send.clear()
        calls = list(islice(self._pending_calls.items(), SLICE))
        results = await asyncio.gather(*(call() for _, call in calls), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        for (key, call), result in zip(calls, results, strict=True):
            if self._pending_calls.get(key) is not call:
                continue  # withdrawn while it was sent
            del self._pending_calls[key]
            if isinstance(result, StoreLost):
                self._pending_calls[key] = call  # after the others: they may be at another primary
        if errors:
            raise next((error for error in errors if not isinstance(error, StoreLost)), errors[0])

    # A stream of this node, while it waits

    def has_older(self, stream: Stream) -> bool:
        """Whether streams of other nodes had the session before it."""
        hold = self._holds[stream.key]
        return any(self._is_abroad(older) for older in hold.older)

    def _is_abroad(self, living: Living) -> bool:
        return living.name.node != self._cluster.node

    async def outlast(self, stream: Stream, until: float) -> bool:
        """Wait until the older streams of other nodes have stopped; False when it is `until`.

        `until` is on the monotonic clock. Those whose nodes are dead are buried.
        """
        hold = self._holds[stream.key]
        while True:
            await self._bury_all(older for older in hold.older if older.expired)
            if not self.has_older(stream):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            await self.stirred(stream.session_key, min(left, WAIT_POLL))
            with suppress(StoreLost):
                hold.older = await self._cluster.older(hold.claim)

    async def rolled_back(self, stream: Stream) -> list[Living]:
        """Those of other nodes whose turns it rolls back: they did not end before they heard of it.

        Their nodes roll them back too, but the next question is not to wait for that, and who is
        dead never will.
        """
        rolls_back = self._holds[stream.key].rolls_back
        left = []
        ends = await self._endings([one.name for one in rolls_back])
        for one, end in zip(rolls_back, ends, strict=True):
            if isinstance(end, StoreLost):
                continue
            how = end.get("finish_reason") or end.get("code")
            if how in (None, "superseded", Interrupted.code, CoordinationLost.code):
                left.append(one)
        return left

    async def claim_again(self, stream: Stream) -> None:
        """Ask whether it is the turn of a stream in the queue.

        Raises Busy, Outrun, Outdated, StoreLost.
        """
        hold = self._holds[stream.key]
        sent = time.monotonic()
        hold.older = await self._cluster.claim(hold.claim, on_conflict="enqueue")
        stream.deadline = sent + self._cluster.lease

    async def stirred(self, session: str, seconds: float) -> None:
        """Until something is said about a session, at most so long."""
        waiting = self._waiting.setdefault(session, [])
        stirred = asyncio.get_running_loop().create_future()
        waiting.append(stirred)
        try:
            await asyncio.wait([stirred], timeout=seconds)
        finally:
            waiting.remove(stirred)
            if not waiting and self._waiting.get(session) is waiting:
                del self._waiting[session]

    def _stir(self, session: str) -> None:
        for waiting in self._waiting.get(session, ()):
            if not waiting.done():
                waiting.set_result(None)

    # The beat: leases, and what was decided elsewhere

    def _on_deserted(self, stream: Stream) -> None:
        hold = self._holds.get(stream.key)
        if hold is None:
            stream.abandon()
        else:
            self._deserted.add(hold)
            self._unrenewed.add(hold)
            self._to_beat.set()

    async def _beat(self) -> None:
        rest = self._beat_at - time.monotonic()
        await _pause(self._to_beat, min(rest, RETRY) if self._unrenewed else rest)
        now = time.monotonic()
        if now < self._beat_at:
            holds = [hold for hold in self._unrenewed if self._holds.get(hold.stream.key) is hold]
            self._unrenewed.clear()
        else:
            self._beat_at = now + self._cluster.lease / 3
            holds = list(self._holds.values())
            self._unrenewed.clear()
            self._forget_transcripts(now)
            names = {mirror.name for mirror in self._mirrors}
            if names:
                with suppress(StoreLost):  # the next beat comes soon enough
                    await self._cluster.attend(list(names))
        for at in range(0, len(holds), BEAT_SLICE):
            if not await self._renew(holds[at : at + BEAT_SLICE]):
                self._unrenewed.update(holds[at:])  # the store is away: asked again in a moment
                break

    async def _renew(self, holds: Sequence[_Hold]) -> bool:
        """Renew one slice of the leases; False when the store has answered nothing of it."""
        sent = time.monotonic()
        deserted = self._deserted.intersection(holds)
        renewed = await self._cluster.renew([hold.claim for hold in holds])
        regressed = []
        for hold, news in zip(holds, renewed, strict=True):
            stream = hold.stream
            if isinstance(news, StoreLost):
                self._unrenewed.add(hold)
                continue
            if news.verdict is Verdict.GOOD:
                stream.deadline = sent + self._cluster.lease
            elif news.verdict is Verdict.REGRESSED:
                regressed.append(hold)
            else:
                self._on_fenced(hold, news.by, rollback=news.rollback)
            if news.removed:
                self._on_removed(hold, by=news.by)
            if news.cancelled:
                self._hear(Word(kind="cancel", session=stream.session_key, stream=stream.key))
            if hold in deserted:
                if stream.followers or not stream.is_open:
                    self._deserted.discard(hold)
                elif not news.attended and sent >= hold.unread_from:
                    self._deserted.discard(hold)
                    stream.abandon()
        await self._claim_again_after_loss(regressed)
        return not all(isinstance(news, StoreLost) for news in renewed)

    async def _guard(self) -> None:
        """The streams look at their deadlines when they speak; this is for the silent ones."""
        now = time.monotonic()
        due = now + self._cluster.lease / 3
        for hold in tuple(self._holds.values()):
            if hold.stream.is_open:
                if now > hold.stream.deadline:
                    hold.stream.lapse()
                else:
                    due = min(due, hold.stream.deadline)
        await asyncio.sleep(max(due - now, TICK))

    def _on_fenced(self, hold: _Hold, by: str, *, rollback: bool) -> None:
        hold.fenced = True
        if not hold.stream.is_open:
            return
        if by:
            self._hear(
                Word(
                    kind="superseded",
                    session=hold.stream.session_key,
                    stream=hold.stream.key,
                    by=by,
                    rollback=rollback,
                )
            )
        else:  # somebody thought this node dead, and has ended it
            hold.stream.lapse()

    def _on_removed(self, hold: _Hold, *, by: str = "") -> None:
        """Repeat what the notification of a removal says: it may have been lost."""
        epoch = hold.claim.epoch
        session = hold.stream.session_key
        self._hear(Word(kind="forgotten", session=session, first=epoch, before=epoch + 1, by=by))

    async def _claim_again_after_loss(self, holds: Sequence[_Hold]) -> None:
        """Claim the same tickets again, in one trip: the store has lost writes."""
        if holds:
            async with asyncio.TaskGroup() as group:
                for hold in holds:
                    group.create_task(self._claim_one_again(hold))

    async def _claim_one_again(self, hold: _Hold) -> None:
        """Claim again, unless the stream has ended."""
        self.counts.regressed += 1
        hold.unread_from = time.monotonic() + self._cluster.lease
        stream = hold.stream
        if not stream.is_open or _is_queued(stream):
            return  # `close` needs no claim, and the queue asks again by itself
        sent = time.monotonic()
        try:
            await self._cluster.claim(hold.claim)
        except Outrun as outrun:
            self._on_fenced(hold, outrun.by, rollback=False)
        except Outdated:
            self._on_removed(hold)
        except StoreLost:
            self._unrenewed.add(hold)  # which finds it regressed once more
        else:
            stream.deadline = sent + self._cluster.lease

    # Shipping: this node's frames to the store

    def _on_end(self, hold: _Hold, _: object) -> None:
        self._ended[hold] = None
        self._to_ship.set()

    async def _ship(self) -> None:
        """Give one slice of the live logs, one of the ended logs, and one of the claims that are
        over to the store, each in one trip: neither may hold up the others, or the loop."""
        if not self._holds:
            await _pause(self._to_ship, None)
        self._to_ship.clear()
        started = time.monotonic()
        if not self._turn:
            self._turn.extend(self._holds.values())
            self._turn_began = started
        appends: list[tuple[_Hold, Batch]] = []
        closes: list[tuple[_Hold, Batch]] = []
        is_behind = False
        for hold, batch in (*self._gather(self._live()), *self._gather(iter(self._ended))):
            (closes if hold.fenced or batch.is_end else appends).append((hold, batch))
            is_behind |= batch.last < hold.stream.seq
        if appends:
            await self._append(appends)
        if closes:
            await self._close(closes)
        if over := list(islice((hold for hold in self._ended if hold.is_over), SLICE)):
            await self._release(over)
        now = time.monotonic()
        if appends or closes:
            self.counts.rounds.add(now - started)
        is_behind |= bool(self._turn) or len(closes) >= SLICE or len(over) == SLICE
        rest = 0.0 if is_behind else self._turn_began + TICK - now
        await _pause(self._to_ship, max(rest, len(appends) / MOST_A_SECOND))

    def _live(self) -> Iterator[_Hold]:
        """Take those that are next in turn, and have not ended."""
        while self._turn:
            hold = self._turn.popleft()
            if hold not in self._ended:
                yield hold

    @staticmethod
    def _gather(holds: Iterator[_Hold]) -> list[tuple[_Hold, Batch]]:
        """Read what the store lacks of logs, one slice."""
        batches: list[tuple[_Hold, Batch]] = []
        size = 0
        for hold in holds:
            if hold.is_fresh:
                batch = _batch(hold)
                batches.append((hold, batch))
                size += len(batch.frames)
                if len(batches) == SLICE or size >= SLICE_BYTES:
                    break
        return batches

    async def _append(self, appends: Sequence[tuple[_Hold, Batch]]) -> None:
        results = await self._cluster.append([batch for _, batch in appends])
        self.counts.batches += len(appends)
        regressed = []
        for (hold, batch), result in zip(appends, results, strict=True):
            if isinstance(result, StoreLost):
                hold.retry_at = time.monotonic() + RETRY
            elif result.verdict is Verdict.GOOD:
                self.counts.frames += batch.last - batch.first
                hold.shipped = result.last
            elif result.verdict is Verdict.REGRESSED:
                hold.shipped = result.last
                regressed.append(hold)
            elif not hold.fenced:
                self.counts.fenced += 1
                hold.fenced = True
                self._unrenewed.add(hold)  # the next heartbeat returns by which stream
                self._to_beat.set()
        await self._claim_again_after_loss(regressed)

    async def _close(self, closes: Sequence[tuple[_Hold, Batch]]) -> None:
        results = await self._cluster.close([batch for _, batch in closes])
        for (hold, batch), result in zip(closes, results, strict=True):
            if isinstance(result, StoreLost):
                hold.retry_at = time.monotonic() + RETRY
            elif result.verdict is Verdict.FENCED:
                self.counts.fenced += 1
                hold.closed = True
                self._disown(hold.stream)
            else:
                self.counts.regressed += result.verdict is Verdict.REGRESSED
                hold.shipped = result.last
                hold.closed = batch.is_end and result.verdict is Verdict.GOOD

    async def _release(self, holds: Sequence[_Hold]) -> None:
        results = await self._cluster.release([hold.claim for hold in holds])
        for hold, result in zip(holds, results, strict=True):
            if isinstance(result, StoreLost):
                hold.retry_at = time.monotonic() + RETRY
            else:
                self._let_go(hold)

    def _let_go(self, hold: _Hold) -> None:
        self._deserted.discard(hold)
        self._unrenewed.discard(hold)
        self._ended.pop(hold, None)
        if self._holds.get(hold.stream.key) is hold:
            del self._holds[hold.stream.key]
        self._stir(hold.stream.session_key)

    # Mirrors: other nodes' streams that are read here

    async def reach(self, stream: str, after: int) -> Mirror | None:
        """Another node's stream, to be followed from `after` on; None when it is unknown.

        Raises StoreLost.
        """
        name = await self._cluster.find(stream)
        return None if name is None else await self.mirror(name, after)

    async def attach_to(self, name: Name, after: int) -> Mirror | None:
        """The stream of the start that has a name, to be followed; None when its log has gone.

        Raises Vacated when the start came to nothing: the name has been freed, so that it can be
        reserved. Raises StoreLost, too when the store cannot tell yet.
        """
        patience = time.monotonic() + START_TIME
        while True:
            tail = only(await self._cluster.read([(name, END)]))
            if tail is not None and (tail.last or tail.closed):
                break
            if tail is None or tail.expired:
                if not self._may_bury and not (tail is not None and tail.vacated):
                    raise StoreLost("the store may have lost a stream that its node brings back")
                if only(await self._bury([(name, None)])):
                    only(await self._cluster.free([name]))
                    raise Vacated
                if tail is None:
                    return None
            elif tail.epoch:
                break
            if time.monotonic() > patience:
                raise StoreLost("another start with this stream_id has not claimed its session yet")
            await asyncio.sleep(TICK)
        return await self.mirror(name, after)

    async def mirror(self, name: Name, after: int) -> Mirror | None:
        """The stream that has a name, likewise."""
        patience = time.monotonic() + CATCH_UP_TIME
        while True:
            tail = only(await self._cluster.read([(name, END)]))
            if tail is None or tail.vacated or tail.removed:
                return None
            if tail.last >= after or tail.closed or time.monotonic() > patience:
                break
            await asyncio.sleep(TICK)  # its node has shown more than the store has yet
        if not tail.closed:
            await self._cluster.attend([name])
        return Mirror(name, self, epoch=tail.epoch, last=tail.last, closed=tail.closed)

    def attach(self, mirror: Mirror) -> None:
        """See mirror.Feeder."""
        self._mirrors.add(mirror)
        self._to_poll.set()

    def detach(self, mirror: Mirror) -> None:
        """See mirror.Feeder."""
        self._mirrors.discard(mirror)

    def lose_mirrors(self) -> None:
        """Let go the readers of other nodes' streams."""
        for mirror in tuple(self._mirrors):
            mirror.lose()

    async def _poll(self) -> None:
        if not self._mirrors:
            await _pause(self._to_poll, None)
        self._to_poll.clear()
        # Those at the same place share one look.
        places: dict[tuple[Name, int], list[Mirror]] = {}
        for mirror in self._mirrors:
            if mirror.has_room:
                places.setdefault((mirror.name, mirror.seq), []).append(mirror)
        tails = await self._cluster.read(list(places)) if places else ()
        dead: list[tuple[Name, Tail, list[Mirror]]] = []
        now = time.monotonic()
        for ((name, seq), mirrors), tail in zip(places.items(), tails, strict=True):
            if tail is None or isinstance(tail, StoreLost):
                self._miss(mirrors, now)
                continue
            if tail.vacated:
                for mirror in mirrors:
                    mirror.vacate()
                continue
            if tail.last > seq:
                self._moved_at = now
            for mirror in mirrors:
                mirror.feed(tail)
            if tail.expired and tail.last <= seq and self._may_bury:
                dead.append((name, tail, mirrors))
        # Only one slice in a round: the others are found again in the next one.
        slice_ = dead[:SLICE]
        buried = await self._bury([(name, tail) for name, tail, _ in slice_])
        for (_, tail, mirrors), is_buried in zip(slice_, buried, strict=True):
            if is_buried is False:
                for mirror in mirrors:
                    if tail.last < mirror.seq:
                        mirror.lose()  # the store has lost what it has shown, and nobody has it
        lively = now - self._moved_at < 1.0 or len(dead) > SLICE
        await _pause(self._to_poll, TICK if lively else DOZE)

    def _miss(self, mirrors: Sequence[Mirror], now: float) -> None:
        """Nothing is known of a log: it has gone, or its node will bring it back; or its part of
        the store is away, and another node may be able to read it."""
        for mirror in mirrors:
            if mirror.missing_since is None:
                mirror.missing_since = now
            elif now - mirror.missing_since > self._cluster.lease:
                mirror.lose()

    # The undertaker

    @property
    def _may_bury(self) -> bool:
        # A store that has fallen back to an older state has lost heartbeats too. After a lease,
        # who lives has renewed his, or has let go.
        return time.monotonic() - self.health.since > self._cluster.lease

    async def _bury_all(self, dead: Iterable[Living]) -> None:
        """Bury as many as can be asked about, a slice in each trip."""
        if not self._may_bury:
            return
        left = list(dead)
        for at in range(0, len(left), SLICE):
            slice_ = left[at : at + SLICE]
            tails = await self._cluster.read([(living.name, END) for living in slice_])
            # A closed log only has to be released.
            await self._bury(
                [
                    (living.name, tail)
                    for living, tail in zip(slice_, tails, strict=True)
                    if isinstance(tail, Tail) and (tail.expired or living.closed)
                ]
            )

    async def _bury(self, dead: Sequence[tuple[Name, Tail | None]]) -> list[bool | StoreLost]:
        """End one slice of dead nodes' streams for them; return which of them this call has ended.

        A start that has said nothing, and whose lease is over, is released: it never will.
        """
        if not dead:
            return []
        # The epoch in its last frame is not the log's own for a stream that has only waited in
        # the queue.
        frames = await self._last_frames([(name, tail.last if tail else 0) for name, tail in dead])
        results: list[bool | StoreLost] = [
            frame if isinstance(frame, StoreLost) else False for frame in frames
        ]
        batches = {
            at: _burial(name, tail, frame)
            for at, ((name, tail), frame) in enumerate(zip(dead, frames, strict=True))
            if not isinstance(frame, StoreLost)
        }
        buried = await self._cluster.bury(list(batches.values()))
        for (at, batch), result in zip(batches.items(), buried, strict=True):
            results[at] = result
            if result is True:
                self._on_buried(batch)
        return results

    def _on_buried(self, batch: Batch) -> None:
        name = batch.claim.name
        if batch.last:
            self.counts.buried += 1
            logger.bind(trace=name.trace_id).warning(
                "stream_buried trace={} node={}", name.trace_id, name.node
            )
        else:
            for mirror in tuple(self._mirrors):
                if mirror.name == name:
                    mirror.vacate()
        self._stir(name.session)

    async def _last_frames(
        self, places: Sequence[tuple[Name, int]]
    ) -> list[dict[str, Any] | StoreLost]:
        """Return the last frame of each log, of which the seq is known, in one trip.

        A log that is empty, or that has gone, has an empty one.
        """
        frames: list[dict[str, Any] | StoreLost] = [{}] * len(places)
        asked = [at for at, (_, last) in enumerate(places) if last]
        tails = await self._cluster.read([(places[at][0], places[at][1] - 1) for at in asked])
        for at, tail in zip(asked, tails, strict=True):
            if isinstance(tail, StoreLost):
                frames[at] = tail
            elif tail is not None and tail.frames:
                frames[at] = orjson.loads(tail.frames.splitlines()[-1])
        return frames

    # Watching

    def watch(self, session: str, watcher: Watcher) -> None:
        """Show a watcher the other nodes' streams of a session: the living, and all to come."""
        self._watched.setdefault(session, {}).setdefault(watcher, set())
        self._look_at(session)

    def _look_at(self, session: str) -> None:
        self._looks[session] = None
        self._to_look.set()

    def unwatch(self, session: str, watcher: Watcher) -> None:
        """Show it no further ones. Idempotent."""
        watchers = self._watched.get(session, {})
        watchers.pop(watcher, None)
        if not watchers:
            self._watched.pop(session, None)
            self._to_look.set()

    async def _look(self) -> None:
        """Look at one slice of the watched sessions: first those that something was said about.

        The others are looked at in turn, for what was said and got lost.
        """
        if not (self._watched or self._subscribed):
            await _pause(self._to_look, None)
        self._to_look.clear()
        if len(self._subscribed) > len(self._watched):
            await self._cluster.unwatch(list(self._subscribed - self._watched.keys()))
            self._subscribed &= self._watched.keys()
        sessions = self._next_looks()
        try:
            # First: what is claimed while we look is not missed then.
            if unheard := [session for session in sessions if session not in self._subscribed]:
                await self._cluster.watch(unheard)
                self._subscribed.update(unheard)
            found = await self._cluster.living(sessions) if sessions else ()
        except BaseException:
            self._looks.update(dict.fromkeys(sessions))
            raise
        for session, living in zip(sessions, found, strict=True):
            if isinstance(living, StoreLost):
                continue  # it is looked at again in turn
            for watcher, seen in self._watched.get(session, {}).items():
                for one in living:
                    if one.name.nonce not in seen and self._is_abroad(one) and not one.removed:
                        watcher.see(Mirror(one.name, self, epoch=one.epoch, watched=True))
                seen.clear()
                seen.update(one.name.nonce for one in living)
        await _pause(self._to_look, 0.0 if self._looks else self._look_due - time.monotonic())

    def _next_looks(self) -> list[str]:
        """Take the sessions to look at now, one slice."""
        if self.health.listening_since != self._listening_since:
            # What was said before it listened there may have got lost.
            self._listening_since = self.health.listening_since
            self._looks.update(dict.fromkeys(self._watched))
        now = time.monotonic()
        if now >= self._look_due:
            self._look_due = now + LOOK_EVERY
            if not self._rotation:
                self._rotation.extend(self._watched)
            for _ in range(min(LOOK_SLICE, len(self._rotation))):
                self._looks[self._rotation.popleft()] = None
        sessions = list(islice(self._looks, LOOK_SLICE))
        for session in sessions:
            del self._looks[session]
        return [session for session in sessions if session in self._watched]

    # What other nodes' streams are asked

    async def stop(self, stream: str, seconds: float) -> Stopped | None:
        """Cancel another node's stream and wait until its agent has stopped, at most so long.

        None when nobody knows it: the stop waits for it then. Raises StoreLost.
        """
        until = time.monotonic() + seconds
        self._pending_calls.pop(("unstop", stream), None)  # it would take this stop back
        name = await self._cluster.stop(stream)
        if name is not None:
            clean = await self._outlive(name.session, [name], until)
            end = only(await self._endings([name]))
            return Stopped(end.get("finish_reason") == "cancelled", clean=clean)
        evicted = self._early_stops.add(stream)
        if evicted is not None:
            self._send(("unstop", evicted), partial(self._cluster.unstop, evicted))
        return None

    async def stop_all(self, session: str, before: int, seconds: float) -> int:
        """Cancel, likewise, every stream with a lower epoch that other nodes have of a session; how
        many there were."""
        until = time.monotonic() + seconds
        living = only(await self._cluster.living([session]))
        names = [one.name for one in living if self._is_abroad(one) and one.epoch < before]
        if names:
            # All in one trip, and the newest first: none of a queue begins because of it.
            stops = [self._cluster.stop(name.stream) for name in reversed(names)]
            for result in await asyncio.gather(*stops, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
            await self._outlive(session, names, until)
        return len(names)

    async def remove(
        self, session: str, first: int, before: int, by: str = "", *, seconds: float
    ) -> None:
        """Remove a session's streams with an epoch from `first` on, and under `before`, everywhere.

        Readers that follow one see its end; no new reader may follow it, and no claim of the span
        is accepted any more. `by` is the stream that takes their place. Repeated until the store
        answers; raises StoreLost when that takes longer than `seconds`.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                await self._cluster.remove(session, first, before, by)
                return
            except StoreLost:
                if time.monotonic() + RETRY > until:
                    self.remove_soon(session, first, before, by)
                    raise
            await asyncio.sleep(RETRY)

    def remove_soon(self, session: str, first: int, before: int, by: str) -> None:
        """Remove them likewise, without waiting for the store."""
        call = partial(self._cluster.remove, session, first, before, by)
        self._send(("remove", session, first, before), call)

    async def is_removed(self, session: str, epoch: int) -> bool:
        """Return whether a removal covers this epoch; raises StoreLost."""
        return await self._cluster.is_removed(session, epoch)

    async def _outlive(self, session: str, names: Iterable[Name], until: float) -> bool:
        """Wait until the agents of some streams have stopped; False when it is `until`.

        `until` is on the monotonic clock. Those whose nodes are dead are buried.
        """
        nonces = {name.nonce for name in names}
        while True:
            living = only(await self._cluster.living([session]))
            left = [one for one in living if one.name.nonce in nonces]
            await self._bury_all(one for one in left if one.expired)
            seconds = until - time.monotonic()
            if not left or seconds <= 0:
                return not left
            await self.stirred(session, min(seconds, WAIT_POLL))

    async def _endings(self, names: Sequence[Name]) -> list[dict[str, Any] | StoreLost]:
        """Return the terminal frame of each log; empty while there is none."""
        tails = await self._cluster.read([(name, END) for name in names])
        places = [
            (name, tail.last if isinstance(tail, Tail) and tail.closed else 0)
            for name, tail in zip(names, tails, strict=True)
        ]
        ends = await self._last_frames(places)
        return [
            tail if isinstance(tail, StoreLost) else end
            for tail, end in zip(tails, ends, strict=True)
        ]

    async def heads(self, sessions: Sequence[str]) -> list[Living | None]:
        """Of each session the newest stream that has claimed it and lives, if it is another node's,
        as far as that can be asked."""
        heads: list[Living | None] = []
        for living in await self._cluster.living(sessions):
            if isinstance(living, StoreLost):
                living = ()
            claimed = [
                one for one in living if not (one.position or one.by or one.closed or one.removed)
            ]
            head = claimed[-1] if claimed else None
            heads.append(head if head and self._is_abroad(head) and not head.expired else None)
        return heads

    async def transcript(self, name: Name) -> Transcript | None:
        """Return the text of a stream so far; None when the store does not have it.

        What an earlier call has read is not read again. Raises StoreLost.
        """
        _, known = self._transcripts.get(name, (0.0, None))
        seq, text = (known.seq, [known.text]) if known else (0, [])
        while True:
            tail = only(await self._cluster.read([(name, seq)], max_bytes=TRANSCRIPT_BYTES))
            if tail is None or tail.removed:
                return None
            if tail.last < seq:  # the store has lost what was read
                seq, text = 0, []
                continue
            text.append(_text_of(tail.frames))
            if tail.last == seq or tail.closed:
                break
            seq = tail.last
        found = Transcript(id_of(name.stream), tail.epoch, tail.last, "".join(text), tail.closed)
        if not tail.closed:
            self._keep_transcript(name, found)
        return found

    def _keep_transcript(self, name: Name, transcript: Transcript) -> None:
        """Keep what was read of a live stream, if reading it again costs more than a trip."""
        if len(transcript.text) < MIN_KEPT_TEXT:
            return
        self._transcripts.pop(name, None)
        self._transcripts[name] = time.monotonic(), transcript
        size = sum(sys.getsizeof(kept.text) for _, kept in self._transcripts.values())
        while size > MAX_KEPT_TEXTS_BYTES:
            _, oldest = self._transcripts.pop(next(iter(self._transcripts)))
            size -= sys.getsizeof(oldest.text)

    def _forget_transcripts(self, now: float) -> None:
        for name, (looked_at, _) in tuple(self._transcripts.items()):
            if now - looked_at > KEPT_TEXT_TIME:
                del self._transcripts[name]


def _text_of(frames: bytes) -> str:
    """Return the text of the tokens among some frames, all parsed at once."""
    parsed = orjson.loads(b"[%b]" % frames.rstrip().replace(b"\n", b","))
    return "".join([frame["text"] for frame in parsed if frame["type"] == "token"])


def _burial(name: Name, tail: Tail | None, last_frame: dict[str, Any]) -> Batch:
    """Return the end of a dead node's log; without a frame for a log that has none."""
    if tail is None or not tail.last:
        return Batch(Claim(name=name, epoch=0), first=0, last=0, frames=b"")
    epoch, last = int(last_frame.get("epoch", 1)), tail.last + 1
    encoder = FrameEncoder(id_of(name.stream), name.trace_id, epoch)
    frames = encoder.ending(last, Failed.of(Interrupted()))
    return Batch(Claim(name=name, epoch=tail.epoch or epoch), tail.last, last, frames)


def _is_queued(stream: Stream) -> bool:
    return stream.called is not None and not stream.called.done()


def _batch(hold: _Hold) -> Batch:
    """What of its log the store does not have, a piece of it."""
    stream = hold.stream
    last, frames = stream.read(hold.shipped)
    is_end = stream.state is State.ENDED and last == stream.seq
    return Batch(hold.claim, hold.shipped, last, frames, is_end)


async def _pause(event: asyncio.Event, seconds: float | None) -> None:
    """Until the event is set, at most so long; then it is not."""
    if seconds is not None and seconds <= 0:
        await asyncio.sleep(0)
    else:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
    event.clear()

"""The store in this very process: for tests with several nodes, in real or in virtual time.

It decides what the scripts of redis.py decide, step by step; one contract suite is fed by both.
What can go wrong between a node and a store is asked of `fate`, `is_away` and `heard`. Without them
every call is carried out and answered, in order.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from jarvis_stream.clock import StoreClock
from jarvis_stream.cluster.base import (
    READ_BYTES,
    Appended,
    Batch,
    Busy,
    Claim,
    Health,
    Living,
    Name,
    OnConflict,
    Outdated,
    Outrun,
    Renewed,
    Reserved,
    StoreLost,
    Tail,
    Vacated,
    Verdict,
    Word,
)
from jarvis_stream.errors import JarvisError

T = TypeVar("T")

MAX_LEASE = 60.0
"""The longest lease in seconds; a lease that ends later was set before the clock stepped back."""
STOP_KEPT = 60.0
"""Seconds a stop waits for its stream."""
MAX_REMOVALS = 64
"""The most spans that a session remembers; the newest stay."""
_BEGINNING = 1_700_000_000.0
"""The clock's seconds since the epoch when the loop's are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one call; times in seconds."""

    out: float = 0.0
    """How long it takes to the store, which carries it out even when nobody waits any more."""
    back: float = 0.0
    """How long its answer takes."""
    lost: bool = False
    """Whether it never gets there."""


@dataclass(slots=True)
class _Held:
    """A name; without one, a stop that waits for its stream."""

    name: Name | None
    stopped: bool
    due: float


@dataclass(slots=True)
class _Log:
    lease: float
    """When it ends."""
    due: float
    """When all of it is forgotten."""
    epoch: int = 0
    last: int = 0
    closed: bool = False
    buried: bool = False
    over: bool = False
    """Whether it was released, or its name freed."""
    attended: float = 0.0
    """Until when."""
    entries: list[tuple[int, bytes]] = field(default_factory=list)
    """What each batch brought, and its last seq."""

    def add(self, batch: Batch) -> None:
        lines = batch.frames.splitlines(keepends=True)[self.last - batch.first :]
        self.entries.append((batch.last, b"".join(lines)))
        self.last = batch.last

    def after(self, cursor: int, max_bytes: int) -> tuple[int, bytes]:
        """A piece of it: the last seq, and the frames."""
        last, frames = min(cursor, self.last), b""
        for end, lines in self.entries:
            if end > cursor and len(frames) < max_bytes:
                frames += b"".join(lines.splitlines(keepends=True)[-(end - last) :])
                last = end
        return last, frames


@dataclass(slots=True)
class _Member:
    """A claim that has not been released."""

    claim: Claim
    queued: bool
    by: str = ""
    rollback: bool = False
    closed: bool = False

    @property
    def waits(self) -> bool:
        return self.queued and not (self.by or self.closed)


@dataclass(slots=True)
class _Session:
    ticket: int = 0
    claimed: int = 0
    """The highest epoch that has claimed it."""
    owner: str = ""
    """The nonce of who may append."""
    removed: list[tuple[int, int]] = field(default_factory=list)
    """The spans of its removals: the first epoch, and the epoch after the last."""
    members: dict[str, _Member] = field(default_factory=dict)

    def is_removed(self, epoch: int) -> bool:
        return any(first <= epoch < before for first, before in self.removed)

    def queue(self) -> list[_Member]:
        waiting = [member for member in self.members.values() if member.waits]
        return sorted(waiting, key=lambda member: member.claim.epoch)


@dataclass(slots=True)
class _State:
    names: dict[str, _Held] = field(default_factory=dict)
    logs: dict[str, _Log] = field(default_factory=dict)
    sessions: dict[str, _Session] = field(default_factory=dict)


class MemoryStore:
    """What the nodes of one process share. `node` gives a view of it to each."""

    def __init__(
        self,
        *,
        keep: float = 120.0,
        timeout: float = 0.3,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Times in seconds; a log and a name live for `keep` after the last sign of life.

        `clock` gives the seconds since the epoch; without it, time is the running loop's.
        """
        self.keep = keep
        self.timeout = timeout
        self.clock = clock or (lambda: _BEGINNING + asyncio.get_running_loop().time())
        self.fate: Callable[[str, str], Fate] = lambda node, call: Fate()
        """What becomes of a node's call, named like the port's."""
        self.heard: Callable[[str, Word], bool] = lambda node, word: True
        """Whether a node hears a word."""
        self.is_away: Callable[[str], bool] = lambda session: False
        """Whether a session is in a part of the store that does not answer."""
        self.nodes: dict[str, MemoryCluster] = {}
        """Those that run."""
        self._state = _State()
        self._swept = 0.0

    def node(self, name: str, *, lease: float = 3.0, grace: float | None = None) -> MemoryCluster:
        """The store as one node sees it; `grace`: see RedisCluster."""
        return MemoryCluster(self, name, lease, lease if grace is None else grace)

    def copied(self) -> object:
        """All that it knows now, for `fall_back`."""
        return copy.deepcopy(self._state)

    def fall_back(self, copied: object) -> None:
        """Know only what it knew then, as after a failover to a replica that was behind."""
        assert isinstance(copied, _State)
        self._state = copy.deepcopy(copied)
        for node in self.nodes.values():
            node.health.since = time.monotonic()

    @property
    def is_empty(self) -> bool:
        """Whether no claim lives, and nobody waits in a queue."""
        return not any(session.members for session in self._state.sessions.values())

    # Names

    def reserve(self, name: Name, lease: float) -> Reserved | Name:
        log = self._log(name)
        if not log.over:
            self._renew(log, lease)
        return self._take(name)

    def find(self, stream: str) -> Name | None:
        held = self._held(stream)
        return held.name if held else None

    def free(self, name: Name) -> None:
        self.release(Claim(name=name, epoch=0))
        held = self._held(name.stream)
        if held is not None and held.name == name:
            del self._state.names[name.stream]
            if held.stopped:
                self.stop(name.stream)

    def stop(self, stream: str) -> Name | None:
        held = self._held(stream)
        if held is None or held.name is None:
            self._state.names[stream] = _Held(None, True, self.clock() + STOP_KEPT)
            return None
        held.stopped = True
        self._say(held.name.node, Word(kind="cancel", session=held.name.session, stream=stream))
        return held.name

    def unstop(self, stream: str) -> None:
        held = self._state.names.get(stream)
        if held is not None and held.name is None:
            del self._state.names[stream]

    def _take(self, name: Name) -> Reserved | Name:
        held = self._held(name.stream)
        if held is not None and held.name is not None and held.name != name:
            return held.name
        stopped = held is not None and held.stopped
        self._state.names[name.stream] = _Held(name, stopped, self.clock() + self.keep)
        return Reserved.STOPPED if stopped else Reserved.FREE

    def _held(self, stream: str) -> _Held | None:
        held = self._state.names.get(stream)
        return held if held is not None and held.due > self.clock() else None

    # Ownership

    def ticket(self, session: str, floor: int) -> int:
        self._sweep()
        known = self._session(session)
        now = int(self.clock() * 1000)
        known.ticket = max(known.ticket + 1, known.claimed + 1, floor + 1, now)
        return known.ticket

    def claim(
        self, claim: Claim, on_conflict: OnConflict, lease: float, horizon: float
    ) -> list[Living]:
        session, log = self._session(claim.name.session), self._log(claim.name)
        if session.is_removed(claim.epoch):
            raise Outdated
        if session.owner != claim.name.nonce:
            self._check_newest(session, log, claim)
            self._check_busy(session, log, claim, on_conflict, lease, horizon)
            self._take_over(session, claim, on_conflict)
            log.epoch = claim.epoch
        self._renew(log, lease)
        return self.older(claim, horizon)

    def _check_newest(self, session: _Session, log: _Log, claim: Claim) -> None:
        if log.over and not log.closed:
            raise Vacated
        if log.closed or claim.epoch <= session.claimed:
            me = session.members.get(claim.name.nonce)
            owner = session.members.get(session.owner)
            raise Outrun((me.by if me else "") or (owner.claim.name.stream if owner else ""))

    def _check_busy(
        self,
        session: _Session,
        log: _Log,
        claim: Claim,
        on_conflict: OnConflict,
        lease: float,
        horizon: float,
    ) -> None:
        owner = session.members.get(session.owner)
        if owner is not None and self._is_expired(owner.claim, horizon):
            owner = None
        queue = [
            other
            for other in session.queue()
            if other.claim != claim and not self._is_expired(other.claim, horizon)
        ]
        if on_conflict == "enqueue":
            queue = [other for other in queue if other.claim.epoch < claim.epoch]
        if on_conflict not in ("enqueue", "reject") or not (owner or queue):
            return
        position = 0
        if on_conflict == "enqueue":
            position = 1 + len(queue)
            log.epoch = claim.epoch
            self._renew(log, lease)
            if claim.name.nonce not in session.members:
                session.members[claim.name.nonce] = _Member(claim, queued=True)
                self._announce("claimed", claim)
        raise Busy((owner or queue[0]).claim.name.stream, session.claimed, position)

    def _take_over(self, session: _Session, claim: Claim, on_conflict: OnConflict) -> None:
        if session.owner:
            owner = session.members[session.owner]
            self._supersede(owner, claim, rollback=on_conflict == "rollback")
        for other in session.queue():
            if other.claim.epoch < claim.epoch:
                self._supersede(other, claim, rollback=False)
        session.owner, session.claimed = claim.name.nonce, claim.epoch
        session.members[session.owner] = _Member(claim, queued=False)
        self._announce("claimed", claim)

    def _supersede(self, member: _Member, claim: Claim, *, rollback: bool) -> None:
        member.by, member.rollback = claim.name.stream, rollback
        name = member.claim.name
        self._say(
            name.node,
            Word(
                kind="superseded",
                session=name.session,
                stream=name.stream,
                by=member.by,
                rollback=rollback,
            ),
        )

    def older(self, claim: Claim, horizon: float) -> list[Living]:
        known = self._session(claim.name.session)
        return [
            other
            for other in self.living(claim.name.session, horizon)
            if other.epoch < claim.epoch and not known.members[other.name.nonce].queued
        ]

    def renew(self, claim: Claim, lease: float, horizon: float) -> Renewed:
        session, log = self._session(claim.name.session), self._log(claim.name)
        member = session.members.get(claim.name.nonce)
        now = self.clock()
        attended, log.attended = log.attended, min(log.attended, now + MAX_LEASE)
        verdict, by = Verdict.FENCED, member.by if member else ""
        if not log.over and (member or not claim.epoch):
            self._renew(log, lease)
            if member is None or not member.by:
                verdict = Verdict.GOOD
        elif not log.over and session.claimed < claim.epoch:
            verdict = Verdict.REGRESSED
        elif not log.over and session.owner:  # the store has lost the claim and has a newer one
            by = session.members[session.owner].claim.name.stream
        return Renewed(
            verdict=verdict,
            cancelled=self._take(claim.name) is Reserved.STOPPED,
            attended=attended > min(now, horizon),
            by=by,
            rollback=member is not None and member.rollback,
            removed=claim.epoch > 0 and session.is_removed(claim.epoch),
        )

    def release(self, claim: Claim) -> None:
        session = self._session(claim.name.session)
        self._log(claim.name).over = True
        if session.owner == claim.name.nonce:
            session.owner = ""
        if session.members.pop(claim.name.nonce, None) is not None:
            self._announce("released", claim)
            for node in {member.claim.name.node for member in session.members.values()}:
                self._say(node, _word("released", claim))

    def living(self, session: str, horizon: float) -> list[Living]:
        known = self._session(session)
        members = sorted(
            known.members.values(), key=lambda member: (member.waits, member.claim.epoch)
        )
        queue = known.queue()
        return [
            Living(
                name=member.claim.name,
                epoch=member.claim.epoch,
                expired=self._is_expired(member.claim, horizon),
                position=queue.index(member) + 1 if member.waits else 0,
                by=member.by,
                closed=member.closed,
                removed=known.is_removed(member.claim.epoch),
            )
            for member in members
        ]

    def remove(self, session: str, first: int, before: int, by: str) -> None:
        known = self._session(session)
        known.removed.append((first, before))
        del known.removed[:-MAX_REMOVALS]
        by = by if first else ""
        word = Word(kind="forgotten", session=session, first=first, before=before, by=by)
        for node in list(self.nodes):
            self._say(node, word)

    def is_removed(self, session: str, epoch: int) -> bool:
        return self._session(session).is_removed(epoch)

    # Logs

    def append(self, batch: Batch) -> Appended:
        claim = batch.claim
        session, log = self._session(claim.name.session), self._log(claim.name)
        member = session.members.get(claim.name.nonce)
        if session.owner != claim.name.nonce and (member is None or not member.waits):
            forgotten = not (log.over or log.closed) and session.claimed < claim.epoch
            return Appended(Verdict.REGRESSED if forgotten else Verdict.FENCED, log.last)
        if batch.first > log.last:
            return Appended(Verdict.REGRESSED, log.last)
        if batch.last > log.last:
            log.add(batch)
        return Appended(Verdict.GOOD, log.last)

    def close(self, batch: Batch) -> Appended:
        claim = batch.claim
        session, log = self._session(claim.name.session), self._log(claim.name)
        if log.closed:
            return Appended(Verdict.FENCED if log.buried else Verdict.GOOD, log.last)
        if log.over:
            return Appended(Verdict.FENCED, log.last)
        if batch.first > log.last:
            return Appended(Verdict.REGRESSED, log.last)
        if batch.is_end:
            self._end(session, log, batch)
        elif batch.last > log.last:
            log.add(batch)
            log.epoch = log.epoch or claim.epoch
        return Appended(Verdict.GOOD, log.last)

    def bury(self, batch: Batch, horizon: float) -> bool:
        claim = batch.claim
        session, log = self._session(claim.name.session), self._log(claim.name)
        if not self._is_expired(claim, horizon):
            return False
        if log.closed:
            self.release(claim)
            return False
        if batch.last == log.last == 0:
            self.release(claim)
            return True
        if not batch.first <= log.last < batch.last:
            return False
        self._end(session, log, batch)
        log.buried = True
        self.release(claim)
        return True

    def read(self, name: Name, cursor: int, max_bytes: int, horizon: float) -> Tail | None:
        log = self._state.logs.get(name.nonce)
        if log is None or log.due < self.clock():
            return None
        last, frames = log.after(cursor, max_bytes)
        return Tail(
            epoch=log.epoch,
            last=last,
            frames=frames,
            closed=log.closed and last == log.last,
            expired=not log.closed and self._is_expired(Claim(name=name, epoch=log.epoch), horizon),
            vacated=log.over and not (log.closed or log.last),
            removed=log.epoch > 0 and self._session(name.session).is_removed(log.epoch),
        )

    def attend(self, name: Name, lease: float) -> None:
        if (log := self._state.logs.get(name.nonce)) is not None:
            log.attended = self.clock() + min(lease, MAX_LEASE)

    def _end(self, session: _Session, log: _Log, batch: Batch) -> None:
        log.add(batch)
        log.closed = True
        log.epoch = log.epoch or batch.claim.epoch
        nonce = batch.claim.name.nonce
        if session.owner == nonce:
            session.owner = ""
        if nonce in session.members:
            session.members[nonce].closed = True

    # What all of them need

    def _session(self, session: str) -> _Session:
        return self._state.sessions.setdefault(session, _Session())

    def _log(self, name: Name) -> _Log:
        now = self.clock()
        log = self._state.logs.get(name.nonce)
        if log is None or log.due < now:
            log = self._state.logs[name.nonce] = _Log(lease=-math.inf, due=now + self.keep)
        return log

    def _renew(self, log: _Log, lease: float) -> None:
        now = self.clock()
        log.lease, log.due = now + lease, now + self.keep

    def _is_expired(self, claim: Claim, horizon: float) -> bool:
        """Return whether its lease ended before `horizon`, the time up to which the caller trusts
        this clock."""
        log, now = self._log(claim.name), self.clock()
        ends = -math.inf if log.over else log.lease
        if ends > now + MAX_LEASE:  # set before the clock stepped back
            log.lease = now + MAX_LEASE
        return horizon > 0 and ends < min(now, horizon)

    def _announce(self, kind: Literal["claimed", "released"], claim: Claim) -> None:
        """Say it to all who watch the session."""
        for node, view in list(self.nodes.items()):
            if claim.name.session in view.watched:
                self._say(node, _word(kind, claim))

    def _say(self, node: str, word: Word) -> None:
        if node in self.nodes and self.heard(node, word):
            asyncio.get_running_loop().call_soon(self.nodes[node].hear, word)

    def _sweep(self) -> None:
        """Once in a while: what is due would be forgotten by every look at it anyway."""
        now, state = self.clock(), self._state
        if now < self._swept + self.keep:
            return
        self._swept = now
        state.names = {stream: held for stream, held in state.names.items() if held.due > now}
        state.logs = {nonce: log for nonce, log in state.logs.items() if log.due > now}
        state.sessions = {
            key: session
            for key, session in state.sessions.items()
            if session.members or session.ticket > (now - self.keep) * 1000
        }


class MemoryCluster:
    """One node's view of a MemoryStore; see the port for every call."""

    def __init__(self, store: MemoryStore, node: str, lease: float, grace: float) -> None:
        self.node = node
        self.lease = lease
        self.health = Health()
        self.watched: set[str] = set()
        """Sessions."""
        self.hear: Callable[[Word], None] = _ignore
        self._store = store
        self._grace = grace
        self._clock = StoreClock(lambda: asyncio.get_running_loop().time())

    @asynccontextmanager
    async def running(self, hear: Callable[[Word], None]) -> AsyncIterator[MemoryCluster]:
        self.hear = hear
        self._store.nodes[self.node] = self
        self.health.reachable = self.health.listening = True
        self.health.since = time.monotonic()
        self._observe(asyncio.get_running_loop().time())
        try:
            yield self
        finally:
            del self._store.nodes[self.node]
            self.hear = _ignore
            self.watched.clear()

    async def reserve(self, name: Name) -> Reserved | Name:
        return await self._ask(
            "reserve", partial(self._store.reserve, name, self.lease), name.session
        )

    async def find(self, stream: str) -> Name | None:
        return await self._ask("find", partial(self._store.find, stream))

    async def free(self, names: Sequence[Name]) -> Sequence[StoreLost | None]:
        works = [partial(self._store.free, name) for name in names]
        return await self._ask_each("free", works, [name.session for name in names])

    async def stop(self, stream: str) -> Name | None:
        return await self._ask("stop", partial(self._store.stop, stream))

    async def unstop(self, stream: str) -> None:
        await self._ask("unstop", partial(self._store.unstop, stream))

    async def ticket(self, session: str, floor: int) -> int:
        return await self._ask("ticket", partial(self._store.ticket, session, floor), session)

    async def claim(
        self, claim: Claim, *, on_conflict: OnConflict = "interrupt"
    ) -> Sequence[Living]:
        work = partial(self._store.claim, claim, on_conflict, self.lease, self._horizon)
        return await self._ask("claim", work, claim.name.session)

    async def older(self, claim: Claim) -> Sequence[Living]:
        work = partial(self._store.older, claim, self._horizon)
        return await self._ask("older", work, claim.name.session)

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Renewed | StoreLost]:
        return await self._ask_each(
            "renew",
            [partial(self._store.renew, claim, self.lease, self._horizon) for claim in claims],
            [claim.name.session for claim in claims],
        )

    async def release(self, claims: Sequence[Claim]) -> Sequence[StoreLost | None]:
        works = [partial(self._store.release, claim) for claim in claims]
        return await self._ask_each("release", works, [claim.name.session for claim in claims])

    async def living(self, sessions: Sequence[str]) -> Sequence[Sequence[Living] | StoreLost]:
        works = [partial(self._store.living, key, self._horizon) for key in sessions]
        return await self._ask_each("living", works, sessions)

    async def remove(self, session: str, first: int, before: int, by: str = "") -> None:
        work = partial(self._store.remove, session, first, before, by)
        await self._ask("remove", work, session)

    async def is_removed(self, session: str, epoch: int) -> bool:
        work = partial(self._store.is_removed, session, epoch)
        return await self._ask("is_removed", work, session)

    async def append(self, batches: Sequence[Batch]) -> Sequence[Appended | StoreLost]:
        works = [partial(self._store.append, batch) for batch in batches]
        sessions = [batch.claim.name.session for batch in batches]
        return await self._ask_each("append", works, sessions)

    async def close(self, batches: Sequence[Batch]) -> Sequence[Appended | StoreLost]:
        works = [partial(self._store.close, batch) for batch in batches]
        sessions = [batch.claim.name.session for batch in batches]
        return await self._ask_each("close", works, sessions)

    async def bury(self, batches: Sequence[Batch]) -> Sequence[bool | StoreLost]:
        works = [partial(self._store.bury, batch, self._horizon) for batch in batches]
        sessions = [batch.claim.name.session for batch in batches]
        return await self._ask_each("bury", works, sessions)

    async def read(
        self, cursors: Sequence[tuple[Name, int]], *, max_bytes: int = READ_BYTES
    ) -> Sequence[Tail | StoreLost | None]:
        works = [
            partial(self._store.read, name, cursor, max_bytes, self._horizon)
            for name, cursor in cursors
        ]
        return await self._ask_each("read", works, [name.session for name, _ in cursors])

    async def attend(self, names: Sequence[Name]) -> None:
        def work() -> None:
            for name in names:
                self._store.attend(name, self.lease)

        await self._ask("attend", work)

    async def watch(self, sessions: Sequence[str]) -> None:
        self.watched.update(sessions)

    async def unwatch(self, sessions: Sequence[str]) -> None:
        self.watched.difference_update(sessions)

    @property
    def _horizon(self) -> float:
        return self._clock.horizon(self._grace)

    def _observe(self, sent: float) -> None:
        """Read the store's clock."""
        reading = self._store.clock()
        self._clock.observe(reading, sent, asyncio.get_running_loop().time())
        self.health.furthest = max(self.health.furthest, reading - time.monotonic())

    async def _ask_each(
        self, call: str, works: Sequence[Callable[[], T]], sessions: Sequence[str]
    ) -> Sequence[T | StoreLost]:
        """The same for many: what is lost has a StoreLost in its place."""
        lost = StoreLost("a part of the store did not answer in time")
        answers: list[T | StoreLost] = [lost] * len(works)
        here = [at for at, session in enumerate(sessions) if not self._store.is_away(session)]
        if here:
            try:
                found = await self._ask(call, lambda: [works[at]() for at in here])
            except StoreLost as error:
                return [error] * len(works)
            for at, answer in zip(here, found, strict=True):
                answers[at] = answer
        if len(here) < len(works):
            self._lose()
        return answers

    def _lose(self) -> None:
        self.health.reachable = False
        self.health.failures += 1

    async def _ask(self, call: str, work: Callable[[], T], session: str = "") -> T:
        """Send the work to the store, and wait for its answer as long as one may."""
        if session and self._store.is_away(session):
            self._lose()
            raise StoreLost("the part of the store with this session did not answer in time")
        loop = asyncio.get_running_loop()
        fate = self._store.fate(self.node, call)
        answer: asyncio.Future[T | JarvisError] = loop.create_future()
        asked_at = loop.time()
        if not fate.lost:
            _after(fate.out, partial(_carry_out, work, answer, fate.back))
        await asyncio.wait([answer], timeout=self._store.timeout)
        self.health.reachable = answer.done()
        if not answer.done():
            answer.cancel()
            self._lose()
            raise StoreLost("the store did not answer in time")
        self._observe(loop.time())
        self.health.trips.add(loop.time() - asked_at)
        self.health.last_answer = time.monotonic()
        result = answer.result()
        if isinstance(result, JarvisError):
            raise result
        return result


def _carry_out(work: Callable[[], T], answer: asyncio.Future[T | JarvisError], back: float) -> None:
    result: T | JarvisError
    try:
        result = work()
    except JarvisError as error:
        result = error
    _after(back, lambda: None if answer.done() else answer.set_result(result))


def _after(seconds: float, callback: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    if seconds:
        loop.call_later(seconds, callback)
    else:
        loop.call_soon(callback)


def _word(kind: Literal["claimed", "released"], claim: Claim) -> Word:
    return Word(kind=kind, session=claim.name.session, stream=claim.name.stream)


def _ignore(word: Word) -> None:
    pass

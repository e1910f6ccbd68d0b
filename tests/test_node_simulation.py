"""Users at random, over nodes that lose calls, words and each other: what every reader may rely on.

In virtual time, so that a minute takes a second; the same seed is the same run.
`make test-long`, or `SIMULATIONS=1000`, does more of them than `make test`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakes import FakeReader
from loguru import logger
from nodes import BOUND, LEASE, Cloud, Member, in_virtual_time
from profiles import amount

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.cluster.memory import Fate
from jarvis_stream.errors import Refused
from jarvis_stream.registry import Opening
from jarvis_stream.stream import Followed

SIMULATIONS = amount("SIMULATIONS", default=4, long=100)
SECONDS = 30.0
SESSIONS = ("s", "t")
USERS = 4


@dataclass
class Run:
    """One agent at work."""

    stream: str
    session: str
    began: float
    ended: float | None = None


@dataclass
class Simulation:
    """A cloud, what its users do, and what they see."""

    dice: random.Random
    faults: bool
    calm: bool
    """Whether nothing ever goes wrong."""
    readers: list[tuple[Member, FakeReader, int]] = field(default_factory=list)
    asked: dict[str, tuple[str, float, str]] = field(default_factory=dict)
    """By stream: its session, when it was asked for, and on which node."""
    stopped: set[str] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    cuts: list[tuple[str, float, float]] = field(default_factory=list)
    """Which node was cut off, from when until when."""

    parts: list[tuple[str, float, float]] = field(default_factory=list)
    """Which session's part of the store was away, from when until when."""

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def agent(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        """Pieces and pauses, and a cleanup that takes its time."""
        dice = random.Random(turn.stream_id)
        run = Run(turn.stream_id, turn.session_id, self.now)
        self.runs.append(run)
        try:
            for number in range(dice.choice((0, 3, 20, 60, 200))):
                yield f"{number} "
                await asyncio.sleep(dice.choice((0, 0.01, 0.3)))
        finally:
            try:
                await asyncio.sleep(dice.choice((0, 0, 0.1, 1.0)))
            finally:
                run.ended = self.now

    def fate(self, node: str, call: str) -> Fate:
        if any(node == who and since <= self.now < till for who, since, till in self.cuts):
            return Fate(lost=True)
        if not self.faults:
            return Fate(out=self.dice.uniform(0, 0.002), back=self.dice.uniform(0, 0.002))
        draw = self.dice.random()
        if draw < 0.01:
            return Fate(lost=True)
        if draw < 0.03:  # carried out when nobody waits for it any more
            return Fate(out=self.dice.uniform(0.3, 2.0))
        if draw < 0.05:
            return Fate(back=1.0)
        return Fate(out=self.dice.uniform(0, 0.02), back=self.dice.uniform(0, 0.02))

    def is_away(self, session: str) -> bool:
        return any(
            session == which and since <= self.now < till for which, since, till in self.parts
        )

    def hears(self, node: str) -> bool:
        if any(node == who and since <= self.now < till for who, since, till in self.cuts):
            return False
        return not self.faults or self.dice.random() < 0.7

    async def user(self, name: str, members: list[Member]) -> None:
        """Somebody who cannot keep still."""
        dice = random.Random(self.dice.random())
        tab = Tab(self)
        until = self.now + SECONDS
        number = 0
        while self.now < until:
            await asyncio.sleep(dice.expovariate(1.5))
            member = dice.choice(members)
            session = dice.choice(SESSIONS)
            try:
                match dice.choice(("start", "start", "stop", "resume", "watch", "leave")):
                    case "start":
                        number += 1
                        await self.start(member, f"{name}{number}", session, dice)
                    case "stop" if self.asked:
                        await self.stop(member, dice.choice(sorted(self.asked)))
                    case "resume" if self.asked:
                        stream = dice.choice(sorted(self.asked))
                        self.read(member, await member.registry.reach(stream), 0)
                    case "watch":
                        tab.member = member
                        member.registry.watch(session, tab)
                    case "leave":
                        for here, reader, _ in self.readers:
                            if not reader.ends and dice.random() < 0.1:
                                self.leave(here, reader)
            except Refused:
                pass
        if tab.member is not None:
            for session in SESSIONS:
                for member in members:
                    member.registry.unwatch(session, tab)

    async def start(self, member: Member, stream: str, session: str, dice: random.Random) -> None:
        self.asked[stream] = session, self.now, member.name
        answer = await member.registry.start(
            opening(
                stream,
                session,
                on_conflict=dice.choice(("interrupt", "interrupt", "enqueue", "reject")),
                on_disconnect=dice.choice(("cancel", "continue")),
            )
        )
        self.read(member, answer, 0)

    async def stop(self, member: Member, stream: str) -> None:
        self.stopped.add(stream)
        asked_at = self.now
        await member.registry.cancel(stream)
        assert self.now - asked_at < BOUND + 1.5

    def read(self, member: Member, stream: Followed, after: int) -> None:
        self.readers.append((member, FakeReader(stream, after), after))

    def leave(self, member: Member, reader: FakeReader) -> None:
        self.stopped.add(reader.stream.stream_id)  # perhaps: it may have been the last reader
        reader.leave()

    # What must hold

    def check(self) -> None:
        self.check_frames()
        self.check_agents()

    def check_frames(self) -> None:
        seen: dict[tuple[str, int], bytes] = {}
        ends: dict[str, set[str]] = {}
        for _, reader, after in self.readers:
            stream = reader.stream.stream_id
            frames = reader.frames
            assert [f["seq"] for f in frames] == list(range(after + 1, after + 1 + len(frames)))
            kinds = [f["type"] in ("done", "error") for f in frames]
            assert kinds[:-1] == [False] * len(kinds[:-1]), stream
            if not frames:
                continue
            if kinds[-1]:
                assert reader.ends
                code = frames[-1].get("finish_reason") or frames[-1]["code"]
                ends.setdefault(stream, set()).add(code)
                by = frames[-1].get("superseded_by")
                if by in self.asked:
                    assert self.asked[by][0] == self.asked[stream][0]
            if kinds[-1] and frames[-1].get("code") == "coordination_lost":
                continue  # what its own node showed until it knew; others have another end
            for frame, line in zip(frames, reader.data.splitlines(), strict=True):
                known = seen.setdefault((stream, frame["seq"]), line)
                if known != line and not self.was_cut(stream):
                    raise AssertionError(f"{stream} {frame['seq']}: {known!r} {line!r}")
        for stream, codes in ends.items():
            # Another end is that of a node which did not know yet that it was thought dead.
            assert len(codes) == 1 or "interrupted" in codes, (stream, codes)
            if self.calm:
                assert len(codes) == 1, (stream, codes)
                assert codes <= {"stop", "cancelled", "superseded"}, (stream, codes)
            if codes == {"cancelled"}:
                assert stream in self.stopped, f"nobody stopped {stream}"

    def was_cut(self, stream: str) -> bool:
        """Whether the node of a stream, or its session, was cut off since it was asked for."""
        session, asked_at, node = self.asked[stream]
        return any(
            which in (node, session) and till > asked_at
            for which, _, till in self.cuts + self.parts
        )

    def check_agents(self) -> None:
        for newer in self.runs:
            for older in self.runs:
                if older is newer or older.session != newer.session:
                    continue
                assert older.stream != newer.stream, f"{newer.stream} was answered twice"
                overlaps = older.began <= newer.began < (older.ended or float("inf"))
                if overlaps and older.began < newer.began:
                    waited = newer.began - self.asked[newer.stream][1]
                    assert waited >= BOUND or self.was_cut(older.stream), (older, newer, waited)
                    # However it learns that it is over: by a word, a fence, or its deadline.
                    assert older.ended is not None
                    assert older.ended - newer.began < LEASE + 1.5, (older, newer)


@dataclass(eq=False)
class Tab:
    """Watches sessions."""

    simulation: Simulation
    member: Member | None = None

    def see(self, stream: Followed) -> None:
        """See node.Watcher."""
        assert self.member is not None
        self.simulation.read(self.member, stream, 0)


def opening(stream: str, session: str, **fields: Any) -> Opening:
    return Opening(prompt="q", stream_id=stream, trace_id=stream, session_id=session, **fields)


@pytest.mark.parametrize("faults", ["none", "losses", "cuts", "parts"])
@pytest.mark.parametrize("seed", range(SIMULATIONS))
def test_what_readers_and_agents_see(seed: int, faults: str) -> None:
    logger.disable("jarvis_stream")
    try:
        in_virtual_time(simulate)(seed, faults)
    finally:
        logger.enable("jarvis_stream")


async def simulate(seed: int, faults: str) -> None:
    dice = random.Random(f"{seed} {faults}")
    simulation = Simulation(dice, faults=faults != "none", calm=faults == "none")
    cloud = Cloud()
    cloud.store.fate = simulation.fate
    cloud.store.heard = lambda node, word: simulation.hears(node)
    cloud.store.is_away = simulation.is_away
    members = [await cloud.join(name) for name in ("a", "b", "c")[: dice.choice((2, 3))]]
    for member in members:
        member.agents.scripts = {"q": simulation.agent}
    if faults == "cuts":
        for _ in range(dice.randrange(1, 5)):
            since = dice.uniform(0, SECONDS)
            simulation.cuts.append(
                (dice.choice(members).name, since, since + dice.uniform(0.5, 3 * LEASE))
            )
    if faults == "parts":
        for _ in range(dice.randrange(1, 5)):
            since = dice.uniform(0, SECONDS)
            simulation.parts.append(
                (dice.choice(SESSIONS), since, since + dice.uniform(0.5, 3 * LEASE))
            )
    users = [simulation.user(chr(ord("u") + n), members) for n in range(USERS)]
    await asyncio.gather(*users)
    async with asyncio.timeout(600):
        while any(len(member.registry) for member in members):  # noqa: ASYNC110
            await asyncio.sleep(1)
    simulation.faults = False
    simulation.cuts = [
        (who, since, min(till, simulation.now)) for who, since, till in simulation.cuts
    ]
    simulation.parts = [
        (which, since, min(till, simulation.now)) for which, since, till in simulation.parts
    ]
    await asyncio.sleep(5 * LEASE)
    silent = [r for _, r, _ in simulation.readers if not (r.ends or r.losses or r.follower.closed)]
    assert not silent, [(r.stream, r.follower) for r in silent]
    simulation.check()
    await cloud.leave()
    # What a lost call has left there, whoever claims next buries.
    left = [one for session in SESSIONS for one in cloud.store.living(session, math.inf)]
    assert not left if simulation.calm else all(one.expired for one in left)

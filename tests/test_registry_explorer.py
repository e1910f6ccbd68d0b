"""The registry under thousands of schedules: its seven invariants, observed from outside.

`World` watches what a user, an agent and a reader can see, after every callback of a VirtualLoop.
Each scenario must hold under every schedule the explorer tries; and each of the mutants, a registry
with one safeguard taken out, must be caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from explorer import Found, Pick, VirtualLoop, Violation, explore, replay
from fakes import FakeAgents, Reader, Tidy, fails, forever, read_all, says, stubborn, talks
from loguru import logger

from jarvis_stream import stream as stream_module
from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.errors import Conflict, NotFound, Unavailable
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.registry import Cancellation, Opening, StreamRegistry
from jarvis_stream.stream import State, Stream

BOUND = 2.0
LIMIT = 900
SAMPLES = 300
SEED = 20260126


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No real time decides anything, and nothing is logged."""
    monkeypatch.setattr(stream_module, "TURN_BUDGET", float("inf"))
    logger.disable("jarvis_stream")
    yield
    logger.enable("jarvis_stream")


# What is observed


@dataclass
class Seen:
    """One claimed stream, seen from outside."""

    name: str
    stream: Stream
    reader: Reader
    claimed_at: float
    newer: Seen | None = None
    """The next claim of its session."""
    activated_at: float | None = None
    frozen_seq: int | None = None
    """The last seq it may ever have."""
    stopped: bool = False
    """Somebody stopped it, or its last reader left, before it had ended."""
    killed: bool = False
    """Somebody cancelled its task behind the registry's back."""


@dataclass
class World:
    """A registry, its agents, their users and an observer."""

    loop: VirtualLoop
    agents: FakeAgents = field(default_factory=FakeAgents)
    registry_class: type[StreamRegistry] = StreamRegistry

    def __post_init__(self) -> None:
        self.registry = self.registry_class(
            self.agents,
            MemoryHistory(),
            cancel_timeout=BOUND,
            clock=lambda: round(self.loop.time() * 1000),
        )
        self.seen: dict[str, Seen] = {}
        self.stops_before: set[str] = set()
        self.shut_down = False
        self.tidy: list[Tidy] = []
        self.loop.after_step = self.check_step
        self.loop.when_idle = self.check_idle

    # What users do

    def cast(self, **scripts: Any) -> None:
        """Who answers which prompt."""
        self.agents.scripts.update(scripts)
        self.tidy += [script for script in scripts.values() if isinstance(script, Tidy)]

    def open(self, name: str, prompt: str, session_id: str = "s", **fields: Any) -> Seen:
        """Open a stream and read it."""
        stream = self.registry.open(
            Opening(
                prompt=prompt, stream_id=name, trace_id=name, session_id=session_id, **fields
            )
        )
        if name in self.seen:
            if stream is not self.seen[name].stream:
                raise Violation(7, f"a second stream was started for {name}")
            return self.seen[name]
        older = self.of_session(session_id)
        seen = Seen(name, stream, Reader(stream), self.loop.time())
        seen.stopped = name in self.stops_before
        self.seen[name] = seen
        if older:
            older[-1].newer = seen
            for other in older:
                self.freeze(other)
            if stream.epoch <= older[-1].stream.epoch:
                raise Violation(7, f"the epoch of {name} is not above that of {older[-1].name}")
        return seen

    async def opens(self, name: str, prompt: str, **fields: Any) -> None:
        """A user's task that opens a stream."""
        self.open(name, prompt, **fields)

    async def stops(self, name: str) -> Cancellation | None:
        """A user's task that stops a stream and checks what it is told."""
        asked_at = self.loop.time()
        seen = self.seen.get(name)
        if seen is None:
            self.stops_before.add(name)
        elif seen.stream.state is not State.ENDED:
            seen.stopped = True
        try:
            told = await self.registry.cancel(name)
        except NotFound:
            if seen is not None:
                raise Violation(6, f"the stop of {name} did not find it") from None
            return None
        if self.loop.time() - asked_at > BOUND:
            raise Violation(4, f"the stop of {name} took {self.loop.time() - asked_at} s")
        if told.clean and self.agents.running(name):
            raise Violation(6, f"{name} was told to have stopped, and its agent runs")
        if told.cancelled != (self.seen[name].reader.stream_ended_as == "cancelled"):
            raise Violation(6, f"the stop of {name} was told something else than its reader")
        return told

    async def kills(self, name: str) -> None:
        """Somebody cancels a stream's task behind the registry's back."""
        seen = self.seen[name]
        task = seen.stream._task
        assert task is not None
        seen.killed = task.cancel() and seen.stream.state is not State.ENDED

    async def leaves(self, name: str) -> None:
        """A reader's connection is lost."""
        seen = self.seen[name]
        seen.stopped |= seen.stream.state is not State.ENDED
        seen.reader.leave()

    async def shuts_down(self) -> None:
        """The server shuts down."""
        asked_at = self.loop.time()
        self.shut_down = True
        await self.registry.shutdown()
        if self.loop.time() - asked_at > BOUND:
            raise Violation(4, "the shutdown outran the bound")

    async def all_at_once(self, *deeds: Awaitable[object]) -> None:
        """Start these together, in any order, and wait for all."""
        await asyncio.gather(*deeds)

    async def quiet(self, seconds: float = 0.001) -> None:
        """Until nothing more happens at this moment."""
        await asyncio.sleep(seconds)

    # What must hold

    def of_session(self, session_id: str) -> list[Seen]:
        """The claimed streams, in the order of their claims."""
        return [seen for seen in self.seen.values() if seen.stream.session_id == session_id]

    def freeze(self, seen: Seen) -> None:
        if seen.frozen_seq is None:
            seen.frozen_seq = seen.stream.seq

    def check_step(self) -> None:
        for seen in self.seen.values():
            state = seen.stream.state
            if seen.frozen_seq is not None and seen.stream.seq != seen.frozen_seq:
                raise Violation(2, f"{seen.name} got a frame after its end or a newer claim")
            if state is State.ACTIVE:
                if seen.newer is not None:
                    raise Violation(1, f"{seen.name} is active beside {seen.newer.name}")
                if seen.activated_at is None:
                    self.check_activation(seen)
            elif state is State.ENDED:
                self.freeze(seen)

    def check_activation(self, seen: Seen) -> None:
        seen.activated_at = self.loop.time()
        waited = seen.activated_at - seen.claimed_at
        if waited > BOUND:
            raise Violation(4, f"{seen.name} waited {waited} s")
        if self.registry.head(seen.stream.session_id) is not seen.stream:
            raise Violation(1, f"{seen.name} is active and not the head")
        for older in self.of_session(seen.stream.session_id):
            if older is seen:
                break
            if waited < BOUND and self.agents.running(older.name):
                raise Violation(3, f"{seen.name} is active while the agent of {older.name} runs")

    def check_idle(self) -> None:
        for seen in self.seen.values():
            if (
                seen.stream.state is State.PENDING
                and self.loop.time() - seen.claimed_at >= BOUND
            ):
                raise Violation(4, f"{seen.name} still waits")

    def check_end(self) -> None:
        """When everything has come to rest."""
        if running := [name for name in self.seen if self.agents.running(name)]:
            raise Violation(5, f"the agents of {running} still run")
        if len(self.registry) or self.registry._sessions:
            raise Violation(5, f"{self.registry!r} is not empty")
        for seen in self.seen.values():
            self.check_ending(seen)
        for tidy in self.tidy:
            if tidy.seconds <= BOUND and tidy.complete != tidy.begun:
                raise Violation(4, "a cleanup shorter than the bound was cut short")

    def check_ending(self, seen: Seen) -> None:
        name, reader = seen.name, seen.reader
        ending = reader.stream_ended_as
        if (ending == "cancelled") != (seen.stopped and not seen.killed):
            raise Violation(6, f"{name} ended as {ending}; stopped: {seen.stopped}")
        if seen.newer is not None:
            superseded_by = seen.stream.ending and getattr(
                seen.stream.ending, "superseded_by", None
            )
            if ending == "superseded" and superseded_by != seen.newer.name:
                raise Violation(7, f"{name} says it was superseded by {superseded_by}")
        elif ending == "superseded":
            raise Violation(7, f"{name} is the newest and was superseded")
        elif ending == "shutdown" and not (seen.killed or self.shut_down):
            raise Violation(7, f"{name} is the newest and died as {ending}")
        self.check_frames(seen)

    def check_frames(self, seen: Seen) -> None:
        frames = seen.reader.all_frames
        kinds = [frame["type"] for frame in frames]
        if [frame["seq"] for frame in frames] != list(range(1, len(frames) + 1)):
            raise Violation(2, f"{seen.name} has gaps")
        if frames[0].get("status") != "thinking" or kinds[-1] not in ("done", "error"):
            raise Violation(2, f"{seen.name} is not whole: {kinds}")
        if "done" in kinds[:-1] or "error" in kinds[:-1] or kinds.count("status") > 1:
            raise Violation(2, f"{seen.name} ended or began twice: {kinds}")

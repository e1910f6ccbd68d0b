"""The registry under thousands of schedules: its eight invariants, observed from outside.

`World` watches what a user, an agent and a reader can see, after every callback of a VirtualLoop.
Each scenario must hold under every schedule the explorer tries; and each of the mutants, a registry
with one safeguard taken out, must be caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from explorer import Deadlock, Pick, Violation, VirtualLoop, explore, replay
from fake_history import SlowHistory
from fakes import (
    FakeAgents,
    FakeReader,
    Tidy,
    fails,
    forever,
    parse,
    read_all,
    says,
    stubborn,
    talks,
)
from loguru import logger
from profiles import amount

from jarvis_stream import stream as stream_module
from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.errors import Conflict, NotFound, TooMany, Unavailable
from jarvis_stream.frames import Done, Failed, Status
from jarvis_stream.registry import Cancellation, Opening, StreamRegistry
from jarvis_stream.stream import Followed, State, Stream

BOUND = 2.0
MAX_QUEUE = 3
LIMIT = 1200
SAMPLES = 400
"""Schedules that are searched for a mutant's fault: in order, and at random."""
SCHEDULES = amount("SCHEDULES", unit=60, default=400, long=1600)
"""Schedules of each scenario; a quarter of them is drawn at random."""
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
    reader: FakeReader
    claimed_at: float | None = None
    """None while it waits in the queue."""
    newer: Seen | None = None
    """The next claim of its session."""
    activated_at: float | None = None
    frozen_seq: int | None = None
    """The last seq it may ever have."""
    stopped: bool = False
    """Somebody stopped it, or its last reader left, while it was open."""
    left: bool = False
    """Its reader has left."""
    killed: bool = False
    """Somebody cancelled its task behind the registry's back."""
    gone: bool = False
    """It was rolled back or deleted: the history is to forget it."""

    @property
    def speaks(self) -> bool:
        """Whether it has its session."""
        return self.claimed_at is not None and self.stream.is_open

    @property
    def waits(self) -> bool:
        """Whether it stands in the queue."""
        return self.claimed_at is None and self.stream.is_open

    @property
    def ending(self) -> str | None:
        """Its finish reason or error code."""
        ending = self.stream.ending
        if ending is None:
            return None
        return ending.code if isinstance(ending, Failed) else ending.finish_reason


@dataclass(eq=False)
class Onlooker:
    """Watches a session: a further reader of every stream of it."""

    readers: dict[str, FakeReader] = field(default_factory=dict)
    twice: bool = False

    def see(self, stream: Followed) -> None:
        """See node.Watcher."""
        self.twice |= stream.stream_id in self.readers
        self.readers[stream.stream_id] = FakeReader(stream)


@dataclass
class World:
    """A registry, its agents, their users and an observer."""

    loop: VirtualLoop
    agents: FakeAgents = field(default_factory=FakeAgents)

    def __post_init__(self) -> None:
        self.history = SlowHistory()
        self.registry = StreamRegistry(
            self.agents,
            self.history,
            cancel_timeout=BOUND,
            max_queue=MAX_QUEUE,
            clock=lambda: round(self.loop.time() * 1000),
        )
        self.seen: dict[str, Seen] = {}
        self.onlookers: list[Onlooker] = []
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
        older = self.of_session(session_id)
        head = next((seen for seen in older if seen.newer is None and seen.speaks), None)
        stream = self.registry.open(
            Opening(prompt=prompt, stream_id=name, trace_id=name, session_id=session_id, **fields)
        )
        if name in self.seen:
            if stream is not self.seen[name].stream:
                raise Violation(7, f"a second stream was started for {name}")
            return self.seen[name]
        seen = Seen(name, stream, FakeReader(stream), stopped=name in self.stops_before)
        self.seen[name] = seen
        if stream.called is None:
            if head is not None and fields.get("on_conflict") == "rollback":
                head.gone = True
            if (replaced := self.seen.get(fields.get("replaces", ""))) is not None:
                for other in older[older.index(replaced) :]:
                    other.gone = True
            self.claim(seen, older)
        elif seen.stopped:
            seen.gone = True
        elif head is not None and seen.reader.frames[-1]["epoch"] > head.stream.epoch:
            raise Violation(8, f"{name} waits, and makes {head.name} stale")
        return seen

    def claim(self, seen: Seen, older: list[Seen]) -> None:
        """A stream has claimed its session: none of the older ones may say anything more."""
        seen.claimed_at = self.loop.time()
        for other in older:
            if other.newer is None:
                other.newer = seen
            self.freeze(other)
            if seen.stream.epoch <= other.stream.epoch:
                raise Violation(7, f"the epoch of {seen.name} is not above that of {other.name}")

    def watch(self, session_id: str = "s") -> Onlooker:
        """Somebody watches a session from now on."""
        onlooker = Onlooker()
        self.onlookers.append(onlooker)
        self.registry.watch(session_id, onlooker)
        return onlooker

    async def opens(self, name: str, prompt: str, **fields: Any) -> None:
        """A user's task that opens a stream."""
        self.open(name, prompt, **fields)

    async def stops(self, name: str) -> Cancellation | None:
        """A user's task that stops a stream and checks what it is told."""
        asked_at = self.loop.time()
        seen = self.seen.get(name)
        if seen is None:
            self.stops_before.add(name)
        elif seen.stream.is_open:
            seen.stopped = True
            # A message that is withdrawn while it waits leaves the history.
            if seen.stream in self.registry._session(seen.stream.session_key).queue:
                seen.gone = True
        try:
            told = await self.registry.cancel(name)
        except NotFound:
            if seen is not None and not (seen.gone and seen.stream.stopped.done()):
                raise Violation(6, f"the stop of {name} did not find it") from None
            return None
        if self.loop.time() - asked_at > BOUND:
            raise Violation(4, f"the stop of {name} took {self.loop.time() - asked_at} s")
        if told.clean and self.agents.running(name):
            raise Violation(6, f"{name} was told to have stopped, and its agent runs")
        if told.cancelled != (self.seen[name].ending == "cancelled"):
            raise Violation(6, f"the stop of {name} was told something else than its reader")
        return told

    async def kills(self, name: str) -> None:
        """Somebody cancels a stream's task behind the registry's back."""
        seen = self.seen[name]
        task = seen.stream._task  # None: it has ended already
        seen.killed = task is not None and task.cancel()

    async def leaves(self, name: str) -> None:
        """A reader's connection is lost."""
        seen = self.seen[name]
        watched = any(name in onlooker.readers for onlooker in self.onlookers)
        seen.stopped |= seen.stream.is_open and not watched
        seen.left = not seen.reader.ends
        seen.reader.leave()

    async def looks_away(self, onlooker: Onlooker) -> None:
        """An onlooker watches no longer, and reads no longer."""
        self.onlookers.remove(onlooker)
        self.registry.unwatch("s", onlooker)
        for name, reader in onlooker.readers.items():
            seen = self.seen[name]
            seen.stopped |= seen.stream.is_open and seen.left
            reader.leave()

    async def deletes(self, session_id: str = "s") -> None:
        """A user's task that deletes a session."""
        asked_at = self.loop.time()
        for seen in self.of_session(session_id):
            seen.stopped |= seen.stream.is_open
            seen.gone = True
        await self.registry.delete(session_id)
        if self.loop.time() - asked_at > BOUND:
            raise Violation(4, "the deletion outran the bound")

    async def shuts_down(self) -> None:
        """The server shuts down."""
        asked_at = self.loop.time()
        self.shut_down = True
        await self.registry.shutdown()
        if self.loop.time() - asked_at > BOUND:
            raise Violation(4, "the shutdown outran the bound")
        if any(seen.stream.state is not State.ENDED for seen in self.seen.values()):
            raise Violation(5, "the shutdown was over before every answer was kept")

    async def all_at_once(self, *deeds: Awaitable[object]) -> None:
        """Start these together, in any order, and wait for all."""
        await asyncio.gather(*deeds)

    async def quiet(self, seconds: float = 1 / 1024) -> None:
        """Until nothing more happens at this moment."""
        await asyncio.sleep(seconds)

    # What must hold

    def of_session(self, session_id: str) -> list[Seen]:
        """The streams of a session, in the order in which they were opened."""
        return [seen for seen in self.seen.values() if seen.stream.session_id == session_id]

    def freeze(self, seen: Seen) -> None:
        """But for its terminal frame, when the history has not kept it yet."""
        if seen.frozen_seq is None:
            seq = seen.stream.seq
            seen.frozen_seq = seq if seen.stream.state is State.ENDED else max(seq, 1) + 1

    def check_step(self) -> None:
        for seen in self.seen.values():
            if seen.claimed_at is None:
                self.check_queued(seen)
            if seen.stream.state is State.ACTIVE:
                if seen.newer is not None:
                    raise Violation(1, f"{seen.name} is active beside {seen.newer.name}")
                if seen.activated_at is None:
                    self.check_activation(seen)
            elif not seen.stream.is_open:
                self.freeze(seen)
            if seen.frozen_seq is not None and seen.stream.seq > seen.frozen_seq:
                raise Violation(2, f"{seen.name} got a frame after its end or a newer claim")

    def check_queued(self, seen: Seen) -> None:
        if self.registry.head(seen.stream.session_id) is not seen.stream:
            return
        older = self.of_session(seen.stream.session_id)
        del older[older.index(seen) :]
        if passed := [other.name for other in older if other.waits]:
            raise Violation(8, f"{seen.name} went before {passed}")
        self.claim(seen, older)

    def since_claim(self, seen: Seen) -> float:
        """Seconds."""
        if seen.claimed_at is None:
            raise Violation(8, f"{seen.name} has claimed nothing")
        return self.loop.time() - seen.claimed_at

    def check_activation(self, seen: Seen) -> None:
        seen.activated_at = self.loop.time()
        waited = self.since_claim(seen)
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
            if seen.waits:
                head = self.registry.head(seen.stream.session_id)
                if head is None or not head.is_open:
                    raise Violation(8, f"{seen.name} waits for nobody")
            elif seen.stream.state is State.PENDING and self.since_claim(seen) >= BOUND:
                raise Violation(4, f"{seen.name} still waits")

    async def check_end(self) -> None:
        """When everything has come to rest."""
        if running := [name for name in self.seen if self.agents.running(name)]:
            raise Violation(5, f"the agents of {running} still run")
        for onlooker in self.onlookers:
            self.registry.unwatch("s", onlooker)
        registry = self.registry
        if (
            len(registry)
            or registry._sessions
            or registry._unsaved
            or registry._watchers
            or registry._bounds
        ):
            raise Violation(5, f"{self.registry!r} is not empty")
        for seen in self.seen.values():
            self.check_ending(seen)
        await self.check_history()
        for onlooker in self.onlookers:
            self.check_onlooker(onlooker)
        if any(seen.killed for seen in self.seen.values()):
            return  # a second cancellation, by whoever it may be, cuts a cleanup short
        for tidy in self.tidy:
            if tidy.seconds < BOUND and tidy.complete != tidy.begun:
                raise Violation(4, "a cleanup shorter than the bound was cut short")

    def check_ending(self, seen: Seen) -> None:
        name, ending = seen.name, seen.ending
        if (ending == "cancelled") != seen.stopped:
            raise Violation(6, f"{name} ended as {ending}; stopped: {seen.stopped}")
        if ending == "superseded":
            by = seen.stream.ending.superseded_by if isinstance(seen.stream.ending, Done) else None
            if seen.newer is None or by != seen.newer.name:
                raise Violation(7, f"{name} was superseded by {by}")
        elif ending == "shutdown" and not (seen.killed or self.shut_down):
            raise Violation(7, f"{name} died")
        data = read_all(seen.stream)
        if seen.reader.ends != (not seen.left) or not data.startswith(seen.reader.data):
            raise Violation(2, f"the reader of {name} saw something else than its log")
        frames = parse(data)
        kinds = [frame["type"] for frame in frames]
        if [frame["seq"] for frame in frames] != list(range(1, len(frames) + 1)):
            raise Violation(2, f"{name} has gaps")
        places = [frame["position"] for frame in frames if frame.get("status") == "queued"]
        if places != sorted(set(places), reverse=True):
            raise Violation(8, f"{name} did not move up: {places}")
        if kinds[0] != "status" or any(kind != "token" for kind in kinds[1 + len(places) : -1]):
            raise Violation(2, f"{name} began or ended twice: {kinds}")
        if kinds[-1] not in ("done", "error"):
            raise Violation(2, f"{name} has no end: {kinds}")
        if frames[-1].get("saved", True) != self.history.saves:
            raise Violation(2, f"{name} told something else than the history of its keeping")

    def check_onlooker(self, onlooker: Onlooker) -> None:
        if onlooker.twice:
            raise Violation(2, "an onlooker was shown a stream twice")
        for name, reader in onlooker.readers.items():
            if not reader.ends or reader.data != read_all(self.seen[name].stream):
                raise Violation(2, f"an onlooker of {name} saw something else than its log")

    async def check_history(self) -> None:
        """What is kept, and what the agents were told of it."""
        turns = {
            turn.stream_id: turn
            for session_id in sorted({seen.stream.session_id for seen in self.seen.values()})
            for turn in await self.history.turns(session_id)
        }
        if turns.keys() != {seen.name for seen in self.seen.values() if not seen.gone}:
            raise Violation(8, f"the history has {list(turns)}")
        for turn in self.agents.turns:
            if turn.stream_id not in turns:
                continue
            told = [message["content"] for message in turn.messages]
            right = [
                text
                for earlier in turns.values()
                if earlier.session_id == turn.session_id
                and earlier.epoch < turns[turn.stream_id].epoch
                for text in (earlier.prompt, earlier.text)
                if text
            ]
            if told != [*right, turn.prompt]:
                raise Violation(8, f"{turn.stream_id} was told {told}, not {right}")


# What happens: each scenario is run under many schedules

Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


@scenario
async def three_opens_at_once(world: World) -> None:
    world.cast(hello=says("a", "b"))
    await world.all_at_once(*(world.opens(name, "hello") for name in "ABC"))


@scenario
async def two_opens_on_a_live_stream_with_slow_cleanup(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.all_at_once(world.opens("B", "hello"), world.opens("C", "hello"))


@scenario
async def a_chain_of_slow_cleanups(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), tidier=Tidy(1.5, "b"), hello=says("c"))
    world.open("A", "tidy")
    await world.quiet()
    world.open("B", "tidier")
    await asyncio.sleep(0.5)
    await world.all_at_once(world.opens("C", "hello"), world.opens("D", "hello"))


@scenario
async def a_predecessor_that_swallows_cancellation(world: World) -> None:
    world.cast(stubborn=stubborn(10.0, "a"), talks=talks("b"), hello=says("c"))
    world.open("A", "stubborn")
    await world.quiet()
    world.open("B", "talks")
    await asyncio.sleep(3.0)
    await world.all_at_once(world.opens("C", "hello"), world.opens("D", "hello"))


@scenario
async def a_supersede_of_somebody_who_waits_for_a_stubborn_one(world: World) -> None:
    world.cast(stubborn=stubborn(5.0, "a"), hello=says("b"))
    world.open("A", "stubborn")
    await world.quiet()
    world.open("B", "hello")
    await asyncio.sleep(1.0)
    await world.all_at_once(world.opens("C", "hello"), world.stops("B"))


@scenario
async def a_kill_before_the_first_step(world: World) -> None:
    world.cast(hello=says("a"), tidy=Tidy(1.0, "b"))
    world.open("A", "tidy")
    await world.all_at_once(world.kills("A"), world.opens("B", "hello"))


@scenario
async def a_kill_while_waiting(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.quiet()
    world.open("B", "hello")
    await world.all_at_once(world.kills("B"), world.opens("C", "hello"))


@scenario
async def a_kill_of_the_one_that_speaks(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.quiet()
    await world.all_at_once(world.kills("A"), world.opens("B", "hello"), world.stops("A"))


@scenario
async def an_agent_that_supersedes_itself(world: World) -> None:
    async def heir(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        world.open("B", "hello")
        yield "never seen"

    world.cast(heir=heir, hello=says("b"))
    world.open("A", "heir")
    await world.all_at_once(world.quiet(), world.opens("C", "hello"))


@scenario
async def an_agent_that_supersedes_itself_and_waits_for_its_heir(world: World) -> None:
    async def heir(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        await asyncio.wait([world.open("B", "hello").stream.stopped])

    world.cast(heir=heir, hello=says("b"))
    world.open("A", "heir")
    await world.all_at_once(world.quiet(), world.stops("A"))


@scenario
async def an_agent_that_stops_itself(world: World) -> None:
    async def suicide(turn: Turn) -> AsyncGenerator[Piece, None]:
        yield "a"
        await world.stops("A")
        await forever()

    world.cast(suicide=suicide, hello=says("b"))
    world.open("A", "suicide")
    await asyncio.sleep(3.0)
    await world.all_at_once(world.opens("B", "hello"), world.opens("C", "hello"))


@scenario
async def a_cleanup_that_ends_exactly_at_the_bound(world: World) -> None:
    world.cast(tidy=Tidy(BOUND, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.quiet()
    await world.all_at_once(world.opens("B", "hello"), world.quiet(BOUND))


@scenario
async def a_stop_that_may_come_before_its_stream(world: World) -> None:
    world.cast(talks=talks("a"), hello=says("b"))
    world.open("A", "talks")
    await world.all_at_once(world.opens("B", "hello"), world.stops("B"), world.opens("C", "hello"))


@scenario
async def a_stop_that_comes_before_its_stream(world: World) -> None:
    world.cast(talks=talks("a"), hello=says("b"))
    world.open("A", "talks")
    await world.stops("B")
    await world.all_at_once(world.opens("B", "hello"), world.quiet())


@scenario
async def a_stop_while_pending_and_a_newer_stream(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.quiet()
    world.open("B", "hello")
    await world.all_at_once(world.stops("B"), world.opens("C", "hello"))


@scenario
async def a_late_stop_of_an_old_stream(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b", "c"))
    world.open("A", "tidy")
    await world.quiet()
    await world.all_at_once(world.opens("B", "hello"), world.stops("A"), world.stops("A"))


@scenario
async def a_lost_reader_and_a_newer_stream(world: World) -> None:
    world.cast(tidy=Tidy(0.5, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.all_at_once(world.leaves("A"), world.opens("B", "hello"))


@scenario
async def a_polite_open_and_one_that_interrupts(world: World) -> None:
    async def polite(name: str) -> None:
        with suppress(Conflict):
            world.open(name, "hello", on_conflict="reject")

    world.cast(hello=says("a"))
    world.open("A", "hello")
    await world.all_at_once(polite("B"), world.opens("C", "hello"))


@scenario
async def a_shutdown_in_the_middle(world: World) -> None:
    async def opens(name: str) -> None:
        with suppress(Unavailable):
            world.open(name, "hello")

    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.all_at_once(opens("B"), world.shuts_down(), opens("C"))


@scenario
async def a_natural_end_and_a_newer_stream(world: World) -> None:
    world.cast(hello=says("a", "b"))
    world.open("A", "hello")
    await world.all_at_once(world.opens("B", "hello"), world.stops("A"))


@scenario
async def a_failing_agent_and_a_stop(world: World) -> None:
    world.cast(fails=fails(ValueError("no"), "a"), hello=says("b"))
    world.open("A", "fails")
    await world.all_at_once(world.stops("A"), world.opens("B", "hello"))


@scenario
async def an_agent_with_a_cancellation_of_its_own(world: World) -> None:
    world.cast(fails=fails(asyncio.CancelledError(), "a"), hello=says("b"))
    world.open("A", "fails")
    await world.all_at_once(world.opens("B", "fails"), world.stops("A"))


@scenario
async def the_same_request_twice(world: World) -> None:
    world.cast(hello=says("a"))
    await world.all_at_once(
        world.opens("A", "hello"), world.opens("A", "hello"), world.opens("B", "hello")
    )


@scenario
async def two_sessions(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy", session_id="s")
    world.open("B", "tidy", session_id="t")
    await world.all_at_once(world.opens("C", "hello", session_id="s"), world.stops("B"))


@scenario
async def a_session_that_drains_under_a_frozen_clock(world: World) -> None:
    world.cast(hello=says("a"))
    for name in "ABC":
        await world.open(name, "hello").stream.stopped


@scenario
async def a_wait_that_loses_its_cancellation(world: World) -> None:
    """As `asyncio.wait_for` does up to Python 3.11 when both come at once."""
    outlive = world.registry._outlive

    async def lossy(streams: list[Stream]) -> list[Stream]:
        with suppress(asyncio.CancelledError):
            return await outlive(streams)
        return []

    world.registry._outlive = lossy  # type: ignore[method-assign]
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.quiet()
    world.open("B", "hello")
    await world.all_at_once(world.opens("C", "hello"), world.quiet(1.0))


# A queue, a rollback, an onlooker, a deletion, and a history that takes its time


async def lines_up(world: World, name: str, prompt: str = "hello") -> None:
    """A user's task whose message waits its turn, if there is room and the server takes it."""
    with suppress(TooMany, Unavailable):
        world.open(name, prompt, on_conflict="enqueue")


@scenario
async def a_line_behind_a_natural_end(world: World) -> None:
    world.cast(hello=says("a", "b"))
    world.open("A", "hello")
    await world.all_at_once(*(lines_up(world, name) for name in "BC"), world.stops("B"))


@scenario
async def a_line_behind_a_slow_cleanup(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await lines_up(world, "B")
    await world.all_at_once(lines_up(world, "C"), world.stops("A"), world.quiet(0.5))
    await world.all_at_once(world.leaves("B"), lines_up(world, "D"))


@scenario
async def a_line_that_is_cut_by_a_message_that_interrupts(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), talks=talks("b"), hello=says("c"))
    world.open("A", "tidy")
    await lines_up(world, "B", "talks")
    await world.all_at_once(lines_up(world, "C"), world.stops("A"), world.opens("D", "hello"))


@scenario
async def a_line_behind_an_agent_that_swallows_cancellation(world: World) -> None:
    world.cast(stubborn=stubborn(6.0, "a"), hello=says("b"))
    world.open("A", "stubborn")
    await world.quiet()
    await lines_up(world, "B")
    await world.all_at_once(world.stops("A"), lines_up(world, "C"), world.kills("B"))


@scenario
async def a_line_that_is_full(world: World) -> None:
    world.cast(talks=talks("a"), hello=says("b"))
    world.open("A", "talks")
    await lines_up(world, "B")
    await world.all_at_once(*(lines_up(world, name) for name in "CDE"), world.stops("A"))


@scenario
async def a_stop_that_may_come_before_its_message_stands_in_line(world: World) -> None:
    world.cast(talks=talks("a"), hello=says("b"))
    world.open("A", "talks")
    await world.all_at_once(lines_up(world, "B"), world.stops("B"), lines_up(world, "C"))
    await world.stops("A")


@scenario
async def a_shutdown_with_a_line(world: World) -> None:
    world.history.finish_after = 0.5
    world.cast(hello=says("a"))
    world.open("A", "hello")
    await world.all_at_once(lines_up(world, "B"), world.shuts_down(), lines_up(world, "C"))


@scenario
async def two_rollbacks_at_once(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await lines_up(world, "L")
    await world.all_at_once(
        world.opens("B", "hello", on_conflict="rollback"),
        world.opens("C", "hello", on_conflict="rollback"),
    )


@scenario
async def a_rollback_and_a_natural_end(world: World) -> None:
    world.history.finish_after = 0
    world.cast(hello=says("a"))
    world.open("A", "hello")
    await world.all_at_once(world.opens("B", "hello", on_conflict="rollback"), world.quiet())


async def takes_the_place(world: World, name: str, of: str) -> None:
    """A user's task that asks again, if what it asked has not been replaced already."""
    with suppress(NotFound):
        world.open(name, "hello", replaces=of)


@scenario
async def two_that_take_the_place_of_one(world: World) -> None:
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b", "c"))
    world.open("A", "hello")
    await world.quiet()
    world.open("B", "tidy")
    await lines_up(world, "L")
    await world.all_at_once(
        takes_the_place(world, "C", of="A"),
        takes_the_place(world, "D", of="B"),
        world.stops("B"),
    )


@scenario
async def a_replacement_and_a_history_that_takes_its_time(world: World) -> None:
    world.history.begin_after = world.history.finish_after = 0
    world.cast(hello=says("a", "b"))
    world.open("A", "hello")
    await world.all_at_once(
        world.opens("B", "hello"), takes_the_place(world, "C", of="A"), world.quiet()
    )


@scenario
async def a_deletion_in_the_middle(world: World) -> None:
    world.history.finish_after = 0
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await lines_up(world, "B")
    await world.all_at_once(world.deletes(), world.opens("C", "hello"), lines_up(world, "D"))


@scenario
async def an_onlooker_and_a_line(world: World) -> None:
    world.cast(talks=talks("a"), hello=says("b"))
    world.open("A", "talks")
    onlooker = world.watch()
    leaver = world.watch()
    await world.all_at_once(lines_up(world, "B"), world.stops("A"), world.leaves("A"))
    await world.all_at_once(world.opens("C", "talks"), world.looks_away(leaver))
    await world.all_at_once(world.leaves("C"), world.looks_away(onlooker))


@scenario
async def a_history_that_takes_its_time(world: World) -> None:
    world.history.begin_after = world.history.finish_after = 0
    world.cast(hello=says("a", "b"))
    world.open("A", "hello")
    await world.all_at_once(world.opens("B", "hello"), lines_up(world, "C"), world.stops("B"))


@scenario
async def a_history_that_takes_long_and_keeps_nothing(world: World) -> None:
    world.history.begin_after, world.history.finish_after = 1.0, BOUND
    world.history.saves = False
    world.cast(tidy=Tidy(1.0, "a"), hello=says("b"))
    world.open("A", "tidy")
    await world.quiet(1.5)
    await world.all_at_once(lines_up(world, "B"), world.stops("A"), world.opens("C", "hello"))


def run(name: str, pick: Pick) -> None:
    """One schedule of one scenario."""
    loop = VirtualLoop(pick)
    world = World(loop)

    async def main() -> None:
        await SCENARIOS[name](world)
        await asyncio.sleep(30)
        await world.check_end()

    try:
        loop.run(main())
    except Deadlock as deadlock:
        raise Violation(5, str(deadlock)) from deadlock


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_schedule_keeps_the_invariants(name: str) -> None:
    samples = SCHEDULES // 4
    limit = SCHEDULES - samples
    found = explore(partial(run, name), limit=limit, samples=samples, seed=SEED)
    assert found.violation is None, f"{found} (seed {SEED})"
    assert found.exhausted or found.schedules == SCHEDULES
    print(f"{name}: {found.schedules} schedules{', all there are' if found.exhausted else ''}")


# A registry with one safeguard taken out


class Mutants:
    """Each takes one safeguard out."""

    @staticmethod
    def no_fence(patch: pytest.MonkeyPatch) -> None:
        append = Stream.append

        def unfenced(self: Stream, piece: str | Status) -> None:
            state, self.state = self.state, State.ACTIVE
            try:
                append(self, piece)
            finally:
                self.state = state

        patch.setattr(Stream, "append", unfenced)

    @staticmethod
    def wait_for_the_last_one_only(patch: pytest.MonkeyPatch) -> None:
        older = StreamRegistry._older
        patch.setattr(StreamRegistry, "_older", lambda self, stream: older(self, stream)[-1:])

    @staticmethod
    def pop_without_identity(patch: pytest.MonkeyPatch) -> None:
        forget = StreamRegistry._forget

        def careless(self: StreamRegistry, stream: Stream) -> None:
            self._sessions[stream.session_id].head = stream
            forget(self, stream)

        patch.setattr(StreamRegistry, "_forget", careless)

    @staticmethod
    def no_check_at_activation(patch: pytest.MonkeyPatch) -> None:
        activate = Stream.activate

        def unchecked(self: Stream) -> None:
            self.state = State.PENDING
            activate(self)

        patch.setattr(Stream, "activate", unchecked)

    @staticmethod
    def no_done_callback(patch: pytest.MonkeyPatch) -> None:
        run, retire = StreamRegistry._run, StreamRegistry._retire

        async def run_and_retire(self: StreamRegistry, stream: Stream, prompt: str) -> None:
            try:
                await run(self, stream, prompt)
            finally:
                retire(self, stream)

        patch.setattr(StreamRegistry, "_run", run_and_retire)
        patch.setattr(
            StreamRegistry,
            "_retire",
            lambda self, stream, task=None: None if task else retire(self, stream),
        )

    @staticmethod
    def no_tombstone(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(StreamRegistry, "_is_buried", lambda self, stream_id: False)

    @staticmethod
    def no_cancellation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Stream, "_cancel_task", lambda self: None)

    @staticmethod
    def a_second_cancellation(patch: pytest.MonkeyPatch) -> None:
        revoke = Stream.revoke

        def hasty(self: Stream, ending: Done, reason: str) -> bool:
            self._cancel_task()
            return revoke(self, ending, reason)

        patch.setattr(Stream, "revoke", hasty)

    @staticmethod
    def no_bound(patch: pytest.MonkeyPatch) -> None:
        async def patient(self: StreamRegistry, streams: list[Stream]) -> list[Stream]:
            for stream in streams:
                await asyncio.shield(stream.stopped)
            return []

        patch.setattr(StreamRegistry, "_outlive", patient)

    @staticmethod
    def no_call(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(StreamRegistry, "_call_up", lambda self, session: None)

    @staticmethod
    def an_epoch_before_its_claim(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Stream, "speak_as", lambda self, epoch: None)

    @staticmethod
    def asked_only_when_it_was_lined_up(patch: pytest.MonkeyPatch) -> None:
        begin = StreamRegistry._begin
        patch.setattr(
            StreamRegistry,
            "_begin",
            lambda self, stream, *more: stream.begun or begin(self, stream, *more),
        )

    @staticmethod
    def a_replacement_that_removes_nothing(patch: pytest.MonkeyPatch) -> None:
        begin = StreamRegistry._begin
        patch.setattr(
            StreamRegistry,
            "_begin",
            lambda self, stream, prompt, replaces_from=None: begin(self, stream, prompt),
        )

    @staticmethod
    def a_shutdown_that_waits_for_agents_only(patch: pytest.MonkeyPatch) -> None:
        keep = StreamRegistry._keep

        def forgetful(
            self: StreamRegistry, stream: Stream, ending: Done | Failed
        ) -> asyncio.Future[bool]:
            kept = keep(self, stream, ending)
            self._unsaved.clear()
            return kept

        patch.setattr(StreamRegistry, "_keep", forgetful)


CAUGHT: list[tuple[Callable[[pytest.MonkeyPatch], None], int, Scenario]] = [
    (Mutants.no_fence, 2, a_predecessor_that_swallows_cancellation),
    (Mutants.wait_for_the_last_one_only, 3, three_opens_at_once),
    (Mutants.pop_without_identity, 1, three_opens_at_once),
    (Mutants.no_check_at_activation, 1, a_wait_that_loses_its_cancellation),
    (Mutants.no_done_callback, 5, three_opens_at_once),
    (Mutants.no_tombstone, 6, a_stop_that_may_come_before_its_stream),
    (Mutants.no_cancellation, 5, two_opens_on_a_live_stream_with_slow_cleanup),
    (Mutants.a_second_cancellation, 4, a_kill_of_the_one_that_speaks),
    (Mutants.no_bound, 4, a_predecessor_that_swallows_cancellation),
    (Mutants.no_call, 8, a_line_behind_a_natural_end),
    (Mutants.an_epoch_before_its_claim, 8, a_line_behind_a_natural_end),
    (Mutants.asked_only_when_it_was_lined_up, 8, a_line_behind_a_natural_end),
    (Mutants.a_replacement_that_removes_nothing, 8, two_that_take_the_place_of_one),
    (Mutants.a_shutdown_that_waits_for_agents_only, 5, a_shutdown_with_a_line),
]
"""Each mutant, the invariant that it breaks, and a scenario that shows it."""


@pytest.mark.parametrize(
    ("mutant", "invariant", "shown_by"), CAUGHT, ids=[mutant.__name__ for mutant, *_ in CAUGHT]
)
def test_a_mutant_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None],
    invariant: int,
    shown_by: Scenario,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutant(monkeypatch)
    scene = partial(run, shown_by.__name__)
    found = explore(scene, limit=LIMIT, samples=SAMPLES, seed=SEED)
    assert found.violation is not None
    assert found.violation.invariant == invariant
    print(f"{shown_by.__name__}, schedule {found.schedules}: {found.violation}")
    with pytest.raises(Violation, match=f"invariant {invariant}"):
        replay(scene, found.choices)


# The explorer itself


def test_every_order_is_run_once() -> None:
    orders: list[str] = []

    def shuffle(pick: Pick) -> None:
        async def main() -> None:
            order: list[str] = []
            for letter in "ABCD":
                asyncio.get_running_loop().call_soon(order.append, letter)
            await asyncio.sleep(1.0)
            orders.append("".join(order))

        VirtualLoop(pick).run(main())

    found = explore(shuffle, limit=1000)
    assert (found.exhausted, found.schedules) == (True, 24)
    assert len(set(orders)) == 24
    assert orders[0] == "ABCD"


def test_an_exploration_that_can_end_does() -> None:
    orders: list[str] = []

    def race(pick: Pick) -> None:
        async def main() -> None:
            order: list[str] = []

            async def runs(letter: str) -> None:
                order.append(letter)
                await asyncio.sleep(1.0)
                order.append(letter)

            await asyncio.wait([asyncio.ensure_future(runs(letter)) for letter in "AB"])
            orders.append("".join(order))

        VirtualLoop(pick).run(main())

    found = explore(race, limit=1000)
    assert found.exhausted
    assert found.schedules == len(orders)
    assert set(orders) == {"ABAB", "ABBA", "BAAB", "BABA"}


def test_a_wait_without_end_is_a_deadlock() -> None:
    with pytest.raises(Deadlock):
        VirtualLoop().run(forever())

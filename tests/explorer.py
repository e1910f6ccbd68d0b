"""Runs asyncio code in virtual time, under every order its ready callbacks could take.

`VirtualLoop` does no I/O, and its clock jumps to the next timer when nothing is ready. Which ready
callback runs next is asked of `pick`: the first one is what asyncio itself would take. asyncio
promises that order only among callbacks that became ready together on one loop, so code that is
right under every pick does not lean on it.

`explore` runs a scenario again and again: first in asyncio's order, then with one departure from
it, then with two, and so on, each schedule once, until none is left or the limit is reached; after
that it draws schedules at random.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")
P = ParamSpec("P")

Pick = Callable[[int], int]
"""Which of n > 1 ready callbacks runs next: 0 … n - 1, in the order they became ready."""


def first(_: int) -> int:
    """As asyncio does."""
    return 0


class Deadlock(AssertionError):
    """Nothing is ready, no timer runs, and the main coroutine has not ended."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time and order are made up.

    `after_step` is called after every callback, `when_idle` whenever nothing is ready and the clock
    is about to move. What they raise ends the run.
    """

    _running = False

    def __init__(self, pick: Pick = first) -> None:
        super().__init__()
        self._pick = pick
        self._now = 0.0
        self._queue: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self.after_step: Callable[[], None] = lambda: None
        self.when_idle: Callable[[], None] = lambda: None
        self.complaints: list[str] = []
        """What reached the exception handler: never-retrieved exceptions, failing callbacks."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main`, cancel what it left behind, and close; AssertionError on a complaint."""
        try:
            result = self.run_until_complete(main)
        finally:
            self.after_step = self.when_idle = lambda: None
            self._pick = first
            if left := asyncio.all_tasks(self):
                for task in left:
                    task.cancel()
                self.run_until_complete(asyncio.wait(left, timeout=3600))
            self.close()
        assert not self.complaints, self.complaints
        return result

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def is_running(self) -> bool:
        return self._running

    def stop(self) -> None:
        self._running = False

    def run_forever(self) -> None:
        self._running = True
        asyncio._set_running_loop(self)
        try:
            while self._running:
                self._step()
        finally:
            self._running = False
            asyncio._set_running_loop(None)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is skipped when its time comes."""

    def _step(self) -> None:
        while not self._queue:
            self.when_idle()
            self._pass_time()
        n = len(self._queue)
        handle = self._queue.pop(self._pick(n) if n > 1 else 0)
        if not handle.cancelled():
            handle._run()
            self.after_step()

    def _pass_time(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise Deadlock("nothing is ready, and nothing ever will be")
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                self._queue.append(timer)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a VirtualLoop, in asyncio's order: exact times, and nobody waits."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        VirtualLoop().run(test(*args, **kwargs))

    return run


# Exploring


class Violation(AssertionError):
    """An invariant does not hold: its number, and what was seen."""

    def __init__(self, invariant: int, seen: str) -> None:
        super().__init__(f"invariant {invariant}: {seen}")
        self.invariant = invariant


@dataclass(frozen=True, slots=True)
class Found:
    """What an exploration came to."""

    schedules: int
    exhausted: bool
    """Whether these were all the schedules there are."""
    violation: Violation | None = None
    choices: tuple[int, ...] = ()
    """The picks that lead to the violation, to run it again: `replay`."""


class _Schedule:
    """Follows given picks, then `further` ones, and notes how many there were to choose from."""

    def __init__(self, given: tuple[int, ...], further: Pick = first) -> None:
        self._given = given
        self._further = further
        self.choices: list[int] = []
        self.widths: list[int] = []

    def __call__(self, n: int) -> int:
        at = len(self.choices)
        choice = self._given[at] if at < len(self._given) else self._further(n)
        assert choice < n, "the scenario is not deterministic: a replay took another way"
        self.choices.append(choice)
        self.widths.append(n)
        return choice


Run = Callable[[Pick], None]
"""Runs a scenario under these picks; raises Violation."""


def replay(run: Run, choices: tuple[int, ...]) -> None:
    """Run one schedule again."""
    run(_Schedule(choices))


def explore(run: Run, *, limit: int, samples: int = 0, seed: int = 0) -> Found:
    """Run at most `limit` schedules in order of their departures, and `samples` random ones.

    Stops at the first violation. Each schedule is named by its picks up to the last departure,
    so every one is run exactly once; the random ones may repeat some.
    """
    waiting: deque[tuple[int, ...]] = deque([()])
    runs = 0
    dropped = False
    while waiting and runs < limit:
        given = waiting.popleft()
        schedule = _Schedule(given)
        runs += 1
        if violation := _violation(run, schedule):
            return Found(runs, False, violation, tuple(schedule.choices))
        for at in range(len(given), len(schedule.widths)):
            for choice in range(1, schedule.widths[at]):
                if runs + len(waiting) >= limit:
                    dropped = True
                else:
                    waiting.append((*schedule.choices[:at], choice))
    if not waiting and not dropped:
        return Found(runs, True)
    dice = random.Random(seed)
    for _ in range(samples):
        schedule = _Schedule((), dice.randrange)
        runs += 1
        if violation := _violation(run, schedule):
            return Found(runs, False, violation, tuple(schedule.choices))
    return Found(runs, False)


def _violation(run: Run, schedule: _Schedule) -> Violation | None:
    try:
        run(schedule)
    except Violation as violation:
        return violation
    return None

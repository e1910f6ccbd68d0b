"""How often something may happen: a bucket that fills evenly and empties with each take.

Not the `limits` library: its store in memory begins a task or a thread with every hit and looks
through all of its keys in it. What is asked here is answered in the same step.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class Rate:
    """At most `count` times in any `seconds`, and afterwards evenly.

    The generic cell rate algorithm: one number, the time at which the bucket will be full again.
    """

    __slots__ = ("_clock", "_every", "_full_at", "_seconds")

    def __init__(
        self, count: float, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every = seconds / count
        self._seconds = seconds
        self._clock = clock
        self._full_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether nothing of it is used: a new one would be the same."""
        return self._full_at <= self._clock()

    def take(self) -> float:
        """0.0 when it may happen now; else nothing is taken, and in so many seconds it may."""
        now = self._clock()
        full_at = max(self._full_at, now) + self._every
        # Times are large numbers, and their sums a little off.
        if full_at - now > self._seconds + 1e-6:
            return full_at - now - self._seconds
        self._full_at = full_at
        return 0.0


class Limiter(Protocol):
    """A rate for each name."""

    async def take(self, name: str) -> float:
        """See Rate.take."""
        ...


class Rates:
    """See Limiter, in this process; past `most`, names that were used longest ago are forgotten."""

    def __init__(
        self,
        count: float,
        seconds: float,
        *,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._rates: OrderedDict[str, Rate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rates)

    async def take(self, name: str) -> float:
        """See Limiter.take."""
        rate = self._rates.get(name)
        if rate is None:
            rate = self._rates[name] = Rate(self._count, self._seconds, self._clock)
        self._rates.move_to_end(name)
        wait = rate.take()
        # A few each time: those at the front have been left alone longest.
        for _ in range(2):
            oldest, its = next(iter(self._rates.items()))
            if its.is_full or len(self._rates) > self._most:
                del self._rates[oldest]
            if not self._rates:
                break
        return wait

"""The clock of Redis or of the database, compared with this process's own.

Leases there end by that clock, which may step: a machine was suspended, an operator set the time,
another primary took over. A lease that has run out proves that its process is dead only while that
clock advances as this process's monotonic clock does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

TOLERANCE: Final = 0.25
"""Seconds by which the two clocks may differ between two readings without it being a step."""

MAX_ROUND_TRIP: Final = 1.0
"""Seconds; a reading that took longer says too little."""


class StoreClock:
    """What is known of one server's clock. Times are in seconds, of the server since 1970."""

    __slots__ = ("_high", "_low", "_now", "furthest", "steady_since")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._low = self._high = -math.inf
        """What to add to the monotonic clock: at least, and at most."""
        self.steady_since = math.inf
        """Since when the clock has not stepped, on the monotonic clock."""
        self.furthest = -math.inf
        """The highest that was ever to be added."""

    def forget(self) -> None:
        """Another server may answer from now on."""
        self._low = self._high = -math.inf
        self.steady_since = math.inf

    def observe(self, reading: float, sent: float, received: float, place: str = "") -> None:
        """Compare a reading with the monotonic times at which it was asked for and came."""
        if received - sent > MAX_ROUND_TRIP:
            return
        low, high = reading - received, reading - sent
        is_known = self._low > -math.inf
        if not is_known or low > self._high + TOLERANCE or high < self._low - TOLERANCE:
            if is_known:
                logger.warning(
                    "store_clock_stepped place={} seconds={:.1f}", place, low - self._low
                )
            self.steady_since = received
        self._low, self._high = low, high
        self.furthest = max(self.furthest, high)

    def horizon(self, grace: float) -> float:
        """Return the time, of the server's clock, before which a lease that has ended is over.

        A step that has not been observed yet does not move it. 0.0 until the clock has been steady
        for `grace` seconds: no lease is over then.
        """
        now = self._now()
        if now - self.steady_since < grace:
            return 0.0
        return now + self._low

"""The clock of Redis or of the database, compared with this process's own.

That clock ends the leases, and it may step: a machine was suspended, an operator set the time,
another primary took over. An expired lease proves that its process is dead only while that
clock advances like this process's monotonic clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

TOLERANCE: Final = 0.25
"""Seconds by which the difference of the clocks may change between two readings without a step."""

MAX_ROUND_TRIP: Final = 1.0
"""Seconds; a reading that took longer is too imprecise and is ignored."""


class StoreClock:
    """An estimate of one server's clock. Times are in seconds; the server's are Unix times."""

    __slots__ = ("_high", "_low", "_now", "furthest", "steady_since")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._low = self._high = -math.inf
        """The lower and upper bound of the server's clock minus the monotonic clock."""
        self.steady_since = math.inf
        """The time of the last step, on the monotonic clock."""
        self.furthest = -math.inf
        """The highest upper bound so far."""

    def forget(self) -> None:
        """Discard the estimate, because another server may reply from now on."""
        self._low = self._high = -math.inf
        self.steady_since = math.inf

    def observe(self, reading: float, sent: float, received: float, place: str = "") -> None:
        """Compare a reading with the monotonic times of its request and its reply."""
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
        """Return the time on the server's clock before which an ended lease counts as expired.

        A step that has not been observed yet does not move it. Return 0.0 until the clock has been
        steady for `grace` seconds: no lease counts as expired then.
        """
        now = self._now()
        if now - self.steady_since < grace:
            return 0.0
        return now + self._low

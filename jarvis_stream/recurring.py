"""Failures that repeat: logged at once, then once a minute with how often they happened."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from loguru import logger as default_logger

if TYPE_CHECKING:
    from loguru import Logger

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines about the same failure."""

MAX_KEYS: Final = 100
"""Failures that are told apart at a time."""


class RecurringLog:
    """Logs each kind of failure at once, and while it goes on, once a minute."""

    def __init__(self, interval: float = LOG_INTERVAL) -> None:
        self._interval = interval
        self._failures: dict[str, tuple[float, int]] = {}
        """By key: when it was logged, and how often it happened since."""

    def log(
        self,
        level: str,
        event: str,
        *values: object,
        key: str = "",
        error: BaseException | None = None,
        to: Logger = default_logger,
    ) -> bool:
        """Log `event` (a format of loguru's) unless that was done a short while ago.

        `key` names the kind of failure, the event by default. `times=` is added when it
        happened more than once since the last line. Returns whether a line was logged.
        """
        key = key or event
        now = time.monotonic()
        logged_at, times = self._failures.get(key, (None, 0))
        times += 1
        if logged_at is not None and now - logged_at < self._interval:
            self._failures[key] = logged_at, times
            return False
        if len(self._failures) >= MAX_KEYS:
            self._failures.clear()
        self._failures[key] = now, 0
        count = f" times={times}" if times > 1 else ""
        to.opt(depth=1, exception=error).log(level, event + count, *values)
        return True

    def recovered(self, key: str = "") -> None:
        """Let the next failure be logged at once: of one kind, or of all."""
        if key:
            self._failures.pop(key, None)
        else:
            self._failures.clear()

"""Names the code that blocks the event loop, while it blocks it.

    WARNING loop_blocked ms=612 stream=… at=/srv/agent.py:14 agent

A timer of the loop leaves a time stamp. A thread looks at it; when the loop has not come back to
the timer for BLOCKED_AFTER seconds, the thread samples the stack of the loop's thread. A token
pays nothing for it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from contextvars import Context
from typing import TYPE_CHECKING, Final, Self

from loguru import logger

from jarvis_stream.journal import CURRENT_STREAM
from jarvis_stream.stacks import Place, agent_place, running_at

if TYPE_CHECKING:
    from loguru import Logger

BEAT_INTERVAL: Final = 0.25
"""Seconds between two time stamps, and between two looks at them."""

BLOCKED_AFTER: Final = 0.75
"""Seconds without a time stamp after which the loop counts as blocked."""

REPORT_INTERVAL: Final = 60.0
"""Seconds between two reports of the same line of code."""

MAX_PLACES: Final = 100
"""Lines of code that are remembered, so that they are not reported too often."""


class LoopWatchdog:
    """Watches the running loop; a context manager, entered on the loop's own thread."""

    def __init__(self) -> None:
        self.blocked = 0
        """How often the loop was blocked."""
        self._reported: dict[Place | None, float] = {}
        self._suppressed = 0
        self._ids: dict[str, str] = {}
        self._is_reported = False
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ident = threading.get_ident()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._timer.cancel()
        self._thread.join(BLOCKED_AFTER)

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()
        self._timer = self._loop.call_later(BEAT_INTERVAL, self._beat)

    # In the thread

    def _watch(self) -> None:
        looked_at = time.monotonic()
        reported_at = None
        """The time stamp of the block that is reported already."""
        while not self._stop.wait(BEAT_INTERVAL):
            before, looked_at = looked_at, time.monotonic()
            beaten_at = self._beaten_at
            if reported_at is not None and beaten_at != reported_at:
                self._on_end(beaten_at - reported_at)
                reported_at = None
            if looked_at - before > BLOCKED_AFTER:
                # This thread had no time either: the machine was busy, or asleep.
                continue
            if looked_at - beaten_at > BLOCKED_AFTER and reported_at is None:
                places = running_at(sys._current_frames().get(self._ident))
                if _is_idle(places):
                    continue
                reported_at = beaten_at
                self._on_block(looked_at - beaten_at, places)

    def _on_block(self, seconds: float, places: list[Place]) -> None:
        self.blocked += 1
        place = agent_place(places)
        now = time.monotonic()
        last = self._reported.get(place)
        if last is not None and now - last < REPORT_INTERVAL:
            self._suppressed += 1
            self._is_reported = False
            return
        if len(self._reported) >= MAX_PLACES:
            self._reported.clear()
        self._reported[place] = now
        suppressed, self._suppressed = self._suppressed, 0
        self._is_reported = True
        self._ids = _current_ids(self._loop)
        innermost = places[-1] if places else None
        self._logger.warning(
            "loop_blocked ms={} stream={} at={} in={} suppressed={}",
            round(1000 * seconds),
            self._ids.get("stream", "-"),
            place or "-",
            innermost.function if innermost else "-",
            suppressed,
        )

    def _on_end(self, seconds: float) -> None:
        if self._is_reported:
            self._logger.warning(
                "loop_unblocked ms={} stream={}",
                round(1000 * seconds),
                self._ids.get("stream", "-"),
            )

    @property
    def _logger(self) -> Logger:
        return logger.bind(**self._ids)


def _current_ids(loop: asyncio.AbstractEventLoop) -> dict[str, str]:
    """The ids of the stream whose task, or whose subtask, runs on a loop of another thread."""
    task = asyncio.current_task(loop)
    # Python 3.11 shows a task's context to the collector only.
    context = next((o for o in gc.get_referents(task) if isinstance(o, Context)), None)
    ids = context.get(CURRENT_STREAM, None) if context is not None else None
    return {} if ids is None else dict(ids)


def _is_idle(places: list[Place]) -> bool:
    """Whether the loop itself is innermost: it waits for events, or was not given the processor."""
    inner = [place for place in places[-2:] if not place.file.endswith("selectors.py")]
    return not inner or inner[-1].file.endswith(("asyncio/base_events.py", "asyncio/runners.py"))

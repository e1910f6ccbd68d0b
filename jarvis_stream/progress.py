"""How long streams have been silent, sampled: a token pays nothing for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final, Self

from jarvis_stream.stream import Stream

SAMPLE_INTERVAL: Final = 1.0
"""Seconds between two samples: silences are known as precisely as that."""

MAX_STREAMS_PER_STEP: Final = 1000
"""Streams that are looked at in one step of the event loop."""


class ProgressSampler:
    """Notes for every stream when it was last seen to have a new frame.

    A context manager; must be entered on the running loop.
    """

    def __init__(self, streams: Iterable[Stream], interval: float = SAMPLE_INTERVAL) -> None:
        self._streams = streams
        self._interval = interval

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_later(self._interval, self._sample)
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def _sample(self) -> None:
        self._left = list(self._streams)
        self._step()

    def _step(self) -> None:
        part, self._left = self._left[:MAX_STREAMS_PER_STEP], self._left[MAX_STREAMS_PER_STEP:]
        now = time.monotonic()
        for stream in part:
            stream.note_progress(now)
        if self._left:
            self._timer = self._loop.call_soon(self._step)
        else:
            self._timer = self._loop.call_later(self._interval, self._sample)

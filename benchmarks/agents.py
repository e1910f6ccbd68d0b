"""Who speaks while it is measured: the same async generator in every server written in Python.

Its script is the prompt, words like `tokens=1000 burst=16`:

    tokens=N    how many tokens; `hold` after them: then silence until it is cancelled
    burst=N     so many of them without a turn of the event loop between (1)
    rate=N      so many a second instead; each then holds the time at which it was due
    size=N      characters of a token (6)
    at=N        nothing before this time, in nanoseconds of CLOCK_MONOTONIC

    jarvis-stream --agent benchmarks.agents:speak
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jarvis_stream.agents.base import Turn


class TimerWheel:
    """One timer for every paced answer of the process: a source that costs little."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._spokes: dict[int, list[asyncio.Future[None]]] = {}
        self._at = time.monotonic_ns() // 1_000_000
        self._turn()

    def until(self, due: int) -> asyncio.Future[None]:
        """Done at `due`, in nanoseconds of CLOCK_MONOTONIC, or within the millisecond after it."""
        waiter = self._loop.create_future()
        millisecond = max(due // 1_000_000 + 1, self._at + 1)
        self._spokes.setdefault(millisecond, []).append(waiter)
        return waiter

    def _turn(self) -> None:
        now = time.monotonic_ns() // 1_000_000
        while self._at < now:
            self._at += 1
            for waiter in self._spokes.pop(self._at, ()):
                if not waiter.done():
                    waiter.set_result(None)
        self._loop.call_later(0.001, self._turn)


_wheels: dict[asyncio.AbstractEventLoop, TimerWheel] = {}


def wheel() -> TimerWheel:
    """The running loop's wheel."""
    loop = asyncio.get_running_loop()
    if loop not in _wheels:
        _wheels[loop] = TimerWheel()
    return _wheels[loop]


async def answer(prompt: str) -> AsyncIterator[str]:
    """The tokens that a prompt asks for."""
    words = dict(word.partition("=")[::2] for word in prompt.split())
    tokens = int(words.get("tokens", 1))
    if "at" in words:
        await wheel().until(int(words["at"]))
    if "rate" in words:
        timer = wheel()
        apart = 1_000_000_000 // int(words["rate"])
        padding = " " * max(1, int(words.get("size", 0)) - 16)
        due = time.monotonic_ns()
        for _ in range(tokens):
            due += apart
            if time.monotonic_ns() < due:
                await timer.until(due)
            else:
                await asyncio.sleep(0)
            yield f"t{due}{padding}"
    else:
        text = "token " + "." * (int(words.get("size", 6)) - 6)
        burst = int(words.get("burst", 1))
        for number in range(1, tokens + 1):
            yield text
            if number % burst == 0:
                await asyncio.sleep(0)
    if "hold" in words:
        await asyncio.get_running_loop().create_future()


def speak(turn: Turn) -> AsyncIterator[str]:
    """The agent of the server that is measured."""
    return answer(turn.prompt)

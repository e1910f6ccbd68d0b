"""Code that blocks the event loop is named."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
from house import House
from profiles import patience

from jarvis_stream import watchdog
from jarvis_stream.agents.base import Turn
from jarvis_stream.watchdog import LoopWatchdog

PATIENCE = patience(30.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "BEAT_INTERVAL", 0.01)
    monkeypatch.setattr(watchdog, "BLOCKED_AFTER", 0.1)


def block_until(is_over: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_over() and time.monotonic() < until:
        time.sleep(0.01)


async def test_an_agent_that_blocks_the_loop_is_named_with_its_stream_and_line(
    log_lines: list[str],
) -> None:
    dog = LoopWatchdog()

    async def blocks(turn: Turn) -> AsyncIterator[str]:
        yield "a"
        block_until(lambda: any(line.startswith("loop_blocked") for line in log_lines))

    async def blocks_in_a_subtask(turn: Turn) -> AsyncIterator[str]:
        async def sub() -> None:
            block_until(lambda: dog.blocked == 2)

        yield "a"
        await asyncio.create_task(sub())

    house = House(first=blocks, second=blocks_in_a_subtask)
    with dog:
        await house.open("A", "first").stopped
        while not any(line.startswith("loop_unblocked") for line in log_lines):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await house.open("B", "second").stopped
    (first, *_) = [line for line in log_lines if line.startswith("loop_blocked")]
    line = block_until.__code__.co_firstlineno + 3
    assert f" stream=A at={__file__}:{line} block_until " in first
    assert dog.blocked == 2
    # The same line of code is reported once a minute.
    assert sum(line.startswith("loop_blocked") for line in log_lines) == 1


async def test_the_ids_of_a_subtask_are_its_streams(log_lines: list[str]) -> None:
    dog = LoopWatchdog()

    async def blocks_in_a_subtask(turn: Turn) -> AsyncIterator[str]:
        async def sub() -> None:
            block_until(lambda: dog.blocked == 1)

        yield "a"
        await asyncio.create_task(sub())

    house = House(hello=blocks_in_a_subtask)
    with dog:
        await house.open("B", "hello").stopped
        while not any(line.startswith("loop_unblocked") for line in log_lines):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert any(line.startswith("loop_blocked") and " stream=B " in line for line in log_lines)


async def test_a_loop_that_waits_is_not_blocked(log_lines: list[str]) -> None:
    with LoopWatchdog() as dog:
        await asyncio.sleep(0.3)
    assert dog.blocked == 0
    assert "loop-watchdog" not in {thread.name for thread in threading.enumerate()}

"""A few threads for what blocks: one hop there and one back, however much is done in between."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Threads that do one thing after another, each the oldest that nobody has begun.

    Not an executor: the interpreter waits at its end for an executor's threads, and a disk that
    hangs would hold up the process for ever.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Do it on one of the threads; returns or raises what it does.

        Cancelled before it has begun, it is not done at all; later, it goes on for nobody.
        """
        job = _Job(work)
        self._jobs.put(job)
        result: T = await job.future
        return result

    def close(self) -> None:
        """Let the threads end when what was asked of them so far is done."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.do()
            del job  # what it holds is not kept until the next one comes


class _Job:
    __slots__ = ("_work", "future")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._work = work

    def do(self) -> None:
        if self.future.cancelled():
            return
        try:
            self._tell(self.future.set_result, self._work())
        except BaseException as error:
            self._tell(self.future.set_exception, error)

    def _tell(self, how: Callable[[Any], object], value: Any) -> None:
        def tell() -> None:
            if not self.future.done():
                how(value)

        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
            self.future.get_loop().call_soon_threadsafe(tell)

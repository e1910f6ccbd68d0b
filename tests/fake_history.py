"""A history that takes its time, or cannot save: what the streams must do without."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TypeVar

from jarvis_stream.history.base import Answer, Begun, TurnEnd, TurnStart
from jarvis_stream.history.memory import MemoryHistory

T = TypeVar("T")


class SlowHistory(MemoryHistory):
    """Does everything at once, but tells of it only after so many seconds.

    None: it tells at once; 0: as soon as the loop comes to it. While `saves` is False it tells
    that nothing was saved.
    """

    def __init__(
        self,
        *,
        begin_after: float | None = None,
        finish_after: float | None = None,
        saves: bool = True,
    ) -> None:
        super().__init__()
        self.begin_after = begin_after
        self.finish_after = finish_after
        self.saves = saves

    def begin(self, turn: TurnStart, answer: Answer) -> asyncio.Future[Begun]:
        """See History.begin."""
        begun = super().begin(turn, answer).result()
        return _told(replace(begun, saved=begun.saved and self.saves), self.begin_after)

    def finish(self, stream_id: str, end: TurnEnd) -> asyncio.Future[bool]:
        """See History.finish."""
        saved = super().finish(stream_id, end).result() and self.saves
        return _told(saved, self.finish_after)


def _told(value: T, after: float | None) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    if after is None:
        future.set_result(value)
    elif after == 0:
        loop.call_soon(_tell, future, value)
    else:
        loop.call_later(after, _tell, future, value)
    return future


def _tell(future: asyncio.Future[T], value: T) -> None:
    if not future.done():  # its reader may have been cancelled
        future.set_result(value)

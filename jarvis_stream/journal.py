"""The lines that come with every answer, on their way to the log.

There are up to five of them for each answer, thousands a second where answers are short, and loguru
takes 50 to 70 microseconds for a line: more than all else that it takes to end an answer. Whoever
sets up the log may therefore open a shorter way to the same place (see logs.configure). Without it
they go through loguru, like everything else that is logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple

from loguru import logger


class Line(NamedTuple):
    """One line, of level INFO."""

    at: int
    """When it was told, in nanoseconds since the epoch."""
    text: str
    trace: str
    session: str
    stream: str
    """Whose it is."""

    @property
    def ids(self) -> dict[str, str]:
        """Whose it is, as the log's fields."""
        return {"trace": self.trace, "session": self.session, "stream": self.stream}


CURRENT_STREAM: Final[ContextVar[Mapping[str, str]]] = ContextVar("current_stream")
"""The ids (`trace`, `session`, `stream`) of the stream whose task, or whose subtask, runs."""

Outlet = Callable[[Line], None]

_outlet: Outlet | None = None


def open_outlet(outlet: Outlet | None) -> None:
    """Give every line from now on to `outlet`, which must not raise; None: to loguru."""
    global _outlet
    _outlet = outlet


def tell(text: str, trace: str, session: str, stream: str) -> None:
    """Log a line of an answer's life. Never waits."""
    line = Line(time.time_ns(), text, trace, session, stream)
    if _outlet is None:
        logger.bind(**line.ids).opt(depth=1).info("{}", text)
    else:
        _outlet(line)

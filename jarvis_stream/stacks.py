"""Where code waits or runs: the places of a stack, and the one that an agent's author knows."""

from __future__ import annotations

import asyncio
import gc
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, NamedTuple

MAX_DEPTH: Final = 50
"""Places of a stack that are listed; the outermost ones come first."""

_MAX_STEPS: Final = 200

_DRIVEN: Final = (CoroutineType, AsyncGeneratorType, GeneratorType, asyncio.Future)

_PACKAGE: Final = str(Path(__file__).parent)
_LIBRARIES: Final = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_PRODUCE: Final = (str(Path(__file__).parent / "stream.py"), "Stream.produce")
"""The place in a stream's task below which everything is the agent's."""


class Place(NamedTuple):
    """A line of code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        text = f"{self.file}:{self.line} {self.function}"
        return text.encode(errors="backslashreplace").decode()  # a file's name may be any bytes

    @property
    def is_library(self) -> bool:
        """Whether it belongs to Python or to an installed package that is not this one."""
        return self.file.startswith((*_LIBRARIES, "<frozen")) and not self.is_ours

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this package."""
        return self.file.startswith(_PACKAGE)


def waiting_at(task: asyncio.Task[None]) -> list[Place]:
    """The places at which a suspended task waits, outermost first; empty when it has ended.

    Follows coroutines, async generators and the tasks that they wait for.
    """
    return [_place(frame) for frame in _suspended(task)]


def running_at(frame: FrameType | None) -> list[Place]:
    """The innermost places of a running stack, outermost first."""
    places: list[Place] = []
    while frame is not None and len(places) < 2 * MAX_DEPTH:
        places.append(_place(frame))
        frame = frame.f_back
    return places[::-1]


def agent_place(places: Sequence[Place]) -> Place | None:
    """The innermost place in the agent's own code; else in this package's; None for no places."""
    own = [place for place in places if not place.is_library]
    for index, place in enumerate(places):
        if (place.file, place.function) == _PRODUCE and places[index + 1 :]:
            # An agent that is an installed package has nothing but libraries.
            inner = places[index + 1 :]
            return next((p for p in reversed(inner) if not p.is_library), inner[0])
    return own[-1] if own else (places[-1] if places else None)


def _place(frame: FrameType) -> Place:
    code = frame.f_code
    return Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)


def _suspended(awaited: Any) -> Iterator[FrameType]:
    depth = 0
    seen: set[int] = set()
    for _ in range(_MAX_STEPS):
        if awaited is None or id(awaited) in seen or depth >= MAX_DEPTH:
            return
        seen.add(id(awaited))
        frame: FrameType | None = None
        if _is_a(awaited, CoroutineType):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif _is_a(awaited, AsyncGeneratorType):
            frame, awaited = awaited.ag_frame, awaited.ag_await
        elif _is_a(awaited, GeneratorType):
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        elif _is_a(awaited, asyncio.Task):
            awaited = None if awaited.done() else awaited.get_coro()
        elif _is_a(awaited, asyncio.Future):
            return
        else:
            # What `anext`, `asend`, `__await__` return shows what it drives to the collector only.
            awaited = next((o for o in gc.get_referents(awaited) if _is_a(o, *_DRIVEN)), None)
        if frame is not None:
            depth += 1
            yield frame


def _is_a(value: Any, *kinds: type) -> bool:
    """Whether it is an instance; `isinstance` would run code of the agent's, a `__class__`."""
    return issubclass(type(value), kinds)

"""Scripted agents, and a reader: what the tests put on either side of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import AsyncGeneratorType
from typing import Any

import orjson

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.stream import Followed, Follower

Script = Callable[[Turn], AsyncGenerator[Piece, None]]

SECRET = "sk-live-do-not-tell"
"""Stands in what the failing agents raise, and must never reach a reader."""


class FakeAgents:
    """Answers each prompt with the script of that name, and can tell whose agent still runs."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts = scripts
        self.turns: list[Turn] = []
        self._generators: dict[str, AsyncGenerator[Piece, None]] = {}

    def __call__(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        self.turns.append(turn)
        generator = self.scripts[turn.prompt](turn)
        self._generators[turn.stream_id] = generator
        return generator

    def running(self, stream_id: str) -> bool:
        """Whether that stream's agent has begun and not ended, its cleanup included."""
        generator = self._generators.get(stream_id)
        return isinstance(generator, AsyncGeneratorType) and generator.ag_frame is not None


# Scripts, by what they do when they are cancelled


def says(*pieces: Piece) -> Script:
    """Says its pieces, giving way after each, and ends."""

    async def script(turn: Turn) -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)

    return script


def talks(*pieces: Piece) -> Script:
    """Says its pieces and falls silent until it is cancelled, which it obeys at once."""

    async def script(turn: Turn) -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield piece
        await forever()

    return script


class Tidy:
    """Like `talks`, but its cleanup takes `seconds`; knows how far the cleanups came."""

    def __init__(self, seconds: float, *pieces: Piece) -> None:
        self.seconds = seconds
        self.pieces = pieces
        self.begun = 0
        self.complete = 0
        self.cleaning = asyncio.Event()
        """Set when a cleanup has begun."""

    async def __call__(self, turn: Turn) -> AsyncGenerator[Piece, None]:
        try:
            for piece in self.pieces:
                yield piece
            await forever()
        finally:
            self.begun += 1
            self.cleaning.set()
            await asyncio.sleep(self.seconds)
            self.complete += 1


def stubborn(seconds: float, *pieces: Piece) -> Script:
    """Says its pieces, then swallows every cancellation for `seconds`, and says "late"."""

    async def script(turn: Turn) -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield piece
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
        yield "late"

    return script


def fails(error: BaseException, *pieces: Piece) -> Script:
    """Says its pieces and raises `error`."""

    async def script(turn: Turn) -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)
        raise error

    return script


async def forever() -> None:
    """Wait to be cancelled."""
    await asyncio.get_running_loop().create_future()


# The other side


def parse(data: bytes) -> list[dict[str, Any]]:
    """The frames of a body; fails unless it is whole lines, each a JSON object."""
    assert not data or data.endswith(b"\n")
    return [orjson.loads(line) for line in data.split(b"\n")[:-1]]


class FakeReader:
    """Follows one stream from `after` and keeps what it is given."""

    def __init__(self, stream: Followed, after: int = 0, *, full: bool = False) -> None:
        self.stream: Any = stream
        self.writes: list[bytes] = []
        self.full = full
        """Whether it refuses to take more."""
        self.ends = 0
        """How often it was told that the stream has ended."""
        self.losses = 0
        """How often it was told that the stream cannot be read here any more."""
        self._changed = asyncio.Event()
        self.follower = stream.follow(after, self)
        self.follower.catch_up()

    def take(self, frames: bytes) -> bool:
        """See stream.Reader."""
        if self.full:
            return False
        self.writes.append(frames)
        self._changed.set()
        return True

    def take_last(self, frames: bytes) -> bool:
        """See stream.Reader."""
        return self.take(frames)

    def fell_behind(self, follower: Follower) -> None:
        """See stream.Reader; it takes at once whatever fits."""
        while follower.behind and follower.catch_up():
            pass

    def delivered(self, follower: Follower) -> None:
        """See stream.Reader."""
        assert follower is self.follower
        self.ends += 1
        self._changed.set()

    def lost(self, follower: Follower) -> None:
        """See stream.Reader."""
        self.losses += 1
        self._changed.set()

    @property
    def data(self) -> bytes:
        """Every byte it was given."""
        return b"".join(self.writes)

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Every frame it was given."""
        return parse(self.data)

    @property
    def text(self) -> str:
        """The answer as far as it came."""
        return "".join(frame["text"] for frame in self.frames if frame["type"] == "token")

    def leave(self) -> None:
        """Stop reading."""
        self.follower.close()

    async def sees(self, text: str) -> None:
        """Wait until the answer contains `text`."""
        while text not in self.text:
            self._changed.clear()
            await self._changed.wait()

    async def begins(self) -> None:
        """Wait until the stream has said something, or has ended."""
        while not self.text and not self.ends:
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> dict[str, Any]:
        """Wait for the end, and give the terminal frame."""
        while not self.ends:
            self._changed.clear()
            await self._changed.wait()
        return self.frames[-1]


def read_all(stream: Followed, after: int = 0) -> bytes:
    """What the log replays after a position."""
    parts = []
    while after < stream.seq:
        after, frames = stream.read(after)
        parts.append(frames)
    return b"".join(parts)

"""Ended streams, kept replayable for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from jarvis_stream.shares import Shares
from jarvis_stream.stream import Stream


class _Kept(NamedTuple):
    stream: Stream
    due: float
    size: int
    """As it was then: its terminal frame may be still to come."""


class Shelf:
    """Keeps each ended stream for `seconds`, all of them together within `max_bytes`.

    Bounded both ways: past `max_bytes` the owner who uses most loses the oldest, and time alone
    empties it.
    """

    def __init__(self, *, seconds: float = 60.0, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._streams: OrderedDict[str, _Kept] = OrderedDict()
        self._of_owner: dict[str, OrderedDict[str, None]] = {}
        """The keys of each owner's streams, the oldest first."""
        self._shares = Shares()
        self._timer: asyncio.TimerHandle | None = None
        self.size = 0
        """The bytes held."""

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, key: str) -> Stream | None:
        """The stream with this key, if it is still here."""
        kept = self._streams.get(key)
        return kept.stream if kept else None

    def of(self, session_key: str) -> list[Stream]:
        """A session's streams."""
        streams = (kept.stream for kept in self._streams.values())
        return [stream for stream in streams if stream.session_key == session_key]

    def put(self, stream: Stream) -> None:
        """Keep an ended stream from now on."""
        if stream.key in self._streams or self._seconds <= 0:
            return
        due = stream.loop.time() + self._seconds
        self._streams[stream.key] = _Kept(stream, due, stream.size)
        self._of_owner.setdefault(stream.owner, OrderedDict())[stream.key] = None
        self._shares.add(stream.owner, stream.size)
        self.size += stream.size
        while self.size > self._max_bytes:
            self._evict(next(iter(self._of_owner[self._shares.largest(stream.owner)])))
        self._wind()

    def remove(self, stream: Stream) -> None:
        """Let one go, if it is here."""
        kept = self._streams.get(stream.key)
        if kept is not None and kept.stream is stream:
            self._evict(stream.key)
        self._wind()

    def drop(self, session_key: str, first: int, before: int) -> None:
        """Let a session's streams with an epoch from `first` on, and under `before`, go."""
        for key, kept in tuple(self._streams.items()):
            stream = kept.stream
            if stream.session_key == session_key and first <= stream.epoch < before:
                self._evict(key)
        self._wind()

    def clear(self) -> None:
        """Let everything go."""
        while self._streams:
            self._evict(next(iter(self._streams)))
        self._wind()

    def _evict(self, key: str) -> None:
        kept = self._streams.pop(key)
        owner = kept.stream.owner
        keys = self._of_owner[owner]
        del keys[key]
        if not keys:
            del self._of_owner[owner]
        self._shares.remove(owner, kept.size)
        self.size -= kept.size

    def _sweep(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._streams and next(iter(self._streams.values())).due <= now:
            self._evict(next(iter(self._streams)))
        self._wind()

    def _wind(self) -> None:
        if not self._streams:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            # All are kept equally long: the first one in is the first to go.
            due = next(iter(self._streams.values())).due
            self._timer = asyncio.get_running_loop().call_at(due, self._sweep)

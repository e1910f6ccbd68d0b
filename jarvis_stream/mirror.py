"""A stream of another node, as one reader here sees it.

    the stream's log in the store --read by this node's poller--> Mirror --> Follower --> its Reader

It has what a stream has for those who follow, so that no transport can tell. It holds only what
its reader has not taken yet, and asks for no more than WINDOW bytes: a slow reader costs that much,
however long the answer. Mirrors at the same place share their reading of the store.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from jarvis_stream.cluster.base import Name, Tail
from jarvis_stream.errors import CursorAhead
from jarvis_stream.ids import id_of
from jarvis_stream.stream import Follower, Reader, State

WINDOW: Final = 256 * 1024
"""Bytes that are read ahead of a reader; a last piece may go over it."""


class Feeder(Protocol):
    """Who reads the store for the mirrors that are followed."""

    def attach(self, mirror: Mirror) -> None:
        """Feed it."""
        ...

    def detach(self, mirror: Mirror) -> None:
        """Feed it no more. Idempotent."""
        ...


class Mirror:
    """See stream.Followed; of one reader only."""

    __slots__ = (
        "_closed",
        "_feeder",
        "_follower",
        "_pieces",
        "_size",
        "_watched",
        "epoch",
        "missing_since",
        "name",
        "seq",
        "session_id",
        "state",
        "stream_id",
        "trace_id",
    )

    def __init__(
        self,
        name: Name,
        feeder: Feeder,
        *,
        epoch: int,
        last: int = 0,
        closed: bool = False,
        watched: bool = False,
    ) -> None:
        """`last` is where the log ends now, `closed` whether that is its terminal frame; `watched`,
        whether its reader has not asked for this stream, but for all of its session."""
        self.name = name
        self.session_id = id_of(name.session)
        self.stream_id = id_of(name.stream)
        self.trace_id = name.trace_id
        self.epoch = epoch
        self.seq = last
        self.state = State.ACTIVE
        self.missing_since: float | None = None
        """Since when nothing was learnt of its log, on the monotonic clock."""
        self._closed = closed
        self._watched = watched
        self._feeder = feeder
        self._follower: Follower | None = None
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0

    def __repr__(self) -> str:
        return f"<Mirror {self.stream_id} epoch={self.epoch} {self.state.value} seq={self.seq}>"

    def follow(self, after: int, reader: Reader) -> Follower:
        """Attach its reader at `after`; raises CursorAhead for a position that is not there."""
        assert self._follower is None, "a mirror has one reader"
        if after > self.seq:
            raise CursorAhead(
                f"after={after} is past the end of stream {self.stream_id}, which is at {self.seq}"
            )
        if self._closed and after == self.seq:
            self.state = State.ENDED
        self.seq = after
        self._follower = Follower(self, after, reader)
        self._feeder.attach(self)
        return self._follower

    def unfollow(self, follower: Follower) -> None:
        """See stream.Followed."""
        self._feeder.detach(self)
        self._pieces.clear()
        self._size = 0

    def read(self, after: int) -> tuple[int, bytes]:
        """See stream.Followed."""
        self._drop(after)
        return self._pieces[0] if self._pieces else (after, b"")

    # What the feeder does

    @property
    def has_room(self) -> bool:
        """Whether more of the log is wanted after `seq`."""
        if self._follower is not None:
            self._drop(self._follower.seq)
        return self._size < WINDOW and self.state is not State.ENDED

    def feed(self, tail: Tail) -> None:
        """Give its reader what the log holds after `seq`."""
        assert self._follower is not None
        self.missing_since = None
        self.epoch = tail.epoch
        if tail.last <= self.seq or self._follower.closed:
            return
        first, self.seq = self.seq, tail.last
        if tail.closed:
            self.state = State.ENDED
        self._pieces.append((tail.last, tail.frames))
        self._size += len(tail.frames)
        self._follower.offer(first, tail.last, tail.frames)
        self._drop(self._follower.seq)

    def lose(self) -> None:
        """The log cannot be read any more: its reader is let go."""
        if self._follower is not None:
            self._follower.lose()

    def vacate(self) -> None:
        """Its start came to nothing: one who only watches need not learn of it."""
        if self._watched and self.seq == 0 and self._follower is not None:
            self.state = State.ENDED
            self._follower.catch_up()
        else:
            self.lose()

    def _drop(self, upto: int) -> None:
        while self._pieces and self._pieces[0][0] <= upto:
            self._size -= len(self._pieces.popleft()[1])

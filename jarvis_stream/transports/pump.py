"""How frames leave: from any number of followers into one connection.

The two transports differ in how a piece of the stream is wrapped (an HTTP chunk, a WebSocket
message) and in nothing else here. While the socket takes them, frames are written in the very
loop turn in which they were made, without a task switch; when its buffer fills, followers fall
behind in their logs, which costs nothing, and catch up when it has drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from loguru import logger

from jarvis_stream.stream import Followed, Follower

HIGH_WATER: Final = 64 * 1024
"""Bytes in the process's own send buffer above which a connection counts as full."""

KERNEL_BUFFER: Final = 64 * 1024
"""Bytes asked for as the kernel's send buffer; it grows to megabytes by itself otherwise."""


class Parting(enum.Enum):
    """Why a pump has finished."""

    DELIVERED = "delivered"
    CLOSED = "closed"
    GONE = "gone"
    SLOW = "slow"
    EXPIRED = "expired"
    LOST = "lost"


def bound(transport: asyncio.WriteTransport | None) -> None:
    """Bound what a connection holds for a peer that reads nothing: once, before its first pump."""
    if transport is None:
        return
    transport.set_write_buffer_limits(high=HIGH_WATER)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # it may be gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)


class Pump:
    """Carries frames to one connection, which is `bound`.

    Nothing is written before `open`. `finished` tells when and why it is over: the connection is
    GONE, its reader took nothing for `stall_timeout` seconds (SLOW), what it carries cannot be read
    in this process any more (LOST), or, when `until_idle`, the terminal frame of its last follower
    has left, or is in `last` (DELIVERED). `close` must be awaited in the end.

    A connection that was silent for `heartbeat` seconds is sent `beat` (bytes as they go over the
    wire). Where `answered`, the peer has as long again to be `heard`; a full connection is not
    asked, it has the stall rule.
    """

    __slots__ = (
        "_answered",
        "_beat",
        "_drain",
        "_drainer",
        "_followers",
        "_full",
        "_gathered",
        "_heartbeat",
        "_owed",
        "_stall_timeout",
        "_timer",
        "_transport",
        "_unanswered",
        "_until_idle",
        "_watched",
        "_wrap",
        "_written",
        "finished",
        "last",
    )

    def __init__(
        self,
        transport: asyncio.WriteTransport | None,
        wrap: Callable[[bytes], bytes],
        *,
        beat: bytes,
        heartbeat: float,
        stall_timeout: float,
        answered: bool = False,
        until_idle: bool = False,
    ) -> None:
        self._transport = transport
        self._wrap = wrap
        self._beat = beat
        self._heartbeat = heartbeat
        self._answered = answered
        self._unanswered = False
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timeout = stall_timeout
        self._until_idle = until_idle
        self._drain: Callable[[], Awaitable[None]] | None = None
        self._drainer: asyncio.Task[None] | None = None
        self._followers: dict[str, Follower] = {}
        self._watched: dict[str, None] = {}  # empty, a third of a set
        self._full = True
        self._gathered: list[bytes] | None = None
        self.last = b""
        """What is left to write when all was DELIVERED: it may leave together with the end."""
        self._owed = 0
        self._written = False
        self.finished: asyncio.Future[Parting] = asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        """How many streams it follows."""
        return len(self._followers)

    @property
    def watched(self) -> int:
        """How many of them are only watched."""
        return len(self._watched)

    def is_watched(self, stream_id: str) -> bool:
        """Whether a stream is carried, but only watched."""
        return stream_id in self._watched

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._followers

    def follow(self, stream: Followed, after: int, *, watched: bool = False) -> None:
        """Carry a stream's frames from `after` on; raises CursorAhead.

        A stream that it carries already starts anew from `after`. One that is only `watched` can be
        dropped together with its session.
        """
        follower = stream.follow(after, self)
        previous = self._followers.get(stream.stream_id)
        self._followers[stream.stream_id] = follower
        if watched:
            self._watched[stream.stream_id] = None
        else:
            self._watched.pop(stream.stream_id, None)
        if previous is not None:
            previous.close()
        if not self._full:
            self._catch_up()

    def keep(self, stream_id: str) -> None:
        """Carry a watched stream for its own sake."""
        self._watched.pop(stream_id, None)

    def drop_watched(self, session_id: str) -> None:
        """Let go the streams of a session that are only watched."""
        for follower in tuple(self._followers.values()):
            stream = follower.stream
            if stream.session_id == session_id and stream.stream_id in self._watched:
                self._forget(follower)
                follower.close()

    def gather(self) -> bytes:
        """What there is already, for a caller who writes it before `open`, in his handshake."""
        self._full = self.finished.done()
        self._gathered = []
        self._catch_up()
        self._part_if_idle()
        gathered, self._gathered = b"".join(self._gathered), None
        self._full = True
        return gathered

    def open(self, drain: Callable[[], Awaitable[None]]) -> None:
        """The handshake is through: write. `drain` waits until the transport's buffer is low."""
        self._drain = drain
        self._full = self.finished.done()
        self._wind()
        self._catch_up()
        self._part_if_idle()

    def write(self, line: bytes) -> None:
        """Write a line that belongs to no log (a reply); full or not, but nothing once finished."""
        if self.finished.done():
            return
        if self._full:
            self._owed += len(line)
        was_full, self._full = self._full, False
        self.take(line)
        self._full |= was_full

    def heard(self) -> None:
        """The peer has given a sign of life."""
        self._unanswered = False

    @property
    def owes_much(self) -> bool:
        """Whether replies pile up because the peer asks on and reads nothing."""
        return self._owed > HIGH_WATER

    async def drained(self) -> None:
        """Wait while the connection is full, or until it has finished."""
        if self._drainer is not None:
            ends: list[asyncio.Future[Any]] = [self._drainer, self.finished]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    def abort(self) -> None:
        """Cut the connection, whatever its buffer still holds."""
        if self._transport is not None:
            # asyncio's fails when it was closed over a full buffer that is empty by now.
            with contextlib.suppress(AttributeError):
                self._transport.abort()

    def expire(self, *, renewable: bool = False) -> None:
        """Stop writing: the reader's sign-in has ended (EXPIRED).

        `renewable`: it has only expired. The reader may return with a new one, so its streams
        continue for a while.
        """
        if renewable and not self.finished.done():
            for follower in self._followers.values():
                follower.renewable = True
        self._finish(Parting.EXPIRED)

    async def close(self) -> None:
        """Let every follower go and stop writing (CLOSED, if it had not finished). Idempotent."""
        self._finish(Parting.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
        followers, self._followers = self._followers, {}
        for follower in followers.values():
            follower.close()
        drainer = self._drainer
        if drainer is not None:
            drainer.cancel()
            await asyncio.wait([drainer])

    # What its followers call

    def take(self, frames: bytes) -> bool:
        """See stream.Reader."""
        # The way of every token: what is called here decides how many a server can carry.
        if self._full:
            return False
        transport = self._transport
        if transport is None or transport.is_closing():
            self._finish(Parting.GONE)
            return True
        self._written = True
        if self._gathered is not None:
            self._gathered.append(frames)
            return True
        transport.write(self._wrap(frames))
        if transport.get_write_buffer_size() > HIGH_WATER:
            self._full = True
            self._start_draining()
        return True

    def take_last(self, frames: bytes) -> bool:
        """See stream.Reader."""
        if self._until_idle and not self._full and self._has_room_for(frames):
            self.last = frames
            return True
        return self.take(frames)

    def _has_room_for(self, frames: bytes) -> bool:
        """Whether they can be written at any later time without waiting for their reader."""
        return (
            self._transport is not None
            and len(self._followers) == 1
            and len(frames) + self._transport.get_write_buffer_size() < HIGH_WATER
        )

    def fell_behind(self, follower: Follower) -> None:
        """See stream.Reader."""
        self._start_draining()

    def delivered(self, follower: Follower) -> None:
        """See stream.Reader."""
        self._forget(follower)
        self._part_if_idle()

    def lost(self, follower: Follower) -> None:
        """See stream.Reader."""
        self._finish(Parting.LOST)

    def _forget(self, follower: Follower) -> None:
        stream_id = follower.stream.stream_id
        if self._followers.get(stream_id) is follower:
            del self._followers[stream_id]
            self._watched.pop(stream_id, None)

    # When there is nothing to say

    def _wind(self) -> None:
        # Twice as often: what was written just after a look is a heartbeat ago two looks later.
        self._timer = self.finished.get_loop().call_later(self._heartbeat / 2, self._give_sign)

    def _give_sign(self) -> None:
        if self.finished.done() or self._transport is None or self._transport.is_closing():
            self._finish(Parting.GONE)
            return
        is_silent, self._written = not self._written, False
        if is_silent and not self._full:
            if self._unanswered:
                self._finish(Parting.GONE)
                return
            self._transport.write(self._beat)
            self._written = True
            self._unanswered = self._answered
        self._wind()

    # When the socket is full, or a log is long

    def _catch_up(self) -> None:
        """Give each follower that is behind one piece; the drainer goes on with the rest."""
        for stream_id, follower in tuple(self._followers.items()):
            was_behind = follower.behind
            if follower.catch_up() and was_behind and stream_id in self._followers:
                # To the end of the line: one piece may fill the connection, round after round.
                self._followers[stream_id] = self._followers.pop(stream_id)
                if follower.behind:
                    self._start_draining()

    def _start_draining(self) -> None:
        if self._drainer is None and self._drain is not None and not self.finished.done():
            self._drainer = asyncio.create_task(self._make_room(self._drain))

    async def _make_room(self, drain: Callable[[], Awaitable[None]]) -> None:
        try:
            while self._full or any(follower.behind for follower in self._followers.values()):
                if not await self._flows(drain):
                    logger.info(
                        "reader_let_go reason=slow streams={}", ",".join(self._followers) or "none"
                    )
                    self._finish(Parting.SLOW)
                    return
                if self.finished.done():
                    return
                self._full = False
                self._owed = 0
                self._catch_up()
                self._part_if_idle()
                await asyncio.sleep(0)  # encoding a long log leaves room for others
        except ConnectionError:
            self._finish(Parting.GONE)
        finally:
            self._drainer = None

    async def _flows(self, drain: Callable[[], Awaitable[None]]) -> bool:
        """Wait until the buffer is low; False when its reader takes nothing for too long."""
        assert self._transport is not None
        # One drain, however long a slow reader takes: aiohttp keeps the future of a cancelled one
        # and has the next drain await it.
        draining = asyncio.ensure_future(drain())
        try:
            while True:
                before = self._transport.get_write_buffer_size()
                if (await asyncio.wait([draining], timeout=self._stall_timeout))[0]:
                    draining.result()
                    return True
                if self._transport.get_write_buffer_size() >= before:
                    return False
        finally:
            if draining.cancel():
                await asyncio.wait([draining])

    def _part_if_idle(self) -> None:
        # Not while it is full: the last frames are subject to the stall rule like all others.
        if self._until_idle and not self._followers and not self._full:
            self._finish(Parting.DELIVERED)

    def _finish(self, parting: Parting) -> None:
        if not self.finished.done():
            self._full = True  # there is no more room
            self.finished.set_result(parting)

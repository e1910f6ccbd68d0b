"""Looks at a client's WebSocket frames before aiohttp does.

aiohttp takes unmasked frames, and closes the connection in the middle of a message that is too
large: what it leaves unread resets the connection, and the client may never see why. So frames
that break these two rules end here: aiohttp is given a ping with a mark in their place, whoever
reads that closes the socket in its own time, and the rest of the connection is read and thrown
away, up to a bound.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import WSCloseCode

MARK: Final = secrets.token_bytes(16)
"""The payload of the ping that stands for a frame that is not let in. No client can guess it."""

MOST_THROWN_AWAY: Final = 4 * 2**20
"""Bytes read after such a frame; whoever sends more is cut off."""

_MARKED_PING: Final = bytes((0x89, 0x80 | len(MARK), 0, 0, 0, 0)) + MARK
_CLOSE: Final = 8
_MASKED: Final = 0x80
_FIN: Final = 0x80


class Parser(Protocol):
    """What aiohttp feeds with the bytes of a WebSocket."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Whether that was the end, and what is left over then."""
        ...

    def feed_eof(self) -> None:
        """The connection has ended."""
        ...


class Screen:
    """Feeds `parser` with what it may see (RFC 6455, 5.2); all else about frames is its business.

    `report(code, why)` is called once, when a frame is not masked or a message is larger than
    `most` bytes; `cut` when its sender goes on and on.
    """

    __slots__ = (
        "_closing",
        "_cut",
        "_left",
        "_message",
        "_most",
        "_parser",
        "_report",
        "_thrown",
        "_torn",
    )

    def __init__(
        self,
        parser: Parser,
        *,
        most: int,
        report: Callable[[WSCloseCode, str], None],
        cut: Callable[[], None],
    ) -> None:
        self._parser = parser
        self._most = most
        self._report = report
        self._cut = cut
        self._torn = b""
        self._left = 0
        self._message = 0
        self._closing = False
        self._thrown = 0

    def feed_eof(self) -> None:
        """See Parser."""
        self._parser.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """See Parser. The head of a frame is held back until it is whole."""
        if self._torn:
            data, self._torn = self._torn + data, b""
        if self._closing:
            return self._look_for_close(bytes(data))
        at, size = min(self._left, len(data)), len(data)
        self._left -= at
        while at < size:
            head = _head(data, at)
            if head is None:
                self._torn = bytes(data[at:])
                return self._parser.feed_data(data[:at]) if at else (False, b"")
            length, payload = head
            why = self._judge(data[at], data[at + 1], payload)
            if why is not None:
                self._closing = True
                self._report(*why)
                eof, rest = self._parser.feed_data(data[:at] + _MARKED_PING)
                return (eof, rest) if eof else self._look_for_close(bytes(data[at:]))
            at += length
            inside = min(payload, size - at)
            self._left = payload - inside
            at += inside
        return self._parser.feed_data(data)

    def _judge(self, first: int, second: int, payload: int) -> tuple[WSCloseCode, str] | None:
        if not second & _MASKED:
            return WSCloseCode.PROTOCOL_ERROR, "a client's frames are masked (RFC 6455, 5.1)"
        opcode = first & 0x0F
        if opcode >= _CLOSE:
            return None
        self._message = payload if opcode else self._message + payload
        if self._message > self._most:
            return (
                WSCloseCode.MESSAGE_TOO_BIG,
                f"a message is larger than {self._most} bytes",
            )
        return None

    def _look_for_close(self, data: bytes) -> tuple[bool, bytes]:
        """Throw everything away but the peer's close frame."""
        self._thrown += len(data)
        if self._thrown > MOST_THROWN_AWAY:
            self._cut()
            return False, b""
        at, size = min(self._left, len(data)), len(data)
        self._left -= at
        while at < size:
            head = _head(data, at)
            if head is None:
                self._torn = data[at:]
                self._thrown -= len(self._torn)  # it comes again
                break
            length, payload = head
            end = at + length + payload
            if data[at] & 0x0F == _CLOSE:
                if end > size and payload <= 125:
                    self._torn = data[at:]
                    self._thrown -= len(self._torn)
                    break
                return self._parser.feed_data(data[at:end])
            self._left = max(0, end - size)
            at = min(end, size)
        return False, b""


def _head(data: bytes, at: int) -> tuple[int, int] | None:
    """The length of the frame's head at that place, and of its payload; None: not all there."""
    there = len(data) - at
    if there < 2:
        return None
    masked, short = data[at + 1] & _MASKED, data[at + 1] & 0x7F
    extra = 2 if short == 126 else 8 if short == 127 else 0
    length = 2 + extra + (4 if masked else 0)
    if there < length:
        return None
    payload = int.from_bytes(data[at + 2 : at + 2 + extra], "big") if extra else short
    return length, payload

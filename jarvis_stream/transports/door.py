"""The door: aiohttp's protocol class, and what an open network needs beside it.

- Half-sent headers are answered 408 and closed after `header_timeout`.
- There are `most` connections at a time. When they are taken, the one that has waited longest
  without a request makes room; when each of them has a request, the new one is answered 503.
- What aiohttp itself refuses leaves as `{code, error}`, like every refusal, and is one line in
  the log.
- A connection whose peer acknowledges nothing any more is given up by the kernel, whoever owns it
  then (Linux: TCP_USER_TIMEOUT).
- WebSocket frames go through a Screen.

It overrides asyncio's protocol callbacks, and of aiohttp's only methods without an underscore.
An application served by something else (`web.run_app`) works, without these.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import orjson
from aiohttp import StreamReader, WSCloseCode, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong
from loguru import logger

from jarvis_stream.errors import (
    HeadersTooLarge,
    Malformed,
    Overloaded,
    Refused,
    TooSlow,
)
from jarvis_stream.ids import new_trace_id
from jarvis_stream.transports.answers import SERVER, internal_error, of_http, refusal
from jarvis_stream.transports.pump import HIGH_WATER, bound
from jarvis_stream.transports.requests import shorten
from jarvis_stream.transports.screen import Screen

LINGER: Final = 2.0
"""Seconds that a refused client has to take its answer before its connection is cut."""

LOOK_AGAIN: Final = 0.02
"""Seconds between two looks at the buffers, while the server waits to leave."""

MOST_TURNED_AWAY: Final = 64
"""Connections that are being answered 503 at a time; further ones are cut without a word."""


class Doors:
    """Every connection of a server; called, it gives the protocol of a new one.

    Times are in seconds, sizes in bytes. `refused` counts refusals by transport and code, `let_go`
    connections that were cut before their client had read everything.
    """

    def __init__(
        self,
        refused: Counter[tuple[str, str]],
        *,
        most: int,
        header_timeout: float,
        idle_timeout: float,
        send_timeout: float,
        stall_timeout: float,
        max_message: int,
        let_go: Counter[tuple[str, str]] | None = None,
    ) -> None:
        self.server: web.Server | None = None
        """Whose connections they are; there before the first one is."""
        self.refused = refused
        self.most = most
        self.header_timeout = header_timeout
        self.idle_timeout = idle_timeout
        self.send_timeout = send_timeout
        self.stall_timeout = stall_timeout
        self.let_go: Counter[tuple[str, str]] = Counter() if let_go is None else let_go
        self.max_message = max_message
        self._coming: weakref.WeakSet[Door] = weakref.WeakSet()
        """Those that asyncio has asked for and not connected yet; it may drop one."""
        self._open: set[Door] = set()
        self._waiting: dict[Door, None] = {}
        """Those without a request in hand, the longest waiting first."""
        self._answering: set[Door] = set()
        """Those with one; a WebSocket is none of them."""
        self._turned_away = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._coming) + len(self._open)

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection that has just been accepted."""
        if len(self) >= self.most:
            if not self._waiting:
                self.refused["http", Overloaded.code] += 1
                return TurnedAway(self)
            next(iter(self._waiting)).make_room()
        assert self.server is not None
        door = Door(self, self.server)
        self._coming.add(door)
        return door

    async def quiet(self) -> None:
        """Until no request is being answered, and the kernel has all that was."""
        await self._quiet.wait()
        while any(door.owes for door in self._open):
            await asyncio.sleep(LOOK_AGAIN)  # no transport tells when its buffer is empty
            await self._quiet.wait()

    def abort(self) -> None:
        """Cut every connection, whatever its buffer still holds."""
        for door in tuple(self._open):
            if door.transport is not None:
                door.transport.abort()

    # What its doors tell

    def entered(self, door: Door) -> None:
        """A connection was made."""
        self._coming.discard(door)
        self._open.add(door)
        self._waiting[door] = None

    def began(self, door: Door) -> None:
        """A request is being answered."""
        self._waiting.pop(door, None)
        self._answering.add(door)
        self._quiet.clear()

    def ended(self, door: Door) -> None:
        """Its answer, or what was HTTP about it, is over."""
        self._answering.discard(door)
        if not self._answering:
            self._quiet.set()

    def waits(self, door: Door) -> None:
        """It may bring another request."""
        if door in self._open:
            self._waiting[door] = None

    def left(self, door: Door) -> None:
        """Its connection is on its way out, or gone. Idempotent."""
        self._open.discard(door)
        self._waiting.pop(door, None)
        self.ended(door)

    def turns_away(self) -> bool:
        """Whether there is room for one more that is answered 503."""
        if self._turned_away >= MOST_TURNED_AWAY:
            return False
        self._turned_away += 1
        return True

    def turned_away(self) -> None:
        """One of those has gone."""
        self._turned_away -= 1


DOORS: Final = web.AppKey("doors", Doors)


class Door(web.RequestHandler):
    """One connection."""

    __slots__ = (
        "__weakref__",
        "_body",
        "_doors",
        "_in_hand",
        "_is_bounded",
        "_stall_timer",
        "_timer",
        "_violation",
    )

    def __init__(self, doors: Doors, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=doors.idle_timeout,
            lingering_time=LINGER,
            # What is refused is read to its end, and unpacking a bomb holds up everybody.
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # what web.AppRunner documents for none
        )
        self._doors = doors
        self._body: StreamReader | None = None
        self._in_hand = False
        self._is_bounded = False
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._violation: tuple[WSCloseCode, str] | None = None

    @property
    def violation(self) -> tuple[WSCloseCode, str] | None:
        """With which code, and why, this WebSocket is to be closed for what its client sent."""
        return self._violation

    @property
    def owes(self) -> bool:
        """Whether bytes for its peer are still in the process's own buffer."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def begin(self) -> None:
        """A request's headers are whole, and somebody answers it."""
        self._disarm()
        self._in_hand = True
        self._doors.began(self)

    def bound(self) -> None:
        """See pump.bound. What comes later over this connection pays nothing for it."""
        if not self._is_bounded:
            self._is_bounded = True
            bound(self.transport)

    def make_room(self) -> None:
        """Close: it has no request in hand, and others have."""
        self._doors.left(self)
        self.force_close()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._doors.entered(self)
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None and sock is not None and sock.family != socket.AF_UNIX:
            milliseconds = round(self._doors.send_timeout * 1000)
            with contextlib.suppress(OSError):  # it may be gone already
                sock.setsockopt(socket.IPPROTO_TCP, option, milliseconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio.Protocol."""
        self._disarm()
        self._doors.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        of_a_body = self._in_hand or (self._body is not None and not self._body.is_eof())
        if data and not of_a_body and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._doors.header_timeout, self._head_is_late)
        super().data_received(data)

    # What aiohttp calls

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """From here on it is a WebSocket."""
        self._doors.ended(self)
        screen = Screen(parser, most=self._doors.max_message, report=self._violate, cut=self._cut)
        super().set_parser(screen, data_received_cb)  # type: ignore[arg-type]  # feed_data, feed_eof

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; what aiohttp refuses before the application sees it, as JSON."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = of_http(resp)
        self._watch_reader(resp)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._unwatch_reader()
            self._disarm()
            self._in_hand = False
            self._body = request.content  # the rest of which aiohttp reads, for LINGER seconds
            self._doors.ended(self)
            self._doors.waits(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, or what failed where the application could not catch it."""
        if status < 500:
            answer = self._refuse(request, exc)
        else:
            code, sentence = internal_error("request", new_trace_id())
            answer = refusal(_Failed(sentence))
            self._doors.refused["http", code] += 1
        if request.writer.output_size > 0:
            raise ConnectionError("the response has already started")
        answer.headers["Server"] = SERVER
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What a client did wrong needs one line, not a traceback."""
        error = kw.get("exc_info")
        if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
            logger.info("request_broken peer={} why={}", self._peer, _why(error))
        else:
            super().log_exception(*args, **kw)

    def _refuse(self, request: web.BaseRequest, exc: BaseException | None) -> web.Response:
        error: Refused
        if isinstance(exc, LineTooLong):
            error = HeadersTooLarge("the request line or a header is too long")
        else:
            error = Malformed("this is no valid HTTP request")
        self._doors.refused["http", error.code] += 1
        logger.info("request_refused code={} peer={} why={}", error.code, self._peer, _why(exc))
        return refusal(error)

    @property
    def _peer(self) -> str:
        peer = self.peername
        return str(peer[0]) if isinstance(peer, tuple) else "unknown"

    # When the client does not do its part

    def _head_is_late(self) -> None:
        self._timer = None
        if self._in_hand or self.transport is None:
            return
        error = TooSlow(f"the headers took more than {self._doors.header_timeout:g} seconds")
        self._doors.refused["http", error.code] += 1
        logger.info("request_refused code={} peer={} why=slow headers", error.code, self._peer)
        self.transport.write(raw(error))
        self.force_close()

    def _watch_reader(self, response: web.StreamResponse) -> None:
        """Cut the connection if the client takes nothing of a response for the stall timeout.

        What streams write is watched by their pump, and what bodies.send_body writes by that; this
        is for all other responses, and for the end of those.
        """
        chunks = 1 + (response.content_length or 0) // HIGH_WATER
        self._wait_for_reader(self._unsent, chunks)

    def _wait_for_reader(self, before: int, chunks: int) -> None:
        self._stall_timer = asyncio.get_running_loop().call_later(
            self._doors.stall_timeout, self._look_at_reader, before, chunks
        )

    def _look_at_reader(self, before: int, chunks: int) -> None:
        unsent = self._unsent
        # Of a file that the kernel sends, no byte is in this process's buffer: it has its time.
        takes = unsent < before or (unsent == 0 and chunks > 0)
        if self.transport is None or takes:
            self._wait_for_reader(unsent, chunks - 1)
            return
        self._stall_timer = None
        logger.info("reader_let_go reason=slow streams=none")
        self._doors.let_go["http", "slow"] += 1
        self._cut()

    def _unwatch_reader(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    @property
    def _unsent(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def _violate(self, code: WSCloseCode, why: str) -> None:
        self._violation = code, why

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TurnedAway(asyncio.Protocol):
    """A connection for which there is no room: answered 503, and closed."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        if not self._doors.turns_away():
            transport.abort()
            return
        # Half-closed, and what the client sends is read: closing over unread bytes would reset
        # the connection, and the answer with it.
        self._timer = asyncio.get_running_loop().call_later(LINGER, transport.abort)
        transport.write(
            raw(
                Overloaded(
                    f"the server is at capacity (max_connections={self._doors.most}); retry later",
                    retry_after=1,
                )
            )
        )
        with contextlib.suppress(OSError, NotImplementedError):
            transport.write_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio.Protocol."""
        if self._timer is not None:
            self._timer.cancel()
            self._doors.turned_away()


class _Failed(Refused):
    status = 500
    code = "internal"


def raw(error: Refused) -> bytes:
    """A refusal as bytes, for a connection on which there is no request to answer."""
    body = orjson.dumps({"code": error.code, "error": error.sentence})
    retry = "" if error.retry_after is None else f"Retry-After: {error.retry_after:.0f}\r\n"
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{retry}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


def _why(exc: BaseException | None) -> str:
    """What the parser says, without the bytes it quotes: a secret may be among them."""
    text = getattr(exc, "message", None) or str(exc)
    return shorten(text.strip().partition("\n")[0].partition(": b")[0])

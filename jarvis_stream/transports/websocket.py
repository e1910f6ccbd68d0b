"""Frames over WebSocket: any number of streams on one socket, whole lines per message."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from jarvis_stream.errors import Invalid, Malformed, NotFound, Refused, TooFast, TooMany
from jarvis_stream.ids import new_trace_id
from jarvis_stream.quota import Rate
from jarvis_stream.registry import Cancellation, StreamRegistry
from jarvis_stream.stream import Followed
from jarvis_stream.transports.answers import internal_error
from jarvis_stream.transports.context import COUNTS, LIMITS, REGISTRY, Counts, Limits, owner_of
from jarvis_stream.transports.door import Door
from jarvis_stream.transports.gate import GATE, SignInWatch, reauthenticate, while_valid
from jarvis_stream.transports.pump import Parting, Pump, bound
from jarvis_stream.transports.quotas import QUOTAS
from jarvis_stream.transports.requests import (
    parse_after,
    parse_object,
    parse_opening,
    parse_session_id,
    parse_stream_id,
)
from jarvis_stream.transports.screen import MARK

SUBPROTOCOL: Final = "jarvis-stream.v1"
MAX_CANCELS: Final = 64
"""Stops of one socket that may await their agents at a time."""
MAX_MALFORMED: Final = 10
"""Messages in a row that are not JSON objects, after which the socket closes."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds a peer has to take what it is owed, and to answer our close."""
PING: Final = b"\x89\x00"

routes = web.RouteTableDef()


@routes.get("/ws")
async def connect(request: web.Request) -> web.StreamResponse:
    """Serve one WebSocket, from its handshake to its close."""
    limits = request.app[LIMITS]
    ws = web.WebSocketResponse(
        protocols=(SUBPROTOCOL,),
        autoping=False,
        compress=False,
        max_msg_size=limits.max_body_bytes + 1,  # aiohttp refuses what is as large as this
        timeout=CLOSE_TIMEOUT,
        decode_text=False,
    )
    _check_handshake(request, ws)
    quotas, owner = request.app[QUOTAS], owner_of(request)
    with quotas.socket(request):
        writer = await ws.prepare(request)
        bound(request.transport)
        pump = Pump(
            request.transport,
            _text_message,
            beat=PING,
            answered=True,
            heartbeat=limits.heartbeat,
            stall_timeout=limits.stall_timeout,
        )
        pump.open(writer.drain)
        door = request.protocol if isinstance(request.protocol, Door) else None
        socket = Socket(
            ws,
            pump,
            request.app[REGISTRY],
            limits,
            request.app[COUNTS],
            door,
            owner=owner,
            check_start=partial(quotas.start, quotas.starter(request, owner)),
            counts_as=quotas.owner_or_address(request, owner),
        )
        sockets = request.app[SOCKETS]
        sockets.add(socket)
        try:
            with while_valid(request, pump.expire) as watch:
                if isinstance(watch, SignInWatch):
                    socket.sign_in = partial(reauthenticate, request.app[GATE], watch)
                await socket.serve()
        finally:
            sockets.discard(socket)
    return ws


def _check_handshake(request: web.Request, ws: web.WebSocketResponse[Any]) -> None:
    try:
        is_handshake = bool(ws.can_prepare(request))
    except ValueError:  # a key beyond ASCII
        is_handshake = False
    if not is_handshake:
        raise Malformed("a WebSocket handshake is required")


async def close_all(app: web.Application, patience: float = CLOSE_TIMEOUT) -> None:
    """Say goodbye on every socket, all at once: the server is shutting down.

    A peer has `patience` seconds to take what it is owed.
    """
    closing = [
        socket.close(WSCloseCode.GOING_AWAY, "shutting down", patience) for socket in app[SOCKETS]
    ]
    await asyncio.gather(*closing, return_exceptions=True)


class Socket:
    """Reads one client's commands and obeys them."""

    __slots__ = (
        "_cancels",
        "_check_start",
        "_closer",
        "_counts",
        "_counts_as",
        "_door",
        "_limits",
        "_malformed",
        "_owner",
        "_pump",
        "_rate",
        "_registry",
        "_spoke_at",
        "_watches",
        "_ws",
        "sign_in",
    )

    def __init__(
        self,
        ws: web.WebSocketResponse[Any],
        pump: Pump,
        registry: StreamRegistry,
        limits: Limits,
        counts: Counts,
        door: Door | None = None,
        owner: str = "",
        check_start: Callable[[], Awaitable[None]] | None = None,
        counts_as: str = "",
    ) -> None:
        """`door` is what the connection came through, where the server has one.

        `owner` is whose sessions it is about, `check_start` raises TooFast.
        """
        self._check_start = check_start
        self._counts_as = counts_as
        self._rate = Rate(10 * limits.max_messages_per_second, 10.0)
        self._owner = owner
        self._malformed = 0
        self._ws = ws
        self._pump = pump
        self._registry = registry
        self._limits = limits
        self._counts = counts
        self._door = door
        self._spoke_at = time.monotonic()
        # An empty dict is a third of an empty set, and there are thousands of sockets.
        self._watches: dict[str, None] = {}
        self._cancels: dict[asyncio.Task[None], None] = {}
        self._closer: asyncio.Task[None] | None = None
        self.sign_in: Callable[[str], Awaitable[float | None]] | None = None
        """Renews the sign-in that the socket depends on, by a ticket; None if there is none."""

    async def serve(self) -> None:
        """Until the socket closes, from whichever side."""
        self._pump.finished.add_done_callback(self._part)
        try:
            while True:
                message = await self._ws.receive()
                self._pump.heard()
                if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                    self._spoke_at = time.monotonic()
                    if not await self._read(message):
                        return
                elif message.type is WSMsgType.PING:
                    if self._door is not None and message.data == MARK and self._door.violation:
                        await self.close(*self._door.violation)
                        return
                    await self._ws.pong(message.data)
                elif message.type is not WSMsgType.PONG:
                    return
                elif self._is_idle:
                    await self.close(WSCloseCode.GOING_AWAY, "idle for too long")
                    return
                await asyncio.sleep(0)  # a client that floods leaves room for others
                if self._pump.owes_much:
                    await self._pump.drained()
        finally:
            await self._leave()

    async def _read(self, message: WSMessage) -> bool:
        """Obey one message; False when it closed the socket."""
        try:
            if message.type is WSMsgType.BINARY:
                raise Malformed("a message must be text, not binary")
            fields = parse_object(message.data)
        except Malformed as error:
            if message.type is WSMsgType.TEXT and not _is_utf8(message.data):  # RFC 6455, 8.1
                await self.close(WSCloseCode.INVALID_TEXT, "the message is not valid UTF-8")
                return False
            # Other answers are on this socket: a client's mistake must not end them.
            self._refuse({}, error.code, error.sentence)
            self._malformed += 1
            if self._malformed < MAX_MALFORMED:
                return True
            why = f"{MAX_MALFORMED} messages in a row are not JSON objects"
            await self.close(WSCloseCode.INVALID_TEXT, why)
            return False
        self._malformed = 0
        await self._obey(fields)
        return True

    def see(self, stream: Followed) -> None:
        """See node.Watcher."""
        if stream.stream_id in self._pump:
            return
        most = self._limits.max_streams_per_socket
        if self._pump.watched >= most:
            sentence = f"this socket follows {most} streams of the sessions that it watches already"
            self._refuse({"stream_id": stream.stream_id}, TooMany.code, sentence)
            return
        self._pump.follow(stream, 0, watched=True)

    @property
    def _is_idle(self) -> bool:
        return (
            not (len(self._pump) or self._watches or self._cancels)
            and time.monotonic() - self._spoke_at > self._limits.socket_idle_timeout
        )

    async def _obey(self, fields: dict[str, Any]) -> None:
        try:
            if self._rate.take():
                most = self._limits.max_messages_per_second
                raise TooFast(
                    f"this WebSocket sends more than {most} messages per second (the limit)"
                )
            match fields.get("type"):
                case "start":
                    await self._start(fields)
                case "resume":
                    await self._resume(fields)
                case "cancel":
                    self._cancel(fields)
                case "watch":
                    self._watch(parse_session_id(fields.get("session_id")))
                case "unwatch":
                    self._unwatch(parse_session_id(fields.get("session_id")))
                case "reauthenticate":
                    await self._reauthenticate(fields)
                case "ping":  # a browser cannot send one of the WebSocket protocol's own
                    self._reply({"type": "status", "status": "pong"})
                case _:
                    raise Invalid(
                        "type: allowed are start, resume, cancel, watch, unwatch, reauthenticate,"
                        " ping"
                    )
        except Refused as error:
            self._refuse(fields, error.code, error.sentence)
        except Exception:
            self._refuse(fields, *internal_error("websocket message", new_trace_id()))

    def _refuse(self, fields: dict[str, Any], code: str, sentence: str) -> None:
        self._counts.refused["websocket", code] += 1
        stream_id = fields.get("stream_id")
        if not isinstance(stream_id, str) or len(stream_id) > 128:
            stream_id = None
        self._reply({"type": "error", "code": code, "error": sentence, "stream_id": stream_id})

    async def _start(self, fields: dict[str, Any]) -> None:
        traceparent = fields.get("traceparent")
        opening = parse_opening(
            fields,
            transport="websocket",
            traceparent=traceparent if isinstance(traceparent, str) else None,
            max_prompt_chars=self._limits.max_prompt_chars,
            owner=self._owner,
            counts_as=self._counts_as,
        )
        self._check_room(opening.stream_id)
        is_carried = opening.stream_id in self._pump
        if self._check_start is not None and not self._registry.knows(opening):
            await self._check_start()
        stream = await self._registry.start(opening)
        if not is_carried and stream.stream_id in self._pump:
            self._pump.keep(stream.stream_id)  # this socket watches the session, and was shown it
        else:
            self._pump.follow(stream, opening.after)

    async def _resume(self, fields: dict[str, Any]) -> None:
        stream_id = parse_stream_id(fields.get("stream_id"))
        after = parse_after(fields.get("after"))
        stream = await self._registry.reach(stream_id, self._owner, after)
        self._check_room(stream_id)
        self._pump.follow(stream, after)

    def _cancel(self, fields: dict[str, Any]) -> None:
        stream_id = parse_stream_id(fields.get("stream_id"))
        if len(self._cancels) >= MAX_CANCELS:
            raise TooMany(f"{MAX_CANCELS} stops of this WebSocket are still in progress")
        # The stop takes effect here, before the client's next message; only its answer waits.
        stopping = self._registry.cancel(stream_id, self._owner)
        task = asyncio.create_task(self._answer(stopping, fields))
        self._cancels[task] = None
        task.add_done_callback(self._cancels.pop)

    def _watch(self, session_id: str) -> None:
        most = self._limits.max_streams_per_socket
        if len(self._watches) >= most and session_id not in self._watches:
            raise TooMany(f"this WebSocket already watches {most} sessions (the limit)")
        self._watches[session_id] = None
        self._registry.watch(session_id, self, self._owner)

    def _unwatch(self, session_id: str) -> None:
        self._watches.pop(session_id, None)
        self._registry.unwatch(session_id, self, self._owner)
        self._pump.drop_watched(session_id)

    async def _answer(
        self, stopping: Coroutine[Any, Any, Cancellation], fields: dict[str, Any]
    ) -> None:
        try:
            cancellation = await stopping
        except Refused as error:
            self._refuse(fields, error.code, error.sentence)
        else:
            self._reply({"type": "status", "status": "cancelled", **asdict(cancellation)})

    async def _reauthenticate(self, fields: dict[str, Any]) -> None:
        ticket = fields.get("ticket")
        if not isinstance(ticket, str):
            raise Invalid("ticket: is missing; required: a text, from POST /api/ticket")
        if self.sign_in is None:
            raise NotFound("the sign-in of this WebSocket does not expire")
        expires_in = await self.sign_in(ticket)
        self._reply({"type": "status", "status": "reauthenticated", "expires_in": expires_in})

    def _check_room(self, stream_id: str) -> None:
        most = self._limits.max_streams_per_socket
        # What it only watches has a limit of its own, and does not hinder its own starts.
        is_own = stream_id in self._pump and not self._pump.is_watched(stream_id)
        if len(self._pump) - self._pump.watched >= most and not is_own:
            raise TooMany(f"this WebSocket already follows {most} streams (the limit)")

    def _reply(self, fields: dict[str, Any]) -> None:
        self._pump.write(orjson.dumps(fields) + b"\n")

    # How it ends

    def _part(self, finished: asyncio.Future[Parting]) -> None:
        if len(self._pump):
            self._counts.let_go["websocket", finished.result().value] += 1
        if finished.result() is Parting.SLOW:
            self._closer = asyncio.create_task(
                self.close(
                    WSCloseCode.TRY_AGAIN_LATER, "the client reads too slowly: reconnect and resume"
                )
            )
        elif finished.result() is Parting.EXPIRED:
            self._closer = asyncio.create_task(
                self.close(WSCloseCode.POLICY_VIOLATION, "your sign-in has expired")
            )
        elif finished.result() is Parting.LOST:
            self._closer = asyncio.create_task(
                self.close(
                    WSCloseCode.TRY_AGAIN_LATER,
                    "the stream cannot be read at this server: reconnect and resume",
                )
            )
        elif finished.result() is Parting.GONE:
            self._pump.abort()  # so that `receive` returns, if it has not

    async def close(self, code: WSCloseCode, why: str, patience: float = CLOSE_TIMEOUT) -> None:
        """Say goodbye once the peer has what it is owed, or after `patience` seconds.

        CLOSE_TIMEOUT bounds how long its answer is waited for.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._pump.drained()
        await self._pump.close()  # nothing may follow a close frame
        # RFC 6455, 5.5: a control frame's payload is 125 bytes at most, two of them the code.
        # Not drained: a peer that reads nothing would hold us here for good.
        await self._ws.close(code=code, message=why.encode()[:123], drain=False)

    async def _leave(self) -> None:
        for session_id in self._watches:
            self._registry.unwatch(session_id, self, self._owner)
        await self._pump.close()
        tasks = {*self._cancels, *([self._closer] if self._closer else ())}
        for task in self._cancels:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # Closing a transport waits for its buffer to empty, and a peer that reads nothing never
        # lets it.
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._pump.abort)


SOCKETS: Final = web.AppKey("sockets", set[Socket])


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text_message(frames: bytes) -> bytes:
    """RFC 6455, 5.2: an unfragmented, unmasked text message."""
    size = len(frames)
    if size < 126:
        return b"\x81%c%b" % (size, frames)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), frames)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), frames)

"""The other side of the wire: what a client of the protocol does, and no more."""

from __future__ import annotations

import asyncio
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import (
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    TCPConnector,
    WSCloseCode,
    WSMessage,
    WSMsgType,
)
from profiles import patience

Frame = dict[str, Any]

PATIENCE = patience(30.0)
"""Seconds after which something that should have come is not waited for any longer."""

TERMINAL = ("done", "error")


def new_id() -> str:
    """A stream_id, minted by the client."""
    return str(uuid.uuid4())


def lines(body: bytes) -> list[Frame]:
    """The frames in a body; heartbeats, which are empty lines, are none."""
    assert not body or body.endswith(b"\n"), f"a torn line: {body[-80:]!r}"
    return [orjson.loads(line) for line in body.split(b"\n") if line]


def text_of(frames: list[Frame]) -> str:
    """The answer that the frames carry."""
    return "".join(frame["text"] for frame in frames if frame["type"] == "token")


def outcome(frames: list[Frame]) -> str:
    """How the stream ended: its finish reason, or its error's code."""
    last = frames[-1]
    return str(last["finish_reason"] if last["type"] == "done" else last["code"])


def check_stream(frames: list[Frame]) -> None:
    """One stream, whole: thinking first, seq without gaps, one terminal frame at the end."""
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert len({(f["stream_id"], f["trace_id"], f["epoch"]) for f in frames}) == 1
    assert frames[0]["type"] == "status"
    assert frames[0]["status"] == "thinking"
    assert [frame["type"] in TERMINAL for frame in frames] == [False] * (len(frames) - 1) + [True]


class Api:
    """An HTTP client of one server."""

    def __init__(self, http: ClientSession, url: str) -> None:
        self.http = http
        self.url = url

    @asynccontextmanager
    async def posting(self, prompt: str, **fields: Any) -> AsyncIterator[ClientResponse]:
        """The response to `POST /api/chat`, while its frames come in."""
        body = {"prompt": prompt, **fields}
        async with self.http.post(self.url + "/api/chat", json=body) as response:
            assert response.status == 200, await response.text()
            yield response

    async def chat(self, prompt: str, **fields: Any) -> list[Frame]:
        """All frames of an answer."""
        async with self.posting(prompt, **fields) as response:
            return lines(await response.read())

    async def replay(self, stream_id: str, after: int = 0) -> bytes:
        """What `GET /api/streams/{id}` gives until its end."""
        path = f"/api/streams/{stream_id}?after={after}"
        async with self.http.get(self.url + path) as response:
            assert response.status == 200, await response.text()
            return await response.read()

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        """Return every message of a session, newest page first; empty for an unknown session."""
        path = f"{self.url}/api/sessions/{session_id}/messages?limit=200"
        messages: list[dict[str, Any]] = []
        before = ""
        while True:
            async with self.http.get(path + before) as response:
                if response.status == 404:
                    return messages
                assert response.status == 200, await response.text()
                page = await response.json()
            messages += page["messages"]
            if page["next"] is None:
                return messages
            before = f"&before={page['next']}"

    async def cancel(self, stream_id: str) -> tuple[int, Frame]:
        """The status and body of the answer to a stop."""
        path = f"/api/streams/{stream_id}/cancel"
        async with self.http.post(self.url + path) as response:
            return response.status, await response.json()

    async def evidence(self, stream_id: str) -> dict[str, float]:
        """What the scripted agent noted about a turn."""
        found: dict[str, float] = orjson.loads(text_of(await self.chat(f"evidence {stream_id}")))
        return found

    async def cleanup(self, stream_id: str, note: str = "cleanup_began") -> float:
        """When that turn's agent was at that point; waits for it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                noted = await self.evidence(stream_id)
                if note in noted:
                    return noted[note]

    async def metrics(self) -> dict[str, float]:
        """Every figure of `/metrics`, by its name with labels."""
        async with self.http.get(self.url + "/metrics") as response:
            text = await response.text()
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    async def until(self, is_so: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The metrics, once they are as they should be."""
        async with asyncio.timeout(PATIENCE):
            while True:
                metrics = await self.metrics()
                if is_so(metrics):
                    return metrics

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[Socket]:
        """A WebSocket of the protocol."""
        async with self.http.ws_connect(
            self.url + "/ws", protocols=("jarvis-stream.v1",), max_msg_size=0, **options
        ) as ws:
            yield Socket(ws)


class Socket:
    """One WebSocket, and the frames that came over it, by stream."""

    def __init__(self, ws: ClientWebSocketResponse[Any]) -> None:
        self.ws = ws
        self.frames: list[Frame] = []

    async def send(self, **fields: Any) -> None:
        """Send one message."""
        await self.ws.send_str(orjson.dumps(fields).decode())

    async def until(self, is_so: Callable[[Frame], bool]) -> Frame:
        """Read until such a frame comes; whole messages, so more may have come with it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self.ws.receive()
                assert message.type is WSMsgType.TEXT, f"{message} {self.ws.close_code}"
                frames = lines(message.data.encode())
                self.frames += frames
                for frame in frames:
                    if is_so(frame):
                        return frame

    async def ended(self, stream_id: str) -> list[Frame]:
        """All frames of a stream, once it has ended."""
        if not any(map(_ends(stream_id), self.frames)):
            await self.until(_ends(stream_id))
        return self.of(stream_id)

    async def spoke(self, stream_id: str) -> None:
        """Until its first token is here."""
        await self.until(lambda f: f["type"] == "token" and f["stream_id"] == stream_id)

    def of(self, stream_id: str) -> list[Frame]:
        """The frames of a stream that came so far."""
        return [f for f in self.frames if f["stream_id"] == stream_id and "seq" in f]

    async def closed(self) -> int:
        """The code with which the server closes; what comes before is read."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self.ws.receive()
                if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
                    return close_code(self.ws, message)


def close_code(ws: ClientWebSocketResponse[Any], last: WSMessage) -> int:
    """With which code the server closed, from what was received last.

    `ws.close_code` is 1006 where aiohttp could not answer the server's close any more.
    """
    code = last.data if last.type is WSMsgType.CLOSE else ws.close_code
    return int(code or WSCloseCode.ABNORMAL_CLOSURE)


def _ends(stream_id: str) -> Callable[[Frame], bool]:
    return lambda f: f["stream_id"] == stream_id and f["type"] in TERMINAL and "seq" in f


@asynccontextmanager
async def talking_to(url: str) -> AsyncIterator[Api]:
    """A client with its own connections; waits for no answer longer than is patient."""
    timeout = ClientTimeout(total=PATIENCE)
    async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as http:
        yield Api(http, url)


class Wire:
    """A bare TCP connection: for what no well-behaved client would do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def sock(self) -> socket.socket:
        """The socket itself."""
        found: socket.socket = self.writer.get_extra_info("socket")
        return found

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def post(self, prompt: str, *, version: str = "1.1", headers: str = "", **fields: Any) -> None:
        """Send a whole `POST /api/chat`."""
        body = orjson.dumps({"prompt": prompt, **fields})
        self.send(request("POST", "/api/chat", body, version=version, headers=headers))

    def start(self, prompt: str, **fields: Any) -> None:
        """Send a WebSocket `start`."""
        self.send(masked(1, orjson.dumps({"type": "start", "prompt": prompt, **fields})))

    async def upgrade(self, headers: str = "") -> None:
        """Do the WebSocket handshake."""
        self.send(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            + headers.encode()
            + b"\r\n"
        )
        head = await self.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    async def until(self, mark: bytes) -> bytes:
        """Read up to and with these bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Read to the end of the connection, however it ends."""
        got = bytearray()
        async with asyncio.timeout(PATIENCE):
            try:
                while data := await self.reader.read(65536):
                    got += data
            except ConnectionError:
                pass
        return bytes(got)

    def pause(self) -> None:
        """Read nothing from now on, as a suspended tab does."""
        self._transport.pause_reading()

    def unpause(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    @property
    def _transport(self) -> asyncio.Transport:
        assert isinstance(self.writer.transport, asyncio.Transport)
        return self.writer.transport

    def leave(self) -> None:
        """Close as a finished program does: FIN."""
        self.writer.close()

    def reset(self) -> None:
        """Close as a crashed one does: RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def wire(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """Connect; `receive_buffer` bytes are all that the kernel takes for a reader that stalls."""
    parts = urlsplit(url)
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    limit = receive_buffer or 2**20
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def request(
    method: str, path: str, body: bytes = b"", *, version: str = "1.1", headers: str = ""
) -> bytes:
    """A request with a JSON body, as bytes."""
    head = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n{headers}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's WebSocket frame (RFC 6455, 5.2), masked with zeros."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload

"""An `asyncio.Protocol` on uvloop that understands no more of HTTP and WebSocket than it must."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import cast

import orjson
import uvloop

from benchmarks.agents import answer
from benchmarks.references.frames import Frames, chunk, forever, listen, message

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Connection(asyncio.Protocol):
    """One client; every question gets a task of its own."""

    def __init__(self) -> None:
        self._in = b""
        self._is_ws = False
        self._answer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.cancel()

    def data_received(self, data: bytes) -> None:
        self._in += data
        while self._take_message() if self._is_ws else self._take_request():
            pass

    def _take_request(self) -> bool:
        head, blank, rest = self._in.partition(b"\r\n\r\n")
        if not blank:
            return False
        lines = [line.partition(b":")[::2] for line in head.split(b"\r\n")]
        headers = {name.lower(): value.strip() for name, value in lines}
        size = int(headers.get(b"content-length", 0))
        if len(rest) < size:
            return False
        self._in = rest[size:]
        if b"sec-websocket-key" in headers:
            accept = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest())
            self._is_ws = True
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
        else:
            self._begin(rest[:size])
        return True

    def _take_message(self) -> bool:
        if len(self._in) < 6:
            return False
        size, at = self._in[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(self._in[2:4], "big"), 4
        if len(self._in) < at + 4 + size:
            return False
        mask, payload = self._in[at : at + 4], self._in[at + 4 : at + 4 + size]
        is_text = self._in[0] & 0x0F == 1
        self._in = self._in[at + 4 + size :]
        if is_text:
            self._begin(bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))
        return True

    def _begin(self, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._answer is not None:
            self._answer.cancel()  # superseded
        self._answer = loop.create_task(self._speak(orjson.loads(body)["prompt"]))

    async def _speak(self, prompt: str) -> None:
        write = self._transport.write
        wrap = message if self._is_ws else chunk
        frames = Frames()
        if not self._is_ws:
            write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
        write(wrap(frames.thinking()))
        async for text in answer(prompt):
            write(wrap(frames.token(text)))
        write(wrap(frames.done()) + (b"" if self._is_ws else b"0\r\n\r\n"))


async def main() -> None:
    await asyncio.get_running_loop().create_server(Connection, sock=listen(), backlog=1024)
    await forever()


if __name__ == "__main__":
    uvloop.run(main())

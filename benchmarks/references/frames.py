"""The frames of every reference: the same bytes as the server's own, made as cheaply."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Iterator

import orjson

NDJSON = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store, no-transform"}


class Frames:
    """Numbers and encodes the frames of one answer."""

    __slots__ = ("_ids", "_seq", "_token")

    def __init__(self) -> None:
        ids = {"stream_id": str(uuid.uuid4()), "trace_id": uuid.uuid4().hex, "epoch": 1700000000000}
        self._ids = orjson.dumps(ids)[1:-1]
        self._token = b'{"type":"token",%b,"seq":' % self._ids
        self._seq = 1

    def thinking(self) -> bytes:
        return b'{"type":"status",%b,"seq":1,"status":"thinking"}\n' % self._ids

    def token(self, text: str) -> bytes:
        self._seq += 1
        return b'%b%d,"text":%b}\n' % (self._token, self._seq, orjson.dumps(text))

    def done(self) -> bytes:
        seq = self._seq + 1
        return b'{"type":"done",%b,"seq":%d,"finish_reason":"stop"}\n' % (self._ids, seq)


def chunk(frames: bytes) -> bytes:
    """A chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(frames), frames)


def message(frames: bytes) -> bytes:
    """A WebSocket text message."""
    size = len(frames)
    if size < 126:
        return b"\x81%c%b" % (size, frames)
    return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), frames)


def messages(sent: list[bytes]) -> Iterator[bytes]:
    """Frames joined into as many WebSocket messages as they need, one at most of 64 KiB each."""
    at = 0
    while at < len(sent):
        until, size = at, 0
        while until < len(sent) and size + len(sent[until]) < 65536:
            size += len(sent[until])
            until += 1
        yield message(b"".join(sent[at:until]))
        at = until


def listen() -> socket.socket:
    """A listening socket; its URL has been said."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    return listener


async def forever() -> None:
    """Until the process is killed."""
    await asyncio.get_running_loop().create_future()

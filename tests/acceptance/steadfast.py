"""A client that never gives up: it reads one answer over as many connections as it takes."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Literal

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, WSMsgType
from profiles import patience

from .clients import TERMINAL, Frame, lines, new_id

Transport = Literal["http", "websocket"]

PATIENCE = patience(60.0)
"""Seconds an answer may take, over however many connections."""


class Reading:
    """One answer, its frames in their order, each once; anything else fails at once."""

    def __init__(self, prompt: str, **fields: Any) -> None:
        """`fields` are those of the request that starts the answer."""
        self.stream_id: str = fields.setdefault("stream_id", new_id())
        self.request: Frame = {"prompt": prompt, "on_disconnect": "continue", **fields}
        self.lines: list[bytes] = []
        self.ended = False

    @property
    def after(self) -> int:
        """The cursor: the seq of the last frame that came whole."""
        return len(self.lines)

    @property
    def body(self) -> bytes:
        """Every byte of every frame."""
        return b"".join(self.lines)

    @property
    def frames(self) -> list[Frame]:
        """Every frame."""
        return lines(self.body)

    def take(self, line: bytes) -> None:
        """The next frame."""
        frame = orjson.loads(line)
        assert frame.get("stream_id") == self.stream_id, frame
        assert frame.get("seq") == self.after + 1, (self.after, frame)
        assert not self.ended, frame
        self.lines.append(line)
        self.ended = frame["type"] in TERMINAL


async def read(
    reading: Reading,
    url: str,
    transport: Transport,
    *,
    until: int | None = None,
    by_request: bool = False,
) -> None:
    """Go on over one connection: to the end of the answer, its own, or after frame `until`.

    It leaves as a dying client does, without a goodbye. The stream is resumed by its id, or by
    repeating the request that started it (`by_request`).
    """
    over = _over_http if transport == "http" else _over_websocket
    # Its own connection, so that no pool repeats a request that failed.
    async with ClientSession(
        connector=TCPConnector(force_close=True), timeout=ClientTimeout(total=PATIENCE)
    ) as http:
        with suppress(ClientError, OSError):
            async with aclosing(over(http, url, reading, by_request)) as arriving:
                if reading.ended or reading.after == until:
                    return
                async for line in arriving:
                    reading.take(line)
                    if reading.ended or reading.after == until:
                        return


async def _over_http(
    http: ClientSession, url: str, reading: Reading, by_request: bool
) -> AsyncGenerator[bytes, None]:
    if by_request:
        body = {**reading.request, "after": reading.after}
        asking = http.post(url + "/api/chat", json=body)
    else:
        asking = http.get(f"{url}/api/streams/{reading.stream_id}?after={reading.after}")
    async with asking as response:
        assert response.status == 200, await response.text()
        torn = b""
        async for data in response.content.iter_any():
            *whole, torn = (torn + data).split(b"\n")
            for line in filter(None, whole):
                yield line + b"\n"


async def _over_websocket(
    http: ClientSession, url: str, reading: Reading, by_request: bool
) -> AsyncGenerator[bytes, None]:
    if by_request:
        message = {**reading.request, "type": "start", "after": reading.after}
    else:
        message = {"type": "resume", "stream_id": reading.stream_id, "after": reading.after}
    async with http.ws_connect(url + "/ws", protocols=("jarvis-stream.v1",), max_msg_size=0) as ws:
        try:
            await ws.send_json(message)
            async for arrived in ws:
                assert arrived.type is WSMsgType.TEXT, arrived
                for line in arrived.data.encode().splitlines(keepends=True):
                    yield line
        finally:
            wire: socket.socket | None = ws.get_extra_info("socket")
            if wire is not None:  # else it is broken already
                wire.shutdown(socket.SHUT_RDWR)

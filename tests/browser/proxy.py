"""A proxy that does to connections what networks do to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self
from urllib.parse import urlsplit

CUT_AFTER = 5000
"""Bytes of the server: some thirty frames, and half of one."""

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Passes bytes on to a server, but for what a test forbids.

    `websockets`: whether handshakes may pass. `up`: whether anything may. `latency`: seconds that
    the server's bytes are on their way. `refused`: how many handshakes have been. `cuts`: how many
    connections are still to end in the middle of what the server says, after `CUT_AFTER` bytes.
    """

    def __init__(self, upstream: str) -> None:
        self._host = urlsplit(upstream).hostname
        self._port = urlsplit(upstream).port
        self._open: set[asyncio.StreamWriter] = set()
        self.websockets = True
        self.up = True
        self.latency = 0.0
        self.refused = 0
        self.cuts = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Every connection dies, now."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with self._kept(writer):
                head = await reader.readuntil(b"\r\n")
                if not self.up:
                    return
                if head.startswith(b"GET /ws ") and not self.websockets:
                    self.refused += 1
                    writer.write(FORBIDDEN)
                    await writer.drain()
                    return
                inner_reader, inner_writer = await asyncio.open_connection(self._host, self._port)
                async with self._kept(inner_writer):
                    inner_writer.write(head)
                    pumps = [
                        asyncio.create_task(_pump(reader, inner_writer)),
                        asyncio.create_task(self._answer(inner_reader, writer)),
                    ]
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        left = CUT_AFTER
        cut = False
        while not cut and (data := await reader.read(65536)):
            if self.cuts:
                cut = len(data) > left
                self.cuts -= cut
                data, left = data[:left], left - len(data)
            loop.call_later(self.latency, writer.write, data)
        await asyncio.sleep(self.latency)  # what is on its way arrives

    @contextlib.asynccontextmanager
    async def _kept(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.close()
            await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)

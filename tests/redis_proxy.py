"""A bad network in front of a Redis server: it cuts, delays, and falls silent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class RedisProxy:
    """Carries connections to a server's Unix socket. What is silent is not lost, but late."""

    def __init__(self, socket: Path) -> None:
        self.url = ""
        self.socket = socket
        """Of the server that new connections go to."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.longest_delay = 0.0
        """Seconds."""
        self.deaf_to = b"\0no such bytes"
        """What a reply must not hold to be carried: pub/sub alone can be blocked."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        self._writers.add(writer)
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(self.socket)
            self._writers.add(inner_writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._carry(reader, inner_writer))
                    group.create_task(self._carry(inner_reader, writer))
            finally:
                self._writers.discard(inner_writer)
                inner_writer.close()
        except* OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * 1024):
            await self._open.wait()
            if self.longest_delay and random.random() < 0.1:
                await asyncio.sleep(random.uniform(0, self.longest_delay))
            if self.deaf_to not in data:
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError

    def cut(self) -> None:
        """Break every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def silence(self, seconds: float) -> None:
        """Carry nothing for a while."""
        self._open.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._open.set()


@asynccontextmanager
async def in_front_of(socket: Path) -> AsyncIterator[RedisProxy]:
    """A proxy on a port of this machine."""
    proxy = RedisProxy(socket)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

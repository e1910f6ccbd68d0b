"""A bad network: a TCP proxy that cuts, delays and splits what goes through it."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

CHUNK = 16 * 1024

PACKET = 1_500
"""About how many bytes pass from one delay to the next."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one connection. Sizes are in bytes, times in seconds."""

    up: int | None = None
    """How much the server gets before the connection is cut; None: all."""
    down: int | None = None
    """How much the client gets before that."""
    reset: bool = False
    """Whether it is cut with a RST, as by a crash, and not with a FIN."""
    largest_piece: int = CHUNK
    longest_delay: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Weather:
    """Fates at random; the same ones in the same order for the same values."""

    seed: int
    mean_life: int
    """How many bytes a client gets before its connection is cut, on average."""
    largest_piece: int
    longest_delay: float

    def fates(self) -> Callable[[], Fate]:
        """One fate after the other."""
        dice = random.Random(self.seed)

        def draw() -> Fate:
            return Fate(
                up=dice.randrange(400) if dice.random() < 0.1 else None,  # a torn request
                down=int(dice.expovariate(1 / self.mean_life)),
                reset=dice.random() < 0.5,
                largest_piece=self.largest_piece,
                longest_delay=self.longest_delay,
                seed=dice.getrandbits(32),
            )

        return draw


class Proxy:
    """Carries each connection to the server as its fate wants it."""

    def __init__(self, server_url: str, next_fate: Callable[[], Fate]) -> None:
        server = urlsplit(server_url)
        self._host, self._port = server.hostname, server.port
        self._next_fate = next_fate
        self.url = ""
        self.cuts = 0
        """How many connections were cut."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        fate = self._next_fate()
        dice = random.Random(fate.seed)
        writers = [writer]
        try:
            inner_reader, inner_writer = await asyncio.open_connection(self._host, self._port)
            writers.append(inner_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(_carry(reader, inner_writer, fate.up, fate, dice))
                group.create_task(_carry(inner_reader, writer, fate.down, fate, dice))
        except* _Cut:
            self.cuts += 1
            if fate.reset:
                for end in writers:
                    _reset(end)
        except* OSError:
            pass
        finally:
            for end in writers:
                end.close()


class _Cut(Exception):
    """The connection has carried all that it may."""


async def _carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    most: int | None,
    fate: Fate,
    dice: random.Random,
) -> None:
    """Carry one direction, to its end."""
    left = most
    while data := await reader.read(dice.randint(1, fate.largest_piece)):
        if fate.longest_delay and dice.randrange(PACKET) < len(data):
            await asyncio.sleep(dice.uniform(0, fate.longest_delay))
        writer.write(data[:left])
        await writer.drain()
        if left is not None:
            left -= len(data)
            if left <= 0:
                raise _Cut
    writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def between(server_url: str, next_fate: Callable[[], Fate]) -> AsyncIterator[Proxy]:
    """A proxy in front of a server."""
    proxy = Proxy(server_url, next_fate)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, limit=CHUNK)
    proxy.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listening.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.gather(*connections, return_exceptions=True)

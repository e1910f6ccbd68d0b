"""An application that serves: its doors open, and how they close.

    told to stop ──► draining ──► ending ──► out
                     ≤ grace      ≤ the agents' cleanup and LAST_WORDS

While it drains, the listeners stay open: /readyz says 503, what is new is refused, and who reads,
resumes or stops an answer still can.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

from aiohttp import web
from loguru import logger

from jarvis_stream import app as jarvis
from jarvis_stream.settings import Settings
from jarvis_stream.transports.door import DOORS, Doors

BACKLOG: Final = 1024
"""Connections the kernel holds for us until they are accepted."""

LAST_WORDS: Final = 0.5
"""Seconds that readers have at least to take the last frames of their streams."""

FILES_EACH: Final = 2
"""Sockets that a connection may take: its own, and one to the model's server."""

MMAP_THRESHOLD: Final = 1024 * 1024
"""Bytes from which glibc gives a block back to the system as soon as it is free."""

OWN_FILES: Final = 128
"""Files and sockets that are no client's: the database's, the log, who is being turned away."""


@contextlib.asynccontextmanager
async def running(
    app: web.Application, listeners: Sequence[socket.socket], settings: Settings
) -> AsyncIterator[None]:
    """Serve while the body runs; then let the live answers end, end the others, and let go.

    On leaving, at most `settings.shutdown_grace` seconds are spent on answers that go on, after
    them `settings.cancel_timeout` on agents that do not stop when they are cancelled. Whatever
    starts the application raises what it raises.
    """
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(
        app,
        # Without it a handler outlives its client, and a silent agent goes on for nobody.
        handler_cancellation=True,
        access_log=None,
        # The streams have ended and the connections are cut when this begins to count.
        shutdown_timeout=LAST_WORDS / 2,
    )
    servers: list[asyncio.Server] = []
    try:
        await runner.setup()
        doors = app[DOORS]
        doors.server = runner.server
        doors.most = room_for(doors.most)
        for listener in listeners:
            servers.append(await loop.create_server(doors, sock=listener, backlog=BACKLOG))
        try:
            yield
        finally:
            await _close(app, doors, servers, settings.shutdown_grace)
    finally:
        for server in servers:
            server.close()
        await runner.cleanup()


async def _close(
    app: web.Application, doors: Doors, servers: Sequence[asyncio.Server], grace: float
) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + grace
    await jarvis.drain(app, grace)
    with contextlib.suppress(TimeoutError):  # their last frames may still be on their way
        async with asyncio.timeout_at(until):
            await doors.quiet()
    for server in servers:
        server.close()
    await jarvis.end(app, LAST_WORDS)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS):
            await doors.quiet()
    doors.abort()


def release_large_blocks() -> None:
    """Make glibc return every large block to the system when it is freed; elsewhere do nothing.

    By default glibc raises its threshold up to 32 MiB as large blocks are freed, and keeps later
    ones: a few long answers that were read once would hold memory for ever.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError):  # another C library
        return
    mallopt(-3, MMAP_THRESHOLD)  # M_MMAP_THRESHOLD
    mallopt(-1, MMAP_THRESHOLD)  # M_TRIM_THRESHOLD


def room_for(connections: int) -> int:
    """How many of them this process may have; asks for more files when it is allowed to."""
    try:
        import resource
    except ImportError:  # Windows
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_EACH * connections + OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    if hard == resource.RLIM_INFINITY or hard > soft:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft >= wanted:
        return connections
    room = max(1, (soft - OWN_FILES) // FILES_EACH)
    logger.warning(
        "connections_bounded wanted={} possible={} open_files={}", connections, room, soft
    )
    return room

"""The agent of the tests with several server processes: it counts, and keeps a diary.

AGENT_DIARY=FILE python run.py --agent tests.cluster.agents:counting
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from jarvis_stream import Turn

DIARY = os.environ.get("AGENT_DIARY", os.devnull)


@dataclass(frozen=True)
class Entry:
    """Something that an agent did; the clock is one that all processes share."""

    at: float
    what: str
    stream: str
    session: str
    pid: int


def note(what: str, turn: Turn) -> None:
    """One line, whole, whatever other processes write."""
    line = f"{time.monotonic()} {what} {turn.stream_id} {turn.session_id} {os.getpid()}\n"
    diary = os.open(DIARY, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(diary, line.encode())
    os.close(diary)


def read_diary(path: Path) -> list[Entry]:
    """What all agents have noted."""
    rows = (line.split() for line in path.read_text().splitlines()) if path.exists() else ()
    return [
        Entry(float(at), what, stream, session, int(pid)) for at, what, stream, session, pid in rows
    ]


async def counting(turn: Turn) -> AsyncIterator[str]:
    """`COUNT PAUSE CLEANUP`: so many numbers, a pause after each; the cleanup takes so long."""
    count, pause, cleanup = turn.prompt.split(" ")
    note("began", turn)
    try:
        for number in range(int(count)):
            yield f"{number} "
            await asyncio.sleep(float(pause))
    finally:
        note("cleanup", turn)
        try:
            await asyncio.sleep(float(cleanup))
        finally:
            note("ended", turn)

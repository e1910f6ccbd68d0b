"""A server that is killed in the middle of its answers, again and again.

`make test-long`, or `CRASHES=50`, does it more often than `make test`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import aiohttp
import orjson
from conftest import ROOT
from postgres_server import PostgresServer
from processes import Server, serving
from profiles import amount

CRASHES = amount("CRASHES", default=4, long=50)
CHATS = 6
LOSS = 1.0
"""Seconds of an answer that a crash may cost."""
LEASE = 15.0
"""Seconds after which a PostgreSQL history believes that another process is dead."""
WORDS = 300

AGENT = f"""
import asyncio

async def agent(turn):
    for number in range({WORDS}):
        yield f"{{number}} "
        await asyncio.sleep(0.005)
"""


class Chat:
    """One question, and when each piece of its answer came."""

    def __init__(self) -> None:
        self.session_id = str(uuid.uuid4())
        self.prompt = f"question {self.session_id}"
        self.pieces: list[tuple[float, str]] = []
        self.ended = False
        self.trace_id = ""
        self.began = asyncio.Event()

    async def run(self, client: aiohttp.ClientSession, url: str) -> None:
        body = {"prompt": self.prompt, "session_id": self.session_id}
        with suppress(aiohttp.ClientError):  # the crash
            async with client.post(f"{url}/api/chat", json=body) as response:
                async for line in response.content:
                    frame = orjson.loads(line)
                    self.trace_id = frame["trace_id"]
                    if frame["type"] == "token":
                        self.pieces.append((time.monotonic(), frame["text"]))
                        self.began.set()
                    elif frame["type"] == "done":
                        self.ended = frame.get("saved", True)

    async def check(
        self, client: aiohttp.ClientSession, url: str, killed_at: float
    ) -> tuple[bool, bool]:
        """What was acknowledged is there; whether text was owed, and whether some is missing."""
        if not self.pieces:
            return False, False
        async with client.get(f"{url}/api/sessions/{self.session_id}/messages") as response:
            question, answer = orjson.loads(await response.read())["messages"]
        assert question["content"] == self.prompt
        text = answer["content"]
        assert "".join(f"{number} " for number in range(WORDS)).startswith(text)
        kept = "".join(piece for at, piece in self.pieces if at < killed_at - LOSS)
        if self.ended:
            assert (answer["status"], text) == ("complete", "".join(p for _, p in self.pieces))
        elif answer["status"] != "complete":
            assert (answer["status"], answer["error"]["code"]) == ("interrupted", "interrupted")
            assert answer["trace_id"] == self.trace_id
        return bool(kept), not text.startswith(kept)


async def crash_again_and_again(tmp_path: Path, url: str, patience: float) -> None:
    (tmp_path / "counting.py").write_text(AGENT)
    env = {"PYTHONPATH": f"{tmp_path}", "JARVIS_DATABASE_URL": url}
    command: list[str | Path] = [sys.executable, ROOT / "run.py", "--agent", "counting:agent"]
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    chance = random.Random(seed)
    before: list[tuple[Chat, float]] = []

    async def crash(server: Server) -> None:
        async with aiohttp.ClientSession() as client:
            chats = [Chat() for _ in range(CHATS)]
            tasks = [asyncio.create_task(chat.run(client, server.url)) for chat in chats]
            await asyncio.gather(*(chat.began.wait() for chat in chats))
            await asyncio.sleep(chance.uniform(0, 1.8))
            server.process.kill()
            killed_at = time.monotonic()
            await asyncio.gather(*tasks)
            before.extend((chat, killed_at) for chat in chats)

    for _ in range(CRASHES):
        with serving(*command, env=env) as server:
            await crash(server)
    with serving(*command, env=env) as server:
        await asyncio.sleep(patience)  # the leases of the dead
        async with aiohttp.ClientSession() as client:
            told = [await chat.check(client, server.url, killed_at) for chat, killed_at in before]
        owing, short = (sum(column) for column in zip(*told, strict=True))
        assert short <= owing / 2, "text is lost, and not because the disk stalled once"
        assert '"level":"ERROR"' not in server.log


async def test_a_killed_server_loses_no_question_and_at_most_a_second_of_an_answer(
    tmp_path: Path,
) -> None:
    await crash_again_and_again(tmp_path, f"sqlite:///{tmp_path / 'history.sqlite3'}", 0)


async def test_nor_does_it_with_postgresql(tmp_path: Path, postgres: PostgresServer) -> None:
    await crash_again_and_again(tmp_path, postgres.new_database(), LEASE + 5)

"""Several server processes that share a Redis and a PostgreSQL, and what can be done to them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from acceptance.clients import Api, talking_to
from conftest import ROOT
from processes import Server, serving

COUNTING = "tests.cluster.agents:counting"


class Node:
    """One process, which may be killed, and started anew on another port."""

    def __init__(self, flags: Sequence[str], env: dict[str, str]) -> None:
        self._command = [sys.executable, str(ROOT / "run.py"), *flags]
        self._env = env
        self._life = ExitStack()
        self._client = AsyncExitStack()
        self.server: Server
        self.api: Api
        self.harmed: list[float] = []
        """When it was killed, or stopped and let go on, on the monotonic clock."""

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        loop = asyncio.get_running_loop()
        context = serving(*self._command, env=self._env)
        # Not on the loop: the proxies in front of Redis are there.
        self.server = await loop.run_in_executor(None, self._life.enter_context, context)
        self.api = await self._client.enter_async_context(talking_to(self.server.url))

    async def kill(self) -> None:
        """kill -9."""
        self.harmed.append(time.monotonic())
        self.server.process.kill()
        await self.end()

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT."""
        self.harmed.append(time.monotonic())
        self.server.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.server.process.send_signal(signal.SIGCONT)
            self.harmed.append(time.monotonic())

    async def end(self) -> None:
        """It is over, if it was not."""
        await self._client.aclose()
        await asyncio.get_running_loop().run_in_executor(None, self._life.close)


@asynccontextmanager
async def nodes(
    count: int, database_url: str, redis_url: str | Sequence[str], diary: Path, *flags: str
) -> AsyncIterator[list[Node]]:
    """So many, each with its own way to Redis if there is one for each."""
    urls = [redis_url] * count if isinstance(redis_url, str) else redis_url
    started = []
    env = {"AGENT_DIARY": str(diary), "JARVIS_DATABASE_URL": database_url}
    async with contextlib.AsyncExitStack() as stack:
        for url in urls:
            node = Node(["--agent", COUNTING, *flags], {**env, "JARVIS_REDIS_URL": url})
            stack.push_async_callback(node.end)
            started.append(node)
        await asyncio.gather(*(node.start() for node in started))
        yield started


async def call(node: Node, method: str, path: str, **more: Any) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    async with node.api.http.request(method, node.api.url + path, **more) as response:
        text = await response.read()
        return response.status, (await response.json()) if text else None

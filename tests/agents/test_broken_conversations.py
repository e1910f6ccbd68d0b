"""Conversations with stops, failures and withdrawals, and a model whose roles must alternate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest
from fake_openai import FakeServer
from fakes import FakeReader

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.agents.openai import OpenAIAgent
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.registry import Opening, StreamRegistry

TURNS = 10
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer.running("--strict") as running:
        yield running


class Conversation:
    """One session with a model server."""

    def __init__(self, agent: OpenAIAgent) -> None:
        self._agent = agent
        self._asked = asyncio.Event()
        self._numbers = count(1)
        self.registry = StreamRegistry(self._answer, MemoryHistory())

    async def _answer(self, turn: Turn) -> AsyncIterator[Piece]:
        self._asked.set()
        async for piece in self._agent(turn):
            yield piece

    def ask(self, prompt: str, on_conflict: str = "interrupt") -> FakeReader:
        number = next(self._numbers)
        self._asked.clear()
        opening = Opening(
            prompt=f"{prompt} {number}",
            stream_id=f"stream-{number}",
            trace_id=f"trace-{number}",
            session_id="s",
            on_conflict=on_conflict,  # type: ignore[arg-type]
        )
        return FakeReader(self.registry.open(opening))

    async def stop(self, reader: FakeReader) -> None:
        await self.registry.cancel(reader.stream.stream_id)
        await reader.end()

    async def disturb(self, how: str) -> None:
        """Ask a question that gets no answer, or not a whole one."""
        if how in ("refuse", "fail", "break"):
            assert (await self.ask(how).end())["type"] == "error"
            return
        reader = self.ask("flood" if "middle" in how else "hang")
        if "middle" in how:
            await reader.sees("x")
        elif how != "stop at once":
            await self._asked.wait()
        if how.startswith("stop"):
            await self.stop(reader)
        elif how == "withdraw":
            queued = [self.ask("queued", "enqueue") for _ in range(2)]
            for each in queued:
                await self.stop(each)
            await self.stop(reader)
        elif how == "rollback":
            assert (await self.ask("question", "rollback").end())["type"] == "done"
        # Else the next question supersedes it.


DISTURBANCES = [
    "stop at once",
    "stop before the first token",
    "stop in the middle",
    "supersede before the first token",
    "supersede in the middle",
    "withdraw",
    "rollback",
    "refuse",
    "fail",
    "break",
]


async def converse(server: FakeServer, disturbances: list[str]) -> None:
    async with (
        asyncio.timeout(TIMEOUT),
        OpenAIAgent(base_url=server.url, model="fake-1", backoff=0.001) as agent,
    ):
        conversation = Conversation(agent)
        for how in disturbances:
            await conversation.disturb(how)
            reader = conversation.ask("question")
            assert (await reader.end())["type"] == "done", how
            assert reader.text == "fine"
        await conversation.registry.shutdown()


@pytest.mark.parametrize("how", DISTURBANCES)
async def test_the_question_after_a_disturbance_is_answered(server: FakeServer, how: str) -> None:
    await converse(server, [how, how])


@pytest.mark.parametrize("seed", range(5))
async def test_every_question_is_answered_after_any_stops_failures_and_withdrawals(
    server: FakeServer, seed: int
) -> None:
    await converse(server, random.Random(seed).choices(DISTURBANCES, k=TURNS))

"""A registry with everything around it that a test of it needs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_history import SlowHistory
from fakes import FakeAgents, FakeReader

from jarvis_stream.errors import NotFound
from jarvis_stream.registry import Opening, StreamRegistry
from jarvis_stream.stream import Stream

MAX_QUEUE = 3


class House:
    """A registry with scripted agents and a short queue; prompts are the scripts' names."""

    def __init__(self, history: SlowHistory | None = None, **scripts: Any) -> None:
        self.agents = FakeAgents(**scripts)
        self.history = history or SlowHistory()
        self.registry = StreamRegistry(self.agents, self.history, max_queue=MAX_QUEUE)

    def open(
        self, stream_id: str, prompt: str, session_id: str | None = "s", **more: Any
    ) -> Stream:
        return self.registry.open(
            Opening(
                prompt=prompt,
                stream_id=stream_id,
                trace_id=f"trace-{stream_id}",
                session_id=session_id,
                **more,
            )
        )

    def read(self, stream_id: str, prompt: str, **more: Any) -> FakeReader:
        return FakeReader(self.open(stream_id, prompt, **more))

    def line_up(self, *stream_ids: str, prompt: str = "hello") -> list[FakeReader]:
        """Put a message for each in the queue."""
        return [self.read(stream_id, prompt, on_conflict="enqueue") for stream_id in stream_ids]

    async def busy(self, prompt: str = "talks", stream_id: str = "A") -> FakeReader:
        """A stream that speaks."""
        reader = self.read(stream_id, prompt)
        await reader.sees("a")
        return reader

    def stop_early(self, stream_id: str, owner: str = "") -> None:
        """Stop a stream that has not come yet."""
        with pytest.raises(NotFound):
            _ = self.registry.cancel(stream_id, owner)

    async def kept(self) -> list[tuple[str, str]]:
        """The session's turns in the history: whose, and how they ended."""
        return [(turn.stream_id, turn.status) for turn in await self.history.turns("s")]

    @property
    def empty(self) -> bool:
        """Whether nothing is left of any stream, but what the shelf keeps."""
        registry = self.registry
        return not (len(registry) or registry._sessions or registry._unsaved or registry._bounds)


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Until nothing more happens at this moment."""
    await asyncio.sleep(1 / 1024)

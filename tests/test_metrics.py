"""What `/metrics` counts."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeAgents, talks

from jarvis_stream.frames import Done
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.metrics import StreamCollector
from jarvis_stream.registry import Opening, StreamRegistry


def counts(registry: StreamRegistry) -> dict[str, float]:
    """The streams that are not retired, by state; states without any are left out."""
    states = next(iter(StreamCollector(registry).collect()))
    return {sample.labels["state"]: sample.value for sample in states.samples if sample.value}


async def test_every_state_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    history = MemoryHistory()
    kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(history, "finish", lambda stream_id, end: kept)
    registry = StreamRegistry(FakeAgents(hello=talks("a")), history)
    stream = registry.open(Opening(prompt="hello", stream_id="A", trace_id="T"))
    assert counts(registry) == {"pending": 1}
    stream.activate()
    assert counts(registry) == {"active": 1}
    stream.revoke(Done("cancelled"), "client_stop")
    assert counts(registry) == {"sealed": 1}
    kept.set_result(True)
    await asyncio.wait([stream.ended, stream.stopped])
    assert counts(registry) == {}

"""How long a stream has been silent."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeAgents, talks

from jarvis_stream import progress
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.metrics import StreamCollector
from jarvis_stream.progress import ProgressSampler
from jarvis_stream.registry import Opening, StreamRegistry


def gauge(registry: StreamRegistry, name: str) -> float:
    (family,) = [f for f in StreamCollector(registry).collect() if f.name == name]
    return float(family.samples[0].value)


async def test_a_silent_stream_is_seen_in_its_age_and_its_silence() -> None:
    registry = StreamRegistry(FakeAgents(hello=talks("a")), MemoryHistory())
    assert gauge(registry, "jarvis_oldest_stream_seconds") == 0
    assert gauge(registry, "jarvis_longest_silence_seconds") == 0
    stream = registry.open(Opening(prompt="hello", stream_id="A", trace_id="T"))
    stream.activate()
    now = stream.started_at
    stream.note_progress(now + 10)
    assert stream.silence(now + 25) == 15
    stream.append("b")
    assert stream.silence(now + 40) == 0
    assert stream.silence(now + 41) == 1
    await registry.shutdown()


async def test_all_streams_are_sampled_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_STREAMS_PER_STEP", 2)
    done = asyncio.Event()

    class Fake:
        samples = 0

        def note_progress(self, now: float) -> None:
            self.samples += 1
            if all(each.samples >= 2 for each in streams):
                done.set()

    streams = [Fake() for _ in range(5)]
    with ProgressSampler(streams, interval=0.001):  # type: ignore[arg-type]
        await done.wait()

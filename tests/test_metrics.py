"""What is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from fakes import FakeAgents, talks
from prometheus_client.parser import text_string_to_metric_families

from jarvis_stream import Turn, create_app
from jarvis_stream.frames import Done
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.metrics import StreamCollector
from jarvis_stream.registry import Opening, StreamRegistry
from jarvis_stream.settings import Settings

Client = TestClient[web.Request, web.Application]


async def moody(turn: Turn) -> AsyncIterator[str]:
    yield "I say: "
    if turn.prompt == "wait":
        await asyncio.Event().wait()
    if turn.prompt == "fail":
        raise ZeroDivisionError


async def figures(client: Client) -> dict[tuple[str, str], float]:
    """Every sample by its name and the value of its label, if it has one."""
    response = await client.get("/metrics")
    assert (response.status, response.content_type) == (200, "text/plain")
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(await response.text())
        for sample in family.samples
    }


async def test_streams_are_counted_by_state_and_then_by_outcome(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    client: Client = await aiohttp_client(create_app(Settings(), agent=moody))
    before = await figures(client)
    assert before["jarvis_streams", "active"] == 0
    async with client.post("/api/chat", json={"prompt": "wait", "session_id": "s"}) as live:
        await live.content.readuntil(b"say")
        now = await figures(client)
        assert (now["jarvis_streams", "active"], now["jarvis_readers", ""]) == (1, 1)
        await (await client.post("/api/chat", json={"prompt": "a", "session_id": "s"})).read()
        await live.read()
    await (await client.post("/api/chat", json={"prompt": "fail"})).read()
    after = await figures(client)
    assert {
        state: after["jarvis_streams", state] for _, state in before if _ == "jarvis_streams"
    } == {
        "pending": 0,
        "active": 0,
        "sealed": 0,
        "ended": 0,
        "undead": 0,
    }
    assert after["jarvis_readers", ""] == 0
    for outcome in ("stop", "superseded", "agent_error"):
        assert after["jarvis_streams_ended_total", outcome] == 1
    assert after["jarvis_replayable_streams", ""] == 3
    assert after["jarvis_replayable_bytes", ""] > 0
    assert after["jarvis_cancel_timeouts_total", ""] == 0


async def test_the_history_tells_how_its_writing_goes(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    client: Client = await aiohttp_client(create_app(Settings(), agent=moody))
    await (await client.post("/api/chat", json={"prompt": "a"})).read()
    now = await figures(client)
    assert now["jarvis_history_writable", ""] == 1
    assert now["jarvis_history_saved_total", ""] == 2
    assert now["jarvis_history_failures_total", ""] == 0
    assert now["jarvis_history_dropped_total", ""] == 0


async def test_the_process_is_described_too(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    client: Client = await aiohttp_client(create_app(Settings(), agent=moody))
    names = {name for name, _ in await figures(client)}
    assert names >= {"process_resident_memory_bytes", "process_open_fds", "python_info"}


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

"""What is counted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from conftest import ROOT
from fakes import FakeAgents, FakeReader, says, talks
from prometheus_client.parser import text_string_to_metric_families

from jarvis_stream import Turn, create_app
from jarvis_stream.agents.base import Piece
from jarvis_stream.frames import Done
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.metrics import LoopLag, StreamCollector
from jarvis_stream.registry import Opening, StreamRegistry
from jarvis_stream.settings import Settings
from jarvis_stream.stream import DELAYS_EVERY

pytestmark = pytest.mark.usefixtures("patient_history")

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


async def samples(client: Client) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels, by the labels' names."""
    response = await client.get("/metrics")
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(await response.text())
        for sample in family.samples
    }


async def test_starts_and_refusals_are_counted_by_transport(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    client: Client = await aiohttp_client(create_app(Settings(), agent=moody))
    start = {"prompt": "a", "stream_id": "0195f1a0-0000-7000-8000-000000000000"}
    for _ in range(2):
        await (await client.post("/api/chat", json=start)).read()
    await client.post("/api/chat", json={"prompt": ""})
    await client.post("/api/chat", data=b"a")
    async with client.ws_connect("/ws") as ws:
        await ws.send_json({"type": "start", "prompt": "a"})
        await ws.send_json({"type": "resume", "stream_id": "A"})
        while (await ws.receive_json(loads=last_line))["type"] != "error":
            pass
        assert (await samples(client))["jarvis_websockets", ()] == 1
    now = await samples(client)
    assert now["jarvis_starts_total", ("started", "http")] == 1
    assert now["jarvis_starts_total", ("attached", "http")] == 1
    assert now["jarvis_starts_total", ("started", "websocket")] == 1
    assert now["jarvis_requests_refused_total", ("invalid", "http")] == 1
    assert now["jarvis_requests_refused_total", ("unsupported_media_type", "http")] == 1
    assert now["jarvis_requests_refused_total", ("invalid", "websocket")] == 1


def last_line(message: str) -> object:
    return json.loads(message.splitlines()[-1])


async def test_a_reader_that_goes_before_the_end_is_counted_as_gone(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    client: Client = await aiohttp_client(create_app(Settings(heartbeat=0.01), agent=moody))
    async with client.post("/api/chat", json={"prompt": "wait"}) as live:
        await live.content.readuntil(b"say")
        live.close()
    while True:  # each scrape gives the server its turn
        now = await samples(client)
        stopped = now["jarvis_stop_seconds_count", ()]
        if ("jarvis_streams_ended_total", ("cancelled",)) in now and stopped:
            break
    assert stopped == 1


async def test_durations_are_told_as_histograms(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    client: Client = await aiohttp_client(create_app(Settings(), agent=moody))
    async with client.post("/api/chat", json={"prompt": "wait", "session_id": "s"}) as live:
        await live.content.readuntil(b"say")
        await (await client.post("/api/chat", json={"prompt": "a", "session_id": "s"})).read()
        await live.read()
    now = await samples(client)
    assert now["jarvis_first_token_seconds_count", ()] == 2
    assert now["jarvis_first_token_seconds_bucket", ("+Inf",)] == 2
    assert now["jarvis_supersede_wait_seconds_count", ()] == 1
    assert now["jarvis_stop_seconds_count", ()] == 1
    assert now["jarvis_log_bytes", ()] == 0


async def test_how_late_frames_and_the_loop_are_is_counted() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"

    async def at_once(turn: Turn) -> AsyncGenerator[Piece, None]:
        for letter in letters:
            yield letter

    registry = StreamRegistry(FakeAgents(hello=says(*letters), burst=at_once), MemoryHistory())
    delays = registry.times.delivery
    with LoopLag(every=0.001) as lag:
        stream = registry.open(Opening(prompt="hello", stream_id="A", trace_id="T"))
        FakeReader(stream)
        await asyncio.wait([stream.ended, stream.stopped])
        await asyncio.sleep(0.005)
    assert len(delays) == 2  # of 28 turns of the loop, the first and the 17th
    for number in range(DELAYS_EVERY):
        burst = registry.open(Opening(prompt="burst", stream_id=f"B{number}", trace_id="T"))
        FakeReader(burst)
        await asyncio.wait([burst.ended, burst.stopped])
    assert 3 <= len(delays) <= 5  # they take a turn or two each
    counted = len(lag.tally)
    assert counted
    await asyncio.sleep(0.005)
    assert len(lag.tally) == counted


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


async def test_the_dashboard_asks_for_metrics_that_exist(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    client: Client = await aiohttp_client(create_app(Settings(), agent=moody))
    exposition = await (await client.get("/metrics")).text()
    families = {family.name for family in text_string_to_metric_families(exposition)}
    dashboard = json.loads((ROOT / "docs" / "deploy" / "grafana.json").read_text())
    asked = {
        re.sub("_(total|bucket)$", "", name)
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:jarvis|process)_\w+", target["expr"])
    }
    assert asked <= families
    ours = {name for name in families if name.startswith("jarvis_")}
    assert ours - asked <= {"jarvis_replayable_streams"}  # what nobody looks at every day

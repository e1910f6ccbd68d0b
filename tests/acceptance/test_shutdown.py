"""Told to stop, a server lets answers end, ends the others and every socket, and leaves."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from profiles import EVENT_LOOPS

from .clients import (
    PATIENCE,
    Api,
    Frame,
    check_stream,
    lines,
    new_id,
    outcome,
    talking_to,
    text_of,
    wire,
)
from .conftest import assert_quiet, start

loops = pytest.mark.parametrize("loop", EVENT_LOOPS)


@loops
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_live_streams_end_as_shutdown_and_sockets_close_with_1001(
    loop: str, number: signal.Signals
) -> None:
    with start("--shutdown-grace", "0", loop=loop) as server:
        async with talking_to(server.url) as api, api.socket() as ws, api.socket() as idle:
            async with api.posting("tidy 0.3") as live:
                stream_id = new_id()
                await ws.send(type="start", prompt="tick 10000 0.01", stream_id=stream_id)
                await ws.spoke(stream_id)
                await live.content.readuntil(b"here")
                begun = time.monotonic()
                stopping = asyncio.create_task(asyncio.to_thread(server.stop, number))
                over_http = lines(b"{" + (await live.read()).partition(b"\n{")[2])
            over_ws = await ws.ended(stream_id)
            codes = {await ws.closed(), await idle.closed()}
            code, log = await stopping
    assert outcome(over_http) == "shutdown"
    check_stream(over_ws)
    assert outcome(over_ws) == "shutdown"
    assert codes == {1001}
    assert code == 0
    assert 0.3 <= time.monotonic() - begun < PATIENCE
    assert "reason=shutdown" in log
    assert_quiet(log)


@loops
async def test_an_agent_that_does_not_stop_does_not_keep_the_server(loop: str) -> None:
    with start("--shutdown-grace", "0", loop=loop) as server:
        async with talking_to(server.url) as api, api.posting("stubborn 600") as live:
            await live.content.readuntil(b"here")
            begun = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, signal.SIGTERM))
            assert outcome(lines(b"{" + (await live.read()).partition(b"\n{")[2])) == "shutdown"
            code, _ = await stopping
    assert code == 0
    assert 2 <= time.monotonic() - begun < PATIENCE


@loops
async def test_many_streams_end_at_once(loop: str) -> None:
    with start("--shutdown-grace", "0", loop=loop) as server:
        async with talking_to(server.url) as api:
            reading = [asyncio.create_task(api.chat("silent")) for _ in range(200)]
            await api.until(lambda now: now["jarvis_readers"] == 200)
            code, log = await asyncio.to_thread(server.stop, signal.SIGTERM)
            answers = await asyncio.gather(*reading)
    assert code == 0
    assert {outcome(frames) for frames in answers} == {"shutdown"}
    assert_quiet(log)


async def drained(api: Api) -> None:
    """Until the server says that it takes nothing new."""
    while True:
        async with api.http.get(api.url + "/readyz") as response:
            if response.status == 503:
                assert (await response.json())["code"] == "shutting_down"
                return
            assert response.status == 200


@loops
async def test_what_runs_goes_on_and_what_is_new_is_refused(loop: str) -> None:
    with start("--shutdown-grace", "60", loop=loop) as server:
        async with talking_to(server.url) as api, api.socket() as ws:
            stream_id, other = new_id(), new_id()
            async with api.posting("tick 60 0.1", stream_id=stream_id) as live:
                await ws.send(type="start", prompt="tick 60 0.1", stream_id=other)
                await ws.spoke(other)
                await live.content.readuntil(b'"token"')
                stopping = asyncio.create_task(asyncio.to_thread(server.stop, signal.SIGTERM))
                await drained(api)
                body = {"prompt": "say hello"}
                async with api.http.post(server.url + "/api/chat", json=body) as refused:
                    assert refused.status == 503
                    assert (await refused.json())["code"] == "shutting_down"
                    assert "Retry-After" in refused.headers
                await ws.send(type="start", prompt="say hello", stream_id=new_id())
                refusal = await ws.until(lambda frame: frame["type"] == "error")
                assert refusal["code"] == "shutting_down"
                assert b'"alive":true' in await (await api.http.get(server.url + "/livez")).read()
                resumed = lines(await api.replay(stream_id))
                check_stream(resumed)
                assert outcome(resumed) == "stop"
                assert (await live.content.read()).endswith(b'"finish_reason":"stop"}\n')
            assert outcome(await ws.ended(other)) == "stop"
            ended = time.monotonic()
            assert await ws.closed() == 1001
            code, log = await stopping
    assert code == 0
    assert time.monotonic() - ended < PATIENCE  # and not the sixty seconds of the grace
    assert_quiet(log)


@loops
async def test_a_slow_reader_has_the_grace_to_take_what_is_there(loop: str) -> None:
    with start("--shutdown-grace", "60", loop=loop) as server:
        async with talking_to(server.url) as api, wire(server.url, receive_buffer=4096) as slow:
            slow.post("flood 300")
            slow.pause()
            await api.until(lambda now: now.get('jarvis_streams_ended_total{outcome="stop"}') == 1)
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, signal.SIGTERM))
            await drained(api)
            slow.unpause()
            got = await slow.rest()
            assert b'"finish_reason":"stop"}\n' in got
            assert got.count(b'"type":"token"') == 300
            code, log = await stopping
    assert code == 0
    assert_quiet(log)


@loops
async def test_it_leaves_at_once_when_nothing_runs(loop: str) -> None:
    with start("--shutdown-grace", "600", loop=loop) as server:
        async with talking_to(server.url) as api, api.socket() as idle:
            await api.chat("say hello")  # and the connection is kept
            closed = asyncio.create_task(idle.closed())
            begun = time.monotonic()
            code, log = await asyncio.to_thread(server.stop, signal.SIGTERM)
            assert await closed == 1001
    assert code == 0
    assert time.monotonic() - begun < PATIENCE
    assert_quiet(log)


GRACE = 6.0
STREAMS = 100
"""On each transport."""


@loops
async def test_two_hundred_live_streams_all_come_to_an_end_that_is_kept(
    loop: str, tmp_path: Path
) -> None:
    flags = ("--database-url", str(tmp_path / "history.sqlite3"), "--shutdown-grace", f"{GRACE:g}")
    # Every other one ends before the grace does.
    prompts = ["tick 20 0.1" if n % 2 else "tick 100000 0.05" for n in range(2 * STREAMS)]
    ids = [new_id() for _ in prompts]
    with start(*flags, loop=loop) as server:
        async with talking_to(server.url) as api:
            over_http = [
                asyncio.create_task(api.chat(prompt, stream_id=key, session_id=key))
                for prompt, key in zip(prompts[:STREAMS], ids[:STREAMS], strict=True)
            ]
            over_ws = [
                asyncio.create_task(_converse(api, prompt, key))
                for prompt, key in zip(prompts[STREAMS:], ids[STREAMS:], strict=True)
            ]
            await api.until(_all_began)
            begun = time.monotonic()
            code, log = await asyncio.to_thread(server.stop, signal.SIGTERM)
            took = time.monotonic() - begun
            answers = await asyncio.gather(*over_http, *over_ws)
    assert code == 0
    assert_quiet(log)
    # A second more than the grace, and what a busy machine adds.
    assert took < GRACE + 1 + PATIENCE
    for frames in answers:
        check_stream(frames)
    assert {outcome(frames) for frames in answers} == {"stop", "shutdown"}
    with start(*flags, loop=loop) as server:
        async with talking_to(server.url) as api:
            for key, frames in zip(ids, answers, strict=True):
                kept = await _answer(api, key)
                assert kept["content"] == text_of(frames)
                assert kept["finish_reason"] == outcome(frames)
                is_whole = outcome(frames) == "stop"
                assert kept["status"] == ("complete" if is_whole else "interrupted")


def _all_began(now: dict[str, float]) -> bool:
    # A question is durable before its answer begins, so this many are already kept.
    begun = (count for name, count in now.items() if name.startswith("jarvis_starts_total"))
    return sum(begun) == 2 * STREAMS


async def _converse(api: Api, prompt: str, key: str) -> list[Frame]:
    async with api.socket() as ws:
        await ws.send(type="start", prompt=prompt, stream_id=key, session_id=key)
        frames = await ws.ended(key)
        assert await ws.closed() == 1001
        return frames


async def _answer(api: Api, session_id: str) -> dict[str, Any]:
    async with api.http.get(f"{api.url}/api/sessions/{session_id}/messages") as response:
        assert response.status == 200
        _, answer = (await response.json())["messages"]
        found: dict[str, Any] = answer
        return found


@loops
async def test_a_second_sigterm_does_not_wait_for_the_grace(loop: str) -> None:
    with start("--shutdown-grace", "600", loop=loop) as server:
        async with talking_to(server.url) as api, api.posting("tick 100000 0.05") as live:
            await live.content.readuntil(b'"token"')
            server.process.send_signal(signal.SIGTERM)
            await drained(api)
            begun = time.monotonic()
            code, _ = await asyncio.to_thread(server.stop, signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert time.monotonic() - begun < PATIENCE

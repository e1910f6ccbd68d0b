"""Told to stop, a server ends every stream and every socket properly, and leaves."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from .clients import check_stream, lines, new_id, outcome, talking_to
from .conftest import assert_quiet, start

loops = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


@loops
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_live_streams_end_as_shutdown_and_sockets_close_with_1001(
    loop: str, number: signal.Signals
) -> None:
    with start(loop=loop) as server:
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
    assert 0.3 <= time.monotonic() - begun < 10
    assert "reason=shutdown" in log
    assert_quiet(log)


@loops
async def test_an_agent_that_does_not_stop_does_not_keep_the_server(loop: str) -> None:
    with start(loop=loop) as server:
        async with talking_to(server.url) as api, api.posting("stubborn 30") as live:
            await live.content.readuntil(b"here")
            begun = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, signal.SIGTERM))
            assert outcome(lines(b"{" + (await live.read()).partition(b"\n{")[2])) == "shutdown"
            code, _ = await stopping
    assert code == 0
    assert 2 <= time.monotonic() - begun < 20


@loops
async def test_many_streams_end_at_once(loop: str) -> None:
    with start(loop=loop) as server:
        async with talking_to(server.url) as api:
            reading = [asyncio.create_task(api.chat("silent")) for _ in range(200)]
            await api.until(lambda now: now["jarvis_readers"] == 200)
            code, log = await asyncio.to_thread(server.stop, signal.SIGTERM)
            answers = await asyncio.gather(*reading)
    assert code == 0
    assert {outcome(frames) for frames in answers} == {"shutdown"}
    assert_quiet(log)

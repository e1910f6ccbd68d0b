"""Large bodies: bounded in memory, and only as fast as they are read."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from jarvis_stream import Turn, create_app
from jarvis_stream.errors import Overloaded
from jarvis_stream.settings import Settings
from jarvis_stream.transports.bodies import (
    READ_COST,
    READS,
    CompactText,
    ReadBudget,
    SliceScheduler,
    json_pieces,
    send_body,
)
from jarvis_stream.transports.context import COUNTS, REGISTRY

from .conftest import Client


@pytest.mark.parametrize("text", ["", 'é"\n\\' * 50_000, "\U0001f600" * 40_000, "half \ud83d"])
async def test_a_long_text_is_encoded_as_json_in_slices(text: str) -> None:
    fields = {"id": 1, "content": text, "usage": {"a": [1]}}
    compact = await CompactText.of(text, SliceScheduler())
    assert compact.size == len(text.encode(errors="replace"))
    pieces = list(json_pieces({**fields, "content": compact}, "content"))
    shown = text.encode(errors="replace").decode()
    assert json.loads(b"".join(pieces)) == {**fields, "content": shown}
    assert max(map(len, pieces)) < 200_000


async def test_a_principal_has_its_share_and_no_more() -> None:
    budget = ReadBudget(total=10, share=6, wait_timeout=60)
    async with budget.reserve("ann", 6):
        waiting = asyncio.create_task(_hold(budget, "ann", 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with budget.reserve("bob", 4):  # not held up by who waits for his own share
            assert budget.size == 10
    await waiting
    assert budget.size == 0


async def test_a_reservation_that_shrinks_admits_others() -> None:
    budget = ReadBudget(total=10, share=10, wait_timeout=60)
    async with budget.reserve("ann", 10) as reservation:
        waiting = asyncio.create_task(_hold(budget, "bob", 5))
        await asyncio.sleep(0)
        assert not waiting.done()
        reservation.shrink(4)
        await waiting
        assert budget.size == 4
    assert budget.size == 0


async def test_who_waits_too_long_is_refused_and_holds_nothing() -> None:
    budget = ReadBudget(total=10, share=10, wait_timeout=0.01)
    async with budget.reserve("ann", 10):
        with pytest.raises(Overloaded, match="10 bytes"):
            await _hold(budget, "bob", 1)
    await _hold(budget, "bob", 10)
    assert budget.size == 0


async def test_who_is_cancelled_while_it_waits_holds_nothing() -> None:
    budget = ReadBudget(total=10, share=10, wait_timeout=60)
    async with budget.reserve("ann", 10):
        waiting = asyncio.create_task(_hold(budget, "bob", 1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert budget.size == 0
    await _hold(budget, "bob", 10)


async def test_the_slices_of_all_bodies_share_the_event_loop() -> None:
    slices = SliceScheduler()
    loop = asyncio.get_running_loop()
    iteration = 0
    seen: list[int] = []

    def count() -> None:
        nonlocal iteration
        iteration += 1
        if iteration < 1000:
            loop.call_soon(count)

    async def encode() -> None:
        for _ in range(10):
            await slices.slice()
            seen.append(iteration)

    loop.call_soon(count)
    cancelled = asyncio.create_task(encode())
    bodies = [asyncio.create_task(encode()) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled, *bodies])
    assert iteration < 1000
    assert len(seen) >= 50
    assert max(map(seen.count, seen)) == 1


async def _hold(budget: ReadBudget, who: str, size: int) -> None:
    async with budget.reserve(who, size):
        pass


async def test_a_failure_in_the_middle_cuts_the_connection(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b"x" * 100_000
        raise ZeroDivisionError

    async def broken(request: web.Request) -> web.StreamResponse:
        return await send_body(request, {}, pieces())

    async def parrot(turn: Turn) -> AsyncIterator[str]:
        yield turn.prompt

    app = create_app(Settings(), agent=parrot)
    app.router.add_get("/broken", broken)
    client = await aiohttp_client(app)
    with pytest.raises(Exception, match=r"payload|reset|disconnected"):
        await (await client.get("/broken")).read()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def long_answer(turn: Turn) -> AsyncIterator[str]:
    for _ in range(4):
        yield 'é"\n0123456789' * 20_000  # 280 kB


@pytest.mark.parametrize("call", ["messages", "export.json", "export.md"])
async def test_readers_that_read_nothing_cost_little_and_are_disconnected(
    patient_history: None, call: str
) -> None:
    app = create_app(Settings(stall_timeout=1, max_starts_per_minute=10_000), agent=long_answer)
    async with TestServer(app) as server:
        connections: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        url = server.make_url("/")
        async with aiohttp.ClientSession(url) as http:
            for _ in range(12):  # 13 MB
                request = {"prompt": "q", "session_id": "s"}
                await (await http.post("/api/chat", json=request)).read()
            before = _peak()
            try:
                for _ in range(16):
                    connection = socket.socket()
                    connection.setblocking(False)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    await loop.sock_connect(connection, (server.host, server.port))
                    head = f"GET /api/sessions/s/{call} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    await loop.sock_sendall(connection, head.encode())
                    connections.append(connection)
                await eventually(lambda: app[COUNTS].let_go["http", "slow"] > 0)
                assert (await http.get("/livez")).status == 200
                assert _peak() - before < 64 * 1024 * 1024
                await eventually(lambda: app[READS].size == 0)
            finally:
                for connection in connections:
                    connection.close()


async def test_slow_readers_of_one_principal_leave_memory_for_the_others(
    patient_history: None,
) -> None:
    tokens = SecretStr(f"ann:{'A' * 24},bob:{'B' * 24}")
    settings = Settings(auth_tokens=tokens, stall_timeout=120, max_starts_per_minute=10_000)
    app = create_app(settings, agent=long_answer)
    async with TestServer(app) as server:
        connections: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(server.make_url("/")) as http:
            for name in "AB":
                headers = {"Authorization": f"Bearer {name * 24}"}
                for _ in range(5):
                    request = {"prompt": "q", "session_id": "s"}
                    await (await http.post("/api/chat", json=request, headers=headers)).read()
            try:
                for _ in range(16):
                    connection = socket.socket()
                    connection.setblocking(False)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    await loop.sock_connect(connection, (server.host, server.port))
                    head = (
                        "GET /api/sessions/s/export.json HTTP/1.1\r\nHost: localhost\r\n"
                        f"Authorization: Bearer {'A' * 24}\r\n\r\n"
                    )
                    await loop.sock_sendall(connection, head.encode())
                    connections.append(connection)
                await eventually(lambda: app[READS].size > 2**20)
                headers = {"Authorization": f"Bearer {'B' * 24}"}
                for call in ("messages", "export.json", "export.md"):
                    response = await http.get(f"/api/sessions/s/{call}", headers=headers)
                    assert response.status == 200
                    await response.read()
            finally:
                for connection in connections:
                    connection.close()


async def test_an_export_reads_nothing_before_it_has_memory(
    aiohttp_client: Callable[..., Awaitable[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def parrot(turn: Turn) -> AsyncIterator[str]:
        yield turn.prompt

    app = create_app(Settings(), agent=parrot)
    client = await aiohttp_client(app)
    await (await client.post("/api/chat", json={"prompt": "q", "session_id": "s"})).read()
    budget = app[READS]
    history = app[REGISTRY].history
    page = history.page
    sizes: list[int] = []

    async def counted(*args: Any, **options: Any) -> Any:
        sizes.append(budget.size)
        return await page(*args, **options)

    monkeypatch.setattr(history, "page", counted)
    for kind in ("json", "md"):
        assert (await client.get(f"/api/sessions/s/export.{kind}")).status == 200
    assert min(sizes) == READ_COST


def _peak() -> int:
    """The most memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

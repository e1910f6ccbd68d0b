"""Asks whole products, each by its own protocol, for answers and counts their tokens.

    python -m benchmarks.products chainlit URL TOKENS ANSWERS

Prints a JSON object: `tokens`, `seconds`, `first_token` (the median, seconds), and `busy`, the
share of the time that this program worked. It is no match for loadgen, nor need it be for these.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable

import aiohttp
import socketio
import uvloop

Tokens = AsyncIterator[None]


async def ndjson(url: str, prompt: str) -> Tokens:
    """Our own, by its HTTP."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/api/chat", json={"prompt": prompt}) as response,
    ):
        async for line in response.content:
            if b'"type":"token"' in line:
                yield


async def langgraph(url: str, prompt: str) -> Tokens:
    """A run without a thread; what the graph writes comes as server-sent events."""
    body = {"assistant_id": "agent", "input": {"prompt": prompt}, "stream_mode": ["custom"]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/runs/stream", json=body) as response,
    ):
        async for line in response.content:
            if line.startswith(b"data:") and b'"token"' in line:
                yield


async def chainlit(url: str, prompt: str) -> Tokens:
    """A message of a new session, over Socket.IO."""
    events: asyncio.Queue[str] = asyncio.Queue()
    client = socketio.AsyncClient()
    client.on("*", lambda event, *_: events.put_nowait(event))
    auth = {"clientType": "webapp", "sessionId": str(uuid.uuid4()), "userEnv": "{}"}
    await client.connect(
        url, transports=["websocket"], socketio_path="/ws/socket.io", auth={**auth, "threadId": ""}
    )
    try:
        await client.emit("connection_successful")
        while await events.get() != "clear_call_fn":
            pass
        message = {
            "id": str(uuid.uuid4()), "threadId": "", "name": "user", "type": "user_message",
            "output": prompt, "createdAt": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        await client.emit("client_message", {"message": message, "fileReferences": []})
        while (event := await events.get()) != "task_end":
            if event in ("stream_start", "stream_token"):
                yield
    finally:
        await client.disconnect()


async def count(ask: Callable[[str, str], Tokens], url: str, tokens: int, answers: int) -> str:
    firsts: list[float] = []
    total = 0

    async def one() -> None:
        nonlocal total
        asked, counted = time.perf_counter(), 0
        async for _ in ask(url, f"tokens={tokens}"):
            if not counted:
                firsts.append(time.perf_counter() - asked)
            counted += 1
        total += counted

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(answers)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    first = statistics.median(firsts) if firsts else 0
    told = {"tokens": total, "seconds": seconds, "first_token": first, "busy": cpu / seconds}
    return json.dumps(told)


if __name__ == "__main__":
    kind, where, tokens, answers = sys.argv[1:]
    ask = {"ndjson": ndjson, "langgraph": langgraph, "chainlit": chainlit}[kind]
    print(uvloop.run(count(ask, where, int(tokens), int(answers))))

"""FastAPI on uvicorn (uvloop, httptools): `bare`, or the `seed`'s design, where it all began.

bare    an async generator in a StreamingResponse, `send_text` over WebSocket
seed    a registry with a lock, an agent task that fills a queue, and a generator that waits for it
        for a tenth of a second at a time, between looks at a cancel event and at the connection
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from benchmarks.agents import answer
from benchmarks.references.frames import Frames, listen

NDJSON = "application/x-ndjson"
CLEANUP = 2.0  # seconds a predecessor has


class Entry:
    """A stream that is registered."""

    def __init__(self, session_id: str) -> None:
        self.trace_id = uuid.uuid4().hex
        self.session_id = session_id
        self.cancelled = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Registry:
    """One stream a session, as the seed has it: cancel the old one, and wait outside the lock."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._by_trace: dict[str, Entry] = {}
        self._by_session: dict[str, str] = {}

    async def register(self, entry: Entry) -> None:
        async with self._lock:
            old = self._by_trace.get(self._by_session.get(entry.session_id, ""))
        if old is not None and old.task is not None:
            async with self._lock:
                old.cancelled.set()
                old.task.cancel()
            await asyncio.wait({old.task}, timeout=CLEANUP)
        async with self._lock:
            self._by_trace[entry.trace_id] = entry
            self._by_session[entry.session_id] = entry.trace_id

    async def pop(self, entry: Entry) -> None:
        async with self._lock:
            self._by_trace.pop(entry.trace_id, None)
            if self._by_session.get(entry.session_id) == entry.trace_id:
                del self._by_session[entry.session_id]


registry = Registry()


async def fill(prompt: str, queue: asyncio.Queue[dict[str, Any]]) -> None:
    await queue.put({"type": "status", "status": "thinking"})
    async for text in answer(prompt):
        await queue.put({"type": "token", "content": text})
    await queue.put({"type": "done"})


async def seed(fields: dict[str, Any], request: Request | None) -> AsyncIterator[str]:
    """The frames of one answer; `request` is asked before each whether its client is still here."""
    entry = Entry(fields.get("session_id") or uuid.uuid4().hex)
    stream_id, seq = str(uuid.uuid4()), 0
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    await registry.register(entry)
    entry.task = asyncio.create_task(fill(fields["prompt"], queue))
    try:
        while True:
            if entry.cancelled.is_set():
                raise asyncio.CancelledError
            if request is not None and await request.is_disconnected():
                return
            try:
                event = await asyncio.wait_for(queue.get(), timeout=0.1)
            except TimeoutError:
                continue
            seq += 1
            frame = {
                "type": event["type"],
                "stream_id": stream_id,
                "trace_id": entry.trace_id,
                "epoch": 1700000000000,
                "seq": seq,
            }
            if event["type"] == "token":
                frame["text"] = event["content"]
            elif event["type"] == "status":
                frame["status"] = event["status"]
            yield json.dumps(frame) + "\n"
            if event["type"] == "done":
                return
    finally:
        entry.task.cancel()
        await asyncio.wait({entry.task}, timeout=0.5)
        await registry.pop(entry)


async def bare(fields: dict[str, Any], request: Request | None) -> AsyncIterator[str]:
    frames = Frames()
    yield frames.thinking().decode()
    async for text in answer(fields["prompt"]):
        yield frames.token(text).decode()
    yield frames.done().decode()


async def chat(request: Request) -> StreamingResponse:
    return StreamingResponse(frames_of(await request.json(), request), media_type=NDJSON)


async def connect(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            async for frame in frames_of(json.loads(await websocket.receive_text()), None):
                await websocket.send_text(frame)
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    app = FastAPI()
    app.add_api_route("/api/chat", chat, methods=["POST"])
    app.add_api_websocket_route("/ws", connect)
    frames_of = {"seed": seed, "bare": bare}[sys.argv[1]]
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", log_level="error",
        access_log=False, ws_per_message_deflate=False, ws_ping_interval=None,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listen()])

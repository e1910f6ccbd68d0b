"""python-socketio on aiohttp and uvloop: one event `frame` for each token."""

from __future__ import annotations

from typing import Any

import socketio
import uvloop
from aiohttp import web

from benchmarks.agents import answer
from benchmarks.references.frames import forever, listen

server = socketio.AsyncServer(async_mode="aiohttp")


async def speak(sid: str, prompt: str) -> None:
    ids = {"stream_id": "01890a5d-ac96-774b-bcce-b302099a8057", "trace_id": "4bf92f3577b34da6"}
    seq = 1
    await server.emit("frame", {"type": "status", **ids, "seq": 1, "status": "thinking"}, to=sid)
    async for text in answer(prompt):
        seq += 1
        await server.emit("frame", {"type": "token", **ids, "seq": seq, "text": text}, to=sid)
    await server.emit("frame", {"type": "done", **ids, "seq": seq + 1}, to=sid)


async def chat(sid: str, fields: dict[str, Any]) -> None:
    await speak(sid, fields["prompt"])


async def main() -> None:
    server.on("chat", chat)
    app = web.Application()
    server.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listen(), backlog=1024).start()
    await forever()


if __name__ == "__main__":
    uvloop.run(main())

"""aiohttp on uvloop and nothing else: `write`, `push` or `joined`.

write     `StreamResponse.write` and `WebSocketResponse.send_str`, a token each
push      whoever made a token writes it to the transport at once, wrapped by hand
joined    the same, once for all that was made in a turn of the event loop
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import orjson
import uvloop
from aiohttp import web

from benchmarks.agents import answer
from benchmarks.references.frames import NDJSON, Frames, chunk, forever, listen, message, messages

Write = Callable[[bytes], None]
Socket = web.WebSocketResponse


class Joined:
    """Hands on, joined, what was sent during one turn of the event loop."""

    def __init__(self, transport: asyncio.WriteTransport, *, is_http: bool) -> None:
        self._transport = transport
        self._is_http = is_http
        self._sent: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def send(self, frame: bytes) -> None:
        if not self._sent:
            self._loop.call_soon(self.flush)
        self._sent.append(frame)

    def flush(self) -> None:
        sent, self._sent = self._sent, []
        if not sent:
            return
        self._transport.write(chunk(b"".join(sent)) if self._is_http else b"".join(messages(sent)))


async def push(prompt: str, send: Write) -> None:
    frames = Frames()
    send(frames.thinking())
    async for text in answer(prompt):
        send(frames.token(text))
    send(frames.done())


async def chat(request: web.Request) -> web.StreamResponse:
    prompt = orjson.loads(await request.read())["prompt"]
    response = web.StreamResponse(headers=NDJSON)
    writer = await response.prepare(request)
    transport = request.transport
    assert writer is not None
    assert transport is not None
    if WAY == "write":
        frames = Frames()
        await response.write(frames.thinking())
        async for text in answer(prompt):
            await response.write(frames.token(text))
        await response.write(frames.done())
        return response
    writer.send_headers()
    if WAY == "push":
        await push(prompt, lambda frame: transport.write(chunk(frame)))
    else:
        joined = Joined(transport, is_http=True)
        await push(prompt, joined.send)
        joined.flush()
    return response


async def connect(request: web.Request) -> Socket:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    transport = request.transport
    assert transport is not None
    async for message_in in ws:
        prompt = orjson.loads(message_in.data)["prompt"]
        if WAY == "write":
            frames = Frames()
            await ws.send_str(frames.thinking().decode())
            async for text in answer(prompt):
                await ws.send_str(frames.token(text).decode())
            await ws.send_str(frames.done().decode())
        elif WAY == "push":
            await push(prompt, lambda frame: transport.write(message(frame)))
        else:
            await push(prompt, Joined(transport, is_http=False).send)
    return ws


async def main() -> None:
    app = web.Application()
    app.router.add_post("/api/chat", chat)
    app.router.add_get("/ws", connect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listen(), backlog=1024).start()
    await forever()


if __name__ == "__main__":
    WAY = sys.argv[1]
    uvloop.run(main())

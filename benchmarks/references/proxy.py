"""aiohttp from one side to the other: what an upstream sends is written on as it comes."""

from __future__ import annotations

import sys

import aiohttp
import uvloop
from aiohttp import web

from benchmarks.references.frames import forever, listen


async def main(upstream: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            async with session.post(upstream, data=await request.read()) as answer:
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                return response

        app = web.Application()
        app.router.add_post("/api/chat", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listen(), backlog=1024).start()
        await forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))

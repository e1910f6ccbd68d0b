"""Frames over HTTP: one chunked response per stream, one frame per line."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web

from jarvis_stream.stream import Followed
from jarvis_stream.transports.answers import json_answer, json_body
from jarvis_stream.transports.context import COUNTS, LIMITS, REGISTRY, owner_of
from jarvis_stream.transports.door import Door
from jarvis_stream.transports.gate import while_valid
from jarvis_stream.transports.pump import Parting, Pump, bound
from jarvis_stream.transports.quotas import QUOTAS
from jarvis_stream.transports.requests import parse_opening, parse_position

HEARTBEAT = b"\n"
"""An empty line, which is no frame."""

routes = web.RouteTableDef()


@routes.post("/api/chat")
async def chat(request: web.Request) -> web.StreamResponse:
    """Start an answer, or attach to the answer that this stream_id has already."""
    app, owner = request.app, owner_of(request)
    opening = parse_opening(
        await json_body(request),
        transport="http",
        traceparent=request.headers.get("traceparent"),
        max_prompt_chars=app[LIMITS].max_prompt_chars,
        owner=owner,
        counts_as=app[QUOTAS].owner_or_address(request, owner),
    )
    registry = app[REGISTRY]
    if not registry.knows(opening):
        await app[QUOTAS].start(app[QUOTAS].starter(request, owner))
    return await _send(request, await registry.start(opening), opening.after)


@routes.get("/api/streams/{stream_id}", allow_head=False)
async def resume(request: web.Request) -> web.StreamResponse:
    """Resume or replay a stream after a position."""
    stream_id, after = parse_position(
        request.match_info["stream_id"],
        request.query.get("after"),
        request.headers.get("Last-Event-ID"),
    )
    stream = await request.app[REGISTRY].reach(stream_id, owner_of(request), after)
    return await _send(request, stream, after)


@routes.post("/api/streams/{stream_id}/cancel")
async def cancel(request: web.Request) -> web.Response:
    """Stop a stream; respond when its agent has stopped, or after the timeout."""
    stream_id, _ = parse_position(request.match_info["stream_id"], None, None)
    cancellation = await request.app[REGISTRY].cancel(stream_id, owner_of(request))
    return json_answer(cancellation)


async def _send(request: web.Request, stream: Followed, after: int) -> web.StreamResponse:
    limits = request.app[LIMITS]
    response = _Answer(
        headers={
            "Content-Type": "application/x-ndjson",
            "X-Session-Id": stream.session_id,
            "X-Stream-Id": stream.stream_id,
            "X-Trace-Id": stream.trace_id,
            "Cache-Control": "no-store, no-transform",
            "X-Accel-Buffering": "no",
        }
    )
    if request.version >= HttpVersion11:
        wrap = _chunk
    else:
        wrap = _plain
        response.force_close()  # nothing else tells where the answer ends
    if isinstance(request.protocol, Door):
        request.protocol.bound()
    else:
        bound(request.transport)
    pump = Pump(
        request.transport,
        wrap,
        beat=wrap(HEARTBEAT),
        heartbeat=limits.heartbeat,
        stall_timeout=limits.stall_timeout,
        until_idle=True,
    )
    try:
        # Reading begins before the headers are out: from here on the stream has its reader.
        pump.follow(stream, after)
        writer = await response.prepare(request)
        assert writer is not None
        await asyncio.sleep(0)  # by then an agent that speaks at once has done so
        if first := pump.gather():
            # In one packet with the headers. Not drained: the pump sees to it that it flows.
            await writer.write(first, drain=False)  # type: ignore[call-arg]
        elif not pump.finished.done():
            writer.send_headers()
        pump.open(writer.drain)
        with while_valid(request, pump.expire):
            # The pump reads this future, too: a cancelled handler must not make it look finished.
            parting = await asyncio.shield(pump.finished)
    finally:
        await pump.close()
    if parting is Parting.DELIVERED:
        await response.write_eof(pump.last)
    else:
        request.app[COUNTS].let_go["http", parting.value] += 1
        pump.abort()
    return response  # aiohttp writes its end, and knows what to do when nobody is there for it


class _Answer(web.StreamResponse):
    """An answer, whose headers leave with its first frames."""

    # A private name of aiohttp's. Should it go, the headers leave alone, in a packet of their own.
    _send_headers_immediately = False


def _chunk(frames: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(frames), frames)


def _plain(frames: bytes) -> bytes:
    return frames

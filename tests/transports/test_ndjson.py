"""Frames over HTTP."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from jarvis_stream.transports.ndjson import _chunk

from .conftest import Client

STREAM = "0195f1a0-0000-7000-8000-000000000000"


@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 255, 4096, 70_000])
def test_a_chunk_is_its_length_in_hex_and_its_bytes(size: int) -> None:
    assert _chunk(b"x" * size) == f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"


async def test_an_answer_is_one_frame_per_line(client: Client) -> None:
    response = await client.post("/api/chat", json={"prompt": "a b"})
    assert (response.status, response.content_type) == (200, "application/x-ndjson")
    frames = [orjson.loads(line) for line in (await response.read()).splitlines()]
    assert [frame["type"] for frame in frames] == ["status", "token", "token", "done"]
    assert response.headers["X-Session-Id"] == frames[0]["session_id"]


async def test_the_headers_leave_with_the_first_frames_and_the_end_with_the_last(
    client: Client,
) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    body = orjson.dumps({"prompt": "a"})
    head = f"POST /api/chat HTTP/1.1\r\nHost: {client.host}\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/json\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    first = await reader.read(1 << 16)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"thinking" in first
    rest = await reader.read()
    writer.close()
    end = (first + rest).rpartition(b'{"type":"done"')[2]
    assert end.endswith(b'"finish_reason":"stop"}\n\r\n0\r\n\r\n')


async def test_a_stream_is_read_again_under_its_id(client: Client) -> None:
    response = await client.post("/api/chat", json={"prompt": "a b", "stream_id": STREAM})
    live = await response.read()
    again = await client.get(f"/api/streams/{STREAM}?after=2")
    assert await again.read() == b"".join(live.splitlines(keepends=True)[2:])
    at_its_end = await client.get(f"/api/streams/{STREAM}?after=4")
    assert (at_its_end.status, await at_its_end.read()) == (200, b"")


async def test_a_refused_read_holds_no_stream(client: Client) -> None:
    async with client.post("/api/chat", json={"prompt": "wait", "stream_id": STREAM}) as live:
        await live.content.readline()
        ahead = await client.get(f"/api/streams/{STREAM}?after=5")
        assert (ahead.status, (await ahead.json())["code"]) == (416, "cursor_ahead")
        assert b"jarvis_readers 1.0" in await (await client.get("/metrics")).read()


async def test_a_stop_is_answered_with_what_became_of_it(client: Client) -> None:
    async with client.post("/api/chat", json={"prompt": "wait", "stream_id": STREAM}) as live:
        await live.content.readline()
        stopped = await client.post(f"/api/streams/{STREAM}/cancel")
        answer = await stopped.json()
        assert answer.pop("cleanup_ms") >= 0
        assert answer == {"stream_id": STREAM, "cancelled": True, "clean": True}
        assert orjson.loads(await live.read())["finish_reason"] == "cancelled"


async def test_a_stream_cannot_be_asked_for_its_head(client: Client) -> None:
    await (await client.post("/api/chat", json={"prompt": "a", "stream_id": STREAM})).read()
    response = await client.head(f"/api/streams/{STREAM}")
    assert (response.status, response.headers["Allow"]) == (405, "GET")

"""Frames over WebSocket."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType
from profiles import patience

from jarvis_stream.transports.websocket import MAX_MALFORMED, SUBPROTOCOL, _text_message

from .conftest import Client

STREAMS = [f"0195f1a0-0000-7000-8000-00000000000{n}" for n in range(4)]


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f" + (65_536).to_bytes(8, "big")),
    ],
)
def test_a_message_has_the_shortest_length_field(size: int, head: bytes) -> None:
    assert _text_message(b"x" * size) == head + b"x" * size


class Peer:
    """A client that reads line by line."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.lines: list[bytes] = []

    async def ask(self, **fields: Any) -> None:
        await self.ws.send_json(fields)

    async def send(self, message: str | bytes) -> None:
        await (self.ws.send_str if isinstance(message, str) else self.ws.send_bytes)(message)

    async def frame(self) -> dict[str, Any]:
        if not self.lines:
            message = await self.ws.receive(timeout=patience(20))
            assert message.type is WSMsgType.TEXT, message
            self.lines = message.data.encode().splitlines()
        frame: dict[str, Any] = orjson.loads(self.lines.pop(0))
        return frame


@pytest.fixture
async def peer(client: Client) -> Peer:
    return Peer(await client.ws_connect("/ws", protocols=[SUBPROTOCOL]))


async def test_a_start_is_answered_with_the_streams_frames(peer: Peer) -> None:
    await peer.ask(type="start", prompt="a b", stream_id=STREAMS[0])
    frames = [await peer.frame() for _ in range(4)]
    assert [frame["type"] for frame in frames] == ["status", "token", "token", "done"]
    await peer.ask(type="resume", stream_id=STREAMS[0], after=2)
    assert [await peer.frame() for _ in range(2)] == frames[2:]


async def test_a_stop_is_answered_after_the_terminal_frame(peer: Peer) -> None:
    await peer.ask(type="start", prompt="wait", stream_id=STREAMS[0])
    await peer.frame()
    await peer.ask(type="cancel", stream_id=STREAMS[0])
    assert (await peer.frame())["finish_reason"] == "cancelled"
    answer = await peer.frame()
    assert answer.pop("cleanup_ms") >= 0
    assert answer == {
        "type": "status",
        "status": "cancelled",
        "stream_id": STREAMS[0],
        "cancelled": True,
        "clean": True,
    }


async def test_a_refusal_carries_the_id_that_was_brought(peer: Peer) -> None:
    await peer.ask(type="start", prompt=5, stream_id=STREAMS[0])
    refused = await peer.frame()
    assert refused.pop("error").startswith("prompt: ")
    assert refused == {"type": "error", "code": "invalid", "stream_id": STREAMS[0]}
    no_ids: list[Any] = [None, 5, [], "x" * 129]
    for no_id in no_ids:
        await peer.ask(type="start", prompt="a", stream_id=no_id, session_id="")
        assert (await peer.frame())["stream_id"] is None


async def test_a_ping_is_answered(peer: Peer) -> None:
    await peer.ask(type="ping")
    assert await peer.frame() == {"type": "status", "status": "pong"}


async def test_only_so_many_streams_at_a_time(peer: Peer) -> None:
    for stream_id in STREAMS[:2]:
        await peer.ask(type="start", prompt="wait", stream_id=stream_id)
        await peer.frame()
    await peer.ask(type="start", prompt="a", stream_id=STREAMS[2])
    assert (await peer.frame())["code"] == "too_many"
    # One that it follows already takes no further room.
    await peer.ask(type="resume", stream_id=STREAMS[0], after=1)
    await peer.ask(type="cancel", stream_id=STREAMS[0])
    stopped = [await peer.frame() for _ in range(2)]  # in whatever order
    assert {frame["type"] for frame in stopped} == {"done", "status"}
    await peer.ask(type="start", prompt="a", stream_id=STREAMS[2])
    assert [(await peer.frame())["type"] for _ in range(3)] == ["status", "token", "done"]


@pytest.mark.parametrize("message", ["[]", "{", "", b"{}"])
async def test_a_malformed_message_is_refused_and_the_other_answers_go_on(
    peer: Peer, message: str | bytes
) -> None:
    await peer.ask(type="start", prompt="a wait", stream_id=STREAMS[0])
    assert [(await peer.frame())["type"] for _ in range(2)] == ["status", "token"]
    await peer.send(message)
    refused = await peer.frame()
    assert (refused["type"], refused["code"], refused["stream_id"]) == ("error", "malformed", None)
    await peer.ask(type="cancel", stream_id=STREAMS[0])
    stopped = {(await peer.frame())["type"] for _ in range(2)}
    assert stopped == {"done", "status"}


async def test_half_an_emoji_in_a_prompt_is_repaired(peer: Peer) -> None:
    await peer.send('{"type": "start", "prompt": "hello \\ud83d"}')
    frames = [await peer.frame() for _ in range(4)]
    assert [frame.get("text") for frame in frames] == [None, "hello", "\ufffd", None]


async def test_malformed_messages_in_a_row_close_the_socket(peer: Peer) -> None:
    for _ in range(MAX_MALFORMED - 1):
        await peer.send("{")
        assert (await peer.frame())["code"] == "malformed"
    await peer.ask(type="ping")  # a good one begins a new row
    assert (await peer.frame())["status"] == "pong"
    for _ in range(MAX_MALFORMED):
        await peer.send("{")
        assert (await peer.frame())["code"] == "malformed"
    closed = await peer.ws.receive(timeout=patience(20))
    assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1007)


async def test_a_message_that_is_too_large_closes_the_socket(peer: Peer) -> None:
    await peer.send("x" * 3000)
    closed = await peer.ws.receive(timeout=patience(20))
    assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1009)


async def test_a_text_message_that_is_no_utf8_closes_the_socket(peer: Peer) -> None:
    await peer.ws._writer.send_frame(b"\xff", WSMsgType.TEXT)
    closed = await peer.ws.receive(timeout=patience(20))
    assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1007)


async def test_a_failure_of_ours_is_told_without_its_text(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("hunter2")

    monkeypatch.setattr("jarvis_stream.registry.StreamRegistry.open", broken)
    await peer.ask(type="start", prompt="a", stream_id=STREAMS[0])
    refused = await peer.frame()
    assert (refused["code"], refused["stream_id"]) == ("internal", STREAMS[0])
    assert "hunter2" not in refused["error"]
    assert any(line.startswith("request_failed ") for line in log_lines)

"""What was said in a session."""

from __future__ import annotations

from datetime import datetime

import pytest

from .conftest import Client

STREAM = "0195f1a0-0000-7000-8000-000000000000"


async def test_a_sessions_messages_come_oldest_first(client: Client) -> None:
    for prompt in ("one", "two fail"):
        await (await client.post("/api/chat", json={"prompt": prompt, "session_id": "s"})).read()
    body = await (await client.get("/api/sessions/s/messages")).json()
    assert (body["session_id"], body["active_stream"]) == ("s", None)
    assert [(m["role"], m["content"], m["status"]) for m in body["messages"]] == [
        ("user", "one", "complete"),
        ("assistant", "one", "complete"),
        ("user", "two fail", "complete"),
        ("assistant", "two", "error"),
    ]
    assert len({message["id"] for message in body["messages"]}) == 4
    for message in body["messages"]:
        assert datetime.fromisoformat(message["created_at"]).tzinfo is not None


async def test_the_live_stream_and_its_position_are_told(client: Client) -> None:
    request = {"prompt": "a wait", "session_id": "s", "stream_id": STREAM}
    async with client.post("/api/chat", json=request) as live:
        await live.content.readuntil(b'"a"}\n')
        body = await (await client.get("/api/sessions/s/messages")).json()
        assert body["active_stream"]["stream_id"] == STREAM
        assert body["active_stream"]["seq"] == 2
        assert body["messages"][-1]["status"] == "streaming"


@pytest.mark.parametrize("session", ["unknown", "%0d%0a", "a%20b", "x" * 129, "%ff"])
async def test_an_unknown_session_is_not_found(client: Client, session: str) -> None:
    response = await client.get(f"/api/sessions/{session}/messages")
    body = await response.json()
    assert (response.status, body["code"]) == (404, "not_found")
    assert body["error"].isprintable()

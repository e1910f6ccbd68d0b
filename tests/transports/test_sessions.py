"""What was said in a session."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import aiohttp
import pytest
from loguru import logger

from jarvis_stream.transports import sessions
from jarvis_stream.transports.context import REGISTRY

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


async def test_messages_come_in_pages_newest_first(client: Client) -> None:
    for number in range(5):
        await (
            await client.post("/api/chat", json={"prompt": f"q{number}", "session_id": "s"})
        ).read()
    pages = []
    query = {"limit": "2"}
    while True:
        body = await (await client.get("/api/sessions/s/messages", params=query)).json()
        pages.append([message["content"] for message in body["messages"][::2]])
        if body["next"] is None:
            break
        query["before"] = str(body["next"])
    assert pages == [["q3", "q4"], ["q1", "q2"], ["q0"]]


async def test_a_page_of_messages_is_bounded_in_bytes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PAGE_BYTES", 500)
    for number in range(5):
        prompt = f"{number}" + "é" * 100  # 402 bytes with its answer
        await (await client.post("/api/chat", json={"prompt": prompt, "session_id": "s"})).read()
    body = await (await client.get("/api/sessions/s/messages")).json()
    assert len(body["messages"]) == 2
    assert body["next"] is not None
    for kind in ("json", "md"):
        text = await (await client.get(f"/api/sessions/s/export.{kind}")).text()
        assert text.count("é" * 100) == 10
    exported = await (await client.get("/api/sessions/s/export.json")).json()
    assert [message["content"][0] for message in exported["messages"]] == list("0011223344")


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        ("limit=0", "from 1 to 200"),
        ("limit=201", "from 1 to 200"),
        ("limit=x", "from 1 to 200"),
        ("before=0", f"from 1 to {2**53 - 1}"),
        ("before=-1", f"from 1 to {2**53 - 1}"),
        ("before=99999999999999999", f"from 1 to {2**53 - 1}"),
        ("before=", f"from 1 to {2**53 - 1}"),
    ],
)
async def test_an_invalid_page_is_refused_with_field_value_and_limit(
    client: Client, query: str, limit: str
) -> None:
    await (await client.post("/api/chat", json={"prompt": "q", "session_id": "s"})).read()
    response = await client.get(f"/api/sessions/s/messages?{query}")
    body = await response.json()
    name, _, value = query.partition("=")
    assert (response.status, body["code"]) == (422, "invalid")
    assert body["error"].startswith(f"{name}: ")
    assert value in body["error"]
    assert limit in body["error"]


async def test_an_older_page_of_an_unknown_session_is_not_found(client: Client) -> None:
    assert (await client.get("/api/sessions/unknown/messages?before=5")).status == 404
    await (await client.post("/api/chat", json={"prompt": "q", "session_id": "s"})).read()
    body = await (await client.get("/api/sessions/s/messages?before=1")).json()
    assert (body["messages"], body["next"]) == ([], None)


def remove_before_page(
    client: Client, monkeypatch: pytest.MonkeyPatch, number: int, *, begin_again: bool
) -> None:
    """Delete the session `s` just before the page with this number is read from the history."""
    history = client.app[REGISTRY].history
    page = history.page
    count = 0

    async def page_after_delete(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            assert (await client.delete("/api/sessions/s")).status == 204
            if begin_again:
                again = {"prompt": "again", "session_id": "s"}
                await (await client.post("/api/chat", json=again)).read()
        return await page(*args, **options)

    monkeypatch.setattr(history, "page", page_after_delete)


@pytest.mark.parametrize("kind", ["json", "md"])
@pytest.mark.parametrize(
    ("begin_again", "status", "code"), [(False, 404, "not_found"), (True, 409, "conflict")]
)
async def test_an_export_of_a_session_that_is_deleted_at_its_start_is_rejected(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    begin_again: bool,
    status: int,
    code: str,
) -> None:
    await (await client.post("/api/chat", json={"prompt": "q", "session_id": "s"})).read()
    remove_before_page(client, monkeypatch, 2, begin_again=begin_again)
    response = await client.get(f"/api/sessions/s/export.{kind}")
    assert (response.status, (await response.json())["code"]) == (status, code)


@pytest.mark.parametrize("kind", ["json", "md"])
@pytest.mark.parametrize("begin_again", [False, True])
async def test_an_export_of_a_session_that_is_deleted_meanwhile_is_cut(
    client: Client, monkeypatch: pytest.MonkeyPatch, kind: str, begin_again: bool
) -> None:
    monkeypatch.setattr(sessions, "PAGE_BYTES", 40_000)
    for _ in range(25):
        prompt = {"prompt": "x" * 1000, "session_id": "s"}
        await (await client.post("/api/chat", json=prompt)).read()
    remove_before_page(client, monkeypatch, 3, begin_again=begin_again)
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        async with client.get(f"/api/sessions/s/export.{kind}") as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await response.read()
    finally:
        logger.remove(sink)
    assert "response_cut" in "".join(lines)
    assert "Traceback" not in "".join(lines)


async def test_head_of_messages_has_no_body(client: Client) -> None:
    await (await client.post("/api/chat", json={"prompt": "q", "session_id": "s"})).read()
    for call in ("messages", "export.json", "export.md"):
        response = await client.head(f"/api/sessions/s/{call}")
        assert (response.status, await response.read()) == (200, b"")
    assert (await client.get("/api/sessions/s/messages")).status == 200


@pytest.mark.parametrize("session", ["unknown", "%0d%0a", "a%20b", "x" * 129, "%ff"])
async def test_an_unknown_session_is_not_found(client: Client, session: str) -> None:
    response = await client.get(f"/api/sessions/{session}/messages")
    body = await response.json()
    assert (response.status, body["code"]) == (404, "not_found")
    assert body["error"].isprintable()

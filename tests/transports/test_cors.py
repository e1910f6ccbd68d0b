"""Pages of other sites: those on the list may read, nobody else's may even ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from jarvis_stream import create_app
from jarvis_stream.settings import Settings

from .conftest import parrot

Client = TestClient[web.Request, web.Application]

FRIEND = "https://chat.example.org"
TOKEN = "anns-token-0123456"


@pytest.fixture
async def client(aiohttp_client: Callable[..., Awaitable[Client]]) -> Client:
    settings: dict[str, Any] = {"allowed_origins": FRIEND, "auth_tokens": f"ann:{TOKEN}"}
    return await aiohttp_client(create_app(Settings(**settings), agent=parrot))


def asks(origin: str, method: str = "POST") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/chat"),
        ("GET", "/api/streams/x"),
        ("POST", "/api/streams/x/cancel"),
        ("PATCH", "/api/sessions/s"),
        ("DELETE", "/api/sessions/s"),
        ("GET", "/api/info"),
        ("POST", "/api/login"),
    ],
)
async def test_a_friends_page_may_ask(client: Client, method: str, path: str) -> None:
    answer = await client.options(path, headers=asks(FRIEND, method))
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Allow-Methods"] == method
    assert set(answer.headers["Access-Control-Allow-Headers"].lower().split(",")) == {
        "authorization",
        "content-type",
    }


async def test_and_reads_the_answer(client: Client) -> None:
    headers = {"Origin": FRIEND, "Authorization": f"Bearer {TOKEN}"}
    answer = await client.post("/api/chat", json={"prompt": "hi"}, headers=headers)
    assert "hi" in await answer.text()
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
    exposed = set(answer.headers["Access-Control-Expose-Headers"].split(","))
    assert exposed == {"X-Session-Id", "X-Stream-Id", "X-Trace-Id", "Retry-After"}
    assert answer.headers["Vary"] == "Origin"


async def test_a_refusal_too(client: Client) -> None:
    answer = await client.get("/api/sessions", headers={"Origin": FRIEND})
    assert answer.status == 401
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND


@pytest.mark.parametrize("origin", ["https://evil.example", "null", FRIEND + ".evil.example"])
async def test_others_may_not(client: Client, origin: str) -> None:
    for answer in (
        await client.options("/api/chat", headers=asks(origin)),
        await client.get("/api/info", headers={"Origin": origin}),
        await client.post(
            "/api/chat",
            json={"prompt": "hi"},
            headers={"Origin": origin, "Authorization": f"Bearer {TOKEN}"},
        ),
    ):
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/metrics", "/ws", "/livez"])
async def test_only_the_api_is_for_pages(client: Client, path: str) -> None:
    answer = await client.options(path, headers=asks(FRIEND, "GET"))
    assert answer.status == 405
    assert "Access-Control-Allow-Origin" not in answer.headers

"""Requests that a browser makes for a page of another origin, by Sec-Fetch-Site."""

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

FRIEND = "https://friend.example"
FOREIGN = ("cross-site", "same-site", "", "Same-Origin", "cross-site, none")
OWN = ("same-origin", "none", None)
PUBLIC = ("/", "/livez", "/readyz", "/static/js/index.js")


@pytest.fixture
async def client(aiohttp_client: Callable[..., Awaitable[Client]]) -> Client:
    settings: dict[str, Any] = {"allowed_origins": FRIEND}
    client = await aiohttp_client(create_app(Settings(**settings), agent=parrot))
    answer = await client.post("/api/chat", json={"prompt": "merger", "session_id": "s"})
    assert answer.status == 200
    await answer.read()
    return client


def paths(client: Client) -> list[str]:
    """Every path that the application answers a GET on, with the session that exists."""
    assert client.app is not None
    found = {
        (route.resource.canonical, "session_id")
        for route in client.app.router.routes()
        if route.method == "GET" and route.resource is not None
    }
    return sorted(
        path.replace("{session_id}", "s").replace("{stream_id}", "0").replace("{path}", "js/app.js")
        for path, _ in found
    )


def fetched(site: str | None, **headers: str) -> dict[str, str]:
    return headers if site is None else {"Sec-Fetch-Site": site, **headers}


@pytest.mark.parametrize("site", FOREIGN)
async def test_a_page_of_another_origin_reads_nothing_but_the_page(
    client: Client, site: str
) -> None:
    refused = []
    for path in paths(client):
        for method in ("GET", "HEAD"):
            answer = await client.request(method, path, headers=fetched(site))
            if answer.status == 403:
                refused.append(path)
            else:
                assert path in PUBLIC or path.startswith("/static/"), (method, path)
    assert {"/api/sessions", "/api/info", "/metrics", "/ws"} <= set(refused)
    answer = await client.get("/api/sessions?q=merger", headers=fetched(site))
    assert (await answer.json())["code"] == "forbidden_origin"


@pytest.mark.parametrize("site", OWN)
async def test_our_page_a_typed_address_and_programs_read_everything(
    client: Client, site: str | None
) -> None:
    for path in ("/api/sessions?q=merger", "/api/sessions/s/messages", "/api/sessions/s/export.md"):
        answer = await client.get(path, headers=fetched(site))
        assert answer.status == 200, path
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("site", FOREIGN)
async def test_public_files_stay_open_to_links_from_everywhere(client: Client, site: str) -> None:
    for path in PUBLIC:
        assert (await client.get(path, headers=fetched(site))).status == 200
        assert "Cross-Origin-Resource-Policy" not in (await client.get("/")).headers


async def test_an_allowed_origin_reads_with_cors_and_by_a_link(client: Client) -> None:
    for headers in ({"Origin": FRIEND}, {"Referer": f"{FRIEND}/"}, {"Referer": f"{FRIEND}/a?b"}):
        for site in ("cross-site", "same-site"):
            answer = await client.get("/api/sessions", headers=fetched(site, **headers))
            assert answer.status == 200, headers
    for referer in (
        "https://evil.example/",
        f"{FRIEND}.evil.example/",
        "https://[",
        "/",
        FRIEND[8:],
    ):
        answer = await client.get("/api/sessions", headers=fetched("cross-site", Referer=referer))
        assert answer.status == 403, referer


async def test_a_websocket_handshake_stays_on_the_check_of_its_origin(client: Client) -> None:
    own = str(client.make_url("/")).rstrip("/")
    for site in ("cross-site", "same-site", "same-origin"):
        for origin in (own, FRIEND):
            headers = fetched(site, Origin=origin)
            async with client.ws_connect("/ws", headers=headers):
                pass
        with pytest.raises(Exception, match="403"):
            await client.ws_connect("/ws", headers=fetched(site, Origin="https://evil.example"))


async def test_a_refused_search_never_reaches_the_history(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jarvis_stream.transports.context import REGISTRY

    assert client.app is not None
    monkeypatch.setattr(client.app[REGISTRY], "history", None)  # any use of it would be a 500
    answer = await client.get("/api/sessions?q=merger", headers=fetched("cross-site"))
    assert answer.status == 403

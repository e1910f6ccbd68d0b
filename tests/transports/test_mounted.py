"""The application as a part of another one, under a path prefix."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from jarvis_stream import create_app
from jarvis_stream.settings import Settings
from jarvis_stream.transports.gate import COOKIE

from .conftest import Client, parrot

Connect = Callable[..., Awaitable[Client]]

TOKENS = {"auth_tokens": "ann:correct-horse-battery"}


def mounted(prefix: str = "/chat/", **settings: Any) -> web.Application:
    """Another application, which contains this one."""
    app = create_app(Settings(**settings), agent=parrot)
    for part in reversed(prefix.strip("/").split("/")):
        outer = web.Application()
        outer.add_subapp(f"/{part}/", app)
        app = outer
    return app


@pytest.mark.parametrize("prefix", ["/chat", "/tools/chat"])
async def test_the_page_and_every_file_that_it_names_are_below_the_prefix(
    aiohttp_client: Connect, prefix: str
) -> None:
    client = await aiohttp_client(mounted(prefix))
    page = await client.get(f"{prefix}/")
    assert page.status == 200
    links = re.findall(r'(?:src|href)="([^"#]+)"', await page.text())
    files = [link for link in links if link != "./"]
    assert len(files) > 50
    for link in files:
        assert (await client.get(f"{prefix}/{link}")).status == 200, link


async def test_the_prefix_without_its_slash_redirects_to_the_page(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(mounted(**TOKENS))
    response = await client.get("/chat?a=b")
    assert (response.status, response.url.path_qs) == (200, "/chat/?a=b")
    assert response.content_type == "text/html"


async def test_an_answer_streams_below_the_prefix(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(mounted())
    body = await (await client.post("/chat/api/chat", json={"prompt": "hello"})).text()
    assert '"text":"hello"' in body
    async with client.ws_connect("/chat/ws", protocols=["jarvis-stream.v1"]) as ws:
        await ws.send_json({"type": "ping"})
        assert (await ws.receive_json())["status"] == "pong"


async def test_sign_in_protects_the_same_calls_as_without_a_prefix(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(mounted(**TOKENS))
    own = {"Origin": str(client.make_url("/")).rstrip("/")}
    for path in ("/", "/livez", "/readyz", "/api/info", "/static/js/index.js"):
        assert (await client.get(f"/chat{path}")).status == 200, path
    assert (await client.get("/chat/api/sessions")).status == 401
    token = {"token": "correct-horse-battery"}
    login = await client.post("/chat/api/login", json=token, headers=own)
    assert (login.status, login.cookies[COOKIE]["path"]) == (200, "/chat/")
    assert (await client.get("/chat/api/sessions")).status == 200
    ticket = (await (await client.post("/chat/api/ticket", headers=own)).json())["ticket"]
    client.session.cookie_jar.clear()
    offered = ["jarvis-stream.v1", f"jarvis-stream.ticket.{ticket}"]
    async with client.ws_connect("/chat/ws", protocols=offered) as ws:
        assert ws.protocol == "jarvis-stream.v1"


async def test_signing_out_below_a_prefix_removes_its_cookie(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(mounted(**TOKENS))
    own = {"Origin": str(client.make_url("/")).rstrip("/")}
    token = {"token": "correct-horse-battery"}
    await client.post("/chat/api/login", json=token, headers=own)
    assert (await client.post("/chat/api/logout", headers=own)).status == 204
    assert (await client.get("/chat/api/sessions")).status == 401


async def test_a_page_of_another_site_may_load_the_page_but_not_the_api(
    aiohttp_client: Connect,
) -> None:
    client = await aiohttp_client(mounted())
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert (await client.get("/chat/", headers=headers)).status == 200
    assert (await client.get("/chat/api/sessions", headers=headers)).status == 403


async def test_an_allowed_origin_may_ask_below_the_prefix(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(mounted(allowed_origins=["https://app.example"]))
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    preflight = await client.options("/chat/api/chat", headers=headers)
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example"
    info = await client.get("/chat/api/info", headers={"Origin": "https://app.example"})
    assert info.headers["Access-Control-Allow-Origin"] == "https://app.example"


async def test_the_body_limit_is_its_own_not_that_of_the_outer_application(
    aiohttp_client: Connect,
) -> None:
    outer = web.Application(client_max_size=100)
    app = create_app(Settings(max_body_bytes=5000), agent=parrot)
    outer.add_subapp("/chat/", app)
    client = await aiohttp_client(outer)
    assert (await client.post("/chat/api/chat", json={"prompt": "a" * 2000})).status == 200
    refused = await client.post("/chat/api/chat", json={"prompt": "a" * 6000})
    assert (refused.status, (await refused.json())["code"]) == (413, "too_large")


async def test_a_middleware_of_the_outer_application_may_read_the_body(
    aiohttp_client: Connect,
) -> None:
    @web.middleware
    async def read(request: web.Request, handler: Handler) -> web.StreamResponse:
        await request.read()
        return await handler(request)

    outer = web.Application(client_max_size=10_000, middlewares=[read])
    outer.add_subapp("/chat/", create_app(Settings(max_body_bytes=5000), agent=parrot))
    client = await aiohttp_client(outer)
    assert (await client.post("/chat/api/chat", json={"prompt": "a" * 2000})).status == 200
    refused = await client.post("/chat/api/chat", json={"prompt": "a" * 6000})
    assert (refused.status, (await refused.json())["code"]) == (413, "too_large")


async def test_an_unknown_path_below_the_prefix_is_refused_as_json(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(mounted())
    response = await client.get("/chat/nothing")
    assert (response.status, (await response.json())["code"]) == (404, "not_found")

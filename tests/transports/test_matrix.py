"""Every route, by every kind of caller: what a stranger can reach, and what it reads there.

A new route belongs into ROUTES: without a place there the first test fails.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import DummyCookieJar, web
from aiohttp.test_utils import TestClient
from profiles import patience

from jarvis_stream import create_app
from jarvis_stream.identity.visitors import VISITOR_SECONDS, Visitors
from jarvis_stream.settings import Settings

from .conftest import parrot

Client = TestClient[web.Request, web.Application]
Connect = Callable[..., Awaitable[Client]]
Headers = dict[str, str]

ANNS, BOBS = "anns-token-0123456", "bobs-token-0123456"
SECRET, OTHER_SECRET = "s" * 32, "o" * 32
PRIVATE = "merger-with-initech"
SESSION, STREAM = "a-session", "0190b2b1-0000-7000-8000-000000000001"
NO_SESSION, NO_STREAM = "b-session", "0190b2b1-0000-7000-8000-000000000002"


@dataclass(frozen=True)
class Call:
    """One route: who it is for, and a request to it that would succeed for its owner."""

    kind: str
    """`public`: for everybody, in every page. `sign-in`: for everybody. `list`: what the caller
    owns. `own`: unknown to all but the owner. `machine`: for this machine, and with a token.
    `operator`: for this machine only."""
    body: dict[str, Any] | None = field(default=None)


CHAT = {"prompt": "x", "session_id": "{session_id}", "replaces": "{stream_id}"}
ROUTES: dict[tuple[str, str], Call] = {
    ("GET", "/"): Call("public"),
    ("GET", "/static/{path}"): Call("public"),
    ("GET", "/livez"): Call("public"),
    ("GET", "/readyz"): Call("public"),
    ("GET", "/api/info"): Call("sign-in"),
    ("POST", "/api/login"): Call("sign-in", {"token": "no-such-token-01"}),
    ("POST", "/api/logout"): Call("sign-in"),
    ("POST", "/api/ticket"): Call("list"),
    ("GET", "/ws"): Call("list"),
    ("GET", "/metrics"): Call("machine"),
    ("POST", "/api/admin/revoke"): Call("operator", {"principal": "carol"}),
    ("GET", "/api/sessions"): Call("list"),
    ("GET", "/api/streams/{stream_id}"): Call("own"),
    ("POST", "/api/streams/{stream_id}/cancel"): Call("own"),
    ("GET", "/api/sessions/{session_id}/messages"): Call("own"),
    ("GET", "/api/sessions/{session_id}/export.json"): Call("own"),
    ("GET", "/api/sessions/{session_id}/export.md"): Call("own"),
    ("PATCH", "/api/sessions/{session_id}"): Call("own", {"title": PRIVATE}),
    ("POST", "/api/chat"): Call("own", CHAT),
    ("DELETE", "/api/sessions/{session_id}"): Call("own"),
}
OPERATORS = "/api/admin/"


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        # The empty path is the redirect of a mounted application to its page.
        if route.resource is not None
        and route.resource.canonical
        and route.method not in ("HEAD", "OPTIONS")
    }


def test_every_route_has_a_place_in_the_matrix() -> None:
    settings: Any = {"allowed_origins": "https://friend.example"}
    found = routes_of(create_app(Settings(**settings), agent=parrot))
    # Those have a token of their own (test_nobody_else_is_an_operator).
    operators = {route for route in found if route[1].startswith(OPERATORS)}
    assert found == set(ROUTES) | operators


def filled(value: Any, session_id: str, stream_id: str) -> Any:
    """`value` with the ids in the place of their names."""
    if isinstance(value, dict):
        return {key: filled(each, session_id, stream_id) for key, each in value.items()}
    return (
        value.replace("{session_id}", session_id)
        .replace("{stream_id}", stream_id)
        .replace("{path}", "js/index.js")
    )


async def send(
    client: Client,
    route: tuple[str, str],
    headers: Headers,
    session_id: str = SESSION,
    stream_id: str = STREAM,
) -> tuple[int, str]:
    method, path = route
    # As browsers do: a GET has none, but for a handshake.
    has_origin = (method != "GET" or path == "/ws") and "Sec-Fetch-Site" not in headers
    own = {"Origin": str(client.make_url("/")).rstrip("/")} if has_origin else {}
    body = filled(ROUTES[route].body or {}, session_id, stream_id)
    answer = await client.request(
        method,
        filled(path, session_id, stream_id),
        json=body if body else None,
        headers={**own, **headers},
    )
    return answer.status, await answer.text()


async def connect(aiohttp_client: Connect, **settings: Any) -> Client:
    chosen = {
        "host": "0.0.0.0",
        "database_url": "memory:",
        "trusted_proxies": "127.0.0.1",
        **settings,
    }
    app = create_app(Settings(**chosen), agent=parrot)
    return await aiohttp_client(app, cookie_jar=DummyCookieJar())


async def keep(client: Client, headers: Headers) -> None:
    """The owner's conversation, of which nobody else may see anything."""
    body = {"prompt": PRIVATE, "session_id": SESSION, "stream_id": STREAM}
    answer = await client.post("/api/chat", json=body, headers=headers)
    assert answer.status == 200
    await answer.read()


async def check_owner(client: Client, headers: Headers, expected: dict[str, set[int]]) -> None:
    for route, call in ROUTES.items():
        status, text = await send(client, route, headers)
        assert status in expected[call.kind], (route, status, text)


async def check_stranger(client: Client, headers: Headers, expected: dict[str, set[int]]) -> None:
    """Nothing of the owner's is there, and whether it exists cannot be told."""
    for route, call in ROUTES.items():
        status, text = await send(client, route, headers)
        assert status in expected[call.kind], (route, status, text)
        assert PRIVATE not in text, route
        if call.kind == "own":
            unknown = await send(client, route, headers, NO_SESSION, NO_STREAM)
            ours = (status, text.replace(SESSION, NO_SESSION).replace(STREAM, NO_STREAM))
            assert ours == unknown, route


OPEN = {"public": {200}, "sign-in": {200, 204, 401, 404}}
OWNER = {**OPEN, "list": {200, 400}, "own": {200, 204}, "machine": {200}}
OWNER["operator"] = {200}
OTHER = {**OWNER, "own": {404}}
OTHER_ELSEWHERE = {**OTHER, "operator": {401}}
UNKNOWN = {**OWNER, "list": {401}, "own": {401}}
ELSEWHERE = {**UNKNOWN, "machine": {401}, "operator": {401}}
FOREIGN_PAGE = {kind: {403} for kind in OWNER}
FOREIGN_IMAGE = {**FOREIGN_PAGE, "public": {200}}


async def signed_in(client: Client) -> Headers:
    origin = str(client.make_url("/")).rstrip("/")
    answer = await client.post("/api/login", json={"token": ANNS}, headers={"Origin": origin})
    assert answer.status == 200
    return {"Cookie": f"jarvis_login={answer.cookies['jarvis_login'].value}"}


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


FORWARDED = {"X-Forwarded-For": "203.0.113.7"}
FOREIGN = {"Origin": "https://evil.example"}
IMAGE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}

SIGN_IN_CALLERS: dict[str, tuple[Headers, dict[str, set[int]]]] = {
    "another principal": (bearer(BOBS), OTHER),
    "another principal through a proxy": ({**bearer(BOBS), **FORWARDED}, OTHER_ELSEWHERE),
    "another principal through a proxy without headers": (
        {**bearer(BOBS), "Host": "chat.example.org", "Origin": "http://chat.example.org"},
        OTHER_ELSEWHERE,
    ),
    "nobody": ({}, UNKNOWN),
    "nobody through a proxy": (FORWARDED, ELSEWHERE),
    "nobody through a proxy with a port": ({"X-Forwarded-For": "203.0.113.7:80"}, ELSEWHERE),
    "nobody that says to be this machine": ({"X-Forwarded-For": "127.0.0.1"}, ELSEWHERE),
    "nobody through a proxy that names none": ({"X-Forwarded-For": "unknown"}, ELSEWHERE),
    "a wrong token": (bearer(ANNS + "x"), UNKNOWN),
    "two tokens in one": (bearer(f"{ANNS}, Bearer {ANNS}"), UNKNOWN),
    "a made-up cookie": ({"Cookie": "jarvis_login=x"}, UNKNOWN),
    "the token as a cookie": ({"Cookie": f"jarvis_login={ANNS}"}, UNKNOWN),
    "a visitor's cookie": (
        {"Cookie": Visitors([SECRET]).new().cookie},
        UNKNOWN,
    ),
    "a foreign page": (FOREIGN, FOREIGN_PAGE),
    "an image in a foreign page": (IMAGE, FOREIGN_IMAGE),
}


@pytest.mark.parametrize("name", SIGN_IN_CALLERS)
async def test_where_people_sign_in_a_stranger_reaches_nothing(
    aiohttp_client: Connect, name: str
) -> None:
    headers, expected = SIGN_IN_CALLERS[name]
    tokens = f"ann:{ANNS},bob:{BOBS}"
    client = await connect(aiohttp_client, auth_tokens=tokens, cookie_secret=SECRET)
    await keep(client, bearer(ANNS))
    if expected is FOREIGN_IMAGE:
        await check_image(client, {**await signed_in(client), **headers})
        return
    if expected is FOREIGN_PAGE:  # the owner has it open beside another tab
        headers = {**await signed_in(client), **headers}
    await check_stranger(client, headers, expected)


async def check_image(client: Client, headers: Headers) -> None:
    for route, call in ROUTES.items():
        if route[0] == "GET":
            status, text = await send(client, route, headers)
            assert status in FOREIGN_IMAGE[call.kind], (route, status, text)
            assert PRIVATE not in text


@pytest.mark.parametrize("way", ["token", "cookie"])
async def test_a_principal_reaches_what_is_its_own(aiohttp_client: Connect, way: str) -> None:
    client = await connect(aiohttp_client, auth_tokens=f"ann:{ANNS},bob:{BOBS}")
    await keep(client, bearer(ANNS))
    if way == "token":
        await check_owner(client, bearer(ANNS), OWNER)
    else:
        # Signing out comes last: it ends the cookie.
        cookie = await signed_in(client)
        for route, call in ROUTES.items():
            if call.kind != "sign-in":
                status, text = await send(client, route, cookie)
                assert status in OWNER[call.kind], (route, status, text)
        assert (await send(client, ("POST", "/api/logout"), cookie))[0] == 204
        await check_stranger(client, cookie, UNKNOWN)


def expired_cookie(secret: str) -> str:
    return Visitors([secret], lambda: time.time() - VISITOR_SECONDS - 60).new().cookie


VISITOR_CALLERS: dict[str, tuple[Headers, dict[str, set[int]]]] = {
    "another visitor": ({"Cookie": Visitors([SECRET]).new().cookie}, OTHER),
    "a browser without a cookie": ({}, OTHER),
    "through a proxy": (FORWARDED, OTHER),
    "a forged cookie": (
        {"Cookie": re.sub("=.*", f"={'0' * 32}.1.{'A' * 43}", Visitors([SECRET]).new().cookie)},
        OTHER,
    ),
    "a cookie of another server": (
        {"Cookie": Visitors([OTHER_SECRET]).new().cookie},
        OTHER,
    ),
    "an expired cookie": ({"Cookie": expired_cookie(SECRET)}, OTHER),
    "a token": (bearer(ANNS), OTHER),
    "a made-up sign-in": ({"Cookie": "jarvis_login=x"}, OTHER),
    "a foreign page": (FOREIGN, FOREIGN_PAGE),
    "an image in a foreign page": (IMAGE, FOREIGN_IMAGE),
}


@pytest.mark.parametrize("name", VISITOR_CALLERS)
async def test_where_nobody_signs_in_a_stranger_reaches_nothing(
    aiohttp_client: Connect, name: str
) -> None:
    headers, expected = VISITOR_CALLERS[name]
    client = await connect(aiohttp_client, allow_anonymous=True, cookie_secret=SECRET)
    owner = {"Cookie": Visitors([SECRET]).new().cookie}
    await keep(client, owner)
    # There is no ticket where nobody signs in.
    expected = {**expected, "list": expected["list"] | {404}}
    expected["operator"] = {403} if expected["operator"] == {403} else {404}
    if name.startswith("an image"):
        expected["list"] -= {404}
        await check_image(client, {**owner, **headers})
    else:
        await check_stranger(
            client, {**owner, **headers} if "foreign" in name else headers, expected
        )
    assert PRIVATE in (await send(client, ("GET", "/api/sessions"), owner))[1]
    await check_owner(client, owner, {**OWNER, "list": {200, 400, 404}, "operator": {404}})


@pytest.mark.parametrize(
    "headers",
    [
        FORWARDED,
        {**FORWARDED, **bearer(BOBS)},
        {**bearer(BOBS), "Host": "chat.example.org", "Origin": "http://chat.example.org"},
        IMAGE,
        FOREIGN,
    ],
    ids=["nobody", "principal", "quiet proxy", "image", "page"],
)
@pytest.mark.parametrize("sign_in", [True, False], ids=["sign-in", "visitors"])
async def test_nobody_else_is_an_operator(
    aiohttp_client: Connect, sign_in: bool, headers: Headers
) -> None:
    settings: Any = {"auth_tokens": f"ann:{ANNS},bob:{BOBS}"} if sign_in else {}
    client = await connect(aiohttp_client, allow_anonymous=True, cookie_secret=SECRET, **settings)
    assert client.app is not None
    for method, path in routes_of(client.app):
        if path.startswith(OPERATORS):
            path = filled(path, SESSION, STREAM)
            body = {"principal": "ann"}
            answer = await client.request(method, path, json=body, headers=headers)
            assert answer.status in ({401, 403} if sign_in else {401, 403, 404}), path


@pytest.mark.parametrize("kind", ["resume", "cancel", "watch", "start"])
async def test_over_a_websocket_a_stranger_reaches_nothing(
    aiohttp_client: Connect, kind: str
) -> None:
    client = await connect(aiohttp_client, allow_anonymous=True, cookie_secret=SECRET)
    owner = {"Cookie": Visitors([SECRET]).new().cookie}
    await keep(client, owner)
    message = {
        "type": kind,
        "stream_id": STREAM,
        "session_id": SESSION,
        "prompt": "mine",
        "after": 0,
    }
    async with client.ws_connect("/ws") as ws:
        await ws.send_json(message)
        await ws.send_json({"type": "ping"})
        heard = ""
        while "pong" not in heard or (kind == "start" and '"done"' not in heard):
            heard += await ws.receive_str(timeout=patience(20))
    assert PRIVATE not in heard
    if kind in ("resume", "cancel"):
        assert '"not_found"' in heard

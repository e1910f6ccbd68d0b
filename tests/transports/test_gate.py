"""Who asks: tokens, cookies, tickets, hooks, and what each of them may do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient
from profiles import patience
from pydantic import SecretStr

from jarvis_stream import create_app
from jarvis_stream.identity.base import Principal
from jarvis_stream.passes import Passes
from jarvis_stream.settings import Settings
from jarvis_stream.transports.gate import GATE, SignInWatch

from .conftest import parrot

Client = TestClient[web.Request, web.Application]
Connect = Callable[..., Awaitable[Client]]

ANNS, BOBS = "anns-token-0123456", "bobs-token-0123456"
TOKENS = f"ann:{ANNS},bob:{BOBS}"
PATIENCE = patience(20.0)
JWT_KEY = "a-key-of-at-least-32-characters!"


def as_(token: str, **headers: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {token}", **headers}}


@pytest.fixture
async def client(aiohttp_client: Connect) -> Client:
    settings: dict[str, Any] = {"auth_tokens": TOKENS}
    return await aiohttp_client(create_app(Settings(**settings), agent=parrot))


def own(client: Client) -> str:
    """The origin of the server's own page."""
    return str(client.make_url("/")).rstrip("/")


PRIVATE = [
    ("POST", "/api/chat"),
    ("GET", "/api/streams/0"),
    ("POST", "/api/streams/0/cancel"),
    ("GET", "/api/sessions"),
    ("PATCH", "/api/sessions/s"),
    ("DELETE", "/api/sessions/s"),
    ("GET", "/api/sessions/s/messages"),
    ("GET", "/api/sessions/s/export.json"),
    ("GET", "/api/sessions/s/export.md"),
    ("POST", "/api/ticket"),
    ("GET", "/ws"),
    ("GET", "/nothing/is/here"),
]


@pytest.mark.parametrize(("method", "path"), PRIVATE)
async def test_without_a_valid_token_all_is_refused_alike(
    client: Client, method: str, path: str
) -> None:
    answers = []
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {ANNS}"},
        {"Authorization": f"Bearer {ANNS}x"},
        {"Authorization": "Bearer " + "x" * 8000},
        {"Cookie": "jarvis_login=made-up"},
        {"Authorization": "Bearer wrong", "Cookie": "jarvis_login=made-up"},
        {"Sec-WebSocket-Protocol": "jarvis-stream.v1, jarvis-stream.ticket.made-up"},
    ):
        response = await client.request(method, path, headers=headers)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        answers.append(await response.read())
    assert set(answers) == {
        b'{"code":"unauthorized","error":"sign in first: a valid token is needed"}'
    }


async def test_two_authorization_headers_are_none(client: Client) -> None:
    headers = [("Authorization", f"Bearer {ANNS}"), ("Authorization", f"Bearer {BOBS}")]
    assert (await client.get("/api/sessions", headers=headers)).status == 401


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/static/js/app.js", "/api/info"])
async def test_what_tells_nothing_is_open(client: Client, path: str) -> None:
    response = await client.get(path)
    assert response.status in (200, 404)
    assert (await client.get(path, **as_("wrong-token"))).status == response.status


async def test_info_tells_how_to_sign_in_and_as_whom_one_is(client: Client) -> None:
    info = await (await client.get("/api/info")).json()
    assert info["auth"] == "token"
    assert "principal" not in info
    info = await (await client.get("/api/info", **as_(ANNS))).json()
    assert info["principal"] == "ann"


async def test_metrics_are_for_this_machine_and_for_those_with_a_token(client: Client) -> None:
    assert (await client.get("/metrics")).status == 200
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    assert (await client.get("/metrics", headers=forwarded)).status == 401
    assert (await client.get("/metrics", **as_(ANNS, **forwarded))).status == 200


async def test_each_has_sessions_of_their_own(client: Client) -> None:
    stream_id = "0190b2b1-0000-7000-8000-000000000001"
    for token, word in ((ANNS, "mine"), (BOBS, "theirs")):
        body = {"prompt": word, "session_id": "s", "stream_id": stream_id}
        response = await client.post("/api/chat", json=body, **as_(token))
        assert response.status == 200
        assert response.headers["X-Session-Id"] == "s"
        assert word in await response.text()
    for token, word in ((ANNS, "mine"), (BOBS, "theirs")):
        kept = await (await client.get("/api/sessions/s/messages", **as_(token))).json()
        assert kept["session_id"] == "s"
        assert [message["content"] for message in kept["messages"]] == [word, word]
        assert {message["stream_id"] for message in kept["messages"]} == {stream_id}
        listed = await (await client.get("/api/sessions", **as_(token))).json()
        assert [(one["session_id"], one["title"]) for one in listed["sessions"]] == [("s", word)]
        replay = await client.get(f"/api/streams/{stream_id}", **as_(token))
        assert word in await replay.text()


# The cookie


async def sign_in(client: Client, **headers: str) -> dict[str, str]:
    answer = await client.post(
        "/api/login", json={"token": ANNS}, headers={"Origin": own(client), **headers}
    )
    assert answer.status == 200
    assert await answer.json() == {"principal": "ann"}
    cookie = answer.cookies["jarvis_login"]
    assert ANNS not in str(answer.headers)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert cookie["path"] == "/"
    assert not cookie["secure"]
    client.session.cookie_jar.clear()
    return {"Cookie": f"jarvis_login={cookie.value}"}


async def test_a_login_is_a_cookie_until_one_logs_out(client: Client) -> None:
    cookie = await sign_in(client)
    assert (await client.get("/api/sessions", headers=cookie)).status == 200
    again = await client.post("/api/logout", headers={**cookie, "Origin": own(client)})
    assert again.status == 204
    assert again.cookies["jarvis_login"].value == ""
    assert (await client.get("/api/sessions", headers=cookie)).status == 401


async def test_signing_in_again_ends_the_login_before(client: Client) -> None:
    cookie = await sign_in(client)
    await sign_in(client, **cookie)
    assert (await client.get("/api/sessions", headers=cookie)).status == 401


async def test_a_wrong_token_gets_no_cookie(client: Client) -> None:
    for token in ("wrong", "", "x" * 10_000, BOBS + "0"):
        answer = await client.post("/api/login", json={"token": token})
        assert answer.status == 401
        assert "Set-Cookie" not in answer.headers
    assert (await client.post("/api/login", json={"token": 3})).status == 422
    assert (await client.post("/api/login", data={"token": ANNS})).status == 415


async def test_a_foreign_page_cannot_use_the_cookie(client: Client) -> None:
    cookie = await sign_in(client)
    for origin in ("https://evil.example", "null"):
        headers = {**cookie, "Origin": origin}
        answer = await client.post("/api/chat", json={"prompt": "hi"}, headers=headers)
        assert (answer.status, (await answer.json())["code"]) == (403, "forbidden_origin")


async def test_the_cookie_is_secure_when_a_trusted_proxy_says_https(
    aiohttp_client: Connect,
) -> None:
    settings: dict[str, Any] = {"auth_tokens": TOKENS, "trusted_proxies": "127.0.0.1"}
    client = await aiohttp_client(create_app(Settings(**settings), agent=parrot))
    headers = {"Origin": own(client), "X-Forwarded-Proto": "https"}
    answer = await client.post("/api/login", json={"token": ANNS}, headers=headers)
    assert answer.cookies["jarvis_login"]["secure"]


async def test_what_comes_from_elsewhere_without_an_origin_needs_a_token(
    aiohttp_client: Connect,
) -> None:
    settings: dict[str, Any] = {"auth_tokens": TOKENS, "trusted_proxies": "127.0.0.1"}
    client = await aiohttp_client(create_app(Settings(**settings), agent=parrot))
    cookie = await sign_in(client)
    elsewhere = {"X-Forwarded-For": "203.0.113.7"}
    body = {"prompt": "hi"}
    answer = await client.post("/api/chat", json=body, headers={**cookie, **elsewhere})
    assert answer.status == 403
    assert (await client.get("/api/sessions", headers={**cookie, **elsewhere})).status == 200
    assert (await client.get("/ws", headers={**cookie, **elsewhere})).status == 403
    assert (await client.post("/api/chat", json=body, **as_(ANNS, **elsewhere))).status == 200


# Tickets


async def ticket(client: Client, **headers: str) -> str:
    asking = {"headers": {**headers, "Origin": own(client)}} if headers else as_(ANNS)
    answer = await (await client.post("/api/ticket", **asking)).json()
    assert answer["expires_in"] == 30
    return str(answer["ticket"])


async def test_a_ticket_opens_one_socket_and_only_one(client: Client) -> None:
    protocols = ("jarvis-stream.v1", f"jarvis-stream.ticket.{await ticket(client)}")
    async with client.ws_connect("/ws", protocols=protocols) as ws:
        assert ws.protocol == "jarvis-stream.v1"
        await ws.send_json({"type": "start", "prompt": "hi", "session_id": "s"})
        assert "hi" in (await ws.receive_str()) + (await ws.receive_str())
    headers = {"Sec-WebSocket-Protocol": ", ".join(protocols)}
    assert (await client.get("/ws", headers=headers)).status == 401
    assert (await client.get("/api/sessions/s/messages", **as_(ANNS))).status == 200


async def test_a_ticket_opens_nothing_else(client: Client) -> None:
    word = await ticket(client)
    headers = {"Sec-WebSocket-Protocol": f"jarvis-stream.ticket.{word}"}
    assert (await client.get("/api/sessions", headers=headers)).status == 401
    assert (await client.get(f"/ws?ticket={word}")).status == 401
    assert (await client.get("/api/sessions", **as_(word))).status == 401
    as_if_a_socket = {**headers, "Upgrade": "websocket", "Connection": "Upgrade"}
    assert (await client.get("/api/sessions", headers=as_if_a_socket)).status == 401
    assert (await client.post("/api/ticket", headers=as_if_a_socket)).status in (401, 403)


async def test_where_nobody_signs_in_there_are_no_tickets(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(create_app(Settings(), agent=parrot))
    for path in ("/api/ticket", "/api/login"):
        assert (await client.post(path, json={"token": ANNS})).status == 404


# Expiry


async def test_an_expiring_login_ends_its_socket_and_its_streams(client: Client) -> None:
    assert client.app is not None
    here = client.app[GATE]
    here.logins = Passes(seconds=3.0)
    cookie = await sign_in(client)
    body = {"prompt": "a wait", "session_id": "http", "on_disconnect": "continue"}
    async with (
        client.ws_connect("/ws", headers=cookie) as ws,
        client.post("/api/chat", json=body, headers=cookie) as response,
    ):
        await ws.send_json({"type": "start", "prompt": "a wait"})
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Exception):  # noqa: B017, PT011 (its answer is cut off)
                await response.read()
            while (message := await ws.receive()).type is WSMsgType.TEXT:
                pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
    text = await (await client.get("/metrics")).text()
    for transport in ("http", "websocket"):
        sample = f'jarvis_readers_let_go_total{{reason="expired",transport="{transport}"}} 1.0'
        assert sample in text


def jwt_settings() -> Settings:
    return Settings(jwt_key=SecretStr(JWT_KEY), jwt_leeway=0)


def token_of(name: str, seconds: float) -> str:
    return jwt.encode({"sub": name, "exp": int(time.time() + seconds)}, JWT_KEY)


async def test_a_socket_and_its_answers_outlive_a_sign_in_that_is_renewed(
    aiohttp_client: Connect,
) -> None:
    client = await aiohttp_client(create_app(jwt_settings(), agent=parrot))
    async with client.ws_connect("/ws", **as_(token_of("ann", 4))) as ws:
        await ws.send_json({"type": "start", "prompt": "a wait"})
        assert "thinking" in (await ws.receive_str(timeout=PATIENCE))
        response = await client.post("/api/ticket", **as_(token_of("ann", 600)))
        given = await response.json()
        assert 500 < given["sign_in_expires_in"] <= 600
        await ws.send_json({"type": "reauthenticate", "ticket": given["ticket"]})
        reply = await reply_of(ws, "reauthenticated")
        assert 500 < reply["expires_in"] <= 600
        await asyncio.sleep(4.5)  # past the end of the first sign-in
        await ws.send_json({"type": "ping"})
        assert await reply_of(ws, "pong")


async def reply_of(ws: Any, status: str) -> dict[str, Any]:
    """The reply of that status; other lines are passed over."""
    while True:
        for line in (await ws.receive_str(timeout=PATIENCE)).splitlines():
            said: dict[str, Any] = orjson.loads(line)
            if "seq" not in said and (said["type"] == "error" or said["status"] == status):
                return said


async def test_a_socket_is_renewed_only_by_a_ticket_of_its_own_principal(
    aiohttp_client: Connect,
) -> None:
    client = await aiohttp_client(create_app(jwt_settings(), agent=parrot))
    async with client.ws_connect("/ws", **as_(token_of("ann", 60))) as ws:
        response = await client.post("/api/ticket", **as_(token_of("bob", 60)))
        bobs = (await response.json())["ticket"]
        for fields, code in (
            ({"ticket": bobs}, "conflict"),
            ({"ticket": bobs}, "unauthorized"),  # it is good once
            ({"ticket": "nonsense"}, "unauthorized"),
            ({}, "invalid"),
        ):
            await ws.send_json({"type": "reauthenticate", **fields})
            assert (await reply_of(ws, "reauthenticated"))["code"] == code


async def test_an_answer_waits_for_a_reader_whose_sign_in_has_expired(
    aiohttp_client: Connect,
) -> None:
    client = await aiohttp_client(create_app(jwt_settings(), agent=parrot))
    stream_id = "0195f1a0-0000-7000-8000-000000000001"
    body = {"prompt": "a wait", "stream_id": stream_id, "on_disconnect": "cancel"}
    async with client.post("/api/chat", json=body, **as_(token_of("ann", 3))) as response:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Exception):  # noqa: B017, PT011 (its answer is cut off)
                await response.read()
    fresh = as_(token_of("ann", 60))
    async with client.get(f"/api/streams/{stream_id}", **fresh) as again:
        assert again.status == 200
        stopped = await client.post(f"/api/streams/{stream_id}/cancel", **fresh)
        assert (await stopped.json())["cancelled"] is True  # it had not ended before
        last = orjson.loads((await again.read()).splitlines()[-1])
    assert (last["type"], last["finish_reason"]) == ("done", "cancelled")


@pytest.mark.parametrize(("seconds", "renewable"), [(1.0, True), (600.0, False)])
async def test_a_sign_in_that_the_store_removes_at_its_end_counts_as_expired(
    seconds: float, renewable: bool
) -> None:
    ended: list[dict[str, Any]] = []
    logins = Passes(seconds=seconds)
    word = await logins.issue(Principal("ann"))
    principal = await logins.look(word)
    assert principal is not None
    with SignInWatch(logins, principal, lambda **how: ended.append(how)):
        await logins.drop(word)
    assert ended == [{"renewable": renewable}]


async def test_so_does_logging_out(client: Client) -> None:
    cookie = await sign_in(client)
    other = await sign_in(client)
    async with (
        client.ws_connect("/ws", headers=cookie) as ws,
        client.ws_connect("/ws", headers=other) as stays,
        client.ws_connect("/ws", **as_(ANNS)) as with_token,
    ):
        await client.post("/api/logout", headers=cookie)
        message = await ws.receive(timeout=PATIENCE)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        for socket in (stays, with_token):
            await socket.send_json({"type": "nonsense"})
            assert (await socket.receive_json(timeout=PATIENCE))["code"] == "invalid"


async def test_a_ticket_of_a_login_ends_with_it(client: Client) -> None:
    cookie = await sign_in(client)
    words = [await ticket(client, **cookie), await ticket(client, **cookie), await ticket(client)]
    used, unused, of_a_token = (
        ("jarvis-stream.v1", f"jarvis-stream.ticket.{word}") for word in words
    )
    async with (
        client.ws_connect("/ws", protocols=used) as ws,
        client.ws_connect("/ws", protocols=of_a_token) as stays,
    ):
        await client.post("/api/logout", headers=cookie)
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/ws", protocols=unused)
        assert refused.value.status == 401
        message = await ws.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        await stays.send_json({"type": "nonsense"})
        assert (await stays.receive_json(timeout=5))["code"] == "invalid"


async def test_a_cookie_and_a_ticket_end_with_the_token_they_were_made_from(
    client: Client, aiohttp_client: Connect
) -> None:
    cookie = await sign_in(client)
    words = [await ticket(client, **cookie), await ticket(client)]
    gate = client.app[GATE] if client.app is not None else None
    assert gate is not None
    for tokens in (f"bob:{BOBS}", f"ann:another-{ANNS},bob:{BOBS}", f"bob:{ANNS}"):
        settings: dict[str, Any] = {"auth_tokens": tokens}
        app = create_app(Settings(**settings), agent=parrot)
        app[GATE].logins, app[GATE].tickets = gate.logins, gate.tickets  # as two share a Redis
        other = await aiohttp_client(app)
        assert (await other.get("/api/sessions", headers=cookie)).status == 401
        assert (await other.post("/api/ticket", headers=cookie)).status == 401
        for word in words:
            found = await app[GATE].tickets.redeem(word)
            if found is not None:
                assert app[GATE]._known(found) is None
    assert (await client.get("/api/sessions", headers=cookie)).status == 200


async def test_every_sign_in_of_a_principal_ends_at_once(client: Client) -> None:
    mine = [await sign_in(client) for _ in range(2)]
    for path, fields in (
        ("/api/logout?everywhere=1", {}),
        ("/api/admin/revoke", {"principal": "ann"}),
    ):
        async with (
            client.ws_connect("/ws", headers=mine[1]) as ws,
            client.ws_connect("/ws", **as_(ANNS)) as with_token,
        ):
            headers = mine[0] if not fields else {}
            response = await client.post(path, headers=headers, json=fields)
            assert response.status in (200, 204)
            message = await ws.receive(timeout=PATIENCE)
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
            await with_token.send_json({"type": "ping"})
            assert (await with_token.receive_json(timeout=PATIENCE))["status"] == "pong"
        for cookie in mine:
            assert (await client.get("/api/sessions", headers=cookie)).status == 401
        mine = [await sign_in(client) for _ in range(2)]
    told = await client.post("/api/admin/revoke", json={"principal": "ann"})
    assert await told.json() == {"principal": "ann", "ended": 2}
    assert (await client.post("/api/admin/revoke", json={})).status == 422


async def test_sign_ins_are_revoked_from_this_machine_only(client: Client) -> None:
    cookie = await sign_in(client)
    for headers in (
        {"X-Forwarded-For": "9.9.9.9"},
        {"X-Forwarded-For": "9.9.9.9", **as_(ANNS)["headers"]},
    ):
        told = await client.post("/api/admin/revoke", json={"principal": "ann"}, headers=headers)
        assert told.status == 401
    foreign = {"Origin": "http://evil.example"}
    told = await client.post("/api/admin/revoke", json={"principal": "ann"}, headers=foreign)
    assert told.status == 403
    assert (await client.get("/api/sessions", headers=cookie)).status == 200


# Somebody's own


async def test_a_hook_tells_who_asks(aiohttp_client: Connect) -> None:
    async def authenticate(request: web.Request) -> Principal | None:
        name = request.headers.get("X-Remote-User")
        if name is None:
            return None
        late = request.headers.get("X-Late")
        return Principal(name, expires_at=time.time() - 1 if late else None)

    app = create_app(Settings(), agent=parrot, authenticate=authenticate)
    client = await aiohttp_client(app)
    assert (await client.get("/api/sessions")).status == 401
    ann = {"X-Remote-User": "ann"}
    assert (await client.get("/api/sessions", headers=ann)).status == 200
    assert (await client.get("/api/sessions", headers={**ann, "X-Late": "1"})).status == 401
    info = await (await client.get("/api/info", headers=ann)).json()
    assert (info["auth"], info["principal"]) == ("custom", "ann")
    assert (await client.post("/api/ticket", headers=ann)).status == 200
    assert (await client.post("/api/login", json={"token": ANNS})).status == 404


async def test_a_hook_may_read_the_body_that_is_asked_for_later(aiohttp_client: Connect) -> None:
    async def authenticate(request: web.Request) -> Principal | None:
        return Principal(str((await request.json())["session_id"]))

    app = create_app(Settings(), agent=parrot, authenticate=authenticate)
    client = await aiohttp_client(app)
    answer = await client.post("/api/chat", json={"prompt": "hello", "session_id": "ann"})
    assert answer.status == 200
    assert b'"finish_reason":"stop"' in await answer.read()

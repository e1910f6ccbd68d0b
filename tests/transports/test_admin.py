"""What an operator sees of the live streams, and who is an operator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from jarvis_stream import Turn, create_app
from jarvis_stream.settings import Settings
from jarvis_stream.transports import admin
from jarvis_stream.transports.context import REGISTRY

from .conftest import parrot

Client = TestClient[web.Request, web.Application]
Connect = Callable[..., Awaitable[Client]]

OPERATOR = "operators-token-0123"
ANN, BOB = "anns-token-0123456", "bobs-token-0123456"
STREAMS = "/api/admin/streams"
STREAM_ID = "0190b2b1-0000-7000-8000-000000000001"


def as_(token: str, **headers: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {token}", **headers}}


async def connected(connect: Connect, **settings: Any) -> Client:
    return await connect(create_app(Settings(**settings), agent=parrot))


async def ask(client: Client, token: str = "", **body: Any) -> None:
    """Start an answer that goes on without a reader, and wait for its first token."""
    more = as_(token) if token else {}
    body = {"prompt": "a wait", "on_disconnect": "continue", **body}
    async with client.post("/api/chat", json=body, **more) as response:
        await response.content.readuntil(b'"token"')


async def listed(client: Client, **more: Any) -> list[dict[str, Any]]:
    response = await client.get(STREAMS, **more)
    assert response.status == 200
    found: list[dict[str, Any]] = (await response.json())["streams"]
    return found


async def test_an_operator_sees_every_stream_and_where_its_agent_waits(
    aiohttp_client: Connect,
) -> None:
    client = await connected(
        aiohttp_client, auth_tokens=f"ann:{ANN},bob:{BOB}", operator_token=OPERATOR
    )
    await ask(client, ANN, session_id="s1", stream_id=STREAM_ID)
    await ask(client, BOB, session_id="s2")
    first, second = await listed(client, **as_(OPERATOR))
    assert (first["stream_id"], first["session_id"], first["owner"]) == (STREAM_ID, "s1", "ann")
    assert (second["session_id"], second["owner"]) == ("s2", "bob")
    assert (first["state"], first["seq"]) == ("active", 2)
    assert first["age_ms"] >= first["last_frame_ms"] >= 0
    assert first["waits_at"].endswith(" parrot")
    assert first["stack"][-1].endswith(" Event.wait")
    assert len(await listed(client, params={"limit": 1}, **as_(OPERATOR))) == 1
    assert (await client.get(STREAMS, params={"limit": 0}, **as_(OPERATOR))).status == 422


async def test_an_operator_can_end_a_stream(aiohttp_client: Connect) -> None:
    client = await connected(
        aiohttp_client, auth_tokens=f"ann:{ANN},bob:{BOB}", operator_token=OPERATOR
    )
    path = f"{STREAMS}/{STREAM_ID}/cancel"
    assert (await client.post(path, **as_(OPERATOR))).status == 404
    await ask(client, ANN, stream_id=STREAM_ID)
    await ask(client, BOB, stream_id=STREAM_ID)
    response = await client.post(path, **as_(OPERATOR))
    assert (response.status, (await response.json())["code"]) == (409, "conflict")
    response = await client.post(path, params={"owner": "ann"}, **as_(OPERATOR))
    result = await response.json()
    assert (result["stream_id"], result["cancelled"], result["clean"]) == (STREAM_ID, True, True)
    (left,) = await listed(client, **as_(OPERATOR))
    assert left["owner"] == "bob"
    # The owner reads an ordinary end.
    response = await client.get(f"/api/streams/{STREAM_ID}", **as_(ANN))
    assert '"finish_reason":"cancelled"' in await response.text()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {ANN}"},
        {"Authorization": f"Bearer {OPERATOR}x"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {OPERATOR}"},
    ],
)
@pytest.mark.parametrize("has_operator", [True, False])
async def test_where_people_sign_in_only_the_operators_token_opens_it(
    aiohttp_client: Connect, headers: dict[str, str], has_operator: bool
) -> None:
    client = await connected(
        aiohttp_client,
        auth_tokens=f"ann:{ANN}",
        operator_token=OPERATOR if has_operator else None,
    )
    assert (await client.get(STREAMS, headers=headers)).status == 401
    assert (await client.post(f"{STREAMS}/{STREAM_ID}/cancel", headers=headers)).status in (
        401,
        403,
    )


async def test_the_operators_token_opens_nothing_else(aiohttp_client: Connect) -> None:
    client = await connected(aiohttp_client, auth_tokens=f"ann:{ANN}", operator_token=OPERATOR)
    assert (await client.get("/api/sessions", **as_(OPERATOR))).status == 401


async def test_a_server_for_this_machine_alone_needs_no_token(aiohttp_client: Connect) -> None:
    client = await connected(aiohttp_client)
    await ask(client)
    assert len(await listed(client)) == 1
    own = str(client.make_url("/")).rstrip("/")
    assert len(await listed(client, headers={"Origin": own, "Sec-Fetch-Site": "same-origin"})) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=203.0.113.7"},
        {"X-Real-IP": "203.0.113.7"},
        {"Via": "1.1 proxy"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
    ],
)
async def test_no_stranger_is_taken_for_this_machine(
    aiohttp_client: Connect, headers: dict[str, str]
) -> None:
    client = await connected(aiohttp_client)
    for method, path in (("GET", STREAMS), ("POST", f"{STREAMS}/{STREAM_ID}/cancel")):
        response = await client.request(method, path, headers=headers)
        assert response.status in (401, 403, 421)


async def test_a_proxy_that_adds_no_header_is_known_by_its_user(
    aiohttp_client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connected(aiohttp_client)
    assert (await client.get(STREAMS)).status == 200
    uid = os.geteuid()
    for peer, status in ((uid, 200), (0, 200), (uid + 1, 401), (None, 401)):
        monkeypatch.setattr(admin, "peer_uid", lambda *ends, peer=peer: peer)
        assert (await client.get(STREAMS)).status == status


async def test_no_proxy_of_another_user_revokes_sign_ins(
    aiohttp_client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connected(aiohttp_client, auth_tokens=f"ann:{ANN}", operator_token=OPERATOR)
    path, body = "/api/admin/revoke", {"principal": "ann"}
    assert (await client.post(path, json=body)).status == 200
    for headers in ({"Via": "1.1 proxy"}, {"X-Real-IP": "9.9.9.9"}):
        assert (await client.post(path, json=body, headers=headers)).status == 401
    uid = os.geteuid()
    for peer, status in ((uid, 200), (uid + 1, 401), (None, 401)):
        monkeypatch.setattr(admin, "peer_uid", lambda *ends, peer=peer: peer)
        assert (await client.post(path, json=body)).status == status


@pytest.mark.skipif(not admin._CONNECTIONS.exists(), reason="only Linux tells")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("dual_stack", [False, True])
def test_the_user_of_a_peer_is_known(host: str, dual_stack: bool) -> None:
    family = socket.AF_INET6 if dual_stack or ":" in host else socket.AF_INET
    address = ("::" if dual_stack else host, 0)
    try:
        listener = socket.create_server(address, family=family, dualstack_ipv6=dual_stack)
    except (OSError, ValueError):
        pytest.skip("no IPv6 here")
    with listener:
        port = listener.getsockname()[1]
        with socket.create_connection((host, port)), listener.accept()[0] as accepted:
            ends = accepted.getpeername(), accepted.getsockname()
            assert admin.peer_uid(*ends) == os.geteuid()
    assert admin.peer_uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


@pytest.mark.parametrize(
    "published",
    [
        {"host": "0.0.0.0", "allow_anonymous": True},
        {"allowed_origins": ("https://chat.example.org",)},
        {"trusted_proxies": ("10.0.0.0/8",)},
    ],
)
async def test_a_published_server_trusts_no_request_of_this_machine(
    aiohttp_client: Connect, published: dict[str, Any]
) -> None:
    client = await connected(aiohttp_client, cookie_secret="s" * 32, **published)
    assert (await client.get(STREAMS)).status == 401


async def test_an_agent_that_does_not_stop_is_cancelled_again(aiohttp_client: Connect) -> None:
    async def stubborn(turn: Turn) -> AsyncIterator[str]:
        yield "a"
        for _ in range(2):  # the stop, and the bound that runs out
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    app = create_app(Settings(cancel_timeout=0.01), agent=stubborn)
    client = await aiohttp_client(app)
    await ask(client, stream_id=STREAM_ID)
    response = await client.post(f"{STREAMS}/{STREAM_ID}/cancel")
    assert (await response.json())["clean"] is False
    (stream,) = await listed(client)
    assert stream["state"] == "undead"
    stopped = [each.stopped for each in app[REGISTRY]]
    await client.post(f"{STREAMS}/{STREAM_ID}/cancel")
    await asyncio.wait(stopped)
    assert await listed(client) == []

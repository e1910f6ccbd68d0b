"""Visitors of a server without sign-in: each browser has conversations of its own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from profiles import patience

from jarvis_stream import create_app
from jarvis_stream.errors import BadSettings
from jarvis_stream.settings import Settings

from .conftest import parrot

Client = TestClient[web.Request, web.Application]
Make = Callable[..., Awaitable[Client]]

STREAM = "0190b2b1-0000-7000-8000-000000000001"
BEHIND_PROXY: dict[str, Any] = {"allow_anonymous": True, "trusted_proxies": "127.0.0.1"}


@pytest.fixture
def make(aiohttp_client: Make) -> Make:
    async def client(**settings: Any) -> Client:
        chosen = {"database_url": "memory:", "host": "0.0.0.0", "allow_anonymous": True, **settings}
        client = await aiohttp_client(create_app(Settings(**chosen), agent=parrot))
        client.session.cookie_jar.clear()
        return client

    return client


@pytest.fixture
async def client(make: Make) -> Client:
    return await make()


def cookie_of(answer: ClientResponse) -> str | None:
    found = re.search(r"jarvis_visitor_[0-9a-f]{8}=[^;]+", answer.headers.get("Set-Cookie", ""))
    return found[0] if found else None


async def visit(client: Client, path: str = "/", **headers: str) -> dict[str, str]:
    """What a new browser sends from then on."""
    client.session.cookie_jar.clear()
    cookie = cookie_of(await client.get(path, headers=headers))
    client.session.cookie_jar.clear()
    assert cookie is not None
    return {"Cookie": cookie}


async def ask(client: Client, headers: dict[str, str], word: str = "hello") -> str:
    body = {"prompt": word, "session_id": "s", "stream_id": STREAM}
    answer = await client.post("/api/chat", json=body, headers=headers)
    assert answer.status == 200
    return await answer.text()


async def listed(client: Client, headers: dict[str, str]) -> list[str]:
    answer = await client.get("/api/sessions", headers=headers)
    assert answer.status == 200
    return [one["title"] for one in (await answer.json())["sessions"]]


@pytest.mark.parametrize("path", ["/", "/api/info", "/api/sessions"])
async def test_the_first_response_sets_a_cookie(client: Client, path: str) -> None:
    answer = await client.get(path)
    header = answer.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="):
        assert part in header
    assert "Secure" not in header
    assert "no-store" in answer.headers["Cache-Control"]
    again = await client.get(path)  # with it
    assert "Set-Cookie" not in again.headers


async def test_the_cookie_is_secure_over_https(make: Make) -> None:
    client = await make(**BEHIND_PROXY)
    answer = await client.get("/", headers={"X-Forwarded-Proto": "https"})
    assert answer.headers["Set-Cookie"].endswith("; Secure")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/static/js/index.js", "/metrics"])
async def test_files_and_probes_set_none(client: Client, path: str) -> None:
    assert "Set-Cookie" not in (await client.get(path)).headers


async def test_visitors_with_the_same_ids_never_meet(client: Client) -> None:
    one, other = await visit(client), await visit(client)
    for visitor, word in ((one, "mine"), (other, "theirs")):
        assert word in await ask(client, visitor, word)
    assert (await listed(client, one), await listed(client, other)) == (["mine"], ["theirs"])
    kept = await (await client.get("/api/sessions/s/messages", headers=one)).text()
    assert "theirs" not in kept
    assert (await client.delete("/api/sessions/s", headers=other)).status == 204
    assert await listed(client, one) == ["mine"]


async def test_over_websocket_too(client: Client) -> None:
    one, other = await visit(client), await visit(client)
    own = {"Origin": str(client.make_url("/")).rstrip("/")}
    async with client.ws_connect("/ws", headers={**one, **own}) as ws:
        await ws.send_json({"type": "start", "prompt": "hi", "session_id": "s"})
        await ws.receive_str()
    assert await listed(client, one) == ["hi"]
    assert await listed(client, other) == []
    async with client.ws_connect("/ws", headers=own) as ws:
        assert "jarvis_visitor_" in ws._response.headers["Set-Cookie"]


async def test_without_a_cookie_each_request_is_a_visitor_of_its_own(client: Client) -> None:
    client.session.cookie_jar.clear()
    body = {"prompt": "hello", "session_id": "s", "stream_id": STREAM}
    answer = await client.post("/api/chat", json=body)
    assert "hello" in await answer.text()
    cookie = cookie_of(answer)
    client.session.cookie_jar.clear()
    assert await listed(client, {}) == []
    client.session.cookie_jar.clear()
    assert (await client.get(f"/api/streams/{STREAM}")).status == 404
    client.session.cookie_jar.clear()
    # With what a cookie jar keeps, the conversation goes on.
    assert await listed(client, {"Cookie": cookie or ""}) == ["hello"]


@pytest.mark.parametrize(
    "forge", [str.upper, lambda cookie: cookie[::-1], lambda _: "", lambda _: "x"]
)
async def test_a_forged_cookie_is_a_new_visitor(
    client: Client, forge: Callable[[str], str]
) -> None:
    one = await visit(client)
    await ask(client, one)
    name, _, value = one["Cookie"].partition("=")
    forged = f"{name}={forge(value)}"
    answer = await client.get("/api/sessions", headers={"Cookie": forged})
    assert (await answer.json())["sessions"] == []
    assert cookie_of(answer) not in (None, forged)


async def test_a_restart_and_another_node_know_the_visitor(make: Make, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'history.sqlite3'}"
    first = await make(database_url=database)
    one = await visit(first)
    await ask(first, one)
    await first.close()
    second = await make(database_url=database)
    assert await listed(second, one) == ["hello"]
    assert (tmp_path / "history.sqlite3.cookie-secret").is_file()


async def test_a_rotated_secret_sends_the_cookie_again(make: Make) -> None:
    old, new = "o" * 32, "n" * 32
    one = await visit(await make(cookie_secret=old))
    answer = await (await make(cookie_secret=f"{new},{old}")).get("/", headers=one)
    assert cookie_of(answer) is not None
    answer = await (await make(cookie_secret=new)).get("/", headers=one)
    assert cookie_of(answer) is not None


async def test_the_starts_of_an_address_have_a_limit_whatever_the_cookie(make: Make) -> None:
    client = await make(max_starts_per_minute=2, **BEHIND_PROXY)
    headers = {"X-Forwarded-For": "203.0.113.7", "Origin": str(client.make_url("/"))[:-1]}
    statuses = []
    for _ in range(4):
        client.session.cookie_jar.clear()
        answer = await client.post("/api/chat", json={"prompt": "x"}, headers=headers)
        statuses.append(answer.status)
    assert statuses == [200, 200, 429, 429]


async def test_the_live_answers_of_an_address_have_a_limit_whatever_the_cookie(make: Make) -> None:
    client = await make(max_streams_per_principal=2, **BEHIND_PROXY)
    origin = str(client.make_url("/"))[:-1]
    headers = {"X-Forwarded-For": "203.0.113.7", "Origin": origin}
    body = {"prompt": "a wait"}
    first = await client.post("/api/chat", json=body, headers=headers)
    client.session.cookie_jar.clear()
    async with client.ws_connect("/ws", headers=headers) as ws:
        await ws.send_json({"type": "start", **body})
        assert '"thinking"' in await ws.receive_str(timeout=patience(20))
        client.session.cookie_jar.clear()
        refused = await client.post("/api/chat", json=body, headers=headers)
        assert (refused.status, (await refused.json())["code"]) == (429, "too_many")
        elsewhere = {**headers, "X-Forwarded-For": "203.0.113.8"}
        answer = await client.post("/api/chat", json=body, headers=elsewhere)
        assert answer.status == 200
        answer.close()
        client.session.cookie_jar.clear()
        # One that ends makes room.
        stream_id = first.headers["X-Stream-Id"]
        cookie = {"Cookie": cookie_of(first) or "", **headers}
        stopped = await client.post(f"/api/streams/{stream_id}/cancel", headers=cookie)
        assert stopped.status == 200
        first.close()
        client.session.cookie_jar.clear()
        answer = await client.post("/api/chat", json={"prompt": "x"}, headers=headers)
        assert answer.status == 200


async def test_an_address_gets_so_many_new_cookies(make: Make) -> None:
    client = await make(max_visitors_per_hour=2, **BEHIND_PROXY)
    elsewhere = {"X-Forwarded-For": "203.0.113.7"}
    one = await visit(client, **elsewhere)
    await visit(client, "/api/sessions", **elsewhere)
    for path, status in (("/", 200), ("/api/info", 200), ("/api/sessions", 429), ("/ws", 429)):
        headers = {**elsewhere, "Origin": str(client.make_url("/"))[:-1]}
        answer = await client.get(path, headers=headers)
        assert (answer.status, cookie_of(answer)) == (status, None), path
    assert int((await client.get("/api/sessions", headers=elsewhere)).headers["Retry-After"]) > 60
    assert await listed(client, {**one, **elsewhere}) == []
    await visit(client, **{"X-Forwarded-For": "203.0.113.8"})


async def test_a_visitor_has_so_many_sessions(make: Make) -> None:
    client = await make(max_sessions_per_visitor=1)
    one = await visit(client)
    for session_id, status in (("a", 200), ("b", 429), ("a", 200)):
        body = {"prompt": "x", "session_id": session_id}
        answer = await client.post("/api/chat", json=body, headers=one)
        await answer.read()
        assert answer.status == status
    await ask(client, await visit(client))


async def test_info_and_tickets_are_as_without_sign_in(client: Client) -> None:
    one = await visit(client)
    info = await (await client.get("/api/info", headers=one)).json()
    assert info["auth"] == "none"
    assert "principal" not in info
    assert (await client.post("/api/ticket", headers=one)).status == 404


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "127.0.0.1", "allow_anonymous": False},
        {"host": "127.0.0.1"},
        {"host": "::1"},
        {"shared_conversations": True},
        {"shared_conversations": True, **BEHIND_PROXY},
    ],
)
async def test_one_user_and_shared_conversations_need_no_cookie(
    make: Make, settings: dict[str, Any]
) -> None:
    client = await make(**settings)
    await ask(client, {})
    for path in ("/", "/api/info", "/api/sessions"):
        assert "Set-Cookie" not in (await client.get(path)).headers
    assert await listed(client, {}) == ["hello"]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded"])
async def test_on_a_loopback_address_a_proxys_clients_are_visitors(make: Make, name: str) -> None:
    """Though the proxy is not among the trusted ones; the user of this machine is none."""
    client = await make(host="127.0.0.1")
    await ask(client, {}, "the user of this machine")
    elsewhere = {name: "203.0.113.7"}
    one, other = await visit(client, **elsewhere), await visit(client, **elsewhere)
    for visitor, word in ((one, "mine"), (other, "theirs")):
        await ask(client, {**visitor, **elsewhere}, word)
    assert await listed(client, {**one, **elsewhere}) == ["mine"]
    assert await listed(client, {**other, **elsewhere}) == ["theirs"]
    assert await listed(client, elsewhere) == []
    client.session.cookie_jar.clear()
    assert await listed(client, {}) == ["the user of this machine"]


async def test_a_host_name_of_others_is_a_proxys_too(make: Make) -> None:
    """A proxy may add no header of its own, and passes the Host on."""
    client = await make(host="127.0.0.1", allowed_origins="https://chat.example.org")
    await ask(client, {}, "the user of this machine")
    elsewhere = {"Host": "chat.example.org"}
    assert await listed(client, await visit(client, **elsewhere) | elsewhere) == []


async def test_where_people_sign_in_the_cookie_means_nothing(make: Make) -> None:
    secret, token = "s" * 32, "anns-token-0123456"
    one = await visit(await make(cookie_secret=secret))
    client = await make(cookie_secret=secret, auth_tokens=f"ann:{token}")
    assert (await client.get("/api/sessions", headers=one)).status == 401
    assert "Set-Cookie" not in (await client.get("/")).headers
    bearer = {"Authorization": f"Bearer {token}", **one}
    info = await (await client.get("/api/info", headers=bearer)).json()
    assert info["principal"] == "ann"


def test_nodes_of_one_database_need_one_secret() -> None:
    shared: Any = {"host": "0.0.0.0", "database_url": "postgresql://u:p@127.0.0.1/x"}
    with pytest.raises(BadSettings, match="JARVIS_COOKIE_SECRET"):
        create_app(Settings(**shared), agent=parrot)
    for more in ({"cookie_secret": "s" * 32}, {"shared_conversations": True}):
        create_app(Settings(**shared, **more), agent=parrot)


async def test_a_secret_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "h.sqlite3.cookie-secret").mkdir()
    settings: Any = {"host": "0.0.0.0", "database_url": str(tmp_path / "h.sqlite3")}
    runner = web.AppRunner(create_app(Settings(**settings), agent=parrot))
    with pytest.raises(BadSettings, match="cookie-secret"):
        await runner.setup()
    await runner.cleanup()

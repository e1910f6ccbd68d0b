"""What one principal, one address or one socket may do at a time, each refusal counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient

from jarvis_stream import create_app
from jarvis_stream.settings import Settings

from .conftest import parrot

Client = TestClient[web.Request, web.Application]
Make = Callable[..., Awaitable[Client]]

ANNS, BOBS = "anns-token-0123456", "bobs-token-0123456"


@pytest.fixture
def make(aiohttp_client: Make) -> Make:
    async def client(**settings: Any) -> Client:
        return await aiohttp_client(create_app(Settings(**settings), agent=parrot))

    return client


def elsewhere(address: str, token: str | None = None) -> dict[str, str]:
    headers = {"X-Forwarded-For": address, "Origin": "http://friend.example"}
    return {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}


ELSEWHERE = {"trusted_proxies": "127.0.0.1", "allowed_origins": "http://friend.example"}


async def code(answer: ClientResponse) -> tuple[int, str]:
    return answer.status, (await answer.json())["code"]


async def refused(client: Client, transport: str, name: str) -> float:
    text = await (await client.get("/metrics")).text()
    sample = f'jarvis_requests_refused_total{{code="{name}",transport="{transport}"}} '
    return sum(float(line[len(sample) :]) for line in text.splitlines() if line.startswith(sample))


async def test_an_address_has_so_many_sockets(make: Make) -> None:
    client = await make(max_sockets_per_address=2, **ELSEWHERE)
    one = [await client.ws_connect("/ws", headers=elsewhere("203.0.113.1")) for _ in range(2)]
    answer = await client.get("/ws", headers=elsewhere("203.0.113.1"))
    # What is no handshake is told so first.
    assert await code(answer) == (400, "malformed")
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = await client.get("/ws", headers={**elsewhere("203.0.113.1"), **handshake})
    assert await code(answer) == (429, "too_many")
    assert answer.headers["Retry-After"] == "10"
    async with client.ws_connect("/ws", headers=elsewhere("203.0.113.2")):
        pass
    assert await refused(client, "http", "too_many") == 1
    await one[0].close()
    async with client.ws_connect("/ws", headers=elsewhere("203.0.113.1")):
        pass
    for _ in range(5):  # this machine
        await client.ws_connect("/ws")


async def test_the_addresses_of_a_public_ipv6_network_count_as_one(make: Make) -> None:
    client = await make(max_sockets_per_address=1, **ELSEWHERE)
    others = ("2600:1:2:4::1", "fd00::1", "fd00::2", "203.0.113.1", "::ffff:203.0.113.2")
    for address in ("2600:1:2:3::1", *others):
        await client.ws_connect("/ws", headers=elsewhere(address))
    with pytest.raises(Exception, match="429"):
        await client.ws_connect("/ws", headers=elsewhere("2600:1:2:3:4:5:6:7"))


async def test_what_a_stranger_says_of_itself_is_not_believed(make: Make) -> None:
    client = await make(max_sockets_per_address=1, allowed_origins="http://friend.example")
    for _ in range(2):
        await client.ws_connect("/ws", headers=elsewhere("203.0.113.1"))


async def test_a_principal_has_so_many_sockets(make: Make) -> None:
    client = await make(
        max_sockets_per_principal=1, auth_tokens=f"ann:{ANNS},bob:{BOBS}", **ELSEWHERE
    )
    await client.ws_connect("/ws", headers=elsewhere("203.0.113.1", ANNS))
    with pytest.raises(Exception, match="429"):
        await client.ws_connect("/ws", headers=elsewhere("203.0.113.2", ANNS))
    await client.ws_connect("/ws", headers=elsewhere("203.0.113.1", BOBS))


async def test_a_principal_starts_so_many_answers_a_minute(make: Make) -> None:
    client = await make(max_starts_per_minute=2, auth_tokens=f"ann:{ANNS},bob:{BOBS}")
    ann = {"Authorization": f"Bearer {ANNS}"}
    stream_id = "0190b2b1-0000-7000-8000-000000000001"
    known = {"prompt": "hi", "stream_id": stream_id}
    for body in (known, known, known, {"prompt": "hi"}):  # to attach is not to start
        assert (await client.post("/api/chat", json=body, headers=ann)).status == 200
    answer = await client.post("/api/chat", json={"prompt": "hi"}, headers=ann)
    assert await code(answer) == (429, "too_fast")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    async with client.ws_connect("/ws", headers=ann) as ws:
        await ws.send_json({"type": "start", "prompt": "hi"})
        assert (await ws.receive_json())["code"] == "too_fast"
    assert await refused(client, "http", "too_fast") == 1
    assert await refused(client, "websocket", "too_fast") == 1
    bob = {"Authorization": f"Bearer {BOBS}"}
    assert (await client.post("/api/chat", json={"prompt": "hi"}, headers=bob)).status == 200


async def test_where_nobody_has_a_name_an_address_does(make: Make) -> None:
    client = await make(max_starts_per_minute=1, **ELSEWHERE)
    statuses = []
    for address in ("203.0.113.1", "203.0.113.1, 203.0.113.2", "203.0.113.2"):
        answer = await client.post("/api/chat", json={"prompt": "hi"}, headers=elsewhere(address))
        statuses.append(answer.status)
    assert statuses == [200, 200, 429]
    for _ in range(3):
        assert (await client.post("/api/chat", json={"prompt": "hi"})).status == 200


async def test_a_socket_that_talks_too_much_is_told_so(make: Make) -> None:
    client = await make(max_messages_per_second=1)
    async with client.ws_connect("/ws") as ws:
        for _ in range(12):
            await ws.send_json({"type": "nonsense"})
        codes = [(await ws.receive_json())["code"] for _ in range(12)]
    assert codes[:10] == ["invalid"] * 10
    assert "too_fast" in codes[10:]


@pytest.mark.parametrize("address", ["9.9.9.5:1234", "[2001:db8::1]:443", "unknown", "_hidden"])
async def test_an_address_with_a_port_or_none_at_all_has_limits_too(
    make: Make, address: str
) -> None:
    client = await make(max_sockets_per_address=1, max_starts_per_minute=1, **ELSEWHERE)
    await client.ws_connect("/ws", headers=elsewhere(address))
    with pytest.raises(Exception, match="429"):
        await client.ws_connect("/ws", headers=elsewhere(address.replace("1234", "99")))
    body = {"prompt": "x"}
    for status in (200, 429):
        answer = await client.post("/api/chat", json=body, headers=elsewhere(address))
        assert answer.status == status
    headers = {"X-Forwarded-For": address}
    assert (await client.post("/api/chat", json=body, headers=headers)).status == 403


async def test_a_principal_renames_and_deletes_so_often_in_a_minute(make: Make) -> None:
    client = await make(max_changes_per_minute=2, auth_tokens=f"ann:{ANNS},bob:{BOBS}")
    ann, bob = ({"Authorization": f"Bearer {token}"} for token in (ANNS, BOBS))
    title = {"title": "a title"}
    assert (await client.patch("/api/sessions/s", json=title, headers=ann)).status == 404
    assert (await client.delete("/api/sessions/s", headers=ann)).status == 404
    for answer in (
        await client.patch("/api/sessions/s", json=title, headers=ann),
        await client.delete("/api/sessions/s", headers=ann),
    ):
        assert await code(answer) == (429, "too_fast")
    assert (await client.delete("/api/sessions/s", headers=bob)).status == 404


async def test_a_principal_reads_and_searches_so_often_in_a_minute(make: Make) -> None:
    client = await make(
        max_reads_per_minute=3, max_searches_per_minute=1, auth_tokens=f"ann:{ANNS},bob:{BOBS}"
    )
    ann, bob = ({"Authorization": f"Bearer {token}"} for token in (ANNS, BOBS))
    start = {"prompt": "hi", "session_id": "s"}
    await (await client.post("/api/chat", json=start, headers=ann)).read()
    for path in ("/api/sessions", "/api/sessions/s/messages", "/api/sessions/s/export.md"):
        assert (await client.get(path, headers=ann)).status == 200
    for path in ("/api/sessions", "/api/sessions/s/messages", "/api/sessions/s/export.json"):
        answer = await client.get(path, headers=ann)
        assert await code(answer) == (429, "too_fast")
        assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert (await client.get("/api/sessions?q=hi", headers=ann)).status == 200
    answer = await client.get("/api/sessions?q=hi", headers=ann)
    assert await code(answer) == (429, "too_fast")
    assert (await client.get("/api/sessions?q=hi", headers=bob)).status == 200

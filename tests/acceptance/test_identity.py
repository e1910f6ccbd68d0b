"""Two principals at a real server: each call of the one at what is the other's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import ClientError, ClientResponse
from processes import Server

from .clients import PATIENCE, Api, check_stream, new_id, outcome, talking_to, text_of
from .conftest import assert_quiet, start

ANNS, BOBS = "anns-secret-token-1", "bobs-secret-token-2"


@pytest.fixture(scope="module", params=["sqlite", "memory"])
def guarded(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that asks who one is."""
    where = ("--database-url", "memory:") if request.param == "memory" else ()
    with start("--auth-tokens", f"ann:{ANNS},bob:{BOBS}", *where) as server:
        yield server
        assert_quiet(server.log)
        assert ANNS not in server.log
        assert BOBS not in server.log


@pytest.fixture
async def ann(guarded: Server) -> AsyncIterator[Api]:
    async with talking_to(guarded.url) as api:
        api.http.headers["Authorization"] = f"Bearer {ANNS}"
        yield api


@pytest.fixture
async def bob(guarded: Server) -> AsyncIterator[Api]:
    async with talking_to(guarded.url) as api:
        api.http.headers["Authorization"] = f"Bearer {BOBS}"
        yield api


CALLS = [
    ("GET", "/api/streams/{stream}", None),
    ("GET", "/api/streams/{stream}?after=1", None),
    ("POST", "/api/streams/{stream}/cancel", None),
    ("GET", "/api/sessions/{session}/messages", None),
    ("PATCH", "/api/sessions/{session}", {"title": "mine now"}),
    ("DELETE", "/api/sessions/{session}", None),
    ("GET", "/api/sessions/{session}/export.json", None),
    ("GET", "/api/sessions/{session}/export.md", None),
    ("POST", "/api/chat", {"prompt": "say x", "session_id": "{session}", "replaces": "{stream}"}),
]

MESSAGES = [
    {"type": "resume", "stream_id": "{stream}", "after": 0},
    {"type": "resume", "stream_id": "{stream}", "after": 2},
    {"type": "cancel", "stream_id": "{stream}"},
    {"type": "start", "prompt": "say x", "session_id": "{session}", "replaces": "{stream}"},
]


def filled(form: Any, session: str, stream: str) -> Any:
    text = orjson.dumps(form).decode()
    return orjson.loads(text.replace("{session}", session).replace("{stream}", stream))


async def seen(response: ClientResponse, session: str, stream: str) -> tuple[Any, ...]:
    """All of an answer but its date; the ids that were asked for are blotted out."""
    headers = [(name, value) for name, value in response.headers.items() if name != "Date"]
    body = (await response.read()).replace(session.encode(), b"{s}").replace(stream.encode(), b"{}")
    return response.status, headers, body


async def ask(api: Api, call: tuple[str, str, Any], session: str, stream: str) -> tuple[Any, ...]:
    method, path, body = filled(call, session, stream)
    async with api.http.request(method, api.url + path, json=body) as response:
        return await seen(response, session, stream)


@pytest.mark.parametrize("state", ["live", "ended"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1]}")
async def test_what_is_anothers_is_unknown_over_http(
    ann: Api, bob: Api, call: tuple[str, str, Any], state: str
) -> None:
    session, stream = new_id(), new_id()
    prompt = "burst 3" if state == "live" else "say a b"
    async with ann.posting(prompt, session_id=session, stream_id=stream) as response:
        await response.content.readline()
        if state == "ended":
            await response.read()
        crossed = await ask(bob, call, session, stream)
        unknown = await ask(bob, call, new_id(), new_id())
        assert crossed == unknown
        assert crossed[0] == 404
        listed = await (await bob.http.get(bob.url + "/api/sessions?limit=200")).json()
        assert session not in {one["session_id"] for one in listed["sessions"]}
        # And it was left alone.
        kept = await (await ann.http.get(f"{ann.url}/api/sessions/{session}/messages")).json()
        statuses = {"live": "streaming", "ended": "complete"}
        assert kept["messages"][1]["status"] == statuses[state]
        await ann.cancel(stream)


@pytest.mark.parametrize("form", MESSAGES, ids=lambda form: f"{form['type']}")
async def test_and_over_websocket(ann: Api, bob: Api, form: dict[str, Any]) -> None:
    session, stream = new_id(), new_id()
    async with ann.socket() as anns, bob.socket() as bobs:
        await anns.send(type="start", prompt="burst 3", session_id=session, stream_id=stream)
        await anns.spoke(stream)
        answers = []
        for s, t in ((session, stream), (new_id(), new_id())):
            own = {} if form["type"] != "start" else {"stream_id": new_id()}
            await bobs.send(**filled(form, s, t), **own)
            answer = await bobs.until(lambda f: f["type"] == "error")
            text = orjson.dumps({**answer, "stream_id": None}).decode()
            answers.append(text.replace(s, "{s}").replace(t, "{t}"))
        assert answers[0] == answers[1]
        assert orjson.loads(answers[0])["code"] == "not_found"
        await anns.send(type="cancel", stream_id=stream)
        assert outcome(await anns.ended(stream)) == "cancelled"


async def test_the_same_ids_are_two_conversations(ann: Api, bob: Api) -> None:
    session, stream = new_id(), new_id()
    async with ann.socket() as anns, bob.socket() as bobs:
        await bobs.send(type="watch", session_id=session)
        await anns.send(type="start", prompt="burst 3", session_id=session, stream_id=stream)
        await anns.spoke(stream)
        # It neither interrupts nor attaches, and its watcher has seen nothing of the other's.
        frames = await bob.chat("say hello", session_id=session, stream_id=stream)
        check_stream(frames)
        assert text_of(frames) == "hello "
        assert text_of(await bobs.ended(stream)) == "hello "
        assert {f["stream_id"] for f in bobs.frames} == {stream}
        again = await bob.http.get(f"{bob.url}/api/streams/{stream}")
        assert b"hello" in await again.read()
        assert (await bob.cancel(stream))[1]["cancelled"] is False
        async with bob.http.delete(f"{bob.url}/api/sessions/{session}") as deleted:
            assert deleted.status == 204
        assert (await bob.http.get(f"{bob.url}/api/streams/{stream}")).status == 404
        position = await (await ann.http.get(f"{ann.url}/api/sessions/{session}/messages")).json()
        assert position["active_stream"]["stream_id"] == stream
        assert (await ann.cancel(stream))[1]["cancelled"] is True
    kept = await (await ann.http.get(f"{ann.url}/api/sessions/{session}/messages")).json()
    assert kept["messages"][1]["content"] == "0 1 2 "


async def test_stops_that_come_early_are_ones_own(ann: Api, bob: Api) -> None:
    stream = new_id()
    assert (await bob.cancel(stream))[0] == 404
    assert outcome(await ann.chat("say hello", stream_id=stream)) == "stop"
    assert outcome(await bob.chat("say hello", stream_id=stream)) == "cancelled"


async def test_a_ticket_is_good_for_one_socket(ann: Api, guarded: Server) -> None:
    answer = await (await ann.http.post(ann.url + "/api/ticket")).json()
    protocols = ("jarvis-stream.v1", "jarvis-stream.ticket." + answer["ticket"])
    async with talking_to(guarded.url) as nobody:
        # Two at once, and only one gets in.
        attempts = await asyncio.gather(
            *(nobody.http.ws_connect(nobody.url + "/ws", protocols=protocols) for _ in range(2)),
            return_exceptions=True,
        )
        sockets = [one for one in attempts if not isinstance(one, BaseException)]
        assert len(sockets) == 1
        await sockets[0].send_json({"type": "start", "prompt": "say x"})
        assert "thinking" in await sockets[0].receive_str(timeout=PATIENCE)
        await sockets[0].close()
    assert answer["ticket"] not in guarded.log


async def test_an_expiring_token_ends_what_it_opened() -> None:
    secret = "a-shared-secret-of-more-than-32-bytes"
    with start("--jwt-key", secret, "--jwt-leeway", "0") as server:
        async with talking_to(server.url) as api:
            expires = int(time.time()) + 5
            token = jwt.encode({"sub": "ann", "exp": expires}, secret, algorithm="HS256")
            api.http.headers["Authorization"] = f"Bearer {token}"
            spared = new_id()
            async with (
                api.socket() as idle,
                api.socket() as socket,
                api.posting("burst 3", stream_id=spared, on_disconnect="continue") as response,
            ):
                await socket.send(type="start", prompt="burst 3", stream_id=(stream := new_id()))
                await socket.spoke(stream)
                assert await idle.closed() == await socket.closed() == 1008
                with pytest.raises(ClientError):
                    await response.read()
                assert -0.5 < time.time() - expires < PATIENCE
            async with api.http.get(api.url + "/api/sessions") as refused:
                assert refused.status == 401
            # Who comes back with a new token finds what was to go on.
            token = jwt.encode({"sub": "ann", "exp": expires + 60}, secret, algorithm="HS256")
            api.http.headers["Authorization"] = f"Bearer {token}"
            assert (await api.cancel(spared))[1]["cancelled"] is True
        assert_quiet(server.log)
        assert secret not in server.log
        assert token not in server.log

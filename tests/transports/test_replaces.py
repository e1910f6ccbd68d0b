"""`replaces`, over both transports: a question asked again in the place of an earlier one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from acceptance.clients import Api, Frame, lines, new_id, outcome, text_of
from aiohttp import ClientResponse

from .conftest import Client

UNKNOWN = "0195f1a0-0000-7000-8000-000000000000"


class Answers(Protocol):
    """Asks, and gives all frames of the answer, or the one refusal."""

    async def __call__(self, prompt: str, **fields: Any) -> list[Frame]: ...


@pytest.fixture
def api(client: Client) -> Api:
    return Api(client.session, str(client.make_url("")).rstrip("/"))


@pytest.fixture(params=["http", "websocket"])
def ask(request: pytest.FixtureRequest, api: Api) -> Answers:
    async def over_http(prompt: str, **fields: Any) -> list[Frame]:
        body = {"prompt": prompt, "session_id": "s", **fields}
        async with api.http.post(api.url + "/api/chat", json=body) as response:
            found = lines(await response.read() + b"\n")
            if response.status != 200:
                found[0]["status"] = response.status
            return found

    async def over_websocket(prompt: str, **fields: Any) -> list[Frame]:
        fields = {"session_id": "s", "stream_id": new_id(), **fields}
        async with api.socket() as socket:
            await socket.send(type="start", prompt=prompt, **fields)
            await socket.until(lambda frame: frame["type"] in ("done", "error"))
            return socket.frames

    return over_http if request.param == "http" else over_websocket


async def told(api: Api) -> list[str]:
    """What is kept of the session."""
    async with api.http.get(api.url + "/api/sessions/s/messages") as response:
        return [message["content"] for message in (await response.json())["messages"]]


async def test_a_question_is_asked_again_in_its_place(ask: Answers, api: Api) -> None:
    asked = [await ask(prompt) for prompt in ("one", "two", "three")]
    replaced = asked[1][0]["stream_id"]
    frames = await ask("2 again", replaces=replaced)
    assert (outcome(frames), text_of(frames)) == ("stop", "2again")
    assert frames[0]["replaces"] == replaced
    assert await told(api) == ["one", "one", "2 again", "2again"]
    frames = await ask("4", replaces=None)
    assert "replaces" not in frames[0]
    assert await told(api) == ["one", "one", "2 again", "2again", "4", "4"]


async def test_a_request_sent_twice_replaces_once(ask: Answers, api: Api) -> None:
    first = await ask("one")
    stream_id = new_id()
    again = {"stream_id": stream_id, "replaces": first[0]["stream_id"]}
    once = await ask("1 again", **again)
    assert await ask("1 again", **again) == once
    assert await told(api) == ["1 again", "1again"]


async def test_a_failed_question_is_tried_again(ask: Answers, api: Api) -> None:
    failed = await ask("it will fail")
    assert outcome(failed) == "agent_error"
    await ask("it will work", replaces=failed[0]["stream_id"])
    assert await told(api) == ["it will work", "itwillwork"]


async def test_who_watches_is_told_what_was_replaced(ask: Answers, api: Api) -> None:
    first = await ask("one")
    stream_id = new_id()
    async with api.socket() as onlooker:
        await onlooker.send(type="watch", session_id="s")
        await onlooker.send(type="resume", stream_id=first[0]["stream_id"], after=0)
        await onlooker.ended(first[0]["stream_id"])  # it watches, now
        await ask("1 again", stream_id=stream_id, replaces=first[0]["stream_id"])
        frames = await onlooker.ended(stream_id)
    assert frames[0]["replaces"] == first[0]["stream_id"]


@asynccontextmanager
async def _busy(api: Api) -> AsyncIterator[tuple[str, ClientResponse]]:
    """While an answer is being given; its stream_id."""
    stream_id = new_id()
    async with api.posting("a wait", session_id="s", stream_id=stream_id) as live:
        await live.content.readuntil(b'"a"}\n')
        yield stream_id, live


async def test_the_live_answer_is_superseded_and_leaves(ask: Answers, api: Api) -> None:
    async with _busy(api) as (stream_id, live):
        frames = await ask("b", replaces=stream_id)
        old = lines(b'{"type":"x"}\n' + await live.read())
    assert old[-1]["superseded_by"] == frames[0]["stream_id"]
    assert await told(api) == ["b", "b"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"replaces": UNKNOWN}, "not_found"),
        ({"replaces": UNKNOWN, "session_id": None}, "not_found"),
        ({"replaces": UNKNOWN.upper()}, "invalid"),
        ({"replaces": "x"}, "invalid"),
        ({"replaces": ""}, "invalid"),
        ({"replaces": 5}, "invalid"),
        ({"replaces": ["x"]}, "invalid"),
    ],
)
async def test_what_cannot_be_replaced_is_refused_and_interrupts_nothing(
    ask: Answers, api: Api, fields: dict[str, Any], code: str
) -> None:
    async with _busy(api) as (stream_id, _):
        [refusal] = await ask("b", **fields)
        assert refusal["code"] == code
        assert refusal["error"].startswith("replaces: ")
        if "status" in refusal:
            assert refusal["status"] == {"not_found": 404, "invalid": 422}[code]
        assert await told(api) == ["a wait", "a"]
        await api.cancel(stream_id)


async def test_it_does_not_wait_in_line_behind_what_it_replaces(ask: Answers, api: Api) -> None:
    async with _busy(api) as (stream_id, _):
        for on_conflict in ("enqueue", "reject"):
            [refusal] = await ask("b", replaces=stream_id, on_conflict=on_conflict)
            assert refusal["code"] == "conflict"
        await api.cancel(stream_id)
    await ask("b", replaces=stream_id, on_conflict="enqueue")
    assert await told(api) == ["b", "b"]

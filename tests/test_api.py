"""docs/openapi.json and docs/asyncapi.json: made from the code, and true of a running server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import api
import orjson
import pytest
from acceptance.clients import Api, lines, new_id
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from conftest import ROOT
from fakes import FakeAgents, fails, says, talks
from jsonschema import Draft202012Validator

from jarvis_stream import Done, Status, Turn, create_app
from jarvis_stream.errors import Overloaded, Refused, StreamFailure, TooSlow, UpstreamError
from jarvis_stream.frames import AGENT_REASONS
from jarvis_stream.settings import Settings
from jarvis_stream.transports.context import REGISTRY
from jarvis_stream.transports.door import raw
from jarvis_stream.transports.requests import MAX_TITLE, ON_CONFLICT, parse_opening, parse_title

pytestmark = pytest.mark.usefixtures("patient_history")

Json = dict[str, Any]

TOKEN = "a-token-of-sixteen-or-more"

CLOSED = {name: document(closed=True) for name, document in api.PAGES.items()}
"""The documents as the tests read them: without room for a field that is not in them."""


def check(value: object, schema: Json, document: str = "openapi") -> None:
    """`value` is as `schema` says, whose references are the document's."""
    components = {"components": CLOSED[document]["components"]}
    Draft202012Validator({**schema, **components}).validate(value)


def check_named(value: object, name: str, document: str = "openapi") -> None:
    """`value` is what the document calls by that name."""
    check(value, api.ref(name), document)


def parts(thing: Any) -> Iterator[Json]:
    """Every object in a document."""
    if isinstance(thing, dict):
        yield thing
    for part in thing.values() if isinstance(thing, dict) else thing:
        if isinstance(part, (dict, list)):
            yield from parts(part)


def at(document: Json, pointer: str) -> Any:
    """What a reference within the document points to."""
    found: Any = document
    for step in pointer.removeprefix("#/").split("/"):
        found = found[step]
    return found


# The files


@pytest.mark.parametrize("name", api.PAGES)
def test_the_file_agrees_with_the_code(name: str) -> None:
    assert (ROOT / "docs" / f"{name}.json").read_text("utf-8") == api.page(name), "run `make docs`"


@pytest.mark.parametrize("name", api.PAGES)
def test_every_reference_leads_somewhere_and_every_schema_is_one(name: str) -> None:
    document = api.PAGES[name]()
    for part in parts(document):
        if "$ref" in part:
            assert isinstance(at(document, part["$ref"]), dict)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_schema_is_used() -> None:
    used = {
        part["$ref"].rpartition("/")[2]
        for d in CLOSED.values()
        for part in parts(d)
        if "$ref" in part
    }
    assert {name for d in CLOSED.values() for name in d["components"]["schemas"]} <= used


def test_every_route_is_described_and_every_described_route_exists() -> None:
    assert set(api.routes()) == api.CALLS.keys(), "describe them in docs/api.py"


def test_every_route_says_what_it_does() -> None:
    calls = [call for path in CLOSED["openapi"]["paths"].values() for call in path.values()]
    assert all(call["summary"] for call in calls)
    assert len({call["operationId"] for call in calls}) == len(calls)


def test_every_message_is_described_and_every_described_message_exists() -> None:
    assert set(api.commands()) == api.COMMANDS.keys(), "describe them in docs/api.py"


def test_every_error_of_the_tree_is_described() -> None:
    responses = CLOSED["openapi"]["components"]["responses"]
    for kind in api.tree(Refused):
        if kind is not Refused and kind.__module__ == Refused.__module__:
            told = responses[f"Refused{kind.status}"]["description"]
            assert f"`{kind.code}`: {api.meaning(kind)}" in told
            check_named({"code": kind.code, "error": "x"}, "Refusal")
    codes = CLOSED["openapi"]["components"]["schemas"]["Error"]["properties"]["code"]
    for failure in api.tree(StreamFailure):
        if failure.__module__ == StreamFailure.__module__:
            assert failure.code in codes["enum"]
            assert f"`{failure.code}`: " in codes["description"]


def test_the_words_of_the_protocol_are_told_to_people_too() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    words = {*api.QUESTION, *api.failures(), *AGENT_REASONS, *api.SERVER_REASONS}
    for codes in api.refusals().values():
        words |= codes.keys()
    words |= {*ON_CONFLICT, "thinking", "queued", *api.statuses()}
    assert {word for word in words if f"`{word}`" not in text} == set()
    for status in api.refusals():
        assert f"| {status} |" in text
    for kind in api.commands():
        assert f'{{type: "{kind}"' in text
    for _, path in api.routes():
        assert path in text or path.startswith("/static/") or path.endswith("export.json"), path


class Asked(dict[str, Any]):
    """A body that notes which fields are asked for."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """See dict."""
        self.names.add(name)
        return super().get(name, default)


def test_the_fields_of_a_question_are_those_that_the_server_reads() -> None:
    body = Asked(prompt="x")
    parse_opening(body, transport="http", traceparent=None, max_prompt_chars=9)
    assert body.names == api.QUESTION.keys()
    title = Asked(title="x")
    parse_title(title)
    schema = CLOSED["openapi"]["components"]["schemas"]["Title"]
    assert title.names == schema["properties"].keys()
    assert str(MAX_TITLE) in schema["description"]


# A running server


class Server:
    """One application, whose every answer is compared with what is written of it."""

    def __init__(self, client: TestClient[web.Request, web.Application]) -> None:
        self.client = client
        self.registry = client.app[REGISTRY]
        self.api = Api(client.session, str(client.make_url("")).rstrip("/"))

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """The status, and the JSON or the frames; `path` may say which id with `{name=value}`."""
        template, url = _template(path), _url(path)
        async with self.client.request(method, url, **options) as response:
            return response.status, await self.check(method.lower(), template, response)

    async def check(self, method: str, template: str, response: ClientResponse) -> Any:
        """The JSON or the frames of a response that is as described."""
        document = CLOSED["openapi"]
        described = document["paths"][template][method]["responses"]
        told = described[str(response.status)]
        told = at(document, told["$ref"]) if "$ref" in told else told
        for name, header in told.get("headers", {}).items():
            if name != "Retry-After":
                check(response.headers[name], header["schema"])
            elif name in response.headers:
                check(int(response.headers[name]), header["schema"])
        body = await response.read()
        if "content" not in told:
            assert not body
            return None
        if "*/*" in told["content"]:
            return body
        content = told["content"][response.content_type]
        if "itemSchema" in content:
            frames = lines(body)
            for frame in frames:
                check(frame, content["itemSchema"])
                check_frame(frame)
            return frames
        value = orjson.loads(body) if response.content_type == "application/json" else body.decode()
        check(value, content["schema"])
        return value


def check_frame(frame: Json) -> None:
    """The one kind that it is, and no other."""
    fitting = []
    for name in api.FRAMES:
        components = {"components": CLOSED["openapi"]["components"]}
        if Draft202012Validator({**api.ref(name), **components}).is_valid(frame):
            fitting.append(name)
    assert len(fitting) == 1, (frame, fitting)


def _template(path: str) -> str:
    out, _, _ = path.partition("?")
    while "=" in out:
        head, _, tail = out.partition("=")
        out = head + "}" + tail.partition("}")[2]
    return out


def _url(path: str) -> str:
    out = path
    while "{" in out:
        head, _, tail = out.partition("{")
        word, _, rest = tail.partition("}")
        out = head + word.partition("=")[2] + rest
    return out


async def tool(turn: Turn) -> AsyncGenerator[str | Status | Done, None]:
    """Tells what it does, and what it cost."""
    yield Status("tool", name="search", detail="x")
    yield Status("reasoning")
    yield "found"
    yield Done("length", usage={"total_tokens": 3})


Starting = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start(aiohttp_client: Callable[..., Awaitable[Any]]) -> Starting:
    """Starts a server with the settings that it is given."""

    async def start(**settings: Any) -> Server:
        agents = FakeAgents(
            hello=says("a", "b"),
            talks=talks("a"),
            fails=fails(ValueError("hunter2"), "a"),
            upstream=fails(UpstreamError(), "a"),
            tool=tool,
        )
        app = create_app(Settings(max_body_bytes=2000, max_queue=1, **settings), agent=agents)
        return Server(await aiohttp_client(app, server_kwargs={"handler_cancellation": True}))

    return start


async def test_every_call_answers_as_described(start: Starting) -> None:
    server = await start()
    stream_id = new_id()
    question = {"prompt": "hello", "session_id": "s", "stream_id": stream_id}
    assert (await server.call("POST", "/api/chat", json=question))[0] == 200
    assert (await server.call("POST", "/api/chat", json=question))[0] == 200
    for prompt in ("tool", "fails", "upstream"):
        asked = {"prompt": prompt, "session_id": "s"}
        assert (await server.call("POST", "/api/chat", json=asked))[0] == 200
    _, frames = await server.call("GET", f"/api/streams/{{stream_id={stream_id}}}?after=2")
    assert [frame["seq"] for frame in frames] == [3, 4]
    replacing = {"prompt": "hello", "session_id": "t", "stream_id": new_id()}
    await server.call("POST", "/api/chat", json=replacing)
    again = {"prompt": "hello", "session_id": "t", "replaces": replacing["stream_id"]}
    _, frames = await server.call("POST", "/api/chat", json=again)
    assert frames[0]["replaces"] == replacing["stream_id"]
    for path in (
        "/api/sessions?limit=1&q=hello",
        "/api/sessions/{session_id=s}/messages",
        "/api/sessions/{session_id=s}/export.json",
        "/api/sessions/{session_id=s}/export.md",
        "/api/info",
        "/livez",
        "/readyz",
        "/metrics",
        "/",
        "/static/{path=index.html}",
    ):
        assert (await server.call("GET", path))[0] == 200, path
    renamed = await server.call("PATCH", "/api/sessions/{session_id=s}", json={"title": "A  b"})
    assert renamed[1]["title"] == "A b"
    assert await server.call("DELETE", "/api/sessions/{session_id=s}") == (204, None)


async def test_streams_that_wait_stop_and_are_superseded_are_as_described(start: Starting) -> None:
    server = await start()
    first, second, third = (
        {"prompt": "talks", "session_id": "s", "stream_id": new_id(), "on_conflict": "enqueue"}
        for _ in range(3)
    )
    posting = server.api.posting
    async with posting(**first) as speaking, posting(**second) as waiting:
        await speaking.content.readline()
        busy = await server.call("POST", "/api/chat", json=third)
        assert (busy[0], busy[1]["code"]) == (429, "too_many")
        rejected = {**third, "on_conflict": "reject"}
        assert (await server.call("POST", "/api/chat", json=rejected))[0] == 409
        live = await server.call("GET", "/api/sessions/{session_id=s}/messages")
        assert live[1]["active_stream"]["stream_id"] == first["stream_id"]
        newest = {"prompt": "hello", "session_id": "s"}
        assert (await server.call("POST", "/api/chat", json=newest))[0] == 200
        frames = await server.check("post", "/api/chat", waiting)
        assert frames[1]["status"] == "queued"
        assert frames[-1]["finish_reason"] == "superseded"
        stopped = f"/api/streams/{{stream_id={first['stream_id']}}}/cancel"
        assert (await server.call("POST", stopped))[1]["cancelled"] is False
    assert (await server.call("GET", "/api/sessions/{session_id=s}/messages"))[0] == 200


async def test_signing_in_is_as_described(start: Starting) -> None:
    server = await start(auth_tokens=f"ann:{TOKEN}")
    refused = await server.call("GET", "/api/sessions")
    assert (refused[0], refused[1]["code"]) == (401, "unauthorized")
    assert (await server.call("GET", "/api/info"))[1]["auth"] == "token"
    wrong = {"token": "no" + TOKEN}
    assert (await server.call("POST", "/api/login", json=wrong))[0] == 401
    assert (await server.call("POST", "/api/login", json={}))[0] == 422
    given = {"token": TOKEN}
    check_named(given, "Credential")
    assert await server.call("POST", "/api/login", json=given) == (200, {"principal": "ann"})
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (await server.call("GET", "/api/info", headers=bearer))[1]["principal"] == "ann"
    assert (await server.call("POST", "/api/ticket", headers=bearer))[0] == 200
    assert (await server.call("POST", "/api/logout"))[0] == 204


async def test_where_nobody_signs_in_that_is_told_as_described(start: Starting) -> None:
    server = await start()
    assert (await server.call("POST", "/api/login", json={"token": TOKEN}))[0] == 404
    assert (await server.call("POST", "/api/ticket"))[0] == 404


def refused_calls() -> list[tuple[int, str, str, Json]]:
    """Calls that are refused: status, method, path, what is sent."""
    unknown = new_id()
    json = {"Content-Type": "application/json"}
    return [
        (400, "POST", "/api/chat", {"data": b"[1", "headers": json}),
        (400, "GET", "/ws", {}),
        (403, "GET", "/api/info", {"headers": {"Origin": "https://evil.example"}}),
        (404, "GET", f"/api/streams/{{stream_id={unknown}}}", {}),
        (404, "GET", "/api/streams/{stream_id=x}", {}),
        (404, "POST", f"/api/streams/{{stream_id={unknown}}}/cancel", {}),
        (404, "DELETE", "/api/sessions/{session_id=nobody}", {}),
        (404, "GET", "/api/sessions/{session_id=nobody}/messages", {}),
        (404, "GET", "/api/sessions/{session_id=nobody}/export.md", {}),
        (404, "PATCH", "/api/sessions/{session_id=nobody}", {"json": {"title": "x"}}),
        (404, "GET", "/static/{path=nothing.js}", {}),
        (
            404,
            "POST",
            "/api/chat",
            {"json": {"prompt": "x", "session_id": "s", "replaces": unknown}},
        ),
        (413, "POST", "/api/chat", {"json": {"prompt": "x" * 3000}}),
        (415, "POST", "/api/chat", {"data": b"{}"}),
        (415, "PATCH", "/api/sessions/{session_id=s}", {"data": b"{}"}),
        (416, "POST", "/api/chat", {"json": {"prompt": "x", "stream_id": unknown, "after": 3}}),
        (421, "GET", "/livez", {"headers": {"Host": "evil.example"}}),
        (422, "POST", "/api/chat", {"json": {"prompt": ""}}),
        (422, "GET", "/api/sessions?limit=0", {}),
        (422, "GET", "/api/sessions?before=x", {}),
        (422, "PATCH", "/api/sessions/{session_id=s}", {"json": {}}),
    ]


async def test_refusals_are_as_described(start: Starting) -> None:
    server = await start()
    for status, method, path, options in refused_calls():
        answer = await server.call(method, path, **options)
        assert answer[0] == status, (method, path, answer)


async def test_what_is_gone_late_full_or_broken_is_told_as_described(
    start: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start(replay_seconds=0)
    [frame, *_] = await server.api.chat("hello", session_id="s")
    gone = await server.call("GET", f"/api/streams/{{stream_id={frame['stream_id']}}}")
    assert (gone[0], gone[1]["code"]) == (410, "gone")

    async def half() -> AsyncIterator[bytes]:
        yield b'{"prompt"'
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json"}
    hasty = await start(body_timeout=0.02)
    late = await hasty.call("POST", "/api/chat", data=half(), headers=headers)
    assert (late[0], late[1]["code"]) == (408, "timeout")
    with monkeypatch.context() as broken:
        broken.setattr(server.registry, "find", lambda stream_id: 1 / 0)
        failed = await server.call("GET", f"/api/streams/{{stream_id={frame['stream_id']}}}")
        assert (failed[0], failed[1]["code"]) == (500, "internal")
    server.registry.drain()
    for method, path, body in (
        ("GET", "/readyz", None),
        ("POST", "/api/chat", {"prompt": "hello"}),
    ):
        refused = await server.call(method, path, json=body)
        assert (refused[0], refused[1]["code"]) == (503, "shutting_down")


@pytest.mark.parametrize("kind", [TooSlow, Overloaded])
def test_what_is_refused_before_it_is_a_request_is_as_described(kind: type[Refused]) -> None:
    body = raw(kind("why")).partition(b"\r\n\r\n")[2]
    check_named(orjson.loads(body), "Refusal")


# The WebSocket


def check_line(line: Json) -> None:
    """A frame is one of the frames, a reply one of the replies; their fields are all written."""
    schemas = CLOSED["asyncapi"]["components"]["schemas"]
    if "seq" in line:
        check_named(line, "Frame", "asyncapi")
        check_frame(line)
        return
    kinds = [name for name in ("Cancelled", "RefusedMessage", "Pong") if name in schemas]
    check(line, {"oneOf": [api.ref(name) for name in kinds]}, "asyncapi")


async def test_every_message_is_answered_as_described(start: Starting) -> None:
    server = await start()
    stream_id, second = new_id(), new_id()
    said: list[Json] = [
        {"type": "watch", "session_id": "s"},
        {"type": "start", "prompt": "talks", "session_id": "s", "stream_id": stream_id},
        {"type": "resume", "stream_id": stream_id, "after": 1},
        {"type": "start", "prompt": "tool", "session_id": "t", "stream_id": second},
        {"type": "unwatch", "session_id": "s"},
    ]
    wrong: list[Json] = [
        {"type": "dance", "stream_id": "x"},
        {"type": "start", "prompt": "", "stream_id": 7},
        {"type": "resume", "stream_id": new_id()},
        {"type": "cancel", "stream_id": new_id()},
        {"type": "watch", "session_id": "no blanks"},
        {"type": "start", "prompt": "hello", "session_id": "t", "stream_id": stream_id},
        {"type": "start", "prompt": "hello", "stream_id": new_id(), "after": 9},
    ]
    last = {"type": "ping"}
    for message in (*said, last):
        check_named(message, api.COMMANDS[message["type"]][0], "asyncapi")
    async with server.api.socket() as socket:
        for message in (*said, *wrong):
            await socket.send(**message)
        await socket.until(lambda line: line.get("code") == "cursor_ahead")
        await socket.send(type="cancel", stream_id=stream_id)
        await socket.until(lambda line: line.get("status") == "cancelled" and "seq" not in line)
        await socket.ended(stream_id)
        await socket.ended(second)
        await socket.send(**last)
        await socket.until(lambda line: line.get("status") == "pong")
        for line in socket.frames:
            check_line(line)
        refused = {line["code"] for line in socket.frames if line["type"] == "error"}
        assert {"invalid", "not_found", "conflict", "cursor_ahead"} <= refused


async def test_a_failed_answer_is_as_described_over_websocket(start: Starting) -> None:
    server = await start()
    async with server.api.socket() as socket:
        for prompt in ("fails", "upstream", "hello"):
            stream_id = new_id()
            await socket.send(type="start", prompt=prompt, stream_id=stream_id)
            await socket.ended(stream_id)
        for line in socket.frames:
            check_line(line)


def test_a_field_that_is_not_described_is_noticed() -> None:
    ready = {"ready": True, "saving": True, "secret": 1}
    components = {"components": CLOSED["openapi"]["components"]}
    assert not Draft202012Validator({**api.ref("Ready"), **components}).is_valid(ready)
    check_open = {"components": api.openapi()["components"]}
    assert Draft202012Validator({**api.ref("Ready"), **check_open}).is_valid(ready)

"""Two servers that share a store and a database: every call means the same on both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from acceptance.clients import Api, lines, new_id, outcome, text_of
from fakes import FakeAgents, Tidy, says, talks
from profiles import patience

from jarvis_stream import create_app
from jarvis_stream.cluster.memory import Fate, MemoryStore
from jarvis_stream.history.base import TurnPage
from jarvis_stream.node import Transcript
from jarvis_stream.registry import StreamRegistry
from jarvis_stream.settings import Settings
from jarvis_stream.transports.context import REGISTRY

PATIENCE = patience(20.0)


class Pair:
    """Two servers, and a client of each."""

    def __init__(
        self,
        store: MemoryStore,
        agents: FakeAgents,
        tidy: Tidy,
        apis: list[Api],
        registries: list[StreamRegistry],
    ) -> None:
        self.store = store
        self.agents = agents
        self.tidy = tidy
        self.a, self.b = apis
        self.registry_of_b = registries[1]

    async def get(self, api: Api, path: str) -> Any:
        """The JSON of `GET path`."""
        async with api.http.get(api.url + path) as response:
            return await response.json()


@pytest.fixture
async def pair(aiohttp_client: Callable[..., Awaitable[Any]]) -> Pair:
    """Their agents are scripts: a prompt is the name of one."""
    store = MemoryStore()
    tidy = Tidy(0.05, "a", "b")
    agents = FakeAgents(hello=says("a", "b", "c"), talks=talks("a", "ü", "🙂"), tidy=tidy)
    apis, registries = [], []
    for name in "ab":
        app = create_app(Settings(), agent=agents, cluster=store.node(name))
        client = await aiohttp_client(app, server_kwargs={"handler_cancellation": True})
        apis.append(Api(client.session, str(client.make_url("")).rstrip("/")))
        registries.append(app[REGISTRY])
    return Pair(store, agents, tidy, apis, registries)


async def test_a_stream_is_replayed_by_the_other_server_in_the_same_bytes(pair: Pair) -> None:
    stream_id = new_id()
    async with pair.a.posting("hello", stream_id=stream_id) as response:
        live = await response.read()
    assert await pair.b.replay(stream_id) == live
    assert await pair.b.replay(stream_id, 2) == b"".join(live.splitlines(keepends=True)[2:])


async def test_a_request_that_is_repeated_at_the_other_server_attaches(pair: Pair) -> None:
    fields = {"stream_id": new_id(), "session_id": "s"}
    first = await pair.a.chat("hello", **fields)
    assert await pair.b.chat("hello", **fields) == first
    assert len(pair.agents.turns) == 1


async def test_a_stop_over_http_reaches_the_other_server(pair: Pair) -> None:
    stream_id = new_id()
    async with pair.a.posting("tidy", stream_id=stream_id) as response:
        await response.content.readline()
        status, told = await pair.b.cancel(stream_id)
        assert (status, told["cancelled"], told["clean"]) == (200, True, True)
        assert outcome(lines(await response.read())) == "cancelled"
    assert pair.tidy.complete == 1


async def test_a_stop_over_a_socket_reaches_the_other_server(pair: Pair) -> None:
    stream_id = new_id()
    async with pair.a.posting("tidy", stream_id=stream_id), pair.b.socket() as ws:
        await ws.send(type="cancel", stream_id=stream_id)
        told = await ws.until(lambda frame: frame.get("status") == "cancelled")
        assert (told["cancelled"], told["clean"]) == (True, True)
        await ws.send(type="cancel", stream_id=new_id())
        assert (await ws.until(lambda frame: frame["type"] == "error"))["code"] == "not_found"


async def test_a_socket_resumes_watches_and_supersedes_what_the_other_server_does(
    pair: Pair,
) -> None:
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(pair.a.socket())
        there = await stack.enter_async_context(pair.b.socket())
        onlooker = await stack.enter_async_context(pair.b.socket())
        await onlooker.send(type="watch", session_id="s")
        first, second = new_id(), new_id()
        await here.send(type="start", prompt="talks", session_id="s", stream_id=first)
        await here.until(lambda frame: frame.get("text") == "🙂")
        await there.send(type="resume", stream_id=first, after=2)
        await there.until(lambda frame: frame.get("text") == "🙂")
        await there.send(type="start", prompt="hello", session_id="s", stream_id=second)
        await there.ended(second)
        old = await here.ended(first)
        assert old[-1]["superseded_by"] == second
        assert await onlooker.ended(first) == old
        assert await onlooker.ended(second) == there.of(second)
        assert await there.ended(first) == old[2:]


async def test_the_other_servers_live_answer_is_in_the_messages(pair: Pair) -> None:
    stream_id = new_id()
    async with pair.a.socket() as ws:
        await ws.send(type="start", prompt="talks", session_id="s", stream_id=stream_id)
        last = await ws.until(lambda frame: frame.get("text") == "🙂")

        async with asyncio.timeout(PATIENCE):
            while True:
                messages = await pair.get(pair.b, "/api/sessions/s/messages")
                if (messages["active_stream"] or {}).get("seq") == last["seq"]:
                    break
        assert messages["messages"][1]["content"] == "aü🙂"
        assert messages["messages"][1]["status"] == "streaming"
        assert messages["active_stream"]["stream_id"] == stream_id
        (session,) = (await pair.get(pair.b, "/api/sessions"))["sessions"]
        assert session["active"]
        replay = asyncio.create_task(pair.b.replay(stream_id, last["seq"]))
        await pair.a.cancel(stream_id)
        assert [frame["type"] for frame in lines(await replay)] == ["done"]
    messages = await pair.get(pair.b, "/api/sessions/s/messages")
    assert messages["active_stream"] is None
    assert messages["messages"][1]["status"] == "cancelled"


async def test_an_answer_that_comes_while_the_messages_are_read_is_no_position_without_its_text(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.a.chat("hello", session_id="s")
    stream_id = new_id()
    registry = pair.registry_of_b
    page_of = registry.history.page
    async with pair.a.socket() as ws:

        async def a_moment_too_early(key: str, **span: Any) -> TurnPage:
            page = await page_of(key, **span)
            await ws.send(type="start", prompt="talks", session_id="s", stream_id=stream_id)
            async with asyncio.timeout(PATIENCE):
                while await registry.abroad("s") is None:
                    pass
            return page

        with monkeypatch.context() as patch:
            patch.setattr(registry.history, "page", a_moment_too_early)
            messages = await pair.get(pair.b, "/api/sessions/s/messages")
        assert [message["content"] for message in messages["messages"]] == ["hello", "abc"]
        assert messages["active_stream"] is None
        await ws.until(lambda frame: frame["type"] == "token")  # by then its question is kept
        messages = await pair.get(pair.b, "/api/sessions/s/messages")
        assert len(messages["messages"]) == 4
        assert messages["active_stream"]["stream_id"] == stream_id


async def test_an_answer_that_ends_elsewhere_while_the_messages_are_read_is_ended(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_id = new_id()
    registry = pair.registry_of_b
    abroad = registry.abroad
    async with pair.a.socket() as ws:
        await ws.send(type="start", prompt="talks", session_id="s", stream_id=stream_id)
        await ws.until(lambda frame: frame.get("text") == "🙂")

        async def before_the_end(session_id: str, owner: str = "") -> Transcript | None:
            async with asyncio.timeout(PATIENCE):
                while (found := await abroad(session_id, owner)) is None:
                    pass
            await pair.a.cancel(stream_id)
            return found

        monkeypatch.setattr(registry, "abroad", before_the_end)
        messages = await pair.get(pair.b, "/api/sessions/s/messages")
    assert messages["messages"][1]["content"] == "aü🙂"
    assert messages["messages"][1]["status"] == "cancelled"
    assert messages["active_stream"] is None


async def test_an_answer_that_begins_elsewhere_while_the_messages_are_read_has_a_position(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_id = new_id()
    registry = pair.registry_of_b
    abroad = registry.abroad
    calls = 0
    async with pair.a.socket() as ws:

        async def before_the_beginning(session_id: str, owner: str = "") -> Transcript | None:
            nonlocal calls
            calls += 1
            if calls > 1:
                async with asyncio.timeout(PATIENCE):
                    while (found := await abroad(session_id, owner)) is None:
                        pass
                return found
            await ws.send(type="start", prompt="talks", session_id="s", stream_id=stream_id)
            await ws.until(lambda frame: frame["type"] == "token")  # its question is kept
            return None

        monkeypatch.setattr(registry, "abroad", before_the_beginning)
        messages = await pair.get(pair.b, "/api/sessions/s/messages")
        assert messages["messages"][1]["status"] == "streaming"
        assert messages["active_stream"]["stream_id"] == stream_id


async def test_a_session_is_deleted_at_the_other_server(pair: Pair) -> None:
    stream_id = new_id()
    async with pair.a.posting("tidy", stream_id=stream_id, session_id="s") as response:
        await response.content.readline()
        async with pair.b.http.delete(pair.b.url + "/api/sessions/s") as deleted:
            assert deleted.status == 204
        assert outcome(lines(await response.read())) == "cancelled"
    async with pair.a.http.get(f"{pair.a.url}/api/streams/{stream_id}") as response:
        assert response.status in (404, 410)


async def test_without_the_store_nothing_starts_and_the_server_is_not_ready(pair: Pair) -> None:
    pair.store.fate = lambda node, call: Fate(lost=node == "b")
    async with pair.b.http.post(pair.b.url + "/api/chat", json={"prompt": "hello"}) as response:
        assert (response.status, (await response.json())["code"]) == (503, "unavailable")
        assert "Retry-After" in response.headers
    assert text_of(await pair.a.chat("hello")) == "abc"
    async with asyncio.timeout(PATIENCE):
        while (await pair.get(pair.b, "/readyz")).get("code") != "unavailable":
            pass
    assert (await pair.b.metrics())["jarvis_store_reachable"] == 0
    pair.store.fate = lambda node, call: Fate()
    assert text_of(await pair.b.chat("hello")) == "abc"
    assert await pair.get(pair.b, "/readyz") == {"ready": True, "saving": True}


async def test_a_node_tells_what_it_ships(pair: Pair) -> None:
    await pair.a.chat("hello", stream_id=(stream_id := new_id()))
    await pair.b.replay(stream_id)
    figures = await pair.a.until(lambda figures: figures["jarvis_store_trip_seconds_count"] > 0)
    assert figures["jarvis_mirrors"] == 0
    assert figures["jarvis_store_reachable"] == 1

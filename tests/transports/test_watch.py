"""Several tabs on one session: `watch` and `unwatch` over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from acceptance.clients import Api, Frame, Socket, check_stream, new_id, outcome, text_of
from aiohttp import web
from aiohttp.test_utils import TestClient
from fakes import FakeAgents, Tidy, says, talks

from jarvis_stream import create_app
from jarvis_stream.settings import Settings
from jarvis_stream.stream import Stream
from jarvis_stream.transports.context import REGISTRY

MAX_STREAMS = 4
MAX_QUEUE = 2


class House:
    """A whole application, and its clients."""

    def __init__(self, app: web.Application, api: Api, stack: AsyncExitStack) -> None:
        self.registry = app[REGISTRY]
        self.api = api
        self._stack = stack

    async def tab(self, session_id: str | None = None) -> Socket:
        """A new socket; with a session, one that watches it and has been shown what lives there."""
        socket = await self._stack.enter_async_context(self.api.socket())
        if session_id is not None:
            await socket.send(type="watch", session_id=session_id)
            await up_to_date(socket)
        return socket

    def stream(self, stream_id: str) -> Stream:
        """A stream as the registry has it."""
        stream = self.registry.find(stream_id)
        assert stream is not None
        return stream


@pytest.fixture
async def house(aiohttp_client: Callable[..., Awaitable[Any]]) -> AsyncIterator[House]:
    """Its agents are scripts: a prompt is the name of one."""
    settings: dict[str, Any] = {"database_url": "memory:"}
    agents = FakeAgents(hello=says("a", "b", "c"), talks=talks("a", "b"), tidy=Tidy(0.05, "a", "b"))
    app = create_app(
        Settings(max_streams_per_socket=MAX_STREAMS, max_queue=MAX_QUEUE, **settings), agent=agents
    )
    client: TestClient[Any, Any] = await aiohttp_client(
        app, server_kwargs={"handler_cancellation": True}
    )
    api = Api(client.session, str(client.make_url("")).rstrip("/"))
    async with AsyncExitStack() as stack:
        yield House(app, api, stack)


async def start(socket: Socket, prompt: str, **fields: Any) -> str:
    """Start a stream in session `s`."""
    stream_id = new_id()
    fields = {"session_id": "s", "stream_id": stream_id, **fields}
    await socket.send(type="start", prompt=prompt, **fields)
    return stream_id


async def up_to_date(socket: Socket) -> Frame:
    """Until the server has obeyed what was sent before: it refuses what makes no sense, in turn."""
    mark = new_id()
    await socket.send(type="nonsense", stream_id=mark)
    return await socket.until(lambda frame: "seq" not in frame and frame["stream_id"] == mark)


async def has(socket: Socket, stream_id: str, text: str) -> None:
    """Until the socket has this much of an answer."""
    while text_of(socket.of(stream_id)) != text:
        await socket.until(lambda frame: frame["type"] == "token")


# What a watcher is shown


async def test_a_second_tab_is_shown_the_live_answer_from_its_beginning(house: House) -> None:
    first = await house.tab()
    stream_id = await start(first, "talks")
    await has(first, stream_id, "ab")
    second = await house.tab("s")
    await has(second, stream_id, "ab")
    await second.send(type="cancel", stream_id=stream_id)
    frames = await second.ended(stream_id)
    check_stream(frames)
    assert frames == await first.ended(stream_id)


async def test_a_tab_is_shown_every_new_answer_whoever_started_it(house: House) -> None:
    watcher = await house.tab("s")
    by_http = await house.api.chat("hello", session_id="s")
    other = await house.tab()
    by_socket = await start(other, "hello")
    assert await watcher.ended(by_http[0]["stream_id"]) == by_http
    assert await watcher.ended(by_socket) == await other.ended(by_socket)
    await house.api.chat("hello", session_id="t")
    await up_to_date(watcher)
    assert {frame["session_id"] for frame in watcher.frames if "session_id" in frame} == {"s"}


async def test_a_tab_sees_which_answer_replaced_which(house: House) -> None:
    watcher, other = await house.tab("s"), await house.tab()
    first = await start(other, "talks")
    await watcher.spoke(first)
    second = await start(other, "hello")
    frames = await watcher.ended(second)
    assert watcher.of(first)[-1]["superseded_by"] == second
    check_stream(watcher.of(first))
    check_stream(frames)
    assert frames[0]["epoch"] > watcher.of(first)[0]["epoch"]


async def test_a_tab_sees_a_message_move_up_in_the_line(house: House) -> None:
    watcher, other = await house.tab("s"), await house.tab()
    head = await start(other, "talks")
    second = await start(other, "talks", on_conflict="enqueue")
    third = await start(other, "hello", on_conflict="enqueue")
    await watcher.until(lambda f: f.get("position") == 2 and f["stream_id"] == third)
    for stream_id in (head, second):
        await other.send(type="cancel", stream_id=stream_id)
    await watcher.ended(third)
    places = [f["position"] for f in watcher.of(third) if f.get("status") == "queued"]
    assert places == [2, 1]
    assert (text_of(watcher.of(third)), outcome(watcher.of(third))) == ("abc", "stop")
    assert watcher.of(third) == await other.ended(third)


async def test_a_message_for_which_the_line_has_no_room_is_refused(house: House) -> None:
    tab = await house.tab()
    await tab.spoke(await start(tab, "talks"))
    for _ in range(MAX_QUEUE):
        await start(tab, "hello", on_conflict="enqueue")
    refused = await start(tab, "hello", on_conflict="enqueue")
    answer = await tab.until(lambda frame: frame["type"] == "error")
    assert (answer["code"], answer["stream_id"]) == ("too_many", refused)
    body = {"prompt": "hello", "session_id": "s", "on_conflict": "enqueue"}
    async with house.api.http.post(house.api.url + "/api/chat", json=body) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")


async def test_a_client_that_leaves_takes_its_waiting_message_along(house: House) -> None:
    tab = await house.tab()
    await tab.spoke(await start(tab, "talks"))
    fields = {"session_id": "s", "stream_id": new_id(), "on_conflict": "enqueue"}
    async with house.api.posting("hello", **fields) as response:
        await response.content.readuntil(b'"position":1}\n')
    stream = house.stream(fields["stream_id"])
    await stream.stopped
    assert stream.revoked_for == "client_disconnected"
    behind = await start(tab, "hello", on_conflict="enqueue")
    await tab.until(lambda f: f.get("position") == 1 and f["stream_id"] == behind)


async def test_a_tab_that_starts_an_answer_itself_gets_it_once(house: House) -> None:
    watcher = await house.tab("s")
    stream_id = await start(watcher, "hello")
    await watcher.ended(stream_id)
    await up_to_date(watcher)
    check_stream(watcher.of(stream_id))


async def test_a_tab_that_lines_a_message_up_itself_gets_it_once(house: House) -> None:
    watcher = await house.tab("s")
    head = await start(watcher, "talks")
    waiting = await start(watcher, "hello", on_conflict="enqueue")
    await up_to_date(watcher)
    await watcher.send(type="cancel", stream_id=head)
    frames = await watcher.ended(waiting)
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert text_of(frames) == "abc"


async def test_a_tab_that_watches_what_it_started_gets_it_once(house: House) -> None:
    tab = await house.tab()
    stream_id = await start(tab, "talks")
    await has(tab, stream_id, "ab")
    for _ in range(2):
        await tab.send(type="watch", session_id="s")
    await tab.send(type="cancel", stream_id=stream_id)
    check_stream(await tab.ended(stream_id))


async def test_a_tab_may_start_a_watched_answer_anew_from_a_position(house: House) -> None:
    watcher, other = await house.tab("s"), await house.tab()
    stream_id = await start(other, "talks")
    await has(watcher, stream_id, "ab")
    await watcher.send(type="resume", stream_id=stream_id, after=2)
    await watcher.until(lambda frame: frame.get("seq") == 3)
    assert [frame["seq"] for frame in watcher.of(stream_id)] == [1, 2, 3, 3]


# Leaving


async def test_unwatch_lets_go_what_is_watched_and_keeps_what_the_tab_started(
    house: House,
) -> None:
    watcher, other = await house.tab("s"), await house.tab()
    await watcher.send(type="watch", session_id="t")
    theirs = await start(other, "talks")
    await has(watcher, theirs, "ab")
    own = await start(watcher, "talks", session_id="t")
    await has(watcher, own, "ab")
    for session_id in ("s", "t"):
        await watcher.send(type="unwatch", session_id=session_id)
    await up_to_date(watcher)
    assert not house.registry._watchers
    for stream_id in (theirs, own):
        await other.send(type="cancel", stream_id=stream_id)
    await other.ended(theirs)
    check_stream(await watcher.ended(own))
    assert text_of(watcher.of(theirs)) == "ab"
    later = await start(other, "hello")
    await other.ended(later)
    await up_to_date(watcher)
    assert outcome(other.of(theirs)) == "cancelled"
    assert [frame["seq"] for frame in watcher.of(theirs)] == [1, 2, 3]
    assert not watcher.of(later)


async def test_unwatch_keeps_what_the_tab_resumed(house: House) -> None:
    watcher, other = await house.tab("s"), await house.tab()
    stream_id = await start(other, "talks")
    await has(watcher, stream_id, "ab")
    await watcher.send(type="resume", stream_id=stream_id, after=3)
    await watcher.send(type="unwatch", session_id="s")
    await watcher.send(type="cancel", stream_id=stream_id)
    check_stream(await watcher.ended(stream_id))


async def test_unwatching_what_is_not_watched_changes_nothing(house: House) -> None:
    tab = await house.tab()
    stream_id = await start(tab, "talks")
    await tab.send(type="unwatch", session_id="s")
    await tab.send(type="cancel", stream_id=stream_id)
    assert outcome(await tab.ended(stream_id)) == "cancelled"


async def test_a_watcher_is_a_reader_and_the_last_one_to_leave_ends_the_answer(
    house: House,
) -> None:
    starter, watcher = await house.tab(), await house.tab("s")
    stream_id = await start(starter, "talks")
    await has(watcher, stream_id, "ab")
    stream = house.stream(stream_id)
    assert stream.followers == 2
    await starter.ws.close()
    await up_to_date(watcher)
    assert stream.is_open
    await watcher.send(type="unwatch", session_id="s")
    await stream.stopped
    assert stream.revoked_for == "client_disconnected"


async def test_a_tab_that_closes_leaves_nothing_behind(house: House) -> None:
    watcher = await house.tab("s")
    await watcher.send(type="watch", session_id="t")
    stream_id = await start(watcher, "tidy")
    await has(watcher, stream_id, "ab")
    stream = house.stream(stream_id)
    await watcher.ws.close()
    await stream.stopped
    assert stream.revoked_for == "client_disconnected"
    assert not house.registry._watchers
    assert not house.registry._sessions


async def test_a_deletion_is_seen_by_every_tab(house: House) -> None:
    watcher, other = await house.tab("s"), await house.tab()
    stream_id = await start(other, "tidy")
    await has(watcher, stream_id, "ab")
    async with house.api.http.delete(house.api.url + "/api/sessions/s") as response:
        assert response.status == 204
    assert outcome(await watcher.ended(stream_id)) == "cancelled"
    assert house.registry._watchers
    fresh = await start(other, "hello")
    assert outcome(await watcher.ended(fresh)) == "stop"


# What is refused


@pytest.mark.parametrize("kind", ["watch", "unwatch"])
@pytest.mark.parametrize("session_id", [None, 7, "", "a b", "x" * 129])
async def test_a_session_that_cannot_be_one_is_refused(
    house: House, kind: str, session_id: object
) -> None:
    tab = await house.tab()
    await tab.ws.send_str(orjson.dumps({"type": kind, "session_id": session_id}).decode())
    answer = await tab.until(lambda frame: frame["type"] == "error")
    assert (answer["code"], answer["stream_id"]) == ("invalid", None)
    assert answer["error"].startswith("session_id: ")


async def test_only_so_many_sessions_can_be_watched_at_a_time(house: House) -> None:
    tab = await house.tab()
    for number in range(MAX_STREAMS):
        await tab.send(type="watch", session_id=f"s{number}")
    await tab.send(type="watch", session_id="s0")  # again
    await tab.send(type="watch", session_id="one-more")
    answer = await tab.until(lambda frame: frame["type"] == "error")
    assert answer["code"] == "too_many"
    await tab.send(type="unwatch", session_id="s0")
    await tab.send(type="watch", session_id="one-more")
    await up_to_date(tab)
    assert set(house.registry._watchers) == {"s1", "s2", "s3", "one-more"}


async def test_watched_streams_have_a_limit_of_their_own_and_do_not_hinder_own_starts(
    house: House,
) -> None:
    watcher, other = await house.tab(), await house.tab()
    sessions = [f"s{number}" for number in range(MAX_STREAMS)]
    for session_id in sessions:
        await watcher.send(type="watch", session_id=session_id)
    await up_to_date(watcher)
    for session_id in sessions:
        stream_id = await start(other, "talks", session_id=session_id)
        await watcher.spoke(stream_id)
    # One more of a session that is watched: it is not followed, and the socket is told so.
    async with house.api.posting(
        "hello", session_id="s0", on_conflict="enqueue", stream_id=(more := new_id())
    ):
        answer = await watcher.until(lambda frame: frame["type"] == "error")
        assert (answer["code"], answer["stream_id"]) == ("too_many", more)
        mine = await start(watcher, "hello", session_id="mine")
        await watcher.ended(mine)
    assert not watcher.of(more)

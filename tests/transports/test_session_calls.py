"""The calls that read, export and delete sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from acceptance.clients import Api, Frame, lines, new_id, outcome, text_of
from aiohttp.test_utils import TestClient
from fakes import FakeAgents, Tidy, fails, says, talks

from jarvis_stream import create_app
from jarvis_stream.errors import Unavailable
from jarvis_stream.history.base import TurnPage, TurnRecord
from jarvis_stream.registry import StreamRegistry
from jarvis_stream.settings import Settings
from jarvis_stream.transports.context import REGISTRY


class House:
    """A whole application over its default database, and a client."""

    def __init__(self, registry: StreamRegistry, api: Api) -> None:
        self.registry = registry
        self.api = api

    async def get(self, path: str) -> tuple[int, Any]:
        """The status and the JSON of `GET path`."""
        async with self.api.http.get(self.api.url + path) as response:
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, await response.json()

    async def rename(self, session_id: str, body: object, **more: Any) -> tuple[int, Any]:
        """The status and the JSON of the answer to a renaming."""
        url = f"{self.api.url}/api/sessions/{session_id}"
        async with self.api.http.patch(url, json=body, **more) as response:
            return response.status, await response.json()

    async def delete(self, session_id: str) -> int:
        """The status of the answer to a deletion."""
        path = f"/api/sessions/{session_id}"
        async with self.api.http.delete(self.api.url + path) as response:
            return response.status

    async def messages(self, session_id: str) -> dict[str, Any]:
        """What is known of a session."""
        status, body = await self.get(f"/api/sessions/{session_id}/messages")
        assert status == 200
        found: dict[str, Any] = body
        return found


@pytest.fixture
async def house(aiohttp_client: Callable[..., Awaitable[Any]]) -> House:
    """Its agents are scripts: a prompt is the name of one."""
    agents = FakeAgents(
        hello=says("a", "b", "c"),
        talks=talks("a", "ü", "🙂"),
        tidy=Tidy(0.05, "a", "b"),
        fails=fails(ValueError("hunter2"), "a"),
    )
    for name in ("# A title\nof *two* lines", "x" * 200):
        agents.scripts[name] = says("*yes*\n")
    app = create_app(Settings(), agent=agents)
    client: TestClient[Any, Any] = await aiohttp_client(
        app, server_kwargs={"handler_cancellation": True}
    )
    return House(app[REGISTRY], Api(client.session, str(client.make_url("")).rstrip("/")))


# The list


async def test_without_sessions_the_list_is_empty(house: House) -> None:
    assert await house.get("/api/sessions") == (200, {"sessions": [], "next": None})


async def test_a_session_is_listed_with_its_first_question_as_title(house: House) -> None:
    await house.api.chat("# A title\nof *two* lines", session_id="s")
    await house.api.chat("hello", session_id="s")
    _, body = await house.get("/api/sessions")
    [session] = body["sessions"]
    assert session["session_id"] == "s"
    assert session["title"] == "# A title of *two* lines"
    assert session["message_count"] == 4
    created, updated = (datetime.fromisoformat(session[at]) for at in ("created_at", "updated_at"))
    assert created.tzinfo is not None
    assert created < updated


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 200])
async def test_the_pages_are_the_whole_list_newest_first(house: House, limit: int) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        await house.api.chat("hello", session_id=name)
    await house.api.chat("hello", session_id="b")  # now the newest
    found: list[str] = []
    before = ""
    while True:
        _, body = await house.get(f"/api/sessions?limit={limit}{before}")
        assert len(body["sessions"]) <= limit
        found += [session["session_id"] for session in body["sessions"]]
        if body["next"] is None:
            break
        before = f"&before={body['next']}"
    assert found == ["b", "e", "d", "c", "a"]


@pytest.mark.parametrize("limit", ["0", "-1", "201", "1.5", "x", "", "٣", "9" * 30])
async def test_a_limit_that_is_none_is_refused(house: House, limit: str) -> None:
    status, body = await house.get(f"/api/sessions?limit={limit}")
    assert (status, body["code"]) == (422, "invalid")
    assert body["error"].startswith("limit: ")


@pytest.mark.parametrize("cursor", ["x", "", "e30", "WzEsMl0", "%00", "ü", "A" * 5000])
async def test_a_cursor_that_is_none_is_refused(house: House, cursor: str) -> None:
    status, body = await house.get(f"/api/sessions?before={cursor}")
    assert (status, body["code"]) == (422, "invalid")


async def test_a_session_that_is_being_answered_is_told_from_the_others(house: House) -> None:
    await house.api.chat("hello", session_id="t")
    async with house.api.posting("talks", session_id="s", stream_id=(live := new_id())) as answer:
        await answer.content.readuntil('🙂"}\n'.encode())
        _, body = await house.get("/api/sessions")
        active = {one["session_id"]: one["active"] for one in body["sessions"]}
        assert active == {"s": True, "t": False}
        await house.api.cancel(live)
    _, body = await house.get("/api/sessions")
    assert not any(one["active"] for one in body["sessions"])


async def test_sessions_are_searched(house: House) -> None:
    await house.api.chat("hello", session_id="a")  # abc
    await house.api.chat("# A title\nof *two* lines", session_id="b")  # yes
    await house.rename("a", {"title": "Second"})

    async def found(query: str) -> list[str]:
        status, body = await house.get(f"/api/sessions?q={query}")
        assert status == 200
        return [one["session_id"] for one in body["sessions"]]

    assert await found("HELLO") == ["a"]
    assert await found("ABC") == ["a"]
    assert await found("second") == ["a"]
    assert await found("%20yes%20") == ["b"]
    assert await found("e") == ["b", "a"]
    assert await found("") == await found("%20") == ["b", "a"]
    assert await found("nothing") == []
    _, first = await house.get("/api/sessions?q=e&limit=1")
    _, second = await house.get(f"/api/sessions?q=e&limit=1&before={first['next']}")
    assert [one["session_id"] for one in second["sessions"]] == ["a"]
    assert second["next"] is None


async def test_a_query_that_is_too_long_is_refused(house: House) -> None:
    assert (await house.get(f"/api/sessions?q={'x' * 200}"))[0] == 200
    status, body = await house.get(f"/api/sessions?q={'x' * 201}")
    assert (status, body["code"]) == (422, "invalid")
    assert body["error"].startswith("q: ")


# Titles


async def test_a_session_is_given_a_title(house: House) -> None:
    await house.api.chat("hello", session_id="s")
    status, renamed = await house.rename("s", {"title": "  A\n title\t of\u2028 mine 👩‍🚀 "})
    assert (status, renamed["title"]) == (200, "A title of mine 👩‍🚀")
    await house.api.chat("hello", session_id="s")
    _, body = await house.get("/api/sessions")
    [listed] = body["sessions"]
    assert listed.keys() == renamed.keys()
    assert (listed["title"], listed["message_count"]) == (renamed["title"], 4)
    async with house.api.http.get(house.api.url + "/api/sessions/s/export.md") as response:
        assert (await response.text()).startswith("# A title of mine 👩‍🚀\n")


async def test_a_session_whose_first_answer_lives_is_given_a_title(house: House) -> None:
    async with house.api.posting("talks", session_id="s", stream_id=(live := new_id())) as answer:
        await answer.content.readuntil('🙂"}\n'.encode())
        status, renamed = await house.rename("s", {"title": "x" * 200})
        assert (status, renamed["title"], renamed["active"]) == (200, "x" * 200, True)
        await house.api.cancel(live)


@pytest.mark.parametrize(
    "title", [None, "", " \n", 5, ["x"], {}, "x" * 201, "a\x00b", "\x1b[31m", "a\x7f", "\x9b"]
)
async def test_what_is_no_title_is_refused(house: House, title: object) -> None:
    await house.api.chat("hello", session_id="s")
    status, body = await house.rename("s", {"title": title})
    assert (status, body["code"]) == (422, "invalid")
    assert body["error"].startswith("title: ")
    assert body["error"].isprintable()
    _, body = await house.get("/api/sessions")
    assert body["sessions"][0]["title"] == "hello"


async def test_a_title_comes_as_json_and_not_from_foreign_pages(house: House) -> None:
    await house.api.chat("hello", session_id="s")
    url = f"{house.api.url}/api/sessions/s"
    async with house.api.http.patch(url, data="title=x") as response:
        assert response.status == 415
    async with house.api.http.patch(
        url, data="[]", headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 400
    status, _ = await house.rename("s", {"title": "x"}, headers={"Origin": "https://evil.example"})
    assert status == 403
    _, body = await house.get("/api/sessions")
    assert body["sessions"][0]["title"] == "hello"


@pytest.mark.parametrize("session_id", ["unknown", "a%20b", "x" * 129, "%0d%0a"])
async def test_an_unknown_session_cannot_be_named(house: House, session_id: str) -> None:
    status, body = await house.rename(session_id, {"title": "x"})
    assert (status, body["code"]) == (404, "not_found")
    _, deleted = await house.get(f"/api/sessions/{session_id}/messages")
    assert body == deleted


# The messages


async def test_the_messages_tell_how_each_answer_ended(house: House) -> None:
    done = await house.api.chat("hello", session_id="s")
    failed = await house.api.chat("fails", session_id="s")
    async with house.api.posting("talks", session_id="s", stream_id=(stopped := new_id())) as live:
        await live.content.readuntil(b'"a"}\n')
        await house.api.cancel(stopped)
    body = await house.messages("s")
    assert body["active_stream"] is None
    told = [(m["role"], m["content"], m["status"], m["stream_id"]) for m in body["messages"]]
    assert told == [
        ("user", "hello", "complete", done[0]["stream_id"]),
        ("assistant", "abc", "complete", done[0]["stream_id"]),
        ("user", "fails", "complete", failed[0]["stream_id"]),
        ("assistant", "a", "error", failed[0]["stream_id"]),
        ("user", "talks", "complete", stopped),
        ("assistant", "aü🙂", "cancelled", stopped),
    ]
    assert body["messages"][1]["finish_reason"] == "stop"
    assert body["messages"][3]["error_code"] == "agent_error"
    assert body["messages"][3]["error"] == {
        name: failed[-1][name] for name in ("code", "error", "retryable")
    }
    assert "error" not in body["messages"][1]
    for answer, frames in ((body["messages"][1], done), (body["messages"][3], failed)):
        assert answer["trace_id"] == frames[0]["trace_id"]
        created, ended = (datetime.fromisoformat(answer[at]) for at in ("created_at", "ended_at"))
        assert created <= ended
    assert "hunter2" not in str(body)
    assert len({message["id"] for message in body["messages"]}) == 6


async def test_what_is_told_of_the_live_answer_and_what_follows_its_position_is_the_whole(
    house: House,
) -> None:
    stream_id = new_id()
    async with house.api.posting("talks", session_id="s", stream_id=stream_id) as live:
        for text in ("a", "ü", "🙂"):
            await live.content.readuntil(f'"text":"{text}"}}\n'.encode())
        body = await house.messages("s")
        active = body["active_stream"]
        answer = body["messages"][-1]
        assert (answer["content"], answer["status"]) == ("aü🙂", "streaming")
        assert "ended_at" not in answer
        assert (active["stream_id"], active["seq"]) == (stream_id, 4)
        await house.api.cancel(stream_id)
        rest = lines(await house.api.replay(stream_id, after=active["seq"]))
    whole = lines(await house.api.replay(stream_id))
    assert active["epoch"] == whole[0]["epoch"]
    assert [frame["seq"] for frame in rest] == [5]
    assert answer["content"] + text_of(rest) == text_of(whole)


async def test_an_answer_that_ends_while_the_history_is_read_is_told_as_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_id = new_id()
    read = house.registry.history.page

    async def slowly(session_id: str, **which: Any) -> TurnPage:
        page = await read(session_id, **which)
        await house.api.cancel(stream_id)
        return page

    async with house.api.posting("talks", session_id="s", stream_id=stream_id) as live:
        await live.content.readuntil('🙂"}\n'.encode())
        monkeypatch.setattr(house.registry.history, "page", slowly)
        body = await house.messages("s")
    answer = body["messages"][-1]
    assert (answer["content"], answer["status"]) == ("aü🙂", "cancelled")
    assert answer["finish_reason"] == "cancelled"


async def test_a_message_that_waits_its_turn_stands_behind_the_live_answer(house: House) -> None:
    head, waiting = new_id(), new_id()
    async with house.api.posting("talks", session_id="s", stream_id=head) as live:
        await live.content.readuntil('🙂"}\n'.encode())
        async with house.api.posting(
            "hello", session_id="s", stream_id=waiting, on_conflict="enqueue"
        ) as line:
            await line.content.readuntil(b'"position":1}\n')
            body = await house.messages("s")
            assert body["active_stream"]["stream_id"] == head
            assert [m["stream_id"] for m in body["messages"]] == [head, head, waiting, waiting]
            assert body["messages"][-1]["status"] == "streaming"
            await house.api.cancel(head)
            await line.read()
    told = [(m["content"], m["status"]) for m in (await house.messages("s"))["messages"]]
    assert told[1:] == [("aü🙂", "cancelled"), ("hello", "complete"), ("abc", "complete")]


async def test_a_turn_that_was_rolled_back_is_not_told(house: House) -> None:
    stream_id = new_id()
    async with house.api.posting("talks", session_id="s", stream_id=stream_id) as live:
        await live.content.readuntil('🙂"}\n'.encode())
        again = await house.api.chat("hello", session_id="s", on_conflict="rollback")
        frames = lines(await live.read())
    assert outcome(frames) == "superseded"
    assert "saved" not in frames[-1], "it was not to be kept"
    body = await house.messages("s")
    assert {message["stream_id"] for message in body["messages"]} == {again[0]["stream_id"]}


async def test_an_answer_whose_server_died_tells_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    endings: list[dict[str, Any]] = [
        {"status": "interrupted"},
        {"status": "interrupted", "finish_reason": "shutdown"},
        {"status": "error", "error_code": "too_long"},  # kept by an older version
    ]

    async def left(session_id: str, **_: object) -> TurnPage:
        turns = [
            TurnRecord(
                session_id=session_id,
                stream_id=new_id(),
                epoch=1,
                prompt="q",
                created_at=1.0,
                **how,
            )
            for how in endings
        ]
        return TurnPage(turns, None)

    monkeypatch.setattr(house.registry.history, "page", left)
    died, shut_down, old = (await house.messages("s"))["messages"][1::2]
    assert died["error"] == {
        "code": "interrupted",
        "error": "The server stopped before the answer was complete.",
        "retryable": True,
    }
    assert "error" not in shut_down
    assert old["error"] == {
        "code": "too_long",
        "error": "The answer exceeded the size limit of this server.",
        "retryable": False,
    }


# Deleting


async def test_a_deleted_session_is_gone(house: House) -> None:
    await house.api.chat("hello", session_id="s")
    await house.api.chat("hello", session_id="t")
    assert await house.delete("s") == 204
    assert (await house.get("/api/sessions/s/messages"))[0] == 404
    _, body = await house.get("/api/sessions")
    assert [session["session_id"] for session in body["sessions"]] == ["t"]
    assert await house.delete("s") == 404


async def test_deleting_stops_the_live_answer_and_what_waits_first(house: House) -> None:
    async with (
        house.api.posting("tidy", session_id="s", stream_id=(head := new_id())) as live,
        house.api.posting("hello", session_id="s", on_conflict="enqueue") as line,
    ):
        await live.content.readuntil(b'"b"}\n')
        await line.content.readuntil(b'"position":1}\n')
        assert await house.delete("s") == 204
        assert house.registry.find(head) is None, "nobody can replay what was deleted"
        assert len(house.registry) == 0
        ended: list[list[Frame]] = [lines(await response.read()) for response in (live, line)]
    assert [outcome(frames) for frames in ended] == ["cancelled", "cancelled"]
    assert not any("saved" in frames[-1] for frames in ended), "they were not to be kept"
    assert (await house.get("/api/sessions/s/messages"))[0] == 404
    await house.api.chat("hello", session_id="s")
    assert len((await house.messages("s"))["messages"]) == 2


# Taking along


async def test_a_session_as_json(house: House) -> None:
    await house.api.chat("hello", session_id="s.1:x")
    async with house.api.http.get(house.api.url + "/api/sessions/s.1:x/export.json") as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        disposition = response.headers["Content-Disposition"]
        assert disposition == "attachment; filename=\"hello.json\"; filename*=UTF-8''hello.json"
        body = await response.json()
    told = await house.messages("s.1:x")
    assert body == {"session_id": "s.1:x", "messages": told["messages"]}


@pytest.mark.parametrize(
    ("title", "plain", "encoded"),
    [
        ("../..\\etc: a|b?", "etc a b", "etc%20a%20b"),
        ("Über Öl", "ber l", "%C3%9Cber%20%C3%96l"),
        ("日本語", "s", "%E6%97%A5%E6%9C%AC%E8%AA%9E"),
        ('a";\u202e x', "a ; x", "a%20%3B%20x"),
        ("...", "s", "s"),
        ("x" * 200, "x" * 60, "x" * 60),
    ],
)
async def test_a_download_is_named_after_the_title(
    house: House, title: str, plain: str, encoded: str
) -> None:
    await house.api.chat("hello", session_id="s")
    url = house.api.url + "/api/sessions/s"
    async with house.api.http.patch(url, json={"title": title}) as renamed:
        assert renamed.status == 200
    for ending in ("json", "md"):
        async with house.api.http.get(f"{url}/export.{ending}") as response:
            assert response.headers["Content-Disposition"] == (
                f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{encoded}.{ending}"
            )


async def test_a_session_as_markdown(house: House) -> None:
    await house.api.chat("# A title\nof *two* lines", session_id="s")
    await house.api.chat("fails", session_id="s")
    async with house.api.http.get(house.api.url + "/api/sessions/s/export.md") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/markdown; charset=utf-8"
        disposition = response.headers["Content-Disposition"]
        assert disposition.startswith('attachment; filename="# A title of two lines.md"; ')
        text = await response.text()
    assert text == (
        "# \\# A title of \\*two\\* lines\n\n"
        "## User\n\n> # A title\n> of *two* lines\n\n"
        "## Assistant\n\n> *yes*\n>\n\n"
        "## User\n\n> fails\n\n"
        "## Assistant\n\n> a\n\n*(error)*\n"
    )


async def test_a_long_title_is_shortened(house: House) -> None:
    await house.api.chat("x" * 200, session_id="s")
    async with house.api.http.get(house.api.url + "/api/sessions/s/export.md") as response:
        first = (await response.text()).partition("\n")[0]
    _, body = await house.get("/api/sessions")
    assert first == "# " + body["sessions"][0]["title"]
    assert first.endswith("x…")
    assert len(first) < 100


# What is refused


@pytest.mark.parametrize("call", ["/messages", "/export.json", "/export.md", ""])
@pytest.mark.parametrize("session_id", ["unknown", "a%20b", "x" * 129, "%0d%0a"])
async def test_an_unknown_session_is_not_found(house: House, session_id: str, call: str) -> None:
    method = "GET" if call else "DELETE"
    url = f"{house.api.url}/api/sessions/{session_id}{call}"
    async with house.api.http.request(method, url) as response:
        body = await response.json()
    assert (response.status, body["code"]) == (404, "not_found")
    assert body["error"].isprintable()


@pytest.mark.parametrize("call", ["", "/s/messages", "/s/export.json", "/s/export.md"])
async def test_a_history_that_cannot_be_read_is_unavailable(
    house: House, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise Unavailable("the database cannot be read now; retry later", retry_after=1)

    for name in ("page", "session", "sessions"):
        monkeypatch.setattr(house.registry.history, name, fail)
    status, body = await house.get(f"/api/sessions{call}")
    assert (status, body["code"]) == (503, "unavailable")

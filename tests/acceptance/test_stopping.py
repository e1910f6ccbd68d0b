"""A stop hits the stream it names, whenever it comes, and never another."""

from __future__ import annotations

import asyncio

import pytest
from processes import Server

from .clients import Api, check_stream, lines, new_id, outcome, talking_to, text_of


async def stop(api: Api, transport: str, stream_id: str) -> dict[str, object]:
    """Cancel over HTTP, or from a WebSocket of its own; the answer, refused or not."""
    if transport == "http":
        return (await api.cancel(stream_id))[1]
    async with api.socket() as ws:
        await ws.send(type="cancel", stream_id=stream_id)
        return await ws.until(lambda frame: "seq" not in frame)


transports = pytest.mark.parametrize("transport", ["http", "websocket"])


@transports
async def test_a_stop_that_comes_before_its_request_is_kept_for_it(
    api: Api, transport: str
) -> None:
    stream_id, session = new_id(), new_id()
    answer = await stop(api, transport, stream_id)
    assert answer["code"] == "not_found"
    async with api.posting("tidy 0", session_id=session) as older:
        frames = await api.chat("say no", session_id=session, stream_id=stream_id)
        check_stream(frames)
        assert outcome(frames) == "cancelled"
        assert len(frames) == 2
        # As if the stop had come right after its start: the older stream was superseded by it.
        assert outcome(lines(await older.read())) == "superseded"
    assert await api.evidence(stream_id) == {}


@transports
async def test_a_waiting_stream_can_be_stopped(patient_server: Server, transport: str) -> None:
    session, stream_id = new_id(), new_id()
    async with (
        talking_to(patient_server.url) as api,
        api.posting(f"linger {session}", session_id=session) as old,
    ):
        await old.content.readuntil(b"here")  # else there is nothing to tidy up, nor to wait for
        async with api.posting("say no", session_id=session, stream_id=stream_id) as pending:
            answer = await stop(api, transport, stream_id)
            assert (answer["cancelled"], answer["clean"]) == (True, True)
            frames = lines(await pending.read())
        check_stream(frames)
        assert outcome(frames) == "cancelled"
        await api.chat(f"open {session}")
        assert outcome(lines((await old.read()).partition(b"\n")[2])) == "superseded"
        assert await api.evidence(stream_id) == {}


@transports
async def test_a_speaking_stream_has_stopped_when_the_stop_is_answered(
    api: Api, transport: str
) -> None:
    stream_id = new_id()
    async with api.posting("tidy 0.2", stream_id=stream_id) as response:
        await response.content.readuntil(b"here")
        answer = await stop(api, transport, stream_id)
        noted = await api.evidence(stream_id)
        assert "cleanup_done" in noted
        assert answer["stream_id"] == stream_id
        assert (answer["cancelled"], answer["clean"]) == (True, True)
        assert isinstance(answer["cleanup_ms"], int)
        assert 190 <= answer["cleanup_ms"] < 2000
        frames = lines(b"{" + (await response.read()).partition(b"\n{")[2])
        assert [outcome(frames), len(frames)] == ["cancelled", 1]


@transports
async def test_a_stop_gives_up_on_an_agent_that_does_not_stop(api: Api, transport: str) -> None:
    stream_id = new_id()
    async with api.posting("stubborn 10", stream_id=stream_id) as response:
        await response.content.readuntil(b"here")
        answer = await stop(api, transport, stream_id)
        assert (answer["cancelled"], answer["clean"]) == (True, False)
        assert outcome(lines(b"{" + (await response.read()).partition(b"\n{")[2])) == "cancelled"


@transports
async def test_a_stop_after_the_end_does_nothing(api: Api, transport: str) -> None:
    stream_id, session = new_id(), new_id()
    frames = await api.chat("say hello", stream_id=stream_id, session_id=session)
    async with api.posting("tidy 0", session_id=session) as newer:
        for _ in range(2):
            answer = await stop(api, transport, stream_id)
            assert (answer["cancelled"], answer["clean"]) == (False, True)
        assert lines(await api.replay(stream_id)) == frames
        await newer.content.readuntil(b"here")
        newer_id = newer.headers["X-Stream-Id"]
        assert "cleanup_began" not in await api.evidence(newer_id)
        await api.cancel(newer_id)


@transports
async def test_a_stop_is_idempotent(api: Api, transport: str) -> None:
    async with api.posting("tidy 0.1") as response:
        stream_id = response.headers["X-Stream-Id"]
        await response.content.readuntil(b"here")
        answers = await asyncio.gather(*(stop(api, transport, stream_id) for _ in range(20)))
        assert {(a["cancelled"], a["clean"]) for a in answers} == {(True, True)}


async def test_stopping_a_superseded_stream_leaves_its_successor_alone(api: Api) -> None:
    session, old_id, new_id_ = new_id(), new_id(), new_id()
    async with api.socket() as ws:
        await ws.send(type="start", prompt="tidy 0.3", session_id=session, stream_id=old_id)
        await ws.spoke(old_id)
        await ws.send(type="start", prompt="tick 5 0.01", session_id=session, stream_id=new_id_)
        await ws.send(type="cancel", stream_id=old_id)
        old, new = await ws.ended(old_id), await ws.ended(new_id_)
    assert (outcome(old), outcome(new)) == ("superseded", "stop")
    assert text_of(new) == "0 1 2 3 4 "


async def test_a_stop_in_the_message_right_after_the_start_is_obeyed(api: Api) -> None:
    async with api.socket() as ws:
        for _ in range(50):
            stream_id = new_id()
            await ws.send(type="start", prompt="silent", stream_id=stream_id)
            await ws.send(type="cancel", stream_id=stream_id)
            frames = await ws.ended(stream_id)
            check_stream(frames)
            assert outcome(frames) == "cancelled"


async def test_an_unknown_stream_cannot_be_stopped(api: Api) -> None:
    status, body = await api.cancel(new_id())
    assert (status, body["code"]) == (404, "not_found")
    status, body = await api.cancel("not-a-stream-id")
    assert (status, body["code"]) == (404, "not_found")

"""A stream is read again from any position, on either transport, into the very same bytes."""

from __future__ import annotations

import orjson
import pytest

from .clients import Api, check_stream, lines, new_id, outcome, text_of


async def test_a_replay_is_equal_to_what_was_live_byte_for_byte(api: Api) -> None:
    stream_id = new_id()
    async with api.socket() as ws, api.posting("tick 20 0.005", stream_id=stream_id) as live:
        await ws.send(type="resume", stream_id=stream_id, after=0)
        over_http = await live.read()
        await ws.ended(stream_id)
        over_ws = b"".join(orjson.dumps(frame) + b"\n" for frame in ws.of(stream_id))
    assert over_http == over_ws
    check_stream(lines(over_http))
    every_line = over_http.splitlines(keepends=True)
    for after in range(len(every_line) + 1):
        assert await api.replay(stream_id, after) == b"".join(every_line[after:])


async def test_the_bytes_are_the_same_whatever_the_text(api: Api) -> None:
    prompt = 'echo \r\n\u2028\u2029\x00\x1f"\\/</script>🙂é\ufeff{}{0}<red>'
    async with api.posting(prompt) as response:
        live = await response.read()
        stream_id = response.headers["X-Stream-Id"]
    assert await api.replay(stream_id) == live
    assert text_of(lines(live)) == prompt
    async with api.socket() as ws:
        await ws.send(type="resume", stream_id=stream_id, after=0)
        await ws.ended(stream_id)
        assert b"".join(orjson.dumps(f) + b"\n" for f in ws.frames) == live


async def test_a_live_stream_goes_on_from_the_cursor(api: Api) -> None:
    async with api.posting("tick 30 0.01") as live:
        stream_id = live.headers["X-Stream-Id"]
        await live.content.readuntil(b'"5 "}')
        frames = lines(await api.replay(stream_id, 3))
        assert [f["seq"] for f in frames] == list(range(4, 33))
        assert outcome(frames) == "stop"


async def test_last_event_id_is_a_cursor_too_and_after_counts_before_it(api: Api) -> None:
    frames = await api.chat("say a b c", stream_id=(stream_id := new_id()))
    url = f"{api.url}/api/streams/{stream_id}"
    async with api.http.get(url, headers={"Last-Event-ID": "2"}) as response:
        assert lines(await response.read()) == frames[2:]
    async with api.http.get(url + "?after=4", headers={"Last-Event-ID": "2"}) as response:
        assert lines(await response.read()) == frames[4:]


async def test_the_same_request_again_attaches_to_its_stream(api: Api) -> None:
    stream_id, session = new_id(), new_id()
    fields = {"stream_id": stream_id, "session_id": session}
    async with api.posting("tick 20 0.01", **fields) as first:
        await first.content.readuntil(b'"3 "}')
        again = await api.chat("tick 20 0.01", **fields)
        assert lines(b"{" + (await first.read()).partition(b"\n{")[2])[-1] == again[-1]
    check_stream(again)
    assert outcome(again) == "stop"
    # After its end too, and from a position.
    assert await api.chat("tick 20 0.01", **fields, after=5) == again[5:]
    async with api.http.get(f"{api.url}/api/sessions/{session}/messages") as response:
        assert len((await response.json())["messages"]) == 2


async def test_the_same_start_again_attaches_over_websocket(api: Api) -> None:
    stream_id, session = new_id(), new_id()
    message = {"type": "start", "prompt": "tick 20 0.01", "session_id": session}
    async with api.socket() as first, api.socket() as second:
        await first.send(**message, stream_id=stream_id)
        await first.spoke(stream_id)
        await second.send(**message, stream_id=stream_id, after=1)
        frames = await first.ended(stream_id)
        check_stream(frames)
        assert await second.ended(stream_id) == frames[1:]
        await second.send(**message, stream_id=stream_id, after=len(frames) - 1)
        await second.until(lambda frame: frame["seq"] == len(frames))


async def test_attaching_twice_on_one_socket_starts_anew_and_loses_nothing(api: Api) -> None:
    stream_id = new_id()
    async with api.socket() as ws:
        await ws.send(type="start", prompt="tick 20 0.01", stream_id=stream_id)
        await ws.spoke(stream_id)
        before = len(ws.of(stream_id))
        await ws.send(type="resume", stream_id=stream_id, after=0)
        await ws.ended(stream_id)
        seqs = [frame["seq"] for frame in ws.of(stream_id)]
        again = len(seqs) - 1 - seqs[::-1].index(1)
        assert again >= before
        assert seqs[again:] == list(range(1, 23))


async def test_a_stream_of_another_session_is_a_conflict(api: Api) -> None:
    stream_id = new_id()
    await api.chat("say a", stream_id=stream_id, session_id="mine")
    body = {"prompt": "say a", "stream_id": stream_id, "session_id": "yours"}
    async with api.http.post(api.url + "/api/chat", json=body) as response:
        assert (response.status, (await response.json())["code"]) == (409, "conflict")
    async with api.socket() as ws:
        await ws.send(type="start", **body)
        refused = await ws.until(lambda frame: "seq" not in frame)
    assert (refused["type"], refused["code"]) == ("error", "conflict")
    assert refused["stream_id"] == stream_id


@pytest.mark.parametrize("how", ["get", "post", "post new", "resume", "start"])
async def test_a_cursor_from_the_future_is_refused(api: Api, how: str) -> None:
    stream_id = new_id()
    frames = await api.chat("say a b", stream_id=stream_id)
    after = len(frames) + 1
    if how in ("resume", "start"):
        async with api.socket() as ws:
            await ws.send(type=how, prompt="say a b", stream_id=stream_id, after=after)
            assert (await ws.until(lambda f: "seq" not in f))["code"] == "cursor_ahead"
        return
    if how == "get":
        asking = api.http.get(f"{api.url}/api/streams/{stream_id}?after={after}")
    else:
        body = {"prompt": "say", "after": after}
        body["stream_id"] = stream_id if how == "post" else new_id()
        asking = api.http.post(api.url + "/api/chat", json=body)
    async with asking as response:
        assert (response.status, (await response.json())["code"]) == (416, "cursor_ahead")


async def test_an_unknown_stream_is_not_found(api: Api) -> None:
    async with api.http.get(f"{api.url}/api/streams/{new_id()}") as response:
        assert (response.status, (await response.json())["code"]) == (404, "not_found")
    async with api.socket() as ws:
        stream_id = new_id()
        await ws.send(type="resume", stream_id=stream_id, after=0)
        refused = await ws.until(lambda frame: True)
    assert (refused["code"], refused["stream_id"]) == ("not_found", stream_id)


async def test_when_the_terminal_frame_is_here_the_history_has_the_answer(api: Api) -> None:
    for verb, status in (("say a b", "complete"), ("fail", "error")):
        session = new_id()
        await api.chat(verb, session_id=session)
        async with api.http.get(f"{api.url}/api/sessions/{session}/messages") as response:
            body = await response.json()
        question, answer = body["messages"]
        assert (question["role"], question["content"]) == ("user", verb)
        assert (answer["role"], answer["status"]) == ("assistant", status)
        assert body["active_stream"] is None


async def test_the_history_tells_where_the_live_stream_stands(api: Api) -> None:
    session = new_id()
    async with api.posting("tidy 0", session_id=session) as live:
        await live.content.readuntil(b"here")
        async with api.http.get(f"{api.url}/api/sessions/{session}/messages") as response:
            active = (await response.json())["active_stream"]
        assert (active["stream_id"], active["seq"]) == (live.headers["X-Stream-Id"], 2)
        await api.cancel(active["stream_id"])

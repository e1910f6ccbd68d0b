"""What goes over the wire, byte by byte: headers, chunks, heartbeats, messages, closes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType
from processes import Server
from profiles import EVENT_LOOPS

from .clients import (
    PATIENCE,
    Api,
    Wire,
    check_stream,
    lines,
    masked,
    new_id,
    outcome,
    request,
    text_of,
    wire,
)
from .conftest import assert_quiet, start
from .test_one_stream_per_session import is_idle

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with a quick heart, small limits, and a friend."""
    flags = ("--heartbeat", "2", "--max-body-bytes", "4096", "--max-prompt-chars", "1000")
    friend = ("--allowed-origins", "https://friend.example")
    with start(*flags, *friend, loop=request.param) as server:
        yield server
        assert_quiet(server.log)


async def message(connection: Wire) -> tuple[int, bytes]:
    """The server's next WebSocket frame: opcode and payload."""
    async with asyncio.timeout(PATIENCE):
        first, size = await connection.reader.readexactly(2)
        assert first & 0x80, "fragmented"
        assert not first & 0x70, "reserved bits"
        assert size < 128, "masked"
        if size == 126:
            (size,) = struct.unpack("!H", await connection.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await connection.reader.readexactly(8))
        return first & 0x0F, await connection.reader.readexactly(size)


async def spoken(connection: Wire) -> tuple[int, bytes]:
    """The next one that is no ping: those come when the machine is slow."""
    while (got := await message(connection))[0] == 9:
        pass
    return got


async def close_code(connection: Wire) -> int:
    """The code of the server's close frame; nothing may follow it."""
    while True:
        opcode, payload = await message(connection)
        if opcode == 8:
            connection.send(masked(8, payload[:2]))
            assert await connection.rest() == b""
            return int.from_bytes(payload[:2], "big")


def unchunked(body: bytes) -> tuple[bytes, bytes]:
    """The content of a chunked body, and what follows it."""
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        content, body = content + body[:length], body[length + 2 :]
        if not length:
            return content, body


# HTTP


async def test_the_headers_of_an_answer(api: Api) -> None:
    async with api.posting("say a", session_id="s.1:x", stream_id=(stream_id := new_id())) as ours:
        headers = dict(ours.headers)
        frames = lines(await ours.read())
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["X-Session-Id"] == frames[0]["session_id"] == "s.1:x"
    assert headers["X-Stream-Id"] == frames[0]["stream_id"] == stream_id
    assert headers["X-Trace-Id"] == frames[0]["trace_id"]
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in headers
    assert frames[0]["role"] == "assistant"
    assert frames[0]["protocol"] == 1


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [
        (TRACEPARENT, True),
        (TRACEPARENT.upper(), False),
        (TRACEPARENT.replace(TRACE, "0" * 32), False),
        ("ff" + TRACEPARENT[2:], False),
        ("nonsense", False),
        ("01" + TRACEPARENT[2:] + "-more", True),
    ],
)
async def test_the_trace_id_is_the_clients_if_it_is_valid(
    api: Api, traceparent: str, kept: bool
) -> None:
    async with api.http.post(
        api.url + "/api/chat", json={"prompt": "say a"}, headers={"traceparent": traceparent}
    ) as response:
        frames = lines(await response.read())
    async with api.socket() as ws:
        stream_id = new_id()
        await ws.send(type="start", prompt="say a", stream_id=stream_id, traceparent=traceparent)
        frames += await ws.ended(stream_id)
    assert {frame["trace_id"] == TRACE for frame in frames} == {kept}


async def test_a_silent_answer_beats_with_empty_lines(server: Server) -> None:
    async with wire(server.url) as connection:
        connection.post("silent")
        await connection.until(b'"protocol":1}\n\r\n')
        assert await connection.until(b"1\r\n\n\r\n") == b"1\r\n\n\r\n"
        assert await connection.until(b"1\r\n\n\r\n") == b"1\r\n\n\r\n"


async def test_an_http_1_0_client_gets_plain_lines_and_the_end_of_the_connection(
    server: Server,
) -> None:
    for headers in ("", "Connection: keep-alive\r\n"):
        async with wire(server.url) as connection:
            connection.post("tick 3 0.01", version="1.0", headers=headers)
            head, _, body = (await connection.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 ")
        assert b"chunked" not in head.lower()
        assert b"keep-alive" not in head.lower()
        check_stream(lines(body))


async def test_one_connection_serves_many_answers_in_a_row(server: Server) -> None:
    async with wire(server.url) as connection:
        for number in range(20):
            connection.post(f"say {number}")
            await connection.until(b"\r\n\r\n")
            content, rest = unchunked(await connection.until(b"\r\n0\r\n\r\n"))
            assert text_of(lines(content)) == f"{number} "
            assert rest == b""


async def test_requests_that_do_not_wait_for_their_turn_are_answered_in_turn(
    server: Server, api: Api
) -> None:
    async with wire(server.url) as connection:
        for number in range(10):
            connection.post(f"tick {number} 0.005")
        connection.send(request("GET", "/livez", headers="Connection: close\r\n"))
        body = await connection.rest()
    for number in range(10):
        head, _, body = body.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        content, body = unchunked(body)
        assert len(lines(content)) == number + 2
    assert body.endswith(b'{"alive":true}')
    await api.until(is_idle)


async def test_head_has_no_body_and_reads_no_stream(server: Server, api: Api) -> None:
    async with api.posting("tidy 0", on_disconnect="cancel") as live:
        stream_id = live.headers["X-Stream-Id"]
        async with wire(server.url) as connection:
            connection.send(request("HEAD", f"/api/streams/{stream_id}"))
            connection.send(request("GET", "/livez", headers="Connection: close\r\n"))
            first, _, rest = (await connection.rest()).partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 405 ")
        assert rest.startswith(b"HTTP/1.1 200 ")
        await api.cancel(stream_id)


# WebSocket


async def test_the_subprotocol_is_chosen(api: Api) -> None:
    async with api.socket() as ws:
        assert ws.ws.protocol == "jarvis-stream.v1"
    async with api.http.ws_connect(api.url + "/ws") as plain:
        await plain.send_json({"type": "start", "prompt": "say a"})
        assert (await plain.receive()).type is WSMsgType.TEXT


async def test_nothing_is_compressed(api: Api) -> None:
    async with api.socket(compress=15) as ws:
        assert not ws.ws.compress


async def test_a_message_is_one_or_more_whole_lines(server: Server) -> None:
    async with wire(server.url) as connection:
        await connection.upgrade()
        connection.start("flood 300")
        got: list[Any] = []
        while not got or got[-1]["type"] != "done":
            opcode, payload = await message(connection)
            if opcode == 1:
                assert payload.endswith(b"\n")
                got += lines(payload)
        check_stream(got)


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_tokens_of_one_turn_of_the_loop_leave_together(
    server: Server, transport: str
) -> None:
    async with wire(server.url) as connection:
        if transport == "http":
            connection.post("burst 10")
            await connection.until(b"\r\n\r\n")
            await connection.until(b"}\n\r\n")  # `thinking`, before the question was kept
            piece = await connection.until(b"}\n\r\n")
        else:
            await connection.upgrade()
            connection.start("burst 10")
            await spoken(connection)
            _, piece = await spoken(connection)
    assert piece.count(b'"type":"token"') == 10


async def test_two_sessions_share_a_socket(api: Api) -> None:
    first, second = new_id(), new_id()
    async with api.socket() as ws:
        for session, stream_id in (("a", first), ("b", second)):
            await ws.send(
                type="start", prompt="tick 100000 0.01", session_id=session, stream_id=stream_id
            )
        for stream_id in (first, second) * 5:  # side by side, not one after the other
            await ws.spoke(stream_id)
        for stream_id in (first, second):
            await ws.send(type="cancel", stream_id=stream_id)
        for frames in (await ws.ended(first), await ws.ended(second)):
            check_stream(frames)
            assert outcome(frames) == "cancelled"


async def test_a_socket_follows_so_many_streams_and_no_more(api: Api) -> None:
    async with api.socket() as ws:
        for _ in range(64):
            await ws.send(type="start", prompt="silent")
        await ws.send(type="start", prompt="silent", stream_id=(stream_id := new_id()))
        refused = await ws.until(lambda frame: "seq" not in frame)
        assert (refused["code"], refused["stream_id"]) == ("too_many", stream_id)
    await api.until(is_idle)


async def test_a_silent_socket_is_pinged_and_lives_while_it_answers(server: Server) -> None:
    async with wire(server.url) as connection:
        await connection.upgrade()
        connection.start("silent")
        assert (await spoken(connection))[0] == 1
        for _ in range(3):
            opcode, payload = await message(connection)
            assert opcode == 9
            connection.send(masked(10, payload))


async def test_a_socket_that_answers_no_ping_is_dead_and_so_is_its_reader(
    server: Server, api: Api
) -> None:
    stream_id = new_id()
    async with wire(server.url) as connection:
        await connection.upgrade()
        connection.start("listen", stream_id=stream_id)
        await connection.until(b'"listening"')
        await api.cleanup(stream_id)
        await connection.rest()


async def test_a_clients_ping_is_answered(server: Server) -> None:
    async with wire(server.url) as connection:
        await connection.upgrade()
        connection.send(masked(9, b"are you there?"))
        assert await spoken(connection) == (10, b"are you there?")


@pytest.mark.parametrize(
    ("opcode", "payload", "code"),
    [
        (1, b'"\xff\xfe"', 1007),
        (1, b'{"type":"start","prompt":"' + b"x" * 5000 + b'"}', 1009),
        (3, b"", 1002),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
async def test_what_closes_a_socket(
    server: Server, api: Api, opcode: int, payload: bytes, code: int, busy: bool
) -> None:
    async with wire(server.url) as connection:
        await connection.upgrade()
        if busy:
            await start_ticking(connection)
        connection.send(masked(opcode, payload))
        assert await close_code(connection) == code
    await api.until(is_idle)


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [
        (1, b"[1]"),
        (1, b"no json"),
        (1, b""),
        (1, b'{"type": NaN}'),
        (1, b"[" * 4000),
        (2, b'{"type":"start","prompt":"say a"}'),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
async def test_only_repeated_malformed_messages_close_a_socket(
    server: Server, api: Api, opcode: int, payload: bytes, busy: bool
) -> None:
    async with wire(server.url) as connection:
        await connection.upgrade()
        if busy:
            await start_ticking(connection)
        for _ in range(9):
            connection.send(masked(opcode, payload))
        connection.send(masked(1, b'{"type":"ping"}'))
        while b'"pong"' not in (await message(connection))[1]:
            pass
        for _ in range(10):
            connection.send(masked(opcode, payload))
        assert await close_code(connection) == 1007
    await api.until(is_idle)


async def start_ticking(connection: Wire) -> None:
    """Start an answer that does not end, and read to the end of a whole message of it."""
    connection.start("tick 100000 0.001")
    await connection.until(b'"token"')
    await connection.until(b"}\n")


async def test_a_refused_message_leaves_the_socket_open(api: Api) -> None:
    async with api.socket() as ws:
        for fields, code in (
            ({"type": "nonsense"}, "invalid"),
            ({}, "invalid"),
            ({"type": "start"}, "invalid"),
            ({"type": "start", "prompt": ""}, "invalid"),
            ({"type": "start", "prompt": "x" * 1001}, "invalid"),
            ({"type": "resume", "stream_id": 5, "after": 0}, "invalid"),
            ({"type": "cancel", "stream_id": new_id()}, "not_found"),
        ):
            await ws.send(**fields)
            refused = await ws.until(lambda frame: True)
            assert (refused["type"], refused["code"]) == ("error", code)
            brought = fields.get("stream_id")
            assert refused["stream_id"] == (brought if isinstance(brought, str) else None)
        await ws.send(type="start", prompt="say a", stream_id=(stream_id := new_id()))
        assert outcome(await ws.ended(stream_id)) == "stop"


async def test_a_message_in_fragments_is_one_message(server: Server) -> None:
    async with wire(server.url) as connection:
        await connection.upgrade()
        whole = orjson.dumps({"type": "start", "prompt": "say a"})
        first = bytearray(masked(1, whole[:10]))
        first[0] &= 0x7F
        connection.send(bytes(first) + masked(9, b"in between") + masked(0, whole[10:]))
        await connection.until(b'"done"')


# Origin


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("same", 200),
        ("https://friend.example", 200),
        ("https://enemy.example", 403),
        ("https://friend.example.enemy.example", 403),
        ("http://friend.example", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_only_its_own_and_befriended_pages_may_talk_to_it(
    api: Api, origin: str | None, status: int
) -> None:
    headers = {} if origin is None else {"Origin": api.url if origin == "same" else origin}
    body = {"prompt": "say a"}
    async with api.http.post(api.url + "/api/chat", json=body, headers=headers) as response:
        assert response.status == status
        if status == 403:
            assert (await response.json())["code"] == "forbidden_origin"
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with api.http.get(api.url + "/ws", headers={**headers, **upgrade}) as response:
        assert response.status == (101 if status == 200 else 403)


# Refusals


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/sessions/unknown/messages", 404, "not_found"),
        ("GET", "/api/sessions/%ff%0d%0a/messages", 404, "not_found"),
        ("GET", "/api/streams/%ff%0d%0a", 404, "not_found"),
        ("GET", "/static/nothing.js", 404, "not_found"),
        ("GET", "/static/%2e%2e/setup.cfg", 404, "not_found"),
        ("GET", "/static/%00", 404, "not_found"),
        ("GET", "/static/" + "a" * 3000, 404, "not_found"),
        ("GET", "/api/chat", 405, "method_not_allowed"),
        ("POST", "/ws", 405, "method_not_allowed"),
        ("GET", "/ws", 400, "malformed"),
        ("POST", "/api/chat", 415, "unsupported_media_type"),
    ],
)
async def test_what_is_not_there_is_refused_in_one_form(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    async with wire(server.url) as connection:
        connection.send(request(method, path, headers="Connection: close\r\n"))
        head, _, body = (await connection.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert (b"\r\nAllow: " in head) == (status == 405)
    refused = orjson.loads(body)
    assert refused.keys() == {"code", "error"}
    assert refused["code"] == code


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "malformed"),
        (b"[]", {}, 400, "malformed"),
        (b"garbage", {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        (b'{"prompt":"' + b"x" * 5000 + b'"}', {}, 413, "too_large"),
        (b'{"prompt":"say a"}', {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b'{"prompt":"' + b"x" * 1001 + b'"}', {}, 422, "invalid"),
    ],
)
async def test_a_wrong_body_is_refused(
    api: Api, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    headers = {"Content-Type": "application/json", **headers}
    async with api.http.post(api.url + "/api/chat", data=body, headers=headers) as response:
        assert response.status == status, await response.text()
        assert (await response.json())["code"] == code


@pytest.mark.parametrize("key", ["", "zz", "ÿÿ", "dG9vIHNob3J0"])
async def test_a_broken_handshake_is_the_clients_fault(server: Server, key: str) -> None:
    async with wire(server.url) as connection:
        connection.send(
            request(
                "GET",
                "/ws",
                headers="Connection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
            )
        )
        head = await connection.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")


# What an agent may not tell


async def test_what_an_agent_raised_stands_in_the_log_and_in_no_frame(
    server: Server, api: Api
) -> None:
    frames = await api.chat("fail")
    check_stream(frames)
    assert outcome(frames) == "agent_error"
    assert frames[-1]["retryable"] is True
    for word in ("RuntimeError", "db.internal"):
        assert word not in str(frames)
        assert word in server.log
    assert "hunter2" not in str(frames) + server.log  # a password, wherever it stands


async def test_a_status_of_the_agent_is_passed_on(api: Api) -> None:
    frames = await api.chat("tool")
    assert (frames[1]["status"], frames[1]["name"]) == ("tool", "search")


async def test_whatever_a_prompt_contains_a_log_record_is_one_line(
    server: Server, api: Api
) -> None:
    stream_id = new_id()
    await api.chat(
        'say a\r\n{"level":"ERROR","message":"forged"}\n{0}{sid.secret}<red>\x1b[31m',
        stream_id=stream_id,
    )
    # The lines of an answer's life are held back a little.
    await api.until(lambda now: f'"stream":"{stream_id}"' in server.log)
    records = [orjson.loads(line) for line in server.log.splitlines()]
    assert "forged" not in {record["message"] for record in records}

"""Whatever ten thousand bodies and messages contain, the server answers in its own words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from processes import Server
from profiles import amount

from .clients import PATIENCE, Api, close_code, lines, new_id, outcome, talking_to
from .conftest import start
from .test_one_stream_per_session import is_idle

COUNT = amount("GARBAGE", default=1_500, long=5_000)
"""Bodies over HTTP, and as many messages over WebSocket."""

LIMIT = 256 * 1024
MEGABYTE = 2**20

ID = "0195f1a0-0000-7000-8000-000000000000"
FIELDS = [
    "type",
    "prompt",
    "session_id",
    "stream_id",
    "after",
    "on_conflict",
    "on_disconnect",
    "traceparent",
    "unknown",
]

CORPUS: list[bytes] = [
    b"",
    b" ",
    b"\x00",
    b"null",
    b"0",
    b'""',
    b"[]",
    b"{}",
    b"{",
    b'{"prompt"',
    b'{"prompt":"say a"',
    b'{"prompt":"say a"} trailing',
    b'{"prompt":"say a"}{"prompt":"say b"}',
    b'{"prompt":"say a"}\x00',
    b'\xef\xbb\xbf{"prompt":"say a"}',
    '{"prompt":"say a"}'.encode("utf-16"),
    '{"prompt":"say a"}'.encode("utf-32"),
    b'{"prompt":"\xff\xfe"}',
    b'{"prompt":"\xed\xa0\x80"}',
    b'{"prompt":"\xc0\xaf"}',
    b'{"prompt":"\\ud800"}',
    b'{"prompt":"say \\udfff\\ud800"}',
    b'{"prompt":"say a","session_id":"\\ud800"}',
    b'{"prompt":"say a","\\ud800":1}',
    b'{"prompt":"\\u0000"}',
    b'{"prompt":"say \x00"}',
    b'{"prompt":"say \n"}',
    b'{"prompt":"say \xe2\x80\xa8\xe2\x80\xa9"}',
    b'{"prompt":"say \\u2028 \\r\\n \\u0000 \\ud83d\\ude00"}',
    b'{"prompt":"say a","prompt":"say b"}',
    b'{"prompt":"say a","prompt":5}',
    b'{"prompt":""}',
    b'{"prompt":" \\t\\n\\u2003 "}',
    b'{"prompt":NaN}',
    b'{"prompt":"say a","after":NaN}',
    b'{"prompt":"say a","after":Infinity}',
    b'{"prompt":"say a","after":-Infinity}',
    b'{"prompt":"say a","after":1e400}',
    b'{"prompt":"say a","after":-0}',
    b'{"prompt":"say a","after":-1}',
    b'{"prompt":"say a","after":1.0}',
    b'{"prompt":"say a","after":true}',
    b'{"prompt":"say a","after":9007199254740992}',
    b'{"prompt":"say a","after":18446744073709551616}',
    b'{"prompt":"say a","after":' + b"9" * 6000 + b"}",
    b'{"prompt":"say a","after":-' + b"9" * 6000 + b"}",
    b'{"prompt":"say a","after":0.' + b"9" * 6000 + b"}",
    b"9" * 6000,
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 40_000,
    b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    b'{"prompt":"say a","unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"prompt":' + b"[" * 1000 + b"]" * 1000 + b"}",
    b'{"prompt":"' + b"x" * (LIMIT + 1) + b'"}',
    b'{"prompt":"' + b"x" * 120_000 + b'"}',
    b'{"prompt":"say a","session_id":"' + b"x" * 129 + b'"}',
    b'{"prompt":"say a","session_id":"a\\r\\nX-Evil: 1"}',
    b'{"prompt":"say a","session_id":"a\\n"}',
    b'{"prompt":"say a","session_id":"../../etc/passwd"}',
    b'{"prompt":"say a","stream_id":"' + ID.upper().encode() + b'"}',
    b'{"prompt":"say a","stream_id":"' + ID.encode() + b'\\n"}',
    b'{"prompt":"say a","stream_id":"{' + ID.encode() + b'}"}',
    b'{"prompt":"say a","on_conflict":"REJECT"}',
    b'{"prompt":"say a","on_disconnect":""}',
    b"<xml/>",
    b"prompt=say+a",
    b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
    b"\r\n" * 1000,
]
for field in FIELDS:
    for value in (b"null", b"true", b"0", b"-1", b"1e9", b'""', b'"x"', b"[]", b"[[]]", b"{}"):
        CORPUS.append(b'{"type":"start","prompt":"say a","%b":%b}' % (field.encode(), value))

text = st.text(max_size=20)
ids = st.sampled_from([ID, ID.upper(), ID[:-1], "s", "", "s" * 129, "a b", None])
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["start", "resume", "cancel", "nonsense"]) | values,
        "prompt": text.map(lambda words: "say " + words) | values,
        "session_id": ids | values,
        "stream_id": ids | values,
        "after": st.integers(-2, 5) | values,
        "on_conflict": st.sampled_from(["interrupt", "reject", "enqueue"]) | values,
        "on_disconnect": st.sampled_from(["cancel", "continue"]) | values,
        "traceparent": values,
        "unknown": values,
    },
)
bodies = st.one_of(fields, fields, fields, values).map(orjson.dumps) | st.binary(max_size=60)


def spoil(body: bytes, dice: random.Random) -> bytes:
    """Cut a body short, or change, add or repeat a piece of it."""
    start, end = sorted(dice.randrange(len(body) + 1) for _ in range(2))
    match dice.randrange(4):
        case 0:
            return body[:start]
        case 1:
            return body[:start] + dice.randbytes(1) + body[start + 1 :]
        case 2:
            return body[:start] + dice.choice(CORPUS)[:100] + body[start:]
        case _:
            return body[:end] + body[start:]


@pytest.fixture(scope="module")
def garbage() -> list[bytes]:
    """The corpus, generated bodies, and what becomes of them when they are spoilt."""
    generated: list[bytes] = []

    @settings(
        max_examples=COUNT // 4,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies)
    def collect(body: bytes) -> None:
        generated.append(body)

    collect()
    whole, dice = CORPUS + generated, random.Random(2)
    return whole + [spoil(dice.choice(whole), dice) for _ in range(COUNT - len(whole))]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a limit that the corpus goes beyond."""
    with start("--max-body-bytes", str(LIMIT), "--replay-seconds", "1") as server:
        yield server


def check_refusal(body: Any) -> None:
    """What every refusal looks like, whatever was asked."""
    assert isinstance(body["code"], str)
    assert isinstance(body["error"], str)
    assert body["error"].isprintable(), body
    assert len(body["error"]) < 400, body


async def still_works(server: Server, memory: float) -> None:
    """A new chat is answered on both transports, nothing lives on, memory has its bounds."""
    async with talking_to(server.url) as api, api.socket() as ws:
        assert outcome(await api.chat("say hello")) == "stop"
        await ws.send(type="start", prompt="say hello", stream_id=(stream_id := new_id()))
        assert outcome(await ws.ended(stream_id)) == "stop"
        now = await api.until(is_idle)
        assert now["process_resident_memory_bytes"] - memory < 64 * MEGABYTE
    records = [orjson.loads(line) for line in server.log.splitlines()]
    assert [r for r in records if r["level"] in ("ERROR", "CRITICAL")] == []


async def memory_of(server: Server) -> float:
    async with talking_to(server.url) as api:
        return (await api.metrics())["process_resident_memory_bytes"]


async def test_five_thousand_bodies(server: Server, garbage: list[bytes]) -> None:
    memory = await memory_of(server)
    statuses: dict[int, int] = {}
    queue = iter(garbage)

    async def work(api: Api) -> None:
        for body in queue:
            asking = api.http.post(
                api.url + "/api/chat", data=body, headers={"Content-Type": "application/json"}
            )
            async with asking as response:
                answer = await response.read()
            statuses[response.status] = statuses.get(response.status, 0) + 1
            if response.status == 200:
                assert lines(answer)[-1]["type"] in ("done", "error"), body
            else:
                assert response.status in (400, 409, 410, 413, 416, 422), (response.status, body)
                check_refusal(orjson.loads(answer))

    async with talking_to(server.url) as api:
        await asyncio.gather(*(work(api) for _ in range(8)))
    assert sum(statuses.values()) == COUNT
    assert statuses.keys() >= {200, 400, 413, 416, 422}
    await still_works(server, memory)


async def test_five_thousand_messages(server: Server, garbage: list[bytes]) -> None:
    memory = await memory_of(server)
    closes: set[int] = set()
    answered: dict[str, int] = {}
    queue = iter(garbage)

    async def work(api: Api) -> None:
        ws = None
        for body in queue:
            if ws is None or ws.closed:
                ws = await api.http.ws_connect(
                    api.url + "/ws", protocols=["jarvis-stream.v1"], max_msg_size=0
                )
            # As bytes in a text frame: the client's own library would refuse bad UTF-8.
            await ws._writer.send_frame(body, WSMsgType.TEXT)
            await ws.send_json({"type": "resume", "stream_id": (mark := new_id())})
            async with asyncio.timeout(PATIENCE):
                if (code := await read_to_the_mark(ws, mark)) is None:
                    continue
            closes.add(code)
            assert code == (1007 if len(body) <= LIMIT else 1009), (code, body[:100])
        if ws is not None:
            await ws.close()

    async def read_to_the_mark(ws: Any, mark: str) -> int | None:
        while True:
            message = await ws.receive()
            if message.type is not WSMsgType.TEXT:
                return close_code(ws, message)
            for frame in lines(message.data.encode()):
                answered[frame["type"]] = answered.get(frame["type"], 0) + 1
                if "seq" in frame:
                    continue
                if frame["type"] == "error":
                    check_refusal(frame)
                    if frame["stream_id"] == mark:
                        return None

    async with talking_to(server.url) as api:
        await asyncio.gather(*(work(api) for _ in range(8)))
    assert closes == {1007, 1009}
    assert answered.keys() >= {"status", "token", "done", "error"}
    await still_works(server, memory)

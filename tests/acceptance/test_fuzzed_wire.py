"""Requests and WebSocket frames with bytes changed at random: refused, never failed on."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
from processes import Server
from profiles import EVENT_LOOPS

from .clients import Wire, masked, outcome, request, talking_to, wire
from .conftest import assert_quiet, start
from .memory import MEGABYTE, on_linux, resident
from .probes import PROBES, chunked, get
from .test_one_stream_per_session import is_idle

REQUESTS = 2_000
SOCKETS = 500
AT_A_TIME = 40

BODY = b'{"prompt":"say hi"}'
HONEST = [
    request("POST", "/api/chat", BODY),
    request("GET", "/readyz") + request("GET", "/livez"),
    chunked(b"13\r\n" + BODY + b"\r\n0\r\n\r\n"),
    get(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
]
TOKENS = [b"\r\n", b"\n", b"\r", b":", b" ", b"\x00", b"0", b"\xff", b",", b"chunked", b"%", b";"]

STATUS = re.compile(rb"^HTTP/\d\.\d (\d+) ", re.MULTILINE)


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that waits for nobody."""
    times = ("--header-timeout", "0.5", "--body-timeout", "0.5", "--idle-timeout", "0.5")
    with start(*times, "--heartbeat", "0.5", "--replay-seconds", "1", loop=request.param) as server:
        yield server
        assert_quiet(server.log)
        assert "Traceback" not in server.log


def spoil(data: bytes, dice: random.Random) -> bytes:
    """Change a few places: bytes, what HTTP is made of, cuts, repetitions."""
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0:
                data = data[:at] + dice.randbytes(1) + data[at + 1 :]
            case 1:
                data = data[:at] + dice.choice(TOKENS) + data[at:]
            case 2:
                data = data[:at] + data[at + dice.randint(1, 5) :]
            case 3:
                data = data[:at] + data[max(0, at - 30) :]
            case _:
                data = data[:at] + dice.choice(TOKENS) + data[at + 1 :]
    return data


async def in_crowds(count: int, do: Callable[[int], Awaitable[None]]) -> None:
    """Do it so many times, a few at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await do(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(work())


async def still_works(server: Server, memory: int) -> None:
    """A chat is answered, nothing lives on, memory has its bounds."""
    async with talking_to(server.url) as api:
        assert outcome(await api.chat("say hello")) == "stop"
        await api.until(is_idle)
    assert resident(server) - memory < 32 * MEGABYTE


@on_linux
async def test_requests_with_changed_bytes(server: Server) -> None:
    memory, statuses = resident(server), Counter[int]()
    seeds = HONEST * 10 + [probe.data for probe in PROBES if len(probe.data) < 5000]

    async def ask(number: int) -> None:
        dice = random.Random(number)
        data = spoil(dice.choice(seeds), dice)
        async with wire(server.url) as peer:
            cut = dice.randrange(len(data) + 1)
            peer.send(data[:cut])
            await asyncio.sleep(0)
            peer.send(data[cut:])
            got = await peer.rest()
        found = [int(status) for status in STATUS.findall(got)]
        assert all(status < 500 for status in found), (number, data, got)
        statuses.update(found)

    await in_crowds(REQUESTS, ask)
    assert statuses.keys() >= {200, 400, 404, 408, 421}
    await still_works(server, memory)


@on_linux
async def test_frames_with_changed_bytes(server: Server) -> None:
    memory, codes = resident(server), Counter[int]()
    messages = [
        masked(1, b'{"type":"start","prompt":"say hi"}'),
        masked(1, b'{"type":"nonsense"}' * 20),
        masked(9, b"ping"),
        masked(1, b"x" * 70_000),
        masked(8, b"\x03\xe8"),
        bytes(range(256)),
    ]

    async def talk(number: int) -> None:
        dice = random.Random(number)
        data = b"".join(dice.choice(messages) for _ in range(dice.randint(1, 4)))
        async with wire(server.url) as peer:
            try:
                await peer.upgrade()
            except (ConnectionError, asyncio.IncompleteReadError):
                return  # where this process was held up for longer than the server waits
            peer.send(spoil(data, dice))
            codes.update([await closing(peer)])

    await in_crowds(SOCKETS, talk)
    # 0: the client has said goodbye without a code, or had to be cut off in mid-message.
    assert codes.keys() <= {0, 1000, 1002, 1003, 1007, 1009}, codes
    assert codes.keys() >= {1002, 1007}
    await still_works(server, memory)


async def closing(peer: Wire) -> int:
    """The code with which the server closes; 0 where it has none, or it just ends."""
    try:
        async with asyncio.timeout(20):
            while True:
                first, size = await peer.reader.readexactly(2)
                if size == 126:
                    size = int.from_bytes(await peer.reader.readexactly(2), "big")
                elif size == 127:
                    size = int.from_bytes(await peer.reader.readexactly(8), "big")
                payload = await peer.reader.readexactly(size)
                if first & 0x0F == 8:
                    peer.send(masked(8, payload[:2]))
                    return int.from_bytes(payload[:2], "big")
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0

"""How many connections a process may have, and who is turned away."""

from __future__ import annotations

import asyncio
import gc
import platform
import subprocess
import sys
from collections import Counter

import orjson
import pytest
from aiohttp import web

from jarvis_stream.server import OWN_FILES, room_for
from jarvis_stream.transports.door import MOST_TURNED_AWAY, Door, Doors

resource = pytest.importorskip("resource")


class Files:
    """The limit on open files of a process that is not this one."""

    def __init__(self, soft: int, hard: int) -> None:
        self.soft, self.hard = soft, hard

    def getrlimit(self, what: int) -> tuple[int, int]:
        return self.soft, self.hard

    def setrlimit(self, what: int, limits: tuple[int, int]) -> None:
        self.soft, self.hard = limits


@pytest.mark.parametrize(
    ("soft", "hard", "room", "raised_to"),
    [
        (20_000, 20_000, 1000, 20_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1000, resource.RLIM_INFINITY),
        (256, resource.RLIM_INFINITY, 1000, 2000 + OWN_FILES),
        (256, 524_288, 1000, 2000 + OWN_FILES),
        (256, 512, (512 - OWN_FILES) // 2, 512),
        (100, 100, 1, 100),
    ],
)
def test_it_asks_for_the_files_it_needs_and_lives_with_what_it_gets(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, room: int, raised_to: int
) -> None:
    files = Files(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", files.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", files.setrlimit)
    assert room_for(1000) == room
    assert files.soft == raised_to


def test_a_limit_that_may_not_be_raised_is_lived_with(
    monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    def refuse(what: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", Files(256, 524_288).getrlimit)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert room_for(1000) == (256 - OWN_FILES) // 2
    assert log_lines == ["connections_bounded wanted=1000 possible=64 open_files=256"]


async def _nobody(request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError("hunter2")


def doors(most: int) -> Doors:
    found = Doors(
        Counter(),
        most=most,
        header_timeout=1,
        idle_timeout=1,
        send_timeout=1,
        stall_timeout=60,
        max_message=1,
    )
    found.server = web.Server(_nobody)
    return found


async def test_connections_that_are_on_their_way_count() -> None:
    some = doors(2)
    first, second = some(), some()
    assert isinstance(first, Door)
    assert isinstance(second, Door)
    assert len(some) == 2
    assert not isinstance(some(), Door)
    del second  # asyncio could not connect it
    gc.collect()
    assert len(some) == 1
    assert isinstance(some(), Door)


async def test_what_fails_where_no_application_catches_it_tells_nothing(
    log_lines: list[str],
) -> None:
    some = doors(1)
    server = await asyncio.get_running_loop().create_server(some, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert orjson.loads(body)["code"] == "internal"
    assert b"hunter2" not in answer
    (line,) = log_lines
    assert line.startswith("request_failed trace=")
    assert some.refused == {("http", "internal"): 1}
    assert len(some) == 0


async def test_the_doors_are_quiet_when_nothing_is_asked() -> None:
    some = doors(1)
    await some.quiet()
    some.abort()


async def test_those_that_are_told_so_are_bounded_too() -> None:
    some = doors(0)
    assert all(some.turns_away() for _ in range(MOST_TURNED_AWAY))
    assert not some.turns_away()
    some.turned_away()
    assert some.turns_away()


LARGE_BLOCKS = """
import sys
from jarvis_stream.server import release_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "release":
    release_large_blocks()
del (block := bytearray(b"x") * 20_000_000)[:]
del block
before = resident()
blocks = [bytearray(b"x") * 6_000_000 for _ in range(10)]
kept = bytearray(b"x") * 500_000
blocks.clear()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries differ")
def test_large_blocks_go_back_to_the_system() -> None:
    def growth(mode: str) -> int:
        command = [sys.executable, "-c", LARGE_BLOCKS, mode]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert growth("release") < 5_000_000

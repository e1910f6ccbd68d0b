"""What is small on the wire and huge in memory, and frames that break WebSocket's own rules."""

from __future__ import annotations

import contextlib
import functools
import gzip
import struct
import zlib
from collections.abc import Callable, Iterator

import orjson
import pytest
from processes import Server
from profiles import EVENT_LOOPS, long_only

from .clients import Wire, masked, outcome, request, talking_to, wire
from .conftest import assert_quiet, start
from .memory import MEGABYTE, on_linux, peak, resident

MOST = 2**20
"""The largest body and message, by default."""


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with nothing set."""
    with start(loop=request.param) as server:
        yield server
        assert_quiet(server.log)
        assert "Traceback" not in server.log


MEGABYTE_OF_ZEROS = b"0" * MEGABYTE
BOMB_SIZE = 512
"""Megabytes that one bomb unpacks to."""


def raw_deflate(megabytes: int) -> bytes:
    """Zeros, packed; quickly, because every piece after a full flush is packed alike."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(MEGABYTE_OF_ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * megabytes + packer.flush()


def checksum(of_piece: Callable[[bytes, int], int], start: int) -> int:
    """The checksum of all the zeros of a bomb."""
    for _ in range(BOMB_SIZE):
        start = of_piece(MEGABYTE_OF_ZEROS, start)
    return start


@functools.cache
def bomb_of(kind: str) -> tuple[str, bytes]:
    """The content encoding and the body of a bomb."""
    if kind == "many members":
        return "gzip", gzip.compress(MEGABYTE_OF_ZEROS, mtime=0) * 100
    packed = raw_deflate(BOMB_SIZE)
    if kind == "gzip":
        head = gzip.compress(b"", mtime=0)[:10]
        size = BOMB_SIZE * MEGABYTE
        return "gzip", head + packed + struct.pack("<II", checksum(zlib.crc32, 0), size)
    if kind == "deflate":
        return "deflate", b"\x78\xda" + packed + struct.pack(">I", checksum(zlib.adler32, 1))
    return "deflate", packed


KINDS = ("gzip", "deflate", "deflate without its header", "many members")


@long_only
@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_unpacks_to_zeros(kind: str) -> None:
    _, bomb = bomb_of(kind)
    wbits = {"gzip": 31, "deflate": 15, "deflate without its header": -15, "many members": 31}
    size, rest = 0, bomb
    while rest:
        unpacker = zlib.decompressobj(wbits[kind])
        while not unpacker.eof:
            piece = unpacker.decompress(rest, MEGABYTE)
            assert piece == MEGABYTE_OF_ZEROS[: len(piece)]
            size, rest = size + len(piece), unpacker.unconsumed_tail
        rest = unpacker.unused_data
    assert size == (100 if kind == "many members" else BOMB_SIZE) * MEGABYTE
    assert len(bomb) < 2 * MEGABYTE


def post(encoding: str, body: bytes) -> bytes:
    return request("POST", "/api/chat", body, headers=f"Content-Encoding: {encoding}\r\n")


def answer(got: bytes) -> tuple[int, str]:
    """The status and the code of a refusal."""
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), orjson.loads(body)["code"]


async def refused(peer: Wire) -> tuple[int, str]:
    """The same, read from a connection."""
    head = await peer.until(b"\r\n\r\n")
    return answer(head + await peer.until(b"}"))


@on_linux
@pytest.mark.parametrize("kind", KINDS)
async def test_a_packed_body_is_refused_and_never_unpacked(server: Server, kind: str) -> None:
    encoding, bomb = bomb_of(kind)
    before, busy = resident(server), await processor_time(server)
    for _ in range(10):
        async with wire(server.url) as peer:
            peer.send(post(encoding, bomb))
            assert await refused(peer) == (415, "unsupported_media_type")
    assert peak(server) - before < 16 * MEGABYTE
    # To unpack one takes about two seconds, in which nobody else is answered.
    assert await processor_time(server) - busy < 2
    async with talking_to(server.url) as api:
        assert outcome(await api.chat("say hello")) == "stop"


async def processor_time(server: Server) -> float:
    """Seconds of a processor that the server has used so far."""
    async with talking_to(server.url) as api:
        return (await api.metrics())["process_cpu_seconds_total"]


async def test_compression_is_never_agreed_on(server: Server) -> None:
    async with wire(server.url) as peer:
        peer.send(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        )
        head = await peer.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-extensions" not in head.lower()
        bomb = raw_deflate(16)
        packed = bytearray(masked(1, bomb))
        packed[0] |= 0x40  # RSV1: this message is compressed
        peer.send(bytes(packed))
        assert closing_code(await peer.reader.readexactly(4)) == 1002


def closing_code(got: bytes) -> int:
    """The code of the close frame, which is all that came."""
    assert got[:1] == b"\x88", got[:100]
    return int.from_bytes(got[2:4], "big")


async def closes(peer: Wire) -> int:
    """The code with which the server closes, answered as RFC 6455 wants it."""
    got = await peer.reader.readexactly(4)
    peer.send(masked(8, got[2:4]))
    await peer.rest()
    return closing_code(got)


@pytest.mark.parametrize("fragments", [1, 3])
async def test_a_message_that_is_too_large_is_told_so(server: Server, fragments: int) -> None:
    sizes = [MOST + 1] if fragments == 1 else [MOST // 2] * fragments
    frames = [bytearray(masked(0 if n else 1, b"x" * size)) for n, size in enumerate(sizes)]
    for frame in frames[:-1]:
        frame[0] &= 0x7F  # there is more to come
    # Again and again: what is left unread in a socket resets it, and the reason is lost.
    for _ in range(20):
        async with wire(server.url) as peer:
            await peer.upgrade()
            peer.send(b"".join(frames))
            await peer.writer.drain()
            assert await closes(peer) == 1009


async def test_a_message_may_be_as_large_as_the_limit(server: Server) -> None:
    async with wire(server.url) as peer:
        await peer.upgrade()
        peer.send(masked(1, b'{"type":"nonsense"}'.ljust(MOST)))
        assert b'"code":"invalid"' in await peer.until(b"}\n")


async def test_what_was_said_before_it_is_heard(server: Server) -> None:
    async with wire(server.url) as peer:
        await peer.upgrade()
        peer.send(masked(1, b'{"type":"nonsense"}') * 10 + masked(1, b"x" * (MOST + 1)))
        for _ in range(10):
            assert b'"code":"invalid"' in await peer.until(b"}\n")
        assert await closes(peer) == 1009


async def test_a_message_far_too_large_does_not_have_to_be_sent_to_its_end(server: Server) -> None:
    async with wire(server.url) as peer:
        await peer.upgrade()
        peer.send(b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4))
        assert await closes(peer) == 1009


async def test_one_that_goes_on_and_on_is_cut_off(server: Server) -> None:
    async with wire(server.url) as peer:
        await peer.upgrade()
        peer.send(b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4))
        with contextlib.suppress(ConnectionError):
            for _ in range(2**30 // 65536):
                peer.send(b"x" * 65536)
                await peer.writer.drain()
            pytest.fail("a gigabyte was taken")


@pytest.mark.parametrize("opcode", [1, 2, 9, 10])
async def test_a_frame_that_is_not_masked_closes_with_1002(server: Server, opcode: int) -> None:
    async with wire(server.url) as peer:
        await peer.upgrade()
        peer.send(bytes((0x80 | opcode, 2)) + b"{}")
        assert await closes(peer) == 1002

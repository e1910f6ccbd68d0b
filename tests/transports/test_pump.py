"""The pump, between real streams and a transport that takes what the test lets it take."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise
from typing import Any

import orjson
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter
from explorer import in_virtual_time
from house import now
from profiles import patience

from jarvis_stream.errors import CursorAhead
from jarvis_stream.frames import Done
from jarvis_stream.stream import State, Stream
from jarvis_stream.transports.pump import HIGH_WATER, Parting, Pump

PATIENCE = patience(20.0)
BEAT = b"(beat)"
LONG = 3600.0


class FakeTransport(asyncio.Transport):
    """Takes everything at once, until it is blocked; then its buffer fills, as a socket's does."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol = BaseProtocol(asyncio.get_running_loop())
        self.protocol.transport = self
        self.writes: list[bytes] = []
        self.wrote = asyncio.Event()
        self.blocked = False
        self.trickle = 0
        """Bytes its peer takes whenever somebody looks."""
        self.aborted = False
        self._buffered = 0

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        self.wrote.set()
        if self.blocked:
            self._buffered += len(data)
            if self._buffered > HIGH_WATER and not self.protocol._paused:
                self.protocol.pause_writing()

    def take(self, count: int) -> None:
        """The peer reads."""
        self._buffered = max(0, self._buffered - count)
        if self._buffered <= HIGH_WATER // 4 and self.protocol._paused:
            self.protocol.resume_writing()

    def unblock(self) -> None:
        self.blocked = False
        self.take(self._buffered)

    def get_write_buffer_size(self) -> int:
        self.take(self.trickle)
        return self._buffered

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == HIGH_WATER

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
async def transport() -> FakeTransport:
    return FakeTransport()


def drain_of(transport: FakeTransport) -> Any:
    return StreamWriter(transport.protocol, asyncio.get_running_loop()).drain


def make_pump(transport: FakeTransport | None, **options: Any) -> Pump:
    options = {"beat": BEAT, "heartbeat": LONG, "stall_timeout": LONG, **options}
    return Pump(transport, lambda frames: frames, **options)


def make_stream(stream_id: str = "s", **options: Any) -> Stream:
    stream = Stream(session_id="x", stream_id=stream_id, trace_id="t", epoch=1, **options)
    stream.activate()
    return stream


def seqs(sent: bytes, stream_id: str = "s") -> list[int]:
    frames = [orjson.loads(line) for line in sent.splitlines()]
    return [frame["seq"] for frame in frames if frame["stream_id"] == stream_id]


async def parting(pump: Pump) -> Parting:
    async with asyncio.timeout(PATIENCE):
        return await pump.finished


def owes_much(pump: Pump) -> bool:
    """A call, where mypy would take the property for one that never changes."""
    return pump.owes_much


async def turn() -> None:
    """Let the loop run what is ready."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_what_is_appended_in_one_turn_of_the_loop_is_one_write(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport), make_stream()
    pump.open(drain_of(transport))
    pump.follow(stream, 0)
    await turn()
    transport.writes.clear()
    for word in "abc":
        stream.append(word)
    assert transport.writes == []
    await turn()
    (piece,) = transport.writes
    assert seqs(piece) == [2, 3, 4]
    await pump.close()


async def test_nothing_is_written_before_the_handshake_is_through(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport, until_idle=True), make_stream()
    pump.follow(stream, 0)
    stream.append("a")
    await turn()
    stream.end(Done())
    await turn()
    assert transport.writes == []
    pump.open(drain_of(transport))
    assert await parting(pump) is Parting.DELIVERED
    assert seqs(transport.sent + pump.last) == [1, 2, 3]
    await pump.close()


async def test_what_was_there_before_the_handshake_can_leave_together_with_it(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport, until_idle=True), make_stream()
    pump.follow(stream, 0)
    stream.append("a")
    assert seqs(pump.gather()) == [1, 2]
    pump.open(drain_of(transport))
    await turn()
    assert transport.writes == []
    stream.append("b")
    await turn()
    assert seqs(transport.sent) == [3]
    assert pump.gather() == b""
    await pump.close()


async def test_the_last_frames_are_left_to_whoever_writes_the_end(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport, until_idle=True), make_stream()
    pump.follow(stream, 0)
    pump.open(drain_of(transport))
    await turn()
    stream.append("a")
    stream.end(Done())
    assert await parting(pump) is Parting.DELIVERED
    assert (seqs(transport.sent), seqs(pump.last)) == ([1], [2, 3])
    await pump.close()


async def test_last_frames_for_which_there_may_be_no_room_are_written_at_once(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport, until_idle=True), make_stream()
    pump.follow(stream, 0)
    pump.open(drain_of(transport))
    await turn()
    stream.append("x" * HIGH_WATER)
    stream.end(Done())
    assert await parting(pump) is Parting.DELIVERED
    assert (seqs(transport.sent), pump.last) == ([1, 2, 3], b"")
    await pump.close()


async def test_a_socket_that_stays_open_is_left_nothing(transport: FakeTransport) -> None:
    pump, stream = make_pump(transport), make_stream()
    pump.follow(stream, 0)
    pump.open(drain_of(transport))
    stream.end(Done())
    await turn()
    assert (seqs(transport.sent), pump.last) == ([1, 2], b"")
    await pump.close()


async def test_a_full_connection_falls_behind_and_catches_up_without_a_gap(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport, until_idle=True), make_stream()
    pump.follow(stream, 0)
    pump.open(drain_of(transport))
    transport.blocked = True
    for _ in range(500):
        stream.append("x" * 1000)
        await turn()
    written = len(transport.sent)
    assert written < 2 * HIGH_WATER
    stream.end(Done())
    await turn()
    assert len(transport.sent) == written
    assert not pump.finished.done()
    transport.unblock()
    assert await parting(pump) is Parting.DELIVERED
    assert seqs(transport.sent + pump.last) == list(range(1, 503))
    await pump.close()


async def test_a_reader_that_takes_a_little_is_never_let_go(transport: FakeTransport) -> None:
    pump, stream = make_pump(transport, until_idle=True, stall_timeout=0.001), make_stream()
    pump.follow(stream, 0)
    pump.open(drain_of(transport))
    transport.blocked, transport.trickle = True, 3000
    for _ in range(500):
        stream.append("x" * 1000)
    stream.end(Done())
    assert await parting(pump) is Parting.DELIVERED
    assert seqs(transport.sent + pump.last) == list(range(1, 503))
    await pump.close()


async def test_a_reader_that_takes_nothing_is_let_go(transport: FakeTransport) -> None:
    pump, stream = make_pump(transport, stall_timeout=0.001), make_stream()
    pump.open(drain_of(transport))
    pump.follow(stream, 0)
    transport.blocked = True
    for _ in range(500):
        stream.append("x" * 1000)
    assert await parting(pump) is Parting.SLOW
    written = len(transport.sent)
    stream.append("more")
    await turn()
    assert len(transport.sent) == written
    await pump.close()


async def test_of_what_was_said_in_one_turn_a_full_connection_holds_only_a_piece(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport, until_idle=True), make_stream()
    pump.follow(stream, 0)
    pump.open(drain_of(transport))
    await turn()
    transport.blocked = True
    for _ in range(3000):
        stream.append("x" * 1000)
    stream.end(Done())
    for _ in range(10):
        await turn()
    assert HIGH_WATER < len(transport.sent) < 3 * HIGH_WATER
    transport.unblock()
    assert await parting(pump) is Parting.DELIVERED
    assert seqs(transport.sent + pump.last) == list(range(1, 3003))
    await pump.close()


async def test_streams_that_have_much_to_say_take_turns(transport: FakeTransport) -> None:
    pump, streams = make_pump(transport), [make_stream("a"), make_stream("b"), make_stream("c")]
    for stream in streams:
        pump.follow(stream, 0)
    pump.open(drain_of(transport))
    await turn()
    transport.blocked = True
    for stream in streams:
        for _ in range(500):
            stream.append("x" * 1000)
    for _ in range(9):
        async with asyncio.timeout(PATIENCE):
            await transport.wrote.wait()
        transport.wrote.clear()
        transport.take(10 * HIGH_WATER)
        await turn()
    said = [len(seqs(transport.sent, stream.stream_id)) for stream in streams]
    assert max(said) < 2 * min(said), said
    await pump.close()


async def test_the_last_frames_are_delivered_only_when_they_have_left(
    transport: FakeTransport,
) -> None:
    pump, stream = make_pump(transport, until_idle=True, stall_timeout=0.001), make_stream()
    pump.follow(stream, 0)
    pump.open(drain_of(transport))
    transport.blocked = True
    stream.append("x" * (HIGH_WATER + 1))
    stream.end(Done())
    await turn()
    assert seqs(transport.sent)[-1] == stream.seq
    assert await parting(pump) is Parting.SLOW
    await pump.close()


async def test_a_connection_that_closes_is_gone(transport: FakeTransport) -> None:
    pump, stream = make_pump(transport), make_stream()
    pump.open(drain_of(transport))
    pump.follow(stream, 0)
    transport.abort()
    stream.append("for nobody")
    assert await parting(pump) is Parting.GONE
    assert seqs(transport.sent) == [1]
    await pump.close()


async def test_a_full_connection_that_is_lost_is_gone(transport: FakeTransport) -> None:
    pump, stream = make_pump(transport), make_stream()
    pump.open(drain_of(transport))
    pump.follow(stream, 0)
    transport.blocked = True
    for _ in range(200):
        stream.append("x" * 1000)
    while transport.protocol._drain_waiter is None:
        await turn()
    transport.aborted = True
    transport.protocol.connection_lost(ConnectionResetError())
    assert await parting(pump) is Parting.GONE
    await pump.close()


async def test_a_connection_that_was_lost_before_it_began_is_gone() -> None:
    pump, stream = make_pump(None), make_stream()
    pump.follow(stream, 0)
    pump.write(b"line\n")
    assert await parting(pump) is Parting.GONE
    pump.abort()
    await pump.close()
    assert stream.state is State.ENDED


async def test_closing_leaves_its_streams_and_is_idempotent(transport: FakeTransport) -> None:
    pump = make_pump(transport)
    left, kept = make_stream("a"), make_stream("b", on_disconnect="continue")
    pump.open(drain_of(transport))
    pump.follow(left, 0)
    pump.follow(kept, 0)
    assert (len(pump), "a" in pump, "c" in pump) == (2, True, False)
    transport.blocked = True
    kept.append("x" * 2 * HIGH_WATER)
    await turn()
    await pump.close()
    await pump.close()
    assert await parting(pump) is Parting.CLOSED
    assert left.state is State.ENDED
    assert kept.state is State.ACTIVE
    assert (left.followers, kept.followers, len(pump)) == (0, 0, 0)
    kept.end(Done())


async def test_following_again_starts_anew_and_keeps_the_stream(transport: FakeTransport) -> None:
    pump, stream = make_pump(transport), make_stream()
    pump.open(drain_of(transport))
    pump.follow(stream, 0)
    stream.append("a")
    await turn()
    pump.follow(stream, 1)
    stream.append("b")
    await turn()
    await pump.drained()
    assert stream.state is State.ACTIVE
    assert stream.followers == 1
    assert seqs(transport.sent) == [1, 2, 2, 3]
    await pump.close()


async def test_a_cursor_ahead_is_refused_and_nothing_is_followed(transport: FakeTransport) -> None:
    pump, stream = make_pump(transport), make_stream()
    with pytest.raises(CursorAhead):
        pump.follow(stream, 2)
    assert (len(pump), stream.followers) == (0, 0)
    await pump.close()


async def test_two_streams_share_a_slow_connection(transport: FakeTransport) -> None:
    pump, first, second = make_pump(transport), make_stream("a"), make_stream("b")
    pump.open(drain_of(transport))
    pump.follow(first, 0)
    pump.follow(second, 0)
    transport.blocked, transport.trickle = True, 3000
    for _ in range(1000):
        first.append("x" * 1000)
        second.append("x" * 1000)
    transport.take(10 * HIGH_WATER)
    for _ in range(20):
        await turn()
        transport.take(10 * HIGH_WATER)
    assert len(seqs(transport.sent, "b")) > 100
    assert len(seqs(transport.sent, "a")) > 100
    await pump.close()


async def test_a_silent_connection_is_given_a_sign_of_life(transport: FakeTransport) -> None:
    pump = make_pump(transport, heartbeat=0.001)
    pump.open(drain_of(transport))
    for _ in range(3):
        transport.wrote.clear()
        async with asyncio.timeout(PATIENCE):
            await transport.wrote.wait()
    assert set(transport.writes) == {BEAT}
    await pump.close()


@in_virtual_time
async def test_no_connection_is_silent_for_longer_than_a_heartbeat() -> None:
    transport = FakeTransport()
    pump = make_pump(transport, heartbeat=10.0)
    pump.open(drain_of(transport))
    times = []
    for wait in (0.1, 12.3, 4.9, 0.2):  # from time to time there is something to say
        await asyncio.sleep(wait)
        pump.write(b"word\n")
        times.append(now())
    spoken_at = now()
    while len(times) < 9:
        transport.wrote.clear()
        await transport.wrote.wait()
        times.append(now())
    assert transport.writes[:2] == [b"word\n", BEAT]
    assert all(later - earlier <= 10.0 for earlier, later in pairwise([spoken_at, *times[4:]]))
    assert times[-1] - times[-2] == 10.0  # nor is there more than is needed
    await pump.close()


async def test_who_answers_no_sign_of_life_is_gone(transport: FakeTransport) -> None:
    pump = make_pump(transport, heartbeat=0.001, answered=True)
    pump.open(drain_of(transport))
    for _ in range(3):
        transport.wrote.clear()
        async with asyncio.timeout(PATIENCE):
            await transport.wrote.wait()
        pump.heard()
    assert await parting(pump) is Parting.GONE
    await pump.close()


async def test_replies_that_nobody_reads_add_up(transport: FakeTransport) -> None:
    pump = make_pump(transport)
    pump.open(drain_of(transport))
    transport.blocked = True
    for _ in range(3 * HIGH_WATER // 1000):
        pump.write(b"x" * 999 + b"\n")
    assert owes_much(pump)
    waiting = asyncio.ensure_future(pump.drained())
    await turn()
    assert not waiting.done()
    transport.unblock()
    async with asyncio.timeout(PATIENCE):
        await waiting
    assert not owes_much(pump)
    await pump.close()


async def test_nothing_follows_once_it_is_closed_not_even_a_late_reply(
    transport: FakeTransport,
) -> None:
    pump = make_pump(transport)
    pump.open(drain_of(transport))
    pump.write(b"in time\n")
    await pump.close()
    pump.write(b"after the close frame\n")
    assert transport.sent == b"in time\n"


async def test_a_connection_that_was_closed_over_a_full_buffer_can_still_be_cut() -> None:
    ours, theirs = socket.socketpair()
    _, near = await asyncio.open_connection(sock=ours)
    reader, far = await asyncio.open_connection(sock=theirs)
    while not near.transport.get_write_buffer_size():
        near.write(b"x" * HIGH_WATER)
    near.close()
    async with asyncio.timeout(PATIENCE):
        await reader.read()
        await near.wait_closed()
    pump = Pump(
        near.transport, lambda frames: frames, beat=BEAT, heartbeat=LONG, stall_timeout=LONG
    )
    pump.abort()
    far.close()
    await far.wait_closed()

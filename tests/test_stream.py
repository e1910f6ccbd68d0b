"""One answer: whatever its readers do, each is given every frame, once and in order."""

from __future__ import annotations

import asyncio
import itertools
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson
import pytest
from explorer import VirtualLoop, in_virtual_time
from fakes import FakeReader, parse, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

import jarvis_stream.stream as stream_module
from jarvis_stream.agents.base import Piece
from jarvis_stream.errors import AnswerTooLong, CursorAhead, StreamRevoked
from jarvis_stream.framelog import FrameLog
from jarvis_stream.frames import Done, Ending, Failed, Status
from jarvis_stream.stream import MAX_PIECE_CHARS, RENEWAL_TIMEOUT, Delivery, Follower, State, Stream


def make(**more: Any) -> Stream:
    """A stream that waits to be activated."""
    return Stream(session_id="s", stream_id="A", trace_id="t", epoch=7, **more)


def begin(**more: Any) -> Stream:
    """A stream that may be appended to."""
    stream = make(**more)
    stream.activate()
    return stream


async def turn() -> None:
    """One turn of the loop: what was appended has been given to the readers."""
    await asyncio.sleep(0)


# A stream's life


@in_virtual_time
async def test_a_stream_is_thinking_then_tokens_then_one_end() -> None:
    stream = begin()
    stream.append("Hello, ")
    stream.append(Status("tool", name="search"))
    stream.append("world")
    assert stream.end(Done("stop"))
    ids = {"stream_id": "A", "trace_id": "t", "epoch": 7}
    assert parse(read_all(stream)) == [
        {
            "type": "status",
            **ids,
            "seq": 1,
            "status": "thinking",
            "session_id": "s",
            "role": "assistant",
            "protocol": 1,
        },
        {"type": "token", **ids, "seq": 2, "text": "Hello, "},
        {"type": "status", **ids, "seq": 3, "status": "tool", "name": "search"},
        {"type": "token", **ids, "seq": 4, "text": "world"},
        {"type": "done", **ids, "seq": 5, "finish_reason": "stop"},
    ]
    assert (stream.text, stream.seq, stream.state) == ("Hello, world", 5, State.ENDED)


@in_virtual_time
async def test_nothing_is_admitted_before_the_beginning_or_after_the_end() -> None:
    stream = make()
    with pytest.raises(StreamRevoked):
        stream.append("too early")
    assert stream.seq == 0
    stream.activate()
    stream.end(Done("stop"))
    for piece in ("too late", "", Status("tool")):
        with pytest.raises(StreamRevoked):
            stream.append(piece)
    with pytest.raises(StreamRevoked):
        stream.activate()
    assert not stream.end(Failed("agent_error", "no", True))
    assert not stream.revoke(Done("cancelled"), "client_stop")
    assert stream.seq == 2
    assert stream.ending == Done("stop")


@in_virtual_time
async def test_a_stream_that_never_spoke_still_begins_and_ends() -> None:
    stream = make()
    stream.revoke(Done("superseded", superseded_by="B"), "registry_new_stream")
    first, last = parse(read_all(stream))
    assert (first["status"], first["seq"]) == ("thinking", 1)
    assert (last["superseded_by"], last["seq"]) == ("B", 2)
    with pytest.raises(StreamRevoked):
        stream.activate()


@in_virtual_time
async def test_the_fence_is_a_cancellation_that_no_except_exception_swallows() -> None:
    assert issubclass(StreamRevoked, asyncio.CancelledError)
    assert not issubclass(StreamRevoked, Exception)


@in_virtual_time
async def test_the_answer_is_given_to_be_kept_once_before_the_terminal_frame() -> None:
    told: list[tuple[str, int]] = []
    kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def keep(stream: Stream, ending: Ending) -> asyncio.Future[bool]:
        told.append((stream.text, stream.seq))
        return kept

    stream = begin(keep=keep)
    stream.append("a")
    assert stream.end(Done("stop"))
    assert not stream.end(Done("length"))
    assert told == [("a", 2)]
    with pytest.raises(StreamRevoked):
        stream.append("b")
    assert (stream.state, stream.seq, stream.ended.done()) == (State.SEALED, 2, False)
    kept.set_result(False)
    await asyncio.wait([stream.ended])
    assert (stream.state, stream.seq) == (State.ENDED, 3)
    last = parse(read_all(stream))[-1]
    assert (last["finish_reason"], last["saved"]) == ("stop", False)


@in_virtual_time
async def test_an_ending_that_cannot_be_encoded_leaves_the_stream_as_it_was() -> None:
    stream = begin()
    with pytest.raises(TypeError):
        stream.end(Done("stop", usage={"tokens": object()}))
    assert (stream.state, stream.ending, stream.seq) == (State.ACTIVE, None, 1)
    assert stream.end(Failed("agent_error", "no", True))


@in_virtual_time
async def test_empty_text_is_no_frame() -> None:
    stream = begin()
    stream.append("")
    assert stream.seq == 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udfff\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\ufeff\ud800", "\ufeff\ufffd"),
    ],
    ids=ascii,
)
@in_virtual_time
async def test_lone_surrogates_become_replacement_characters(text: str, kept: str) -> None:
    stream = begin()
    reader = FakeReader(stream)
    stream.append(text)
    stream.end(Done("stop"))
    await reader.end()
    assert stream.text == reader.text == kept
    assert reader.data == read_all(stream)


@in_virtual_time
async def test_a_text_that_formats_itself_in_its_own_way_is_taken_as_it_is() -> None:
    class Shout(str):
        def __format__(self, spec: str) -> str:
            return self.upper()

        __str__ = __repr__ = str.upper

    stream = begin()
    reader = FakeReader(stream)
    stream.append(Shout("quiet, "))
    stream.append(Shout("please"))
    await turn()
    assert (reader.text, stream.text) == ("quiet, please", "quiet, please")
    assert reader.data == read_all(stream)


@in_virtual_time
async def test_a_piece_that_is_no_piece_is_refused_and_leaves_no_frame() -> None:
    stream = begin()
    for piece in (b"bytes", 7, None, Status("tool", detail=object())):
        with pytest.raises(TypeError):
            stream.append(piece)  # type: ignore[arg-type]
    assert stream.seq == 1


@in_virtual_time
async def test_a_stream_ends_whatever_becomes_of_the_promise_to_keep_it() -> None:
    for spoil in (asyncio.Future.cancel, lambda kept: kept.set_exception(ValueError())):
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        stream = begin(keep=lambda stream, ending, kept=kept: kept)
        assert stream.end(Done("stop"))
        spoil(kept)
        await stream.ended
        assert parse(read_all(stream))[-1]["saved"] is False


@in_virtual_time
async def test_an_answer_is_bounded_and_its_end_still_fits() -> None:
    stream = begin(max_bytes=500)
    stream.append("x" * 300)
    with pytest.raises(AnswerTooLong):
        stream.append("ü" * 51)
    with pytest.raises(AnswerTooLong):
        stream.append(Status("tool", detail="y" * 500))
    assert stream.text == "x" * 300
    assert stream.end(Failed("too_long", "z" * 1000, False))
    assert [frame["seq"] for frame in parse(read_all(stream))] == [1, 2, 3]


# The agent's side


async def agent(*pieces: Piece) -> AsyncGenerator[Piece, None]:
    for piece in pieces:
        yield piece


@in_virtual_time
async def test_an_agent_that_says_nothing_about_its_end_has_stopped() -> None:
    stream = begin()
    assert await stream.produce(agent("a", "b")) == Done("stop")
    assert stream.text == "ab"


@in_virtual_time
async def test_an_agents_own_end_is_taken_and_its_generator_closed() -> None:
    closed = []

    async def speaker() -> AsyncGenerator[Piece, None]:
        try:
            yield "a"
            yield Done("length", usage={"total_tokens": 3})
            yield "never read"
        finally:
            closed.append(True)

    stream = begin()
    assert await stream.produce(speaker()) == Done("length", usage={"total_tokens": 3})
    assert (stream.text, closed) == ("a", [True])


@pytest.mark.parametrize("reason", ["cancelled", "superseded", "shutdown", "whatever"])
@in_virtual_time
async def test_an_agent_cannot_end_with_the_servers_own_reasons(reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        await begin().produce(agent(Done(reason)))


@in_virtual_time
async def test_an_iterator_without_aclose_is_an_agent_too() -> None:
    class Twice:
        left = 2

        def __aiter__(self) -> Twice:
            return self

        async def __anext__(self) -> Piece:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return "a"

    stream = begin()
    await stream.produce(Twice())
    assert stream.text == "aa"


@in_virtual_time
async def test_a_cleanup_is_over_before_the_cancellation_goes_on() -> None:
    cleaned = asyncio.Event()

    async def speaker() -> AsyncGenerator[Piece, None]:
        try:
            yield "a"
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            cleaned.set()

    task = asyncio.ensure_future(begin().produce(speaker()))
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


@pytest.mark.parametrize("piece", ["x", "", Status("tool")], ids=repr)
async def test_an_agent_that_never_waits_lets_others_run(piece: Piece) -> None:
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    async def babbler() -> AsyncGenerator[Piece, None]:
        while others < 5:
            yield piece

    running = asyncio.ensure_future(other())
    stream = begin(max_bytes=2**31)
    await stream.produce(babbler())
    assert others >= 5
    running.cancel()


@in_virtual_time
async def test_an_agent_that_becomes_slow_lets_others_run_after_its_first_slow_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, turns, slow = 0.0, 0, []

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def babbler() -> AsyncGenerator[Piece, None]:
        nonlocal now
        for _ in range(1000):
            yield "quick "
        for _ in range(5):
            now += 2 * stream_module.TURN_BUDGET
            slow.append(turns)
            yield "slow "

    stream = begin()
    running = asyncio.ensure_future(other())
    await turn()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    await stream.produce(babbler())
    running.cancel()
    # The first of a turn has no clock, the second starts it, the third is late.
    assert [later - earlier for earlier, later in itertools.pairwise(slow)] == [1, 0, 0, 1]


# The readers' side


@in_virtual_time
async def test_what_was_appended_in_one_turn_leaves_in_one_write() -> None:
    stream = begin()
    reader = FakeReader(stream)
    await turn()
    before = len(reader.writes)
    for n in range(100):
        stream.append(f"{n} ")
    await turn()
    stream.append("more")
    stream.append("still")
    await turn()
    assert len(reader.writes) == before + 2
    assert reader.data == read_all(stream)


@in_virtual_time
async def test_readers_in_one_turn_share_the_same_bytes() -> None:
    stream = begin()
    readers = [FakeReader(stream) for _ in range(3)]
    await turn()
    stream.append("a")
    stream.append("b")
    await turn()
    assert len({id(reader.writes[-1]) for reader in readers}) == 1


@in_virtual_time
async def test_a_reader_is_told_of_the_end_once_and_then_let_go() -> None:
    stream = begin()
    reader = FakeReader(stream)
    stream.end(Done("stop"))
    await turn()
    assert reader.ends == 1
    assert stream.followers == 0
    assert reader.follower.catch_up()
    assert reader.ends == 1


@in_virtual_time
async def test_a_reader_may_come_after_the_end() -> None:
    stream = begin()
    stream.append("a")
    stream.end(Done("stop"))
    live = read_all(stream)
    for after in range(stream.seq + 1):
        reader = FakeReader(stream, after)
        assert (reader.data, reader.ends) == (read_all(stream, after), 1)
    assert reader.data == b""
    assert live.endswith(read_all(stream, 2))


@in_virtual_time
async def test_a_cursor_past_the_end_is_refused() -> None:
    stream = begin()
    with pytest.raises(CursorAhead):
        FakeReader(stream, 2)
    assert stream.followers == 0


@in_virtual_time
async def test_a_reader_without_room_falls_behind_and_catches_up_from_the_log() -> None:
    stream = begin()
    reader, other = FakeReader(stream), FakeReader(stream)
    reader.full = True
    for n in range(5):
        stream.append(f"{n}")
        await turn()
    assert reader.text == ""
    assert other.text == "01234"
    reader.full = False
    assert reader.follower.catch_up()
    assert reader.data == other.data
    stream.end(Done("stop"))
    await turn()
    assert reader.data == other.data == read_all(stream)


@in_virtual_time
async def test_a_reader_that_is_full_at_the_end_gets_the_end_later() -> None:
    stream = begin()
    reader = FakeReader(stream)
    reader.full = True
    stream.append("a")
    stream.end(Done("stop"))
    await turn()
    assert (reader.ends, stream.followers) == (0, 1)
    reader.full = False
    assert reader.follower.catch_up()
    assert reader.ends == 1
    assert reader.data == read_all(stream)


@in_virtual_time
async def test_a_reader_closed_by_another_in_the_same_turn_is_given_nothing_more() -> None:
    stream = begin(on_disconnect="continue")

    class Closes(FakeReader):
        other: FakeReader | None = None

        def take(self, frames: bytes) -> bool:
            if self.other is not None:
                self.other.leave()
            return super().take(frames)

    first = Closes(stream)
    second = FakeReader(stream)
    await turn()
    first.other = second
    seen = second.data
    stream.append("a")
    stream.end(Done("stop"))
    await turn()
    assert not second.follower.catch_up() or second.data == seen
    assert (second.data, second.ends, second.follower.behind) == (seen, 0, False)
    assert (first.data, first.ends) == (read_all(stream), 1)


@in_virtual_time
async def test_a_reader_that_breaks_its_promise_harms_no_other_stream(
    log_lines: list[str],
) -> None:
    class Broken(FakeReader):
        def take(self, frames: bytes) -> bool:
            if b"token" in frames:
                raise RuntimeError("no reader may raise")
            return super().take(frames)

    delivery = Delivery()
    streams = [begin(delivery=delivery) for _ in range(3)]
    readers = [FakeReader(streams[0]), Broken(streams[1]), FakeReader(streams[2])]
    for stream in streams:
        stream.append("x")
    await turn()
    assert [reader.text for reader in readers] == ["x", "", "x"]
    assert any("stream_not_delivered" in line for line in log_lines)


@in_virtual_time
async def test_an_end_that_comes_while_readers_are_given_frames_is_not_skipped() -> None:
    stream = begin()

    class Ends(FakeReader):
        def take(self, frames: bytes) -> bool:
            if b'"a"' in frames:
                stream.end(Done("stop"))
            return super().take(frames)

    readers = [Ends(stream), FakeReader(stream)]
    await turn()
    stream.append("a")
    await turn()
    await turn()
    for reader in readers:
        assert (reader.data, reader.ends) == (read_all(stream), 1)


@in_virtual_time
async def test_a_reader_that_comes_after_a_gap_in_one_turn_is_given_no_gap() -> None:
    stream = begin(on_disconnect="continue")
    early = FakeReader(stream)
    await turn()
    stream.append("a")
    early.leave()
    stream.append("b")
    late = FakeReader(stream, after=2, full=True)
    stream.append("c")
    late.full = False
    await turn()
    assert late.data == read_all(stream, 2)
    late.leave()


# When nobody is left


@in_virtual_time
async def test_the_last_reader_gone_cancels_the_stream() -> None:
    stream = begin()
    first, second = FakeReader(stream), FakeReader(stream)
    first.leave()
    assert stream.state is State.ACTIVE
    second.leave()
    second.leave()
    assert stream.ending == Done("cancelled")
    assert stream.revoked_for == "client_disconnected"


@in_virtual_time
async def test_a_stream_that_continues_outlives_its_readers_for_a_while() -> None:
    stream = begin(on_disconnect="continue", unwatched_timeout=10.0)
    FakeReader(stream).leave()
    await asyncio.sleep(9.0)
    again = FakeReader(stream, after=1)
    await asyncio.sleep(100.0)
    assert stream.state is State.ACTIVE
    again.leave()
    await asyncio.sleep(9.0)
    assert stream.state is State.ACTIVE
    await asyncio.sleep(1.0)
    assert stream.ending == Done("cancelled")


@in_virtual_time
async def test_a_stream_waits_for_its_last_reader_to_renew_its_sign_in() -> None:
    stream = begin(on_disconnect="cancel")
    reader = FakeReader(stream)
    reader.follower.renewable = True
    reader.leave()
    await asyncio.sleep(RENEWAL_TIMEOUT - 1)
    renewed = FakeReader(stream)
    await asyncio.sleep(2 * RENEWAL_TIMEOUT)
    assert stream.state is State.ACTIVE
    renewed.leave()
    assert stream.ending == Done("cancelled")


@in_virtual_time
async def test_a_stream_does_not_wait_for_a_reader_that_expired_before_the_last_one_left() -> None:
    stream = begin(on_disconnect="cancel")
    expired, last = FakeReader(stream), FakeReader(stream)
    expired.follower.renewable = True
    expired.leave()
    last.leave()
    assert stream.ending == Done("cancelled")


@in_virtual_time
async def test_a_stream_whose_reader_does_not_renew_its_sign_in_is_cancelled() -> None:
    stream = begin(on_disconnect="cancel")
    reader = FakeReader(stream)
    reader.follower.renewable = True
    reader.leave()
    await asyncio.sleep(RENEWAL_TIMEOUT + 1)
    assert stream.ending == Done("cancelled")


@in_virtual_time
async def test_a_stream_that_ends_unwatched_is_not_abandoned_later(log_lines: list[str]) -> None:
    stream = begin(on_disconnect="continue", unwatched_timeout=10.0)
    FakeReader(stream).leave()
    stream.end(Done("stop"))
    await asyncio.sleep(100.0)
    assert (stream.ending, stream.revoked_for) == (Done("stop"), None)
    assert not any("disconnected" in line for line in log_lines)


@in_virtual_time
async def test_a_reader_that_leaves_an_ended_stream_changes_nothing() -> None:
    stream = begin()
    reader = FakeReader(stream)
    reader.full = True
    stream.end(Done("stop"))
    await turn()
    reader.leave()
    assert (stream.ending, stream.revoked_for) == (Done("stop"), None)


# Any readers, at any time

TEXTS = st.text(min_size=0, max_size=12) | st.sampled_from(["\ud800", "\u2028", "\0", '"\\\n'])
DEEDS = st.one_of(
    st.tuples(st.just("say"), TEXTS),
    st.tuples(st.just("status"), st.text(alphabet="ab", min_size=1, max_size=3)),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("come"), st.floats(0, 1)),
    st.tuples(st.just("come full"), st.floats(0, 1)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("fill"), st.integers(0, 9)),
    st.tuples(st.just("drain"), st.integers(0, 9)),
    st.tuples(st.just("catch up"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.none()),
)


class LazyReader(FakeReader):
    """Catches up only when told to."""

    def fell_behind(self, follower: Follower) -> None:
        pass


@given(deeds=st.lists(DEEDS, max_size=60), piece=st.sampled_from([1, 100, 64 * 1024]))
@settings(max_examples=400)
def test_every_reader_is_given_exactly_what_the_log_replays(
    deeds: list[tuple[str, Any]], piece: int
) -> None:
    async def main() -> None:
        stream = begin(on_disconnect="continue")
        readers: list[tuple[int, LazyReader]] = []

        def do(deed: str, detail: Any) -> None:
            if deed == "end":
                stream.end(Done("stop"))
            elif deed in ("come", "come full"):
                after = int(detail * stream.seq)
                readers.append((after, LazyReader(stream, after, full=deed == "come full")))
            elif deed in ("say", "status"):
                if stream.state is State.ACTIVE:
                    stream.append(detail if deed == "say" else Status(detail, detail="x"))
            elif readers:
                _, reader = readers[detail % len(readers)]
                if deed == "leave":
                    reader.leave()
                elif deed == "catch up":
                    reader.follower.catch_up()
                else:
                    reader.full = deed == "fill"

        for deed, detail in deeds:
            if deed == "turn":
                await turn()
            else:
                do(deed, detail)
        stream.end(Done("stop"))
        await turn()
        for after, reader in readers:
            whole = read_all(stream, after)
            if reader.follower.closed and not reader.ends:
                assert whole.startswith(reader.data)
                continue
            reader.full = False
            while reader.follower.behind:
                assert reader.follower.catch_up()
            assert reader.data == whole
            assert reader.ends == 1
        assert stream.followers == 0
        frames = parse(read_all(stream))
        assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
        assert "".join(f["text"] for f in frames if f["type"] == "token") == stream.text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameLog.read, "__defaults__", (piece,))
        VirtualLoop().run(main())


# What it costs


@in_virtual_time
async def test_a_long_answer_is_kept_compactly() -> None:
    tokens, text = 200_000, "word "
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        stream = begin()
        for n in range(tokens):
            stream.append(text)
            if n % 1000 == 0:
                await turn()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 16 * 2**20
    assert stream.size <= 1.25 * tokens * (len(text) + 4)


async def test_a_long_piece_is_cut_at_characters_into_frames_that_every_client_takes() -> None:
    stream = begin()
    text = '"\n\x00\U0001f600' * 50_000
    stream.append(text)
    assert stream.text == text
    assert stream.seq == 1 + -(-len(text) // MAX_PIECE_CHARS)
    seq, whole = 0, b""
    while seq < stream.seq:
        seq, some = stream.read(seq)
        whole += some
    lines = whole.splitlines()
    assert max(map(len, lines)) < 512 * 1024
    frames = [orjson.loads(line) for line in lines]
    assert [frame["seq"] for frame in frames] == list(range(1, stream.seq + 1))
    assert "".join(frame.get("text", "") for frame in frames) == text


async def test_a_long_piece_over_the_bound_leaves_the_answer_as_it_was() -> None:
    stream = begin(max_bytes=100_000)
    stream.append("x" * 60_000)
    seq = stream.seq
    with pytest.raises(AnswerTooLong):
        stream.append("x" * 70_000)
    assert (stream.seq, stream.text_size) == (seq, 60_000)
    stream.append("y")
    assert stream.text_size == 60_001


@pytest.mark.parametrize(
    "fields", [{"a": "x" * 70_000}, {"a": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}, {"n": [1] * 40_000}]
)
async def test_what_an_agent_tells_beside_its_text_is_bounded(fields: dict[str, Any]) -> None:
    stream = begin()
    with pytest.raises(ValueError, match=r"65536|16 levels"):
        stream.append(Status("tool", **fields))
    assert stream.seq == 1

    async def agent() -> AsyncIterator[Done]:
        yield Done("stop", usage=fields)

    with pytest.raises(ValueError, match=r"usage .*(65536|16 levels)"):
        await stream.produce(agent())


async def test_a_streams_size_is_about_what_it_holds_in_memory() -> None:
    def ended(text: str, count: int) -> list[Stream]:
        made = []
        for number in range(count):
            stream = Stream(session_id="s", stream_id=f"A{number}", trace_id="t", epoch=1)
            stream.activate()
            for _ in range(10):
                stream.append(text)
            stream.append(Status("tool", name="search"))
            stream.end(Done("stop"))
            made.append(stream)
        return made

    ended("x", 5)
    for text in ("x", "y" * 2000):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            streams = ended(text, 200)
            await asyncio.sleep(0)
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        counted = sum(stream.size for stream in streams)
        assert 0.5 < counted / held < 2.0

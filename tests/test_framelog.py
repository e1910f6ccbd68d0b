"""The log keeps every frame compactly, and gives back the bytes it was given."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.errors import AnswerTooLong
from jarvis_stream.framelog import FrameLog
from jarvis_stream.frames import FrameEncoder, Status

ENCODER = FrameEncoder("A", "t", 7)


def make(limit: int = 2**20) -> FrameLog:
    return FrameLog(ENCODER, limit)


def read_all(log: FrameLog, after: int, limit: int) -> list[bytes]:
    """What one read after another returns."""
    pieces = []
    while after < log.seq:
        seq, frames = log.read(after, limit)
        assert seq > after
        assert frames.endswith(b"\n")
        after = seq
        pieces.append(frames)
    return pieces


@given(
    pieces=st.lists(st.text(max_size=20) | st.builds(Status, st.sampled_from(["tool", "queued"]))),
    limit=st.integers(1, 1000),
    share=st.floats(0, 1),
)
def test_a_replay_from_any_cursor_gives_the_very_bytes_that_were_live(
    pieces: list[str | Status], limit: int, share: float
) -> None:
    log, live = make(), []
    for piece in pieces:
        if isinstance(piece, Status):
            live.append(ENCODER.status(log.seq + 1, piece))
            log.add_frame(live[-1])
        elif piece:
            log.add_token(piece)
            live.append(ENCODER.token(log.seq, piece))
    assert log.seq == len(live)
    after = int(share * log.seq)
    assert b"".join(read_all(log, after, limit)) == b"".join(live[after:])
    assert log.text == "".join(piece for piece in pieces if isinstance(piece, str))


def test_a_read_returns_one_frame_at_least_and_little_more_than_the_limit() -> None:
    log = make()
    for _ in range(100):
        log.add_token("x" * 50)
    frame = len(log.read(0, 1)[1])
    assert log.read(0, 1)[0] == 1
    assert log.read(99, 1)[0] == 100
    assert log.read(100) == (100, b"")
    assert max(map(len, read_all(log, 0, 10 * frame))) < 11 * frame + 11


def test_an_empty_log_has_nothing() -> None:
    log = make()
    assert (log.seq, log.text, log.size, log.read(0)) == (0, "", 0, (0, b""))


def test_the_limit_counts_bytes_and_leaves_the_log_as_it_was() -> None:
    log = make(limit=10)
    log.add_token("üü")
    log.add_frame(b"12345\n")
    size = log.size
    with pytest.raises(AnswerTooLong):
        log.add_token("x")
    with pytest.raises(AnswerTooLong):
        log.add_frame(b"\n")
    assert (log.seq, log.text, log.size) == (2, "üü", size)
    log.add_frame(b"the end\n", always=True)
    assert log.read(2) == (3, b"the end\n")


def test_a_token_costs_its_bytes_and_four_more() -> None:
    log = make()
    for _ in range(1000):
        log.add_token("ü")
    assert log.size == 1000 * (2 + 4)


def test_a_million_one_character_tokens_stay_small() -> None:
    log = make(limit=2**21)
    tracemalloc.start()
    try:
        for _ in range(1_000_000):
            log.add_token("x")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8 * 2**20
    assert peak < 24 * 2**20

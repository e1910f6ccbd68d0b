"""The names of things: what is minted is recognised, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.ids import (
    SESSION_ID,
    STREAM_ID,
    TraceParent,
    new_session_id,
    new_span_id,
    new_stream_id,
    new_trace_id,
    parse_traceparent,
    trace_id_of,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def test_a_minted_stream_id_is_a_uuid_of_version_7_that_tells_its_time() -> None:
    before = time.time_ns() // 1_000_000
    minted = uuid.UUID(new_stream_id())
    after = time.time_ns() // 1_000_000
    assert (minted.version, minted.variant) == (7, uuid.RFC_4122)
    assert before <= minted.int >> 80 <= after


def test_minted_names_are_recognised_and_never_the_same() -> None:
    minted = {new_stream_id() for _ in range(1000)}
    assert len(minted) == 1000
    assert all(STREAM_ID.fullmatch(name) for name in minted)
    assert SESSION_ID.fullmatch(new_session_id())
    assert new_session_id() != new_session_id()
    assert trace_id_of(f"00-{new_trace_id()}-{PARENT}-01")


def test_a_forked_process_mints_names_of_its_own() -> None:
    code = """
import os
from jarvis_stream.ids import new_trace_id
new_trace_id()
if child := os.fork():
    os.waitpid(child, 0)  # so that their lines do not mix
print(*(new_trace_id() for _ in range(20)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours, theirs = (set(line.split()) for line in done.stdout.splitlines())
    assert len(ours | theirs) == 40


@given(st.uuids())
def test_a_stream_id_is_a_uuid_in_canonical_lower_case(value: uuid.UUID) -> None:
    assert STREAM_ID.fullmatch(str(value))
    assert not STREAM_ID.fullmatch(value.hex)
    assert not STREAM_ID.fullmatch(f"{{{value}}}")
    assert not STREAM_ID.fullmatch(f"{value}\n")
    if (upper := str(value).upper()) != str(value):
        assert not STREAM_ID.fullmatch(upper)


@pytest.mark.parametrize("name", ["a", "A.b_c:d-9", "x" * 128])
def test_a_session_id_may_be(name: str) -> None:
    assert SESSION_ID.fullmatch(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "ä", "a\n", "\u0661"])
def test_a_session_id_may_not_be(name: str) -> None:
    assert not SESSION_ID.fullmatch(name)


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f"  00-{TRACE}-{PARENT}-ff ",
        f"01-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    ],
)
def test_a_valid_traceparent_gives_its_trace_id(header: str) -> None:
    assert trace_id_of(header) == TRACE


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False)])
def test_a_place_in_a_trace_is_read_and_written(flags: str, sampled: bool) -> None:
    place = parse_traceparent(f"00-{TRACE}-{PARENT}-{flags}")
    assert place == TraceParent(TRACE, PARENT, sampled)
    assert str(place) == f"00-{TRACE}-{PARENT}-0{sampled:d}"
    assert parse_traceparent(str(TraceParent(TRACE, new_span_id(), sampled))) is not None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        TRACE,
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-extra",
        f"01-{TRACE}-{PARENT}-01.extra",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0g",
    ],
)
def test_an_invalid_traceparent_gives_none(header: str | None) -> None:
    assert trace_id_of(header) is None


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    assert trace_id_of(text) is None

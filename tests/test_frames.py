"""The words on the wire, byte by byte."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.errors import StreamFailure
from jarvis_stream.frames import Done, Failed, FrameEncoder, Status, json_copy

ENCODER = FrameEncoder("0190-id", "abc", 1_800_000_000_000)
IDS = {"stream_id": "0190-id", "trace_id": "abc", "epoch": 1_800_000_000_000}


def decode(frame: bytes) -> dict[str, Any]:
    """One frame: one line, one object."""
    assert frame.endswith(b"\n")
    assert frame.count(b"\n") == 1
    decoded: dict[str, Any] = orjson.loads(frame)
    return decoded


def test_a_token_is_these_very_bytes() -> None:
    assert ENCODER.token(3, "Hi") == (
        b'{"type":"token","stream_id":"0190-id","trace_id":"abc","epoch":1800000000000,'
        b'"seq":3,"text":"Hi"}\n'
    )


@given(st.text(min_size=1), st.integers(1, 2**32))
def test_whatever_a_token_says_comes_back_on_one_line(text: str, seq: int) -> None:
    frame = ENCODER.token(seq, text)
    assert frame.count(b"\n") == 1
    assert orjson.loads(frame) == {"type": "token", **IDS, "seq": seq, "text": text}


plain = st.text(st.characters(max_codepoint=0x7E))


@given(
    st.lists(plain | st.text(min_size=1) | st.binary(min_size=1), min_size=1),
    st.integers(1, 2**32),
)
def test_many_frames_at_once_are_the_same_bytes_as_one_by_one(
    pieces: list[str | bytes], first: int
) -> None:
    one_by_one = [
        ENCODER.token(seq, piece) if isinstance(piece, str) else piece
        for seq, piece in enumerate(pieces, first)
    ]
    assert ENCODER.frames(first, pieces) == b"".join(one_by_one)


@pytest.mark.parametrize("character", [*map(chr, range(256)), "\u2028", "\uffff", "😀"], ids=ascii)
def test_no_character_is_taken_for_a_plain_one(character: str) -> None:
    texts = ["a", character, "b"]
    frames = ENCODER.frames(7, texts)
    assert frames == b"".join(ENCODER.token(seq, text) for seq, text in enumerate(texts, 7))
    assert [decode(line + b"\n")["text"] for line in frames.split(b"\n")[:-1]] == texts


def test_the_first_frame_names_session_role_and_protocol() -> None:
    assert decode(ENCODER.thinking(1, "s", replaces="r"))["replaces"] == "r"
    assert decode(ENCODER.thinking(1, "s")) == {
        "type": "status",
        **IDS,
        "seq": 1,
        "status": "thinking",
        "session_id": "s",
        "role": "assistant",
        "protocol": 1,
    }


def test_a_status_carries_its_fields() -> None:
    status = Status("tool", name="search", detail="a\nb", step=2, parts=[1, {"x": None}])
    assert decode(ENCODER.status(5, status)) == {
        "type": "status",
        **IDS,
        "seq": 5,
        "status": "tool",
        "name": "search",
        "detail": "a\nb",
        "step": 2,
        "parts": [1, {"x": None}],
    }


@pytest.mark.parametrize("value", [object(), 2**70, {1: 2}], ids=["object", "int", "dict"])
def test_a_status_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        ENCODER.status(5, Status("tool", detail=value))


def test_lone_surrogates_in_a_status_become_replacement_characters() -> None:
    status = Status("to\udcff", **{"na\ud83d\ude00me": ["\ud800", {"\udcff": "a\ud800b"}]})
    frame = decode(ENCODER.status(5, status))
    assert frame["status"] == "to\ufffd"
    assert frame["na\U0001f600me"] == ["\ufffd", {"\ufffd": "a\ufffdb"}]


def test_a_json_copy_shares_nothing_and_is_well_formed() -> None:
    usage = {"tokens": {"in\udcff": 1}, "names": ("a", "\ud800")}
    copy = json_copy(MappingProxyType(usage))
    usage["tokens"] = {}
    assert copy == {"tokens": {"in\ufffd": 1}, "names": ["a", "\ufffd"]}
    assert json_copy(None) is None
    with pytest.raises(TypeError):
        json_copy({"tokens": object()})


class Unspeakable:
    """Cannot be shown as a text."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("code", "sentence", "expected"),
    [
        ("quota", "No\udcff.", Failed("quota", "No\ufffd.", True)),
        ("quota", 7, Failed("quota", "7", True)),
        ("a b\udcff", "No.", Failed("agent_error", "No.", True)),
        (None, "No.", Failed("agent_error", "No.", True)),
        ("x" * 65, "No.", Failed("agent_error", "No.", True)),
        ("quota", Unspeakable(), Failed("agent_error", StreamFailure.sentence, True)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_makes_an_ending_that_can_be_encoded(
    code: Any, sentence: Any, expected: Failed
) -> None:
    failure = StreamFailure(retryable=1)  # type: ignore[arg-type]
    failure.code, failure.sentence = code, sentence  # type: ignore[misc]
    ending = Failed.of(failure)
    assert ending == expected
    assert type(ending.retryable) is bool
    assert decode(ENCODER.ending(5, ending))["error"] == expected.error


@pytest.mark.parametrize(
    "name",
    ["type", "stream_id", "trace_id", "epoch", "seq", "status", "session_id", "role", "protocol"],
)
def test_a_status_cannot_take_the_protocols_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' belongs to the protocol"):
        Status("tool", **{name: "x"})


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_status_needs_a_name(name: Any) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Status(name)


def test_statuses_compare_and_show_what_they_say() -> None:
    status = Status("tool", name="search")
    assert status == Status("tool", name="search")
    assert hash(status) == hash(Status("tool", name="search"))
    assert status != Status("tool", name="other")
    assert status != "tool"
    assert repr(status) == "Status('tool', name='search')"


@pytest.mark.parametrize(
    ("ending", "fields"),
    [
        (Done(), {"type": "done", "finish_reason": "stop"}),
        (
            Done("length", usage={"total_tokens": 3}),
            {"type": "done", "finish_reason": "length", "usage": {"total_tokens": 3}},
        ),
        (
            Done("superseded", superseded_by="B"),
            {"type": "done", "finish_reason": "superseded", "superseded_by": "B"},
        ),
        (
            Failed("too_long", "It grew too long.", False),
            {"type": "error", "code": "too_long", "error": "It grew too long.", "retryable": False},
        ),
    ],
    ids=["stop", "length", "superseded", "error"],
)
def test_an_ending_says_why(ending: Done | Failed, fields: dict[str, Any]) -> None:
    assert decode(ENCODER.ending(9, ending)) == {**fields, **IDS, "seq": 9}


def test_the_sequence_number_stands_before_whatever_an_agent_says() -> None:
    frame = ENCODER.status(5, Status("tool", detail='","seq":99,"x":"'))
    assert decode(frame)["seq"] == 5

"""What a client sent becomes plain, valid values, or a refusal that names what is wrong."""

from __future__ import annotations

import time
from typing import Any

import pytest

from jarvis_stream.errors import ForeignOrigin, Invalid, Malformed, NotFound
from jarvis_stream.ids import TraceParent
from jarvis_stream.registry import Opening
from jarvis_stream.transports.requests import (
    MAX_CURSOR,
    check_origin,
    parse_object,
    parse_opening,
    parse_position,
    parse_query,
    parse_title,
    shorten,
)

STREAM = "0195f1a0-0000-7000-8000-000000000000"
OTHER = "0195f1a0-0000-7000-8000-000000000001"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def opening(**fields: Any) -> Opening:
    fields = {"prompt": "hello", **fields}
    return parse_opening(fields, transport="http", traceparent=None, max_prompt_chars=10)


def test_a_prompt_is_all_a_request_needs() -> None:
    minted = opening()
    assert minted.prompt == "hello"
    assert minted.session_id is None
    assert (minted.after, minted.on_conflict, minted.on_disconnect) == (0, "interrupt", "cancel")
    assert parse_position(minted.stream_id, None, None) == (minted.stream_id, 0)
    assert minted.stream_id != opening().stream_id
    assert minted.trace_id != opening().trace_id


def test_what_the_client_brings_is_taken() -> None:
    fields = {
        "prompt": " hello ",
        "session_id": "a.b:c-D_1",
        "stream_id": STREAM,
        "after": 3,
        "on_conflict": "reject",
        "on_disconnect": "continue",
        "replaces": OTHER,
        "unknown": {"is": "ignored"},
    }
    made = parse_opening(
        fields,
        transport="websocket",
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        max_prompt_chars=10,
    )
    assert made == Opening(
        prompt=" hello ",
        session_id="a.b:c-D_1",
        stream_id=STREAM,
        trace_id=TRACE,
        parent=TraceParent(TRACE, "00f067aa0ba902b7"),
        after=3,
        on_conflict="reject",
        on_disconnect="continue",
        transport="websocket",
        may_be_known=True,
        replaces=OTHER,
    )


def test_null_is_as_good_as_absent() -> None:
    names = ("session_id", "stream_id", "after", "on_conflict", "on_disconnect", "replaces")
    assert opening(**dict.fromkeys(names)).session_id is None


WRONG: dict[str, list[Any]] = {
    "prompt": [None, "", " \n", 5, True, [], {}, "x" * 11],
    "session_id": ["", "a b", "a\n", "é", "x" * 129, 5, [], False],
    "stream_id": ["", STREAM.upper(), STREAM + "\n", "{" + STREAM + "}", 5, [], False],
    "replaces": ["", STREAM.upper(), "x", 5, [], False],
    "after": [-1, 1.0, "1", True, MAX_CURSOR + 1, [], float("inf")],
    "on_conflict": ["", "REJECT", "later", 1, [], {}],
    "on_disconnect": ["", "stop", 1, ["cancel"]],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_wrong_field_is_named_with_what_is_allowed(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as refused:
        opening(**{field: value})
    sentence = refused.value.sentence
    assert sentence.startswith(field + ": ")
    assert "allowed" in sentence or "required" in sentence
    assert sentence.isprintable()
    assert len(sentence) < 300


@pytest.mark.parametrize(
    ("title", "taken"),
    [
        ("x", "x"),
        (" a\t\r\n b\u2028c\x1cd ", "a b c d"),
        ("x" * 200 + "  ", "x" * 200),
        ("é👩‍🚀\u202e", "é👩‍🚀\u202e"),
    ],
)
def test_a_title_is_put_on_one_line(title: str, taken: str) -> None:
    assert parse_title({"title": title}) == taken


@pytest.mark.parametrize("title", [None, 5, "", "\n", "x" * 201, "\x00", "a\x1bb", "\x7f", "\x9f"])
def test_what_is_no_title_is_refused(title: object) -> None:
    with pytest.raises(Invalid, match=r"^title: ") as refused:
        parse_title({"title": title})
    assert refused.value.sentence.isprintable()


def test_a_query_is_what_is_between_the_blanks() -> None:
    assert parse_query(None) is parse_query("") is parse_query(" \n") is None
    assert parse_query(" a  b ") == "a  b"
    assert parse_query("x" * 200 + " ") == "x" * 200
    with pytest.raises(Invalid, match=r"^q: 201 "):
        parse_query("x" * 201)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"x"',
        b"{} {}",
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud8"}',
        b'{"a":"' + b"\\ud800" * 101 + b'"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        "{}".encode("utf-16"),
    ],
)
def test_what_is_no_json_object_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        parse_object(raw)
    assert refused.value.sentence.isprintable()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb"hello \ud83d", "hello \ufffd"),
        (rb"\ude00 hello", "\ufffd hello"),
        (rb"\uD83Dx\uDE00", "\ufffdx\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\n\u0041\ud83d\n", "\nA\ufffd\n"),
    ],
)
@pytest.mark.parametrize("kind", [bytes, str])
def test_half_an_emoji_becomes_a_replacement_character(raw: bytes, text: str, kind: type) -> None:
    body = b'{"prompt": "' + raw + b'"}'
    assert parse_object(body if kind is bytes else body.decode()) == {"prompt": text}


def test_a_large_broken_body_is_refused_in_linear_time() -> None:
    started = time.process_time()
    for raw in (rb"\n" * 500_000, rb"\ud800" * 150_000, rb"\ud83d\ude00" * 80_000 + b'"'):
        with pytest.raises(Malformed):
            parse_object(b'{"a": "' + raw)
    assert time.process_time() - started < 5


def test_a_malformed_body_is_not_quoted() -> None:
    with pytest.raises(Malformed) as refused:
        parse_object(b'{"api_key": "hunter2", oops}')
    assert "hunter2" not in refused.value.sentence


@pytest.mark.parametrize("digits", [b"9" * 6000, b"-" + b"9" * 6000, b"1e400", b"2e18"])
def test_a_number_beyond_measure_is_refused_one_way_or_the_other(digits: bytes) -> None:
    with pytest.raises((Malformed, Invalid)):
        opening(**parse_object(b'{"after":' + digits + b"}"))


@pytest.mark.parametrize(
    ("after", "last_event_id", "seq"),
    [(None, None, 0), ("7", None, 7), (None, "7", 7), ("7", "3", 7), ("0", "3", 0)],
)
def test_a_position_comes_from_the_query_or_the_header(
    after: str | None, last_event_id: str | None, seq: int
) -> None:
    assert parse_position(STREAM, after, last_event_id) == (STREAM, seq)


@pytest.mark.parametrize(
    "after", ["", "-1", "+1", "1.0", " 1", "1\n", "٣", "9" * 16, "9" * 6000, "\udcff"]
)
def test_a_wrong_position_is_refused(after: str) -> None:
    for position in ((after, None), (None, after)):
        with pytest.raises(Invalid, match=r"^after: "):
            parse_position(STREAM, *position)


@pytest.mark.parametrize("stream_id", ["", "x", STREAM.upper(), STREAM + "\n", "\r\n\x1b[31m"])
def test_what_cannot_be_a_stream_is_unknown(stream_id: str) -> None:
    with pytest.raises(NotFound) as refused:
        parse_position(stream_id, None, None)
    assert refused.value.sentence.isprintable()


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        (None, "chat.example", True),
        ("https://chat.example", "chat.example", True),
        ("http://chat.example:8765", "chat.example:8765", True),
        ("http://[::1]:8765", "[::1]:8765", True),
        ("https://friend.example", "chat.example", True),
        ("http://friend.example", "chat.example", False),
        ("https://friend.example.enemy", "chat.example", False),
        ("https://chat.example.enemy", "chat.example", False),
        ("https://chat.example:444", "chat.example", False),
        ("https://chat.example@enemy.example", "chat.example", False),
        ("null", "null", False),
        ("", "chat.example", False),
        ("chat.example", "chat.example", False),
        ("http://[", "chat.example", False),
    ],
)
def test_a_page_may_ask_if_it_is_ours_or_a_friends(origin: str, host: str, welcome: bool) -> None:
    if welcome:
        check_origin(origin, host, {"https://friend.example"})
    else:
        with pytest.raises(ForeignOrigin):
            check_origin(origin, host, {"https://friend.example"})


@pytest.mark.parametrize("value", ["", "plain", "x" * 500, "\r\n\x1b", "\ud800", "\u202e", "é"])
def test_a_shortened_text_is_short_and_printable(value: str) -> None:
    shown = shorten(value)
    assert shown.isprintable()
    assert len(shown) <= 80
    shown.encode()

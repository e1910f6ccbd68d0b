"""Half characters in an upstream's JSON: joined across events, or replaced."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jarvis_stream.agents.surrogates import SurrogateDecoder, loads, whole

PLACE = ("choices", 0, "delta", "content")


def event(text: str) -> bytes:
    """One event; json escapes surrogates as servers that are written in JavaScript do."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()


def read(*texts: str) -> str:
    decoder = SurrogateDecoder()
    pieces = [decoder.loads(event(text))["choices"][0]["delta"]["content"] for text in texts]
    return "".join(pieces) + decoder.flush(*PLACE)


@pytest.mark.parametrize(
    ("texts", "whole_text"),
    [
        (["Hi ", "\ud83d", "\ude00", " there"], "Hi 😀 there"),
        (["Hi \ud83d", "\ude00 there"], "Hi 😀 there"),
        (["\ud83d", "", "\ude00"], "😀"),
        (["\ud83d", "x"], "\ufffdx"),
        (["\ud83d", "\ud83d\ude00"], "\ufffd😀"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
        (["\ude00"], "\ufffd"),
        (["x\ud83dy"], "x\ufffdy"),
        (["x", "\ud83d"], "x\ufffd"),
        (["\ud83d\ude00"], "😀"),
        (["plain", "é"], "plainé"),
    ],
)
def test_halves_are_joined_or_replaced(texts: list[str], whole_text: str) -> None:
    assert read(*texts) == whole_text


UNITS = st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "\U0001f600", "é"]), max_size=8)


@given(UNITS, st.lists(st.integers(0, 12), max_size=4))
@example(["\ud83d", "\ude00"], [1])
def test_the_text_does_not_depend_on_where_it_is_cut(units: list[str], at: list[int]) -> None:
    units = [half for unit in units for half in halves(unit)]
    places = sorted({0, len(units), *(place % (len(units) + 1) for place in at)})
    texts = ["".join(units[a:b]) for a, b in pairwise(places)]
    text = read(*texts)
    assert text == whole("".join(units))
    assert not any("\ud800" <= character <= "\udfff" for character in text)


def halves(unit: str) -> list[str]:
    raw = unit.encode("utf-16-le", "surrogatepass")
    return [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]


def test_every_string_of_an_event_can_be_sent_on() -> None:
    half = "\ud83d"
    sent: dict[str, Any] = {
        half: half,
        "error": {"message": half},
        "usage": {f"a{half}": [half, 1, None, True, 1.5]},
        "choices": [
            {
                "finish_reason": half,
                "delta": {"tool_calls": [{"function": {"name": half}}], "reasoning": half},
            }
        ],
    }
    orjson.dumps(SurrogateDecoder().loads(json.dumps(sent).encode()))


def test_surrogates_in_utf8_are_joined_too() -> None:
    raw = '{"text":"\ud83d\ude00"}'.encode(errors="surrogatepass")
    assert SurrogateDecoder().loads(raw) == {"text": "😀"}


@pytest.mark.parametrize(
    "payload", [b"", b"{", b'{"a": NaN}', b'{"a":"\\ud83d"', b'{"\\ud83d":\xff}', b"[" * 50_000]
)
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    for decode in (loads, SurrogateDecoder().loads):
        with pytest.raises(ValueError):  # noqa: PT011
            decode(payload)


@pytest.mark.parametrize("depth", [500, 900, 990, 5_000, 100_000])
def test_deep_json_is_decoded_or_refused(depth: int) -> None:
    payload = b"[" * depth + b'"\\ud83d"' + b"]" * depth
    with contextlib.suppress(ValueError):
        SurrogateDecoder().loads(payload)

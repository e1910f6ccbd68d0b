"""The separation of reasoning from the answer, at every boundary."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.agents.conversation import without_reasoning
from jarvis_stream.agents.reasoning import (
    TAGS,
    ReasoningSplitter,
    reasoning_of,
    split_content,
)


def split(*pieces: str) -> tuple[str, str]:
    splitter = ReasoningSplitter()
    parts = [(piece, "") if splitter.is_answer else splitter.feed(piece) for piece in pieces]
    parts.append(splitter.end())
    return "".join(text for text, _ in parts), "".join(reasoning for _, reasoning in parts)


CASES = [
    ("<think>\nHm.\n</think>\n\nParis.", "Paris.", "\nHm.\n"),
    ("\n <think>Hm.</think>Paris <think>x</think>", "Paris <think>x</think>", "Hm."),
    ("<think></think>\n\nParis", "Paris", ""),
    ("<think>a</think>\n<think>b</think>c", "c", "ab"),
    ("<thinking>a</think></thinking>b", "b", "a</think>"),
    ("<thought>a</thought>b", "b", "a"),
    ("[THINK]a[/THINK]b", "b", "a"),
    ("<think>only", "", "only"),
    ("<think>only</thi", "", "only</thi"),
    ("<think>a</think>  ", "", "a"),
    ("<thin ice", "<thin ice", ""),
    ("<thi", "<thi", ""),
    ("The <think> tag", "The <think> tag", ""),
    (" \n", " \n", ""),
    ("  text", "  text", ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "answer", "reasoning"), CASES)
def test_the_answer_is_the_same_wherever_the_text_is_cut(
    text: str, answer: str, reasoning: str
) -> None:
    assert split(text) == (answer, reasoning)
    assert split(*text) == (answer, reasoning)
    for at in range(len(text)):
        assert split(text[:at], text[at:]) == (answer, reasoning)


@given(pieces=st.lists(st.sampled_from([*TAGS, *TAGS.values(), "<", "/", "a", " "]), max_size=12))
def test_tags_in_any_order_split_the_same_wherever_they_are_cut(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert split(*text) == split(*pieces) == split(text)


def test_many_reasonings_in_one_piece_take_linear_time() -> None:
    began = time.monotonic()
    assert split("<think>a</think>" * 100_000 + "b") == ("b", "a" * 100_000)
    assert without_reasoning("<think>a</think>" * 100_000 + "b") == "b"
    assert time.monotonic() - began < 10  # quadratic time is half a minute


def test_a_flood_of_white_space_is_not_held_back() -> None:
    splitter = ReasoningSplitter()
    held = sum(len(splitter.feed(" ")[0]) for _ in range(5000) if not splitter.is_answer)
    assert splitter.is_answer
    assert held == 1000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("x", ("x", "")),
        (["x", {"type": "text", "text": "y"}], ("xy", "")),
        ({"type": "text", "text": "y"}, ("y", "")),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}], ("", "t")),
        ([{"type": "reasoning", "text": "t"}, {"type": "text", "text": "y"}], ("y", "t")),
        ([{"type": "reference", "reference_ids": [1]}, "x"], ("x", "")),
        ([{"type": "image_url", "image_url": {"url": "u"}}], ("", "")),
        ([{"type": "refusal", "refusal": "no"}], ("no", "")),
        ([{"type": "text", "text": None}], ("", "")),
        ([], ("", "")),
    ],
)
def test_a_content_is_text_and_reasoning(content: Any, expected: tuple[str, str]) -> None:
    assert split_content(content) == expected


@pytest.mark.parametrize("content", [5, True, [5], [None], [["x"]]])
def test_a_content_of_another_kind_is_an_error(content: Any) -> None:
    with pytest.raises(TypeError, match="content"):
        split_content(content)


@pytest.mark.parametrize(
    ("delta", "reasoning"),
    [
        ({"reasoning_content": "a"}, "a"),
        ({"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]}, "a"),
        ({"reasoning_details": [{"text": "a"}, {"type": "reasoning.encrypted", "data": "x"}]}, "a"),
        ({"reasoning_content": None, "content": "x"}, ""),
        ({"reasoning": 5}, ""),
    ],
)
def test_reasoning_in_a_field_of_its_own_is_read(delta: dict[str, Any], reasoning: str) -> None:
    assert reasoning_of(delta) == reasoning

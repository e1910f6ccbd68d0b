"""What every history promises, and what the one in memory promises besides."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.history.base import History
from jarvis_stream.history.memory import MemoryHistory


@pytest.fixture(params=[MemoryHistory])
def history(request: pytest.FixtureRequest) -> History:
    """One of each backend."""
    backend: History = request.param()
    return backend


# The contract


def test_an_unknown_session_is_empty(history: History) -> None:
    assert history.turns("s") == []
    assert history.messages("s") == []


def test_a_question_is_there_before_its_answer(history: History) -> None:
    before = time.time()
    history.begin("s", "A", "Why?")
    (turn,) = history.turns("s")
    assert (turn.stream_id, turn.prompt, turn.text, turn.status) == ("A", "Why?", "", "streaming")
    assert before <= turn.created_at <= time.time()
    assert history.messages("s") == [{"role": "user", "content": "Why?"}]


def test_turns_and_messages_are_told_oldest_first(history: History) -> None:
    for name in "AB":
        history.begin("s", name, f"{name}?")
        history.finish("s", name, f"{name}!", "complete")
    assert [turn.stream_id for turn in history.turns("s")] == ["A", "B"]
    assert history.messages("s") == [
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": "A!"},
        {"role": "user", "content": "B?"},
        {"role": "assistant", "content": "B!"},
    ]


@pytest.mark.parametrize("status", ["cancelled", "superseded", "error", "interrupted"])
def test_the_partial_text_of_a_stopped_answer_is_kept(history: History, status: str) -> None:
    history.begin("s", "A", "Why?")
    history.finish("s", "A", "Because", status)
    (turn,) = history.turns("s")
    assert (turn.text, turn.status) == ("Because", status)
    assert history.messages("s")[-1] == {"role": "assistant", "content": "Because"}


def test_an_answer_that_never_spoke_is_no_message(history: History) -> None:
    history.begin("s", "A", "Why?")
    history.finish("s", "A", "", "superseded")
    history.begin("s", "B", "And?")
    assert [message["role"] for message in history.messages("s")] == ["user", "user"]


def test_an_older_answer_may_end_after_a_newer_question(history: History) -> None:
    history.begin("s", "A", "Why?")
    history.begin("s", "B", "And?")
    history.finish("s", "A", "Because", "superseded")
    assert [turn.text for turn in history.turns("s")] == ["Because", ""]
    assert history.messages("s")[-1] == {"role": "user", "content": "And?"}


def test_sessions_are_apart(history: History) -> None:
    history.begin("s", "A", "Why?")
    history.begin("t", "B", "How?")
    history.finish("t", "A", "not this one's", "complete")
    assert [turn.text for turn in history.turns("s")] == [""]
    assert [turn.stream_id for turn in history.turns("t")] == ["B"]


def test_an_answer_without_a_question_is_dropped(history: History) -> None:
    history.finish("s", "A", "Because", "complete")
    assert history.turns("s") == []


def test_what_was_told_does_not_change_what_is_kept(history: History) -> None:
    history.begin("s", "A", "Why?")
    history.turns("s").clear()
    history.messages("s").clear()
    assert len(history.turns("s")) == len(history.messages("s")) == 1


# In memory


def test_the_sessions_used_last_are_kept() -> None:
    history = MemoryHistory(max_sessions=2)
    for session_id in ("s", "t", "s", "u"):
        history.begin(session_id, "A", "Why?")
    assert [len(history.turns(session_id)) for session_id in "stu"] == [2, 0, 1]


def test_the_newest_messages_are_kept() -> None:
    history = MemoryHistory(max_messages=4)
    for name in "ABC":
        history.begin("s", name, "Why?")
        history.finish("s", name, "Because", "complete")
    assert [turn.stream_id for turn in history.turns("s")] == ["B", "C"]
    history.finish("s", "A", "too late", "complete")
    assert len(history.messages("s")) == 4


def test_the_newest_turn_is_kept_whatever_its_length() -> None:
    history = MemoryHistory(max_chars=10)
    history.begin("s", "A", "x" * 5)
    history.begin("s", "B", "y" * 100)
    assert [turn.stream_id for turn in history.turns("s")] == ["B"]
    history.finish("s", "B", "z" * 1000, "complete")
    assert len(history.messages("s")[-1]["content"]) == 1000


@given(st.lists(st.tuples(st.sampled_from("stuv"), st.text(max_size=30), st.text(max_size=30))))
def test_the_bounds_hold_after_every_turn(turns: list[tuple[str, str, str]]) -> None:
    history = MemoryHistory(max_sessions=3, max_messages=6, max_chars=50)
    for n, (session_id, prompt, text) in enumerate(turns):
        history.begin(session_id, str(n), prompt)
        history.finish(session_id, str(n), text, "complete")
        messages = history.messages(session_id)
        assert len(messages) <= 6
        chars = sum(len(message["content"]) for message in messages)
        assert chars <= 50 or len(history.turns(session_id)) == 1
        assert history.turns(session_id)[-1].stream_id == str(n)
        assert sum(bool(history.turns(other)) for other in "stuv") <= 3

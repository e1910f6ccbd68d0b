"""The messages that a model's server receives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.agents.conversation import (
    alternating,
    shortened,
    with_system_prompt,
    without_reasoning,
)
from jarvis_stream.frames import Message


def said(*texts: str) -> list[Message]:
    """Messages from texts that begin with "u:", "a:" or "s:"."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[text[0]], "content": text[2:]} for text in texts]


def test_a_question_without_an_answer_is_joined_with_the_next() -> None:
    messages = said("u:1", "a:one", "u:2", "u:3")
    assert alternating(messages) == said("u:1", "a:one", "u:2\n\n3")


def test_an_empty_answer_is_left_out() -> None:
    assert alternating(said("u:1", "a: ", "u:2")) == said("u:1\n\n2")


def test_an_answer_before_the_first_question_is_left_out() -> None:
    assert alternating(said("s:be brief", "a:hello", "u:1")) == said("s:be brief", "u:1")


MESSAGES = st.lists(
    st.builds(
        lambda role, content: Message(role=role, content=content),
        st.sampled_from(["user", "assistant"]),
        st.sampled_from(["", " ", "x", "<think>y</think>", "<think>y</think>z"]),
    ),
    max_size=12,
)


@given(messages=MESSAGES)
def test_roles_alternate_and_the_user_begins_and_ends(messages: list[Message]) -> None:
    given = [message.copy() for message in messages]
    roles = [message["role"] for message in alternating([*messages, *said("u:last")])]
    assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
    assert roles[-1] == "user"
    assert messages == given


def test_reasoning_is_not_sent_back() -> None:
    answer = "<think>\nsecret\n</think>\n\nParis."
    assert alternating(said("u:1", f"a:{answer}", "u:2"))[1]["content"] == "Paris."


def test_tags_inside_an_answer_stay() -> None:
    answer = "Write <think>x</think> first."
    assert without_reasoning(answer) == answer
    assert without_reasoning("<think>without an end") == "<think>without an end"
    assert without_reasoning("[THINK]a[/THINK]<thought>b</thought> c") == "c"


def test_the_system_prompt_is_first_or_part_of_the_first_question() -> None:
    messages = said("u:1", "a:one", "u:2")
    system = with_system_prompt(messages, "be brief", as_message=True)
    assert system == said("s:be brief", "u:1", "a:one", "u:2")
    merged = with_system_prompt(messages, "be brief", as_message=False)
    assert merged == said("u:be brief\n\n1", "a:one", "u:2")
    assert with_system_prompt(messages, None, as_message=True) == messages


def test_a_shorter_conversation_keeps_the_newest_messages() -> None:
    messages = said("u:" + "1" * 10, "a:" + "2" * 10, "u:" + "3" * 10, "a:" + "4" * 10, "u:last")
    assert shortened(messages, 0.75) == messages[1:]
    assert shortened(messages, 0.5) == messages[2:]
    assert shortened(messages, 0.3) == messages[3:]
    assert shortened(messages, 0) == messages[4:]
    assert shortened(messages[4:], 0.5) == messages[4:]

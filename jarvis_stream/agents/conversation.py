"""The messages for a model's server: alternating roles, no reasoning, a bounded length."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from jarvis_stream.agents.reasoning import TAGS
from jarvis_stream.frames import Message

# What a model wrote before its answer, where a server without a reasoning parser left it.
_TAGGED: Final = "|".join(f"{re.escape(first)}.*?{re.escape(last)}" for first, last in TAGS.items())
_REASONING: Final = re.compile(rf"\s*(?:{_TAGGED})\s*", re.DOTALL)


def without_reasoning(answer: str) -> str:
    """Return the answer without the tagged reasoning at its beginning."""
    start = 0
    while match := _REASONING.match(answer, start):
        start = match.end()
    return answer[start:]


def alternating(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with user and assistant in turns, the user first.

    Many chat templates reject anything else. A question without an answer (stopped, failed,
    superseded) is joined with the next question. Empty messages, and answers before the first
    question, are left out.
    """
    kept: list[tuple[str, str]] = []
    asked = False
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "assistant":
            content = without_reasoning(content)
        if not content.strip() or (role == "assistant" and not asked):
            continue
        asked = asked or role == "user"
        kept.append((role, content))
    return [
        {"role": role, "content": "\n\n".join(content for _, content in group)}
        for role, group in groupby(kept, key=itemgetter(0))
    ]


def shortened(messages: Sequence[Message], share: float) -> list[Message]:
    """Return the last message, and as many before it as fit in a share of their characters.

    The oldest messages are left out first. `share` is between 0 and 1.
    """
    *earlier, last = messages
    room = share * sum(len(message["content"]) for message in earlier)
    kept = [last]
    for message in reversed(earlier):
        room -= len(message["content"])
        if share == 0 or room < 0:
            break
        kept.append(message)
    return kept[::-1]


def with_system_prompt(
    messages: Sequence[Message], prompt: str | None, *, as_message: bool
) -> list[Message]:
    """Return the messages with the system prompt before them.

    `as_message=False` puts it, and every other system message, into the user's next message: for
    models whose template has no system role.
    """
    whole = [*messages]
    if prompt:
        whole.insert(0, {"role": "system", "content": prompt})
    if not as_message:
        whole = [
            {**message, "role": "user"} if message["role"] == "system" else message
            for message in whole
        ]
    return alternating(whole)

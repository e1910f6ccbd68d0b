"""Separation of a model's reasoning from its answer.

Servers without a reasoning parser leave the reasoning in the content, between tags; others send
the content as a list of parts. Both become two texts: the answer and the reasoning.
"""

from __future__ import annotations

import re
from typing import Any, Final

TAGS: Final = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
}
_MAX_TAG: Final = max(map(len, TAGS)) + 1
"""Characters that tell whether a text is less than a tag."""
_NOT_BLANK: Final = re.compile(r"\S")
_MAX_BLANK: Final = 1000
"""Characters of white space before the answer that are held back; more is text."""


class ReasoningSplitter:
    """Splits the beginning of an answer, in pieces cut anywhere, into answer and reasoning.

    Only tags before the first word of the answer count: later ones are what the answer is about.
    When `is_answer` is True, everything that follows is answer, and needs no splitter.
    """

    __slots__ = ("_closing", "_held", "_reasoned", "is_answer")

    def __init__(self) -> None:
        self._held = ""
        self._closing: str | None = None
        self._reasoned = False
        self.is_answer = False

    def feed(self, text: str) -> tuple[str, str]:
        """Return what the next piece adds to the answer, and to the reasoning."""
        text = self._held + text
        self._held = ""
        start = 0
        reasoning: list[str] = []
        while not self.is_answer:
            if self._closing is None:
                begun = _NOT_BLANK.search(text, start)
                at = begun.start() if begun else len(text)
                for opening, closing in TAGS.items():
                    if text.startswith(opening, at):
                        self._closing, self._reasoned = closing, True
                        start = at + len(opening)
                        break
                else:
                    rest = text[at : at + _MAX_TAG]
                    if len(text) - start < _MAX_BLANK and any(tag.startswith(rest) for tag in TAGS):
                        self._held = text[start:]
                        return "", "".join(reasoning)
                    self.is_answer = True
                    start = at if self._reasoned else start
            else:
                found = text.find(self._closing, start)
                if found < 0:
                    kept = len(text) - _overlap(text, self._closing)
                    self._held = text[kept:]
                    reasoning.append(text[start:kept])
                    return "", "".join(reasoning)
                reasoning.append(text[start:found])
                start = found + len(self._closing)
                self._closing = None
        return text[start:], "".join(reasoning)

    def end(self) -> tuple[str, str]:
        """Return what was held back: the answer ends here."""
        held, self._held = self._held, ""
        if self._closing is not None:
            return "", held
        return held.lstrip() if self._reasoned else held, ""


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the tag."""
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)


def split_content(content: Any) -> tuple[str, str]:
    """Return the text and the reasoning of a content: a string, a part, or a list of parts.

    Parts that are neither (references, images) are left out. Raises TypeError for anything else.
    """
    if isinstance(content, str):
        return content, ""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise TypeError(f"content is {type(content).__name__}")
    texts, reasoning = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict):
            raise TypeError(f"a part of the content is {type(part).__name__}")
        elif part.get("type") in ("thinking", "reasoning"):
            thought = part.get("thinking") or part.get("reasoning") or part.get("text")
            reasoning.append(_plain(thought))
        else:
            texts.append(_plain(part.get("text") or part.get("refusal")))
    return "".join(texts), "".join(reasoning)


def reasoning_of(delta: dict[str, Any]) -> str:
    """Return the reasoning that a delta carries in a field of its own."""
    for name in ("reasoning_content", "reasoning", "reasoning_details", "thinking"):
        if value := delta.get(name):
            return _plain(value)
    return ""


def _plain(value: Any) -> str:
    """Return the text of a string, of a part, or of a list of both; "" for anything else."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))

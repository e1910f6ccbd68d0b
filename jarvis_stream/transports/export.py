"""A session as a Markdown file, in which only its own parts are headings of the first two levels.

A question is not written as Markdown: what would make one of its lines a heading is escaped. And
whatever is left open at the end of a text, as in a stopped answer, is closed there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from jarvis_stream.history.base import TurnRecord

_FENCE: Final = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)")
_HEADING: Final = re.compile(r"( {0,3})(#{1,6}(?:[ \t]|$)|=+[ \t]*$|-+[ \t]*$)")


def to_markdown(title: str, turns: Iterable[TurnRecord]) -> str:
    """The file's text."""
    parts = [f"# {title}"]
    for turn in turns:
        parts += ["## User", _closed(turn.prompt, escape=True)]
        parts += ["## Assistant", _closed(turn.text, escape=False)]
        if turn.status != "complete":
            parts.append(f"*({turn.status})*")
    return "\n\n".join(part for part in parts if part) + "\n"


def _closed(text: str, *, escape: bool) -> str:
    """The text, its last code block closed, and headings escaped if they are to be."""
    lines = []
    fence = ""
    for line in text.split("\n"):
        if found := _FENCE.match(line):
            if not fence:
                fence = found[1]
            elif found[1].startswith(fence) and not found[2].strip():
                fence = ""
        elif escape and not fence:
            line = _HEADING.sub(r"\1\\\2", line, count=1) if _HEADING.match(line) else line
        lines.append(line)
    return "\n".join([*lines, fence] if fence else lines)

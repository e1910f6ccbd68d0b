"""A session as a Markdown file: one section per message, and no text that reaches out of its own.

Every line of a message is in a block quote. In CommonMark nothing that a quote leaves open (a
fence, a list, an HTML comment, a heading) lasts longer than the quote, and no text inside it can
begin a section, because the file's own headings are outside. Three things reach further, so they
are taken away, each without changing what a reader sees:

- Raw HTML: a browser that shows `<script>` or `<!--` reads on past the end of the quote.
- Link reference definitions and footnotes (`[a]: b`): they count for the whole file, and their
  words are not shown.
- U+0000, which CommonMark replaces.

A `<` or a `]:` is escaped where it is certainly text and kept where it is certainly code. A message
where this cannot be told from single lines is shown as it was written, in one code block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from jarvis_stream.history.base import TurnRecord

_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_RISK: Final = re.compile(r"<(?=[A-Za-z/!?])|\]:")
"""What begins HTML, and what makes a definition."""
_SAFE: Final = {"<": "&lt;", "]:": r"]\:"}
_FENCE: Final = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})(.*)")
_MAYBE_FENCE: Final = re.compile(r"[ \t>*+\-.)\d]*(?:```|~~~)")
_INDENTED: Final = re.compile(r"[>*+\-.)\d]*(?: {4}| {0,3}\t)")
_TICKS: Final = re.compile(r"`+")
_TITLE: Final = re.compile(r"[\\`*_\[\]<>&#~|$!]")


def title_line(title: str) -> str:
    """Return the file's first line, as text only."""
    line = " ".join(title.replace("\x00", "\ufffd").split())
    return f"# {_TITLE.sub(lambda found: chr(92) + found[0], line)}"


def sections(turn: TurnRecord) -> Iterator[str]:
    """Yield the parts of a turn; each belongs after an empty line."""
    yield "## User"
    if turn.prompt:
        yield quoted(turn.prompt)
    yield "## Assistant"
    if turn.text:
        yield quoted(turn.text)
    if turn.status != "complete":
        yield f"*({turn.status})*"


def quoted(text: str) -> str:
    """Return a message as a block quote in which nothing is left that counts outside of it."""
    lines = _LINE_END.split(text.replace("\x00", "\ufffd"))
    lines = (_defused(lines) if _RISK.search(text) else lines) or _as_code(lines)
    # A line without text needs its mark too, or the quote ends there.
    return "\n".join(f"> {line}" if line else ">" for line in lines)


def _as_code(lines: list[str]) -> list[str]:
    longest = max((len(run) for line in lines for run in _TICKS.findall(line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *lines, fence]


def _defused(lines: list[str]) -> list[str] | None:
    """Escape what is risky outside of code; None where it is not certain what is code."""
    safe = []
    fence = ""
    for line in lines:
        if fence:
            found = _FENCE.match(line)
            if found and found[1].startswith(fence) and not found[2].strip(" \t"):
                fence = ""
            elif _MAYBE_FENCE.match(line) and not found:
                return None  # an indented line may close it
        elif found := _FENCE.match(line):
            # Not indented, so it is in no list: only a line like it ends it.
            fence = found[1]
            if _RISK.search(found[2]):
                return None
        elif _MAYBE_FENCE.match(line):
            return None
        elif _RISK.search(line):
            escaped = _without_risk(line)
            if escaped is None:
                return None
            line = escaped
        elif not _is_closed(line):
            return None
        safe.append(line)
    return safe


def _without_risk(line: str) -> str | None:
    """Escape what is risky in a line outside of its code spans; None if they are not certain."""
    if _INDENTED.match(line) or not _is_closed(line):
        return None
    parts = []
    start = 0
    for first, last in _spans(line):
        parts.append(_RISK.sub(lambda found: _SAFE[found[0]], line[start:first]))
        span = line[first:last]
        if "|" in span and _RISK.search(span):
            return None  # in a table this is no code span
        parts.append(span)
        start = last
    parts.append(_RISK.sub(lambda found: _SAFE[found[0]], line[start:]))
    return "".join(parts)


def _is_closed(line: str) -> bool:
    """Whether every code span that begins in this line ends in it."""
    if "`" not in line:
        return True
    if "\\`" in line:
        return False
    runs = sum(1 for _ in _TICKS.finditer(line))
    return 2 * len(_spans(line)) == runs


def _spans(line: str) -> list[tuple[int, int]]:
    """Return where the code spans of a line are that contain no other backticks."""
    spans = []
    opener: re.Match[str] | None = None
    for run in _TICKS.finditer(line):
        if opener is None:
            opener = run
        elif len(run[0]) == len(opener[0]):
            spans.append((opener.start(), run.end()))
            opener = None
        else:
            return []  # one in the other: not worth the effort
    return spans

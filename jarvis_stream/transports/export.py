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

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from jarvis_stream.history.base import TurnRecord

_RISK: Final = re.compile(r"<(?=[A-Za-z/!?])|\]:")
"""What begins HTML, and what makes a definition."""
_MARKS: Final = ("`", "~~~", "<", "]:")
"""One of these is in every line that needs a closer look."""
_SAFE: Final = {"<": "&lt;", "]:": r"]\:"}
_FENCE: Final = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})(.*)")
_MAYBE_FENCE: Final = re.compile(r"[ \t>*+\-.)\d]*(?:```|~~~)")
_INDENTED: Final = re.compile(r"[>*+\-.)\d]*(?: {4}| {0,3}\t)")
_TICKS: Final = re.compile(r"`+")
_TITLE: Final = re.compile(r"[\\`*_\[\]<>&#~|$!]")

MAX_LINE: Final = 4096
"""Characters of a line of Markdown at most: a longer line that is not plain is shown as code."""
BATCH: Final = 4096
"""Characters of lines that are joined into one piece; every line counts LINE_COST more."""
LINE_COST: Final = 32
SEARCH_SLICE: Final = 32 * 1024
"""Characters that are searched at once."""
PAUSE: Final = ""
"""A piece without text: the writer may leave the event loop to others here."""


def title_line(title: str) -> str:
    """Return the file's first line, as text only."""
    line = " ".join(title.replace("\x00", "\ufffd").split())
    return f"# {_TITLE.sub(lambda found: chr(92) + found[0], line)}"


def sections(turn: TurnRecord) -> Iterator[str]:
    """Yield a turn in pieces, each made in well under a millisecond; a few of them are PAUSE.

    Every part of the turn begins with an empty line.
    """
    yield "\n\n## User"
    if turn.prompt:
        yield "\n\n"
        yield from quoted(turn.prompt)
    yield "\n\n## Assistant"
    if turn.text:
        yield "\n\n"
        yield from quoted(turn.text)
    if turn.status != "complete":
        yield f"\n\n*({turn.status})*"


def quoted(text: str) -> Iterator[str]:
    """Yield a message as a block quote in which nothing is left that counts outside of it."""
    text = text.replace("\x00", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    for start in range(0, len(text), SEARCH_SLICE):
        if _RISK.search(text, start, start + SEARCH_SLICE + 1):
            break
        yield PAUSE
    else:
        yield from _joined(_lines(text))
        return
    # What is code is known only at the end, so the pieces wait for it.
    pieces: list[str] = []
    try:
        for piece in _joined(_defused(_lines(text))):
            pieces.append(piece)
            yield PAUSE
    except _Uncertain:
        pieces.clear()
        longest = count = 0
        place = text.find("`")
        while place >= 0:
            end = place + 1
            while text.startswith("`", end):
                end += 1
                if (count := count + 1) % 1000 == 0:
                    yield PAUSE
            longest = max(longest, end - place)
            place = text.find("`", end)
            if (count := count + 1) % 1000 == 0:
                yield PAUSE
        fence = "`" * max(3, longest + 1)
        yield from _joined(itertools.chain((fence,), _lines(text), (fence,)))
    else:
        yield from pieces


class _Uncertain(Exception):
    """It cannot be told from single lines what of a message is code."""


def _lines(text: str) -> Iterator[str]:
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Join lines with their marks into pieces."""
    before = ""
    batch: list[str] = []
    size = 0
    for line in lines:
        # A line without text needs its mark too, or the quote ends there.
        batch.append(f"> {line}" if line else ">")
        size += len(line) + LINE_COST
        if size >= BATCH:
            yield before + "\n".join(batch)
            before = "\n"
            batch.clear()
            size = 0
    if batch:
        yield before + "\n".join(batch)


def _defused(lines: Iterable[str]) -> Iterator[str]:
    """Escape what is risky outside of code.

    Raises _Uncertain where it is not certain what is code.
    """
    fence = ""
    for line in lines:
        if len(line) > MAX_LINE:
            if any(mark in line for mark in _MARKS):
                raise _Uncertain  # to look for all of them would take too long
            yield line
            continue
        safe = line
        if fence:
            found = _FENCE.match(line)
            if found and found[1].startswith(fence) and not found[2].strip(" \t"):
                fence = ""
            elif _MAYBE_FENCE.match(line) and not found:
                raise _Uncertain  # an indented line may close it
        elif found := _FENCE.match(line):
            # Not indented, so it is in no list: only a line like it ends it.
            fence = found[1]
            if _RISK.search(found[2]):
                raise _Uncertain
        elif _MAYBE_FENCE.match(line):
            raise _Uncertain
        elif _RISK.search(line):
            safe = _without_risk(line)
        elif not _is_closed(line):
            raise _Uncertain
        yield safe


def _without_risk(line: str) -> str:
    """Escape what is risky in a line outside of its code spans.

    Raises _Uncertain if it is not certain where those are.
    """
    if _INDENTED.match(line) or not _is_closed(line):
        raise _Uncertain
    parts = []
    start = 0
    for first, last in _spans(line):
        parts.append(_RISK.sub(lambda found: _SAFE[found[0]], line[start:first]))
        span = line[first:last]
        if "|" in span and _RISK.search(span):
            raise _Uncertain  # in a table this is no code span
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

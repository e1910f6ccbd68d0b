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

_RISK: Final = re.compile(r"<(?=[A-Za-z/!?])|\]:")
"""What begins HTML, and what makes a definition."""
_MARK: Final = re.compile(r"`|~~~|<|\]:")
"""One of these is in every line that needs a closer look."""
_SAFE: Final = {"<": "&lt;", "]:": r"]\:"}
_FENCE: Final = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})(.*)")
_MAYBE_FENCE: Final = re.compile(r"[ \t>*+\-.)\d]*(?:```|~~~)")
_INDENTED: Final = re.compile(r"[>*+\-.)\d]*(?: {4}| {0,3}\t)")
_TICKS: Final = re.compile(r"`+")
_TITLE: Final = re.compile(r"[\\`*_\[\]<>&#~|$!]")

WINDOW: Final = 8 * 1024
"""Characters of a message that are worked on at once."""
MAX_LINE: Final = 4096
"""Characters of a line that is searched for code spans; a message with a longer one is code."""
MAX_LINES: Final = 64
"""Lines with a mark that are worked on at once."""
PAUSE: Final = ""
"""A piece without text: the caller can return to the event loop here."""


def title_line(title: str) -> str:
    """Return the file's first line, as text only."""
    line = " ".join(title.replace("\x00", "\ufffd").split())
    return f"# {_TITLE.sub(lambda found: chr(92) + found[0], line)}"


def sections(prompt: Iterable[str], text: Iterable[str], status: str) -> Iterator[str]:
    """Yield a turn in pieces, each made in about a millisecond at most; some are PAUSE.

    The texts come in slices, and are read several times. Every section begins with an empty line.
    """
    yield "\n\n## User"
    if prompt:
        yield "\n\n"
        yield from quoted(prompt)
    yield "\n\n## Assistant"
    if text:
        yield "\n\n"
        yield from quoted(text)
    if status != "complete":
        yield f"\n\n*({status})*"


def quoted(text: Iterable[str]) -> Iterator[str]:
    """Yield a message as a block quote in which nothing is left that counts outside of it.

    Holds no copy of the message: it is read up to three times instead.
    """
    before = ""
    for piece in _windows(text):
        # With the character before: both kinds of risk have two.
        if _RISK.search(before + piece):
            break
        before = piece[-1:] or before
        yield PAUSE
    else:
        yield from _marked(_windows(text))
        return
    try:
        for _ in _defused(_windows(text)):
            yield PAUSE
    except _Uncertain:
        longest = 2
        for run in _tick_runs(_windows(text)):
            longest = max(longest, run)
            yield PAUSE
        fence = "`" * (longest + 1)
        fences = _windows((fence, "\n")), _windows(("\n", fence))
        yield from _marked(itertools.chain(fences[0], _windows(text), fences[1]))
    else:
        yield from _marked(_defused(_windows(text)))


class _Uncertain(Exception):
    """It cannot be determined from single lines which parts of a message are code."""


def _windows(text: Iterable[str]) -> Iterator[str]:
    """Yield a text in pieces, with the line ends of Unix and without U+0000."""
    held = ""
    for part in text:
        for start in range(0, len(part), WINDOW):
            piece = held + part[start : start + WINDOW]
            held = ""
            if piece.endswith("\r"):  # the next piece may begin with "\n"
                piece = piece[:-1]
                held = "\r"
            yield piece.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    if held:
        yield "\n"


def _marked(pieces: Iterable[str]) -> Iterator[str]:
    """Put the mark of a quote before every line."""
    held = "\n"  # the end of the line before is written with the mark of the next line
    first = 1
    for piece in pieces:
        text = held + piece
        held = ""
        if text.endswith("\n"):
            text = text[:-1]
            held = "\n"
        # A line without text needs its mark too, or the quote ends there.
        marked = text.replace("\n", "\n> ") + held
        marked = marked.replace("\n> \n", "\n>\n").replace("\n> \n", "\n>\n")
        yield marked[first : len(marked) - len(held)]
        if text:
            first = 0
    if held:
        yield "\n>"[first:]


def _tick_runs(pieces: Iterable[str]) -> Iterator[int]:
    """Yield the length of the longest run of backticks up to the end of each piece."""
    before = 0  # backticks at the end of the piece before
    for piece in pieces:
        leading = len(piece) - len(piece.lstrip("`"))
        yield max(before + leading, *map(len, _TICKS.findall(piece)), 0)
        trailing = len(piece) - len(piece.rstrip("`"))
        before = trailing if leading < len(piece) else before + leading


def _defused(pieces: Iterable[str]) -> Iterator[str]:
    """Escape what is risky outside of code.

    Raises _Uncertain where it is not certain what is code.
    """
    fence = ""
    for lines in _whole_lines(pieces):
        start = done = 0
        found = _MARK.search(lines)
        while found:
            parts: list[str] = []
            for _ in range(MAX_LINES):
                first = lines.rfind("\n", start, found.start()) + 1 or start
                end = lines.find("\n", found.start())
                end = len(lines) if end < 0 else end
                line = lines[first:end]
                safe, fence = _defuse(line, fence)
                parts += (lines[done:first], safe)
                start = done = end
                found = _MARK.search(lines, end)
                if found is None:
                    break
            yield "".join(parts)
        yield lines[done:]


def _whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield pieces that end where a line ends, or are parts of a long line without a mark.

    Raises _Uncertain for a long line with a mark.
    """
    rest = ""
    is_long = False
    for piece in pieces:
        rest += piece
        if is_long and _MARK.search(rest, 0, (rest.find("\n") + 1) or len(rest)):
            raise _Uncertain
        end = rest.rfind("\n") + 1
        if end:
            is_long = False
            yield rest[:end]
            rest = rest[end:]
        if len(rest) > MAX_LINE:
            if _MARK.search(rest):
                raise _Uncertain
            is_long = True
            yield rest[:-2]  # a mark may begin in the last two characters
            rest = rest[-2:]
    yield rest


def _defuse(line: str, fence: str) -> tuple[str, str]:
    """Return a line without its risk, and the fence that is open after it, or "".

    Raises _Uncertain where it is not certain what is code.
    """
    if len(line) > MAX_LINE:
        raise _Uncertain  # the search for code spans would take too long
    if fence:
        found = _FENCE.match(line)
        if found and found[1].startswith(fence) and not found[2].strip(" \t"):
            return line, ""
        if _MAYBE_FENCE.match(line) and not found:
            raise _Uncertain  # an indented line may close it
        return line, fence
    if found := _FENCE.match(line):
        # Not indented, so it is in no list: only a line like it ends it.
        if _RISK.search(found[2]):
            raise _Uncertain
        return line, found[1]
    if _MAYBE_FENCE.match(line):
        raise _Uncertain
    if _RISK.search(line):
        return _without_risk(line), ""
    if not _is_closed(line):
        raise _Uncertain
    return line, ""


def _without_risk(line: str) -> str:
    """Escape what is risky in a line outside of its code spans.

    Raises _Uncertain if it is not certain where those are.
    """
    if _INDENTED.match(line) or not _is_closed(line):
        raise _Uncertain
    if "`" not in line:
        return _RISK.sub(_escape, line)
    parts = []
    start = 0
    for first, last in _spans(line):
        parts.append(_RISK.sub(_escape, line[start:first]))
        span = line[first:last]
        if "|" in span and _RISK.search(span):
            raise _Uncertain  # in a table this is no code span
        parts.append(span)
        start = last
    parts.append(_RISK.sub(_escape, line[start:]))
    return "".join(parts)


def _escape(found: re.Match[str]) -> str:
    return _SAFE[found[0]]


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

"""What every backend makes of turns: records, an agent's messages, titles, cursors, futures."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final, TypeVar

import orjson

from jarvis_stream.errors import Invalid
from jarvis_stream.frames import Message
from jarvis_stream.history.base import TurnEnd, TurnRecord, TurnStart

T = TypeVar("T")

TITLE_CHARS: Final = 80
SNIPPET_CHARS: Final = 160
"""The most characters of a snippet, besides the ellipses."""

Position = tuple[float, str]
"""Where a session stands in the list: updated_at, session_id."""


def record_of(start: TurnStart, text: str, end: TurnEnd | None) -> TurnRecord:
    """A turn as it stands, with its ending when it has one."""
    return TurnRecord(
        session_id=start.session_id,
        stream_id=start.stream_id,
        epoch=start.epoch,
        prompt=start.prompt,
        created_at=start.created_at,
        text=text,
        status=end.status if end else "streaming",
        finish_reason=end.finish_reason if end else None,
        error_code=end.error_code if end else None,
        error=end.error if end else None,
        retryable=end.retryable if end else None,
        usage=end.usage if end else None,
        trace_id=start.trace_id,
        ended_at=end.ended_at if end else None,
    )


def messages_of(
    newest_first: Iterable[tuple[str, str]], prompt: str, *, max_messages: int, max_chars: int
) -> list[Message]:
    """The session for its agent: earlier questions and answers, and the new question last.

    Whole turns from the newest back, as long as all fit; the new question is there in any case.
    """
    chars = len(prompt)
    messages: list[Message] = [{"role": "user", "content": prompt}]
    for question, answer in newest_first:
        chars += len(question) + len(answer)
        if len(messages) + 1 + bool(answer) > max_messages or chars > max_chars:
            break
        if answer:
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": question})
    messages.reverse()
    return messages


def merged(stored: Iterable[TurnRecord], unsaved: Iterable[TurnRecord]) -> list[TurnRecord]:
    """Both, oldest first; what is not saved yet is newer than what is."""
    turns = {turn.stream_id: turn for turn in stored}
    turns.update((turn.stream_id, turn) for turn in unsaved)
    return sorted(turns.values(), key=lambda turn: (turn.epoch, turn.stream_id))


def count_fitting(sizes: Iterable[int], *, limit: int, max_bytes: int) -> int:
    """Return how many turns of these sizes fit on a page: within both bounds, but at least one."""
    count = total = 0
    for size in sizes:
        total += size
        if count >= limit or (count and total > max_bytes):
            break
        count += 1
    return count


def utf8_size(text: str) -> int:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def title_of(prompt: str) -> str:
    """A question on one line, shortened. A long question's beginning gives the same title."""
    line = " ".join(prompt[: 4 * TITLE_CHARS].split())
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1].rstrip() + "…"


def spellings(query: str) -> set[str]:
    """A query in the ways a text may hold it, for databases that fold the case of ASCII only."""
    return {
        "".join(char.lower() if char.isascii() else char for char in spelling)
        for spelling in (query, query.lower(), query.upper(), query.title())
    }


def words_of(query: str) -> list[str]:
    """Return the words of a query, each once, the longest first."""
    words = {word.casefold(): word for word in query.split()}
    return sorted(words.values(), key=lambda word: (-len(word), word))


def snippet_of(texts: Iterable[str], word: str) -> str | None:
    """Return text, on one line, around the first place of the word; None if it does not occur."""
    pattern = re.compile(re.escape(word), re.IGNORECASE)
    for text in texts:
        if (place := pattern.search(text)) is None:
            continue
        first = max(0, place.start() - SNIPPET_CHARS // 3)
        last = first + SNIPPET_CHARS
        snippet = " ".join(text[first:last].split())
        return f"{'…' if first else ''}{snippet}{'…' if last < len(text) else ''}"
    return None


def cursor_of(position: Position) -> str:
    """A position as an opaque word for URLs."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def position_of(cursor: str) -> Position:
    """The position a cursor stands for; raises Invalid."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        updated_at, session_id = orjson.loads(base64.b64decode(padded, b"-_", validate=True))
        if isinstance(updated_at, float) and isinstance(session_id, str):
            return updated_at, session_id
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, TypeError, ValueError):
        pass
    raise Invalid("before is not a cursor of this list")


def resolved(value: T) -> asyncio.Future[T]:
    """A future that is done."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future

"""History in this process's memory: bounded, and gone with it."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from jarvis_stream.frames import Message
from jarvis_stream.history.base import (
    Answer,
    Begun,
    Health,
    Removed,
    SessionPage,
    SessionRecord,
    Span,
    TurnEnd,
    TurnPage,
    TurnRecord,
    TurnStart,
)
from jarvis_stream.history.views import (
    count_fitting,
    cursor_of,
    messages_of,
    position_of,
    record_of,
    resolved,
    snippet_of,
    title_of,
    utf8_size,
    words_of,
)
from jarvis_stream.ids import owner_of

MAX_REMOVALS: Final = 10_000
"""The most removals that are remembered; the oldest are forgotten first."""
MAX_REMOVALS_EACH: Final = 64
"""The most removals of one session; each question of the session is compared with them."""


@dataclass(slots=True, eq=False)
class _Turn:
    start: TurnStart
    answer: Answer | None
    end: TurnEnd | None = None
    text: str = ""

    @property
    def chars(self) -> int:
        return len(self.start.prompt) + len(self.text)

    @property
    def text_size(self) -> int:
        """The bytes of question and answer in UTF-8."""
        answer = self.answer.text_size if self.answer else utf8_size(self.text)
        return utf8_size(self.start.prompt) + answer

    @property
    def said(self) -> tuple[str, str]:
        """The question, and the answer so far."""
        return self.start.prompt, self.answer.text_from(0) if self.answer else self.text

    @property
    def record(self) -> TurnRecord:
        return record_of(self.start, self.said[1], self.end)


def _epoch(turn: _Turn) -> int:
    return turn.start.epoch


class MemoryHistory:
    """See History. Every future is resolved when it is returned.

    Keeps at most `max_sessions` sessions and `max_kept_chars` characters of questions and ended
    answers; the sessions that were used longest ago go first.
    """

    def __init__(
        self,
        *,
        max_messages: int = 100,
        max_chars: int = 200_000,
        max_sessions: int = 10_000,
        max_kept_chars: int = 256 * 1024 * 1024,
    ) -> None:
        self._max_messages = max_messages
        self._max_chars = max_chars
        self._max_sessions = max_sessions
        self._max_kept_chars = max_kept_chars
        self._sessions: OrderedDict[str, list[_Turn]] = OrderedDict()
        self._turns: dict[str, _Turn] = {}
        self._titles: dict[str, tuple[str, int]] = {}
        """Titles, each with the epoch of the session's newest turn when the title was set."""
        self._removals: OrderedDict[Span, None] = OrderedDict()
        self._removals_of: dict[str, list[Span]] = {}
        self._chars = 0
        self._last_epoch = 0
        self._saved = 0
        self._dropped = 0

    @property
    def health(self) -> Health:
        """See History.health."""
        return Health(saved=self._saved, dropped=self._dropped)

    def begin(self, turn: TurnStart, answer: Answer) -> asyncio.Future[Begun]:
        """See History.begin."""
        if any(span.holds(turn) for span in self._removals_of.get(turn.session_id, ())):
            return resolved(Begun(False, [Message(role="user", content=turn.prompt)], removed=True))
        turns = self._sessions.get(turn.session_id, [])
        # Of a long session only the end is looked at.
        place = bisect_left(turns, turn.epoch, key=_epoch)
        first = place
        if turn.replaces_from is not None:
            first = bisect_left(turns, turn.replaces_from, hi=place, key=_epoch)
        messages = messages_of(
            (turn.said for turn in reversed(turns[max(0, first - self._max_messages) : first])),
            turn.prompt,
            max_messages=self._max_messages,
            max_chars=self._max_chars,
        )
        known = self._turns.get(turn.stream_id)
        if known is not None:
            if known.start.epoch != turn.epoch:
                return resolved(Begun(False, messages, taken=True))
            place += 1  # begun again
        for other in turns[first:place]:
            self._forget(other)
        if turn.replaces_from is not None:
            self._remember(Span(turn.session_id, turn.replaces_from, turn.epoch))
        kept = self._turns[turn.stream_id] = _Turn(turn, answer)
        turns[first:place] = [kept]
        self._sessions[turn.session_id] = turns
        self._sessions.move_to_end(turn.session_id)
        self._chars += kept.chars
        self._last_epoch = max(self._last_epoch, turn.epoch)
        self._saved += 1
        self._trim()
        return resolved(Begun(True, messages))

    def finish(self, stream_id: str, end: TurnEnd) -> asyncio.Future[bool]:
        """See History.finish."""
        turn = self._turns.get(stream_id)
        if turn is None or turn.answer is None:
            return resolved(False)
        turn.text, turn.answer, turn.end = turn.answer.text_from(0), None, end
        self._chars += len(turn.text)
        self._saved += 1
        self._trim()
        return resolved(True)

    def remove(self, span: Span) -> asyncio.Future[Removed]:
        """See History.remove."""
        self._remember(span)
        return resolved(Removed(True, self._remove(span)))

    def drop(self, span: Span) -> None:
        """See History.drop. No other process shares this history."""
        self.remove(span)

    async def turn(self, stream_id: str) -> TurnRecord | None:
        """See History.turn."""
        turn = self._turns.get(stream_id)
        return turn.record if turn else None

    async def turns(
        self, session_id: str, *, limit: int | None = None, before: int | None = None
    ) -> list[TurnRecord]:
        """See History.turns."""
        turns = [
            turn
            for turn in self._sessions.get(session_id, ())
            if before is None or turn.start.epoch < before
        ]
        return [turn.record for turn in (turns if limit is None else turns[-limit:])]

    async def page(
        self,
        session_id: str,
        *,
        limit: int,
        max_bytes: int,
        before: int | None = None,
        after: int | None = None,
    ) -> TurnPage:
        """See History.page."""
        turns = self._sessions.get(session_id, [])
        low = 0 if after is None else bisect_right(turns, after, key=_epoch)
        high = len(turns) if before is None else bisect_left(turns, before, key=_epoch)
        places = range(low, high) if after is not None else range(high - 1, low - 1, -1)
        sizes = (turns[place].text_size for place in places)
        count = count_fitting(sizes, limit=limit, max_bytes=max_bytes)
        page = [turns[place] for place in places[:count]]
        following = _epoch(page[-1]) if page and count < len(places) else None
        return TurnPage([turn.record for turn in sorted(page, key=_epoch)], following)

    async def sessions(
        self,
        *,
        owner: str = "",
        limit: int = 50,
        before: str | None = None,
        query: str | None = None,
    ) -> SessionPage:
        """See History.sessions."""
        words = words_of(query) if query else []
        after = position_of(before) if before is not None else None
        places = sorted(
            (
                (max(turn.start.created_at for turn in turns), session_id)
                for session_id, turns in self._sessions.items()
                if owner_of(session_id) == owner
                and all(self._holds(session_id, word.casefold()) for word in words)
            ),
            reverse=True,
        )
        places = [place for place in places if after is None or place < after]
        page = [self._session(*place) for place in places[:limit]]
        if words:
            page = [replace(one, snippet=self._snippet(one.session_id, words[0])) for one in page]
        return SessionPage(page, cursor_of(places[limit - 1]) if len(places) > limit else None)

    async def count(self, owner: str = "") -> int:
        """See History.count."""
        return sum(owner_of(session_id) == owner for session_id in self._sessions)

    async def session(self, session_id: str) -> SessionRecord | None:
        """See History.session."""
        turns = self._sessions.get(session_id)
        if not turns:
            return None
        return self._session(max(turn.start.created_at for turn in turns), session_id)

    async def rename(self, session_id: str, title: str) -> SessionRecord | None:
        """See History.rename."""
        if session_id in self._sessions:
            self._titles[session_id] = title, self._sessions[session_id][-1].start.epoch
        return await self.session(session_id)

    async def last_epoch(self) -> int:
        """See History.last_epoch."""
        return self._last_epoch

    def _session(self, updated_at: float, session_id: str) -> SessionRecord:
        turns = self._sessions[session_id]
        return SessionRecord(
            session_id=session_id,
            title=self._title(session_id) or title_of(turns[0].start.prompt),
            created_at=turns[0].start.created_at,
            updated_at=updated_at,
            message_count=2 * len(turns),
        )

    def _holds(self, session_id: str, wanted: str) -> bool:
        texts = [self._title(session_id)]
        for turn in self._sessions[session_id]:
            texts += (turn.start.prompt, turn.text)
        return any(wanted in text.casefold() for text in texts)

    def _snippet(self, session_id: str, word: str) -> str | None:
        for turn in reversed(self._sessions[session_id]):
            if snippet := snippet_of((turn.text, turn.start.prompt), word):
                return snippet
        return None

    def _title(self, session_id: str) -> str:
        return self._titles.get(session_id, ("", 0))[0]

    def _remember(self, span: Span) -> None:
        """Reject the turns of a span from now on, until the span is forgotten."""
        self._last_epoch = max(self._last_epoch, span.before - 1)
        if span in self._removals:
            return
        self._removals[span] = None
        self._removals_of.setdefault(span.session_id, []).append(span)
        if len(spans := self._removals_of[span.session_id]) > MAX_REMOVALS_EACH:
            del self._removals[spans.pop(0)]
        if len(self._removals) > MAX_REMOVALS:
            oldest, _ = self._removals.popitem(last=False)
            spans = self._removals_of[oldest.session_id]
            spans.remove(oldest)
            if not spans:
                del self._removals_of[oldest.session_id]

    def _remove(self, span: Span) -> bool:
        """Remove the turns of a span; return whether there were any."""
        turns = self._sessions.get(span.session_id, [])
        first, last = (bisect_left(turns, at, key=_epoch) for at in (span.first, span.before))
        for turn in turns[first:last]:
            self._forget(turn)
        del turns[first:last]
        if not turns:
            self._sessions.pop(span.session_id, None)
        _, given = self._titles.get(span.session_id, ("", 0))
        if not turns or (not span.first and given < span.before):
            self._titles.pop(span.session_id, None)
        return first < last

    def _forget(self, turn: _Turn) -> None:
        del self._turns[turn.start.stream_id]
        self._chars -= turn.chars

    def _trim(self) -> None:
        while len(self._sessions) > self._max_sessions or (
            self._chars > self._max_kept_chars and len(self._sessions) > 1
        ):
            oldest, turns = next(iter(self._sessions.items()))
            self._dropped += len(turns)
            self._remove(Span(oldest, 0, turns[-1].start.epoch + 1))

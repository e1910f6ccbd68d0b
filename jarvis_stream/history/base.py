"""The port of what is kept: sessions, each a row of turns, each a question and its answer.

Writing never waits and never raises: `begin`, `finish` and `remove` are called from the middle of
a stream's life, hand back a future, and the stream decides how much of it it waits for. Reading
is async and raises Unavailable while the database cannot be read.

Every `session_id` and `stream_id` here is a key: an id together with its owner (see ids.key_of).
What is somebody else's cannot be named. Only the list of sessions asks whose they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from jarvis_stream.errors import JarvisError
from jarvis_stream.frames import Message

EndStatus = Literal["complete", "cancelled", "superseded", "error", "interrupted"]
Status = Literal["streaming", EndStatus]


class HistoryUnusable(JarvisError):
    """A history cannot be opened; the message says why and what to do, and holds no password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a history; times in seconds."""

    max_messages: int = 100
    """How many messages an agent gets, the new question included."""
    max_chars: int = 200_000
    """How many characters they may have together."""
    begin_timeout: float = 1.0
    """How long `begin` waits for the database; reading in its stead may take half of it more."""
    save_timeout: float = 2.0
    """How long `finish`, `remove` and `rename` wait for it."""
    read_timeout: float = 5.0
    checkpoint_every: float = 0.5
    lease: float = 15.0
    """How long a process that gives no sign of life is thought to live."""
    max_backlog_bytes: int = 64 * 1024 * 1024
    """The most bytes of turns that wait for the database; past it, the oldest are dropped."""


class Answer(Protocol):
    """The growing text of one answer: read by the history, so that a token costs it nothing."""

    @property
    def text_size(self) -> int:
        """How many bytes (UTF-8) there are so far."""
        ...

    def text_from(self, start: int, /) -> str:
        """The text after byte `start`, where `start` is something `text_size` once was."""
        ...


# Not frozen, like what else is made for every answer: that would take three times as long.
@dataclass(slots=True, kw_only=True)
class TurnStart:
    """A question that was accepted. `created_at` is in seconds since the epoch."""

    session_id: str
    stream_id: str
    epoch: int
    prompt: str
    created_at: float
    trace_id: str | None = None
    replaces_from: int | None = None
    """The epoch of the turn whose place it takes: that one leaves, and all between the two."""


@dataclass(slots=True, kw_only=True)
class TurnEnd:
    """How its answer ended; `usage` must be JSON-serialisable."""

    status: EndStatus
    finish_reason: str | None = None
    error_code: str | None = None
    error: str | None = None
    """The sentence that was sent."""
    retryable: bool | None = None
    usage: Mapping[str, Any] | None = None
    ended_at: float | None = None
    """In seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Span:
    """The turns of a session with `first` <= epoch < `before`."""

    session_id: str
    first: int
    before: int

    def holds(self, turn: TurnRecord | TurnStart) -> bool:
        """Return whether the span contains the turn."""
        return self.session_id == turn.session_id and self.first <= turn.epoch < self.before

    def covers(self, other: Span) -> bool:
        """Return whether the span contains every turn of the other span."""
        return (
            self.session_id == other.session_id
            and self.first <= other.first
            and other.before <= self.before
        )


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of a removal."""

    saved: bool
    """Whether it is durable."""
    existed: bool
    """Whether there was a turn to remove, as far as this process knows."""
    accepted: bool = True
    """False when too many removals wait already: this one has no effect."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What an agent may know before it speaks."""

    saved: bool
    """Whether the question is durable."""
    messages: list[Message]
    """The session so far, oldest first, the new question last: whole turns within the bounds.

    An answer that did not complete is there as far as it came, an empty one is left out.
    """
    taken: bool = False
    """Whether the stream_id is already that of another turn; this one is then not kept."""
    removed: bool = False
    """Whether a removal covers the turn, so that the history does not keep it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """One question and its answer, as far as it came.

    Of a turn whose process died, nobody knows how and when it ended: it is only `interrupted`.
    """

    session_id: str
    stream_id: str
    epoch: int
    prompt: str
    created_at: float
    text: str = ""
    status: Status = "streaming"
    finish_reason: str | None = None
    error_code: str | None = None
    error: str | None = None
    retryable: bool | None = None
    usage: Mapping[str, Any] | None = None
    trace_id: str | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class TurnPage:
    """Some turns of a session, oldest first."""

    turns: list[TurnRecord]
    next: int | None
    """The `before` (or `after`) of the next page; None on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One line of the list of sessions."""

    session_id: str
    title: str
    """The one it was given, else the first question, on one line and shortened."""
    created_at: float
    updated_at: float
    """When its newest turn began, in seconds since the epoch."""
    message_count: int
    """Questions and answers, unfinished and empty ones too."""
    snippet: str | None = None
    """In a search, text around the longest word of the query, if a message contains that word."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Some sessions, newest first, and where the next page begins (None: nowhere)."""

    sessions: list[SessionRecord]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the writing goes; the counts are since the history was opened."""

    writable: bool = True
    """Whether the last attempt to write succeeded."""
    saved: int = 0
    """Questions and ended answers that became durable."""
    failures: int = 0
    """Transactions that failed."""
    dropped: int = 0
    """Turns given up: over the backlog's bound, or refused by the database."""
    backlog: int = 0
    """Turns that hold something not yet durable; a live answer's newest text is not counted."""
    backlog_bytes: int = 0
    lag: float = 0.0
    """For how many seconds the oldest of it has waited."""
    last_error: str | None = None
    """The class of the last error."""


class History(Protocol):
    """Keeps turns.

    The writing calls without `await` are made on the event loop, take effect in the order of the
    calls, and neither block nor raise; their futures do not raise either, and may be cancelled,
    which changes nothing about the writing.
    """

    @property
    def health(self) -> Health:
        """How the writing goes, now."""
        ...

    def begin(self, turn: TurnStart, answer: Answer) -> asyncio.Future[Begun]:
        """Keep a question; its answer is read from `answer` while it grows, until `finish`.

        Resolves when the question is durable, or after a bound with `saved` False: it stays queued
        then, and is saved when that becomes possible. A `finish` of the same session that was
        called earlier shows in `messages`.

        What the turn replaces is gone for every later call, and leaves the database in the very
        transaction in which the question comes to it. The same turn (stream_id and epoch) may be
        begun again, while its answer is empty: to be told what has come since.
        """
        ...

    def finish(self, stream_id: str, end: TurnEnd) -> asyncio.Future[bool]:
        """Take the answer's final text, now, and keep it with its ending.

        True once it is durable: every later read returns it. False when that did not happen within
        a bound (it stays queued), or the turn is unknown here or has been removed.
        """
        ...

    def remove(self, span: Span) -> asyncio.Future[Removed]:
        """Remove turns (questions and answers) of any process.

        A removal is final: after it, no turn of the span is kept, regardless of the time, the order
        and the process of its write. Removals can be repeated and applied in any order. The session
        ends with its last turn. A span from epoch 0 also removes the session's title, unless a turn
        after the span existed when the title was set.

        The future resolves when the removal is durable, or after a timeout with `saved` False; the
        removal then stays queued. Later reads of this object return no turn of the span. When too
        many removals wait already, nothing happens, and `accepted` is False.
        """
        ...

    def drop(self, span: Span) -> None:
        """Stop writing the turns of a span, because another process removes them."""
        ...

    async def turn(self, stream_id: str) -> TurnRecord | None:
        """One turn, wherever it was begun."""
        ...

    async def turns(
        self, session_id: str, *, limit: int | None = None, before: int | None = None
    ) -> list[TurnRecord]:
        """The session's turns, oldest first: the newest `limit` with an epoch under `before`."""
        ...

    async def page(
        self,
        session_id: str,
        *,
        limit: int,
        max_bytes: int,
        before: int | None = None,
        after: int | None = None,
    ) -> TurnPage:
        """Return the newest turns with an epoch under `before`; with `after`, the oldest above it.

        A page holds at most `limit` turns and `max_bytes` of their texts in UTF-8, but at least one
        turn when there is one. Reads little more than the page.
        """
        ...

    async def sessions(
        self,
        *,
        owner: str = "",
        limit: int = 50,
        before: str | None = None,
        query: str | None = None,
    ) -> SessionPage:
        """The owner's sessions, newest first, after the `next` of the page before.

        With a `query`, only sessions that contain every word of it, in the title, a question or
        an ended answer. The case of letters does not matter; beyond ASCII this is guaranteed only
        for texts in the case of the query, all small, all capital, or with capital initials.
        Raise Invalid for a malformed cursor, Unavailable for a search that takes too long.
        """
        ...

    async def count(self, owner: str = "") -> int:
        """How many sessions the owner has."""
        ...

    async def session(self, session_id: str) -> SessionRecord | None:
        """One session, as the list has it."""
        ...

    async def rename(self, session_id: str, title: str) -> SessionRecord | None:
        """Give a session a title, which it keeps as long as it has turns; None for no session.

        Raises Unavailable when that did not become durable in time; it stays queued.
        """
        ...

    async def last_epoch(self) -> int:
        """The highest epoch ever kept, removed turns included; 0 for none."""
        ...

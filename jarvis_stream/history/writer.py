"""The one writer of a process: what streams owe the database, in as few transactions as possible.

    begin, finish, remove --> backlog --> one task --> batch after batch --> Store

Not a queue of operations but of turns: each is written as it stands when its batch is made, so
that a question and its answer's end can share a statement, an attempt that failed is simply made
again, and the text of a live answer is fetched only when it is wanted. Whatever came while one
transaction was under way shares the next. While answers grow, the newest text of all of them is
appended every `checkpoint_every` seconds, in one transaction.

A database that fails is tried again with growing pauses, in smaller batches: the batch shrinks
until what cannot be written is alone, and that is set aside for a while, or, when the database
refuses the data itself, given up. Nothing of this is felt by a stream but that its futures say
`saved` False.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Generic, TypeVar

from loguru import logger

from jarvis_stream.errors import JarvisError, Unavailable
from jarvis_stream.frames import Message
from jarvis_stream.history.base import (
    Answer,
    Begun,
    Health,
    Limits,
    Removed,
    SessionPage,
    SessionRecord,
    Span,
    TurnEnd,
    TurnPage,
    TurnRecord,
    TurnStart,
)
from jarvis_stream.history.store import Batch, Piece, Store, Written
from jarvis_stream.history.views import (
    count_fitting,
    merged,
    messages_of,
    record_of,
    resolved,
    utf8_size,
)
from jarvis_stream.recurring import RecurringLog

T = TypeVar("T")

BATCH_TURNS: Final = 256
BATCH_BYTES: Final = 8 * 1024 * 1024
"""How much goes into one transaction; a larger single turn goes alone."""
WRITE_TIMEOUT: Final = 15.0
"""Seconds after which a transaction has failed; longer than databases wait for locks."""
SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts at a database that fails."""
CHANGE_BYTES: Final = 256
"""What a removal or a new title counts in the backlog."""
MAX_CHANGES: Final = 10_000
"""The most removals and new titles that wait together. Past it, new ones are rejected; an accepted
one is never dropped, however full the backlog is."""


class _Promise(Generic[T]):
    """A future and the timer that bounds it."""

    __slots__ = ("future", "timer")

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    def resolve(self, value: T) -> None:
        """The first value counts; nothing happens when the future was cancelled."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.future.done():
            self.future.set_result(value)

    async def wait(self) -> T:
        """Return the value. Cancelling this wait does not cancel the future."""
        return await asyncio.shield(self.future)


@dataclass(slots=True, eq=False)
class _Turn:
    """A turn with something to save, now or later."""

    start: TurnStart
    answer: Answer | None
    """None once it has ended."""
    begun: _Promise[Begun]
    text: str = ""
    """The final text."""
    end: TurnEnd | None = None
    finished: _Promise[bool] | None = None
    stored: bool = False
    """Whether the question is durable."""
    kept: int = 0
    """How many bytes of the answer are durable, as pieces."""
    pieced: bool = False
    """Whether there may be pieces of it."""
    owed: int = 0
    """What it counts in the backlog, in bytes."""
    since: float = 0.0
    """Since when it owes, on the monotonic clock."""
    tries: int = 0
    """How often it failed alone, since it last succeeded."""
    gone: bool = False
    """Whether no part of it may be written any more."""
    complete: bool = False
    """Whether it is gone because all of it is durable."""

    @property
    def text_size(self) -> int:
        """The bytes of question and answer in UTF-8."""
        answer = utf8_size(self.text) if self.answer is None else self.answer.text_size
        return utf8_size(self.start.prompt) + answer

    @property
    def record(self) -> TurnRecord:
        text = self.text if self.answer is None else self.answer.text_from(0)
        return record_of(self.start, text, self.end)


@dataclass(slots=True, eq=False)
class _Removal:
    """A removal that waits for the database."""

    spans: list[Span]
    """The spans to remove; the first one is the caller's."""
    done: _Promise[Removed]
    existed: bool
    """Whether there was anything to remove, as far as it is known."""
    owed: int = 0
    since: float = 0.0
    tries: int = 0

    def holds(self, turn: TurnRecord | TurnStart) -> bool:
        """Return whether the removal covers the turn."""
        return any(span.holds(turn) for span in self.spans)

    def concerns(self, session_id: str | None) -> bool:
        """Return whether it may remove turns of this session; None means any session."""
        return session_id is None or any(span.session_id == session_id for span in self.spans)


@dataclass(slots=True, eq=False)
class _Renaming:
    """A session that gets a title."""

    session_id: str
    title: str
    done: _Promise[bool | None]
    """Whether the title is durable; None when the session was deleted first."""
    given_at: float
    """The time of the renaming, on the monotonic clock."""
    owed: int = 0
    since: float = 0.0
    tries: int = 0


@dataclass(slots=True, eq=False)
class _Interruption:
    """A turn that the database has as streaming, and whose end this process will not write."""

    stream_id: str
    owed: int = 0
    since: float = 0.0
    tries: int = 0


_Work = _Turn | _Removal | _Renaming | _Interruption


@dataclass(frozen=True, slots=True)
class _Part:
    """What of one work is in a batch."""

    work: _Work
    owed: int
    size: int
    """In bytes, the text of its piece included."""
    begins: bool = False
    ends: bool = False
    upto: int = 0
    """The byte of the answer that its piece reaches."""


class _Overlay:
    """The changes that were not in the database when a read began, and those during the read.

    The read sees the database at an unknown moment in between. Each turn and each removal here can
    be applied to the state at any of these moments: the result is the state at the end.
    """

    def __init__(
        self, session_id: str | None, turns: dict[str, _Turn], leaving: list[_Removal | Span]
    ) -> None:
        """`session_id` is the session of the read; None means any session."""
        self._session_id = session_id
        self._turns = turns
        self._leaving = leaving

    def add_turn(self, turn: _Turn) -> None:
        """Add a turn that begins during the read."""
        if self._session_id in (None, turn.start.session_id):
            self._turns[turn.start.stream_id] = turn

    def add_removal(self, removal: _Removal | Span) -> None:
        """Add a removal that is accepted during the read."""
        self._leaving.append(removal)

    def apply(
        self,
        stored: Iterable[TurnRecord],
        *,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[TurnRecord]:
        """Return the current turns, oldest first: the newest `limit` with an epoch under
        `before`. `stored` is the result of the read."""
        newest_first = reversed(self._turns.values())
        held = (
            turn.record
            for turn in newest_first
            if (not turn.gone or turn.complete)
            and (before is None or turn.start.epoch < before)
            and self._is_visible(turn.start)
        )
        visible = (
            turn
            for turn in stored
            if (before is None or turn.epoch < before) and self._is_visible(turn)
        )
        turns = merged(visible, islice(held, limit))
        return turns if limit is None else turns[-limit:]

    def select(
        self, stored: Iterable[TurnRecord], low: int, high: float
    ) -> list[TurnRecord | _Turn]:
        """Return the current turns with `low` < epoch < `high`, in no order."""
        found: dict[str, TurnRecord | _Turn] = {
            turn.stream_id: turn
            for turn in stored
            if low < turn.epoch < high and self._is_visible(turn)
        }
        for turn in self._turns.values():
            is_kept = not turn.gone or turn.complete
            if is_kept and low < turn.start.epoch < high and self._is_visible(turn.start):
                found[turn.start.stream_id] = turn
        return list(found.values())

    def _is_visible(self, turn: TurnRecord | TurnStart) -> bool:
        return not any(removal.holds(turn) for removal in self._leaving)


class HistoryWriter:
    """See History. Works inside `async with writer.running():`."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        # Turns live here, by either id, until nothing of them is left to save.
        self._turns: dict[str, _Turn] = {}
        self._sessions: dict[str, dict[str, _Turn]] = {}
        self._removals: set[_Removal] = set()
        # One for each running read.
        self._overlays: set[_Overlay] = set()
        self._renamings: set[_Renaming] = set()
        # What leaves with the coming of a turn, or would have left.
        self._spans: dict[_Turn, Span] = {}
        # By stream_id. Needs no bound: each was a turn that the database has accepted.
        self._interruptions: dict[str, _Interruption] = {}
        # What has something to write, in the order in which it came to.
        self._backlog: dict[_Work, None] = {}
        # What failed alone, and when it is tried again.
        self._aside: dict[_Work, float] = {}
        self._backlog_bytes = 0
        self._in_flight = 0
        self._batch_turns = BATCH_TURNS
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._closed = False
        # When it is time for what; on the clock of time.monotonic().
        self._checkpoint_at = 0.0
        self._renew_at = 0.0
        self._reclaim_at = 0.0
        self._opening = True
        # How the database is.
        self._failing_since: float | None = None
        self._log = RecurringLog()
        self._retries = 0
        # The start of the running attempt. Only this writer's attempts decide whether the
        # database is reachable: a promise can time out for many other reasons.
        self._attempt_began: float | None = None
        self._down = False
        self._readable = True
        self._dropping = False
        self._rejecting = False
        self._fallbacks: set[asyncio.Task[None]] = set()
        self._saved = 0
        self._failures = 0
        self._dropped = 0
        self._last_error: str | None = None
        self._noted: Exception | None = None

    # Its life

    @asynccontextmanager
    async def running(self, *, flush_timeout: float = 5.0) -> AsyncIterator[HistoryWriter]:
        """Write while inside.

        When this is entered, the turns of processes that are gone have been interrupted, unless
        the database cannot be written now. At the end, what is owed is written within
        `flush_timeout` seconds; answers that have not ended are interrupted.
        """
        with suppress(Exception):  # it has been noted
            await self._attempt(self._keep_house())
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            for turn in list(self._turns.values()):
                end = TurnEnd(status="interrupted", ended_at=time.time())
                self.finish(turn.start.stream_id, end)
            self._closing.set()
            self._wake.set()
            try:
                await asyncio.wait({task}, timeout=flush_timeout)
            finally:
                tasks = {task, *self._fallbacks}
                for running in tasks:
                    running.cancel()
                try:
                    await asyncio.wait(tasks)
                finally:
                    self._give_up_the_rest()

    def _give_up_the_rest(self) -> None:
        self._closed = True
        # Also work whose write has not ended, so that no promise stays unresolved.
        rest: list[_Work] = [
            *self._turns.values(),
            *self._removals,
            *self._renamings,
            *self._interruptions.values(),
        ]
        if rest:
            logger.error("history_not_flushed turns={}", len(rest))
        for work in rest:
            self._give_up(work)

    @property
    def health(self) -> Health:
        """See History.health."""
        return Health(
            writable=self._failing_since is None,
            saved=self._saved,
            failures=self._failures,
            dropped=self._dropped,
            backlog=len(self._backlog) + len(self._aside) + self._in_flight,
            backlog_bytes=self._backlog_bytes,
            lag=self._lag,
            last_error=self._last_error,
        )

    @property
    def _lag(self) -> float:
        works: tuple[_Work, ...] = (*self._turns.values(), *self._removals, *self._renamings)
        now = time.monotonic()
        return now - min((work.since for work in works if work.owed), default=now)

    # Writing, as the streams see it: nothing here waits

    def begin(self, turn: TurnStart, answer: Answer) -> asyncio.Future[Begun]:
        """See History.begin."""
        known = self._turns.get(turn.stream_id)
        if known is not None and known.start.epoch != turn.epoch:
            return resolved(Begun(False, self._messages(turn), taken=True))
        if self._closing.is_set():
            return resolved(Begun(False, self._messages(turn)))
        mine = _Turn(turn, answer, _Promise())
        self._replace(mine)
        if known is not None:
            self._begin_again(known, mine)
        if (interruption := self._interruptions.get(turn.stream_id)) is not None:
            self._drop(interruption)
        self._turns[turn.stream_id] = mine
        self._sessions.setdefault(turn.session_id, {})[turn.stream_id] = mine
        for overlay in self._overlays:
            overlay.add_turn(mine)
        self._owe(mine, len(turn.prompt.encode(errors="surrogatepass")))
        self._bound(mine.begun, self._limits.begin_timeout, lambda: self._begin_unsaved(mine))
        return mine.begun.future

    def finish(self, stream_id: str, end: TurnEnd) -> asyncio.Future[bool]:
        """See History.finish."""
        turn = self._turns.get(stream_id)
        if turn is None or turn.answer is None:
            return resolved(False)
        size = turn.answer.text_size
        turn.text, turn.answer, turn.end = turn.answer.text_from(0), None, end
        done = turn.finished = _Promise()
        self._owe(turn, size)
        self._bound(done, self._limits.save_timeout, lambda: done.resolve(False))
        return done.future

    def remove(self, span: Span) -> asyncio.Future[Removed]:
        """See History.remove."""
        if self._has_no_room_for_changes():
            return resolved(Removed(saved=False, existed=True, accepted=False))
        if not span.first:
            for renaming in [one for one in self._renamings if one.session_id == span.session_id]:
                renaming.done.resolve(None)
                self._drop(renaming)
        turns = self._held(span)
        spans = [span]
        for turn in turns:
            # The turns that it replaces do not come back.
            if (replaced := self._spans.get(turn)) is not None and not span.covers(replaced):
                spans.append(replaced)
            self._let_go(turn, removed=True)
        removal = _Removal(spans, _Promise(), existed=bool(turns))
        if self._closing.is_set():
            removal.done.resolve(Removed(False, removal.existed))
            return removal.done.future
        self._add_removal(removal)
        self._bound(
            removal.done,
            self._limits.save_timeout,
            lambda: removal.done.resolve(Removed(False, removal.existed)),
        )
        return removal.done.future

    def _add_removal(self, removal: _Removal) -> None:
        self._removals.add(removal)
        for overlay in self._overlays:
            overlay.add_removal(removal)
        self._owe(removal, CHANGE_BYTES)

    def drop(self, span: Span) -> None:
        """See History.drop."""
        for turn in self._held(span):
            self._let_go(turn, removed=True, replaced_too=True)

    async def rename(self, session_id: str, title: str) -> SessionRecord | None:
        """See History.rename."""
        if self._has_no_room_for_changes():
            raise _too_many_changes()
        # In whatever order they are written: the newest title is the one that stays.
        for older in self._renamings:
            if older.session_id == session_id:
                older.title = title
        renaming = _Renaming(session_id, title, _Promise(), time.monotonic())
        done = renaming.done
        if self._closing.is_set():
            done.resolve(False)
        else:
            self._renamings.add(renaming)
            self._owe(renaming, CHANGE_BYTES)
            self._bound(done, self._limits.save_timeout, lambda: done.resolve(False))
        saved = await done.wait()
        if saved is False:
            raise Unavailable("the database cannot be written now; retry later", retry_after=1)
        return await self.session(session_id) if saved else None

    def _replace(self, turn: _Turn) -> None:
        """Let go of what a new turn takes the place of, and of what that would have replaced."""
        first, start = turn.start.replaces_from, turn.start
        if first is None:
            return
        for other in self._held(Span(start.session_id, first, start.epoch)):
            if (span := self._spans.get(other)) is not None:
                first = min(first, span.first)
            self._let_go(other, removed=True)
        self._set_span(turn, Span(start.session_id, first, start.epoch))

    def _set_span(self, turn: _Turn, span: Span) -> None:
        self._spans[turn] = span
        for overlay in self._overlays:
            overlay.add_removal(span)

    def _begin_again(self, turn: _Turn, again: _Turn) -> None:
        """Write it as a new one, over what is there of it."""
        if (span := self._spans.get(turn)) is not None and again not in self._spans:
            self._set_span(again, span)
        self._let_go(turn)

    def _held(self, span: Span) -> list[_Turn]:
        turns = self._sessions.get(span.session_id, {}).values()
        return [turn for turn in turns if span.holds(turn.start)]

    def _bound(self, promise: _Promise[T], timeout: float, give_up: Callable[[], object]) -> None:
        """Keep the promise at the latest after `timeout`, or at once when waiting is no use."""

        def too_late() -> None:
            if not promise.future.done():  # the waiter may have cancelled it
                give_up()

        if self._is_down:
            give_up()
        elif not promise.future.done():
            promise.timer = asyncio.get_running_loop().call_later(timeout, too_late)

    def _begin_unsaved(self, turn: _Turn) -> None:
        task = asyncio.create_task(self._tell_unsaved(turn))
        self._fallbacks.add(task)
        task.add_done_callback(self._fallbacks.discard)

    async def _tell_unsaved(self, turn: _Turn) -> None:
        # What cannot be written can perhaps still be read: on a full disk, in a read-only file.
        stored: Sequence[TurnRecord] = ()
        with self._overlay(turn.start.session_id) as overlay:
            if self._readable:
                try:
                    async with asyncio.timeout(self._limits.begin_timeout / 2):
                        stored = await self._store.recent(turn.start.session_id)
                except TimeoutError:
                    # One slow read does not mean slow reads while the database is reachable.
                    self._readable = not self._is_down
                except Exception:
                    self._readable = False  # until the next attempt to write
            if not turn.begun.future.done():
                turn.begun.resolve(Begun(False, self._messages(turn.start, stored, overlay)))

    # The backlog

    def _owe(self, work: _Work, size: int) -> None:
        if not work.owed:
            work.since = time.monotonic()
        work.owed += size
        self._backlog_bytes += size
        self._aside.pop(work, None)
        self._backlog.setdefault(work)
        self._wake.set()
        # Only a turn can make it too much; giving one up may owe a removal in its stead.
        while type(work) is _Turn and self._turn_bytes > self._limits.max_backlog_bytes:
            waiting = (work for work in chain(self._aside, self._backlog) if type(work) is _Turn)
            oldest = next(waiting, None)
            if oldest is None:
                break
            if not self._dropping:
                self._dropping = True
                logger.error("history_backlog_full turns={}", self.health.backlog)
            self._give_up(oldest)

    @property
    def _changes(self) -> int:
        return len(self._removals) + len(self._renamings)

    @property
    def _turn_bytes(self) -> int:
        return self._backlog_bytes - CHANGE_BYTES * self._changes

    def _has_no_room_for_changes(self) -> bool:
        is_full = self._changes >= MAX_CHANGES
        if is_full and not self._rejecting:
            self._rejecting = True
            logger.error("history_changes_full changes={}", self._changes)
        return is_full

    def _pay(self, work: _Work, size: int) -> None:
        size = min(size, work.owed)  # it may have been let go in the meantime
        work.owed -= size
        self._backlog_bytes -= size

    def _give_up(self, work: _Work) -> None:
        """Never write it."""
        self._dropped += 1
        if isinstance(work, _Turn):
            stored = work.stored
            self._let_go(work, replaced_too=True)
            if stored:
                self._interrupt(work.start.stream_id)
        else:
            self._drop(work)

    def _interrupt(self, stream_id: str) -> None:
        if stream_id not in self._turns and not self._closed:  # it may have been begun again
            work = self._interruptions[stream_id] = _Interruption(stream_id)
            self._owe(work, 0)

    def _drop(self, work: _Removal | _Renaming | _Interruption) -> None:
        self._backlog.pop(work, None)
        self._aside.pop(work, None)
        self._pay(work, work.owed)
        self._done(work, False)

    def _done(self, work: _Removal | _Renaming | _Interruption, saved: bool) -> None:
        if isinstance(work, _Interruption):
            del self._interruptions[work.stream_id]
            return
        if isinstance(work, _Removal):
            self._removals.discard(work)
            work.done.resolve(Removed(saved, work.existed))
        else:
            self._renamings.discard(work)
            work.done.resolve(saved)

    def _let_go(
        self,
        turn: _Turn,
        *,
        saved: bool = False,
        removed: bool = False,
        replaced_too: bool = False,
    ) -> None:
        """Nothing of it is to be written any more; whoever waits for it is told.

        `replaced_too`: what it would have replaced leaves all the same.
        """
        turn.gone, turn.complete = True, saved
        span = self._spans.pop(turn, None)
        if replaced_too and span is not None and not (turn.stored or self._closed):
            self._add_removal(_Removal([span], _Promise(), existed=True))
        self._backlog.pop(turn, None)
        self._aside.pop(turn, None)
        self._pay(turn, turn.owed)
        start = turn.start
        del self._turns[start.stream_id]
        siblings = self._sessions[start.session_id]
        del siblings[start.stream_id]
        if not siblings:
            del self._sessions[start.session_id]
        if not turn.begun.future.done():
            turn.begun.resolve(Begun(False, self._messages(start), removed=removed))
        if turn.finished is not None:
            turn.finished.resolve(saved)

    def _start_over(self) -> None:
        """The database may not have what it once had: owe everything that is not at its end."""
        for work in list(self._interruptions.values()):
            self._drop(work)
        for turn in self._turns.values():
            turn.stored, turn.kept = False, 0
            if turn not in self._aside:
                self._backlog.setdefault(turn)

    def _take_back(self, now: float) -> None:
        """What was set aside until now is tried again."""
        for work in [work for work, due in self._aside.items() if due <= now]:
            del self._aside[work]
            self._backlog.setdefault(work)

    # The task

    async def _run(self) -> None:
        while True:
            await self._until_due()
            if self._closing.is_set() and not self._backlog:
                return
            try:
                await self._attempt(self._keep_house())
                await self._write_some()
            except Exception as error:
                if error is not self._noted:
                    # A fault of this code, not the database: log it and continue to write.
                    logger.exception("history_round_failed")
                    self._retries += 1
                    await self._pause()
                elif not self._store.refused(error):
                    await self._pause()

    async def _until_due(self) -> None:
        now = time.monotonic()
        if not (self._backlog or self._closing.is_set()):
            due = min([self._reclaim_at, *self._aside.values()])
            if self._turns:
                due = min(due, self._checkpoint_at)
            with suppress(TimeoutError):
                async with asyncio.timeout(due - now):
                    await self._wake.wait()
            now = time.monotonic()
        self._wake.clear()
        self._take_back(math.inf if self._closing.is_set() else now)
        if now >= self._checkpoint_at:
            self._checkpoint_at = now + self._limits.checkpoint_every
            for turn in self._turns.values():
                new = turn.answer is not None and turn.answer.text_size > turn.kept
                if new and turn not in self._aside:
                    self._backlog.setdefault(turn)

    async def _attempt(self, step: Awaitable[T]) -> T:
        """Return the result of the step; raise its exception, or TimeoutError after a bound."""
        self._attempt_began = time.monotonic()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                return await step
        except Exception as error:
            self._note_failure(error)
            raise
        finally:
            self._attempt_began = None

    async def _keep_house(self) -> None:
        """Tell that this process lives, and see which others do not."""
        now = time.monotonic()
        idle = not (self._turns or self._backlog or self._opening or self._retries)
        if now >= self._renew_at and not idle:
            if not await self._store.renew():
                self._start_over()
            self._renew_at = now + self._limits.lease / 3
        if now >= self._reclaim_at:
            if count := await self._store.reclaim(opening=self._opening):
                logger.info("history_interrupted turns={}", count)
            self._opening = False
            self._reclaim_at = now + self._limits.lease

    async def _write_some(self) -> None:
        batch, parts = self._draft()
        if not parts:
            self._note_success()
            return
        self._in_flight = len(parts)
        try:
            written = await self._attempt(self._store.write(batch))
        except BaseException as error:
            again = {part.work: None for part in parts if not self._is_gone(part.work)}
            self._backlog = again | self._backlog
            if isinstance(error, Exception):
                self._narrow(parts, error)
            raise
        finally:
            self._in_flight = 0
        self._note_success()
        self._settle(parts, written)

    def _draft(self) -> tuple[Batch, list[_Part]]:
        batch = Batch()
        parts: list[_Part] = []
        size = 0
        for work in self._backlog:
            if len(parts) >= self._batch_turns or size >= BATCH_BYTES:
                break
            part = self._add(batch, work)
            parts.append(part)
            size += part.size
        for part in parts:
            del self._backlog[part.work]
        return batch, parts

    def _add(self, batch: Batch, work: _Work) -> _Part:
        if isinstance(work, _Removal):
            batch.removals += work.spans
            return _Part(work, work.owed, work.owed)
        if isinstance(work, _Interruption):
            batch.interrupts.append(work.stream_id)
            return _Part(work, work.owed, work.owed)
        if isinstance(work, _Renaming):
            age = time.monotonic() - work.given_at
            batch.titles.append((work.session_id, work.title, age))
            return _Part(work, work.owed, work.owed)
        if not work.stored and (span := self._spans.get(work)) is not None:
            batch.replaced[work.start.stream_id] = span
        if work.answer is None:
            (batch.ends if work.stored else batch.begins).append(work.record)
            if work.pieced:
                batch.pieced.append(work.start.stream_id)
            return _Part(work, work.owed, work.owed, begins=not work.stored, ends=True)
        if not work.stored:
            batch.begins.append(record_of(work.start, "", None))
        upto = work.answer.text_size
        if upto > work.kept:
            text = work.answer.text_from(work.kept)
            batch.pieces.append(Piece(work.start.stream_id, work.kept, text))
            work.pieced = True
        size = work.owed + upto - work.kept
        return _Part(work, work.owed, size, begins=not work.stored, upto=upto)

    def _settle(self, parts: list[_Part], written: Written) -> None:
        for work in (part.work for part in parts):
            if isinstance(work, _Removal):
                work.existed |= work.spans[0].session_id in written.removed
            if isinstance(work, _Removal | _Interruption) and not self._is_gone(work):
                self._done(work, True)
        # What agents are told, before anything is forgotten that they must be told of.
        for part in parts:
            turn = part.work
            if isinstance(turn, _Turn) and part.begins and not turn.begun.future.done():
                begun = turn.start.stream_id in written.begun
                fenced = turn.start.stream_id in written.fenced
                earlier = written.earlier.get(turn.start.session_id, [])
                turn.begun.resolve(
                    Begun(
                        begun,
                        self._messages(turn.start, earlier),
                        taken=not (begun or fenced),
                        removed=fenced,
                    )
                )
        for part in parts:
            part.work.tries = 0
            self._pay(part.work, part.owed)
            if isinstance(part.work, _Turn):
                self._settle_turn(part.work, part, written)
        for work in (part.work for part in parts):
            if isinstance(work, _Renaming) and not self._is_gone(work):
                self._settle_renaming(work, is_titled=work.session_id in written.titled)

    def _settle_renaming(self, renaming: _Renaming, *, is_titled: bool) -> None:
        held = self._sessions.get(renaming.session_id, {}).values()
        unstored = [] if is_titled else [turn for turn in held if not turn.stored]
        if any(turn in self._backlog for turn in unstored):
            # The session's first question came after this batch: the title follows it.
            self._owe(renaming, CHANGE_BYTES)
        else:
            self._done(renaming, not unstored)

    def _settle_turn(self, turn: _Turn, part: _Part, written: Written) -> None:
        stream_id = turn.start.stream_id
        there = stream_id in (written.begun if part.begins else written.ended)
        if turn.gone:  # while it was being written; a turn that was removed is removed next
            if part.begins and there:
                self._interrupt(stream_id)
            return
        if part.begins:
            self._saved += there
            turn.stored = there
        if stream_id in written.fenced:
            self._let_go(turn, removed=True, replaced_too=True)
        elif part.ends:
            self._saved += there
            self._let_go(turn, saved=there)
        elif part.begins and not there:
            logger.warning("history_stream_id_taken stream={}", stream_id)
            self._let_go(turn)
        else:
            turn.kept = part.upto

    def _is_gone(self, work: _Work) -> bool:
        if isinstance(work, _Turn):
            return work.gone
        if isinstance(work, _Interruption):
            return self._interruptions.get(work.stream_id) is not work
        return work not in (self._removals if isinstance(work, _Removal) else self._renamings)

    # How the database is

    @property
    def _is_down(self) -> bool:
        """Return whether waiting for the database is useless now.

        True when two attempts in succession failed, or when one has taken (or is taking) longer
        than any promise waits. A successful attempt resets it.
        """
        if self._down or self._attempt_began is None:
            return self._down
        patience = max(self._limits.begin_timeout, self._limits.save_timeout)
        return time.monotonic() - self._attempt_began > patience

    def _narrow(self, parts: list[_Part], error: Exception) -> None:
        """Halve the batches until what cannot be written is alone: that stops nothing else."""
        self._batch_turns = max(1, len(parts) // 2)
        if len(parts) != 1 or self._is_gone(parts[0].work):
            return
        work = parts[0].work
        if self._store.refused(error):
            logger.error("history_refused error={}", type(error).__name__)
            self._give_up(work)
        else:
            work.tries += 1
            self._backlog.pop(work, None)
            self._aside[work] = time.monotonic() + _pause_after(work.tries)

    def _note_failure(self, error: Exception) -> None:
        self._noted = error
        self._failures += 1
        self._last_error = type(error).__name__
        if self._store.refused(error):
            return
        self._renew_at = 0.0
        self._readable = True
        self._retries += 1
        self._down = self._retries > 1 or self._is_down
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        self._log.log("ERROR", "history_write_failed error={}", self._store.describe(error))

    def _note_success(self) -> None:
        self._batch_turns = min(BATCH_TURNS, 2 * self._batch_turns)
        self._down = self._dropping = self._rejecting = False
        self._readable = True
        self._retries = 0
        if self._failing_since is None or self._aside:
            return
        if not any(work.tries for work in self._backlog):
            seconds = time.monotonic() - self._failing_since
            self._failing_since = None
            self._log.recovered()
            logger.info("history_recovered seconds={:.1f} backlog={}", seconds, len(self._backlog))

    async def _pause(self) -> None:
        if self._closing.is_set():
            await asyncio.sleep(SHORTEST_PAUSE)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_pause_after(self._retries)):
                await self._closing.wait()

    # Reading: what is in the database, and what is not there yet

    async def turn(self, stream_id: str) -> TurnRecord | None:
        """See History.turn."""
        if (turn := self._turns.get(stream_id)) is not None:
            return turn.record
        with self._overlay(None, {}) as overlay:
            found = await self._read(self._store.turn(stream_id))
            turns = overlay.apply([found] if found else [])
        return next((turn for turn in turns if turn.stream_id == stream_id), None)

    async def turns(
        self, session_id: str, *, limit: int | None = None, before: int | None = None
    ) -> list[TurnRecord]:
        """See History.turns. Returns the state at the end of the call."""
        with self._overlay(session_id) as overlay:
            stored = await self._read(self._store.turns(session_id, limit=limit, before=before))
            return overlay.apply(stored, before=before, limit=limit)

    async def page(
        self,
        session_id: str,
        *,
        limit: int,
        max_bytes: int,
        before: int | None = None,
        after: int | None = None,
    ) -> TurnPage:
        """See History.page. Returns the state at the end of the call."""
        while True:
            with self._overlay(session_id) as overlay:
                stored, more = await self._read(
                    self._store.page(
                        session_id, limit=limit, max_chars=max_bytes, before=before, after=after
                    )
                )
                low = -1 if after is None else after
                high = math.inf if before is None else before
                if more and after is None:
                    low = stored[0].epoch - 1
                elif more:
                    high = stored[-1].epoch + 1
                found = overlay.select(stored, low, high)
                found.sort(key=_epoch_of, reverse=after is None)
                sizes = map(_size_of, found)
                count = count_fitting(sizes, limit=limit, max_bytes=max_bytes)
                page = [turn.record if isinstance(turn, _Turn) else turn for turn in found[:count]]
            if page or not more:
                following = page[-1].epoch if more or count < len(found) else None
                return TurnPage(page if after is not None else page[::-1], following)
            # Removals cover all of them.
            if after is None:
                before = stored[0].epoch
            else:
                after = stored[-1].epoch

    async def sessions(
        self,
        *,
        owner: str = "",
        limit: int = 50,
        before: str | None = None,
        query: str | None = None,
    ) -> SessionPage:
        """See History.sessions."""
        return await self._read(
            self._store.sessions(owner=owner, limit=limit, before=before, query=query)
        )

    async def count(self, owner: str = "") -> int:
        """See History.count."""
        return await self._read(self._store.count(owner))

    async def session(self, session_id: str) -> SessionRecord | None:
        """See History.session."""
        return await self._read(self._store.session(session_id))

    async def last_epoch(self) -> int:
        """See History.last_epoch."""
        return await self._read(self._store.last_epoch())

    async def _read(self, reading: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._limits.read_timeout):
                return await reading
        except JarvisError:
            raise
        except Exception as error:
            self._log.log("ERROR", "history_read_failed error={}", self._store.describe(error))
            raise Unavailable(
                "the database cannot be read now; retry later", retry_after=1
            ) from error

    @contextmanager
    def _overlay(
        self, session_id: str | None, turns: dict[str, _Turn] | None = None
    ) -> Iterator[_Overlay]:
        """Read inside; `turns` restricts the overlay to these turns."""
        overlay = self._overlay_now(session_id, turns)
        self._overlays.add(overlay)
        try:
            yield overlay
        finally:
            self._overlays.discard(overlay)

    def _overlay_now(
        self, session_id: str | None, turns: dict[str, _Turn] | None = None
    ) -> _Overlay:
        if turns is None:
            turns = dict(self._sessions.get(session_id or "", {}))
        leaving: list[_Removal | Span] = []
        if self._removals:
            leaving += (removal for removal in self._removals if removal.concerns(session_id))
        if self._spans:
            spans = self._spans.values()
            leaving += (span for span in spans if session_id in (None, span.session_id))
        return _Overlay(session_id, turns, leaving)

    def _messages(
        self,
        turn: TurnStart,
        stored: Sequence[TurnRecord] = (),
        overlay: _Overlay | None = None,
    ) -> list[Message]:
        """Return an agent's context; `overlay` belongs to the read that returned `stored`."""
        if overlay is None:  # `stored` was read in this step of the event loop
            overlay = self._overlay_now(turn.session_id)
        earlier = overlay.apply(stored, before=turn.epoch, limit=self._limits.max_messages)
        return messages_of(
            ((other.prompt, other.text) for other in reversed(earlier)),
            turn.prompt,
            max_messages=self._limits.max_messages,
            max_chars=self._limits.max_chars,
        )


def _epoch_of(turn: TurnRecord | _Turn) -> int:
    return turn.start.epoch if isinstance(turn, _Turn) else turn.epoch


def _size_of(turn: TurnRecord | _Turn) -> int:
    if isinstance(turn, _Turn):
        return turn.text_size
    return utf8_size(turn.prompt) + utf8_size(turn.text)


def _pause_after(failures: int) -> float:
    return float(min(SHORTEST_PAUSE * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE))


def _too_many_changes() -> Unavailable:
    return Unavailable(
        f"{MAX_CHANGES} deletions and new titles already wait for the database; retry later",
        retry_after=LONGEST_PAUSE,
    )

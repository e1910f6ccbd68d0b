"""A store in a SQL database: SQLAlchemy Core, one statement for many turns wherever possible."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from jarvis_stream.clock import StoreClock
from jarvis_stream.errors import Unavailable
from jarvis_stream.history import schema
from jarvis_stream.history.backends import Backend
from jarvis_stream.history.base import SessionPage, SessionRecord, Span, TurnRecord
from jarvis_stream.history.schema import AnyText, instances, pieces, removals, sessions, turns
from jarvis_stream.history.search import find_sessions, snippets
from jarvis_stream.history.store import Batch, Piece, Written
from jarvis_stream.history.views import (
    TITLE_CHARS,
    Position,
    cursor_of,
    position_of,
    title_of,
    words_of,
)
from jarvis_stream.ids import owner_of

T = TypeVar("T")
_Rows = Sequence[sa.Row[*tuple[Any, ...]]]

SEARCH_TIMEOUT: Final = 3.0
"""Seconds that a search may take, including the wait for earlier searches of its owner."""
REMOVALS_KEPT: Final = 24 * 3600.0
"""Seconds that a removal is remembered; it does not fence writes that come later than that."""
COLLECT_INTERVAL: Final = 3600.0
"""Seconds between two deletions of removals that are older than that."""
LATE_TITLE: Final = 0.5
"""The age of a title in seconds from which its write checks for a newer removal."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds for leaving, and for closing the connections."""

# Reading

_ordered_pieces = (
    sa.select(pieces.c.text)
    .where(pieces.c.stream_id == turns.c.stream_id)
    .order_by(pieces.c.start)
    .correlate(turns)
    .subquery()
)
_joined_pieces: sa.ColumnElement[str] = sa.func.coalesce(
    sa.select(sa.func.aggregate_strings(_ordered_pieces.c.text, "")).scalar_subquery(),
    "",
    type_=AnyText,
)

# A turn with its text, in one statement: no ending can come between status and pieces.
_TURNS: Final = sa.select(
    turns.c.session_id,
    turns.c.stream_id,
    turns.c.epoch,
    turns.c.prompt,
    turns.c.created_at,
    sa.case((turns.c.status == "streaming", _joined_pieces), else_=turns.c.answer).label("text"),
    turns.c.status,
    turns.c.finish_reason,
    turns.c.error_code,
    turns.c.error,
    turns.c.retryable,
    turns.c.usage,
    turns.c.trace_id,
    turns.c.ended_at,
)


def _recent(*, lateral: bool) -> sa.Select[Any]:
    """Select the turns of `session_ids` for an agent's context, oldest first.

    The index returns only the wanted number of turns of each session, so that the cost does not
    grow with the session. PostgreSQL uses a lateral subquery; SQLite, which has none, a bound on
    the epoch.
    """
    without: sa.BindParameter[Any] = sa.bindparam("without", expanding=True)
    max_turns = sa.bindparam("max_turns", type_=sa.Integer)
    newest_first = (
        sa.select(turns)
        .where(turns.c.session_id == sessions.c.session_id, turns.c.stream_id.not_in(without))
        .order_by(turns.c.epoch.desc())
        .correlate(sessions)
    )
    if lateral:
        candidates = (
            newest_first.with_only_columns(
                turns.c.session_id, turns.c.stream_id, turns.c.epoch, turns.c.chars
            )
            .limit(max_turns)
            .lateral()
            .c
        )
        wanted: sa.ColumnElement[bool] = sa.true()
    else:
        oldest = newest_first.with_only_columns(turns.c.epoch).limit(1).offset(max_turns - 1)
        candidates = turns.alias().c
        wanted = sa.and_(
            candidates.session_id == sessions.c.session_id,
            candidates.epoch >= sa.func.coalesce(oldest.scalar_subquery(), 0),
            candidates.stream_id.not_in(without),
        )
    window: dict[str, Any] = {
        "partition_by": candidates.session_id,
        "order_by": candidates.epoch.desc(),
    }
    ranked = (
        sa.select(
            candidates.stream_id,
            sa.func.row_number().over(**window).label("rank"),
            sa.func.sum(candidates.chars).over(**window, rows=(None, 0)).label("chars_since"),
        )
        .select_from(sessions)
        .join(candidates.stream_id.table, wanted)
        .where(sessions.c.session_id.in_(sa.bindparam("session_ids", expanding=True)))
        .subquery()
    )
    return (
        _TURNS.join(ranked, ranked.c.stream_id == turns.c.stream_id)
        .where(ranked.c.rank <= max_turns, ranked.c.chars_since <= sa.bindparam("max_chars"))
        .order_by(turns.c.epoch)
    )


_of_session = turns.c.session_id == sessions.c.session_id
_first = sa.select(turns).where(_of_session).order_by(turns.c.epoch).limit(1).correlate(sessions)
_SESSIONS: Final = sa.select(
    sessions.c.session_id,
    sessions.c.updated_at,
    sessions.c.title,
    # Escaped, a character takes two at most.
    _first.with_only_columns(sa.func.substr(turns.c.prompt, 1, 8 * TITLE_CHARS, type_=AnyText))
    .scalar_subquery()
    .label("prompt"),
    _first.with_only_columns(turns.c.created_at).scalar_subquery().label("created_at"),
    sessions.c.turn_count,
).order_by(sessions.c.updated_at.desc(), sessions.c.session_id.desc())

# Writing

_mine = turns.c.instance_id == sa.bindparam("me")

# Before a session's first question there is nothing: to see that costs less than to look for it.
# The names are written out: in RETURNING, SQLAlchemy leaves the table's away.
_other = turns.alias()
_has_others: sa.ColumnElement[bool] = sa.exists().where(
    _other.c.session_id == sa.literal_column(f"{turns.name}.session_id"),
    _other.c.stream_id != sa.literal_column(f"{turns.name}.stream_id"),
)
# In the statement that inserts, for one look at an index: in most cases there is nothing.
_is_removed: sa.ColumnElement[bool] = sa.exists().where(
    removals.c.session_id == sa.literal_column(f"{turns.name}.session_id"),
    removals.c.before_epoch > sa.literal_column(f"{turns.name}.epoch"),
    removals.c.first_epoch <= sa.literal_column(f"{turns.name}.epoch"),
)

_END_TURN: Final = (
    sa.update(turns)
    .where(turns.c.stream_id == sa.bindparam("id"), _mine)
    .values(
        {
            name: sa.bindparam(f"new_{name}", type_=turns.c[name].type)
            for name in (
                "status",
                "finish_reason",
                "error_code",
                "error",
                "retryable",
                "usage",
                "ended_at",
                "chars",
                "answer",
            )
        }
    )
)
_INTERRUPT: Final = (
    sa.update(turns)
    .where(turns.c.status == "streaming", _mine)
    .values(
        status="interrupted",
        answer=_joined_pieces,
        chars=turns.c.chars
        + sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(pieces.c.text)), 0))
        .where(pieces.c.stream_id == turns.c.stream_id)
        .scalar_subquery(),
    )
    .returning(turns.c.stream_id)
)
_FORGET_PIECES: Final = sa.delete(pieces).where(
    pieces.c.stream_id.in_(sa.bindparam("ids", expanding=True))
)


class SqlStore:
    """See Store. `max_messages` and `max_chars` bound what is read for an agent."""

    def __init__(
        self,
        backend: Backend,
        *,
        instance_id: str,
        lease: float,
        max_messages: int,
        max_chars: int,
    ) -> None:
        self._backend = backend
        self._me = instance_id
        self._lease = lease
        self._clock = StoreClock()
        self._bounds = {"max_turns": max_messages, "max_chars": max_chars}
        self._prepared = False
        self._was_prepared = False
        self._searching: dict[str, asyncio.Semaphore] = {}
        """One lock per owner with a running search, so that an owner has one search at a time."""
        self._indexing: asyncio.Task[None] | None = None
        self._recent = _recent(lateral=backend.has_lateral)

        session = backend.insert(sessions)
        self._upsert_session = session.on_conflict_do_update(
            index_elements=[sessions.c.session_id],
            set_={"updated_at": session.excluded.updated_at},
            where=sessions.c.updated_at < session.excluded.updated_at,
        )
        turn = backend.insert(turns)
        self._upsert_turn = turn.on_conflict_do_update(
            index_elements=[turns.c.stream_id],
            set_={column.name: turn.excluded[column.name] for column in turns.c},
            where=sa.and_(
                turns.c.instance_id == turn.excluded.instance_id,
                turns.c.session_id == turn.excluded.session_id,
                turns.c.epoch == turn.excluded.epoch,
            ),
        ).returning(turns.c.stream_id, _has_others, _is_removed)
        values = [sa.bindparam(column.name, type_=column.type) for column in pieces.c]
        piece = backend.insert(pieces).from_select(
            pieces.c.keys(),
            sa.select(*values).where(
                sa.exists().where(
                    turns.c.stream_id == values[0], _mine, turns.c.status == "streaming"
                )
            ),
        )
        self._append_piece = piece.on_conflict_do_update(
            index_elements=[pieces.c.stream_id, pieces.c.start], set_={"text": piece.excluded.text}
        )
        removal = backend.insert(removals)
        self._keep_removal = removal.on_conflict_do_update(
            index_elements=[*removals.primary_key], set_={"removed_at": removal.excluded.removed_at}
        )
        self._collect_at = 0.0

    # The process

    async def prepare(self) -> None:
        """Connect, and bring the schema to this program's version.

        Raises HistoryUnusable for a newer one.
        """
        await self._backend.prepare()
        self._me = self._backend.known_as
        # The first check is a read, because the database may be read-only. Later checks are not:
        # a read may wait for other reads, and writes must not wait.
        look = self._backend.write if self._was_prepared else self._backend.read
        if await look(schema.version_of) != schema.HEAD:
            await self._backend.change_schema(schema.upgrade)
            await self._backend.prepare_search()
        elif not self._was_prepared:
            await self._backend.prepare_search()
        if self._indexing is None:
            self._indexing = asyncio.create_task(self._backend.keep_searchable())
        self._prepared = self._was_prepared = True

    async def close(self) -> None:
        """Close the connections and leave: no other process has to wonder about this one.

        Takes a few seconds at most, and does not raise: its lease runs out anyway.
        """
        try:
            if self._indexing is not None:
                self._indexing.cancel()
                await asyncio.wait({self._indexing}, timeout=CLOSE_TIMEOUT)
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    if self._prepared:
                        await self._leave()
        finally:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._backend.close()

    async def _leave(self) -> None:
        streaming = sa.exists().where(
            turns.c.instance_id == self._me, turns.c.status == "streaming"
        )
        leave = sa.delete(instances).where(instances.c.instance_id == self._me, ~streaming)
        await self._backend.write(lambda connection: connection.execute(leave))

    async def renew(self) -> bool:
        """See Store.renew."""
        if not self._prepared:
            await self.prepare()
        return await self._write(self._renew)

    def _renew(self, connection: sa.Connection) -> bool:
        now = self._backend.now
        renewed = connection.execute(
            sa.update(instances).where(instances.c.instance_id == self._me).values(seen_at=now)
        )
        if renewed.rowcount:
            return True
        connection.execute(sa.insert(instances).values(instance_id=self._me, seen_at=now))
        return False

    async def reclaim(self, *, opening: bool) -> int:
        """See Store.reclaim."""
        if time.monotonic() >= self._collect_at:
            self._collect_at = time.monotonic() + COLLECT_INTERVAL
            await self._write(self._collect)
        # Only the first call reads (see prepare).
        look = self._backend.read if opening else self._write
        sent = time.monotonic()
        now = await look(lambda connection: connection.scalar(sa.select(self._backend.now)))
        assert now is not None
        self._clock.observe(float(now), sent, time.monotonic(), "the database")
        lapsed = instances.c.seen_at < self._backend.now - self._lease
        if not opening:
            # After a step of the database's clock the other processes need time to renew.
            if not self._clock.horizon(self._lease / 2):
                return 0
            # Set before the clock stepped back, and not renewed since.
            lapsed |= instances.c.seen_at > self._backend.now + self._lease
        others = sa.select(instances.c.instance_id, lapsed).where(
            instances.c.instance_id != self._me
        )
        count = 0
        for instance_id, late in await look(lambda connection: connection.execute(others).all()):
            if opening or late:
                leave = sa.delete(instances).where(instances.c.instance_id == instance_id)
                if late:  # still, in the moment in which it is written
                    leave = leave.where(lapsed)
                count += await self._write(
                    partial(self._reclaim_from, instance_id, leave, look=not late)
                )
        return count

    def _collect(self, connection: sa.Connection) -> None:
        """Delete old removals, but keep the highest epoch."""
        highest = sa.select(sa.func.max(removals.c.before_epoch)).scalar_subquery()
        connection.execute(
            sa.delete(removals).where(
                removals.c.removed_at < self._backend.now - REMOVALS_KEPT,
                removals.c.before_epoch < highest,
            )
        )

    def _reclaim_from(
        self, instance_id: str, leave: sa.Delete, connection: sa.Connection, *, look: bool
    ) -> int:
        if look and not self._backend.gone(connection, instance_id):
            return 0
        # First of all, so that a process that renews its lease just now keeps its turns.
        if not connection.execute(leave).rowcount:
            return 0
        streaming = sa.select(turns.c.stream_id).where(_mine, turns.c.status == "streaming")
        ids = connection.scalars(streaming, {"me": instance_id}).all()
        self._backend.lock_sessions(connection, [], ids)
        return self._interrupt(connection, _INTERRUPT, instance_id)

    def refused(self, error: Exception) -> bool:
        """See Store.refused."""
        refusals = (DataError, IntegrityError, UnicodeError, OverflowError, TypeError)
        return isinstance(error, refusals)

    def explain(self, error: Exception) -> str:
        """Return why the database cannot be opened, and the remedy, for the operator."""
        remedy = self._backend.remedy(error)
        described = self.describe(error)
        if isinstance(error, OSError) and error.strerror:
            described = f"{described}: {error.strerror}"
        return f"{described}; {remedy}" if remedy else described

    def describe(self, error: Exception) -> str:
        """See Store.describe."""
        name = type(error).__name__
        if isinstance(error, OperationalError) and error.orig is not None:
            return f"{name}: {str(error.orig).strip().partition(chr(10))[0]}"
        return name

    # What the writer asks

    async def write(self, batch: Batch) -> Written:
        """See Store.write."""
        return await self._write(partial(self._make, batch))

    async def _write(self, change: Callable[[sa.Connection], T]) -> T:
        try:
            return await self._backend.write(change)
        except Exception as error:
            if not self.refused(error):
                # The next attempt opens new connections: the state that a connection saw when it
                # was opened (a read-only file, a lost server) may have changed.
                self._prepared = False
            raise

    def _make(self, batch: Batch, connection: sa.Connection) -> Written:
        written = Written()
        known: set[str] = set()
        self._backend.lock_sessions(connection, *_touched(batch))
        if batch.interrupts:
            these = _INTERRUPT.where(turns.c.stream_id.in_(batch.interrupts))
            self._interrupt(connection, these, self._me)
        if batch.removals:
            written.removed = self._remove(connection, batch.removals)
        if batch.begins:
            written.begun, written.fenced, known = self._begin(connection, batch.begins)
        replaced = [span for id, span in batch.replaced.items() if id in written.begun]
        if replaced:
            self._remove(connection, replaced)
        for session_id, title, age in batch.titles:
            if self._rename(connection, session_id, title, age):
                written.titled.add(session_id)
        if batch.ends:
            written.ended = self._end(connection, batch.ends)
        # Of another's turn with the same stream_id, pieces stay.
        if pieced := (written.begun | written.ended).intersection(batch.pieced):
            connection.execute(_FORGET_PIECES, {"ids": list(pieced)})
        if batch.pieces:
            connection.execute(
                self._append_piece,
                [
                    {
                        "stream_id": piece.stream_id,
                        "start": piece.start,
                        "text": piece.text,
                        "me": self._me,
                    }
                    for piece in sorted(batch.pieces, key=_stream_of)
                ],
            )
        if known:
            without = [turn.stream_id for turn in batch.begins]
            for turn in self._earlier(connection, known, without):
                written.earlier.setdefault(turn.session_id, []).append(turn)
        return written

    def _begin(
        self, connection: sa.Connection, begins: Sequence[TurnRecord]
    ) -> tuple[set[str], set[str], set[str]]:
        """Return the begins that are stored, those that a removal covers, and the sessions with
        turns of other processes."""
        newest: dict[str, float] = {}
        for turn in begins:
            newest[turn.session_id] = max(newest.get(turn.session_id, 0.0), turn.created_at)
        connection.execute(
            self._upsert_session,
            [
                {
                    "session_id": session_id,
                    "updated_at": updated_at,
                    "owner": owner_of(session_id),
                }
                for session_id, updated_at in sorted(newest.items())
            ],
        )
        rows = [
            {
                "session_id": turn.session_id,
                "stream_id": turn.stream_id,
                "epoch": turn.epoch,
                "instance_id": self._me,
                "created_at": turn.created_at,
                "prompt": turn.prompt,
                "trace_id": turn.trace_id,
                **_ending(turn),
            }
            for turn in sorted(begins, key=_stream_of)
        ]
        begun: dict[str, bool] = {}
        fenced: set[str] = set()
        for stream_id, has_others, is_removed in connection.execute(self._upsert_turn, rows):
            begun[stream_id] = has_others
            if is_removed:
                fenced.add(stream_id)
        if fenced:
            left = sa.delete(turns).where(turns.c.stream_id.in_(fenced))
            self._tidy(connection, set(connection.scalars(left.returning(turns.c.session_id))))
        if taken := newest.keys() - {turn.session_id for turn in begins if turn.stream_id in begun}:
            self._forget_empty(connection, list(taken))
        known = {turn.session_id for turn in begins if begun.get(turn.stream_id, True)}
        return begun.keys() - fenced, fenced, known

    def _end(self, connection: sa.Connection, ends: Sequence[TurnRecord]) -> set[str]:
        ids = {turn.stream_id for turn in ends}
        rows = [
            {
                "id": turn.stream_id,
                "me": self._me,
                **{f"new_{name}": value for name, value in _ending(turn).items()},
            }
            for turn in sorted(ends, key=_stream_of)
        ]
        done = connection.execute(_END_TURN, rows)
        if done.rowcount == len(rows):
            return ids
        found = sa.select(turns.c.stream_id).where(turns.c.stream_id.in_(ids), _mine)
        return set(connection.scalars(found, {"me": self._me}))

    def _interrupt(
        self, connection: sa.Connection, statement: sa.UpdateBase, instance_id: str
    ) -> int:
        ids = connection.scalars(statement, {"me": instance_id}).all()
        connection.execute(_FORGET_PIECES, {"ids": ids})
        return len(ids)

    def _remove(self, connection: sa.Connection, spans: Sequence[Span]) -> set[str]:
        """Remove the turns of these spans for good; return the sessions that had such turns."""
        connection.execute(
            self._keep_removal.values(removed_at=self._backend.now),
            [
                {
                    "session_id": span.session_id,
                    "first_epoch": span.first,
                    "before_epoch": span.before,
                }
                for span in spans
            ],
        )
        left: set[str] = set()
        for span in spans:
            if not span.first:
                connection.execute(
                    sa.update(sessions)
                    .where(
                        sessions.c.session_id == span.session_id,
                        sessions.c.titled_epoch < span.before,
                    )
                    .values(title=None)
                )
            gone = sa.delete(turns).where(_within(span)).returning(turns.c.session_id)
            left.update(connection.scalars(gone))
        self._tidy(connection, left)
        return left

    def _tidy(self, connection: sa.Connection, session_ids: set[str]) -> None:
        """Update the sessions that have lost turns, and remove sessions without turns."""
        if not session_ids:
            return
        newest = _first.order_by(None).order_by(turns.c.epoch.desc())
        connection.execute(
            sa.update(sessions)
            .where(sessions.c.session_id.in_(session_ids), sa.exists().where(_of_session))
            .values(updated_at=newest.with_only_columns(turns.c.created_at).scalar_subquery())
        )
        self._forget_empty(connection, list(session_ids))

    def _rename(self, connection: sa.Connection, session_id: str, title: str, age: float) -> bool:
        newest = sa.select(sa.func.coalesce(sa.func.max(turns.c.epoch), 0)).where(
            turns.c.session_id == session_id
        )
        rename = (
            sa.update(sessions)
            .where(sessions.c.session_id == session_id)
            .values(title=title, titled_epoch=newest.scalar_subquery())
        )
        if age > LATE_TITLE:
            overtaken = sa.exists().where(
                removals.c.session_id == session_id,
                removals.c.first_epoch == 0,
                removals.c.removed_at > self._backend.now - age,
            )
            rename = rename.where(~overtaken)
        return connection.execute(rename).rowcount > 0

    def _forget_empty(self, connection: sa.Connection, session_ids: list[str]) -> None:
        # Locked first: else a turn that another process begins just now would go with its session.
        these = sessions.c.session_id.in_(session_ids)
        locked = sa.select(sessions.c.session_id).where(these).order_by(sessions.c.session_id)
        connection.execute(locked.with_for_update())
        connection.execute(sa.delete(sessions).where(these, ~sa.exists().where(_of_session)))

    def _earlier(
        self, connection: sa.Connection, session_ids: set[str], without: list[str]
    ) -> list[TurnRecord]:
        found = connection.execute(
            self._recent, {"session_ids": list(session_ids), "without": without, **self._bounds}
        )
        return [_turn(row) for row in found]

    # What anybody asks

    async def recent(self, session_id: str) -> list[TurnRecord]:
        """See Store.recent."""
        return await self._read(
            self._recent, {"session_ids": [session_id], "without": [], **self._bounds}
        )

    async def turn(self, stream_id: str) -> TurnRecord | None:
        """See Store.turn."""
        found = await self._read(_TURNS.where(turns.c.stream_id == stream_id))
        return found[0] if found else None

    async def turns(
        self, session_id: str, *, limit: int | None, before: int | None
    ) -> list[TurnRecord]:
        """See Store.turns."""
        statement = _TURNS.where(turns.c.session_id == session_id)
        if before is not None:
            statement = statement.where(turns.c.epoch < before)
        newest_first = statement.order_by(turns.c.epoch.desc()).limit(limit)
        return (await self._read(newest_first))[::-1]

    async def page(
        self,
        session_id: str,
        *,
        limit: int,
        max_chars: int,
        before: int | None,
        after: int | None,
    ) -> tuple[list[TurnRecord], bool]:
        """See Store.page."""
        epoch = turns.c.epoch
        these = [turns.c.session_id == session_id]
        if before is not None:
            these.append(epoch < before)
        if after is not None:
            these.append(epoch > after)
        order = epoch.desc() if after is None else epoch
        # The sizes are read first: the texts only when the end of the page is known.
        sizes = sa.select(epoch, turns.c.chars).where(*these).order_by(order).limit(limit + 1)

        def look(connection: sa.Connection) -> tuple[list[TurnRecord], bool]:
            found = connection.execute(sizes).all()
            sums = itertools.accumulate(row.chars for row in found[:limit])
            count = sum(chars <= max_chars or index == 0 for index, chars in enumerate(sums))
            if not count:
                return [], False
            ends = found[0].epoch, found[count - 1].epoch
            within = epoch.between(min(ends), max(ends))
            rows = connection.execute(_TURNS.where(these[0], within).order_by(epoch))
            return [_turn(row) for row in rows], len(found) > count

        return await self._backend.read(look)

    async def sessions(
        self, *, owner: str, limit: int, before: str | None, query: str | None
    ) -> SessionPage:
        """See Store.sessions."""
        statement = _SESSIONS.where(sessions.c.owner == owner).limit(limit + 1)
        position = position_of(before) if before is not None else None
        words = words_of(query) if query else []
        if words:
            rows, snippet = await self._search(owner, words, position, limit)
        else:
            if position is not None:
                place = sa.tuple_(sessions.c.updated_at, sessions.c.session_id)
                statement = statement.where(place < sa.tuple_(*position))
            rows, snippet = await self._rows(statement), {}
        page = [_session(row, snippet.get(row.session_id)) for row in rows[:limit]]
        more = len(rows) > limit
        return SessionPage(
            page, cursor_of((page[-1].updated_at, page[-1].session_id)) if more else None
        )

    async def _search(
        self, owner: str, words: list[str], before: Position | None, limit: int
    ) -> tuple[_Rows, dict[str, str]]:
        """Return the rows of up to `limit` + 1 sessions, and their snippets.

        An owner has one search at a time, so that searches of other owners wait less.
        """

        def look(connection: sa.Connection) -> tuple[_Rows, dict[str, str]]:
            found = find_sessions(
                connection, self._backend, owner, words, before=before, limit=limit + 1
            )
            ids = [session_id for session_id, _ in found]
            rows = connection.execute(_SESSIONS.where(sessions.c.session_id.in_(ids))).all()
            return rows, snippets(connection, self._backend, found[:limit], words)

        turnstile = self._searching.setdefault(owner, asyncio.Semaphore())
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT), turnstile:
                return await self._backend.search(look)
        except TimeoutError as error:
            raise Unavailable(
                f"the search took more than {SEARCH_TIMEOUT:g} s: use longer or rarer words",
                retry_after=1,
            ) from error
        finally:
            if not turnstile.locked() and self._searching.get(owner) is turnstile:
                del self._searching[owner]

    async def count(self, owner: str) -> int:
        """See Store.count."""
        statement = sa.select(sa.func.count()).where(sessions.c.owner == owner)
        ((count,),) = await self._rows(statement)
        return int(count)

    async def session(self, session_id: str) -> SessionRecord | None:
        """See Store.session."""
        statement = _SESSIONS.where(sessions.c.session_id == session_id)
        rows = await self._rows(statement)
        return _session(rows[0]) if rows else None

    async def last_epoch(self) -> int:
        """See Store.last_epoch."""
        kept = sa.select(sa.func.max(turns.c.epoch)).scalar_subquery()
        gone = sa.select(sa.func.max(removals.c.before_epoch) - 1).scalar_subquery()
        ((kept_epoch, gone_epoch),) = await self._rows(sa.select(kept, gone))
        return max(kept_epoch or 0, gone_epoch or 0)

    async def _read(
        self, statement: sa.Select[Any], values: dict[str, Any] | None = None
    ) -> list[TurnRecord]:
        return [_turn(row) for row in await self._rows(statement, values)]

    async def _rows(
        self, statement: sa.Select[Any], values: dict[str, Any] | None = None
    ) -> Sequence[sa.Row[*tuple[Any, ...]]]:
        return await self._backend.read(
            lambda connection: connection.execute(statement, values).all()
        )


def _stream_of(what: TurnRecord | Piece) -> str:
    return what.stream_id


def _touched(batch: Batch) -> tuple[list[str], list[str]]:
    """Return the sessions that a batch changes, and the streams whose session it does not name."""
    session_ids = {turn.session_id for turn in (*batch.begins, *batch.ends)}
    session_ids.update(span.session_id for span in (*batch.removals, *batch.replaced.values()))
    session_ids.update(session_id for session_id, _, _ in batch.titles)
    stream_ids = {piece.stream_id for piece in batch.pieces}
    stream_ids.update(batch.interrupts)
    return list(session_ids), list(stream_ids)


def _within(span: Span) -> sa.ColumnElement[bool]:
    return sa.and_(
        turns.c.session_id == span.session_id,
        turns.c.epoch >= span.first,
        turns.c.epoch < span.before,
    )


def _ending(turn: TurnRecord) -> dict[str, Any]:
    """The columns that change when a turn ends."""
    return {
        "status": turn.status,
        "finish_reason": turn.finish_reason,
        "error_code": turn.error_code,
        "error": turn.error,
        "retryable": turn.retryable,
        "ended_at": turn.ended_at,
        "usage": None if turn.usage is None else orjson.dumps(turn.usage).decode(),
        "chars": len(turn.prompt) + len(turn.text),
        "answer": turn.text,
    }


def _session(row: sa.Row[*tuple[Any, ...]], snippet: str | None = None) -> SessionRecord:
    return SessionRecord(
        session_id=row.session_id,
        title=row.title or title_of(row.prompt),
        created_at=row.created_at,
        updated_at=row.updated_at,
        message_count=2 * row.turn_count,
        snippet=snippet,
    )


def _turn(row: sa.Row[*tuple[Any, ...]]) -> TurnRecord:
    values = dict(row._mapping)
    if values["usage"] is not None:
        values["usage"] = orjson.loads(values["usage"])
    return TurnRecord(**values)

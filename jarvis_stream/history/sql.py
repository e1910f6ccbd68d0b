"""A store in a SQL database: SQLAlchemy Core, one statement for many turns wherever possible."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from jarvis_stream.history import schema
from jarvis_stream.history.backends import Backend
from jarvis_stream.history.base import SessionPage, SessionRecord, TurnRecord
from jarvis_stream.history.schema import AnyText, instances, pieces, removed, sessions, turns
from jarvis_stream.history.store import Batch, Span, Written
from jarvis_stream.history.views import TITLE_CHARS, cursor_of, position_of, spellings, title_of
from jarvis_stream.ids import owner_of

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

_ranked = (
    sa.select(
        turns.c.stream_id,
        sa.func.row_number()
        .over(partition_by=turns.c.session_id, order_by=turns.c.epoch.desc())
        .label("rank"),
        sa.func.sum(turns.c.chars)
        .over(partition_by=turns.c.session_id, order_by=turns.c.epoch.desc(), rows=(None, 0))
        .label("chars_since"),
    )
    .where(
        turns.c.session_id.in_(sa.bindparam("session_ids", expanding=True)),
        turns.c.stream_id.not_in(sa.bindparam("without", expanding=True)),
    )
    .subquery()
)
_RECENT: Final = (
    _TURNS.join(_ranked, _ranked.c.stream_id == turns.c.stream_id)
    .where(
        _ranked.c.rank <= sa.bindparam("max_turns"),
        _ranked.c.chars_since <= sa.bindparam("max_chars"),
    )
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
    sa.select(sa.func.count()).where(_of_session).scalar_subquery().label("turn_count"),
).order_by(sessions.c.updated_at.desc(), sessions.c.session_id.desc())

# Writing

_mine = turns.c.instance_id == sa.bindparam("me")

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
        self._bounds = {"max_turns": max_messages, "max_chars": max_chars}
        self._prepared = False

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
        ).returning(turns.c.stream_id)
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
        self._keep_epoch = backend.insert(removed).on_conflict_do_nothing()

    # The process

    async def prepare(self) -> None:
        """Connect, and bring the schema to this program's version.

        Raises HistoryUnusable for a newer one.
        """
        await self._backend.prepare()
        async with self._backend.reader.connect() as connection:
            version = await connection.run_sync(schema.version_of)
        if version != schema.HEAD:
            async with self._backend.writing() as connection:
                await self._backend.lock_schema(connection)
                await connection.run_sync(schema.upgrade)
        self._prepared = True

    async def close(self) -> None:
        """Close the connections and leave: no other process has to wonder about this one.

        Takes a few seconds at most, and does not raise: its lease runs out anyway.
        """
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if self._prepared:
                    await self._leave()
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._backend.close()

    async def _leave(self) -> None:
        streaming = sa.exists().where(
            turns.c.instance_id == self._me, turns.c.status == "streaming"
        )
        async with self._backend.writing() as connection:
            await connection.execute(
                sa.delete(instances).where(instances.c.instance_id == self._me, ~streaming)
            )

    async def renew(self) -> bool:
        """See Store.renew."""
        if not self._prepared:
            await self.prepare()
        async with self._writing() as connection:
            now = self._backend.now
            renewed = await connection.execute(
                sa.update(instances).where(instances.c.instance_id == self._me).values(seen_at=now)
            )
            if renewed.rowcount:
                return True
            await connection.execute(sa.insert(instances).values(instance_id=self._me, seen_at=now))
            return False

    async def reclaim(self, *, opening: bool) -> int:
        """See Store.reclaim."""
        lapsed = instances.c.seen_at < self._backend.now - self._lease
        async with self._backend.reader.connect() as connection:
            others = await connection.execute(
                sa.select(instances.c.instance_id, lapsed).where(
                    instances.c.instance_id != self._me
                )
            )
            suspects = [(instance_id, late) for instance_id, late in others if opening or late]
        count = 0
        for instance_id, late in suspects:
            async with self._writing() as connection:
                if not late and not await self._backend.gone(connection, instance_id):
                    continue
                # First of all, so that a process that renews its lease just now keeps its turns.
                leave = sa.delete(instances).where(instances.c.instance_id == instance_id)
                if (await connection.execute(leave.where(lapsed) if late else leave)).rowcount:
                    count += await self._interrupt(connection, _INTERRUPT, instance_id)
        return count

    def refused(self, error: Exception) -> bool:
        """See Store.refused."""
        refusals = (DataError, IntegrityError, UnicodeError, OverflowError, TypeError)
        return isinstance(error, refusals)

    def describe(self, error: Exception) -> str:
        """See Store.describe."""
        name = type(error).__name__
        if isinstance(error, OperationalError) and error.orig is not None:
            return f"{name}: {str(error.orig).strip().partition(chr(10))[0]}"
        return name

    # What the writer asks

    async def write(self, batch: Batch) -> Written:
        """See Store.write."""
        written = Written()
        async with self._writing() as connection:
            if batch.interrupts:
                these = _INTERRUPT.where(turns.c.stream_id.in_(batch.interrupts))
                await self._interrupt(connection, these, self._me)
            if batch.deletes:
                written.deleted = await self._delete(connection, batch.deletes)
            if batch.discards:
                await self._discard(connection, batch.discards)
            if batch.begins:
                written.begun = await self._begin(connection, batch.begins)
            for stream_id, span in batch.replaced:
                if stream_id is None or stream_id in written.begun:
                    await self._replace(connection, span)
            for session_id, title in batch.titles:
                await connection.execute(
                    sa.update(sessions)
                    .where(sessions.c.session_id == session_id)
                    .values(title=title)
                )
            if batch.ends:
                written.ended = await self._end(connection, batch.ends)
            if batch.pieces:
                await connection.execute(
                    self._append_piece,
                    [
                        {
                            "stream_id": piece.stream_id,
                            "start": piece.start,
                            "text": piece.text,
                            "me": self._me,
                        }
                        for piece in batch.pieces
                    ],
                )
            for turn in await self._earlier(connection, batch.begins):
                written.earlier.setdefault(turn.session_id, []).append(turn)
        return written

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._backend.writing() as connection:
                yield connection
            self._backend.check()
        except Exception as error:
            if not self.refused(error):
                # The next attempt starts from the beginning: what a connection saw when it was
                # made (a read-only file, a server that is gone) may be different now.
                self._prepared = False
                await self._backend.disconnect()
            raise

    async def _begin(self, connection: AsyncConnection, begins: Sequence[TurnRecord]) -> set[str]:
        newest: dict[str, float] = {}
        for turn in begins:
            newest[turn.session_id] = max(newest.get(turn.session_id, 0.0), turn.created_at)
        await connection.execute(
            self._upsert_session,
            # In order, so that no two processes wait for each other in a circle.
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
            for turn in begins
        ]
        begun = set(await connection.scalars(self._upsert_turn, rows))
        if taken := newest.keys() - {turn.session_id for turn in begins if turn.stream_id in begun}:
            await self._forget_empty(connection, list(taken))
        return begun

    async def _end(self, connection: AsyncConnection, ends: Sequence[TurnRecord]) -> set[str]:
        ids = {turn.stream_id for turn in ends}
        rows = [
            {
                "id": turn.stream_id,
                "me": self._me,
                **{f"new_{name}": value for name, value in _ending(turn).items()},
            }
            for turn in ends
        ]
        done = await connection.execute(_END_TURN, rows)
        await connection.execute(_FORGET_PIECES, {"ids": list(ids)})
        if done.rowcount == len(rows):
            return ids
        found = sa.select(turns.c.stream_id).where(turns.c.stream_id.in_(ids), _mine)
        return set(await connection.scalars(found, {"me": self._me}))

    async def _interrupt(
        self, connection: AsyncConnection, statement: sa.UpdateBase, instance_id: str
    ) -> int:
        ids = (await connection.scalars(statement, {"me": instance_id})).all()
        await connection.execute(_FORGET_PIECES, {"ids": ids})
        return len(ids)

    async def _delete(self, connection: AsyncConnection, session_ids: list[str]) -> set[str]:
        await self._remember_epoch(connection, turns.c.session_id.in_(session_ids))
        deleted = await connection.scalars(
            sa.delete(sessions)
            .where(sessions.c.session_id.in_(session_ids))
            .returning(sessions.c.session_id)
        )
        return set(deleted)

    async def _discard(self, connection: AsyncConnection, stream_ids: list[str]) -> None:
        await self._remove(connection, turns.c.stream_id.in_(stream_ids))

    async def _replace(self, connection: AsyncConnection, span: Span) -> None:
        await self._remove(
            connection,
            sa.and_(
                turns.c.session_id == span.session_id,
                turns.c.epoch >= span.first,
                turns.c.epoch < span.before,
            ),
        )

    async def _remove(self, connection: AsyncConnection, these: sa.ColumnElement[bool]) -> None:
        await self._remember_epoch(connection, these)
        left = set(
            await connection.scalars(sa.delete(turns).where(these).returning(turns.c.session_id))
        )
        await connection.execute(
            sa.update(sessions)
            .where(sessions.c.session_id.in_(left), sa.exists().where(_of_session))
            .values(
                updated_at=sa.select(sa.func.max(turns.c.created_at))
                .where(_of_session)
                .scalar_subquery()
            )
        )
        await self._forget_empty(connection, list(left))

    async def _forget_empty(self, connection: AsyncConnection, session_ids: list[str]) -> None:
        # Locked first: else a turn that another process begins just now would go with its session.
        these = sessions.c.session_id.in_(session_ids)
        locked = sa.select(sessions.c.session_id).where(these).order_by(sessions.c.session_id)
        await connection.execute(locked.with_for_update())
        await connection.execute(sa.delete(sessions).where(these, ~sa.exists().where(_of_session)))

    async def _remember_epoch(
        self, connection: AsyncConnection, leaving: sa.ColumnElement[bool]
    ) -> None:
        epoch = await connection.scalar(sa.select(sa.func.max(turns.c.epoch)).where(leaving))
        if epoch is not None:
            await connection.execute(self._keep_epoch, {"epoch": epoch})
            await connection.execute(sa.delete(removed).where(removed.c.epoch < epoch))

    async def _earlier(
        self, connection: AsyncConnection, begins: Sequence[TurnRecord]
    ) -> list[TurnRecord]:
        if not begins:
            return []
        found = await connection.execute(
            _RECENT,
            {
                "session_ids": list({turn.session_id for turn in begins}),
                "without": [turn.stream_id for turn in begins],
                **self._bounds,
            },
        )
        return [_turn(row) for row in found]

    # What anybody asks

    async def recent(self, session_id: str) -> list[TurnRecord]:
        """See Store.recent."""
        return await self._read(
            _RECENT, {"session_ids": [session_id], "without": [], **self._bounds}
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

    async def sessions(
        self, *, owner: str, limit: int, before: str | None, query: str | None
    ) -> SessionPage:
        """See Store.sessions."""
        statement = _SESSIONS.where(sessions.c.owner == owner).limit(limit + 1)
        if query:
            statement = statement.where(self._holding(query))
        if before is not None:
            place = sa.tuple_(sessions.c.updated_at, sessions.c.session_id)
            statement = statement.where(place < sa.tuple_(*position_of(before)))
        async with self._backend.reader.connect() as connection:
            rows = (await connection.execute(statement)).all()
        page = [_session(row) for row in rows[:limit]]
        more = len(rows) > limit
        return SessionPage(
            page, cursor_of((page[-1].updated_at, page[-1].session_id)) if more else None
        )

    def _holding(self, query: str) -> sa.ColumnElement[bool]:
        """The sessions with a text that holds `query`."""

        def holds(*texts: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
            ways = itertools.product(texts, spellings(query))
            return sa.or_(*(self._backend.holds(text, spelling) for text, spelling in ways))

        in_a_turn = sa.exists().where(_of_session, holds(turns.c.prompt, turns.c.answer))
        return sa.or_(holds(sessions.c.title), in_a_turn)

    async def count(self, owner: str) -> int:
        """See Store.count."""
        statement = sa.select(sa.func.count()).where(sessions.c.owner == owner)
        async with self._backend.reader.connect() as connection:
            return await connection.scalar(statement) or 0

    async def session(self, session_id: str) -> SessionRecord | None:
        """See Store.session."""
        statement = _SESSIONS.where(sessions.c.session_id == session_id)
        async with self._backend.reader.connect() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _session(row) if row else None

    async def last_epoch(self) -> int:
        """See Store.last_epoch."""
        async with self._backend.reader.connect() as connection:
            kept = await connection.scalar(sa.select(sa.func.max(turns.c.epoch)))
            gone = await connection.scalar(sa.select(sa.func.max(removed.c.epoch)))
        return max(kept or 0, gone or 0)

    async def _read(
        self, statement: sa.Select[Any], values: dict[str, Any] | None = None
    ) -> list[TurnRecord]:
        async with self._backend.reader.connect() as connection:
            return [_turn(row) for row in await connection.execute(statement, values)]


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


def _session(row: sa.Row[*tuple[Any, ...]]) -> SessionRecord:
    return SessionRecord(
        session_id=row.session_id,
        title=row.title or title_of(row.prompt),
        created_at=row.created_at,
        updated_at=row.updated_at,
        message_count=2 * row.turn_count,
    )


def _turn(row: sa.Row[*tuple[Any, ...]]) -> TurnRecord:
    values = dict(row._mapping)
    if values["usage"] is not None:
        values["usage"] = orjson.loads(values["usage"])
    return TurnRecord(**values)

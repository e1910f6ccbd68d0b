"""From one database to another: conversations, their owners and titles, and the epochs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from jarvis_stream.history import schema
from jarvis_stream.history.backends import Backend
from jarvis_stream.history.base import HistoryUnusable, Limits
from jarvis_stream.history.open import MEMORY, describe_url, make_backend, make_store
from jarvis_stream.history.schema import instances, removals, sessions, turns
from jarvis_stream.history.sql import SqlStore

KEYS: Final = 1000
"""Rows whose keys are looked at together."""
ROWS: Final = 200
"""Rows that one transaction writes,"""
CHARS: Final = 4_000_000
"""unless they are longer than that together."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds, counted in the target when it was done."""

    sessions: int
    turns: int


@dataclass(frozen=True, slots=True)
class _Place:
    """One of the two databases, for people and for us."""

    name: str
    backend: Backend
    store: SqlStore


async def copy_history(
    source: str,
    target: str,
    *,
    merge: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Copied:
    """Copy everything from one URL to another; `progress` is told turns done, and all of them.

    May be broken off and done again: what is there already is written over. The target must hold
    nothing that the source does not, unless they are to be merged; of a session that both have, a
    title that was given in the target stays then. Raises HistoryUnusable for what the target holds,
    for a source that a process uses, and when the target's counts are wrong in the end.
    """
    if MEMORY in (source, target):
        raise HistoryUnusable("a history in memory cannot be copied")
    if describe_url(source) == describe_url(target):
        raise HistoryUnusable("source and target are the same database")
    async with _opened(source) as origin, _opened(target) as copy:
        await _check_history(origin)
        await copy.store.prepare()
        await _check_unused(origin)
        if not merge:
            await _check_own(origin, copy)
        await _check_sessions(origin, copy)
        total = await _count(origin, turns)
        await _copy(origin, copy, sessions, sessions.c.session_id, lambda done: None, merge=merge)
        await _copy(origin, copy, turns, turns.c.stream_id, lambda done: progress(done, total))
        await _copy_epoch(origin, copy)
        await _check_unused(origin)
        return await _check_counts(origin, copy, exactly=not merge)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[_Place]:
    instance_id = uuid.uuid4().hex
    backend = make_backend(url, instance_id)
    store = make_store(backend, instance_id, Limits())
    try:
        yield _Place(describe_url(url), backend, store)
    except HistoryUnusable:
        raise
    except Exception as error:
        raise HistoryUnusable(f"not all was copied: {store.describe(error)}") from error
    finally:
        await store.close()


async def _check_history(place: _Place) -> None:
    """Bring its schema to this program's version; what is no history is not made one."""
    if not place.backend.exists():
        raise HistoryUnusable(f"there is no history at {place.name}")
    if await place.backend.read(schema.version_of) is None:
        raise HistoryUnusable(f"there is no history at {place.name}")
    await place.store.prepare()


async def _check_unused(place: _Place) -> None:
    # Those that are dead are said to be; their unfinished answers end as interrupted.
    await place.store.reclaim(opening=True)
    if users := await _count(place, instances):
        raise HistoryUnusable(
            f"{users} running server{'s use' if users > 1 else ' uses'} {place.name}: stop"
            " first, and start again on the copy"
        )


async def _check_own(origin: _Place, copy: _Place) -> None:
    """Raises HistoryUnusable for anything in the copy that does not come from the origin."""
    for key in (sessions.c.session_id, turns.c.stream_id):
        async for page in _pages(copy, key):
            keys = [row[0] for row in page]
            if len(await origin.backend.read(_rows(sa.select(key).where(key.in_(keys))))) < len(
                keys
            ):
                raise HistoryUnusable(
                    f"{copy.name} holds conversations of its own; say --merge to keep them beside"
                    " the others"
                )


async def _check_sessions(origin: _Place, copy: _Place) -> None:
    """Raises HistoryUnusable for a turn of the copy with the stream_id of another session's."""
    key = turns.c.stream_id
    async for page in _pages(copy, key):
        these = sa.select(key, turns.c.session_id).where(key.in_([row[0] for row in page]))
        theirs, ours = [
            {row[0]: row[1] for row in await place.backend.read(_rows(these))}
            for place in (origin, copy)
        ]
        for stream_id, session_id in theirs.items():
            if (other := ours.get(stream_id, session_id)) != session_id:
                raise HistoryUnusable(
                    f"the stream_id {stream_id} is used in session {session_id} of {origin.name}"
                    f" and in session {other} of {copy.name}: delete one of the two first"
                )


async def _copy(
    origin: _Place,
    copy: _Place,
    table: sa.Table,
    key: sa.ColumnElement[str],
    progress: Callable[[int], None],
    *,
    merge: bool = False,
) -> None:
    insert = copy.backend.insert(table)
    # Triggers of the target count its turns.
    columns = [column for column in table.c if column is not sessions.c.turn_count]
    values: dict[str, Any] = {column.name: insert.excluded[column.name] for column in columns}
    if merge:  # of a session that both have
        title, updated_at = sessions.c.title, sessions.c.updated_at
        values["title"] = sa.func.coalesce(title, values["title"])
        values["updated_at"] = sa.case(
            (updated_at > values["updated_at"], updated_at), else_=values["updated_at"]
        )
    upsert = insert.on_conflict_do_update(index_elements=[key], set_=values)
    done = 0
    async for page in _pages(origin, key):
        for keys in _portions(page):
            found = await origin.backend.read(_rows(sa.select(*columns).where(key.in_(keys))))
            await copy.backend.write(_change(upsert, [dict(row._mapping) for row in found]))
            done += len(found)
            progress(done)


async def _copy_epoch(origin: _Place, copy: _Place) -> None:
    epoch = await origin.store.last_epoch()
    if epoch > await copy.store.last_epoch():
        empty = {
            "session_id": "",
            "first_epoch": epoch + 1,
            "before_epoch": epoch + 1,
            "removed_at": 0.0,
        }
        await copy.backend.write(_change(copy.backend.insert(removals), [empty]))


async def _check_counts(origin: _Place, copy: _Place, *, exactly: bool) -> Copied:
    for table in (sessions, turns):
        wanted, got = await _count(origin, table), await _count(copy, table)
        if got < wanted or (exactly and got != wanted):
            raise HistoryUnusable(
                f"{copy.name} has {got} rows in {table.name}, and {origin.name} {wanted}"
            )
    return Copied(await _count(copy, sessions), await _count(copy, turns))


async def _pages(
    place: _Place, key: sa.ColumnElement[str]
) -> AsyncIterator[Sequence[tuple[str, int]]]:
    """All keys in their order, each with how many characters its row has about."""
    chars = turns.c.chars if key is turns.c.stream_id else sa.literal(0)
    last = ""
    while True:
        statement = sa.select(key, chars).where(key > last).order_by(key).limit(KEYS)
        page = [(row[0], row[1]) for row in await place.backend.read(_rows(statement))]
        if not page:
            return
        yield page
        last = page[-1][0]


def _portions(page: Sequence[tuple[str, int]]) -> list[list[str]]:
    portions: list[list[str]] = []
    room = 0
    for key, chars in page:
        if not portions or room < chars or len(portions[-1]) == ROWS:
            portions.append([])
            room = CHARS
        portions[-1].append(key)
        room -= chars
    return portions


async def _count(place: _Place, table: sa.Table) -> int:
    (row,) = await place.backend.read(_rows(sa.select(sa.func.count()).select_from(table)))
    return int(row[0])


def _rows(
    statement: sa.Select[Any],
) -> Callable[[sa.Connection], Sequence[sa.Row[*tuple[Any, ...]]]]:
    return lambda connection: connection.execute(statement).all()


def _change(
    statement: sa.UpdateBase, rows: list[dict[str, Any]]
) -> Callable[[sa.Connection], object]:
    def change(connection: sa.Connection) -> None:
        connection.execute(statement, rows)

    return change

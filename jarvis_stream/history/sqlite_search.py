"""The index of texts in a SQLite file: FTS5 with its trigram tokenizer.

Triggers record which turns have ended and which were removed, in the same transaction; this costs
almost nothing. The index itself is updated later in small transactions, so that a question never
waits for it. A search reads the texts of turns that are not in the index yet. It never returns a
removed turn, because only the records of the triggers decide which turns exist.

The index can be rebuilt from the turns. A build of SQLite without the tokenizer (before 3.34, or
without FTS5) keeps the records up to date, and its searches read the texts. So a file can be used
by one build after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from loguru import logger

from jarvis_stream.history.schema import AnyText, sessions, turns
from jarvis_stream.history.search import holds_word
from jarvis_stream.recurring import RecurringLog

T = TypeVar("T")

MIN_CHARS: Final = 3
"""The length of the shortest word that the index can find."""
MAX_INDEXED_CHARS: Final = 1_000_000
"""The characters of one text that are indexed; a search does not find the rest."""
STEP_CHARS: Final = 50_000
"""The most that one transaction adds to the index (about 20 ms), unless one text is longer."""
STEP_TURNS: Final = 100
PAUSE: Final = 0.2
"""Seconds between the first change and the update of the index, to collect more changes."""
RETRY_INTERVAL: Final = 10.0
PROGRESS_INTERVAL: Final = 10.0
"""Seconds between two log lines while a large database is indexed."""
LARGE: Final = 1_000
"""The number of waiting turns from which the progress of the index is logged."""

_NOTES: Final = (
    # AUTOINCREMENT: the number of a removed turn is never used again.
    "CREATE TABLE jarvis_search_turns (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " stream_id TEXT NOT NULL UNIQUE, session_id TEXT NOT NULL,"
    " indexed INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX jarvis_search_due ON jarvis_search_turns (id) WHERE indexed = 0",
    # To remove a text from the index, FTS5 needs the text again.
    "CREATE TABLE jarvis_search_left (id INTEGER PRIMARY KEY, prompt TEXT NOT NULL,"
    " answer TEXT NOT NULL)",
    "CREATE TRIGGER jarvis_search_insert AFTER INSERT ON jarvis_turns"
    " WHEN new.status <> 'streaming' BEGIN"
    " INSERT INTO jarvis_search_turns (stream_id, session_id)"
    " VALUES (new.stream_id, new.session_id); END",
    "CREATE TRIGGER jarvis_search_update AFTER UPDATE OF status, prompt, answer ON jarvis_turns"
    " WHEN old.status = 'streaming' AND new.status <> 'streaming'"
    " OR old.status <> 'streaming' AND (new.status = 'streaming' OR old.prompt <> new.prompt"
    " OR old.answer <> new.answer) BEGIN"
    " {leave}"
    " INSERT INTO jarvis_search_turns (stream_id, session_id)"
    " SELECT new.stream_id, new.session_id WHERE new.status <> 'streaming'; END",
    "CREATE TRIGGER jarvis_search_delete AFTER DELETE ON jarvis_turns"
    " WHEN old.status <> 'streaming' BEGIN {leave} END",
    "INSERT INTO jarvis_search_turns (stream_id, session_id)"
    " SELECT stream_id, session_id FROM jarvis_turns WHERE status <> 'streaming'"
    " ORDER BY epoch DESC",
)
_LEAVE: Final = (
    "INSERT INTO jarvis_search_left (id, prompt, answer)"
    f" SELECT id, substr(old.prompt, 1, {MAX_INDEXED_CHARS}),"
    f" substr(old.answer, 1, {MAX_INDEXED_CHARS})"
    " FROM jarvis_search_turns WHERE stream_id = old.stream_id AND indexed = 1;"
    " DELETE FROM jarvis_search_turns WHERE stream_id = old.stream_id;"
)
_INDEX: Final = (
    "CREATE VIRTUAL TABLE jarvis_search USING fts5(prompt, answer, content='', tokenize='trigram')"
)

_noted = sa.table(
    "jarvis_search_turns",
    sa.column("id", sa.Integer),
    sa.column("stream_id", sa.String),
    sa.column("session_id", sa.String),
    sa.column("indexed", sa.Integer),
)
_index = sa.table("jarvis_search", sa.column("rowid"), sa.column("jarvis_search"))
_streaming = turns.c.status == sa.literal_column("'streaming'")

_IS_DUE: Final = (
    "SELECT EXISTS (SELECT 1 FROM jarvis_search_turns WHERE indexed = 0)"
    " OR EXISTS (SELECT 1 FROM jarvis_search_left)"
)


class Database(Protocol):
    """The part of a Backend that the index uses."""

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """See Backend.holds."""
        ...

    def find(self, word: str, owner: str) -> Sequence[sa.Select[Any]] | None:
        """See Backend.find."""
        ...

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        """See Backend.read."""
        ...

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        """See Backend.write."""
        ...

    async def change_schema(self, change: Callable[[sa.Connection], T]) -> T:
        """See Backend.change_schema."""
        ...


class SearchIndex:
    """Creates the index, updates it, and looks words up in it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._indexed = False
        """Whether there is an index that this build can use."""
        self.due = asyncio.Event()
        """Set when turns may have ended or been removed."""
        self.due.set()

    async def prepare(self) -> None:
        """Create the triggers and the index if they are missing; see Backend.prepare_search."""
        try:
            found = await self._database.read(_has_index)
            if not found:
                found = await self._database.change_schema(_make_index)
        except Exception as error:  # a file that cannot be written, or no FTS5
            logger.warning("search_index_unavailable error={}", type(error).__name__)
            return
        self._indexed = found
        if not found:
            logger.warning("search_index_unavailable error=no_trigram_tokenizer")

    def find(self, word: str, owner: str) -> Sequence[sa.Select[Any]] | None:
        """See Backend.find."""
        if not self._indexed or len(word) < MIN_CHARS:
            return None
        phrase = '"' + word.replace('"', '""') + '"'
        in_index = (
            sa.select(_noted.c.session_id, _noted.c.stream_id)
            .select_from(_index.join(_noted, _noted.c.id == _index.c.rowid))
            .where(_index.c.jarvis_search.op("MATCH")(sa.bindparam(None, phrase, type_=AnyText)))
        )
        due = (
            sa.select(turns.c.session_id, turns.c.stream_id)
            .select_from(
                _noted.join(turns, turns.c.stream_id == _noted.c.stream_id).join(
                    sessions, sessions.c.session_id == _noted.c.session_id
                )
            )
            .where(
                sessions.c.owner == owner,
                _noted.c.indexed == sa.literal_column("0"),
                holds_word(self._database, word, turns.c.prompt, turns.c.answer),
            )
        )
        streaming = sa.select(turns.c.session_id, turns.c.stream_id).where(
            _streaming,
            holds_word(self._database, word, turns.c.prompt),
        )
        return in_index, due, streaming

    async def keep(self) -> None:
        """See Backend.keep_searchable."""
        failures = RecurringLog()
        while self._indexed:
            await self.due.wait()
            await asyncio.sleep(PAUSE)
            self.due.clear()
            try:
                await self._catch_up()
            except Exception as error:
                failures.log("WARNING", "search_index_failed error={}", type(error).__name__)
                await asyncio.sleep(RETRY_INTERVAL)
                self.due.set()

    async def _catch_up(self) -> None:
        began = told = now = time.monotonic()
        waiting: int | None = None
        while await self._database.read(_is_due):
            if waiting is None:
                waiting = await self._database.read(_count_due)
                if waiting >= LARGE:
                    logger.info("search_index_building turns={}", waiting)
            before = time.monotonic()
            await self._database.write(_take_in)
            self.due.clear()
            now = time.monotonic()
            if waiting >= LARGE and now - told > PROGRESS_INTERVAL:
                told = now
                left = await self._database.read(_count_due)
                logger.info("search_index_building turns={} of={}", waiting - left, waiting)
            await asyncio.sleep(now - before)  # leave half of the time to other writes
        if waiting is not None and waiting >= LARGE:
            logger.info("search_index_built turns={} seconds={:.1f}", waiting, now - began)


def _has_index(connection: sa.Connection) -> bool:
    names = connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE name IN ('jarvis_search_delete', 'jarvis_search')"
    ).all()
    return len(names) == 2 and _has_tokenizer(connection)


def _has_tokenizer(connection: sa.Connection) -> bool:
    version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
    modules = connection.exec_driver_sql("SELECT name FROM pragma_module_list").scalars().all()
    return tuple(map(int, version.split("."))) >= (3, 34, 0) and "fts5" in modules


def _make_index(connection: sa.Connection) -> bool:
    """Create the missing tables and triggers; return whether there is a usable index."""
    names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    if "jarvis_search_delete" not in names:
        for statement in _NOTES:
            connection.exec_driver_sql(statement.replace("{leave}", _LEAVE))
    usable = _has_tokenizer(connection)
    if usable and "jarvis_search" not in names:
        connection.exec_driver_sql(_INDEX)
    return usable


def _is_due(connection: sa.Connection) -> bool:
    return bool(connection.exec_driver_sql(_IS_DUE).scalar_one())


def _count_due(connection: sa.Connection) -> int:
    count = "SELECT count(*) FROM jarvis_search_turns WHERE indexed = 0"
    return int(connection.exec_driver_sql(count).scalar_one())


def _take_in(connection: sa.Connection) -> None:
    """Do one step: remove some removed turns from the index, add some ended turns."""
    room = STEP_CHARS
    left = connection.exec_driver_sql(
        "SELECT id, length(prompt) + length(answer) FROM jarvis_search_left ORDER BY id LIMIT ?",
        (STEP_TURNS,),
    ).all()
    for number, chars in left:
        if room < 0:
            return
        room -= chars
        connection.exec_driver_sql(
            "INSERT INTO jarvis_search (jarvis_search, rowid, prompt, answer)"
            " SELECT 'delete', id, prompt, answer FROM jarvis_search_left WHERE id = ?",
            (number,),
        )
        connection.exec_driver_sql("DELETE FROM jarvis_search_left WHERE id = ?", (number,))
    due = connection.exec_driver_sql(
        "SELECT id, chars FROM jarvis_search_turns JOIN jarvis_turns USING (stream_id)"
        " WHERE indexed = 0 ORDER BY id LIMIT ?",
        (STEP_TURNS,),
    ).all()
    for number, chars in due:
        if room < 0:
            return
        room -= chars
        connection.exec_driver_sql(
            "INSERT INTO jarvis_search (rowid, prompt, answer)"
            f" SELECT id, substr(prompt, 1, {MAX_INDEXED_CHARS}),"
            f" substr(answer, 1, {MAX_INDEXED_CHARS})"
            " FROM jarvis_search_turns JOIN jarvis_turns USING (stream_id) WHERE id = ?",
            (number,),
        )
        connection.exec_driver_sql(
            "UPDATE jarvis_search_turns SET indexed = 1 WHERE id = ?", (number,)
        )

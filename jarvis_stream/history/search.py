"""The search for sessions that contain all words of a query, with a snippet of each.

A session matches when each word occurs in its title, a question or an answer. If the database has
an index of the texts, the longest words are looked up in it, so that a word that occurs nowhere
ends the search at once. The other words are searched in the texts themselves, newest sessions
first, until a page is full. When the owner has only a few turns, all words are searched in the
texts: this costs less, and its time reveals nothing about other owners.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import sqlalchemy as sa

from jarvis_stream.history.schema import AnyText, sessions, turns
from jarvis_stream.history.views import Position, snippet_of, spellings

FEW_TURNS: Final = 300
"""The number of an owner's turns up to which a search reads the texts without the index."""
FEW_SESSIONS: Final = 200
"""The number of candidate sessions up to which a search reads their texts."""
FEW_CHARS: Final = 20_000
"""The characters of a text that are read first for a snippet."""
CHUNK: Final = 50
"""Sessions whose texts one statement reads."""

Found = tuple[str, str | None]
"""A session, and the stream of a turn that contains one of the words, if known."""


class Finder(Protocol):
    """The part of a Backend that a search uses."""

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """See Backend.holds."""
        ...

    def find(self, word: str, owner: str) -> Sequence[sa.Select[Any]] | None:
        """See Backend.find."""
        ...


def holds_word(finder: Finder, word: str, *texts: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that one of the texts contains a word, in one of its spellings."""
    ways = itertools.product(texts, sorted(spellings(word)))
    return sa.or_(*(finder.holds(text, spelling) for text, spelling in ways))


def find_sessions(
    connection: sa.Connection,
    finder: Finder,
    owner: str,
    words: Sequence[str],
    *,
    before: Position | None,
    limit: int,
) -> list[Found]:
    """Return the owner's newest sessions after the position that contain all words."""
    mine = sessions.c.owner == owner
    total = sa.select(sa.func.coalesce(sa.func.sum(sessions.c.turn_count), 0)).where(mine)
    many = connection.execute(total).scalar_one() > FEW_TURNS
    if many and len(words) > 1:
        for word in words:  # a word that occurs nowhere ends the search before longer lookups
            hits = _hits(finder, owner, word)
            if hits is not None and connection.execute(hits.limit(1)).first() is None:
                return []
    found: dict[str, str | None] | None = None
    unindexed: list[str] = []
    for word in words:
        look_up = many and (found is None or len(found) > FEW_SESSIONS)
        hits = _hits(finder, owner, word) if look_up else None
        if hits is None:
            unindexed.append(word)
            continue
        # The index knows no owners. MATERIALIZED: the lookup in the index comes first.
        places = hits.cte("places").prefix_with("MATERIALIZED", dialect="postgresql")
        by_session = (
            sa.select(places.c.session_id, sa.func.max(places.c.stream_id))
            .where(places.c.session_id.in_(sa.select(sessions.c.session_id).where(mine)))
            .group_by(places.c.session_id)
        )
        streams = dict(connection.execute(by_session).all())
        if found is None:
            found = streams
        else:
            found = {one: stream or streams[one] for one, stream in found.items() if one in streams}
        if not found:
            return []
    listed = sa.select(sessions.c.session_id).where(mine)
    if before is not None:
        place = sa.tuple_(sessions.c.updated_at, sessions.c.session_id)
        listed = listed.where(place < sa.tuple_(*before))
    newest_first = connection.scalars(
        listed.order_by(sessions.c.updated_at.desc(), sessions.c.session_id.desc())
    ).all()
    candidates: Iterator[Found] = (
        (one, found[one] if found else None) for one in newest_first if not found or one in found
    )
    if unindexed:
        candidates = _read_texts(connection, finder, candidates, unindexed)
    return [*itertools.islice(candidates, limit)]


def _hits(finder: Finder, owner: str, word: str) -> sa.CompoundSelect[Any] | None:
    """Select the places of a word: session_id, stream_id; None when the index cannot find it."""
    indexed = finder.find(word, owner)
    if indexed is None:
        return None
    titled = sa.select(sessions.c.session_id, sa.null().label("stream_id")).where(
        sessions.c.owner == owner,
        sessions.c.title.is_not(None),
        holds_word(finder, word, sessions.c.title),
    )
    return sa.union_all(*indexed, titled)


def _read_texts(
    connection: sa.Connection, finder: Finder, candidates: Iterator[Found], words: Sequence[str]
) -> Iterator[Found]:
    """Return the candidates whose texts contain all words."""
    conditions = [
        sa.or_(
            holds_word(finder, word, sessions.c.title),
            sa.exists().where(
                turns.c.session_id == sessions.c.session_id,
                holds_word(finder, word, turns.c.prompt, turns.c.answer),
            ),
        )
        for word in words
    ]
    ids: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
    statement = sa.select(sessions.c.session_id).where(sessions.c.session_id.in_(ids), *conditions)
    while chunk := [*itertools.islice(candidates, CHUNK)]:
        holding = set(connection.scalars(statement, {"ids": [one for one, _ in chunk]}))
        yield from (one for one in chunk if one[0] in holding)


def snippets(
    connection: sa.Connection, finder: Finder, found: Sequence[Found], words: Sequence[str]
) -> dict[str, str]:
    """Return, for each session, text of a turn around one of the words.

    The number of statements does not grow with the sessions, but long texts are read one at a time.
    """
    streams = dict(found)
    if unknown := [session_id for session_id, stream_id in found if stream_id is None]:
        holding = (holds_word(finder, word, turns.c.prompt, turns.c.answer) for word in words)
        newest = (
            sa.select(turns.c.stream_id)
            .where(turns.c.session_id == sessions.c.session_id, sa.or_(*holding))
            .order_by(turns.c.epoch.desc())
            .limit(1)
            .correlate(sessions)
            .scalar_subquery()
        )
        of_session = sa.select(sessions.c.session_id, newest)
        of_session = of_session.where(sessions.c.session_id.in_(unknown))
        streams |= dict(connection.execute(of_session).all())
    result: dict[str, str] = {}

    def look(rows: Iterable[sa.Row[str, str, str, str]]) -> None:
        for session_id, _, *texts in rows:
            snippets = filter(None, (snippet_of(texts, word) for word in words))
            if snippet := next(snippets, None):
                result[session_id] = snippet

    ids = {stream_id for stream_id in streams.values() if stream_id is not None}
    of_turn = turns.c.session_id, turns.c.stream_id
    beginnings = (
        sa.func.substr(text, 1, FEW_CHARS, type_=AnyText)
        for text in (turns.c.answer, turns.c.prompt)
    )
    look(connection.execute(sa.select(*of_turn, *beginnings).where(turns.c.stream_id.in_(ids))))
    for session_id, stream_id in streams.items():
        if session_id not in result and stream_id is not None:
            whole = sa.select(*of_turn, turns.c.answer, turns.c.prompt)
            look(connection.execute(whole.where(turns.c.stream_id == stream_id)))
    return result

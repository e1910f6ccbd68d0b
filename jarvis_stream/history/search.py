"""Search: the words of a query, the statement that finds their sessions, and snippets.

A session is found when each word occurs in its title, a question or an answer. Where the database
has an index of the texts, the longest word is looked up first, so that a word that occurs nowhere
ends the search at once. Words that the index cannot serve (see Backend.find) are looked for in the
texts themselves, of those sessions that hold all the other words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from jarvis_stream.history.schema import sessions, turns
from jarvis_stream.history.views import snippet_of, spellings


class Finder(Protocol):
    """What a search needs of a database; see Backend."""

    def holds(self, text: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        """See Backend.holds."""
        ...

    def find(self, word: str, owner: str) -> Sequence[sa.Select[Any]] | None:
        """See Backend.find."""
        ...


def holds_word(finder: Finder, word: str, *texts: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether one of the texts holds a word, in one of its spellings."""
    ways = itertools.product(texts, sorted(spellings(word)))
    return sa.or_(*(finder.holds(text, spelling) for text, spelling in ways))


def within_owner(owner: str, key: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether a key may be one of the owner's: a range that an index of keys serves."""
    if not owner:
        return sa.true()
    return sa.and_(key >= f"{owner}/", key < f"{owner}0")  # 0 is the character after the slash


def matching(statement: sa.Select[Any], finder: Finder, owner: str, words: list[str]) -> Any:
    """Restrict a statement on sessions to those that hold all words, longest word first.

    Adds a column `found_in`: the stream of a turn that holds the first word, or NULL.
    """
    found_in: sa.ColumnElement[Any] | None = None
    for word in words:
        titled = sa.select(sessions.c.session_id, sa.null().label("stream_id")).where(
            sessions.c.owner == owner,
            sessions.c.title.is_not(None),
            holds_word(finder, word, sessions.c.title),
        )
        indexed = finder.find(word, owner)
        if indexed is None:
            in_a_turn = sa.exists().where(
                turns.c.session_id == sessions.c.session_id,
                holds_word(finder, word, turns.c.prompt, turns.c.answer),
            )
            statement = statement.where(
                sa.or_(holds_word(finder, word, sessions.c.title), in_a_turn)
            )
            continue
        hits = sa.union_all(*indexed, titled).subquery()
        if found_in is None:
            by_session = (
                sa.select(hits.c.session_id, sa.func.max(hits.c.stream_id).label("stream_id"))
                .group_by(hits.c.session_id)
                .subquery()
            )
            statement = statement.join(by_session, by_session.c.session_id == sessions.c.session_id)
            found_in = by_session.c.stream_id
        else:
            statement = statement.where(sessions.c.session_id.in_(sa.select(hits.c.session_id)))
    if found_in is None:
        found_in = sa.null()
    return statement.add_columns(found_in.label("found_in"))


def snippets(
    connection: sa.Connection, finder: Finder, found: Iterable[tuple[str, str | None]], word: str
) -> dict[str, str]:
    """For each session, with the stream of a turn or None: some text around the word.

    One turn at a time: together they may be long.
    """
    texts = sa.select(turns.c.answer, turns.c.prompt).limit(1)
    result: dict[str, str] = {}
    for session_id, stream_id in found:
        if stream_id is not None:
            statement = texts.where(turns.c.stream_id == stream_id)
        else:
            statement = texts.where(
                turns.c.session_id == session_id,
                holds_word(finder, word, turns.c.prompt, turns.c.answer),
            ).order_by(turns.c.epoch.desc())
        row = connection.execute(statement).first()
        if row is not None and (snippet := snippet_of(row, word)):
            result[session_id] = snippet
    return result

"""The tables, and how a database gets to the version this program knows.

`jarvis_sessions` and `jarvis_turns` are what is kept. `jarvis_pieces` holds the text of answers
that are still streaming: appended to, never rewritten, and folded into the turn when it ends.
`jarvis_instances` tells which processes are alive, so that a turn whose process died can be told
from one that is still being answered. `jarvis_removals` holds spans of epochs: no turn of such a
span is kept, however late it comes.

A new database is made from the tables here, without alembic, which takes long to import; an older
one goes through the migrations. A test compares the two: a change belongs into both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    event,
    inspect,
    select,
)

from jarvis_stream.history.base import HistoryUnusable

HEAD: Final = "0005"
"""The version of the schema this program reads and writes: the newest file in migrations."""

MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSION_TABLE: Final = "jarvis_schema"


class AnyText(TypeDecorator[str]):
    """Text that may hold any character.

    PostgreSQL has no U+0000 in text, and SQLite's own functions stop at it. It is kept as DLE @,
    and DLE itself as DLE P: other text is unchanged, and escaped pieces can be joined.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """See TypeDecorator."""
        if value is None or ("\x00" not in value and "\x10" not in value):
            return value
        return value.replace("\x10", "\x10P").replace("\x00", "\x10@")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """See TypeDecorator."""
        if value is None or "\x10" not in value:
            return value
        return _ESCAPED.sub(lambda found: "\x00" if found[1] == "@" else "\x10", value)


_ESCAPED: Final = re.compile("\x10([@P])")

# Compared byte by byte: what a session_id means in some language is not asked.
_ID = String(128).with_variant(String(128, collation="C"), "postgresql")
# A session's or stream's id with its owner before it (see ids.key_of). SQLite knows no lengths.
_KEY = String(128).with_variant(String(512, collation="C"), "postgresql")

metadata = MetaData()

sessions = Table(
    "jarvis_sessions",
    metadata,
    Column("session_id", _KEY, primary_key=True),
    Column("updated_at", Double, nullable=False),
    # The one it was given; without one, its first question is its title.
    Column("title", AnyText),
    # The one in its key: for the list.
    Column("owner", _KEY, nullable=False, server_default=""),
    # Maintained by triggers, because counting the turns of a long session is slow.
    Column("turn_count", Integer, nullable=False, server_default="0"),
    # The newest turn when the title was set: a removal of all older turns removes the title too.
    Column("titled_epoch", BigInteger, nullable=False, server_default="0"),
    Index("jarvis_sessions_newest", "owner", "updated_at", "session_id"),
)

turns = Table(
    "jarvis_turns",
    metadata,
    Column("stream_id", _KEY, primary_key=True),
    Column(
        "session_id",
        _KEY,
        ForeignKey(sessions.c.session_id, ondelete="CASCADE"),
        nullable=False,
    ),
    Column("epoch", BigInteger, nullable=False),
    Column("instance_id", _ID, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("finish_reason", Text),
    Column("error_code", Text),
    Column("usage", Text),
    # Of question and answer: the agent's messages are chosen without reading the texts.
    Column("chars", Integer, nullable=False),
    # After what is read without them.
    Column("prompt", AnyText, nullable=False),
    Column("answer", AnyText, nullable=False),
    Column("trace_id", String(32)),
    Column("error", AnyText),
    Column("retryable", Boolean),
    Column("ended_at", Double),
    Index("jarvis_turns_of_session", "session_id", "epoch"),
    Index("jarvis_turns_epoch", "epoch"),
)
# In SQL, which is the same for both. An Index with a condition would take PostgreSQL's dialect,
# which takes longer to import than all the rest of it.
event.listen(
    turns,
    "after_create",
    DDL(  # type: ignore[no-untyped-call]
        "CREATE INDEX jarvis_turns_streaming ON jarvis_turns (instance_id)"
        " WHERE status = 'streaming'"
    ),
)

COUNTING: Final = {
    "sqlite": (
        "CREATE TRIGGER jarvis_turns_counted AFTER INSERT ON jarvis_turns BEGIN"
        " UPDATE jarvis_sessions SET turn_count = turn_count + 1"
        " WHERE session_id = new.session_id; END",
        "CREATE TRIGGER jarvis_turns_discounted AFTER DELETE ON jarvis_turns BEGIN"
        " UPDATE jarvis_sessions SET turn_count = turn_count - 1"
        " WHERE session_id = old.session_id; END",
    ),
    # Once per statement: each of thousands of updates of one row in one transaction is slower
    # than the one before.
    "postgresql": (
        "CREATE FUNCTION jarvis_count_turns() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE jarvis_sessions SET turn_count = turn_count"
        " + CASE TG_OP WHEN 'INSERT' THEN changed.count ELSE -changed.count END"
        " FROM (SELECT session_id, count(*) AS count FROM changed_turns GROUP BY session_id)"
        " AS changed WHERE jarvis_sessions.session_id = changed.session_id;"
        " RETURN NULL; END $$",
        "CREATE TRIGGER jarvis_turns_counted AFTER INSERT ON jarvis_turns"
        " REFERENCING NEW TABLE AS changed_turns"
        " FOR EACH STATEMENT EXECUTE FUNCTION jarvis_count_turns()",
        "CREATE TRIGGER jarvis_turns_discounted AFTER DELETE ON jarvis_turns"
        " REFERENCING OLD TABLE AS changed_turns"
        " FOR EACH STATEMENT EXECUTE FUNCTION jarvis_count_turns()",
    ),
}
"""The statements that create the triggers for `turn_count`, by dialect."""

for _dialect, _statements in COUNTING.items():
    for _statement in _statements:
        event.listen(
            turns,
            "after_create",
            DDL(_statement).execute_if(dialect=_dialect),  # type: ignore[no-untyped-call]
        )

pieces = Table(
    "jarvis_pieces",
    metadata,
    Column(
        "stream_id",
        _KEY,
        ForeignKey(turns.c.stream_id, ondelete="CASCADE"),
        primary_key=True,
    ),
    # The byte of the answer at which it begins.
    Column("start", Integer, primary_key=True, autoincrement=False),
    Column("text", AnyText, nullable=False),
)

instances = Table(
    "jarvis_instances",
    metadata,
    Column("instance_id", _ID, primary_key=True),
    Column("seen_at", Double, nullable=False),
)

# The newest row is kept at any age, so that no epoch is issued twice.
removals = Table(
    "jarvis_removals",
    metadata,
    # Not a foreign key: the session may be deleted and begin again.
    Column("session_id", _KEY, primary_key=True),
    Column("before_epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("first_epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("removed_at", Double, nullable=False),
    Index("jarvis_removals_removed_at", "removed_at"),
)

# As alembic makes it, and reads it.
_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def version_of(connection: Connection) -> str | None:
    """The schema's version in this database; None when it has none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(_version.c.version_num))


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Bring the database to a version, in the connection's transaction.

    Raises HistoryUnusable for a version this program does not know: a newer program wrote it, and
    there is no way down.
    """
    version = version_of(connection)
    if version == to:
        return
    if version is None and to == HEAD:
        _create(connection)
        return
    # Alembic takes long to import, and is needed only now.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise HistoryUnusable(
            f"the history's database has schema version {version}, which this program does not"
            f" know (it knows up to {HEAD}): it was written by a newer one. Use that one, or"
            " another database; it is never downgraded"
        )
    command.upgrade(config, to)


def _create(connection: Connection) -> None:
    """Make in a new database at once what all migrations make one after the other."""
    _version.create(connection, checkfirst=True)
    # Whatever else is there already is not ours, and an error, as it is to the migrations.
    metadata.create_all(connection, checkfirst=False)
    connection.execute(_version.insert().values(version_num=HEAD))

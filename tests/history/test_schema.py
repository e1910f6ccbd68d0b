"""The schema: made at once or by the migrations, it is what the queries are written for."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from postgres_server import PostgresServer
from sqlalchemy.dialects import postgresql, sqlite

from jarvis_stream.history import schema
from jarvis_stream.history.base import HistoryUnusable
from jarvis_stream.history.open import open_history


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database, in the driver that does not wait for anybody."""
    if request.param == "sqlite":
        url = sa.make_url(f"sqlite:///{tmp_path / 'history.sqlite3'}")
        # The driver's own transactions leave tables out.
        engine = sa.create_engine(url, connect_args={"isolation_level": None})

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = sa.make_url(server.new_database()).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def migrations() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    return ScriptDirectory.from_config(config)


def catalogue(connection: sa.Connection) -> set[tuple[str, ...]]:
    """All that a database says about what is in it, but not in which order it came there."""
    questions = {
        "sqlite": (
            "SELECT type, name, tbl_name, sql FROM sqlite_master",
            "SELECT 'user_version', * FROM pragma_user_version",
            "SELECT 'application_id', * FROM pragma_application_id",
        ),
        "postgresql": (
            "SELECT relkind, relname, relpersistence, reloptions, relrowsecurity FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace",
            "SELECT attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,"
            " attidentity, attgenerated, attstorage, collname, pg_get_expr(adbin, adrelid),"
            " row_number() OVER (PARTITION BY attrelid ORDER BY attnum)"
            " FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid"
            " LEFT JOIN pg_collation ON attcollation = pg_collation.oid"
            " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
            " WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped",
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
            "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace",
            "SELECT sequencename, data_type, start_value, min_value, max_value, increment_by,"
            " cycle, cache_size FROM pg_sequences WHERE schemaname = 'public'",
            "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
            "SELECT tgrelid::regclass, tgname, pg_get_triggerdef(oid) FROM pg_trigger"
            " WHERE NOT tgisinternal",
        ),
    }[connection.dialect.name]
    rows = [row for question in questions for row in connection.execute(sa.text(question))]
    if sa.inspect(connection).has_table(schema.VERSION_TABLE):
        rows += connection.execute(sa.text(f"SELECT 'at', * FROM {schema.VERSION_TABLE}"))
    # Spaces and line ends in what SQLite keeps of the statements are not meant.
    return {tuple(" ".join(str(value).split()) for value in row) for row in rows}


def made_by(engine: sa.Engine, *versions: str) -> set[tuple[str, ...]]:
    """What an empty database holds after upgrades to these versions; they are undone."""
    with engine.connect() as connection, connection.begin() as transaction:
        assert schema.version_of(connection) is None
        for version in versions:
            schema.upgrade(connection, version)
            assert schema.version_of(connection) == version
        found = catalogue(connection)
        transaction.rollback()
    return found


def test_a_new_database_is_what_the_migrations_make_of_it(engine: sa.Engine) -> None:
    one_by_one = [script.revision for script in migrations().walk_revisions()][::-1]
    assert len(one_by_one) > 1
    assert made_by(engine, schema.HEAD) == made_by(engine, *one_by_one)


def assert_seen(engine: sa.Engine, *change: str) -> None:
    """The catalogue is another one after the change."""
    with engine.begin() as connection:
        schema.upgrade(connection)
        before = catalogue(connection)
        for statement in change:
            connection.execute(sa.text(statement))
        assert catalogue(connection) != before


@pytest.mark.parametrize(
    "change",
    [
        ("CREATE TABLE jarvis_more (id INTEGER)",),
        ("CREATE INDEX jarvis_more ON jarvis_turns (epoch)",),
        ("DROP INDEX jarvis_turns_of_session",),
        (
            "DROP INDEX jarvis_turns_streaming",
            "CREATE INDEX jarvis_turns_streaming ON jarvis_turns (instance_id)",
        ),
        (
            "DROP INDEX jarvis_turns_of_session",
            "CREATE INDEX jarvis_turns_of_session ON jarvis_turns (epoch, session_id)",
        ),
        ("ALTER TABLE jarvis_turns ADD COLUMN more TEXT",),
        ("ALTER TABLE jarvis_turns DROP COLUMN usage",),
        (
            "ALTER TABLE jarvis_turns DROP COLUMN error",
            "ALTER TABLE jarvis_turns ADD COLUMN error TEXT",  # at the end
        ),
        ("UPDATE jarvis_schema SET version_num = '0002'",),
    ],
)
def test_no_difference_would_be_overlooked(engine: sa.Engine, change: tuple[str, ...]) -> None:
    assert_seen(engine, *change)


# SQLite's catalogue is the statements themselves; of PostgreSQL's all that counts is asked for.
@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE jarvis_turns ALTER COLUMN chars TYPE BIGINT",
        'ALTER TABLE jarvis_turns ALTER COLUMN stream_id TYPE VARCHAR(128) COLLATE "C"',
        'ALTER TABLE jarvis_turns ALTER COLUMN instance_id TYPE VARCHAR(128) COLLATE "default"',
        "ALTER TABLE jarvis_turns ALTER COLUMN usage SET NOT NULL",
        "ALTER TABLE jarvis_turns ALTER COLUMN chars SET DEFAULT 0",
        "ALTER TABLE jarvis_sessions ALTER COLUMN owner DROP DEFAULT",
        "ALTER TABLE jarvis_pieces DROP CONSTRAINT jarvis_pieces_stream_id_fkey",
        "ALTER TABLE jarvis_pieces RENAME CONSTRAINT jarvis_pieces_pkey TO theirs",
        "ALTER TABLE jarvis_turns ADD CHECK (chars >= 0)",
        "ALTER TABLE jarvis_turns SET (fillfactor = 50)",
    ],
)
def test_no_difference_in_postgresql_would_be_overlooked(engine: sa.Engine, change: str) -> None:
    assert_seen(engine, change)


def test_upgrading_again_changes_nothing(engine: sa.Engine) -> None:
    found = []
    for _ in range(2):
        with engine.begin() as connection:
            schema.upgrade(connection)
            found.append(catalogue(connection))
    assert found[0] == found[1]
    assert ("at", schema.HEAD) in found[0]


UPGRADE = """
import sys
import sqlalchemy as sa
from jarvis_stream.history import schema

engine = sa.create_engine(sys.argv[1])
with engine.begin() as connection:
    schema.upgrade(connection, sys.argv[2])
engine.dispose()
print("alembic" in sys.modules)
"""


@pytest.mark.parametrize(
    ("versions", "needed"),
    [([schema.HEAD, schema.HEAD], [False, False]), (["0001", schema.HEAD], [True, True])],
    ids=["new", "old"],
)
def test_only_what_is_old_needs_alembic(
    engine: sa.Engine, versions: list[str], needed: list[bool]
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    for version, expected in zip(versions, needed, strict=True):
        done = subprocess.run(
            [sys.executable, "-c", UPGRADE, url, version],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{expected}\n"
        with engine.connect() as connection:
            assert schema.version_of(connection) == version


class Broken(Exception):
    """What makes a transaction break off."""


def test_wherever_making_it_breaks_off_nothing_is_there(engine: sa.Engine) -> None:
    written: list[str] = []
    at_most = 0

    @sa.event.listens_for(engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        statement: str = arguments[2]
        if statement.split()[0] in ("CREATE", "INSERT"):
            if len(written) == at_most:
                raise Broken
            written.append(statement)

    def make() -> bool:
        written.clear()
        try:
            with engine.begin() as connection:
                schema.upgrade(connection)
        except Broken:
            return False
        return True

    while not make():
        with engine.connect() as connection:
            assert sa.inspect(connection).get_table_names() == []
        at_most += 1
    with engine.connect() as connection:
        assert schema.version_of(connection) == schema.HEAD
    assert at_most > len(schema.metadata.tables)
    assert written[-1].startswith(f"INSERT INTO {schema.VERSION_TABLE}")


DIE = """
import asyncio, os, signal, sys
import sqlalchemy as sa
from jarvis_stream.history.open import open_history

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def die(connection, cursor, statement, parameters, context, executemany):
    if statement.startswith("INSERT INTO jarvis_schema"):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with open_history(sys.argv[1]):
        print("it is open")

asyncio.run(main())
"""


async def test_killed_before_it_writes_the_version_it_has_made_nothing(engine: sa.Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DIE, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (died.returncode, died.stdout, died.stderr) == (-signal.SIGKILL, "", "")
    assert sa.inspect(engine).get_table_names() == []
    async with open_history(url):
        with engine.connect() as connection:
            assert schema.version_of(connection) == schema.HEAD


def test_tables_of_others_are_left_alone(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('theirs')"))
        connection.execute(sa.text("CREATE TABLE sessions (theirs INTEGER)"))
        schema.upgrade(connection)
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "theirs"


@pytest.mark.parametrize("first", ["0001", schema.HEAD])
def test_a_failed_upgrade_leaves_nothing_behind(engine: sa.Engine, first: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE jarvis_pieces (in_the_way INTEGER)"))
    with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
        schema.upgrade(connection, first)
    assert sa.inspect(engine).get_table_names() == ["jarvis_pieces"]


def test_a_version_nobody_knows_is_refused(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        schema.upgrade(connection)
        connection.execute(sa.text("UPDATE jarvis_schema SET version_num = '9999'"))
        with pytest.raises(HistoryUnusable, match="9999"):
            schema.upgrade(connection)


def test_the_newest_migration_is_the_version_this_program_knows() -> None:
    assert migrations().get_heads() == [schema.HEAD]


@given(
    parts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x00\x10@P"))
    )
)
def test_any_text_is_escaped_so_that_pieces_can_be_joined(parts: list[str]) -> None:
    for dialect in (sqlite.dialect(), postgresql.dialect()):  # type: ignore[no-untyped-call]
        kind = schema.AnyText()
        escaped = [kind.process_bind_param(part, dialect) or "" for part in parts]
        assert "\x00" not in "".join(escaped)
        assert kind.process_result_value("".join(escaped), dialect) == "".join(parts)

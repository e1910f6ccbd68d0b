"""The schema: what the migrations make is what the queries are written for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from postgres_server import PostgresServer
from sqlalchemy.dialects import postgresql, sqlite

from jarvis_stream.history import schema
from jarvis_stream.history.base import HistoryUnusable


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database, in the driver that does not wait for anybody."""
    if request.param == "sqlite":
        url = sa.make_url(f"sqlite:///{tmp_path / 'history.sqlite3'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = sa.make_url(server.new_database()).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def test_the_migrations_make_the_tables_that_are_used(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        assert schema.version_of(connection) is None
        schema.upgrade(connection)
        assert schema.version_of(connection) == schema.HEAD
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, schema.metadata) == []


def test_what_was_kept_before_there_were_owners_is_nobodys(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        schema.upgrade(connection, "0002")
        connection.execute(sa.text("INSERT INTO jarvis_sessions VALUES ('s', 1.5, 'title')"))
        schema.upgrade(connection)
        kept = connection.execute(sa.select(schema.sessions)).one()
    assert tuple(kept) == ("s", 1.5, "title", "")


def test_upgrading_again_changes_nothing(engine: sa.Engine) -> None:
    for _ in range(2):
        with engine.begin() as connection:
            schema.upgrade(connection)
    with engine.connect() as connection:
        assert schema.version_of(connection) == schema.HEAD


def test_tables_of_others_are_left_alone(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('theirs')"))
        connection.execute(sa.text("CREATE TABLE sessions (theirs INTEGER)"))
        schema.upgrade(connection)
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "theirs"


def test_a_failed_upgrade_leaves_nothing_behind(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE jarvis_removed (in_the_way INTEGER)"))
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def without_driver_transactions(
            connection: sa.engine.interfaces.DBAPIConnection, _: object
        ) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        engine.dispose()
    with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
        schema.upgrade(connection)
    assert sa.inspect(engine).get_table_names() == ["jarvis_removed"]


def test_a_version_nobody_knows_is_refused(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        schema.upgrade(connection)
        connection.execute(sa.text("UPDATE jarvis_schema SET version_num = '9999'"))
        with pytest.raises(HistoryUnusable, match="9999"):
            schema.upgrade(connection)


def test_the_newest_migration_is_the_version_this_program_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


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

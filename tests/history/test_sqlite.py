"""History in a SQLite file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import ROOT
from contracts.history import (
    PATIENCE,
    PATIENT,
    QUICK,
    Backend,
    DurableContract,
    Speaker,
    deleted,
    eventually,
    plain,
    saved,
    shapes,
)

from jarvis_stream.history import schema, sqlite, sqlite_search
from jarvis_stream.history.base import History, HistoryUnusable, TurnEnd, TurnStart
from jarvis_stream.history.open import make_backend, make_store, open_history
from jarvis_stream.history.sql import SqlStore
from jarvis_stream.history.sqlite import READERS, SqliteBackend, _is_free
from jarvis_stream.history.store import Batch
from jarvis_stream.history.views import record_of
from jarvis_stream.history.writer import HistoryWriter

from .crashing import kill_again_and_again

IMPATIENT = replace(PATIENT, begin_timeout=3.0, checkpoint_every=0.05)
"""Who begins a turn waits in vain, and reads what came before it in half of that time."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "history.sqlite3"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


class TestSqlite(DurableContract):
    """See the contract."""


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[Path]:
    """Somebody's file, which stays as it is."""
    file = tmp_path / "diary.txt"
    text = "Dear diary,\n" * 1000
    file.write_text(text)
    yield file
    assert file.read_text() == text


# The file


async def test_a_path_is_a_url_too(file: Path) -> None:
    async with open_history(str(file), PATIENT) as history:
        await Speaker(history).turn("s", "1")
    async with open_history(f"sqlite+aiosqlite:///{file}", PATIENT) as history:
        assert await history.turn("1")


async def test_what_is_made_is_for_the_user_alone(file: Path, backend: Backend) -> None:
    async with backend() as history:
        await Speaker(history).turn("s", "1")
        assert stat.S_IMODE(os.stat(file.parent).st_mode) == 0o700
        modes = {stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(file.parent)}
        assert modes == {0o600}


async def test_nothing_but_the_database_stays_behind(file: Path, backend: Backend) -> None:
    async with backend() as history:
        await Speaker(history).turn("s", "1")
    assert os.listdir(file.parent) == [file.name]


async def test_it_is_in_wal_mode(file: Path, backend: Backend) -> None:
    async with backend():
        with closing(sqlite3.connect(file)) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def pieces_are(file: Path, expected: int) -> bool:
    """Whether so many are there."""
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT count(*) FROM jarvis_pieces").fetchone()
    return bool(found == (expected,))


async def test_pieces_are_kept_only_while_an_answer_grows(file: Path, url: str) -> None:
    async with open_history(url, QUICK) as history:
        speaker = Speaker(history)
        begun, answer = speaker.ask("s", "1")
        await begun
        answer.say("some text")
        await eventually(lambda: pieces_are(file, 1))
        assert await speaker.end("1")
        assert await pieces_are(file, 0)


async def test_another_process_that_uses_the_same_stream_id_leaves_the_pieces(
    file: Path, url: str
) -> None:
    start = TurnStart(session_id="t", stream_id="1", epoch=9, prompt="q", created_at=0.0)
    ended = record_of(start, "a", TurnEnd(status="complete"))
    async with open_history(url, QUICK) as history:
        begun, answer = Speaker(history).ask("s", "1")
        await begun
        answer.say("some text")
        await eventually(lambda: pieces_are(file, 1))
        other = SqlStore(
            SqliteBackend(sa.make_url(url), "other"),
            instance_id="other",
            lease=30.0,
            max_messages=1,
            max_chars=1,
        )
        await other.prepare()
        written = await other.write(Batch(begins=[ended], pieced=["1"]))
        await other.close()
        assert written.begun == set()
        assert await pieces_are(file, 1)


async def test_a_file_that_is_no_database_is_refused(diary: Path) -> None:
    with pytest.raises(HistoryUnusable, match=r"diary\.txt"):
        async with open_history(str(diary)):
            pass


async def test_whatever_keeps_it_from_opening_the_cause_and_the_remedy_are_said(
    diary: Path, tmp_path: Path
) -> None:
    reasons = {
        str(tmp_path): "the path must name a file",
        str(diary): "not a SQLite database: name another file",
        str(diary / "history.db"): "a file, not a folder: name another path",
        str(tmp_path / ("x" * 300) / "history.db"): "too long: name a shorter one",
        f"sqlite:///{tmp_path}/x.db?mode=ro": "mode in the database URL is unknown",
    }
    for wrong, reason in reasons.items():
        with pytest.raises(HistoryUnusable, match=reason):
            async with open_history(wrong):
                pass


# Other processes


async def test_sixteen_writers_and_a_reader_never_find_it_locked(
    backend: Backend, log_lines: list[str]
) -> None:
    async with AsyncExitStack() as stack:
        histories = [await stack.enter_async_context(backend()) for _ in range(16)]
        reader = await stack.enter_async_context(backend())
        until = asyncio.get_running_loop().time() + 5.0

        async def write(number: int, history: History) -> int:
            speaker = Speaker(history, first=number * 1_000_000 + 1)
            turns = 0
            while asyncio.get_running_loop().time() < until:
                await speaker.turn(f"s{number}", f"{number}-{turns}", text="a" * 1000)
                turns += 1
            return turns

        async def read() -> int:
            reads = 0
            while asyncio.get_running_loop().time() < until:
                await reader.sessions()
                await reader.turns(f"s{reads % 16}", limit=10)
                reads += 1
            return reads

        reading = asyncio.create_task(read())
        turns = await asyncio.gather(
            *(write(number, history) for number, history in enumerate(histories))
        )
        assert await reading
        for number, count in enumerate(turns):
            assert len(await reader.turns(f"s{number}")) == count > 0
        assert [history.health.failures for history in histories] == [0] * 16
    assert log_lines == []


async def test_killed_again_and_again_it_loses_nothing_acknowledged(
    file: Path, url: str, tmp_path: Path
) -> None:
    await kill_again_and_again(url, tmp_path, times=25, seed=14)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM jarvis_pieces").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM jarvis_instances").fetchone() == (0,)
    assert [name for name in os.listdir(file.parent) if "alive" in name] == []


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another process's transaction that does not end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_while_another_process_locks_it_the_chat_goes_on(
    file: Path, url: str, log_lines: list[str]
) -> None:
    async with open_history(url, IMPATIENT) as history:
        speaker = Speaker(history)
        await speaker.keep("s", "1", "q1", "a1")
        with locked(file):
            begun, answer = speaker.ask("s", "2", "q2")
            answer.say("a2")
            result = await begun
            assert not result.saved
            assert plain(result.messages) == ["u:q1", "a:a1", "u:q2"]
            assert not await speaker.end("2")
            assert shapes(await history.turns("s"))[1] == ("2", "q2", "a2", "complete")
        await saved(history)
        await speaker.turn("s", "3")
    async with open_history(url, PATIENT) as history:
        assert [turn.stream_id for turn in await history.turns("s")] == ["1", "2", "3"]


async def test_while_another_process_locks_it_what_is_replaced_is_gone_all_the_same(
    file: Path, url: str, log_lines: list[str]
) -> None:
    async with open_history(url, IMPATIENT) as history:
        speaker = Speaker(history)
        await speaker.keep("s", "1", "q1", "a1")
        await speaker.keep("s", "2", "q2", "a2")
        with locked(file):
            begun, answer = speaker.ask("s", "3", "q2 again", replaces_from=2)
            answer.say("a3")
            result = await begun
            assert not result.saved
            assert plain(result.messages) == ["u:q1", "a:a1", "u:q2 again"]
            assert not await speaker.end("3")
            assert [turn.stream_id for turn in await history.turns("s")] == ["1", "3"]
            with closing(sqlite3.connect(file)) as other:
                kept = other.execute("SELECT stream_id FROM jarvis_turns ORDER BY epoch")
                assert kept.fetchall() == [("1",), ("2",)]
        await saved(history)
    async with open_history(url, PATIENT) as history:
        assert shapes(await history.turns("s")) == [
            ("1", "q1", "a1", "complete"),
            ("3", "q2 again", "a3", "complete"),
        ]


async def test_after_a_failed_write_reads_that_hang_do_not_stop_the_writing(
    file: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis_stream.history.sqlite.BUSY_TIMEOUT", 0.2)
    limits = replace(PATIENT, lease=0.05)  # it looks for dead processes that often
    backend = make_backend(url, "me")
    store = make_store(backend, "me", limits)
    await store.prepare()
    go_on = threading.Event()
    async with HistoryWriter(store, limits).running() as history:
        speaker = Speaker(history)
        await speaker.turn("s", "1")
        reads = [
            asyncio.create_task(backend.read(lambda _: go_on.wait(PATIENCE)))
            for _ in range(READERS)
        ]
        try:
            with locked(file):
                begun, _ = speaker.ask("s", "2")

                async def failed() -> bool:
                    return history.health.failures > 0

                await eventually(failed)
            assert (await begun).saved
            for stream_id in ("3", "4"):
                await asyncio.sleep(2 * limits.lease)
                await speaker.turn("s", stream_id)
            assert not any(read.done() for read in reads)
        finally:
            go_on.set()
            await asyncio.gather(*reads)
        assert [turn.stream_id for turn in await history.turns("s")] == ["1", "2", "3", "4"]
    await store.close()


async def test_a_sign_of_life_survives_a_process_that_cleans_up_at_that_moment(
    file: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_backend(url, "first"), make_backend(url, "second")
    await second.prepare()
    flock, calls = fcntl.flock, []

    def flock_late(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:  # the file is there, and not locked yet
            _is_free(file.with_name(f"{file.name}-alive-first"), remove=True)
        flock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", flock_late)
    await first.prepare()
    assert not await second.read(lambda to: second.gone(to, "first"))
    await first.close()
    assert await second.read(lambda to: second.gone(to, "first"))
    await second.close()


async def test_cleaning_up_removes_only_the_file_whose_lock_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = tmp_path / "sign"
    sign.touch()
    flock, calls = fcntl.flock, []

    def flock_late(descriptor: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:  # another process has removed it, and its own process made it again
            sign.unlink()
            sign.touch()
        flock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", flock_late)
    _is_free(sign, remove=True)
    assert sign.exists()
    _is_free(sign, remove=True)
    assert not sign.exists()


@pytest.mark.parametrize(("query", "level"), [("", 1), ("?synchronous=full", 2)])
async def test_a_commit_waits_for_the_disk_where_the_url_says_so(
    url: str, query: str, level: int
) -> None:
    backend = make_backend(url + query, "me")
    await backend.prepare()
    look = await backend.write(lambda to: to.exec_driver_sql("PRAGMA synchronous").scalar())
    assert look == level
    await backend.close()
    async with open_history(url + query) as history:
        await Speaker(history).turn("s", "1")


# A disk that does not serve


async def test_when_its_folder_is_removed_it_begins_a_new_one(file: Path, url: str) -> None:
    async with open_history(url, replace(PATIENT, checkpoint_every=0.05)) as history:
        speaker = Speaker(history)
        await speaker.turn("s", "1")
        begun, answer = speaker.ask("s", "2", "q2")
        await begun
        answer.say("so far")
        shutil.rmtree(file.parent)
        await speaker.ask("s", "3", "q3")[0]
        answer.say(", so good")
        await speaker.end("2")
        await saved(history)
        async with open_history(url, PATIENT) as other:
            assert shapes(await other.turns("s")) == [
                ("2", "q2", "so far, so good", "complete"),
                ("3", "q3", "", "streaming"),
            ]


async def test_when_its_folder_cannot_be_made_again_the_chat_goes_on(
    file: Path, url: str, log_lines: list[str]
) -> None:
    async with open_history(url, IMPATIENT) as history:
        speaker = Speaker(history)
        await speaker.keep("s", "1")
        shutil.rmtree(file.parent)
        file.parent.write_text("in the way")
        begun, answer = speaker.ask("s", "2", "q2")
        answer.say("a2")
        assert not (await begun).saved
        assert not await speaker.end("2")
        assert not history.health.writable
        file.parent.unlink()
        await saved(history)
        assert shapes(await history.turns("s")) == [("2", "q2", "a2", "complete")]
    assert any(line.startswith("history_write_failed error=") for line in log_lines)
    assert any(line.startswith("history_recovered") for line in log_lines)


def run_alone(url: str, body: str, **options: object) -> str:
    """Run a test's body in a process of its own, whose limits can be changed; what it printed."""
    script = textwrap.dedent(
        """
        import asyncio, os, resource, signal, sys
        from dataclasses import replace
        from contracts.history import PATIENT, Speaker, plain, saved, shapes
        from jarvis_stream.history.open import open_history
        url = sys.argv[1]
        limits = replace(PATIENT, begin_timeout=3.0)
        async def main():
        """
    ) + textwrap.indent(textwrap.dedent(body), "    ")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script + "\nasyncio.run(main())", url],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
    assert isinstance(done.stdout, str)
    return done.stdout


def test_on_a_full_disk_the_chat_goes_on(url: str) -> None:
    out = run_alone(
        url,
        """
        # A write past the limit fails with EFBIG, which SQLite tells as it tells ENOSPC.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        async with open_history(url, limits) as history:
            speaker = Speaker(history)
            await speaker.keep("s", "1", "q1", "a1")
            full = (os.path.getsize(url[10:] + "-wal"), -1)
            resource.setrlimit(resource.RLIMIT_FSIZE, full)
            begun, answer = speaker.ask("s", "2", "q2")
            answer.say("a2" * 100_000)
            result = await begun
            assert not result.saved and plain(result.messages) == ["u:q1", "a:a1", "u:q2"]
            assert not await speaker.end("2")
            assert not history.health.writable
            print(history.health.last_error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            await saved(history)
            await speaker.turn("s", "3")
        async with open_history(url, PATIENT) as history:
            assert [turn.stream_id for turn in await history.turns("s")] == ["1", "2", "3"]
        """,
    )
    assert out == "OperationalError\n"


def test_on_a_read_only_file_the_chat_goes_on() -> None:
    # Root may write anything: the process goes on as somebody else.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        run_alone(
            f"sqlite:///{folder}/history.sqlite3",
            """
            import jarvis_stream.history.sqlite  # while its files can be read
            file = url[10:]
            async with open_history(url, PATIENT) as history:
                await Speaker(history).turn("s", "1", "q1", "a1")
            os.chmod(file, 0o444)
            me = os.geteuid()
            if me == 0:
                os.seteuid(65534)
            async with open_history(url, limits) as history:
                speaker = Speaker(history, first=2)
                begun, answer = speaker.ask("s", "2", "q2")
                answer.say("a2")
                result = await begun
                assert not result.saved and plain(result.messages) == ["u:q1", "a:a1", "u:q2"]
                assert not await speaker.end("2")
                assert [turn.stream_id for turn in await history.turns("s")] == ["1", "2"]
                os.seteuid(me)
                for name in os.listdir(os.path.dirname(file)):  # what SQLite put beside it too
                    os.chmod(os.path.join(os.path.dirname(file), name), 0o666)
                if me == 0:
                    os.seteuid(65534)
                await saved(history)
                await speaker.turn("s", "3")
            """,
        )


# Versions


async def test_a_newer_schema_is_refused_and_left_alone(file: Path, backend: Backend) -> None:
    async with backend() as history:
        await Speaker(history).turn("s", "1")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE jarvis_schema SET version_num = '9999'")
        connection.commit()
        before = list(connection.iterdump())
    with pytest.raises(HistoryUnusable, match=r"schema version 9999.*never downgraded"):
        async with backend():
            pass
    with closing(sqlite3.connect(file)) as connection:
        assert list(connection.iterdump()) == before


async def test_what_an_older_version_kept_is_there_after_the_upgrade(
    file: Path, backend: Backend
) -> None:
    file.parent.mkdir()
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        schema.upgrade(connection, "0001")
        connection.execute(sa.text("INSERT INTO jarvis_sessions VALUES ('s', 1.0)"))
        connection.execute(
            sa.text(
                "INSERT INTO jarvis_turns VALUES ('1', 's', 7, 'gone', 1.0, 'error', NULL,"
                " 'too_long', NULL, 3, 'q', 'a')"
            )
        )
    engine.dispose()
    async with backend() as history:
        (turn,) = await history.turns("s")
        assert (turn.text, turn.error_code, turn.error, turn.trace_id) == (
            "a",
            "too_long",
            None,
            None,
        )
        assert (await history.sessions()).sessions[0].title == "q"
        renamed = await history.rename("s", "title")
        assert renamed is not None
        assert renamed.title == "title"


async def test_sixteen_processes_may_create_it_together(backend: Backend) -> None:
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(backend()) for _ in range(16))
        for number, history in enumerate(await asyncio.gather(*opening)):
            await Speaker(history).turn("s", str(number))


async def test_processes_that_start_together_wait_for_a_long_upgrade(
    url: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = schema.upgrade

    def upgrade_slowly(connection: sa.Connection) -> None:
        upgrade(connection)
        time.sleep(4 * sqlite.BUSY_TIMEOUT)

    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(open_history(url, PATIENT)) for _ in range(3))
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "BUSY_TIMEOUT", 0.25)
            patch.setattr(schema, "upgrade", upgrade_slowly)
            first, *_ = await asyncio.gather(*opening)
        await Speaker(first).turn("s", "one")
        assert not file.with_name(f"{file.name}-alive-schema").exists()


# The index of texts


async def rows(file: Path, question: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(question).fetchall()


DUE = (
    "SELECT (SELECT count(*) FROM jarvis_search_turns WHERE indexed = 0)"
    " + (SELECT count(*) FROM jarvis_search_left)"
)


async def all_is_indexed(file: Path) -> bool:
    return await rows(file, DUE) == [(0,)]


async def index_of(file: Path, word: str) -> int:
    """How many texts the index has for a word."""
    found = f"SELECT count(*) FROM jarvis_search WHERE jarvis_search MATCH '{word}'"
    return int((await rows(file, found))[0][0])


async def test_what_has_ended_comes_into_the_index_and_leaves_it_with_its_turn(
    file: Path, backend: Backend
) -> None:
    async with backend() as history:
        speaker = Speaker(history)
        for number in range(10):
            await speaker.turn("s", str(number), "about llamas", "they live in herds")
        await speaker.turn("t", "10", "about herds")
        await eventually(lambda: all_is_indexed(file))
        assert await index_of(file, "herds") == 11
        assert await speaker.discard("3")
        await deleted(history, "t", 1000)
        await eventually(lambda: all_is_indexed(file))
        assert await index_of(file, "herds") == 9
        assert await rows(file, "SELECT count(*) FROM jarvis_search_turns") == [(9,)]
        (found,) = (await history.sessions(query="herds llamas")).sessions
        assert found.session_id == "s"
    async with backend() as history:
        await deleted(history, "s", 1000)
        await eventually(lambda: all_is_indexed(file))
        assert await index_of(file, "herds") == 0


async def test_many_turns_are_found_by_the_index(file: Path, url: str) -> None:
    async with open_history(url, PATIENT) as history:
        speaker = Speaker(history)
        for number in range(30):
            begun = [
                speaker.turn(
                    f"s{number}",
                    f"{number}-{one}",
                    "llamas",
                    f"number{number}" + " Ünï" * (one == 3),
                )
                for one in range(15)
            ]
            await asyncio.gather(*begun)
        await eventually(lambda: all_is_indexed(file))
        for query, count in [
            ("number7", 1),
            ("number", 30),
            ("ünï number12", 1),
            ("number7 number8", 0),
            ("mbe 29", 1),
        ]:
            found = (await history.sessions(query=query)).sessions
            assert len(found) == count, query
            assert all(one.snippet for one in found)


async def test_an_older_database_is_indexed_while_it_is_used(file: Path, url: str) -> None:
    async with open_history(url, PATIENT) as history:
        for number in range(20):
            await Speaker(history).turn("s", str(number), "about llamas")
    with closing(sqlite3.connect(file, isolation_level=None)) as old:
        for kind, name in old.execute(
            "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'table')"
            " AND name IN ('jarvis_search', 'jarvis_search_turns', 'jarvis_search_left',"
            " 'jarvis_search_insert', 'jarvis_search_update', 'jarvis_search_delete')"
        ).fetchall():
            old.execute(f"DROP {kind} {name}")
    async with open_history(url, PATIENT) as history:
        assert len((await history.sessions(query="llamas")).sessions) == 1
        await eventually(lambda: all_is_indexed(file))
        assert await index_of(file, "llamas") == 20


async def test_without_the_tokenizer_the_texts_are_read(
    file: Path, url: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_search, "_has_tokenizer", lambda connection: False)
        async with open_history(url, PATIENT) as history:
            await Speaker(history).turn("s", "1", "about llamas")
            assert len((await history.sessions(query="llamas about")).sessions) == 1
    assert any("search_index_unavailable" in line for line in log_lines)
    async with open_history(url, PATIENT) as history:
        await eventually(lambda: all_is_indexed(file))
        assert await index_of(file, "llamas") == 1


async def test_a_search_that_is_abandoned_is_interrupted(url: str) -> None:
    backend = SqliteBackend(sa.make_url(url), "me")
    await backend.prepare()
    endless = sa.text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    try:
        for look in (backend.search, backend.read):
            searches = [
                asyncio.create_task(look(lambda connection: connection.scalar(endless)))
                for _ in range(READERS + 1)
            ]
            await asyncio.wait(searches, timeout=0.1)
            for search in searches:
                search.cancel()
            await asyncio.wait(searches)
            async with asyncio.timeout(PATIENCE):
                assert await look(lambda connection: connection.scalar(sa.text("SELECT 1"))) == 1
    finally:
        await backend.close()


async def test_searches_leave_the_connections_for_reading_alone(url: str) -> None:
    backend = SqliteBackend(sa.make_url(url), "me")
    await backend.prepare()
    go_on = threading.Event()
    try:
        searches = [
            asyncio.create_task(backend.search(lambda connection: go_on.wait())) for _ in range(12)
        ]
        async with asyncio.timeout(PATIENCE):
            assert (
                await backend.read(lambda connection: connection.scalar(sa.text("SELECT 1"))) == 1
            )
        go_on.set()
        await asyncio.gather(*searches)
    finally:
        go_on.set()
        await backend.close()


async def test_old_removals_are_forgotten_but_not_the_highest_epoch(
    backend: Backend, file: Path
) -> None:
    async with backend() as history:
        for before in (5, 9, 7):
            await deleted(history, f"s{before}", before)
    connection = sqlite3.connect(file)
    connection.execute(
        "UPDATE jarvis_removals SET removed_at = removed_at - 90000 WHERE session_id != 's7'"
    )
    connection.commit()
    connection.close()
    async with backend() as history:
        assert await rows(file, "SELECT session_id FROM jarvis_removals ORDER BY 1") == [
            ("s7",),
            ("s9",),
        ]
        assert await history.last_epoch() == 8

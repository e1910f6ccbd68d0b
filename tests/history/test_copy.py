"""From one database to another: nothing lost or mixed up, and nothing behind a server's back."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest
from contracts.history import NASTY, PATIENT, Speaker, plain
from postgres_server import PostgresServer

from jarvis_stream import cli
from jarvis_stream.history import copy
from jarvis_stream.history.base import HistoryUnusable, TurnRecord
from jarvis_stream.history.copy import Copied, copy_history
from jarvis_stream.history.open import open_history
from jarvis_stream.ids import key_of

ANNS = key_of("ann", "s")


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(tmp_path / "source.sqlite3")


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'target.sqlite3'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


async def talk(url: str, *, first: int = 1, names: str = "abc") -> None:
    """Turns of nobody's and of Ann's; one of them was removed again, with the highest epoch."""
    async with open_history(url, PATIENT) as history:
        speaker = Speaker(history, first=first)
        for name in names:
            await speaker.turn("s", name, f"q{name}", f"a{name}")
        await speaker.turn(ANNS, key_of("ann", names), NASTY, NASTY * 3)
        assert await history.rename(ANNS, "Ann's own")
        await speaker.turn("gone", f"gone{names}")
        assert await speaker.delete("gone")


async def kept(url: str) -> tuple[list[TurnRecord], list[str], int]:
    async with open_history(url, PATIENT) as history:
        found = await history.turns("s") + await history.turns(ANNS)
        titles = [
            session.title
            for owner in ("", "ann")
            for session in (await history.sessions(owner=owner)).sessions
        ]
        return found, titles, await history.last_epoch()


async def test_everything_is_there_and_copying_again_changes_nothing(
    source: str, target: str
) -> None:
    await talk(source)
    for _ in range(2):
        assert await copy_history(source, target) == Copied(sessions=2, turns=4)
        assert await kept(target) == await kept(source)
    async with open_history(target, PATIENT) as history:  # and it goes on there
        speaker = Speaker(history, first=(await history.last_epoch()) + 1)
        begun, _ = speaker.ask("s", "d", "qd")
        assert plain((await begun).messages)[-3:] == ["u:qc", "a:ac", "u:qd"]


async def test_back_from_a_server_to_a_file(postgres: PostgresServer, tmp_path: Path) -> None:
    server, file = postgres.new_database(), str(tmp_path / "file.sqlite3")
    await talk(server)
    await copy_history(server, file)
    assert await kept(file) == await kept(server)


async def test_in_many_portions_and_broken_off_in_the_middle(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "KEYS", 3)
    monkeypatch.setattr(copy, "ROWS", 2)
    monkeypatch.setattr(copy, "CHARS", len(NASTY) * 5)
    await talk(source, names="abcdefghi")
    told = []

    def break_off(done: int, total: int) -> None:
        told.append((done, total))
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await copy_history(source, target, progress=break_off)
    assert told[-1][1] == 10
    assert await copy_history(source, target) == Copied(sessions=2, turns=10)
    assert await kept(target) == await kept(source)


async def test_what_was_said_since_comes_with_the_next_copy(source: str, target: str) -> None:
    await talk(source)
    await copy_history(source, target)
    await talk(source, first=100, names="xyz")
    await copy_history(source, target)
    assert await kept(target) == await kept(source)


async def test_conversations_of_the_targets_own_are_not_mixed_in_unasked(
    source: str, target: str
) -> None:
    await talk(source)
    async with open_history(target, PATIENT) as history:
        await Speaker(history).turn("t", "mine", "q", "a")
    with pytest.raises(HistoryUnusable, match=r"conversations of its own.*--merge"):
        await copy_history(source, target)
    assert await copy_history(source, target, merge=True) == Copied(sessions=3, turns=5)
    async with open_history(target, PATIENT) as history:
        assert len(await history.turns("t")) == 1


async def test_of_a_session_that_both_have_the_targets_title_and_the_later_time_stay(
    source: str, target: str
) -> None:
    async with open_history(source, PATIENT) as history:
        await Speaker(history).turn("s", "1")
        await Speaker(history, first=20).turn("t", "20")
        for session in ("s", "t"):
            await history.rename(session, "the source's")
    async with open_history(target, PATIENT) as history:
        speaker = Speaker(history, first=10)
        await speaker.turn("s", "10")
        await speaker.turn("t", "11")
        await history.rename("s", "the target's")
        later = await history.session("s")
    assert await copy_history(source, target, merge=True) == Copied(sessions=2, turns=4)
    async with open_history(target, PATIENT) as history:
        newest, oldest = (await history.sessions()).sessions
        last = await history.turn("20")
    assert later is not None
    assert last is not None
    assert (oldest.title, oldest.updated_at) == ("the target's", later.updated_at)
    assert (newest.title, newest.updated_at) == ("the source's", last.created_at)


async def test_a_stream_id_of_two_sessions_is_refused_before_anything_is_written(
    source: str, target: str
) -> None:
    async with open_history(source, PATIENT) as history:
        await Speaker(history).turn("one", "same", "question", "answer")
    async with open_history(target, PATIENT) as history:
        await Speaker(history).turn("two", "same", "other question", "other answer")
    with pytest.raises(
        HistoryUnusable, match=r"the stream_id same is used in session one of .*two"
    ):
        await copy_history(source, target, merge=True)
    async with open_history(target, PATIENT) as history:
        (session,) = (await history.sessions()).sessions
        assert (session.session_id, session.message_count) == ("two", 2)
        assert [turn.text for turn in await history.turns("two")] == ["other answer"]


async def test_not_while_a_server_uses_the_source(source: str, target: str) -> None:
    async with open_history(source, PATIENT) as history:
        await Speaker(history).turn("s", "a")
        with pytest.raises(HistoryUnusable, match="1 running server uses"):
            await copy_history(source, target)
    assert (await copy_history(source, target)).turns == 1


async def test_what_gets_lost_on_the_way_is_noticed(source: str, tmp_path: Path) -> None:
    await talk(source)
    target = tmp_path / "target.sqlite3"
    await copy_history(source, str(target))
    database = sqlite3.connect(target)
    database.execute(
        "CREATE TRIGGER lossy AFTER INSERT ON jarvis_turns BEGIN"
        " DELETE FROM jarvis_turns WHERE stream_id = 'b'; END"
    )
    database.execute("DELETE FROM jarvis_turns")
    database.commit()
    database.close()
    with pytest.raises(HistoryUnusable, match=r"has 3 rows in jarvis_turns, and .* 4"):
        await copy_history(source, str(target))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("no-such-file", "other"), "there is no history at .*no-such-file"),
        (("memory:", "other"), "memory cannot be copied"),
        (("same", "sqlite:///same"), "the same database"),
        (("mysql://host/name", "other"), "there is no history in mysql"),
    ],
)
async def test_what_cannot_be_copied_is_said_and_nothing_is_made(
    given: tuple[str, str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HistoryUnusable, match=why):
        await copy_history(*given)
    assert os.listdir(tmp_path) == []


async def test_a_file_of_somebody_elses_is_no_history(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.sqlite3"
    sqlite3.connect(foreign).execute("CREATE TABLE notes (text)").connection.close()
    with pytest.raises(HistoryUnusable, match="there is no history at"):
        await copy_history(str(foreign), str(tmp_path / "target"))


async def test_a_server_that_is_not_there_is_said_without_the_password(source: str) -> None:
    await talk(source)
    with pytest.raises(HistoryUnusable) as caught:
        await copy_history(source, "postgresql://jarvis:hunter2-secret@127.0.0.1:1/nowhere")
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("logging_as_it_was")
class TestCommand:
    """The command is the same in words."""

    async def test_it_copies_and_says_what_next(
        self, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await talk(source)
        done = await _run(["--from", source, "--to", str(tmp_path / "target")])
        assert done == 0
        assert capsys.readouterr().out.startswith(
            "Done: the target has 2 conversations with 4 questions.\n"
        )

    async def test_the_settings_name_the_source(
        self, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await talk(source)
        monkeypatch.setenv("DATABASE_URL", source)
        assert await _run(["--to", str(tmp_path / "target")]) == 0

    async def test_what_goes_wrong_is_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert await _run(["--from", str(tmp_path / "no"), "--to", "memory:"]) == 1
        out, err = capsys.readouterr()
        assert (out, err) == ("", "jarvis-stream: a history in memory cannot be copied\n")


async def _run(arguments: list[str]) -> int:
    # In a thread: the command has a loop of its own.
    return await asyncio.to_thread(cli.main, ["copy-history", *arguments])

"""Which history a URL means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from jarvis_stream.history import open as opening
from jarvis_stream.history.base import HistoryUnusable
from jarvis_stream.history.open import default_database_url, describe_url, open_history

PASSWORD = "hunter2-secret"


def test_the_default_is_a_file_in_the_users_data_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if sys.platform == "linux":
        path = "/home/somebody/.local/share/jarvis-stream/history.sqlite3"
        assert default_database_url() == f"sqlite:///{path}"
        monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setattr(sys, "platform", "darwin")
    path = "/home/somebody/Library/Application Support/jarvis-stream/history.sqlite3"
    assert describe_url(default_database_url()) == path
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/AppData")
    assert describe_url(default_database_url()) == "/AppData/jarvis-stream/history.sqlite3"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("memory:", "memory"),
        ("/data/history.sqlite3", "/data/history.sqlite3"),
        ("sqlite:////data/history.sqlite3", "/data/history.sqlite3"),
        ("sqlite+aiosqlite:////data/a b.db", "/data/a b.db"),
        ("history.db", str(Path("history.db").absolute())),
        ("postgres://me@db/chat", "postgresql+psycopg://me@db/chat"),
        (f"postgresql://me:{PASSWORD}@db:5433/chat", "postgresql+psycopg://me:***@db:5433/chat"),
        (f"postgresql+psycopg:///chat?password={PASSWORD}", "postgresql+psycopg:///chat"),
    ],
)
def test_people_are_told_where_it_is_without_the_password(url: str, place: str) -> None:
    assert describe_url(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true",
        f"sqlite:///history.db?synchronous={PASSWORD}",
        f"mysql://me:{PASSWORD}@db/chat",
        f"postgresql+asyncpg://me:{PASSWORD}@db/chat",
        f"postgresql://me:{PASSWORD}@db:port/chat",
        f"://{PASSWORD}",
    ],
)
async def test_any_other_url_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(HistoryUnusable) as caught:
        async with open_history(url):
            pass
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("url", ["", "sqlite:///:memory:", f"mysql://me:{PASSWORD}@db/chat"])
def test_no_place_is_told_of_such_a_url(url: str) -> None:
    with pytest.raises(HistoryUnusable):
        describe_url(url)


async def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(HistoryUnusable, match=r"pip install 'jarvis-stream\[postgres\]'"):
        async with open_history("postgresql://me@db/chat"):
            pass


def test_memory_needs_no_database_library() -> None:
    code = f"""
import asyncio, sys
from {opening.__name__} import open_history
async def main():
    async with open_history("memory:") as history:
        await history.sessions()
asyncio.run(main())
sys.exit(bool({{"sqlalchemy", "sqlite3", "psycopg", "alembic"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0

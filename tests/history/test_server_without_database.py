"""A server whose database is locked or full: the chat goes on, and what is not saved is said."""

from __future__ import annotations

import json
import sqlite3
import sys
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from conftest import ROOT
from processes import Server, serving

AGENT = """
async def agent(turn):
    for number in range(int(turn.prompt)):
        yield "x" * 1000
"""
FILE_SIZE = 300_000
"""Bytes that no file of the server may exceed: a disk that is full."""


def chat(server: Server, thousands: int, session_id: str = "s") -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{server.url}/api/chat",
        json.dumps({"prompt": str(thousands), "session_id": session_id}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        frames = [json.loads(line) for line in response.read().split(b"\n") if line]
    assert "".join(frame.get("text", "") for frame in frames) == "x" * 1000 * thousands
    assert frames[-1]["finish_reason"] == "stop"
    return frames


def metric(server: Server, name: str) -> float:
    lines = server.get("/metrics").decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def until(holds: Callable[[], bool]) -> None:
    """Each look is a request to the server, which is what paces this."""
    for _ in range(20_000):
        if holds():
            return
    raise AssertionError("it never came to hold")


def test_a_locked_database_holds_nobody_up_and_is_written_when_it_is_free(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(AGENT)
    file = tmp_path / "history.sqlite3"
    env = {"PYTHONPATH": f"{tmp_path}", "JARVIS_DATABASE_URL": f"sqlite:///{file}"}
    with serving(sys.executable, ROOT / "run.py", "--agent", "plain:agent", env=env) as server:
        chat(server, 1)
        until(lambda: metric(server, "jarvis_history_backlog_turns") == 0)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert chat(server, 2)[-1]["saved"] is False
            until(lambda: metric(server, "jarvis_history_writable") == 0)
            assert "history_write_failed" in server.log
            other.execute("ROLLBACK")
        until(lambda: metric(server, "jarvis_history_backlog_turns") == 0)
        messages = json.loads(server.get("/api/sessions/s/messages"))["messages"]
        assert [len(message["content"]) for message in messages] == [1, 1000, 1, 2000]
        assert "history_recovered" in server.log
        until(lambda: "saved" not in chat(server, 1)[-1])


def test_a_full_disk_is_said_and_stops_no_answer(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(AGENT)
    file = tmp_path / "history.sqlite3"
    env = {"PYTHONPATH": f"{tmp_path}", "JARVIS_DATABASE_URL": f"sqlite:///{file}"}
    limited = ["prlimit", f"--fsize={FILE_SIZE}", sys.executable]
    with serving(*limited, ROOT / "run.py", "--agent", "plain:agent", env=env) as server:
        until(lambda: "saved" not in chat(server, 1)[-1])
        assert chat(server, 2 * FILE_SIZE // 1000)[-1]["saved"] is False
        until(lambda: metric(server, "jarvis_history_failures_total") > 0)
        assert "history_write_failed" in server.log
        assert len(chat(server, 3, "another")) == 5, "the chat goes on"
        assert server.get("/readyz")

"""`jarvis-stream streams`, against a real server."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

import pytest
from processes import PATIENCE, serving

from jarvis_stream import cli

MODULE = (sys.executable, "-m", "jarvis_stream")

AGENT = """
import asyncio

async def rests():
    await asyncio.sleep(1000)

async def agent(turn):
    yield "a"
    await rests()
"""

STREAM_ID = "0190b2b1-0000-7000-8000-000000000001"
OPERATOR = "operators-token-0123"


def begin(url: str, token: str) -> None:
    body = {"prompt": "hello", "stream_id": STREAM_ID, "on_disconnect": "continue"}
    request = urllib.request.Request(
        f"{url}/api/chat",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        while b'"token"' not in response.readline():
            pass


def test_the_streams_of_a_server_are_listed_and_one_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "resting.py").write_text(AGENT)
    token = "anns-token-0123456"
    env = {
        "PYTHONPATH": str(tmp_path),
        "JARVIS_AUTH_TOKENS": f"ann:{token}",
        "JARVIS_OPERATOR_TOKEN": OPERATOR,
    }
    with serving(*MODULE, "--agent", "resting:agent", env=env) as server:
        begin(server.url, token)
        monkeypatch.setenv("JARVIS_PORT", server.url.rpartition(":")[2])
        assert cli.main(["streams"]) == 1
        assert "JARVIS_OPERATOR_TOKEN" in capsys.readouterr().err

        monkeypatch.setenv("JARVIS_OPERATOR_TOKEN", OPERATOR)
        assert cli.main(["streams", "--stack"]) == 0
        first, titles, row, *stack = capsys.readouterr().out.splitlines()
        assert first.startswith("1 streams at ")
        assert titles.split()[:4] == ["STREAM", "SESSION", "OWNER", "STATE"]
        assert row.split()[0] == STREAM_ID
        assert " ann " in row
        assert row.endswith(f"{tmp_path}/resting.py:5 rests")
        assert any(line.endswith(" agent") for line in stack)
        assert cli.main(["streams", "--json"]) == 0
        (listed,) = json.loads(capsys.readouterr().out)
        assert listed["streams"][0]["waits_at"].endswith(" rests")

        assert cli.main(["streams", "--url", server.url, "--cancel", STREAM_ID]) == 0
        assert capsys.readouterr().out.startswith(f"ended {STREAM_ID}: its agent has stopped")
        assert cli.main(["streams", "--cancel", STREAM_ID]) == 1
        assert f"no stream {STREAM_ID} is live" in capsys.readouterr().err
        assert cli.main(["streams"]) == 0
        assert capsys.readouterr().out.startswith("0 streams at ")


def test_a_server_that_is_not_there_is_one_clear_line(
    unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["streams", "--url", f"http://127.0.0.1:{unused_tcp_port}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be reached" in line

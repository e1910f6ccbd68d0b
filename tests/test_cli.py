"""The program: what it prints, where it listens, how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import orjson
import pytest
from conftest import ROOT
from processes import PATIENCE, printed, serving
from redis_server import free_ports

import jarvis_stream
from jarvis_stream import cli
from jarvis_stream.settings import Settings

pytestmark = pytest.mark.usefixtures("logging_as_it_was")

MODULE = (sys.executable, "-m", "jarvis_stream")
RUN = (sys.executable, ROOT / "run.py")

STUBBORN = """
import time

async def agent(turn):
    try:
        while True:
            yield "x"
    finally:
        print("tidying", flush=True)
        time.sleep(600)
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def only_error(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    if line.startswith("jarvis-stream: "):  # a command, which people use
        return str(line).removeprefix("jarvis-stream: ")
    record = orjson.loads(line)
    assert record["level"] == "CRITICAL"
    return str(record["message"])


@pytest.mark.parametrize("command", [MODULE, RUN])
def test_every_way_to_start_it_is_the_same_program(command: tuple[str | Path, ...]) -> None:
    done = run(*command, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"jarvis-stream {jarvis_stream.__version__}\n"


def test_wrong_settings_are_one_line_each_and_exit_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--port", "high", "--heartbeat", "-1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [orjson.loads(line)["message"].partition(": '")[0] for line in err.splitlines()] == [
        "--port",
        "--heartbeat",
    ]


@pytest.mark.parametrize("flags", [["--log-format", "pretty"], ["--log-format=pretty"]])
def test_wrong_settings_are_lines_for_people_where_the_log_is(
    capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert cli.main(["--port", "high", *flags]) == 2
    assert capsys.readouterr().err.startswith("jarvis-stream: --port: 'high' is not allowed")


def test_a_port_that_is_taken_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["--port", f"{port}"]) == 1
    assert only_error(capsys) == (
        f"cannot listen on 127.0.0.1:{port}: "
        "the port is in use; choose another with --port (0 selects a free one)"
    )


@pytest.mark.parametrize(
    ("host", "failure", "why"),
    [
        ("no.such.host", socket.gaierror(socket.EAI_NONAME, "unknown"), "no such host"),
        ("192.0.2.1", OSError(errno.EADDRNOTAVAIL, "not here"), "this machine has no such address"),
        ("127.0.0.1", PermissionError(errno.EACCES, "denied"), "this user may not use that port"),
        ("127.0.0.1", OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_clear_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    failure: OSError,
    why: str,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    refusing = "getaddrinfo" if isinstance(failure, socket.gaierror) else "create_server"
    monkeypatch.setattr(socket, refusing, fail)
    assert cli.main(["--host", host, "--port", "80", "--allow-anonymous"]) == 1
    line = only_error(capsys)
    assert line.startswith(f"cannot listen on {host}:80: {why}")


def test_other_machines_are_not_let_in_without_being_asked_who_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--host", "0.0.0.0", "--port", "0"]) == 2
    assert only_error(capsys) == (
        "--host 0.0.0.0 is reachable from other machines, and no sign-in is configured: set"
        " JARVIS_AUTH_TOKENS, or pass --allow-anonymous to permit access without sign-in"
    )


def test_all_addresses_of_a_host_share_one_free_port() -> None:
    listeners = cli.listen("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        assert len({listener.getsockname()[0] for listener in listeners}) == len(listeners) > 0
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize("module", ["no_such_module:agent", "json:no_such_agent"])
def test_an_agent_that_does_not_exist_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], module: str
) -> None:
    assert cli.main(["--port", "0", "--agent", module]) == 2
    line = only_error(capsys)
    assert module in line


@pytest.mark.parametrize("password", ["with[bracket", "with\u2100sign", "with%5Bcode"])
def test_a_password_may_hold_what_it_likes_and_is_not_shown(
    capsys: pytest.CaptureFixture[str], unused_tcp_port: int, password: str
) -> None:
    url = f"postgresql://ann:{password}@127.0.0.1:{unused_tcp_port}/chats"
    assert cli.main(["--port", "0", "--agent", "demo", "--database-url", url]) == 2
    written = capsys.readouterr().err
    assert f"127.0.0.1:{unused_tcp_port}" in written
    assert not any(word in written for word in ("with", "bracket", "sign", "code"))


@pytest.mark.parametrize("url", ["redis://:{}@host", "postgresql://ann:{}@host/chats?opt=a@b"])
@pytest.mark.parametrize("password", ["with[bracket", "with@sign", "with/slash", "with%5Bcode"])
def test_the_log_knows_a_password_however_it_is_written(url: str, password: str) -> None:
    name = "redis_url" if url.startswith("redis") else "database_url"
    secrets = cli._secrets(Settings.model_validate({name: url.format(password)}))
    assert {password, unquote(password)} <= set(secrets)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_says_where_it_is_and_who_answers_and_stops_when_told(number: int) -> None:
    with serving(*MODULE, "--agent", "demo") as server:
        assert server.banner[0].startswith("Jarvis Stream is at http://127.0.0.1:")
        assert server.banner[1].startswith("The agent is demo: ")
        assert "--agent" in server.banner[2] or "JARVIS_AGENT" in server.banner[2]
        assert server.get("/livez")
        code, log = server.stop(number)
    assert code == 0
    for line in log.splitlines():
        assert {"time", "level", "message"} <= orjson.loads(line).keys()


def test_it_serves_with_its_outputs_closed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    program = [*MODULE, "--agent", "demo", "--database-url", str(tmp_path / "history.sqlite3")]
    closing = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-']
    with subprocess.Popen([*closing, *program, "--port", str(port)]) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            while process.poll() is None:
                with suppress(OSError):  # it does not listen yet
                    urllib.request.urlopen(
                        f"http://127.0.0.1:{port}/livez", timeout=PATIENCE
                    ).close()
                    break
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        finally:
            watchdog.cancel()
            process.kill()


def test_an_unknown_variable_is_warned_of_and_a_key_is_never_shown() -> None:
    env = {"JARVIS_PROT": "1", "OPENAI_API_KEY": "sk-0123456789abcdef", "JARVIS_LOG_LEVEL": "TRACE"}
    with serving(*MODULE, "--agent", "demo", env=env) as server:
        _, log = server.stop(signal.SIGTERM)
        assert "sk-0123456789abcdef" not in log + "".join(server.banner)
    messages = [orjson.loads(line)["message"] for line in log.splitlines()]
    assert any("JARVIS_PROT is not a setting" in message for message in messages)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: int) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    env = {"PYTHONPATH": str(tmp_path)}
    with serving(*MODULE, "--agent", "stubborn:agent", env=env) as server:
        body = json.dumps({"prompt": "hello"}).encode()
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as reader:
            reader.sendall(
                b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            seen = b""
            while b'"token"' not in seen:  # the agent is at work
                more = reader.recv(1000)
                assert more
                seen += more
            server.process.send_signal(number)
            assert server.process.stdout is not None
            assert printed(server.process.stdout.readline()) == "tidying"
            code, _ = server.stop(number)
    assert code == -number


TALKATIVE = """
import sys
from loguru import logger

async def agent(turn):
    for number in range(2000):
        logger.info("line {} {}", number, "x" * 100)
        print("printed", "x" * 100)
    yield "said"
"""


def test_log_pipes_that_nobody_reads_stop_neither_answers_nor_the_end(tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    (port,) = free_ports(1)
    command = [*MODULE, "--agent", "talkative:agent", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--database-url", "memory:"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(10):
                assert ask(url, "speak")["finish_reason"] == "stop"
            with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE) as response:
                (dropped,) = re.findall(
                    rb"^jarvis_log_lines_dropped_total (.+)$", response.read(), re.M
                )
            assert float(dropped) > 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


RAISING = """
import asyncio, sys, threading

async def leave(error):
    raise error

def leave_now(error):
    raise error

async def agent(turn):
    where, _, name = turn.prompt.partition(" ")
    error = {"kbd": KeyboardInterrupt, "exit": SystemExit, "gen": GeneratorExit}.get(name)
    yield "a"
    if where == "agent":
        raise error
    if where == "task":
        await asyncio.wait([asyncio.create_task(leave(error))])
    if where == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(leave(error))
    if where == "thread":
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(leave_now, error))
        thread.start()
        await asyncio.sleep(0.05)
"""


def ask(url: str, prompt: str) -> dict[str, object]:
    """The last frame of an answer."""
    request = urllib.request.Request(
        f"{url}/api/chat",
        data=json.dumps({"prompt": prompt}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        lines = response.read().splitlines()
    frame: dict[str, object] = json.loads(lines[-1])
    return frame


def test_nothing_that_an_agent_raises_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text(RAISING)
    env = {"PYTHONPATH": str(tmp_path)}
    with serving(*MODULE, "--agent", "raising:agent", env=env) as server:
        for name in ("kbd", "exit", "gen"):
            last = ask(server.url, f"agent {name}")
            assert (last["type"], last.get("code")) == ("error", "agent_error")
        for where in ("task", "group", "thread"):
            for name in ("kbd", "exit"):
                assert ask(server.url, f"{where} {name}")["type"] in ("done", "error")
        assert ask(server.url, "nothing")["finish_reason"] == "stop"
        assert server.process.poll() is None
        code, log = server.stop(signal.SIGINT)
    assert code == 0
    assert "stray_exit_ignored error=KeyboardInterrupt" in log


def test_a_servers_sign_ins_are_revoked_from_its_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "anns-token-0123456"
    with serving(*MODULE, "--agent", "demo", env={"JARVIS_AUTH_TOKENS": f"ann:{token}"}) as server:
        request = urllib.request.Request(
            f"{server.url}/api/login",
            data=json.dumps({"token": token}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE):
            pass
        assert cli.main(["revoke", "ann", "--url", server.url]) == 0
        assert capsys.readouterr().out == "Ended 1 sign-ins of ann.\n"
        monkeypatch.setenv("JARVIS_PORT", server.url.rpartition(":")[2])
        assert cli.main(["revoke", "ann"]) == 0  # the server that the settings describe
        assert capsys.readouterr().out == "Ended 0 sign-ins of ann.\n"
    assert cli.main(["revoke", "ann", "--url", server.url]) == 1
    assert "name the server with --url, or its Redis with --redis-url" in only_error(capsys)


WITNESS = """
import sys

async def agent(turn):
    yield " ".join(sys.modules)
"""


@pytest.mark.parametrize(
    ("database", "others"),
    [
        ("memory:", {"sqlalchemy", "sqlite3"}),
        ("history.sqlite3", {"sqlalchemy.dialects.postgresql", "sqlalchemy.ext.asyncio"}),
    ],
)
def test_nothing_is_imported_that_a_run_does_not_need(
    database: str, others: set[str], tmp_path: Path
) -> None:
    (tmp_path / "witness.py").write_text(WITNESS)
    program = (*MODULE, "--agent", "witness:agent", "--database-url", database)
    here = {"PYTHONPATH": str(ROOT)}
    unneeded = {"alembic", "psycopg", "opentelemetry", "openai", "jwt", "aiohttp_cors"}
    for _ in range(2):  # the first makes the database, the second finds it
        with serving(*program, cwd=tmp_path, env=here) as server:
            chat = urllib.request.Request(
                f"{server.url}/api/chat",
                data=orjson.dumps({"prompt": "?"}),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(chat, timeout=PATIENCE) as answer:
                frames = [orjson.loads(line) for line in answer]
            server.stop(signal.SIGTERM)
        modules = set("".join(frame.get("text", "") for frame in frames).split())
        assert {"aiohttp", "jarvis_stream.app"} <= modules
        assert modules & (unneeded | others) == set()

"""Several processes on one machine: they are kept, and they end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import ROOT
from processes import PATIENCE

from jarvis_stream import cli, workers

pytestmark = pytest.mark.usefixtures("logging_as_it_was")

PARENT = """
import os, select, sys, time
from jarvis_stream import logs, workers

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def ignore():
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

def work(worker):
    {before}
    say("up", worker.number, os.getpid(), worker.is_first)
    worker.started()
    select.select([worker.lifeline], [], [])
    {after}
    say("down", worker.number, os.getpid())
    return 0

logs.configure("INFO", "json")
workers.YOUNG = {young}
workers.FIRST_PAUSE = 0.01
code = workers.Supervisor(3, work).run()
say("out", code)
sys.exit(code)
"""


class Parent:
    """A process that keeps three workers, and what they say."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> list[str]:
        """The next thing that is said."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "nobody says anything"
        return line.split()

    def up(self, count: int) -> dict[int, int]:
        """The workers that come up next, with their process ids."""
        lines = [self.line() for _ in range(count)]
        assert all(word == "up" for word, *_ in lines), lines
        return {int(number): int(pid) for _, number, pid, _ in lines}

    def down(self, count: int) -> set[int]:
        """Those that end next, in their own words."""
        lines = [self.line() for _ in range(count)]
        assert all(word == "down" for word, *_ in lines), lines
        return {int(number) for _, number, _ in lines}

    def end(self) -> tuple[int, str]:
        """The exit code, and what was logged."""
        _, log = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, log


@contextmanager
def parent(*, before: str = "pass", after: str = "pass", young: float = 0.0) -> Iterator[Parent]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(before=before, after=after, young=young)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        yield Parent(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_all_end_and_the_exit_code_is_0(number: int) -> None:
    with parent() as family:
        family.up(3)
        family.process.send_signal(number)
        assert family.down(3) == {1, 2, 3}
        assert family.line() == ["out", "0"]
        assert family.end()[0] == 0


def test_the_first_is_alone_until_it_serves() -> None:
    with parent() as family:
        assert family.line()[1::2] == ["1", "True"]
        assert {tuple(family.line()[1::2]) for _ in range(2)} == {("2", "False"), ("3", "False")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_ends_is_replaced_and_the_others_are_left_alone(how: int) -> None:
    with parent() as family:
        pids = family.up(3)
        os.kill(pids[2], how)
        (again,) = family.up(1).items()
        assert again[0] == 2
        assert again[1] != pids[2]
        family.process.send_signal(signal.SIGTERM)
        assert family.down(3) == {1, 2, 3}
        assert f"worker_ended worker=2 pid={pids[2]} signal={how:d}" in family.end()[1]


def test_one_that_always_dies_young_is_given_ever_longer_pauses() -> None:
    dies = "if worker.number == 2: sys.exit(3)"
    with parent(before=dies, young=3600) as family:
        assert family.up(2).keys() == {1, 3}
        assert family.process.stderr is not None
        log = ""
        while "again_in_s=0.04" not in log:
            log = family.process.stderr.readline()
            assert log
        family.process.send_signal(signal.SIGTERM)
        assert family.down(2) == {1, 3}


def test_what_is_wrong_from_the_beginning_ends_it_all() -> None:
    with parent(before="return 2") as family:
        assert family.line() == ["out", "2"]
        code, log = family.end()
    assert code == 2
    assert log.count("worker_started") == 1


def test_without_their_parent_they_end_as_if_told() -> None:
    with parent() as family:
        family.up(3)
        family.process.kill()
        assert family.down(3) == {1, 2, 3}


def test_a_second_signal_ends_it_at_once() -> None:
    with parent(before="ignore()", after="say('deaf'); time.sleep(600)") as family:
        pids = family.up(3)
        family.process.send_signal(signal.SIGTERM)
        assert [family.line() for _ in range(3)] == [["deaf"]] * 3
        family.process.send_signal(signal.SIGTERM)
        assert family.end()[0] == -signal.SIGTERM
        assert not any(map(_is_alive, pids.values()))


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_several_without_redis_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--port", "0", "--workers", "2"]) == 2
    out, err = capsys.readouterr()
    assert (out, json.loads(err)["message"]) == (
        "",
        "--workers 2 requires --redis-url (or JARVIS_REDIS_URL, REDIS_URL) and a"
        " --database-url of PostgreSQL, which all workers share",
    )


def test_several_where_no_process_can_be_forked_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "FORKING", False)
    assert cli.main(["--port", "0", "--workers", "2", "--redis-url", "redis://localhost"]) == 2
    assert "this operating system supports only one" in capsys.readouterr().err


def test_a_workers_own_port_that_is_taken_is_one_clear_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--port", "0", "--workers", "2", "--redis-url", "redis://localhost"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert cli.main([*flags, "--worker-port", f"{port}"]) == 1
    assert json.loads(capsys.readouterr().err)["message"] == (
        f"cannot listen on 127.0.0.1:{port}: the port is in use; choose another with --worker-port"
    )


def test_two_servers_with_workers_do_not_share_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--workers", "2", "--redis-url", "redis://localhost"]
    (other,) = cli.listen("127.0.0.1", 0, shared=True)
    with other:
        port = other.getsockname()[1]
        assert cli.main([*flags, "--port", f"{port}"]) == 1
    assert f"127.0.0.1:{port}: the port is in use" in capsys.readouterr().err


def test_each_needs_a_port_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--port", "0", "--workers", "2", "--redis-url", "redis://localhost"]
    assert cli.main([*flags, "--worker-port", "65535"]) == 2
    assert "--worker-port 65535: the last worker would exceed port 65535" in capsys.readouterr().err


def test_the_longest_pause_bounds_them() -> None:
    assert workers.FIRST_PAUSE < workers.YOUNG <= workers.LONGEST_PAUSE

"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from profiles import patience


class PostgresServer:
    """A server on a Unix socket in a directory of its own, run by an unprivileged user."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._programs = _programs()
        # The server refuses to be run by root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(directory, "nobody", "nogroup")
        self._names = (f"test{number}" for number in itertools.count())
        self._process: subprocess.Popen[Any] | None = None
        command = ["initdb", "--auth=trust", "--username=jarvis", "--encoding=UTF8", "--no-sync"]
        self._run(*command, "--pgdata", str(directory / "data"))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = (self.directory / "log").open("ab")
        command: list[str | Path] = [self._programs / "postgres", "-D", self.directory / "data"]
        options = ["-k", str(self.directory), "-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            [*command, *options], cwd=self.directory, stdout=log, stderr=log, **self._user
        )
        log.close()
        self._run("pg_isready", "--host", str(self.directory), "--timeout=30", until_it_works=True)

    def stop(self) -> None:
        """Stop it at once, as when the plug is pulled."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=patience(30))
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Inside, it takes connections, and answers nothing."""
        assert self._process is not None
        clients = self.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
        )
        pids = [*(pid for (pid,) in clients), self._process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def url(self, name: str = "postgres") -> str:
        """The URL of one of its databases."""
        return f"postgresql://jarvis@/{name}?host={self.directory}"

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement, on its first database unless told otherwise; the rows, if any."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _run(self, program: str, *arguments: str, until_it_works: bool = False) -> None:
        for attempt in itertools.count(1):
            done = subprocess.run(
                [self._programs / program, *arguments],
                cwd=self.directory,
                capture_output=True,
                text=True,
                check=False,
                **self._user,
            )
            if done.returncode == 0:
                return
            if not until_it_works or attempt == 300:
                raise RuntimeError(f"{program} failed: {done.stdout} {done.stderr}")
            time.sleep(0.1)


def _programs() -> Path:
    # Debian keeps them out of the PATH.
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve())
    if not found:
        raise RuntimeError("the tests need a PostgreSQL server: apt-get install postgresql")
    return found[0].parent

"""Real server processes, started the way people start them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiles import patience

PATIENCE = patience(60.0)
"""Seconds after which a process that should have spoken or ended is killed."""


@dataclass(frozen=True)
class Server:
    """A server that has said where it is."""

    process: subprocess.Popen[str]
    url: str
    banner: Sequence[str]
    stderr: Path

    @property
    def log(self) -> str:
        """What was written to stderr so far."""
        return self.stderr.read_text()

    def get(self, path: str) -> bytes:
        """The body of `GET path`; raises urllib's HTTPError unless the answer is good."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(self.url + path, timeout=PATIENCE) as response:
            body: bytes = response.read()
        return body

    def stop(self, signal: int) -> tuple[int, str]:
        """Send the signal; the exit code and what was written to stderr."""
        self.process.send_signal(signal)
        return self.process.wait(timeout=PATIENCE), self.log


def printed(line: str) -> str:
    """What a program has printed; with JSON logs that is a record, too."""
    line = line.rstrip("\n")
    return str(json.loads(line)["message"]) if line.startswith("{") else line


@contextlib.contextmanager
def serving(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server on a free port, killed at the end if it still runs."""
    # A file, not a pipe: nobody reads while the test runs, and a full pipe would stop the server.
    with tempfile.NamedTemporaryFile() as stderr, tempfile.TemporaryDirectory() as data:
        process = subprocess.Popen(
            [*map(str, command), "--port", "0"],
            cwd=cwd,
            env={**os.environ, "XDG_DATA_HOME": data, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        log = Path(stderr.name)
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            banner = [printed(process.stdout.readline()) for _ in range(4)]
            if not banner[-1]:
                process.kill()
                process.wait()
                raise AssertionError(f"no server: {banner} {log.read_text()}")
            watchdog.cancel()
            yield Server(process, banner[0].rpartition(" ")[2], banner, log)
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()

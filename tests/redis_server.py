"""A Redis server of the tests' own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import redis
from certificates import Certificates
from profiles import patience

LOWEST_PORT = 10_000
EPHEMERAL = 32_768
"""Where Linux's outgoing ports begin."""
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


class RedisServer:
    """A server on a Unix socket in a directory of its own; it keeps what it is told (AOF)."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise RuntimeError("the tests need a Redis server: apt-get install redis-server")
        command = [program, "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        command += ["--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "always"]
        command += ["--repl-diskless-sync-delay", "0"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, *self._options], stdout=log, stderr=log)
        deadline = time.monotonic() + patience(30)
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"no Redis server: {(self.directory / 'log').read_text()}")
            time.sleep(0.02)

    @property
    def is_alive(self) -> bool:
        """Whether it was started, and not killed."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Stop it at once, as when the plug is pulled. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=patience(30))
            self._process = None
            self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Let it answer nothing, but take in what it is sent."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, with what it was sent meanwhile."""
        self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """For a test to look at it, or change it."""
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=30)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                answer: Any = client.ping()
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
        return bool(answer)


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback, outside the range of outgoing ports.

    Each worker of pytest-xdist has a range of its own: between the choice of a port and its use by
    a server, another worker cannot choose it.
    """
    share = (EPHEMERAL - LOWEST_PORT) // WORKERS
    lowest = LOWEST_PORT + WORKER * share
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        while len(sockets) < count:
            each = stack.enter_context(socket.socket())
            # A port the kernel chooses may be another connection's when a server comes to bind it.
            with suppress(OSError):
                each.bind(("127.0.0.1", random.randrange(lowest, lowest + share)))
                sockets.append(each)
        return [each.getsockname()[1] for each in sockets]


def tls_options(port: int, certificates: Certificates) -> list[str]:
    """Those of a server that speaks TLS on a port, with whoever trusts its certificate."""
    files = {"cert": certificates.chain, "key": certificates.key, "ca-cert": certificates.authority}
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    for name, file in files.items():
        options += [f"--tls-{name}-file", str(file)]
    return options

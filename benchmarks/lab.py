"""What every measurement needs: servers on one core, the load generator on another.

    with serving(contender) as server:
        load = server.load("ws", connections=50, prompt="tokens=1000")

What is compiled or installed for it is kept in CACHE.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jarvis-bench"
START: Final = 60.0
"""Seconds a server has to say where it is."""

CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = CORES[0]
LOAD_CORE: Final = CORES[-1]


class Missing(Exception):
    """Something that is measured, or that measures, is not there; the text says what to install."""


@dataclass(frozen=True)
class Contender:
    """A server that can be measured."""

    name: str
    command: Callable[[], list[str]]
    """Raises Missing."""
    paths: Mapping[str, str] = field(
        default_factory=lambda: {"http": "/api/chat", "ws": "/ws"}, compare=False
    )
    """Where the chat is, by transport: those that it has."""
    is_socketio: bool = False
    """Whether what it has over WebSocket is Socket.IO."""
    is_ours: bool = False
    folder: Path = ROOT
    """The checkout it runs in."""
    core: int = SERVER_CORE


@dataclass(frozen=True)
class Load:
    """What the load generator has seen; see loadgen.c."""

    seen: Mapping[str, Any]
    cpu: float
    """Seconds of processor time that the server took meanwhile."""

    @property
    def frames_per_second(self) -> float:
        return self._per_second("frames")

    @property
    def frames_per_second_together(self) -> float:
        """While every answer was going: without the time in which they begin and end."""
        together = self.seen["together"]
        return float(together["frames"] / together["seconds"]) if together["seconds"] else math.nan

    @property
    def chats_per_second(self) -> float:
        return self._per_second("chats")

    @property
    def replaced_per_second(self) -> float:
        return self._per_second("replaced")

    @property
    def busy(self) -> float:
        """The share of the time that the generator worked: near 1 it could not go any faster."""
        return float(self.seen["busy"])

    def milliseconds(self, what: str, quantile: str) -> float:
        return float(self.seen[what].get(quantile, float("nan"))) * 1000

    def _per_second(self, what: str) -> float:
        seconds = float(self.seen["seconds"])
        return float(self.seen[what]) / seconds if seconds else 0.0


class Failed(Exception):
    """A server did not do what was asked of it."""


class Server:
    """A running contender."""

    def __init__(self, contender: Contender, process: subprocess.Popen[str], url: str) -> None:
        self.contender = contender
        self.process = process
        self.url = url
        self.port = int(url.rpartition(":")[2])

    @property
    def rss(self) -> int:
        """Bytes of memory it has."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu(self) -> float:
        """Seconds of processor time it has taken."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return str(response.read().decode())

    def metrics(self) -> dict[str, float]:
        """What ours shows of itself, by Prometheus's names with their labels."""
        lines = self.get("/metrics").splitlines()
        pairs = (line.rpartition(" ")[::2] for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def load(self, transport: str, prompt: str, **options: Any) -> Load:
        """Ask it as `options` say (those of loadgen). Raises Failed unless all chats complete."""
        before = self.cpu
        done = subprocess.run(
            self._loadgen(transport, prompt, options), capture_output=True, text=True, check=False
        )
        return self._result(done.stdout, done.stderr, before)

    @contextlib.contextmanager
    def scraped(self, path: str, every: float = 1.0) -> Iterator[None]:
        """While the body runs somebody asks for `path` so often."""
        stop = threading.Event()

        def scrape() -> None:
            while not stop.wait(every):
                self.get(path)

        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextlib.contextmanager
    def held(self, transport: str, prompt: str | None, **options: Any) -> Iterator[None]:
        """Connections that stay open while the body runs, each with a first token if `prompt`."""
        options |= {"hold": True, "timeout": 300}
        if prompt is None:
            options["chats"] = 0
        command = self._loadgen(transport, prompt or "", options)
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                ready = process.stdout.readline()
                if ready.split() != ["ready", str(options["connections"])]:
                    raise Failed(f"{self.contender.name}: {ready} {process.stdout.read()}")
                yield
                process.stdin.close()
                self._result(process.stdout.read(), "", 0.0)
            finally:
                process.kill()

    def ask_product(self, protocol: str, tokens: int, answers: int) -> Mapping[str, float]:
        """The same with another client: see products.py."""
        words = ["-m", "benchmarks.products", protocol, self.url, str(tokens), str(answers)]
        done = subprocess.run(
            pinned(LOAD_CORE, [sys.executable, *words]),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise Failed(f"{self.contender.name}: {done.stderr.strip()[-300:]}")
        told: Mapping[str, float] = json.loads(done.stdout)
        if told["tokens"] < tokens * answers:
            raise Failed(f"{self.contender.name}: {told['tokens']} of {tokens * answers} tokens")
        return told

    def _loadgen(self, transport: str, prompt: str, options: dict[str, Any]) -> list[str]:
        fields = options.pop("fields", {})
        slow_prompt = options.pop("slow_prompt", None)
        options["body"] = _body(prompt, fields)
        if slow_prompt is not None:
            options["slow-body"] = _body(slow_prompt, fields)
        options["port"] = self.port
        options["transport"] = "socketio" if self.contender.is_socketio else transport
        options["path"] = self.contender.paths[transport]
        command = pinned(LOAD_CORE, [str(compiled("loadgen.c"))])
        for name, value in options.items():
            if value is True:
                command += [f"--{name}"]
            elif value is not False:
                command += [f"--{name}", str(value)]
        return command

    def _result(self, stdout: str, stderr: str, cpu_before: float) -> Load:
        try:
            seen = json.loads(stdout)
        except ValueError:
            raise Failed(f"{self.contender.name}: loadgen says {stdout!r} {stderr!r}") from None
        if seen["errors"] or seen["unfinished"]:
            raise Failed(
                f"{self.contender.name}: {seen['errors']} errors, {seen['unfinished']} connections"
                f" with chats that did not end; the first: {seen['first_error']}"
            )
        return Load(seen, self.cpu - cpu_before)


def _body(prompt: str, fields: Mapping[str, Any]) -> str:
    return json.dumps({"type": "start", "prompt": prompt, **fields})


def _variables() -> dict[str, str]:
    """Ours, but for what has a server compile itself at each start: no installed one does."""
    return {name: it for name, it in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@contextlib.contextmanager
def serving(contender: Contender) -> Iterator[Server]:
    """The contender, listening, on its core; killed in the end.

    Raises Missing when it cannot be had here, and Failed when it does not start.
    """
    command = pinned(contender.core, contender.command())
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            command,
            cwd=contender.folder,
            env={
                **_variables(),
                "PYTHONPATH": os.pathsep.join([str(contender.folder), str(ROOT)]),
                "XDG_DATA_HOME": data,
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        assert process.stdout is not None
        # Whatever else it says must not fill the pipe.
        rest = threading.Thread(target=process.stdout.read, daemon=True)
        watchdog = threading.Timer(START, process.kill)
        watchdog.start()
        try:
            url = next(filter(None, map(_url_in, process.stdout)), None)
            if url is None:
                stderr.seek(0)
                raise Failed(f"{contender.name} does not start: {stderr.read()[-2000:]}")
            rest.start()
            _wait_for(url)
            watchdog.cancel()
            yield Server(contender, process, url)
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            if rest.ident is not None:
                rest.join()
            process.stdout.close()


def _url_in(line: str) -> str | None:
    found = re.search(r"http://[\w.]+:\d+", line)
    return found[0] if found else None


def _wait_for(url: str) -> None:
    """Until somebody listens there: some say so a little early."""
    until = time.monotonic() + START
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def seconds_to_start(contender: Contender, path: str) -> float:
    """From the start of its process until `path` answers with 200."""
    began = time.perf_counter()
    with serving(contender) as server:
        while True:
            with contextlib.suppress(OSError):
                server.get(path)
                return time.perf_counter() - began
            time.sleep(0.002)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database, on a PostgreSQL server of its own on the generator's core."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve())
    if not (found and python_has("psycopg")):
        raise Missing("PostgreSQL (apt-get install postgresql; pip install psycopg[binary])")
    user: dict[str, Any] = {}
    # A Unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="bench-pg-", dir="/tmp") as folder:
        if os.geteuid() == 0:  # which the server refuses to be run by
            user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(folder, "nobody", "nogroup")
        run = functools.partial(
            subprocess.run, cwd=folder, capture_output=True, check=True, timeout=60, **user
        )
        programs = found[0].parent
        data = f"{folder}/data"
        run([programs / "initdb", "--auth=trust", "--username=jarvis", "--encoding=UTF8", data])
        command = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
        server = subprocess.Popen(
            pinned(LOAD_CORE, [str(word) for word in command]),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,
        )
        try:
            for _ in range(300):
                with contextlib.suppress(subprocess.CalledProcessError):
                    run([programs / "pg_isready", "--host", folder])
                    break
                time.sleep(0.1)
            yield f"postgresql://jarvis@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout=30)


def pinned(core: int, command: list[str]) -> list[str]:
    """The same command, on one core."""
    taskset = shutil.which("taskset")
    if taskset is None:
        raise Missing("taskset (util-linux)")
    return [taskset, "--cpu-list", str(core), *command]


@functools.cache
def compiled(source: str) -> Path:
    """A program written in C, below this folder; compiled when it has changed."""
    file = HERE / source
    program = CACHE / file.stem
    if not program.exists() or program.stat().st_mtime < file.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise Missing("a C compiler (Debian: apt-get install gcc libc6-dev)")
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-O2", "-o", str(program), str(file)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return program


@functools.cache
def environment(requirement: str) -> Path:
    """The bin/ of a virtual environment that has this and nothing else; made when it is not there.

    Raises Missing when pip cannot install it.
    """
    folder = CACHE / f"venv-{re.split(r'[^a-z]', requirement)[0]}"
    if not (folder / "complete").exists():
        say(f"Installing {requirement} into {folder}: this takes minutes")
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(folder / "bin" / "pip"), "install", "--quiet", requirement],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Missing(f"{requirement}: {done.stderr.strip()[-200:]}")
        (folder / "complete").touch()
    return folder / "bin"


def free_port() -> int:
    """For a server that cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def python_has(module: str) -> bool:
    """Whether this Python can import it; said without importing it."""
    import importlib.util

    return importlib.util.find_spec(module) is not None


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import platform
    from importlib.metadata import version

    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("aiohttp", "uvloop", "orjson")},
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "-s") else ""),
        "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)

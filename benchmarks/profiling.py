"""Where the time goes: a profile of the server in each workload that keeps it busy.

    python -m benchmarks.profiling [--only NAME] [--out DIR]

Of each workload it writes what the interpreter does (NAME.python.txt, by cProfile, which slows what
it looks at; or NAME.svg, by py-spy, where that is installed) and what the kernel is asked for
(NAME.syscalls.txt, by strace, where that is).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.contenders import jarvis
from benchmarks.lab import LOAD_CORE, ROOT, Contender, Failed, Server, pinned, say, serving

SECONDS: Final = 3
LINES: Final = 60


def _frames(transport: str, script: str = "") -> Callable[[Server], object]:
    return lambda server: server.load(transport, f"tokens=4000 {script}", connections=50)


def _superseding(server: Server) -> object:
    return server.load(
        "ws", "tokens=1 hold", fields={"session_id": "storm"}, connections=1, supersede=SECONDS
    )


PROFILES: Final[dict[str, Callable[[Server], object]]] = {
    "single-http": _frames("http"),
    "single-ws": _frames("ws"),
    "burst-http": _frames("http", "burst=16"),
    "burst-ws": _frames("ws", "burst=16"),
    "paced-http": lambda server: server.load(
        "http", f"tokens={50 * SECONDS} rate=50", connections=500, stagger=1
    ),
    "sequential-http": lambda server: server.load("http", "tokens=1", chats=4000),
    "sequential-ws": lambda server: server.load("ws", "tokens=1", chats=4000),
    "supersede-ws": _superseding,
}


def _profiled(contender: Contender, file: Path) -> Contender:
    """The same server, whose profile by cProfile is in the file once SIGTERM has ended it."""

    def command() -> list[str]:
        python, *rest = contender.command()
        return [python, "-m", "cProfile", "-o", str(file), *rest]

    return replace(contender, command=command)


def by_cprofile(work: Callable[[Server], object], file: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        raw = Path(folder) / "profile"
        with serving(_profiled(jarvis(), raw)) as server:
            work(server)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=60)
        tell = (
            "import pstats, sys\n"
            f"stats = pstats.Stats({str(raw)!r}, stream=sys.stdout).strip_dirs()\n"
            f"stats.sort_stats('tottime').print_stats({LINES})\n"
            f"stats.sort_stats('cumulative').print_stats({LINES})\n"
        )
        told = subprocess.run(
            [sys.executable, "-c", tell], capture_output=True, text=True, check=True
        )
        file.write_text(told.stdout)


@contextlib.contextmanager
def _beside(command: Sequence[str]) -> Iterator[None]:
    """A program that looks on from the other core, until it is interrupted."""
    with subprocess.Popen(
        pinned(LOAD_CORE, list(command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as looking:
        time.sleep(0.5)  # it must have attached itself
        try:
            yield
        finally:
            looking.send_signal(signal.SIGINT)
            try:
                looking.wait(timeout=30)
            except subprocess.TimeoutExpired:
                looking.kill()


def by_another(command: Sequence[str], work: Callable[[Server], object]) -> None:
    """By a program whose last argument is the process to look at."""
    with serving(jarvis()) as server:
        work(server)
        with _beside([*command, str(server.process.pid)]):
            work(server)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks/profiling.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", action="append", default=[], choices=PROFILES)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "profiles", metavar="DIR")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    py_spy, strace = (shutil.which(name, path=programs) for name in ("py-spy", "strace"))
    for name in options.only or PROFILES:
        work, base = PROFILES[name], options.out / name
        say(f"{name}")
        try:
            by_cprofile(work, base.with_suffix(".python.txt"))
            if py_spy:
                flames = ["--native", "--rate", "100", "--output", f"{base}.svg"]
                by_another([py_spy, "record", *flames, "--pid"], work)
            if strace:
                by_another([strace, "-c", "-f", "-o", f"{base}.syscalls.txt", "-p"], work)
        except Failed as error:
            say(f"{name}: {error}")
    say(f"Written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

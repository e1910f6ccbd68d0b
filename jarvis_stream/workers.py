"""Several processes on one machine: a parent that keeps them, and serves nothing itself.

    Supervisor(4, work).run()

Each worker is forked from the parent, with the sockets it listens on: they outlive it, so that no
connection is lost when it dies. The first one starts alone, so that what is wrong
is said once. A worker that ends without being asked is started again, at once when it had lived
for a while, else after a pause that doubles.

A pipe holds them together: while the parent has its writing end open the workers go on. Told to
stop, or dead, it closes it, and each lets its answers come to their ends. Not a signal: whoever
stops services may have sent one to every process already, and a second one means "at once".
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from loguru import logger

from jarvis_stream import logs

YOUNG: Final = 10.0
"""Seconds that a worker must have lived for the next one to start at once."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds before a worker that always dies young is started again, at first and at most."""
FORKING: Final = hasattr(os, "fork")
"""Whether this system has what it takes."""


_STOPS: Final = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if FORKING else ()))
"""Signals that end all workers when they have drained; a SIGHUP that nohup ignores is ignored."""

_CONCERNS_US: Final = (
    *_STOPS,
    *((signal.SIGCHLD,) if FORKING else ()),
)


@dataclass(frozen=True, slots=True)
class Worker:
    """What one of them is given."""

    number: int
    """From 1 on; the one that comes after it has it too."""
    lifeline: int
    """A file that becomes readable when it is time to stop."""
    is_first: bool
    """Whether none has served before it."""
    started: Callable[[], None]
    """To be called when it serves."""


@dataclass(slots=True)
class _Place:
    """Where one worker after another works."""

    number: int
    pid: int | None = None
    began: float = 0.0
    due: float = 0.0
    """When the next one starts."""
    pause: float = 0.0


class Supervisor:
    """Keeps `count` workers until it is told to stop.

    `work` is called in each, with all signals as a fresh process has them; what it returns is the
    process's exit code.
    """

    def __init__(self, count: int, work: Callable[[Worker], int]) -> None:
        self._work = work
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._settled = False
        """Whether the first one has served."""
        self._is_told = False
        self._code = 1
        """How the last one ended that did."""

    def run(self) -> int:
        """Returns when all have ended; the exit code.

        0 when it was told to stop by SIGINT, SIGTERM or SIGHUP (a second one of the first two kills
        them all, and this process); that of the first worker when it never came to serve.
        """
        with _awake() as wakeup, _pipe() as lifeline, _pipe() as started:
            self._wakeup, self._lifeline, self._started = wakeup, lifeline, started
            while not self._is_told:
                for place in self._places if self._settled else self._places[:1]:
                    if place.pid is None and place.due <= time.monotonic():
                        self._start(place)
                self._wait()
                if not self._settled and not self._living:
                    return max(self._code, 1)
            logger.info("stopping workers={}", len(self._living))
            lifeline.close_writer()
            while self._living:
                self._wait()
        return 0

    @property
    def _living(self) -> list[_Place]:
        return [place for place in self._places if place.pid is not None]

    def _start(self, place: _Place) -> None:
        pid = os.fork()
        if not pid:
            self._be_worker(place)
        place.pid, place.began = pid, time.monotonic()
        logger.info("worker_started worker={} pid={}", place.number, pid)

    def _be_worker(self, place: _Place) -> None:
        """In the new process, which ends here."""
        code = 1
        try:
            # Ctrl-C is the parent's: it reaches all processes of a group.
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in _CONCERNS_US:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            self._wakeup.close()
            self._lifeline.close_writer()
            code = self._work(
                Worker(
                    place.number,
                    self._lifeline.reader,
                    is_first=not self._settled,
                    started=lambda: None if self._settled else self._started.write(),
                )
            )
        except BaseException:
            logger.exception("worker_failed")
        finally:
            with contextlib.suppress(Exception):
                logs.flush()
            os._exit(code)

    def _wait(self) -> None:
        """Until something happens: a signal, a worker's end or its start, or the end of a pause."""
        now = time.monotonic()
        pauses = [place.due - now for place in self._places if place.pid is None]
        patience = max(0.0, min(pauses)) if pauses and self._settled and not self._is_told else None
        readers = [self._wakeup.reader] + ([] if self._settled else [self._started.reader])
        ready, _, _ = select.select(readers, (), (), patience)
        if self._started.reader in ready:
            self._settled = True
        if self._wakeup.reader in ready:
            for number in self._wakeup.read():
                if number in _STOPS:
                    self._stop(number)
        self._bury()

    def _stop(self, number: int) -> None:
        if not self._is_told:
            self._is_told = True
            return
        if FORKING and number == signal.SIGHUP:  # a terminal that closes may send it twice
            return
        for place in self._living:
            assert place.pid is not None
            os.kill(place.pid, signal.SIGKILL)
            os.waitpid(place.pid, 0)
        logs.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _bury(self) -> None:
        for place in self._living:
            assert place.pid is not None
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                self._on_end(place, os.waitstatus_to_exitcode(status))

    def _on_end(self, place: _Place, code: int) -> None:
        pid, lived = place.pid, time.monotonic() - place.began
        place.pid, self._code = None, code
        if self._is_told or not self._settled:
            return
        longer = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * place.pause))
        place.pause = 0.0 if lived >= YOUNG else longer
        place.due = time.monotonic() + place.pause
        logger.warning(
            "worker_ended worker={} pid={} {} lived_s={:.1f} again_in_s={:g}",
            place.number,
            pid,
            f"code={code}" if code >= 0 else f"signal={-code}",
            lived,
            place.pause,
        )


class _Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def write(self) -> None:
        os.write(self.writer, b".")

    def read(self) -> bytes:
        return os.read(self.reader, 4096)

    def close_writer(self) -> None:
        if self.writer != -1:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        self.close_writer()
        os.close(self.reader)


@contextlib.contextmanager
def _pipe() -> Iterator[_Pipe]:
    pipe = _Pipe()
    try:
        yield pipe
    finally:
        pipe.close()


@contextlib.contextmanager
def _awake() -> Iterator[_Pipe]:
    """A pipe that gets the number of every signal that concerns us."""
    with _pipe() as pipe:
        os.set_blocking(pipe.writer, False)
        ours = [n for n in _CONCERNS_US if signal.getsignal(n) != signal.SIG_IGN]
        before = [signal.signal(number, lambda number, frame: None) for number in ours]
        signal.set_wakeup_fd(pipe.writer, warn_on_full_buffer=False)
        try:
            yield pipe
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in zip(ours, before, strict=True):
                signal.signal(number, handler)

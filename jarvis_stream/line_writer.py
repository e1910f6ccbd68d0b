"""Writes lines to a file from a thread of its own: no caller ever waits for the file.

A log pipe whose reader has stopped blocks the thread only. The queue in front of it is bounded in
lines and in bytes; lines that find no room are dropped and counted, and a marker stands in their
place when the file takes lines again.
"""

from __future__ import annotations

import io
import os
import select
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

MAX_QUEUED_LINES: Final = 10_000
MAX_QUEUED_BYTES: Final = 8 * 1024 * 1024
"""Bounds of one queue, lines that are being written included."""

WRITE_INTERVAL: Final = 0.02
"""Seconds that a line may wait for others, so that many leave in one write."""

MAX_LINES_PER_WRITE: Final = 128

FLUSH_TIMEOUT: Final = 1.0
"""Seconds that `flush` waits at most."""

_FORK_TIMEOUT: Final = 0.1
"""Seconds that a fork waits at most for the lines before it."""

_POLL_INTERVAL_MS: Final = 100
"""Milliseconds between two looks at whether the thread has to stop while the file is full."""

_PIPE_BUF: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe which is ready takes without blocking, and in one piece."""

_OVERHEAD: Final = 200
"""Bytes that a queued line takes beside its text, roughly."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Stands in the queue where lines are missing."""

    count: int


class LineWriter:
    """A bounded queue of lines and the thread that writes them.

    `render` turns queued items into text that ends with a newline. It runs in the thread and gets
    a `Dropped` where lines are missing.
    """

    def __init__(self, out: TextIO, render: Callable[[Sequence[Any]], str]) -> None:
        self._out = out
        self._render = render
        self._encoding = getattr(out, "encoding", None) or "utf-8"
        try:
            self._fd: int | None = out.fileno()
        except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
            self._fd = None
        self.dropped = 0
        """Lines that were lost: the queue was full, or the file refused them."""
        self._unreported = 0
        """Of those, the ones that no marker in the file has told of."""
        self._torn = False
        """Whether the file ends in the middle of a line."""
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        # Reentrant: the garbage collector or a signal may log while this thread holds it.
        self._lock = threading.RLock()
        self._progress = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._items: list[Any] = []
        self._sizes: list[int] = []
        self._lines = 0
        self._bytes = 0
        self._done = 0
        self._full = False
        self._closing = False
        self._stalled = False
        self._thread: threading.Thread | None = None

    def put(self, item: Any, size: int, *, urgent: bool = False) -> None:
        """Queue a line of about `size` bytes. Never waits for the file.

        An urgent line leaves at once, and takes those before it along.
        """
        size += _OVERHEAD
        with self._lock:
            if self._full or self._lines >= MAX_QUEUED_LINES or self._bytes > MAX_QUEUED_BYTES:
                # Half of the queue has to be free again: one gap, one marker.
                self._full = self._is_half_full
                if self._full:
                    self.dropped += 1
                    self._unreported += 1
                    return
            if self._unreported:
                self._report_dropped()
            self._items.append(item)
            self._sizes.append(size)
            self._lines += 1
            self._bytes += size
            count = len(self._items)
            if self._thread is None and not self._closing:
                self._start()
        if count == 1 or urgent:
            self._wake.set()
        if urgent or count == MAX_LINES_PER_WRITE:
            self._urgent.set()

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> bool:
        """Wait until all that was queued before is written; False when `timeout` ran out.

        A file that took nothing during an earlier flush is not waited for again.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            target = self._done + self._lines
            is_alone = self._thread is None or not self._thread.is_alive()
        if is_alone:
            return self._write_here(deadline)
        self._urgent.set()
        self._wake.set()
        with self._progress:
            before = self._done
            if self._stalled:
                deadline = 0.0
            while self._done < target:
                left = deadline - time.monotonic()
                if left <= 0 or not self._progress.wait(left):
                    break
            self._stalled = self._done < target and self._done == before
            return self._done >= target

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Flush, and stop the thread; a line that comes later starts it again."""
        self.flush(timeout)
        with self._lock:
            thread, self._thread = self._thread, None
            self._closing = True
        self._urgent.set()
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_FORK_TIMEOUT)
        with self._lock:
            self._closing = False
            if thread is not None and thread.is_alive():
                self._thread = thread  # it still writes: there is never a second one
            elif self._items:
                self._start()

    @property
    def _is_half_full(self) -> bool:
        return self._lines > MAX_QUEUED_LINES // 2 or self._bytes > MAX_QUEUED_BYTES // 2

    def _report_dropped(self) -> None:
        count, self._unreported = self._unreported, 0
        self._items.append(Dropped(count))
        self._sizes.append(_OVERHEAD)
        self._lines += 1
        self._bytes += _OVERHEAD

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        if self._thread is not None:
            return  # a line of the garbage collector started one
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter is about to end: `flush` writes
            self._thread = None

    # In the thread

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            self._wake.wait()
            self._urgent.wait(WRITE_INTERVAL)
            self._wake.clear()
            self._urgent.clear()
            self._write_batch(None)
            with self._lock:
                if self._thread is not me and not self._items:
                    return
                if self._items:
                    self._wake.set()

    def _write_here(self, deadline: float) -> bool:
        try:
            while self._items:
                self._write_batch(deadline)
        except TimeoutError:
            return False
        return True

    def _write_batch(self, deadline: float | None) -> None:
        with self._lock:
            # In one statement: a line that comes in between would be split from its size.
            items, sizes, self._items, self._sizes = self._items, self._sizes, [], []
        for start in range(0, len(items), MAX_LINES_PER_WRITE):
            part = items[start : start + MAX_LINES_PER_WRITE]
            size = sum(sizes[start : start + MAX_LINES_PER_WRITE])
            try:
                self._write(self._render(part), deadline)
            except TimeoutError:
                self._account(items[start:], sum(sizes[start:]), is_written=False)
                raise
            except Exception:  # the file is closed or full, its reader is gone: nothing can be said
                self._account(part, size, is_written=False)
            else:
                self._account(part, size, is_written=True)

    def _account(self, part: Sequence[Any], size: int, *, is_written: bool) -> None:
        with self._progress:
            if is_written:
                self._stalled = False
            else:
                lost = sum(not isinstance(item, Dropped) for item in part)
                told = sum(item.count for item in part if isinstance(item, Dropped))
                self.dropped += lost
                self._unreported += lost + told
            self._lines -= len(part)
            self._bytes -= size
            self._done += len(part)
            self._full = self._full and self._is_half_full
            if is_written and self._unreported and not self._full and not self._items:
                # Nothing may follow for a long time: the gap is told of now.
                self._report_dropped()
            self._progress.notify_all()

    def _write(self, text: str, deadline: float | None) -> None:
        if self._fd is None:
            self._out.write(text)
            self._out.flush()
            return
        if self._torn:
            text = "\n" + text
        data = text.encode(self._encoding, errors="backslashreplace")
        for piece in _pieces(data, self._fd):
            view = memoryview(piece)
            while view:
                self._wait_until_ready(deadline)
                try:
                    count = os.write(self._fd, view)
                except (BlockingIOError, InterruptedError):
                    continue
                self._torn = view[count - 1] != ord("\n")
                view = view[count:]

    def _wait_until_ready(self, deadline: float | None) -> None:
        """Wait until the file takes a piece. Raises TimeoutError."""
        if not hasattr(select, "poll"):  # Windows
            return
        poll = select.poll()
        poll.register(self._fd if self._fd is not None else -1, select.POLLOUT)
        while not poll.poll(_POLL_INTERVAL_MS):
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError


def _pieces(data: bytes, fd: int) -> Iterator[bytes]:
    """What is written in one call: for a pipe whole lines, as many as it takes in one piece."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        yield data
        return
    start = 0
    while start < len(data):
        end = min(start + _PIPE_BUF, len(data))
        last = data.rfind(b"\n", start, end) + 1
        if last > start:
            end = last
        yield data[start:end]
        start = end


# The writers of this process: a forked one inherits neither the threads nor what is queued.

_writers: Final[weakref.WeakSet[LineWriter]] = weakref.WeakSet()


def dropped_lines() -> int:
    """How many lines all writers of this process have lost."""
    return sum(writer.dropped for writer in tuple(_writers))


def flush_all(timeout: float = FLUSH_TIMEOUT) -> None:
    """Flush every writer; all together take `timeout` seconds at most."""
    deadline = time.monotonic() + timeout
    for writer in tuple(_writers):
        writer.flush(max(0.0, deadline - time.monotonic()))


def _before_fork() -> None:
    for writer in tuple(_writers):
        writer.close(_FORK_TIMEOUT)


def _in_child() -> None:
    for writer in tuple(_writers):
        writer._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)

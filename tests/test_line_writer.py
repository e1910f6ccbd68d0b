"""The thread that writes the log: no caller waits, nothing is lost without being counted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TextIO

import pytest
from profiles import patience

from jarvis_stream import line_writer
from jarvis_stream.line_writer import Dropped, LineWriter

PATIENCE = patience(30.0)


def render(items: Sequence[object]) -> str:
    return "".join([f"dropped {i.count}\n" if isinstance(i, Dropped) else f"{i}\n" for i in items])


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    reading, writing = os.pipe()
    with open(reading) as reader, open(writing, "w") as writer:
        yield reader, writer


def fill(writer: LineWriter, count: int, text: str = "x" * 200) -> None:
    for number in range(count):
        writer.put(f"{number} {text}", len(text))


def test_lines_are_written_in_order(pipe: tuple[TextIO, TextIO]) -> None:
    reader, out = pipe
    writer = LineWriter(out, render)
    writer.put("one", 3)
    writer.put("two", 3, urgent=True)
    writer.put("three", 5)
    assert writer.flush(PATIENCE)
    assert [reader.readline() for _ in range(3)] == ["one\n", "two\n", "three\n"]
    writer.close()


def test_a_pipe_that_nobody_reads_holds_nobody_up_and_the_gap_is_told(
    pipe: tuple[TextIO, TextIO],
) -> None:
    reader, out = pipe
    writer = LineWriter(out, render)
    total = 3 * line_writer.MAX_QUEUED_LINES
    fill(writer, total)  # returns, though the pipe takes 64 KiB only
    assert writer._lines <= line_writer.MAX_QUEUED_LINES
    lost = writer.dropped
    assert lost > 0
    assert not writer.flush(0.05)

    seen: list[str] = []
    gone = threading.Thread(target=lambda: seen.extend(iter(reader.readline, "end\n")))
    gone.start()
    while not writer.flush(PATIENCE):
        pass
    writer.put("end", 3, urgent=True)
    gone.join(PATIENCE)
    gaps = [line for line in seen if line.startswith("dropped")]
    assert sum(int(line.split()[1]) for line in gaps) == lost == writer.dropped
    numbers = [int(line.split()[0]) for line in seen if not line.startswith("dropped")]
    assert numbers == sorted(numbers)
    assert len(numbers) == total - lost
    # The marker stands where lines are missing.
    assert int(seen[seen.index(gaps[0]) - 1].split()[0]) == numbers[len(numbers) - 1]
    writer.close()


def test_the_queue_is_bounded_in_bytes(pipe: tuple[TextIO, TextIO]) -> None:
    _, out = pipe
    writer = LineWriter(out, render)
    fill(writer, 100, "x" * (line_writer.MAX_QUEUED_BYTES // 10))
    assert writer._bytes < 1.2 * line_writer.MAX_QUEUED_BYTES
    assert writer.dropped > 80
    writer.close(0.05)


def test_a_second_flush_does_not_wait_for_a_pipe_that_took_nothing_during_the_first(
    pipe: tuple[TextIO, TextIO],
) -> None:
    _, out = pipe
    writer = LineWriter(out, render)
    fill(writer, 2000)
    while writer.flush(0.05) or not writer._stalled:  # until the pipe is full
        pass
    assert not writer.flush(10 * PATIENCE)


def test_a_file_that_refuses_lines_stops_nothing_and_the_loss_is_told_later() -> None:
    class Fails(OSError):
        pass

    class Out:
        broken = True
        written = ""

        def write(self, text: str) -> None:
            if self.broken:
                raise Fails
            self.written += text

        def flush(self) -> None:
            pass

    out = Out()
    writer = LineWriter(out, render)  # type: ignore[arg-type]
    fill(writer, 3)
    assert writer.flush(PATIENCE)
    assert writer.dropped == 3
    out.broken = False
    writer.put("again", 5)
    assert writer.flush(PATIENCE)
    assert out.written == "dropped 3\nagain\n"
    writer.close()


def test_a_line_that_cannot_be_rendered_does_not_end_the_thread(
    pipe: tuple[TextIO, TextIO],
) -> None:
    reader, out = pipe

    def picky(items: Sequence[object]) -> str:
        if "bad" in items:
            raise ZeroDivisionError
        return render(items)

    writer = LineWriter(out, picky)
    writer.put("bad", 3)
    assert writer.flush(PATIENCE)
    writer.put("good", 4)
    assert writer.flush(PATIENCE)
    assert reader.readline() == "dropped 1\n"
    assert reader.readline() == "good\n"
    writer.close()


FORKS = """
import os, sys
from jarvis_stream.line_writer import LineWriter

writer = LineWriter(sys.stdout, lambda items: "".join(f"{item}\\n" for item in items))
for number in range(50):
    writer.put(f"before {number}", 10)
pid = os.fork()
for number in range(50):
    writer.put(f"{'after' if pid else 'child'} {number}", 10)
writer.flush(10)
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_a_forked_process_writes_its_own_lines_and_no_line_twice() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKS], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    for kind in ("before", "after", "child"):
        assert [line for line in lines if line.startswith(kind)] == [
            f"{kind} {number}" for number in range(50)
        ]
    assert len(lines) == 150


STALLS = """
import os, sys, time
from jarvis_stream import logs
from loguru import logger

logs.configure("INFO", "json")
with logs.capturing():
    for number in range(30_000):
        logger.info("line {}", number)
"""


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_end_of_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", STALLS], stderr=subprocess.PIPE) as process:
        assert process.wait(PATIENCE) == 0


def test_the_garbage_collector_may_log_while_a_line_is_queued(
    pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = pipe
    writer = LineWriter(out, render)
    dropped = Dropped

    def making_garbage(count: int) -> Dropped:
        if count < 3:
            writer.put("of the collector", 10)  # as a __del__ would, within the outer put
        return dropped(count)

    monkeypatch.setattr(line_writer, "Dropped", making_garbage)
    writer._unreported = 2
    done = threading.Thread(target=writer.put, args=["of the program", 10], daemon=True)
    done.start()
    done.join(PATIENCE)
    assert not done.is_alive()
    monkeypatch.undo()
    assert writer.flush(PATIENCE)
    assert (writer._lines, writer._bytes) == (0, 0)
    writer.close()

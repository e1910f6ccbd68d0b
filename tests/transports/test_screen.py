"""What of a client's WebSocket frames is let in, however the bytes are cut."""

from __future__ import annotations

import random

import pytest
from aiohttp import WSCloseCode

from jarvis_stream.transports.screen import MARK, MOST_THROWN_AWAY, Screen

MOST = 300
MARKED = bytes((0x89, 0x90)) + bytes(4) + MARK


class Parser:
    """Takes everything."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.got += data
        return False, b""

    def feed_eof(self) -> None:
        self.ended = True


class Bench:
    """A screen with everything around it."""

    def __init__(self) -> None:
        self.parser = Parser()
        self.reports: list[tuple[WSCloseCode, str]] = []
        self.cuts = 0
        self.screen = Screen(self.parser, most=MOST, report=self._report, cut=self._cut)

    def _report(self, code: WSCloseCode, why: str) -> None:
        self.reports.append((code, why))

    def _cut(self) -> None:
        self.cuts += 1

    @property
    def codes(self) -> list[WSCloseCode]:
        return [code for code, _ in self.reports]

    def feed(self, data: bytes, dice: random.Random | None = None) -> bytes:
        while data:
            size = dice.randint(1, 9) if dice else len(data)
            assert self.screen.feed_data(data[:size]) == (False, b"")
            data = data[size:]
        return self.parser.got


def frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    size, flag = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((flag | size,))
    elif size < 65536:
        head = bytes((flag | 126,)) + size.to_bytes(2, "big")
    else:
        head = bytes((flag | 127,)) + size.to_bytes(8, "big")
    first = (0x80 if fin else 0) | opcode
    return bytes((first,)) + head + (b"mask" if masked else b"") + payload


HONEST = b"".join(
    (
        frame(1, b""),
        frame(1, b"x" * 125),
        frame(1, b"x" * 126),
        frame(1, b"x" * MOST),
        frame(1, b"x" * 200, fin=False),
        frame(9, b"ping"),
        frame(0, b"x" * 100),
        frame(2, b"x" * MOST),
        frame(10, b""),
    )
)
CLOSE = frame(8, b"\x03\xe8bye")

pieces = pytest.mark.parametrize("seed", [None, *range(20)])


def dice(seed: int | None) -> random.Random | None:
    return None if seed is None else random.Random(seed)


@pieces
def test_what_keeps_the_rules_is_let_in_as_it_is(seed: int | None) -> None:
    bench = Bench()
    assert bench.feed(HONEST + CLOSE, dice(seed)) == HONEST + CLOSE
    assert (bench.reports, bench.cuts) == ([], 0)


@pieces
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(1, b"x", masked=False), 1002),
        (frame(1, b"", masked=False), 1002),
        (frame(9, b"ping", masked=False), 1002),
        (frame(1, b"x" * (MOST + 1)), 1009),
        (frame(2, b"x" * 70_000), 1009),
        (frame(1, b"x" * MOST, fin=False) + frame(0, b"x"), 1009),
    ],
)
def test_a_mark_stands_for_what_breaks_them(seed: int | None, bad: bytes, code: int) -> None:
    bench = Bench()
    got = bench.feed(HONEST + bad + frame(1, b"more") + frame(9, b"ping") + CLOSE, dice(seed))
    before, _, after = got.partition(MARKED)
    assert before.startswith(HONEST)
    assert after == CLOSE
    assert bench.codes == [code]
    assert bench.cuts == 0


def test_a_frame_that_never_ends_is_cut_off() -> None:
    bench = Bench()
    bench.feed(b"\x81\xff" + (2**62).to_bytes(8, "big") + b"mask")
    for _ in range(MOST_THROWN_AWAY // 65536):
        bench.feed(b"x" * 65536)
    assert bench.codes == [1009]
    assert bench.cuts >= 1
    assert bench.parser.got == MARKED


def test_the_end_is_passed_on() -> None:
    bench = Bench()
    bench.screen.feed_eof()
    assert bench.parser.ended

"""The agent of the tests that lose connections: it recites what everybody knows beforehand.

python run.py --agent tests.acceptance.reciter:recite
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from jarvis_stream import Turn

RECITER = ("--agent", "tests.acceptance.reciter:recite")
"""The flags of a server whose agent this is."""

PIECES = ("plain ", "naïve ", "日本 ", "🙂", "\n", '"\\', "\u2028", "\U0001d54f\u030a ", "</b>\x00")
"""One to four bytes of UTF-8 per character, and what JSON escapes."""

GATES: dict[str, asyncio.Event] = {}
"""Who waits to be let through, by name."""


def piece(number: int) -> str:
    """What comes at that place of every recital."""
    return f"{number}{PIECES[number % len(PIECES)]}"


def recital(count: int) -> str:
    """The whole text of so many pieces."""
    return "".join(map(piece, range(count)))


def letter(number: int) -> str:
    """One character, one byte."""
    return chr(ord("a") + number % 26)


def word(number: int) -> str:
    """Five characters, five bytes."""
    return f"{number % 10_000:4} "


async def recite(turn: Turn) -> AsyncIterator[str]:
    """Obey the prompt: a verb and its arguments."""
    verb, *words = turn.prompt.split(" ")
    match verb:
        case "recite":  # so many pieces, each after so many seconds
            for number in range(int(words[0])):
                if pause := float(words[1]):
                    await asyncio.sleep(pause)
                yield piece(number)
        case "letters":  # as fast as it can
            for number in range(int(words[0])):
                yield letter(number)
        case "words":  # as fast as it can
            for number in range(int(words[0])):
                yield word(number)
        case "pages":  # so many thousand characters, each thousand after so many seconds
            for number in range(int(words[0])):
                await asyncio.sleep(float(words[1]))
                yield f"{number:06}".ljust(1000, ".")
        case "halt":  # half of so many pieces, and the rest when the gate of that name is opened
            half = int(words[0]) // 2
            for number in range(half):
                yield piece(number)
            gate = GATES[words[1]] = asyncio.Event()
            await gate.wait()
            for number in range(half, int(words[0])):
                yield piece(number)
        case "open":
            GATES.pop(words[0]).set()
            yield "open"

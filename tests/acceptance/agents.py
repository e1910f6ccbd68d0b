"""The agent of the acceptance tests: what it does stands in its prompt.

python run.py --agent tests.acceptance.agents:scripted
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator

import orjson

from jarvis_stream import Status, Turn

CANARY = "postgres://jarvis:hunter2@db.internal/secrets"
"""Stands in every exception this agent raises; no client may ever read it."""

EVIDENCE: dict[str, dict[str, float]] = {}
"""What became of each turn, by stream_id: seconds of the clock that all processes here share."""

MOST_EVIDENCE = 5_000

GATES: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""What agents wait for, by the words that a test gave them."""


async def scripted(turn: Turn) -> AsyncIterator[str | Status]:
    """Obey the prompt's first line: a verb and its arguments."""
    verb, *words = turn.prompt.partition("\n")[0].split(" ")
    noted = EVIDENCE[turn.stream_id] = {"began": time.monotonic()}
    if len(EVIDENCE) > MOST_EVIDENCE:
        del EVIDENCE[next(iter(EVIDENCE))]
    try:
        match verb:
            case "say":
                for word in words:
                    yield word + " "
            case "echo":
                yield turn.prompt
            case "tick":  # so many tokens, each after so many seconds
                for number in range(int(words[0])):
                    await asyncio.sleep(float(words[1]))
                    yield f"{number} "
            case "burst":  # so many tokens in one turn of the loop, then silence
                for number in range(int(words[0])):
                    yield f"{number} "
                await asyncio.Event().wait()
            case "flood":  # so many tokens of a thousand characters, as fast as it can
                for number in range(int(words[0])):
                    yield f"{number:06}".ljust(1000, ".")
            case "listen":  # tell that it has begun, and not a word more
                yield Status("listening")
                await asyncio.Event().wait()
            case "silent":
                await asyncio.Event().wait()
            case "hold":  # not a word until the gate of that name is open
                await GATES[words[0]].wait()
                yield "on we go"
            case "linger":  # speak until cancelled, then tidy up until that gate is open
                yield "I am here."
                await asyncio.Event().wait()
            case "open":
                GATES[words[0]].set()
            case "tidy":  # speak until cancelled, then take so many seconds to tidy up
                yield "I am here."
                await asyncio.Event().wait()
            case "stubborn":  # speak for so many seconds, whoever cancels
                async for piece in _stubborn(float(words[0])):
                    yield piece
            case "tool":
                yield Status("tool", name="search", detail="the web")
                yield "found"
            case "fail":
                yield "so far so good"
                raise RuntimeError(CANARY)
            case "quote":
                raise RuntimeError(turn.prompt)
            case "evidence":
                yield orjson.dumps(EVIDENCE.get(words[0], {})).decode()
            case _:
                yield "ok"
    finally:
        noted["cleanup_began"] = time.monotonic()
        if verb == "tidy":
            await asyncio.sleep(float(words[0]))
        elif verb == "linger":
            await GATES[words[0]].wait()
        noted["cleanup_done"] = time.monotonic()


async def _stubborn(seconds: float) -> AsyncIterator[str]:
    end = time.monotonic() + seconds
    obedient = True
    while time.monotonic() < end:
        if obedient:  # what it says later would be refused, and its generator closed
            yield "still here "
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            obedient = False
    yield "I am done when I say so."

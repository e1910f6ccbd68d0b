"""What keeping a conversation costs: whole short turns through the registry, per history.

    python benchmarks/bench_history.py                                   memory and SQLite
    python benchmarks/bench_history.py --database-url postgresql://…     and that one

The histories take turns within one run, so that a machine whose speed drifts is fair to all of
them; each figure is the median of `--rounds`. A second table shows that the calls to the database
do not grow with the tokens of an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from sqlalchemy import event
from sqlalchemy.engine import Engine

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.history.base import Limits
from jarvis_stream.history.open import MEMORY, open_history
from jarvis_stream.registry import Opening, StreamRegistry
from jarvis_stream.shelf import Shelf
from jarvis_stream.stream import Follower

CONCURRENT = (1, 10, 100, 1000)
TURNS = 1000
TOKENS = 20

calls = 0


class Reader:
    """Takes everything, and notes when the first token came."""

    def __init__(self) -> None:
        self.first = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def take(self, frames: bytes) -> bool:
        if not self.first and b'"token"' in frames:
            self.first = time.perf_counter()
        return True

    def fell_behind(self, follower: Follower) -> None:
        while follower.behind and follower.catch_up():
            pass

    def delivered(self, follower: Follower) -> None:
        self.done.set_result(None)

    def lost(self, follower: Follower) -> None:
        raise AssertionError("a stream of this process is never lost")


@dataclass(frozen=True)
class Figures:
    turns_per_second: float
    first_token_ms: float
    calls_per_turn: float


async def agent(turn: Turn) -> AsyncIterator[Piece]:
    for _ in range(int(turn.prompt)):
        yield "token "
        await asyncio.sleep(0)


async def measure(url: str, concurrent: int, turns: int, tokens: int) -> Figures:
    """`turns` answers of `tokens` tokens, `concurrent` at a time, each in a session of its own."""
    async with open_history(url, Limits(begin_timeout=30, save_timeout=30)) as history:
        registry = StreamRegistry(agent, history, shelf=Shelf(seconds=0))
        waits: list[float] = []
        left = iter(range(turns))

        async def client() -> None:
            for _ in left:
                asked = time.perf_counter()
                stream_id = str(uuid.uuid4())
                stream = registry.open(
                    Opening(prompt=str(tokens), stream_id=stream_id, trace_id="0" * 32)
                )
                reader = Reader()
                stream.follow(0, reader).catch_up()
                await reader.done
                waits.append(reader.first - asked)

        before, began = calls, time.perf_counter()
        await asyncio.gather(*(client() for _ in range(concurrent)))
        seconds = time.perf_counter() - began
        return Figures(turns / seconds, statistics.median(waits) * 1000, (calls - before) / turns)


def median(figures: Sequence[Figures]) -> Figures:
    return Figures(
        statistics.median(figure.turns_per_second for figure in figures),
        statistics.median(figure.first_token_ms for figure in figures),
        statistics.median(figure.calls_per_turn for figure in figures),
    )


def run(url: str, concurrent: int, turns: int, tokens: int) -> Figures:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(measure(url, concurrent, turns, tokens))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


def _count(*_: object) -> None:
    global calls
    calls += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--database-url", action="append", default=[])
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    event.listen(Engine, "before_cursor_execute", _count)
    event.listen(Engine, "commit", _count)
    with tempfile.TemporaryDirectory() as folder:
        histories = {"memory": MEMORY, "sqlite": f"sqlite:///{Path(folder) / 'bench.sqlite3'}"}
        for url in options.database_url:
            histories[url.partition(":")[0]] = url
        print(f"{options.turns} turns of {TOKENS} tokens, median of {options.rounds} rounds\n")
        print("| at once | history | turns/s | of memory | first token ms p50 | calls a turn |")
        print("|---|---|---|---|---|---|")
        for concurrent in CONCURRENT:
            rounds: dict[str, list[Figures]] = {name: [] for name in histories}
            for _ in range(options.rounds):
                for name, url in histories.items():
                    rounds[name].append(run(url, concurrent, options.turns, TOKENS))
            base = median(rounds["memory"])
            for name, figures in rounds.items():
                figure = median(figures)
                share = figure.turns_per_second / base.turns_per_second
                print(
                    f"| {concurrent} | {name} | {figure.turns_per_second:.0f} | {share:.2f}"
                    f" | {figure.first_token_ms:.2f} | {figure.calls_per_turn:.2f} |",
                    flush=True,
                )
        print("\n| tokens an answer | history | calls a turn, 50 at once |")
        print("|---|---|---|")
        for tokens in (20, 200, 2000):
            for name, url in histories.items():
                if name != "memory":
                    figure = run(url, 50, 200, tokens)
                    print(f"| {tokens} | {name} | {figure.calls_per_turn:.2f} |", flush=True)


if __name__ == "__main__":
    main()

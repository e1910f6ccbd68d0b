"""What answers cost a Redis, and how far it goes: measured, and then reckoned up.

    python benchmarks/sizing.py [--seconds 8] [--node-tokens 20000] [--keep 3660]

Starts a Redis of its own (the one of the tests, without its file) and in this process nodes that
ship scripted answers to it and read each other's: without HTTP, so that what is counted is what
sharing costs. Redis tells its own CPU, commands, bytes and memory. The second table goes on from
there: with so many nodes, each as busy as can be, how full is Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fakes import FakeReader  # noqa: E402
from loguru import logger  # noqa: E402
from redis_server import RedisServer  # noqa: E402

from jarvis_stream.agents.base import Turn  # noqa: E402
from jarvis_stream.cluster.redis import RedisCluster  # noqa: E402
from jarvis_stream.history.memory import MemoryHistory  # noqa: E402
from jarvis_stream.node import Node  # noqa: E402
from jarvis_stream.registry import Opening, StreamRegistry  # noqa: E402

WARM_UP = 2.0
LOADS = (
    (1, 50, 0),
    (100, 10, 0),
    (100, 50, 0),
    (400, 10, 0),
    (400, 50, 0),
    (100, 50, 1),
    (100, 50, 4),
)
"""Streams, tokens a second of each, and how often each is read at another node."""
TOKEN = "token "
"""Six bytes, as the words of an answer are long with their space."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a load; rates are per second."""

    streams: int
    rate: float
    readers: int
    tokens: float
    commands: float
    redis_cpu: float
    """Of one core."""
    node_cpu: float
    bytes_in: float
    bytes_out: float
    memory: float
    """Bytes that a stream takes in Redis, by the end."""
    length: float
    """Tokens it had then."""


def say(costs: Sequence[Cost]) -> None:
    """A table, as docs/sizing.md has it."""
    columns = (
        "streams",
        "tokens/s each",
        "readers elsewhere",
        "tokens/s",
        "Redis: commands/s",
        "CPU",
        "µs per token",
        "bytes in, out per token",
        "bytes kept per token",
    )
    print("|", " | ".join(columns), "|")
    print("|---" * len(columns) + "|")
    for cost in costs:
        print(
            f"| {cost.streams} | {cost.rate:g} | {cost.readers} | {cost.tokens:,.0f}"
            f" | {cost.commands:,.0f} | {cost.redis_cpu:.1%}"
            f" | {1e6 * cost.redis_cpu / cost.tokens:.1f}"
            f" | {cost.bytes_in / cost.tokens:.0f}, {cost.bytes_out / cost.tokens:.0f}"
            f" | {cost.memory / cost.length:.0f} |"
        )


def agent_at(rate: float, stop: asyncio.Event) -> Any:
    """An agent that says so many tokens a second."""

    async def agent(turn: Turn) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stop.is_set():
            yield TOKEN
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - loop.time()))

    return agent


async def measure(
    redis: RedisServer, *, streams: int, rate: float, seconds: float, readers: int
) -> Cost:
    """So many streams of one node, each read `readers` times at another."""
    client = redis.client()
    client.flushall()
    empty: Any = client.info()
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        registries = []
        for _ in range(2):
            node = Node(RedisCluster(redis.url))
            history = MemoryHistory()
            registry = StreamRegistry(agent_at(rate, stop), history, node=node)
            await stack.enter_async_context(node.running(registry.hear, registry.disown))
            registries.append(registry)
        here, there = registries
        openings = [
            Opening(
                prompt="q",
                stream_id=str(uuid.uuid4()),
                trace_id="0" * 32,
                session_id=f"s{number}",
                on_disconnect="continue",
            )
            for number in range(streams)
        ]
        await asyncio.gather(*map(here.start, openings))
        tasks = [
            asyncio.create_task(read(there, opening.stream_id))
            for opening in openings
            for _ in range(readers)
        ]
        await asyncio.sleep(WARM_UP)
        before: Any = client.info()
        said, cpu, began = tokens_of(here), own_cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        after: Any = client.info()
        took = time.monotonic() - began
        node_cpu = (own_cpu() - cpu) / took
        tokens = tokens_of(here)
        memory = (after["used_memory"] - empty["used_memory"]) / streams
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        stop.set()
        await here.shutdown()

    def grown(name: str) -> float:
        return float(after[name] - before[name]) / took

    client.close()
    return Cost(
        streams=streams,
        rate=rate,
        readers=readers,
        tokens=(tokens - said) / took,
        commands=grown("total_commands_processed"),
        redis_cpu=grown("used_cpu_user") + grown("used_cpu_sys"),
        node_cpu=node_cpu,
        bytes_in=grown("total_net_input_bytes"),
        bytes_out=grown("total_net_output_bytes"),
        memory=memory,
        length=tokens / streams,
    )


class _Nowhere(list[bytes]):
    """Keeps nothing."""

    def append(self, frames: bytes) -> None:
        """Only what is sent is wanted, not what it was."""


async def read(registry: StreamRegistry, stream_id: str) -> None:
    """Follow a stream to its end."""
    reader = FakeReader(await registry.reach(stream_id))
    reader.writes = _Nowhere()
    await asyncio.get_running_loop().create_future()


def tokens_of(registry: StreamRegistry) -> float:
    """How many its streams have said."""
    return sum(stream.text_size for stream in registry) / len(TOKEN)


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def reckon(cost: Cost, node_tokens: float, keep: float) -> None:
    """How full Redis is with so many nodes that say `node_tokens` a second each.

    What a log takes stays for `keep` seconds after its end. Redis runs its commands on one core.
    """
    per_token = cost.redis_cpu / cost.tokens
    kept = cost.memory / cost.length
    print("| nodes | tokens/s | Redis CPU | network in | memory of logs |")
    print("|---" * 5 + "|")
    for nodes in (1, 2, 4, 8, 16, 32):
        tokens = nodes * node_tokens
        print(
            f"| {nodes} | {tokens:,.0f} | {tokens * per_token:.0%}"
            f" | {tokens * cost.bytes_in / cost.tokens / 1e6:.0f} MB/s"
            f" | {tokens * kept * keep / 1e9:.1f} GB |"
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--node-tokens", type=float, default=20_000.0)
    parser.add_argument("--keep", type=float, default=3660.0)
    given = parser.parse_args()
    logger.remove()
    with tempfile.TemporaryDirectory(prefix="jarvis-sizing-") as directory:
        redis = RedisServer(Path(directory), "--appendonly", "no")
        redis.start()
        try:
            costs = [
                await measure(
                    redis, streams=streams, rate=rate, seconds=given.seconds, readers=readers
                )
                for streams, rate, readers in LOADS
            ]
        finally:
            redis.kill()
    say(costs)
    print()
    reckon(max(costs, key=lambda cost: cost.tokens), given.node_tokens, given.keep)


if __name__ == "__main__":
    asyncio.run(main())

"""What several servers cost, and how fast they are together, on servers as they really are.

    python benchmarks/bench_cluster.py [--streams 500] [--rate 50] [--seconds 10]

Starts a Redis and a PostgreSQL of its own (the ones of the tests), and server processes. In one
run, one after the other: a server alone; one with Redis; two, the answers of the one read at the
other. Then stops and resumes from the other server. CPU is that of the server's process, in
percent of one core; a delay is from the agent's `yield` to the client's read.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from postgres_server import PostgresServer  # noqa: E402
from processes import Server, serving  # noqa: E402
from redis_proxy import in_front_of  # noqa: E402
from redis_server import RedisServer  # noqa: E402

from jarvis_stream import Turn  # noqa: E402

WARM_UP = 2.0
"""Seconds."""

CLEANUPS: dict[str, float] = {}


async def ticking(turn: Turn) -> AsyncIterator[str]:
    """`tick RATE SECONDS`: the time of day, so many times a second; `when ID`: of its cleanup."""
    verb, *words = turn.prompt.split(" ")
    if verb == "when":
        yield str(CLEANUPS.get(words[0], 0.0))
        return
    rate, seconds = float(words[0]), float(words[1])
    due = time.monotonic()
    end = due + seconds
    try:
        while due < end:
            yield f"{time.monotonic():.6f} "
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    finally:
        CLEANUPS[turn.stream_id] = time.monotonic()


@dataclass
class Figures:
    """Of one run."""

    delays: list[float] = field(default_factory=list)
    tokens: int = 0
    cpu: dict[str, float] = field(default_factory=dict)
    """Percent of one core, by server."""
    redis_cpu: float = 0.0


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(
    http: aiohttp.ClientSession,
    writers: Server,
    readers: Server,
    options: argparse.Namespace,
    redis_pid: int | None,
) -> Figures:
    """So many streams on one server, read there or at another."""
    figures = Figures()
    length = WARM_UP + options.seconds + 3
    counting = False

    async def read(response: aiohttp.ClientResponse) -> None:
        async for line in response.content:
            if counting and b'"token"' in line:
                figures.tokens += 1
                if figures.tokens % 20 == 0:
                    told = float(orjson.loads(line)["text"])
                    figures.delays.append(time.monotonic() - told)

    async def one() -> None:
        stream = str(uuid.uuid4())
        body = {"prompt": f"tick {options.rate} {length}", "stream_id": stream}
        async with http.post(f"{writers.url}/api/chat", json=body) as here:
            if readers is writers:
                await read(here)
                return
            await here.content.readline()
            async with http.get(f"{readers.url}/api/streams/{stream}") as there:
                here.close()  # from now on it is read at the other server only
                await read(there)

    tasks = [asyncio.create_task(one()) for _ in range(options.streams)]
    await asyncio.sleep(WARM_UP)
    pids = {"writer": writers.process.pid, "reader": readers.process.pid}
    if redis_pid is not None:
        pids["redis"] = redis_pid
    before, began = {name: cpu_of(pid) for name, pid in pids.items()}, time.monotonic()
    counting = True
    await asyncio.sleep(options.seconds)
    counting = False
    took = time.monotonic() - began
    figures.cpu = {name: 100 * (cpu_of(pid) - before[name]) / took for name, pid in pids.items()}
    figures.tokens = round(figures.tokens / took)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return figures


async def stops(http: aiohttp.ClientSession, a: Server, b: Server, count: int) -> list[float]:
    """From a stop at the other server to the beginning of the agent's cleanup, in seconds."""
    found = []
    for _ in range(count):
        stream = str(uuid.uuid4())
        body = {"prompt": "tick 50 60", "stream_id": stream}
        async with http.post(f"{a.url}/api/chat", json=body) as response:
            await response.content.readline()
            await response.content.readline()
            asked_at = time.monotonic()
            async with http.post(f"{b.url}/api/streams/{stream}/cancel") as answer:
                assert (await answer.json())["cancelled"], await answer.text()
        async with http.post(f"{a.url}/api/chat", json={"prompt": f"when {stream}"}) as response:
            lines = (await response.read()).splitlines()
        found.append(float(orjson.loads(lines[1])["text"]) - asked_at)
    return found


async def resumes(http: aiohttp.ClientSession, a: Server, b: Server, count: int) -> list[float]:
    """From a resume at the other server to its first frame, in seconds."""
    found = []
    for _ in range(count):
        stream = str(uuid.uuid4())
        body = {"prompt": "tick 50 60", "stream_id": stream}
        async with http.post(f"{a.url}/api/chat", json=body) as response:
            for _ in range(20):
                await response.content.readline()
            asked_at = time.monotonic()
            async with http.get(f"{b.url}/api/streams/{stream}?after=5") as there:
                await there.content.readline()
                found.append(time.monotonic() - asked_at)
    return found


def percentiles(values: Sequence[float]) -> str:
    """The middle, the 99th of a hundred and the most, in milliseconds."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"{1000 * statistics.median(ordered):8.1f} {1000 * p99:8.1f} {1000 * ordered[-1]:8.1f}"


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second of each")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--stops", type=int, default=100)
    options = parser.parse_args()
    async with AsyncExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jarvis-"))) for _ in "ab"
        ]
        postgres, redis = (
            PostgresServer(folders[0]),
            RedisServer(folders[1], "--appendfsync", "everysec"),
        )
        for server in (postgres, redis):
            server.start()
        stack.callback(postgres.stop)
        stack.callback(redis.kill)
        proxy = await stack.enter_async_context(in_front_of(redis.socket))
        limits = aiohttp.ClientTimeout(total=None)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits)
        )
        flags = ("--max-starts-per-minute", "100000", "--log-level", "WARNING")

        async def start(servers: ExitStack, url: str | None = None) -> Server:
            env = {"JARVIS_DATABASE_URL": database, **({"JARVIS_REDIS_URL": url} if url else {})}
            agent = ("--agent", "benchmarks.bench_cluster:ticking")
            context = serving(sys.executable, ROOT / "run.py", *agent, *flags, cwd=ROOT, env=env)
            # Not on the loop: a way to Redis is there.
            return await asyncio.to_thread(servers.enter_context, context)

        print(f"{options.streams} streams x {options.rate:g} tokens/s")
        print(f"{'':24} tokens/s   delay ms p50      p99      max   writer%  reader%   redis%")
        rows: list[tuple[str, bool, Callable[[list[Server]], Server]]] = [
            ("alone", False, lambda servers: servers[0]),
            ("with Redis", True, lambda servers: servers[0]),
            ("read at another server", True, lambda servers: servers[1]),
        ]
        for name, shared, reader in rows:
            database = postgres.new_database()
            with ExitStack() as servers:
                url = redis.url if shared else None
                both = [await start(servers, url)]
                if name.startswith("read"):
                    both.append(await start(servers, url))
                figures = await load(
                    http, both[0], reader(both), options, redis.pid if shared else None
                )
            cpu = figures.cpu
            print(
                f"{name:24} {figures.tokens:8}       {percentiles(figures.delays)}"
                f"  {cpu['writer']:8.1f} {cpu['reader']:8.1f} {cpu.get('redis', 0.0):8.1f}"
            )
        print(f"\n{'':24}     ms p50      p99      max")
        database = postgres.new_database()
        with ExitStack() as servers:
            a, b = await start(servers, redis.url), await start(servers, proxy.url)
            print(f"{'stop at another':24} {percentiles(await stops(http, a, b, options.stops))}")
            print(
                f"{'resume at another':24} {percentiles(await resumes(http, a, b, options.stops))}"
            )
        with ExitStack() as servers:
            a, b = await start(servers, proxy.url), await start(servers, redis.url)
            proxy.deaf_to = b"message\r\n"
            print(f"{'stop, without pub/sub':24} {percentiles(await stops(http, a, b, 20))}")


if __name__ == "__main__":
    asyncio.run(main())

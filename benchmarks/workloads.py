"""What is asked of the servers, and what is read off them.

A workload has cases, and in each the contenders take turns: A B C A B C …, after one round that
only warms them up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.contenders import (
    FASTAPI,
    JOINED,
    NODE,
    OURS,
    PUSH,
    RAW,
    SEED,
    SENDS,
    SOCKETIO,
    WRITE,
    jarvis,
)
from benchmarks.lab import Contender, Failed, Load, Missing, Server, say, serving
from benchmarks.series import Results

FULLY_BUSY: Final = 0.95
"""The generator's own share of work from which a figure is rather its own."""

Figures = Mapping[str, float]


@dataclass
class Bench:
    """One run of the suite."""

    results: Results
    rounds: int
    seconds: float
    """How long a measurement is to take, about."""
    only: Sequence[str]
    """Words; a case is measured when one of them is in its name. None: all are."""
    servers: Sequence[str]
    """The same for contenders."""
    also: Sequence[Contender]
    """Measured wherever our server is."""

    def wants(self, workload: str, case: str) -> bool:
        name = f"{workload} {case}"
        return not self.only or any(
            all(part in name for part in word.split("+")) for word in self.only
        )

    def alternate(
        self,
        workload: str,
        case: str,
        contenders: Iterable[Contender],
        measure: Callable[[Server], Figures],
    ) -> None:
        """Measure them in turns, `rounds` times."""
        if not self.wants(workload, case):
            return
        self.results.forget(workload, case)
        with contextlib.ExitStack() as stack:
            servers = []
            for contender in self._wanted(contenders):
                try:
                    servers.append(stack.enter_context(serving(contender)))
                except (Missing, Failed) as error:
                    self._note(workload, case, contender.name, f"skipped: {error}")
            for number in range(self.rounds + 1):
                for server in servers:
                    self._measure(workload, case, server, measure, is_warm=number > 0)

    def _wanted(self, contenders: Iterable[Contender]) -> list[Contender]:
        listed = []
        for contender in contenders:
            listed.append(contender)
            if contender.name == OURS:
                listed += self.also
        words = self.servers
        return [c for c in listed if not words or any(word in c.name for word in words)]

    def _measure(
        self,
        workload: str,
        case: str,
        server: Server,
        measure: Callable[[Server], Figures],
        *,
        is_warm: bool,
    ) -> None:
        name = server.contender.name
        try:
            figures = measure(server)
        except Failed as error:
            say(f"{workload}, {case}: {name}: {error}")
            self._note(workload, case, name, f"failed: {error}")
            return
        shown = ", ".join(f"{value:,.4g} {metric}" for metric, value in figures.items())
        say(f"{workload}, {case}: {name}: {shown}{'' if is_warm else ' (to warm up)'}")
        if is_warm:
            for metric, value in figures.items():
                self.results.series(workload, case, name, metric).values.append(value)
            if figures.get(BUSY, 0) > FULLY_BUSY:
                self._note(workload, case, name, "the load generator could not go any faster")

    def _note(self, workload: str, case: str, server: str, note: str) -> None:
        metric = next((s.metric for s in self.results.of(workload) if s.case == case), "")
        notes = self.results.series(workload, case, server, metric).notes
        if note not in notes:
            notes.append(note)


BUSY: Final = "generator's load"
FRAMES: Final = "frames/s"
COST: Final = "server µs/frame"
CHATS: Final = "chats/s"


def _general(load: Load) -> Figures:
    return {
        FRAMES: load.frames_per_second,
        COST: load.cpu / load.seen["frames"] * 1e6,
        BUSY: load.busy,
    }


def streaming(
    bench: Bench, transport: str, script: str, connections: int
) -> Callable[[Server], Figures]:
    """Answers as fast as they go, as long as it takes to fill the time."""
    tokens: dict[str, int] = {}

    def measure(server: Server) -> Figures:
        name = server.contender.name
        count = tokens.get(name, 200)
        load = server.load(
            transport, f"tokens={count} {script}", connections=connections, spin=True
        )
        wanted = load.frames_per_second * bench.seconds / connections
        tokens[name] = min(max(int(wanted), 50), 1_000_000)
        return _general(load)

    return measure


def having(transport: str, *contenders: Contender) -> list[Contender]:
    return [contender for contender in contenders if transport in contender.paths]


def single(bench: Bench) -> None:
    """50 answers at once, a turn of the event loop between two tokens."""
    everybody = (jarvis(), SENDS, RAW, PUSH, JOINED, WRITE, SEED, FASTAPI, SOCKETIO, NODE)
    for transport in ("http", "ws"):
        them = having(transport, *everybody)
        bench.alternate("single", transport, them, streaming(bench, transport, "", 50))


def burst(bench: Bench) -> None:
    """50 answers at once, 16 tokens in each turn of the event loop."""
    everybody = (jarvis(), SENDS, RAW, PUSH, JOINED, WRITE, SEED, FASTAPI, SOCKETIO, NODE)
    for transport in ("http", "ws"):
        them = having(transport, *everybody)
        bench.alternate("burst", transport, them, streaming(bench, transport, "burst=16", 50))


def paced(bench: Bench) -> None:
    """Answers of 50 tokens a second, all fed by one timer wheel."""
    tokens = int(50 * max(2.0, 5 * bench.seconds))
    for streams in (200, 500, 1000, 1500, 2000, 4000):
        for transport in ("http", "ws"):

            def measure(
                server: Server, streams: int = streams, transport: str = transport
            ) -> Figures:
                load = server.load(
                    transport, f"tokens={tokens} rate=50", connections=streams, stagger=1
                )
                steady = load.seen["steady"]
                return {
                    "delay p50 ms": load.milliseconds("delay", "p50"),
                    "delay p99 ms": load.milliseconds("delay", "p99"),
                    "share delivered": steady["came"] / steady["due"] if steady["due"] else 0,
                    COST: load.cpu / load.seen["frames"] * 1e6,
                    BUSY: load.busy,
                }

            them = [jarvis(), RAW, PUSH, WRITE, *([SEED] if streams <= 500 else [])]
            bench.alternate("paced", f"{streams} streams, {transport}", them, measure)


def sequential(bench: Bench) -> None:
    """Chats of one token, one after the other, on one connection."""
    chats: dict[str, int] = {}
    for transport in ("http", "ws"):

        def measure(server: Server, transport: str = transport) -> Figures:
            name = server.contender.name
            load = server.load(
                transport, "tokens=1", connections=1, chats=chats.get(name, 500), spin=True
            )
            chats[name] = max(200, int(load.chats_per_second * bench.seconds))
            return {
                CHATS: load.chats_per_second,
                "first token p50 ms": load.milliseconds("first_token", "p50"),
                BUSY: load.busy,
            }

        them = having(transport, jarvis(), SENDS, RAW, PUSH, WRITE, SEED, FASTAPI, NODE)
        bench.alternate("sequential", transport, them, measure)


def supersede(bench: Bench) -> None:
    """One session: as soon as an answer has spoken, the next one takes its place."""
    for transport in ("http", "ws"):

        def measure(server: Server, transport: str = transport) -> Figures:
            load = server.load(
                transport,
                "tokens=1 hold",
                fields={"session_id": "storm"},
                connections=4 if transport == "http" else 1,
                supersede=bench.seconds,
                spin=True,
            )
            return {
                "supersedes/s": load.replaced_per_second,
                "replaced p50 ms": load.milliseconds("replace", "p50"),
                "replaced p99 ms": load.milliseconds("replace", "p99"),
                BUSY: load.busy,
            }

        # What it takes to ask and be answered, and to cancel a task.
        them = [jarvis(), *([RAW] if transport == "ws" else [])]
        bench.alternate("supersede", transport, them, measure)


WORKLOADS: Final[tuple[Callable[[Bench], None], ...]] = (
    single,
    burst,
    paced,
    sequential,
    supersede,
)

"""What is asked of the servers, and what is read off them.

A workload has cases, and in each the contenders take turns: A B C A B C …, after one round that
only warms them up.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.contenders import (
    CHAINLIT,
    FASTAPI,
    JOINED,
    LANGGRAPH,
    NODE,
    OURS,
    PUSH,
    RAW,
    SEED,
    SENDS,
    SOCKETIO,
    WRITE,
    jarvis,
    proxy,
)
from benchmarks.lab import (
    LOAD_CORE,
    Contender,
    Failed,
    Load,
    Missing,
    Server,
    postgres,
    say,
    seconds_to_start,
    serving,
)
from benchmarks.series import Results

FULLY_BUSY: Final = 0.95
"""The generator's own share of work from which a figure is rather its own."""

NOTES: Final = "notes"
"""The metric that has no values: what else there is to say of a server in a case."""

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
    also: Sequence[Path]
    """Measured wherever our server is."""
    after_case: Callable[[str], None] = lambda workload: None
    """Called with the workload's name when one of its cases has been measured."""

    @property
    def is_short(self) -> bool:
        """Whether it is only to be seen that everything works."""
        return self.seconds < 0.5

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
        with contextlib.ExitStack() as stack:
            servers = []
            for contender in self.contenders(workload, case, contenders):
                with self.noting(workload, case, contender.name):
                    servers.append(stack.enter_context(serving(contender)))
            for number in range(self.rounds + 1):
                for server in servers:
                    name = server.contender.name
                    with self.noting(workload, case, name):
                        self.add(workload, case, name, measure(server), is_warm=number > 0)
        if servers:
            self.after_case(workload)

    def alternate_afresh(
        self,
        workload: str,
        case: str,
        contenders: Iterable[Contender],
        measure: Callable[[Contender], Figures],
    ) -> None:
        """The same, for what needs a new process each time; there is nothing to warm up then."""
        them = self.contenders(workload, case, contenders)
        for _ in range(self.rounds):
            for contender in them:
                with self.noting(workload, case, contender.name):
                    self.add(workload, case, contender.name, measure(contender))
        if them:
            self.after_case(workload)

    def contenders(
        self, workload: str, case: str, contenders: Iterable[Contender]
    ) -> list[Contender]:
        """Who is to be measured in this case: none when it is not wanted."""
        if not self.wants(workload, case):
            return []
        self.results.forget(workload, case)
        return self._wanted(contenders)

    @contextlib.contextmanager
    def noting(self, workload: str, case: str, server: str) -> Iterator[None]:
        """What cannot be measured is written into the table, and the others go on."""
        try:
            yield
        except (Missing, Failed) as error:
            say(f"{workload}, {case}: {server}: {error}")
            how = "skipped, missing" if isinstance(error, Missing) else "failed"
            self._note(workload, case, server, f"{how}: {error}")

    def _wanted(self, contenders: Iterable[Contender]) -> list[Contender]:
        listed = []
        for contender in contenders:
            listed.append(contender)
            if contender.is_ours:
                prefix = "" if contender.name == OURS else f"{contender.name}, "
                listed += [
                    replace(contender, name=f"{prefix}also {path}", folder=path.resolve())
                    for path in self.also
                ]
        words = self.servers
        return [c for c in listed if not words or any(word in c.name for word in words)]

    def add(
        self, workload: str, case: str, server: str, figures: Figures, *, is_warm: bool = True
    ) -> None:
        """Keep what one round has given."""
        shown = ", ".join(f"{value:,.4g} {metric}" for metric, value in figures.items())
        say(f"{workload}, {case}: {server}: {shown}{'' if is_warm else ' (to warm up)'}")
        if not is_warm:
            return
        for metric, value in figures.items():
            self.results.series(workload, case, server, metric).values.append(value)
        if figures.get(BUSY, 0) > FULLY_BUSY:
            self._note(workload, case, server, "the load generator could not go any faster")

    def _note(self, workload: str, case: str, server: str, note: str) -> None:
        notes = self.results.series(workload, case, server, NOTES).notes
        if note not in notes:
            notes.append(note)


TRANSPORTS: Final = ("http", "ws")
EVERYBODY: Final = (
    jarvis(), SENDS, RAW, PUSH, JOINED, WRITE, SEED, FASTAPI, SOCKETIO, NODE,
)  # fmt: skip
BUSY: Final = "generator's load"
FRAMES: Final = "frames/s"
COST: Final = "server µs/frame"
CHATS: Final = "chats/s"
COST_CHAT: Final = "server µs/chat"
FIRST: Final = "first token p50 ms"
FIRST_LATE: Final = "first token p99 ms"
LATE: Final = "delay p99 ms"
CAME: Final = "share delivered"
EACH: Final = "bytes each"
MEBIBYTES: Final = "memory MiB"
KEPT: Final = "500 answers more each round, SQLite"
EACH_STREAM: Final = "bytes each beside its connection"


def _general(load: Load) -> Figures:
    return {
        FRAMES: load.frames_per_second,
        COST: load.cpu / load.seen["frames"] * 1e6,
        BUSY: load.busy,
    }


def streaming(
    bench: Bench, transport: str, connections: int = 50, script: str = "", *, spin: bool = True
) -> Callable[[Server], Figures]:
    """Answers as fast as they go, as long as it takes to fill the time.

    `spin`: the load generator never sleeps, so that the server is not charged for waking it; only
    where nobody else is on its core.
    """
    tokens: dict[str, int] = {}

    def measure(server: Server) -> Figures:
        name = server.contender.name
        count = tokens.get(name, max(2, 10_000 // connections))
        load = server.load(
            transport, f"tokens={count} {script}", connections=connections, spin=spin
        )
        wanted = load.frames_per_second * bench.seconds / connections
        tokens[name] = min(max(int(wanted), 10), 1_000_000)
        return _general(load)

    return measure


def having(transport: str, *contenders: Contender) -> list[Contender]:
    return [contender for contender in contenders if transport in contender.paths]


def single(bench: Bench) -> None:
    """50 answers at once, a turn of the event loop between two tokens."""
    for transport in TRANSPORTS:
        bench.alternate(
            "single", transport, having(transport, *EVERYBODY), streaming(bench, transport)
        )


def burst(bench: Bench) -> None:
    """50 answers at once, 16 tokens in each turn of the event loop."""
    for transport in TRANSPORTS:
        measure = streaming(bench, transport, script="burst=16")
        bench.alternate("burst", transport, having(transport, *EVERYBODY), measure)


def paced(bench: Bench) -> None:
    """Answers of 50 tokens a second, all fed by one timer wheel."""
    tokens = int(50 * max(2.5, 4 * bench.seconds))
    for streams in (200, 500, 1000, 1500, 2000, 4000):
        for transport in TRANSPORTS:

            def measure(
                server: Server, streams: int = streams, transport: str = transport
            ) -> Figures:
                load = server.load(
                    transport,
                    f"tokens={tokens} rate=50",
                    connections=streams,
                    stagger=1,
                    spin=True,
                )
                steady = load.seen["steady"]
                return {
                    "delay p50 ms": load.milliseconds("delay", "p50"),
                    LATE: load.milliseconds("delay", "p99"),
                    # A token is due from when its agent began: whoever begins late shows here only.
                    FIRST_LATE: load.milliseconds("first_token", "p99"),
                    CAME: steady["came"] / steady["due"] if steady["due"] else 0,
                    COST: load.cpu / load.seen["frames"] * 1e6,
                    BUSY: load.busy,
                }

            # The seed's design fails at 500.
            them = [jarvis(), SENDS, PUSH, WRITE, *([SEED] if streams <= 500 else [])]
            bench.alternate("paced", f"{streams} streams, {transport}", them, measure)


def sequential(bench: Bench) -> None:
    """Chats of one token, one after the other, on one connection."""
    chats: dict[str, int] = {}
    for transport in TRANSPORTS:

        def measure(server: Server, transport: str = transport) -> Figures:
            name = server.contender.name
            load = server.load(
                transport, "tokens=1", connections=1, chats=chats.get(name, 500), spin=True
            )
            chats[name] = max(200, int(load.chats_per_second * bench.seconds))
            return {
                CHATS: load.chats_per_second,
                COST_CHAT: load.cpu / load.seen["chats"] * 1e6,
                FIRST: load.milliseconds("first_token", "p50"),
                BUSY: load.busy,
            }

        them = having(transport, jarvis(), SENDS, RAW, PUSH, WRITE, SEED, FASTAPI, NODE)
        bench.alternate("sequential", transport, them, measure)


def supersede(bench: Bench) -> None:
    """One session: as soon as an answer has spoken, the next one takes its place."""
    for transport in TRANSPORTS:

        def measure(server: Server, transport: str = transport) -> Figures:
            load = server.load(
                transport,
                "tokens=1 hold",
                fields={"session_id": "storm"},
                connections=4 if transport == "http" else 1,
                supersede=bench.seconds,
                spin=True,
            )
            figures = {
                "supersedes/s": load.replaced_per_second,
                COST_CHAT: load.cpu / max(1, load.seen["replaced"]) * 1e6,
                "replaced p50 ms": load.milliseconds("replace", "p50"),
                "replaced p99 ms": load.milliseconds("replace", "p99"),
                BUSY: load.busy,
            }
            if server.contender.is_ours:
                scraped = server.metrics()
                waits = "jarvis_supersede_wait_seconds"
                under = scraped[waits + '_bucket{le="0.001"}'] / scraped[waits + "_count"]
                figures["share that waits under 1 ms"] = under
                figures["streams left behind"] = _left_behind(server)
            return figures

        # The reference only cancels a task and begins another one.
        them = [jarvis(), *([RAW] if transport == "ws" else [])]
        bench.alternate("supersede", transport, them, measure)


def _left_behind(server: Server) -> float:
    """Streams that are still there, once they had a second to go."""
    until = time.monotonic() + 1
    while True:
        scraped = server.metrics()
        left = sum(value for name, value in scraped.items() if name.startswith("jarvis_streams{"))
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.02)


def memory(bench: Bench) -> None:
    """What 5,000 idle WebSockets take, and 2,000 answers that have begun and are silent."""
    sockets, answers = (500, 200) if bench.is_short else (5000, 2000)

    def idle(contender: Contender) -> Figures:
        with serving(contender) as server:
            server.load("ws", "tokens=10", connections=50)
            before = server.rss
            with server.held("ws", None, connections=sockets):
                return {EACH: (server.rss - before) / sockets}

    def live(contender: Contender, transport: str) -> Figures:
        with serving(contender) as server:
            server.load(transport, "tokens=10", connections=50)
            before = server.rss
            with server.held(transport, None, connections=answers):
                connected = server.rss
            with server.held(transport, "tokens=1 hold", connections=answers):
                return {
                    EACH_STREAM: (server.rss - connected) / answers,
                    "bytes each with its connection": (server.rss - before) / answers,
                }

    them = [jarvis(), RAW, WRITE, SEED, SOCKETIO, NODE]
    bench.alternate_afresh("memory", f"{sockets} idle sockets", them, idle)
    for transport in TRANSPORTS:
        bench.alternate_afresh(
            "memory",
            f"{answers} live answers, {transport}",
            [jarvis(), RAW, WRITE, SEED],
            functools.partial(live, transport=transport),
        )


def sessions(bench: Bench) -> None:
    """1,000 sessions at once, three turns of 20 tokens in each, by where the history is."""
    count = 100 if bench.is_short else 1000

    def measure(server: Server) -> Figures:
        load = server.load(
            "http",
            "tokens=20",
            fields={"session_id": f"bench-{time.monotonic_ns()}-$N"},
            connections=count,
            chats=3,
        )
        return {
            CHATS: load.chats_per_second,
            FIRST: load.milliseconds("first_token", "p50"),
            FIRST_LATE: load.milliseconds("first_token", "p99"),
            BUSY: load.busy,
        }

    _with_histories(bench, "sessions", f"{count} sessions", measure)


def first_token(bench: Bench) -> None:
    """The time to the first token, by where the history is: it is durable before that leaves.

    PostgreSQL shares its core with the load generator, which therefore sleeps beside it.
    """
    chats = 100 if bench.is_short else 1000

    def spins(server: Server) -> bool:
        return server.contender.name != POSTGRES

    def alone(server: Server) -> Figures:
        load = server.load("http", "tokens=1", connections=1, chats=chats, spin=spins(server))
        return _first_token(load)

    def among(server: Server) -> Figures:
        options = {"connections": 200, "chats": 3, "stagger": 1, "spin": spins(server)}
        return _first_token(server.load("http", "tokens=50 rate=50", **options))

    _with_histories(bench, "first_token", "one chat at a time", alone)
    _with_histories(bench, "first_token", "200 chats of 1 s at once", among)


def _first_token(load: Load) -> Figures:
    return {
        FIRST: load.milliseconds("first_token", "p50"),
        "first token p99 ms": load.milliseconds("first_token", "p99"),
    }


MEMORY: Final = f"{OURS}, history in memory"
SQLITE: Final = f"{OURS}, SQLite"
POSTGRES: Final = f"{OURS}, PostgreSQL"


def _with_histories(
    bench: Bench, workload: str, case: str, measure: Callable[[Server], Figures]
) -> None:
    if not bench.wants(workload, case):
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        them = [
            jarvis(name=MEMORY),
            jarvis(f"--database-url=sqlite:///{folder}/bench.sqlite3", name=SQLITE),
        ]
        missing = ""
        try:
            url = stack.enter_context(postgres())
            them.append(jarvis(f"--database-url={url}", name=POSTGRES))
        except Missing as error:
            missing = str(error)
        bench.alternate(workload, case, them, measure)
        if missing:
            with bench.noting(workload, case, POSTGRES):
                raise Missing(missing)


def openai(bench: Bench) -> None:
    """A fast model's server behind it, which shares its core with the load generator."""
    flat_out, one_by_one = "50 as fast as they go, http", "200 of 100 tokens a second, http"
    if not any(bench.wants("openai", case) for case in (flat_out, one_by_one, KEPT)):
        return

    def measure_memory(server: Server) -> Figures:
        for _ in range(10):
            server.load("http", f"tokens={int(2000 * bench.seconds)}", connections=50)
        return {MEBIBYTES: server.rss / 2**20}

    def measure_paced(server: Server) -> Figures:
        tokens = int(max(100, 300 * bench.seconds))
        return _general(server.load("http", f"tokens={tokens} rate=100", connections=200))

    with serving(replace(SENDS, core=LOAD_CORE)) as upstream:
        flags = (
            "--agent=openai",
            f"--openai-base-url={upstream.url}/v1",
            "--openai-model=fake",
        )
        them = [jarvis(*flags), proxy(upstream.url)]
        bench.alternate("openai", flat_out, them, streaming(bench, "http", spin=False))
        bench.alternate("openai", one_by_one, them, measure_paced)
        # Its replays are full at once, its history is on disk: what grows after that is a leak.
        kept = jarvis(*flags, "--replay-bytes=1000000", "--database-url=")
        bench.alternate("openai", KEPT, [kept], measure_memory)


def slow_reader(bench: Bench) -> None:
    """499 paced answers, and one whose reader takes nothing of far more."""
    seconds = max(2, int(4 * bench.seconds))

    def measure(server: Server, transport: str) -> Figures:
        options = {"connections": 500, "stagger": 1, "spin": True}
        prompt, flood = f"tokens={50 * seconds} rate=50", f"tokens={50 * seconds} rate=50 size=4000"
        without = server.load(transport, prompt, **options)
        before = server.rss
        beside = server.load(transport, prompt, slow=1, slow_prompt=flood, **options)
        return {
            LATE: beside.milliseconds("delay", "p99"),
            "delay p99 ms without it": without.milliseconds("delay", "p99"),
            "memory it took, MiB": (server.rss - before) / 2**20,
        }

    for transport in TRANSPORTS:
        bench.alternate(
            "slow_reader",
            transport,
            [jarvis(), PUSH],
            functools.partial(measure, transport=transport),
        )


def growth(bench: Bench) -> None:
    """What a frame costs with more answers at once, and in a longer answer."""
    for transport in TRANSPORTS:
        for streams in (1, 10, 50, 200, 1000, 2000, 4000):
            them = [jarvis(), SENDS, PUSH, *([SEED] if streams < 1000 else [])]
            case = f"{streams} streams, {transport}"
            bench.alternate("growth", case, them, _going(bench, transport, streams))
    for frames in (1, 100, 1000, 10_000, 100_000):

        def measure(server: Server, frames: int = frames) -> Figures:
            load = server.load(
                "http", f"tokens={frames}", chats=max(1, min(2000, 20_000 // frames)), spin=True
            )
            return _general(load)

        bench.alternate("growth", f"1 stream of {frames} tokens", [jarvis(), PUSH], measure)


def _going(bench: Bench, transport: str, streams: int) -> Callable[[Server], Figures]:
    """Answers that all wait for each other: what it costs to begin them is not in the figures."""
    tokens = max(50, int(50_000 * bench.seconds) // streams)
    beginning = 0.5 + streams / 400  # seconds

    def measure(server: Server) -> Figures:
        at = time.monotonic_ns() + int(beginning * 1e9)
        load = server.load(transport, f"tokens={tokens} at={at}", connections=streams, spin=True)
        return {FRAMES: load.frames_per_second_together, BUSY: load.busy}

    return measure


WATCHED: Final = f"{OURS}, metrics and INFO"
UNWATCHED: Final = f"{OURS}, neither"


def overhead(bench: Bench) -> None:
    """With its metrics read every second and INFO logged, and with neither."""
    them = [jarvis(name=WATCHED), jarvis("--log-level=ERROR", name=UNWATCHED)]

    def observed(measure: Callable[[Server], Figures]) -> Callable[[Server], Figures]:
        def watched(server: Server) -> Figures:
            with contextlib.ExitStack() as stack:
                if server.contender.name == WATCHED:
                    stack.enter_context(server.scraped("/metrics", bench.seconds / 2))
                return measure(server)

        return watched

    def chats(server: Server) -> Figures:
        load = server.load("http", "tokens=1", chats=int(2000 * bench.seconds), spin=True)
        return {
            CHATS: load.chats_per_second,
            COST_CHAT: load.cpu / load.seen["chats"] * 1e6,
            BUSY: load.busy,
        }

    for transport in TRANSPORTS:
        bench.alternate("overhead", transport, them, observed(streaming(bench, transport)))
    bench.alternate("overhead", "chats of one token, http", them, observed(chats))


def start(bench: Bench) -> None:
    """From the start of the process until /readyz says so."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        database = f"--database-url=sqlite:///{folder}/bench.sqlite3"
        for case, flags in (
            ("as it comes, a new database", ("--agent=demo", "--database-url=")),
            ("a database that is there", ("--agent=demo", database)),
            ("history in memory", ("--agent=demo",)),
        ):
            bench.alternate_afresh(
                "start",
                case,
                [jarvis(*flags)],
                lambda contender: {"seconds": seconds_to_start(contender, "/readyz")},
            )


def products(bench: Bench) -> None:
    """10 answers of 500 tokens at once from whole products, each asked by its own protocol."""
    protocols = {OURS: "ndjson", CHAINLIT.name: "chainlit", LANGGRAPH.name: "langgraph"}

    def measure(server: Server) -> Figures:
        tokens = 50 if bench.is_short else 500
        told = server.ask_product(protocols[server.contender.name], tokens, answers=10)
        return {
            "tokens/s": told["tokens"] / told["seconds"],
            FIRST: told["first_token"] * 1000,
            BUSY: told["busy"],
        }

    bench.alternate("products", "10 answers", [jarvis(), CHAINLIT, LANGGRAPH], measure)


WORKLOADS: Final[tuple[Callable[[Bench], None], ...]] = (
    single,
    burst,
    paced,
    sequential,
    first_token,
    sessions,
    supersede,
    openai,
    memory,
    slow_reader,
    growth,
    overhead,
    start,
    products,
)

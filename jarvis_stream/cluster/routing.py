"""The way to the store: a Redis, or whichever primary of a Redis Cluster holds a key.

A Redis Cluster divides the keys into slots, by what is in braces in a key, and the slots among its
primaries. Who asks the wrong one is told which is right (MOVED, or ASK while a slot moves), and
nothing was carried out then: so it may be asked again. A map of the slots is kept, and learnt anew
when a connection breaks or a map was wrong, from whichever nodes answer: where a primary has died
and its replica was promoted, all goes on by itself.

What is asked of one primary is carried out in that order; of several, at once. While a slot moves,
what one caller asks of a key keeps its order, and what several do may not. A primary that does not
answer costs the answers that it owes, and no others.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)

from jarvis_stream.clock import StoreClock
from jarvis_stream.cluster import wire
from jarvis_stream.cluster.base import StoreLost
from jarvis_stream.cluster.wire import TIMEOUT, Address, Line, pack, pauses
from jarvis_stream.recurring import RecurringLog

SETTLE = 0.01
"""Seconds until a slot that moves is asked again."""
LEARN_EVERY = 0.1
"""Seconds between two looks at the map of the slots, at least."""
LEARN_ANYWAY = 15.0
"""And at most: new replicas are known before they are needed."""

MAX_TAGS = 256
"""The most tags that are tried to find one for each primary."""

_KEYLESS = frozenset((b"PING", b"INFO"))
_ASKING = pack("ASKING")
_LOOK = (pack("CLUSTER", "INFO"), pack("CLUSTER", "SLOTS"))


def slot_of(command: bytes) -> int | None:
    """The slot of a packed command's first key; None for one without keys."""
    _, _, name, *key = command.split(b"\r\n", 4)
    if name in _KEYLESS:
        return None
    size, rest = key
    if name == b"EVALSHA":  # sha, how many keys, the first one
        *_, size, rest = rest.split(b"\r\n", 4)
    return key_slot(rest[: int(size[1:])])


class Router:
    """Asks whoever is right. Works while `running`."""

    def __init__(
        self, url: str, *, timeout: float = TIMEOUT, wait: float = 0.0, greeting: Sequence[bytes]
    ) -> None:
        """`wait`: seconds to try on entry; `timeout`, of every call; `greeting`: see Line.

        The URL may name several nodes of a Redis Cluster, with commas between them. Raises
        StoreLost for one that cannot be used.
        """
        self._seeds = _seeds(url)
        self._timeout = timeout
        self._wait = wait
        self._greeting = greeting
        self._line = self._line_to(self._seeds[0])
        self._primaries: Primaries | None = None
        self.info: dict[str, str] = {}
        """What the first one asked has told of itself; nothing when one may not ask for it."""
        self.ask: Callable[[Sequence[bytes]], Awaitable[list[Any]]] = self._line.ask
        """The reply to each command, or the ResponseError or (not of a single Redis) StoreLost that
        stands in its place; raises StoreLost when there are no replies at all. What has no key
        is asked of every primary: the reply is that of any which answers."""

    @property
    def url(self) -> str:
        """Of one node, with its password."""
        return self._seeds[0]

    @property
    def place(self) -> str:
        """Where the store is, without names and passwords."""
        return self._line.place

    @property
    def is_cluster(self) -> bool:
        """Whether it is a Redis Cluster."""
        return self._primaries is not None

    @property
    def is_whole(self) -> bool:
        """Whether every primary has answered what it was asked last."""
        return self._primaries is None or self._primaries.is_whole

    @property
    def since(self) -> float:
        """See Health."""
        return self._line.connected_at if self._primaries is None else self._primaries.since

    async def read_clocks(self) -> float:
        """Compare every primary's clock with ours; return the value for Health.furthest."""
        lines = [self._line] if self._primaries is None else list(self._primaries.all())
        lines = [line for line in lines if line.up.is_set()]
        await asyncio.gather(*(line.read_clock() for line in lines), return_exceptions=True)
        return max((line.clock.furthest for line in lines), default=-math.inf)

    def tags(self) -> list[str]:
        """Return one text per primary that, in braces in a key, selects that primary."""
        if self._primaries is None:
            return ["probe"]
        found: dict[Line, str] = {}
        wanted = len(list(self._primaries.all()))
        for number in range(MAX_TAGS):
            owner = self._primaries.owner(key_slot(b"probe-%d" % number))
            if owner is not None:
                found.setdefault(owner, f"probe-{number}")
            if len(found) == wanted:
                break
        return list(found.values())

    def clock_of(self, key: bytes) -> StoreClock:
        """Return the clock of the server that has a key."""
        if self._primaries is None:
            return self._line.clock
        line = self._primaries.owner(key_slot(key))
        return StoreClock() if line is None else line.clock

    def near(self, address: Address | None) -> Address | None:
        """The same if it is a node, else any that lives; None when there is but one."""
        return self._primaries.near(address) if self._primaries is not None else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected on entry, or StoreLost."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait
        rests = pauses()
        failures = RecurringLog()
        async with AsyncExitStack() as stack:
            while True:
                try:
                    await self._find(stack)
                    break
                except StoreLost as error:
                    left = deadline - loop.time()
                    if left <= 0:
                        raise
                    failures.log("WARNING", "cluster_waiting reason={}", error)
                    await asyncio.sleep(min(next(rests), left))
            yield

    async def _find(self, stack: AsyncExitStack) -> None:
        """Ask the first seed that answers what this is, and keep the right connections."""
        for seed in self._seeds:
            self._line = line = self._line_to(seed)
            try:
                async with AsyncExitStack() as trial:
                    await trial.enter_async_context(line.running())
                    view = await self._look(line)
                    if view is None:
                        self.ask = line.ask
                        stack.push_async_callback(trial.pop_all().aclose)
                        return
                primaries = Primaries(self._line_to, self._seeds, view, timeout=self._timeout)
                await stack.enter_async_context(primaries.running())
                self._primaries, self.ask = primaries, primaries.ask
                return
            except StoreLost as error:
                if seed == self._seeds[-1]:
                    raise
                logger.warning("cluster_unreachable reason={}", error)

    async def _look(self, line: Line) -> View | None:
        info, more = await line.ask([pack("INFO"), _LOOK[0]])
        if isinstance(info, Exception):  # this user may not look
            is_cluster = not isinstance(more, Exception)
        else:
            self.info = _fields(info)
            is_cluster = self.info.get("redis_mode") == "cluster"
        if not is_cluster:
            if len(self._seeds) > 1:
                raise StoreLost(f"Redis at {line.place} is not a Redis Cluster: name one host")
            return None
        if line.place.startswith("/"):
            raise StoreLost(f"Redis at {line.place} is a Redis Cluster: name a host and port of it")
        view = await View.of(line)
        if not view.slots:
            raise StoreLost(f"the Redis Cluster at {line.place} serves no slots yet")
        return view

    def _line_to(
        self,
        where: str | Address,
        *,
        on_lost: Callable[[], object] = lambda: None,
        greets: bool = True,
    ) -> Line:
        """A connection to a seed, or to a node that is known by its address."""
        url = where if isinstance(where, str) else self._seeds[0]
        greeting = self._greeting if greets else ()
        line = Line(url, timeout=self._timeout, greeting=greeting, on_lost=on_lost)
        if not isinstance(where, str):
            line.go_to(where)
        return line


def _seeds(url: str) -> list[str]:
    """The URLs of all that are named: `scheme://user:password@one:1,two:2` are two."""
    named = re.fullmatch(r"(\w+://(?:[^/?]*@)?)([^/?@]+)(.*)", url)
    if named is None:
        return [url]
    before, hosts, after = named.groups()
    return [f"{before}{host}{after}" for host in hosts.split(",")]


def _fields(info: bytes) -> dict[str, str]:
    """Of what INFO and CLUSTER INFO reply."""
    lines = info.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if line[:1] not in ("", "#"))


@dataclass(frozen=True, slots=True)
class View:
    """The map of the slots, as one node sees it."""

    is_ok: bool
    """Whether the node is in touch with most primaries."""
    epoch: int
    """Every change has a higher one."""
    slots: list[tuple[int, int, Address]]
    """From which to which, and whose."""
    nodes: list[Address]
    """All, replicas too."""

    @classmethod
    async def of(cls, line: Line) -> View:
        """Ask a node. Raises StoreLost."""
        replies = await line.ask(_LOOK)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise StoreLost(f"Redis at {line.place} refused: {reply}") from reply
        info, rows = _fields(replies[0]), replies[1]

        def address(row: Sequence[Any]) -> Address:
            # No name, or one that it does not know itself: where it was asked.
            return (row[0] or b"?").decode().replace("?", "") or line.address[0], int(row[1])

        return cls(
            is_ok=info.get("cluster_state") == "ok",
            epoch=int(info.get("cluster_current_epoch", 0)),
            slots=[(first, last, address(primary)) for first, last, primary, *_ in rows],
            nodes=list(dict.fromkeys(address(node) for _, _, *nodes in rows for node in nodes)),
        )


@dataclass(slots=True)
class _Part:
    """What is asked of one primary in one go."""

    commands: list[bytes] = field(default_factory=list)
    places: list[int | None] = field(default_factory=list)
    """Whose reply each one's is; None: nobody's."""

    def add(self, at: int, command: bytes, *before: bytes) -> None:
        """`before`: what must go before it."""
        if before:
            self.commands += before
            self.places += [None] * len(before)
        self.commands.append(command)
        self.places.append(at)


class Primaries:
    """Those of a Redis Cluster."""

    def __init__(
        self,
        line_to: Callable[..., Line],
        seeds: Sequence[str],
        view: View,
        *,
        timeout: float,
    ) -> None:
        self._line_to = line_to
        self._seeds = seeds
        self._timeout = timeout
        self._view = view
        self._lines: dict[Address, Line] = {}
        self._tasks: dict[Line, asyncio.Task[None]] = {}
        """What keeps each connected."""
        self._owners: list[Line | None] = []
        """By slot."""
        self._stale = asyncio.Event()
        """The map may be wrong."""
        self._moved_at = time.monotonic()
        """When a slot was last found elsewhere."""

    @property
    def is_whole(self) -> bool:
        """See Router."""
        return all(line.answers and not line.is_down for line in self._lines.values())

    @property
    def since(self) -> float:
        """See Health. The clock of who has a slot now may not be that of who had it."""
        times = (line.connected_at for line in self._lines.values())
        return max([self._moved_at, *(at for at in times if at != math.inf)])

    def near(self, address: Address | None) -> Address:
        """See Router."""
        if address in self._view.nodes:
            return address
        living = [address for address, line in self._lines.items() if line.up.is_set()]
        return random.choice(living or self._view.nodes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On entry in touch with all that answer; StoreLost when none does."""
        self._use(self._view)
        learning = asyncio.create_task(self._learn())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wire.CONNECT_TIMEOUT):
                    for line in tuple(self._lines.values()):
                        await line.tried.wait()
            if not any(line.up.is_set() for line in self._lines.values()):
                places = " ".join(line.place for line in self._lines.values())
                raise StoreLost(
                    f"none of the primaries that the Redis Cluster names can be reached: {places}"
                )
            yield
        finally:
            learning.cancel()
            await asyncio.wait([learning])
            await self._let_go(tuple(self._lines.values()))

    # Asking

    async def ask(self, commands: Sequence[bytes]) -> list[Any]:
        """See Router. Never raises StoreLost: it stands in the place of each reply that is lost."""
        return await _Call(self, commands).replies(self._timeout)

    def owner(self, slot: int) -> Line | None:
        """Who is thought to have a slot."""
        return self._owners[slot]

    def all(self) -> Iterable[Line]:
        """Every primary."""
        return self._lines.values()

    def move(self, moved: MovedError, line: Line) -> Line:
        """A slot is somewhere else, as `line` says: it is asked there from now on."""
        self._stale.set()
        owner = self.line_at(moved, line)
        self._owners[moved.slot_id] = owner
        return owner

    def line_at(self, ask: AskError, line: Line) -> Line:
        """Where `line` says that one should ask."""
        self._moved_at = time.monotonic()
        return self._line_at((ask.host or line.address[0], ask.port))

    def doubt(self) -> None:
        """Look at the map again."""
        self._stale.set()

    # The map

    def _line_at(self, address: Address) -> Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = self._line_to(address, on_lost=self._stale.set)
            self._tasks[line] = asyncio.create_task(line.run())
        return line

    def _use(self, view: View) -> list[Line]:
        """Ask by this map; returns who has no slots any more."""
        self._view = view
        self._owners = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, address in view.slots:
            self._owners[first : last + 1] = [self._line_at(address)] * (last + 1 - first)
        primaries = set(self._owners)
        return [line for line in self._lines.values() if line not in primaries]

    async def _learn(self) -> None:
        failures = RecurringLog()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEARN_ANYWAY):
                    await self._stale.wait()
            self._stale.clear()
            try:
                view = await self._look()
            except Exception as error:
                failures.log("ERROR", "cluster_slots_unknown", error=error)
            else:
                failures.recovered()
                if view is not None:
                    await self._change_to(view)
            await asyncio.sleep(LEARN_EVERY)

    async def _change_to(self, view: View) -> None:
        if view.slots != self._view.slots:
            places = {":".join(map(str, address)) for *_, address in view.slots}
            logger.info("cluster_slots_moved primaries={}", " ".join(sorted(places)))
        before = self._owners
        useless = self._use(view)
        if self._owners != before:
            self._moved_at = time.monotonic()
        idle = [line for line in useless if line.is_idle]
        if len(idle) < len(useless):
            # None may stay: who is promoted again must be seen to be new (see Health.since).
            self._stale.set()
        await self._let_go(idle)

    async def _look(self) -> View | None:
        """The newest map that anybody has."""
        found = await asyncio.gather(
            *(View.of(line) for line in self._lines.values() if not line.is_down),
            return_exceptions=True,
        )
        views = [view for view in found if isinstance(view, View) and view.slots]
        if not views:
            for where in (*self._view.nodes, *self._seeds):
                line = self._line_to(where, greets=False)
                with suppress(StoreLost):
                    async with line.running():
                        views.append(await View.of(line))
                    break
        return max(views, key=lambda view: (view.is_ok, view.epoch), default=None)

    async def _let_go(self, lines: Iterable[Line]) -> None:
        tasks = []
        for line in lines:
            del self._lines[line.address]
            task = self._tasks.pop(line)
            task.cancel()
            tasks.append(task)
        if tasks:
            await asyncio.wait(tasks)


class _Call:
    """Some commands, until each has its reply."""

    def __init__(self, primaries: Primaries, commands: Sequence[bytes]) -> None:
        self._primaries = primaries
        self._commands = commands
        self._replies: list[Any] = [None] * len(commands)
        self._parts: dict[Line, _Part] = {}
        """What is to be asked next."""
        self._unsettled: list[int] = []
        """Whose slot is moving: to be asked again in a moment."""

    async def replies(self, seconds: float) -> list[Any]:
        """To each command: what was replied, or a StoreLost when there was nothing in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._plan(range(len(self._commands)))
        turns = 0
        while self._parts or self._unsettled:
            if turns > 1 or self._unsettled:  # the nodes do not agree yet
                await asyncio.sleep(SETTLE)
                self._plan(self._unsettled)
            left = until - loop.time()
            if left <= 0:
                self._give_up()
                break
            await self._ask(left)
            turns += 1
        return self._replies

    def _give_up(self) -> None:
        lost = StoreLost("the Redis Cluster did not settle the move of a key in time")
        for part in self._parts.values():
            for at in part.places:
                if at is not None:
                    self._lose(at, lost)

    def _plan(self, places: Sequence[int]) -> None:
        """Ask these by the map."""
        self._unsettled = []
        for at in places:
            slot = slot_of(self._commands[at])
            if slot is None:
                for line in self._primaries.all():
                    self._add(line, at)
            elif (owner := self._primaries.owner(slot)) is None:
                self._lose(at, StoreLost(f"no primary of the Redis Cluster serves slot {slot}"))
            else:
                self._add(owner, at)

    def _add(self, line: Line, at: int, *before: bytes) -> None:
        if line.is_down:
            self._lose(at, StoreLost(f"there is no connection to Redis at {line.place}"))
        else:
            self._parts.setdefault(line, _Part()).add(at, self._commands[at], *before)

    async def _ask(self, seconds: float) -> None:
        parts, self._parts = self._parts, {}
        questions = {line: line.put(part.commands) for line, part in parts.items()}
        try:
            answers = [question.answer for question in questions.values()]
            await wire.wait_for_replies(answers, seconds)
        finally:
            for line, question in questions.items():
                line.withdraw(question)
        for line, part in parts.items():
            try:
                replies = line.take(questions[line])
            except StoreLost as lost:
                replies = [lost] * len(part.places)
            for at, reply in zip(part.places, replies, strict=True):
                if at is not None:
                    if isinstance(reply, Exception):
                        self._sort(line, at, reply)
                    else:
                        self._replies[at] = reply

    def _sort(self, line: Line, at: int, reply: Exception) -> None:
        """Whoever is sent elsewhere was not carried out, and is asked again."""
        match reply:
            case MovedError():
                self._add(self._primaries.move(reply, line), at)
            case AskError():
                self._add(self._primaries.line_at(reply, line), at, _ASKING)
            case TryAgainError():
                self._unsettled.append(at)
            case NoScriptError():
                self._add(line, at, *(() if line in self._parts else line.greeting))
            case ClusterDownError():
                self._lose(at, StoreLost(f"Redis at {line.place} refused: {reply}"))
            case StoreLost():
                self._lose(at, reply)
            case _:
                self._fail(at, reply)

    def _lose(self, at: int, lost: StoreLost) -> None:
        self._primaries.doubt()
        self._fail(at, lost)

    def _fail(self, at: int, error: Exception) -> None:
        if self._replies[at] is None:  # where one without a key goes, another may have answered
            self._replies[at] = error

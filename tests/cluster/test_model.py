"""The store in Redis against the one in memory: chance looks for a difference.

And then in scripts with a step left out: what chance would not find there, it would not find here.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from contracts.cluster import FAR, PATIENCE
from profiles import amount
from redis_server import RedisServer

from jarvis_stream.cluster import redis
from jarvis_stream.cluster.base import (
    Appended,
    Batch,
    Busy,
    Claim,
    Cluster,
    Name,
    OnConflict,
    Outdated,
    Outrun,
    Renewed,
    Reserved,
    StoreLost,
    Tail,
    Vacated,
    Verdict,
)
from jarvis_stream.cluster.memory import MemoryStore
from jarvis_stream.cluster.redis import RedisCluster

STEPS = 100
SEEDS = range(amount("CLUSTER_MODEL_SEEDS", default=8, long=30))
MUTANT_SEEDS = range(30)
LEASES = {"one": 3600.0, "two": 3600.0, "dead": -1.0}
"""Seconds, of each node: the leases of the last are over before they begin."""
ON_CONFLICT: list[OnConflict] = [
    "interrupt",
    "interrupt",
    "rollback",
    "reject",
    "enqueue",
    "enqueue",
    "enqueue",
]
STREAMS = [f"stream{number}" for number in range(30)]
FUTURE = 2_000_000_000_000
"""Tickets above this one are those of no clock."""


class Difference(AssertionError):
    """The two do not agree, or neither does what it must."""


@dataclass
class Start:
    """A stream that was started, and how far its agent has come."""

    node: str
    claim: Claim
    said: int = 0

    def batch(self, first: int, last: int) -> Batch:
        return Batch(claim=self.claim, first=first, last=last, frames=lines(self, first, last))


def lines(start: Start, first: int, last: int) -> bytes:
    """Its frames after seq `first`, up to `last`: like nobody else's."""
    nonce = start.claim.name.nonce.encode()
    return b"".join(b'{"of":"%b","seq":%d}\n' % (nonce, seq) for seq in range(first + 1, last + 1))


class Twins:
    """Does everything twice, and compares."""

    def __init__(self, nodes: dict[str, tuple[Cluster, Cluster]], seed: int) -> None:
        self.dice = random.Random(seed)
        self.starts: list[Start] = []
        self.fenced: set[str] = set()
        """Nonces that may not append any more."""
        self._nodes = nodes
        self._floor = FUTURE

    async def both(self, node: str, call: str, *arguments: Any, **more: Any) -> Any:
        """What both say; raises Difference unless that is the same."""
        answers = [
            await _outcome(getattr(view, call)(*arguments, **more)) for view in self._nodes[node]
        ]
        if answers[0] != answers[1]:
            raise Difference(f"{answers[0]} in memory, {answers[1]} in Redis")
        return answers[0]

    async def run(self) -> None:
        steps = [self.start] * 4 + [self.say] * 6 + [self.claim_again] * 2 + [self.close] * 2
        steps += [self.release, self.bury, self.renew, self.stop, self.free, self.remove]
        for _ in range(STEPS):
            await self.dice.choice(steps)()
            await self.look()
        for start in self.starts:
            await self.both(start.node, "release", [start.claim])
        for session in "st":
            if await self.both("one", "living", [session]) != [[]]:
                raise Difference("something is left")

    async def start(self, stream: str | None = None) -> None:
        node = self.dice.choice(list(LEASES))
        name = Name(
            stream=stream or self.dice.choice(STREAMS),
            session=self.dice.choice("st"),
            nonce=f"nonce{len(self.starts)}",
            node=node,
            trace_id="trace",
        )
        if isinstance(await self.both(node, "reserve", name), Name):
            return
        self._floor += self.dice.randrange(5)
        epoch = await self.both(node, "ticket", name.session, self._floor)
        self.starts.append(Start(node, Claim(name=name, epoch=epoch)))
        if self.dice.random() < 0.6:
            await self.claim(self.starts[-1])

    async def claim_again(self) -> None:
        if start := self.anyone():
            await self.claim(start)

    async def claim(self, start: Start) -> None:
        on_conflict = self.dice.choice(ON_CONFLICT)
        answer = await self.both(start.node, "claim", start.claim, on_conflict=on_conflict)
        if isinstance(answer, list):
            for other in self.starts:
                if (
                    other.claim.name.session == start.claim.name.session
                    and other.claim.epoch < start.claim.epoch
                ):
                    self.fenced.add(other.claim.name.nonce)

    async def say(self) -> None:
        if start := self.anyone():
            first = max(0, start.said - self.dice.randrange(3))
            last = start.said + self.dice.randrange(-1, 4)
            if self.dice.random() < 0.1:
                first += 3
            last = max(first + 1, last)
            appended = await self.both(start.node, "append", [start.batch(first, last)])
            self.check(start, appended[0])
            start.said = appended[0].last

    def check(self, start: Start, appended: Appended) -> None:
        if appended.verdict is Verdict.GOOD and start.claim.name.nonce in self.fenced:
            raise Difference("the fence is open")

    async def close(self) -> None:
        if start := self.anyone():
            first = max(0, start.said - self.dice.randrange(3)) + 5 * (self.dice.random() < 0.1)
            last = max(first, start.said) + 1
            is_end = self.dice.random() < 0.7
            batch = start.batch(first, last)._replace(is_end=is_end)
            (closed,) = await self.both(start.node, "close", [batch])
            start.said = closed.last
            if is_end and closed.verdict is not Verdict.REGRESSED:
                self.fenced.add(start.claim.name.nonce)

    async def bury(self) -> None:
        if start := self.anyone():
            if self.dice.random() < 0.3:
                await self.both("one", "bury", [start.batch(0, 0)])
                return
            last = start.said + self.dice.randrange(-1, 3)
            first = max(0, last - self.dice.randrange(1, 3))
            if last <= first:
                return
            (buried,) = await self.both("one", "bury", [start.batch(first, last)])
            if buried:
                start.said = last
                self.fenced.add(start.claim.name.nonce)
                if start.node != "dead" and await self.is_member(start):
                    raise Difference("it was alive")

    async def is_member(self, start: Start) -> bool:
        living = await self.both("one", "living", [start.claim.name.session])
        return start.claim.name in [one.name for one in living[0]]

    async def release(self) -> None:
        if start := self.anyone():
            self.fenced.add(start.claim.name.nonce)
            await self.both(start.node, "release", [start.claim])

    async def renew(self) -> None:
        if start := self.anyone():
            renewed: list[Renewed] = await self.both(start.node, "renew", [start.claim])
            assert len(renewed) == 1

    async def stop(self) -> None:
        stream = self.dice.choice(STREAMS)
        await self.both("two", "stop", stream)

    async def free(self) -> None:
        if start := self.anyone():
            self.fenced.add(start.claim.name.nonce)
            for _ in range(2):
                await self.both(start.node, "free", [start.claim.name])
                await self.start(start.claim.name.stream)  # which the second time is another's

    async def remove(self) -> None:
        if self.dice.random() < 0.1:
            before = await self.both("one", "ticket", "s", self._floor)
            if self.dice.random() < 0.5:
                await self.both("one", "remove", "s", 0, before - self.dice.randrange(3))
            elif epochs := [start.claim.epoch for start in self.starts[-4:]]:
                await self.both("one", "remove", "s", min(epochs), max(epochs), "stream0")

    async def look(self) -> None:
        """Everything that can be seen is the same, and no log has a hole or a stranger's frame."""
        await self.both("two", "living", ["s", "t"])
        for stream in self.dice.sample(STREAMS, 3):
            await self.both("one", "find", stream)
        if not self.starts:
            return
        for start in self.dice.sample(self.starts, min(3, len(self.starts))):
            await self.both("two", "older", start.claim)
            cursor = self.dice.choice((0, 0, 1, 2, 5, FAR))
            tails: list[Tail | None] = await self.both("two", "read", [(start.claim.name, cursor)])
            if (tail := tails[0]) and tail.frames != lines(
                start, min(cursor, tail.last), tail.last
            ):
                raise Difference(f"after {cursor} it reads {tail.frames!r}")

    def anyone(self) -> Start | None:
        """One that was started; rather a new one."""
        recent = self.starts[-5:] if self.dice.random() < 0.8 else self.starts
        return self.dice.choice(recent) if recent else None


async def _outcome(call: Awaitable[Any]) -> Any:
    try:
        answer = await call
    except Vacated:
        return "vacated"
    except Outrun as outrun:
        return "outrun", outrun.by
    except Outdated:
        return "removed"
    except StoreLost as lost:
        return "lost", str(lost)
    except Busy as busy:
        return "busy", busy.by, busy.epoch, busy.position
    if isinstance(answer, Reserved | Name | bool | int | Appended) or answer is None:
        return answer
    return [list(one) if isinstance(one, list) else one for one in answer]


@asynccontextmanager
async def twins(server: RedisServer, seed: int) -> AsyncIterator[Twins]:
    with server.client() as client:
        client.flushall()
    redis._append_head.cache_clear()  # they know which script to ask for
    redis._read_head.cache_clear()
    store = MemoryStore(keep=3600.0, timeout=PATIENCE)
    async with AsyncExitStack() as stack:
        nodes: dict[str, tuple[Cluster, Cluster]] = {}
        for node, lease in LEASES.items():
            real = RedisCluster(
                server.url, node=node, lease=lease, keep=3600.0, timeout=PATIENCE, grace=0.0
            )
            await stack.enter_async_context(real.running(lambda word: None))
            twin = store.node(node, lease=lease, grace=0.0)
            await stack.enter_async_context(twin.running(lambda word: None))
            nodes[node] = twin, real
        yield Twins(nodes, seed)


@pytest.mark.parametrize("seed", SEEDS[:10])
async def test_they_agree(shared_redis: RedisServer, seed: int) -> None:
    async with twins(shared_redis, seed) as pair:
        await pair.run()


MUTANTS = {
    "no order of tickets": ("claim", "me.epoch <= claimed", "false"),
    "what was closed may claim": ("claim", "if ended[2] or", "if"),
    "what was released may claim": ("claim", "ended[1] and not ended[2]", "false"),
    "what was released may close": ("close", "if stream[5] then", "if false then"),
    "what has spoken is vacated": ("bury", "last == 0 and known == 0", "last == 0"),
    "the queue is not emptied": (
        "claim",
        "if other.epoch < me.epoch then\n      s",
        "if false then\n      s",
    ),
    "the queue is emptied of all": (
        "claim",
        "if other.epoch < me.epoch then\n      s",
        "if true then\n      s",
    ),
    "the dead hold a session": (
        "claim",
        "owner and not is_expired(owner.nonce, horizon) and owner",
        "owner",
    ),
    "no fence": ("append", "session[1] ~= nonce and", "false and"),
    "a hole": ("append", "if first > known", "if false"),
    "an old batch again": ("append", "if last > known", "if true"),
    "anybody's release": (
        "common",
        "redis.call('HDEL', MEMBERS, nonce)",
        "redis.call('DEL', MEMBERS)",
    ),
    "a closed owner": ("common", "redis.call('HGET', SESSION, 'owner') == nonce", "false"),
    "closed twice": ("close", "if stream[2] then", "if false then"),
    "the living are buried": ("bury", "not is_expired(nonce, ARGV[8]) or", ""),
    "buried too early": ("bury", "if last <= known", "if false"),
    "no end to a lease": (
        "common",
        "return ends < math.min(time, tonumber(horizon))",
        "return ends < 0",
    ),
    "a name for two": ("name_reserve", "owner ~= '' and owner ~= ARGV[1]", "false"),
    "a stop is lost": ("name_reserve", "mark .. ARGV[1]", "'=' .. ARGV[1]"),
    "anybody frees a name": ("name_free", "== ARGV[1]", "~= ''"),
    "nothing is removed": ("remove", "{first, before}", "{0, 0}"),
    "a removal forgets those before it": ("remove", "table.insert(kept, span)", ""),
    "a claim outlives a removal": ("claim", "is_removed(me.epoch)", "false"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_step_left_out_is_found(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    changed, old, new = MUTANTS[mutant]
    texts = redis.read_scripts()
    assert old in texts[changed]
    texts[changed] = texts[changed].replace(old, new)
    monkeypatch.setattr(redis, "_LUA", redis.Scripts(texts))
    found = False
    for seed in MUTANT_SEEDS:
        async with twins(shared_redis, seed) as pair:
            try:
                await pair.run()
            except Difference:
                found = True
                break
    assert found

"""Users at random on several servers, while the servers, Redis and the network fail.

What every one of them sees is kept, with the node it was seen on, and compared in the end.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from acceptance.clients import TERMINAL, Frame, new_id, outcome
from redis_proxy import RedisProxy
from redis_server import RedisServer

from .agents import read_diary
from .servers import Node, call

BOUND = 2.0
LEASE = 3.0
GRACE = 1.0
"""Seconds by which a busy machine may be late."""
SESSIONS = 4
USERS = 8


@dataclass
class Reading:
    """What one reader saw of one stream."""

    stream: str
    node: Node
    after: int
    lines: list[bytes] = field(default_factory=list)

    @property
    def frames(self) -> list[Frame]:
        return [orjson.loads(line) for line in self.lines]


@dataclass
class Asked:
    """One question."""

    session: str
    prompt: str
    node: Node
    at: float
    refused: bool = False


class Chaos:
    """All of it; `run` it, and `check` it once everything is at rest."""

    def __init__(self, nodes: list[Node], seed: int, prefix: str = "chaos") -> None:
        self.nodes = nodes
        self.dice = random.Random(seed)
        self.sessions = [f"{prefix}-{number}" for number in range(SESSIONS)]
        self.asked: dict[str, Asked] = {}
        self.readings: list[Reading] = []
        self.stopped: set[str] = set()
        self.attempts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # What users do

    async def run(self, seconds: float) -> None:
        """Let all users do something, all the time."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._user(self.dice.getrandbits(32), until) for _ in range(USERS)))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _user(self, seed: int, until: float) -> None:
        dice = random.Random(seed)
        while time.monotonic() < until:
            await asyncio.sleep(dice.expovariate(4))
            deed = dice.choice((self._ask, self._ask, self._stop, self._resume, self._watch))
            task = asyncio.create_task(self._do(deed, dice.choice(self.nodes), dice))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, deed: Any, node: Node, dice: random.Random) -> None:
        self.attempts += 1
        # A node that is down, a connection that breaks: that is life here.
        with suppress(aiohttp.ClientError, OSError, TimeoutError, RuntimeError):
            await deed(node, random.Random(dice.getrandbits(32)))

    async def _ask(self, node: Node, dice: random.Random) -> None:
        stream = new_id()
        prompt = f"{dice.randrange(200)} {dice.choice((0, 0.01, 0.05))} {dice.choice((0, 0, 0.2))}"
        asked = self.asked[stream] = Asked(
            dice.choice(self.sessions), prompt, node, time.monotonic()
        )
        body = {
            "prompt": prompt,
            "session_id": asked.session,
            "stream_id": stream,
            "on_conflict": dice.choice(("interrupt", "interrupt", "interrupt", "enqueue")),
            "on_disconnect": dice.choice(("cancel", "continue")),
        }
        async with node.api.http.post(node.api.url + "/api/chat", json=body) as response:
            if response.status != 200:
                asked.refused = True
                return
            await self._read(response, Reading(stream, node, 0), dice)

    async def _resume(self, node: Node, dice: random.Random) -> None:
        if not self.asked:
            return
        stream = dice.choice(list(self.asked)[-20:])
        after = dice.choice((0, 0, 1, 3))
        url = f"{node.api.url}/api/streams/{stream}?after={after}"
        async with node.api.http.get(url) as response:
            if response.status == 200:
                await self._read(response, Reading(stream, node, after), dice)

    async def _read(
        self, response: aiohttp.ClientResponse, reading: Reading, dice: random.Random
    ) -> None:
        self.readings.append(reading)
        leaves_after = dice.randrange(150) if dice.random() < 0.1 else None
        async for line in response.content:
            if line.endswith(b"\n") and line.strip():
                reading.lines.append(line)
            if leaves_after is not None and len(reading.lines) > leaves_after:
                self.stopped.add(reading.stream)
                return

    async def _stop(self, node: Node, dice: random.Random) -> None:
        if self.asked:
            stream = dice.choice(list(self.asked)[-10:])
            self.stopped.add(stream)
            await node.api.cancel(stream)

    async def _watch(self, node: Node, dice: random.Random) -> None:
        async with node.api.socket() as ws:
            await ws.send(type="watch", session_id=dice.choice(self.sessions))
            readings: dict[str, Reading] = {}
            with suppress(TimeoutError, AssertionError):
                async with asyncio.timeout(dice.uniform(0.5, 4)):
                    while True:
                        message = await ws.ws.receive()
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            return
                        for line in message.data.encode().splitlines(keepends=True):
                            frame = orjson.loads(line)
                            if "seq" not in frame:
                                continue
                            stream = frame["stream_id"]
                            if stream not in readings:
                                readings[stream] = Reading(stream, node, 0)
                                self.readings.append(readings[stream])
                            readings[stream].lines.append(line)

    # What must hold

    async def at_rest(self, patience: float) -> None:
        """Until no node has a stream any more."""
        async with asyncio.timeout(patience):
            for node in self.nodes:
                await node.api.until(_is_idle)

    async def all_kept(self, patience: float) -> None:
        """Until the history says of every answer how it ended."""
        async with asyncio.timeout(patience):
            for session in self.sessions:
                while any(  # noqa: ASYNC110
                    message.get("status") == "streaming"
                    for message in await self.nodes[0].api.messages(session)
                ):
                    await asyncio.sleep(0.5)

    async def check(self, diary: Path) -> None:
        """Compare what was seen, kept and done."""
        ends = self._check_frames()
        self._check_agents(diary, ends)
        await self._check_history(ends)

    def harmed(self, node: Node, since: float) -> bool:
        """Whether a node was killed or stood still after that moment."""
        return any(at >= since - GRACE for at in node.harmed)

    def _check_frames(self) -> dict[str, set[str]]:
        seen: dict[tuple[str, int], bytes] = {}
        ends: dict[str, set[str]] = {}
        epochs: dict[tuple[str, int], str] = {}
        for reading in self.readings:
            frames, stream = reading.frames, reading.stream
            asked = self.asked[stream]
            seqs = [frame["seq"] for frame in frames]
            first = reading.after + 1
            assert seqs == list(range(first, first + len(frames))), (stream, seqs)
            terminal = [frame["type"] in TERMINAL for frame in frames]
            assert not any(terminal[:-1]), stream
            if not frames:
                continue
            if terminal[-1]:
                ends.setdefault(stream, set()).add(outcome(frames))
                by = frames[-1].get("superseded_by")
                assert by is None or self.asked[by].session == asked.session
            if outcome_or_none(frames) == "coordination_lost" or self.harmed(asked.node, asked.at):
                # What its own node had shown and could not tell: others have another end.
                continue
            for seq, line in zip(seqs, reading.lines, strict=True):
                assert seen.setdefault((stream, seq), line) == line, (stream, seq)
            tokens = [frame for frame in frames if frame["type"] == "token"]
            if tokens:
                key = asked.session, tokens[0]["epoch"]
                assert epochs.setdefault(key, stream) == stream, f"two streams of epoch {key}"
        for stream, codes in ends.items():
            assert len(codes) == 1 or "interrupted" in codes, (stream, codes)
        return ends

    def _check_agents(self, diary: Path, ends: dict[str, set[str]]) -> None:
        began: dict[str, Any] = {}
        ended: dict[str, float] = {}
        for entry in read_diary(diary):
            if entry.what == "began":
                assert entry.stream not in began, f"{entry.stream} was answered twice"
                began[entry.stream] = entry
            elif entry.what == "ended":
                ended[entry.stream] = entry.at
        runs = sorted(began.values(), key=lambda entry: float(entry.at))
        for index, newer in enumerate(runs):
            for older in runs[:index]:
                if older.session != newer.session or ended.get(older.stream, 1e99) <= newer.at:
                    continue
                asked = self.asked[older.stream]
                waited = newer.at - self.asked[newer.stream].at
                # A node that was thought dead cannot know before it looks at the clock.
                thought_dead = ends.get(older.stream, set()) & {"interrupted", "coordination_lost"}
                excused = waited >= BOUND or thought_dead or self.harmed(asked.node, asked.at)
                assert excused, f"two live agents: {older} and {newer}, after {waited:.3f} s"

    async def _check_history(self, ends: dict[str, set[str]]) -> None:
        """No question is lost whose frame 1 somebody saw; none streams for ever."""
        kept: dict[str, Frame] = {}
        for session in self.sessions:
            status, body = await call(self.nodes[0], "GET", f"/api/sessions/{session}/messages")
            assert status == 404 or body["active_stream"] is None
            for message in await self.nodes[0].api.messages(session):
                if message["role"] == "assistant":
                    kept[message["stream_id"]] = message
        for reading in filter(self._acknowledged, self.readings):
            stream, last = reading.stream, reading.frames[-1]
            assert stream in kept, f"lost: {self.asked[stream]} {ends.get(stream)} {last}"
        for stream, message in kept.items():
            assert message["status"] != "streaming", (stream, ends.get(stream))
            if ends.get(stream) == {"stop"}:
                count = int(self.asked[stream].prompt.split(" ")[0])
                assert message["status"] == "complete", (stream, message["status"])
                assert message["content"] == "".join(f"{n} " for n in range(count))

    @staticmethod
    def _acknowledged(reading: Reading) -> bool:
        """Whether its reader was told that the question is kept: frame 1, of whoever claimed.

        Not of one that waits in the queue; nor is what an undertaker says for a stream that died
        before it said anything. Nor when the stream ended before its question was saved, and the
        terminal frame says that it was not.
        """
        frames = reading.frames
        if reading.after or not frames or any(f.get("status") == "queued" for f in frames):
            return False
        if len(frames) != 2:
            return True
        return frames[1].get("code") != "interrupted" and frames[1].get("saved") is not False

    async def newest_wins(self) -> None:
        """After all that, each session answers, on whatever node."""
        for session in self.sessions:
            for node in self.nodes:
                stream = new_id()
                self.asked[stream] = Asked(session, "3 0 0", node, time.monotonic())
                frames = await node.api.chat("3 0 0", session_id=session, stream_id=stream)
                assert outcome(frames) == "stop"


def outcome_or_none(frames: list[Frame]) -> str | None:
    return outcome(frames) if frames[-1]["type"] in TERMINAL else None


def _is_idle(figures: dict[str, float]) -> bool:
    return (
        sum(value for name, value in figures.items() if name.startswith("jarvis_streams{")) == 0
        and figures["jarvis_mirrors"] == 0
    )


# What goes wrong


async def bad_network(proxies: list[RedisProxy], dice: random.Random) -> None:
    """Every so often a way to Redis is cut, slow, or silent. Until it is cancelled."""
    while True:
        await asyncio.sleep(dice.uniform(0.1, 1.0))
        proxy = dice.choice(proxies)
        match dice.choice(("cut", "slow", "silent")):
            case "cut":
                proxy.cut()
            case "slow":
                proxy.longest_delay = dice.choice((0, 0.005, 0.05))
            case "silent":
                await proxy.silence(dice.choice((0.1, 0.4, 1.2)))


async def bad_day(nodes: list[Node], redis: RedisServer, dice: random.Random) -> None:
    """Nodes and Redis are killed or stand still, one after the other. Until it is cancelled."""
    while True:
        await asyncio.sleep(dice.uniform(0.5, 2.5))
        node = dice.choice(nodes)
        match dice.choice(("kill", "freeze", "long freeze", "redis kill", "redis freeze")):
            case "kill":
                await node.kill()
                await asyncio.sleep(dice.uniform(0, 1))
                await node.start()
            case "freeze":
                await node.freeze(dice.uniform(0.2, 2.0))
            case "long freeze":
                await node.freeze(LEASE + dice.uniform(0.2, 2.0))
            case "redis kill":
                await asyncio.to_thread(redis.kill)
                await asyncio.to_thread(redis.start)
            case "redis freeze":
                redis.freeze()
                try:
                    await asyncio.sleep(dice.uniform(0.1, 1.5))
                finally:
                    redis.thaw()


async def while_running(fault: Any, chaos: Any) -> None:
    """Do both; the first one ends with the second."""
    task = asyncio.create_task(fault)
    try:
        await chaos
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            task.result()

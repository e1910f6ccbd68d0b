"""Several nodes in one process: registries that share a store and a history, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from explorer import VirtualLoop
from fakes import FakeAgents, FakeReader, Script

from jarvis_stream import stream as stream_module
from jarvis_stream.cluster.memory import Fate, MemoryStore
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.node import Node
from jarvis_stream.registry import Opening, StreamRegistry
from jarvis_stream.shelf import Shelf

LEASE = 3.0
BOUND = 2.0

_real_monotonic = time.monotonic


def virtual_monotonic() -> float:
    """The running loop's time, where there is one."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return _real_monotonic()


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a VirtualLoop, deadlines and leases included."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "monotonic", virtual_monotonic)
            patch.setattr(stream_module, "TURN_BUDGET", float("inf"))
            VirtualLoop().run(test(*args, **kwargs))

    return run


class Member:
    """One node: its registry, and the agents that answer there."""

    def __init__(self, name: str, cloud: Cloud) -> None:
        self.name = name
        self.agents = FakeAgents(**cloud.scripts)
        self.node = Node(cloud.store.node(name, lease=LEASE))
        self.registry = StreamRegistry(
            self.agents,
            cloud.history,
            cancel_timeout=BOUND,
            shelf=Shelf(seconds=60),
            node=self.node,
        )

    async def start(self, stream_id: str, prompt: str, **fields: Any) -> FakeReader:
        """Ask, and read the answer."""
        opening = Opening(
            prompt=prompt,
            stream_id=stream_id,
            trace_id=f"trace-{stream_id}",
            session_id=fields.pop("session_id", "s"),
            **fields,
        )
        return FakeReader(await self.registry.start(opening), opening.after)

    async def follow(self, stream_id: str, after: int = 0) -> FakeReader:
        """Read a stream, wherever it is."""
        return FakeReader(await self.registry.reach(stream_id, after=after), after)


class Cloud:
    """All nodes, and what they share."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts = scripts
        self.store = MemoryStore()
        self.history = MemoryHistory()
        self.cut_off: set[str] = set()
        """Nodes that reach the store no more, and hear nothing."""
        self.away: set[str] = set()
        """Sessions in a part of the store that nobody reaches."""
        self.mute = False
        """Whether every word is lost."""
        self.store.fate = lambda node, call: Fate(lost=node in self.cut_off)
        self.store.is_away = self.away.__contains__
        self.store.heard = lambda node, word: not self.mute and node not in self.cut_off
        self._stack = AsyncExitStack()

    async def join(self, name: str) -> Member:
        """One node more."""
        member = Member(name, self)
        registry = member.registry
        await self._stack.enter_async_context(member.node.running(registry.hear, registry.disown))
        self._stack.push_async_callback(registry.shutdown)
        return member

    async def leave(self) -> None:
        """All nodes stop; nothing of them may stay in the store."""
        await self._stack.aclose()


@asynccontextmanager
async def cloud(*names: str, **scripts: Script) -> AsyncIterator[tuple[Any, ...]]:
    """The cloud and its nodes; in the end everything has drained."""
    shared = Cloud(**scripts)
    members = [await shared.join(name) for name in names]
    try:
        yield shared, *members
        assert not shared.cut_off
        assert not shared.away
    finally:
        shared.cut_off.clear()
        shared.away.clear()
        await shared.leave()
    assert shared.store.is_empty, "something lives on in the store"


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until it holds; fails when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # in virtual time it costs nothing
            await asyncio.sleep(0.01)

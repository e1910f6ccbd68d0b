"""The store in memory: what they all do, and what it can be made to do to a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from contracts.cluster import ClusterContract, Node, Opener, lines, streams
from explorer import in_virtual_time

from jarvis_stream.cluster.base import Appended, Cluster, Outrun, StoreLost, Verdict, Word
from jarvis_stream.cluster.memory import Fate, MemoryStore


class TestMemory(ClusterContract):
    """See the contract."""

    @pytest.fixture
    def opener(self) -> Opener:
        store = MemoryStore(timeout=20.0)

        def open_one(
            node: str, hear: Callable[[Word], None], *, lease: float
        ) -> AbstractAsyncContextManager[Cluster]:
            return store.node(node, lease=lease, grace=0.0).running(hear)

        return open_one

    def check_clock(self, before: int, ticket: int) -> None:
        """Its clock is the loop's."""


def node(store: MemoryStore, name: str) -> Node:
    return Node(store.node(name), [])


@in_virtual_time
async def test_a_call_that_is_late_is_carried_out_all_the_same() -> None:
    store = MemoryStore()
    ours, theirs = node(store, "ours"), node(store, "theirs")
    old = await ours.start("A")
    slow = await theirs.ticket("B")
    store.fate = lambda node, call: Fate(out=1.0 if call == "claim" else 0.0)
    with pytest.raises(StoreLost):
        await theirs.cluster.claim(slow)
    assert not theirs.cluster.health.reachable
    assert (await ours.renew(old)).verdict is Verdict.GOOD
    await asyncio.sleep(1.0)
    renewed = await ours.renew(old)
    assert (renewed.verdict, renewed.by) == (Verdict.FENCED, "B")


@in_virtual_time
async def test_a_late_claim_of_who_has_given_up_is_refused() -> None:
    store = MemoryStore()
    ours = node(store, "ours")
    late = await ours.ticket("A")
    store.fate = lambda node, call: Fate(out=1.0 if call == "claim" else 0.0)
    with pytest.raises(StoreLost):
        await ours.cluster.claim(late)
    await ours.release(late)
    await asyncio.sleep(1.0)
    assert store.is_empty


@in_virtual_time
async def test_an_answer_that_is_lost_and_a_call_that_is_lost() -> None:
    store = MemoryStore()
    ours = node(store, "ours")
    claim = await ours.start("A")
    store.fate = lambda node, call: Fate(back=1.0)
    with pytest.raises(StoreLost):
        await ours.append(claim, 0, 1)
    store.fate = lambda node, call: Fate(lost=True)
    with pytest.raises(StoreLost):
        await ours.append(claim, 1, 2)
    store.fate = lambda node, call: Fate()
    tail = await ours.read(claim.name)
    assert tail is not None
    assert tail.frames == lines(0, 1)
    assert ours.cluster.health.failures == 2


@in_virtual_time
async def test_after_a_failover_it_knows_only_what_the_replica_knew() -> None:
    store = MemoryStore()
    ours, theirs = node(store, "ours"), node(store, "theirs")
    claim = await ours.start("A")
    await ours.append(claim, 0, 2)
    replica = store.copied()
    await ours.append(claim, 2, 4)
    new = await theirs.start("B")
    store.fall_back(replica)
    assert await theirs.append(new, 0, 1) == Appended(Verdict.REGRESSED, 0)
    assert await ours.append(claim, 4, 5) == Appended(Verdict.REGRESSED, 2)
    assert streams(list(await theirs.cluster.claim(new))) == ["A"]
    assert await theirs.append(new, 0, 1) == Appended(Verdict.GOOD, 1)
    assert await ours.append(claim, 2, 5) == Appended(Verdict.FENCED, 2)
    with pytest.raises(Outrun):
        await ours.cluster.claim(claim)
    assert await ours.close(claim, 2, 6) == Appended(Verdict.GOOD, 6)


@in_virtual_time
async def test_a_word_can_be_lost() -> None:
    store = MemoryStore()
    words: list[Word] = []
    async with store.node("ours").running(words.append) as cluster:
        ours = Node(cluster, words)
        await ours.start("A")
        store.heard = lambda node, word: False
        await ours.cluster.stop("A")
        await asyncio.sleep(1.0)
        assert words == []
        store.heard = lambda node, word: True
        await ours.cluster.stop("A")
        await asyncio.sleep(0)
        assert [word.kind for word in words] == ["cancel"]


@in_virtual_time
async def test_in_time_all_is_forgotten() -> None:
    store = MemoryStore(keep=10.0)
    ours = node(store, "ours")
    claim = await ours.start("A")
    for _ in range(5):
        await asyncio.sleep(5.0)
        await ours.renew(claim)
    await ours.close(claim, 0, 2)
    await ours.release(claim)
    assert await ours.read(claim.name) is not None
    await asyncio.sleep(10.5)
    assert await ours.read(claim.name) is None
    assert await ours.cluster.find("A") is None
    await ours.cluster.ticket("t", 0)
    state = store._state
    assert (state.names, state.logs, list(state.sessions)) == ({}, {}, ["t"])

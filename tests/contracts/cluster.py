"""What every cluster promises. Feed it an `opener` fixture: views of one store, empty at first."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Protocol, TypeVar

import pytest
from profiles import patience

from jarvis_stream.cluster.base import (
    Appended,
    Batch,
    Busy,
    Claim,
    Cluster,
    Living,
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
    Word,
    only,
)

T = TypeVar("T")

PATIENCE = patience(20.0)
LONG = 3600.0
"""A lease that no test outlives."""
SHORT = 0.001
"""A lease that is over at the next look, nearly."""
FAR = 2**53 - 1
"""Past the end of every log."""

_nonces = (f"nonce{number}" for number in itertools.count())


class Opener(Protocol):
    """Opens a node's view of the store; every time of the same one."""

    def __call__(
        self, node: str, hear: Callable[[Word], None], *, lease: float
    ) -> AbstractAsyncContextManager[Cluster]: ...


class Node:
    """A node that does what a test says."""

    def __init__(self, cluster: Cluster, words: list[Word]) -> None:
        self.cluster = cluster
        self.words = words

    def name(self, stream: str, session: str = "s") -> Name:
        return Name(
            stream=stream,
            session=session,
            nonce=next(_nonces),
            node=self.cluster.node,
            trace_id=f"trace-{stream}",
        )

    async def ticket(self, stream: str, session: str = "s") -> Claim:
        name = self.name(stream, session)
        assert await self.cluster.reserve(name) is Reserved.FREE
        return Claim(name=name, epoch=await self.cluster.ticket(session, 0))

    async def start(
        self, stream: str, session: str = "s", *, on_conflict: OnConflict = "interrupt"
    ) -> Claim:
        claim = await self.ticket(stream, session)
        await self.cluster.claim(claim, on_conflict=on_conflict)
        return claim

    async def queue(self, stream: str, session: str = "s") -> tuple[Claim, Busy]:
        claim = await self.ticket(stream, session)
        with pytest.raises(Busy) as busy:
            await self.cluster.claim(claim, on_conflict="enqueue")
        return claim, busy.value

    async def append(self, claim: Claim, first: int, last: int) -> Appended:
        return only(await self.cluster.append([batch(claim, first, last)]))

    async def close(self, claim: Claim, first: int, last: int) -> Appended:
        """Write the rest of a log, its terminal frame the last."""
        return only(await self.cluster.close([batch(claim, first, last)._replace(is_end=True)]))

    async def release(self, claim: Claim) -> None:
        only(await self.cluster.release([claim]))

    async def renew(self, claim: Claim) -> Renewed:
        return only(await self.cluster.renew([claim]))

    async def read(self, name: Name, cursor: int = 0) -> Tail | None:
        return only(await self.cluster.read([(name, cursor)]))

    async def living(self, session: str = "s") -> list[Living]:
        return list(only(await self.cluster.living([session])))

    async def is_expired(self, claim: Claim) -> bool:
        tail = await self.read(claim.name)
        return tail is not None and tail.expired

    async def hears(self, *words: Word) -> None:
        """Wait for these words, in this order among themselves: they are about one session."""

        async def heard() -> bool:
            return [word for word in self.words if word in words] == list(words)

        await eventually(heard)


def lines(first: int, last: int) -> bytes:
    """The frames after seq `first`, up to `last`."""
    return b"".join(b'{"seq":%d,"text":"\xc3\xa9"}\n' % seq for seq in range(first + 1, last + 1))


def batch(claim: Claim, first: int, last: int) -> Batch:
    return Batch(claim=claim, first=first, last=last, frames=lines(first, last))


def told(answers: Sequence[T | StoreLost]) -> list[T]:
    """What the store answered who asked about many things; none may be lost."""
    return [only([answer]) for answer in answers]


def streams(living: list[Living]) -> list[str]:
    return [one.name.stream for one in living]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 (nobody here could set an event)
            await asyncio.sleep(0.005)


class ClusterContract:
    """What they all do."""

    @pytest.fixture
    async def stack(self) -> AsyncIterator[AsyncExitStack]:
        async with AsyncExitStack() as stack:
            yield stack

    @pytest.fixture
    async def ours(self, stack: AsyncExitStack, opener: Opener) -> Node:
        return await self.open(stack, opener, "ours")

    @pytest.fixture
    async def theirs(self, stack: AsyncExitStack, opener: Opener) -> Node:
        return await self.open(stack, opener, "theirs")

    @pytest.fixture
    async def dying(self, stack: AsyncExitStack, opener: Opener) -> Node:
        """A node whose leases are over at once."""
        return await self.open(stack, opener, "dying", lease=SHORT)

    async def open(
        self, stack: AsyncExitStack, opener: Opener, node: str, *, lease: float = LONG
    ) -> Node:
        words: list[Word] = []
        cluster = await stack.enter_async_context(opener(node, words.append, lease=lease))
        return Node(cluster, words)

    async def expired(self, node: Node, claim: Claim) -> None:
        async def condition() -> bool:
            return await node.is_expired(claim)

        await eventually(condition)

    # Names

    async def test_a_name_is_given_once(self, ours: Node, theirs: Node) -> None:
        mine, other = ours.name("A"), theirs.name("A", "another/session")
        assert await ours.cluster.reserve(mine) is Reserved.FREE
        assert await theirs.cluster.reserve(other) == mine
        assert await ours.cluster.reserve(mine) is Reserved.FREE
        assert await theirs.cluster.find("A") == mine
        assert await theirs.cluster.find("B") is None

    async def test_of_many_who_want_a_name_one_gets_it(self, ours: Node, theirs: Node) -> None:
        names = [node.name("A") for node in (ours, theirs) * 20]
        taken = await asyncio.gather(
            *(ours.cluster.reserve(name) for name in names[::2]),
            *(theirs.cluster.reserve(name) for name in names[1::2]),
        )
        assert taken.count(Reserved.FREE) == 1
        winner = await ours.cluster.find("A")
        assert set(taken) - {Reserved.FREE} == {winner}

    async def test_a_name_says_all_that_was_said_of_it(self, ours: Node, theirs: Node) -> None:
        name = replace(ours.name('o"wn{e}r/A', 'o"wn{e}r/é\\n:'), replaces="before")
        await ours.cluster.reserve(name)
        assert await theirs.cluster.find(name.stream) == name

    async def test_a_refused_start_gives_its_name_back(self, ours: Node, theirs: Node) -> None:
        refused = await ours.ticket("A")
        for _ in range(2):
            assert await ours.cluster.free([refused.name]) == [None]
        assert await theirs.cluster.find("A") is None
        with pytest.raises(Vacated):
            await ours.cluster.claim(refused)
        name = theirs.name("A")
        assert await theirs.cluster.reserve(name) is Reserved.FREE
        await ours.cluster.free([refused.name])
        assert await ours.cluster.find("A") == name

    async def test_a_start_that_came_to_nothing_leaves_an_empty_log_and_no_claim(
        self, ours: Node, theirs: Node
    ) -> None:
        claim = await ours.start("A")
        tail = await theirs.read(claim.name)
        assert tail is not None
        assert not tail.vacated
        assert await ours.cluster.free([claim.name]) == [None]
        tail = await theirs.read(claim.name)
        assert tail is not None
        assert tail.vacated
        assert await ours.living() == []
        assert (await ours.append(claim, 0, 1)).verdict is Verdict.FENCED
        assert (await ours.close(claim, 0, 2)).verdict is Verdict.FENCED
        assert (await ours.renew(claim)).verdict is Verdict.FENCED

    async def test_a_silent_start_is_vacated_when_its_lease_is_over(
        self, ours: Node, theirs: Node, dying: Node
    ) -> None:
        reserved, living = await dying.ticket("A"), await ours.start("B", "t")
        claimed = await dying.start("C", "u")
        said = await dying.start("D", "v")
        await dying.append(said, 0, 1)
        for claim in (reserved, claimed, said):
            await self.expired(ours, claim)
        nothing = Batch(reserved, first=0, last=0, frames=b"")
        for _ in range(2):
            assert only(await theirs.cluster.bury([nothing]))
        assert only(await theirs.cluster.bury([nothing._replace(claim=claimed)]))
        assert not only(await theirs.cluster.bury([nothing._replace(claim=living)]))
        assert not only(await theirs.cluster.bury([nothing._replace(claim=said)]))
        for claim in (reserved, claimed):
            with pytest.raises(Vacated):
                await dying.cluster.claim(claim)
        assert await ours.living("u") == []

    async def test_a_name_without_a_log_is_vacated(self, ours: Node, theirs: Node) -> None:
        name = ours.name("A")
        nothing = Batch(Claim(name=name, epoch=0), first=0, last=0, frames=b"")
        assert only(await theirs.cluster.bury([nothing]))
        with pytest.raises(Vacated):
            await ours.cluster.claim(Claim(name=name, epoch=1))

    async def test_a_stop_that_comes_first_is_kept(self, ours: Node, theirs: Node) -> None:
        assert await theirs.cluster.stop("A") is None
        assert await theirs.cluster.stop("A") is None
        assert await ours.cluster.find("A") is None
        name = ours.name("A")
        for _ in range(2):
            assert await ours.cluster.reserve(name) is Reserved.STOPPED
        await ours.cluster.free([name])
        assert await ours.cluster.find("A") is None
        assert await ours.cluster.reserve(ours.name("A")) is Reserved.STOPPED

    async def test_a_stop_is_said_at_once_and_kept_for_the_heartbeat(
        self, ours: Node, theirs: Node
    ) -> None:
        claim = await ours.start("A")
        assert not (await ours.renew(claim)).cancelled
        assert await theirs.cluster.stop("A") == claim.name
        await ours.hears(Word(kind="cancel", session="s", stream="A"))
        for _ in range(2):
            assert (await ours.renew(claim)).cancelled
        assert await theirs.cluster.stop("A") == claim.name

    async def test_a_stop_that_came_first_can_be_forgotten(self, ours: Node, theirs: Node) -> None:
        assert await theirs.cluster.stop("A") is None
        await theirs.cluster.unstop("A")
        assert await ours.cluster.reserve(ours.name("A")) is Reserved.FREE

    async def test_a_stop_of_a_stream_that_has_come_is_not_forgotten(
        self, ours: Node, theirs: Node
    ) -> None:
        claim = await ours.start("A")
        assert await theirs.cluster.stop("A") == claim.name
        await theirs.cluster.unstop("A")
        assert (await ours.renew(claim)).cancelled
        assert await theirs.cluster.find("A") == claim.name

    # Tickets

    async def test_tickets_grow_with_the_clock(self, ours: Node, theirs: Node) -> None:
        before = time.time_ns() // 1_000_000
        tickets = [
            await node.cluster.ticket("s", floor)
            for floor in (0, 0, 5)
            for node in (ours, theirs, ours)
        ]
        assert sorted(set(tickets)) == tickets
        self.check_clock(before, tickets[0])

    def check_clock(self, before: int, ticket: int) -> None:
        """A ticket tells the time, in milliseconds; 1 s for clocks that were looked at twice."""
        assert before - 1000 <= ticket

    async def test_a_ticket_is_above_the_floor_and_above_what_was_claimed(self, ours: Node) -> None:
        floor = await ours.cluster.ticket("s", 0) + 10_000_000
        assert await ours.cluster.ticket("s", floor) == floor + 1
        assert await ours.cluster.ticket("s", 0) == floor + 2
        name = ours.name("A", "t")
        await ours.cluster.reserve(name)
        await ours.cluster.claim(Claim(name=name, epoch=floor))
        assert await ours.cluster.ticket("t", 0) == floor + 1

    # Claims

    async def test_the_first_claim_has_nobody_before_it(self, ours: Node) -> None:
        claim = await ours.ticket("A")
        for _ in range(2):
            assert await ours.cluster.claim(claim) == []
        assert await ours.living() == [Living(name=claim.name, epoch=claim.epoch, expired=False)]

    async def test_a_newer_claim_takes_the_session(self, ours: Node, theirs: Node) -> None:
        old = await ours.start("A")
        new = await theirs.ticket("B")
        before = Living(name=old.name, epoch=old.epoch, expired=False, by="B")
        for _ in range(2):
            assert await theirs.cluster.claim(new) == [before]
        await ours.hears(Word(kind="superseded", session="s", stream="A", by="B"))
        renewed = await ours.renew(old)
        assert (renewed.verdict, renewed.by, renewed.rollback) == (Verdict.FENCED, "B", False)
        assert (await theirs.renew(new)).verdict is Verdict.GOOD
        assert await ours.cluster.older(old) == []
        assert await ours.cluster.older(new) == [before]

    async def test_a_claim_that_comes_late_takes_nothing(self, ours: Node, theirs: Node) -> None:
        late = await ours.ticket("A")
        new = await theirs.start("B")
        for _ in range(2):
            with pytest.raises(Outrun) as outrun:
                await ours.cluster.claim(late)
            assert outrun.value.by == "B"
        assert (await theirs.renew(new)).verdict is Verdict.GOOD
        assert streams(await ours.living()) == ["B"]
        await theirs.close(new, 0, 2)
        await theirs.release(new)
        with pytest.raises(Outrun):
            await ours.cluster.claim(late)

    async def test_who_was_released_cannot_claim_any_more(self, ours: Node) -> None:
        early, late = await ours.ticket("A"), await ours.ticket("B")
        await ours.release(late)
        with pytest.raises(Outrun):
            await ours.cluster.claim(late)
        assert await ours.cluster.claim(early) == []

    async def test_the_same_ticket_is_not_the_same_claim(self, ours: Node, theirs: Node) -> None:
        claim = await ours.start("A")
        twin = replace(await theirs.ticket("B"), epoch=claim.epoch)
        with pytest.raises(Outrun) as outrun:
            await theirs.cluster.claim(twin)
        assert outrun.value.by == "A"
        assert (await theirs.append(twin, 0, 1)).verdict is Verdict.FENCED

    async def test_all_older_ones_are_told_of_not_only_the_head(
        self, ours: Node, theirs: Node
    ) -> None:
        first, second = await ours.start("A"), await theirs.start("B")
        third = await ours.ticket("C")
        older = await ours.cluster.claim(third)
        assert [(one.name, one.by) for one in older] == [(first.name, "B"), (second.name, "C")]
        await theirs.release(second)
        assert streams(list(await theirs.cluster.older(third))) == ["A"]
        await ours.release(first)
        assert await theirs.cluster.older(third) == []
        assert streams(await theirs.living()) == ["C"]

    async def test_sessions_do_not_meet(self, ours: Node, theirs: Node) -> None:
        one, other = await ours.start("A", "s"), await theirs.start("B", "t")
        assert (await ours.renew(one)).verdict is Verdict.GOOD
        assert (await ours.renew(other)).verdict is Verdict.GOOD
        both = told(await ours.cluster.living(["t", "s", "u"]))
        assert [streams(list(living)) for living in both] == [["B"], ["A"], []]

    async def test_rollback_says_so(self, ours: Node, theirs: Node) -> None:
        old = await ours.start("A")
        await theirs.start("B", on_conflict="rollback")
        await ours.hears(Word(kind="superseded", session="s", stream="A", by="B", rollback=True))
        assert (await ours.renew(old)).rollback

    async def test_reject_is_refused_while_somebody_lives(self, ours: Node, theirs: Node) -> None:
        owner = await ours.start("A", on_conflict="reject")
        with pytest.raises(Busy) as busy:
            await theirs.start("B", on_conflict="reject")
        assert (busy.value.by, busy.value.epoch, busy.value.position) == ("A", owner.epoch, 0)
        assert streams(await ours.living()) == ["A"]
        await ours.close(owner, 0, 2)
        new = await theirs.ticket("C")
        older = await theirs.cluster.claim(new, on_conflict="reject")
        assert [(one.name, one.closed, one.by) for one in older] == [(owner.name, True, "")]

    async def test_a_dead_owner_does_not_make_a_session_busy(self, ours: Node, dying: Node) -> None:
        dead = await dying.start("A")
        await self.expired(ours, dead)
        new = await ours.ticket("B")
        older = await ours.cluster.claim(new, on_conflict="reject")
        assert [(one.name, one.expired) for one in older] == [(dead.name, True)]
        assert (await dying.renew(dead)).verdict is Verdict.FENCED

    # The queue

    async def test_the_queue_goes_in_turn(self, ours: Node, theirs: Node) -> None:
        owner = await ours.start("A")
        second, busy = await theirs.queue("B")
        assert (busy.by, busy.epoch, busy.position) == ("A", owner.epoch, 1)
        third, busy = await ours.queue("C")
        assert (busy.by, busy.epoch, busy.position) == ("A", owner.epoch, 2)
        assert [(one.name.stream, one.position) for one in await ours.living()] == [
            ("A", 0),
            ("B", 1),
            ("C", 2),
        ]
        assert (await theirs.renew(second)).verdict is Verdict.GOOD
        with pytest.raises(Busy):
            await theirs.start("D", on_conflict="reject")
        await ours.close(owner, 0, 2)
        with pytest.raises(Busy) as before:
            await ours.cluster.claim(third, on_conflict="enqueue")
        assert (before.value.by, before.value.position) == ("B", 2)
        older = await theirs.cluster.claim(second, on_conflict="enqueue")
        assert streams(list(older)) == ["A"]
        with pytest.raises(Busy) as before:
            await ours.cluster.claim(third, on_conflict="enqueue")
        assert (before.value.by, before.value.position) == ("B", 1)
        assert (await theirs.renew(second)).verdict is Verdict.GOOD

    async def test_a_newer_claim_empties_the_queue(self, ours: Node, theirs: Node) -> None:
        await ours.start("A")
        waiting, _ = await theirs.queue("B")
        new = await ours.ticket("C")
        assert streams(list(await ours.cluster.claim(new))) == ["A"]
        await theirs.hears(Word(kind="superseded", session="s", stream="B", by="C"))
        renewed = await theirs.renew(waiting)
        assert (renewed.verdict, renewed.by) == (Verdict.FENCED, "C")
        with pytest.raises(Outrun) as outrun:
            await theirs.cluster.claim(waiting, on_conflict="enqueue")
        assert outrun.value.by == "C"

    async def test_an_older_claim_leaves_who_came_after_it_in_the_queue(
        self, ours: Node, theirs: Node
    ) -> None:
        await ours.start("A")
        slow = await ours.ticket("B")
        waiting, _ = await theirs.queue("C")
        await ours.cluster.claim(slow)
        assert (await theirs.renew(waiting)).verdict is Verdict.GOOD
        assert [one.position for one in await ours.living() if one.name == waiting.name] == [1]

    async def test_who_leaves_the_queue_is_not_waited_for(self, ours: Node, theirs: Node) -> None:
        owner = await ours.start("A")
        leaving, _ = await theirs.queue("B")
        waiting, _ = await ours.queue("C")
        await theirs.release(leaving)
        with pytest.raises(Busy) as busy:
            await ours.cluster.claim(waiting, on_conflict="enqueue")
        assert busy.value.position == 1
        await ours.close(owner, 0, 2)
        await ours.release(owner)
        assert await ours.cluster.claim(waiting, on_conflict="enqueue") == []

    async def test_the_dead_in_the_queue_are_passed_over(
        self, ours: Node, theirs: Node, dying: Node
    ) -> None:
        owner = await ours.start("A")
        dead, _ = await dying.queue("B")
        waiting, _ = await theirs.queue("C")
        await self.expired(ours, dead)
        await ours.close(owner, 0, 2)
        assert streams(list(await theirs.cluster.claim(waiting, on_conflict="enqueue"))) == ["A"]
        assert only(await ours.cluster.bury([batch(dead, 0, 2)]))
        assert streams(await ours.living()) == ["A", "C"]

    async def test_who_waits_in_the_queue_may_append(self, ours: Node, theirs: Node) -> None:
        await ours.start("A")
        waiting, _ = await theirs.queue("B")
        assert await theirs.append(waiting, 0, 2) == Appended(Verdict.GOOD, 2)
        tail = await ours.read(waiting.name)
        assert tail is not None
        assert (tail.epoch, tail.frames) == (waiting.epoch, lines(0, 2))
        await ours.start("C")
        assert await theirs.append(waiting, 2, 3) == Appended(Verdict.FENCED, 2)
        assert (await theirs.close(waiting, 2, 3)).verdict is Verdict.GOOD

    # Heartbeats

    async def test_a_name_is_kept_alive_before_it_claims(self, ours: Node, dying: Node) -> None:
        name = dying.name("A")
        await dying.cluster.reserve(name)
        unclaimed = Claim(name=name, epoch=0)
        await self.expired(ours, unclaimed)
        assert (await ours.renew(unclaimed)).verdict is Verdict.GOOD
        assert not await ours.is_expired(unclaimed)
        tail = await ours.read(name)
        assert tail == Tail(epoch=0, last=0, frames=b"", closed=False, expired=False)

    async def test_what_the_store_has_forgotten_is_told_to_the_heartbeat(self, ours: Node) -> None:
        name = ours.name("A")
        claim = Claim(name=name, epoch=await ours.cluster.ticket("s", 0))
        assert (await ours.renew(claim)).verdict is Verdict.REGRESSED
        assert await ours.cluster.find("A") == name
        await ours.cluster.claim(claim)
        assert (await ours.renew(claim)).verdict is Verdict.GOOD

    async def test_a_heartbeat_does_not_take_another_ones_name(
        self, ours: Node, theirs: Node
    ) -> None:
        claim = await ours.start("A")
        other = theirs.name("B")
        await theirs.cluster.reserve(other)
        stranger = replace(claim, name=replace(claim.name, stream="B"))
        await ours.renew(stranger)
        assert await ours.cluster.find("B") == other

    async def test_one_heartbeat_is_for_all(self, ours: Node, theirs: Node) -> None:
        claims = [await ours.start(f"A{number}", f"s{number}") for number in range(50)]
        await theirs.start("B", "s7")
        await theirs.cluster.stop("A8")
        renewed = told(await ours.cluster.renew(claims))
        assert [number for number, one in enumerate(renewed) if one.by] == [7]
        assert [number for number, one in enumerate(renewed) if one.cancelled] == [8]
        assert await ours.cluster.renew([]) == []

    async def test_a_lease_that_ran_out_can_be_renewed_until_it_is_buried(
        self, ours: Node, dying: Node
    ) -> None:
        claim = await dying.start("A")
        await self.expired(ours, claim)
        assert (await ours.renew(claim)).verdict is Verdict.GOOD
        assert not only(await ours.cluster.bury([batch(claim, 0, 2)]))
        assert not await ours.is_expired(claim)

    async def test_who_reads_elsewhere_is_told_to_the_heartbeat(
        self, ours: Node, theirs: Node, dying: Node
    ) -> None:
        claim = await ours.start("A")
        assert not (await ours.renew(claim)).attended
        await theirs.cluster.attend([claim.name])
        assert (await ours.renew(claim)).attended
        await dying.cluster.attend([claim.name])

        async def is_alone() -> bool:
            return not (await ours.renew(claim)).attended

        await eventually(is_alone)

    # Logs

    async def test_a_log_is_read_as_it_was_written(self, ours: Node, theirs: Node) -> None:
        claim = await ours.start("A")
        assert await ours.append(claim, 0, 1) == Appended(Verdict.GOOD, 1)
        assert await ours.append(claim, 1, 5) == Appended(Verdict.GOOD, 5)
        for cursor in range(6):
            assert await theirs.read(claim.name, cursor) == Tail(
                epoch=claim.epoch, last=5, frames=lines(cursor, 5), closed=False, expired=False
            )
        assert await ours.close(claim, 5, 7) == Appended(Verdict.GOOD, 7)
        for cursor in range(8):
            assert await theirs.read(claim.name, cursor) == Tail(
                epoch=claim.epoch, last=7, frames=lines(cursor, 7), closed=True, expired=False
            )

    async def test_the_rest_of_a_fenced_log_is_closed_in_pieces(
        self, ours: Node, theirs: Node
    ) -> None:
        old = await ours.start("A")
        await ours.append(old, 0, 2)
        await theirs.start("B")
        for _ in range(2):
            assert await ours.cluster.close([batch(old, 2, 5)]) == [Appended(Verdict.GOOD, 5)]
        assert await ours.cluster.close([batch(old, 6, 7)]) == [Appended(Verdict.REGRESSED, 5)]
        tail = await theirs.read(old.name)
        assert tail is not None
        assert (tail.frames, tail.closed) == (lines(0, 5), False)
        assert await ours.close(old, 4, 7) == Appended(Verdict.GOOD, 7)
        tail = await theirs.read(old.name)
        assert tail is not None
        assert (tail.frames, tail.closed) == (lines(0, 7), True)
        assert await ours.cluster.close([batch(old, 7, 8)]) == [Appended(Verdict.GOOD, 7)]

    async def test_many_logs_are_closed_and_released_in_one_trip_each(
        self, ours: Node, theirs: Node
    ) -> None:
        claims = [await ours.start(f"A{number}", f"s{number}") for number in range(10)]
        ends = [batch(claim, 0, 2)._replace(is_end=True) for claim in claims]
        assert await ours.cluster.close(ends) == [Appended(Verdict.GOOD, 2)] * 10
        assert await ours.cluster.release(claims) == [None] * 10
        living = told(await theirs.cluster.living([claim.name.session for claim in claims]))
        assert living == [[]] * 10
        assert await ours.cluster.close([]) == []
        assert await ours.cluster.release([]) == []

    async def test_a_cursor_past_the_end_asks_how_far_it_is(self, ours: Node) -> None:
        claim = await ours.start("A")
        await ours.append(claim, 0, 3)
        tail = await ours.read(claim.name, FAR)
        assert tail is not None
        assert (tail.last, tail.frames, tail.closed) == (3, b"", False)
        await ours.close(claim, 3, 4)
        tail = await ours.read(claim.name, FAR)
        assert tail is not None
        assert (tail.last, tail.frames, tail.closed) == (4, b"", True)

    async def test_what_is_appended_twice_is_there_once(self, ours: Node) -> None:
        claim = await ours.start("A")
        for first, last in ((0, 3), (0, 3), (0, 2), (1, 3), (0, 5), (2, 7), (7, 8), (0, 8)):
            appended = await ours.append(claim, first, last)
            assert appended.verdict is Verdict.GOOD
        for _ in range(2):
            assert await ours.close(claim, 4, 10) == Appended(Verdict.GOOD, 10)
        tail = await ours.read(claim.name)
        assert tail is not None
        assert (tail.last, tail.frames) == (10, lines(0, 10))

    async def test_a_batch_with_a_hole_before_it_is_refused(self, ours: Node) -> None:
        claim = await ours.start("A")
        await ours.append(claim, 0, 2)
        assert await ours.append(claim, 3, 5) == Appended(Verdict.REGRESSED, 2)
        assert await ours.close(claim, 3, 5) == Appended(Verdict.REGRESSED, 2)
        assert await ours.append(claim, 2, 5) == Appended(Verdict.GOOD, 5)

    async def test_who_has_not_claimed_cannot_append(self, ours: Node) -> None:
        claim = await ours.ticket("A")
        assert await ours.append(claim, 0, 1) == Appended(Verdict.REGRESSED, 0)
        await ours.cluster.claim(claim)
        assert await ours.append(claim, 0, 1) == Appended(Verdict.GOOD, 1)

    async def test_the_fence(self, ours: Node, theirs: Node) -> None:
        old = await ours.start("A")
        await ours.append(old, 0, 2)
        new = await theirs.start("B")
        assert await ours.append(old, 2, 3) == Appended(Verdict.FENCED, 2)
        assert await theirs.append(new, 0, 1) == Appended(Verdict.GOOD, 1)
        assert await ours.close(old, 2, 5) == Appended(Verdict.GOOD, 5)
        assert await ours.append(old, 5, 6) == Appended(Verdict.FENCED, 5)
        assert await theirs.append(new, 1, 2) == Appended(Verdict.GOOD, 2)
        tail = await theirs.read(old.name)
        assert tail is not None
        assert (tail.frames, tail.closed) == (lines(0, 5), True)

    async def test_after_its_end_a_log_takes_nothing(self, ours: Node) -> None:
        claim = await ours.start("A")
        await ours.close(claim, 0, 2)
        assert await ours.append(claim, 2, 3) == Appended(Verdict.FENCED, 2)
        with pytest.raises(Outrun):
            await ours.cluster.claim(claim)
        assert (await ours.renew(claim)).verdict is Verdict.GOOD, "its agent may tidy up"
        await ours.release(claim)
        assert await ours.append(claim, 2, 3) == Appended(Verdict.FENCED, 2)
        assert (await ours.renew(claim)).verdict is Verdict.FENCED
        tail = await ours.read(claim.name)
        assert tail is not None
        assert (tail.last, tail.closed, tail.expired) == (2, True, False)

    async def test_a_stream_that_never_owned_has_an_end_too(self, ours: Node, theirs: Node) -> None:
        late = await ours.ticket("A")
        new = await theirs.start("B")
        assert await ours.close(late, 0, 2) == Appended(Verdict.GOOD, 2)
        await ours.release(late)
        tail = await theirs.read(late.name)
        assert tail is not None
        assert (tail.epoch, tail.frames, tail.closed) == (late.epoch, lines(0, 2), True)
        assert (await theirs.renew(new)).verdict is Verdict.GOOD

    async def test_many_logs_in_one_trip(self, ours: Node, theirs: Node) -> None:
        claims = [await ours.start(f"A{number}", f"s{number}") for number in range(100)]
        await theirs.start("B", "s3")
        for round in range(3):
            appended = told(
                await ours.cluster.append(
                    [batch(claim, round * 2, round * 2 + 2) for claim in claims]
                )
            )
            assert [one.verdict for one in appended] == [
                Verdict.FENCED if number == 3 else Verdict.GOOD for number in range(100)
            ]
        tails = told(
            await theirs.cluster.read(
                [(claim.name, number % 7) for number, claim in enumerate(claims)]
            )
        )
        for number, tail in enumerate(tails):
            assert tail is not None
            assert tail.frames == (lines(number % 7, 6) if number != 3 else b"")
        assert await ours.cluster.append([]) == []
        assert await ours.cluster.read([]) == []

    async def test_a_long_log_is_read_in_pieces(self, ours: Node, theirs: Node) -> None:
        claim = await ours.start("A")
        for first in range(0, 30_000, 1_000):
            await ours.append(claim, first, first + 1_000)
        await ours.close(claim, 30_000, 30_001)
        read, cursor, pieces = b"", 0, 0
        closed = False
        while not closed:
            tail = await theirs.read(claim.name, cursor)
            assert tail is not None
            assert tail.last > cursor
            cursor, closed = tail.last, tail.closed
            read += tail.frames
            pieces += 1
        assert read == lines(0, 30_001)
        assert pieces > 3

    async def test_of_a_name_nobody_reserved_nothing_is_known(self, ours: Node) -> None:
        name = ours.name("A")
        assert await ours.read(name) is None
        await ours.cluster.attend([name])
        assert await ours.read(name) is None

    async def test_readers_see_that_a_log_is_removed(self, ours: Node, theirs: Node) -> None:
        claim = await ours.start("A")
        await ours.append(claim, 0, 2)
        other = await ours.start("B", "t")
        before = claim.epoch + 1
        await theirs.cluster.remove("s", 0, before)
        for node in (ours, theirs):
            await node.hears(Word(kind="forgotten", session="s", before=before))
        new = await ours.start("C")
        await ours.append(new, 0, 1)
        for of, removed in ((claim, True), (other, False), (new, False)):
            tail = await theirs.read(of.name)
            assert tail is not None
            assert tail.removed is removed
            assert await ours.cluster.is_removed(of.name.session, of.epoch) is removed
        (living,) = told(await theirs.cluster.living(["s"]))
        assert [one.removed for one in living] == [True, False]
        renewed = told(await ours.cluster.renew([claim, other, new]))
        assert [one.removed for one in renewed] == [True, False, False]

    async def test_a_claim_that_comes_after_a_removal_is_refused(
        self, ours: Node, theirs: Node
    ) -> None:
        late = await ours.ticket("A")
        before = await theirs.cluster.ticket("s", 0)
        await theirs.cluster.remove("s", 0, before)
        for on_conflict in ("interrupt", "enqueue"):
            with pytest.raises(Outdated):
                await ours.cluster.claim(late, on_conflict=on_conflict)
        assert told(await theirs.cluster.living(["s"])) == [[]]
        assert await ours.start("B")

    async def test_removals_take_effect_in_any_order(self, ours: Node, theirs: Node) -> None:
        claims = [await ours.start(stream) for stream in "ABCD"]
        epochs = [claim.epoch for claim in claims]
        await ours.cluster.remove("s", epochs[2], epochs[3], "D")
        word = Word(kind="forgotten", session="s", first=epochs[2], before=epochs[3], by="D")
        await theirs.hears(word)
        await theirs.cluster.remove("s", 0, epochs[1])
        await ours.cluster.remove("s", epochs[2], epochs[3])
        await ours.cluster.remove("s", 0, epochs[0])
        removed = [await ours.cluster.is_removed("s", epoch) for epoch in epochs]
        assert removed == [True, False, True, False]

    # Burial

    async def test_a_dead_nodes_stream_is_buried_once(
        self, ours: Node, theirs: Node, dying: Node
    ) -> None:
        claim = await dying.start("A")
        await dying.append(claim, 0, 3)
        await self.expired(ours, claim)
        buried = await asyncio.gather(
            ours.cluster.bury([batch(claim, 3, 4)]), theirs.cluster.bury([batch(claim, 3, 4)])
        )
        assert sorted(map(only, buried)) == [False, True]
        tail = await ours.read(claim.name)
        assert tail == Tail(
            epoch=claim.epoch, last=4, frames=lines(0, 4), closed=True, expired=False
        )
        assert await ours.living() == []
        # It was not dead at all, only asleep.
        assert await dying.append(claim, 3, 5) == Appended(Verdict.FENCED, 4)
        assert await dying.close(claim, 3, 9) == Appended(Verdict.FENCED, 4)
        assert (await dying.renew(claim)).verdict is Verdict.FENCED
        with pytest.raises(Outrun):
            await dying.cluster.claim(claim)
        await dying.release(claim)

    async def test_many_are_buried_in_one_call_each_for_itself(
        self, ours: Node, theirs: Node, dying: Node
    ) -> None:
        dead = [await dying.start(stream, session) for stream, session in ("As", "Bt", "Cu")]
        for claim in dead[:2]:
            await dying.append(claim, 0, 2)
        living = await ours.start("D", "v")
        await ours.append(living, 0, 2)
        for claim in dead:
            await self.expired(ours, claim)
        nothing = Batch(Claim(name=dead[2].name, epoch=0), first=0, last=0, frames=b"")
        batches = [batch(dead[0], 2, 3), batch(living, 2, 3), batch(dead[1], 1, 2), nothing]
        assert await theirs.cluster.bury(batches) == [True, False, False, True]
        assert await theirs.cluster.bury([]) == []

    async def test_a_piece_of_a_log_is_as_long_as_its_reader_wants(self, ours: Node) -> None:
        claim = await ours.start("A")
        for seq in range(0, 400, 10):
            await ours.append(claim, seq, seq + 10)
        size = len(lines(0, 400))
        for max_bytes in (1, size // 3, size):
            (tail,) = await ours.cluster.read([(claim.name, 10)], max_bytes=max_bytes)
            assert isinstance(tail, Tail)
            assert tail.frames == lines(10, tail.last)
            if tail.last < 400:
                assert max_bytes <= len(tail.frames) < max_bytes + len(lines(100, 110)) + 10

    async def test_one_that_died_after_its_end_is_released(self, ours: Node, dying: Node) -> None:
        claim = await dying.start("A")
        await dying.append(claim, 0, 3)
        await dying.close(claim, 3, 4)

        async def is_dead() -> bool:
            (left,) = await ours.living()
            assert left.closed
            return left.expired

        await eventually(is_dead)
        assert not only(await ours.cluster.bury([batch(claim, 4, 5)]))
        assert await ours.living() == []
        tail = await ours.read(claim.name)
        assert tail is not None
        assert (tail.last, tail.closed) == (4, True)
        tidies_up = await ours.start("B")
        await ours.close(tidies_up, 0, 2)
        assert not only(await ours.cluster.bury([batch(tidies_up, 2, 3)]))
        assert streams(await ours.living()) == ["B"]

    async def test_the_living_are_not_buried(self, ours: Node, theirs: Node) -> None:
        claim = await ours.start("A")
        await ours.append(claim, 0, 3)
        assert not only(await theirs.cluster.bury([batch(claim, 3, 4)]))
        assert await ours.append(claim, 3, 4) == Appended(Verdict.GOOD, 4)

    async def test_who_has_not_seen_all_of_it_cannot_bury_it(self, ours: Node, dying: Node) -> None:
        claim = await dying.start("A")
        await dying.append(claim, 0, 3)
        await self.expired(ours, claim)
        assert not only(await ours.cluster.bury([batch(claim, 2, 3)]))
        assert not only(await ours.cluster.bury([batch(claim, 4, 5)]))
        assert only(await ours.cluster.bury([batch(claim, 1, 5)]))
        tail = await ours.read(claim.name)
        assert tail is not None
        assert tail.frames == lines(0, 5)

    async def test_a_start_that_never_claimed_is_buried_too(self, ours: Node, dying: Node) -> None:
        name = dying.name("A")
        await dying.cluster.reserve(name)
        epoch = await ours.cluster.ticket("s", 0)
        claim = Claim(name=name, epoch=epoch)
        await self.expired(ours, claim)
        assert only(await ours.cluster.bury([batch(claim, 0, 2)]))
        tail = await ours.read(name)
        assert tail is not None
        assert (tail.epoch, tail.last, tail.closed) == (epoch, 2, True)

    async def test_who_could_not_write_its_end_is_buried_after_its_release(
        self, ours: Node, theirs: Node
    ) -> None:
        claim = await ours.start("A")
        await ours.append(claim, 0, 3)
        await ours.release(claim)
        assert await theirs.is_expired(claim)
        assert only(await theirs.cluster.bury([batch(claim, 3, 4)]))
        assert await ours.close(claim, 3, 4) == Appended(Verdict.FENCED, 4)

    # Words

    async def test_who_watches_hears_of_all_that_come_and_go(
        self, ours: Node, theirs: Node
    ) -> None:
        for _ in range(2):
            await theirs.cluster.watch(["s"])
        await theirs.cluster.watch(["t"])
        claim = await ours.start("A")
        waiting, _ = await ours.queue("B")
        await ours.close(claim, 0, 2)
        await ours.release(claim)
        await ours.cluster.claim(waiting, on_conflict="enqueue")
        await ours.start("C", "t")
        await theirs.hears(
            Word(kind="claimed", session="s", stream="A"),
            Word(kind="claimed", session="s", stream="B"),
            Word(kind="released", session="s", stream="A"),
            Word(kind="claimed", session="s", stream="B"),
        )
        await theirs.hears(Word(kind="claimed", session="t", stream="C"))
        await theirs.cluster.unwatch(["s"])
        await theirs.cluster.unwatch(["s"])
        await ours.start("D")
        await ours.start("E", "t")
        await theirs.hears(Word(kind="claimed", session="t", stream="E"))
        assert Word(kind="claimed", session="s", stream="D") not in theirs.words

    async def test_who_waits_hears_of_a_release_without_watching(
        self, ours: Node, theirs: Node
    ) -> None:
        old = await ours.start("A")
        await theirs.start("B")
        await ours.close(old, 0, 2)
        await ours.release(old)
        await theirs.hears(Word(kind="released", session="s", stream="A"))

    async def test_the_buried_are_released(self, ours: Node, theirs: Node, dying: Node) -> None:
        dead = await dying.start("A")
        await theirs.start("B")
        await self.expired(ours, dead)
        only(await ours.cluster.bury([batch(dead, 0, 2)]))
        await theirs.hears(Word(kind="released", session="s", stream="A"))

    async def test_it_tells_how_it_answers(self, ours: Node) -> None:
        await ours.start("A")
        health = ours.cluster.health
        assert health.reachable
        assert len(health.trips) >= 3
        assert health.failures == 0
        assert health.last_answer <= time.monotonic()

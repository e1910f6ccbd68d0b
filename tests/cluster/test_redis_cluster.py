"""A Redis Cluster whose slots move and whose servers die; and one that is no good to begin with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import redis
from contracts.cluster import PATIENCE, Node, batch, eventually, lines
from redis_cluster_servers import (
    ClusterNode,
    ClusterOfServers,
    session_at,
    slot_of_session,
    streams_at,
    wait_until,
)
from redis_proxy import in_front_of
from redis_server import RedisServer

from jarvis_stream.cluster import wire
from jarvis_stream.cluster.base import Appended, Claim, Health, StoreLost, Verdict, Word, only
from jarvis_stream.cluster.redis import RedisCluster
from jarvis_stream.cluster.routing import slot_of
from jarvis_stream.cluster.wire import pack

T = TypeVar("T")


@pytest.fixture
def steady_cluster(shared_redis_cluster: ClusterOfServers) -> Iterator[ClusterOfServers]:
    """One whose servers live on; what was done to them is undone."""
    for server in shared_redis_cluster.nodes:
        server.ask("FLUSHALL")
    yield shared_redis_cluster
    for server in shared_redis_cluster.nodes:
        server.thaw()


@asynccontextmanager
async def node(url: str, name: str = "ours", **options: Any) -> AsyncIterator[Node]:
    words: list[Word] = []
    options = {"lease": 3600.0, "timeout": 3.0, "grace": 0.0, **options}
    async with RedisCluster(url, node=name, **options).running(words.append) as cluster:
        yield Node(cluster, words)


async def start_at(view: Node, server: ClusterNode) -> Claim:
    """A stream that has nothing on other primaries."""
    return await view.start(next(streams_at(server)), session_at(server))


async def until_it_works(call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Ask again and again, as a node does."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await call(*arguments)
            except StoreLost:
                await asyncio.sleep(0.02)


async def whole(view: Node) -> None:
    """Wait until all primaries answer, and words are heard."""

    async def condition() -> bool:
        return view.cluster.health.reachable and view.cluster.health.listening

    await eventually(condition)


def log_of(claim: Claim) -> str:
    """The key of its frames."""
    return f"jarvis:{{{claim.name.session}}}:{claim.name.nonce}:log"


@pytest.mark.parametrize(
    "key", ["jarvis:{s}", "jarvis:{s}:words", "jarvis:name:A", "{}", "a{b", "a{}{b}", "{ü}x{y}"]
)
def test_a_key_is_in_the_slot_that_redis_says(
    shared_redis_cluster: ClusterOfServers, key: str
) -> None:
    slot = shared_redis_cluster.nodes[0].ask("CLUSTER", "KEYSLOT", key)
    assert slot_of(pack("GET", key)) == slot
    assert slot_of(pack("EVALSHA", "0" * 40, 2, key, "another", "\r\n{argument}")) == slot


def test_what_has_no_key_is_in_no_slot() -> None:
    assert slot_of(pack("PING")) is slot_of(pack("INFO", "server")) is None


# Slots that move


async def test_who_asks_the_wrong_primary_is_sent_to_the_right_one_and_loses_nothing(
    steady_cluster: ClusterOfServers,
) -> None:
    one, two, _ = steady_cluster.primaries
    async with node(steady_cluster.url) as ours, node(steady_cluster.url, "theirs") as theirs:
        claim = await start_at(ours, one)
        slot = slot_of_session(claim.name.session)
        moved_at = time.monotonic()
        for number, to in enumerate((two, one, two)):
            steady_cluster.move(slot, to)
            assert await ours.append(claim, number, number + 1) == Appended(
                Verdict.GOOD, number + 1
            )
        # Its leases are by another clock now: nobody shall be thought dead for that.
        assert ours.cluster.health.since > moved_at
        tail = await theirs.read(claim.name)
        assert tail is not None
        assert tail.frames == lines(0, 3)
        assert ours.cluster.health.failures == theirs.cluster.health.failures == 0


async def test_while_a_slot_moves_its_keys_are_found_on_either_side(
    steady_cluster: ClusterOfServers,
) -> None:
    one, two, _ = steady_cluster.primaries
    async with node(steady_cluster.url) as ours:
        claim = await start_at(ours, one)
        assert (await ours.append(claim, 0, 1)).verdict is Verdict.GOOD
        slot = slot_of_session(claim.name.session)
        steady_cluster.begin_move(slot, two)
        assert await ours.append(claim, 1, 2) == Appended(Verdict.GOOD, 2)
        steady_cluster.move_keys(slot, one, two)
        assert await ours.append(claim, 2, 3) == Appended(Verdict.GOOD, 3)
        steady_cluster.end_move(slot, two)
        assert await ours.append(claim, 3, 4) == Appended(Verdict.GOOD, 4)
        tail = await ours.read(claim.name)
        assert tail is not None
        assert tail.frames == lines(0, 4)
        assert ours.cluster.health.failures == 0


async def test_a_session_that_is_half_moved_waits_and_others_do_not(
    steady_cluster: ClusterOfServers,
) -> None:
    one, two, _ = steady_cluster.primaries
    async with node(steady_cluster.url) as ours:
        moving = await until_it_works(start_at, ours, one)
        staying = await until_it_works(start_at, ours, two)
        await until_it_works(ours.append, moving, 0, 1)
        slot = slot_of_session(moving.name.session)
        steady_cluster.begin_move(slot, two)
        steady_cluster.move_these([log_of(moving)], one, two)

        async def append(first: int) -> tuple[Appended | StoreLost, ...]:
            both = [batch(moving, 1, 2), batch(staying, first, first + 1)]
            lost, told = await ours.cluster.append(both)
            return lost, told

        lost, told = await append(0)
        assert isinstance(lost, StoreLost)
        assert told == Appended(Verdict.GOOD, 1)
        waiting = asyncio.create_task(until_it_works(ours.append, moving, 1, 2))
        await asyncio.to_thread(steady_cluster.move_keys, slot, one, two)
        steady_cluster.end_move(slot, two)
        assert await waiting == Appended(Verdict.GOOD, 2)


async def test_slots_that_move_under_load_lose_and_repeat_nothing(
    steady_cluster: ClusterOfServers,
) -> None:
    async with node(steady_cluster.url) as ours, node(steady_cluster.url, "theirs") as theirs:
        claims = [await ours.start(f"A{number}", f"s{number}") for number in range(20)]
        moved = asyncio.Event()
        said = dict.fromkeys(range(len(claims)), 0)

        async def speak(number: int) -> None:
            while not (moved.is_set() and said[number] > 20):
                first = said[number]
                appended = await until_it_works(ours.append, claims[number], first, first + 2)
                assert appended == Appended(Verdict.GOOD, first + 2)
                said[number] = first + 2
                await asyncio.sleep(0.001)
            await until_it_works(ours.close, claims[number], said[number], said[number] + 1)

        async with asyncio.TaskGroup() as group:
            for number in said:
                group.create_task(speak(number))
            for turn in range(2):
                for number in range(0, 20, 4):
                    slot = slot_of_session(f"s{number}")
                    to = steady_cluster.primaries[(number + turn) % 3]
                    if steady_cluster.owner(slot) is not to:
                        await asyncio.to_thread(steady_cluster.move, slot, to)
            moved.set()
        for number, claim in enumerate(claims):
            tail = await until_it_works(theirs.read, claim.name)
            assert tail is not None
            assert (tail.frames, tail.closed) == (lines(0, said[number] + 1), True)
        # What was carried out was carried out once: each batch is one entry of its log.
        for number, claim in enumerate(claims):
            owner = steady_cluster.owner(slot_of_session(f"s{number}"))
            assert owner.ask("XLEN", log_of(claim)) == said[number] // 2 + 1


async def test_scripts_that_one_primary_has_lost_are_loaded_again(
    steady_cluster: ClusterOfServers,
) -> None:
    async with node(steady_cluster.url) as ours:
        claims = [await start_at(ours, server) for server in steady_cluster.primaries]
        steady_cluster.primaries[1].ask("SCRIPT", "FLUSH")
        appended = await ours.cluster.append([batch(claim, 0, 1) for claim in claims])
        assert appended == [Appended(Verdict.GOOD, 1)] * 3


# Servers that die


async def test_a_replica_that_is_promoted_is_found_and_others_notice_nothing(
    redis_cluster: ClusterOfServers,
) -> None:
    dying, living, _ = redis_cluster.primaries
    (replica,) = redis_cluster.replicas
    async with node(living.url) as ours, node(dying.url, "theirs") as theirs:
        there, elsewhere = await start_at(ours, dying), await start_at(ours, living)
        assert (await ours.append(there, 0, 3)).verdict is Verdict.GOOD
        assert dying.ask("WAIT", 1, 5000) == 1
        killed_at = time.monotonic()
        dying.kill()
        with pytest.raises(StoreLost):
            await ours.append(there, 3, 4)
        assert await ours.append(elsewhere, 0, 1) == Appended(Verdict.GOOD, 1)
        redis_cluster.promote(replica)
        assert await until_it_works(ours.append, there, 3, 5) == Appended(Verdict.GOOD, 5)
        tail = await until_it_works(theirs.read, there.name)
        assert tail is not None
        assert tail.frames == lines(0, 5)
        await whole(ours)
        await whole(theirs)
        # Nobody shall be thought dead for what the replica had not been told.
        assert ours.cluster.health.since > killed_at


async def test_a_replica_that_alone_is_left_is_found(redis_cluster: ClusterOfServers) -> None:
    dying = redis_cluster.primaries[0]
    (replica,) = redis_cluster.replicas
    async with node(dying.url, timeout=0.3) as ours:
        claim = await until_it_works(start_at, ours, dying)
        await until_it_works(ours.append, claim, 0, 1)
        assert dying.ask("WAIT", 1, 5000) == 1
        for server in redis_cluster.primaries:
            server.kill()
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        assert await until_it_works(ours.append, claim, 1, 2) == Appended(Verdict.GOOD, 2)
        assert (await until_it_works(ours.renew, claim)).verdict is Verdict.GOOD


async def test_a_primary_without_a_replica_takes_with_it_only_what_it_holds(
    redis_cluster: ClusterOfServers,
) -> None:
    living, dying, _ = redis_cluster.primaries
    async with node(redis_cluster.url) as ours:
        there = await until_it_works(start_at, ours, dying)
        here = await until_it_works(start_at, ours, living)
        dying.kill()
        for _ in range(2):  # as long as it is away
            lost, renewed = await ours.cluster.renew([there, here])
            assert isinstance(lost, StoreLost)
            assert only([renewed]).verdict is Verdict.GOOD
            assert not ours.cluster.health.reachable
        both = await ours.cluster.append([batch(there, 0, 1), batch(here, 0, 1)])
        assert isinstance(both[0], StoreLost)
        assert both[1] == Appended(Verdict.GOOD, 1)
        assert isinstance((await ours.cluster.living([there.name.session]))[0], StoreLost)
        with pytest.raises(StoreLost):
            await ours.cluster.ticket(there.name.session, 0)
        assert await ours.cluster.ticket(here.name.session, 0) > here.epoch
        dying.start()  # with nothing of what it knew
        assert (await until_it_works(ours.renew, there)).verdict is Verdict.REGRESSED
        await until_it_works(ours.cluster.claim, there)
        assert await until_it_works(ours.append, there, 0, 2) == Appended(Verdict.GOOD, 2)
        await whole(ours)


async def test_a_lease_is_renewed_though_the_primary_of_the_streams_name_is_away(
    steady_cluster: ClusterOfServers,
) -> None:
    living, frozen, _ = steady_cluster.primaries
    async with node(steady_cluster.url, timeout=0.3) as ours:
        stream, session = next(streams_at(frozen)), session_at(living)
        claim = await until_it_works(ours.start, stream, session)
        frozen.freeze()
        assert (await until_it_works(ours.renew, claim)).verdict is Verdict.GOOD


async def test_a_primary_that_is_frozen_costs_its_own_sessions_their_answers_alone(
    steady_cluster: ClusterOfServers,
) -> None:
    living, frozen, _ = steady_cluster.primaries
    async with node(steady_cluster.url, timeout=0.3) as ours:
        there = await until_it_works(start_at, ours, frozen)
        here = await until_it_works(start_at, ours, living)
        frozen.freeze()
        seq = tries = 0
        async with asyncio.timeout(2 * PATIENCE):
            while ours.cluster.health.failures < 20:
                tries += 1
                both = [batch(there, 0, 1), batch(here, seq, seq + 1)]
                lost, appended = await ours.cluster.append(both)
                assert isinstance(lost, StoreLost)
                if not isinstance(appended, StoreLost):  # as it is when the disk stalls
                    seq += 1
                    assert appended == Appended(Verdict.GOOD, seq)
        assert seq > tries / 2
        frozen.thaw()
        await whole(ours)
        assert await until_it_works(ours.append, there, 0, 2) == Appended(Verdict.GOOD, 2)


async def test_words_are_heard_at_another_server_when_the_one_dies(
    redis_cluster: ClusterOfServers,
) -> None:
    living, *others = redis_cluster.primaries[::-1]
    async with node(living.url) as ours, node(living.url, "theirs") as theirs:
        claim = await start_at(ours, living)
        for server in (*others, *redis_cluster.replicas):  # wherever it listens, unless it is there
            server.kill()

        async def is_heard() -> bool:
            await theirs.cluster.stop(claim.name.stream)
            return bool(ours.words)

        await eventually(is_heard)


async def test_who_listens_moves_on_when_a_server_is_no_part_of_the_cluster_any_more(
    steady_cluster: ClusterOfServers,
) -> None:
    one, two, _ = steady_cluster.primaries
    places = [one, two]

    def where(now: wire.Address | None) -> wire.Address:
        return "127.0.0.1", places[0].port

    async def hears(server: ClusterNode) -> bool:
        return bool(server.ask("PUBSUB", "NUMSUB", "channel")[1])

    ear = wire.Ear(one.url, lambda channel, said: None, Health(), where=where)
    async with ear.running():
        await ear.listen(b"channel")
        assert await hears(one)
        del places[0]
        await eventually(lambda: hears(two))
        assert not await hears(one)


# The start


async def test_any_of_several_hosts_is_the_way_in(
    steady_cluster: ClusterOfServers, unused_tcp_port: int
) -> None:
    (living, *_) = steady_cluster.primaries
    async with node(f"redis://127.0.0.1:{unused_tcp_port},127.0.0.1:{living.port}/0") as ours:
        await start_at(ours, living)


async def test_a_password_is_good_at_every_server(steady_cluster: ClusterOfServers) -> None:
    for server in steady_cluster.nodes:
        server.ask("CONFIG", "SET", "requirepass", "right")
    port = steady_cluster.nodes[0].port
    assert "refuses the name or the password" in await refusal(f"redis://:secret@127.0.0.1:{port}")
    async with node(f"redis://:right@127.0.0.1:{port}") as ours:
        for number in range(10):
            await ours.start(f"A{number}", f"s{number}")
    for server in steady_cluster.nodes:
        with redis.from_url(f"unix://:right@{server.socket}") as client:
            client.config_set("requirepass", "")


async def refusal(url: str) -> str:
    """What is said when a node cannot start."""
    with pytest.raises(StoreLost) as lost:
        async with node(url):
            pass
    text = str(lost.value)
    assert "secret" not in text
    return text


async def test_who_may_not_look_at_a_server_finds_the_cluster_all_the_same(
    steady_cluster: ClusterOfServers,
) -> None:
    for server in steady_cluster.nodes:
        server.ask("ACL", "SETUSER", "jarvis", "on", ">right", "~jarvis:*", "&jarvis:*", "+@all")
        server.ask("ACL", "SETUSER", "jarvis", "-@admin", "-@dangerous", "+cluster")
    port = steady_cluster.nodes[0].port
    async with node(f"redis://jarvis:right@127.0.0.1:{port}") as ours:
        for number in range(10):
            await ours.start(f"A{number}", f"s{number}")


async def test_a_database_number_is_refused(shared_redis_cluster: ClusterOfServers) -> None:
    assert "has no database but 0" in await refusal(f"{shared_redis_cluster.url}/1")


async def test_a_socket_of_one_server_is_refused(shared_redis_cluster: ClusterOfServers) -> None:
    socket = shared_redis_cluster.nodes[0].socket
    assert "name a host and port" in await refusal(f"unix://{socket}")


async def test_several_hosts_that_are_no_cluster_are_refused(
    redis_server: RedisServer,
) -> None:
    async with in_front_of(redis_server.socket) as proxy:
        host = proxy.url.removeprefix("redis://")
        assert "is not a Redis Cluster" in await refusal(f"redis://{host},{host}")


async def test_a_cluster_without_slots_is_refused(new_server: ClusterNode) -> None:
    assert "serves no slots yet" in await refusal(new_server.url)


async def test_a_cluster_that_names_servers_which_nobody_reaches_is_refused(
    new_server: ClusterNode, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(wire, "CONNECT_TIMEOUT", 0.5)
    new_server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    new_server.ask("CONFIG", "SET", "cluster-announce-port", unused_tcp_port)
    assert f"can be reached: 127.0.0.1:{unused_tcp_port}" in await refusal(new_server.url)


async def test_a_cluster_of_one_that_does_not_know_its_own_host_is_found(
    new_server: ClusterNode,
) -> None:
    new_server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_until(lambda: new_server.is_ok)
    async with node(new_server.url) as ours:
        claim = await ours.start("A")
        assert (await ours.append(claim, 0, 1)).verdict is Verdict.GOOD

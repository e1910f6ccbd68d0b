"""Redis frozen, killed, cut off, flushed, failed over; and Redis that is no good to begin with."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from contracts.cluster import PATIENCE, Node, batch, eventually, lines, streams, told
from contracts.passes import ANN
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError
from redis_proxy import RedisProxy, in_front_of
from redis_server import RedisServer

from jarvis_stream.cluster import redis, wire
from jarvis_stream.cluster.base import (
    Appended,
    Batch,
    Claim,
    Name,
    Outrun,
    StoreLost,
    Verdict,
    Word,
    only,
)
from jarvis_stream.cluster.probe import PERMISSIONS
from jarvis_stream.cluster.redis import RedisCluster
from jarvis_stream.cluster.shared import RedisPasses, RedisRates, shared_router

T = TypeVar("T")


@asynccontextmanager
async def node(url: str, name: str = "ours", **options: Any) -> AsyncIterator[Node]:
    words: list[Word] = []
    # Long enough for a busy machine, short enough to wait for.
    options = {"lease": 3600.0, "timeout": 3.0, "grace": 0.0, **options}
    async with RedisCluster(url, node=name, **options).running(words.append) as cluster:
        yield Node(cluster, words)


@contextmanager
def another_server(*options: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="jarvis-redis-") as directory:
        server = RedisServer(Path(directory), *options)
        try:
            yield server
        finally:
            server.kill()


async def recovered(view: Node) -> None:
    """Wait until the store answers again, and words are heard."""

    async def condition() -> bool:
        try:
            await view.cluster.find("anything")
        except StoreLost:
            return False
        return view.cluster.health.reachable and view.cluster.health.listening

    await eventually(condition)


# Frozen


async def test_a_frozen_redis_is_told_in_time_and_the_loop_goes_on(
    redis_server: RedisServer,
) -> None:
    async with node(redis_server.url, timeout=0.3) as ours:
        claim = await until_it_works(start, ours, ours.name("A"))
        redis_server.freeze()
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        turning = asyncio.create_task(turn())
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(
                *(ours.append(claim, 0, 1) for _ in range(20)), return_exceptions=True
            )
        turning.cancel()
        assert {type(result) for result in results} == {StoreLost}
        assert turns > 3
        assert not ours.cluster.health.reachable
        assert ours.cluster.health.failures >= 20
        redis_server.thaw()
        await recovered(ours)
        assert (await until_it_works(ours.append, claim, 0, 2)).verdict is Verdict.GOOD
        tail = await until_it_works(ours.read, claim.name)
        assert tail is not None
        assert tail.frames == lines(0, 2)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_write_to_a_closed_connection_is_a_lost_connection(
    loop: Callable[[], asyncio.AbstractEventLoop], redis_server: RedisServer
) -> None:
    async def scenario() -> None:
        pool: Any = wire.connect(redis_server.url).connection_pool
        connection = pool.make_connection()

        async def ping() -> None:
            await wire.send(connection, [wire.pack("PING")])
            await connection.read_response()

        await connection.connect()
        await ping()
        connection._writer.transport.abort()
        with pytest.raises((RedisError, OSError)):
            await ping()
        await connection.disconnect(nowait=True)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


async def test_a_connection_that_is_closed_while_it_is_made_is_made_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, failures = Connection.connect, iter([True, True])

    async def closed_at_first(connection: Connection) -> None:
        if next(failures, False):
            raise RuntimeError("unable to perform operation; the handler is closed")
        await connect(connection)  # type: ignore[no-untyped-call]

    async with in_front_of(redis_server.socket) as proxy, node(proxy.url) as ours:
        monkeypatch.setattr(Connection, "connect", closed_at_first)
        proxy.cut()
        await recovered(ours)
        assert not list(failures)


async def test_a_reply_that_comes_late_is_not_a_lost_connection(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SILENCE", 3600.0)
    async with node(redis_server.url, timeout=0.2) as ours:
        claim = await until_it_works(start, ours, ours.name("A"))
        connected_at = ours.cluster.health.since
        redis_server.freeze()
        for _ in range(3):
            with pytest.raises(StoreLost):
                await ours.renew(claim)
        redis_server.thaw()
        renewed = await until_it_works(ours.renew, claim)
        assert renewed.verdict is Verdict.GOOD
        assert ours.cluster.health.since == connected_at


async def test_many_commands_are_asked_in_bounded_slices(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(redis_server.url) as ours:
        claims = [await ours.start(f"A{number}", f"s{number}") for number in range(20)]
        router: Any = ours.cluster._router  # type: ignore[attr-defined]
        sizes: list[int] = []
        ask = router.ask

        async def note(commands: Sequence[bytes]) -> list[Any]:
            if len(commands) > 1:  # a ping is one
                sizes.append(len(commands))
            return await ask(commands)  # type: ignore[no-any-return]

        monkeypatch.setattr(router, "ask", note)
        monkeypatch.setattr(redis, "MAX_COMMANDS", 16)
        renewed = told(await ours.cluster.renew(claims))
        assert [one.verdict for one in renewed] == [Verdict.GOOD] * 20
        assert sizes == [16, 16, 8]
        sizes.clear()
        redis_server.freeze()
        lost = await ours.cluster.renew(claims)
        assert all(isinstance(one, StoreLost) for one in lost)
        assert sizes == [16], "the rest is not asked of a store that is away"
        redis_server.thaw()


async def test_what_was_sent_to_a_frozen_redis_is_carried_out_late(
    redis_server: RedisServer,
) -> None:
    async with node(redis_server.url) as ours, node(redis_server.url, "theirs") as theirs:
        old = await ours.start("A")
        slow = await theirs.ticket("B")
        redis_server.freeze()
        with pytest.raises(StoreLost):
            await theirs.cluster.claim(slow)
        redis_server.thaw()
        await recovered(ours)

        async def is_superseded() -> bool:
            return (await ours.renew(old)).by == "B"

        await eventually(is_superseded)
        assert (await ours.append(old, 0, 1)).verdict is Verdict.FENCED


async def test_a_late_claim_steals_nothing(redis_server: RedisServer) -> None:
    async with (
        in_front_of(redis_server.socket) as proxy,
        node(redis_server.url) as ours,
        node(proxy.url, "theirs", timeout=0.3) as theirs,
    ):
        late = await until_it_works(ticket, theirs, theirs.name("A"))
        silence = asyncio.create_task(proxy.silence(3600.0))
        await asyncio.sleep(0)
        with pytest.raises(StoreLost):
            await theirs.cluster.claim(late)
        new = await ours.start("B")
        silence.cancel()
        await asyncio.wait([silence])
        await recovered(theirs)
        for seq in range(20):
            assert (await ours.append(new, seq, seq + 1)).verdict is Verdict.GOOD
        assert streams(await ours.living()) == ["B"]
        with pytest.raises(Outrun):
            await until_it_works(theirs.cluster.claim, late)


# Killed


async def test_a_redis_that_was_killed_comes_back_with_what_it_knew(
    redis_server: RedisServer,
) -> None:
    async with node(redis_server.url) as ours, node(redis_server.url, "theirs") as theirs:
        claim = await ours.start("A")
        await ours.append(claim, 0, 3)
        await theirs.cluster.watch(["s"])
        redis_server.kill()
        with pytest.raises(StoreLost):
            await ours.append(claim, 3, 4)
        redis_server.start()
        await recovered(ours)
        await recovered(theirs)
        assert await ours.append(claim, 3, 5) == Appended(Verdict.GOOD, 5)
        tail = await theirs.read(claim.name)
        assert tail is not None
        assert tail.frames == lines(0, 5)
        new = await ours.start("B")
        await theirs.hears(Word(kind="claimed", session="s", stream="B"))
        assert new.epoch > claim.epoch


async def test_a_redis_that_has_lost_everything_is_told_again() -> None:
    with another_server("--appendonly", "no") as server:
        server.start()
        async with node(server.url) as ours, node(server.url, "theirs") as theirs:
            claim = await ours.start("A")
            await ours.append(claim, 0, 3)
            server.kill()
            server.start()
            await recovered(ours)
            await recovered(theirs)
            assert (await ours.renew(claim)).verdict is Verdict.REGRESSED
            assert await ours.append(claim, 3, 4) == Appended(Verdict.REGRESSED, 0)
            assert await theirs.cluster.find("A") == claim.name
            await ours.cluster.claim(claim)
            assert await ours.append(claim, 0, 4) == Appended(Verdict.GOOD, 4)
            tail = await theirs.read(claim.name, 3)
            assert tail is not None
            assert (tail.epoch, tail.frames) == (claim.epoch, lines(3, 4))


async def test_scripts_that_were_flushed_are_loaded_again(redis_server: RedisServer) -> None:
    async with node(redis_server.url) as ours:
        claims = [await ours.start(f"A{number}", f"s{number}") for number in range(10)]
        with redis_server.client() as client:
            client.script_flush()
        appended = await ours.cluster.append([batch(claim, 0, 2) for claim in claims])
        assert appended == [Appended(Verdict.GOOD, 2)] * 10
        assert (await ours.renew(claims[0])).verdict is Verdict.GOOD


# Cut off


async def test_connections_that_are_cut_are_made_again(redis_server: RedisServer) -> None:
    async with (
        in_front_of(redis_server.socket) as proxy,
        node(proxy.url) as ours,
        node(redis_server.url, "theirs") as theirs,
    ):
        claim = await ours.start("A")
        for round in range(5):
            proxy.cut()
            await recovered(ours)
            assert (await ours.append(claim, round, round + 1)).verdict is Verdict.GOOD
            await theirs.cluster.stop("A")
            assert (await ours.renew(claim)).cancelled

        async def is_heard() -> bool:
            await theirs.cluster.stop("A")
            return bool(ours.words)

        await eventually(is_heard)


async def test_without_words_the_heartbeat_tells(redis_server: RedisServer) -> None:
    async with (
        in_front_of(redis_server.socket) as proxy,
        node(proxy.url) as ours,
        node(redis_server.url, "theirs") as theirs,
    ):
        one, other = await ours.start("A"), await ours.start("B", "t")
        proxy.deaf_to = b"message"
        await theirs.cluster.stop("A")
        await theirs.start("C", "t", on_conflict="rollback")
        renewed = told(await ours.cluster.renew([one, other]))
        assert (renewed[0].verdict, renewed[0].cancelled) == (Verdict.GOOD, True)
        assert (renewed[1].verdict, renewed[1].by, renewed[1].rollback) == (
            Verdict.FENCED,
            "C",
            True,
        )
        assert ours.words == []


@pytest.mark.parametrize("seed", range(3))
async def test_through_a_bad_network_logs_are_whole(redis_server: RedisServer, seed: int) -> None:
    """Two nodes take turns at a session, over connections that are cut and delayed."""
    dice = random.Random(seed)
    async with in_front_of(redis_server.socket) as proxy:
        proxy.longest_delay = 0.02
        async with (
            node(proxy.url, "one") as one,
            node(proxy.url, "two") as two,
            node(redis_server.url, "reader") as reader,
        ):
            for number in range(6):
                await recite(dice.choice((one, two)), f"A{number}", reader, proxy, dice)
            assert await reader.living() == []


async def recite(
    speaker: Node, stream: str, reader: Node, proxy: RedisProxy, dice: random.Random
) -> None:
    claim = await until_it_works(start, speaker, speaker.name(stream))
    said = 0
    while said < 30:
        if dice.random() < 0.15:
            proxy.cut()
        last = said + dice.randrange(1, 5)
        appended = await until_it_works(speaker.append, claim, said, last)
        assert appended == Appended(Verdict.GOOD, last)
        said = last
    await until_it_works(speaker.close, claim, said, said + 1)
    await until_it_works(speaker.release, claim)
    tail = await reader.read(claim.name)
    assert tail is not None
    assert (tail.frames, tail.closed) == (lines(0, said + 1), True)


async def ticket(speaker: Node, name: Name) -> Claim:
    await speaker.cluster.reserve(name)
    return Claim(name=name, epoch=await speaker.cluster.ticket(name.session, 0))


async def start(speaker: Node, name: Name) -> Claim:
    claim = await ticket(speaker, name)
    await speaker.cluster.claim(claim)
    return claim


async def until_it_works(call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Ask again and again, as a node does."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await call(*arguments)
            except StoreLost:
                await asyncio.sleep(0.02)


# Failed over


async def replicate(replica: RedisServer, proxy: RedisProxy) -> None:
    """Follow the primary behind the proxy, and wait until it has caught up."""
    port = proxy.url.rpartition(":")[2]
    with replica.client() as client:
        client.replicaof("127.0.0.1", port)

        async def follows() -> bool:
            info: Any = client.info("replication")
            return bool(info["master_link_status"] == "up")

        await eventually(follows)


async def test_after_a_failover_to_a_stale_replica_no_cursor_names_two_frames(
    redis_server: RedisServer,
) -> None:
    with another_server("--appendonly", "no") as replica:
        replica.start()
        async with (
            in_front_of(redis_server.socket) as link,
            in_front_of(redis_server.socket) as proxy,
            node(proxy.url, "ours") as ours,
            node(proxy.url, "theirs") as theirs,
        ):
            long, short = await ours.start("A"), await theirs.start("B", "t")
            assert (await ours.append(long, 0, 10)).verdict is Verdict.GOOD
            assert (await theirs.append(short, 0, 4)).verdict is Verdict.GOOD
            await replicate(replica, link)
            seen: dict[tuple[str, int], bytes] = {}
            await note(theirs, seen, long, short)
            # From here on the replica is told nothing.
            silence = asyncio.create_task(link.silence(3600.0))
            await asyncio.sleep(0)
            assert (await ours.append(long, 10, 25)).verdict is Verdict.GOOD
            newest = await theirs.start("C")
            assert (await theirs.append(newest, 0, 5)).verdict is Verdict.GOOD
            assert (await theirs.close(short, 4, 9)).verdict is Verdict.GOOD
            await note(theirs, seen, long, short, newest)
            with replica.client() as client:
                client.replicaof("NO", "ONE")
            proxy.socket = replica.socket
            proxy.cut()
            silence.cancel()
            await asyncio.wait([silence])
            await recovered(ours)
            await recovered(theirs)
            # The replica thinks that A owns the session; C has claimed it, and says so again.
            assert (await theirs.append(newest, 5, 6)).verdict is Verdict.REGRESSED
            assert (await ours.append(long, 25, 26)) == Appended(Verdict.REGRESSED, 10)
            await theirs.cluster.claim(newest)
            assert await theirs.append(newest, 0, 6) == Appended(Verdict.GOOD, 6)
            assert await ours.append(long, 10, 26) == Appended(Verdict.FENCED, 10)
            assert await ours.close(long, 10, 27) == Appended(Verdict.GOOD, 27)
            assert await theirs.close(short, 4, 9) == Appended(Verdict.GOOD, 9)
            await note(theirs, seen, long, short, newest)
            for claim in (long, newest, short):
                await ours.release(claim)
            assert await ours.living() == await ours.living("t") == []
            again = await ours.ticket("D")
            assert again.epoch > newest.epoch


async def note(reader: Node, seen: dict[tuple[str, int], bytes], *claims: Claim) -> None:
    """Read all of these logs: what a seq has named once it names for ever."""
    for claim in claims:
        tail = await reader.read(claim.name)
        assert tail is not None
        frames = tail.frames.splitlines(keepends=True)
        assert len(frames) == tail.last, "a hole, or a frame too many"
        for seq, frame in enumerate(frames, start=1):
            assert seen.setdefault((claim.name.nonce, seq), frame) == frame


async def test_what_a_mirror_has_read_is_in_the_log_that_is_buried(
    redis_server: RedisServer,
) -> None:
    async with node(redis_server.url, lease=0.001) as dead, node(redis_server.url) as ours:
        claim = await dead.start("A")
        await dead.append(claim, 0, 3)

        async def is_expired() -> bool:
            return await ours.is_expired(claim)

        await eventually(is_expired)
        # It had read up to 6, before the store fell back to 3.
        end = Batch(claim=claim, first=2, last=7, frames=lines(2, 6) + b"the end\n")
        assert only(await ours.cluster.bury([end]))
        tail = await ours.read(claim.name)
        assert tail is not None
        assert tail.frames == lines(0, 6) + b"the end\n"


# No good to begin with


async def refusal(url: str, **options: Any) -> str:
    """What is said when a node cannot start."""
    with pytest.raises(StoreLost) as lost:
        async with node(url, **options):
            pass
    text = str(lost.value)
    assert "secret" not in text
    return text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://somebody:secret@localhost",
        "redis://:secret@localhost:port",
        "rediss://:secret@localhost?ssl_cert_reqs=sometimes",
    ],
)
async def test_what_is_no_url_of_a_redis_is_said(url: str) -> None:
    assert "redis://USER:PASSWORD@HOST:6379/0" in await refusal(url)


async def test_what_a_url_asks_for_and_nobody_knows_is_said() -> None:
    assert "nothing is known of colour" in await refusal("redis://localhost?colour=secret")


async def test_where_no_redis_is(unused_tcp_port: int) -> None:
    text = await refusal(f"redis://somebody:secret@127.0.0.1:{unused_tcp_port}/0")
    assert f"127.0.0.1:{unused_tcp_port}" in text


async def test_where_something_else_is() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert f"there is no Redis at 127.0.0.1:{port}" in await refusal(
            f"redis://127.0.0.1:{port}"
        )


async def test_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CONNECT_TIMEOUT", 0.3)
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert "does not answer" in await refusal(f"redis://127.0.0.1:{port}")
        await gone.wait()


async def test_a_wrong_password_is_said() -> None:
    with another_server("--requirepass", "right") as server:
        server.start()
        for url in (server.url, f"unix://:secret@{server.socket}"):
            assert "refuses the name or the password" in await refusal(url)
        async with node(f"unix://:right@{server.socket}") as ours:
            await ours.start("A")


async def test_a_user_with_the_permissions_that_are_documented_may_do_all() -> None:
    with another_server() as server:
        server.start()
        with server.client() as client:
            client.execute_command(*f"ACL SETUSER jarvis on >right {PERMISSIONS}".split())
        url = f"unix://jarvis:right@{server.socket}"
        async with node(url) as ours, node(url, "theirs") as theirs:
            old, new = await ours.start("A"), await theirs.start("B")
            await theirs.append(new, 0, 1)
            await ours.hears(Word(kind="superseded", session="s", stream="A", by="B"))
            await ours.close(old, 0, 1)
            await theirs.cluster.remove("s", 0, 5)
        router = shared_router(url)
        async with router.running():
            keeper = RedisPasses(router, "login", seconds=30)
            word = await keeper.issue(ANN)
            assert await keeper.look(word) is not None
            assert await keeper.drop_all("ann") == 1
            assert await RedisRates(router, "starts", 5, 60.0).take("ann") == 0.0
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    assert PERMISSIONS in text


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        ("-evalsha", "EVALSHA (name_reserve)"),
        ("-getdel", "GETDEL"),
        ("-xadd", "EVALSHA (append)"),
        ("-publish", "EVALSHA (claim)"),
        ("resetkeys ~other:*", "EVALSHA (name_reserve)"),
        ("-script", "script|load"),
    ],
)
async def test_a_missing_permission_is_named_at_the_start(denied: str, named: str) -> None:
    with another_server() as server:
        server.start()
        with server.client() as client:
            client.execute_command(*f"ACL SETUSER jarvis on >secret ~* &* +@all {denied}".split())
        text = await refusal(f"unix://jarvis:secret@{server.socket}")
        assert named in text
        assert "permissions" in text


async def test_what_a_running_redis_refuses_is_noticed_and_so_is_its_end() -> None:
    def user(*rules: str) -> tuple[str, ...]:
        return "ACL", "SETUSER", "jarvis", "on", ">right", "~*", "&*", "+@all", *rules

    with another_server() as server:
        server.start()
        with server.client() as client:
            client.execute_command(*user())
            async with node(f"unix://jarvis:right@{server.socket}") as ours:
                assert ours.cluster.health.refusal is None

                async def refuses() -> bool:
                    return ours.cluster.health.refusal is not None

                async def accepts() -> bool:
                    return ours.cluster.health.refusal is None

                for refuse, accept, words in (
                    (user("-xadd"), user(), "ACL SETUSER"),
                    (
                        ("CONFIG", "SET", "maxmemory", "1"),
                        ("CONFIG", "SET", "maxmemory", "0"),
                        "raise maxmemory",
                    ),
                    (
                        ("CONFIG", "SET", "min-replicas-to-write", "3"),
                        ("CONFIG", "SET", "min-replicas-to-write", "0"),
                        "min-replicas-to-write",
                    ),
                ):
                    client.execute_command(*refuse)
                    await eventually(refuses)
                    assert words in str(ours.cluster.health.refusal)
                    client.execute_command(*accept)
                    await eventually(accepts)
                    await ours.start(f"after {words}")


async def test_a_replica_is_said(redis_server: RedisServer) -> None:
    with another_server() as replica:
        replica.start()
        async with in_front_of(redis_server.socket) as proxy:
            await replicate(replica, proxy)
            assert "is a read-only replica" in await refusal(replica.url)


async def test_a_redis_that_comes_up_late_is_waited_for() -> None:
    with another_server() as server:
        opening = asyncio.create_task(open_and_close(server.url))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(PATIENCE):
            await opening


async def open_and_close(url: str) -> None:
    async with node(url, wait=3600.0) as ours:
        await ours.start("A")


async def test_a_redis_that_may_forget_is_warned_of(
    redis_server: RedisServer, log_lines: list[str]
) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    async with node(redis_server.url):
        pass
    assert any(line.startswith("cluster_may_forget") for line in log_lines)


async def test_a_full_redis_refuses_and_the_log_says_so_once(
    redis_server: RedisServer, log_lines: list[str]
) -> None:
    async with node(redis_server.url) as ours:
        claim = await ours.start("A")
        with redis_server.client() as client:
            client.config_set("maxmemory", "1")
            for _ in range(3):
                with pytest.raises(StoreLost, match="refused"):
                    await ours.append(claim, 0, 1)
            client.config_set("maxmemory", "0")
        assert (await ours.append(claim, 0, 1)).verdict is Verdict.GOOD
    assert sum(line.startswith("cluster_refused") for line in log_lines) == 1


async def test_a_plain_client_fails_fast_too(redis_server: RedisServer) -> None:
    client = wire.connect(redis_server.url)
    try:
        assert await client.ping()
        redis_server.freeze()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Exception, match="Timeout"):
                await client.ping()
        redis_server.thaw()
    finally:
        await client.aclose()

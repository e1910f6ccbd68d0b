"""What several servers share beside the sessions: tickets, logins, rates. With a real Redis."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError
from contracts.passes import ANN, PassesContract
from postgres_server import PostgresServer
from profiles import patience
from redis_cluster_servers import ClusterOfServers
from redis_server import RedisServer

from jarvis_stream.cli import main
from jarvis_stream.cluster.routing import Router
from jarvis_stream.cluster.shared import RedisPasses, RedisRates, shared_router
from jarvis_stream.cluster.wire import pack
from jarvis_stream.errors import Unavailable
from jarvis_stream.passes import digest

from .servers import nodes

PATIENCE = patience(20.0)


@pytest.fixture(params=["shared_redis", "shared_redis_cluster"])
def store(request: pytest.FixtureRequest) -> RedisServer | ClusterOfServers:
    """One Redis, and several."""
    found: RedisServer | ClusterOfServers = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def routers(store: RedisServer | ClusterOfServers) -> AsyncIterator[list[Router]]:
    """Two servers' connections."""
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        both = [shared_router(store.url) for _ in range(2)]
        for router in both:
            await stack.enter_async_context(router.running())
        yield both


@pytest.fixture
def kind() -> str:
    """No other test's."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
async def pair(routers: list[Router], kind: str) -> AsyncIterator[list[RedisPasses]]:
    both = [RedisPasses(router, kind, seconds=30, most_each=2) for router in routers]
    async with both[0].running(), both[1].running():
        yield both


def ttls_of(store: RedisServer | ClusterOfServers, pattern: str) -> dict[str, int]:
    """How long keys are kept yet, wherever they are, in milliseconds."""
    ttls: dict[str, int] = {}
    for server in store.nodes if isinstance(store, ClusterOfServers) else [store]:
        with server.client() as client:
            found: Any = client.keys(pattern)
            for key in found:
                ttl: Any = client.pttl(key)
                ttls[key.decode()] = ttl
    return ttls


class TestInRedis(PassesContract):
    """See the contract."""

    @pytest.fixture
    def keeper(self, pair: list[RedisPasses]) -> RedisPasses:
        return pair[0]


class TestAcrossServers:
    """What one server issues, another knows."""

    async def test_a_ticket_is_good_once_wherever_it_is_shown(
        self, pair: list[RedisPasses]
    ) -> None:
        word = await pair[0].issue(ANN)
        found = await asyncio.gather(*(pair[n % 2].redeem(word) for n in range(20)))
        assert sorted(found, key=bool) == [None] * 19 + [ANN]

    async def test_a_login_is_known_and_its_end_too(self, pair: list[RedisPasses]) -> None:
        here, there = pair
        word = await here.issue(ANN)
        assert await there.look(word) is not None
        gone = asyncio.Event()
        there.attend(digest(word), gone.set)
        await here.drop(word)
        assert await there.look(word) is None
        await gone.wait()

    async def test_who_comes_after_the_end_is_told_too(self, pair: list[RedisPasses]) -> None:
        word = await pair[0].issue(ANN)
        await pair[0].drop(word)
        gone = asyncio.Event()
        pair[1].attend(digest(word), gone.set)
        await gone.wait()

    async def test_two_kinds_do_not_meet(self, routers: list[Router], kind: str) -> None:
        login = RedisPasses(routers[0], f"{kind}-login", seconds=30)
        ticket = RedisPasses(routers[0], f"{kind}-ticket", seconds=30)
        assert await ticket.redeem(await login.issue(ANN)) is None

    async def test_words_are_kept_as_digests_and_go_by_themselves(
        self, pair: list[RedisPasses], store: RedisServer | ClusterOfServers, kind: str
    ) -> None:
        word = await pair[0].issue(ANN)
        ttls = ttls_of(store, f"jarvis:{kind}*")
        assert len(ttls) == 2
        assert not any(word in key for key in ttls)
        assert all(0 < ttl <= 30_000 for ttl in ttls.values())


class TestRates:
    """So many in a minute, over all servers together."""

    async def test_both_count_together(self, routers: list[Router], kind: str) -> None:
        here, there = (RedisRates(router, kind, 5, 60.0) for router in routers)
        waits = [await (here, there)[n % 2].take("ann") for n in range(5)]
        assert waits == [0.0] * 5
        for rates in (here, there):
            assert 0 < await rates.take("ann") <= 12
        assert await here.take("bob") == 0.0

    async def test_what_is_given_back_by_time_is_given_to_both(
        self, routers: list[Router], kind: str
    ) -> None:
        here, there = (RedisRates(router, kind, 1, 0.05) for router in routers)
        assert await here.take("ann") == 0.0
        wait = 0.05
        while wait:
            await asyncio.sleep(wait)
            wait = await there.take("ann")

    async def test_a_clock_that_has_stepped_back_locks_nobody_out(
        self, routers: list[Router], kind: str
    ) -> None:
        in_an_hour = f"{(time.time() + 3600) * 1000:.3f}"
        await routers[0].ask([pack("SET", f"jarvis:{kind}:ann", in_an_hour)])
        rates = RedisRates(routers[0], kind, 5, 60.0)
        assert 0 < await rates.take("ann") <= 12.1

    async def test_a_name_is_kept_only_while_it_owes_something(
        self, routers: list[Router], kind: str, store: RedisServer | ClusterOfServers
    ) -> None:
        await RedisRates(routers[0], kind, 3, 60.0).take("ann")
        ((ttl),) = ttls_of(store, f"jarvis:{kind}:ann").values()
        assert 0 < ttl <= 20_000


async def test_a_ticket_of_one_server_opens_one_socket_at_another(
    postgres: PostgresServer, shared_redis: RedisServer, tmp_path: Path
) -> None:
    token = "anns-token-0123456"
    flags = ("--auth-tokens", f"ann:{token}")
    async with nodes(2, postgres.new_database(), shared_redis.url, tmp_path / "diary", *flags) as (
        here,
        there,
    ):
        http, url = here.api.http, here.api.url
        asked: dict[str, Any] = {"headers": {"Authorization": f"Bearer {token}", "Origin": url}}
        async with http.post(f"{url}/api/ticket", **asked) as answer:
            ticket = (await answer.json())["ticket"]
        offered = ("jarvis-stream.v1", f"jarvis-stream.ticket.{ticket}")
        http, url = there.api.http, there.api.url
        async with http.ws_connect(f"{url}/ws", protocols=offered) as socket:
            await socket.send_json({"type": "ping"})
            assert (await socket.receive_json())["status"] == "pong"
        with pytest.raises(WSServerHandshakeError) as refused:
            await http.ws_connect(f"{url}/ws", protocols=offered)
        assert refused.value.status == 401


async def test_a_sign_in_ends_with_its_token_and_by_command_at_every_server(
    postgres: PostgresServer,
    shared_redis: RedisServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    token, flags = "anns-token-0123456", ("--auth-tokens", "ann:anns-token-0123456,bob:" + "b" * 16)
    database = postgres.new_database()
    async with nodes(2, database, shared_redis.url, tmp_path / "diary", *flags) as (here, there):
        http, url = here.api.http, here.api.url
        cookies: list[dict[str, str]] = []
        for _ in range(2):
            given: dict[str, Any] = {"json": {"token": token}, "headers": {"Origin": url}}
            async with http.post(f"{url}/api/login", **given) as answer:
                cookies.append({"Cookie": answer.headers["Set-Cookie"].partition(";")[0]})
        http, url = there.api.http, there.api.url
        opened = await http.ws_connect(f"{url}/ws", headers={**cookies[0], "Origin": url})
        command = ["revoke", "ann", "--redis-url", shared_redis.url]
        assert await asyncio.to_thread(main, command) == 0
        assert "Ended 2 sign-ins of ann." in capsys.readouterr().out
        message = await opened.receive(timeout=PATIENCE)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        async with http.get(f"{url}/api/sessions", headers=cookies[1]) as answer:
            assert answer.status == 401
        async with http.post(
            f"{url}/api/login", json={"token": token}, headers={"Origin": url}
        ) as answer:
            kept = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    flags = ("--auth-tokens", "bob:" + "b" * 16)
    async with (
        nodes(1, database, shared_redis.url, tmp_path / "diary", *flags) as (later,),
        later.api.http.get(f"{later.api.url}/api/sessions", headers=kept) as answer,
    ):
        assert answer.status == 401


async def test_the_clocks_of_the_servers_do_not_matter(
    pair: list[RedisPasses], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    ticket, login = await here.issue(ANN), await here.issue(ANN)
    now = time.time
    for ahead in (3600.0, -3600.0):
        monkeypatch.setattr(
            "jarvis_stream.cluster.shared.time.time", lambda ahead=ahead: now() + ahead
        )
        found = await there.look(login)
        assert found is not None
        assert found.expires_at is not None
        assert 0 < found.expires_at - (now() + ahead) <= 30
    assert await there.redeem(ticket) == ANN


async def test_without_redis_nobody_gets_in_and_rates_are_each_servers_own(
    redis_server: RedisServer, kind: str
) -> None:
    router = shared_router(redis_server.url)
    async with router.running(), asyncio.timeout(PATIENCE):
        passes, rates = RedisPasses(router, kind, seconds=30), RedisRates(router, kind, 2, 60.0)
        word = await passes.issue(ANN)
        redis_server.kill()
        for ask in (passes.look(word), passes.redeem(word), passes.drop(word), passes.issue(ANN)):
            with pytest.raises(Unavailable):
                await ask
        assert [await rates.take("ann") > 0 for _ in range(3)] == [False, False, True]
        redis_server.start()
        while True:  # it keeps what it was told, and the connection mends itself
            try:
                assert await passes.redeem(word) == ANN
                break
            except Unavailable:
                continue


async def test_an_ending_that_redis_does_not_tell_is_none(
    redis_server: RedisServer, kind: str
) -> None:
    router = shared_router(redis_server.url)
    passes = RedisPasses(router, kind, seconds=30)
    async with router.running(), passes.running(), asyncio.timeout(PATIENCE):
        word = await passes.issue(ANN)
        gone: list[str] = []
        passes.attend(digest(word), lambda: gone.append("gone"))
        redis_server.kill()
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await passes.look(word)
        redis_server.start()
        while True:
            try:
                assert await passes.look(word) is not None
                break
            except Unavailable:
                continue
        assert gone == []

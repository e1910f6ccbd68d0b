"""Everything at once, on servers, a Redis and a PostgreSQL as they really are.

`CHAOS_SECONDS=60 pytest tests/cluster/test_chaos.py` does it for longer than the suite does;
`CHAOS_SEED=N` takes the same dice again.
"""

from __future__ import annotations

import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from profiles import amount
from redis_proxy import in_front_of
from redis_server import RedisServer

from .chaos import Chaos, bad_day, bad_network, while_running
from .servers import nodes

SECONDS = float(amount("CHAOS_SECONDS", default=5, long=60))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.randrange(1, 1 << 32)


@pytest.mark.parametrize("count", [2, 3])
async def test_over_a_bad_network_every_reader_sees_one_truth(
    count: int, postgres: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    print(f"seed={SEED}")
    dice = random.Random(SEED)
    diary = tmp_path / "diary"
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(in_front_of(redis_server.socket)) for _ in range(count)
        ]
        servers = await stack.enter_async_context(
            nodes(
                count,
                postgres.new_database(),
                [proxy.url for proxy in proxies],
                diary,
                *("--lease", "10"),  # no machine is so busy that somebody is thought dead
            )
        )
        chaos = Chaos(servers, SEED)
        await while_running(bad_network(proxies, dice), chaos.run(SECONDS))
        for proxy in proxies:
            proxy.longest_delay = 0
        await chaos.at_rest(60)
        await chaos.newest_wins()
        await chaos.check(diary)
        print(f"asked={len(chaos.asked)} readings={len(chaos.readings)}")
        for server in servers:
            # One line of JSON each: the assertion shows the whole failure.
            lines = server.server.log.splitlines()
            assert not [line for line in lines if "Traceback" in line]


async def test_while_servers_and_redis_are_killed_no_question_is_lost(
    postgres: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    print(f"seed={SEED}")
    diary = tmp_path / "diary"
    patient = ("--agent", "tests.cluster.patient_agents:counting")
    async with nodes(3, postgres.new_database(), redis_server.url, diary, *patient) as servers:
        chaos = Chaos(servers, SEED)
        fault = bad_day(servers, redis_server, random.Random(SEED))
        await while_running(fault, chaos.run(2 * SECONDS))
        for server in servers:
            if server.server.process.poll() is not None:
                await server.start()
        await chaos.at_rest(60)
        await chaos.newest_wins()
        await chaos.all_kept(120)
        await chaos.check(diary)
        print(f"asked={len(chaos.asked)} readings={len(chaos.readings)}")

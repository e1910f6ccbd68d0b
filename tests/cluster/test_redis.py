"""The store in a real Redis server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from contracts.cluster import PATIENCE, ClusterContract, Opener
from redis_server import RedisServer

from jarvis_stream.cluster.base import Cluster, Word
from jarvis_stream.cluster.redis import RedisCluster


class TestRedis(ClusterContract):
    """See the contract."""

    @pytest.fixture
    def opener(self, shared_redis: RedisServer) -> Opener:
        with shared_redis.client() as client:
            client.flushall()

        def open_one(
            node: str, hear: Callable[[Word], None], *, lease: float
        ) -> AbstractAsyncContextManager[Cluster]:
            cluster = RedisCluster(shared_redis.url, node=node, lease=lease, timeout=PATIENCE)
            return cluster.running(hear)

        return open_one

"""The store in a real Redis server, and in a Redis Cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from contracts.cluster import PATIENCE, ClusterContract, Opener
from redis_cluster_servers import ClusterOfServers
from redis_server import RedisServer

from jarvis_stream.cluster.base import Cluster, Word
from jarvis_stream.cluster.redis import RedisCluster


class TestRedis(ClusterContract):
    """See the contract."""

    @pytest.fixture
    def opener(self, shared_redis: RedisServer) -> Opener:
        with shared_redis.client() as client:
            client.flushall()
        return opener_at(shared_redis.url)


class TestRedisCluster(ClusterContract):
    """See the contract."""

    @pytest.fixture
    def opener(self, shared_redis_cluster: ClusterOfServers) -> Opener:
        for node in shared_redis_cluster.nodes:
            node.ask("FLUSHALL")
        return opener_at(shared_redis_cluster.url)


def opener_at(url: str) -> Opener:
    def open_one(
        node: str, hear: Callable[[Word], None], *, lease: float
    ) -> AbstractAsyncContextManager[Cluster]:
        return RedisCluster(url, node=node, lease=lease, timeout=PATIENCE).running(hear)

    return open_one

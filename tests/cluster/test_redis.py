"""The store in a real Redis server, and in a Redis Cluster."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from certificates import Certificates
from contracts.cluster import PATIENCE, ClusterContract, Opener
from redis_cluster_servers import ClusterOfServers
from redis_server import RedisServer

from jarvis_stream.cluster.base import Cluster, StoreLost, Word
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


class TestRedisClusterOverTls(ClusterContract):
    """See the contract."""

    @pytest.fixture
    def opener(
        self,
        tls_redis_cluster: ClusterOfServers,
        certificates: Certificates,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Opener:
        # Else all of the system's authorities are read for every connection.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        for node in tls_redis_cluster.nodes:
            node.ask("FLUSHALL")
        return opener_at(tls_redis_cluster.url)


class TestTls:
    """With a single Redis; whom it trusts."""

    async def test_an_authority_of_ones_own_is_named_in_the_url(
        self, tls_redis_port: int, certificates: Certificates
    ) -> None:
        url = f"rediss://localhost:{tls_redis_port}?ssl_ca_certs={certificates.authority}"
        async with node_at(url) as node:
            assert await node.find("nobody") is None

    async def test_or_is_one_of_the_system(
        self, tls_redis_port: int, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        async with node_at(f"rediss://localhost:{tls_redis_port}") as node:
            assert await node.find("nobody") is None

    async def test_nobody_else_is_trusted(self, tls_redis_port: int) -> None:
        with pytest.raises(StoreLost, match=r"not trusted: .*certificate.*ssl_ca_certs=FILE"):
            async with node_at(f"rediss://localhost:{tls_redis_port}"):
                pass

    async def test_nor_is_a_certificate_for_another_name(
        self, tls_redis_port: int, certificates: Certificates
    ) -> None:
        url = f"rediss://127.0.0.1:{tls_redis_port}?ssl_ca_certs={certificates.authority}"
        with pytest.raises(StoreLost, match=r"not trusted: .*'127\.0\.0\.1'"):
            async with node_at(url):
                pass

    async def test_a_file_that_is_not_there_is_told(self, tls_redis_port: int) -> None:
        url = f"rediss://localhost:{tls_redis_port}?ssl_ca_certs=/none.pem"
        with pytest.raises(StoreLost, match=r"file that the Redis URL names .* No such file"):
            async with node_at(url):
                pass

    async def test_it_shows_a_certificate_when_asked_for_one(
        self, strict_redis_port: int, certificates: Certificates
    ) -> None:
        url = f"rediss://localhost:{strict_redis_port}?ssl_ca_certs={certificates.authority}"
        mine = f"&ssl_certfile={certificates.chain}&ssl_keyfile={certificates.key}"
        async with node_at(url + mine) as node:
            assert await node.find("nobody") is None
        with pytest.raises(StoreLost):
            async with node_at(url):
                pass

    async def test_the_authorities_are_read_where_that_holds_up_nobody(
        self, tls_redis_port: int, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads = []
        read = ssl.create_default_context

        def look_on() -> ssl.SSLContext:
            threads.append(threading.current_thread())
            return read()

        monkeypatch.setattr(ssl, "create_default_context", look_on)
        url = f"rediss://localhost:{tls_redis_port}?ssl_ca_certs={certificates.authority}"
        async with node_at(url):
            pass
        assert threads
        assert threading.current_thread() not in threads


def node_at(url: str) -> AbstractAsyncContextManager[Cluster]:
    return opener_at(url)("a", lambda word: None, lease=3.0)


def opener_at(url: str) -> Opener:
    def open_one(
        node: str, hear: Callable[[Word], None], *, lease: float
    ) -> AbstractAsyncContextManager[Cluster]:
        return RedisCluster(url, node=node, lease=lease, timeout=PATIENCE, grace=0.0).running(hear)

    return open_one

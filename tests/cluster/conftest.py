"""Redis servers of our own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Certificates
from redis_cluster_servers import ClusterNode, ClusterOfServers
from redis_server import RedisServer, free_ports, tls_options

from jarvis_stream.cluster import wire


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, it gets connected."""
    monkeypatch.setattr(wire, "CONNECT_TIMEOUT", 20.0)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A running server, for tests that do it no harm; it keeps nothing."""
    yield from _running("--appendonly", "no")


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server for one test to do with what it likes."""
    yield from _running()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """For localhost: not for 127.0.0.1, and nobody trusts them of himself."""
    return Certificates(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="session")
def tls_redis_port(certificates: Certificates) -> Iterator[int]:
    """Where a running server speaks TLS, for tests that do it no harm."""
    (port,) = free_ports(1)
    for _ in _running("--appendonly", "no", *tls_options(port, certificates)):
        yield port


@pytest.fixture
def strict_redis_port(certificates: Certificates) -> Iterator[int]:
    """The same, of a server that wants to see a certificate of whoever comes."""
    (port,) = free_ports(1)
    for _ in _running(*tls_options(port, certificates), "--tls-auth-clients", "yes"):
        yield port


@pytest.fixture(scope="session")
def shared_redis_cluster() -> Iterator[ClusterOfServers]:
    """A running Redis Cluster, for tests that do it no harm."""
    yield from _running_together()


@pytest.fixture(scope="session")
def tls_redis_cluster(certificates: Certificates) -> Iterator[ClusterOfServers]:
    """The same with TLS, known by name and not by address."""
    yield from _running_together(certificates=certificates)


@pytest.fixture
def redis_cluster() -> Iterator[ClusterOfServers]:
    """One for a test to do with what it likes: its first primary has a replica."""
    yield from _running_together(replica=True)


@pytest.fixture
def new_server() -> Iterator[ClusterNode]:
    """One of a Redis Cluster that is yet to be."""
    with tempfile.TemporaryDirectory(prefix="jarvis-redis-") as directory:
        server = ClusterNode(Path(directory))
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _running(*options: str) -> Iterator[RedisServer]:
    # Not in pytest's own directory: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="jarvis-redis-") as directory:
        server = RedisServer(Path(directory), *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _running_together(
    *, replica: bool = False, certificates: Certificates | None = None
) -> Iterator[ClusterOfServers]:
    with tempfile.TemporaryDirectory(prefix="jarvis-redis-") as directory:
        cluster = ClusterOfServers(Path(directory), replica=replica, certificates=certificates)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()

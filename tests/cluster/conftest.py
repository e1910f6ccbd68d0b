"""Redis servers of our own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_cluster_servers import ClusterNode, ClusterOfServers
from redis_server import RedisServer

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
def shared_redis_cluster() -> Iterator[ClusterOfServers]:
    """A running Redis Cluster, for tests that do it no harm."""
    with tempfile.TemporaryDirectory(prefix="jarvis-redis-") as directory:
        cluster = ClusterOfServers(Path(directory))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()


@pytest.fixture
def redis_cluster() -> Iterator[ClusterOfServers]:
    """One for a test to do with what it likes: its first primary has a replica."""
    with tempfile.TemporaryDirectory(prefix="jarvis-redis-") as directory:
        cluster = ClusterOfServers(Path(directory), replica=True)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()


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

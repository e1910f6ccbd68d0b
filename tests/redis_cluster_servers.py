"""A Redis Cluster of the tests' own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from certificates import Certificates
from profiles import patience
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis_server import RedisServer, free_ports, tls_options

PATIENCE = patience(30.0)


class ClusterNode(RedisServer):
    """One of its servers, on a port of its own; it keeps nothing but its name."""

    def __init__(
        self, directory: Path, *options: str, certificates: Certificates | None = None
    ) -> None:
        """With certificates it speaks TLS, and is known as localhost; they are for that name."""
        self.port, self.bus_port, plain_port = free_ports(3)
        enabled = ["--cluster-enabled", "yes", "--appendonly", "no", "--bind", "127.0.0.1"]
        # Nobody is promoted but by a test; and what still has a primary is served.
        enabled += ["--cluster-node-timeout", "60000", "--cluster-require-full-coverage", "no"]
        enabled += ["--repl-ping-replica-period", "1"]  # a replica is named once it heard of one
        ports = ["--port", str(self.port), "--cluster-port", str(self.bus_port)]
        if certificates is not None:
            ports[:2] = ["--port", str(plain_port), *tls_options(self.port, certificates)]
            ports += ["--tls-cluster", "yes", "--tls-replication", "yes"]
            ports += ["--cluster-announce-hostname", "localhost"]
            ports += ["--cluster-preferred-endpoint-type", "hostname"]
        super().__init__(directory, *enabled, *ports, *options)
        self.url = f"redis://127.0.0.1:{self.port}"
        if certificates is not None:
            self.url = f"rediss://localhost:{self.port}?ssl_ca_certs={certificates.authority}"
        self.id = ""

    def client(self) -> redis.Redis:
        # By the way that others come: what it tells of its neighbours' ports depends on that.
        return redis.Redis.from_url(self.url, socket_timeout=30)

    def ask(self, *command: str | bytes | int) -> Any:
        """A command's reply."""
        with self.client() as client:
            return client.execute_command(*command)

    def start(self) -> None:
        super().start()
        self.id = self.ask("CLUSTER MYID").decode()

    @property
    def epoch(self) -> int:
        """The cluster's, as it knows it."""
        return int(self._told("cluster_current_epoch"))

    @property
    def is_ok(self) -> bool:
        """Whether the cluster is, as far as it knows."""
        return self._told("cluster_state") == "ok"

    @property
    def slots(self) -> dict[int, int]:
        """Whose each slot is, as far as it knows: by port."""
        return {
            slot: primary[1]
            for first, last, primary, *_ in self.ask("CLUSTER", "SLOTS")
            for slot in range(first, last + 1)
        }

    def _told(self, name: str) -> str:
        return str(self.ask("CLUSTER INFO")[name])


class ClusterOfServers:
    """Three primaries, and a replica of the first when asked for."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        replica: bool = False,
        certificates: Certificates | None = None,
    ) -> None:
        """For `certificates` see ClusterNode."""
        self.nodes = []
        for number in range(3 + replica):
            (home := directory / str(number)).mkdir()
            self.nodes.append(ClusterNode(home, *options, certificates=certificates))
        self.primaries, self.replicas = self.nodes[:3], self.nodes[3:]

    @property
    def url(self) -> str:
        """It names one of them."""
        return self.nodes[0].url

    def start(self) -> None:
        """Start all, and wait until they are one."""
        for node in self.nodes:
            node.start()
        share = -(-REDIS_CLUSTER_HASH_SLOTS // 3)
        for number, node in enumerate(self.primaries):
            last = min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            first = self.nodes[0]
            node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        wait_until(lambda: all(self._knows_all(node) for node in self.nodes))
        for replica in self.replicas:
            replica.ask("CLUSTER", "REPLICATE", self.nodes[0].id)
            wait_until(lambda replica=replica: self._is_known(replica))  # type: ignore[misc]

    def kill(self) -> None:
        """All of them."""
        for node in self.nodes:
            node.kill()

    def owner(self, slot: int) -> ClusterNode:
        """Whose a slot is, in the newest map."""
        newest = max((node for node in self.nodes if node.is_alive), key=lambda node: node.epoch)
        port = newest.slots[slot]
        return next(node for node in self.nodes if node.port == port)

    def promote(self, replica: ClusterNode) -> None:
        """Let it take its primary's place, and wait until all others know."""
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        living = [node for node in self.nodes if node.is_alive]
        wait_until(lambda: all(replica.port in node.slots.values() for node in living))

    # A slot moves, as `redis-cli --cluster reshard` moves it

    def begin_move(self, slot: int, to: ClusterNode) -> ClusterNode:
        """From now on it is being moved; returns from where."""
        origin = self.owner(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", origin.id)
        origin.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        return origin

    def move_keys(self, slot: int, origin: ClusterNode, to: ClusterNode) -> int:
        """Some of its keys; how many there were to move."""
        keys = origin.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        if keys:
            self.move_these(keys, origin, to)
        return len(keys)

    def move_these(self, keys: Sequence[str | bytes], origin: ClusterNode, to: ClusterNode) -> None:
        """These keys of a slot, whose move has begun."""
        origin.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, to: ClusterNode) -> None:
        """It is there now. Only the two know at once."""
        for node in (to, *(one for one in self.primaries if one is not to)):
            if node.is_alive:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def move(self, slot: int, to: ClusterNode) -> None:
        """All of it, in one go."""
        origin = self.begin_move(slot, to)
        while self.move_keys(slot, origin, to):
            pass
        self.end_move(slot, to)

    def _knows_all(self, node: ClusterNode) -> bool:
        known = node.ask("CLUSTER", "NODES").decode()
        is_full = len(node.slots) == REDIS_CLUSTER_HASH_SLOTS
        return node.is_ok and is_full and all(other.id in known for other in self.nodes)

    def _is_known(self, replica: ClusterNode) -> bool:
        """Whether it has caught up, and whoever asks for the map is told of it."""
        if replica.ask("INFO", "replication").get("master_link_status") != "up":
            return False
        maps = [node.ask("CLUSTER", "SLOTS") for node in self.nodes]
        return all(any(row[1] == replica.port for row in rows[0][3:]) for rows in maps)


def slot_of_session(session: str) -> int:
    """Where its keys are."""
    return key_slot(b"jarvis:{%b}" % session.encode())


def session_at(server: ClusterNode) -> str:
    """A session that this primary holds."""
    slots = server.slots
    names = map("session-{}".format, itertools.count())
    return next(name for name in names if slots[slot_of_session(name)] == server.port)


def streams_at(server: ClusterNode) -> Iterator[str]:
    """Streams whose names this primary holds."""
    slots = server.slots
    for name in map("00000000-0000-4000-8000-{:012x}".format, itertools.count()):
        if slots[key_slot(b"jarvis:name:" + name.encode())] == server.port:
            yield name


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again, for a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(Exception):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)

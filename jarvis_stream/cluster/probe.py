"""Probes of the Redis commands that every stream needs, on separate keys.

The start and `/readyz` use the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from jarvis_stream.cluster.wire import pack

PROBE_TTL: Final = 10_000
"""The time to live of a probe's keys, in milliseconds."""

PERMISSIONS: Final = (
    "~jarvis:* &jarvis:* +@read +@write +@scripting +@pubsub +@connection +info +time +cluster"
)
"""The permissions that a user of Redis needs, as arguments of ACL SETUSER."""


class Probe(NamedTuple):
    """One command, and its name for the log."""

    command: str
    packed: bytes


def plain_probes(tag: str) -> list[Probe]:
    """Return the probes without scripts; `tag` selects the primary of a Redis Cluster."""
    word, index = f"jarvis:probe:word:{tag}", f"jarvis:probe:index:{tag}"
    commands: Sequence[tuple[str | int, ...]] = (
        ("SET", word, "1", "PX", PROBE_TTL),
        ("GET", word),
        ("PTTL", word),
        ("EXISTS", word),
        ("GETDEL", word),
        ("DEL", word),
        ("ZADD", index, 1, "1"),
        ("PEXPIRE", index, PROBE_TTL),
        ("ZRANGE", index, 0, -1),
        ("ZREM", index, "1"),
    )
    return [Probe(str(command[0]), pack(*command)) for command in commands]


def refusal(probes: Sequence[Probe], replies: Sequence[Any], place: str) -> str | None:
    """Return a sentence with the refused command and the remedy; None when Redis refuses nothing.

    A missing reply is no refusal: the connection's own checks detect a Redis that does not respond.
    """
    for probe, reply in zip(probes, replies, strict=True):
        if isinstance(reply, ResponseError):
            return f"Redis at {place} refuses {probe.command} ({reply}): {_remedy(reply)}"
    return None


def _remedy(error: ResponseError) -> str:
    text = str(error)
    is_denied = any(part in text for part in ("NOPERM", "ermissions", "executing the script"))
    if isinstance(error, NoPermissionError) or is_denied:
        return f"give its user these permissions: ACL SETUSER NAME {PERMISSIONS}"
    if isinstance(error, OutOfMemoryError) or "maxmemory" in text:
        return "its memory is full: raise maxmemory, or remove the data of other programs"
    if isinstance(error, ReadOnlyError) or "READONLY" in text or "read only" in text:
        return "it is a read-only replica: name the primary in --redis-url"
    if "MISCONF" in text or "persist" in text:
        return "it cannot write to its disk: check its log and the free space of the disk"
    if "NOREPLICAS" in text or "good replicas" in text:
        return "it has too few replicas: check min-replicas-to-write"
    return "check its log"

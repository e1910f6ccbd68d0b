"""The names of things: minted here, and recognised here."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Final

SESSION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
STREAM_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# https://www.w3.org/TR/trace-context/#traceparent-header: a version after 00 may append fields.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)


def key_of(owner: str, id: str) -> str:
    """The name of somebody's session or stream, which is nobody else's.

    Ids hold no slash, so that no two pairs have one key; without an owner it is the id itself.
    """
    return f"{owner}/{id}" if owner else id


def id_of(key: str) -> str:
    """The id in a key."""
    return key.rpartition("/")[2]


def owner_of(key: str) -> str:
    """The owner in a key, or nothing."""
    return key.rpartition("/")[0]


def new_stream_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of time in milliseconds, then randomness."""
    time_ms = f"{time.time_ns() // 1_000_000:012x}"
    digits = _random_digits()
    return (
        f"{time_ms[:8]}-{time_ms[8:]}-7{digits[:3]}-{_VARIANT[digits[3]]}{digits[4:7]}"
        f"-{digits[7:19]}"
    )


def new_session_id() -> str:
    """A session id for a client that brought none."""
    return new_stream_id()


def new_trace_id() -> str:
    """32 lower-case hex digits."""
    return _random_digits()


def new_span_id() -> str:
    """16 lower-case hex digits."""
    return _random_digits()[:16]


# The kernel is asked for many at a time. A list's pop is one step, whatever the threads do, and a
# forked process must not have what its parent has.
_spare: Final[list[str]] = []
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def _random_digits() -> str:
    """32 hex digits that nobody can guess."""
    try:
        return _spare.pop()
    except IndexError:
        digits = os.urandom(16 * 128).hex()
        _spare.extend(digits[at : at + 32] for at in range(32, len(digits), 32))
        return digits[:32]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_spare.clear)


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A place in a trace, as W3C Trace Context writes it; `str` gives the header's value."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"


def parse_traceparent(traceparent: str | None) -> TraceParent | None:
    """The place that a valid `traceparent` names, else None."""
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    if not int(found[2], 16) or not int(found[3], 16):
        return None
    return TraceParent(found[2], found[3], sampled=bool(int(found[4], 16) & 1))


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id of a valid `traceparent`, else None."""
    parent = parse_traceparent(traceparent)
    return parent.trace_id if parent else None

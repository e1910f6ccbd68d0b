"""What the app gives its transports: the one registry, and plain values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from jarvis_stream.registry import StreamRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are in seconds, sizes in bytes."""

    max_body_bytes: int
    max_prompt_chars: int
    max_streams_per_socket: int
    heartbeat: float
    stall_timeout: float
    allowed_origins: Collection[str]


REGISTRY: Final = web.AppKey("registry", StreamRegistry)
LIMITS: Final = web.AppKey("limits", Limits)

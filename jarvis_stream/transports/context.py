"""What the app gives its transports: the one registry, and plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from jarvis_stream.identity.base import Principal, Visitor
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
    local_only: bool
    """Whether it is meant for this machine alone, and knows no other host names."""
    body_timeout: float
    socket_idle_timeout: float
    max_messages_per_second: int = 200


@dataclass(frozen=True, slots=True)
class Counts:
    """What the transports count."""

    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests and WebSocket messages that were refused, by transport and code."""
    let_go: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Connections that ended before their readers had everything, by transport and why."""


COUNTS: Final = web.AppKey("counts", Counts)
REGISTRY: Final = web.AppKey("registry", StreamRegistry)
LIMITS: Final = web.AppKey("limits", Limits)
PRINCIPAL: Final = web.RequestKey("principal", Principal)
"""Who asks; not there where nobody has a name."""
PAGE: Final = web.AppKey("page", web.AbstractResource)
"""The resource of `/`. Its path shows where another application has mounted this one."""
VISITOR: Final = web.RequestKey("visitor", Visitor)
"""The browser that sent the request, where visitors have a principal without signing in."""


def owner_of(request: web.Request) -> str:
    """Whose sessions a request is about: the principal's, or those of nobody in particular."""
    principal = request.get(PRINCIPAL)
    return "" if principal is None else principal.name


def mount_path(app: web.Application) -> str:
    """Return the path that another application has mounted this one at: empty, or `/prefix`."""
    return app[PAGE].canonical.rstrip("/")


def path_of(request: web.Request) -> str:
    """Return the path of a request, without the prefix that the application is mounted at.

    The prefix alone is the page, which is redirected to its slash.
    """
    prefix = mount_path(request.app)
    return (request.path.removeprefix(unquote(prefix)) or "/") if prefix else request.path

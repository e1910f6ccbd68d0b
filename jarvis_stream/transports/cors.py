"""What pages of other sites may read: those on the allow-list, and nobody else's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from aiohttp import hdrs, web

EXPOSED: Final = ("X-Session-Id", "X-Stream-Id", "X-Trace-Id", "Retry-After")
ACCEPTED: Final = ("Authorization", "Content-Type", "Last-Event-ID", "Traceparent")
PREFLIGHT_SECONDS: Final = 600


def setup(app: web.Application, origins: Collection[str]) -> None:
    """Let the pages of `origins` use the API; to be called when all its routes are there."""
    if not origins:
        return
    import aiohttp_cors

    # Named one by one: with credentials there must never be a `*`.
    options: Any = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_credentials=True,
        expose_headers=EXPOSED,
        allow_headers=ACCEPTED,
        max_age=PREFLIGHT_SECONDS,
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, options))
    for route in list(app.router.routes()):
        if route.resource is not None and route.resource.canonical.startswith("/api/"):
            cors.add(route)
    app.on_response_prepare.append(_vary)


async def _vary(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)

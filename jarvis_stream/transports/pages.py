"""The chat page, and what a client may know of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiohttp import web

from jarvis_stream.errors import NotFound
from jarvis_stream.transports.answers import SERVER
from jarvis_stream.transports.context import PAGE
from jarvis_stream.transports.requests import shorten

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # A text becomes HTML through DOMPurify only; one worker colours code.
        "require-trusted-types-for 'script'",
        "trusted-types dompurify highlighter",
    )
)


def static_dir() -> Path:
    """The folder of the page's files: in a wheel the package's own, else the checkout's.

    Raises FileNotFoundError when neither exists.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "static", package.parent / "static"):
        if (folder / "index.html").is_file():
            return folder
    raise FileNotFoundError(f"no static/index.html beside or inside {package}")


def setup(app: web.Application) -> None:
    """Serve `/` and `/static/`."""
    folder = static_dir().resolve()

    async def page(request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / "index.html")

    async def file(request: web.Request) -> web.FileResponse:
        path = request.match_info["path"]
        try:
            found = (folder / path).resolve(strict=True)
        except (OSError, ValueError):  # not there, too long, with a NUL
            found = folder
        if not (found.is_file() and found.is_relative_to(folder)):
            raise NotFound(f"no file {shorten(path)} is here")
        return web.FileResponse(found)

    async def add_slash(request: web.Request) -> web.Response:
        # The page's own links are relative to the slash.
        name = request.rel_url.raw_path.rpartition("/")[2]
        query = request.rel_url.raw_query_string
        location = f"./{name}/" + (f"?{query}" if query else "")
        return web.Response(status=308, headers={"Location": location})

    app[PAGE] = resource = app.router.add_resource("/")
    resource.add_route("GET", page)
    resource.add_route("HEAD", page)
    app.router.add_get("", add_slash)  # matches only where another application mounts this one
    app.router.add_get("/static/{path:.+}", file)
    app.on_response_prepare.append(_add_headers)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    headers = response.headers
    headers["Server"] = SERVER
    if isinstance(response, web.WebSocketResponse):
        return  # it has no content, and a header more doubles what it keeps of them
    headers["X-Content-Type-Options"] = "nosniff"
    if isinstance(response, web.FileResponse):
        headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cache-Control"] = "no-cache"
    else:
        # A page of another origin may not embed it, in whatever element.
        headers["Cross-Origin-Resource-Policy"] = "same-origin"

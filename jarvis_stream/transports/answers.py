"""JSON both ways: bodies, answers that are no streams, and the one form every refusal has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.typedefs import Handler
from loguru import logger

from jarvis_stream.errors import (
    Malformed,
    Misdirected,
    Refused,
    TooLarge,
    TooSlow,
    Unauthorized,
    UnsupportedMedia,
)
from jarvis_stream.ids import new_trace_id, trace_id_of
from jarvis_stream.transports.context import COUNTS, LIMITS, Limits, path_of
from jarvis_stream.transports.requests import (
    authority,
    check_fetch_site,
    check_host,
    check_origin,
    is_loopback,
    parse_object,
    shorten,
)

SERVER: Final = "jarvis-stream"
"""The header that says who answers: not in which version, as aiohttp's own would."""

_CODES: Final = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
    417: "expectation_failed",
}


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent; raises UnsupportedMedia, Malformed, TooSlow."""
    if request.content_type != "application/json":
        raise UnsupportedMedia(
            f"the body must be application/json, not {request.content_type or 'untyped'}"
        )
    return parse_object(await _read_body(request))


def json_answer(
    value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`value` as JSON, never cached."""
    return web.Response(
        body=orjson.dumps(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def refusal(error: Refused) -> web.Response:
    """What a client reads when its request is refused."""
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return json_answer(
        {"code": error.code, "error": error.sentence}, status=error.status, headers=headers
    )


def of_http(error: web.HTTPException) -> web.Response:
    """A refusal of aiohttp's, in our form."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return json_answer(
        {"code": _CODES.get(error.status, "refused"), "error": error.reason},
        status=error.status,
        headers=headers,
    )


async def _read_body(request: web.Request) -> bytes:
    """The whole body; raises TooSlow when it does not come in time.

    Never a compressed one (UnsupportedMedia): a few bytes may unpack to any number of them.
    """
    limits = request.app[LIMITS]
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UnsupportedMedia(f"the body must not be compressed, and is {shorten(coding)}")
    if request.client_max_size != limits.max_body_bytes:  # an outer application has its own
        try:
            request = request.clone(client_max_size=limits.max_body_bytes)
        except RuntimeError:  # and a middleware of it has read the body already
            body = await request.read()
            if len(body) > limits.max_body_bytes:
                raise web.HTTPRequestEntityTooLarge(limits.max_body_bytes, len(body)) from None
            return body
    if request.content.is_eof():  # it came with the headers
        return await request.read()
    try:
        async with asyncio.timeout(limits.body_timeout):
            return await request.read()
    except TimeoutError:
        raise TooSlow(f"the body took more than {limits.body_timeout:g} seconds") from None


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost wall: foreign pages stay outside, every error leaves as `{code, error}`."""
    app = request.app
    refused, limits = app[COUNTS].refused, app[LIMITS]
    begin = getattr(request.protocol, "begin", None)  # a Door's, if it came through one
    if begin is not None:
        begin()
    try:
        _check_head(request, limits)
        check_origin(request.headers.get("Origin"), request.host, limits.allowed_origins)
        check_fetch_site(path_of(request), request.headers, limits.allowed_origins)
        return await handler(request)
    except Refused as error:
        refused["http", error.code] += 1
        answer = refusal(error)
        if isinstance(error, TooSlow):
            answer.force_close()  # the rest of the body would be taken for a request
        return answer
    except web.HTTPRequestEntityTooLarge:
        refused["http", TooLarge.code] += 1
        return refusal(TooLarge(f"the body is larger than {limits.max_body_bytes} bytes"))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        refused["http", _CODES.get(error.status, "refused")] += 1
        return of_http(error)
    except web.RequestPayloadError:
        refused["http", Malformed.code] += 1
        return refusal(Malformed("the body is broken"))
    except Exception as error:
        if isinstance(error, ConnectionError) and _is_gone(request):
            return web.Response()  # which nobody will read
        trace_id = trace_id_of(request.headers.get("traceparent")) or new_trace_id()
        code, sentence = internal_error(f"{request.method} {request.path}", trace_id)
        refused["http", code] += 1
        return json_answer({"code": code, "error": sentence}, status=500)


def _check_head(request: web.Request, limits: Limits) -> None:
    """What aiohttp lets through: other versions, a target and a Host that name two servers.

    And, where the server is for this machine alone, a name that is not its own. That HTTP/1.1 has
    one Host (RFC 9112, 3.2) aiohttp sees to.
    """
    if request.version not in (HttpVersion10, HttpVersion11):
        raise Malformed("this server speaks HTTP/1.1 and HTTP/1.0")
    host = request.headers.get("Host")
    if not request.raw_path.startswith(("/", "*")) and authority(request.raw_path) != host:
        raise Malformed("the target names another host than the Host header")
    if host is not None and limits.local_only:
        try:
            check_host(host, limits.allowed_origins)
        except Misdirected:
            if _came_by_loopback(request):  # asked last: it takes a system call
                raise


def _came_by_loopback(request: web.Request) -> bool:
    own = request.get_extra_info("sockname")
    return isinstance(own, tuple) and is_loopback(own[0])


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def internal_error(what: str, trace_id: str) -> tuple[str, str]:
    """Log the exception that is being handled, and give the code and sentence a client may read."""
    logger.bind(trace=trace_id).exception("request_failed trace={} what={}", trace_id, what)
    return "internal", f"the server failed; its log knows why (trace {trace_id})"

"""JSON both ways: bodies, answers that are no streams, and the one form every refusal has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from loguru import logger

from jarvis_stream.errors import Malformed, Refused, TooLarge, UnsupportedMedia
from jarvis_stream.ids import new_trace_id, trace_id_of
from jarvis_stream.transports.context import LIMITS
from jarvis_stream.transports.requests import check_origin, parse_object

_CODES: Final = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
}


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent; raises UnsupportedMedia, Malformed."""
    if request.content_type != "application/json":
        raise UnsupportedMedia(
            f"the body must be application/json, not {request.content_type or 'untyped'}"
        )
    return parse_object(await request.read())


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
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return json_answer(
        {"code": error.code, "error": error.sentence}, status=error.status, headers=headers
    )


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost wall: foreign pages stay outside, every error leaves as `{code, error}`."""
    try:
        check_origin(
            request.headers.get("Origin"), request.host, request.app[LIMITS].allowed_origins
        )
        return await handler(request)
    except Refused as error:
        return refusal(error)
    except web.HTTPRequestEntityTooLarge:
        return refusal(
            TooLarge(f"the body is larger than {request.app[LIMITS].max_body_bytes} bytes")
        )
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return json_answer(
            {"code": _CODES.get(error.status, "refused"), "error": error.reason},
            status=error.status,
            headers=headers,
        )
    except web.RequestPayloadError:
        return refusal(Malformed("the body is broken"))
    except Exception as error:
        if isinstance(error, ConnectionError) and _is_gone(request):
            return web.Response()  # which nobody will read
        trace_id = trace_id_of(request.headers.get("traceparent")) or new_trace_id()
        code, sentence = internal_error(f"{request.method} {request.path}", trace_id)
        return json_answer({"code": code, "error": sentence}, status=500)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def internal_error(what: str, trace_id: str) -> tuple[str, str]:
    """Log the exception that is being handled, and give the code and sentence a client may read."""
    logger.bind(trace=trace_id).exception("request_failed trace={} what={}", trace_id, what)
    return "internal", f"the server failed; its log knows why (trace {trace_id})"

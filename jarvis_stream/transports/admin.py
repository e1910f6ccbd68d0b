"""What an operator may ask: which streams live here, where each of them waits, and to end one.

    Authorization: Bearer …      the operator's token (--operator-token)

Without a token only the machine itself may ask, and only where nobody signs in: a server that
listens on a loopback address and is published through no proxy. Sign-ins are revoked from the
machine itself only.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import os
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from loguru import logger

from jarvis_stream.errors import Conflict, Invalid, NotFound, Unauthorized
from jarvis_stream.ids import STREAM_ID
from jarvis_stream.stacks import agent_place
from jarvis_stream.stream import Stream
from jarvis_stream.transports.answers import json_answer, json_body
from jarvis_stream.transports.context import REGISTRY
from jarvis_stream.transports.gate import GATE, bearer
from jarvis_stream.transports.peers import is_direct
from jarvis_stream.transports.requests import authority, is_loopback, parse_count, shorten

MAX_LISTED: Final = 10_000
"""Streams in one list."""

_FORWARDING: Final = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
)
"""Headers that a proxy adds."""

routes = web.RouteTableDef()


class OperatorAccess:
    """Decides who may use the admin calls."""

    def __init__(self, token: str | None, *, trust_this_machine: bool) -> None:
        """`trust_this_machine`: whether a direct request from this machine needs no token."""
        self._digest = None if token is None else _digest(token)
        self._trusts_this_machine = trust_this_machine

    def check(self, request: web.Request) -> None:
        """Raise Unauthorized unless an operator sends the request."""
        if hdrs.AUTHORIZATION in request.headers:
            if len(request.headers.getall(hdrs.AUTHORIZATION)) != 1 or self._digest is None:
                raise Unauthorized
            if not hmac.compare_digest(_digest(bearer(request) or ""), self._digest):
                raise Unauthorized
        elif not self._trusts_this_machine:
            raise Unauthorized
        else:
            check_this_machine(request)


def check_this_machine(request: web.Request) -> None:
    """Raise Unauthorized unless this server's user, or root, sends it from this machine."""
    if not (_is_this_machine(request) and _is_same_user(request)):
        raise Unauthorized


OPERATORS: Final = web.AppKey("operators", OperatorAccess)


def _is_this_machine(request: web.Request) -> bool:
    """Whether a program of this machine sends the request: no proxy, and no page of another."""
    if not is_direct(request) or any(name in request.headers for name in _FORWARDING):
        return False
    host = request.headers.get(hdrs.HOST, "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if name is None or not is_loopback(name):
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and authority(origin) != host:
        return False
    return request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")


def _is_same_user(request: web.Request) -> bool:
    """Whether the peer is a process of this server's user, or of root.

    A proxy of this machine that adds no header runs as another user. True where the system does
    not tell (only Linux does).
    """
    # Not in a thread: agents that are stuck may hold all of those.
    if not _CONNECTIONS.exists():
        return True
    peer, own = request.get_extra_info("peername"), request.get_extra_info("sockname")
    if not (isinstance(peer, tuple) and isinstance(own, tuple)):
        return False
    uid = peer_uid(peer, own)
    return uid is not None and uid in (0, os.geteuid())


def peer_uid(peer: tuple[Any, ...], own: tuple[Any, ...]) -> int | None:
    """The user whose process has the other end of a connection on this machine, if there is one.

    `peer` and `own` are the two addresses as sockets give them.
    """
    wanted = [_kernels_form(*peer[:2]), _kernels_form(*own[:2])]
    for table in (_CONNECTIONS, _CONNECTIONS.with_name("tcp6")):
        with contextlib.suppress(OSError), table.open() as rows:
            for row in rows:
                fields = row.split()
                if fields[1:3] == wanted:
                    return int(fields[7])
    return None


_CONNECTIONS: Final = Path("/proc/net/tcp")


def _kernels_form(host: str, port: int) -> str:
    """An address as /proc/net/tcp writes it: words in the byte order of the machine."""
    address = ipaddress.ip_address(host.partition("%")[0])
    packed = (getattr(address, "ipv4_mapped", None) or address).packed
    words = [packed[start : start + 4] for start in range(0, len(packed), 4)]
    text = "".join([f"{int.from_bytes(word, sys.byteorder):08X}" for word in words])
    return f"{text}:{port:04X}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


@routes.get("/api/admin/streams")
async def streams(request: web.Request) -> web.Response:
    """List the live streams of this node, oldest first, and where each agent waits."""
    request.app[OPERATORS].check(request)
    limit = parse_count("limit", request.query.get("limit"), default=1000, most=MAX_LISTED)
    registry = request.app[REGISTRY]
    found = sorted(registry, key=lambda stream: stream.started_at)
    now = time.monotonic()
    return json_answer(
        {
            "node": _node(),
            "total": len(found),
            "streams": [_described(stream, now) for stream in found[:limit]],
        }
    )


@routes.post("/api/admin/streams/{stream_id}/cancel")
async def cancel(request: web.Request) -> web.Response:
    """Cancel a stream of this node; return whether its agent stopped in time.

    Stream ids are the clients' own: where two owners use the same one, `owner` has to be given.
    """
    request.app[OPERATORS].check(request)
    registry = request.app[REGISTRY]
    stream_id, owner = request.match_info["stream_id"], request.query.get("owner")
    found = [
        stream
        for stream in registry
        if stream.stream_id == stream_id and owner in (None, stream.owner)
    ]
    if not found or not STREAM_ID.fullmatch(stream_id):
        raise NotFound(f"no stream {shorten(stream_id)} is live at {_node()['name']}")
    if len(found) > 1:
        raise Conflict(f"{len(found)} owners have a stream {stream_id}: name one with owner=")
    (stream,) = found
    logger.info("operator_cancels stream={} session={}", stream.stream_id, stream.session_id)
    return json_answer(asdict(await registry.cancel_for_operator(stream)))


@routes.post("/api/admin/revoke")
async def revoke(request: web.Request) -> web.Response:
    """End every sign-in of the principal that the body names; from this machine only."""
    here = request.app[GATE]
    if here.kind == "none":
        raise NotFound("sign-in is not configured on this server")
    check_this_machine(request)
    if here.kind != "token":
        raise NotFound("sign-in is not configured on this server")
    name = (await json_body(request)).get("principal")
    if not isinstance(name, str) or not name:
        raise Invalid("principal: is missing; required: a name")
    ended = await here.revoke(name)
    logger.info("sign_ins_revoked principal={} count={}", name, ended)
    return json_answer({"principal": name, "ended": ended})


def _node() -> dict[str, Any]:
    return {"name": socket.gethostname(), "pid": os.getpid()}


def _described(stream: Stream, now: float) -> dict[str, Any]:
    stack = stream.stack
    place = agent_place(stack)
    return {
        "stream_id": stream.stream_id,
        "session_id": stream.session_id,
        "owner": stream.owner,
        "trace_id": stream.trace_id,
        "epoch": stream.epoch,
        "state": "undead" if stream.undead else stream.state.value,
        "age_ms": round(1000 * (now - stream.started_at)),
        "seq": stream.seq,
        "readers": stream.followers,
        "last_frame_ms": round(1000 * stream.silence(now)),
        "waits_at": None if place is None else str(place),
        "stack": [str(each) for each in stack],
    }

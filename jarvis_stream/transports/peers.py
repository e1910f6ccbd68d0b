"""Where a request really comes from, when proxies stand in between that are trusted to tell."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from aiohttp import web

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(request: web.BaseRequest, proxies: Sequence[Network]) -> str:
    """The client's address; empty where there is none (a Unix socket).

    The last one in X-Forwarded-For that is no trusted proxy's. What stands before that one
    anybody could have written.
    """
    peer = _peer(request)
    if peer is None:
        return ""
    if not _is_trusted(peer, proxies):
        return _text(peer)
    for hop in reversed(_hops(request)):
        address = _parse(hop)
        if address is None:
            break
        peer = address
        if not _is_trusted(peer, proxies):
            break
    return _text(peer)


def is_https(request: web.BaseRequest, proxies: Sequence[Network]) -> bool:
    """Whether the client's own connection is encrypted."""
    if request.secure:
        return True
    peer = _peer(request)
    if peer is None or not _is_trusted(peer, proxies):
        return False
    return request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"


def is_direct(request: web.BaseRequest) -> bool:
    """Whether it comes from this very machine, and no proxy says it is somebody else's."""
    peer = _peer(request)
    forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return peer is not None and peer.is_loopback and not forwarded


def _peer(request: web.BaseRequest) -> Address | None:
    name = request.get_extra_info("peername")
    return _parse(name[0]) if isinstance(name, tuple) else None


def _hops(request: web.BaseRequest) -> list[str]:
    return ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")


@lru_cache(maxsize=1024)
def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


_text = lru_cache(maxsize=1024)(str)  # the library writes it anew each time


def _is_trusted(address: Address, proxies: Sequence[Network]) -> bool:
    return any(address in network for network in proxies)

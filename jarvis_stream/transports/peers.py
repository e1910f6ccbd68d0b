"""Where a request really comes from, when proxies stand in between that are trusted to tell."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from aiohttp import web

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

X_FORWARDED_FOR: Final = "X-Forwarded-For"
FORWARDED: Final = "Forwarded"

_BLANKS: Final = " \t"
_WITH_PORT: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<v4>[0-9.]+))(?::[0-9]{1,5})?", re.ASCII
)

UNKNOWN: Final = "unknown"
"""The address of a client whose proxy names none that can be read. It is never this machine."""


def address_of(request: web.BaseRequest, proxies: Sequence[Network]) -> str:
    """Return the client's address: the last X-Forwarded-For entry that is no trusted proxy.

    Any client can write the entries before that one. An entry may carry a port. The address is
    empty for a Unix socket, and UNKNOWN if a trusted proxy forwards a request without an address
    that can be read, or names a loopback address of another machine.
    """
    peer = _peer(request)
    if peer is None:
        return ""
    if not _is_trusted(peer, proxies) or not _is_forwarded(request):
        return _text(peer)
    hops = _hops(request)
    if not hops:
        return UNKNOWN
    for hop in reversed(hops):
        address = parse_hop(hop)
        if address is None:
            return UNKNOWN
        if address.is_loopback and not peer.is_loopback:
            return UNKNOWN  # loopback on the machine of that proxy, not on this one
        peer = address
        if not _is_trusted(peer, proxies):
            break
    if peer.is_loopback and FORWARDED in request.headers:
        return UNKNOWN  # the proxy may write that header only, and pass on the client's other one
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
    """Whether the request comes from this machine and no proxy has forwarded it."""
    peer = _peer(request)
    return peer is not None and peer.is_loopback and not _is_forwarded(request)


@lru_cache(maxsize=1024)
def parse_hop(text: str) -> Address | None:
    """Parse one X-Forwarded-For entry; None for what is no address (`unknown`, `_hidden`).

    Accepts `ADDRESS`, `IPV4:PORT`, `[IPV6]` and `[IPV6]:PORT`, each of them in double quotes too.
    """
    text = text.strip(_BLANKS)
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip(_BLANKS)
    if found := _WITH_PORT.fullmatch(text):
        text = found["v6"] or found["v4"]
        if found["v6"] and ":" not in text:
            return None
    return _parse(text)


def _peer(request: web.BaseRequest) -> Address | None:
    name = request.get_extra_info("peername")
    return _parse(name[0]) if isinstance(name, tuple) else None


def _is_forwarded(request: web.BaseRequest) -> bool:
    return X_FORWARDED_FOR in request.headers or FORWARDED in request.headers


def _hops(request: web.BaseRequest) -> list[str]:
    """Return the entries of X-Forwarded-For; RFC 9110, 5.6.1: empty ones do not count."""
    entries = ",".join(request.headers.getall(X_FORWARDED_FOR, ())).split(",")
    return [entry for entry in entries if entry.strip(_BLANKS)]


@lru_cache(maxsize=1024)
def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


_text = lru_cache(maxsize=1024)(str)  # the library writes it anew each time


def _is_trusted(address: Address, proxies: Sequence[Network]) -> bool:
    return any(address in network for network in proxies)

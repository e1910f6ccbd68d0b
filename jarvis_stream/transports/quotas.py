"""How much one principal, or one address, may have and do at a time.

Where nobody signs in, a start counts for its address, of IPv6 for its /64, and so does a new
visitor. What comes from this very machine has no limit by address: it may be everybody, behind a
proxy that nobody has told us of. Starts are counted where the limiter counts them, WebSockets in
this process.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from aiohttp import web

from jarvis_stream.errors import TooFast, TooMany
from jarvis_stream.quota import Limiter
from jarvis_stream.transports.context import VISITOR, owner_of
from jarvis_stream.transports.peers import Network, address_of
from jarvis_stream.transports.requests import is_loopback


class Quotas:
    """Counts them. One of an application."""

    def __init__(
        self,
        *,
        sockets_per_address: int,
        sockets_per_principal: int,
        starts: Limiter,
        visitors: Limiter,
        reads: Limiter,
        changes: Limiter,
        searches: Limiter,
        proxies: Sequence[Network] = (),
    ) -> None:
        self._per_address = sockets_per_address
        self._per_principal = sockets_per_principal
        self._proxies = tuple(proxies)
        self._sockets: Counter[tuple[str, str]] = Counter()
        self._starts = starts
        self._visitors = visitors
        self._reads = reads
        self._changes = changes
        self._searches = searches

    @contextlib.contextmanager
    def socket(self, request: web.Request) -> Iterator[None]:
        """Count a WebSocket while inside; raises TooMany."""
        owner, address = owner_of(request), self._address(request)
        names = []
        if owner:
            names.append(("principal", owner, self._per_principal))
        if address:
            names.append(("address", address, self._per_address))
        for kind, name, most in names:
            if self._sockets[kind, name] >= most:
                raise TooMany(f"this {kind} has {most} WebSockets already", retry_after=10)
        for kind, name, _ in names:
            self._sockets[kind, name] += 1
        try:
            yield
        finally:
            for kind, name, _ in names:
                self._sockets[kind, name] -= 1
                if not self._sockets[kind, name]:
                    del self._sockets[kind, name]

    def starter(self, request: web.Request, owner: str) -> str:
        """Return the name that a start counts for; empty for none.

        A visitor's starts count for the address: a new cookie gives no new allowance.
        """
        if owner and VISITOR not in request:
            return f"principal {owner}"
        address = self._address(request)
        if address:
            return f"address {address}"
        return f"principal {owner}" if owner else ""

    def owner_or_address(self, request: web.Request, owner: str) -> str:
        """Return the name that the live answers of an owner count for: a visitor's address."""
        return self.starter(request, owner) if owner else ""

    async def new_visitor(self, request: web.Request) -> float:
        """Count a new visitor; 0.0, or after how many seconds the address may have one more."""
        address = self._address(request)
        return await self._visitors.take(f"address {address}") if address else 0.0

    async def start(self, starter: str) -> None:
        """Count a new answer; raises TooFast."""
        wait = await self._starts.take(starter) if starter else 0.0
        if wait:
            raise TooFast("too many answers were started in the last minute", retry_after=wait)

    async def read(self, request: web.Request, *, search: bool = False) -> None:
        """Count a read of the history, or a search in it; raises TooFast."""
        if search:
            await self._take(self._searches, request, "searches")
        else:
            await self._take(self._reads, request, "reads of conversations")

    async def change(self, request: web.Request) -> None:
        """Count a renaming or a deletion of a session; raises TooFast."""
        await self._take(self._changes, request, "changes of conversations")

    async def _take(self, limiter: Limiter, request: web.Request, what: str) -> None:
        name = self.starter(request, owner_of(request))
        wait = await limiter.take(name) if name else 0.0
        if wait:
            raise TooFast(f"there were too many {what} in the last minute", retry_after=wait)

    def _address(self, request: web.Request) -> str:
        address = address_of(request, self._proxies)
        return "" if is_loopback(address) else _network_of(address)


@lru_cache(maxsize=1024)
def _network_of(address: str) -> str:
    """Who has one address of a public IPv6 network has all 2**64 of it: they count as one."""
    if ":" in address and ip_address(address).is_global:
        return str(ip_network((address, 64), strict=False))
    return address


QUOTAS: Final = web.AppKey("quotas", Quotas)

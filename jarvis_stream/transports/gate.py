"""The gate: who asks, and whether their page may.

    Authorization: Bearer …      a token
    Cookie: jarvis_login=…       a login of this server, made from a token by POST /api/login
    Sec-WebSocket-Protocol: jarvis-stream.ticket.…      once, from POST /api/ticket

Nothing of it ever stands in a URL. Without any verifier everybody is nobody, and all is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from loguru import logger

from jarvis_stream.errors import (
    Conflict,
    ForeignOrigin,
    Invalid,
    NotFound,
    TooFast,
    Unauthorized,
    Unavailable,
)
from jarvis_stream.identity.base import Principal, Verifier, VisitorCookies
from jarvis_stream.passes import Keeper
from jarvis_stream.transports.answers import json_answer, json_body
from jarvis_stream.transports.context import (
    LIMITS,
    PRINCIPAL,
    VISITOR,
    mount_path,
    path_of,
)
from jarvis_stream.transports.peers import Network, address_of, is_direct, is_https
from jarvis_stream.transports.quotas import QUOTAS
from jarvis_stream.transports.requests import is_loopback, names_this_machine

Hook = Callable[[web.Request], Awaitable[Principal | None]]

COOKIE: Final = "jarvis_login"
TICKET: Final = "jarvis-stream.ticket."
TICKET_SECONDS: Final = 30.0
MAX_TOKEN: Final = 8192
"""Characters of a token; JWTs are long."""
LONGEST_WAIT: Final = 3600.0
"""Seconds after which the clock is looked at again: it may have been set, or the machine slept."""

EXPIRY_TOLERANCE: Final = 2.0
"""Seconds before its end in which a sign-in that disappears from the store counts as expired."""

_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_OPEN: Final = frozenset(("/", "/livez", "/readyz", "/api/info", "/api/login", "/api/logout"))

ADMIN: Final = "/api/admin/"
"""The calls below it let operators in, by a rule of their own (see admin.py)."""

routes = web.RouteTableDef()


class Gate:
    """Knows who asks."""

    def __init__(
        self,
        verifiers: Sequence[Verifier] = (),
        hook: Hook | None = None,
        *,
        tickets: Keeper,
        logins: Keeper,
        proxies: Sequence[Network] = (),
        open_metrics: bool = True,
    ) -> None:
        """`hook` is asked instead of the verifiers. `open_metrics`: to this very machine."""
        self._verifiers = tuple(verifiers)
        self._hook = hook
        self.proxies = tuple(proxies)
        self.tickets = tickets
        self.logins = logins
        self._open_metrics = open_metrics
        self.visitors: VisitorCookies | None = None
        """Set where each browser has conversations of its own without signing in."""

    @property
    def kind(self) -> str:
        """What `/api/info` says: `none`, `token`, or `custom` for a hook."""
        if self._hook is not None:
            return "custom"
        return "token" if self._verifiers else "none"

    async def verify(self, token: str) -> Principal | None:
        """Whose token it is. Raises Unavailable when that cannot be told now."""
        if not token or len(token) > MAX_TOKEN:
            return None
        for verifier in self._verifiers:
            principal = await verifier.verify(token)
            if principal is not None:
                return _unexpired(principal)
        return None

    async def principal_of(self, request: web.Request) -> Principal | None:
        """Who asks; None for nobody that is known."""
        ticket = _ticket(request)
        if ticket is not None:
            return await self.by_ticket(ticket)
        if self._hook is not None:
            return _unexpired(await self._hook(request))
        header = request.headers.getall(hdrs.AUTHORIZATION, ())
        if header:
            token = bearer(request)
            return await self.verify(token) if token is not None and len(header) == 1 else None
        login = request.cookies.get(COOKIE)
        return self._known(await self.logins.look(login)) if login else None

    async def by_ticket(self, ticket: str) -> Principal | None:
        """Whom a ticket stands for, while what it was issued for is still good."""
        principal = self._known(await self.tickets.redeem(ticket))
        if principal is not None and principal.login:
            login = await self.logins.find(principal.login)
            if login is None:
                return None
            principal = replace(principal, expires_at=login.expires_at)
        return _unexpired(principal)

    def _known(self, principal: Principal | None) -> Principal | None:
        """The principal of a sign-in or ticket, if this server would verify its source today.

        Its token may have been removed from the settings, or its key replaced. Raises Unavailable
        when that cannot be told now.
        """
        if principal is None or self._hook is not None:
            return principal
        lacking: Unavailable | None = None
        for verifier in self._verifiers:
            try:
                if verifier.knows(principal):
                    return principal
            except Unavailable as error:
                lacking = error
        if lacking is not None:
            raise lacking
        return None

    async def revoke(self, name: str) -> int:
        """End every sign-in of a principal, and the connections that depend on one; return how
        many there were."""
        await self.tickets.drop_all(name)
        return await self.logins.drop_all(name)

    def is_open(self, request: web.Request) -> bool:
        """Whether anybody may ask this."""
        path = path_of(request)
        if request.method == hdrs.METH_OPTIONS:  # a browser asks whether it may ask
            return True
        if path in _OPEN or path.startswith(("/static/", ADMIN)):
            return True
        return path == "/metrics" and self._open_metrics and is_direct(request)

    def check_origin(self, request: web.Request) -> None:
        """Refuse what could be another page's doing and does not say whose (ForeignOrigin).

        A foreign origin was refused before. A request that changes something says its origin,
        unless no page can have made it: a page cannot send a token, nor know a ticket.
        """
        changes = request.method not in _SAFE or _is_handshake(request)
        if not changes or hdrs.ORIGIN in request.headers:
            return
        if bearer(request) is not None or _ticket(request) is not None:
            return
        if is_loopback(address_of(request, self.proxies) or "localhost"):
            return
        if self._hook is not None and hdrs.COOKIE not in request.headers:
            return
        raise ForeignOrigin("a request without an Origin header needs a bearer token")


GATE: Final = web.AppKey("gate", Gate)


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks, and let nobody in who may not be asked by. Raises Unauthorized."""
    here = request.app[GATE]
    here.check_origin(request)
    if here.kind != "none":
        is_open = here.is_open(request)
        # Who has a bad token is told so, even where none is needed; but not the page's files,
        # which the browser fetches with an old cookie.
        if not is_open or path_of(request) == "/api/info":
            principal = await here.principal_of(request)
            if principal is not None:
                request[PRINCIPAL] = principal
            elif not is_open:
                raise Unauthorized
    elif here.visitors is not None and _is_for_visitors(request):
        await _admit_visitor(request, here.visitors)
    return await handler(request)


def _is_for_visitors(request: web.Request) -> bool:
    path = path_of(request)
    if request.method == hdrs.METH_OPTIONS or path in ("/api/login", "/api/logout"):
        return False
    if path.startswith(ADMIN):
        return False
    # The page gets the cookie before it sends requests, several at a time.
    if not (path in ("/", "/ws") or path.startswith("/api/")):
        return False
    # The user of this machine needs no cookie; a proxy's clients are other people.
    return not (request.app[LIMITS].local_only and _is_this_machine(request))


def _is_this_machine(request: web.Request) -> bool:
    """Whether this machine sends the request, and by its own name.

    A proxy that adds no header is told by the Host that it passes on.
    """
    host = request.headers.get(hdrs.HOST, "localhost")
    return is_direct(request) and names_this_machine(host)


async def _admit_visitor(request: web.Request, visitors: VisitorCookies) -> None:
    """Set the principal of a browser: that of its cookie, or a new one.

    Raises TooFast for one new visitor too many of an address, which only the page and `/api/info`
    are served to. Without cookies each request has a principal of its own, and finds nothing.
    """
    visitor = visitors.lookup(request.cookies)
    if visitor is None:
        wait = await request.app[QUOTAS].new_visitor(request)
        if wait and path_of(request) in _OPEN:
            return
        if wait:
            raise TooFast(
                "too many new visitors came from this address; retry later, or with the cookie of"
                " an earlier response",
                retry_after=wait,
            )
        visitor = visitors.new()
    request[PRINCIPAL] = visitor.principal
    request[VISITOR] = visitor


async def send_visitor_cookie(request: web.Request, response: web.StreamResponse) -> None:
    """Add the cookie of a new visitor to a response that is about to be sent."""
    visitor = request.get(VISITOR)
    if visitor is None or not visitor.cookie:
        return
    # Not response.set_cookie: the headers of the cookies have been made already.
    here = request.app[GATE]
    assert here.visitors is not None
    parts = [visitor.cookie, f"Max-Age={here.visitors.seconds}"]
    parts += [f"Path={mount_path(request.app)}/", "HttpOnly", "SameSite=Lax"]
    if is_https(request, here.proxies):
        parts.append("Secure")
    response.headers.add(hdrs.SET_COOKIE, "; ".join(parts))
    # A shared cache must not give the cookie to another browser.
    if "no-store" not in response.headers.get(hdrs.CACHE_CONTROL, ""):
        response.headers[hdrs.CACHE_CONTROL] = "no-store"


def while_valid(
    request: web.Request, expire: Callable[..., object]
) -> AbstractContextManager[object]:
    """Call `expire` if the principal's sign-in ends inside, with `renewable=True` if it expires."""
    principal = request.get(PRINCIPAL)
    if principal is None or (not principal.login and principal.expires_at is None):
        return _FOREVER
    return SignInWatch(request.app[GATE].logins, principal, expire)


class SignInWatch:
    """Calls `expire` when the sign-in of a connection ends, until it is left."""

    __slots__ = ("_expire", "_logins", "_stack", "principal")

    def __init__(self, logins: Keeper, principal: Principal, expire: Callable[..., object]) -> None:
        self.principal = principal
        self._logins = logins
        self._expire = expire
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SignInWatch:
        self._watch()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def renew(self, principal: Principal) -> None:
        """Depend on another sign-in of the same principal from now on."""
        self._stack.close()
        self.principal = principal
        self._watch()

    def _watch(self) -> None:
        login, ends = self.principal.login, self.principal.expires_at
        if login:
            self._stack.callback(self._logins.attend(login, self._end))
        if ends is not None:
            self._stack.enter_context(_until(ends, partial(self._expire, renewable=True)))

    def _end(self) -> None:
        """Call `expire`: the store has removed the sign-in, perhaps because it expired."""
        left = seconds_left(self.principal)
        self._expire(renewable=left is not None and left < EXPIRY_TOLERANCE)


async def reauthenticate(gate: Gate, watch: SignInWatch, ticket: str) -> float | None:
    """Have an open WebSocket depend on the sign-in of a ticket; return the seconds until it ends.

    Raises Unauthorized for a ticket that is not valid, Conflict for one of another principal.
    """
    principal = await gate.by_ticket(ticket)
    if principal is None:
        raise Unauthorized
    if principal.name != watch.principal.name:
        raise Conflict("the ticket belongs to another principal; open another WebSocket")
    watch.renew(principal)
    return seconds_left(principal)


def seconds_left(principal: Principal) -> float | None:
    """Return the seconds until a sign-in expires; None for never."""
    ends = principal.expires_at
    return None if ends is None else round(max(0.0, ends - time.time()), 3)


_FOREVER: Final = contextlib.nullcontext()
"""For all of them one: a connection without a login does not pay for its end."""


@contextlib.contextmanager
def _until(ends: float, expire: Callable[[], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        left = ends - time.time()
        if left <= 0:
            expire()
        else:
            timer = loop.call_later(min(left, LONGEST_WAIT), look)

    timer = loop.call_soon(look)  # type: ignore[assignment]  # a handle that can be cancelled
    try:
        yield
    finally:
        timer.cancel()


@routes.post("/api/login")
async def login(request: web.Request) -> web.Response:
    """Exchange a token for a cookie that scripts cannot read; the cookie is not the token."""
    here = request.app[GATE]
    if here.kind != "token":
        raise NotFound("sign-in is not configured on this server")
    token = (await json_body(request)).get("token")
    if not isinstance(token, str):
        raise Invalid("token: is missing; required: a text")
    principal = await here.verify(token.strip())
    if principal is None:
        raise Unauthorized
    seconds = here.logins.seconds
    if principal.expires_at is not None:
        seconds = min(seconds, principal.expires_at - time.time())
    await _forget_login(request)
    answer = json_answer({"principal": principal.name})
    answer.set_cookie(
        COOKIE,
        await here.logins.issue(principal),
        max_age=max(1, int(seconds)),
        path=f"{mount_path(request.app)}/",
        httponly=True,
        samesite="Strict",
        secure=is_https(request, here.proxies),
    )
    logger.info("login principal={} address={}", principal.name, address_of(request, here.proxies))
    return answer


@routes.post("/api/logout")
async def logout(request: web.Request) -> web.Response:
    """End the sign-in of the cookie and close the connections that it opened.

    By one of its tickets too; at other servers that share the logins, within a second. With
    `?everywhere=1` every sign-in of its principal ends.
    """
    here, word = request.app[GATE], request.cookies.get(COOKIE)
    if word and request.query.get("everywhere") == "1":
        principal = await here.logins.look(word)
        if principal is not None:
            await here.revoke(principal.name)
    await _forget_login(request)
    answer = web.Response(status=204)
    answer.del_cookie(COOKIE, path=f"{mount_path(request.app)}/", httponly=True, samesite="Strict")
    return answer


@routes.post("/api/ticket")
async def ticket(request: web.Request) -> web.Response:
    """Issue a ticket that opens one WebSocket: browsers cannot send headers with those."""
    here = request.app[GATE]
    principal = request.get(PRINCIPAL)
    if principal is None or here.kind == "none":
        raise NotFound("sign-in is not configured: connect without a ticket")
    return json_answer(
        {
            "ticket": await here.tickets.issue(principal),
            "expires_in": round(here.tickets.seconds),
            "sign_in_expires_in": seconds_left(principal),
        }
    )


def bearer(request: web.BaseRequest) -> str | None:
    """The token in the Authorization header, if there is one."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def who(request: web.Request) -> dict[str, Any]:
    """What `/api/info` says about who asks."""
    said: dict[str, Any] = {"auth": request.app[GATE].kind}
    principal = request.get(PRINCIPAL)
    if principal is None or VISITOR in request:
        return said
    return {**said, "principal": principal.name}


def _ticket(request: web.Request) -> str | None:
    if path_of(request) != "/ws":  # else one could buy the next, for good
        return None
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())).split(",")
    found = [word.strip() for word in offered if word.strip().startswith(TICKET)]
    return found[0].removeprefix(TICKET) if found else None


def _is_handshake(request: web.Request) -> bool:
    return path_of(request) == "/ws" or "websocket" in request.headers.get(hdrs.UPGRADE, "").lower()


async def _forget_login(request: web.Request) -> None:
    old = request.cookies.get(COOKIE)
    if old:
        await request.app[GATE].logins.drop(old)


def _unexpired(principal: Principal | None) -> Principal | None:
    if principal is None or principal.expires_at is None or principal.expires_at > time.time():
        return principal
    return None

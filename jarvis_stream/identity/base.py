"""The port of who asks: a token in, the principal it stands for out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

MAX_NAME: Final = 256
"""In characters."""

_NAME: Final = re.compile(r"[^\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has shown who they are. What they make is theirs, by their name.

    `expires_at` is in seconds since the epoch; None is never. Raises ValueError for a name that
    is empty, too long, or holds blanks or control characters.
    """

    name: str
    expires_at: float | None = None
    login: str = field(default="", compare=False)
    """The login of this server by which they are known, if it is by one: its digest."""
    source: str = field(default="", compare=False)
    """The origin of the verification: a keyed hash of the token, or the id of a key. A sign-in or
    ticket made from it is valid only while a verifier of the server still knows this origin."""

    def __post_init__(self) -> None:
        if len(self.name) > MAX_NAME or not _NAME.fullmatch(self.name):
            raise ValueError("a principal's name is 1 to 256 characters, none of them a blank")


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser that has a principal without sign-in, new or known from its cookie."""

    principal: Principal
    cookie: str
    """The cookie to send, as `name=value`; empty if the browser's cookie is valid."""


class VisitorCookies(Protocol):
    """Issues and verifies the cookies of visitors."""

    seconds: int
    """Seconds that a cookie is valid."""

    def new(self) -> Visitor:
        """Return a new visitor."""
        ...

    def lookup(self, cookies: Mapping[str, str]) -> Visitor | None:
        """Return the visitor of a request's cookies; None without a valid one."""
        ...


class Verifier(Protocol):
    """One way to tell whose a token is."""

    async def verify(self, token: str) -> Principal | None:
        """Whose it is; None for one that is not valid, or not valid any more.

        Raises Unavailable when that cannot be told now.
        """
        ...

    def knows(self, principal: Principal) -> bool:
        """Return whether the verifier still accepts the token or key of this principal's `source`.

        Raise Unavailable when that is unknown at the moment.
        """
        ...


@runtime_checkable
class RunningVerifier(Verifier, Protocol):
    """One that has something to do meanwhile; used inside `running` only."""

    def running(self) -> AbstractAsyncContextManager[Any]:
        """Entered once at start-up, left at shutdown."""
        ...

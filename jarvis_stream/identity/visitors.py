"""Principals for visitors of a server without sign-in: one for each browser, by a signed cookie.

The cookie holds a random id, the time of its issue and an HMAC of both. Nothing is kept at the
server: every node with the same keys accepts it, also after a restart.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from jarvis_stream.identity.base import Principal, Visitor

PREFIX: Final = "visitor:"
"""Every visitor's principal begins so."""

COOKIE: Final = "jarvis_visitor"
"""The cookie's name, before `_` and eight digits that differ for every secret."""

VISITOR_SECONDS: Final = 400 * 86_400
"""How long a cookie is valid; browsers keep none longer."""

RENEWAL_SECONDS: Final = 86_400
"""A cookie older than this is issued again when it is used."""

SHORTEST: Final = 32
"""Characters a secret has at least."""

_VALUE: Final = re.compile(r"([0-9a-f]{32})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)
_SECRET: Final = re.compile(r"[!-+\--~]+")  # printable, without the comma
_PURPOSE: Final = b"jarvis-stream visitor cookie 1\0"


class SecretUnusable(ValueError):
    """A file does not hold a secret; the message says which, and quotes nothing of it."""


class Visitors:
    """See VisitorCookies: HMAC-SHA256 signatures."""

    seconds = VISITOR_SECONDS

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """The first of `secrets` signs; a cookie that another one has signed is issued again."""
        if not secrets:
            raise ValueError("a secret is needed")
        self._keys = [hashlib.sha256(_PURPOSE + secret.encode()).digest() for secret in secrets]
        # By the key: cookies know no ports, and servers on one host must not take each other's.
        self._names = [f"{COOKIE}_{hashlib.sha256(key).hexdigest()[:8]}" for key in self._keys]
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Visitors keys={len(self._keys)}>"

    def new(self) -> Visitor:
        """See VisitorCookies.new."""
        return self._visitor(secrets.token_hex(16), is_new=True)

    def lookup(self, cookies: Mapping[str, str]) -> Visitor | None:
        """See VisitorCookies.lookup."""
        for index, key in enumerate(self._keys):
            found = _VALUE.fullmatch(cookies.get(self._names[index], ""))
            if found is None:
                continue
            name, issued, signature = found.groups()
            age = self._clock() - int(issued)
            # Clocks of several nodes may differ.
            if -RENEWAL_SECONDS <= age <= VISITOR_SECONDS and hmac.compare_digest(
                _sign(key, f"{name}.{issued}"), signature
            ):
                return self._visitor(name, is_new=index > 0 or age > RENEWAL_SECONDS)
        return None

    def _visitor(self, name: str, *, is_new: bool) -> Visitor:
        signed = f"{name}.{int(self._clock())}"
        cookie = f"{self._names[0]}={signed}.{_sign(self._keys[0], signed)}" if is_new else ""
        return Visitor(Principal(PREFIX + name), cookie)


def parse_secrets(text: str) -> list[str]:
    """Split `NEW,OLD` into secrets; raises ValueError, which quotes nothing."""
    found = [part.strip() for part in text.split(",")]
    if not all(_SECRET.fullmatch(part) and len(part) >= SHORTEST for part in found):
        raise ValueError("a secret is too short, or holds other than printable ASCII characters")
    if len(set(found)) < len(found):
        raise ValueError("a secret is there twice")
    return found


def secret_in(file: Path) -> str:
    """Return the secret in a file that only its owner may read; make the file if it is missing.

    Several processes that do so at once get the same secret. Raises OSError, or SecretUnusable for
    a file with other contents.
    """
    try:
        text = file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")  # with mode 0600
        try:
            with open(handle, "w", encoding="ascii") as whole:
                whole.write(secrets.token_hex(32) + "\n")
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(name, file)
        finally:
            os.unlink(name)
        text = file.read_text(encoding="ascii", errors="replace").strip()
    if not _SECRET.fullmatch(text) or len(text) < SHORTEST:
        raise SecretUnusable(f"{file} holds no secret of at least {SHORTEST} characters")
    return text


def _sign(key: bytes, text: str) -> str:
    digest = hmac.digest(key, text.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

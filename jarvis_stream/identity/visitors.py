"""Principals for visitors of a server without sign-in: one for each browser, by a signed cookie.

The cookie contains a random id, the time of its issue and an HMAC of both. The server stores
nothing: every node with the same keys accepts the cookie, also after a restart.
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
"""The prefix of every visitor's principal."""

COOKIE: Final = "jarvis_visitor"
"""The cookie's name, before `_` and eight digits that differ for every secret."""

VISITOR_SECONDS: Final = 400 * 86_400
"""Seconds that a cookie is valid; browsers keep no cookie longer."""

RENEWAL_SECONDS: Final = 86_400
"""The age in seconds from which a used cookie is issued again."""

SHORTEST: Final = 32
"""The minimum length of a secret, in characters."""

_VALUE: Final = re.compile(r"([0-9a-f]{32})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)
_SECRET: Final = re.compile(r"[!-+\--~]+")  # printable, without the comma
_PURPOSE: Final = b"jarvis-stream visitor cookie 1\0"


class SecretUnusable(ValueError):
    """A file contains no valid secret; the message names the file and quotes no contents."""


class Visitors:
    """VisitorCookies with HMAC-SHA256 signatures."""

    seconds = VISITOR_SECONDS

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """Sign with the first secret; reissue a cookie that another of the secrets signed."""
        if not secrets:
            raise ValueError("a secret is needed")
        self._keys = [hashlib.sha256(_PURPOSE + secret.encode()).digest() for secret in secrets]
        # The name depends on the key: cookies do not distinguish ports, and two servers on one
        # host must not overwrite each other's cookie.
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
            # The clocks of the nodes may differ.
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
    """Split `NEW,OLD` into secrets; raise ValueError without quoting a secret."""
    found = [part.strip() for part in text.split(",")]
    if not all(_SECRET.fullmatch(part) and len(part) >= SHORTEST for part in found):
        raise ValueError("a secret is too short, or has characters that are not printable ASCII")
    if len(set(found)) < len(found):
        raise ValueError("a secret occurs twice")
    return found


def secret_in(file: Path) -> str:
    """Return the secret in a file that only its owner may read; create the file if it is missing.

    Concurrent processes get the same secret. Raise OSError, or SecretUnusable for a file without a
    valid secret.
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
        raise SecretUnusable(
            f"{file} holds no secret of at least {SHORTEST} printable ASCII characters: restore it"
            " from a backup, or delete it for a new secret"
        )
    return text


def _sign(key: bytes, text: str) -> str:
    digest = hmac.digest(key, text.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

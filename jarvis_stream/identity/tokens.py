"""Static tokens: a few names, and for each of them a word that only its owner knows."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from jarvis_stream.identity.base import Principal

SHORTEST: Final = 16
"""Characters a token has at least."""

_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
# RFC 6750, 2.1: what may stand after "Bearer".
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def parse_tokens(text: str) -> dict[str, str]:
    """`name:token,name:token` as tokens by name; raises ValueError, which quotes nothing."""
    tokens: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, token = pair.partition(":")
        if not _NAME.fullmatch(name) or not _TOKEN.fullmatch(token) or len(token) < SHORTEST:
            raise ValueError("no name:token")
        if name in tokens or token in tokens.values():
            raise ValueError("a name or a token that is there twice")
        tokens[name] = token
    if not tokens:
        raise ValueError("no tokens")
    return tokens


class StaticTokens:
    """See Verifier. How long an answer takes tells nothing of the tokens."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        """The token of every name."""
        # Digests are of one length, whatever they are of.
        self._digests = {name: _digest(token) for name, token in tokens.items()}
        self._sources = {name: _source(token) for name, token in tokens.items()}

    def __repr__(self) -> str:
        return f"<StaticTokens names={len(self._digests)}>"

    async def verify(self, token: str) -> Principal | None:
        """See Verifier."""
        given = _digest(token)
        found = None
        for name, digest in self._digests.items():  # all of them, whichever it is
            if hmac.compare_digest(digest, given):
                found = name
        return None if found is None else Principal(found, source=self._sources[found])

    def knows(self, principal: Principal) -> bool:
        """See Verifier. True while the settings contain the token for this principal."""
        return principal.source == self._sources.get(principal.name, None)


def _source(token: str) -> str:
    """Return an id for a token that does not reveal the token."""
    return "token:" + hmac.digest(token.encode(), b"jarvis-stream source", "sha256").hex()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()

"""JSON Web Tokens: signed by somebody else, verified here. Needs the extra `[jwt]`.

Which algorithms are allowed is this server's decision, and each of them only with keys of its own
kind: `none` is never among them, and a public key is never taken for a shared secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import jwt
import orjson
from jwt.algorithms import get_default_algorithms
from loguru import logger

from jarvis_stream.errors import Unavailable
from jarvis_stream.identity.base import Principal
from jarvis_stream.recurring import RecurringLog

SHARED: Final = ("HS256", "HS384", "HS512")
SIGNED: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)

REFRESH: Final = 3600.0
"""Seconds after which keys are fetched again, wanted or not."""
SHORTEST_REFRESH: Final = 10.0
"""Seconds between two fetches, however many unknown keys are named or attempts fail."""
FETCH_TIMEOUT: Final = 5.0
MAX_KEYS: Final = 64
MAX_BYTES: Final = 1024 * 1024

_KINDS: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_BROKEN: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token must say besides its `sub` and `exp`; `leeway` in seconds."""

    issuer: str | None = None
    audience: str | None = None
    leeway: float = 10.0


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and the algorithms it may verify."""

    value: Any
    algorithms: tuple[str, ...]
    id: str = ""
    """Identifies the key without revealing a secret."""

    def __repr__(self) -> str:
        return f"<Key for {','.join(self.algorithms)}>"


def shared_key(secret: str, algorithms: Sequence[str]) -> Key:
    """A secret for HS256, HS384 or HS512; raises ValueError, which does not quote it."""
    chosen = tuple(algorithms) or SHARED[:1]
    if not set(chosen) <= set(SHARED):
        raise ValueError(f"a shared secret verifies only {', '.join(SHARED)}")
    raw = secret.encode()
    if b"-----BEGIN" in raw:
        raise ValueError("a shared secret must not be a PEM file's text")
    for name in chosen:
        if len(raw) * 8 < int(name[2:]):
            raise ValueError(f"a secret for {name} has at least {int(name[2:]) // 8} bytes")
    return Key(raw, chosen, _source("hmac", hmac.digest(raw, b"jarvis-stream source", "sha256")))


def public_key(pem: bytes, algorithms: Sequence[str]) -> Key:
    """A public key for those of the algorithms that are of its kind; raises ValueError."""
    if b"PRIVATE KEY" in pem:
        raise ValueError("this is a private key; the server needs the public one only")
    fitting: list[str] = []
    value: Any = None
    for name in algorithms or SIGNED:
        if name not in SIGNED:
            raise ValueError(f"a public key does not verify {name}")
        try:
            value = get_default_algorithms()[name].prepare_key(pem)
        except _BROKEN:
            if algorithms:
                raise ValueError(f"this is not a public key for {name}") from None
        else:
            fitting.append(name)
    if not fitting:
        raise ValueError("this is not a public key in PEM format")
    return Key(value, tuple(fitting), _source("pem", pem))


def _source(kind: str, material: bytes) -> str:
    return f"jwt:{kind}:{hashlib.sha256(material).hexdigest()}"


class _Verifier:
    """What both kinds have in common."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def _check(self, token: str, key: Key) -> Principal | None:
        claims = self._claims
        try:
            said = jwt.decode(
                token,
                key.value,
                algorithms=list(key.algorithms),
                issuer=claims.issuer,
                audience=claims.audience,
                leeway=claims.leeway,
                options={"require": ["exp", "sub"]},
            )
            return Principal(
                said["sub"], expires_at=int(said["exp"]) + claims.leeway, source=self._source(key)
            )
        except _BROKEN as error:
            # Its text may quote the token.
            logger.debug("jwt_refused why={}", type(error).__name__)
            return None

    def _source(self, key: Key) -> str:
        """Return the source of a token: its key, issuer and audience."""
        return f"{key.id}:{self._claims.issuer or ''}:{self._claims.audience or ''}"


class KeyVerifier(_Verifier):
    """See Verifier: one key that stays."""

    def __init__(self, key: Key, claims: Claims) -> None:
        super().__init__(claims)
        self._key = key

    async def verify(self, token: str) -> Principal | None:
        """See Verifier."""
        return self._check(token, self._key)

    def knows(self, principal: Principal) -> bool:
        """See Verifier."""
        return principal.source == self._source(self._key)


class JwksVerifier(_Verifier):
    """See Verifier: the keys are published at a URL, and change. Works inside `running`.

    A token whose key is unknown waits for one fetch, which all such tokens share, and which is
    made every SHORTEST_REFRESH seconds at most. While there is nothing to be fetched, the keys
    that are known stay.
    """

    def __init__(self, url: str, algorithms: Sequence[str], claims: Claims) -> None:
        """Raises ValueError for an algorithm that is none of SIGNED."""
        super().__init__(claims)
        self._url = url
        self._algorithms = tuple(algorithms) or SIGNED
        if not set(self._algorithms) <= set(SIGNED):
            raise ValueError(f"published keys verify only {', '.join(SIGNED)}")
        self._keys: list[tuple[str | None, Key]] = []
        self._known = False
        self._failures = RecurringLog()
        self._fetched_at = -SHORTEST_REFRESH
        self._fetching: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[JwksVerifier]:
        """Fetch the keys now and then while inside; the first time before anybody asks."""
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as http:
            self._http = http
            keeper = asyncio.create_task(self._keep())
            try:
                yield self
            finally:
                tasks = {keeper, *([self._fetching] if self._fetching else [])}
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def verify(self, token: str) -> Principal | None:
        """See Verifier."""
        try:
            header = jwt.get_unverified_header(token)
        except _BROKEN:
            return None
        name, kid = header.get("alg"), header.get("kid")
        if name not in self._algorithms or not isinstance(kid, str | None):
            return None
        keys = self._fitting(name, kid)
        if not keys:
            await self._refresh()
            keys = self._fitting(name, kid)
        if not self._known:
            raise Unavailable("the sign-in cannot be verified now; retry later", retry_after=1)
        for key in keys:
            principal = self._check(token, key)
            if principal is not None:
                return principal
        return None

    def knows(self, principal: Principal) -> bool:
        """See Verifier. True while the key is published."""
        if any(principal.source == self._source(key) for _, key in self._keys):
            return True
        if not self._known and principal.source.startswith("jwt:jwk:"):
            raise Unavailable("the server has not fetched the keys yet; retry", retry_after=1)
        return False

    def _fitting(self, name: str, kid: str | None) -> list[Key]:
        return [
            key
            for its_id, key in self._keys
            if name in key.algorithms and (kid is None or its_id == kid)
        ]

    async def _keep(self) -> None:
        while True:
            await self._refresh()
            await asyncio.sleep(REFRESH if self._known else SHORTEST_REFRESH)

    async def _refresh(self) -> None:
        """Wait for one fetch, unless the last was a moment ago. Cancelling it stops no other's."""
        if self._fetching is None:
            if time.monotonic() - self._fetched_at < SHORTEST_REFRESH:
                return
            self._fetched_at = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        await asyncio.wait({self._fetching}, timeout=FETCH_TIMEOUT)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        assert self._http is not None
        try:
            async with self._http.get(self._url, allow_redirects=False) as response:
                if response.status != 200:
                    raise ValueError(f"status {response.status}")
                body = await response.content.read(MAX_BYTES + 1)
                while len(body) <= MAX_BYTES and (more := await response.content.readany()):
                    body += more
                if len(body) > MAX_BYTES:
                    raise ValueError("too large")
            self._keys = _published(body, self._algorithms)
            self._known = True
            self._failures.recovered()
        except (aiohttp.ClientError, TimeoutError, *_BROKEN) as error:
            self._failures.log("WARNING", "jwks_not_fetched error={}", type(error).__name__)


def _published(body: bytes, algorithms: Sequence[str]) -> list[tuple[str | None, Key]]:
    """The usable keys of a JWK set; raises ValueError when it is none."""
    found = orjson.loads(body)
    jwks = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(jwks, list):
        raise ValueError("no JWK set")
    keys = []
    for jwk in jwks[:MAX_KEYS]:
        key = _key_of(jwk, algorithms) if isinstance(jwk, dict) else None
        if key is not None:
            keys.append((jwk.get("kid"), key))
    return keys


def _key_of(jwk: Mapping[str, Any], algorithms: Sequence[str]) -> Key | None:
    if jwk.get("use", "sig") != "sig":
        return None
    names = [name for name in algorithms if _KINDS[name[:2]] == jwk.get("kty")]
    if "alg" in jwk:
        names = [name for name in names if name == jwk["alg"]]
    value, fitting = None, []
    for name in names:
        try:
            value = get_default_algorithms()[name].from_jwk(dict(jwk))
        except _BROKEN:
            continue
        fitting.append(name)
    if value is None or hasattr(value, "private_bytes"):
        return None
    material = orjson.dumps([jwk.get(field) for field in ("kty", "kid", "crv", "n", "e", "x", "y")])
    return Key(value, tuple(fitting), _source("jwk", material))

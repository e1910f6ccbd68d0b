"""JSON Web Tokens: which are believed, and whose keys count."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt as pyjwt
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from jarvis_stream.errors import Unavailable
from jarvis_stream.identity import jwt
from jarvis_stream.identity.base import Principal

SECRET = "a-shared-secret-that-is-long-enough-for-sha-512-as-well-as-sha-256"
CLAIMS = jwt.Claims(issuer="https://login.example", audience="jarvis", leeway=5)

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "PS256": RSA, "ES256": EC, "EdDSA": ED}


def pem(private: Any) -> bytes:
    found: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def said(**changes: Any) -> dict[str, Any]:
    claims = {
        "sub": "ann",
        "iss": "https://login.example",
        "aud": "jarvis",
        "exp": int(time.time()) + 60,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def signed(algorithm: str = "HS256", key: Any = SECRET, kid: str | None = None, **c: Any) -> str:
    headers = {"kid": kid} if kid else None
    return pyjwt.encode(said(**c), key, algorithm=algorithm, headers=headers)


def forged(header: dict[str, Any], signature: bytes = b"") -> str:
    parts = (orjson.dumps(header), orjson.dumps(said()), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.fixture
def shared() -> jwt.KeyVerifier:
    return jwt.KeyVerifier(jwt.shared_key(SECRET, ()), CLAIMS)


async def test_a_good_token_is_its_subjects(shared: jwt.KeyVerifier) -> None:
    exp = int(time.time()) + 60
    assert await shared.verify(signed(exp=exp)) == Principal("ann", expires_at=exp + 5)
    assert await shared.verify(signed(aud=["other", "jarvis"])) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 10**400},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": 3},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"nbf": 4_102_444_800},  # in 2100
        {"key": SECRET + "x"},
        {"algorithm": "HS512"},
    ],
    ids=str,
)
async def test_others_are_nobodys(shared: jwt.KeyVerifier, changes: dict[str, Any]) -> None:
    payload = {k: v for k, v in changes.items() if k not in ("key", "algorithm")}
    token = pyjwt.api_jws.encode(
        orjson.dumps(said(**{k: v for k, v in payload.items() if v != 10**400})).replace(
            b'"exp":', b'"exp":1e999,"x":' if payload.get("exp") == 10**400 else b'"exp":'
        ),
        changes.get("key", SECRET),
        algorithm=changes.get("algorithm", "HS256"),
    )
    assert await shared.verify(token) is None


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c", "....", "\ud800.a.b", "é.é.é"])
async def test_what_is_no_token_is_nobodys(shared: jwt.KeyVerifier, token: str) -> None:
    assert await shared.verify(token) is None
    assert await jwt.JwksVerifier("http://x", (), CLAIMS).verify(token) is None


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", None, 3, ["HS256"]])
async def test_no_signature_is_no_signature(shared: jwt.KeyVerifier, name: Any) -> None:
    public = jwt.KeyVerifier(jwt.public_key(pem(RSA), ()), CLAIMS)
    token = forged({"alg": name, "typ": "JWT"})
    assert await shared.verify(token) is None
    assert await public.verify(token) is None


@pytest.mark.parametrize("name", PRIVATE)
async def test_a_public_key_verifies_its_own_kind(name: str) -> None:
    for algorithms in ((), (name,)):
        key = jwt.public_key(pem(PRIVATE[name]), algorithms)
        verifier = jwt.KeyVerifier(key, CLAIMS)
        assert await verifier.verify(signed(name, PRIVATE[name])) is not None
        assert await verifier.verify(signed("RS256", OTHER_RSA)) is None


async def test_a_public_key_is_no_shared_secret() -> None:
    import hashlib
    import hmac

    verifier = jwt.KeyVerifier(jwt.public_key(pem(RSA), ()), CLAIMS)
    unsigned = forged({"alg": "HS256", "typ": "JWT"}).rpartition(".")[0]
    mac = hmac.new(pem(RSA), unsigned.encode(), hashlib.sha256).digest()
    token = f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert await verifier.verify(token) is None


def test_keys_that_cannot_be_used_are_refused() -> None:
    private = RSA.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for make in (
        lambda: jwt.shared_key("short", ()),
        lambda: jwt.shared_key(SECRET, ("RS256",)),
        lambda: jwt.shared_key(SECRET[:40], ("HS512",)),
        lambda: jwt.shared_key(pem(RSA).decode(), ()),
        lambda: jwt.public_key(b"no key at all", ()),
        lambda: jwt.public_key(private, ()),
        lambda: jwt.public_key(pem(RSA), ("ES256",)),
        lambda: jwt.public_key(pem(RSA), ("HS256",)),
        lambda: jwt.JwksVerifier("http://x", ("HS256",), CLAIMS),
    ):
        with pytest.raises(ValueError, match=r"key|secret"):
            make()
    assert SECRET not in repr(jwt.shared_key(SECRET, ()))


# Published keys


def jwk(private: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    name = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    kind = next((n for k, n in name.items() if isinstance(private, k)), "EdDSA")
    algorithm: Any = get_default_algorithms()[kind]
    found = algorithm.to_jwk(private.public_key(), as_dict=True)
    return {**found, **({"kid": kid} if kid else {}), **more}


class Publisher:
    """Somebody who signs tokens, and tells the keys."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.status = 200
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys}, status=self.status)


@pytest.fixture
async def publisher(
    aiohttp_server: Callable[..., Awaitable[TestServer]],
) -> tuple[Publisher, str]:
    publisher = Publisher()
    app = web.Application()
    app.router.add_get("/keys", publisher.answer)
    server = await aiohttp_server(app)
    return publisher, str(server.make_url("/keys"))


async def test_published_keys_verify_by_their_ids(publisher: tuple[Publisher, str]) -> None:
    source, url = publisher
    source.keys = [jwk(RSA, "r"), jwk(EC, "e"), jwk(ED, "d"), {"kty": "oct", "k": "AAAA"}, 3]
    async with jwt.JwksVerifier(url, (), CLAIMS).running() as verifier:
        for name, key, kid in (("RS256", RSA, "r"), ("ES256", EC, "e"), ("EdDSA", ED, "d")):
            assert await verifier.verify(signed(name, key, kid)) is not None
            assert await verifier.verify(signed(name, key)) is not None
        assert await verifier.verify(signed("RS256", OTHER_RSA, "r")) is None
        assert await verifier.verify(signed("RS256", RSA, "e")) is None
        assert await verifier.verify(signed("HS256", SECRET, "r")) is None
        assert source.asked == 1


async def test_a_new_key_is_fetched_when_it_is_named_but_not_for_every_name(
    publisher: tuple[Publisher, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, url = publisher
    source.keys = [jwk(RSA, "old")]
    async with jwt.JwksVerifier(url, (), CLAIMS).running() as verifier:
        assert await verifier.verify(signed("RS256", RSA, "old")) is not None
        source.keys = [jwk(OTHER_RSA, "new")]
        tokens = [signed("RS256", OTHER_RSA, f"made-up-{number}") for number in range(50)]
        assert not any(await asyncio.gather(*map(verifier.verify, tokens)))
        assert source.asked == 1
        monkeypatch.setattr(jwt, "SHORTEST_REFRESH", 0.0)
        new = [verifier.verify(signed("RS256", OTHER_RSA, "new")) for _ in range(20)]
        assert all(await asyncio.gather(*new))
        assert source.asked == 2
        assert await verifier.verify(signed("RS256", RSA, "old")) is None  # withdrawn


async def test_known_keys_stay_while_their_source_is_silent(
    publisher: tuple[Publisher, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt, "SHORTEST_REFRESH", 0.0)
    source, url = publisher
    source.status = 500
    verifier = jwt.JwksVerifier(url, (), CLAIMS)
    async with verifier.running():
        with pytest.raises(Unavailable):
            await verifier.verify(signed("RS256", RSA, "r"))
        source.status, source.keys = 200, [jwk(RSA, "r")]
        assert await verifier.verify(signed("RS256", RSA, "r")) is not None
        source.status = 500
        assert await verifier.verify(signed("RS256", RSA, "unknown")) is None
        assert await verifier.verify(signed("RS256", RSA, "r")) is not None


async def test_a_key_for_something_else_does_not_sign(publisher: tuple[Publisher, str]) -> None:
    source, url = publisher
    source.keys = [jwk(RSA, "a", use="enc"), jwk(RSA, "b", alg="RS512"), jwk(EC, "c", alg="RS256")]
    async with jwt.JwksVerifier(url, (), CLAIMS).running() as verifier:
        for kid in "abc":
            assert await verifier.verify(signed("RS256", RSA, kid)) is None
        assert await verifier.verify(signed("RS512", RSA, "b")) is not None


async def test_a_verifier_knows_what_it_verified_while_it_has_the_key(
    shared: jwt.KeyVerifier,
) -> None:
    principal = await shared.verify(signed())
    assert principal is not None
    assert SECRET not in principal.source
    assert shared.knows(principal)
    assert jwt.KeyVerifier(jwt.shared_key(SECRET, ("HS512",)), CLAIMS).knows(principal)
    another = jwt.KeyVerifier(jwt.shared_key(f"another-{SECRET}", ()), CLAIMS)
    elsewhere = jwt.KeyVerifier(jwt.shared_key(SECRET, ()), jwt.Claims(audience="others"))
    for verifier in (another, elsewhere, jwt.KeyVerifier(jwt.public_key(pem(RSA), ()), CLAIMS)):
        assert not verifier.knows(principal)
    assert not shared.knows(Principal("ann"))


async def test_what_a_withdrawn_key_verified_is_known_no_more(
    publisher: tuple[Publisher, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt, "SHORTEST_REFRESH", 0.0)
    source, url = publisher
    source.keys = [jwk(RSA, "old"), jwk(EC, "e")]
    async with jwt.JwksVerifier(url, (), CLAIMS).running() as verifier:
        old = await verifier.verify(signed("RS256", RSA, "old"))
        ec_one = await verifier.verify(signed("ES256", EC, "e"))
        assert old is not None
        assert ec_one is not None
        assert verifier.knows(old)
        source.keys = [jwk(EC, "e", use="sig")]
        await verifier.verify(signed("RS256", RSA, "unknown"))
        assert not verifier.knows(old)
        assert verifier.knows(ec_one)
    unfetched = jwt.JwksVerifier(url, (), CLAIMS)
    with pytest.raises(Unavailable):
        unfetched.knows(ec_one)
    assert not unfetched.knows(Principal("ann", source="token:1"))

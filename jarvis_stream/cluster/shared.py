"""What several servers share in Redis beside the sessions: tickets, logins, and how often who may.

When Redis does not answer, nobody gets in by a ticket or a login (503, not 401: the browser keeps
its cookie), and rates are each server's own.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import orjson

from jarvis_stream.cluster.base import StoreLost
from jarvis_stream.cluster.routing import Router
from jarvis_stream.cluster.wire import pack
from jarvis_stream.errors import Unavailable
from jarvis_stream.identity.base import Principal
from jarvis_stream.passes import digest
from jarvis_stream.quota import Rates
from jarvis_stream.recurring import RecurringLog

LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether a login that something hangs on was dropped elsewhere."""

# quota.Rate, with Redis's clock. Times in milliseconds; returns how long to wait.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local known = math.min(tonumber(redis.call('GET', KEYS[1]) or 0), now + burst) -- it may step back
local full_at = math.max(known, now) + every
if full_at - now > burst + 0.01 then
  return math.ceil(full_at - now - burst)
end
redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
return 0
"""
_TAKE_SHA: Final = hashlib.sha1(_TAKE.encode()).hexdigest()

# The words of a principal in the order of their issue, by Redis's clock. ARGV: the new word, its
# lifetime in milliseconds, and the limit of words. Returns the words past the limit.
_INDEX: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2] * 1000))
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
now = math.max(now, (newest or 0) + 1) -- also when the clock has stepped back
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local over = redis.call('ZRANGE', KEYS[1], 0, -ARGV[3] - 1)
if #over > 0 then
  redis.call('ZREM', KEYS[1], unpack(over))
end
return over
"""
_INDEX_SHA: Final = hashlib.sha1(_INDEX.encode()).hexdigest()


class RedisPasses:
    """See passes.Keeper: a word that one server issues is good at every other one, and once."""

    def __init__(self, router: Router, kind: str, *, seconds: float, most_each: int = 64) -> None:
        """`kind` tells these words from others in the same Redis."""
        self.seconds = seconds
        self._router = router
        self._kind = kind
        self._most_each = most_each
        self._attending: dict[str, set[Callable[[], object]]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Whoever attends to a word learns of its end inside."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def issue(self, principal: Principal) -> str:
        """See Keeper.issue."""
        word = secrets.token_urlsafe(32)
        key = self._key(word)
        seconds = self.seconds
        if principal.expires_at is not None:
            seconds = min(seconds, principal.expires_at - time.time())
        ttl = math.ceil(seconds * 1000)
        if ttl <= 0:
            return word  # it has expired already and is useless
        index = self._index(principal.name)
        value = {
            "name": principal.name,
            "expires_at": principal.expires_at,
            "login": principal.login,
            "source": principal.source,
        }
        kept = math.ceil(self.seconds * 1000)
        _, over = await self._ask(
            pack("SET", key, orjson.dumps(value), "PX", ttl),
            pack("EVALSHA", _INDEX_SHA, 1, index, key, kept, self._most_each),
        )
        if over:
            await self._ask(*(pack("DEL", old) for old in over))
        return word

    async def look(self, word: str) -> Principal | None:
        """See Keeper.look."""
        return await self.find(digest(word))

    async def find(self, login: str) -> Principal | None:
        """See Keeper.find. Redis alone decides when it expires."""
        key = f"jarvis:{self._kind}:{login}"
        value, ttl = await self._ask(pack("GET", key), pack("PTTL", key))
        if value is None or ttl < 0:
            return None
        return replace(_principal(value), expires_at=time.time() + ttl / 1000, login=login)

    async def redeem(self, word: str) -> Principal | None:
        """See Keeper.redeem."""
        key = self._key(word)
        (value,) = await self._ask(pack("GETDEL", key))
        if value is None:
            return None
        principal = _principal(value)
        with suppress(Unavailable):
            await self._ask(pack("ZREM", self._index(principal.name), key))
        return principal

    async def drop(self, word: str) -> None:
        """See Keeper.drop; other servers notice within a second."""
        key = self._key(word)
        (value,) = await self._ask(pack("GETDEL", key))
        if value is not None:
            await self._ask(pack("ZREM", self._index(orjson.loads(value)["name"]), key))
        self._gone(key)

    async def drop_all(self, name: str) -> int:
        """See Keeper.drop_all; other servers notice within a second."""
        index = self._index(name)
        (keys,) = await self._ask(pack("ZRANGE", index, 0, -1))
        if not keys:
            return 0
        dropped = await self._ask(*(pack("DEL", key) for key in keys), pack("ZREM", index, *keys))
        for key in keys:
            self._gone(key.decode())
        return sum(dropped[:-1])

    def attend(self, login: str, gone: Callable[[], object]) -> Callable[[], None]:
        """See Keeper.attend; for one that was dropped before, within a second."""
        key = f"jarvis:{self._kind}:{login}"
        self._attending.setdefault(key, set()).add(gone)

        def leave() -> None:
            attending = self._attending.get(key, set())
            attending.discard(gone)
            if not attending:
                self._attending.pop(key, None)

        return leave

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            keys = list(self._attending)
            if keys:
                with suppress(StoreLost):
                    found = await self._router.ask([pack("EXISTS", key) for key in keys])
                    for key, exists in zip(keys, found, strict=True):
                        if exists == 0:  # not an error: some may be told though others are not
                            self._gone(key)

    def _gone(self, key: str) -> None:
        for gone in self._attending.pop(key, ()):
            gone()

    def _key(self, word: str) -> str:
        return f"jarvis:{self._kind}:{digest(word)}"

    def _index(self, name: str) -> str:
        return f"jarvis:{self._kind}s:{name}"

    async def _ask(self, *commands: bytes) -> list[Any]:
        try:
            return await _answers(self._router, *commands)
        except StoreLost as error:
            raise Unavailable(
                "the sign-in cannot be verified now; retry later", retry_after=1
            ) from error


class RedisRates:
    """See quota.Limiter: a rate for each name, over all servers together."""

    def __init__(self, router: Router, kind: str, count: float, seconds: float) -> None:
        """At most `count` times in any `seconds`; here alone, when Redis does not answer."""
        self._router = router
        self._kind = kind
        self._here = Rates(count, seconds)
        self._every = seconds * 1000 / count
        self._burst = seconds * 1000
        self._failures = RecurringLog()

    async def take(self, name: str) -> float:
        """See Limiter.take."""
        if wait := await self._here.take(name):
            return wait  # too often here is too often everywhere
        key = f"jarvis:{self._kind}:{name}"
        command = pack("EVALSHA", _TAKE_SHA, 1, key, str(self._every), str(self._burst))
        try:
            (wait_ms,) = await _answers(self._router, command)
        except StoreLost as error:
            self._failures.log("WARNING", "rate_not_shared reason={}", error)
            return 0.0
        return float(wait_ms) / 1000


def shared_router(url: str, *, wait: float = 0.0) -> Router:
    """The way to Redis for both; see Router."""
    return Router(
        url, wait=wait, greeting=[pack("SCRIPT", "LOAD", text) for text in (_TAKE, _INDEX)]
    )


def _principal(value: bytes) -> Principal:
    """Decode the value that `issue` has stored."""
    kept = orjson.loads(value)
    # An older server did not keep the last two.
    return Principal(
        kept["name"], kept["expires_at"], kept.get("login", ""), kept.get("source", "")
    )


async def _answers(router: Router, *commands: bytes) -> list[Any]:
    replies = await router.ask(commands)
    for reply in replies:
        if isinstance(reply, StoreLost):
            raise reply
        if isinstance(reply, Exception):
            raise StoreLost(f"Redis at {router.place} refused: {reply}") from reply
    return replies

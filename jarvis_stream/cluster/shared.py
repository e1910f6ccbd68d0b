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
from typing import Any, Final

import orjson
from loguru import logger

from jarvis_stream.cluster.base import StoreLost
from jarvis_stream.cluster.routing import Router
from jarvis_stream.cluster.wire import pack
from jarvis_stream.errors import Unavailable
from jarvis_stream.identity.base import Principal
from jarvis_stream.passes import digest
from jarvis_stream.quota import Rates

LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether a login that something hangs on was dropped elsewhere."""

# quota.Rate, with Redis's clock. Times in milliseconds; returns how long to wait.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + every
if full_at - now > burst + 0.01 then
  return math.ceil(full_at - now - burst)
end
redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
return 0
"""
_TAKE_SHA: Final = hashlib.sha1(_TAKE.encode()).hexdigest()


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
        due = time.time() + self.seconds
        ttl = math.ceil(self.seconds * 1000)
        index = self._index(principal.name)
        value = {
            "name": principal.name,
            "expires_at": principal.expires_at,
            "login": principal.login,
            "due": due,
        }
        *_, over = await self._ask(
            pack("SET", key, orjson.dumps(value), "PX", ttl),
            pack("ZADD", index, str(due), key),
            pack("PEXPIRE", index, ttl),
            pack("ZRANGE", index, 0, -self._most_each - 1),
        )
        if over:
            await self._ask(*(pack("DEL", old) for old in over), pack("ZREM", index, *over))
        return word

    async def look(self, word: str) -> Principal | None:
        """See Keeper.look."""
        (value,) = await self._ask(pack("GET", self._key(word)))
        if value is None:
            return None
        kept = orjson.loads(value)
        ends = min(kept["due"], kept["expires_at"] or math.inf)
        return Principal(kept["name"], ends, digest(word)) if time.time() < ends else None

    async def redeem(self, word: str) -> Principal | None:
        """See Keeper.redeem."""
        key = self._key(word)
        (value,) = await self._ask(pack("GETDEL", key))
        if value is None:
            return None
        kept = orjson.loads(value)
        with suppress(Unavailable):
            await self._ask(pack("ZREM", self._index(kept["name"]), key))
        if time.time() >= min(kept["due"], kept["expires_at"] or math.inf):
            return None
        # An older server did not keep the login.
        return Principal(kept["name"], kept["expires_at"], kept.get("login", ""))

    async def drop(self, word: str) -> None:
        """See Keeper.drop; other servers notice within a second."""
        key = self._key(word)
        (value,) = await self._ask(pack("GETDEL", key))
        if value is not None:
            await self._ask(pack("ZREM", self._index(orjson.loads(value)["name"]), key))
        self._gone(key)

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
            raise Unavailable("who asks cannot be told now", retry_after=1) from error


class RedisRates:
    """See quota.Limiter: a rate for each name, over all servers together."""

    def __init__(self, router: Router, kind: str, count: float, seconds: float) -> None:
        """At most `count` times in any `seconds`; here alone, when Redis does not answer."""
        self._router = router
        self._kind = kind
        self._here = Rates(count, seconds)
        self._every = seconds * 1000 / count
        self._burst = seconds * 1000

    async def take(self, name: str) -> float:
        """See Limiter.take."""
        if wait := await self._here.take(name):
            return wait  # too often here is too often everywhere
        key = f"jarvis:{self._kind}:{name}"
        command = pack("EVALSHA", _TAKE_SHA, 1, key, str(self._every), str(self._burst))
        try:
            (wait_ms,) = await _answers(self._router, command)
        except StoreLost as error:
            logger.debug("rate_not_shared reason={}", error)
            return 0.0
        return float(wait_ms) / 1000


def shared_router(url: str, *, wait: float = 0.0) -> Router:
    """The way to Redis for both; see Router."""
    return Router(url, wait=wait, greeting=[pack("SCRIPT", "LOAD", _TAKE)])


async def _answers(router: Router, *commands: bytes) -> list[Any]:
    replies = await router.ask(commands)
    for reply in replies:
        if isinstance(reply, StoreLost):
            raise reply
        if isinstance(reply, Exception):
            raise StoreLost(f"Redis at {router.place} refused: {reply}") from reply
    return replies

"""The store in Redis (7 or newer, or Valkey): every step a script in lua/, which is atomic.

What is known of one session has one hash tag; common.lua tells what it is. Names are apart from
it, since who asks for a stream_id knows no session. All of it expires: logs and names when nobody
has renewed them for `keep`, the counters of a session after a day. The logs need no trimming, since
an answer is bounded. In a Redis Cluster a session is at one primary, and a name perhaps at another
(see routing.py); what is published is heard at every one.

Redis is trusted with who owns a session now, and with the last minutes of its logs; not with the
conversation, which the history keeps.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import orjson
from loguru import logger

from jarvis_stream.cluster.base import (
    READ_BYTES,
    Appended,
    Batch,
    Busy,
    Claim,
    Health,
    Living,
    Name,
    OnConflict,
    Outdated,
    Outrun,
    Renewed,
    Reserved,
    StoreLost,
    Tail,
    Vacated,
    Verdict,
    Word,
)
from jarvis_stream.cluster.probe import PROBE_TTL, Probe, plain_probes, refusal
from jarvis_stream.cluster.routing import Router
from jarvis_stream.cluster.wire import PULSE, TIMEOUT, Ear, pack, pack_arguments

SESSION_TTL = 24 * 3600.0
"""Seconds for which a session's epochs are remembered; older ones the clock outgrows."""
STOP_TTL = 60.0
"""Seconds a stop waits for its stream."""
MAX_COMMANDS = 256
"""Commands that are asked at a time."""
READ_ALL_BYTES = 4 * 1024 * 1024
"""About how much one `read` returns of all logs."""
PROBE_BEATS = 5
"""Heartbeats between two probes; while Redis refuses a command, every heartbeat probes."""
OLDEST = 7
"""The first version of Redis that will do."""


class Script:
    """A script, and how it is asked for."""

    def __init__(self, text: str) -> None:
        self.load = pack("SCRIPT", "LOAD", text)
        self.sha = hashlib.sha1(text.encode()).hexdigest()

    def __call__(self, keys: Sequence[bytes], *arguments: bytes | str | int) -> bytes:
        """The command that runs it."""
        return pack("EVALSHA", self.sha, len(keys), *keys, *arguments)


class Scripts:
    """Those in lua/, from their texts by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        def script(name: str) -> Script:
            return Script(texts["common"] + texts[name])

        self.reserve, self.stop, self.unstop, self.free = (
            Script(texts[f"name_{name}"]) for name in ("reserve", "stop", "unstop", "free")
        )
        self.begin = script("begin")
        self.ticket = script("ticket")
        self.claim = script("claim")
        self.living = script("living")
        self.renew = script("renew")
        self.release = script("release")
        self.remove = script("remove")
        self.removed = script("removed")
        self.append = script("append")
        self.close = script("close")
        self.bury = script("bury")
        self.read = script("read")
        self.attend = script("attend")
        self.load = [script.load for script in vars(self).values()]


def read_scripts() -> dict[str, str]:
    """The texts, by name."""
    folder = resources.files("jarvis_stream.cluster") / "lua"
    return {
        file.name.removesuffix(".lua"): file.read_text()
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }


_LUA = Scripts(read_scripts())


class RedisCluster:
    """One node's view of the store; see the port for every call."""

    def __init__(
        self,
        url: str,
        *,
        node: str | None = None,
        lease: float = 3.0,
        keep: float = 120.0,
        timeout: float = TIMEOUT,
        wait: float = 0.0,
        grace: float | None = None,
    ) -> None:
        """Times in seconds. `wait`: how long to try on entry; `timeout`: of every call. `grace`:
        how long no lease is over after a step of the store's clock, or a new connection; a lease.

        Raises StoreLost for a URL that cannot be used.
        """
        self.node = node or os.urandom(8).hex()
        self.lease = lease
        self.health = Health()
        self._lease = round(lease * 1000)
        self._grace = lease if grace is None else grace
        self._ttl = round(keep * 1000)
        self._router = router = Router(url, timeout=timeout, wait=wait, greeting=_LUA.load)
        self._ear = Ear(
            router.url, self._hear_words, self.health, timeout=timeout, where=router.near
        )
        self._hear: Callable[[Word], None] = lambda word: None

    @property
    def place(self) -> str:
        """Where the store is, without names and passwords."""
        return self._router.place

    @asynccontextmanager
    async def running(self, hear: Callable[[Word], None]) -> AsyncIterator[RedisCluster]:
        self._hear = hear
        async with self._router.running(), self._ear.running():
            self._check()
            await self._read_clocks()
            await self._probe()
            if self.health.refusal is not None:
                raise StoreLost(self.health.refusal)
            for channel in (f"jarvis:node:{self.node}", "jarvis:nodes"):
                await self._ear.listen(channel.encode())
            pulse = asyncio.create_task(self._beat())
            try:
                yield self
            finally:
                pulse.cancel()
                await asyncio.wait([pulse])

    def _check(self) -> None:
        """Raises StoreLost for a server that will not do."""
        info = self._router.info
        if int(info.get("redis_version", str(OLDEST)).partition(".")[0]) < OLDEST:
            raise StoreLost(
                f"Redis at {self.place} is too old: version {OLDEST}.0 or newer is required"
            )
        if info.get("role") == "slave" and not self._router.is_cluster:
            raise StoreLost(f"Redis at {self.place} is a read-only replica: name the primary")
        if info.get("maxmemory_policy", "noeviction") != "noeviction":
            logger.warning(
                "cluster_may_forget place={} maxmemory_policy={}: noeviction is right here",
                self.place,
                info["maxmemory_policy"],
            )

    async def _beat(self) -> None:
        """Ask something at least every second, of every primary, so that `health` is true."""
        beats = 0
        while True:
            await asyncio.sleep(PULSE)
            is_silent = time.monotonic() - self.health.last_answer > PULSE / 2
            if is_silent or self._router.is_cluster:
                await self._ask_each([pack("PING")])
            await self._read_clocks()
            beats += 1
            if beats % PROBE_BEATS == 0 or self.health.refusal is not None:
                await self._probe()

    async def _probe(self) -> None:
        """Probe every primary, and set Health.refusal."""
        tags = self._router.tags()
        refusals = [await self._probe_at(tag) for tag in tags]
        found = [refusal for refusal in refusals if refusal is not None]
        before, now = self.health.refusal, found[0] if len(found) == len(tags) > 0 else None
        self.health.refusal = now
        if before is None and now is not None:
            logger.error("store_refuses reason={}", now)
        elif before is not None and now is None:
            logger.info("store_accepts place={}", self.place)

    async def _probe_at(self, tag: str) -> str | None:
        """Return what one primary refuses; None also when it does not reply."""
        probes = [*self._script_probes(tag), *plain_probes(f"{{{tag}}}")]
        try:
            replies = await self._router.ask([probe.packed for probe in probes])
        except StoreLost:
            return None
        return refusal(probes, replies, self.place)

    def _script_probes(self, tag: str) -> list[Probe]:
        """Return the probes of the scripts, on the keys of a session that no client can name."""
        ttl, epoch = PROBE_TTL, round(time.time() * 1000)
        nonce = os.urandom(8).hex()  # the stream of the previous probe is closed
        name = Name(stream="", session="", nonce=nonce, node=self.node, trace_id="")
        who = orjson.dumps(name)
        session = b"jarvis:{%b}:probe:%b" % (tag.encode(), self.node.encode())
        stream = session + b":" + nonce.encode()
        keys = session, stream, stream + b":log", session + b":leases", session + b":members"
        held, stopped = session + b":name", session + b":stopped"
        claim = orjson.dumps({**_fields(name), "epoch": epoch})
        batch = nonce, epoch, 0, 1, "{}\n"
        end = nonce, epoch, 1, 2, "{}\n"
        scripts = {
            "name_reserve": _LUA.reserve([held], who, ttl),
            "begin": _LUA.begin(keys, nonce, ttl, ttl),
            "ticket": _LUA.ticket([session], epoch, ttl),
            "claim": _LUA.claim(keys, claim, "interrupt", ttl, ttl, ttl, 0),
            "append": _LUA.append(keys[:3], *batch, ttl),
            "renew": _LUA.renew(keys, nonce, epoch, ttl, ttl, 0),
            "attend": _LUA.attend(keys[:2], ttl),
            "read": _LUA.read(keys[:4], nonce, 0, READ_BYTES, 0),
            "living": _LUA.living([*keys[:1] * 3, *keys[3:]], 0),
            "close": _LUA.close(keys, *end, ttl, 1),
            "release": _LUA.release(keys, nonce, ttl),
            "name_free": _LUA.free([held], who),
            "name_stop": _LUA.stop([stopped], ttl),
            "name_unstop": _LUA.unstop([stopped]),
        }
        return [Probe(f"EVALSHA ({script})", packed) for script, packed in scripts.items()]

    async def _read_clocks(self) -> None:
        furthest = await self._router.read_clocks()
        self.health.furthest = max(self.health.furthest, furthest)

    def _horizon(self, session: str) -> int:
        """Return StoreClock.horizon of the server that has the session, in milliseconds."""
        return round(self._router.clock_of(_session_key(session)).horizon(self._grace) * 1000)

    # Names

    async def reserve(self, name: Name) -> Reserved | Name:
        begin = _LUA.begin(_keys(name), name.nonce, self._lease, self._ttl)
        if self._router.is_cluster:  # the name may be at another primary: its lease comes first
            await self._ask([begin])
            (taken,) = await self._ask([self._take(name)])
        else:
            _, taken = await self._ask([begin, self._take(name)])
        return _RESERVED[taken] if taken in _RESERVED else _name(orjson.loads(taken))

    async def find(self, stream: str) -> Name | None:
        (held,) = await self._ask([pack("GET", _name_key(stream))])
        return _name(orjson.loads(held[1:])) if held and len(held) > 1 else None

    async def free(self, names: Sequence[Name]) -> Sequence[StoreLost | None]:
        commands = []
        for name in names:
            commands.append(_LUA.release(_keys(name), name.nonce, self._ttl))
            commands.append(
                _LUA.free([_name_key(name.stream)], orjson.dumps(name), round(STOP_TTL * 1000))
            )
        replies = await self._ask_each(commands)
        return [
            next((one for one in both if isinstance(one, StoreLost)), None)
            for both in zip(replies[::2], replies[1::2], strict=True)
        ]

    async def stop(self, stream: str) -> Name | None:
        (held,) = await self._ask([_LUA.stop([_name_key(stream)], round(STOP_TTL * 1000))])
        return _name(orjson.loads(held)) if held else None

    async def unstop(self, stream: str) -> None:
        await self._ask([_LUA.unstop([_name_key(stream)])])

    def _take(self, name: Name) -> bytes:
        return _LUA.reserve([_name_key(name.stream)], orjson.dumps(name), self._ttl)

    # Ownership

    async def ticket(self, session: str, floor: int) -> int:
        command = _LUA.ticket([_session_key(session)], floor, round(SESSION_TTL * 1000))
        (ticket,) = await self._ask([command])
        return int(ticket)

    async def claim(
        self, claim: Claim, *, on_conflict: OnConflict = "interrupt"
    ) -> Sequence[Living]:
        command = _LUA.claim(
            _keys(claim.name),
            orjson.dumps({**_fields(claim.name), "epoch": claim.epoch}),
            on_conflict,
            self._lease,
            self._ttl,
            round(SESSION_TTL * 1000),
            self._horizon(claim.name.session),
        )
        ((outcome, *rest),) = await self._ask([command])
        if outcome == b"vacated":
            raise Vacated
        if outcome == b"outrun":
            raise Outrun(rest[0].decode())
        if outcome == b"removed":
            raise Outdated
        if outcome == b"busy":
            by, epoch, position = rest
            raise Busy(by.decode(), epoch, position)
        return _older(rest, claim)

    async def older(self, claim: Claim) -> Sequence[Living]:
        (rows,) = await self._ask([self._living(claim.name.session)])
        return _older(rows, claim)

    async def renew(self, claims: Sequence[Claim]) -> Sequence[Renewed | StoreLost]:
        commands = []
        for claim in claims:
            name = claim.name
            commands.append(
                _LUA.renew(
                    _keys(name),
                    name.nonce,
                    claim.epoch,
                    self._lease,
                    self._ttl,
                    self._horizon(name.session),
                )
            )
            commands.append(self._take(name))
        replies = await self._ask_each(commands)
        return list(map(_renewed, replies[::2], replies[1::2]))

    async def release(self, claims: Sequence[Claim]) -> Sequence[StoreLost | None]:
        replies = await self._ask_each(
            [_LUA.release(_keys(claim.name), claim.name.nonce, self._ttl) for claim in claims]
        )
        return [reply if isinstance(reply, StoreLost) else None for reply in replies]

    async def living(self, sessions: Sequence[str]) -> Sequence[Sequence[Living] | StoreLost]:
        replies = await self._ask_each([self._living(session) for session in sessions])
        return [
            rows if isinstance(rows, StoreLost) else _living_of(map(orjson.loads, rows))
            for rows in replies
        ]

    async def remove(self, session: str, first: int, before: int, by: str = "") -> None:
        command = _LUA.remove(
            [_session_key(session)], session, first, before, by, round(SESSION_TTL * 1000)
        )
        await self._ask([command])

    async def is_removed(self, session: str, epoch: int) -> bool:
        (removed,) = await self._ask([_LUA.removed([_session_key(session)], epoch)])
        return bool(removed)

    # Logs

    async def append(self, batches: Sequence[Batch]) -> Sequence[Appended | StoreLost]:
        ttl = pack_arguments(self._ttl)
        replies = await self._ask_each([_append(batch) + ttl for batch in batches])
        return [_appended(reply) for reply in replies]

    async def close(self, batches: Sequence[Batch]) -> Sequence[Appended | StoreLost]:
        replies = await self._ask_each([self._ending(_LUA.close, batch) for batch in batches])
        return [_appended(reply) for reply in replies]

    async def bury(self, batches: Sequence[Batch]) -> Sequence[bool | StoreLost]:
        replies = await self._ask_each(
            [
                self._ending(_LUA.bury, batch, self._horizon(batch.claim.name.session))
                for batch in batches
            ]
        )
        return [reply if isinstance(reply, StoreLost) else bool(reply) for reply in replies]

    def _ending(self, script: Script, batch: Batch, *more: int) -> bytes:
        return script(
            _keys(batch.claim.name),
            batch.claim.name.nonce,
            batch.claim.epoch,
            batch.first,
            batch.last,
            batch.frames,
            self._ttl,
            int(batch.is_end),
            *more,
        )

    async def read(
        self, cursors: Sequence[tuple[Name, int]], *, max_bytes: int = READ_BYTES
    ) -> Sequence[Tail | StoreLost | None]:
        room = pack_arguments(min(max_bytes, READ_ALL_BYTES // max(1, len(cursors))))
        replies = await self._ask_each(
            [
                _read_head(name.session, name.nonce)
                + pack_arguments(cursor)
                + room
                + pack_arguments(self._horizon(name.session))
                for name, cursor in cursors
            ]
        )
        return [
            reply if isinstance(reply, StoreLost) else _tail(reply, cursor)
            for reply, (_, cursor) in zip(replies, cursors, strict=True)
        ]

    async def attend(self, names: Sequence[Name]) -> None:
        await self._ask([_LUA.attend(_keys(name)[:2], self._lease) for name in names])

    def _living(self, session: str) -> bytes:
        key = _session_key(session)
        # The script uses no stream.
        keys = [key, key, key, key + b":leases", key + b":members"]
        return _LUA.living(keys, self._horizon(session))

    # Words

    async def watch(self, sessions: Sequence[str]) -> None:
        await self._ear.listen(*(_session_key(session) + b":words" for session in sessions))

    async def unwatch(self, sessions: Sequence[str]) -> None:
        for session in sessions:
            self._ear.ignore(_session_key(session) + b":words")

    def _hear_words(self, channel: bytes, said: bytes) -> None:
        try:
            word = Word(**orjson.loads(said))
        except (ValueError, TypeError):
            logger.warning("cluster_word_unknown channel={}", channel.decode(errors="replace"))
        else:
            self._hear(word)

    async def _ask(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies, none of them an error."""
        replies = await self._ask_each(commands)
        for reply in replies:
            if isinstance(reply, StoreLost):
                raise reply
        return replies

    async def _ask_each(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies, or a StoreLost in the place of each; without commands nothing is asked.

        Many commands go in slices, one after the other: each has the whole timeout, and what others
        ask has a place between them. When nothing of a slice is answered, the rest is not asked.
        """
        replies: list[Any] = []
        for at in range(0, len(commands), MAX_COMMANDS):
            found = await self._ask_slice(commands[at : at + MAX_COMMANDS])
            replies += found
            if all(isinstance(reply, StoreLost) for reply in found):
                replies += found[-1:] * (len(commands) - len(replies))
                break
        return replies

    async def _ask_slice(self, commands: Sequence[bytes]) -> list[Any]:
        asked_at = time.monotonic()
        try:
            replies = await self._router.ask(commands)
        except StoreLost as lost:
            replies = [lost] * len(commands)
        if any(isinstance(reply, Exception) for reply in replies):
            replies = [self._lost(reply) for reply in replies]
            self.health.failures += 1
            self.health.reachable = False
            if all(isinstance(reply, StoreLost) for reply in replies):
                return replies
        else:
            self.health.reachable = self._router.is_whole
        self.health.since = self._router.since
        self.health.last_answer = time.monotonic()
        self.health.trips.add(self.health.last_answer - asked_at)
        return replies

    def _lost(self, reply: Any) -> Any:
        """What is refused is lost, too."""
        if not isinstance(reply, Exception) or isinstance(reply, StoreLost):
            return reply
        if self.health.reachable:
            logger.error("cluster_refused place={} reason={}", self.place, reply)
        lost = StoreLost(f"Redis at {self.place} refused: {reply}")
        lost.__cause__ = reply
        return lost


_RESERVED = {b"=": Reserved.FREE, b"!": Reserved.STOPPED}
_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}


def _appended(reply: Any) -> Appended | StoreLost:
    return reply if isinstance(reply, StoreLost) else Appended(_VERDICTS[reply[0]], reply[1])


def _renewed(reply: Any, taken: Any) -> Renewed | StoreLost:
    """From what is replied about the session; the name may be elsewhere, and lost alone."""
    if isinstance(reply, StoreLost):
        return reply
    verdict, attended, by, rollback, removed = reply
    return Renewed(
        verdict=_VERDICTS[verdict],
        cancelled=taken == b"!",
        attended=bool(attended),
        by=by.decode(),
        rollback=bool(rollback),
        removed=bool(removed),
    )


def _session_key(session: str) -> bytes:
    # A brace of somebody's name must not end the hash tag.
    return b"jarvis:{%b}" % quote(session, safe="/:|@+").encode()


def _name_key(stream: str) -> bytes:
    return b"jarvis:name:" + stream.encode()


def _keys(name: Name) -> Sequence[bytes]:
    """As common.lua wants them."""
    return _keys_of(name.session, name.nonce)


@lru_cache(maxsize=16_384)
def _keys_of(session: str, nonce: str) -> Sequence[bytes]:
    key = _session_key(session)
    stream = b"%b:%b" % (key, nonce.encode())
    return key, stream, stream + b":log", key + b":leases", key + b":members"


# What every batch, and every look at a log, has in common with those before it is packed once.


@lru_cache(maxsize=16_384)
def _append_head(session: str, nonce: str, epoch: int) -> bytes:
    keys = _keys_of(session, nonce)[:3]
    return _head(4, "EVALSHA", _LUA.append.sha, len(keys), *keys, nonce, epoch)


@lru_cache(maxsize=16_384)
def _read_head(session: str, nonce: str) -> bytes:
    keys = _keys_of(session, nonce)[:4]
    return _head(3, "EVALSHA", _LUA.read.sha, len(keys), *keys, nonce)


def _head(more: int, *arguments: bytes | str | int) -> bytes:
    """A command without its last arguments."""
    return b"*%d\r\n%b" % (len(arguments) + more, pack_arguments(*arguments))


def _append(batch: Batch) -> bytes:
    """The command, but for its last argument."""
    claim, first, last, frames, _ = batch
    seqs = b"%d" % first, b"%d" % last
    return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        _append_head(claim.name.session, claim.name.nonce, claim.epoch),
        len(seqs[0]),
        seqs[0],
        len(seqs[1]),
        seqs[1],
        len(frames),
        frames,
    )


def _fields(name: Name) -> dict[str, str]:
    fields: dict[str, str] = orjson.loads(orjson.dumps(name))
    return fields


def _name(fields: dict[str, Any]) -> Name:
    return Name(**{field: fields[field] for field in Name.__slots__})


def _living_of(members: Iterable[dict[str, Any]]) -> list[Living]:
    """From what the scripts' JSON holds: oldest first, the queue last."""
    members = sorted(members, key=lambda one: (_waits(one), one["epoch"]))
    claimed = sum(not _waits(member) for member in members)
    return [
        Living(
            name=_name(member),
            epoch=member["epoch"],
            expired=member["expired"],
            position=max(0, place - claimed),
            by=member.get("by", ""),
            closed="closed" in member,
            removed="removed" in member,
        )
        for place, member in enumerate(members, start=1)
    ]


def _waits(member: dict[str, Any]) -> bool:
    return "queued" in member and "by" not in member and "closed" not in member


def _older(rows: Iterable[bytes], claim: Claim) -> list[Living]:
    members = map(orjson.loads, rows)
    return _living_of(one for one in members if one["epoch"] < claim.epoch and "queued" not in one)


def _tail(reply: list[Any] | None, cursor: int) -> Tail | None:
    """From what read.lua returns."""
    if reply is None:
        return None
    epoch, last, closed, expired, vacated, removed, *entries = reply
    if cursor < last and not entries:
        return None  # the log itself has gone
    end, frames = min(cursor, last), []
    for at in range(0, len(entries), 2):
        id, joined = entries[at : at + 2]
        before, end = end, int(id.partition(b"-")[2])
        for _ in range(joined.count(b"\n") - (end - before)):  # what is before the cursor
            joined = joined[joined.index(b"\n") + 1 :]
        frames.append(joined)
    return Tail(
        epoch=int(epoch),
        last=end,
        frames=b"".join(frames),
        closed=bool(closed) and end == last,
        expired=bool(expired),
        vacated=bool(vacated),
        removed=bool(removed),
    )

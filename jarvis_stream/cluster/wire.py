"""Connections to Redis that mend themselves.

redis-py connects, signs in and parses (with hiredis); its own defaults would try for minutes where
a stream has seconds, and its pipelines cost twenty microseconds a command. Here many callers share
one connection, what is asked in one turn of the loop leaves in one write, and who gets no answer in
time is told so. A Line asks, an Ear listens.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from loguru import logger
from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from jarvis_stream.clock import StoreClock
from jarvis_stream.cluster.base import Health, StoreLost
from jarvis_stream.recurring import RecurringLog

TIMEOUT = 0.3
"""Seconds an answer may take."""
CONNECT_TIMEOUT = 1.0
"""Seconds it may take to connect, TLS and signing in included."""
PAUSES = (0.05, 1.0)
"""Seconds between two attempts to connect: the first, which doubles, and the longest."""
Address = tuple[str, int]
"""Host and port."""
_DOUBT = re.compile(r"certificate verify failed: (.*?)\.? \(_ssl")
"""As OpenSSL, Python and redis-py say it together."""
SILENCE = 1.0
"""Seconds without any reply, while one is due, after which a connection is thought broken. A reply
that is later than its caller waits for is dropped, and the connection is kept."""
CHANNELS = 256
"""Channels that are subscribed to in one command."""
STALL = 0.05
"""Seconds by which a timer is late when the process was held up, and not the reply."""
PULSE = 1.0
"""Seconds after which a silent connection is asked whether it lives."""


def connect(url: str, *, timeout: float = TIMEOUT) -> Redis:
    """A client that fails fast, for whoever wants redis-py's own calls; raises StoreLost.

    It connects when it is used first. Redis's errors come as they are.
    """
    try:
        client = Redis.from_url(
            url,
            protocol=2,
            client_name="jarvis-stream",
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout,
            socket_connect_timeout=CONNECT_TIMEOUT,
        )
        pool: Any = client.connection_pool
        pool.make_connection()  # which finds fault with what the URL asks for
        return client
    except (ValueError, TypeError, RedisError) as error:
        # Not the error's text: it may quote the URL, with the password.
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        why = f" (nothing is known of {unknown[1]})" if unknown else ""
        raise StoreLost(
            f"the Redis URL cannot be used{why}: it looks like redis://USER:PASSWORD@HOST:6379/0,"
            " rediss://HOST:6379?ssl_ca_certs=FILE for TLS, or unix:///PATH"
        ) from error


def pack(*arguments: bytes | str | int) -> bytes:
    """One command as it goes over the wire."""
    return b"*%d\r\n%b" % (len(arguments), pack_arguments(*arguments))


def pack_arguments(*arguments: bytes | str | int) -> bytes:
    """A part of a command."""
    parts = []
    for argument in arguments:
        raw = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


class Wire(ABC):
    """A connection that is made anew whenever it breaks, as long as it is `running`."""

    def __init__(self, url: str) -> None:
        """Raises StoreLost for a URL that cannot be used."""
        self._pool: Any = connect(url).connection_pool
        self._options: dict[str, Any] = self._pool.connection_kwargs
        self._options["socket_timeout"] = None  # whatever the URL says: who asks has a timeout
        self.connected_at = math.inf
        """When the newest connection was made, on the monotonic clock."""

    @property
    def address(self) -> Address:
        """Its host and port; what they would be, of a Unix socket."""
        return self._options.get("host", "localhost"), int(self._options.get("port", 6379))

    @property
    def place(self) -> str:
        """Where the store is, without names and passwords."""
        return self._options.get("path") or "{}:{}".format(*self.address)

    def go_to(self, address: Address) -> None:
        """Connect there from the next time on, with the same names, passwords and TLS."""
        self._options["host"], self._options["port"] = address

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected on entry, or StoreLost."""
        connection = await self._connect()
        task = asyncio.create_task(self.run(connection))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await _hang_up(connection)  # a task that never began has not

    @abstractmethod
    async def _greet(self, connection: Connection) -> None:
        """What comes first on every connection; raises StoreLost when this is no place to be."""

    @abstractmethod
    async def _serve(self, connection: Connection) -> None:
        """Use the connection until it breaks, which raises RedisError, OSError or TimeoutError."""

    @abstractmethod
    def _lost(self) -> None:
        """The connection has broken. Called in the same step."""

    async def run(self, connection: Connection | None = None) -> None:
        """Connect, and again whenever it breaks, until cancelled."""
        if connection is None:
            connection = await self._reconnect(chain((0.0,), pauses()))
        failures = RecurringLog()
        while True:
            is_broken = False
            try:
                await self._serve(connection)
            except* (RedisError, OSError, TimeoutError) as group:
                is_broken = True
                failures.log("WARNING", "cluster_disconnected reason={}", self._why(group))
            except* Exception as group:
                is_broken = True
                failures.log("ERROR", "cluster_connection_failed", error=group)
            finally:
                self._lost()
                await _hang_up(connection, is_broken=is_broken)
            connection = await self._reconnect(pauses())

    async def _reconnect(self, rests: Iterable[float]) -> Connection:
        failures = RecurringLog()
        for pause in rests:
            await asyncio.sleep(pause)
            try:
                connection = await self._connect()
            except StoreLost as error:
                failures.log("WARNING", "cluster_unreachable reason={}", error, key=str(error))
            else:
                logger.info("cluster_connected place={}", self.place)
                return connection
        raise AssertionError("it tries for ever")

    async def _connect(self) -> Connection:
        connection: Connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await _prepare_tls(connection)
                await connection.connect()  # type: ignore[no-untyped-call]
                await self._greet(connection)
        except BaseException as error:
            self._lost()
            await _hang_up(connection, is_broken=True)
            # uvloop raises RuntimeError for a transport that was closed before a write.
            if isinstance(error, RedisError | OSError | TimeoutError | RuntimeError):
                raise StoreLost(self._why(error)) from error
            raise
        self.connected_at = time.monotonic()
        return connection

    def _why(self, error: BaseException) -> str:
        """What is wrong, for operators: no names, no passwords."""
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error.__cause__, RedisError):  # redis-py wraps what it says itself
            error = error.__cause__
        text = str(error)
        if isinstance(error, NoPermissionError):
            return (
                f"Redis at {self.place} denies this user a required command ({text}): give it"
                " the permissions that docs/operating.md names"
            )
        if isinstance(error, AuthenticationError):
            return f"Redis at {self.place} refuses the name or the password, or what they may do"
        if isinstance(error, ReadOnlyError):
            return f"Redis at {self.place} is a read-only replica: name the primary"
        if doubt := _DOUBT.search(text):
            return (
                f"the certificate of Redis at {self.place} is not trusted: {doubt[1]}"
                " (an authority of your own is named as ?ssl_ca_certs=FILE in the URL)"
            )
        if isinstance(error, TimeoutError) or "imeout" in text:
            return f"Redis at {self.place} does not answer: is it running, and may this host ask it"
        if text.startswith("SELECT is not allowed"):
            return f"Redis at {self.place} is a Redis Cluster: it has no database but 0"
        if isinstance(error, ResponseError):
            return f"Redis at {self.place} refused: {text}"
        return f"there is no Redis at {self.place} ({text or type(error).__name__})"


async def _prepare_tls(connection: Connection) -> None:
    """Read whom to trust where that holds up nobody: all of a system's authorities take 50 ms."""
    tls = getattr(connection, "ssl_context", None)
    if tls is not None:
        try:
            await asyncio.to_thread(tls.get)
        except OSError as error:
            raise StoreLost(f"a file that the Redis URL names for TLS: {error}") from error


async def _hang_up(connection: Connection, *, is_broken: bool = False) -> None:
    """Close it. Over TLS both sides say goodbye; nobody waits for that where it `is_broken`.

    Only here: redis-py's own `disconnect_on_error` waits for nothing, and keeps no hold of it.
    """
    with suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=is_broken)


async def send(connection: Connection, commands: Iterable[bytes]) -> None:
    """Send commands; raises RedisError, OSError or TimeoutError when the connection is broken."""
    try:
        await connection.send_packed_command(commands, check_health=False)
    except RuntimeError as error:  # uvloop raises it for a transport that was closed before
        raise ConnectionResetError("the connection is closed") from error


async def wait_for_replies(answers: Sequence[asyncio.Future[Any]], seconds: float) -> None:
    """Wait until all have come, or the time is over: time in which this process could read them."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    _, pending = await asyncio.wait(answers, timeout=seconds)
    if pending and loop.time() > due + STALL:  # the loop stood still; they may be here, unread
        await asyncio.wait(pending, timeout=STALL)


@dataclass(slots=True, eq=False)
class Question:
    """Some commands, and who waits for what is replied to them."""

    commands: bytes
    count: int
    due: float
    answer: asyncio.Future[list[Any] | None]
    """None: the connection broke."""
    replies: list[Any] = field(default_factory=list)
    failed: bool = False
    """Whether one of them is an error."""


class Line(Wire):
    """Asks, for many callers at once; what is asked first is carried out first."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = TIMEOUT,
        greeting: Sequence[bytes],
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        """`greeting`: commands that every connection begins with, none of which may fail.

        `on_lost` is called when the connection breaks, and when one could not be made.
        """
        super().__init__(url)
        self.timeout = timeout
        self.greeting = greeting
        self.up = asyncio.Event()
        """Set while it is connected."""
        self.tried = asyncio.Event()
        """Set when it was connected once, or could not be."""
        self.answers = True
        """Whether what was asked last was answered."""
        self._down_since = time.monotonic()
        self._on_lost = on_lost
        self._unsent: deque[Question] = deque()
        self._sent: deque[Question] = deque()
        self._asked = asyncio.Event()
        self._patience: asyncio.Timeout | None = None
        self.clock = StoreClock()
        """Of the server that answers now."""

    @property
    def is_down(self) -> bool:
        """Whether it has had no connection for so long that it is no use to wait for one."""
        return not self.up.is_set() and time.monotonic() - self._down_since > self.timeout

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not (self._unsent or self._sent)

    async def ask(self, commands: Sequence[bytes], *, mend: bool = True) -> list[Any]:
        """The reply to each command, or the ResponseError that it was; raises StoreLost.

        Greets again, and asks again, when scripts have been flushed, if it is to `mend`. Cancelling
        it takes back nothing that has been sent.
        """
        question = self.put(commands)
        try:
            await wait_for_replies([question.answer], self.timeout)
        finally:
            self.withdraw(question)
        replies = self.take(question)
        if question.failed and mend:
            missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:
                again = [*self.greeting, *(commands[at] for at in missing)]
                found = await self.ask(again, mend=False)
                for at, reply in zip(missing, found[len(self.greeting) :], strict=True):
                    replies[at] = reply
        return replies

    async def read_clock(self) -> None:
        """Compare the server's clock with ours; raise StoreLost."""
        sent = time.monotonic()
        (reply,) = await self.ask([pack("TIME")])
        if not isinstance(reply, Exception):
            seconds, micros = map(int, reply)
            self.clock.observe(seconds + micros / 1e6, sent, time.monotonic(), self.place)

    # The same in three steps, for who asks several

    def put(self, commands: Sequence[bytes]) -> Question:
        """Ask, in this very step; then wait for its `answer`."""
        loop = asyncio.get_running_loop()
        question = Question(
            b"".join(commands), len(commands), loop.time() + self.timeout, loop.create_future()
        )
        self._unsent.append(question)
        self._asked.set()
        return question

    def withdraw(self, question: Question) -> None:
        """Nobody waits for it any more: to be called in any case."""
        question.answer.cancel()
        if question in self._unsent:
            self._unsent.remove(question)

    def take(self, question: Question) -> list[Any]:
        """What was replied until it was withdrawn; raises StoreLost."""
        if question.answer.cancelled():
            self.answers = asyncio.get_running_loop().time() < question.due
            raise StoreLost(f"Redis at {self.place} did not answer in time")
        replies = question.answer.result()
        if replies is None:
            self.answers = False
            raise StoreLost(f"the connection to Redis at {self.place} broke")
        self.answers = True
        return replies

    async def _greet(self, connection: Connection) -> None:
        await send(connection, self.greeting)
        for _ in self.greeting:
            await connection.read_response()
        self.clock.forget()
        self.up.set()
        self.tried.set()

    async def _serve(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(None) as self._patience, asyncio.TaskGroup() as group:
                group.create_task(self._write(connection))
                group.create_task(self._read(connection))
        finally:
            self._patience = None

    async def _write(self, connection: Connection) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            questions = list(self._unsent)
            self._unsent.clear()
            if not self._sent:
                self._be_patient(bool(questions))
            self._sent.extend(questions)
            await send(connection, [question.commands for question in questions])

    async def _read(self, connection: Connection) -> None:
        while True:
            try:
                reply = await connection.read_response(
                    disable_decoding=True, disconnect_on_error=False
                )
            except ReadOnlyError:
                raise  # demoted: another one is the primary now
            except ResponseError as error:
                reply = error
                self._sent[0].failed = True
            question = self._sent[0]
            question.replies.append(reply)
            if len(question.replies) == question.count:
                self._sent.popleft()
                self._be_patient(bool(self._sent))
                if not question.answer.done():
                    question.answer.set_result(question.replies)

    def _be_patient(self, is_due: bool) -> None:
        """With the connection, from this moment of progress on, while a reply `is_due`."""
        if self._patience is not None and not self._patience.expired():
            now = asyncio.get_running_loop().time()
            self._patience.reschedule(now + max(SILENCE, self.timeout) if is_due else None)

    def _lost(self) -> None:
        self.tried.set()
        if self.up.is_set():
            self.up.clear()
            self._down_since = time.monotonic()
        while self._sent:
            question = self._sent.popleft()
            if not question.answer.done():
                question.answer.set_result(None)
        self._on_lost()


class Ear(Wire):
    """Hears what is said in channels. Whatever is said while it is not connected is lost."""

    def __init__(
        self,
        url: str,
        hear: Callable[[bytes, bytes], None],
        health: Health,
        *,
        timeout: float = TIMEOUT,
        where: Callable[[Address | None], Address | None] = lambda now: None,
    ) -> None:
        """`hear` is given the channel and what was said; it must not raise.

        `where` tells where to listen, if not where the URL says: given where it does now, or None
        for a new connection.
        """
        super().__init__(url)
        self._where = where
        self._timeout = timeout
        self._hear = hear
        self._health = health
        self._greeted = False
        """Whether the channels of now have been asked for."""
        self._channels: dict[bytes, asyncio.Event] = {}
        """Those it wants, and which of them it has."""
        self._unsent: list[bytes] = []
        self._asked = asyncio.Event()

    async def listen(self, *channels: bytes) -> None:
        """Hear channels from now on; returns when that is so, or the time is over."""
        if new := [channel for channel in channels if channel not in self._channels]:
            self._channels.update((channel, asyncio.Event()) for channel in new)
            self._send(pack("SUBSCRIBE", *new))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                for channel in channels:
                    if has := self._channels.get(channel):
                        await has.wait()

    def ignore(self, channel: bytes) -> None:
        """Hear it no more. Idempotent."""
        if self._channels.pop(channel, None) is not None:
            self._send(pack("UNSUBSCRIBE", channel))

    async def _connect(self) -> Connection:
        if address := self._where(None):
            self.go_to(address)
        return await super()._connect()

    def _send(self, command: bytes) -> None:
        if self._greeted:  # else the next greeting says it all
            self._unsent.append(command)
            self._asked.set()

    async def _greet(self, connection: Connection) -> None:
        # One that nobody speaks in, so that there is always one.
        channels = [b"jarvis:nobody", *self._channels]
        self._greeted = True
        # Only some of very many, so that the connection is there in time; the others come next.
        channels, rest = channels[:CHANNELS], channels[CHANNELS:]
        for at in range(0, len(rest), CHANNELS):
            self._send(pack("SUBSCRIBE", *rest[at : at + CHANNELS]))
        await send(connection, [pack("SUBSCRIBE", *channels)])
        for _ in channels:
            self._take(await connection.read_response())
        self._health.listening = True
        self._health.listening_since = time.monotonic()

    async def _serve(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(connection))
            group.create_task(self._read(connection))

    async def _write(self, connection: Connection) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PULSE):
                    await self._asked.wait()
            self._asked.clear()
            if self._where(self.address) not in (None, self.address):
                raise ConnectionError("nothing is heard there any more")
            commands, self._unsent = [*self._unsent, pack("PING")], []
            await send(connection, commands)

    async def _read(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as patience:
            while True:
                patience.reschedule(loop.time() + PULSE + CONNECT_TIMEOUT)
                self._take(await connection.read_response(disconnect_on_error=False))

    def _take(self, message: Sequence[Any]) -> None:
        kind, channel, *rest = message
        if kind == b"message":
            self._hear(channel, rest[0])
        elif kind == b"subscribe" and channel in self._channels:
            self._channels[channel].set()

    def _lost(self) -> None:
        self._greeted = self._health.listening = False
        self._unsent.clear()
        for has in self._channels.values():
            has.clear()


def pauses() -> Iterator[float]:
    """Ever longer, and never in step with the other nodes."""
    pause, longest = PAUSES
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, longest)

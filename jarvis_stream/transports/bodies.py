"""Large response bodies: encoded in slices, written as fast as they are read, bounded in memory.

A body never exists as a whole. Its pieces are made while it is written, the process's own send
buffer holds CHUNK_BYTES or so of it, and a client that does not take a chunk within the stall
timeout is disconnected. What the pieces are made of (a page of turns) is reserved in a ReadBudget
before it is read, so clients that read nothing cost no more than that together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import orjson
from aiohttp import web
from loguru import logger

from jarvis_stream.errors import Overloaded, Refused
from jarvis_stream.transports.context import COUNTS, LIMITS
from jarvis_stream.transports.pump import bound

CHUNK_BYTES: Final = 32 * 1024
"""Bytes that are written at once."""

SLICE_SECONDS: Final = 0.001
"""How long bodies are encoded, one of them, in one iteration of the event loop."""

TEXT_SLICE: Final = 16 * 1024
"""Characters of a text that are encoded at once."""

READ_COST: Final = 8 * 1024 * 1024
"""Bytes that are reserved for a page while it is read: the largest answer, as the driver of the
database holds it and as the page does."""

BUDGET_TIMEOUT: Final = 5.0
"""Seconds that a request waits for memory before it is refused."""


class Reservation:
    """Some of a ReadBudget, in bytes."""

    __slots__ = ("_budget", "_size", "_who")

    def __init__(self, budget: ReadBudget, who: str, size: int) -> None:
        self._budget = budget
        self._who = who
        self._size = size

    def shrink(self, size: int) -> None:
        """Return what turned out not to be needed."""
        if size < self._size:
            self._budget.release(self._who, self._size - size)
            self._size = size


class ReadBudget:
    """Bounds the bytes that responses hold for their readers, in all and per principal.

    Requests wait first come, first served, except that one whose principal has its share does not
    hold up the others.
    """

    def __init__(
        self,
        *,
        total: int = 3 * READ_COST,
        share: int = 3 * READ_COST // 2,
        wait_timeout: float = BUDGET_TIMEOUT,
    ) -> None:
        self._total = total
        self._share = share
        self._wait_timeout = wait_timeout
        self._held: dict[str, int] = {}
        self._waiting: deque[tuple[str, int, asyncio.Future[None]]] = deque()
        self.size = 0
        """The bytes that are reserved now."""

    @asynccontextmanager
    async def reserve(self, who: str, size: int = READ_COST) -> AsyncIterator[Reservation]:
        """Reserve `size` bytes for a principal while inside.

        Raises Overloaded when they are not free within the timeout.
        """
        if self._waiting or not self._fits(who, size):
            await self._wait(who, size)
        else:
            self._take(who, size)
        reservation = Reservation(self, who, size)
        try:
            yield reservation
        finally:
            reservation.shrink(0)

    def release(self, who: str, size: int) -> None:
        """Give back `size` bytes, and let those go on that wait for them."""
        self.size -= size
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]
        self._admit()

    async def _wait(self, who: str, size: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (who, size, future)
        self._waiting.append(entry)
        self._admit()  # those before it may be waiting for their own share only
        try:
            await asyncio.wait([future], timeout=self._wait_timeout)
        except BaseException:
            if future.done():
                self.release(who, size)
            raise
        finally:
            if not future.done():
                self._waiting.remove(entry)
        if not future.done():
            raise Overloaded(
                f"responses that are still being read hold the {self._share} bytes that one"
                f" client may use, or the {self._total} bytes of all: try again later",
                retry_after=5,
            )

    def _admit(self) -> None:
        left: deque[tuple[str, int, asyncio.Future[None]]] = deque()
        for who, size, future in self._waiting:
            if self._fits(who, size):
                self._take(who, size)
                future.set_result(None)
            else:
                left.append((who, size, future))
        self._waiting = left

    def _fits(self, who: str, size: int) -> bool:
        # A page may be larger than a share: it is admitted alone.
        held = self._held.get(who, 0)
        has_share = not held or held + size <= self._share
        return has_share and (not self.size or self.size + size <= self._total)

    def _take(self, who: str, size: int) -> None:
        self._held[who] = self._held.get(who, 0) + size
        self.size += size


READS: Final = web.AppKey("reads", ReadBudget)


class SliceScheduler:
    """Lets one body at a time hold the event loop, once per iteration of the loop.

    However many bodies are encoded, everything else waits for one slice only.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False

    async def slice(self) -> None:
        """Wait until the caller may run for SLICE_SECONDS."""
        loop = asyncio.get_running_loop()
        if not self._is_taken:
            self._is_taken = True
            loop.call_soon(self._next, loop)
            return
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # else it was cancelled
                future.set_result(None)
                loop.call_soon(self._next, loop)
                return
        self._is_taken = False


SLICES: Final = web.AppKey("slices", SliceScheduler)


async def send_body(
    request: web.Request, headers: Mapping[str, str], pieces: AsyncGenerator[bytes]
) -> web.StreamResponse:
    """Answer with `pieces` joined, and close them in every case.

    The first chunk is made before the headers leave, so what it raises is a response of its own.
    What a later one raises cuts the connection: the client must not take the rest for the whole.
    """
    response = web.StreamResponse(headers={"Cache-Control": "no-store", **headers})
    async with aclosing(pieces), aclosing(_chunked(pieces, request.app[SLICES])) as chunks:
        first = await anext(chunks, b"")
        _bound(request)
        try:
            await response.prepare(request)
            if request.method != "HEAD":
                await _write_all(request, response, first, chunks)
            await response.write_eof()
        except TimeoutError:
            logger.info("reader_let_go reason=slow streams=none")
            request.app[COUNTS].let_go["http", "slow"] += 1
            _cut(request)
        except ConnectionError:
            request.app[COUNTS].let_go["http", "gone"] += 1
            _cut(request)
        except Refused as error:
            logger.info("response_cut path={} error={}", request.path, error)
            _cut(request)
        except Exception:
            logger.exception("response_cut path={}", request.path)
            _cut(request)
    return response


async def _write_all(
    request: web.Request, response: web.StreamResponse, first: bytes, more: AsyncIterator[bytes]
) -> None:
    stall_timeout = request.app[LIMITS].stall_timeout
    chunk = first
    while chunk:
        async with asyncio.timeout(stall_timeout):
            await response.write(chunk)
        chunk = await anext(more, b"")


def _bound(request: web.Request) -> None:
    bound_once = getattr(request.protocol, "bound", None)  # a Door's, if it came through one
    if bound_once is not None:
        bound_once()
    else:
        bound(request.transport)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _chunked(pieces: AsyncIterator[bytes], slices: SliceScheduler) -> AsyncGenerator[bytes]:
    """Join small pieces and split large ones, and leave room for others in between."""
    held = bytearray()
    await slices.slice()
    until = time.monotonic() + SLICE_SECONDS
    async for piece in pieces:
        held += piece
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
            await slices.slice()
            until = time.monotonic() + SLICE_SECONDS
        if time.monotonic() > until:
            await slices.slice()
            until = time.monotonic() + SLICE_SECONDS
    if held:
        yield bytes(held)


class CompactText:
    """A text in UTF-8, in slices: one emoji makes every character of a str take four bytes.

    Iterating decodes the slices one by one.
    """

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._slices)

    def __iter__(self) -> Iterator[str]:
        for encoded in self._slices:
            yield encoded.decode()

    @property
    def size(self) -> int:
        """The bytes that it holds."""
        return sum(map(len, self._slices))

    @classmethod
    async def of(cls, text: str, slices: SliceScheduler) -> CompactText:
        """Encode a text; a long one in slices of the event loop's time."""
        compact = cls()
        until = 0.0
        for start in range(0, len(text), TEXT_SLICE):
            if start and time.monotonic() > until:
                await slices.slice()
                until = time.monotonic() + SLICE_SECONDS
            compact._slices.append(text[start : start + TEXT_SLICE].encode(errors="replace"))
        return compact


def json_pieces(fields: Mapping[str, Any], text_field: str) -> Iterator[bytes]:
    """Encode an object; the text in `text_field`, which comes in slices, slice by slice."""
    separator = b"{"
    for name, value in fields.items():
        yield separator + orjson.dumps(name) + b":"
        separator = b","
        if name != text_field:
            yield orjson.dumps(value)
            continue
        yield b'"'
        for text in value:
            yield orjson.dumps(text)[1:-1]
        yield b'"'
    yield b"}"

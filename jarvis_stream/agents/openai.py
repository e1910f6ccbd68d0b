"""An agent that asks a server speaking the OpenAI chat-completions protocol.

OpenAI, Ollama, vLLM, llama.cpp, LM Studio and whoever else answers `POST …/chat/completions`. The
stream is read by a line reader of our own: a few microseconds per token.

The servers differ. The agent changes a request that a server refuses (without an optional field,
without a system role, with fewer old messages) and sends it again, and remembers what the server
does not support.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import aiohttp
import orjson
from loguru import logger
from yarl import URL

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.agents.conversation import shortened, with_system_prompt
from jarvis_stream.agents.models import first_chat_model, listed_models
from jarvis_stream.agents.reasoning import ReasoningSplitter, reasoning_of, split_content
from jarvis_stream.agents.refusals import Reason, classify, classify_event
from jarvis_stream.agents.surrogates import SurrogateDecoder
from jarvis_stream.errors import UpstreamError, UpstreamTimeout
from jarvis_stream.frames import AGENT_REASONS, Done, Message, Status, check_structure

OPENAI: Final = "https://api.openai.com/v1"

_MAX_EVENT: Final = 8 << 20  # bytes of one event, or of an answer that is not streamed
_MAX_LISTING: Final = 1 << 20
_MAX_CANDIDATES: Final = 50  # names of models in an error
_MAX_MODELS: Final = 10  # listed models that one question is sent to, until one can chat
_MAX_DETAIL: Final = 2000  # bytes of an upstream's error that the log keeps
_DETAIL_WAIT: Final = 1.0  # seconds a refusal's body may take; its status has said enough
_LINGER: Final = 0.1  # seconds an answer's end may lag behind [DONE], so the connection is kept
_MAX_TOOL_NAME: Final = 200  # characters of a tool's name that are shown
_MAX_BACKOFF: Final = 8.0
_MAX_RETRY_AFTER: Final = 30.0  # an upstream that asks for more is reported as busy at once
_MAX_REASONING: Final = 1 << 18  # characters of reasoning that are kept for an empty answer
_SHARES: Final = (0.75, 0.5, 0.25, 0.0)
"""The shares of the earlier messages that are tried when all are too long for the model."""
_FINISH_REASONS: Final = {
    **{reason: reason for reason in AGENT_REASONS},
    **dict.fromkeys(("max_tokens", "MAX_TOKENS", "model_length"), "length"),
    **dict.fromkeys(("SAFETY", "safety", "sensitive", "PROHIBITED_CONTENT"), "content_filter"),
    "function_call": "tool_calls",
}
"""What the vendors call the reasons; "stop" for every other one."""
_STREAMED: Final = frozenset({"text/event-stream", "text/plain", "application/octet-stream"})
_FIELDS: Final = (b"data:", b"event:", b"retry:", b"id:", b":")
_MAX_FIELD: Final = 6  # bytes of the longest of them
_JSON: Final = (b"{", b"[")
_END: Final = b"[DONE]"
_BLANK: Final = BOM_UTF8 + b" \t\r\n"
_FAILED_REASONS: Final = frozenset({"error", "abort", "insufficient_system_resource"})
_OPTIONAL: Final = {
    Reason.STREAM_OPTIONS: "stream_options",
    Reason.STREAM: "stream",
    Reason.SYSTEM_ROLE: "system role",
}
"""What can be omitted from a request, by the reason of its refusal."""

_UNREACHABLE: Final = "The model's server cannot be reached."
_CREDENTIALS: Final = "The model's server does not accept this server's credentials."
_REFUSED: Final = "The model's server refused the request."
_BUSY: Final = "The model's server is failing or busy; try again in a moment."
_NO_MODEL: Final = "The model's server offers no model that can chat."
_UNKNOWN_MODEL: Final = "The model's server does not have the model that this server asks for."
_NO_CHAT: Final = "The model that this server asks for cannot chat."
_NO_CREDIT: Final = "The account at the model's server has no credit left."
_POLICY: Final = "The content filter of the model's server refused this question."
_TOO_LONG: Final = "This message is too long for this model; shorten or split it."
_CONTEXT_FULL: Final = "The answer reached the end of what this model can hold in one conversation."
_ONLY_REASONING: Final = (
    "The model reached its length limit while it was reasoning, before it gave an answer."
)
_NO_ANSWER: Final = "The model's server sent something that is no chat completion."
_FAILED: Final = "The model's server failed in the middle of its answer."
_BROKEN_OFF: Final = "The model's server broke off before the end of its answer."
_NOT_BEGUN: Final = "The model's server did not begin its answer in time."
_FELL_SILENT: Final = "The model's server fell silent in the middle of its answer."


class UpstreamDetail(Exception):
    """What the upstream itself said; for the log only, as the cause of an UpstreamError."""


class _Transient(UpstreamError):
    """A failure that another try may mend, as long as no token has come."""

    def __init__(self, sentence: str, *, retry_after: float = 0.0) -> None:
        super().__init__(sentence, retryable=True)
        self.retry_after = retry_after


class _Refused(UpstreamError):
    """A failure that the same request would meet again, but perhaps not a changed one."""

    def __init__(self, sentence: str, reason: Reason) -> None:
        super().__init__(sentence, retryable=False)
        self.reason = reason


_SENTENCES: Final = {
    Reason.TOO_LONG: _TOO_LONG,
    Reason.NO_CREDIT: _NO_CREDIT,
    Reason.POLICY: _POLICY,
    Reason.CREDENTIALS: _CREDENTIALS,
    Reason.UNKNOWN_MODEL: _UNKNOWN_MODEL,
    Reason.NO_CHAT: _NO_CHAT,
}


class _Request:
    """One question to the model's server, and what is omitted from it so far."""

    __slots__ = ("_all", "_shares", "messages", "model", "models", "omitted")

    def __init__(self, turn: Turn, omitted: set[str]) -> None:
        self._all = turn.messages
        self._shares = list(_SHARES)
        self.messages: Sequence[Message] = turn.messages
        self.omitted = {*omitted}
        self.model: str | None = None
        """The model that the last attempt was sent to."""
        self.models = 0
        """Models that have turned out to be unable to chat."""

    def shorten(self) -> bool:
        """Leave out more of the oldest messages; return False when only the last one is left."""
        while self._shares:
            fewer = shortened(self._all, self._shares.pop(0))
            if len(fewer) < len(self.messages):
                self.messages = fewer
                return True
        return False

    def omit(self, reason: Reason) -> bool:
        """Omit what was refused; return False when the request does not have it."""
        name = _OPTIONAL.get(reason)
        if name is None or name in self.omitted:
            return False
        self.omitted.add(name)
        return True


class EventReader:
    """Cuts the bytes of an event stream into the payloads of its `data:` lines.

    The bytes may be split anywhere. Lines end at `\\n` or `\\r\\n` and at nothing else; comments,
    other fields and a byte order mark at the beginning are skipped. Every `data:` line is one
    event, as this protocol sends them.
    """

    __slots__ = ("_begun", "_max_line", "_tail")

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._tail = bytearray()
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads whose lines `chunk` completes; ValueError where a line is too long."""
        lines = chunk.split(b"\n")
        begun, tail = self._tail, lines.pop()
        if not lines:
            begun += tail
        else:
            lines[0] = bytes(begun + lines[0])
            self._tail = bytearray(tail)
            if not self._begun:
                self._begun = True
                lines[0] = lines[0].removeprefix(BOM_UTF8)
        # Only then can one of them be.
        if len(begun) + len(chunk) > self._max_line and (
            max(map(len, [*lines, self._tail])) > self._max_line
        ):
            raise ValueError(f"a line of the event stream is longer than {self._max_line} bytes")
        payloads = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        return payloads if all(payloads) else [payload for payload in payloads if payload]


class _WholeReader:
    """The reader of an answer that is one JSON value: one event, and the end."""

    def feed(self, body: bytes) -> list[bytes]:
        return [body, _END]


async def read_at_most(content: aiohttp.StreamReader, limit: int) -> bytes:
    """The body, cut off after `limit` bytes."""
    body = bytearray()
    while len(body) < limit and (chunk := await content.readany()):
        body += chunk
    return bytes(body[:limit])


class OpenAIAgent:
    """Asks one model of one server. An async context manager; it keeps its connections open.

    `base_url`: `http://host` means `http://host/v1`; any other path is taken as it is written, a
    trailing slash or `/chat/completions` apart; it holds no credentials and no query. `model`: None
    asks the server, once, and takes the first that it lists and that can chat.
    `ca_file`: the certificate authorities (PEM) to trust instead of the system's. Proxy variables
    are not looked at, redirects are not followed.

    All times are seconds. `first_token_timeout` covers everything up to the first piece, retries
    and waiting included; `token_timeout` is the longest silence between two events after it, the
    consumer's own time not counted. A failed attempt is repeated up to `max_retries` times with
    full-jitter exponential `backoff`, and never after a piece has been yielded.

    Raises ValueError for a wrong `base_url` and OSError for an unreadable `ca_file`.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        model: str | None = None,
        system_prompt: str | None = None,
        first_token_timeout: float = 120.0,
        token_timeout: float = 60.0,
        connect_timeout: float = 10.0,
        max_retries: int = 2,
        backoff: float = 0.5,
        ca_file: str | None = None,
    ) -> None:
        self._base = _parse_base_url(base_url)
        self._key = api_key or ""
        self._headers = {"Accept-Encoding": "identity"}  # compression would hold tokens back
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._model = model
        self._found: str | None = None
        self._no_chat: set[str] = set()
        """Listed models that have turned out to be unable to chat."""
        self._unsupported: set[str] = set()
        """What this server has refused and answers without."""
        self._finding = asyncio.Lock()
        self._system = system_prompt
        self._first_token_timeout = first_token_timeout
        self._token_timeout = token_timeout
        self._connect_timeout = connect_timeout
        self._max_retries = max_retries
        self._backoff = backoff
        self._tls: ssl.SSLContext | bool = True
        if self._base.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca_file)
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """The server's base URL, normalised."""
        return str(self._base)

    @property
    def model(self) -> str | None:
        """The model that answers; None before the first answer when the settings name no model."""
        return self._model or self._found

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # How many answers run at once is the registry's to bound, not the connector's.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
            response_class=_AbortingResponse,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __call__(self, turn: Turn, /) -> AsyncIterator[Piece]:
        """Text pieces, `Status("reasoning")` and `Status("tool", name=…)`, and one `Done` last.

        Raises UpstreamError or UpstreamTimeout. Cancelled or closed before its end, the connection
        is cut at once, which is what makes an upstream stop generating.
        """
        completion, pieces = await self._begin(turn)
        try:
            completion.watch(self._token_timeout)
            while pieces:
                for piece in pieces:
                    yield piece
                pieces = await completion.next()
        finally:
            completion.close()

    async def _begin(self, turn: Turn) -> tuple[_Completion, list[Piece]]:
        """An answer that has begun, with its first pieces."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._first_token_timeout
        request = _Request(turn, self._unsupported)
        retries = 0
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    try:
                        return await self._attempt(turn, request)
                    except _Refused as refusal:
                        if self._adapt(request, refusal):
                            logger.warning(
                                "upstream_adapted trace={} reason={} messages={} cause={!r}",
                                turn.trace_id,
                                refusal.reason.name.lower(),
                                len(request.messages),
                                str(refusal.__cause__),
                            )
                            continue
                        raise
                    except _Transient as failure:
                        ceiling = min(_MAX_BACKOFF, self._backoff * 2**retries)
                        pause = failure.retry_after + random.uniform(0, ceiling)
                        if (
                            retries >= self._max_retries
                            or failure.retry_after > _MAX_RETRY_AFTER
                            or loop.time() + pause >= deadline
                        ):
                            if isinstance(failure.__cause__, TimeoutError):
                                raise UpstreamTimeout(_NOT_BEGUN) from failure.__cause__
                            raise
                        retries += 1
                        logger.warning(
                            "upstream_retry trace={} retry={} pause_ms={:.0f} cause={!r}",
                            turn.trace_id,
                            retries,
                            pause * 1000,
                            str(failure.__cause__),
                        )
                    await asyncio.sleep(pause)
        except TimeoutError as error:
            raise UpstreamTimeout(_NOT_BEGUN) from error

    def _adapt(self, request: _Request, refusal: _Refused) -> bool:
        """Change the request so that the server may accept it; return False when that is all."""
        if refusal.reason is Reason.TOO_LONG:
            return request.shorten()
        if refusal.reason is Reason.NO_CHAT and self._model is None and request.model is not None:
            # Another answer may have found another model since this one was asked.
            self._no_chat.add(request.model)
            if self._found == request.model:
                self._found = None
            request.models += 1
            return request.models < _MAX_MODELS
        return request.omit(refusal.reason)

    async def _attempt(self, turn: Turn, request: _Request) -> tuple[_Completion, list[Piece]]:
        request.model = None
        request.model = model = self._model or await self._find_model()
        body: dict[str, Any] = {
            "model": model,
            "messages": with_system_prompt(
                request.messages, self._system, as_message="system role" not in request.omitted
            ),
            "stream": "stream" not in request.omitted,
        }
        if body["stream"] and "stream_options" not in request.omitted:
            body["stream_options"] = {"include_usage": True}
        headers = {"Content-Type": "application/json", "traceparent": turn.traceparent}
        response = await self._request(
            "POST", "chat/completions", data=orjson.dumps(body), headers=headers
        )
        try:
            completion = _Completion(response, self._key)
            pieces = await completion.next()
        except BaseException:
            response.close()
            raise
        self._unsupported |= request.omitted
        return completion, pieces

    async def _find_model(self) -> str:
        async with self._finding:
            if self._found is None:
                response = await self._request("GET", "models")
                try:
                    listing = await read_at_most(response.content, _MAX_LISTING)
                except aiohttp.ClientError as error:
                    raise _Transient(_UNREACHABLE) from error
                finally:
                    response.close()
                self._found = first_chat_model(listing, self._no_chat)
                if self._found is None:
                    self._no_chat.clear()  # the next answer tries them again
                    names = ", ".join(listed_models(listing)[:_MAX_CANDIDATES]) or "nothing"
                    raise UpstreamError(_NO_MODEL) from UpstreamDetail(
                        f"{self._base / 'models'} lists no chat model, but {names}; load a chat "
                        "model, or set OPENAI_MODEL to the one to ask"
                    )
            return self._found

    async def _request(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """An answer with status 200, whose body the caller reads and closes."""
        if self._session is None:
            raise RuntimeError("an OpenAIAgent is used inside `async with`")
        try:
            response = await self._session.request(
                method, self._base / path, allow_redirects=False, **options
            )
        except aiohttp.ClientConnectorCertificateError as error:
            raise UpstreamError(_UNREACHABLE, retryable=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Transient(_UNREACHABLE) from error
        if response.status != 200:
            await self._refuse(response)
        return response

    async def _refuse(self, response: aiohttp.ClientResponse) -> NoReturn:
        body = b""
        try:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(_DETAIL_WAIT):
                    body = await read_at_most(response.content, 2 * _MAX_DETAIL)
        finally:
            response.close()
        status = response.status
        detail = UpstreamDetail(
            f"{response.method} {response.url} answered {status}: {_quote(body, self._key)}"
        )
        reason = classify(status, body)
        if reason is Reason.BUSY:
            raise _Transient(_BUSY, retry_after=_retry_after(response)) from detail
        if reason is Reason.UNKNOWN_MODEL and self._model is None and response.method == "POST":
            self._found = None  # it may have been unloaded: take another one
            raise _Transient(_UNKNOWN_MODEL) from detail
        raise _Refused(_SENTENCES.get(reason, _REFUSED), reason) from detail


class _AbortingResponse(aiohttp.ClientResponse):
    """Closed before its end, it cuts the connection instead of saying goodbye.

    A TLS transport that is merely closed waits for the peer's goodbye, and an upstream that only
    writes goes on generating meanwhile (30 s with uvloop). aiohttp closes a response of which not
    even the headers have come in the same way.
    """

    def close(self) -> None:
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.abort()
        super().close()


class _Completion:
    """One answer while it is being read."""

    __slots__ = (
        "_content",
        "_decoder",
        "_ended",
        "_failure",
        "_finish_reason",
        "_has_spoken",
        "_has_status",
        "_has_tools",
        "_is_answer",
        "_key",
        "_limit",
        "_loads",
        "_loop",
        "_reader",
        "_reasoning",
        "_reasoning_chars",
        "_response",
        "_splitter",
        "_stray",
        "_timer",
        "_usage",
        "_waiting_since",
    )

    def __init__(self, response: aiohttp.ClientResponse, key: str) -> None:
        self._response = response
        self._key = key
        self._content = response.content
        self._reader: EventReader | _WholeReader | None = None
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._reasoning: list[str] = []
        """The reasoning before the answer, kept until the answer begins."""
        self._reasoning_chars = 0
        self._has_status = False
        """The status `reasoning` has been sent."""
        self._splitter = ReasoningSplitter()
        self._is_answer = False
        """The text of the answer has begun: what follows is no tagged reasoning."""
        self._has_tools = False
        self._has_spoken = False
        self._stray: str | None = None
        """The last event that was none of a completion."""
        self._ended = False
        self._failure: UpstreamError | UpstreamTimeout | None = None
        self._loads: Callable[[bytes], Any] = orjson.loads
        self._decoder: SurrogateDecoder | None = None
        self._loop = asyncio.get_running_loop()
        self._limit = inf
        self._waiting_since = inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, limit: float) -> None:
        """From now on `next` raises UpstreamTimeout after `limit` seconds without an event."""
        self._limit = limit
        self._timer = self._loop.call_later(limit, self._check)

    def _check(self) -> None:
        # One timer for the answer, moved only when it fires: an asyncio.timeout() for each read
        # would cost as much as the read.
        left = self._waiting_since + self._limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(min(left, self._limit), self._check)
        else:
            self._content.set_exception(UpstreamTimeout(_FELL_SILENT))

    def close(self) -> None:
        """Give the connection back, or cut it when the answer has not been read to its end."""
        if self._timer is not None:
            self._timer.cancel()
        self._response.close()

    async def next(self) -> list[Piece]:
        """The next pieces, at least one, a `Done` as the very last; after it an empty list.

        A failure is raised when all that came before it has been returned.
        """
        if self._failure is not None:
            raise self._failure
        pieces: list[Piece] = []
        if self._ended:
            return pieces
        self._waiting_since = self._loop.time()
        try:
            while not pieces and not self._ended:
                await self._read(pieces)
        except (UpstreamError, UpstreamTimeout) as failure:
            if self._finish_reason is not None:
                self._ended = True  # only what follows the answer is missing
            elif pieces:
                self._failure = failure
            else:
                raise
        self._waiting_since = inf
        if self._ended:
            self._finish(pieces)
        return pieces

    def _finish(self, pieces: list[Piece]) -> None:
        """Append what was held back, and the `Done`.

        When the model finished without an answer, its reasoning is the answer: servers whose
        reasoning parser does not fit the model put the whole answer there. When it reached its
        length limit before the answer, that is a failure.
        """
        rest = ""
        if self._decoder is not None:
            rest = self._decoder.flush("choices", 0, "delta", "content")
        if self._is_answer:
            if rest:
                pieces.append(rest)
        else:
            if rest:
                self._add(*self._splitter.feed(rest), pieces)
            self._add(*self._splitter.end(), pieces)
        if self._reasoning and not (self._is_answer or self._has_tools):
            if self._finish_reason == "length":
                failure = UpstreamError(_ONLY_REASONING)
                if not pieces:
                    raise failure
                self._failure = failure
                return
            if self._finish_reason in (None, "stop"):
                pieces.append("".join(self._reasoning))
        usage = self._usage
        try:
            check_structure("usage", usage)
        except (ValueError, TypeError):
            usage = None  # no frame can hold it; the answer is whole without it
        pieces.append(Done(self._finish_reason or "stop", usage))

    async def _read(self, pieces: list[Piece]) -> None:
        """Append to `pieces` what the next read brings, perhaps nothing."""
        try:
            chunk = await self._content.readany()
            if self._reader is None:
                self._reader, chunk = await self._recognise(chunk)
        except (aiohttp.ClientError, OSError) as error:
            raise _Transient(_BROKEN_OFF) from error
        if not chunk:
            raise _Transient(_BROKEN_OFF)
        try:
            payloads = self._reader.feed(chunk)
            # After the finish reason, events without a piece do not extend the answer.
            if payloads and self._finish_reason is None:
                self._waiting_since = self._loop.time()
            for payload in payloads:
                if payload == _END:
                    self._end()
                    await self._linger()
                    return
                self._take(payload, pieces)
        except ValueError as error:
            raise UpstreamError(_NO_ANSWER) from error

    async def _recognise(self, head: bytes) -> tuple[EventReader | _WholeReader, bytes]:
        """Return the reader that the body needs, and what has been read of the body.

        What a body is, its first characters say: servers and proxies label event streams as JSON,
        and JSON as an event stream.
        """
        begun = head.lstrip(_BLANK)
        while len(begun) < _MAX_FIELD and not begun.startswith(_JSON):
            more = await self._content.readany()
            if not more or len(head) > _MAX_EVENT:
                break
            head += more
            begun = head.lstrip(_BLANK)
        if begun.startswith(_JSON):  # it ignores `stream`
            room = _MAX_EVENT - len(begun)
            rest = await read_at_most(self._content, room) if room > 0 else b""
            return _WholeReader(), begun + rest
        kind = self._response.content_type
        if begun and kind not in _STREAMED and not begun.startswith(_FIELDS):
            raise UpstreamError(_NO_ANSWER, retryable=False) from UpstreamDetail(
                f"{self._response.url} answered with {kind!r}; is the base URL right?"
            )
        return EventReader(_MAX_EVENT), head

    def _end(self) -> None:
        """The upstream says that this was all; raises UpstreamError when it was no answer."""
        if self._finish_reason is None and (self._stray or not self._has_spoken):
            sentence = _FAILED if self._has_spoken else _NO_ANSWER
            raise UpstreamError(sentence) from UpstreamDetail(self._stray or "there is no choice")
        self._ended = True

    async def _linger(self) -> None:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._content.readany():
                    pass

    def _take(self, payload: bytes, pieces: list[Piece]) -> None:
        """Append what one event says to `pieces`."""
        try:
            try:
                event = self._loads(payload)
            except ValueError:
                # From here on, a decoder that joins halves of characters decodes every event.
                if self._decoder is not None:
                    raise
                self._decoder = SurrogateDecoder()
                self._loads = self._decoder.loads
                event = self._loads(payload)
            if event.get("error") or event.get("object") == "error":
                self._fail(payload)
            if usage := event.get("usage"):
                self._usage = dict(usage)
            choices = event.get("choices")
            if choices is None and not usage:
                self._stray = _quote(payload, self._key)
            for choice in choices or ():
                reason = choice.get("finish_reason")
                if (reason and reason in _FAILED_REASONS) or choice.get("error"):
                    self._fail(payload)
                if not choice.get("index"):  # we have asked for one choice
                    self._take_choice(choice, reason, pieces)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UpstreamError(_NO_ANSWER) from UpstreamDetail(
                f"{type(error).__name__} in {_quote(payload, self._key)}"
            )

    def _fail(self, payload: bytes) -> NoReturn:
        detail = UpstreamDetail(_quote(payload, self._key))
        reason = classify_event(payload)
        if reason is Reason.BUSY:
            raise _Transient(_BUSY) from detail
        if reason is Reason.TOO_LONG and self._is_answer:
            raise _Refused(_CONTEXT_FULL, reason) from detail
        if reason in _SENTENCES:
            raise _Refused(_SENTENCES[reason], reason) from detail
        raise UpstreamError(_FAILED) from detail

    def _take_choice(self, choice: dict[str, Any], reason: Any, pieces: list[Piece]) -> None:
        self._has_spoken = True
        delta = choice.get("delta") or choice.get("message") or {}
        text = delta.get("content")
        if text and self._is_answer and isinstance(text, str):
            pieces.append(text)
        else:
            self._take_delta(text, delta, pieces)
        for call in delta.get("tool_calls") or ():
            if name := (call.get("function") or {}).get("name"):
                self._has_tools = True
                pieces.append(Status("tool", name=str(name)[:_MAX_TOOL_NAME]))
        if reason and reason != "null":
            self._finish_reason = _FINISH_REASONS.get(reason, "stop")

    def _take_delta(self, content: Any, delta: dict[str, Any], pieces: list[Piece]) -> None:
        """Append what a delta says that is not just more text of the answer."""
        text, reasoning = split_content(content) if content else ("", "")
        reasoning = reasoning_of(delta) + reasoning
        if (refusal := delta.get("refusal")) and isinstance(refusal, str):
            text += refusal
        if text and not self._is_answer:
            text, tagged = self._splitter.feed(text)
            reasoning += tagged
        if reasoning:
            self._waiting_since = self._loop.time()  # even after a finish reason that comes early
        self._add(text, reasoning, pieces)

    def _add(self, text: str, reasoning: str, pieces: list[Piece]) -> None:
        if reasoning:
            if not self._has_status and not reasoning.isspace():
                self._has_status = True
                pieces.append(Status("reasoning"))
            if not self._is_answer and self._reasoning_chars < _MAX_REASONING:
                self._reasoning.append(reasoning)
                self._reasoning_chars += len(reasoning)
        if text:
            self._is_answer = True
            self._reasoning.clear()
            pieces.append(text)


def _parse_base_url(text: str) -> URL:
    url = URL(text.strip())
    plain = not (url.user or url.password or url.query_string or url.fragment)
    if not (url.scheme in ("http", "https") and url.host and plain):
        # The text itself may hold a password, so it is not repeated.
        raise ValueError("the base URL must look like http://host:port/v1 or https://host/v1")
    return url.with_path(url.path.rstrip("/").removesuffix("/chat/completions") or "/v1")


def _quote(body: bytes, key: str) -> str:
    """An upstream's own words for the log: bounded, on one line, without the key."""
    text = body.decode(errors="replace")
    if key:
        text = text.replace(key, "[redacted]")
    return repr(text[:_MAX_DETAIL])


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds that the upstream asks us to wait: 0 when it does not, or not intelligibly."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())

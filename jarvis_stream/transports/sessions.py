"""What was said: the list of sessions and their titles, their messages, what one takes along."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import orjson
from aiohttp import web

from jarvis_stream.errors import (
    AgentFailure,
    AnswerTooLong,
    Conflict,
    CoordinationLost,
    Interrupted,
    NotFound,
    StreamFailure,
    UpstreamError,
    UpstreamTimeout,
)
from jarvis_stream.history.base import SessionRecord, TurnPage, TurnRecord
from jarvis_stream.ids import SESSION_ID, id_of, key_of
from jarvis_stream.node import Transcript
from jarvis_stream.registry import turn_end
from jarvis_stream.stream import Stream
from jarvis_stream.transports.answers import json_answer, json_body
from jarvis_stream.transports.bodies import (
    READS,
    SLICES,
    CompactText,
    json_pieces,
    send_body,
)
from jarvis_stream.transports.context import REGISTRY, owner_of
from jarvis_stream.transports.export import sections, title_line
from jarvis_stream.transports.quotas import QUOTAS
from jarvis_stream.transports.requests import (
    parse_count,
    parse_epoch,
    parse_query,
    parse_title,
    shorten,
)

MAX_PAGE: Final = 200
"""Sessions or turns on one page, at most."""
PAGE_TURNS: Final = 50
"""Turns on one page by default, each a question and its answer."""
PAGE_BYTES: Final = 1024 * 1024
"""Bytes of text on one page of turns; a longer turn is a page of its own."""

MAX_FILE_NAME: Final = 60
"""Characters of a title in the name of a file, at most: their UTF-8 fits every file system."""
_FORBIDDEN: Final = re.compile(r'[\\/:*?"<>|]')
"""What some file systems do not allow in a name."""

JSON: Final = "application/json; charset=utf-8"

_FAILURES: Final[dict[str, type[StreamFailure]]] = {
    kind.code: kind
    for kind in (
        AgentFailure,
        UpstreamError,
        UpstreamTimeout,
        AnswerTooLong,
        Interrupted,
        CoordinationLost,
    )
}
"""Of turns that were kept without their sentence."""

routes = web.RouteTableDef()


@routes.get("/api/sessions")
async def sessions(request: web.Request) -> web.Response:
    """Return a page of sessions, newest first; `next` is the `before` of the next page, or null.

    With `q`, those that hold all of its words in their title or in messages.
    """
    limit = parse_count("limit", request.query.get("limit"), default=50, most=MAX_PAGE)
    query = parse_query(request.query.get("q"))
    await request.app[QUOTAS].read(request, search=query is not None)
    registry = request.app[REGISTRY]
    owner = owner_of(request)
    page = await registry.history.sessions(
        owner=owner,
        limit=limit,
        before=request.query.get("before"),
        query=query,
    )
    active = await registry.active([id_of(one.session_id) for one in page.sessions], owner)
    return json_answer(
        {
            "sessions": [_session(*one) for one in zip(page.sessions, active, strict=True)],
            "next": page.next,
        }
    )


@routes.patch("/api/sessions/{session_id}")
async def rename(request: web.Request) -> web.Response:
    """Set the title of a session."""
    session_id = _session_id(request)
    title = parse_title(await json_body(request))
    await request.app[QUOTAS].change(request)
    registry = request.app[REGISTRY]
    owner = owner_of(request)
    session = await registry.history.rename(key_of(owner, session_id), title)
    if session is None:
        raise _unknown(session_id)
    (active,) = await registry.active([session_id], owner)
    return json_answer(_session(session, active))


@routes.delete("/api/sessions/{session_id}")
async def delete(request: web.Request) -> web.Response:
    """Delete a session; its live streams are stopped first."""
    session_id = _session_id(request)
    await request.app[QUOTAS].change(request)
    if not await request.app[REGISTRY].delete(session_id, owner_of(request)):
        raise _unknown(session_id)
    return web.Response(status=204)


@routes.get("/api/sessions/{session_id}/messages")
async def messages(request: web.Request) -> web.StreamResponse:
    """Return a page of the session's messages, oldest first, and the live stream's position.

    The newest page without `before`; `next` is the `before` of the page of older messages, or null.
    """
    session_id = _session_id(request)
    await request.app[QUOTAS].read(request)
    limit = parse_count("limit", request.query.get("limit"), default=PAGE_TURNS, most=MAX_PAGE)
    before = parse_epoch("before", request.query.get("before"))
    async with request.app[READS].reserve(_reader(request)) as reservation:
        page, position = await _page(request, session_id, limit=limit, before=before)
        following = page.next
        turns = await _held(request, page.turns)
        reservation.shrink(sum(turn.size for turn in turns))

        async def pieces() -> AsyncGenerator[bytes]:
            yield _head(session_id)
            for piece in _message_pieces(turns):
                yield piece
            yield b'],"active_stream":%b,"next":%b}' % (
                orjson.dumps(position),
                orjson.dumps(following),
            )

        return await send_body(request, {"Content-Type": JSON}, pieces())


@routes.get("/api/sessions/{session_id}/export.json")
async def export_json(request: web.Request) -> web.StreamResponse:
    """Return a session as one JSON file."""
    session_id = _session_id(request)
    await request.app[QUOTAS].read(request)

    async def pieces() -> AsyncGenerator[bytes]:
        separator = b""
        async with aclosing(_all_pages(request, session_id)) as pages:
            async for turns in pages:
                if not separator:
                    yield _head(session_id)
                for piece in _message_pieces(turns, separator):
                    yield piece
                separator = b","
        yield b"]}"

    title = await _title(request, session_id)
    headers = {"Content-Type": JSON, **_as_file(title, session_id, "json")}
    return await send_body(request, headers, pieces())


async def _title(request: web.Request, session_id: str) -> str:
    """Return the title of a session; "" for one that is not listed."""
    history = request.app[REGISTRY].history
    session = await history.session(key_of(owner_of(request), session_id))
    return session.title if session else ""


@routes.get("/api/sessions/{session_id}/export.md")
async def export_markdown(request: web.Request) -> web.StreamResponse:
    """Return a session as one Markdown file."""
    session_id = _session_id(request)
    await request.app[QUOTAS].read(request)
    title = await _title(request, session_id)

    async def pieces() -> AsyncGenerator[bytes]:
        has_title = False
        async with aclosing(_all_pages(request, session_id)) as pages:
            async for turns in pages:
                if not has_title:
                    # Before its first question is saved, a session has no title.
                    heading = title or turns[0].first_line
                    yield title_line(heading).encode(errors="replace")
                    has_title = True
                while turns:
                    turn = turns.pop(0)
                    for piece in sections(turn.prompt, turn.text, turn.record.status):
                        yield piece.encode()
        yield b"\n"

    headers = {
        "Content-Type": "text/markdown; charset=utf-8",
        **_as_file(title, session_id, "md"),
    }
    return await send_body(request, headers, pieces())


async def _all_pages(request: web.Request, session_id: str) -> AsyncGenerator[list[_HeldTurn]]:
    """Yield a session's turns, oldest first, up to the newest one there is now.

    Each page is released before the next one is read; an answer that is still growing is taken as
    far as it is when its page is read. Raises NotFound for a session that does not exist or was
    deleted in between, and Conflict when its newest turn was.
    """
    async with request.app[READS].reserve(_reader(request)):
        newest, _ = await _page(request, session_id, limit=1, before=None)
        last = newest.turns[-1].epoch
        del newest
    epoch = 0
    after: int | None = 0
    while after is not None:
        async with request.app[READS].reserve(_reader(request)) as reservation:
            page, _ = await _page(request, session_id, limit=MAX_PAGE, before=last + 1, after=after)
            after = page.next
            turns = await _held(request, page.turns)
            reservation.shrink(sum(turn.size for turn in turns))
            if turns:
                epoch = turns[-1].record.epoch
                yield turns
    if epoch != last:
        raise Conflict(f"messages of session {session_id} were removed during the export: retry")


def _head(session_id: str) -> bytes:
    return b'{"session_id":%b,"messages":[' % orjson.dumps(session_id)


class _HeldTurn(NamedTuple):
    """A turn that waits for its reader."""

    record: TurnRecord
    """Without its texts."""
    prompt: CompactText
    text: CompactText

    @property
    def size(self) -> int:
        return self.prompt.size + self.text.size

    @property
    def first_line(self) -> str:
        return shorten(" ".join(next(iter(self.prompt), "")[:1000].split()))


async def _held(request: web.Request, turns: list[TurnRecord]) -> list[_HeldTurn]:
    """Return turns as they wait for their reader; releases the records one by one."""
    slices = request.app[SLICES]
    held = []
    turns.reverse()
    while turns:
        turn = turns.pop()
        prompt = await CompactText.of(turn.prompt, slices)
        text = await CompactText.of(turn.text, slices)
        held.append(_HeldTurn(replace(turn, prompt="", text=""), prompt, text))
    return held


def _message_pieces(turns: list[_HeldTurn], separator: bytes = b"") -> Iterator[bytes]:
    """Encode turns, and let each one go when it is done."""
    while turns:
        for message in _messages(*turns.pop(0)):
            yield separator
            separator = b","
            yield from json_pieces(message, "content")


def _reader(request: web.Request) -> str:
    return request.app[QUOTAS].starter(request, owner_of(request))


async def _page(
    request: web.Request,
    session_id: str,
    *,
    limit: int,
    before: int | None,
    after: int | None = None,
) -> tuple[TurnPage, dict[str, Any] | None]:
    """Return some of a session's turns, and the position of its live stream if that is among them.

    Raises NotFound for a session without turns.
    """
    registry = request.app[REGISTRY]
    owner = owner_of(request)
    key = key_of(owner, session_id)
    for _ in range(2):
        # The history last: what it returns is as it is now, and an answer of another server that
        # ended in between is complete there.
        abroad = await registry.abroad(session_id, owner)
        page = await registry.history.page(
            key, limit=limit, max_bytes=PAGE_BYTES, before=before, after=after
        )
        turns = page.turns
        turns[:] = [
            replace(turn, session_id=session_id, stream_id=id_of(turn.stream_id)) for turn in turns
        ]
        streaming = {turn.stream_id for turn in turns if turn.status == "streaming"}
        if abroad is not None and abroad.stream_id not in streaming:
            abroad = None
        if registry.node is None or not any(
            registry.find(stream_id, owner) is None
            and (abroad is None or abroad.stream_id != stream_id)
            for stream_id in streaming
        ):
            break
        # One of another server began in between, or its server is dead: once more tells which.
    if not turns and (before is None or await registry.history.session(key) is None):
        raise _unknown(session_id)
    # After the awaits, all in one step: what lives has said more than is kept, and the text must
    # fit the position that is told with it.
    for index, turn in enumerate(turns):
        if turn.stream_id in streaming:
            stream = registry.find(turn.stream_id, owner)
            if stream is not None:
                turns[index] = _up_to_now(turn, stream)
            elif abroad is not None and abroad.stream_id == turn.stream_id:
                turns[index] = replace(turn, text=abroad.text)
    live = registry.head(session_id, owner) or abroad
    if live is not None and all(turn.stream_id != live.stream_id for turn in turns):
        live = None  # it came while the others were asked: nothing is told of it, so no position
    return page, _position(live)


def _up_to_now(turn: TurnRecord, stream: Stream) -> TurnRecord:
    if stream.ending is None:
        return replace(turn, text=stream.text)
    end = turn_end(stream.ending, stream.ended_at)  # it came while the history was being read
    return replace(
        turn,
        text=stream.text,
        status=end.status,
        finish_reason=end.finish_reason,
        error_code=end.error_code,
        error=end.error,
        retryable=end.retryable,
        usage=end.usage,
        ended_at=end.ended_at,
    )


def _session_id(request: web.Request) -> str:
    session_id = request.match_info["session_id"]
    if not SESSION_ID.fullmatch(session_id):
        raise _unknown(session_id)
    return session_id


def _unknown(session_id: str) -> NotFound:
    return NotFound(f"no session {shorten(session_id)} is known here")


def _position(live: Stream | Transcript | None) -> dict[str, Any] | None:
    if live is None:
        return None
    return {"stream_id": live.stream_id, "epoch": live.epoch, "seq": live.seq}


def _session(session: SessionRecord, active: bool) -> dict[str, Any]:
    record = {
        "session_id": id_of(session.session_id),
        "title": session.title,
        "created_at": _time(session.created_at),
        "updated_at": _time(session.updated_at),
        "message_count": session.message_count,
        "active": active,
    }
    if session.snippet is not None:
        record["snippet"] = session.snippet
    return record


def _messages(turn: TurnRecord, prompt: CompactText, text: CompactText) -> list[dict[str, Any]]:
    common = {
        "stream_id": turn.stream_id,
        "epoch": turn.epoch,
        "created_at": _time(turn.created_at),
    }
    answer: dict[str, Any] = {
        "id": f"{turn.stream_id}:assistant",
        "role": "assistant",
        "content": text,
        "status": turn.status,
        **common,
    }
    for name in ("trace_id", "finish_reason", "error_code", "usage"):
        value = getattr(turn, name)
        if value is not None:
            answer[name] = value
    if error := _error(turn):
        answer["error"] = error
    if turn.ended_at is not None:
        answer["ended_at"] = _time(turn.ended_at)
    question = {
        "id": f"{turn.stream_id}:user",
        "role": "user",
        "content": prompt,
        "status": "complete",
        **common,
    }
    return [question, answer]


def _error(turn: TurnRecord) -> dict[str, Any] | None:
    """What the error frame said; for an answer whose process died, what there was nobody to say."""
    died = turn.status == "interrupted" and turn.finish_reason is None
    code = turn.error_code or (Interrupted.code if died else None)
    if code is None:
        return None
    kind = _FAILURES.get(code, StreamFailure)
    return {
        "code": code,
        "error": kind.sentence if turn.error is None else turn.error,
        "retryable": kind.retryable if turn.retryable is None else turn.retryable,
    }


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _as_file(title: str, session_id: str, ending: str) -> dict[str, str]:
    """Return the header that names a download after the session's title (RFC 6266)."""
    words = "".join(char if char.isprintable() else " " for char in title)
    name = " ".join(_FORBIDDEN.sub(" ", words).split())[:MAX_FILE_NAME].strip(" .") or session_id
    # Without the encoded name, a client takes the plain one: only ASCII is safe there.
    plain = " ".join(name.encode("ascii", "ignore").decode().split()).strip(" .") or session_id
    encoded = quote(f"{name}.{ending}", safe="", errors="replace")
    return {
        "Content-Disposition": (
            f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{encoded}"
        )
    }

"""Prints docs/openapi.json or docs/asyncapi.json: `make docs`.

    python docs/api.py openapi       the HTTP calls (OpenAPI 3.2)
    python docs/api.py asyncapi      the WebSocket (AsyncAPI 3)

What the code knows comes from the code: the routes and what they say of themselves, the kinds of
frames and their fields, every error's status, code and meaning, the forms of ids, bounds and
choices. What stands here beside it is checked against it, here (names of fields) or by the tests
(every answer of a running server, every route, every message).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from jarvis_stream import __version__, create_app
from jarvis_stream.errors import Refused, StreamFailure
from jarvis_stream.frames import AGENT_REASONS, PROTOCOL, Done, Failed
from jarvis_stream.history.base import Status
from jarvis_stream.ids import SESSION_ID, STREAM_ID
from jarvis_stream.registry import Cancellation
from jarvis_stream.settings import Settings, options
from jarvis_stream.transports import answers, websocket
from jarvis_stream.transports.admin import MAX_LISTED
from jarvis_stream.transports.requests import (
    MAX_CURSOR,
    MAX_QUERY,
    MAX_TITLE,
    ON_CONFLICT,
    ON_DISCONNECT,
)
from jarvis_stream.transports.sessions import MAX_PAGE

Json = dict[str, Any]

SERVER_REASONS: Final = ("cancelled", "superseded", "shutdown")
"""The finish reasons that are the server's own."""


# The errors, from their tree


def tree(root: type[Any]) -> Iterator[type[Any]]:
    """A class and all below it."""
    yield root
    for kind in root.__subclasses__():
        yield from tree(kind)


def meaning(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def refusals() -> dict[int, dict[str, str]]:
    """What each code of a refusal means, by status."""
    found: dict[int, dict[str, str]] = {}
    for kind in tree(Refused):
        if kind is not Refused and kind.__module__ == Refused.__module__:
            found.setdefault(kind.status, {})[kind.code] = meaning(kind)
    for status, code in answers._CODES.items():
        found.setdefault(status, {}).setdefault(code, "The HTTP library rejected the request.")
    found[500] = {"internal": "The server failed; its log has the cause under this trace id."}
    return dict(sorted(found.items()))


def failures() -> dict[str, str]:
    """What each code of an `error` frame means."""
    found: dict[str, list[str]] = {}
    for kind in tree(StreamFailure):
        if kind is not StreamFailure and kind.__module__ == StreamFailure.__module__:
            found.setdefault(kind.code, []).append(meaning(kind))
    return {code: " Or: ".join(texts) for code, texts in found.items()}


HAS_LOGIN: Final = 401 in refusals()


def listed(meanings: Mapping[str, str]) -> str:
    """Codes and what they mean, as Markdown."""
    return "\n".join(f"- `{code}`: {text}" for code, text in meanings.items())


# The forms of things


def ref(name: str) -> Json:
    """A place under `components/schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "", **more: Any) -> Json:
    """A text."""
    return {"type": "string", **({"description": description} if description else {}), **more}


def whole(description: str = "", *, least: int = 0, **more: Any) -> Json:
    """A whole number."""
    return {"type": "integer", "minimum": least, "description": description, **more}


def choice(description: str, allowed: Sequence[str]) -> Json:
    """One of a few texts; the first is the default."""
    return text(description, enum=list(allowed), default=allowed[0])


def fields_of(model: type[Any], described: Json) -> Json:
    """`described`, if it names exactly the fields of a dataclass; raises ValueError."""
    names = {field.name for field in dataclasses.fields(model)}
    if names != described.keys():
        raise ValueError(f"{model.__name__} and its description differ: {names ^ set(described)}")
    return described


def default_of(setting: str) -> Any:
    """A setting's default, for the bounds that a server tells itself."""
    return Settings.model_fields[setting].default


def bound(setting: str) -> str:
    """What a setting bounds, in words."""
    return f"`{options()[setting].flag}`, by default {default_of(setting)}"


SCHEMAS: Final[Json] = {
    "SessionId": text(
        "A conversation; the client may choose the id.", pattern=f"^{SESSION_ID.pattern}$"
    ),
    "StreamId": text(
        "One answer: a UUID in its canonical form, lower case.", pattern=f"^{STREAM_ID.pattern}$"
    ),
    "TraceId": text(
        "The trace id (W3C Trace Context); in every log line of the stream.",
        pattern="^[0-9a-f]{32}$",
    ),
    "Epoch": whole("Grows with every stream that claims the session; a lower one is stale."),
    "Seq": whole("1, 2, 3 … within the stream, without gaps.", least=1),
    "Cursor": whole("The seq of the last frame the client has.", maximum=MAX_CURSOR, default=0),
    "Time": text("RFC 3339.", format="date-time"),
}


class Builder:
    """The schemas of what the server says and is told.

    A client ignores fields it does not know, so the schemas leave room for them; `closed` ones do
    not, and the tests hold the server to those.
    """

    def __init__(self, *, closed: bool = False) -> None:
        self._closed = closed

    def schemas(self) -> Json:
        """All of them, by name."""
        return {**SCHEMAS, **self._frames(), **self._replies(), **self._asked(), **self._told()}

    def thing(self, properties: Json, *optional: str, about: str = "", free: bool = False) -> Json:
        """An object of which all properties but the `optional` ones are there.

        `free` ones take any other field, closed or not.
        """
        made: Json = {"type": "object", **({"description": about} if about else {})}
        made["properties"] = properties
        made["required"] = [name for name in properties if name not in optional]
        if self._closed and not free:
            made["additionalProperties"] = False
        return made

    def _frame(
        self, kind: str, properties: Json, *optional: str, about: str, free: bool = False
    ) -> Json:
        common = {
            "type": {"const": kind},
            "stream_id": ref("StreamId"),
            "trace_id": ref("TraceId"),
            "epoch": ref("Epoch"),
            "seq": ref("Seq"),
        }
        return self.thing({**common, **properties}, *optional, about=about, free=free)

    def _frames(self) -> Json:
        saved = {"const": False, "description": "Present only if the answer could not be saved."}
        # An agent may use the server's words, or fail in ways of its own; the tests' ones do not.
        code = text(listed(failures()))
        others: Json = {}
        if self._closed:
            code["enum"] = list(failures())
            others = {"not": {"enum": ["thinking", "queued"]}}
        done = fields_of(
            Done,
            {
                "finish_reason": text(
                    "From the agent, or from the server (stopped, superseded by a newer message, "
                    "shutdown).",
                    enum=[*sorted(AGENT_REASONS), *SERVER_REASONS],
                ),
                "usage": {
                    "type": "object",
                    "description": "Usage as reported by the model server.",
                },
                "superseded_by": {**ref("StreamId"), "description": "The newer stream."},
            },
        )
        failed = fields_of(
            Failed,
            {
                "code": code,
                "error": text("A sentence for people, without internals."),
                "retryable": {"type": "boolean"},
            },
        )
        return {
            "Thinking": self._frame(
                "status",
                {
                    "status": {"const": "thinking"},
                    "session_id": ref("SessionId"),
                    "role": {"const": "assistant"},
                    "protocol": {"const": PROTOCOL},
                    "replaces": {
                        **ref("StreamId"),
                        "description": "The earlier stream that this one replaces.",
                    },
                },
                "replaces",
                about="Always frame 1.",
            ),
            "Queued": self._frame(
                "status",
                {
                    "status": {"const": "queued"},
                    "position": whole("Position in the queue, from 1.", least=1),
                },
                about="The stream waits in the queue (`on_conflict: enqueue`).",
            ),
            "AgentStatus": self._frame(
                "status",
                {
                    "status": text(
                        "What the agent does: `tool`, `reasoning` …; ignore those you do not know.",
                        minLength=1,
                        **others,
                    ),
                },
                about="Sent by the agent, with its own fields.",
                free=True,
            ),
            "Token": self._frame(
                "token",
                {"text": text(minLength=1)},
                about="A piece of the answer; the pieces joined are the answer.",
            ),
            "Done": self._frame(
                "done",
                {**done, "saved": saved},
                *("usage", "superseded_by", "saved"),
                about="The terminal frame of a stream that did not fail.",
            ),
            "Error": self._frame(
                "error",
                {**failed, "saved": saved},
                "saved",
                about="The terminal frame of a stream that failed.",
            ),
            "Frame": {
                "description": "A JSON object on one line.",
                "anyOf": [ref(name) for name in FRAMES],
            },
        }

    def _replies(self) -> Json:
        codes = sorted({code for codes in refusals().values() for code in codes})
        cancellation = self._cancellation()
        return {
            "Refusal": self.thing(
                {"code": text(enum=codes), "error": text("A sentence for people.")},
                about="The body of every rejected request.",
            ),
            "Cancellation": self.thing(cancellation, about=meaning(Cancellation)),
            "Cancelled": self.thing(
                {"type": {"const": "status"}, "status": {"const": "cancelled"}, **cancellation},
                about="The reply to `cancel`, after the agent has stopped; not a frame, no seq.",
            ),
            "RefusedMessage": self.thing(
                {
                    "type": {"const": "error"},
                    "code": text(enum=codes),
                    "error": text("A sentence for people."),
                    "stream_id": {
                        "type": ["string", "null"],
                        "maxLength": 128,
                        "description": "The stream_id of the message, or null.",
                    },
                },
                about="The reply to a rejected message; not a frame, without seq.",
            ),
            "Reauthenticated": self.thing(
                {
                    "type": {"const": "status"},
                    "status": {"const": "reauthenticated"},
                    "expires_in": {
                        "type": ["number", "null"],
                        "description": "Seconds until the new sign-in expires; null for never.",
                    },
                },
                about="The reply to `reauthenticate`; not a frame, without seq.",
            ),
            "Pong": self.thing(
                {"type": {"const": "status"}, "status": {"const": "pong"}},
                about="The reply to `ping`; not a frame, without seq.",
            ),
        }

    def _cancellation(self) -> Json:
        return fields_of(
            Cancellation,
            {
                "stream_id": ref("StreamId"),
                "cancelled": {
                    "type": "boolean",
                    "description": "Whether the stream ended because it was cancelled.",
                },
                "clean": {
                    "type": "boolean",
                    "description": "Whether its agent stopped before "
                    f"{options()['cancel_timeout'].flag} ran out.",
                },
                "cleanup_ms": whole("Milliseconds from the request until the agent stopped."),
            },
        )

    def _asked(self) -> Json:
        return {
            "Question": {
                "type": "object",
                "properties": QUESTION,
                "required": ["prompt"],
                "description": "Unknown fields are ignored; null is the same as a missing field.",
            },
            "Title": {
                "type": "object",
                "properties": {
                    "title": text(
                        "White space is collapsed to single spaces; no control characters.",
                        minLength=1,
                    )
                },
                "required": ["title"],
                "description": f"At most {MAX_TITLE} characters then.",
            },
            **{
                name: {
                    "type": "object",
                    "properties": {"type": {"const": kind}, **properties},
                    "required": ["type", *required],
                }
                for kind, (name, properties, required, *_) in COMMANDS.items()
            },
        }

    def _told(self) -> Json:
        session = {
            "session_id": ref("SessionId"),
            "title": text("The first question, shortened, or the title that was set."),
            "created_at": ref("Time"),
            "updated_at": ref("Time"),
            "message_count": whole(),
            "active": {"type": "boolean", "description": "Whether the session has a live stream."},
            "snippet": text("In a search: text around a word of the query."),
        }
        error = {"code": text(), "error": text(), "retryable": {"type": "boolean"}}
        message = {
            "id": text("`{stream_id}:user` or `{stream_id}:assistant`."),
            "role": text(enum=["user", "assistant"]),
            "content": text("The text, as far as it was generated."),
            "status": text("Always `complete` for a question.", enum=list(statuses())),
            "stream_id": ref("StreamId"),
            "epoch": ref("Epoch"),
            "created_at": ref("Time"),
            "ended_at": ref("Time"),
            "trace_id": ref("TraceId"),
            "finish_reason": text("The `finish_reason` of the `done` frame."),
            "error_code": text("The `code` of the `error` frame."),
            "error": self.thing(error, about="The whole content of the `error` frame."),
            "usage": {"type": "object"},
        }
        position = {"stream_id": ref("StreamId"), "epoch": ref("Epoch"), "seq": whole()}
        page = {"type": ["string", "null"], "description": "`before` of the next page, or null."}
        messages = {
            "session_id": ref("SessionId"),
            "messages": {"type": "array", "items": ref("Message")},
        }
        limits = {"max_prompt_chars": whole(f"In characters: {bound('max_prompt_chars')}.")}
        info = {
            "agent": self.thing({"name": text(), "is_model": {"type": "boolean"}}),
            "why": {
                "type": ["string", "null"],
                "description": "The reason why the demo answers; null for other agents.",
            },
            "version": text(),
            "protocol": {"const": PROTOCOL},
            "limits": self.thing(limits),
        }
        if HAS_LOGIN:
            info["auth"] = text("The kind of sign-in.", enum=["none", "token", "custom"])
            info["principal"] = text("The principal, if the client is signed in.")
        return {
            "Session": self.thing(session, "snippet"),
            "Sessions": self.thing({"sessions": array("Session"), "next": page}),
            "Message": self.thing(
                message, "ended_at", "trace_id", "finish_reason", "error_code", "error", "usage"
            ),
            "Messages": self.thing(
                {
                    **messages,
                    "active_stream": {
                        "description": "The position of its live stream, or null.",
                        "oneOf": [self.thing(position), {"type": "null"}],
                    },
                    "next": {
                        "description": "`before` of the page with older messages, or null.",
                        "oneOf": [ref("Epoch"), {"type": "null"}],
                    },
                }
            ),
            "Export": self.thing(messages),
            "Info": self.thing(info, "principal"),
            **self._admin(),
            "Alive": self.thing({"alive": {"const": True}}),
            "Ready": self.thing(
                {
                    "ready": {"const": True},
                    "saving": {
                        "type": "boolean",
                        "description": "Whether the last write to the database succeeded.",
                    },
                }
            ),
            **(self._logins() if HAS_LOGIN else {}),
        }

    def _admin(self) -> Json:
        place = "`file:line function`"
        stream = {
            "stream_id": ref("StreamId"),
            "session_id": ref("SessionId"),
            "owner": text("The principal; empty without sign-in."),
            "trace_id": ref("TraceId"),
            "epoch": ref("Epoch"),
            "state": text(enum=["pending", "active", "sealed", "ended", "undead"]),
            "age_ms": whole("Milliseconds since the start."),
            "seq": whole("The seq of the last frame; 0 before the first one."),
            "readers": whole("Readers at this node."),
            "last_frame_ms": whole("Milliseconds since the last frame; precise to a second."),
            "waits_at": {
                "type": ["string", "null"],
                "description": f"The line of the agent's code at which it waits: {place}.",
            },
            "stack": {
                "type": "array",
                "items": {"type": "string"},
                "description": f"All places, the outermost first: {place}.",
            },
        }
        return {
            "AdminStream": self.thing(stream),
            "AdminStreams": self.thing(
                {
                    "node": self.thing({"name": text("The host's name."), "pid": whole()}),
                    "total": whole("Number of live streams at this node."),
                    "streams": array("AdminStream"),
                }
            ),
        }

    def _logins(self) -> Json:
        return {
            "Credential": {
                "type": "object",
                "properties": {"token": text()},
                "required": ["token"],
            },
            "Login": self.thing({"principal": text("The principal that signed in.")}),
            "Revocation": {
                "type": "object",
                "properties": {"principal": text("The principal whose sign-ins end.")},
                "required": ["principal"],
            },
            "Revoked": self.thing(
                {
                    "principal": text("The principal."),
                    "ended": whole("Number of sign-ins that were ended."),
                }
            ),
            "Ticket": self.thing(
                {
                    "ticket": text(),
                    "expires_in": whole("Seconds until the ticket expires."),
                    "sign_in_expires_in": {
                        "type": ["number", "null"],
                        "description": "Seconds until the sign-in expires; null for never.",
                    },
                }
            ),
        }


FRAMES: Final = ("Thinking", "Queued", "AgentStatus", "Token", "Done", "Error")

QUESTION: Final[Json] = {
    "prompt": text(
        f"Not only white space; at most {bound('max_prompt_chars')} characters.", minLength=1
    ),
    "session_id": {
        **ref("SessionId"),
        "description": "The session; without it, the server creates one.",
    },
    "stream_id": {
        **ref("StreamId"),
        "description": "A client that chooses it can retry the request: a repeated id attaches "
        "to the existing answer, from `after`.",
    },
    "after": ref("Cursor"),
    "on_conflict": choice("What happens to the running answer of the session.", ON_CONFLICT),
    "on_disconnect": choice(
        "What happens to this answer when its last reader leaves.", ON_DISCONNECT
    ),
    "replaces": {
        **ref("StreamId"),
        "description": "An earlier stream of the session: its turn and all later ones leave the "
        "history with the coming of this one.",
    },
}


def array(name: str) -> Json:
    """A list of one schema's things."""
    return {"type": "array", "items": ref(name)}


def statuses() -> Iterator[str]:
    """What a message's status can be."""
    for part in get_args(Status):
        yield from get_args(part) or (part,)


# What a client may say over WebSocket: schema, fields, those that are needed, the replies

_ALL_FRAMES: Final = ("Frame",)
COMMANDS: Final[dict[str, tuple[str, Json, tuple[str, ...], tuple[str, ...], str]]] = {
    "start": (
        "Start",
        {**QUESTION, "traceparent": text("As in W3C Trace Context.")},
        ("prompt",),
        _ALL_FRAMES,
        "Start an answer. A repeated stream_id attaches to the existing answer.",
    ),
    "resume": (
        "Resume",
        {"stream_id": ref("StreamId"), "after": ref("Cursor")},
        ("stream_id",),
        _ALL_FRAMES,
        "Resume or replay a stream after a position.",
    ),
    "cancel": (
        "Cancel",
        {"stream_id": ref("StreamId")},
        ("stream_id",),
        ("Cancelled",),
        "Stop a stream; the reply comes when its agent has stopped.",
    ),
    "watch": (
        "Watch",
        {"session_id": ref("SessionId")},
        ("session_id",),
        _ALL_FRAMES,
        "Receive the frames of every stream of a session; of a live one from its beginning.",
    ),
    "unwatch": (
        "Unwatch",
        {"session_id": ref("SessionId")},
        ("session_id",),
        (),
        "End a watch; streams that this WebSocket started or resumed continue.",
    ),
    "ping": (
        "Ping",
        {},
        (),
        ("Pong",),
        "Check the connection: browsers cannot send WebSocket pings.",
    ),
    "reauthenticate": (
        "Reauthenticate",
        {"ticket": text("From POST /api/ticket.")},
        ("ticket",),
        ("Reauthenticated",),
        "Renew the sign-in of the open socket; the principal must be the same.",
    ),
}


def commands() -> list[str]:
    """The types of messages that the server knows: the cases in `Socket._obey`."""
    source = textwrap.dedent(inspect.getsource(websocket.Socket._obey))
    return [
        case.pattern.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Match)
        for case in node.cases
        if isinstance(case.pattern, ast.MatchValue)
        and isinstance(case.pattern.value, ast.Constant)
        and isinstance(case.pattern.value.value, str)
    ]


# The calls


def routes() -> dict[tuple[str, str], str]:
    """Every route of the application, as method and path, and what its handler says of itself."""
    app = create_app(Settings.model_construct(**_defaults()))
    found = {}
    for route in app.router.routes():
        resource = route.resource
        assert resource is not None
        if route.method not in ("HEAD", "OPTIONS") and resource.canonical:
            found[route.method, resource.canonical] = meaning(route.handler)
    return found


def _defaults() -> Json:
    return {name: field.default for name, field in Settings.model_fields.items()}


def in_path(name: str, schema: str) -> Json:
    """A parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": ref(schema)}


def in_query(name: str, schema: Json, description: str) -> Json:
    """A parameter after the question mark."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def in_header(name: str, description: str) -> Json:
    """A header that may be sent."""
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}


SESSION: Final = in_path("session_id", "SessionId")
STREAM: Final = in_path("stream_id", "StreamId")
TRACEPARENT: Final = in_header("traceparent", "W3C Trace Context; its trace id is the stream's.")

ALWAYS: Final = (400, 401, 403, 408, 421, 431, 500, 503)
"""What may become of any request, before anybody looks at what it asks."""
WITH_BODY: Final = (408, 413, 415, 417)


def json_content(name: str) -> Json:
    """A body of one schema's JSON."""
    return {"application/json": {"schema": ref(name)}}


def body_of(name: str) -> Json:
    """A request's body."""
    return {"required": True, "content": json_content(name)}


def told(name: str, description: str) -> Json:
    """An answer in JSON."""
    return {"description": description, "content": json_content(name)}


def stream_answer(description: str) -> Json:
    """An answer that is a stream of frames."""
    headers = {
        "X-Session-Id": ref("SessionId"),
        "X-Stream-Id": ref("StreamId"),
        "X-Trace-Id": ref("TraceId"),
        "X-Accel-Buffering": {"const": "no"},
        "Cache-Control": {"const": "no-store, no-transform"},
    }
    return {
        "description": f"{description} One frame per line; an empty line is a heartbeat.",
        "headers": {name: {"schema": schema} for name, schema in headers.items()},
        "content": {"application/x-ndjson": {"itemSchema": ref("Frame")}},
    }


def file_answer(description: str, media_type: str) -> Json:
    """An answer that is a file."""
    return {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}


@dataclasses.dataclass(frozen=True)
class Call:
    """What there is to know of a route beside what its handler says."""

    answer: Json
    refused: tuple[int, ...] = ()
    parameters: tuple[Json, ...] = ()
    body: str = ""
    summary: str = ""
    """Where the handler says nothing."""
    status: int = 200


NOTHING: Final[Json] = {"description": "Done."}
EXPORT_MD: Final = "text/markdown"

CALLS: Final[dict[tuple[str, str], Call]] = {
    ("POST", "/api/chat"): Call(
        stream_answer("The answer, from `after` on."),
        (404, 409, 410, 416, 422, 429),
        (TRACEPARENT,),
        "Question",
    ),
    ("GET", "/api/streams/{stream_id}"): Call(
        stream_answer("The frames after the position, live to the end."),
        (404, 410, 416, 422, 429),
        (
            STREAM,
            in_query("after", ref("Cursor"), "Overrides Last-Event-ID."),
            in_header("Last-Event-ID", "The same as `after`."),
        ),
    ),
    ("POST", "/api/streams/{stream_id}/cancel"): Call(
        told("Cancellation", "The result of the stop. Idempotent."), (404, 429), (STREAM,)
    ),
    ("GET", "/api/sessions"): Call(
        told("Sessions", "A page of sessions."),
        (422, 429),
        (
            in_query(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 50},
                "Maximum number of sessions.",
            ),
            in_query("before", {"type": "string"}, "`next` of the previous page."),
            in_query(
                "q",
                {"type": "string", "maxLength": MAX_QUERY},
                "Words that a session must contain.",
            ),
        ),
    ),
    ("PATCH", "/api/sessions/{session_id}"): Call(
        told("Session", "The session, with its title."), (404, 422, 429), (SESSION,), "Title"
    ),
    ("DELETE", "/api/sessions/{session_id}"): Call(NOTHING, (404, 429), (SESSION,), status=204),
    ("GET", "/api/sessions/{session_id}/messages"): Call(
        told("Messages", "One page, oldest first."),
        (404, 422, 429),
        (
            SESSION,
            in_query(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 50},
                "Maximum number of turns.",
            ),
            in_query(
                "before",
                {"type": "integer", "minimum": 1, "maximum": 2**53 - 1},
                "`next` of the previous page.",
            ),
        ),
    ),
    ("GET", "/api/sessions/{session_id}/export.json"): Call(
        told("Export", "A file."), (404, 409, 429), (SESSION,)
    ),
    ("GET", "/api/sessions/{session_id}/export.md"): Call(
        file_answer("A file.", EXPORT_MD), (404, 409, 429), (SESSION,)
    ),
    ("GET", "/api/info"): Call(
        told("Info", "Information about the server."),
        summary="Return what clients may know of the server.",
    ),
    ("GET", "/livez"): Call(
        told("Alive", "The event loop runs."), summary="Return 200 while the event loop runs."
    ),
    ("GET", "/readyz"): Call(
        told("Ready", "The server accepts new work."),
        summary="Return 200 while the server accepts new work, 503 while it shuts down.",
    ),
    ("GET", "/metrics"): Call(
        file_answer("The Prometheus text format.", "text/plain"), summary="Return the metrics."
    ),
    ("GET", "/api/admin/streams"): Call(
        told("AdminStreams", "The streams of this node."),
        (422,),
        (
            in_query(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": 1000},
                "Maximum number of sessions.",
            ),
        ),
    ),
    ("POST", "/api/admin/streams/{stream_id}/cancel"): Call(
        told("Cancellation", "The result of the stop."),
        (404, 409),
        (
            STREAM,
            in_query("owner", {"type": "string"}, "Selects one when two owners use the same id."),
        ),
    ),
    ("GET", "/ws"): Call(
        {"description": f"Switched to a WebSocket ({websocket.SUBPROTOCOL}): see asyncapi.json."},
        status=101,
    ),
    ("GET", "/"): Call(file_answer("HTML.", "text/html"), summary="The chat page."),
    ("GET", "/static/{path}"): Call(
        {"description": "A file.", "content": {"*/*": {}}},
        (404,),
        ({"name": "path", "in": "path", "required": True, "schema": {"type": "string"}},),
        summary="The page's files.",
    ),
    ("POST", "/api/login"): Call(
        {
            **told("Login", "Signed in; the response sets the cookie."),
            "headers": {"Set-Cookie": {"schema": {"type": "string"}}},
        },
        (404, 422),
        body="Credential",
    ),
    ("POST", "/api/logout"): Call(
        NOTHING,
        (),
        (
            in_query(
                "everywhere",
                {"type": "string", "enum": ["1"]},
                "End every sign-in of the principal, not only this cookie's.",
            ),
        ),
        status=204,
    ),
    ("POST", "/api/admin/revoke"): Call(
        told("Revoked", "Every sign-in of the principal has ended."),
        (404, 422),
        body="Revocation",
    ),
    ("POST", "/api/ticket"): Call(
        told("Ticket", "A ticket for Sec-WebSocket-Protocol, valid once."), (404,)
    ),
}


def operation(call: Call, method: str, path: str, said: str) -> Json:
    """One call, as OpenAPI writes it."""
    known = refusals()
    statuses = {*ALWAYS, *call.refused, *(WITH_BODY if call.body else ())} & known.keys()
    made: Json = {
        "operationId": _name_of(method, path),
        "summary": call.summary or said,
        "responses": {
            str(call.status): call.answer,
            **{
                str(status): {"$ref": f"#/components/responses/Refused{status}"}
                for status in sorted(statuses)
            },
        },
    }
    if call.parameters:
        made["parameters"] = list(call.parameters)
    if call.body:
        made["requestBody"] = body_of(call.body)
    return made


def _name_of(method: str, path: str) -> str:
    words = path.replace("{", "").replace("}", "").replace(".", "/").split("/")
    return "_".join([method.lower(), *(word for word in words if word)])


def openapi(*, closed: bool = False) -> Json:
    """The HTTP calls."""
    paths: Json = {}
    for (method, path), said in routes().items():
        call = CALLS[method, path]
        paths.setdefault(path, {})[method.lower()] = operation(call, method, path, said)
    schemas = Builder(closed=closed).schemas()
    for name in (
        "Cancelled",
        "RefusedMessage",
        "Pong",
        "Reauthenticated",
        *(COMMANDS[kind][0] for kind in COMMANDS),
    ):
        del schemas[name]  # of the WebSocket
    made: Json = {
        "openapi": "3.2.0",
        "info": _info("Calls of Jarvis Stream"),
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                f"Refused{status}": _refused(status, codes) for status, codes in refusals().items()
            },
        },
    }
    if HAS_LOGIN:
        made["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "login": {"type": "apiKey", "in": "cookie", "name": "jarvis_login"},
            "visitor": {
                "type": "apiKey",
                "in": "cookie",
                "name": "jarvis_visitor",
                "description": "The name ends with `_` and eight digits that the server chooses.",
            },
        }
        made["security"] = [{}, {"token": []}, {"login": []}, {"visitor": []}]
    return made


def _refused(status: int, codes: Mapping[str, str]) -> Json:
    made: Json = {
        "description": listed(codes),
        "content": {
            "application/json": {
                "schema": {
                    "allOf": [ref("Refusal"), {"properties": {"code": {"enum": list(codes)}}}]
                }
            }
        },
    }
    if status in (429, 503):
        seconds = {"type": "integer", "minimum": 0}
        made["headers"] = {"Retry-After": {"description": "Seconds.", "schema": seconds}}
    return made


def _info(title: str) -> Json:
    return {
        "title": title,
        "version": __version__,
        "description": f"Version {PROTOCOL} of the protocol; protocol.md describes it for people. "
        "Generated from the code by `make docs`.",
    }


def asyncapi(*, closed: bool = False) -> Json:
    """The WebSocket."""
    known = commands()
    said = {COMMANDS[kind][0]: COMMANDS[kind][4] for kind in known}
    replies = {name for kind in known for name in COMMANDS[kind][3]} | {"RefusedMessage"}
    schemas = Builder(closed=closed).schemas()
    messages = {
        name: {
            "summary": said.get(name) or schemas[name]["description"],
            "contentType": "application/json" if name in said else "application/x-ndjson",
            "payload": ref(name),
        }
        for name in (*said, *sorted(replies))
    }
    wanted = _needed(schemas, messages)
    operations: Json = {}
    for kind in known:
        name, _, _, answered, _ = COMMANDS[kind]
        operations[kind] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "messages": [_in_channel(name)],
            "reply": {
                "channel": {"$ref": "#/channels/socket"},
                "messages": [_in_channel(reply) for reply in (*answered, "RefusedMessage")],
            },
        }
    return {
        "asyncapi": "3.0.0",
        "info": _info("The WebSocket of Jarvis Stream"),
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/ws",
                "description": f"Subprotocol {websocket.SUBPROTOCOL}. A message of the client is "
                "one JSON object; one of the server is one or more lines, each a JSON object.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {name: schema for name, schema in schemas.items() if name in wanted},
        },
    }


def _in_channel(name: str) -> Json:
    return {"$ref": f"#/channels/socket/messages/{name}"}


def _needed(schemas: Json, start: Any) -> set[str]:
    """The schemas that something refers to, and those that they refer to."""
    found: set[str] = set()
    todo = [start]
    while todo:
        thing = todo.pop()
        if isinstance(thing, dict):
            name = str(thing.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in schemas and name not in found:
                found.add(name)
                todo.append(schemas[name])
            todo += thing.values()
        elif isinstance(thing, list):
            todo += thing
    return found


PAGES: Final = {"openapi": openapi, "asyncapi": asyncapi}


def page(name: str) -> str:
    """One of them, as it is in the file."""
    return json.dumps(PAGES[name](), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(page(sys.argv[1]), end="")

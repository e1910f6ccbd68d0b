"""The words a stream speaks: its frame kinds, each encoded once, newline included.

A frame is one JSON object on one line. The part that is the same in every frame of a stream is
encoded once per stream; a token then costs one format and one `orjson.dumps` of its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, TypeGuard

import orjson

from jarvis_stream.errors import AgentFailure, StreamFailure

PROTOCOL: Final = 1
"""The version of the wire contract, told in a stream's first frame."""

AGENT_REASONS: Final = frozenset({"stop", "length", "content_filter", "tool_calls"})
"""The finish reasons an agent may give; the others are the server's own."""

MAX_STRUCTURE_BYTES: Final = 64 * 1024
"""Bytes of JSON of a status's fields, or of `usage`."""
MAX_STRUCTURE_DEPTH: Final = 16
"""How deep their objects and arrays may be nested."""
MAX_SENTENCE_CHARS: Final = 4000
"""Characters of the sentence of an agent's failure; the rest is left out."""

_RESERVED: Final = frozenset(
    {"type", "stream_id", "trace_id", "epoch", "seq", "status", "session_id", "role", "protocol"}
)


_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""What an error code may look like."""


def well_formed(text: str) -> str:
    """Return the text with halves of surrogate pairs joined, and U+FFFD for each that is alone."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def json_copy(value: Any) -> Any:
    """Return a copy made of JSON's own types, its strings well-formed.

    Raises TypeError for a value that JSON cannot express.
    """
    return None if value is None else orjson.loads(_dumps(value))


def check_structure(name: str, value: Any) -> None:
    """Raise ValueError for an agent's structure that is larger or deeper than a frame may be.

    Raises TypeError for one that JSON cannot express.
    """
    encoded = _dumps(value)
    size = len(encoded)
    if size > MAX_STRUCTURE_BYTES:
        raise ValueError(
            f"{name} of an agent has {size} bytes of JSON, more than {MAX_STRUCTURE_BYTES}"
        )
    level = [orjson.loads(encoded)]
    for _ in range(MAX_STRUCTURE_DEPTH):
        level = [item for one in level for item in _items(one)]
        if not level:
            return
    raise ValueError(f"{name} of an agent is nested more than {MAX_STRUCTURE_DEPTH} levels deep")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_repaired(value))


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, Mapping):
        return {_repaired(key): _repaired(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_repaired(item) for item in value]
    return value


class Message(TypedDict):
    """One message of a session: `role` is `user`, `assistant` or `system`."""

    role: str
    content: str


class Status:
    """Something an agent does besides speaking: `Status("tool", name="search", detail="…")`.

    `fields` must be JSON-serialisable and may not take the protocol's own names
    (raises ValueError).
    """

    __slots__ = ("fields", "status")

    def __init__(self, status: str, /, **fields: Any) -> None:
        if not isinstance(status, str) or not status:
            raise ValueError(f"a status needs a name, not {status!r}")
        if taken := _RESERVED & fields.keys():
            raise ValueError(f"status field {min(taken)!r} belongs to the protocol")
        self.status = status
        self.fields: Mapping[str, Any] = fields

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Status)
            and self.status == other.status
            and self.fields == other.fields
        )

    def __hash__(self) -> int:
        return hash(self.status)

    def __repr__(self) -> str:
        rest = "".join(f", {name}={value!r}" for name, value in self.fields.items())
        return f"Status({self.status!r}{rest})"


@dataclass(frozen=True, slots=True)
class Done:
    """The ending of a stream that did not fail.

    An agent may yield one as its last piece to tell the upstream's `finish_reason` (one of
    `AGENT_REASONS`) and `usage`; without it the reason is `stop`.
    """

    finish_reason: str = "stop"
    usage: Mapping[str, Any] | None = None
    superseded_by: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The ending of a stream that failed: a sentence for people, no internals."""

    code: str
    error: str
    retryable: bool

    @classmethod
    def of(cls, failure: StreamFailure) -> Failed:
        """Return the ending that a failure makes, whatever an agent has put into the failure."""
        try:
            code = failure.code
            return cls(
                code if isinstance(code, str) and _CODE.fullmatch(code) else AgentFailure.code,
                well_formed(str(failure.sentence)[:MAX_SENTENCE_CHARS]),
                bool(failure.retryable),
            )
        except Exception:
            return cls(AgentFailure.code, AgentFailure.sentence, AgentFailure.retryable)


Ending = Done | Failed


class FrameEncoder:
    """Encodes the frames of one stream."""

    __slots__ = ("_head", "_ids", "_token")

    def __init__(self, stream_id: str, trace_id: str, epoch: int) -> None:
        ids = orjson.dumps({"stream_id": stream_id, "trace_id": trace_id, "epoch": epoch})
        self._ids = ids[1:-1]
        self._token = b'{"type":"token",%b,"seq":' % self._ids
        self._head = self._token.decode()

    def token(self, seq: int, text: str) -> bytes:
        """A piece of the answer. `text` holds no lone surrogate (orjson refuses them)."""
        return b'%b%d,"text":%b}\n' % (self._token, seq, orjson.dumps(text))

    def frames(self, first: int, pieces: Sequence[str | bytes]) -> bytes:
        """The frames from `first` on: `pieces` are the texts of tokens, and others as they are."""
        if _are_plain(pieces):
            # Byte for byte what `token` makes of them, at half the price.
            head = self._head
            return "".join(
                [f'{head}{seq},"text":"{text}"}}\n' for seq, text in enumerate(pieces, first)]
            ).encode()
        return b"".join([self._frame(seq, piece) for seq, piece in enumerate(pieces, first)])

    def _frame(self, seq: int, piece: str | bytes) -> bytes:
        return self.token(seq, piece) if isinstance(piece, str) else piece

    def status(self, seq: int, status: Status) -> bytes:
        """An agent's status; raises TypeError when a field is not JSON-serialisable."""
        return self._line(b"status", seq, {"status": status.status, **status.fields})

    def thinking(self, seq: int, session_id: str, *, replaces: str | None = None) -> bytes:
        """Frame 1 of every stream; `replaces` names the one whose place it takes."""
        fields = {
            "status": "thinking",
            "session_id": session_id,
            "role": "assistant",
            "protocol": PROTOCOL,
        }
        if replaces is not None:
            fields["replaces"] = replaces
        return self._line(b"status", seq, fields)

    def ending(self, seq: int, ending: Ending, *, saved: bool = True) -> bytes:
        """The terminal frame; it says so when the history could not keep the answer."""
        fields: dict[str, Any]
        if isinstance(ending, Failed):
            kind = b"error"
            fields = {"code": ending.code, "error": ending.error, "retryable": ending.retryable}
        else:
            kind = b"done"
            fields = {"finish_reason": ending.finish_reason}
            if ending.usage is not None:
                fields["usage"] = ending.usage
            if ending.superseded_by is not None:
                fields["superseded_by"] = ending.superseded_by
        if not saved:
            fields["saved"] = False
        return self._line(kind, seq, fields)

    def _line(self, kind: bytes, seq: int, fields: Mapping[str, Any]) -> bytes:
        rest = _dumps(fields)[1:]
        return b'{"type":"%b",%b,"seq":%d,%b\n' % (kind, self._ids, seq, rest)


def _are_plain(pieces: Sequence[str | bytes]) -> TypeGuard[Sequence[str]]:
    """Whether all are texts, of characters that JSON writes as themselves, in one byte each."""
    if type(pieces[0]) is bytes or type(pieces[-1]) is bytes:  # as a stream begins, and as it ends
        return False
    try:
        text = "".join(pieces)  # type: ignore[arg-type]
    except TypeError:
        return False
    return len(orjson.dumps(text)) == len(text) + 2

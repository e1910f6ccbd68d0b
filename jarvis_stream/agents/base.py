"""The port of those who speak: what an agent is given, and what it may say.

An agent is an async generator function (or an object whose `__call__` is one):

    async def agent(turn: Turn) -> AsyncIterator[str | Status | Done]:
        yield "Hello, "
        yield turn.prompt

It yields text pieces, `Status(...)` for what it does besides speaking, and, if it knows them, one
`Done(...)` last with the finish reason and the usage. When the answer is no longer wanted it is
cancelled at whatever await it stands, or closed at its `yield`; its `finally` has the whole of the
cancel bound (2.0 s by default) to tidy up. Whatever it raises ends the stream with an `error`
frame: a `StreamFailure` with its own code and sentence, anything else as `agent_error`.

An agent object that is an async context manager is entered once at start-up and left at shutdown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jarvis_stream.frames import Done, Message, Status

Piece = str | Status | Done


@dataclass(frozen=True, slots=True)
class Turn:
    """One question, and what was said before it."""

    prompt: str
    messages: Sequence[Message]
    """The session so far, oldest first, the new message last."""
    session_id: str
    stream_id: str
    trace_id: str
    traceparent: str = ""
    """The stream's place in that trace (W3C Trace Context), to hand on to whoever is asked next."""
    owner: str = ""
    """Whose session it is, where people sign in: two of them may use the same session_id."""


class Agent(Protocol):
    """Whoever answers."""

    def __call__(self, turn: Turn, /) -> AsyncIterator[Piece]:
        """Begin one answer; called once per stream, iterated in the stream's own task."""
        ...

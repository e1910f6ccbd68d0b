"""The port of what is kept: a session's turns, each a question and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jarvis_stream.frames import Message


@dataclass(slots=True)
class TurnRecord:
    """One question and its answer.

    `status` is `streaming`, `complete`, `cancelled`, `superseded`, `error` or `interrupted`; the
    text of an answer that did not complete is kept as far as it came.
    """

    stream_id: str
    prompt: str
    created_at: float
    """Seconds since the epoch."""
    text: str = ""
    status: str = "streaming"


class History(Protocol):
    """Keeps turns. Calls are made from the event loop and do not block it."""

    def begin(self, session_id: str, stream_id: str, prompt: str) -> None:
        """A question was accepted."""
        ...

    def finish(self, session_id: str, stream_id: str, text: str, status: str) -> None:
        """Its answer has ended; called before the terminal frame is logged."""
        ...

    def turns(self, session_id: str) -> list[TurnRecord]:
        """The session's turns, oldest first; empty for an unknown session."""
        ...

    def messages(self, session_id: str) -> list[Message]:
        """What the agent gets: the newest messages within the bounds, oldest first."""
        ...

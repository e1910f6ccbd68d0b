"""History in this process's memory: bounded, and gone with it."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

from jarvis_stream.frames import Message
from jarvis_stream.history.base import TurnRecord


class MemoryHistory:
    """Keeps the newest turns of the sessions used last.

    At most `max_sessions` sessions, of each at most `max_messages` messages and `max_chars`
    characters; the newest turn is kept whatever its length.
    """

    def __init__(
        self, *, max_sessions: int = 10_000, max_messages: int = 100, max_chars: int = 200_000
    ) -> None:
        self._max_sessions = max_sessions
        self._max_turns = max(1, max_messages // 2)
        self._max_chars = max_chars
        self._sessions: OrderedDict[str, deque[TurnRecord]] = OrderedDict()

    def begin(self, session_id: str, stream_id: str, prompt: str) -> None:
        """See History.begin."""
        turns = self._sessions.setdefault(session_id, deque())
        self._sessions.move_to_end(session_id)
        turns.append(TurnRecord(stream_id, prompt, time.time()))
        self._trim(turns)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)

    def finish(self, session_id: str, stream_id: str, text: str, status: str) -> None:
        """See History.finish; an answer whose turn was trimmed away is dropped."""
        turns = self._sessions.get(session_id, ())
        for turn in reversed(turns):
            if turn.stream_id == stream_id:
                turn.text, turn.status = text, status
                break
        if isinstance(turns, deque):
            self._trim(turns)

    def turns(self, session_id: str) -> list[TurnRecord]:
        """See History.turns."""
        return list(self._sessions.get(session_id, ()))

    def messages(self, session_id: str) -> list[Message]:
        """See History.messages."""
        messages: list[Message] = []
        for turn in self._sessions.get(session_id, ()):
            messages.append({"role": "user", "content": turn.prompt})
            if turn.text:
                messages.append({"role": "assistant", "content": turn.text})
        return messages

    def _trim(self, turns: deque[TurnRecord]) -> None:
        chars = sum(len(turn.prompt) + len(turn.text) for turn in turns)
        while len(turns) > 1 and (len(turns) > self._max_turns or chars > self._max_chars):
            oldest = turns.popleft()
            chars -= len(oldest.prompt) + len(oldest.text)

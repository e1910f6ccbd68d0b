"""History in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from contracts.history import PATIENT, Backend, HistoryContract, Speaker

from jarvis_stream.history.base import History, Limits
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.history.open import open_history


@pytest.fixture
def backend() -> Backend:
    @asynccontextmanager
    async def open_one(limits: Limits = PATIENT) -> AsyncIterator[History]:
        async with open_history("memory:", limits) as history:
            yield history

    return open_one


class TestMemory(HistoryContract):
    """See the contract."""


async def test_the_sessions_used_longest_ago_leave_first() -> None:
    history = MemoryHistory(max_sessions=2)
    speaker = Speaker(history)
    for stream_id, session_id in enumerate("abac"):
        await speaker.turn(session_id, str(stream_id))
    assert {one.session_id for one in (await history.sessions()).sessions} == {"a", "c"}
    assert history.health.dropped == 1


async def test_the_text_of_all_sessions_is_bounded() -> None:
    history = MemoryHistory(max_kept_chars=100)
    speaker = Speaker(history)
    await speaker.turn("a", "1", text="x" * 60)
    begun, answer = speaker.ask("b", "2")
    await begun
    answer.say("x" * 60)
    assert await speaker.end("2")
    assert [one.session_id for one in (await history.sessions()).sessions] == ["b"]
    assert await history.last_epoch() == 2


async def test_its_futures_are_resolved_at_once() -> None:
    speaker = Speaker(MemoryHistory())
    begun, _ = speaker.ask("s", "1")
    assert begun.done()
    assert speaker.end("1").done()

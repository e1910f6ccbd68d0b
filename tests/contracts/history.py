"""What every history promises. Feed it a `backend` fixture: how to open one, empty at first."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

import pytest
from profiles import patience

from jarvis_stream.errors import Invalid, Unavailable
from jarvis_stream.frames import Message
from jarvis_stream.history.base import (
    Begun,
    EndStatus,
    History,
    Limits,
    Removed,
    SessionRecord,
    Span,
    TurnEnd,
    TurnRecord,
    TurnStart,
)
from jarvis_stream.ids import key_of

NASTY = (
    "a\x00b\x10c\x10@\x10P\x00\x00 \U0001f600 e\u0301 \u2028\u2029\x85\r\n\t\ufeff\x7f 'x' %s {}"
)

PATIENCE = patience(20.0)
PATIENT = Limits(begin_timeout=PATIENCE, save_timeout=PATIENCE, read_timeout=PATIENCE)
"""However busy the machine is: what is promised here is not promised within a time."""
QUICK = replace(PATIENT, checkpoint_every=0.01)
"""The same, for those that wait for text to be kept while it grows."""


class Backend(Protocol):
    """Opens a history; every time the same one, where it can be kept."""

    def __call__(self, limits: Limits = PATIENT) -> AbstractAsyncContextManager[History]: ...


class FakeAnswer:
    """An answer that grows when a test says so."""

    def __init__(self, text: str = "") -> None:
        self._raw = bytearray(text.encode())

    def say(self, text: str) -> None:
        self._raw += text.encode()

    @property
    def text_size(self) -> int:
        return len(self._raw)

    def text_from(self, start: int, /) -> str:
        return self._raw[start:].decode()


class Speaker:
    """Begins and ends turns in a history, with growing epochs and times."""

    def __init__(self, history: History, *, first: int = 1) -> None:
        self.history = history
        self._epochs = itertools.count(first)
        self._epoch_of: dict[str, int] = {}
        self._session_of: dict[str, str] = {}

    def ask(
        self,
        session_id: str,
        stream_id: str,
        prompt: str = "q",
        *,
        epoch: int | None = None,
        **more: Any,
    ) -> tuple[asyncio.Future[Begun], FakeAnswer]:
        if epoch is None:
            epoch = next(self._epochs)
        self._epoch_of[stream_id] = epoch
        self._session_of[stream_id] = session_id
        answer = FakeAnswer()
        turn = TurnStart(
            session_id=session_id,
            stream_id=stream_id,
            epoch=epoch,
            prompt=prompt,
            created_at=1_700_000_000.0 + epoch / 4,
            **more,
        )
        return self.history.begin(turn, answer), answer

    def end(
        self, stream_id: str, status: EndStatus = "complete", **more: Any
    ) -> asyncio.Future[bool]:
        return self.history.finish(stream_id, TurnEnd(status=status, **more))

    @property
    def after_all(self) -> int:
        """An epoch that is higher than those so far."""
        return max(self._epoch_of.values(), default=0) + 1

    def discard(self, stream_id: str) -> asyncio.Future[bool]:
        """Remove one turn; resolves to whether that is durable."""
        epoch = self._epoch_of[stream_id]
        removing = self.history.remove(Span(self._session_of[stream_id], epoch, epoch + 1))
        saved: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if removing.done():
            saved.set_result(removing.result().saved)
        else:
            removing.add_done_callback(lambda done: saved.set_result(done.result().saved))
        return saved

    async def delete(self, session_id: str) -> bool:
        """Remove what a session has; return whether that was anything."""
        return await deleted(self.history, session_id, self.after_all)

    async def turn(
        self, session_id: str, stream_id: str, prompt: str = "q", text: str = "a"
    ) -> None:
        begun, answer = self.ask(session_id, stream_id, prompt)
        assert (await begun).saved
        answer.say(text)
        assert await self.end(stream_id)

    async def keep(
        self, session_id: str, stream_id: str, prompt: str = "q", text: str = "a"
    ) -> None:
        """A turn that is saved in the end, where the history itself is impatient."""
        begun, answer = self.ask(session_id, stream_id, prompt)
        await begun
        answer.say(text)
        await self.end(stream_id)
        await saved(self.history)


async def deleted(history: History, session_id: str, before: int) -> bool:
    """Remove a session's turns with a lower epoch; return whether there were any."""
    removed = await asyncio.shield(history.remove(Span(session_id, 0, before)))
    if not removed.saved:
        raise Unavailable("not now")
    return removed.existed


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until another process, or a database, has come to something."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 (nobody here could set an event)
            await asyncio.sleep(0.02)


async def saved(history: History) -> None:
    """Wait until nothing is owed."""

    async def nothing_owed() -> bool:
        return history.health.backlog == 0

    await eventually(nothing_owed)


def plain(messages: list[Message]) -> list[str]:
    return [f"{message['role'][0]}:{message['content']}" for message in messages]


def shapes(turns: list[TurnRecord]) -> list[tuple[str, str, str, str]]:
    return [(turn.stream_id, turn.prompt, turn.text, turn.status) for turn in turns]


async def all_sessions(history: History, *, limit: int) -> list[list[SessionRecord]]:
    """Every page of the list."""
    pages = [await history.sessions(limit=limit)]
    while pages[-1].next is not None:
        pages.append(await history.sessions(limit=limit, before=pages[-1].next))
    return [page.sessions for page in pages]


class HistoryContract:
    """What they all do."""

    @pytest.fixture
    async def history(self, backend: Backend) -> AsyncIterator[History]:
        async with backend() as history:
            yield history

    @pytest.fixture
    def speaker(self, history: History) -> Speaker:
        return Speaker(history)

    async def test_two_owners_never_meet(self, history: History, speaker: Speaker) -> None:
        mine, theirs = key_of("ann", "s"), key_of("bob/evil", "s")
        for session, stream in ((mine, "ann/1"), (theirs, "bob/evil/1"), ("s", "1")):
            await speaker.turn(session, stream, f"of {session}", "x" * 10)
        assert [turn.prompt for turn in await history.turns(mine)] == ["of ann/s"]
        found = await history.turn("bob/evil/1")
        assert found is not None
        assert found.prompt == "of bob/evil/s"
        for owner, session in (("ann", mine), ("bob/evil", theirs), ("", "s")):
            page = await history.sessions(owner=owner, query="OF")
            assert [one.session_id for one in page.sessions] == [session]
            assert await history.count(owner) == 1
        assert await history.count("bob") == 0
        assert (await history.sessions(owner="bob")).sessions == []
        begun, _ = speaker.ask(mine, "ann/2", "again")
        assert plain((await begun).messages) == ["u:of ann/s", "a:" + "x" * 10, "u:again"]
        assert await speaker.delete(mine)
        assert await history.turns(mine) == []
        assert len(await history.turns(theirs)) == len(await history.turns("s")) == 1
        assert await history.rename(mine, "mine") is None
        renamed = await history.rename(theirs, "theirs")
        assert renamed is not None
        assert renamed.title == "theirs"
        unnamed = await history.session("s")
        assert unnamed is not None
        assert unnamed.title == "of s"

    async def test_the_longest_names_fit(self, history: History, speaker: Speaker) -> None:
        owner = "\U0001f600" * 256
        session, stream = key_of(owner, "s" * 128), key_of(owner, "0" * 36)
        await speaker.turn(session, stream)
        assert [turn.stream_id for turn in await history.turns(session)] == [stream]
        page = await history.sessions(owner=owner)
        assert [one.session_id for one in page.sessions] == [session]

    async def test_a_finished_turn_is_read_as_it_was(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1", "question")
        assert await begun == Begun(True, [{"role": "user", "content": "question"}])
        answer.say("ans")
        answer.say("wer")
        usage = {"total_tokens": 3, "details": {"cached": None}}
        assert await speaker.end("1", finish_reason="length", usage=usage)
        expected = TurnRecord(
            session_id="s",
            stream_id="1",
            epoch=1,
            prompt="question",
            created_at=1_700_000_000.25,
            text="answer",
            status="complete",
            finish_reason="length",
            usage=usage,
        )
        assert await history.turns("s") == [expected]
        assert await history.turn("1") == expected

    async def test_how_a_turn_failed_is_kept_and_whose_log_lines_tell_of_it(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, _ = speaker.ask("s", "1", trace_id="ab" * 16)
        await begun
        told: dict[str, Any] = {"error_code": "too_long", "error": NASTY, "retryable": False}
        assert await speaker.end("1", "error", ended_at=1_700_000_001.5, **told)
        (turn,) = await history.turns("s")
        assert (turn.trace_id, turn.ended_at) == ("ab" * 16, 1_700_000_001.5)
        assert {name: getattr(turn, name) for name in told} == told

    async def test_nothing_is_known_of_the_unknown(self, history: History) -> None:
        assert await history.turn("1") is None
        assert await history.turns("s") == []
        assert await history.sessions() == type(await history.sessions())([], None)
        assert await history.last_epoch() == 0
        assert not await history.finish("1", TurnEnd(status="complete"))
        assert await history.remove(Span("s", 1, 2)) == Removed(saved=True, existed=False)
        assert not await deleted(history, "s", 2)
        assert await history.session("s") is None
        assert await history.rename("s", "title") is None
        assert (await history.sessions(query="title")).sessions == []

    @pytest.mark.parametrize(
        "status", ["complete", "cancelled", "superseded", "error", "interrupted"]
    )
    async def test_every_ending_keeps_the_text_so_far(
        self, history: History, speaker: Speaker, status: EndStatus
    ) -> None:
        begun, answer = speaker.ask("s", "1")
        await begun
        answer.say("half an ans")
        assert await speaker.end("1", status, error_code="too_long" if status == "error" else None)
        (turn,) = await history.turns("s")
        assert (turn.text, turn.status) == ("half an ans", status)
        assert turn.error_code == ("too_long" if status == "error" else None)

    async def test_the_final_text_is_taken_when_finish_is_called(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1")
        answer.say("kept")
        ended = speaker.end("1")
        answer.say(" and no more")
        assert (await begun).saved
        assert await ended
        assert shapes(await history.turns("s")) == [("1", "q", "kept", "complete")]

    async def test_finishing_twice_changes_nothing(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1")
        await begun
        answer.say("a")
        first, second = speaker.end("1", "cancelled"), speaker.end("1", "complete")
        assert (await first, await second) == (True, False)
        assert not await speaker.end("1", "complete")
        assert shapes(await history.turns("s")) == [("1", "q", "a", "cancelled")]

    async def test_any_text_comes_back_as_it_was(self, history: History, speaker: Speaker) -> None:
        begun, answer = speaker.ask("s", "1", NASTY)
        assert (await begun).messages == [{"role": "user", "content": NASTY}]
        answer.say(NASTY)
        assert await speaker.end("1")
        assert shapes(await history.turns("s")) == [("1", NASTY, NASTY, "complete")]
        begun, _ = speaker.ask("s", "2")
        assert plain((await begun).messages) == [f"u:{NASTY}", f"a:{NASTY}", "u:q"]

    async def test_an_answer_of_four_mebibytes_is_kept(
        self, history: History, speaker: Speaker
    ) -> None:
        text = "0123456789abcdef" * (4 * 1024 * 1024 // 16)
        await speaker.turn("s", "1", text=text)
        (turn,) = await history.turns("s")
        assert turn.text == text

    # What an agent is told

    async def test_a_begin_after_a_finish_sees_its_answer_without_waiting(
        self, speaker: Speaker
    ) -> None:
        _, answer = speaker.ask("s", "1", "q1")
        answer.say("a1")
        speaker.end("1", "superseded")
        begun, _ = speaker.ask("s", "2", "q2")
        assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2"]

    async def test_an_unfinished_answer_is_told_as_far_as_it_came(self, speaker: Speaker) -> None:
        begun, answer = speaker.ask("s", "1", "q1")
        await begun
        answer.say("half")
        begun, _ = speaker.ask("s", "2", "q2")
        assert plain((await begun).messages) == ["u:q1", "a:half", "u:q2"]

    async def test_an_empty_answer_is_left_out(self, speaker: Speaker) -> None:
        await speaker.turn("s", "1", "q1", text="")
        begun, _ = speaker.ask("s", "2", "q2")
        assert plain((await begun).messages) == ["u:q1", "u:q2"]

    async def test_what_an_older_epoch_is_told_is_older_still(self, history: History) -> None:
        await Speaker(history, first=10).turn("s", "1", "q10", "a10")
        await Speaker(history, first=20).turn("s", "2", "q20", "a20")
        begun, _ = Speaker(history, first=15).ask("s", "3", "q15")
        assert plain((await begun).messages) == ["u:q10", "a:a10", "u:q15"]
        assert [turn.epoch for turn in await history.turns("s")] == [10, 15, 20]

    async def test_later_turns_and_other_sessions_are_not_told(self, speaker: Speaker) -> None:
        await speaker.turn("other", "0")
        begun = [speaker.ask("s", str(number), f"q{number}")[0] for number in range(1, 4)]
        assert [plain((await one).messages) for one in begun] == [
            ["u:q1"],
            ["u:q1", "u:q2"],
            ["u:q1", "u:q2", "u:q3"],
        ]

    @pytest.mark.parametrize(
        ("max_messages", "max_chars", "told"),
        [
            (100, 1000, ["u:q1", "a:a1", "u:q2", "a:a2", "u:new"]),
            (5, 11, ["u:q1", "a:a1", "u:q2", "a:a2", "u:new"]),
            (4, 1000, ["u:q2", "a:a2", "u:new"]),
            (100, 10, ["u:q2", "a:a2", "u:new"]),
            (2, 1000, ["u:new"]),
            (1, 1000, ["u:new"]),
            (100, 1, ["u:new"]),
        ],
    )
    async def test_whole_turns_are_told_within_the_bounds(
        self, backend: Backend, max_messages: int, max_chars: int, told: list[str]
    ) -> None:
        limits = replace(PATIENT, max_messages=max_messages, max_chars=max_chars)
        async with backend(limits) as history:
            speaker = Speaker(history)
            await speaker.turn("s", "1", "q1", "a1")
            await speaker.turn("s", "2", "q2", "a2")
            begun, _ = speaker.ask("s", "3", "new")
            assert plain((await begun).messages) == told

    # The same stream_id again

    async def test_a_stream_id_that_lives_is_taken(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1", "q1")
        answer.say("a1")
        again, _ = speaker.ask("t", "1", "q2")
        assert (await begun).saved
        assert (await again) == Begun(False, [{"role": "user", "content": "q2"}], taken=True)
        assert await speaker.end("1")
        assert shapes(await history.turns("s")) == [("1", "q1", "a1", "complete")]
        assert await history.turns("t") == []

    @pytest.mark.parametrize("session_id", ["s", "t"])
    async def test_a_stream_id_that_has_ended_is_taken(
        self, history: History, speaker: Speaker, session_id: str
    ) -> None:
        await speaker.turn("s", "1", "q1", "a1")
        begun, answer = speaker.ask(session_id, "1", "q2")
        answer.say("a2")
        result = await begun
        assert (result.saved, result.taken) == (False, True)
        assert not await speaker.end("1")
        assert shapes(await history.turns("s")) == [("1", "q1", "a1", "complete")]
        assert [one.session_id for one in (await history.sessions()).sessions] == ["s"]

    # Removing

    async def test_a_discarded_turn_is_gone(self, history: History, speaker: Speaker) -> None:
        await speaker.turn("s", "1", "q1", "a1")
        await speaker.turn("s", "2", "q2", "a2")
        assert await speaker.discard("2")
        assert await speaker.discard("2")
        assert await history.turn("2") is None
        assert shapes(await history.turns("s")) == [("1", "q1", "a1", "complete")]
        begun, _ = speaker.ask("s", "3", "q3")
        assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q3"]

    async def test_a_turn_that_is_rolled_back_is_not_told_to_the_next(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "q1", "a1")
        _, answer = speaker.ask("s", "2", "oops")
        answer.say("half")
        ended, discarded = speaker.end("2", "cancelled"), speaker.discard("2")
        begun, _ = speaker.ask("s", "3", "q3")
        assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q3"]
        assert await discarded
        await ended
        assert [turn.stream_id for turn in await history.turns("s")] == ["1", "3"]

    async def test_a_live_turn_that_is_discarded_cannot_be_finished(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1")
        await begun
        answer.say("a")
        assert await speaker.discard("1")
        assert not await speaker.end("1")
        assert await history.turns("s") == []

    async def test_a_session_without_turns_is_none(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "first")
        await speaker.turn("s", "2", "second")
        assert await speaker.discard("1")
        (session,) = (await history.sessions()).sessions
        assert (session.title, session.created_at) == ("second", session.updated_at)
        assert await speaker.discard("2")
        assert (await history.sessions()).sessions == []
        assert not await speaker.delete("s")

    async def test_discarding_the_newest_turn_turns_the_clock_back(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1")
        before = await history.sessions()
        await speaker.turn("s", "2")
        assert await speaker.discard("2")
        assert await history.sessions() == before

    async def test_a_deleted_session_is_gone(self, history: History, speaker: Speaker) -> None:
        await speaker.turn("s", "1")
        await speaker.turn("t", "2")
        begun, _ = speaker.ask("s", "3")
        await begun
        assert await speaker.delete("s")
        assert not await speaker.delete("s")
        assert not await speaker.end("3")
        assert await history.turns("s") == []
        assert await history.turn("1") is None
        assert [one.session_id for one in (await history.sessions()).sessions] == ["t"]

    async def test_a_deleted_session_can_be_begun_anew(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "old")
        deleting = asyncio.ensure_future(speaker.delete("s"))
        await asyncio.sleep(0)
        begun, _ = speaker.ask("s", "2", "new")
        assert plain((await begun).messages) == ["u:new"]
        assert await deleting
        assert shapes(await history.turns("s")) == [("2", "new", "", "streaming")]

    async def test_what_came_after_a_deletion_stays(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "old")
        await history.rename("s", "given")
        before = speaker.after_all
        await speaker.turn("s", "2", "new")
        assert await deleted(history, "s", before)
        assert not await deleted(history, "s", before)
        assert shapes(await history.turns("s")) == [("2", "new", "a", "complete")]
        (session,) = (await history.sessions()).sessions
        assert (session.title, session.created_at) == ("new", session.updated_at)

    async def test_a_turn_that_had_the_stream_id_before_is_not_discarded(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "old")
        begun, _ = speaker.ask("s", "1", "new")
        discarded = speaker.discard("1")
        await begun
        await discarded
        assert shapes(await history.turns("s")) == [("1", "old", "a", "complete")]

    async def test_a_turn_that_is_begun_again_is_told_what_came_meanwhile(
        self, history: History, speaker: Speaker
    ) -> None:
        _, first = speaker.ask("s", "1", "q1")
        begun, _ = speaker.ask("s", "2", "q2")
        assert plain((await begun).messages) == ["u:q1", "u:q2"]
        first.say("a1")
        speaker.end("1")
        begun, answer = speaker.ask("s", "2", "q2", epoch=2)
        assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2"]
        answer.say("a2")
        assert await speaker.end("2")
        assert shapes(await history.turns("s")) == [
            ("1", "q1", "a1", "complete"),
            ("2", "q2", "a2", "complete"),
        ]

    async def test_a_sessions_only_turn_can_be_begun_again_and_keeps_the_title(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.ask("s", "1", "q")[0]
        await history.rename("s", "given")
        again, answer = speaker.ask("s", "1", "q", epoch=1)
        assert (await again).saved
        assert plain((await again).messages) == ["u:q"]
        answer.say("a")
        assert await speaker.end("1")
        (session,) = (await history.sessions()).sessions
        assert (session.title, session.message_count) == ("given", 2)

    async def test_what_a_turn_has_replaced_stays_away_when_it_is_begun_again(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "q1", "a1")
        speaker.ask("s", "2", "q1 again", replaces_from=1)
        again, _ = speaker.ask("s", "2", "q1 again", epoch=2)
        assert plain((await again).messages) == ["u:q1 again"]
        assert [turn.stream_id for turn in await history.turns("s")] == ["2"]

    async def test_a_removal_holds_for_what_comes_later(
        self, history: History, speaker: Speaker
    ) -> None:
        assert not (await history.remove(Span("s", 3, 5))).existed
        assert not (await history.remove(Span("s", 0, 2))).existed
        assert not (await history.remove(Span("s", 3, 5))).existed
        begun = [speaker.ask("s", str(epoch), f"q{epoch}", epoch=epoch)[0] for epoch in range(1, 6)]
        results = await asyncio.gather(*begun)
        assert [result.removed for result in results] == [True, False, True, True, False]
        assert [result.saved for result in results] == [False, True, False, False, True]
        assert not await speaker.end("1")
        assert [turn.stream_id for turn in await history.turns("s")] == ["2", "5"]
        assert await history.turn("3") is None

    async def test_epochs_outlive_what_had_them(self, history: History, speaker: Speaker) -> None:
        for number in range(1, 4):
            await speaker.turn("s", str(number))
        await speaker.turn("t", "4")
        assert await history.last_epoch() == 4
        await speaker.discard("4")
        assert await history.last_epoch() == 4
        await speaker.discard("2")
        await speaker.delete("s")
        assert await history.last_epoch() == 4
        await speaker.turn("s", "5")
        assert await history.last_epoch() == 5
        await speaker.delete("s")
        assert await history.last_epoch() == 5

    # Taking another turn's place

    async def test_a_turn_takes_the_place_of_another_and_of_all_that_follow_it(
        self, history: History, speaker: Speaker
    ) -> None:
        for number in range(1, 5):
            await speaker.turn("s", str(number), f"q{number}", f"a{number}")
        await speaker.turn("t", "5")
        begun, answer = speaker.ask("s", "6", "q2 again", replaces_from=2)
        result = await begun
        assert result.saved
        assert plain(result.messages) == ["u:q1", "a:a1", "u:q2 again"]
        answer.say("a6")
        assert await speaker.end("6")
        assert shapes(await history.turns("s")) == [
            ("1", "q1", "a1", "complete"),
            ("6", "q2 again", "a6", "complete"),
        ]
        assert await history.turn("3") is None
        assert len(await history.turns("t")) == 1
        begun, _ = speaker.ask("s", "7", "q7")
        assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2 again", "a:a6", "u:q7"]

    async def test_what_is_replaced_while_it_lives_does_not_come_back(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1", "q1")
        await begun
        answer.say("half")
        ended = speaker.end("1", "superseded")
        begun, _ = speaker.ask("s", "2", "q1 again", replaces_from=1)
        late = speaker.end("1", "complete")
        assert plain((await begun).messages) == ["u:q1 again"]
        await ended
        assert not await late
        assert shapes(await history.turns("s")) == [("2", "q1 again", "", "streaming")]

    async def test_one_that_was_never_ended_is_replaced(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1", "q1")
        await begun
        begun, _ = speaker.ask("s", "2", "q1 again", replaces_from=1)
        answer.say("late")
        assert not await speaker.end("1")
        assert (await begun).saved
        assert shapes(await history.turns("s")) == [("2", "q1 again", "", "streaming")]

    async def test_one_after_the_other_takes_the_same_place(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "q1", "a1")
        await speaker.turn("s", "2", "q2", "a2")
        begun = [
            speaker.ask("s", str(number), f"q{number}", replaces_from=number - 1)[0]
            for number in range(3, 10)
        ]
        assert plain((await begun[-1]).messages) == ["u:q1", "a:a1", "u:q9"]
        assert [turn.stream_id for turn in await history.turns("s")] == ["1", "9"]
        (session,) = (await history.sessions()).sessions
        assert session.message_count == 4

    async def test_the_first_question_is_replaced_and_a_title_given_stays(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "first")
        await speaker.turn("t", "2", "named")
        assert await history.rename("t", "title")
        for session_id, stream_id, epoch in (("s", "3", 1), ("t", "4", 2)):
            begun, _ = speaker.ask(session_id, stream_id, "another", replaces_from=epoch)
            assert (await begun).saved
        listed = (await history.sessions()).sessions
        assert [(one.session_id, one.title, one.message_count) for one in listed] == [
            ("t", "title", 2),
            ("s", "another", 2),
        ]
        assert await history.last_epoch() == 4

    async def test_what_replaced_another_and_is_discarded_leaves_neither(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "q1", "a1")
        await speaker.turn("s", "2", "q2", "a2")
        speaker.ask("s", "3", "q3", replaces_from=2)
        discarded = speaker.discard("3")
        begun, _ = speaker.ask("s", "4", "q4")
        assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q4"]
        assert await discarded
        assert [turn.stream_id for turn in await history.turns("s")] == ["1", "4"]

    async def test_one_whose_stream_id_is_taken_replaces_nothing(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "q1", "a1")
        await speaker.turn("t", "2")
        begun, _ = speaker.ask("s", "2", "q", replaces_from=1)
        assert (await begun).taken
        assert shapes(await history.turns("s")) == [("1", "q1", "a1", "complete")]

    # Titles

    async def test_a_title_that_was_given_stays(self, history: History, speaker: Speaker) -> None:
        await speaker.turn("s", "1", "first")
        renamed = await history.rename("s", NASTY)
        assert renamed is not None
        assert renamed.title == NASTY
        assert renamed == await history.session("s")
        await speaker.turn("s", "2", "second")
        assert [one.title for one in (await history.sessions()).sessions] == [NASTY]
        assert await history.rename("s", "another")
        session = await history.session("s")
        assert session is not None
        assert (session.title, session.message_count) == ("another", 4)

    async def test_a_session_whose_first_question_is_being_saved_can_be_named(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, _ = speaker.ask("s", "1", "first")
        renamed = await history.rename("s", "title")
        assert renamed is not None
        assert renamed.title == "title"
        assert (await begun).saved

    async def test_of_titles_given_at_once_the_last_one_stays(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1")
        await asyncio.gather(*(history.rename("s", f"title {number}") for number in range(20)))
        session = await history.session("s")
        assert session is not None
        assert session.title == "title 19"

    async def test_a_title_goes_with_its_session(self, history: History, speaker: Speaker) -> None:
        await speaker.turn("s", "1", "first")
        await history.rename("s", "title")
        assert await speaker.delete("s")
        assert await history.rename("s", "late") is None
        await speaker.turn("s", "2", "anew")
        await speaker.turn("t", "3", "first")
        await history.rename("t", "title")
        assert await speaker.discard("3")
        await speaker.turn("t", "4", "anew")
        assert {one.title for one in (await history.sessions()).sessions} == {"anew"}

    # Searching

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("ALPHA", "a"),
            ("aLpHa", "a"),
            ("beta", "b"),
            ("Ünï", "c"),
            ("ünï", "c"),
            ("ÜNÏ", "c"),
            ("given", "d"),
            ("once", "d"),
            ("a", "abcd"),
            ("100%", "b"),
            ("0%_", "b"),
            ("%", "b"),
            ("_", "b"),
            ("\\", "b"),
            ("/", "b"),
            ("\x00", "c"),
            ("\x10@", "c"),
            ("@", "c"),
            ("' OR 1=1 --", ""),
            ("xalpha", ""),
            ("and alpha", "a"),
            ("SO  on", "a"),
            ("given once", "d"),
            ("once missing", ""),
            ("beta 1", "b"),
            ('a"b', ""),
        ],
    )
    async def test_sessions_are_found_by_title_question_or_answer(
        self, history: History, speaker: Speaker, query: str, found: str
    ) -> None:
        await speaker.turn("a", "1", "q", "and then Alpha and so on")
        await speaker.turn("b", "2", "the Beta, 100%_ \\ and /", "q")
        await speaker.turn("c", "3", "q", "a ünï\x00cörn\x10@")
        await speaker.turn("d", "4", "once asked", "q")
        await history.rename("d", "Given")
        page = await history.sessions(query=query)
        assert "".join(sorted(one.session_id for one in page.sessions)) == found

    async def test_the_words_of_a_search_may_be_in_different_messages(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("s", "1", "a question about llamas", "they live in herds")
        await speaker.turn("s", "2", "another one", "mountains, mostly")
        await speaker.turn("t", "3", "about llamas", "again")
        page = await history.sessions(query="mountains llamas herds")
        assert [one.session_id for one in page.sessions] == ["s"]

    async def test_what_is_found_comes_with_some_text_around_it(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn(
            "s", "1", "where?", "so " * 500 + "in the\nMountains of Peru " + "on " * 500
        )
        await speaker.turn("t", "2", "mountains")
        await history.rename("t", "peru")
        found = {one.session_id: one for one in (await history.sessions(query="peru")).sessions}
        snippet = found["s"].snippet
        assert snippet is not None
        assert "in the Mountains of Peru on" in snippet
        assert (snippet[0], snippet[-1], len(snippet) < 200) == ("…", "…", True)
        assert found["t"].snippet is None
        (short,) = (await history.sessions(query="?")).sessions
        assert short.snippet == "where?"
        assert [one.snippet for one in (await history.sessions()).sessions] == [None, None]

    async def test_a_question_is_found_before_it_is_answered(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, _ = speaker.ask("s", "1", "about llamas")
        await begun
        (found,) = (await history.sessions(query="llamas")).sessions
        assert found.snippet == "about llamas"

    async def test_what_has_been_removed_or_replaced_is_not_found(
        self, history: History, speaker: Speaker
    ) -> None:
        for number in range(4):
            await speaker.turn("s", str(number), "llamas", f"number{number}")
        assert await speaker.discard("2")
        await deleted(history, "s", 3)
        for query, found in [("number1", 0), ("number2", 0), ("number3", 1)]:
            assert len((await history.sessions(query=query)).sessions) == found

    async def test_what_is_found_comes_in_pages_too(
        self, history: History, speaker: Speaker
    ) -> None:
        for number in range(10):
            text = "needle" if number % 2 else "hay"
            await speaker.turn(str(number), f"of-{number}", text, text)
        pages = [await history.sessions(limit=2, query="needle")]
        while pages[-1].next is not None:
            before = pages[-1].next
            pages.append(await history.sessions(limit=2, before=before, query="needle"))
        assert [[one.session_id for one in page.sessions] for page in pages] == [
            ["9", "7"],
            ["5", "3"],
            ["1"],
        ]

    # Reading

    async def test_a_live_answer_is_read_as_far_as_it_came(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1")
        assert shapes(await history.turns("s")) == [("1", "q", "", "streaming")]
        await begun
        answer.say("so far")
        assert shapes(await history.turns("s")) == [("1", "q", "so far", "streaming")]
        turn = await history.turn("1")
        assert turn is not None
        assert turn.text == "so far"

    async def test_some_of_a_long_session_is_read(self, history: History, speaker: Speaker) -> None:
        for number in range(1, 6):
            await speaker.turn("s", str(number))

        async def read(**which: int) -> str:
            return "".join([turn.stream_id for turn in await history.turns("s", **which)])

        assert await read() == "12345"
        assert await read(limit=2) == "45"
        assert await read(limit=9) == "12345"
        assert await read(before=4) == "123"
        assert await read(limit=2, before=4) == "23"
        assert await read(before=1) == ""

    async def test_a_session_is_read_in_pages_from_either_end(
        self, history: History, speaker: Speaker
    ) -> None:
        for number in range(1, 6):
            await speaker.turn("s", str(number), "q", "é" * 20)  # 41 bytes

        async def read(limit: int, max_bytes: int = 10_000, **since: int) -> tuple[str, int | None]:
            page = await history.page("s", limit=limit, max_bytes=max_bytes, **since)
            return "".join(turn.stream_id for turn in page.turns), page.next

        assert await read(9) == ("12345", None)
        assert await read(5) == ("12345", None)
        assert await read(2) == ("45", 4)
        assert await read(2, before=4) == ("23", 2)
        assert await read(2, before=2) == ("1", None)
        assert await read(2, before=1) == ("", None)
        assert await read(2, after=0) == ("12", 2)
        assert await read(2, after=2) == ("34", 4)
        assert await read(2, after=2, before=4) == ("3", None)
        assert await read(2, after=4) == ("5", None)
        # The bytes count, not the characters; one turn is there however long it is.
        assert await read(9, 82) == ("45", 4)
        assert await read(9, 81) == ("5", 5)
        assert await read(9, 1, before=5) == ("4", 4)
        assert await read(9, 82, after=1) == ("23", 3)
        assert await read(9, 1, after=4) == ("5", None)

    async def test_a_page_holds_what_is_not_saved_yet(
        self, history: History, speaker: Speaker
    ) -> None:
        for number in range(1, 4):
            await speaker.turn("s", str(number))
        begun, answer = speaker.ask("s", "4", "live")
        await begun
        answer.say("so far")
        page = await history.page("s", limit=2, max_bytes=10_000)
        assert [(turn.stream_id, turn.text) for turn in page.turns] == [("3", "a"), ("4", "so far")]
        assert page.next == 3
        page = await history.page("s", limit=2, max_bytes=10_000, before=3)
        assert [turn.stream_id for turn in page.turns] == ["1", "2"]
        assert page.next is None

    async def test_sessions_are_listed_newest_first(
        self, history: History, speaker: Speaker
    ) -> None:
        await speaker.turn("a", "1", " first \n question\x00 of\ta ")
        await speaker.turn("b", "2", "x" * 500)
        await speaker.turn("a", "3", "another")
        start = 1_700_000_000.0
        assert (await history.sessions()).sessions == [
            SessionRecord(
                session_id="a",
                title="first question\x00 of a",
                created_at=start + 0.25,
                updated_at=start + 0.75,
                message_count=4,
            ),
            SessionRecord(
                session_id="b",
                title="x" * 79 + "…",
                created_at=start + 0.5,
                updated_at=start + 0.5,
                message_count=2,
            ),
        ]

    async def test_pages_join_to_the_whole_list(self, history: History) -> None:
        ids = [f"{number}.{case}" for number in range(9) for case in "aB"]
        for epoch, session_id in enumerate(ids, 1):
            turn = TurnStart(
                session_id=session_id,
                stream_id=f"of-{session_id}",
                epoch=epoch,
                prompt="q",
                created_at=1.1 * (epoch // 5),  # many at the same moment
            )
            assert (await history.begin(turn, FakeAnswer())).saved
        whole = [session.session_id for session in (await history.sessions(limit=100)).sessions]
        assert sorted(whole) == sorted(ids)
        for limit in (1, 4, 18):
            pages = await all_sessions(history, limit=limit)
            assert [session.session_id for page in pages for session in page] == whole
            assert all(pages)

    async def test_a_page_is_not_shifted_by_what_is_new(
        self, history: History, speaker: Speaker
    ) -> None:
        for session_id in "abcd":
            await speaker.turn(session_id, f"of-{session_id}")
        first = await history.sessions(limit=2)
        await speaker.turn("e", "of-e")
        second = await history.sessions(limit=2, before=first.next)
        assert [one.session_id for one in first.sessions + second.sessions] == list("dcba")
        assert second.next is None

    @pytest.mark.parametrize(
        "cursor", ["", "x", "W10", "é", "W251bGwsbnVsbF0", "WzEsICIiXQ", "a" * 5000]
    )
    async def test_what_is_no_cursor_is_refused(self, history: History, cursor: str) -> None:
        with pytest.raises(Invalid, match="before"):
            await history.sessions(before=cursor)

    # Many at once, and impatient callers

    async def test_many_turns_at_once_are_all_kept(
        self, history: History, speaker: Speaker
    ) -> None:
        async def chat(number: int) -> None:
            for round in range(3):
                await speaker.turn(f"s{number}", f"{number}-{round}", text=f"a{number}-{round}")

        await asyncio.gather(*(chat(number) for number in range(100)))
        for number in range(100):
            assert shapes(await history.turns(f"s{number}")) == [
                (f"{number}-{round}", "q", f"a{number}-{round}", "complete") for round in range(3)
            ]
        assert (history.health.saved, history.health.dropped) == (600, 0)
        assert (history.health.backlog, history.health.backlog_bytes) == (0, 0)

    async def test_a_thousand_questions_in_one_session_supersede_each_other(
        self, history: History, speaker: Speaker
    ) -> None:
        begun = []
        for number in range(1000):
            begun.append(speaker.ask("s", str(number), f"q{number}")[0])
            if number:
                speaker.end(str(number - 1), "superseded")
        results = await asyncio.gather(*begun)
        assert all(result.saved for result in results)
        assert plain(results[-1].messages) == [f"u:q{number}" for number in range(900, 1000)]
        assert len(await history.turns("s")) == 1000

    async def test_readers_that_leave_in_the_middle_do_no_harm(
        self, history: History, speaker: Speaker
    ) -> None:
        for number in range(5):
            await speaker.turn("s", str(number))
        dice = random.Random(1)
        for _ in range(100):
            readers = [
                asyncio.ensure_future(read)
                for read in (history.turns("s"), history.sessions(), history.turn("1"))
            ]
            await asyncio.sleep(dice.random() * 0.003)
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
        await speaker.turn("s", "5")
        assert len(await history.turns("s")) == 6

    async def test_who_no_longer_waits_changes_nothing(
        self, history: History, speaker: Speaker
    ) -> None:
        begun, answer = speaker.ask("s", "1")
        begun.cancel()
        answer.say("a")
        ended = speaker.end("1")
        ended.cancel()
        await speaker.turn("s", "2")
        assert shapes(await history.turns("s")) == [
            ("1", "q", "a", "complete"),
            ("2", "q", "a", "complete"),
        ]


class DurableContract(HistoryContract):
    """What those do that outlive a process, or are shared by several."""

    async def test_it_is_there_again(self, backend: Backend) -> None:
        async with backend() as history:
            await Speaker(history).turn("s", "1", NASTY, NASTY)
            kept = await history.turns("s")
        async with backend() as history:
            assert await history.turns("s") == kept
            assert await history.last_epoch() == 1
            begun, _ = Speaker(history, first=2).ask("s", "2")
            assert plain((await begun).messages) == [f"u:{NASTY}", f"a:{NASTY}", "u:q"]

    async def test_what_is_owed_at_the_end_is_written(self, backend: Backend) -> None:
        async with backend() as history:
            speaker = Speaker(history)
            _, answer = speaker.ask("s", "1")
            answer.say("a")
            speaker.end("1")
            _, answer = speaker.ask("s", "2")
            answer.say("never finish")
        async with backend() as history:
            assert shapes(await history.turns("s")) == [
                ("1", "q", "a", "complete"),
                ("2", "q", "never finish", "interrupted"),
            ]
            assert not await Speaker(history).end("2")

    async def test_text_is_durable_while_it_grows(self, backend: Backend) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            begun, answer = Speaker(ours).ask("s", "1")
            await begun
            text = ""
            for piece in ("one ", NASTY, "two \x10", "@ three"):
                answer.say(piece)
                text += piece

                async def arrived(text: str = text) -> bool:
                    return shapes(await theirs.turns("s")) == [("1", "q", text, "streaming")]

                await eventually(arrived)
            begun, _ = Speaker(theirs, first=2).ask("s", "2")
            assert plain((await begun).messages) == ["u:q", f"a:{text}", "u:q"]

    async def test_another_process_that_comes_and_goes_touches_no_living_turn(
        self, backend: Backend
    ) -> None:
        async with backend() as ours:
            speaker = Speaker(ours)
            begun, answer = speaker.ask("s", "1")
            await begun
            for _ in range(2):
                async with backend() as theirs:
                    assert shapes(await theirs.turns("s")) == [("1", "q", "", "streaming")]
                    assert not await Speaker(theirs).end("1")
            answer.say("a")
            assert await speaker.end("1")
            assert shapes(await ours.turns("s")) == [("1", "q", "a", "complete")]

    async def test_a_process_that_was_thought_dead_gets_its_turns_back(
        self, backend: Backend
    ) -> None:
        async with backend(replace(QUICK, lease=3.0)) as ours:
            speaker = Speaker(ours)
            begun, answer = speaker.ask("s", "1")
            await begun
            answer.say("half ")

            async with backend(replace(PATIENT, lease=0.02)) as theirs:

                async def interrupted() -> bool:
                    (turn,) = await theirs.turns("s")
                    return turn.status == "interrupted"

                await eventually(interrupted)
                answer.say("of it ")
            async with backend() as theirs:

                async def streaming() -> bool:
                    return shapes(await theirs.turns("s")) == [
                        ("1", "q", "half of it ", "streaming")
                    ]

                await eventually(streaming)
                answer.say("whole")
                assert await speaker.end("1")
                assert shapes(await theirs.turns("s")) == [
                    ("1", "q", "half of it whole", "complete")
                ]

    async def test_a_turn_interrupted_by_mistake_can_still_end(self, backend: Backend) -> None:
        async with backend() as ours:
            speaker = Speaker(ours)
            begun, answer = speaker.ask("s", "1")
            await begun
            async with backend(replace(PATIENT, lease=0.02)) as theirs:

                async def interrupted() -> bool:
                    (turn,) = await theirs.turns("s")
                    return turn.status == "interrupted"

                await eventually(interrupted)
            answer.say("whole")
            assert await speaker.end("1")
        async with backend() as history:
            assert shapes(await history.turns("s")) == [("1", "q", "whole", "complete")]

    async def test_a_session_deleted_elsewhere_stays_deleted(self, backend: Backend) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            speaker = Speaker(ours)
            begun, answer = speaker.ask("s", "1")
            await begun
            assert await deleted(theirs, "s", 2)
            answer.say("a")
            await speaker.turn("t", "2")
            assert not await speaker.end("1")
            assert await theirs.turns("s") == []
            assert ours.health.dropped == 0

    async def test_a_question_that_comes_after_its_removal_is_not_kept(
        self, backend: Backend
    ) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            speaker = Speaker(ours, first=10)
            assert not await deleted(theirs, "s", 12)
            late, answer = speaker.ask("s", "1")
            answer.say("a")
            ended = speaker.end("1")
            begun = await late
            assert (begun.saved, begun.taken, begun.removed) == (False, False, True)
            assert not await ended
            speaker.ask("s", "2", epoch=11)
            speaker.ask("s", "3", "new", epoch=12)
            await saved(ours)
            assert [turn.stream_id for turn in await theirs.turns("s")] == ["3"]
            assert [one.title for one in (await theirs.sessions()).sessions] == ["new"]
            assert (ours.health.failures, ours.health.dropped) == (0, 0)

    async def test_what_comes_after_its_removal_leaves_no_session(self, backend: Backend) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            assert not await deleted(theirs, "s", 12)
            begun, _ = Speaker(ours, first=10).ask("s", "1")
            assert (await begun).removed
            assert (await theirs.sessions()).sessions == []
            assert await theirs.count() == 0
            assert await theirs.last_epoch() == 11

    async def test_pieces_and_ends_that_come_after_a_removal_are_not_kept(
        self, backend: Backend
    ) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            speaker = Speaker(ours)
            for stream_id in "12":
                begun, answer = speaker.ask("s", stream_id)
                await begun
            await theirs.remove(Span("s", 2, 3))
            answer.say("late")
            await speaker.turn("t", "3")  # with it, the piece has been written
            assert not await speaker.end("2")
            assert await speaker.end("1")
            assert [turn.stream_id for turn in await theirs.turns("s")] == ["1"]

    async def test_what_a_turn_replaces_does_not_come_after_it(self, backend: Backend) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            speaker = Speaker(theirs)
            await speaker.turn("s", "1", "q1")
            begun, _ = speaker.ask("s", "4", "q1 again", epoch=4, replaces_from=1)
            assert (await begun).saved
            late, _ = Speaker(ours, first=3).ask("s", "3", "late")
            assert (await late).removed
            assert [turn.stream_id for turn in await ours.turns("s")] == ["4"]

    async def test_a_title_given_for_a_later_turn_outlives_a_removal_that_comes_late(
        self, backend: Backend
    ) -> None:
        async with backend() as ours, backend() as theirs:
            for session_id in ("new", "old"):
                await Speaker(ours, first=5).turn(session_id, session_id)
                assert await ours.rename(session_id, "given") is not None
            await Speaker(theirs, first=9).turn("old", "later")
            assert not await deleted(theirs, "new", 5)
            assert await deleted(theirs, "old", 6)
            titles = {one.session_id: one.title for one in (await ours.sessions()).sessions}
            assert titles == {"new": "given", "old": "q"}

    async def test_removals_are_final_in_whatever_order_two_processes_write(
        self, backend: Backend
    ) -> None:
        dice = random.Random(7)
        async with backend() as ours, backend() as theirs:
            for round in range(12):
                session_id = f"s{round}"
                begins = [("begin", epoch, epoch) for epoch in range(1, 7)]
                first = dice.randrange(1, 6)
                removals = [("remove", 0, dice.randrange(1, 5)), ("remove", first, first + 2)]
                works = begins + removals * 2
                dice.shuffle(works)
                for kind, first, last in works:
                    history = dice.choice([ours, theirs])
                    if kind == "begin":
                        name = f"{round}-{first}"
                        speaker = Speaker(history, first=first)
                        begun, answer = speaker.ask(session_id, name)
                        answer.say("a")
                        speaker.end(name)
                        if dice.random() < 0.5:
                            await begun
                    else:
                        removing = history.remove(Span(session_id, first, last))
                        if dice.random() < 0.5:
                            await removing
                await saved(ours)
                await saved(theirs)
                left = [
                    epoch
                    for epoch in range(1, 7)
                    if not any(first <= epoch < last for _, first, last in removals)
                ]
                for history in (ours, theirs):
                    assert [turn.epoch for turn in await history.turns(session_id)] == left
                assert (await ours.session(session_id) is not None) == bool(left)

    async def test_what_is_not_saved_yet_of_a_session_deleted_elsewhere_is_not_saved(
        self, backend: Backend
    ) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            speaker = Speaker(ours)
            await speaker.turn("s", "1")
            late, answer = speaker.ask("s", "2")
            answer.say("late")
            before = speaker.after_all
            new, answer = speaker.ask("s", "3", "new")
            answer.say("a3")
            assert await deleted(theirs, "s", before)
            ours.drop(Span("s", 0, before))
            await late
            assert not await speaker.end("2")
            assert (await new).saved
            assert await speaker.end("3")
            assert shapes(await theirs.turns("s")) == [("3", "new", "a3", "complete")]
            assert ours.health.dropped == 0

    async def test_a_turn_of_another_process_can_be_replaced(self, backend: Backend) -> None:
        async with backend(QUICK) as ours, backend() as theirs:
            speaker = Speaker(ours)
            await speaker.turn("s", "1", "q1", "a1")
            begun, answer = speaker.ask("s", "2", "q2")
            await begun
            begun, _ = Speaker(theirs, first=3).ask("s", "3", "q2 again", replaces_from=2)
            assert plain((await begun).messages) == ["u:q1", "a:a1", "u:q2 again"]
            answer.say("late")
            await speaker.turn("t", "4")
            assert not await speaker.end("2")
            assert [turn.stream_id for turn in await ours.turns("s")] == ["1", "3"]

    async def test_titles_and_endings_are_there_again(self, backend: Backend) -> None:
        async with backend() as history:
            speaker = Speaker(history)
            begun, _ = speaker.ask("s", "1", trace_id="cd" * 16)
            await begun
            await speaker.end("1", "error", error_code="x", error="Oh.", retryable=True)
            await history.rename("s", NASTY)
            kept = await history.turns("s")
        async with backend() as history:
            assert await history.turns("s") == kept
            assert (kept[0].error, kept[0].retryable) == ("Oh.", True)
            assert [one.title for one in (await history.sessions()).sessions] == [NASTY]

    async def test_a_turn_of_another_process_can_be_discarded(self, backend: Backend) -> None:
        async with backend() as ours, backend() as theirs:
            speaker = Speaker(ours)
            await speaker.turn("s", "1")
            assert (await theirs.remove(Span("s", 1, 2))).existed
            assert await ours.turns("s") == []

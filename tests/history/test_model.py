"""Every history against the simplest thing that could be one: hypothesis looks for a difference."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from contracts.history import PATIENT, FakeAnswer, deleted, plain
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from postgres_server import PostgresServer
from profiles import amount

from jarvis_stream.history.base import EndStatus, History, Span, TurnEnd, TurnStart
from jarvis_stream.history.open import open_history
from jarvis_stream.history.views import title_of

T = TypeVar("T")

EXAMPLES = amount("HISTORY_EXAMPLES", default=8, long=20)
"""Runs against SQLite; three times as many in memory, three fifths as many with PostgreSQL."""
MAX_MESSAGES = 7
MAX_CHARS = 60

session_ids = st.sampled_from("abc")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["\x00", "\x10@", "\x10", "P\x00P", "long " * 10]
)
endings = st.sampled_from(["complete", "cancelled", "superseded", "error", "interrupted"])


@dataclass
class Turn:
    session_id: str
    stream_id: str
    epoch: int
    prompt: str
    answer: FakeAnswer
    text: str = ""
    status: str = "streaming"

    @property
    def shape(self) -> tuple[str, str, str, str]:
        return self.stream_id, self.prompt, self.text, self.status


def span_of(turn: Turn) -> Span:
    return Span(turn.session_id, turn.epoch, turn.epoch + 1)


class HistoryMachine(RuleBasedStateMachine):
    """The model is a list of turns; the subclass says which history is meant."""

    durable = True
    streams: Bundle[Turn] = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.turns: list[Turn] = []
        self.titles: dict[str, str] = {}
        self.epoch = 0
        self.limits = replace(
            PATIENT, max_messages=MAX_MESSAGES, max_chars=MAX_CHARS, checkpoint_every=0.001
        )
        self.open()

    def new_url(self) -> str:
        raise NotImplementedError

    def await_(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def open(self) -> None:
        self.opened: AbstractAsyncContextManager[History] = open_history(
            self.new_url(), self.limits
        )
        self.history = self.await_(self.opened.__aenter__())

    def close(self) -> None:
        self.await_(self.opened.__aexit__(None, None, None))

    def of(self, session_id: str) -> list[Turn]:
        return [turn for turn in self.turns if turn.session_id == session_id]

    def told(self, turn: Turn) -> list[str]:
        """What its agent must be told."""
        messages, chars = [f"u:{turn.prompt}"], len(turn.prompt)
        for other in reversed(self.of(turn.session_id)):
            pair = [f"u:{other.prompt}", *([f"a:{other.text}"] if other.text else [])]
            chars += len(other.prompt) + len(other.text)
            if chars > MAX_CHARS or len(messages) + len(pair) > MAX_MESSAGES:
                break
            messages = pair + messages
        return messages

    def forget_title(self, session_id: str) -> None:
        """A title lives as long as its session has turns."""
        if not self.of(session_id):
            self.titles.pop(session_id, None)

    def ask(
        self, session_id: str, prompt: str, replaces_from: int | None = None
    ) -> tuple[Turn, Callable[[], Any], list[str]]:
        self.epoch += 1
        turn = Turn(session_id, f"stream{self.epoch}", self.epoch, prompt, FakeAnswer())
        told = self.told(turn)
        start = TurnStart(
            session_id=session_id,
            stream_id=turn.stream_id,
            epoch=turn.epoch,
            prompt=prompt,
            created_at=float(self.epoch),
            replaces_from=replaces_from,
        )
        self.turns.append(turn)
        return turn, lambda: self.history.begin(start, turn.answer), told

    @rule(target=streams, session_id=session_ids, prompt=texts)
    def begin(self, session_id: str, prompt: str) -> Turn:
        turn, begin, told = self.ask(session_id, prompt)

        async def act() -> None:
            begun = await begin()
            assert begun.saved
            assert plain(begun.messages) == told

        self.await_(act())
        return turn

    @rule(turn=streams, text=texts)
    def say(self, turn: Turn, text: str) -> None:
        if turn.status == "streaming":
            turn.answer.say(text)
            turn.text += text

    @rule()
    def let_time_pass(self) -> None:
        """Long enough for a checkpoint."""
        self.await_(asyncio.sleep(0.005))

    @rule(turn=streams, status=endings)
    def finish(self, turn: Turn, status: EndStatus) -> None:
        known = turn in self.turns and turn.status == "streaming"

        async def act() -> None:
            assert await self.history.finish(turn.stream_id, TurnEnd(status=status)) == known

        self.await_(act())
        if known:
            turn.status = status

    @rule(target=streams, turn=streams, prompt=texts, roll_back=st.booleans())
    def supersede(self, turn: Turn, prompt: str, roll_back: bool) -> Turn:
        """What a new message does, in one step: nobody waits in between."""
        known = turn in self.turns and turn.status == "streaming"
        if known:
            turn.status = "superseded"
        if roll_back and turn in self.turns:
            self.turns.remove(turn)
            self.forget_title(turn.session_id)
        new, begin, told = self.ask(turn.session_id, prompt)

        async def act() -> None:
            ended = self.history.finish(turn.stream_id, TurnEnd(status="superseded"))
            discarded = self.history.remove(span_of(turn)) if roll_back else None
            begun = await begin()
            assert begun.saved
            assert plain(begun.messages) == told
            assert await ended == known or roll_back
            assert discarded is None or (await discarded).saved

        self.await_(act())
        return new

    @rule(target=streams, turn=streams, prompt=texts, ended_first=st.booleans())
    def take_the_place(self, turn: Turn, prompt: str, ended_first: bool) -> Turn:
        """Of a turn and of all that follow it, as regenerating and editing do."""
        known = turn in self.turns and turn.status == "streaming"
        for other in self.of(turn.session_id):
            if other.epoch >= turn.epoch:
                self.turns.remove(other)
        new, begin, told = self.ask(turn.session_id, prompt, replaces_from=turn.epoch)

        async def act() -> None:
            end = TurnEnd(status="superseded")
            if ended_first:
                self.history.finish(turn.stream_id, end)
            begun = await begin()
            assert begun.saved
            assert plain(begun.messages) == told
            assert not await self.history.finish(turn.stream_id, end) or not known

        self.await_(act())
        return new

    @rule(session_id=session_ids, title=st.sampled_from(["one", "two\x00"]))
    def rename(self, session_id: str, title: str) -> None:
        there = bool(self.of(session_id))
        renamed = self.await_(self.history.rename(session_id, title))
        assert (renamed is not None) == there
        if there:
            self.titles[session_id] = title

    @rule(turn=streams)
    def discard(self, turn: Turn) -> None:
        async def act() -> None:
            assert (await self.history.remove(span_of(turn))).saved

        self.await_(act())
        if turn in self.turns:
            self.turns.remove(turn)

    @rule(session_id=session_ids)
    def delete(self, session_id: str) -> None:
        there = bool(self.of(session_id))
        assert self.await_(deleted(self.history, session_id, self.epoch + 1)) == there
        self.turns = [turn for turn in self.turns if turn.session_id != session_id]

    @precondition(lambda self: self.durable)
    @rule()
    def come_back(self) -> None:
        self.close()
        self.open()
        for turn in self.turns:
            if turn.status == "streaming":
                turn.status = "interrupted"

    @rule(turn=consumes(streams))
    def read_one(self, turn: Turn) -> None:
        found = self.await_(self.history.turn(turn.stream_id))
        assert (found is not None) == (turn in self.turns)
        if found is not None:
            assert (found.stream_id, found.prompt, found.text, found.status) == turn.shape

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        async def act() -> None:
            for session_id in "abc":
                turns = await self.history.turns(session_id)
                assert [(t.stream_id, t.prompt, t.text, t.status) for t in turns] == [
                    turn.shape for turn in self.of(session_id)
                ]
            for session_id in list(self.titles):
                self.forget_title(session_id)
            newest = {turn.session_id: turn.epoch for turn in self.turns}
            expected = [
                (
                    session_id,
                    self.titles.get(session_id) or title_of(self.of(session_id)[0].prompt),
                    2 * len(self.of(session_id)),
                )
                for session_id in sorted(newest, key=lambda id: -newest[id])
            ]
            listed = (await self.history.sessions()).sessions
            assert [(s.session_id, s.title, s.message_count) for s in listed] == expected
            assert await self.history.last_epoch() == self.epoch
            assert self.history.health.failures == 0

        self.await_(act())

    def teardown(self) -> None:
        self.close()
        self.loop.close()


def check(machine: type[HistoryMachine], max_examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=max_examples, stateful_step_count=30, deadline=None),
    )


def test_memory_does_what_the_model_does() -> None:
    class Machine(HistoryMachine):
        durable = False

        def new_url(self) -> str:
            return "memory:"

    check(Machine, 3 * EXAMPLES)


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which nothing is yet: copying it is quicker than making one."""
    file = tmp_path_factory.mktemp("empty") / "history.sqlite3"

    async def make() -> None:
        async with open_history(str(file)):
            pass

    asyncio.run(make())
    return file


def test_sqlite_does_what_the_model_does(empty_file: Path) -> None:
    class Machine(HistoryMachine):
        def __init__(self) -> None:
            self.directory = tempfile.TemporaryDirectory()
            shutil.copy(empty_file, self.directory.name)
            super().__init__()

        def new_url(self) -> str:
            return f"{self.directory.name}/{empty_file.name}"

        def teardown(self) -> None:
            super().teardown()
            self.directory.cleanup()

    check(Machine, EXAMPLES)


def test_postgres_does_what_the_model_does(postgres: PostgresServer) -> None:
    url = postgres.new_database()

    class Machine(HistoryMachine):
        def new_url(self) -> str:
            return url

        def teardown(self) -> None:
            super().teardown()
            postgres.execute("TRUNCATE jarvis_sessions, jarvis_removals CASCADE", url)

    check(Machine, 3 * EXAMPLES // 5)

"""The demo, on a loop whose time passes only when everybody sleeps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream import Done, Status, Turn
from jarvis_stream.agents.base import Piece
from jarvis_stream.agents.demo import (
    COMMANDS,
    INTRODUCTION,
    OPTIONS,
    TOOL_STEPS,
    CommandError,
    DemoAgent,
    parse,
    tokenize,
)
from jarvis_stream.errors import AgentFailure

T = TypeVar("T")


class VirtualTime(selectors.SelectSelector):
    """Time jumps to the next timer instead of being waited for."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for ever"
        self.now += timeout
        return super().select(0)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    def new_loop() -> asyncio.AbstractEventLoop:
        selector = VirtualTime()
        loop = asyncio.SelectorEventLoop(selector)
        loop.time = lambda: selector.now  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(scenario)


def turn(prompt: str, before: int = 0) -> Turn:
    messages = [{"role": "user", "content": "before"}] * before
    messages.append({"role": "user", "content": prompt})
    return Turn(prompt, messages, "session", "stream", "0" * 32)  # type: ignore[arg-type]


async def timeline(prompt: str) -> list[tuple[float, Piece]]:
    """The pieces of an answer, each with the time it came."""
    now = asyncio.get_running_loop().time
    return [(now(), piece) async for piece in DemoAgent()(turn(prompt))]


def said(prompt: str, before: int = 0) -> str:
    async def listen() -> list[Piece]:
        return [piece async for piece in DemoAgent()(turn(prompt, before))]

    return "".join(piece for piece in run(listen()) if isinstance(piece, str))


# What it says


@pytest.mark.parametrize("prompt", ["Hello", "/nonsense", *(f"/{c}" for c in COMMANDS)])
def test_its_first_words_say_that_it_is_no_language_model(prompt: str) -> None:
    if prompt in ("/fail", "/hang"):
        prompt += " 1000"
    assert said(prompt).startswith(INTRODUCTION)
    assert "not a language model" in INTRODUCTION


def test_it_quotes_a_message_and_answers_the_next_one_differently() -> None:
    answers = [said("What `is` this?", before) for before in range(4)]
    assert all("`What 'is' this?`" in answer for answer in answers)
    assert len(set(answers)) == 4


def test_help_names_every_command_and_option() -> None:
    text = said("/help")
    assert all(f"`/{name}" in text for name in COMMANDS)
    assert all(f"`{name}`" in text for name in OPTIONS)


@given(st.text().filter(lambda text: text.strip()))
def test_echo_says_exactly_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text
    assert parse(f"/echo tps=0 | {text}").text == text.strip()


@pytest.mark.parametrize("text", ["a=b c", "| a | b |\n|---|---|", "/help", "tps", "tsp=1"])
def test_echo_takes_for_an_option_only_what_is_one(text: str) -> None:
    assert parse(f"/echo {text}").text == text


def test_tools_are_told_as_status_events() -> None:
    pieces = [piece for _, piece in run(timeline("/tools"))]
    assert [piece for piece in pieces if isinstance(piece, Status)] == [s for s, _ in TOOL_STEPS]


# How it is told


def test_options_may_stand_behind_any_command_and_before_a_text() -> None:
    request = parse("/fail 7 tps=200 ttft=0.5 seed=3 | My own\ntext")
    options = request.options
    assert request.text == "My own\ntext"
    assert (options.error_at, options.tps, options.ttft, options.seed) == (7, 200.0, 0.5, 3)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("/demo tps=fast", ["`tps`", "`fast`", "a number from 0 to 100000"]),
        ("/demo tps=nan", ["`tps`", "`nan`"]),
        ("/demo tps=-1", ["`tps`", "`-1`"]),
        ("/demo seed=1.5", ["`seed`", "`1.5`", "a whole number"]),
        ("/demo length=0", ["`length`", "`0`", "from 1 to 10000000"]),
        ("/demo length=" + "9" * 6000, ["`length`", "`" + "9" * 40 + "…`"]),
        ("/demo tsp=1", ["`tsp`", "Did you mean `tps`?"]),
        ("/demo tps=", ["`tps`"]),
        ("/demo hello", ["`hello`", "`| text`"]),
        ("/stubborn long", ["`stubborn`", "`long`", "from 0 to 600"]),
        ("/ecko x", ["`/ecko`", "Did you mean `echo`?"]),
        ("/etc/passwd", ["`/etc`", "`/help`"]),
        ("/", ["`/`"]),
        ("/echo", ["needs a text"]),
        ("/demo `x`=1", ["`'x'`"]),
    ],
)
def test_a_wrong_command_is_answered_with_what_is_wrong(prompt: str, words: list[str]) -> None:
    with pytest.raises(CommandError) as error:
        parse(prompt)
    assert all(word in str(error.value) for word in words)
    assert str(error.value) in said(prompt)


@given(st.text(), st.integers(-2, 10))
def test_no_prompt_is_too_strange(prompt: str, nth: int) -> None:
    for start in ("", "/", "/demo ", "/fail ", "/demo tps="):
        with suppress(CommandError):
            assert parse(start + prompt, nth).text


# How fast and how long


def test_tokens_come_at_the_pace_asked_for() -> None:
    times = [at for at, _ in run(timeline("/demo tps=10 ttft=2 jitter=0 length=5"))]
    assert times == pytest.approx([2.0, 2.1, 2.2, 2.3, 2.4, 2.5])  # the last is the Done


def test_without_a_pace_nothing_is_waited_for() -> None:
    assert {at for at, _ in run(timeline("/demo tps=0 ttft=0 length=10000"))} == {0.0}


def test_a_seed_makes_the_jitter_repeat_itself() -> None:
    first, again, other = (
        run(timeline(f"/demo tps=100 jitter=1 seed={seed}")) for seed in (7, 7, 8)
    )
    assert first == again
    assert [piece for _, piece in first] == [piece for _, piece in other]
    assert first != other


def test_the_text_is_cut_to_the_length_and_says_so() -> None:
    assert [piece for _, piece in run(timeline("/demo length=2 | one two three"))] == [
        "one",
        " two",
        Done("length"),
    ]


def test_the_text_is_repeated_up_to_the_length() -> None:
    assert said("/demo length=5 | one two") == "one two\n\none two"


# How it goes wrong


def test_it_fails_at_the_token_it_is_told_to() -> None:
    async def scenario() -> list[Piece]:
        answer = DemoAgent()(turn("/fail 3 | one two three four"))
        pieces = [await anext(answer), await anext(answer)]
        with pytest.raises(AgentFailure, match="token 3"):
            await anext(answer)
        return pieces

    assert run(scenario()) == ["one", " two"]


async def cancelled(prompt: str, again: float | None = None) -> tuple[list[Piece], float]:
    """What it says when cancelled at second 1, and how many seconds it goes on after that.

    `again` cancels it a second time, so many seconds later.
    """
    loop = asyncio.get_running_loop()
    pieces: list[Piece] = []

    async def listen() -> None:
        async for piece in DemoAgent()(turn(prompt)):
            pieces.append(piece)

    answering = asyncio.create_task(listen())
    await asyncio.sleep(1)
    answering.cancel()
    if again is not None:
        await asyncio.sleep(again)
        answering.cancel()
    await asyncio.wait({answering})
    assert answering.cancelled()
    return pieces, loop.time() - 1


def test_it_stops_at_once_when_cancelled() -> None:
    assert run(cancelled("/demo length=100000"))[1] == 0


def test_a_hanging_one_says_nothing_more_and_can_be_cancelled() -> None:
    assert run(cancelled("/hang 3 ttft=0 | one two three")) == (["one", " two"], 0)


@pytest.mark.parametrize("again", [None, 1, 9])
def test_a_stubborn_one_goes_on_speaking_for_as_long_as_it_is_told_to(again: float | None) -> None:
    pieces, seconds = run(cancelled("/stubborn 10 ttft=0 jitter=0 tps=10", again))
    assert seconds == pytest.approx(10)
    assert len(pieces) == pytest.approx(110, abs=2)


def test_a_stubborn_one_can_hang_as_well() -> None:
    pieces, seconds = run(cancelled("/stubborn 10 ttft=0 hang_at=1"))
    assert (pieces, seconds) == ([], 10)


def test_a_cleanup_takes_its_time() -> None:
    assert run(cancelled("/cleanup 1.5"))[1] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("prompt", "seconds"), [("/demo", 0), ("/stubborn 10", 10), ("/stubborn 10 cleanup=1", 11)]
)
def test_closing_it_is_cancelling_it(prompt: str, seconds: float) -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        answer = DemoAgent()(turn(prompt))
        await anext(answer)
        closed_at = loop.time()
        await answer.aclose()  # type: ignore[attr-defined]
        return loop.time() - closed_at

    assert run(scenario()) == pytest.approx(seconds)


def test_an_answer_that_ends_by_itself_leaves_nothing_to_be_stubborn_about() -> None:
    times = run(timeline("/stubborn 600 length=2 tps=0 ttft=0"))
    assert [at for at, _ in times] == [0, 0, 0]

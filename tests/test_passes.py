"""Tickets and logins: for whom they stand, how long, and how many there are."""

from __future__ import annotations

import pytest

from jarvis_stream.identity.base import Principal
from jarvis_stream.passes import Passes

ANN = Principal("ann")


class Clock:
    """Stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_ticket_is_good_once(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock)
    word = passes.issue(ANN)
    assert passes.redeem(word) == ANN
    assert passes.redeem(word) is None
    assert len(passes) == 0
    assert passes.redeem("made up") is None


def test_and_not_for_long(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock)
    word, other = passes.issue(ANN), passes.issue(ANN)
    clock.now += 29.9
    assert passes.look(word) == Principal("ann", expires_at=1030.0)
    clock.now += 0.1
    assert passes.look(word) is None
    assert passes.redeem(other) is None


def test_a_login_expires_with_its_principal(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock)
    word = passes.issue(Principal("ann", expires_at=1010.0))
    assert passes.look(word) == Principal("ann", expires_at=1010.0)
    assert passes.look(word) is not None
    clock.now += 10
    assert passes.look(word) is None
    assert passes.redeem(word) is None


def test_a_dropped_one_stands_for_nobody(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock)
    word = passes.issue(ANN)
    passes.drop(word)
    passes.drop(word)
    assert passes.look(word) is None


def test_who_attends_is_told_when_it_is_gone(clock: Clock) -> None:
    passes = Passes(seconds=30, most_each=2, clock=clock)
    gone: list[str] = []
    word, other, third = (passes.issue(ANN) for _ in range(3))
    passes.attend(word, lambda: gone.append("before"))
    passes.attend(other, lambda: gone.append("dropped"))
    passes.attend(third, lambda: gone.append("left"))()
    passes.drop(other)
    passes.drop(third)
    assert gone == ["before", "dropped"]


def test_nobody_drives_out_the_words_of_others(clock: Clock) -> None:
    passes = Passes(seconds=30, most_each=2, clock=clock)
    bobs = passes.issue(Principal("bob"))
    words = [passes.issue(ANN) for _ in range(5)]
    assert [passes.look(word) is not None for word in words] == [False] * 3 + [True] * 2
    assert passes.look(bobs) is not None


def test_there_are_never_more_than_so_many(clock: Clock) -> None:
    passes = Passes(seconds=30, most=3, clock=clock)
    words = [passes.issue(Principal(f"user{number}")) for number in range(5)]
    assert [passes.look(word) is not None for word in words] == [False] * 2 + [True] * 3
    clock.now += 31
    passes.issue(ANN)
    assert len(passes) == 1


def test_a_word_is_kept_as_its_digest_only(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock)
    word = passes.issue(ANN)
    assert word not in repr(vars(passes))

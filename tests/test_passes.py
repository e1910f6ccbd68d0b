"""Tickets and logins: for whom they stand, how long, and how many there are."""

from __future__ import annotations

import pytest
from contracts.passes import PassesContract

from jarvis_stream.identity.base import Principal
from jarvis_stream.passes import Passes, digest

ANN = Principal("ann")


class Clock:
    """Stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestInThisProcess(PassesContract):
    """See the contract."""

    @pytest.fixture
    def keeper(self) -> Passes:
        """Theirs is the real clock."""
        return Passes(seconds=30, most_each=2)


async def test_and_not_for_long(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock, wall=clock)
    word, other = await passes.issue(ANN), await passes.issue(ANN)
    clock.now += 29.9
    assert await passes.look(word) == Principal("ann", expires_at=1030.0)
    clock.now += 0.1
    assert await passes.look(word) is None
    assert await passes.redeem(other) is None


async def test_a_login_expires_with_its_principal(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock, wall=clock)
    word = await passes.issue(Principal("ann", expires_at=1010.0))
    assert await passes.look(word) == Principal("ann", expires_at=1010.0)
    assert await passes.look(word) is not None
    clock.now += 10
    assert await passes.look(word) is None
    assert await passes.redeem(word) is None


async def test_who_attends_is_told_when_it_is_gone(clock: Clock) -> None:
    passes = Passes(seconds=30, most_each=2, clock=clock, wall=clock)
    gone: list[str] = []
    word, other, third = [await passes.issue(ANN) for _ in range(3)]
    passes.attend(digest(word), lambda: gone.append("before"))
    passes.attend(digest(other), lambda: gone.append("dropped"))
    passes.attend(digest(third), lambda: gone.append("left"))()
    await passes.drop(other)
    await passes.drop(third)
    assert gone == ["before", "dropped"]


async def test_there_are_never_more_than_so_many(clock: Clock) -> None:
    passes = Passes(seconds=30, most=3, clock=clock, wall=clock)
    words = [await passes.issue(Principal(f"user{number}")) for number in range(5)]
    assert [await passes.look(word) is not None for word in words] == [False] * 2 + [True] * 3
    clock.now += 31
    await passes.issue(ANN)
    assert len(passes) == 1


async def test_a_word_is_kept_as_its_digest_only(clock: Clock) -> None:
    passes = Passes(seconds=30, clock=clock, wall=clock)
    word = await passes.issue(ANN)
    assert word not in repr(vars(passes))

"""How often something may happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.quota import Rate, Rates


class Clock:
    """Goes on when it is told to."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_evenly() -> None:
    clock = Clock()
    rate = Rate(3, 60.0, clock)
    assert [rate.take() for _ in range(3)] == [0.0] * 3
    assert rate.take() == pytest.approx(20)
    assert rate.take() == pytest.approx(20)  # asking costs nothing
    clock.now += 19.9
    assert rate.take() == pytest.approx(0.1, rel=0.01)
    clock.now += 0.1
    assert rate.take() == 0.0
    assert rate.take() > 0
    clock.now += 60
    assert rate.is_full
    assert [rate.take() > 0 for _ in range(4)] == [False] * 3 + [True]


@given(count=st.integers(1, 50), steps=st.lists(st.floats(0, 5, allow_nan=False), max_size=200))
def test_never_more_than_twice_the_count_in_a_window(count: int, steps: list[float]) -> None:
    clock = Clock()
    rate = Rate(count, 10.0, clock)
    taken = []
    for step in steps:
        clock.now += step
        if not rate.take():
            taken.append(clock.now)
    for start in taken:
        assert sum(start <= moment < start + 10 for moment in taken) <= 2 * count


async def test_each_name_has_its_own() -> None:
    rates = Rates(1, 60.0, clock=Clock())
    assert await rates.take("ann") == 0.0
    assert await rates.take("bob") == 0.0
    assert await rates.take("ann") > 0
    assert await rates.take("bob") > 0


async def test_names_are_forgotten_when_they_owe_nothing_or_are_too_many() -> None:
    clock = Clock()
    rates = Rates(1, 60.0, most=100, clock=clock)
    for number in range(1000):
        await rates.take(str(number))
        assert len(rates) <= 100
    clock.now += 61
    for number in range(100):
        await rates.take(f"new {number}")
    assert len(rates) == 100
    for _ in range(100):
        clock.now += 61
        await rates.take("the only one")
    assert len(rates) <= 1

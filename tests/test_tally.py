"""A histogram of durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jarvis_stream.tally import Tally


def test_a_duration_counts_in_the_first_bucket_that_is_long_enough() -> None:
    tally = Tally((0.1, 1))
    for seconds in (0.1, 0.2, 1, 7):
        tally.add(seconds)
    assert list(tally.cumulated()) == [(0.1, 1), (1, 3), (float("inf"), 4)]
    assert (len(tally), tally.total) == (4, 8.3)


@given(st.lists(st.floats(0, 10)), st.sets(st.floats(0, 10), min_size=1))
def test_every_bound_tells_how_many_were_no_longer(added: list[float], bounds: set[float]) -> None:
    tally = Tally(sorted(bounds))
    for seconds in added:
        tally.add(seconds)
    for bound, count in tally.cumulated():
        assert count == sum(seconds <= bound for seconds in added)

"""The store's clock against this process's own."""

from __future__ import annotations

import math

from jarvis_stream.clock import StoreClock
from jarvis_stream.cluster.base import Health

GRACE = 3.0


class Clocks:
    """A server's clock, and the monotonic one, set by the test."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.server = 1_700_000_000.0
        self.seen = StoreClock(lambda: self.monotonic)

    def pass_by(self, seconds: float) -> None:
        self.monotonic += seconds
        self.server += seconds

    def look(self, round_trip: float = 0.002) -> None:
        sent = self.monotonic
        self.pass_by(round_trip / 2)
        reading = self.server
        self.pass_by(round_trip / 2)
        self.seen.observe(reading, sent, self.monotonic)

    def tick(self, times: int) -> None:
        for _ in range(times):
            self.pass_by(1.0)
            self.look()

    @property
    def horizon(self) -> float:
        return self.seen.horizon(GRACE)


def test_no_lease_is_over_until_the_clock_was_steady_for_the_grace() -> None:
    clocks = Clocks()
    assert clocks.horizon == 0.0
    clocks.look()
    clocks.tick(2)
    assert clocks.horizon == 0.0
    clocks.tick(2)
    assert clocks.server - 0.01 < clocks.horizon <= clocks.server


def test_a_step_that_nobody_has_seen_does_not_move_the_horizon() -> None:
    clocks = Clocks()
    clocks.look()
    clocks.tick(5)
    before = clocks.horizon
    clocks.server += 60.0
    assert clocks.horizon == before


def test_after_a_step_in_either_direction_the_grace_begins_again() -> None:
    for step in (60.0, -60.0, 0.6, -0.6):
        clocks = Clocks()
        clocks.look()
        clocks.tick(5)
        clocks.server += step
        clocks.tick(1)
        assert clocks.horizon == 0.0, step
        clocks.tick(4)
        assert clocks.server - 0.01 < clocks.horizon <= clocks.server, step


def test_a_slow_round_trip_and_a_slewed_clock_are_no_step() -> None:
    clocks = Clocks()
    clocks.look()
    clocks.tick(5)
    clocks.look(0.9)
    clocks.look(30.0)
    assert clocks.horizon > 0.0
    for _ in range(100):
        clocks.server += 0.05
        clocks.tick(1)
        assert clocks.horizon > 0.0


def test_another_server_is_not_trusted_at_once() -> None:
    clocks = Clocks()
    clocks.look()
    clocks.tick(5)
    clocks.seen.forget()
    assert clocks.horizon == 0.0
    clocks.look()
    clocks.tick(4)
    assert clocks.horizon > 0.0


def test_the_furthest_time_is_remembered_when_the_clock_goes_back() -> None:
    clocks = Clocks()
    clocks.tick(3)
    furthest = clocks.seen.furthest
    clocks.server -= 3600.0
    clocks.seen.forget()
    clocks.tick(3)
    assert clocks.seen.furthest == furthest


def test_epochs_have_no_floor_until_a_clock_was_seen() -> None:
    health = Health()
    assert health.epoch_floor == 0
    health.furthest = 1_700_000_000.0
    assert 1_700_000_000_000 < health.epoch_floor < math.inf

"""Failures that repeat are logged at once, and then seldom."""

from __future__ import annotations

import time

import pytest

from jarvis_stream.recurring import MAX_KEYS, RecurringLog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_failure_is_logged_at_once_and_then_once_a_minute(
    clock: list[float], log_lines: list[str]
) -> None:
    failures = RecurringLog()
    for _ in range(125):
        failures.log("WARNING", "not_there error={}", "x")
        clock[0] += 1.0
    assert log_lines == [
        "not_there error=x",
        "not_there error=x times=60",
        "not_there error=x times=60",
    ]


def test_another_failure_and_one_after_a_recovery_are_logged_at_once(
    clock: list[float], log_lines: list[str]
) -> None:
    failures = RecurringLog()
    failures.log("WARNING", "first")
    failures.log("WARNING", "second")
    failures.log("WARNING", "second")
    failures.recovered("second")
    failures.log("WARNING", "second")
    failures.recovered()
    failures.log("WARNING", "first")
    assert log_lines == ["first", "second", "second", "first"]


def test_the_failures_that_are_told_apart_are_bounded(log_lines: list[str]) -> None:
    failures = RecurringLog()
    for number in range(3 * MAX_KEYS):
        failures.log("WARNING", "failed", key=f"{number}")
    assert len(failures._failures) <= MAX_KEYS

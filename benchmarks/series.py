"""What was measured, round by round, and what is made of it: medians and ratios."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Series:
    """One figure of one server in one workload, a value for each round."""

    workload: str
    case: str
    """Which transport, how many streams: what stands beside each other in a table."""
    server: str
    metric: str
    """With its unit."""
    values: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        """NaN when there is nothing."""
        known = [value for value in self.values if not math.isnan(value)]
        return statistics.median(known) if known else math.nan

    @property
    def spread(self) -> float:
        """From the lowest to the highest, as a share of the median."""
        known = [value for value in self.values if not math.isnan(value)]
        return (max(known) - min(known)) / abs(self.median) if known and self.median else math.nan

    def over(self, other: Series) -> float:
        """The median of the rounds' ratios: those that were taken one after the other."""
        pairs = zip(self.values, other.values, strict=False)
        ratios = [one / two for one, two in pairs if two and not math.isnan(one / two)]
        return statistics.median(ratios) if ratios else math.nan


class Results:
    """All series of a run, and those of earlier ones that it did not take anew."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str, str], Series] = {}
        self.taken: dict[str, dict[str, Any]] = {}
        """On what machine and when each workload was measured."""

    def __iter__(self) -> Iterator[Series]:
        return iter(self._series.values())

    def series(self, workload: str, case: str, server: str, metric: str) -> Series:
        """The one that is so named; begun when there is none."""
        key = (workload, case, server, metric)
        return self._series.setdefault(key, Series(*key))

    def find(self, workload: str, case: str, server: str, metric: str) -> Series | None:
        return self._series.get((workload, case, server, metric))

    def workloads(self) -> list[str]:
        return list(dict.fromkeys(series.workload for series in self))

    def of(self, workload: str) -> list[Series]:
        return [series for series in self if series.workload == workload]

    def forget(self, workload: str, case: str) -> None:
        """Before it is measured anew."""
        for key in [key for key in self._series if key[:2] == (workload, case)]:
            del self._series[key]

    def save(self, file: Path) -> None:
        content = {"taken": self.taken, "series": [asdict(series) for series in self]}
        file.write_text(json.dumps(content, indent=1, allow_nan=True) + "\n")

    @classmethod
    def load(cls, file: Path) -> Results:
        """Empty when there is no such file."""
        results = cls()
        if file.exists():
            content = json.loads(file.read_text())
            results.taken = content["taken"]
            results.extend(Series(**fields) for fields in content["series"])
        return results

    def extend(self, more: Iterable[Series]) -> None:
        for series in more:
            key = (series.workload, series.case, series.server, series.metric)
            self._series[key] = series

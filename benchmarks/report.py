"""The tables and the pictures, from what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.contenders import FASTAPI, JOINED, OURS, PASSED_ON, PUSH, SEED, WRITE
from benchmarks.lab import Missing
from benchmarks.series import Results, Series
from benchmarks.workloads import (
    CAME,
    CHATS,
    COST,
    COST_CHAT,
    EACH,
    EACH_STREAM,
    FIRST,
    FRAMES,
    LATE,
    MEBIBYTES,
    MEMORY,
    NOTES,
    SQLITE,
    TRANSPORTS,
    UNWATCHED,
    WATCHED,
    WORKLOADS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Check:
    """One line of what the issue wants, and what was measured of it."""

    number: int
    what: str
    target: str
    figure: float
    """NaN when it was not measured."""
    holds: bool
    by_cpu: float = math.nan
    """The same ratio of what a core gets done, where the machine may have had other work too."""
    beside: float = math.nan
    """What the reference has, where the target is no ratio."""

    @property
    def verdict(self) -> str:
        return "not measured" if math.isnan(self.figure) else "pass" if self.holds else "FAIL"


def _at_least(
    number: int, what: str, least: float, figure: float, by_cpu: float = math.nan
) -> Check:
    return Check(number, what, f"at least {least:g}", figure, figure >= least, by_cpu)


def _at_most(number: int, what: str, most: float, figure: float, unit: str = "") -> Check:
    return Check(number, what, f"at most {most:g}{unit}", figure, figure <= most)


def _inverse(figure: float) -> float:
    return 1 / figure if figure else math.nan


class Asking:
    """Short questions to the results; every answer is a number, NaN for what is not there."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def _series(self, workload: str, case: str, server: str, metric: str) -> Series:
        return self._results.find(workload, case, server, metric) or Series("", "", "", "")

    def median(self, workload: str, case: str, metric: str, server: str = OURS) -> float:
        return self._series(workload, case, server, metric).median

    def ratio(self, workload: str, case: str, metric: str, to: str, of: str = OURS) -> float:
        return self._series(workload, case, of, metric).over(
            self._series(workload, case, to, metric)
        )

    def of_frames(self, number: int, least: float, workload: str, case: str, to: str) -> Check:
        """That there are `least` times the frames per second of another server."""
        what = f"{workload}, {case}: of {to}"
        figure = self.ratio(workload, case, FRAMES, to)
        return _at_least(
            number, what, least, figure, _inverse(self.ratio(workload, case, COST, to))
        )

    def cases(self, workload: str, word: str) -> list[str]:
        """Those that have the word in their names (a quick run has other numbers in them)."""
        return list(dict.fromkeys(s.case for s in self._results.of(workload) if word in s.case))


def checks(results: Results) -> Iterator[Check]:
    """Issue 6, line by line."""
    ask = Asking(results)
    for t in TRANSPORTS:
        seeds = {"http": 5, "ws": 2.5}[t]
        for least, reference in ((0.8, PUSH), (1.0, WRITE), (seeds, SEED)):
            yield ask.of_frames(1, least, "single", t, reference.name)
    for t in TRANSPORTS:
        for least, reference in ((0.7, JOINED), ({"http": 20, "ws": 10}[t], SEED)):
            yield ask.of_frames(2, least, "burst", t, reference.name)
    for t in TRANSPORTS:
        for streams, metric, target in (
            (1000, LATE, 6),
            (1500, CAME, 0.99),
            (1500, LATE, 25),
            (2000, CAME, 0.95),
        ):
            case = f"{streams} streams, {t}"
            figure = ask.median("paced", case, metric)
            beside = ask.median("paced", case, metric, PUSH.name)
            by_cpu = _inverse(ask.ratio("paced", case, COST, PUSH.name))
            what = f"paced, {case}: {metric}; beside it, and by processor time of it, {PUSH.name}"
            check = (_at_most if metric == LATE else _at_least)(3, what, target, figure)
            yield replace(check, beside=beside, by_cpu=by_cpu)
    for case in ask.cases("openai", "fast"):
        yield ask.of_frames(4, 0.7, "openai", case, PASSED_ON)
    for case in ask.cases("openai", "tokens a second"):
        figure = _inverse(ask.ratio("openai", case, COST, PASSED_ON))
        what = f"openai agent, {case}: for the same processor time, of {PASSED_ON}"
        yield _at_least(4, what, 0.7, figure)
    yield _at_most(
        4, "openai agent: memory, last round of the middle one", 1.05, _flatness(results), " times"
    )
    for t in TRANSPORTS:
        for least, reference in ((0.5, WRITE), (1.5, FASTAPI)):
            figure = ask.ratio("sequential", t, CHATS, reference.name)
            by_cpu = _inverse(ask.ratio("sequential", t, COST_CHAT, reference.name))
            what = f"sequential chats, {t}: of {reference.name}"
            yield _at_least(5, what, least, figure, by_cpu)
    for case in ("one chat at a time", "200 chats of 1 s at once"):
        added = ask.median("first_token", case, FIRST, SQLITE) - ask.median(
            "first_token", case, FIRST, MEMORY
        )
        yield _at_most(5, f"SQLite adds to the first token p50, {case}", 2, added, " ms")
    for t in TRANSPORTS:
        share = ask.median("supersede", t, "share that waits under 1 ms")
        yield _at_least(6, f"supersede, {t}: waits under 1 ms of server time", 0.5, share)
        rate = ask.median("supersede", t, "supersedes/s")
        by_cpu = 1e6 * _inverse(ask.median("supersede", t, COST_CHAT))
        yield _at_least(6, f"supersede, {t}: a second, one session", 2000, rate, by_cpu)
        left = ask.median("supersede", t, "streams left behind")
        yield _at_most(6, f"supersede, {t}: streams left behind", 0, left)
    for case in ask.cases("memory", "idle sockets"):
        bare = ask.median("memory", case, EACH, WRITE.name)
        more = ask.median("memory", case, EACH) - bare
        what = f"{case}: each above bare aiohttp's, which is beside it"
        yield replace(_at_most(7, what, 4, more / 1024, " KiB"), beside=bare / 1024)
    for case in ask.cases("memory", "live answers"):
        fixed = ask.median("memory", case, EACH_STREAM)
        yield _at_most(7, f"{case}: each beside its connection", 24, fixed / 1024, " KiB")
    for t in TRANSPORTS:
        falls = {
            name: ask.median("growth", f"2000 streams, {t}", FRAMES, name)
            / ask.median("growth", f"10 streams, {t}", FRAMES, name)
            for name in (OURS, PUSH.name)
        }
        what = f"from 10 to 2,000 streams, {t}: what is left, of what is left to {PUSH.name}"
        yield _at_least(8, what, 1, falls[OURS] / falls[PUSH.name])
    longer = ask.median("growth", "1 stream of 100000 tokens", FRAMES) / ask.median(
        "growth", "1 stream of 1000 tokens", FRAMES
    )
    yield _at_least(8, "100,000 tokens in one stream: frames/s, of those at 1,000", 0.9, longer)
    for t in TRANSPORTS:
        figure = ask.ratio("overhead", t, FRAMES, UNWATCHED, WATCHED)
        by_cpu = _inverse(ask.ratio("overhead", t, COST, UNWATCHED, WATCHED))
        what = f"frames/s with metrics and INFO, {t}: of those without"
        yield _at_least(9, what, 0.95, figure, by_cpu)
    for case in ask.cases("start", ""):
        yield _at_most(10, f"start, {case}", 1, ask.median("start", case, "seconds"), " s")


def _flatness(results: Results) -> float:
    """Of the second half of the rounds: until then the heap takes its shape."""
    for series in results.of("openai"):
        if series.metric == MEBIBYTES and series.server == OURS and series.values:
            return series.values[-1] / series.values[len(series.values) // 2]
    return math.nan


def markdown(results: Results) -> str:
    """Everything, as tables."""
    lines = ["# Benchmarks", ""]
    lines += ["## Done when", ""]
    heads = ("", "what", "target", "measured", "by processor time", "beside it", "")
    lines += [_row(heads), "|" + len(heads) * "---|"]
    for check in checks(results):
        figures = (_number(check.figure), _number(check.by_cpu), _number(check.beside))
        lines.append(_row((str(check.number), check.what, check.target, *figures, check.verdict)))
    for workload in WORKLOADS:
        name = workload.__name__
        if series := results.of(name):
            title = (workload.__doc__ or name).splitlines()[0]
            lines += ["", f"## {name}: {title}", "", *_table(series)]
            if taken := results.taken.get(name):
                lines += ["", ", ".join(f"{key} {value}" for key, value in taken.items())]
    return "\n".join(lines) + "\n"


def _table(series: Sequence[Series]) -> Iterator[str]:
    metrics = list(dict.fromkeys(s.metric for s in series if s.metric != NOTES)) or [NOTES]
    heads = ["case", "server", metrics[0], "±", "the first is", *metrics[1:], "notes"]
    yield _row(heads)
    yield "|" + "---|" * len(heads)
    nothing = Series("", "", "", "")
    by_key = {(s.case, s.server, s.metric): s for s in series}
    for case in sorted({s.case for s in series}, key=_by_numbers):
        servers = list(dict.fromkeys(s.server for s in series if s.case == case))
        for server in servers:
            figures = [by_key.get((case, server, metric), nothing) for metric in metrics]
            ratio = by_key.get((case, servers[0], metrics[0]), nothing).over(figures[0])
            cells = [
                case,
                server,
                _number(figures[0].median),
                "" if math.isnan(figures[0].spread) else f"{figures[0].spread / 2:.0%}",
                "" if math.isnan(ratio) or server == servers[0] else f"{ratio:.2f} of it",
                *(_number(figure.median) for figure in figures[1:]),
                "; ".join(by_key.get((case, server, NOTES), nothing).notes),
            ]
            yield _row(cells)


def _by_numbers(case: str) -> list[tuple[int, str]]:
    """Sorts 200 before 1,000."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", case)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


Draw = Callable[["Axes", Results, str], bool]
"""Draws a transport's half of a picture; False when there is nothing to draw."""


def draw(results: Results, folder: Path) -> list[Path]:
    """The pictures, as SVG. Raises Missing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise Missing("matplotlib (pip install 'jarvis-stream[bench]')") from None
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "jarvis-stream"  # the same picture, the same file
    from matplotlib import pyplot

    drawn = []
    for name, draw_half in PICTURES.items():
        figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
        if all(draw_half(axis, results, t) for axis, t in zip(axes, TRANSPORTS, strict=True)):
            file = folder / f"{name}.svg"
            figure.savefig(file, metadata={"Date": None})
            drawn.append(file)
        pyplot.close(figure)
    return drawn


def _throughput(axis: Axes, results: Results, transport: str) -> bool:
    ask = Asking(results)
    servers = [s.server for s in results.of("single") if s.case == transport and s.metric == FRAMES]
    for place, (workload, label) in enumerate(
        (("single", "single frames"), ("burst", "bursts of 16"))
    ):
        rates = [ask.median(workload, transport, FRAMES, server) / 1000 for server in servers]
        at = [-number + 0.4 * (0.5 - place) for number in range(len(servers))]
        axis.barh(at, rates, 0.4, label=label)
    axis.set_yticks([-number for number in range(len(servers))], servers)
    axis.set(title=NAMES[transport], xlabel="thousand frames per second, 50 answers at once")
    axis.legend()
    return bool(servers)


def _curves(workload: str, metric: str, scale: float, **labels: str) -> Draw:
    def draw_half(axis: Axes, results: Results, transport: str) -> bool:
        curves: dict[str, dict[int, float]] = {}
        for series in results.of(workload):
            streams, _, rest = series.case.partition(" ")
            if series.metric == metric and rest == f"streams, {transport}":
                curves.setdefault(series.server, {})[int(streams)] = series.median * scale
        for server, points in curves.items():
            axis.plot(list(points), list(points.values()), marker="o", label=server)
        axis.set(title=NAMES[transport], xlabel="answers at once", xscale="log", yscale="log")
        axis.set(**labels)
        axis.grid(alpha=0.3)
        if curves:
            axis.legend()
        return bool(curves)

    return draw_half


NAMES: Final = {"http": "HTTP", "ws": "WebSocket"}
PICTURES: Final[Mapping[str, Draw]] = {
    "throughput": _throughput,
    "growth": _curves("growth", FRAMES, 0.001, ylabel="thousand frames per second"),
    "paced": _curves("paced", LATE, 1, ylabel="delivery delay, p99, ms (50 tokens/s each)"),
}

"""The command: measures what is wanted, and writes the tables."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lab import LOAD_CORE, ROOT, SERVER_CORE, Missing, compiled, machine, say
from benchmarks.report import draw, markdown
from benchmarks.series import Results
from benchmarks.workloads import WORKLOADS, Bench


def parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {w.__name__:<12} {(w.__doc__ or '').splitlines()[0]}" for w in WORKLOADS)
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description="How fast the server is, beside others that do the same.",
        epilog=f"workloads:\n{listed}\n\n"
        + textwrap.fill(
            "It needs Linux, a C compiler, two cores that nobody else uses, and for the references"
            " pip install 'jarvis-stream[bench]'; what is missing is skipped, and the table says"
            " so. A run adds to the results that are in its folder already, so that a long one can"
            " be had in pieces.",
            100,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="only workloads and cases with this word (single, paced, http …) in their names;"
        " a+b for both words; may be repeated",
    )
    parser.add_argument(
        "--servers",
        action="append",
        default=[],
        metavar="WORD",
        help="only servers with this word in their names; may be repeated",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="another checkout of this server, measured beside this one; may be repeated",
    )
    parser.add_argument("--rounds", type=int, help="each server's turns (5)")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="how long a measurement takes, about (1)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="short measurements, two rounds: does it all work?"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build" / "benchmarks",
        metavar="DIR",
        help="where the results are written (build/benchmarks)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    try:
        compiled("loadgen.c")
    except Missing as missing:
        say(f"The load generator cannot be had: {missing} is missing.")
        return 1
    if SERVER_CORE == LOAD_CORE:
        say("There is one core only: the servers and the load generator share it.")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    results = Results.load(file)

    def keep(workload: str) -> None:
        results.taken[workload] = machine()
        results.save(file)

    bench = Bench(
        results,
        rounds=options.rounds or (2 if options.quick else 5),
        seconds=options.seconds or (0.2 if options.quick else 1.0),
        only=options.only,
        servers=options.servers,
        also=options.also,
        after_case=keep,
    )
    for workload in WORKLOADS:
        workload(bench)
    table = markdown(results)
    (options.out / "results.md").write_text(table)
    try:
        draw(results, options.out)
    except Missing as missing:
        say(f"No pictures: {missing} is missing.")
    print(table)
    say(f"Written to {options.out}")
    return 0

"""Check the model with spin: no error in it as it is, and one in each mutant.

    python docs/check_model.py      what `make model` does; the tests do the quick runs

Prints a line for each run. Exit code 1 when one of them is not as it must be.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).parent / "model" / "session.pml"

LATE: Final = ("STREAMS=3", "FRAMES=2", "LATE=1")
DEAD: Final = ("STREAMS=2", "LATE=1", "PAUSES=1", "CRASHES=1")
FAILOVER: Final = ("STREAMS=2", "FRAMES=2", "LATE=1", "FAILOVER")
SAME_TICKETS: Final = (*FAILOVER, "M_NO_CLOCK", "SAME_TICKETS")
"""The clock stood still and a failover took tickets back: the nonce alone tells streams apart."""


MUTANTS: Final = {
    "M_SWAP": LATE,
    "M_NO_FENCE": LATE,
    "M_TWICE": LATE,
    "M_RELEASE_ANY": LATE,
    "M_NO_TOMBSTONE": LATE,
    "M_NO_HEARTBEAT": LATE,
    "M_WAIT_HEAD": LATE,
    "M_LOCAL_ORDER": LATE,
    "M_NO_UNDERTAKER": DEAD,
    "M_SMALL_GRAVES": DEAD,
    "M_OPEN_GRAVE": DEAD,
    "M_TWO_ENDS": DEAD,
    "M_LOOK_THEN_BURY": DEAD,
    "M_EPOCHS_EXPIRE": DEAD,
    "M_GAP": FAILOVER,
    "M_HASTY": FAILOVER,
    "M_NO_CLOCK": FAILOVER,
    "M_NO_NONCE": SAME_TICKETS,
}
"""Each with what must go on around it for its fault to show."""

QUICK_MUTANTS: Final = ("M_SWAP", "M_NO_FENCE", "M_OPEN_GRAVE", "M_NO_UNDERTAKER")


class ModelError(Exception):
    """Spin or the C compiler could not do its work."""


@dataclass(frozen=True)
class Run:
    """One search through the model's states, under `-D` switches."""

    name: str
    switches: tuple[str, ...]
    is_mutant: bool = False
    is_quick: bool = False


@dataclass(frozen=True)
class Found:
    """What a search found."""

    error: str
    """The first violated assertion; empty for none."""
    states: int
    seconds: float


RUNS: Final = (
    Run("late and lost requests", LATE),
    Run("the same, two streams", ("STREAMS=2", "LATE=2"), is_quick=True),
    Run("deaths and pauses", DEAD, is_quick=True),
    Run("a death among three", ("STREAMS=3", "FRAMES=2", "LATE=0", "CRASHES=1")),
    Run("a failover", FAILOVER),
    Run("tickets given twice", SAME_TICKETS),
    *(
        Run(mutant, (*around, mutant), is_mutant=True, is_quick=mutant in QUICK_MUTANTS)
        for mutant, around in MUTANTS.items()
    ),
)


def check(run: Run, directory: Path) -> Found:
    """Search all states, or up to the first error; `directory` is empty. Raises ModelError."""
    switches = [f"-D{switch}" for switch in run.switches]
    began = time.monotonic()
    _do(directory, "spin", *switches, "-a", str(MODEL))
    _do(directory, "cc", "-w", "-O1", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c")
    said = _do(directory, "./pan", "-m100000")
    states = re.search(r"(\d+) states, stored", said)
    errors = re.search(r"errors: (\d+)", said)
    if not states or not errors or "max search depth too small" in said:
        raise ModelError(said)
    error = re.search(r"pan:\d+: (.*)", said)
    if (error is None) != (errors[1] == "0"):
        raise ModelError(said)
    return Found(error[1] if error else "", int(states[1]), time.monotonic() - began)


def _do(directory: Path, *command: str) -> str:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ModelError("the model needs spin: apt-get install spin gcc libc6-dev") from error
    if done.returncode:
        raise ModelError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def main() -> int:
    """Check it; returns the exit code."""
    wrong = 0
    for run in RUNS:
        with tempfile.TemporaryDirectory() as directory:
            found = check(run, Path(directory))
        is_good = bool(found.error) is run.is_mutant
        wrong += not is_good
        print(
            f"{run.name:24} {found.states:>9,} states {found.seconds:5.1f} s "
            f" {found.error or 'no error'}{'' if is_good else '   WRONG'}",
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

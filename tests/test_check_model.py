"""The model of the session's life in Redis: checked, and each of its guards needed.

The quick part of it; `make model` does the rest.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from check_model import MODEL, MUTANTS, RUNS, Run, check


@pytest.mark.parametrize("run", [run for run in RUNS if run.is_quick], ids=lambda run: run.name)
def test_the_model_holds_and_its_mutants_do_not(run: Run, tmp_path: Path) -> None:
    assert bool(check(run, tmp_path).error) is run.is_mutant


def test_every_mutant_is_searched_for_its_fault() -> None:
    assert set(re.findall(r"\bM_[A-Z_]+", MODEL.read_text())) == MUTANTS.keys()


def test_the_readme_tells_what_each_mutant_leaves_out() -> None:
    rows = re.findall(r"^\| `(M_\w+)` \|", MODEL.with_name("README.md").read_text(), re.MULTILINE)
    assert rows == list(MUTANTS)

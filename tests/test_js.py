"""The tests of the page's JavaScript, in Node."""

from __future__ import annotations

from pathlib import Path

import npm
import pytest
from conftest import ROOT

FILES = sorted(file for file in npm.JS.rglob("*.test.js") if not file.is_relative_to(npm.INSTALLED))


def test_there_are_some() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_javascript_tests_pass(file: Path) -> None:
    npm.node("--test", file, cwd=ROOT)

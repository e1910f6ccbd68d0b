"""The lists of tests/profiles.py name what exists, and the unit profile needs no other program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from profiles import BEYOND_UNIT, SERIAL

TESTS = ROOT / "tests"
LEFT_OUT = [TESTS / name for name in BEYOND_UNIT]
UNIT_FILES = [
    file
    for file in sorted(TESTS.rglob("test_*.py"))
    if "node_modules" not in file.parts
    and file != Path(__file__)
    and not any(file == left or left in file.parents for left in LEFT_OUT)
]
PROGRAMS = re.compile(
    r"\b(postgres|redis_server|shared_redis|shared_redis_cluster|pgbouncer|browsers?|page): "
    r"|import (PostgresServer|RedisServer|async_playwright)\b|check_model"
)


@pytest.mark.parametrize("name", [*BEYOND_UNIT, *SERIAL])
def test_a_listed_file_exists(name: str) -> None:
    assert (TESTS / name).exists()


@pytest.mark.parametrize("file", UNIT_FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_a_unit_test_needs_no_database_browser_or_compiler(file: Path) -> None:
    found = PROGRAMS.search(file.read_text())
    assert found is None, f"{found[0]}: list the file in BEYOND_UNIT of tests/profiles.py"

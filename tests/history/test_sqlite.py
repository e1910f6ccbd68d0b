"""History in a SQLite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts.history import DurableContract


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'a folder' / 'history.sqlite3'}"


class TestSqlite(DurableContract):
    """See the contract."""

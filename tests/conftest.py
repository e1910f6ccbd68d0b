"""What every test can ask for."""

from __future__ import annotations

import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from loguru import logger
from postgres_server import PostgresServer
from profiles import BEYOND_UNIT, SERIAL, UNIT

from jarvis_stream.history.base import Limits

settings.register_profile("default", deadline=None)  # never assert on timing
settings.load_profile("default")

collect_ignore = list(BEYOND_UNIT) if UNIT else []
"""Files and folders that pytest does not collect."""

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that no other test may run beside."""
    files = {ROOT / "tests" / name for name in SERIAL}
    for item in items:
        if item.path in files:
            item.add_marker(pytest.mark.serial)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, keys, proxies or conversations of whoever runs it."""
    for name in list(os.environ):
        usual = ("PORT", "LOG_LEVEL", "DATABASE_URL", "REDIS_URL")
        if name.upper().startswith(("JARVIS_", "OPENAI_")) or name in usual:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.fixture
def patient_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """The applications of this process wait for their database, however busy the disk is."""
    patient = functools.partial(Limits, begin_timeout=20.0, save_timeout=20.0, read_timeout=20.0)
    monkeypatch.setattr("jarvis_stream.app.HistoryLimits", patient)
    monkeypatch.setattr("jarvis_stream.registry.LOOKUP_TIMEOUT", 20.0)


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """The text of every record the package logs during the test."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="TRACE")
    yield lines
    logger.remove(sink)


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """For tests that configure the process's logging: undone at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    logger.remove()
    logger.add(sys.stderr)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server, stopped at the end."""
    # Not in pytest's own directory: that is closed to others, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="jarvis-pg-") as directory:
        server = PostgresServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()

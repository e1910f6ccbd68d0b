"""How much the tests do, and how long they wait: one profile and one time unit.

`JARVIS_TEST_PROFILE=long` (`make test-long`) runs more examples, more simulations, every mutant
and both event loops. The default profile (`make test`) runs less of the same. `unit` (`make check`)
runs only what needs no program beside Python and Node. A variable such as `SIMULATIONS=1000` sets
one amount alone.

`JARVIS_TEST_PATIENCE=3` multiplies the timeouts that guard the tests against hanging.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

PROFILE: Final = os.environ.get("JARVIS_TEST_PROFILE", "default")
if PROFILE not in ("unit", "default", "long"):
    raise ValueError(
        f"JARVIS_TEST_PROFILE={PROFILE!r} is not allowed; allowed: unit, default, long"
    )
LONG: Final = PROFILE == "long"
UNIT: Final = PROFILE == "unit"

SCALE: Final = float(os.environ.get("JARVIS_TEST_PATIENCE", "1"))

EVENT_LOOPS: Final = ("uvloop", "asyncio") if LONG else ("uvloop",)
"""The event loops that a test with a server process runs on."""

long_only: Final = pytest.mark.skipif(not LONG, reason="runs in the long profile: make test-long")


SERIAL: Final = (
    "acceptance/test_crowds.py",
    "acceptance/test_many_readers.py",
    "acceptance/test_memory.py",
    "acceptance/test_slow_clients.py",
    "test_benchmarks.py",
)
"""Files whose results depend on free processor time: `make test` runs them with no test beside."""

BEYOND_UNIT: Final = (
    "acceptance",
    "agents/test_litellm.py",
    "browser",
    "cluster",
    "history/test_copy.py",
    "history/test_postgres.py",
    "history/test_schema.py",
    "history/test_server_crashes.py",
    "history/test_server_without_database.py",
    "history/test_model.py",
    "history/test_sql.py",
    "history/test_sqlite.py",
    "test_benchmarks.py",
    "test_check_model.py",
    "test_cli.py",
    "test_node_simulation.py",
    "test_package.py",
    "test_server.py",
    "test_types.py",
    "test_workers.py",
    "transports/test_matrix.py",
    "transports/test_nodes.py",
)
"""Files and folders that the unit profile leaves out: they start servers, browsers or compilers, or
take long."""


def patience(seconds: float) -> float:
    """Return a timeout that guards against hanging, in seconds, scaled for a slow machine."""
    return seconds * SCALE


def amount(variable: str, *, default: int, long: int, unit: int | None = None) -> int:
    """Return how often something is done: the variable's value, or that of the profile.

    `unit` is by default the same as `default`.
    """
    of_profile = {"unit": default if unit is None else unit, "default": default, "long": long}
    return int(os.environ.get(variable) or of_profile[PROFILE])

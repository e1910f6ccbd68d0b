"""The client's own tests, under Node's test runner."""

from __future__ import annotations

import subprocess

from conftest import ROOT


def test_the_clients_own_tests_pass() -> None:
    # A shell would not expand `**`; the runner finds *.test.js below the folder by itself.
    try:
        run = subprocess.run(
            ["node", "--test", "."],
            cwd=ROOT / "tests" / "js",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except FileNotFoundError:
        raise AssertionError("node is missing: install Node.js 20 or newer") from None
    assert run.returncode == 0, run.stdout + run.stderr
    assert "# pass 0" not in run.stdout.splitlines()

"""How much memory a server process takes, as Linux counts it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from processes import Server

MEGABYTE = 2**20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident(server: Server) -> int:
    """The resident bytes of its process, now; its peak counts from here on."""
    process = Path(f"/proc/{server.process.pid}")
    process.joinpath("clear_refs").write_text("5")  # see proc(5)
    return _status(server, "VmRSS")


def peak(server: Server) -> int:
    """The most that was resident since `resident` was asked."""
    return _status(server, "VmHWM")


def _status(server: Server, name: str) -> int:
    for line in Path(f"/proc/{server.process.pid}/status").read_text().split("\n"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} in /proc")

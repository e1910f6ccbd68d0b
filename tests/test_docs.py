"""The documents: links lead to existing headings, and flags, variables and files exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

from jarvis_stream.settings import Settings

DOCUMENTS = sorted(
    file
    for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if file.name != "benchmarks.md"  # written by a run of the benchmarks
)
NAMES = [str(file.relative_to(ROOT)) for file in DOCUMENTS]
COMMAND_FLAGS = {
    *("--allow-anonymous", "--help", "--version"),
    *("--from", "--to", "--merge"),  # copy-history
    *("--url", "--stack", "--cancel"),  # streams and revoke
}
FLAG_DOCUMENTS = [
    "README.md",
    "SECURITY.md",
    "docs/architecture.md",
    "docs/operating.md",
    "docs/protocol.md",
    "docs/sizing.md",
]
"""Documents whose flags are those of the server; other documents also name flags of other tools."""


def prose_of(text: str) -> str:
    """The text without its fenced code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(file: Path) -> set[str]:
    """The anchors that a public host gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose_of(file.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_document_leads_to_a_file_and_a_heading(name: str) -> None:
    file = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(file.read_text("utf-8"))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), f"{name} links to {target}: there is no such file"
        if anchor:
            assert anchor in anchors_of(linked), f"{name} links to {target}: no such heading"


@pytest.mark.parametrize("name", FLAG_DOCUMENTS)
def test_every_flag_of_a_document_exists(name: str) -> None:
    known = {"--" + field.replace("_", "-") for field in Settings.model_fields}
    known |= COMMAND_FLAGS
    flags = set(re.findall(r"`(--[a-z-]+[a-z])(?![\w-])", (ROOT / name).read_text("utf-8")))
    assert {flag for flag in flags if flag not in known} == set()


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    records = {file.name for file in folder.glob("0*.md")}
    index = (folder / "README.md").read_text("utf-8")
    assert records == set(re.findall(r"\]\((0[^)]+\.md)\)", index))


def definitions_of(file: Path) -> set[str]:
    """The names that a module defines: functions, classes, constants, and `Class.method`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name, body=body):
                names.add(name)
                names |= {
                    f"{name}.{inner.name}"
                    for inner in body
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                }
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


ARCHITECTURE = ROOT / "docs" / "architecture.md"
NAMED = re.findall(r"`([\w/]+\.py)::([\w.]+)`", ARCHITECTURE.read_text("utf-8"))


def test_the_architecture_names_functions() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_every_function_in_the_architecture_exists(path: str, name: str) -> None:
    assert name in definitions_of(ROOT / "jarvis_stream" / path)


def test_every_file_in_the_architecture_exists() -> None:
    names = set(re.findall(r"`([\w/]+/?(?:\.\w+)?)`", ARCHITECTURE.read_text("utf-8")))
    paths = {name for name in names if "/" in name or name.endswith((".py", ".js", ".md"))}
    package = ROOT / "jarvis_stream"
    folders = [ROOT, package, *(package / name for name in ("transports", "history", "cluster"))]
    assert {
        path for path in paths if not any((folder / path).exists() for folder in folders)
    } == set()

"""What the page took from elsewhere is what its authors released."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from conftest import ROOT

FOLDER = ROOT / "static" / "vendor"
MANIFEST = FOLDER / "vendor.json"
PACKAGES: list[dict[str, Any]] = json.loads(MANIFEST.read_text())["packages"]


def test_every_file_is_in_the_manifest_and_the_other_way_round() -> None:
    listed = {f"{package['folder']}/{file}" for package in PACKAGES for file in package["files"]}
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert there == listed | {MANIFEST.name}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package["name"])
def test_every_file_is_unchanged(package: dict[str, Any]) -> None:
    there = {
        file: hashlib.sha256((FOLDER / package["folder"] / file).read_bytes()).hexdigest()
        for file in package["files"]
    }
    assert there == {file: about["sha256"] for file, about in package["files"].items()}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package["name"])
def test_each_says_where_it_is_from_and_under_which_licence(package: dict[str, Any]) -> None:
    name, version = package["name"], package["version"]
    base = name.rpartition("/")[2]
    assert package["tarball"] == f"https://registry.npmjs.org/{name}/-/{base}-{version}.tgz"
    assert package["integrity"].startswith("sha512-")
    assert package["license"]
    assert (FOLDER / package["folder"] / "LICENSE").stat().st_size > 0

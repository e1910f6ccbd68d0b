"""requirements/*.txt: what setup.cfg asks for, each in one version that it allows, with hashes."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT
from lock import ENVIRONMENTS, HEAD, LOCK_NAMES, LOCKS, extras_of, requirements_of, setup_cfg
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ALL_NAMES = (*LOCK_NAMES, *ENVIRONMENTS)
SHA256 = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> dict[str, Requirement]:
    """What is in a lock file, by its canonical name; each with at least one hash."""
    text = (LOCKS / f"{name}.txt").read_text().replace("\\\n", " ")
    found: dict[str, Requirement] = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        requirement = Requirement(SHA256.sub("", line).strip())
        assert SHA256.search(line), f"{requirement} has no hash"
        found[canonicalize_name(requirement.name)] = requirement
    return found


def pin_of(requirement: Requirement) -> str:
    """The one version that a locked requirement allows."""
    [specifier] = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_lock_covers_what_setup_cfg_asks_for(name: str) -> None:
    there = locked(name)
    for text in requirements_of(name):
        wanted = Requirement(text)
        pinned = there.get(canonicalize_name(wanted.name))
        assert pinned is not None, f"{name}.txt lacks {wanted.name}: run `make lock`"
        assert wanted.specifier.contains(pin_of(pinned)), f"{name}.txt: {pinned}: run `make lock`"


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_locked_package_is_pinned(name: str) -> None:
    assert (LOCKS / f"{name}.txt").read_text().startswith(HEAD)
    assert all(pin_of(requirement) for requirement in locked(name).values())


def test_the_locks_agree_with_each_other() -> None:
    pins = [{key: pin_of(value) for key, value in locked(name).items()} for name in LOCK_NAMES]
    run, image, test, bench = pins
    assert run.items() <= image.items()
    for other in (test, bench):
        for key in image.keys() & other.keys():
            assert image[key] == other[key], f"{key} differs: run `make lock`"
        assert run.keys() <= other.keys()


def test_every_extra_is_in_a_lock() -> None:
    listed = [extra for name in LOCK_NAMES for extra in extras_of(name)]
    assert sorted(listed) == sorted(setup_cfg()["options.extras_require"])


def test_the_image_and_the_makefile_install_from_the_locks() -> None:
    dockerfile = (ROOT / "docs" / "deploy" / "Dockerfile").read_text()
    assert "--require-hashes -r image.txt" in dockerfile
    installs = [line for line in dockerfile.splitlines() if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    makefile = (ROOT / "Makefile").read_text()
    assert "--require-hashes --requirement requirements/$(1).txt" in makefile

"""Makes requirements/*.txt anew, from setup.cfg and pyproject.toml: `make lock`.

    run.txt      what `make run` installs
    image.txt    what the container image holds: every extra but the tests' and the benchmarks'
    test.txt     what `make test` installs
    bench.txt    what `make bench` installs
    litellm.txt  the LiteLLM proxy, which a test runs from an environment of its own

Every package that can be installed, on any system and any Python that is supported, has its version
and its hashes in it; what builds the package itself, too.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKS: Final = ROOT / "requirements"
ALL_THAT_SERVES: Final = "image"
TESTS: Final = "test"
BENCHMARKS: Final = "bench"
LOCK_NAMES: Final = ("run", ALL_THAT_SERVES, TESTS, BENCHMARKS)

ENVIRONMENTS: Final = {"litellm": ["litellm[proxy] >= 1.100"]}
"""Programs that the tests run from environments of their own: they pin what the package needs."""

HEAD: Final = """\
# Made by `make lock` from setup.cfg and pyproject.toml; a test compares them.
"""


def setup_cfg() -> configparser.ConfigParser:
    """What the package says of itself."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def extras_of(lock: str) -> list[str]:
    """The extras that are in `requirements/{lock}.txt`."""
    extras = setup_cfg()["options.extras_require"]
    if lock in (TESTS, BENCHMARKS):
        return [lock]
    served = [extra for extra in extras if extra not in (TESTS, BENCHMARKS)]
    return served if lock == ALL_THAT_SERVES else []


def requirements_of(lock: str) -> list[str]:
    """What `requirements/{lock}.txt` is made from, as PEP 508 writes it."""
    if lock in ENVIRONMENTS:
        return ENVIRONMENTS[lock]
    config = setup_cfg()
    listed = [config["options"]["install_requires"]]
    listed += [config["options.extras_require"][extra] for extra in extras_of(lock)]
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build: list[str] = pyproject["build-system"]["requires"]
    lines = [line.strip() for text in listed for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")] + build


def python_requires() -> str:
    """The oldest Python that is supported."""
    return setup_cfg()["options"]["python_requires"].removeprefix(">=").strip()


def compile_lock(lock: str, *, upgrade: bool) -> None:
    """Resolve one of them with uv, and write it. Without `upgrade`, what still fits stays."""
    target = LOCKS / f"{lock}.txt"
    made = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "-"),
            *("--universal", "--generate-hashes", "--no-header", "--quiet", "--system-certs"),
            *("--python-version", python_requires()),
            *("--output-file", str(target)),
            *(["--upgrade"] if upgrade else []),
        ],
        input="\n".join(requirements_of(lock)),
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if made.returncode:
        raise SystemExit(made.returncode)
    target.write_text(HEAD + target.read_text().removeprefix(HEAD))


if __name__ == "__main__":
    LOCKS.mkdir(exist_ok=True)
    for name in (*LOCK_NAMES, *ENVIRONMENTS):
        compile_lock(name, upgrade="--upgrade" in sys.argv[1:])

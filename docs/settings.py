"""Prints docs/settings.md: `make docs`."""

from __future__ import annotations

from jarvis_stream.settings import options

HEAD = """\
# Settings

Every setting is a flag and an environment variable. A flag overrides its variables, and the first
variable overrides the second. An empty variable counts as not set. A value that is not allowed
stops the start with exit code 2 and a line that names it. `jarvis-stream --help` prints the same
list.

Times are in seconds, sizes in bytes.

<!-- Generated from the code by `make docs`; a test compares them. -->

| flag | variables | default | allowed | meaning |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page, as Markdown."""
    rows = (
        (
            f"`{option.flag}`",
            ", ".join(f"`{variable}`" for variable in option.variables),
            "" if option.default == "none" else f"`{option.default}`",
            option.allowed,
            option.meaning,
        )
        for option in options().values()
    )
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    print(page(), end="")

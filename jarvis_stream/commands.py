"""What else the program does than serve: `jarvis-stream copy-history`.

    jarvis-stream copy-history --from history.sqlite3 --to postgresql://jarvis@db/jarvis

stdout tells how it goes. It may be broken off and begun again.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

TELL_EVERY: Final = 1.0
"""Seconds between two lines about how far it is."""


def copy_history(argv: Sequence[str], source: str) -> None:
    """Copy a history to another database; `source` unless another is named.

    Raises HistoryUnusable, with a sentence for people, when not all is there in the end.
    """
    parser = argparse.ArgumentParser(
        prog="jarvis-stream copy-history",
        description="Copy all conversations to another database: SQLite or PostgreSQL, either way."
        " No server may use the source meanwhile. May be broken off and begun again.",
        epilog="A password can be left out of the URL: PGPASSWORD and ~/.pgpass are honoured.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="URL",
        default=source,
        help="a path, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
        " [default: what JARVIS_DATABASE_URL names, or else the server's own file]",
    )
    parser.add_argument("--to", dest="target", metavar="URL", required=True, help="the same")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="keep conversations that only the target has; without it, there must be none",
    )
    given = parser.parse_args(argv)
    from jarvis_stream.history.copy import copy_history as copy

    done = asyncio.run(
        copy(given.source, given.target, merge=given.merge, progress=_now_and_then(_tell))
    )
    print(f"Done: the target has {done.sessions} conversations with {done.turns} questions.")
    print("The source still has them too. Now start the server on the target: --database-url")


def _tell(done: int, total: int) -> None:
    print(f"{done} of {total} questions", flush=True)


def _now_and_then(tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
    told_at = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= TELL_EVERY:
            told_at = time.monotonic()
            tell(done, total)

    return progress

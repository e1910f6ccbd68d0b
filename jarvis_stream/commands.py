"""The program's other commands: `jarvis-stream copy-history` and `jarvis-stream revoke`.

    jarvis-stream copy-history --from history.sqlite3 --to postgresql://jarvis@db/jarvis
    jarvis-stream revoke ann

Of copying, stdout tells how it goes. It may be broken off and begun again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Final

from jarvis_stream.errors import JarvisError

REVOKE_TIMEOUT: Final = 10.0
"""Seconds that a server has to end sign-ins."""

TELL_EVERY: Final = 1.0
"""Seconds between two lines about how far it is."""


class CommandFailed(JarvisError):
    """A command could not do its work; the message says why, and what to do."""


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


def revoke(argv: Sequence[str], redis_url: str | None) -> None:
    """End every sign-in of a principal: in Redis, or at a server on this machine.

    Raises StoreLost or CommandFailed, with a sentence for people.
    """
    parser = argparse.ArgumentParser(
        prog="jarvis-stream revoke",
        description="End every sign-in of a principal and close the connections that depend on one."
        " With Redis this is for all servers. Without, it is for one server on this machine.",
        epilog="Remove the principal's token from the settings first: it could be used to sign in"
        " again.",
        allow_abbrev=False,
    )
    parser.add_argument("principal", metavar="PRINCIPAL", help="the principal's name")
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        default=redis_url,
        help="the Redis of the servers [default: what JARVIS_REDIS_URL or REDIS_URL names]",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        default="http://127.0.0.1:8000",
        help="the server on this machine, where there is no Redis [default: %(default)s]",
    )
    given = parser.parse_args(argv)
    if given.redis_url:
        ended = asyncio.run(_revoke_in_redis(given.redis_url, given.principal))
    else:
        ended = _revoke_at(given.url, given.principal)
    print(f"Ended {ended} sign-ins of {given.principal}.")


async def _revoke_in_redis(url: str, principal: str) -> int:
    try:
        from jarvis_stream.cluster import shared
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"--redis-url needs {error.name}: pip install 'jarvis-stream[redis]'"
        ) from error
    router = shared.shared_router(url)
    async with router.running():
        await shared.RedisPasses(router, "ticket", seconds=0).drop_all(principal)
        return await shared.RedisPasses(router, "login", seconds=0).drop_all(principal)


def _revoke_at(url: str, principal: str) -> int:
    request = urllib.request.Request(
        f"{url.rstrip('/')}/api/admin/revoke",
        data=json.dumps({"principal": principal}).encode(),
        headers={"Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=REVOKE_TIMEOUT) as response:
            return int(json.load(response)["ended"])
    except urllib.error.HTTPError as error:
        raise CommandFailed(f"the server at {url} refused: status {error.code}") from error
    except (OSError, ValueError, KeyError) as error:
        raise CommandFailed(
            f"there is no server at {url} ({error}): name it with --url, or its Redis with"
            " --redis-url"
        ) from error


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

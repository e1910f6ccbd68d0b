"""The program's other commands.

    jarvis-stream copy-history --from history.sqlite3 --to postgresql://jarvis@db/jarvis
    jarvis-stream revoke ann
    jarvis-stream streams [--cancel STREAM_ID]

`copy-history` reports its progress on stdout, and can be interrupted and repeated. `revoke` ends
the sign-ins of a principal. `streams` lists the live streams of a running server, and the line of
code at which each agent waits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from jarvis_stream.errors import JarvisError

TELL_EVERY: Final = 1.0
"""Seconds between two lines about how far it is."""

CALL_TIMEOUT: Final = 20.0
"""Seconds that a server may take to respond to a command."""


class CommandFailed(JarvisError):
    """A command failed; the message contains the cause and the remedy."""


def copy_history(argv: Sequence[str], source: str) -> None:
    """Copy a history to another database; `source` unless another is named.

    Raises HistoryUnusable, with a sentence for people, when not all is there in the end.
    """
    parser = argparse.ArgumentParser(
        prog="jarvis-stream copy-history",
        description="Copy all conversations to another database (SQLite or PostgreSQL)."
        " Stop the servers of the source first. The copy can be interrupted and repeated.",
        epilog="Leave the password out of the URL: use PGPASSWORD or ~/.pgpass.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="URL",
        default=source,
        help="a path, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
        " [default: JARVIS_DATABASE_URL, or else the server's SQLite file]",
    )
    parser.add_argument("--to", dest="target", metavar="URL", required=True, help="the same")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="keep conversations that only the target has; by default, they stop the copy",
    )
    given = parser.parse_args(argv)
    from jarvis_stream.history.copy import copy_history as copy

    done = asyncio.run(
        copy(given.source, given.target, merge=given.merge, progress=_now_and_then(_tell))
    )
    print(f"Done: the target has {done.sessions} conversations with {done.turns} questions.")
    print("The source still has them, too. Now start the server with --database-url of the target.")


def revoke(argv: Sequence[str], redis_url: str | None, url: str) -> None:
    """End every sign-in of a principal: in Redis, or at a server on this machine.

    `url` is the server unless `argv` names another. Raise StoreLost or CommandFailed, with a
    message for the operator.
    """
    parser = argparse.ArgumentParser(
        prog="jarvis-stream revoke",
        description="End every sign-in of a principal and close the connections that depend on one."
        " With Redis, this applies to all servers; without Redis, to one server on this machine.",
        epilog="Remove the principal's token from the settings first: it could be used to sign in"
        " again.",
        allow_abbrev=False,
    )
    parser.add_argument("principal", metavar="PRINCIPAL", help="the principal's name")
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        default=redis_url,
        help="the Redis of the servers [default: JARVIS_REDIS_URL or REDIS_URL]",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        default=url,
        help="the server on this machine, if there is no Redis [default: %(default)s]",
    )
    given = parser.parse_args(argv)
    if given.redis_url:
        ended = asyncio.run(_revoke_in_redis(given.redis_url, given.principal))
    else:
        ended = _revoke_at(given.url.rstrip("/"), given.principal)
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
    body = {"principal": principal}
    try:
        ended = _call(f"{url}/api/admin/revoke", None, method="POST", body=body)["ended"]
    except _Unreachable as error:
        raise CommandFailed(
            f"{error}; name the server with --url, or its Redis with --redis-url"
        ) from error
    assert isinstance(ended, int)
    return ended


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


def streams(argv: Sequence[str], urls: Sequence[str], token: str | None) -> int:
    """List the live streams of running servers, or cancel one; return the exit code.

    `urls` are the servers to query unless `argv` names others. Raise CommandFailed, with a message
    for the operator.
    """
    parser = argparse.ArgumentParser(
        prog="jarvis-stream streams",
        description="List the live streams of a running server, oldest first, and the line of code"
        " at which each agent waits; or cancel one of them.",
        epilog="The server and the token come from the same variables as the server's settings:"
        " JARVIS_HOST, JARVIS_PORT, JARVIS_OPERATOR_TOKEN; with JARVIS_WORKERS and"
        " JARVIS_WORKER_PORT, every worker is queried. Each server lists its own streams only.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--url",
        action="append",
        metavar="URL",
        help=f"a server to query; can be repeated [default: {' '.join(urls)}]",
    )
    parser.add_argument("--json", action="store_true", help="print the server's response as JSON")
    parser.add_argument("--stack", action="store_true", help="print the call stack of each agent")
    parser.add_argument("--cancel", metavar="STREAM_ID", help="cancel this stream")
    parser.add_argument("--owner", help="the stream's owner, if two owners use the same id")
    given = parser.parse_args(argv)
    servers = [url.rstrip("/") for url in given.url or urls]
    if given.cancel is not None:
        return _cancel(servers, token, given.cancel, given.owner)
    listed = [_call(f"{url}/api/admin/streams", token) for url in servers]
    if given.json:
        print(json.dumps(listed, indent=2))
        return 0
    for server in listed:
        _print_streams(server, with_stack=given.stack)
    return 0


def _cancel(servers: Sequence[str], token: str | None, stream_id: str, owner: str | None) -> int:
    query = "" if owner is None else "?" + urlencode({"owner": owner})
    path = f"/api/admin/streams/{quote(stream_id, safe='')}/cancel{query}"
    missing: CommandFailed | None = None
    for url in servers:
        try:
            result = _call(url + path, token, method="POST")
        except _NotThere as error:
            missing = error
            continue
        agent = "its agent has stopped" if result["clean"] else "its agent does not stop"
        print(f"ended {stream_id}: {agent} ({result['cleanup_ms']} ms)")
        return 0
    assert missing is not None
    raise missing


class _NotThere(CommandFailed):
    """The server does not know the named stream."""


class _Unreachable(CommandFailed):
    """No server responds."""


def _call(
    url: str, token: str | None, method: str = "GET", body: dict[str, Any] | None = None
) -> dict[str, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers["Content-Type"] = "application/json"
    # Ignore the proxies of the environment: a proxy must not see the token.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data, method=method, headers=headers)
    try:
        with opener.open(request, timeout=CALL_TIMEOUT) as response:
            result: dict[str, Any] = json.load(response)
            return result
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise CommandFailed(
                f"{url} requires the operator's token: set JARVIS_OPERATOR_TOKEN, with the same"
                " value here and for the server"
            ) from error
        try:
            sentence = json.load(error)["error"]
        except (ValueError, KeyError, TypeError):
            sentence = f"status {error.code}"
        kind = _NotThere if error.code == 404 else CommandFailed
        raise kind(f"{url}: {sentence}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _Unreachable(f"{url} cannot be reached: {reason}") from error


_COLUMNS: Final = (
    ("STREAM", "stream_id"),
    ("SESSION", "session_id"),
    ("OWNER", "owner"),
    ("STATE", "state"),
    ("AGE", "age_ms"),
    ("SEQ", "seq"),
    ("READERS", "readers"),
    ("LAST FRAME", "last_frame_ms"),
    ("WAITS AT", "waits_at"),
)


def _print_streams(server: dict[str, Any], *, with_stack: bool) -> None:
    node, found = server["node"], server["streams"]
    print(f"{server['total']} streams at {node['name']} (pid {node['pid']})")
    rows = [[_cell(key, stream[key]) for _, key in _COLUMNS] for stream in found]
    titles = [title for title, _ in _COLUMNS]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for stream, row in zip([None, *found], [titles, *rows], strict=True):
        if found:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            print("  ".join(cells).rstrip())
        if stream is not None and with_stack:
            for place in stream["stack"]:
                print(f"    {_cell('stack', place)}")
    sys.stdout.flush()


def _cell(key: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    if key.endswith("_ms"):
        assert isinstance(value, int)
        return f"{value / 1000:.1f}s"
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]

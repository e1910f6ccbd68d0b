"""Malformed and ambiguous requests: one refusal each in our own words, and nothing behind it."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
from processes import Server
from profiles import EVENT_LOOPS

from .clients import wire
from .conftest import assert_quiet, start
from .probes import PROBES, Probe

LAST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose log holds neither a traceback nor what it was sent."""
    with start(loop=request.param) as server:
        yield server
        assert_quiet(server.log)
        assert "Traceback" not in server.log
        assert "bbbb" not in server.log
        records = [orjson.loads(line) for line in server.log.splitlines()]
        assert any(r["message"].startswith("request_refused code=malformed") for r in records)


def answers(got: bytes) -> list[tuple[int, bytes, bytes]]:
    """Every answer in what a connection gave: status, headers, body."""
    found = []
    while got:
        head, _, got = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/"), head
        headers = head.lower()
        length = int(headers.partition(b"content-length: ")[2].split(b"\r\n")[0])
        found.append((int(head.split(b" ")[1]), headers, got[:length]))
        got = got[length:]
    return found


def test_there_are_enough_of_them() -> None:
    assert len(PROBES) >= 32
    assert len({probe.name for probe in PROBES}) == len(PROBES)


@pytest.mark.parametrize("probe", PROBES, ids=str)
async def test_it_is_refused_once(server: Server, probe: Probe) -> None:
    async with wire(server.url) as peer:
        peer.send(probe.data)
        head = await peer.until(b"\r\n\r\n")
        peer.send(LAST)  # where the connection has stayed open, the two sides still agree
        (status, headers, body), *more = answers(head + await peer.rest())
    assert status in probe.statuses
    assert b"content-type: application/json" in headers
    assert b"x-content-type-options: nosniff" in headers
    assert b"aiohttp" not in headers
    refusal = orjson.loads(body)
    assert set(refusal) == {"code", "error"}
    assert refusal["error"].isprintable()
    assert b"alive" not in body
    assert [orjson.loads(body) for _, _, body in more] in ([], [{"ready": True, "saving": True}])
    assert more or b"connection: keep-alive" not in headers

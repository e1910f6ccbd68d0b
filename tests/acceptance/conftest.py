"""Real servers, each a process of its own, and clients that talk to them over real sockets."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager

import orjson
import pytest
from conftest import ROOT
from processes import Server, serving
from profiles import EVENT_LOOPS

from .clients import Api, talking_to

WITHOUT_UVLOOP = (
    "import sys; sys.modules['uvloop'] = None; from jarvis_stream import cli; sys.exit(cli.main())"
)


def start(*flags: str, loop: str = "uvloop") -> AbstractContextManager[Server]:
    """A server whose agent is the scripted one."""
    command = ("run.py",) if loop == "uvloop" else ("-c", WITHOUT_UVLOOP)
    agent = ("--agent", "tests.acceptance.agents:scripted")
    return serving(sys.executable, *command, *agent, *flags, cwd=ROOT)


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with nothing set; nothing it runs may fail on its own."""
    with start(loop=request.param) as server:
        yield server
        assert_quiet(server.log)


@pytest.fixture(scope="module")
def patient_server() -> Iterator[Server]:
    """One that waits for agents that tidy up as long as it takes."""
    with start("--cancel-timeout", "60") as server:
        yield server
        assert_quiet(server.log)


def assert_quiet(log: str) -> None:
    """No test may leave an error, a warning of Python's or a lost task in a server's log."""
    records = [orjson.loads(line) for line in log.splitlines()]
    bad = [r for r in records if r["level"] not in ("DEBUG", "INFO") and not is_expected(r)]
    assert not bad, "\n".join(f"{r['message']} {r.get('exception')}" for r in bad[:3])


def is_expected(record: dict[str, str]) -> bool:
    """Whether a record above INFO is what a test was there to cause, or the machine's own."""
    return record["message"].startswith(
        (
            "stream_generator_exception ",
            "stream_timeout_on_cancel ",
            "prev_stream_timeout_on_cancel ",
            "connections_bounded ",
        )
    )


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    """A client of that server."""
    async with talking_to(server.url) as api:
        yield api

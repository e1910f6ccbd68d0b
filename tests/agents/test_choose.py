"""Which agent answers: probing real servers, and importing other people's code."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fake_openai import FakeServer

from jarvis_stream import Turn
from jarvis_stream.agents.choose import (
    DEFAULT_PROBES,
    Choice,
    Probe,
    choose_agent,
    running_agent,
)
from jarvis_stream.agents.demo import DemoAgent
from jarvis_stream.agents.openai import OpenAIAgent
from jarvis_stream.errors import AgentNotFound

TURN = Turn("Hi", [{"role": "user", "content": "Hi"}], "session", "stream", "1" * 32)


async def choose(spec: str = "auto", *, probes: Sequence[Probe] = (), **given: Any) -> Choice:
    options: dict[str, Any] = {
        "base_url": None,
        "api_key": None,
        "model": None,
        "system_prompt": None,
        "first_token_timeout": 10.0,
        "token_timeout": 10.0,
        **given,
    }
    return await choose_agent(spec, probes=probes, **options)


# auto


@pytest.fixture(scope="module")
def model_server() -> Iterator[FakeServer]:
    with FakeServer.running("--models", "nomic-embed-text", "llama") as running:
        yield running


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Something that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


async def test_a_model_that_runs_here_is_found_and_answers(
    model_server: FakeServer, silent_url: str, unused_tcp_port: int
) -> None:
    choice = await choose(
        probes=[
            Probe("nobody", f"http://127.0.0.1:{unused_tcp_port}/v1"),
            Probe("silent", silent_url),
            Probe("Ollama", model_server.url),
            Probe("second", model_server.url),
        ]
    )
    assert choice.name == f"openai (llama at {model_server.url})"
    assert choice.why == f"Ollama answered on {model_server.url}"
    assert choice.is_model
    assert isinstance(choice.agent, OpenAIAgent)
    async with choice.agent as agent:
        assert await anext(agent(TURN)) == "Hi"


async def test_a_model_that_was_named_is_asked_for(model_server: FakeServer) -> None:
    choice = await choose(probes=[Probe("Ollama", model_server.url)], model="mine")
    assert choice.name == f"openai (mine at {model_server.url})"


async def test_nobody_there_means_the_demo(silent_url: str, unused_tcp_port: int) -> None:
    free = f"http://127.0.0.1:{unused_tcp_port}/v1"
    choice = await choose(probes=[Probe("nobody", free), Probe("silent", silent_url)])
    assert isinstance(choice.agent, DemoAgent)
    assert (choice.name, choice.is_model) == ("demo", False)
    assert "no model server" in choice.why
    assert "OPENAI_BASE_URL" in choice.change


LISTING = '{"data": [{"id": "llama"}]}'


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, LISTING),
        (302, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, '{"data": {}}'),
        (200, '{"data": []}'),
        (200, '{"data": [{"id": 5}, {"id": ""}, {"id": "\\u001b[2J"}]}'),
        (200, '{"data": [{"id": "nomic-embed-text"}]}'),
        (200, '{"data": [{"id": "llama"}], "x": "' + "x" * (1 << 20) + '"}'),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_stranger_is_not_taken_for_a_model(status: int, body: str) -> None:
    asked: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        assert "Authorization" not in request.headers
        if request.path == "/good/models":
            return web.Response(text=LISTING)
        return web.Response(status=status, text=body, headers={"Location": "/good/models"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    async with TestServer(app) as server:
        choice = await choose(probes=[Probe("stranger", str(server.make_url("/v1")))])
    assert choice.name == "demo"
    assert asked == ["/v1/models"]


def test_the_usual_servers_are_looked_for_on_this_machine_only() -> None:
    assert [probe.base_url for probe in DEFAULT_PROBES] == [
        f"http://127.0.0.1:{port}/v1" for port in (11434, 1234, 8080, 8000)
    ]


@pytest.mark.parametrize("spec", ["auto", "openai"])
async def test_a_base_url_or_a_key_means_that_server(spec: str) -> None:
    choice = await choose(spec, base_url="http://gpu:9000", model="m", probes=DEFAULT_PROBES)
    assert choice.name == "openai (m at http://gpu:9000/v1)"
    choice = await choose(spec, api_key="sk-secret", probes=DEFAULT_PROBES)
    assert choice.name == "openai (https://api.openai.com/v1)"
    assert "sk-secret" not in repr(choice)


async def test_openai_without_a_server_or_a_key_is_refused() -> None:
    with pytest.raises(AgentNotFound, match="OPENAI_BASE_URL"):
        await choose("openai")


async def test_a_wrong_base_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(AgentNotFound, match="base URL must look like") as refused:
        await choose(base_url="http://user:hunter2@host/v1")
    assert "hunter2" not in str(refused.value)


async def test_the_demo_can_be_asked_for() -> None:
    assert (await choose("demo", base_url="http://gpu:9000")).is_model is False


# module:callable

MODULE = """
import functools

async def agent(turn):
    yield turn.prompt

class Agent:
    async def __call__(self, turn):
        yield "from a class"

class Nested:
    agent = Agent()

def plain(turn):
    return agent(turn)

partial = functools.partial(Agent.__call__, None)

async def coroutine(turn):
    return "no yield"

class Coroutine:
    async def __call__(self, turn):
        return "no yield"

def generator(turn):
    yield "not async"

async def two(turn, more):
    yield ""

async def none():
    yield ""

class Needy:
    def __init__(self, key):
        pass

class Deaf:
    pass

text = "text"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current directory, which is not on the path."""
    (tmp_path / "my_agents.py").write_text(MODULE)
    (tmp_path / "broken_agents.py").write_text("import no_such_dependency")
    (tmp_path / "raising_agents.py").write_text("1 / 0")
    (tmp_path / "leaving_agents.py").write_text("raise SystemExit")
    (tmp_path / "interrupting_agents.py").write_text("raise KeyboardInterrupt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield "my_agents"
    for name in ("my_agents", "broken_agents", "raising_agents", "leaving_agents"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("agent", "Hi"),
        ("Agent", "from a class"),
        ("Nested.agent", "from a class"),
        ("plain", "Hi"),
        ("partial", "from a class"),
    ],
)
async def test_an_agent_of_ones_own_is_imported_from_here(
    module: str, name: str, words: str
) -> None:
    choice = await choose(f"{module}:{name}")
    assert choice.name == f"{module}:{name}"
    assert [piece async for piece in choice.agent(TURN)] == [words]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("my_agents:coroutine", "without any `yield`"),
        ("my_agents:Coroutine", "without any `yield`"),
        ("my_agents:generator", "ordinary generator"),
        ("my_agents:two", "turn alone"),
        ("my_agents:none", "turn alone"),
        ("my_agents:Needy", "TypeError: .*key"),
        ("my_agents:Deaf", "cannot be called"),
        ("my_agents:text", "cannot be called"),
        ("my_agents:absent", "no attribute 'absent'"),
        ("my_agents:Nested.absent", "no attribute 'absent'"),
        ("absent_agents:agent", "no module 'absent_agents'"),
        ("my_agents.absent:agent", "no module 'my_agents.absent'"),
        ("broken_agents:agent", "No module named 'no_such_dependency'"),
        ("raising_agents:agent", "ZeroDivisionError"),
        ("leaving_agents:agent", "SystemExit"),
        ("interrupting_agents:agent", "KeyboardInterrupt"),
        ("my_agents", "auto, demo, openai or module:callable"),
        (":agent", "module:callable"),
        ("my_agents:", "module:callable"),
    ],
)
async def test_what_is_no_agent_is_refused_by_name_and_with_the_reason(
    module: str, spec: str, words: str
) -> None:
    with pytest.raises(AgentNotFound, match=words) as refused:
        await choose(spec)
    assert repr(spec) in str(refused.value)


async def test_probing_is_over_in_time_however_slow_everybody_is(silent_url: str) -> None:
    probing = choose(probes=[Probe(str(n), silent_url) for n in range(8)], probe_timeout=0.1)
    assert (await asyncio.wait_for(probing, 20)).name == "demo"


class Resource:
    """An agent with something to open and close, which may raise."""

    def __init__(self, on_enter: BaseException | None, on_exit: BaseException | None) -> None:
        self._on_enter, self._on_exit = on_enter, on_exit

    async def __aenter__(self) -> None:
        if self._on_enter:
            raise self._on_enter

    async def __aexit__(self, *_: object) -> None:
        if self._on_exit:
            raise self._on_exit


RAISED = [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), asyncio.CancelledError(), OSError()]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_an_agent_that_raises_when_it_is_entered_cannot_be_started(
    error: BaseException,
) -> None:
    with pytest.raises(AgentNotFound, match=f"'mine' cannot be started: {type(error).__name__}"):
        async with running_agent(Resource(error, None), "mine"):
            raise AssertionError("it was entered")


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_what_an_agent_raises_when_it_is_left_is_logged_only(
    error: BaseException, log_lines: list[str]
) -> None:
    async with running_agent(Resource(None, error), "mine"):
        pass
    assert any("agent_not_closed agent=mine" in line for line in log_lines)


async def test_a_cancelled_start_of_an_agent_stays_cancelled() -> None:
    class Slow(Resource):
        async def __aenter__(self) -> None:
            await asyncio.get_running_loop().create_future()

    starting = asyncio.create_task(running_agent(Slow(None, None), "mine").__aenter__())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()

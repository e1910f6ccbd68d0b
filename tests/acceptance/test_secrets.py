"""A secret is told to nobody, wherever it stands; and no text pretends to be a log record."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import orjson
import pytest
from conftest import ROOT
from fake_openai import FakeServer, Refusal, Script
from processes import Server, serving

from .agents import CANARY
from .clients import Api, lines, new_id, outcome, talking_to
from .conftest import start

TOKEN = "canary-token-0123456789"
KEY = "canary-key-0123456789"
PASSWORD = "canary-password"
UPSTREAM = "sk-canary-of-the-model-server"
SECRETS = (TOKEN, KEY, PASSWORD, UPSTREAM, "hunter2")

FORGERIES = (
    'say a\r\n{"level":"ERROR","message":"forged"}',
    "say \x1b[2J\x1b]0;forged\x07",
    "say {x.__class__} {0} %s %(x)s {secret}",
    "say <red>forged</red> <level>",
    "say \u2028forged\u2029\x85forged\x0b\x0c\x1c",
)


class Told:
    """All that a server has said to anybody."""

    def __init__(self, server: Server, api: Api) -> None:
        self.server = server
        self.api = api
        self.said: list[bytes] = []

    async def ask(self, method: str, path: str, **more: object) -> bytes:
        async with self.api.http.request(method, self.api.url + path, **more) as response:  # type: ignore[arg-type]
            self.said.append(repr(response.headers).encode())
            body = await response.read()
            self.said.append(body)
            return body

    async def check(self) -> None:
        for path in ("/metrics", "/api/info", "/api/sessions", "/readyz"):
            await self.ask("GET", path)
        self.said.append(self.server.log.encode())
        everything = b"\n".join(self.said)
        for secret in SECRETS:
            assert secret.encode() not in everything, secret


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One whose every secret is known."""
    flags = ("--auth-tokens", f"ann:{TOKEN}", "--openai-api-key", KEY, "--log-level", "TRACE")
    with start(*flags) as server:
        yield server


def test_a_database_that_is_not_there_tells_no_password() -> None:
    database = f"postgresql://jarvis:{PASSWORD}@127.0.0.1:1/jarvis?connect_timeout=1"
    flags = ("--agent", "demo", "--port", "0", "--log-level", "TRACE", "--database-url", database)
    command = [sys.executable, "run.py", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


async def test_secrets_stay_where_they_are(server: Server) -> None:
    async with talking_to(server.url) as api:
        told = Told(server, api)
        await told.ask("POST", "/api/login", json={"token": TOKEN + "x"})
        await told.ask("GET", "/api/sessions", headers={"Authorization": f"Bearer x{TOKEN}"})
        api.http.headers["Authorization"] = f"Bearer {TOKEN}"
        frames = lines(await told.ask("POST", "/api/chat", json={"prompt": "fail"}))
        assert outcome(frames) == "agent_error"
        await told.ask("POST", "/api/login", json={"token": TOKEN})
        async with api.socket() as ws:
            await ws.send(type="start", prompt="fail", stream_id=(stream := new_id()))
            told.said.append(repr(await ws.ended(stream)).encode())
        await told.ask("POST", "/api/chat", data=b'{"prompt": ', headers={"X-Secret": KEY})
        await told.check()
        assert CANARY.partition("@")[2] in server.log  # what is no secret is not lost


async def test_nor_does_the_models_server_give_any_away() -> None:
    body = orjson.dumps({"error": {"message": f"Incorrect API key provided: {KEY} {UPSTREAM}"}})
    refusal = Refusal(401, {"X-Key": UPSTREAM}, body.decode())
    with FakeServer.running("--key", KEY) as upstream:
        model = await upstream.play(Script(refusals=[refusal] * 9))
        flags = ("--agent", "openai", "--openai-base-url", upstream.url, "--openai-model", model)
        env = {"OPENAI_API_KEY": KEY, "JARVIS_LOG_LEVEL": "TRACE"}
        with serving(sys.executable, "run.py", *flags, cwd=ROOT, env=env) as server:
            async with talking_to(server.url) as api:
                told = Told(server, api)
                frames = lines(await told.ask("POST", "/api/chat", json={"prompt": "hello"}))
                assert outcome(frames) == "upstream_error"
                await told.check()


@pytest.mark.parametrize("text", FORGERIES, ids=range(len(FORGERIES)))
async def test_a_text_makes_no_record_of_its_own(server: Server, text: str) -> None:
    async with talking_to(server.url) as api:
        api.http.headers["Authorization"] = f"Bearer {TOKEN}"
        before = len(server.log.splitlines())
        assert outcome(await api.chat(text)) == "stop"
        for name in ("session_id", "stream_id", "on_conflict", "token"):
            path = "/api/login" if name == "token" else "/api/chat"
            async with api.http.post(api.url + path, json={"prompt": "x", name: text}) as answer:
                assert answer.status in (401, 422)
        # User text that does come to be logged, as an agent's exception may quote it.
        assert outcome(await api.chat("quote " + text)) == "agent_error"
        records = [orjson.loads(line) for line in server.log.split("\n")[before:] if line]
    failures = [one for one in records if one["message"].startswith("stream_generator_exception")]
    assert len(failures) == 1
    assert text.rstrip() in failures[0]["exception"]
    assert not [one for one in records if "forged" in one["message"] or one["level"] == "forged"]
    for line in server.log.split("\n")[before:]:
        assert line.isprintable()

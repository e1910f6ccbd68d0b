"""Where everything meets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

import jarvis_stream
from jarvis_stream import Turn, create_app
from jarvis_stream.app import CHOICE
from jarvis_stream.cluster.memory import MemoryStore
from jarvis_stream.errors import BadSettings
from jarvis_stream.history.base import Health
from jarvis_stream.settings import Settings
from jarvis_stream.transports.context import REGISTRY

Client = TestClient[web.Request, web.Application]
Connect = Callable[..., Awaitable[Client]]


class House:
    """An agent with a lifetime."""

    def __init__(self) -> None:
        self.story: list[str] = []

    async def __aenter__(self) -> House:
        self.story.append("entered")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.story.append("left")

    async def __call__(self, turn: Turn) -> AsyncIterator[str]:
        self.story.append(turn.prompt)
        yield "at your service"


async def test_an_agent_object_lives_as_long_as_the_application(aiohttp_client: Connect) -> None:
    house = House()
    app = create_app(Settings(), agent=house)
    assert house.story == []
    client = await aiohttp_client(app)
    await (await client.post("/api/chat", json={"prompt": "hello"})).read()
    await client.close()
    assert house.story == ["entered", "hello", "left"]


async def test_it_tells_who_answers(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(create_app(Settings(), agent=House()))
    assert await (await client.get("/api/info")).json() == {
        "agent": {"name": "House", "is_model": True},
        "why": None,
        "limits": {"max_prompt_chars": 100_000},
        "version": jarvis_stream.__version__,
        "protocol": 1,
        "auth": "none",
    }


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"openai_model": "m-7b"}, "m-7b"),
        ({}, "a language model"),
        ({"openai_model": "m-7b", "agent_name": "Support"}, "Support"),
    ],
)
async def test_info_tells_nothing_of_the_model_server(
    aiohttp_client: Connect, settings: dict[str, Any], name: str
) -> None:
    url = "http://models.internal:9999/tenants/acme/v1"
    app = create_app(Settings(agent="openai", openai_base_url=url, **settings))
    client = await aiohttp_client(app)
    info = await (await client.get("/api/info")).json()
    assert info["agent"] == {"name": name, "is_model": True}
    assert info["why"] is None
    assert "internal" not in str(info)
    assert "acme" not in str(info)
    assert url in app[CHOICE].name  # which the operator reads


async def test_info_names_an_own_agent_without_its_module(aiohttp_client: Connect) -> None:
    client = await aiohttp_client(create_app(Settings(agent="jarvis_stream.agents.demo:DemoAgent")))
    info = await (await client.get("/api/info")).json()
    assert (info["agent"]["name"], info["why"]) == ("DemoAgent", None)


async def test_without_an_agent_the_settings_choose(aiohttp_client: Connect) -> None:
    app = create_app(Settings(agent="demo"))
    client = await aiohttp_client(app)
    assert app[CHOICE].is_model is False
    frames = await (await client.post("/api/chat", json={"prompt": "hello"})).read()
    assert orjson.loads(frames.splitlines()[-1])["finish_reason"] == "stop"


async def test_two_applications_share_nothing(aiohttp_client: Connect) -> None:
    settings = Settings(database_url="memory:")  # type: ignore[arg-type]
    first = await aiohttp_client(create_app(settings, agent=House()))
    second = await aiohttp_client(create_app(settings, agent=House()))
    await (await first.post("/api/chat", json={"prompt": "a", "session_id": "s"})).read()
    assert (await first.get("/api/sessions/s/messages")).status == 200
    assert (await second.get("/api/sessions/s/messages")).status == 404


async def test_readiness_ends_before_life_does(aiohttp_client: Connect) -> None:
    app = create_app(Settings(), agent=House())
    client = await aiohttp_client(app)
    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 200
    await app[REGISTRY].shutdown()
    assert (await client.get("/livez")).status == 200
    unready = await client.get("/readyz")
    refused = await client.post("/api/chat", json={"prompt": "a"})
    for answer in (unready, refused):
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_server_is_not_ready_while_the_store_refuses_what_questions_need(
    aiohttp_client: Connect,
) -> None:
    cluster = MemoryStore().node("ours")
    client = await aiohttp_client(create_app(Settings(), agent=House(), cluster=cluster))
    await (await client.post("/api/chat", json={"prompt": "it answers"})).read()
    assert (await client.get("/readyz")).status == 200
    cluster.health.refusal = "Redis at secret:6379 refuses EVALSHA (claim): its memory is full"
    unready = await client.get("/readyz")
    assert unready.status == 503
    assert "secret" not in await unready.text()
    cluster.health.refusal = None
    assert (await client.get("/readyz")).status == 200


async def test_readiness_says_whether_the_database_accepts_writes(
    aiohttp_client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(), agent=House())
    client = await aiohttp_client(app)
    assert await (await client.get("/readyz")).json() == {"ready": True, "saving": True}
    away = property(lambda history: Health(writable=False))
    monkeypatch.setattr(type(app[REGISTRY].history), "health", away)
    assert await (await client.get("/readyz")).json() == {"ready": True, "saving": False}


async def test_the_settings_reach_what_they_set(aiohttp_client: Connect) -> None:
    options: dict[str, Any] = {"max_answer_bytes": 5, "max_prompt_chars": 3}
    client = await aiohttp_client(create_app(Settings(**options), agent=House()))
    assert (await client.post("/api/chat", json={"prompt": "long"})).status == 422
    frames = await (await client.post("/api/chat", json={"prompt": "a"})).read()
    assert orjson.loads(frames.splitlines()[-1])["code"] == "too_long"


SECRET = "a-shared-secret-of-more-than-32-bytes"


async def test_json_web_tokens_are_believed_where_they_are_set(aiohttp_client: Connect) -> None:
    settings: dict[str, Any] = {"jwt_key": SECRET, "auth_tokens": "bob:bobs-token-0123456"}
    client = await aiohttp_client(create_app(Settings(**settings), agent=House()))
    claims = {"sub": "ann", "exp": int(time.time()) + 60}
    for token, name in (
        (jwt.encode(claims, SECRET, algorithm="HS256"), "ann"),
        ("bobs-token-0123456", "bob"),
    ):
        headers = {"Authorization": f"Bearer {token}"}
        info = await (await client.get("/api/info", headers=headers)).json()
        assert info["principal"] == name


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"jwt_key": SECRET, "jwt_jwks_url": "https://x.example/keys"}, "only one of"),
        ({"jwt_jwks_url": "https://x.example/keys"}, "needs --jwt-issuer and --jwt-audience"),
        ({"jwt_key": SECRET, "jwt_algorithms": "RS256"}, "a shared secret verifies only HS256"),
        ({"jwt_public_key_file": __file__}, "this is not a public key in PEM format"),
    ],
)
def test_settings_of_tokens_that_contradict_each_other_are_refused(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadSettings, match=problem):
        create_app(Settings(**settings), agent=House())

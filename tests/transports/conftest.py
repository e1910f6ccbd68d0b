"""The whole application in the test's own loop, with an agent that repeats the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from jarvis_stream import Turn, create_app
from jarvis_stream.settings import Settings

Client = TestClient[web.Request, web.Application]


async def parrot(turn: Turn) -> AsyncIterator[str]:
    """Repeats the prompt word by word; the word `wait` lasts until it is cancelled."""
    for word in turn.prompt.split(" "):
        if word == "wait":
            await asyncio.Event().wait()
        if word == "fail":
            raise ZeroDivisionError("hunter2")
        yield word


@pytest.fixture(autouse=True)
def _patient_history(patient_history: None) -> None:
    """A slow disk is not what any of these is about."""


@pytest.fixture
async def client(aiohttp_client: Callable[..., Awaitable[Client]]) -> Client:
    """A client of an application with nothing set but small limits."""
    limits: dict[str, Any] = {"max_body_bytes": 2000, "max_prompt_chars": 1000}
    settings = Settings(max_streams_per_socket=2, heartbeat=60, **limits)
    return await aiohttp_client(create_app(settings, agent=parrot))

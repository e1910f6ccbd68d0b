"""Which host names a server that is for this machine alone answers to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from jarvis_stream import create_app
from jarvis_stream.errors import Misdirected
from jarvis_stream.settings import Settings
from jarvis_stream.transports.requests import check_host, is_loopback

from .conftest import parrot

Connect = Callable[..., Awaitable[TestClient[web.Request, web.Application]]]

FRIENDS = {"https://chat.example.org", "http://lan.example:8080"}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8765",
        "localhost.:8765",
        "127.0.0.1",
        "127.0.0.1:8765",
        "127.1.2.3",
        "[::1]",
        "[::1]:8765",
        "chat.example.org",
        "CHAT.example.org:443",
        "lan.example",
    ],
)
def test_its_own_names_and_those_of_allowed_origins_are_served(host: str) -> None:
    check_host(host, FRIENDS)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8765",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example/localhost",
        "localhost/evil",
        "localhost?",
        "127.0.0.1.nip.io",
        "192.168.0.1",
        "0.0.0.0",
        "[::]",
        "[::1",
        "localhost:port",
        "chat.example.org.evil.example",
        "\u2028",
    ],
)
def test_any_other_name_is_refused_in_printable_words(host: str) -> None:
    with pytest.raises(Misdirected) as refused:
        check_host(host, FRIENDS)
    assert refused.value.sentence.isprintable()


def test_what_means_this_machine() -> None:
    assert is_loopback("::1")
    assert is_loopback("127.0.0.53")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("localhost.localdomain")


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, 421),
        ({"host": "::1"}, 421),
        ({"host": "0.0.0.0"}, 200),
        ({"allowed_origins": "https://evil.example"}, 200),
    ],
)
async def test_only_a_server_for_this_machine_looks_at_the_name(
    aiohttp_client: Connect, settings: dict[str, Any], status: int
) -> None:
    client = await aiohttp_client(create_app(Settings(**settings), agent=parrot))
    answer = await client.get("/livez", headers={"Host": "evil.example"})
    assert answer.status == status
    if status == 421:
        assert (await answer.json())["code"] == "misdirected"
    assert (await client.get("/livez", headers={"Host": "localhost"})).status == 200

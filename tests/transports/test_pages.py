"""The page and its files."""

from __future__ import annotations

import pytest
from conftest import ROOT

from .conftest import Client

FILES = sorted(p for p in (ROOT / "static").rglob("*") if p.is_file())


async def test_the_page_is_served_with_a_policy_that_lets_nothing_else_in(client: Client) -> None:
    response = await client.get("/")
    assert (response.status, response.content_type) == (200, "text/html")
    assert await response.read() == (ROOT / "static" / "index.html").read_bytes()
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'; trusted-types dompurify highlighter" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/livez", "/unknown", "/ws"])
async def test_no_answer_tells_versions(client: Client, path: str) -> None:
    asks = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    asks["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    async with client.get(path, headers=asks if path == "/ws" else {}) as response:
        assert response.status == {"/unknown": 404, "/ws": 101}.get(path, 200)
        assert response.headers["Server"] == "jarvis-stream"


async def test_every_file_of_the_page_is_served(client: Client) -> None:
    assert FILES
    for file in FILES:
        response = await client.get(f"/static/{file.relative_to(ROOT / 'static')}")
        assert (response.status, await response.read()) == (200, file.read_bytes())
        if file.suffix == ".js":
            assert response.content_type.endswith("/javascript")


async def test_a_file_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    tag = (await client.get("/")).headers["ETag"]
    assert (await client.get("/", headers={"If-None-Match": tag})).status == 304


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "",
        "js",
        "js/",
        "%00",
        "a" * 3000,
        "%2e%2e/setup.cfg",
        "..%2fsetup.cfg",
        "%2fetc/passwd",
    ],
)
async def test_nothing_else_is(client: Client, path: str) -> None:
    response = await client.get(f"/static/{path}")
    assert (response.status, (await response.json())["code"]) == (404, "not_found")

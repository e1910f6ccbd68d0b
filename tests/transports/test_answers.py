"""Every refusal leaves in one form."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from jarvis_stream.errors import Refused, Unavailable
from jarvis_stream.transports.answers import json_answer, refusal

from .conftest import Client


def test_an_answer_is_json_and_never_cached() -> None:
    answer = json_answer({"a": "é"}, status=201, headers={"X-A": "b"})
    assert (answer.status, answer.content_type) == (201, "application/json")
    assert answer.body == '{"a":"é"}'.encode()
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-A"] == "b"


def test_a_refusal_says_when_to_come_back_in_whole_seconds() -> None:
    answer = refusal(Unavailable("not now", retry_after=1.2))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert answer.body == b'{"code":"unavailable","error":"not now"}'
    assert "Retry-After" not in refusal(Refused("no")).headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/api/chat", 405, "method_not_allowed"),
        ("POST", "/api/chat", 415, "unsupported_media_type"),
    ],
)
async def test_aiohttps_own_refusals_have_our_form(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)
    body = await response.json()
    assert (response.status, body["code"]) == (status, code)
    assert body.keys() == {"code", "error"}
    assert ("Allow" in response.headers) == (status == 405)


async def test_a_body_over_the_limit_is_too_large(client: Client) -> None:
    response = await client.post("/api/chat", json={"prompt": "x" * 3000})
    assert (response.status, (await response.json())["code"]) == (413, "too_large")


async def test_a_foreign_page_reads_nothing_at_all(client: Client) -> None:
    for path in ("/", "/metrics", "/api/info", "/nowhere"):
        response = await client.get(path, headers={"Origin": "https://enemy.example"})
        assert (response.status, (await response.json())["code"]) == (403, "forbidden_origin")


async def test_a_failure_of_ours_is_told_by_its_trace_and_not_by_its_text(
    client: Client, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    def broken(*_: Any) -> web.Response:
        raise ZeroDivisionError("hunter2")

    monkeypatch.setattr("jarvis_stream.registry.StreamRegistry.open", broken)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    response = await client.post(
        "/api/chat",
        json={"prompt": "a"},
        headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
    )
    body = await response.json()
    assert (response.status, body["code"]) == (500, "internal")
    assert trace in body["error"]
    assert "hunter2" not in body["error"]
    assert f"request_failed trace={trace} what=POST /api/chat" in log_lines

"""Through a real nginx: with the configuration that the docs show, and with none to speak of."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from processes import Server
from redis_server import free_ports

from .clients import Api, check_stream, lines, new_id, outcome, talking_to, text_of
from .conftest import start

DOCUMENTED = (ROOT / "docs" / "deploy" / "nginx.conf").read_text()
BARE = """
server {
    listen 80;
    location / {
        proxy_pass http://127.0.0.1:8765;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
    }
}
"""
AROUND = """
daemon off;
pid nginx.pid;
error_log stderr info;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    %s
}
"""


@contextlib.contextmanager
def nginx(configuration: str, server: Server, folder: Path) -> Iterator[str]:
    """An nginx before the server; its URL."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program, "nginx is needed: apt-get install nginx"
    (port,) = free_ports(1)
    own, count = re.subn(r"listen 80;", f"listen 127.0.0.1:{port};", configuration)
    assert count == 1
    own = own.replace("127.0.0.1:8765", urlsplit(server.url).netloc)
    (folder / "nginx.conf").write_text(AROUND % own)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
        assert process.poll() is None, (folder / "stderr").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The program with the demo agent, of which one can ask to fall silent."""
    with start("--agent", "demo") as server:
        yield server


@pytest.fixture(params=[DOCUMENTED, BARE], ids=["documented", "bare"])
async def behind(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path
) -> AsyncIterator[Api]:
    """A client that reaches the server through nginx."""
    with nginx(request.param, server, tmp_path) as url:
        async with talking_to(url) as api:
            yield api


async def test_tokens_come_through_although_nginx_buffers_by_default(behind: Api) -> None:
    stream_id = new_id()
    prompt = "/demo ttft=0 tps=0 hang_at=3 | one two three"
    async with behind.posting(prompt, stream_id=stream_id) as response:
        # The agent says nothing after the second token, and the response does not end: what is
        # read here was not held back.
        seen = b""
        while seen.count(b'"token"') < 2:
            seen += await response.content.readline()
        status, _ = await behind.cancel(stream_id)
        assert status == 200
        frames = lines(seen + await response.read())
    check_stream(frames)
    assert outcome(frames) == "cancelled"


async def test_a_client_that_leaves_is_told_to_the_server(behind: Api) -> None:
    before = (await behind.metrics()).get('jarvis_streams_ended_total{outcome="cancelled"}', 0)
    async with behind.posting("/demo ttft=0 tps=0 hang_at=3 | one two three") as response:
        await response.content.readline()
        response.close()
    await behind.until(
        lambda now: now.get('jarvis_streams_ended_total{outcome="cancelled"}', 0) > before
    )


async def test_a_refusal_comes_through_as_it_is(behind: Api) -> None:
    async with behind.http.post(behind.url + "/api/chat", json={"prompt": ""}) as response:
        assert response.status == 422
        assert (await response.json())["code"] == "invalid"


@pytest.fixture
async def documented(server: Server, tmp_path: Path) -> AsyncIterator[Api]:
    """The same, with the documented configuration only: the other knows no WebSocket."""
    with nginx(DOCUMENTED, server, tmp_path) as url:
        async with talking_to(url) as api:
            yield api


async def test_websockets_come_through(documented: Api) -> None:
    stream_id = new_id()
    async with documented.socket() as ws:
        await ws.send(type="start", prompt="/echo tps=0 hello there", stream_id=stream_id)
        frames = await ws.ended(stream_id)
    check_stream(frames)
    assert text_of(frames) == "hello there"


async def test_a_page_behind_it_counts_as_the_servers_own(documented: Api) -> None:
    async with documented.http.post(
        documented.url + "/api/chat",
        json={"prompt": "/echo hi"},
        headers={"Origin": documented.url},
    ) as response:
        assert response.status == 200
        await response.read()
    async with documented.http.post(
        documented.url + "/api/chat",
        json={"prompt": "/echo hi"},
        headers={"Origin": "https://elsewhere.example"},
    ) as response:
        assert response.status == 403

"""Two servers behind a real nginx, as docs/deploy/compose.yaml has them: no sticky sessions."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import urlsplit

from acceptance.clients import lines, new_id, talking_to, text_of
from acceptance.test_nginx import nginx
from conftest import ROOT
from postgres_server import PostgresServer
from profiles import patience
from redis_server import RedisServer

from .servers import Node, nodes

DEPLOY = ROOT / "docs" / "deploy"
PATIENCE = patience(60.0)


def configuration(pair: list[Node]) -> str:
    """What compose.yaml makes of nginx.conf, with the two servers' addresses."""
    told = " ".join((DEPLOY / "compose.yaml").read_text().split())
    found = re.search(r"sed 's/([^/]+)/([^/]+)/' /nginx.conf", told)
    assert found
    one, two = found.groups()
    for number, node in enumerate(pair, 1):
        two, count = re.subn(rf"jarvis-{number}:8765", urlsplit(node.server.url).netloc, two)
        assert count == 1
    documented = (DEPLOY / "nginx.conf").read_text()
    assert documented.count(one) == 1
    return documented.replace(one, two)


async def test_whatever_server_nginx_asks_and_though_one_of_them_dies(
    postgres: PostgresServer, shared_redis: RedisServer, tmp_path: Path
) -> None:
    async with (
        nodes(2, postgres.new_database(), shared_redis.url, tmp_path / "diary") as pair,
        asyncio.timeout(PATIENCE),
    ):
        with nginx(configuration(pair), pair[0].server, tmp_path) as url:
            async with talking_to(url) as api:
                for number in range(4):
                    stream_id = new_id()
                    session_id = f"s{number}"
                    async with api.posting(
                        "30 0.01 0", stream_id=stream_id, session_id=session_id
                    ) as response:
                        frames = lines(await response.read())
                    # One after the other is asked: half of these are not where the answer was.
                    for _ in range(2):
                        assert lines(await api.replay(stream_id)) == frames
                await pair[0].kill()
                for _ in range(4):  # with connections that nginx had to it, too
                    async with api.http.get(f"{url}/livez") as answer:
                        assert answer.status == 200
                for number in range(4):
                    frames = await api.chat("3 0 0", session_id=f"s{number}")
                    assert text_of(frames) == "0 1 2 "

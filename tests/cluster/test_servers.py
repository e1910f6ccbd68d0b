"""Server processes, Redis and PostgreSQL as they really are: one session, wherever one asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from acceptance.clients import lines, new_id, outcome, text_of
from acceptance.conftest import assert_quiet
from postgres_server import PostgresServer
from redis_cluster_servers import ClusterOfServers, session_at, streams_at
from redis_server import RedisServer

from .agents import read_diary
from .servers import Node, call, nodes


@pytest.fixture
async def pair(
    postgres: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[list[Node]]:
    """Two servers."""
    async with nodes(2, postgres.new_database(), redis_server.url, tmp_path / "diary") as both:
        yield both


def said(count: int) -> str:
    return "".join(f"{number} " for number in range(count))


async def test_start_resume_and_messages_on_two_servers(pair: list[Node]) -> None:
    a, b = (node.api for node in pair)
    stream_id = new_id()
    async with a.posting("60 0.01 0", stream_id=stream_id, session_id="s") as response:
        await response.content.readline()
        there = lines(await b.replay(stream_id))
        here = lines(await response.read())
    assert there[1:] == here
    assert text_of(here) == said(60)
    for node in pair:
        _, body = await call(node, "GET", "/api/sessions/s/messages")
        assert [m["content"] for m in body["messages"]] == ["60 0.01 0", said(60)]
        assert body["active_stream"] is None
        assert_quiet(node.server.log)


async def test_the_newest_message_wins_and_the_older_agent_has_stopped(
    pair: list[Node], tmp_path: Path
) -> None:
    old, new = new_id(), new_id()
    async with pair[0].api.posting("999 0.01 0.3", session_id="s", stream_id=old) as response:
        await response.content.readline()
        answer = await pair[1].api.chat("5 0 0", session_id="s", stream_id=new)
        assert (outcome(answer), text_of(answer)) == ("stop", said(5))
        assert lines(await response.read())[-1]["superseded_by"] == new
    times = {(entry.what, entry.stream): entry.at for entry in read_diary(tmp_path / "diary")}
    assert times["ended", old] < times["began", new]


async def test_a_stop_and_a_watch_on_the_other_server(pair: list[Node], tmp_path: Path) -> None:
    a, b = (node.api for node in pair)
    stream_id = new_id()
    async with b.socket() as ws:
        await ws.send(type="watch", session_id="s")
        async with a.posting("999 0.01 0.2", session_id="s", stream_id=stream_id) as response:
            await ws.spoke(stream_id)
            status, told = await b.cancel(stream_id)
            assert (status, told["cancelled"], told["clean"]) == (200, True, True)
            assert outcome(await ws.ended(stream_id)) == "cancelled"
            assert ws.of(stream_id) == lines(await response.read())


async def test_a_killed_servers_answer_is_interrupted_for_every_reader(
    pair: list[Node], tmp_path: Path
) -> None:
    dying, living = pair
    stream_id, other = new_id(), new_id()
    survivor = asyncio.create_task(living.api.chat("400 0.01 0", session_id="t", stream_id=other))
    async with living.api.socket() as ws:
        asking = asyncio.create_task(
            dying.api.chat("9999 0.01 0", session_id="s", stream_id=stream_id)
        )
        while (await call(living, "GET", "/api/sessions/s/messages"))[0] != 200:
            pass
        await ws.send(type="resume", stream_id=stream_id, after=0)
        await ws.spoke(stream_id)
        await dying.kill()
        frames = await ws.ended(stream_id)
        assert outcome(frames) == "interrupted"
        await asyncio.gather(asking, return_exceptions=True)
    assert outcome(await survivor) == "stop"
    again = await living.api.chat("3 0 0", session_id="s")
    assert outcome(again) == "stop"
    _, body = await call(living, "GET", "/api/sessions/s/messages")
    assert [m["content"] for m in body["messages"]][0::2] == ["9999 0.01 0", "3 0 0"]


async def test_on_a_redis_cluster_start_resume_and_stop_on_two_servers(
    postgres: PostgresServer, shared_redis_cluster: ClusterOfServers, tmp_path: Path
) -> None:
    url = shared_redis_cluster.url
    async with nodes(2, postgres.new_database(), url, tmp_path / "diary") as pair:
        a, b = (node.api for node in pair)
        for number in range(6):  # on each of the three primaries, surely
            session_id, old, new, last = f"s{number}", new_id(), new_id(), new_id()
            async with a.posting("999 0.01 0", session_id=session_id, stream_id=old) as one:
                await one.content.readline()
                async with b.posting("30 0.01 0", session_id=session_id, stream_id=new) as two:
                    await two.content.readline()
                    assert lines(await one.read())[-1]["superseded_by"] == new
                    there = lines(await a.replay(new))
                    assert (text_of(there), there[1:]) == (said(30), lines(await two.read()))
            async with a.posting("999 0.01 0", session_id=session_id, stream_id=last) as one:
                await one.content.readline()
                status, told = await b.cancel(last)
                assert (status, told["cancelled"], told["clean"]) == (200, True, True)
                assert lines(await one.read())[-1]["finish_reason"] == "cancelled"
        for node in pair:
            assert_quiet(node.server.log)


async def test_a_primary_of_a_redis_cluster_that_dies_ends_what_it_holds_and_nothing_else(
    postgres: PostgresServer, redis_cluster: ClusterOfServers, tmp_path: Path
) -> None:
    living, dying, _ = redis_cluster.primaries
    here, there = session_at(living), session_at(dying)
    names = iter(streams_at(living))
    async with nodes(
        2, postgres.new_database(), redis_cluster.url, tmp_path / "diary", "--lease", "3"
    ) as pair:
        a, b = (node.api for node in pair)
        async with (
            a.posting("9999 0.02 0", session_id=here, stream_id=next(names)) as survivor,
            a.posting("9999 0.02 0", session_id=there, stream_id=next(names)) as victim,
        ):
            for response in (survivor, victim):
                await response.content.readline()
            dying.kill()
            assert outcome(lines(await victim.read())) == "coordination_lost"
            for node in pair:
                assert (await call(node, "GET", "/readyz"))[0] == 200
            refused = {"prompt": "3 0 0", "session_id": there, "stream_id": next(names)}
            status, body = await call(pair[1], "POST", "/api/chat", json=refused)
            assert (status, body["code"]) == (503, "unavailable")
            newer = next(names)
            async with b.posting("20 0.01 0", session_id=here, stream_id=newer) as response:
                assert lines(await survivor.read())[-1]["superseded_by"] == newer
                assert text_of(lines(await response.read())) == said(20)


async def test_a_server_starts_only_with_a_redis_and_a_shared_database(
    postgres: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="--database-url of PostgreSQL"):
        async with nodes(1, "memory:", redis_server.url, tmp_path / "diary"):
            pass
    redis_server.kill()
    with pytest.raises(AssertionError, match="redis"):
        async with nodes(1, postgres.new_database(), redis_server.url, tmp_path / "diary"):
            pass

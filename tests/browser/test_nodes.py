"""One conversation, its pages at two servers: watched, resumed and stopped from the other one."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import ROOT
from playwright.async_api import Page, expect
from postgres_server import PostgresServer
from processes import Server, serving
from redis_server import RedisServer

from browser.steps import answers, come, grown, questions, send, state_is, text_of
from browser.test_acceptance import ASK, ASK_ENDLESS, ENDLESS, WHOLE, answered
from browser.witness import only_grew


@pytest.fixture(scope="module")
def servers(postgres: PostgresServer) -> Iterator[tuple[Server, Server]]:
    """Two, that share a Redis and a PostgreSQL."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jarvis-redis-")))
        redis = RedisServer(folder)
        stack.callback(redis.kill)
        redis.start()
        env = {"JARVIS_DATABASE_URL": postgres.new_database(), "JARVIS_REDIS_URL": redis.url}
        command = (sys.executable, ROOT / "run.py", "--agent", "demo", "--log-level", "critical")
        a, b = (stack.enter_context(serving(*command, env=env)) for _ in "ab")
        yield a, b


async def at(page: Page, server: Server, session: str) -> None:
    """Open the conversation of another page at this server."""
    await come(page, f"{server.url}/#{session.partition('#')[2]}")


async def ask_at_one(page: Page, other: Page, servers: tuple[Server, Server], prompt: str) -> None:
    """Ask at the first server; while it answers, open the conversation at the other one."""
    a, b = servers
    await come(page, a.url)
    await send(page, prompt)
    await grown(page, answers(page).first, 2)
    await at(other, b, page.url)


async def test_an_answer_is_watched_at_the_other_server(
    page: Page, other: Page, servers: tuple[Server, Server]
) -> None:
    await ask_at_one(page, other, servers, ASK)
    for tab in (page, other):
        await answered(tab, 0, WHOLE)
    await expect(questions(other)).to_have_text([ASK])


async def test_an_answer_is_stopped_at_the_other_server(
    page: Page, other: Page, servers: tuple[Server, Server]
) -> None:
    await ask_at_one(page, other, servers, ASK_ENDLESS)
    await grown(other, answers(other).first, 2)
    await other.get_by_test_id("stop").click()
    for tab in (page, other):
        await state_is(answers(tab).first, "stopped")
        await only_grew(tab, ENDLESS)
    said = await text_of(answers(page).first).text_content() or ""
    await expect(text_of(answers(other).first)).to_have_text(said.strip())


async def test_a_message_at_the_other_server_replaces_the_answer_on_both_pages(
    page: Page, other: Page, servers: tuple[Server, Server]
) -> None:
    await ask_at_one(page, other, servers, ASK_ENDLESS)
    await grown(other, answers(other).first, 2)
    await send(other, ASK)
    for tab in (page, other):
        await answered(tab, 1, WHOLE)
        await state_is(answers(tab).first, "replaced")


async def test_a_page_that_moves_to_the_other_server_goes_on_where_the_answer_is(
    page: Page, other: Page, servers: tuple[Server, Server]
) -> None:
    await ask_at_one(page, other, servers, ASK)
    await grown(other, answers(other).first, 1)
    await page.close()  # it is read at the other server only
    await answered(other, 0, WHOLE)

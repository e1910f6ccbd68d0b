"""A page of somebody else's, made with React: our package and theirs, bundled by esbuild."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import npm
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page, WebSocket, expect
from pydantic import SecretStr
from yarl import URL

from browser import witness
from browser.steps import answers, grown, questions, send, state_is, text_of
from jarvis_stream import create_app
from jarvis_stream.settings import Settings

HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>A React page</title>
<div id="root"></div>
<script src="app.js"></script>
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page's script, with React's development build: its StrictMode runs effects twice."""
    folder: Path = npm.make_consumer(tmp_path_factory.mktemp("react"))
    return npm.node(
        npm.tool("esbuild/bin/esbuild"),
        "chat.tsx",
        "--bundle",
        "--jsx=automatic",
        "--charset=utf8",
        '--define:process.env.NODE_ENV="development"',
        "--log-level=warning",
        cwd=folder,
    )


class ReactPage:
    """The page, and every WebSocket that it has opened."""

    def __init__(self, page: Page, server: URL) -> None:
        self.page = page
        self._server = server
        self.opened = 0
        self._open: set[WebSocket] = set()
        self._changed = asyncio.Event()
        page.on("websocket", self._opened)

    async def visit(self, session_id: str, query: str = "") -> None:
        url = self._server.with_path("/react/").with_query(query).with_fragment(session_id)
        await self.page.goto(str(url))

    async def expect_loading(self, loading: bool) -> None:
        state = "loading" if loading else "idle"
        await expect(self.page.get_by_test_id("chat")).to_have_attribute("data-state", state)

    async def expect_sockets(self, count: int) -> None:
        """Wait until so many connections are open: none may be left behind."""
        async with asyncio.timeout(30):
            while len(self._open) != count:
                self._changed.clear()
                await self._changed.wait()

    async def messages(self, session_id: str) -> list[dict[str, str]]:
        """What the server keeps of the conversation."""
        url = self._server.with_path(f"/api/sessions/{session_id}/messages")
        answer = await self.page.request.get(str(url))
        messages: list[dict[str, str]] = (await answer.json())["messages"]
        return messages

    def _opened(self, socket: WebSocket) -> None:
        self.opened += 1
        self._open.add(socket)
        self._changed.set()
        socket.on("close", self._closed)

    def _closed(self, socket: WebSocket) -> None:
        self._open.discard(socket)
        self._changed.set()


@pytest_asyncio.fixture(loop_scope="session")
async def react(page: Page, bundle: str, console_errors: list[str]) -> AsyncIterator[ReactPage]:
    """The page beside the server's own routes, as in a program that embeds it."""

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=HTML, content_type="text/html")

    async def script(request: web.Request) -> web.Response:
        return web.Response(text=bundle, content_type="text/javascript")

    settings = Settings(agent="demo", database_url=SecretStr("memory:"))
    app = create_app(settings)
    app.router.add_get("/react/", show)
    app.router.add_get("/react/app.js", script)
    async with TestServer(app) as server:
        yield ReactPage(page, server.make_url("/"))
        # A conversation that is named before anything was said in it, is not there yet.
        console_errors[:] = [error for error in console_errors if "status of 404" not in error]
        await page.close()


def words(letter: str, count: int) -> str:
    return " ".join(f"{letter}{number}" for number in range(count))


async def test_a_question_is_answered_piece_by_piece(react: ReactPage) -> None:
    await react.visit("answered")
    await send(react.page, f"/echo tps=100 {words('a', 100)}")
    await state_is(answers(react.page).first, "streaming")
    await react.expect_loading(True)
    await state_is(answers(react.page).first, "complete")
    await react.expect_loading(False)
    await expect(text_of(answers(react.page).first)).to_have_text(words("a", 100))
    await witness.only_grew(react.page, words("a", 100))
    await expect(react.page.get_by_test_id("error")).to_have_count(0)


async def test_another_question_replaces_the_answer_and_nothing_of_it_comes_after(
    react: ReactPage,
) -> None:
    await react.visit("replaced")
    await send(react.page, f"/echo tps=200 {words('a', 2000)}")
    first, second = answers(react.page).nth(0), answers(react.page).nth(1)
    await grown(react.page, first, 3)
    await send(react.page, f"/echo tps=100 {words('b', 60)}")
    await state_is(first, "replaced")
    shown = await text_of(first).text_content()
    await state_is(second, "complete")
    await expect(text_of(second)).to_have_text(words("b", 60))
    await expect(text_of(first)).to_have_text(shown or "")
    await witness.only_grew(react.page, words("a", 2000))
    await witness.only_grew(react.page, words("b", 60), index=1)
    assert [message["status"] for message in await react.messages("replaced")] == [
        "complete",
        "superseded",
        "complete",
        "complete",
    ]


async def test_stop_stops_the_answer_at_the_server(react: ReactPage) -> None:
    await react.visit("stopped")
    await send(react.page, f"/echo tps=100 {words('a', 5000)}")
    answer = answers(react.page).first
    await grown(react.page, answer, 3)
    await react.page.get_by_test_id("stop").click()
    await state_is(answer, "stopped")
    await react.expect_loading(False)
    _, kept = await react.messages("stopped")
    assert kept["status"] == "cancelled"
    await expect(text_of(answer)).to_have_text(kept["content"].strip())
    await expect(react.page.get_by_test_id("error")).to_have_count(0)


async def test_an_answer_that_fails_is_told_until_something_else_is_asked(
    react: ReactPage,
) -> None:
    await react.visit("failed")
    await send(react.page, "/fail 5")
    await state_is(answers(react.page).first, "error")
    await expect(react.page.get_by_test_id("error")).not_to_be_empty()
    await react.expect_loading(False)
    await send(react.page, "/echo well")
    await expect(react.page.get_by_test_id("error")).to_have_count(0)
    await state_is(answers(react.page).nth(1), "complete")


async def test_what_a_component_sends_when_it_is_mounted_is_answered(react: ReactPage) -> None:
    await react.visit("greeted", "greeting=/echo hello")
    await state_is(answers(react.page).last, "complete")
    await expect(text_of(answers(react.page).last)).to_have_text("hello")
    await expect(questions(react.page)).to_have_count(1)


async def test_an_unmounted_provider_leaves_no_connection_and_stops_no_answer(
    react: ReactPage,
) -> None:
    await react.visit("left")
    await send(react.page, f"/echo tps=100 {words('a', 200)}")
    await grown(react.page, answers(react.page).first, 3)
    await react.expect_sockets(1)
    await react.page.get_by_test_id("mounted").click()
    await expect(react.page.get_by_test_id("chat")).to_have_count(0)
    await react.expect_sockets(0)
    await react.page.get_by_test_id("mounted").click()
    await state_is(answers(react.page).first, "complete")
    await expect(text_of(answers(react.page).first)).to_have_text(words("a", 200))
    await expect(questions(react.page)).to_have_count(1)
    await react.expect_sockets(1)


async def test_a_client_of_the_page_s_own_outlives_its_provider(react: ReactPage) -> None:
    await react.visit("given", "client=own")
    await send(react.page, f"/echo tps=100 {words('a', 100)}")
    await grown(react.page, answers(react.page).first, 3)
    await react.page.get_by_test_id("mounted").click()
    await expect(react.page.get_by_test_id("chat")).to_have_count(0)
    await react.page.get_by_test_id("mounted").click()
    await state_is(answers(react.page).first, "complete")
    await expect(text_of(answers(react.page).first)).to_have_text(words("a", 100))
    await send(react.page, "/echo still connected")
    await expect(text_of(answers(react.page).nth(1))).to_have_text("still connected")
    assert react.opened == 1


async def test_a_hidden_provider_goes_on_when_it_is_shown_again(react: ReactPage) -> None:
    await react.visit("hidden")
    await send(react.page, f"/echo tps=100 {words('a', 200)}")
    await grown(react.page, answers(react.page).first, 3)
    await react.expect_sockets(1)
    await react.page.get_by_test_id("visible").click()
    await react.expect_sockets(0)
    await react.page.get_by_test_id("visible").click()
    await state_is(answers(react.page).first, "complete")
    await expect(text_of(answers(react.page).first)).to_have_text(words("a", 200))
    await send(react.page, "/echo again")
    await expect(text_of(answers(react.page).nth(1))).to_have_text("again")
    await react.expect_sockets(1)


async def test_another_session_is_another_conversation(react: ReactPage) -> None:
    await react.visit("one")
    await send(react.page, f"/echo tps=100 {words('a', 300)}")
    await grown(react.page, answers(react.page).first, 3)
    await react.page.evaluate("location.hash = 'two'")
    await expect(answers(react.page)).to_have_count(0)
    await react.expect_loading(False)
    await send(react.page, "/echo in two")
    await expect(text_of(answers(react.page).first)).to_have_text("in two")
    await react.page.evaluate("location.hash = 'one'")
    await state_is(answers(react.page).first, "complete")
    await expect(text_of(answers(react.page).first)).to_have_text(words("a", 300))
    assert len(await react.messages("two")) == 2

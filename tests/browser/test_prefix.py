"""The page below a path prefix: the server is a part of another application."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page, expect
from pydantic import SecretStr

from browser.steps import answers, connected, send, state_is
from jarvis_stream import create_app
from jarvis_stream.settings import Settings


@pytest_asyncio.fixture(loop_scope="session")
async def address() -> AsyncIterator[str]:
    """The address of the page."""
    outer = web.Application()
    settings = Settings(agent="demo", database_url=SecretStr("memory:"))
    outer.add_subapp("/team/chat/", create_app(settings))
    runner = web.AppRunner(outer, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/team/chat"
    await runner.cleanup()


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_the_page_works_below_a_path_prefix(page: Page, address: str) -> None:
    await page.goto(address)  # without its slash, which the server adds
    await connected(page, "websocket")
    await send(page, "/echo below a prefix")
    await state_is(answers(page).first, "complete")
    await expect(page.get_by_test_id("session-open").first).to_contain_text("below a prefix")
    await page.get_by_test_id("menu-button").click()
    async with page.expect_download() as download:
        await page.get_by_test_id("menu").get_by_text("Download Markdown").click()
    assert (await download.value).url.startswith(f"{address}/api/sessions/")
    await page.reload()
    await expect(answers(page).first).to_contain_text("below a prefix")
    await page.get_by_test_id("new").click()
    await expect(answers(page)).to_have_count(0)
    assert page.url == f"{address}/"


async def test_the_page_works_below_a_path_prefix_without_websockets(
    page: Page, address: str
) -> None:
    await page.add_init_script("delete window.WebSocket")
    await page.goto(f"{address}/")
    await connected(page, "http")
    await send(page, "/echo below a prefix")
    await state_is(answers(page).first, "complete")

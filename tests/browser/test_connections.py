"""Many tabs without WebSockets: a browser has six HTTP/1.1 connections to a host."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext
from processes import Server

from browser.steps import answers, connected, send, state_is


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_stop_and_a_seventh_tab_work_while_six_tabs_are_answered(
    context: BrowserContext, server: Server
) -> None:
    await context.add_init_script("delete window.WebSocket")
    pages = []
    for _ in range(6):
        page = await context.new_page()
        await page.goto(server.url)
        await connected(page, "http")
        pages.append(page)
    for page in pages:
        await send(page, "/demo tps=10 length=5000")
        await state_is(answers(page).first, "streaming")
    await pages[0].get_by_test_id("stop").click()
    await state_is(answers(pages[0]).first, "stopped")
    seventh = await context.new_page()
    await seventh.goto(server.url)
    await connected(seventh, "http")
    for page in pages[1:]:
        await page.get_by_test_id("stop").click()
        await state_is(answers(page).first, "stopped")

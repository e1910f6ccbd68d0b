"""Two browsers at a server where nobody signs in, and pages of other sites."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from conftest import ROOT
from playwright.async_api import Browser, Page, expect
from processes import Server, serving

from browser.steps import answers, come, send, state_is, text_of

BROWSERS = pytest.mark.parametrize("browser_name", ["chromium", "firefox"])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The program, open to everybody."""
    flags = ("--host", "0.0.0.0", "--allow-anonymous", "--database-url", "memory:")
    run = (sys.executable, ROOT / "run.py", "--agent", "demo", "--log-level", "critical")
    with serving(*run, *flags) as server:
        yield replace(server, url=server.url.replace("localhost", "127.0.0.1"))


@BROWSERS
@pytest.mark.parametrize("how", ["websocket", "http"])
async def test_each_browser_has_conversations_of_its_own_and_keeps_them(
    page: Page, browser: Browser, server: Server, how: str
) -> None:
    await come(page, server.url, how)
    await send(page, "/echo for me alone")
    await state_is(answers(page).first, "complete")
    stranger = await browser.new_context()
    try:
        theirs = await stranger.new_page()
        await come(theirs, server.url, how)
        await send(theirs, "/echo for them alone")
        await state_is(answers(theirs).first, "complete")
        await expect(theirs.get_by_test_id("session")).to_have_count(1)
        await expect(theirs.get_by_test_id("session")).to_contain_text("for them alone")
        await theirs.goto(page.url)  # the address of somebody else's conversation
        await expect(theirs.get_by_text("for me alone")).to_have_count(0)
    finally:
        await stranger.close()
    await page.reload()
    await expect(text_of(answers(page).first)).to_have_text("for me alone")
    await expect(page.get_by_test_id("session")).to_have_count(1)
    assert "jarvis_visitor" not in await page.evaluate("document.cookie")


@BROWSERS
async def test_a_page_of_another_site_is_refused_and_our_own_is_not(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    await come(page, server.url)
    await send(page, "/echo hello")
    await state_is(answers(page).first, "complete")
    own = await page.evaluate("fetch('/api/sessions').then((answer) => answer.status)")
    assert own == 200
    # The same server by another name is another site, to which a link of our page leads.
    foreign = server.url.replace("127.0.0.1", "localhost")
    async with page.expect_response(f"{foreign}/api/sessions?q=hello") as refused:
        await page.evaluate(
            """(url) => {
                const link = document.createElement('a')
                link.href = url
                document.body.append(link)
                link.click()
            }""",
            f"{foreign}/api/sessions?q=hello",
        )
    assert (await refused.value).status == 403
    await page.wait_for_url(f"{foreign}/api/sessions?q=hello")
    typed = await page.goto(f"{foreign}/api/sessions")
    assert typed is not None
    assert typed.status == 200
    console_errors.clear()  # of what was refused

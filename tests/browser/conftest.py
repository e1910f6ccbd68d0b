"""A real server, a real browser, and a witness of everything the page shows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from conftest import ROOT
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from processes import Server, serving

CHROMIUM = "/usr/bin/chromium"
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

WITNESS = """
    // What every bubble of an answer showed after each change of the page, in order.
    window.history_of_answers = []
    new MutationObserver(() => {
      const answers = document.querySelectorAll('[data-testid="message"][data-role="assistant"]')
      window.history_of_answers.push(
        Array.from(answers, (answer) => answer.querySelector('[data-part="text"]').textContent),
      )
    }).observe(document, { childList: true, characterData: true, subtree: true })
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The program, as people start it."""
    with serving(
        sys.executable, ROOT / "run.py", "--agent", "demo", "--log-level", "critical"
    ) as server:
        yield server


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        await browser.close()


@pytest.fixture
def console_errors() -> list[str]:
    """What the page complained of; a test that provokes complaints empties it."""
    return []


@pytest.fixture
async def page(browser: Browser, console_errors: list[str]) -> AsyncIterator[Page]:
    """A page with a witness, that must not complain of anything."""
    yield await witnessed(browser, console_errors)
    assert console_errors == []


@pytest.fixture
async def other(page: Page, browser: Browser, console_errors: list[str]) -> Page:
    """Another one beside it."""
    return await witnessed(browser, console_errors)


async def witnessed(browser: Browser, console_errors: list[str]) -> Page:
    page = await browser.new_page()

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            console_errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    await page.add_init_script(WITNESS)
    return page

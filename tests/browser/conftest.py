"""A real server, real browsers, and a witness of everything the page shows."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import ROOT
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    async_playwright,
    expect,
)
from processes import Server, serving
from profiles import patience

from browser import witness

# Until then it is looked at again and again, and however busy the machine is, that is enough.
expect.set_options(timeout=patience(30_000))

EXECUTABLES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "firefox": ("firefox-esr", "firefox"),
}
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All browser tests run on one event loop: a browser lives longer than a test."""
    on_one_loop = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.parent.name == "browser" and pytest_asyncio.is_async_test(item):
            item.add_marker(on_one_loop, append=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The program, as people start it."""
    with serving(
        sys.executable, ROOT / "run.py", "--agent", "demo", "--log-level", "critical"
    ) as server:
        yield server


class Browsers:
    """The browsers of this computer, each started when it is first asked for."""

    def __init__(self, playwright: Playwright) -> None:
        self._playwright = playwright
        self._running: dict[str, Browser] = {}

    async def get(self, name: str) -> Browser:
        """`chromium` or `firefox`; raises LookupError where it is not installed."""
        browser = self._running.get(name)
        if browser is None or not browser.is_connected():
            launch = self._firefox if name == "firefox" else self._chromium
            browser = self._running[name] = await launch()
        return browser

    @contextlib.asynccontextmanager
    async def without_storage(self, name: str) -> AsyncIterator[BrowserContext]:
        """One whose owner forbids every site to keep anything: cookies and storage are blocked."""
        if name == "firefox":
            browser = await self._firefox({"network.cookie.cookieBehavior": 2})
            yield await browser.new_context()
            await browser.close()
            return
        with tempfile.TemporaryDirectory() as profile:
            preferences = {"profile": {"default_content_setting_values": {"cookies": 2}}}
            (Path(profile) / "Default").mkdir()
            (Path(profile) / "Default" / "Preferences").write_text(json.dumps(preferences))
            context = await self._playwright.chromium.launch_persistent_context(
                profile, executable_path=executable_of(name), args=CHROMIUM_ARGS
            )
            yield context
            await context.close()

    async def close(self) -> None:
        for browser in self._running.values():
            await browser.close()

    async def _chromium(self) -> Browser:
        return await self._playwright.chromium.launch(
            executable_path=executable_of("chromium"), args=CHROMIUM_ARGS
        )

    async def _firefox(self, preferences: dict[str, str | float | bool] | None = None) -> Browser:
        # The one that people use, by WebDriver BiDi, and not playwright's own build of it.
        return await self._playwright.firefox.launch(
            channel="moz-firefox",
            executable_path=executable_of("firefox"),
            firefox_user_prefs=preferences,
        )


def executable_of(name: str) -> str:
    for command in EXECUTABLES[name]:
        if path := shutil.which(command):
            return path
    raise LookupError(f"There is no {name} here: `make {name}` installs it.")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browsers() -> AsyncIterator[Browsers]:
    async with async_playwright() as playwright:
        browsers = Browsers(playwright)
        yield browsers
        await browsers.close()


@pytest.fixture
def browser_name() -> str:
    """Which browser; `parametrize` a test with it to run it in several."""
    return "chromium"


@pytest_asyncio.fixture(loop_scope="session")
async def browser(browsers: Browsers, browser_name: str) -> Browser:
    """One that other tests use too: make a context of your own."""
    return await browsers.get(browser_name)


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser that was never used before, with nothing in its storage."""
    context = await browser.new_context()
    yield context
    await context.close()


@pytest.fixture
def console_errors() -> list[str]:
    """What the page complained of; a test that provokes complaints empties it."""
    return []


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext, console_errors: list[str]) -> AsyncIterator[Page]:
    """A page with a witness, that must not complain of anything."""
    yield await watched(await context.new_page(), console_errors)
    assert console_errors == []


@pytest_asyncio.fixture(loop_scope="session")
async def other(page: Page, console_errors: list[str]) -> Page:
    """Another one beside it, in a window of its own: a tab that is behind paints nothing."""
    async with page.context.expect_page() as opened:
        await page.evaluate("void window.open('about:blank', '', 'popup, noopener')")
    return await watched(await opened.value, console_errors)


async def watched(page: Page, console_errors: list[str]) -> Page:
    """The page, with a witness, and its complaints added to the list."""
    await page.add_init_script(witness.SCRIPT)

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            console_errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    return page

"""Makes the pictures in docs/images/: `make screenshots`.

The page as it is, with the demo, in the system's Chromium: on a desktop and on a phone, light and
dark, empty, in mid-answer, after some answers, and after one that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

ROOT: Final = Path(__file__).resolve().parent.parent
IMAGES: Final = ROOT / "docs" / "images"

SIZES: Final[dict[str, dict[str, Any]]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 780},
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    },
}

EARLIER: Final = {
    "Release notes for Friday": timedelta(hours=2),
    "Why the cache was cold": timedelta(hours=5),
    "Interview questions": timedelta(days=1, hours=3),
    "A week in Lisbon": timedelta(days=3),
    "Regular expressions, slowly": timedelta(days=5),
    "Names for a small cat": timedelta(days=40),
}
"""Other conversations in the list, and how long ago they were."""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The program with an empty history; its address."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run.py"), "--port", "0", "--agent", "demo"]
        command += [
            "--log-level",
            "critical",
            "--database-url",
            f"sqlite:///{folder}/chats.sqlite3",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait()


async def fill(page: Page, url: str) -> None:
    """Put the other conversations into the list."""
    for title in EARLIER:
        session_id = str(uuid4())
        prompt = {"prompt": "/echo tps=0 ttft=0 Hello", "session_id": session_id}
        started = await page.request.post(f"{url}/api/chat", data=prompt)
        await started.body()
        await page.request.patch(f"{url}/api/sessions/{session_id}", data={"title": title})


async def age(route: Route) -> None:
    """Let them be as old as they should be."""
    response = await route.fetch()
    listed = json.loads(await response.body())
    for session in listed["sessions"]:
        ago = EARLIER.get(session["title"], timedelta())
        updated_at = datetime.fromisoformat(session["updated_at"]) - ago
        session["updated_at"] = updated_at.isoformat()
    listed["sessions"].sort(key=lambda session: session["updated_at"], reverse=True)
    await route.fulfill(response=response, json=listed)


async def ask(page: Page, prompt: str) -> None:
    await page.get_by_test_id("prompt").fill(prompt)
    await page.keyboard.press("Enter")


def answer(page: Page, number: int) -> Locator:
    return page.locator('[data-testid="message"][data-role="assistant"]').nth(number)


async def ended(page: Page, number: int, state: str = "complete") -> None:
    """Wait until answer `number` (from 0) has ended like this."""
    await expect(answer(page, number)).to_have_attribute("data-state", state, timeout=30_000)


async def empty(page: Page) -> None:
    await expect(page.get_by_test_id("example").first).to_be_visible()


async def streaming(page: Page) -> None:
    await ask(page, "What can this page show?")
    await ended(page, 0)
    await ask(page, "/tools hang_at=24")
    text = answer(page, 1).locator('[data-part="text"]')
    await expect(text).to_contain_text("No tool was really called", timeout=30_000)


async def finished(page: Page) -> None:
    await ask(page, "What can this page show?")
    await ended(page, 0)
    await ask(page, "And some code?")
    await ended(page, 1)
    await expect(page.locator("pre [class*='hl']").first).to_be_attached()
    await (
        page.locator('[data-testid="message"][data-role="user"]')
        .nth(1)
        .evaluate("element => element.scrollIntoView()")
    )


async def error(page: Page) -> None:
    await ask(page, "What can this page show?")
    await ended(page, 0)
    await ask(page, "/fail 24")
    await ended(page, 1, "error")


async def sidebar(page: Page) -> None:
    await finished(page)
    await page.get_by_test_id("sidebar-toggle").click()
    await expect(page.get_by_test_id("sidebar")).to_be_focused()


async def keys(page: Page) -> None:
    await finished(page)
    await page.keyboard.press("Control+/")
    await expect(page.get_by_test_id("keys-dialog")).to_be_visible()


STATES: Final[dict[str, tuple[Callable[[Page], Awaitable[None]], ...]]] = {
    "desktop": (empty, streaming, finished, error, keys),
    "phone": (empty, streaming, finished, error, sidebar),
}


@contextlib.asynccontextmanager
async def opened(browser: Browser, url: str, size: str, scheme: str) -> AsyncIterator[Page]:
    """The page, connected, in a browser that was never used before."""
    context = await browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        locale="en-GB",
        timezone_id="UTC",
        **SIZES[size],
    )
    page = await context.new_page()
    await page.route("**/api/sessions?*", age)
    await page.goto(url)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "websocket")
    yield page
    await context.close()


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for size, states in STATES.items():
            for scheme in ("light", "dark"):
                for state in states:
                    with server() as url:
                        async with opened(browser, url, size, scheme) as page:
                            await fill(page, url)
                            await page.reload()
                            await expect(page.get_by_test_id("session")).to_have_count(len(EARLIER))
                            await state(page)
                            file = IMAGES / f"{size}-{scheme}-{state.__name__}.png"
                            await page.screenshot(path=file, animations="disabled")
                            print(file.relative_to(ROOT), f"{file.stat().st_size // 1024} kB")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())

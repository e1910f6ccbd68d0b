"""What a person does on the page, and sees there."""

from __future__ import annotations

import re

from playwright.async_api import Locator, Page, expect


def answers(page: Page) -> Locator:
    return page.locator('[data-testid="message"][data-role="assistant"]')


def questions(page: Page) -> Locator:
    return page.locator('[data-testid="message"][data-role="user"] [data-part="text"]')


def text_of(answer: Locator) -> Locator:
    return answer.locator('[data-part="text"]')


async def state_is(answer: Locator, state: str) -> None:
    await expect(answer).to_have_attribute("data-state", state)


async def connected(page: Page, how: str | re.Pattern[str]) -> None:
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", how)


async def come(page: Page, url: str, how: str = "websocket") -> None:
    """Open the page, and wait until it is connected; `http`: in a browser without WebSocket."""
    if how == "http":
        await page.add_init_script("delete window.WebSocket")
    await page.goto(url)
    await connected(page, how)


async def send(page: Page, prompt: str) -> None:
    field = page.get_by_test_id("prompt")
    await field.fill(prompt)
    # On a touch device Enter breaks the line.
    enter = await field.get_attribute("enterkeyhint") != "enter"
    await page.keyboard.press("Enter" if enter else "Control+Enter")


async def grown(page: Page, answer: Locator, times: int) -> None:
    """Wait until the answer has been seen to grow this often."""
    for _ in range(times):
        before = await text_of(answer).text_content() or ""
        await expect(text_of(answer)).not_to_have_text(re.compile(f"^{re.escape(before)}$"))

"""Who one is, on the page, with a server that wants to know."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT
from playwright.async_api import Page, expect
from processes import Server, serving

from browser.steps import answers, connected, send, state_is, text_of

BOTH = pytest.mark.parametrize("browser_name", ["chromium", "firefox"])

ANN = "anns-own-long-token"
TOKENS = f"ann:{ANN},bob:bobs-own-long-token"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The program, for two people."""
    with serving(
        sys.executable,
        ROOT / "run.py",
        *("--agent", "demo", "--log-level", "critical", "--database-url", "memory:"),
        env={"JARVIS_AUTH_TOKENS": TOKENS},
    ) as server:
        yield server


async def sign_in(page: Page, token: str) -> None:
    await page.get_by_test_id("token").fill(token)
    await page.keyboard.press("Enter")


async def test_a_stranger_is_asked_for_a_token_and_sees_nothing_else(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    await page.goto(server.url)
    await expect(page.get_by_test_id("sign-in")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("sign-in")).to_be_visible()
    await sign_in(page, "somebody-elses-token")
    await expect(page.get_by_test_id("sign-in-problem")).to_have_text(
        "The server does not take this token."
    )
    await expect(page.get_by_test_id("token")).to_be_focused()
    console_errors.clear()  # the browser tells of each 401


async def test_who_signs_in_chats_over_a_websocket_and_stays_signed_in(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    await page.goto(server.url)
    await sign_in(page, ANN)
    await expect(page.get_by_test_id("sign-in")).to_be_hidden()
    await connected(page, "websocket")
    console_errors.clear()  # from before the sign-in
    await send(page, "/echo for ann alone")
    await state_is(answers(page).first, "complete")
    await page.reload()
    await expect(text_of(answers(page).first)).to_have_text("for ann alone")
    assert ANN not in await page.evaluate("document.cookie + JSON.stringify(localStorage)")


async def test_signing_out_ends_it_and_the_next_one_sees_nothing_of_it(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    await page.goto(server.url)
    await sign_in(page, ANN)
    await connected(page, "websocket")
    await send(page, "/echo for ann alone")
    await state_is(answers(page).first, "complete")
    address = page.url
    await page.get_by_test_id("settings-open").click()
    await expect(page.get_by_test_id("principal")).to_have_text("ann")
    await page.get_by_test_id("sign-out").click()
    await expect(page.get_by_test_id("sign-in")).to_be_visible()
    await sign_in(page, "bobs-own-long-token")
    await connected(page, "websocket")
    await page.goto(address)
    await page.reload()
    await connected(page, "websocket")
    await expect(answers(page)).to_have_count(0)
    await expect(page.get_by_text("for ann alone")).to_have_count(0)
    console_errors.clear()  # 401s, and the 404 of what is not bob's


@BOTH
async def test_the_sign_in_dialog_stays_open_until_someone_has_signed_in(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    await page.goto(server.url)
    dialog = page.get_by_test_id("sign-in")
    await expect(dialog).to_be_visible()
    for _ in range(4):
        await page.keyboard.press("Escape")
    await expect(dialog).to_be_visible()
    await dialog.evaluate("e => e.close()")  # as the back gesture of a phone does
    await expect(dialog).to_be_visible()
    await sign_in(page, ANN)
    await expect(dialog).to_be_hidden()
    await connected(page, "websocket")
    console_errors.clear()  # 401s


@BOTH
async def test_signing_out_in_one_tab_clears_the_others(
    page: Page, other: Page, server: Server, console_errors: list[str]
) -> None:
    await page.goto(server.url)
    await sign_in(page, ANN)
    await connected(page, "websocket")
    await send(page, "/echo for ann alone")
    await state_is(answers(page).first, "complete")
    await other.goto(page.url)
    await expect(text_of(answers(other).first)).to_have_text("for ann alone")
    await other.get_by_test_id("prompt").fill("a draft of ann")
    await page.get_by_test_id("settings-open").click()
    await page.get_by_test_id("sign-out").click()
    await expect(other.get_by_test_id("sign-in")).to_be_visible()
    await expect(answers(other)).to_have_count(0)
    await expect(other.get_by_text("for ann alone")).to_have_count(0)
    await expect(other.get_by_test_id("prompt")).to_have_value("")
    await expect(page.get_by_test_id("sign-in")).to_be_visible()
    await sign_in(page, "bobs-own-long-token")
    await expect(other.get_by_test_id("sign-in")).to_be_hidden()
    await expect(other.get_by_test_id("principal")).to_have_text("bob")
    await expect(other.get_by_test_id("prompt")).to_have_value("")
    console_errors.clear()  # 401s, and the 404 of what is not bob's


@BOTH
async def test_a_draft_survives_an_expired_sign_in_and_only_its_writer_sees_it_again(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    prompt, dialog = page.get_by_test_id("prompt"), page.get_by_test_id("sign-in")
    await page.goto(server.url)
    await sign_in(page, ANN)
    await expect(dialog).to_be_hidden()
    await connected(page, "websocket")
    await expect(page.get_by_test_id("principal")).to_have_text("ann")
    await prompt.fill("a long message")
    for token, draft in ((ANN, "a long message"), ("bobs-own-long-token", "")):
        await page.context.clear_cookies()  # the sign-in has expired
        await page.evaluate("window.dispatchEvent(new Event('focus'))")
        await expect(dialog).to_be_visible()
        await expect(prompt).to_have_value("")  # it can be read through the backdrop
        await sign_in(page, token)
        await expect(dialog).to_be_hidden()
        await connected(page, "websocket")
        await expect(prompt).to_have_value(draft)
    console_errors.clear()  # 401s

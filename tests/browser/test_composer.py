"""Where a message is written: drafts, keys, and what cannot be sent."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect
from processes import Server

from browser.steps import answers, come, questions, send, state_is

pytestmark = pytest.mark.parametrize("browser_name", ["chromium", "firefox"])

TOUCH = """
    const { matchMedia } = window
    window.matchMedia = (query) =>
      matchMedia.call(window, query === '(pointer: coarse)' ? 'all' : query)
"""
"""A device whose main pointer is a finger."""

PASTE = """(field, text) => {
    const clipboardData = new DataTransfer()
    clipboardData.items.add(new File([new Uint8Array(10)], 'a.png', { type: 'image/png' }))
    if (text) clipboardData.setData('text/plain', text)
    const paste = new Event('paste', { bubbles: true, cancelable: true })
    Object.defineProperty(paste, 'clipboardData', { value: clipboardData })
    return !field.dispatchEvent(paste)
}"""

DROP = """(element) => {
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File(['x'], 'a.txt', { type: 'text/plain' }))
    const drop = new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true })
    return !element.dispatchEvent(drop)
}"""


async def test_a_draft_survives_a_reload(page: Page, server: Server) -> None:
    prompt = page.get_by_test_id("prompt")
    await come(page, server.url)
    await prompt.fill("a long draft")
    await page.reload()
    await expect(prompt).to_have_value("a long draft")
    await prompt.fill("/echo one")
    await page.keyboard.press("Enter")
    await state_is(answers(page).first, "complete")
    await page.reload()
    await expect(questions(page)).to_have_text(["/echo one"])
    await expect(prompt).to_have_value("")
    await prompt.fill("a draft in this chat")
    await page.reload()
    await expect(prompt).to_have_value("a draft in this chat")
    await page.get_by_test_id("new").click()
    await expect(prompt).to_have_value("")


async def test_enter_breaks_the_line_on_a_touch_device(page: Page, server: Server) -> None:
    await page.add_init_script(TOUCH)
    prompt = page.get_by_test_id("prompt")
    await come(page, server.url)
    await expect(prompt).not_to_be_focused()  # the keyboard would cover the page
    await expect(prompt).to_have_attribute("enterkeyhint", "enter")
    await prompt.click()
    await page.keyboard.type("/echo Dear Ann,")
    await page.keyboard.press("Enter")
    await page.keyboard.type("hello")
    await expect(prompt).to_have_value("/echo Dear Ann,\nhello")
    await expect(questions(page)).to_have_count(0)
    await page.get_by_test_id("send").click()
    await state_is(answers(page).first, "complete")
    await expect(questions(page)).to_have_text(["/echo Dear Ann,\nhello"])
    await prompt.click()
    await page.keyboard.type("/echo again")
    await page.keyboard.press("Control+Enter")
    await expect(questions(page)).to_have_count(2)


async def test_a_pasted_or_dropped_file_is_refused_in_a_sentence(
    page: Page, server: Server
) -> None:
    prompt, notice = page.get_by_test_id("prompt"), page.get_by_test_id("notice")
    sentence = "Images and files cannot be sent here: this chat takes text only."
    await come(page, server.url)
    assert await prompt.evaluate(PASTE, "")
    await expect(notice).to_have_text(sentence)
    await prompt.fill("text")
    await expect(notice).to_be_hidden()
    assert not await prompt.evaluate(PASTE, "the text of a table")
    await expect(notice).to_be_hidden()
    assert await page.get_by_test_id("scroller").evaluate(DROP)
    await expect(notice).to_have_text(sentence)
    await send(page, "/echo one")
    await expect(notice).to_be_hidden()

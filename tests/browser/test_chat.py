"""What the page does, in one browser; tests/browser/test_acceptance.py is for each of them."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, Route, expect
from processes import Server

from browser.steps import answers, come, connected, grown, questions, send, state_is, text_of

ENDLESS = "/demo tps=50 ttft=0 length=100000 | apple"


async def test_stop_before_the_first_token(page: Page, server: Server) -> None:
    await page.goto(server.url)
    await send(page, "/demo ttft=600 | never said")
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")
    await expect(text_of(answers(page).first)).to_have_text("")


@pytest.mark.parametrize("how", ["websocket", "http"])
async def test_of_many_rapid_messages_only_the_last_is_answered(
    page: Page, server: Server, how: str
) -> None:
    await come(page, server.url, how)
    for number in range(6):
        await send(page, f"/echo answer number {number}")
    await state_is(answers(page).nth(5), "complete")
    await expect(text_of(answers(page).nth(5))).to_have_text("answer number 5")
    for number in range(5):
        await state_is(answers(page).nth(number), "replaced")
        await expect(text_of(answers(page).nth(number))).to_have_text("")
    # The server has every question, in the order in which they were asked.
    await page.reload()
    await expect(questions(page)).to_have_text(
        [f"/echo answer number {number}" for number in range(6)]
    )


async def test_a_failed_answer_says_what_happened_and_names_its_trace(
    page: Page, server: Server
) -> None:
    await page.goto(server.url)
    await send(page, "/fail 5")
    answer = answers(page).first
    await state_is(answer, "error")
    await expect(answer.get_by_test_id("note")).to_have_text(re.compile(r"\(trace [0-9a-f]{32}\)$"))


async def test_enter_sends_shift_enter_breaks_the_line_and_composing_sends_nothing(
    page: Page, server: Server
) -> None:
    await page.goto(server.url)
    prompt = page.get_by_test_id("prompt")
    await prompt.focus()
    await page.keyboard.press("Enter")
    await page.keyboard.type("/echo one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await prompt.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    await expect(page.get_by_test_id("message")).to_have_count(0)
    await page.keyboard.press("Enter")
    await expect(prompt).to_have_value("")
    await expect(prompt).to_be_focused()
    await expect(page.get_by_test_id("message")).to_have_count(2)
    await expect(text_of(page.get_by_test_id("message").first)).to_have_text("/echo one\ntwo")


async def test_the_page_says_who_answers(page: Page, server: Server) -> None:
    await page.goto(server.url)
    await expect(page.get_by_test_id("agent")).to_have_text("demo: no language model")


async def test_an_answer_is_only_ever_text(page: Page, server: Server) -> None:
    attack = "<img src=x onerror=alert(1)><b>bold</b>"
    await page.goto(server.url)
    await send(page, f"/echo {attack}")
    await state_is(answers(page).first, "complete")
    await expect(text_of(answers(page).first)).to_have_text(attack)
    assert await page.locator("main img, main b").count() == 0


async def test_the_page_follows_the_end_only_while_the_reader_is_there(
    page: Page, server: Server
) -> None:
    scroller = page.get_by_test_id("scroller")
    from_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight"
    await page.goto(server.url)
    await send(page, "/demo tps=0 length=3000 | a line\nanother line")
    await state_is(answers(page).first, "complete")
    assert await scroller.evaluate(from_end) < 2
    await send(page, "/demo tps=200 length=100000 | line")
    await state_is(answers(page).nth(1), "streaming")
    await scroller.hover()
    await page.mouse.wheel(0, -2000)
    await page.wait_for_function(
        "e => e.scrollHeight - e.scrollTop - e.clientHeight > 1000",
        arg=await scroller.element_handle(),
    )
    where = await scroller.evaluate("e => e.scrollTop")
    await grown(page, answers(page).nth(1), 5)
    assert await scroller.evaluate("e => e.scrollTop") == where
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).nth(1), "stopped")


async def test_it_fits_a_phone_and_asks_nobody_else_for_anything(
    page: Page, server: Server
) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    await page.set_viewport_size({"width": 360, "height": 640})
    await page.goto(server.url)
    await send(page, f"/echo {'unbreakable' * 40}")
    await state_is(answers(page).first, "complete")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await page.get_by_test_id("scroller").evaluate("e => e.scrollWidth <= e.clientWidth")
    assert hosts == {server.url.split("/")[2]}


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_message_can_wait_for_its_turn_and_be_withdrawn(page: Page, server: Server) -> None:
    await come(page, server.url)
    await page.get_by_test_id("when-busy").select_option("enqueue")
    await page.reload()
    await expect(page.get_by_test_id("when-busy")).to_have_value("enqueue")
    await connected(page, "websocket")
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 1)
    await send(page, "/echo withdrawn")
    await send(page, "/echo waited")
    second, third = answers(page).nth(1), answers(page).nth(2)
    await expect(third.locator('[data-part="activity"]')).to_have_text("Waiting, position 2")
    await second.get_by_test_id("withdraw").click()
    await expect(questions(page)).to_have_text([ENDLESS, "/echo waited"])
    await expect(page.get_by_test_id("prompt")).to_have_value("/echo withdrawn")
    third = answers(page).nth(1)
    await expect(third.locator('[data-part="activity"]')).to_have_text("Waiting, position 1")
    await state_is(answers(page).first, "streaming")
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")
    await state_is(third, "complete")
    await expect(text_of(third)).to_have_text("waited")
    await page.reload()
    await expect(questions(page)).to_have_text([ENDLESS, "/echo waited"])


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_withdrawn_message_is_a_draft_of_the_chat_that_was_left(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await page.get_by_test_id("when-busy").select_option("enqueue")
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 1)
    await send(page, "/echo withdrawn")
    await expect(answers(page).nth(1).get_by_test_id("withdraw")).to_be_visible()
    await page.evaluate(
        """() => {
          document.querySelector('[data-testid="withdraw"]:not([hidden])').click()
          document.querySelector('[data-testid="new"]').click()
        }"""
    )
    await expect(questions(page)).to_have_count(0)
    await page.wait_for_function("() => Object.values(sessionStorage).includes('/echo withdrawn')")
    await expect(page.get_by_test_id("prompt")).to_have_value("")
    await page.go_back()
    await expect(questions(page)).to_have_text([ENDLESS])
    await expect(page.get_by_test_id("prompt")).to_have_value("/echo withdrawn")


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_button_below_growing_text_stays_under_the_mouse(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await page.get_by_test_id("when-busy").select_option("enqueue")
    await send(page, ENDLESS)
    first = text_of(answers(page).first)
    await send(page, "/echo withdrawn")
    await page.wait_for_function(
        "(scroller) => scroller.scrollHeight > scroller.clientHeight + 100",
        arg=await page.get_by_test_id("scroller").element_handle(),
    )
    button = answers(page).nth(1).get_by_test_id("withdraw")
    await button.hover()
    await page.mouse.down()
    before = await first.evaluate("(text) => text.offsetHeight")
    await page.wait_for_function(
        "([text, before]) => text.offsetHeight > before + 60",
        arg=[await first.element_handle(), before],
    )
    await page.mouse.up()
    await expect(questions(page)).to_have_text([ENDLESS])


async def test_an_answer_that_could_not_be_saved_says_so(page: Page, server: Server) -> None:
    ids = '"stream_id":"%s","trace_id":"%s","epoch":1,"seq":'
    frames = (
        f'{{"type":"status",{ids}1,"status":"thinking","session_id":"s"}}\n'
        f'{{"type":"token",{ids}2,"text":"said"}}\n'
        f'{{"type":"done",{ids}3,"finish_reason":"stop","saved":false}}\n'
    )
    await come(page, server.url, "http")

    async def answer(route: Route) -> None:
        stream_id = (route.request.post_data_json or {})["stream_id"]
        await route.fulfill(body=frames % ((stream_id, "0" * 32) * 3))

    await page.route("**/api/chat", answer)
    await send(page, "anything")
    await state_is(answers(page).first, "complete")
    note = answers(page).first.get_by_test_id("note")
    await expect(note).to_have_text("The server could not save this answer")


async def test_a_new_chat_leaves_the_old_one_where_it_was(page: Page, server: Server) -> None:
    await come(page, server.url)
    await send(page, "/echo kept")
    await state_is(answers(page).first, "complete")
    address = page.url
    await page.get_by_test_id("new").click()
    await expect(page.get_by_test_id("empty")).to_be_visible()
    await expect(page).not_to_have_url(re.compile("#"))
    await page.goto(address)
    await expect(text_of(answers(page).first)).to_have_text("kept")

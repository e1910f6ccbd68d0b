"""The page in a real browser, against a real server."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect
from processes import Server

from browser.proxy import Proxy
from browser.steps import answers, connected, grown, questions, send, state_is, text_of

FIRST = "/demo tps=100 ttft=0 length=100000 | apple"
SECOND = "zebra " * 30
LIVE = {"websocket": "Live over WebSocket", "http": "Live over HTTP"}


async def never_mixed(page: Page) -> None:
    """From the moment the second bubble is there, the first one stands still, and the second one
    grows from nothing and holds no piece of the first.
    """
    seen = await page.evaluate("window.history_of_answers")
    with_both = [texts for texts in seen if len(texts) == 2]
    assert with_both
    assert len({texts[0] for texts in with_both}) == 1
    assert set(with_both[0][0].split()) <= {"apple", "app", "appl", "ap", "a"}
    assert with_both[0][0].startswith("apple")
    assert all(SECOND.strip().startswith(texts[1].strip()) for texts in with_both)


async def interrupt(page: Page) -> None:
    """Ask, see the answer grow, ask again in the middle of it."""
    first, second = answers(page).nth(0), answers(page).nth(1)
    await send(page, FIRST)
    await grown(page, first, 3)
    await send(page, f"/echo tps=100 {SECOND}")
    await state_is(second, "complete")
    await state_is(first, "replaced")
    await expect(text_of(second)).to_have_text(SECOND.strip())
    await never_mixed(page)


async def test_a_second_message_in_the_middle_of_an_answer_replaces_it(
    page: Page, server: Server
) -> None:
    await page.goto(server.url)
    await connected(page, "websocket")
    await interrupt(page)
    await expect(page.get_by_test_id("connection")).to_have_text(LIVE["websocket"])


async def test_the_same_over_http_where_the_browser_has_no_websocket(
    page: Page, server: Server
) -> None:
    await page.add_init_script("delete window.WebSocket")
    await page.goto(server.url)
    await connected(page, "http")
    await interrupt(page)
    await expect(page.get_by_test_id("connection")).to_have_text(LIVE["http"])


async def test_the_same_over_http_where_a_proxy_refuses_the_handshake(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    async with Proxy(server.url) as proxy:
        proxy.websockets = False
        await page.goto(proxy.url)
        await connected(page, "http")
        await interrupt(page)
        await expect(page.get_by_test_id("connection")).to_have_text(LIVE["http"])
        await page.close()
    # The browser itself tells of the one handshake; there was no second try.
    assert [error for error in console_errors if "/ws' failed" not in error] == []
    assert len(console_errors) == 1
    console_errors.clear()


@pytest.mark.parametrize("how", ["websocket", "http"])
async def test_pieces_of_the_first_answer_that_are_still_on_their_way_are_not_shown(
    page: Page, server: Server, how: str
) -> None:
    if how == "http":
        await page.add_init_script("delete window.WebSocket")
    async with Proxy(server.url) as proxy:
        proxy.latency = 0.3  # some thirty pieces
        await page.goto(proxy.url)
        await connected(page, how)
        await interrupt(page)
        await page.close()


@pytest.mark.parametrize("how", ["websocket", "http"])
async def test_an_answer_whose_connections_are_cut_goes_on_without_a_doubled_or_lost_piece(
    page: Page, server: Server, console_errors: list[str], how: str
) -> None:
    words = " ".join(f"w{number}" for number in range(300))
    async with Proxy(server.url) as proxy:
        proxy.websockets = how == "websocket"
        await page.goto(proxy.url)
        await connected(page, how)
        await send(page, f"/echo tps=100 {words}")
        answer = answers(page).first
        await grown(page, answer, 3)
        proxy.cut()
        await grown(page, answer, 3)
        proxy.cut()
        await state_is(answer, "complete")
        await expect(text_of(answer)).to_have_text(words)
        await connected(page, how)
        await page.close()
    console_errors.clear()  # the browser complains of each cut


async def test_the_page_says_when_the_server_is_out_of_reach_and_when_it_is_back(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    async with Proxy(server.url) as proxy:
        await page.goto(proxy.url)
        await connected(page, "websocket")
        proxy.up = False
        proxy.cut()
        await connected(page, "reconnecting")
        proxy.up = True
        await connected(page, re.compile("websocket|http"))
        await send(page, "/echo hello")
        await state_is(answers(page).first, "complete")
        await page.close()
    console_errors.clear()


async def test_stop_stops_and_keeps_what_was_said(page: Page, server: Server) -> None:
    await page.goto(server.url)
    await send(page, FIRST)
    answer = answers(page).first
    await grown(page, answer, 2)
    await page.get_by_test_id("stop").click()
    await state_is(answer, "stopped")
    await expect(answer.get_by_test_id("note")).to_have_text("Stopped")
    await expect(text_of(answer)).to_contain_text("apple")
    await expect(page.get_by_test_id("stop")).to_be_hidden()
    said = await text_of(answer).text_content()
    await send(page, "/echo after the stop")
    await state_is(answers(page).nth(1), "complete")
    assert await text_of(answer).text_content() == said


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
    if how == "http":
        await page.add_init_script("delete window.WebSocket")
    await page.goto(server.url)
    await connected(page, how)
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


async def test_a_reload_shows_the_conversation_again(page: Page, server: Server) -> None:
    await page.goto(server.url)
    await send(page, "/echo remember me")
    await state_is(answers(page).first, "complete")
    await page.reload()
    await expect(text_of(answers(page).first)).to_have_text("remember me")
    await send(page, "/echo still here")
    await expect(text_of(answers(page).nth(1))).to_have_text("still here")


async def test_a_reload_in_the_middle_of_an_answer_goes_on_with_it(
    page: Page, server: Server
) -> None:
    words = " ".join(f"w{number}" for number in range(200))
    await page.goto(server.url)
    await send(page, f"/echo tps=100 {words}")
    await grown(page, answers(page).first, 2)
    await page.reload()
    await state_is(answers(page).first, "streaming")
    await state_is(answers(page).first, "complete")
    await expect(text_of(answers(page).first)).to_have_text(words)
    await expect(answers(page)).to_have_count(1)


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


async def test_it_works_with_storage_blocked(page: Page, server: Server) -> None:
    await page.add_init_script(
        "for (const storage of ['localStorage', 'sessionStorage'])"
        "  Object.defineProperty(window, storage, "
        "    { get() { throw new DOMException('denied', 'SecurityError') } })"
    )
    await page.goto(server.url)
    await page.get_by_test_id("when-busy").select_option("enqueue")
    await send(page, "/echo no storage")
    await state_is(answers(page).first, "complete")
    await page.reload()
    await expect(text_of(answers(page).first)).to_have_text("no storage")

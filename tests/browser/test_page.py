"""What the conversation and the composer offer, in a real browser against a real server."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Locator, Page, Route, expect
from processes import Server

from browser.proxy import Proxy
from browser.steps import answers, come, connected, grown, questions, send, state_is, text_of

ENDLESS = "/demo tps=50 ttft=0 length=100000 | apple"
LINES = "/echo " + "\n\n".join(f"line {number}" for number in range(100))
FROM_END = "e => e.scrollHeight - e.scrollTop - e.clientHeight"


async def ask(page: Page, prompt: str, state: str = "complete") -> Locator:
    """Send a message, and wait until it is answered."""
    number = await answers(page).count()
    await send(page, prompt)
    answer = answers(page).nth(number)
    await state_is(answer, state)
    return answer


async def is_at_end(page: Page) -> None:
    scroller = await page.get_by_test_id("scroller").element_handle()
    await page.wait_for_function(f"e => ({FROM_END})(e) < 2", arg=scroller)


def question(page: Page, number: int) -> Locator:
    return page.locator('[data-testid="message"][data-role="user"]').nth(number)


async def copied(page: Page) -> str:
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text


# Before the first message


async def test_an_empty_chat_offers_what_the_demo_can_do(page: Page, server: Server) -> None:
    await page.goto(server.url)
    await expect(page.get_by_test_id("why")).to_contain_text("no language model")
    examples = page.get_by_test_id("example")
    await expect(examples).to_have_count(4)
    await examples.filter(has_text="/tools").click()
    await expect(questions(page)).to_have_text(["/tools"])
    await expect(page.get_by_test_id("empty")).to_be_hidden()
    await expect(page.get_by_test_id("prompt")).to_be_focused()
    await state_is(answers(page).first, "complete")


async def test_where_a_model_answers_the_examples_are_for_a_model(
    page: Page, server: Server
) -> None:
    info = {
        "agent": {"name": "a-model", "is_model": True},
        "why": "it was found",
        "version": "1",
        "protocol": 1,
        "limits": {"max_prompt_chars": 20},
    }
    await page.route("**/api/info", lambda route: route.fulfill(json=info))
    await page.goto(server.url)
    await expect(page.get_by_test_id("agent")).to_have_text("a-model")
    await expect(page.get_by_test_id("why")).not_to_contain_text("no language model")
    await expect(page.get_by_test_id("example")).not_to_contain_text(["/"])


# The composer


async def test_a_message_over_the_limit_is_not_sent_and_the_page_says_by_how_much(
    page: Page, server: Server
) -> None:
    async def answer(route: Route) -> None:
        info = await (await route.fetch()).json()
        await route.fulfill(json={**info, "limits": {"max_prompt_chars": 10}})

    await page.route("**/api/info", answer)
    await page.goto(server.url)
    send_button, limit = page.get_by_test_id("send"), page.get_by_test_id("limit")
    await expect(send_button).to_be_disabled()
    await expect(page.get_by_test_id("example")).to_have_count(4)  # by now the limit is known
    await send(page, "😀" * 12)
    await expect(limit).to_have_text("2 characters too many")
    await expect(send_button).to_be_disabled()
    await expect(page.get_by_test_id("message")).to_have_count(0)
    await page.get_by_test_id("prompt").fill("😀" * 10)
    await expect(limit).to_have_text("")
    await expect(send_button).to_be_enabled()
    await send_button.click()
    await expect(questions(page)).to_have_text(["😀" * 10])


async def test_the_composer_grows_with_its_text_up_to_a_part_of_the_page(
    page: Page, server: Server
) -> None:
    await page.goto(server.url)
    prompt = page.get_by_test_id("prompt")
    height = "e => e.clientHeight"
    small = await prompt.evaluate(height)
    await prompt.fill("one\ntwo\nthree")
    assert await prompt.evaluate(height) > small + 20
    await prompt.fill("line\n" * 200)
    window = await page.evaluate("innerHeight")
    assert await prompt.evaluate(height) < window / 2
    await prompt.fill("")
    assert await prompt.evaluate(height) == small


async def test_the_focus_stays_in_the_composer(page: Page, server: Server) -> None:
    prompt = page.get_by_test_id("prompt")
    await page.goto(server.url)
    await expect(prompt).to_be_focused()
    await prompt.fill(ENDLESS)
    await page.get_by_test_id("send").click()
    await expect(prompt).to_be_focused()
    await state_is(answers(page).first, "streaming")
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")
    await expect(prompt).to_be_focused()
    await answers(page).first.get_by_test_id("regenerate").click()
    await expect(prompt).to_be_focused()
    await state_is(answers(page).first, "streaming")
    await page.keyboard.press("Escape")
    await state_is(answers(page).first, "stopped")


async def test_what_is_being_written_waits_in_its_chat(page: Page, server: Server) -> None:
    prompt = page.get_by_test_id("prompt")
    await come(page, server.url)
    await ask(page, "/echo one")
    await prompt.fill("a draft")
    await page.get_by_test_id("new").click()
    await expect(page.get_by_test_id("empty")).to_be_visible()
    await expect(prompt).to_have_value("")
    await expect(prompt).to_be_focused()
    await page.go_back()
    await expect(text_of(answers(page).first)).to_have_text("one")
    await expect(prompt).to_have_value("a draft")


async def test_what_is_being_written_waits_in_a_new_chat_too(page: Page, server: Server) -> None:
    prompt = page.get_by_test_id("prompt")
    await come(page, server.url)
    await ask(page, "/echo one")
    await page.get_by_test_id("new").click()
    await expect(page.get_by_test_id("empty")).to_be_visible()
    await prompt.fill("a draft")
    await page.get_by_test_id("new").click()
    await page.go_back()
    await expect(text_of(answers(page).first)).to_have_text("one")
    await expect(prompt).to_have_value("")
    await page.go_forward()
    await expect(page.get_by_test_id("empty")).to_be_visible()
    await expect(prompt).to_have_value("a draft")
    await ask(page, "/echo two")
    await page.get_by_test_id("new").click()
    await expect(page.get_by_test_id("empty")).to_be_visible()
    await expect(prompt).to_have_value("")


async def test_what_is_sent_out_of_reach_says_so_and_can_be_sent_again(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    async with Proxy(server.url) as proxy:
        await page.goto(proxy.url)
        await connected(page, "websocket")
        await page.route("**/api/**", lambda route: route.abort())
        proxy.up = False
        proxy.cut()
        await connected(page, re.compile("reconnecting|offline"))
        await send(page, "/echo later")
        await expect(questions(page)).to_have_text(["/echo later"])
        answer = answers(page).first
        await expect(answer).to_have_attribute("data-state", "error", timeout=60_000)
        await page.unroute("**/api/**")
        proxy.up = True
        await answer.get_by_test_id("retry").click()
        await expect(page.get_by_test_id("prompt")).to_be_focused()
        await state_is(answers(page).first, "complete")
        await expect(text_of(answers(page).first)).to_have_text("later")
        await expect(questions(page)).to_have_text(["/echo later"])
        await page.close()
    console_errors.clear()  # the browser complains of what it cannot reach


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_while_offline_a_message_is_not_sent_yet_and_an_answer_waits(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    async with Proxy(server.url) as proxy:
        await page.goto(proxy.url)
        await connected(page, "websocket")
        await send(page, ENDLESS)
        first = answers(page).first
        await state_is(first, "streaming")
        await page.route("**/api/**", lambda route: route.abort())
        proxy.up = False
        proxy.cut()
        await connected(page, "offline")
        activity = first.locator('[data-part="activity"]')
        await expect(activity).to_have_text("Waiting for the connection")
        await page.get_by_test_id("when-busy").select_option("enqueue")
        await send(page, "/echo later")
        activity = answers(page).last.locator('[data-part="activity"]')
        await expect(activity).to_have_text("Not sent yet")
        await page.close()
    console_errors.clear()  # the browser complains of what it cannot reach


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_link_to_an_unknown_chat_says_so_and_a_message_begins_a_new_one(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    await come(page, f"{server.url}/#session=nobodys-chat")
    await expect(page.get_by_test_id("empty-title")).to_have_text("This chat does not exist")
    await expect(page.get_by_test_id("unknown")).to_be_visible()
    await send(page, "/echo one")
    await state_is(answers(page).first, "complete")
    assert "nobodys-chat" not in page.url
    await page.get_by_test_id("new").click()
    await expect(page.get_by_test_id("unknown")).to_be_hidden()
    await expect(page.get_by_test_id("empty-title")).to_have_text("What would you like to know?")
    console_errors.clear()  # the 404


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_the_first_tab_stop_skips_to_the_message_field(page: Page, server: Server) -> None:
    await come(page, server.url)
    await ask(page, "/echo one")
    address = page.url
    await page.evaluate("document.activeElement.blur()")
    await page.get_by_test_id("skip").focus()
    await expect(page.get_by_test_id("skip")).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("prompt")).to_be_focused()
    assert page.url == address


# What an answer shows of itself


async def test_tool_calls_are_shown_with_their_names_and_times(page: Page, server: Server) -> None:
    await come(page, server.url)
    await send(page, "/tools")
    answer = answers(page).first
    steps = answer.get_by_test_id("step")
    search = steps.filter(has_text="search")
    await expect(search).to_have_attribute("data-state", "running")
    await expect(search).to_be_visible()
    await expect(answer.get_by_test_id("activities-summary")).to_have_text("Using search")
    await state_is(answer, "complete")
    await expect(steps).to_have_count(4)
    said = re.compile(r"search\s+jarvis stream protocol: 3 results\s+0.6 s")
    await expect(search).to_have_text(said)
    clock = steps.filter(has_text="clock")
    await expect(clock).to_have_attribute("data-state", "failed")
    await expect(clock).to_contain_text("failed")
    # Folded up, but there.
    await expect(search).to_be_hidden()
    summary = answer.get_by_test_id("activities-summary")
    await expect(summary).to_have_text(re.compile(r"2 tool calls · \d\.\d s"))
    await summary.click()
    await expect(search).to_be_visible()


async def test_a_running_answer_shows_its_time_and_its_rate_and_a_finished_one_keeps_them(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    words = " ".join(["word"] * 60)
    await send(page, f"/echo tps=40 {words}")
    timing = answers(page).first.get_by_test_id("timing")
    await expect(timing).to_have_text(re.compile(r"^\d\.\d s · \d+ pieces/s$"))
    await expect(timing).to_have_attribute("aria-hidden", "true")
    await state_is(answers(page).first, "complete")
    await expect(timing).to_have_text(re.compile(r"^\d\.\d s · \d+ pieces/s$"))
    await expect(timing).not_to_have_attribute("aria-hidden", "true")
    title = re.compile(r"Finish reason: finished by itself\nTrace id: [0-9a-f]{32}")
    await expect(timing).to_have_attribute("title", title)


async def test_an_answer_that_was_cut_off_says_why(page: Page, server: Server) -> None:
    await page.goto(server.url)
    answer = await ask(page, "/demo ttft=0 length=3")
    await expect(answer.get_by_test_id("note")).to_have_text("Cut off at the length limit")
    await expect(answer.get_by_test_id("retry")).to_be_hidden()


async def test_an_error_can_be_looked_up_and_tried_again(page: Page, server: Server) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await come(page, server.url)
    answer = await ask(page, "/fail 3", "error")
    trace = answer.get_by_test_id("copy-trace")
    await trace.click()
    await expect(trace).to_have_text("Copied")
    note = answer.get_by_test_id("note")
    await expect(note).to_contain_text(f"(trace {await copied(page)})")
    before = await note.text_content() or ""
    await answer.get_by_test_id("retry").click()
    await expect(answers(page).first.get_by_test_id("note")).not_to_have_text(before)
    await state_is(answers(page).first, "error")
    await expect(questions(page)).to_have_text(["/fail 3"])


# What can be done with a message


async def test_a_message_is_copied_as_it_was_written(page: Page, server: Server) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(server.url)
    answer = await ask(page, "/echo **bold** and\n\n- an item")
    await expect(text_of(answer).locator("strong")).to_have_text("bold")
    await answer.get_by_role("button", name="Copy").click()
    await expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    assert await copied(page) == "**bold** and\n\n- an item"
    await question(page, 0).hover()
    await question(page, 0).get_by_test_id("copy").click()
    await expect(question(page, 0).get_by_role("button", name="Copied")).to_be_visible()
    assert await copied(page) == "/echo **bold** and\n\n- an item"


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_to_answer_again_takes_the_place_of_that_answer_and_of_what_followed(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    first = await ask(page, "/echo one")
    await ask(page, "/echo two")
    stream = await first.get_attribute("id")
    await first.hover()
    await first.get_by_test_id("regenerate").click()
    dialog = page.get_by_test_id("confirm")
    await expect(dialog).to_contain_text("2 messages after this one")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(questions(page)).to_have_text(["/echo one", "/echo two"])
    await first.hover()
    await first.get_by_test_id("regenerate").click()
    await dialog.get_by_role("button", name="Remove").click()
    await expect(questions(page)).to_have_text(["/echo one"])
    await expect(answers(page)).to_have_count(1)
    await expect(answers(page).first).not_to_have_attribute("id", stream or "")
    await state_is(answers(page).first, "complete")
    await page.reload()
    await expect(questions(page)).to_have_text(["/echo one"])
    await expect(text_of(answers(page).first)).to_have_text("one")


async def test_a_message_can_be_changed_and_sent_again(page: Page, server: Server) -> None:
    await come(page, server.url)
    await ask(page, "/echo one")
    await ask(page, LINES)
    await question(page, 0).hover()
    await question(page, 0).get_by_test_id("edit").click()
    field = page.get_by_test_id("editor-prompt")
    await expect(field).to_be_focused()
    await expect(field).to_be_in_viewport()
    await expect(field).to_have_value("/echo one")
    await field.fill("")
    await expect(page.get_by_test_id("editor-send")).to_be_disabled()
    await field.fill("/echo another")
    await page.keyboard.press("Enter")
    await page.get_by_test_id("confirm").get_by_role("button", name="Cancel").click()
    await expect(field).to_have_value("/echo another")
    await expect(field).to_be_focused()
    await page.keyboard.press("Enter")
    await page.get_by_test_id("confirm").get_by_role("button", name="Remove").click()
    await expect(page.get_by_test_id("prompt")).to_be_focused()
    await expect(questions(page)).to_have_text(["/echo another"])
    await expect(text_of(answers(page).first)).to_have_text("another")
    await page.reload()
    await expect(questions(page)).to_have_text(["/echo another"])


async def test_escape_leaves_the_editor_and_stops_nothing(page: Page, server: Server) -> None:
    await come(page, server.url)
    await ask(page, "/echo one")
    await send(page, ENDLESS)
    await grown(page, answers(page).nth(1), 1)
    await page.keyboard.press("ArrowUp")
    field = page.get_by_test_id("editor-prompt")
    await expect(field).to_have_value(ENDLESS)
    await field.fill("something else")
    await page.keyboard.press("Escape")
    await expect(field).to_have_count(0)
    await expect(page.get_by_test_id("prompt")).to_be_focused()
    await expect(questions(page)).to_have_text(["/echo one", ENDLESS])
    await grown(page, answers(page).nth(1), 2)
    await state_is(answers(page).nth(1), "streaming")
    await page.keyboard.press("Escape")
    await state_is(answers(page).nth(1), "stopped")


async def test_a_message_replaced_elsewhere_while_it_is_edited_is_followed_on(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await ask(page, "/echo one")
    await page.keyboard.press("ArrowUp")
    await expect(page.get_by_test_id("editor-prompt")).to_be_focused()
    elsewhere = await page.context.new_page()
    await come(elsewhere, page.url)
    await expect(questions(elsewhere)).to_have_text(["/echo one"])
    await elsewhere.keyboard.press("ArrowUp")
    await elsewhere.get_by_test_id("editor-prompt").fill(LINES)
    await elsewhere.keyboard.press("Enter")
    await expect(text_of(answers(page).first)).to_contain_text("line 99")
    await expect(page.get_by_test_id("editor-prompt")).to_have_count(0)
    await is_at_end(page)


# Scrolling


async def test_a_chat_opens_at_its_end(page: Page, server: Server) -> None:
    await come(page, server.url)
    await ask(page, LINES)
    await page.reload()
    await expect(text_of(answers(page).first)).to_contain_text("line 99")
    await is_at_end(page)
    await expect(page.get_by_test_id("jump")).to_be_hidden()


@pytest.mark.parametrize("how", ["wheel", "key"])
async def test_the_reader_pauses_the_following_and_a_button_returns(
    page: Page, server: Server, how: str
) -> None:
    await come(page, server.url)
    await ask(page, LINES)
    await send(page, ENDLESS)
    answer, jump = answers(page).nth(1), page.get_by_test_id("jump")
    await grown(page, answer, 1)
    scroller = page.get_by_test_id("scroller")
    await scroller.hover()
    if how == "wheel":
        await page.mouse.wheel(0, -1500)
    else:
        await scroller.focus()
        await page.keyboard.press("Home")
    await expect(jump).to_be_visible()
    await expect(jump).to_have_attribute("data-unseen", "")
    await grown(page, answer, 3)
    assert await scroller.evaluate(FROM_END) > 500
    await jump.click()
    await expect(jump).to_be_hidden()
    await expect(page.get_by_test_id("prompt")).to_be_focused()
    await grown(page, answer, 2)
    await is_at_end(page)
    await page.get_by_test_id("stop").click()
    await state_is(answer, "stopped")


async def test_a_scroll_event_alone_pauses_nothing(page: Page, server: Server) -> None:
    await come(page, server.url)
    await ask(page, LINES)
    await send(page, ENDLESS)
    answer, scroller = answers(page).nth(1), page.get_by_test_id("scroller")
    await grown(page, answer, 1)
    # As a keyboard that opens, or an image that is loaded, may do.
    await scroller.evaluate("e => { e.scrollTop -= 300 }")
    await grown(page, answer, 2)
    await is_at_end(page)
    await page.get_by_test_id("stop").click()
    await state_is(answer, "stopped")


async def test_a_selection_in_a_growing_answer_stays(page: Page, server: Server) -> None:
    await come(page, server.url)
    words = " ".join(f"w{number}" for number in range(80))
    await send(page, f"/echo tps=40 selected words\n\n{words}")
    answer = answers(page).first
    await expect(text_of(answer).locator("p").nth(1)).to_contain_text("w2")
    await text_of(answer).locator("p").first.evaluate("e => getSelection().selectAllChildren(e)")
    assert await page.evaluate("String(getSelection())") == "selected words"
    await state_is(answer, "complete")
    await expect(page.get_by_test_id("log").get_by_test_id("message")).to_have_count(2)
    assert await page.evaluate("String(getSelection())") == "selected words"


# For those who listen


LISTEN = """
    window.changes_of_log = []
    window.spoken = []
    new MutationObserver((records) => {
      for (const { target, addedNodes } of records) {
        if (target.closest?.('[data-testid="spoken"]'))
          window.spoken.push(...Array.from(addedNodes, (node) => node.textContent))
        else if (target.parentElement?.closest('[data-testid="log"]'))
          window.changes_of_log.push(target.nodeName)
      }
    }).observe(document, { childList: true, characterData: true, subtree: true })
"""


async def test_the_log_is_left_alone_and_whole_sentences_are_spoken_once(
    page: Page, server: Server
) -> None:
    await page.add_init_script(LISTEN)
    await come(page, server.url)
    code = "```python\nprint(1)\n```"
    sentences = [f"This is sentence number {number}." for number in range(40)]
    await send(page, f"/echo tps=40 {' '.join(sentences)}\n\n{code}\n\nThe end")
    answer = answers(page).first
    await state_is(answer, "streaming")
    await expect(answer).to_have_attribute("aria-busy", "true")
    await expect(page.get_by_test_id("open").get_by_test_id("message")).to_have_count(1)
    await page.evaluate("window.changes_of_log.length = 0")
    await grown(page, answer, 5)
    assert await page.evaluate("window.changes_of_log") == []
    spoken = "() => window.spoken.join(' ')"
    await page.wait_for_function("() => window.spoken.join(' ').includes('number 3.')")
    assert "Answer finished" not in await page.evaluate(spoken)
    await page.wait_for_function("() => window.spoken.join(' ').endsWith('Answer finished.')")
    whole = f"{' '.join(sentences)} Code block in python. The end Answer finished."
    assert await page.evaluate(spoken) == whole
    assert len(await page.evaluate("window.spoken")) > 2
    await expect(page.get_by_test_id("log").get_by_test_id("message")).to_have_count(2)
    await expect(page.get_by_test_id("open")).to_be_hidden()
    await expect(answer).not_to_have_attribute("aria-busy", "true")


async def test_a_failure_is_spoken_at_once(page: Page, server: Server) -> None:
    await come(page, server.url)
    await ask(page, "/fail 3", "error")
    alarm = page.get_by_test_id("alarm")
    await expect(alarm).to_contain_text("The answer failed: The demo failed at token 3")


# Long conversations


def stored(turns: int) -> dict[str, Any]:
    """A conversation as the server's history would give it."""
    messages = []
    for number in range(turns):
        stream_id = f"00000000-0000-4000-8000-{number:012}"
        made = {"stream_id": stream_id, "created_at": "2026-01-01T00:00:00+00:00"}
        for role in ("user", "assistant"):
            said = {"role": role, "content": f"{role} **{number}**\n\n```js\nlet a = {number}\n```"}
            messages.append({**made, **said, "id": f"{role}{number}", "status": "complete"})
    return {"session_id": "long", "messages": messages, "active_stream": None}


async def open_long(page: Page, server: Server) -> None:
    body = json.dumps(stored(250))
    await page.route(
        "**/api/sessions/long/messages",
        lambda route: route.fulfill(body=body, content_type="application/json"),
    )
    await page.goto(f"{server.url}/#session=long")
    await expect(text_of(answers(page).last).locator("strong")).to_have_text("249")


async def test_all_of_a_long_chat_is_rendered_in_the_end(page: Page, server: Server) -> None:
    await open_long(page, server)
    await expect(page.locator('[data-role="assistant"] strong')).to_have_count(250)
    await expect(page.locator('[data-role="user"] strong')).to_have_count(0)
    await expect(questions(page)).to_contain_text([f"user **{number}**" for number in range(250)])
    await expect(page.get_by_test_id("message")).to_have_count(500)
    await is_at_end(page)


HOLD = """
    const { setTimeout } = window
    let held = []
    window.pauses = 0
    window.setTimeout = (run, ...rest) => {
      if (rest[0] === 100) window.pauses += 1
      return rest.length === 0 && held ? held.push(run) : setTimeout(run, ...rest)
    }
    window.release = () => {
      const released = held
      held = null
      for (const run of released) run()
    }
"""


FRAMES = """() => new Promise(done => requestAnimationFrame(() =>
    requestAnimationFrame(() => setTimeout(done))))"""
"""Until the page has been laid out and painted."""


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
@pytest.mark.parametrize("reader", ["at the end", "at the top"])
async def test_the_end_of_a_long_chat_comes_first_and_what_comes_above_it_moves_nothing(
    page: Page, server: Server, reader: str
) -> None:
    await page.add_init_script(HOLD)  # what is left for later does not come before it may
    await open_long(page, server)
    await is_at_end(page)
    messages, scroller = page.get_by_test_id("message"), page.get_by_test_id("scroller")
    count = await messages.count()
    assert 20 <= count < 500
    if reader == "at the top":
        await scroller.focus()
        await page.keyboard.press("Home")
        await page.wait_for_function("e => e.scrollTop === 0", arg=await scroller.element_handle())
        await expect(page.get_by_test_id("jump")).to_be_visible()
    seen = await (messages.first if reader == "at the top" else messages.last).element_handle()
    where = "e => e.getBoundingClientRect().top"
    before = await seen.evaluate(where)
    await page.evaluate("release()")
    await expect(messages).to_have_count(500)
    await page.evaluate(FRAMES)
    assert abs(await seen.evaluate(where) - before) < 3
    # Only the Home key's own scrolling makes older messages wait: 400 ms, 100 ms at a time.
    assert await page.evaluate("pauses") < 10
    if reader == "at the end":
        await is_at_end(page)


GROW = """(message, where) => {
    // Inside of the message: each paint of the page puts the messages themselves in order.
    const box = document.createElement('div')
    Object.assign(box.style, { height: '137.4px', flex: 'none', order: '-99' })
    if (where === 'above') message.prepend(box)
    else message.querySelector('[data-part=text]').prepend(box)
}"""


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
@pytest.mark.parametrize("how", ["at the very top", "in the middle", "in a long message"])
async def test_what_the_reader_sees_stays_when_something_above_it_grows_late(
    page: Page, server: Server, how: str
) -> None:
    await come(page, server.url)
    await ask(page, LINES)
    scroller = await page.get_by_test_id("scroller").element_handle()
    await page.get_by_test_id("scroller").focus()
    await page.keyboard.press("Home")
    await page.wait_for_function("e => e.scrollTop === 0", arg=scroller)
    await expect(page.get_by_test_id("jump")).to_be_visible()
    messages = page.get_by_test_id("message")
    first, seen = messages.first, text_of(messages.first)
    await first.evaluate("e => { e.style.flexFlow = 'column' }")  # not beside its buttons
    await page.evaluate(FRAMES)
    if how != "at the very top":
        seen = text_of(answers(page).first).locator("p").nth(50)
        await seen.evaluate("e => e.scrollIntoView({ block: 'center' })")
        await page.evaluate(FRAMES)
    grows = "above" if how != "in a long message" else "within"
    grown_message = first if grows == "above" else answers(page).first
    where = "e => e.getBoundingClientRect().top"
    before = await seen.evaluate(where)
    for _ in range(20):  # so that what is rounded off each time would add up
        await grown_message.evaluate(GROW, grows)
        await page.evaluate(FRAMES)
    assert abs(await seen.evaluate(where) - before) < 2
    assert await scroller.evaluate("e => e.scrollTop") > 2000


async def test_older_messages_are_loaded_when_the_reader_comes_near_to_them(
    page: Page, server: Server
) -> None:
    messages = stored(130)["messages"]
    asked: list[str] = []

    async def answer(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        end = int(query["before"][0]) - 1 if "before" in query else 130
        asked.append(str(end))
        first = max(0, end - 50)
        page_of = [
            {**message, "epoch": 1 + number // 2} for number, message in enumerate(messages)
        ][2 * first : 2 * end]
        body = {"session_id": "long", "active_stream": None, "messages": page_of}
        await route.fulfill(json={**body, "next": first + 1 if first else None})

    await page.route(re.compile(r"/api/sessions/long/messages"), answer)
    await page.goto(f"{server.url}/#session=long")
    shown = page.get_by_test_id("message")
    await expect(shown).to_have_count(100)
    await is_at_end(page)
    assert set(asked) == {"130"}
    await page.get_by_test_id("scroller").focus()
    for requests, count in ((2, 200), (3, 260)):
        text = await questions(page).first.text_content()
        assert text
        while len(set(asked)) < requests:  # again, where the browser stops early
            await page.keyboard.press("Home")
            await page.wait_for_timeout(500)
        await expect(shown).to_have_count(count)
        await expect(questions(page).filter(has_text=text.split("\n")[0])).to_have_count(1)
    assert list(dict.fromkeys(asked)) == ["130", "80", "30"]
    await expect(questions(page).first).to_contain_text("user **0**")


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_print_shows_the_whole_conversation(
    page: Page, server: Server, browser_name: str
) -> None:
    await come(page, server.url)
    lines = "".join(f"Paragraph {number} of a long answer.\n\n" for number in range(150))
    await send(page, f"/echo tps=5000 ttft=0 {lines}")
    await state_is(answers(page).last, "complete")
    if browser_name == "firefox":  # it cannot be told to emulate paper: let the rules apply
        await page.evaluate(
            "document.querySelector('link[media=print]').media = 'all'; void window.dispatchEvent("
            "new Event('beforeprint'))"
        )
    else:
        await page.emulate_media(media="print")
    await expect(page.get_by_test_id("sidebar")).to_be_hidden()
    await expect(page.get_by_test_id("prompt")).to_be_hidden()
    await expect(page.get_by_test_id("missing")).to_be_hidden()
    heights = await page.get_by_test_id("scroller").evaluate(
        "(scroller) => [scroller.scrollHeight - scroller.clientHeight, scroller.clientHeight,"
        " document.documentElement.scrollHeight]"
    )
    assert heights[0] <= 1
    assert heights[2] >= heights[1] > 150 * 20
    if browser_name == "chromium":
        paper = await page.pdf(format="A4")
        assert len(re.findall(rb"/Type\s*/Page[^s]", paper)) >= 5


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_question_and_the_composer_take_the_direction_of_their_text(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    prompt = page.get_by_test_id("prompt")
    direction = "(element) => getComputedStyle(element).direction"
    for text, wanted in (("ما هي العاصمة؟", "rtl"), ("What is it?", "ltr")):
        await prompt.fill(text)
        assert await prompt.evaluate(direction) == wanted
        await page.keyboard.press("Enter")
        await expect(questions(page).last).to_have_text(text)
        assert await questions(page).last.evaluate(direction) == wanted
        await state_is(answers(page).last, "complete")


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_paragraph_that_is_streamed_can_be_selected(page: Page, server: Server) -> None:
    await come(page, server.url)
    await send(page, "/echo tps=30 ttft=0 " + "some words to select here " * 200)
    answer = answers(page).last
    await expect(text_of(answer)).to_contain_text("some words to select here some words")
    await grown(page, answer, 2)
    selected = await text_of(answer).evaluate(
        """(element) => {
          const text = document.createTreeWalker(element, NodeFilter.SHOW_TEXT).nextNode()
          getSelection().setBaseAndExtent(text, 5, text, 20)
          return getSelection().toString()
        }"""
    )
    await grown(page, answer, 5)
    assert selected.strip() != ""
    assert await page.evaluate("getSelection().toString()") == selected
    await page.keyboard.press("Escape")
    await state_is(answer, "stopped")
    assert await page.evaluate("getSelection().toString()") == selected

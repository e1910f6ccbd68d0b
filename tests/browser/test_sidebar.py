"""The sidebar, the menus and dialogs, the keys, the colours, and what is said of the connection."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, ViewportSize, expect
from processes import Server

from browser.conftest import watched
from browser.proxy import Proxy
from browser.steps import answers, come, connected, grown, questions, send, state_is, text_of

ENDLESS = "/demo tps=50 ttft=0 length=100000 | apple"
PHONE = ViewportSize(width=390, height=800)


def sessions(page: Page) -> Locator:
    return page.get_by_test_id("session")


def row(page: Page, title: str) -> Locator:
    """The conversation of this title, in the list."""
    exactly = page.locator('[data-part="title"]', has_text=re.compile(f"^{re.escape(title)}$"))
    return sessions(page).filter(has=exactly)


def link(page: Page, title: str) -> Locator:
    return row(page, title).get_by_test_id("session-open")


async def choose(page: Page, title: str, choice: str) -> None:
    """Open the menu of the conversation and take something from it."""
    await link(page, title).hover()
    await row(page, title).get_by_test_id("session-menu-button").click()
    await page.get_by_test_id("session-menu").get_by_role("menuitem", name=choice).click()


async def have(page: Page, server: Server, title: str, text: str = "something") -> str:
    """A conversation that is there already."""
    session_id = str(uuid4())
    prompt = f"/echo tps=0 ttft=0 {text}"
    started = await page.request.post(
        f"{server.url}/api/chat", data={"prompt": prompt, "session_id": session_id}
    )
    assert started.ok, await started.text()
    await started.body()
    while True:
        renamed = await page.request.patch(
            f"{server.url}/api/sessions/{session_id}", data={"title": title}
        )
        if renamed.status != 503:  # the database may be slow where the disk is busy
            assert renamed.ok, await renamed.text()
            return session_id


def name() -> str:
    """A title that no other conversation has."""
    return f"Chat {uuid4().hex[:8]}"


async def test_a_conversation_appears_when_it_begins_and_shows_that_it_is_being_answered(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 2)
    current = sessions(page).filter(has=page.locator("[aria-current]"))
    await expect(current).to_have_count(1)
    await expect(current.get_by_test_id("session-live")).to_be_visible()
    await expect(page.get_by_test_id("sessions").locator("h3").first).to_have_text("Today")
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")
    await expect(current.get_by_test_id("session-live")).to_be_hidden()


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_conversation_appears_before_its_answer_has_a_word(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    title = name()
    await send(page, f"/demo ttft=300 length=10 | {title}")
    await expect(sessions(page).filter(has_text=title)).to_have_count(1)
    await state_is(answers(page).first, "thinking")
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")


async def test_back_from_a_conversation_that_is_still_being_loaded_is_a_new_one(
    page: Page, server: Server
) -> None:
    title = name()
    session_id = await have(page, server, title, "old words")
    await come(page, server.url)
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(route: Route) -> None:
        asked.set()
        await goes_on.wait()
        await route.continue_()

    await page.route(f"**/api/sessions/{session_id}/messages", slowly)
    await link(page, title).click()
    await asked.wait()
    await page.go_back()
    await expect(row(page, title).locator("[aria-current]")).to_have_count(0)
    goes_on.set()
    await send(page, "/echo tps=0 ttft=0 new words")
    await state_is(answers(page).last, "complete")
    await expect(questions(page)).to_have_text([re.compile("new words")])
    kept = await page.request.get(f"{server.url}/api/sessions/{session_id}/messages")
    assert len((await kept.json())["messages"]) == 2


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_title_that_is_being_typed_survives_the_move_of_its_conversation(
    page: Page, server: Server
) -> None:
    title = name()
    await have(page, server, title)
    await have(page, server, name())
    await come(page, server.url)
    await link(page, title).click()
    await send(page, "/echo ttft=3 tps=20 hello there")
    await choose(page, title, "Rename")
    await page.keyboard.type("Half")
    await state_is(answers(page).last, "complete")
    await expect(sessions(page).first.locator("input")).to_be_focused()  # it has moved to the top
    await page.keyboard.type(" of it")
    await page.keyboard.press("Enter")
    await expect(sessions(page).first.locator('[data-part="title"]')).to_have_text("Half of it")


async def test_another_conversation_is_opened_without_loading_the_page_and_back_returns(
    page: Page, server: Server
) -> None:
    first, second = name(), name()
    await have(page, server, first, "the first one")
    second_id = await have(page, server, second, "the second one")
    await come(page, server.url)
    await page.evaluate("window.the_same_page = true")
    await link(page, first).click()
    await expect(questions(page)).to_have_text([re.compile("the first one")])
    await expect(link(page, first)).to_have_attribute("aria-current", "page")
    await expect(page.get_by_test_id("prompt")).to_be_focused()
    await link(page, second).click()
    await expect(questions(page)).to_have_text([re.compile("the second one")])
    await expect(link(page, first)).not_to_have_attribute("aria-current", "page")
    assert second_id in page.url
    await page.go_back()
    await expect(questions(page)).to_have_text([re.compile("the first one")])
    await page.go_forward()
    await expect(questions(page)).to_have_text([re.compile("the second one")])
    assert await page.evaluate("window.the_same_page")


async def test_an_answer_goes_on_in_the_conversation_that_is_left(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 2)
    title = name()
    address = page.url
    await page.get_by_test_id("new").click()
    await expect(answers(page)).to_have_count(0)
    left = sessions(page).filter(has=page.get_by_test_id("session-live").locator("visible=true"))
    await left.first.get_by_test_id("session-open").focus()
    await page.keyboard.press("F2")
    await page.get_by_test_id("session-name").locator("visible=true").fill(title)
    await page.keyboard.press("Enter")
    await expect(row(page, title).get_by_test_id("session-live")).to_be_visible()
    await link(page, title).click()
    assert page.url == address
    await grown(page, answers(page).first, 2)
    await page.keyboard.press("Escape")
    await state_is(answers(page).first, "stopped")
    assert re.fullmatch(r"(apple\s*)+a?p?p?l?e?", await text_of(answers(page).first).inner_text())


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_conversation_is_renamed_in_its_place(page: Page, server: Server) -> None:
    old, new = name(), name()
    await have(page, server, old)
    await come(page, server.url)
    await choose(page, old, "Rename")
    field = row(page, old).get_by_test_id("session-name")
    await expect(field).to_be_focused()
    await expect(field).to_have_value(old)
    await field.fill("never mind")
    await page.keyboard.press("Escape")
    await expect(link(page, old)).to_be_focused()
    await page.keyboard.press("F2")
    await expect(field).to_have_value(old)
    await field.fill(new)
    await page.keyboard.press("Enter")
    await expect(link(page, new)).to_be_focused()
    await page.reload()
    await expect(link(page, new)).to_be_visible()
    await expect(link(page, old)).to_have_count(0)
    await expect(row(page, "never mind")).to_have_count(0)


async def test_a_title_that_the_server_does_not_take_is_taken_back(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    title = name()
    await have(page, server, title)
    await come(page, server.url)

    async def refuse(route: Route) -> None:
        body = json.dumps({"error": {"code": "overloaded", "error": "Too busy for titles."}})
        if route.request.method == "PATCH":
            await route.fulfill(status=503, content_type="application/json", body=body)
        else:
            await route.fallback()

    await page.route("**/api/sessions/*", refuse)
    await choose(page, title, "Rename")
    await page.keyboard.type("another")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("sessions-error")).to_contain_text("Could not rename it")
    await expect(link(page, title)).to_be_visible()
    await page.get_by_test_id("sessions-retry").click()
    await expect(page.get_by_test_id("sessions-error")).to_be_hidden()
    console_errors.clear()


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_a_conversation_is_deleted_when_that_is_confirmed_and_not_before(
    page: Page, server: Server
) -> None:
    upper, lower = name(), name()
    await have(page, server, lower)
    await have(page, server, upper)
    await come(page, server.url)
    confirm = page.get_by_test_id("confirm")
    await choose(page, upper, "Delete")
    await expect(confirm).to_contain_text(upper)
    await expect(confirm.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(confirm).to_be_hidden()
    await expect(row(page, upper).get_by_test_id("session-menu-button")).to_be_focused()
    await choose(page, upper, "Delete")
    await confirm.get_by_role("button", name="Delete").click()
    await expect(row(page, upper)).to_have_count(0)
    await expect(link(page, lower)).to_be_focused()
    await page.reload()
    await expect(row(page, lower)).to_be_visible()
    await expect(row(page, upper)).to_have_count(0)


async def test_deleting_the_open_conversation_in_mid_answer_leads_to_a_new_one(
    page: Page, server: Server
) -> None:
    title = name()
    session_id = await have(page, server, title)
    await come(page, f"{server.url}/#session={session_id}")
    await expect(questions(page)).to_have_count(1)
    await send(page, ENDLESS)
    await grown(page, answers(page).nth(1), 2)
    await choose(page, title, "Delete")
    await page.get_by_test_id("confirm").get_by_role("button", name="Delete").click()
    await expect(answers(page)).to_have_count(0)
    await expect(page.get_by_test_id("empty")).to_be_visible()
    await expect(page).not_to_have_url(re.compile(session_id))
    await expect(page.get_by_test_id("prompt")).to_be_focused()
    gone = await page.request.get(f"{server.url}/api/sessions/{session_id}/messages")
    assert gone.status == 404


async def test_search_finds_words_of_titles_and_of_messages(page: Page, server: Server) -> None:
    by_title, by_text, other = name(), name(), name()
    word = f"quince{uuid4().hex[:8]}"
    await have(page, server, f"{by_title} {word}")
    await have(page, server, by_text, f"a {word} is a fruit")
    await have(page, server, other)
    await come(page, server.url)
    await page.keyboard.press("Control+k")
    await expect(page.get_by_test_id("search")).to_be_focused()
    await page.keyboard.type(word.upper())
    await expect(sessions(page)).to_have_count(2)
    await expect(page.get_by_test_id("search-status")).to_have_text("2 chats found")
    await expect(row(page, by_text)).to_be_visible()
    await page.keyboard.press("ArrowDown")
    await expect(link(page, by_text)).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(link(page, f"{by_title} {word}")).to_be_focused()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("found nowhere")
    await expect(page.get_by_test_id("sessions-empty")).to_have_text(
        "No chat has “found nowhere” in it."
    )
    await expect(page.get_by_test_id("search-status")).to_have_text("0 chats found")
    await page.keyboard.press("Escape")
    await expect(row(page, other)).to_be_visible()
    await expect(page.get_by_test_id("search")).to_have_value("")
    await expect(page.get_by_test_id("search-status")).to_have_text("")


async def test_the_list_grows_by_pages(page: Page, server: Server) -> None:
    oldest = name()
    await have(page, server, oldest, "the oldest of many pages")
    for _ in range(50):
        await have(page, server, name(), "one of many pages")
    await come(page, server.url)
    await page.get_by_test_id("search").fill("of many pages")
    await expect(page.get_by_test_id("search-status")).to_have_text("50 or more chats found")
    await expect(row(page, oldest)).to_have_count(0)
    await page.get_by_test_id("sessions-more").click()
    await expect(link(page, oldest)).to_be_focused()
    await expect(sessions(page)).to_have_count(51)
    await expect(page.get_by_test_id("sessions-more")).to_be_hidden()


@pytest.mark.parametrize(("choice", "ending"), [("Markdown", "md"), ("JSON", "json")])
async def test_a_conversation_is_downloaded(
    page: Page, server: Server, tmp_path: Path, choice: str, ending: str
) -> None:
    title = name()
    session_id = await have(page, server, title, "a word to keep")
    await come(page, server.url)
    async with page.expect_download() as download:
        await choose(page, title, f"Download {choice}")
    file = await download.value
    assert file.suggested_filename.endswith(f".{ending}")
    await file.save_as(tmp_path / "chat")
    text = (tmp_path / "chat").read_text()
    assert "a word to keep" in text
    if ending == "json":
        assert json.loads(text)["session_id"] == session_id


@pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
async def test_the_menu_works_with_the_keyboard_and_gives_the_focus_back(
    page: Page, server: Server
) -> None:
    title = name()
    await have(page, server, title)
    await come(page, server.url)
    button = row(page, title).get_by_test_id("session-menu-button")
    menu = page.get_by_test_id("session-menu")
    item = menu.get_by_role("menuitem")
    await link(page, title).focus()
    await page.keyboard.press("Tab")
    await expect(button).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(button).to_have_attribute("aria-expanded", "true")
    await expect(menu).to_have_attribute("aria-label", f"Options of {title}")
    await expect(item.nth(0)).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(item.nth(3)).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(item.nth(1)).to_be_focused()
    await page.keyboard.press("End")
    await expect(item.nth(3)).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(menu).to_be_hidden()
    await expect(button).to_be_focused()
    await expect(button).to_have_attribute("aria-expanded", "false")
    # A second press of the button closes the menu again.
    await button.click()
    await expect(menu).to_be_visible()
    await button.click()
    await expect(menu).to_be_hidden()


async def test_a_list_that_cannot_be_had_says_so_and_is_tried_again(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    title = name()
    await have(page, server, title)
    await page.route("**/api/sessions?*", lambda route: route.abort())
    await come(page, server.url)
    await expect(page.get_by_test_id("sessions-error")).to_be_visible()
    await page.unroute("**/api/sessions?*")
    await page.get_by_test_id("sessions-retry").click()
    await expect(row(page, title)).to_be_visible()
    await expect(page.get_by_test_id("sessions-error")).to_be_hidden()
    console_errors.clear()


async def test_another_tab_is_seen_when_one_looks_here_again(
    page: Page, other: Page, server: Server
) -> None:
    await come(page, server.url)
    title = name()
    await have(other, server, title)
    await expect(row(page, title)).to_have_count(0)
    await page.evaluate("window.dispatchEvent(new Event('focus'))")
    await expect(row(page, title)).to_be_visible()


async def test_that_another_conversation_is_being_answered_is_looked_at_again_each_time(
    page: Page, other: Page, server: Server
) -> None:
    title = name()
    await have(page, server, title)
    await come(other, server.url)
    await link(other, title).click()
    await page.clock.install()
    await come(page, server.url)

    async def look() -> None:
        await page.evaluate("window.dispatchEvent(new Event('focus'))")

    async def wait() -> None:
        await page.clock.fast_forward(4_000)

    # The first time somebody looks before the page does by itself; that must not be the last time.
    for pass_time in (look, wait):
        await send(other, ENDLESS)
        await grown(other, answers(other).last, 1)
        await look()
        await expect(row(page, title).get_by_test_id("session-live")).to_be_visible()
        await other.get_by_test_id("stop").click()
        await state_is(answers(other).last, "stopped")
        await pass_time()
        await expect(row(page, title).get_by_test_id("session-live")).to_be_hidden()


# Keys and dialogs


async def test_the_keys_that_are_listed_are_those_that_work(page: Page, server: Server) -> None:
    await come(page, server.url)
    keys = page.get_by_test_id("keys-dialog")
    await page.keyboard.press("Control+/")
    await expect(keys).to_be_visible()
    listed = await keys.locator("dt").all_inner_texts()
    assert listed == [
        "Enter", "Shift Enter", "↑", "Esc", "Ctrl Shift O", "Ctrl K", "F2", "Ctrl /",
    ]  # fmt: skip
    await page.keyboard.press("Control+k")  # nothing behind a dialog
    await expect(page.get_by_test_id("search")).not_to_be_focused()
    await page.keyboard.press("Escape")
    await expect(keys).to_be_hidden()
    await expect(page.get_by_test_id("prompt")).to_be_focused()


async def test_the_keys_of_a_mac_are_named_as_they_are_there(page: Page, server: Server) -> None:
    await page.add_init_script(
        "Object.defineProperty(navigator, 'platform', { value: 'MacIntel' })"
    )
    await come(page, server.url)
    await page.keyboard.press("Control+/")
    await expect(page.get_by_test_id("keys-dialog")).to_be_hidden()
    await page.keyboard.press("Meta+/")
    listed = await page.get_by_test_id("keys-dialog").locator("dt").all_inner_texts()
    assert listed[4:6] == ["⌘ ⇧ O", "⌘ K"]


async def test_a_key_begins_a_new_chat_and_escape_stops_but_closes_first_what_is_open(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, ENDLESS)
    answer = answers(page).first
    await grown(page, answer, 2)
    await page.get_by_test_id("menu-button").click()
    await expect(page.get_by_test_id("menu")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("menu")).to_be_hidden()
    await page.keyboard.press("Control+/")
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("keys-dialog")).to_be_hidden()
    await grown(page, answer, 2)
    await state_is(answer, "streaming")
    await page.keyboard.press("Escape")
    await state_is(answer, "stopped")
    await page.keyboard.press("Control+Shift+o")
    await expect(answers(page)).to_have_count(0)
    await expect(page.get_by_test_id("prompt")).to_be_focused()


async def test_arrow_up_in_an_empty_field_edits_and_in_a_filled_one_moves_the_caret(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, "/echo tps=0 one")
    await state_is(answers(page).first, "complete")
    await page.keyboard.type("two")
    await page.keyboard.press("ArrowUp")
    await expect(page.get_by_test_id("editor")).to_have_count(0)
    await page.get_by_test_id("prompt").fill("")
    await page.keyboard.press("ArrowUp")
    await expect(page.get_by_test_id("editor-prompt")).to_be_focused()


async def test_what_busy_means_is_one_choice_in_two_places_and_is_kept(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await page.get_by_test_id("settings-open").click()
    await page.get_by_test_id("settings-when-busy").select_option("enqueue")
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("settings-open")).to_be_focused()
    await expect(page.get_by_test_id("when-busy")).to_have_value("enqueue")
    await page.reload()
    await expect(page.get_by_test_id("when-busy")).to_have_value("enqueue")


# Colours

GROUND = "getComputedStyle(document.body).backgroundColor"


async def test_the_colours_are_those_of_the_system_until_others_are_chosen(
    page: Page, server: Server
) -> None:
    await page.emulate_media(color_scheme="light")
    await come(page, server.url)
    light = await page.evaluate(GROUND)
    await page.emulate_media(color_scheme="dark")
    dark = await page.evaluate(GROUND)
    assert light != dark
    await page.get_by_test_id("settings-open").click()
    await page.get_by_test_id("theme").select_option("light")
    assert await page.evaluate(GROUND) == light
    # Before anything of the body is there, so that nothing flashes.
    await page.add_init_script("""
        new MutationObserver((_, observer) => {
          if (!document.body) return
          window.theme_at_first = document.documentElement.dataset.theme
          observer.disconnect()
        }).observe(document, { childList: true, subtree: true })
    """)
    await page.reload()
    assert await page.evaluate("window.theme_at_first") == "light"
    assert await page.evaluate(GROUND) == light
    await page.get_by_test_id("settings-open").click()
    await page.get_by_test_id("theme").select_option("system")
    assert await page.evaluate(GROUND) == dark


async def test_another_tab_takes_the_colours_over(page: Page, other: Page, server: Server) -> None:
    await come(page, server.url)
    await come(other, server.url)
    await page.get_by_test_id("settings-open").click()
    await page.get_by_test_id("theme").select_option("dark")
    await expect(other.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(other.get_by_test_id("theme")).to_have_value("dark")


# The connection


async def test_out_of_reach_the_page_says_so_once_and_that_all_is_well_again(
    page: Page, server: Server, console_errors: list[str]
) -> None:
    spoken = page.get_by_test_id("connection-spoken")
    trouble = page.get_by_test_id("trouble")
    async with Proxy(server.url) as proxy:
        await come(page, proxy.url)
        await expect(trouble).to_be_hidden()
        await expect(spoken).to_have_text("")
        await page.evaluate("""
            window.all_spoken = []
            new MutationObserver(([{ target }]) => window.all_spoken.push(target.textContent))
              .observe(document.querySelector('[data-testid="connection-spoken"]'),
                       { childList: true })
        """)
        proxy.up = False
        proxy.cut()
        await connected(page, "offline")
        await expect(page.get_by_test_id("connection")).to_have_text("Offline")
        await expect(trouble).to_contain_text("The server cannot be reached.")
        await expect(trouble).to_contain_text(re.compile(r"Next try in \d+ s\."))
        await expect(spoken).to_contain_text("goes on by itself")
        proxy.up = True
        await page.get_by_test_id("reconnect").click()
        await connected(page, "websocket")
        await expect(trouble).to_be_hidden()
        await expect(spoken).to_have_text("Live over WebSocket again.")
        said = await page.evaluate("window.all_spoken")
        assert len(said) == len(set(said)) <= 3
        await page.close()
    console_errors.clear()  # the browser complains of each try


# On a phone


@pytest_asyncio.fixture(loop_scope="session")
async def phone(browser: Browser, console_errors: list[str]) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    yield await watched(await context.new_page(), console_errors)
    await context.close()
    assert console_errors == []


async def test_on_a_phone_the_list_is_a_drawer(phone: Page, server: Server) -> None:
    title = name()
    await have(phone, server, title, "for the phone")
    await come(phone, server.url)
    drawer = phone.get_by_test_id("sidebar")
    toggle = phone.get_by_test_id("sidebar-toggle")
    await expect(drawer).to_be_hidden()
    await expect(toggle).to_have_attribute("aria-expanded", "false")
    await toggle.tap()
    await expect(drawer).to_be_focused()
    await expect(toggle).to_have_attribute("aria-expanded", "true")
    # What is behind it cannot be reached.
    await expect(phone.locator(".chat")).to_have_js_property("inert", True)
    await phone.keyboard.press("Escape")
    await expect(drawer).to_be_hidden()
    await expect(toggle).to_be_focused()
    await toggle.tap()
    await expect(drawer).to_be_visible()
    await phone.touchscreen.tap(PHONE["width"] - 20, 400)
    await expect(drawer).to_be_hidden()
    await toggle.tap()
    await link(phone, title).tap()
    await expect(drawer).to_be_hidden()
    await expect(questions(phone)).to_have_text([re.compile("for the phone")])
    await expect(phone.locator(".chat")).to_have_js_property("inert", False)


async def test_on_a_phone_escape_closes_the_drawer_and_stops_nothing(
    phone: Page, server: Server
) -> None:
    await come(phone, server.url)
    await send(phone, ENDLESS)
    answer = answers(phone).first
    await grown(phone, answer, 2)
    await phone.get_by_test_id("sidebar-toggle").tap()
    await phone.keyboard.press("Escape")
    await expect(phone.get_by_test_id("sidebar")).to_be_hidden()
    await grown(phone, answer, 2)
    await state_is(answer, "streaming")
    await phone.get_by_test_id("stop").tap()
    await state_is(answer, "stopped")


async def test_a_phone_that_is_turned_has_room_for_both(phone: Page, server: Server) -> None:
    await come(phone, server.url)
    await phone.get_by_test_id("sidebar-toggle").tap()
    await phone.set_viewport_size({"width": 1000, "height": 600})
    await expect(phone.get_by_test_id("sidebar")).to_be_visible()
    await expect(phone.locator(".chat")).to_have_js_property("inert", False)
    await phone.get_by_test_id("sidebar-close").tap()
    await expect(phone.get_by_test_id("sidebar")).to_be_hidden()
    await expect(phone.get_by_test_id("sidebar-toggle")).to_be_focused()
    await phone.get_by_test_id("sidebar-toggle").tap()
    await expect(phone.get_by_test_id("sidebar")).to_be_visible()
    await expect(phone.locator(".chat")).to_have_js_property("inert", False)

"""Tabs, reloads, restarts and broken connections, with a real server and a real browser."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from playwright.async_api import Page, Route, expect
from processes import Server, serving

from browser.proxy import Proxy
from browser.steps import answers, connected, grown, questions, send, state_is, text_of

WORDS = " ".join(f"w{number}" for number in range(200))
ASK = f"/echo tps=40 {WORDS}"
ENDLESS = "/demo tps=50 ttft=0 length=100000 | apple"
TRANSPORTS = ["websocket", "http"]


async def come(page: Page, url: str, how: str = "websocket") -> None:
    if how == "http":
        await page.add_init_script("delete window.WebSocket")
    await page.goto(url)
    await connected(page, how)


async def join(other: Page, page: Page, how: str = "websocket") -> None:
    """Open the address of a page beside it."""
    await come(other, page.url, how)


async def only_grew(page: Page, whole: str, *, index: int = 0) -> None:
    """Each answer text that was ever shown continues the one shown before it, up to the whole."""
    seen = await page.evaluate("window.history_of_answers")
    texts = [texts[index] for texts in seen if len(texts) > index]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert all(whole.startswith(text) for text in texts)
    assert len(set(texts)) > 2


async def test_two_tabs_on_one_session_both_see_an_answer_grow_exactly_once(
    page: Page, other: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, "/echo first")
    await state_is(answers(page).first, "complete")
    await join(other, page)
    await expect(text_of(answers(other).first)).to_have_text("first")
    resumed: list[str] = []
    for tab in (page, other):
        tab.on("request", lambda request: resumed.append(request.url))
    await send(page, ASK)
    await expect(questions(other).nth(1)).to_have_text(ASK)
    for tab in (page, other):
        await state_is(answers(tab).nth(1), "complete")
        await expect(text_of(answers(tab).nth(1))).to_have_text(WORDS)
        await expect(answers(tab)).to_have_count(2)
        await only_grew(tab, WORDS, index=1)
    # All of it came over the sockets: no piece was missing that had to be asked for.
    assert [url for url in resumed if "/api/streams/" in url] == []


async def test_a_stop_in_one_tab_shows_in_the_other(
    page: Page, other: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 1)
    await join(other, page)
    await grown(other, answers(other).first, 2)
    await other.get_by_test_id("stop").click()
    for tab in (page, other):
        await state_is(answers(tab).first, "stopped")
        await expect(tab.get_by_test_id("stop")).to_be_hidden()
    said = await text_of(answers(page).first).text_content()
    await expect(text_of(answers(other).first)).to_have_text(said or "")


async def test_a_message_of_another_tab_replaces_the_answer_in_both(
    page: Page, other: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 1)
    await join(other, page)
    await send(other, ASK)
    for tab in (page, other):
        await state_is(answers(tab).first, "replaced")
        await state_is(answers(tab).nth(1), "complete")
        await expect(questions(tab)).to_have_text([ENDLESS, ASK])
        await only_grew(tab, WORDS, index=1)


async def test_over_http_a_tab_shows_what_another_asked_when_it_is_looked_at(
    page: Page, other: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, "/echo first")
    await state_is(answers(page).first, "complete")
    await join(other, page, "http")
    await expect(answers(other)).to_have_count(1)
    await send(page, ASK)
    await grown(page, answers(page).nth(1), 1)
    await other.evaluate("window.dispatchEvent(new Event('focus'))")
    await state_is(answers(other).nth(1), "streaming")
    await expect(questions(other).nth(1)).to_have_text(ASK)
    await state_is(answers(other).nth(1), "complete")
    await only_grew(other, WORDS, index=1)


@pytest.mark.parametrize("how", TRANSPORTS)
async def test_a_reload_in_mid_answer_shows_the_text_so_far_and_goes_on(
    page: Page, server: Server, how: str
) -> None:
    await come(page, server.url, how)
    await send(page, ASK)
    await grown(page, answers(page).first, 3)
    before = await text_of(answers(page).first).text_content() or ""
    await page.reload()
    await state_is(answers(page).first, "streaming")
    shown = await page.evaluate("window.history_of_answers.find((texts) => texts.length)[0]")
    assert shown.startswith(before)
    await state_is(answers(page).first, "complete")
    await expect(text_of(answers(page).first)).to_have_text(WORDS)
    await only_grew(page, WORDS)
    await expect(page.get_by_test_id("message")).to_have_count(2)


@pytest.mark.parametrize("how", TRANSPORTS)
async def test_stop_works_after_a_reload(page: Page, server: Server, how: str) -> None:
    await come(page, server.url, how)
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 1)
    await page.reload()
    await grown(page, answers(page).first, 1)
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")


@pytest.mark.parametrize("how", TRANSPORTS)
async def test_a_reload_over_connections_that_are_cut_loses_and_doubles_nothing(
    page: Page, other: Page, server: Server, console_errors: list[str], how: str
) -> None:
    async with Proxy(server.url) as proxy:
        await come(page, proxy.url, how)
        await send(page, ASK)
        await grown(page, answers(page).first, 1)
        await join(other, page, how)
        for _ in range(2):
            await grown(other, answers(other).first, 1)
            proxy.cut()
        for tab in (page, other):
            await state_is(answers(tab).first, "complete")
            await expect(text_of(answers(tab).first)).to_have_text(WORDS)
            await only_grew(tab, WORDS)
            await tab.close()
    console_errors.clear()  # the browser complains of each cut


def restartable(data: Path, port: int = 0) -> contextlib.AbstractContextManager[Server]:
    """A server with a data directory of ours, on a port of ours (0: any)."""
    run = f"{shlex.quote(sys.executable)} run.py --agent demo --log-level critical --port {port}"
    # The shell swallows the arguments that are added to it: the port is ours.
    env = {"XDG_DATA_HOME": str(data)}
    return serving("sh", "-c", f"exec {run}", "sh", cwd=ROOT, env=env)


@pytest.mark.parametrize("how", TRANSPORTS)
async def test_after_kill_9_the_answer_is_interrupted_and_the_next_message_works(
    page: Page, tmp_path: Path, console_errors: list[str], how: str
) -> None:
    with restartable(tmp_path) as server:
        await come(page, server.url, how)
        await send(page, ENDLESS)
        await grown(page, answers(page).first, 3)
        server.stop(signal.SIGKILL)
    said = await text_of(answers(page).first).text_content() or ""
    with restartable(tmp_path, urlsplit(server.url).port or 0) as again:
        assert again.url == server.url
        await state_is(answers(page).first, "interrupted")
        await expect(answers(page).first.get_by_test_id("note")).to_have_text(
            "Interrupted: this is what had arrived"
        )
        await expect(text_of(answers(page).first)).to_have_text(said.strip())
        await send(page, "/echo after the crash")
        await expect(text_of(answers(page).nth(1))).to_have_text("after the crash")
        await state_is(answers(page).nth(1), "complete")
        await page.reload()
        await expect(questions(page)).to_have_text([ENDLESS, "/echo after the crash"])
        await state_is(answers(page).first, "interrupted")
        await state_is(answers(page).nth(1), "complete")
        await page.close()
    console_errors.clear()  # the browser complains of the server's absence


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
    await state_is(second, "stopped")
    await expect(third.locator('[data-part="activity"]')).to_have_text("Waiting, position 1")
    await state_is(answers(page).first, "streaming")
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")
    await state_is(third, "complete")
    await expect(text_of(third)).to_have_text("waited")


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

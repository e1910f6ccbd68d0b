"""What must hold in each browser and on each transport: nothing stale, lost or doubled, ever.

The answers are made of words that are there but once, so that a text which is a beginning of the
right one at every moment has lost nothing, has nothing twice and has nothing of another answer.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from conftest import ROOT
from playwright.async_api import BrowserContext, Page, expect
from processes import Server, serving

from browser.conftest import Browsers, watched
from browser.proxy import Proxy
from browser.steps import answers, come, connected, grown, questions, send, state_is, text_of
from browser.witness import moments, only_grew


def words(letter: str, number: int) -> str:
    return " ".join(f"{letter}{index}" for index in range(number))


SHORT = words("s", 60)
WHOLE = words("w", 300)
ENDLESS = words("e", 2000)
ASK_SHORT = f"/echo ttft=0 tps=100 {SHORT}"
ASK = f"/echo ttft=0 tps=75 {WHOLE}"
ASK_ENDLESS = f"/echo ttft=0 tps=50 {ENDLESS}"

# What browsers say of connections that fail; all else would be the page's own complaint.
NETWORK = re.compile(
    r"net::ERR_|status of 410 \(Gone\)|^WebSocket connection to .* failed"
    "|^Firefox can.t establish a connection|^The connection to .* was interrupted"
)
LIVE = re.compile("websocket|http")
OUT_OF_REACH = re.compile("reconnecting|offline")

pytestmark = pytest.mark.parametrize("browser_name", ["chromium", "firefox"])
on_each_transport = pytest.mark.parametrize("how", ["websocket", "http"])


@pytest_asyncio.fixture(loop_scope="session")
async def rough(
    context: BrowserContext, page: Page, console_errors: list[str]
) -> AsyncIterator[None]:
    """The network fails in this test: that the browser complains of it is no fault of the page."""
    yield
    for each in context.pages:
        await each.close()
    console_errors[:] = [error for error in console_errors if not NETWORK.search(error)]


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(server: Server, rough: None) -> AsyncIterator[Proxy]:
    """What is between the pages and the server."""
    async with Proxy(server.url) as proxy:
        yield proxy


async def answered(page: Page, index: int, whole: str) -> None:
    """The answer is complete, and was never anything else than a beginning of this."""
    answer = answers(page).nth(index)
    await state_is(answer, "complete")
    await expect(text_of(answer)).to_have_text(whole)
    await only_grew(page, whole, index=index)
    await expect(answers(page)).to_have_count(index + 1)


@on_each_transport
async def test_chat(page: Page, server: Server, how: str) -> None:
    await come(page, server.url, how)
    first = words("f", 60)
    await send(page, f"/echo tps=100 {first}")
    await answered(page, 0, first)
    await send(page, ASK_SHORT)
    await answered(page, 1, SHORT)
    await expect(questions(page)).to_have_text([f"/echo tps=100 {first}", ASK_SHORT])
    await expect(text_of(answers(page).first)).to_have_text(first)


@on_each_transport
async def test_a_message_in_mid_answer_replaces_it_and_no_late_piece_is_shown(
    page: Page, proxy: Proxy, how: str
) -> None:
    proxy.latency = 0.3  # some pieces of the first answer are still on their way
    await come(page, proxy.url, how)
    first = answers(page).first
    await send(page, ASK_ENDLESS)
    await grown(page, first, 3)
    await send(page, ASK_SHORT)
    await answered(page, 1, SHORT)
    await state_is(first, "replaced")
    await only_grew(page, ENDLESS)
    await stood_still_beside_the_second(page)


async def stood_still_beside_the_second(page: Page) -> None:
    """From the moment when the second bubble was there, the first one has not changed."""
    seen = await page.evaluate("window.history_of_answers")
    with_both = [texts for texts in seen if len(texts) == 2]
    assert with_both
    assert len({texts[0].strip() for texts in with_both}) == 1


@on_each_transport
async def test_stop_stops_and_keeps_what_was_said(page: Page, server: Server, how: str) -> None:
    await come(page, server.url, how)
    await send(page, ASK_ENDLESS)
    answer = answers(page).first
    await grown(page, answer, 2)
    await page.get_by_test_id("stop").click()
    await state_is(answer, "stopped")
    await expect(page.get_by_test_id("stop")).to_be_hidden()
    said = await text_of(answer).text_content() or ""
    await only_grew(page, ENDLESS)
    await send(page, ASK_SHORT)
    await answered(page, 1, SHORT)
    assert await text_of(answer).text_content() == said
    await page.reload()
    await state_is(answer, "stopped")
    await expect(text_of(answer)).to_have_text(said.strip())


@on_each_transport
async def test_a_reload_in_mid_answer_shows_what_was_said_and_goes_on(
    page: Page, server: Server, how: str
) -> None:
    await come(page, server.url, how)
    await send(page, ASK)
    await grown(page, answers(page).first, 3)
    before = await text_of(answers(page).first).text_content() or ""
    await page.reload()
    await state_is(answers(page).first, "streaming")
    await answered(page, 0, WHOLE)
    shown = [text for text in await moments(page) if text]
    assert shown[0].startswith(before.strip())
    await expect(page.get_by_test_id("message")).to_have_count(2)


@on_each_transport
async def test_stop_works_after_a_reload(page: Page, server: Server, how: str) -> None:
    await come(page, server.url, how)
    await send(page, ASK_ENDLESS)
    await grown(page, answers(page).first, 1)
    await page.reload()
    await grown(page, answers(page).first, 1)
    await page.get_by_test_id("stop").click()
    await state_is(answers(page).first, "stopped")
    await only_grew(page, ENDLESS)


async def test_two_tabs_see_an_answer_grow_and_a_message_of_either_replaces_it_in_both(
    page: Page, other: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, ASK_SHORT)
    await answered(page, 0, SHORT)
    await come(other, page.url)
    await expect(text_of(answers(other).first)).to_have_text(SHORT)
    asked_again: list[str] = []
    for tab in (page, other):
        tab.on("request", lambda request: asked_again.append(request.url))
    await send(page, ASK_ENDLESS)
    await grown(other, answers(other).nth(1), 2)
    # All of it came over the sockets: no piece was missing that had to be asked for.
    assert [url for url in asked_again if "/api/streams/" in url] == []
    third = words("t", 60)
    await send(other, f"/echo tps=100 {third}")
    for tab in (page, other):
        await answered(tab, 2, third)
        await state_is(answers(tab).nth(1), "replaced")
        await only_grew(tab, ENDLESS, index=1)
        await expect(questions(tab)).to_have_text(
            [ASK_SHORT, ASK_ENDLESS, f"/echo tps=100 {third}"]
        )
        await expect(answers(tab)).to_have_count(3)


@on_each_transport
async def test_a_stop_in_one_tab_shows_in_the_other(
    page: Page, other: Page, server: Server, how: str
) -> None:
    await come(page, server.url, how)
    await send(page, ASK_ENDLESS)
    await grown(page, answers(page).first, 1)
    await come(other, page.url, how)
    await grown(other, answers(other).first, 2)
    await other.get_by_test_id("stop").click()
    for tab in (page, other):
        await state_is(answers(tab).first, "stopped")
        await expect(tab.get_by_test_id("stop")).to_be_hidden()
        await only_grew(tab, ENDLESS)
    said = await text_of(answers(page).first).text_content() or ""
    await expect(text_of(answers(other).first)).to_have_text(said.strip())


async def test_over_http_a_tab_shows_what_another_asked_when_it_is_looked_at(
    page: Page, other: Page, server: Server
) -> None:
    await come(page, server.url, "http")
    await send(page, ASK_SHORT)
    await answered(page, 0, SHORT)
    await come(other, page.url, "http")
    await expect(answers(other)).to_have_count(1)
    await send(page, ASK)
    await grown(page, answers(page).nth(1), 1)
    await other.evaluate("window.dispatchEvent(new Event('focus'))")
    await answered(other, 1, WHOLE)
    await expect(questions(other)).to_have_text([ASK_SHORT, ASK])


async def test_where_a_proxy_refuses_the_websocket_all_goes_over_http(
    page: Page, proxy: Proxy
) -> None:
    proxy.websockets = False
    await page.goto(proxy.url)
    await connected(page, "http")
    await send(page, ASK_ENDLESS)
    await grown(page, answers(page).first, 2)
    await send(page, ASK_SHORT)
    await answered(page, 1, SHORT)
    await state_is(answers(page).first, "replaced")
    await only_grew(page, ENDLESS)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "http")
    assert proxy.refused == 1, "one handshake told it, there is no second try"


@on_each_transport
async def test_an_answer_whose_connections_are_cut_again_and_again_loses_and_doubles_nothing(
    page: Page, proxy: Proxy, how: str
) -> None:
    proxy.websockets = how == "websocket"
    await page.goto(proxy.url)
    await connected(page, how)
    proxy.cuts = 5
    await send(page, ASK)
    await answered(page, 0, WHOLE)
    assert proxy.cuts == 0
    await connected(page, LIVE)


async def test_two_tabs_whose_connections_are_cut_lose_and_double_nothing(
    page: Page, other: Page, proxy: Proxy
) -> None:
    await come(page, proxy.url)
    await send(page, ASK_SHORT)
    await answered(page, 0, SHORT)
    await come(other, page.url)
    await expect(answers(other)).to_have_count(1)
    proxy.cuts = 6
    await send(page, ASK)
    for tab in (page, other):
        await answered(tab, 1, WHOLE)
        await expect(questions(tab)).to_have_text([ASK_SHORT, ASK])
    assert proxy.cuts == 0


@on_each_transport
async def test_offline_the_page_says_so_and_goes_on_by_itself_when_it_is_back(
    page: Page, proxy: Proxy, how: str
) -> None:
    await come(page, proxy.url, how)
    await send(page, ASK)
    await grown(page, answers(page).first, 2)
    proxy.up = False  # Chromium lets a WebSocket pass even when it plays offline
    await page.context.set_offline(True)
    proxy.cut()
    await connected(page, "offline")
    await expect(page.get_by_test_id("connection")).to_contain_text("Offline")
    proxy.up = True
    await page.context.set_offline(False)
    await connected(page, how)
    await answered(page, 0, WHOLE)
    await send(page, ASK_SHORT)
    await answered(page, 1, SHORT)


def restartable(data: Path, port: int = 0) -> contextlib.AbstractContextManager[Server]:
    """A server with a data directory of ours, on a port of ours (0: any)."""
    run = f"{shlex.quote(sys.executable)} run.py --agent demo --log-level critical --port {port}"
    # The shell swallows the arguments that are added to it: the port is ours.
    env = {"XDG_DATA_HOME": str(data)}
    return serving("sh", "-c", f"exec {run}", "sh", cwd=ROOT, env=env)


@pytest.mark.parametrize(
    ("how", "end"),
    [("websocket", signal.SIGKILL), ("http", signal.SIGKILL), ("websocket", signal.SIGTERM)],
)
@pytest.mark.usefixtures("rough")
async def test_of_a_server_restarted_in_mid_answer_stays_what_was_said_and_the_chat_goes_on(
    page: Page, tmp_path: Path, how: str, end: signal.Signals
) -> None:
    answer = answers(page).first
    with restartable(tmp_path) as server:
        await come(page, server.url, how)
        await send(page, ASK_ENDLESS)
        await grown(page, answer, 3)
        server.stop(end)
        await connected(page, OUT_OF_REACH)
    said = await text_of(answer).text_content() or ""
    with restartable(tmp_path, urlsplit(server.url).port or 0) as again:
        assert again.url == server.url
        await state_is(answer, "interrupted")
        assert (await text_of(answer).text_content() or "").startswith(said.strip())
        await connected(page, LIVE)
        await send(page, ASK_SHORT)
        await answered(page, 1, SHORT)
        await only_grew(page, ENDLESS)
        await page.reload()
        await expect(questions(page)).to_have_text([ASK_ENDLESS, ASK_SHORT])
        await state_is(answer, "interrupted")
        await state_is(answers(page).nth(1), "complete")
        kept = await text_of(answer).text_content() or ""
        assert ENDLESS.startswith(kept.strip())
        await expect(text_of(answers(page).nth(1))).to_have_text(SHORT)


async def test_it_works_with_cookies_and_storage_blocked(
    browsers: Browsers, browser_name: str, server: Server, console_errors: list[str]
) -> None:
    async with browsers.without_storage(browser_name) as context:
        page = await watched(await context.new_page(), console_errors)
        await come(page, server.url)
        blocked = "() => { try { return !localStorage } catch (error) { return error.name } }"
        assert await page.evaluate(blocked) == "SecurityError"
        await send(page, ASK_ENDLESS)
        await grown(page, answers(page).first, 1)
        await page.reload()
        await grown(page, answers(page).first, 1)
        await send(page, ASK_SHORT)
        await answered(page, 1, SHORT)
        await state_is(answers(page).first, "replaced")
        await only_grew(page, ENDLESS)
    assert console_errors == []

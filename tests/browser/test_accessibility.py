"""What people find who see, hear or use the page in other ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from conftest import ROOT
from playwright.async_api import Browser, Page, ViewportSize, expect
from processes import Server

from browser.conftest import watched
from browser.steps import answers, come, grown, send, state_is

AXE = (ROOT / "tests/js/node_modules/axe-core/axe.min.js").read_text()

ENDLESS = "/demo tps=50 ttft=0 length=100000 | apple"
PHONE = ViewportSize(width=390, height=800)

# What axe finds, each as a line that says where it is.
FIND = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ['violations'] })
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, any, all }) =>
      `${id}: ${html} ${[...any, ...all].map(({ message }) => message).join(' ')}`))
}"""

# Everything that can be pressed and is there to be seen, but for links inside of texts.
SMALL = """() => {
  const pressed = 'a[href], button, input, select, textarea, summary, [role="menuitem"]'
  return [...document.querySelectorAll(pressed)]
    .filter((element) => element.checkVisibility({ visibilityProperty: true }))
    .filter((element) => !element.closest('[inert], .markdown p, .markdown li, .markdown td'))
    .map((element) => ({ element, box: element.getBoundingClientRect() }))
    .filter(({ box }) => Math.min(box.width, box.height) < 43.9)
    .map(({ element, box }) => `${element.outerHTML} ${box.width} by ${box.height}`)
}"""


async def nothing_found(page: Page) -> None:
    # What fades in has another colour until it is there.
    await page.evaluate(
        "Promise.all(document.getAnimations().filter((one) => "
        "one.effect.getComputedTiming().endTime !== Infinity).map((one) => one.finished))"
    )
    await page.evaluate(AXE)
    assert await page.evaluate(FIND) == []


EVERYWHERE = pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
ON_A_PHONE = pytest.mark.parametrize(("size", "scheme"), [("phone", "light")])


@pytest_asyncio.fixture(loop_scope="session")
async def seen(
    browser: Browser, size: str, scheme: str, console_errors: list[str]
) -> AsyncIterator[Page]:
    """A page, large or small, in these colours."""
    options: dict[str, Any] = {"color_scheme": scheme}
    if size == "phone":
        options |= {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    context = await browser.new_context(**options)
    yield await watched(await context.new_page(), console_errors)
    await context.close()
    assert console_errors == []


@EVERYWHERE
async def test_axe_finds_nothing_in_a_conversation(seen: Page, server: Server) -> None:
    await come(seen, server.url)
    await expect(seen.get_by_test_id("example").first).to_be_visible()
    await nothing_found(seen)
    await send(seen, ENDLESS)
    await grown(seen, answers(seen).nth(0), 2)
    await nothing_found(seen)
    await send(seen, "/demo ttft=600 | never said")
    await state_is(answers(seen).nth(0), "replaced")
    await nothing_found(seen)
    await seen.get_by_test_id("stop").click()
    await state_is(answers(seen).nth(1), "stopped")
    await send(seen, "/markdown tps=0 ttft=0")
    await state_is(answers(seen).nth(2), "complete")
    await expect(answers(seen).nth(2).locator("pre [class*='hl']").first).to_be_attached()
    await nothing_found(seen)
    await send(seen, "/tools")
    await state_is(answers(seen).nth(3), "complete")
    await send(seen, "/fail 5")
    await state_is(answers(seen).nth(4), "error")
    await nothing_found(seen)
    await seen.keyboard.press("ArrowUp")
    await expect(seen.get_by_test_id("editor")).to_be_visible()
    await nothing_found(seen)


@EVERYWHERE
async def test_axe_finds_nothing_in_lists_menus_and_dialogs(
    seen: Page, server: Server, size: str
) -> None:
    await come(seen, server.url)
    await send(seen, "/echo tps=0 something")
    await state_is(answers(seen).first, "complete")
    await seen.get_by_test_id("menu-button").click()
    await nothing_found(seen)
    await seen.get_by_test_id("menu").get_by_role("menuitem", name="Settings").click()
    await expect(seen.get_by_test_id("settings")).to_be_visible()
    await nothing_found(seen)
    await seen.keyboard.press("Escape")
    await seen.keyboard.press("Control+/")
    await expect(seen.get_by_test_id("keys-dialog")).to_be_visible()
    await nothing_found(seen)
    await seen.keyboard.press("Escape")
    if size == "phone":
        await seen.get_by_test_id("sidebar-toggle").tap()
    await expect(seen.get_by_test_id("session").first).to_be_visible()
    await nothing_found(seen)
    session = seen.get_by_test_id("session").first
    await session.hover()
    await session.get_by_test_id("session-menu-button").click()
    await nothing_found(seen)
    await seen.get_by_test_id("session-menu").get_by_role("menuitem", name="Rename").click()
    await expect(seen.get_by_test_id("session-name").first).to_be_focused()
    await nothing_found(seen)
    await seen.keyboard.press("Escape")
    await session.hover()
    await session.get_by_test_id("session-menu-button").click()
    await seen.get_by_test_id("session-menu").get_by_role("menuitem", name="Delete").click()
    await expect(seen.get_by_test_id("confirm")).to_be_visible()
    await nothing_found(seen)
    await seen.keyboard.press("Escape")
    await seen.keyboard.press("Control+k")
    await seen.keyboard.type("found nowhere")
    await expect(seen.get_by_test_id("sessions-empty")).to_be_visible()
    await nothing_found(seen)


@EVERYWHERE
async def test_axe_finds_nothing_where_the_server_cannot_be_reached(
    seen: Page, server: Server, console_errors: list[str]
) -> None:
    await come(seen, server.url)
    await seen.context.set_offline(True)
    await seen.route("**/api/**", lambda route: route.abort())
    await seen.evaluate("window.dispatchEvent(new Event('focus'))")
    await send(seen, "/echo lost")
    await expect(seen.get_by_test_id("trouble")).to_be_visible()
    await nothing_found(seen)
    await seen.close()
    console_errors.clear()  # the browser complains of each try


@ON_A_PHONE
async def test_on_a_phone_everything_is_large_enough_for_a_finger(
    seen: Page, server: Server
) -> None:
    await come(seen, server.url)
    await expect(seen.get_by_test_id("example").first).to_be_visible()
    assert await seen.evaluate(SMALL) == []
    await send(seen, "/markdown tps=0 ttft=0")
    await state_is(answers(seen).nth(0), "complete")
    await send(seen, "/fail 5")
    await state_is(answers(seen).nth(1), "error")
    assert await seen.evaluate(SMALL) == []
    await send(seen, ENDLESS)
    await grown(seen, answers(seen).nth(2), 2)
    assert await seen.evaluate(SMALL) == []
    await seen.get_by_test_id("stop").tap()
    await seen.get_by_test_id("menu-button").tap()
    assert await seen.evaluate(SMALL) == []
    await seen.get_by_test_id("menu").get_by_role("menuitem", name="Settings").tap()
    assert await seen.evaluate(SMALL) == []
    await seen.keyboard.press("Escape")
    await seen.get_by_test_id("sidebar-toggle").tap()
    assert await seen.evaluate(SMALL) == []
    await seen.get_by_test_id("session-menu-button").first.tap()
    assert await seen.evaluate(SMALL) == []


@ON_A_PHONE
async def test_on_a_phone_nothing_is_wider_than_the_screen(seen: Page, server: Server) -> None:
    await come(seen, server.url)
    await send(seen, "/markdown tps=0 ttft=0")
    await state_is(answers(seen).nth(0), "complete")
    await send(seen, f"/echo tps=0 {'x' * 300}")
    await state_is(answers(seen).nth(1), "complete")
    for part in ("document.documentElement", "document.querySelector('[data-testid=scroller]')"):
        assert await seen.evaluate(f"{part}.scrollWidth - {part}.clientWidth") == 0


async def test_who_wants_no_motion_gets_none(page: Page, server: Server) -> None:
    await page.emulate_media(reduced_motion="reduce")
    await come(page, server.url)
    await page.evaluate("""
        window.moved = []
        for (const type of ['animationstart', 'transitionrun']) {
          document.addEventListener(type, ({ target }) => window.moved.push(target.outerHTML))
        }
    """)
    await send(page, ENDLESS)
    await grown(page, answers(page).first, 2)
    await page.set_viewport_size(PHONE)
    await page.get_by_test_id("sidebar-toggle").click()
    await expect(page.get_by_test_id("sidebar")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_test_id("sidebar")).to_be_hidden()
    assert await page.evaluate("document.getAnimations().length") == 0
    assert await page.evaluate("window.moved") == []


async def test_the_keyboard_reaches_everything_in_the_order_of_the_page(
    page: Page, server: Server
) -> None:
    await come(page, server.url)
    await send(page, "/echo tps=0 something")
    await state_is(answers(page).first, "complete")
    await page.get_by_test_id("sidebar").focus()  # the first thing in the page
    reached = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        reached.append(
            await page.evaluate(
                "document.activeElement.dataset.testid ?? document.activeElement.dataset.part ?? ''"
            )
        )
        if reached[-1] == "when-busy":
            break
    expected = [
        "sidebar-close", "new", "search", "session-open", "session-menu-button", "settings-open",
        "keys-open", "menu-button", "scroller", "copy", "prompt", "when-busy",
    ]  # fmt: skip
    assert [name for name in reached if name in expected][:5] == expected[:5]
    order = [reached.index(name) for name in expected]
    assert order == sorted(order)

"""What the page offers when the model server fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT
from fake_openai import FakeServer
from playwright.async_api import Page, expect
from processes import Server, serving

from browser.steps import answers, come, send, state_is

BOTH = pytest.mark.parametrize("browser_name", ["chromium", "firefox"])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The program, with a model server whose answers the question decides."""
    with (
        FakeServer.running("--strict") as model,
        serving(
            sys.executable,
            ROOT / "run.py",
            *("--agent", "openai", "--openai-base-url", model.url),
            *("--log-level", "critical", "--database-url", "memory:"),
        ) as server,
    ):
        yield server


@BOTH
async def test_retry_is_offered_only_where_it_can_help(page: Page, server: Server) -> None:
    await come(page, server.url)
    for number, prompt in enumerate(["refuse this", "fail this"]):
        await send(page, prompt)
        await state_is(answers(page).nth(number), "error")
    refused, failed = (answers(page).nth(number).get_by_test_id("retry") for number in (0, 1))
    await expect(refused).to_be_hidden()
    await expect(failed).to_be_visible()
    await page.reload()
    await state_is(answers(page).nth(1), "error")
    await expect(refused).to_be_hidden()
    await expect(failed).to_be_visible()


async def test_the_next_question_is_answered_after_a_failure(page: Page, server: Server) -> None:
    await come(page, server.url)
    for number, prompt in enumerate(["refuse this", "break this", "hello"]):
        await send(page, prompt)
        await state_is(answers(page).nth(number), "complete" if prompt == "hello" else "error")

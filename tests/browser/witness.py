"""A witness of everything a page shows of its answers, and what it can swear to."""

from __future__ import annotations

import itertools

from playwright.async_api import Page

SCRIPT = """
(() => {
    // What every bubble of an answer showed after each change of the page, in order.
    window.history_of_answers = []
    const text = '[data-part="text"]'
    new MutationObserver(() => {
      const answers = document.querySelectorAll('[data-testid="message"][data-role="assistant"]')
      window.history_of_answers.push(
        Array.from(answers, (answer) => answer.querySelector(text)?.textContent ?? ''),
      )
    }).observe(document, { childList: true, characterData: true, subtree: true })
})()
"""


async def moments(page: Page, index: int = 0) -> list[str]:
    """Every text that the answer of this index has shown since the page was loaded."""
    seen: list[list[str]] = await page.evaluate("window.history_of_answers")
    texts = [texts[index].strip() for texts in seen if len(texts) > index]
    return [text for text, _ in itertools.groupby(texts)]


async def only_grew(page: Page, whole: str, *, index: int = 0) -> None:
    """At every moment the answer was a beginning of `whole`, and never shorter than before.

    Where each word of `whole` is there but once, nothing was lost, doubled or of another answer.
    """
    texts = await moments(page, index)
    assert [text for text in texts if not whole.startswith(text)] == []
    assert [
        later for earlier, later in itertools.pairwise(texts) if len(later) < len(earlier)
    ] == []
    assert len(texts) > 2, f"it did not grow, it was there at once: {texts}"

"""How responsive the page stays: long answers as they come, and a long conversation opened.

    python benchmarks/bench_page.py                     every table
    python benchmarks/bench_page.py --only conversation
    python benchmarks/bench_page.py --size 10000        shorter answers

An answer of each kind comes at 200 tokens per second while somebody types in the composer. Long
tasks are those of the page's main thread that take over 50 ms, by Chromium's trace. The server, the
browser and this program share the machine; when others use it too, the page's thread waits for a
processor and its tasks seem long, so the processor time of the longest is told as well. A key's
time is that from its press until what it changed is painted, as Chromium's event timing says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

ROOT = Path(__file__).resolve().parent.parent
RATE = 200
MESSAGES = 500
MARK = "measured"

PROSE = (
    "Some words, *some of them* **important**, a `name`, and a [link](https://example.org/page). "
    "A sentence follows, as it does, and then another one that ends here.\n\n"
)
ROW = "| some words | `a_name` | 12 345 |\n"
CODE = 'def function(argument: int) -> str:\n    return f"{argument + 1}"  # a comment\n\n'
KINDS = {
    "mixed": "",
    "paragraphs": PROSE,
    "one list": "- **A point**, and a `name` with some [words](https://example.org/page) to it\n",
    "one table": "| one | two | three |\n|:----|-----|------:|\n",
    "one block of code": "```python\n" + CODE,
}

WATCH = """
    window.keys = []
    new PerformanceObserver((list) => {
      for (const { name, duration } of list.getEntries()) {
        if (name === 'keydown') window.keys.push(duration)
      }
    }).observe({ type: 'event', durationThreshold: 16, buffered: true })
"""

OPENED = """
    new Promise((done) => {
      const opened = {}
      const all = document.getElementsByClassName('message')
      const rendered = document.getElementsByClassName('markdown')
      const isReadable = () => {
        const scroller = document.querySelector('[data-testid="scroller"]')
        const { top, bottom } = scroller.getBoundingClientRect()
        const answers = Array.from(all).filter((message) => {
          const box = message.getBoundingClientRect()
          return box.bottom > top && box.top < bottom && message.dataset.role === 'assistant'
        })
        const isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 1
        const isRendered = answers.every((answer) => answer.querySelector('.markdown'))
        return answers.length > 0 && isAtEnd && isRendered
      }
      const look = () => {
        const now = performance.now()
        if (opened.end === undefined && rendered.length > 0 && isReadable()) opened.end = now
        if (all.length < MESSAGES || rendered.length < MESSAGES / 2) requestAnimationFrame(look)
        else done({ ...opened, all: now })
      }
      look()
    })
"""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of a server with the demo agent and an empty history."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, str(ROOT / "run.py"), "--agent", "demo", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--log-level", "error", "--log-format", "pretty"],
            env={**os.environ, "XDG_DATA_HOME": data},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rstrip("\n").rpartition(" ")[2]
        finally:
            process.kill()
            process.communicate()


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


@dataclass
class Tasks:
    """What the page's main thread did, in milliseconds: the time each task took by the clock, and
    by the processor."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        long, busy = (sum(t > 50 for t in times) for times in (self.clock, self.processor))
        return f"{long} | {max(self.clock):.0f} ms | {busy} | {max(self.processor):.0f} ms"


HEAD = ("tasks > 50 ms", "longest", "> 50 ms of processor", "busiest")


@contextlib.asynccontextmanager
async def traced(browser: Browser, page: Page) -> AsyncIterator[Tasks]:
    """The tasks of the page, known when the block has ended."""
    tasks = Tasks()
    await browser.start_tracing(page=page, categories=["toplevel", "blink.user_timing"])
    try:
        yield tasks
        # Whose main thread it is: the browser's own windows are pages in processes of their own.
        await page.evaluate(f"performance.mark('{MARK}')")
    finally:
        events = json.loads(await browser.stop_tracing())["traceEvents"]
        main = {(event["pid"], event["tid"]) for event in events if event["name"] == MARK}
        for event in events:
            if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in main:
                tasks.clock.append(event.get("dur", 0) / 1000)
                tasks.processor.append(event.get("tdur", 0) / 1000)


async def ask(page: Page, prompt: str) -> None:
    await page.get_by_test_id("prompt").fill(prompt)
    await page.keyboard.press("Enter")


def prompt_for(kind: str, tokens: int) -> str:
    head = f"tps={RATE} jitter=0 ttft=0 length={tokens}"
    if kind == "mixed":
        return f"/markdown {head}"
    text = KINDS[kind]
    if kind == "one table":
        text += ROW * 500  # the demo would put blank lines between repetitions
    return f"/demo {head} | {text}"


async def answer(browser: Browser, url: str, kind: str, size: int) -> dict[str, Any]:
    """What happened on the page while an answer of about `size` characters came."""
    page = await browser.new_page()
    await page.add_init_script(WATCH)
    await page.goto(url)
    await (
        page.get_by_test_id("connection")
        .and_(page.locator('[data-state="websocket"]'))
        .wait_for(state="attached")
    )
    await ask(page, prompt_for(kind, size * 10 // 47))
    last = page.locator('[data-testid="message"][data-role="assistant"]').last
    ended = asyncio.ensure_future(
        last.and_(page.locator('[data-state="complete"]')).wait_for(timeout=600_000)
    )
    await last.and_(page.locator('[data-state="streaming"]')).wait_for()
    await page.evaluate("keys.length = 0")
    pressed = 0
    async with traced(browser, page) as tasks:
        while not ended.done():
            await page.keyboard.press("a")
            pressed += 1
            await asyncio.sleep(0.2)
        await ended
        await page.wait_for_timeout(2000)  # colours, and whatever else comes after the end
    text = await last.locator('[data-part="text"]').text_content() or ""
    keys: list[float] = sorted(await page.evaluate("keys"))
    await page.close()
    # Those that took less than 16 ms are not reported.
    keys = [0.0] * (pressed - len(keys)) + keys
    return {
        "characters": len(text),
        "tasks": tasks,
        "keys": pressed,
        "median": keys[len(keys) // 2],
        "p95": keys[math.ceil(len(keys) * 0.95) - 1],
        "slowest": keys[-1],
    }


def fill(url: str, session: str) -> None:
    """A conversation of `MESSAGES` messages, made by asking."""
    for number in range(MESSAGES // 2):
        text = f"## Answer {number}\n\n{PROSE}- one\n- two\n- three\n\n```python\n{CODE}```\n\n"
        prompt = f"/echo tps=0 ttft=0 {text}{PROSE}"
        request = urllib.request.Request(
            f"{url}/api/chat",
            json.dumps({"prompt": prompt, "session_id": session}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            response.read()


async def conversation(browser: Browser, url: str) -> dict[str, Any]:
    """When it was open: milliseconds since the start of the navigation.

    `end`: all that is in sight of its end was painted as it stays; `all`: so was the rest, above.
    """
    page = await browser.new_page()
    async with traced(browser, page) as tasks:
        await page.goto(f"{url}/#session=long", wait_until="commit")
        opened = await page.evaluate(OPENED.replace("MESSAGES", str(MESSAGES)))
        await page.wait_for_timeout(1000)
    await page.close()
    return {**opened, "tasks": tasks}


def head(*titles: str) -> None:
    print(f"| {' | '.join(titles)} |")
    print("|---" * len(titles) + "|", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=50_000, help="characters of an answer")
    parser.add_argument("--only", choices=[*KINDS, "conversation"])
    options = parser.parse_args()
    with serving() as url:
        async with chromium() as browser:
            kinds = [kind for kind in KINDS if options.only in (None, kind)]
            if kinds:
                print(f"answers of about {options.size} characters at {RATE} tokens/s\n")
                head("answer", "characters", *HEAD, "keys", "median", "p95", "slowest")
            for kind in kinds:
                got = await answer(browser, url, kind, options.size)
                print(
                    f"| {kind} | {got['characters']} | {got['tasks']} | {got['keys']} "
                    f"| {got['median']:.0f} ms | {got['p95']:.0f} ms | {got['slowest']:.0f} ms |",
                    flush=True,
                )
            if options.only not in (None, "conversation"):
                return
            fill(url, "long")
            print(f"\na conversation of {MESSAGES} messages, opened in a new tab\n")
            head("its end", "all of it", *HEAD)
            for _ in range(3):
                got = await conversation(browser, url)
                print(f"| {got['end']:.0f} ms | {got['all']:.0f} ms | {got['tasks']} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

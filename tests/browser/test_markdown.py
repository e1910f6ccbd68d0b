"""Answers in markdown, in the page: what they look like, and that they can do no harm."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect
from processes import Server

from browser.corpus import VECTORS
from browser.steps import answers, send, state_is, text_of

BOTH = pytest.mark.parametrize("browser_name", ["chromium", "firefox"])

LAB = """async () => {
  const { MarkdownView } = await import('/static/js/page/markdown.js')
  const place = document.createElement('section')
  place.dataset.testid = 'lab'
  document.body.append(place)
  performance.now = () => 0  // no rendering rests after the one before

  const TAGS = new Set(`a blockquote br button code del div em h3 h4 h5 h6 hr input li ol p pre
    span strong table tbody td th thead tr ul`.split(/\\s+/))
  const VALUES = {
    href: /^(?:https?:\\/\\/|mailto:)/, target: /^_blank$/, rel: /^noopener noreferrer nofollow$/,
    title: /^/, start: /^\\d+$/, type: /^(?:checkbox|button)$/, checked: /^$/, disabled: /^$/,
    'data-align': /^(?:left|center|right)$/, 'data-part': /^code$/, 'data-testid': /^copy-code$/,
    class: /^(?:blocks|code|head|language|unseen|table|math(?: display)?|hljs-[\\w -]+)?$/,
    tabindex: /^0$/,
    role: /^(?:group|status)$/, dir: /^(?:auto|ltr)$/, 'aria-label': /^(?:Table|Done|To do)$/,
  }
  const faultsOf = (root) => {
    const found = []
    for (const element of root.querySelectorAll('*')) {
      const { localName, namespaceURI, attributes } = element
      if (!TAGS.has(localName) || namespaceURI !== 'http://www.w3.org/1999/xhtml') {
        found.push(`<${localName}>`)
      }
      for (const { name, value } of attributes) {
        if (!VALUES[name]?.test(value)) found.push(`<${localName} ${name}="${value}">`)
      }
      if (localName === 'a' && !(element.target && element.rel)) found.push('an open link')
      if (localName === 'input' && !(element.disabled && element.type === 'checkbox')) {
        found.push('a live field')
      }
    }
    return found
  }
  const withView = (work) => {
    const element = document.createElement('div')
    place.append(element)
    const result = work(new MarkdownView(element), element)
    element.remove()
    return result
  }
  const outline = (element) => {
    const copy = element.cloneNode(true)
    // Colours come later, and highlighted parts hold more elements.
    for (const part of copy.querySelectorAll('pre code > span')) part.textContent = part.textContent
    return Array.from(copy.children, (child) => child.outerHTML)
  }

  window.ran = []
  for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) {
    window[name] = () => window.ran.push(name)
  }
  document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
    window.ran.push(`${violatedDirective} ${blockedURI}`))

  window.lab = {
    place,
    view: () => {
      const element = document.createElement('div')
      place.append(element)
      return new MarkdownView(element)
    },
    // What is wrong at any moment with a text that comes in two pieces, split anywhere, or letter
    // by letter.
    attack: (text) => {
      const found = new Set()
      const look = (element) => faultsOf(element).forEach((fault) => found.add(fault))
      withView((letters, all) => {
        for (let end = 0; end <= text.length; end += 1) {
          letters.update(text.slice(0, end))
          look(all)
          withView((view, element) => {
            view.update(text.slice(0, end))
            look(element)
            view.finish(text)
            look(element)
          })
        }
        letters.finish(text)
        look(all)
      })
      return [...found]
    },
    // Whether it ends like a text that came whole, and leaves what is frozen alone.
    compare: (text, ends) => withView((whole, reference) => withView((view, element) => {
      whole.finish(text)
      for (const end of ends) view.update(text.slice(0, end))
      view.finish(text)
      const [one, other] = [outline(element), outline(reference)]
      return one.join('') === other.join('') ? null : { one, other }
    })),
  }
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def requests(page: Page) -> list[str]:
    """Where the page turned to."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    return seen


@pytest_asyncio.fixture(loop_scope="session")
async def lab(page: Page, server: Server, requests: list[str]) -> AsyncIterator[Locator]:
    """A place in the page for views; whatever a test does there must run and load nothing."""
    await page.goto(server.url)
    await page.evaluate(LAB)
    yield page.get_by_test_id("lab")
    # One more turn: what was started must have come by now.
    await page.evaluate("() => new Promise((done) => setTimeout(done))")
    assert await page.evaluate("window.ran") == []
    assert [url for url in requests if not url.startswith(server.url)] == []
    await expect(page).to_have_url(f"{server.url}/")


async def show(page: Page, text: str) -> None:
    await page.evaluate("(text) => lab.view().finish(text)", text)


# What it can do no harm with.


@BOTH
@pytest.mark.parametrize("part", range(4))
async def test_no_vector_does_anything_however_it_is_split(
    page: Page, lab: Locator, part: int
) -> None:
    vectors = VECTORS[part::4]
    assert len(vectors) > 50
    found = await page.evaluate(
        """async (texts) => {
          const found = {}
          for (const text of texts) {
            const faults = lab.attack(text)
            if (faults.length > 0) found[text] = faults
            await new Promise((done) => setTimeout(done))
          }
          return found
        }""",
        vectors,
    )
    assert found == {}


async def test_no_vector_does_anything_when_it_stands(page: Page, lab: Locator) -> None:
    """All of them at once, left in the page, and hovered over."""
    await page.evaluate("(texts) => texts.map((text) => lab.view().finish(text))", VECTORS)
    await expect(lab.locator(":scope > div")).to_have_count(len(VECTORS))
    await page.evaluate(
        """() => {
          for (const element of lab.place.querySelectorAll('*')) {
            for (const type of ['pointerover', 'mouseover', 'focus', 'load', 'error', 'toggle']) {
              element.dispatchEvent(new Event(type, { bubbles: true }))
            }
          }
        }"""
    )


async def test_the_second_wall_holds_alone(
    page: Page, lab: Locator, console_errors: list[str]
) -> None:
    """Raw HTML, straight into the sanitiser: what a hole in the renderer would let through."""
    found = await page.evaluate(
        """async (texts) => {
          const { clean } = await import('/static/js/page/markdown-clean.js')
          const found = []
          for (const text of texts) {
            const holder = document.createElement('div')
            lab.place.append(holder)
            holder.append(clean(text))
            for (const element of holder.querySelectorAll('*')) {
              for (const { name, value } of element.attributes) {
                const wrong = /^(?:on|style|src|id|name|form|data-testid)/.test(name)
                if (wrong || /script:/i.test(value)) found.push([text, element.outerHTML])
              }
              if (/^(?:script|style|iframe|img|svg|math|form|base|meta)$/.test(element.localName)) {
                found.push([text, element.outerHTML])
              }
            }
          }
          return found
        }""",
        VECTORS,
    )
    assert found == []
    # Merely parsing it, which the sanitiser must, already offends the page's policy.
    assert 1 not in await page.evaluate("ran.splice(0)")
    console_errors.clear()


@BOTH
async def test_an_attack_by_the_server_fails_too(
    page: Page, server: Server, requests: list[str]
) -> None:
    """All the way: asked for, streamed, shown."""
    await page.add_init_script("window.ran = []")
    await page.goto(server.url)
    text = "\n\n".join(VECTORS[::9]).replace("\x00", "")
    await send(page, f"/echo tps=2000 ttft=0 {text}")
    answer = answers(page).last
    await state_is(answer, "complete")
    assert await page.evaluate("window.ran") == []
    shown = text_of(answer)
    links = await shown.locator("a").evaluate_all("(all) => all.map((a) => a.protocol)")
    assert set(links) <= {"http:", "https:", "mailto:"}
    assert await shown.locator("img, script, style, iframe, svg, form, [onclick]").count() == 0
    assert [url for url in requests if not url.startswith((server.url, "ws://"))] == []


# That it comes to the same in pieces.

PIECES = (
    *("a ", "*b*", "**", "_", "`c`", "`", "\n", "\n\n", "\n \n", "  ", "    ", "<br>", "<b>", "\\"),
    *(
        "# d\n",
        "---\n",
        "===\n",
        "- e\n",
        "- [x] f\n",
        "1. g\n",
        "  - h\n",
        "+ i\n\n",
        "> j\n",
        ">\n",
    ),
    *(
        "```py\nx = 1\n",
        "```\n",
        "~~~\n",
        "    k\n",
        "|l|m|\n|-|-:|\n|1|2|\n",
        "|n|o|\n",
        "- ```\n",
    ),
    *("$", "$$\n", "\\(x\\)", "\\[", "\\]\n", "$$ y $$\n"),
    *(
        "[r]",
        "[r]: https://r.test 't'\n",
        "[p](https://p.test)",
        "![q](https://q.test/q)",
        "&lt;",
        "<",
    ),
)


async def test_in_pieces_it_ends_as_it_does_whole(page: Page, lab: Locator) -> None:
    chance = random.Random(4)
    for _ in range(200):
        text = "".join(chance.choices(PIECES, k=chance.randrange(1, 30)))
        ends = sorted(chance.choices(range(len(text) + 1), k=chance.randrange(0, 12)))
        assert (
            await page.evaluate("([text, ends]) => lab.compare(text, ends)", [text, ends]) is None
        )
    # The fence of the end is code until it is complete.
    assert await page.evaluate("lab.compare('> ```\\n> ```\\n', [10, 11])") is None


async def test_what_is_finished_is_not_touched_again(page: Page, lab: Locator) -> None:
    text = (
        "# One\n\nTwo *three*.\n\n- four\n- five\n\n```js\nlet six = 6\n```\n\n| a | b |\n|--|--|\n"
        "| 7 | 8 |\n\n> nine\n\nten\n\neleven\n\ntwelve\n\nand more, and more, and more"
    )
    kept = await page.evaluate(
        """(text) => {
          const BLOCKS = ':scope > .blocks > *'
          const view = lab.view()
          const seen = new Map()
          const { firstElementChild: element } = lab.place
          let last = text.length
          for (let end = 1; end <= text.length; end += 1) {
            view.update(text.slice(0, end))
            const settled = Array.from(element.querySelectorAll(BLOCKS)).slice(0, -1)
            for (const child of settled) if (!seen.has(child)) seen.set(child, child.textContent)
          }
          view.finish(text)
          const now = new Set(element.querySelectorAll(BLOCKS))
          return Array.from(seen, ([child, shown]) => now.has(child) && child.textContent === shown)
        }""",
        text,
    )
    assert kept == [True] * 9


@BOTH
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "A sentence that is *still* being written, and goes on\nand **on",
            "sentence that is still",
        ),
        ("- first\n- second item grows\n- third", "second item"),
        ("> A quotation of `some` words\n> that goes on", "quotation of some words"),
        ("> ```js\n> let a = 1\n> let b = 2\n> ```\n> end", "let a = 1"),
        ("| a | b |\n|---|---|\n| one | two |\n| three | four |", "one"),
        ("# A heading that grows", "heading"),
    ],
)
async def test_text_that_grows_stays_selected(
    page: Page, lab: Locator, text: str, wanted: str
) -> None:
    selected = await page.evaluate(
        """([text, wanted]) => {
          const view = lab.view()
          const element = lab.place.lastElementChild
          let end = 0
          const whole = () => {
            const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT)
            const nodes = []
            while (walker.nextNode()) nodes.push(walker.currentNode)
            return nodes
          }
          // As soon as it is there it is selected, from its first letter to its last.
          while (!whole().map(({ data }) => data).join('').includes(wanted)) {
            view.update(text.slice(0, (end += 1)))
          }
          view.update(text.slice(0, (end += 1))) // now no markup of it is open
          const nodes = whole()
          const place = (at) => {
            for (const node of nodes) {
              if (at <= node.length) return [node, at]
              at -= node.length
            }
          }
          const start = nodes.map(({ data }) => data).join('').indexOf(wanted)
          const selection = getSelection()
          selection.setBaseAndExtent(...place(start), ...place(start + wanted.length))
          const selected = () => selection.getRangeAt(0).toString()
          const seen = new Set([selected()])
          while (end < text.length) {
            view.update(text.slice(0, (end += 1)))
            seen.add(selected())
          }
          view.finish(text)
          seen.add(selected())
          return [...seen]
        }""",
        [text, wanted],
    )
    assert selected == [wanted]


FORMULAS = (
    "Inline \\(E = mc^2\\) and $a*b*c$, prices of $5 and $6.\n\n"
    "\\[\n\\frac{a_1}{b_2} * \\sqrt{d}\n\\]\n\n"
    "- item\n  $$\n  \\widehat{xyz} + \\overbrace{1 + 2}\n  $$\n\n"
    "| a |\n|---|\n| $x^2$ |\n\nend \\(\\unknown{\\)"
)


@BOTH
async def test_formulas_are_set_as_soon_as_they_are_closed(
    page: Page, lab: Locator, requests: list[str]
) -> None:
    katex = "/static/vendor/katex/"
    await page.evaluate("() => { lab.view().finish('`$x$` costs $5 and $6') }")
    assert not any(katex in url for url in requests)
    await page.evaluate(
        """async (text) => {
          const view = lab.view()
          const element = lab.place.lastElementChild
          window.halves = []
          window.kept = null
          for (let end = 1; end <= text.length; end += 1) {
            view.update(text.slice(0, end))
            if (end === 12) window.halves.push(element.textContent)
            if (end === 30) {
              while (!element.querySelector('.katex')) {
                await new Promise((done) => setTimeout(done, 10))
              }
              window.kept = element.querySelector('.katex')
            }
          }
          view.finish(text)
        }""",
        FORMULAS,
    )
    assert await page.evaluate("halves") == ["Inline \\(E ="]
    await expect(lab.locator(".math.set")).to_have_count(5)
    await expect(lab.locator(".math:not(.set)")).to_have_text("\\(\\unknown{\\)")
    await expect(lab.locator(".display .katex-display")).to_have_count(2)
    await expect(lab.locator(".katex svg").first).to_be_attached()
    assert await page.evaluate("kept.isConnected")
    await expect(lab.locator("em, .katex-error")).to_have_count(0)
    await expect(lab.get_by_text("prices of $5 and $6.")).to_be_visible()
    # The fonts are there, and the source can be read by machines.
    await page.evaluate("() => document.fonts.ready")
    assert await page.evaluate("() => document.fonts.check('16px KaTeX_Main')")
    await expect(lab.locator("annotation").first).to_have_text("E = mc^2")
    assert len([url for url in requests if url.endswith((".js", ".css")) and katex in url]) == 2
    assert (
        await lab.locator(".katex-html").first.evaluate(
            "(element) => getComputedStyle(element).direction"
        )
        == "ltr"
    )


@BOTH
async def test_a_formula_can_do_no_harm(page: Page, lab: Locator) -> None:
    texts = [
        r"$\href{javascript:alert(1)}{x}$",
        r"$\url{javascript:alert(1)}$",
        r"$\includegraphics{https://x.test/i.png}$",
        r"$\htmlClass{message}{x}$ $\htmlId{prompt}{x}$ $\htmlStyle{position: fixed}{x}$",
        r"$\def\a{\a\a}\a$",
        r"$\rule{99999em}{99999em}$",
        r"$\text{<img src=x onerror=alert(1)>}$",
    ]
    await page.evaluate("(texts) => texts.map((text) => lab.view().finish(text))", texts)
    await page.evaluate("() => lab.view().finish('$x$')")
    await expect(lab.locator(".math.set").last).to_be_visible()
    await expect(lab.locator("a, img, [id], .message, [onerror]")).to_have_count(0)
    box = await lab.locator(".katex-html").nth(-3).bounding_box()
    assert box is not None
    assert box["width"] < 2000


@BOTH
async def test_a_formula_of_many_levels_stays_as_it_was_written(page: Page, lab: Locator) -> None:
    texts = ["$" + part * 400 + "x" + "}" * 400 + "$" for part in (r"\sqrt{", "x^{")]
    fraction = "$" + r"\frac{1}{2+" * 12 + "x" + "}" * 12 + "$"
    await page.evaluate("(texts) => texts.map((text) => lab.view().finish(text))", texts)
    await page.evaluate("(text) => lab.view().finish(text)", fraction)
    await expect(lab.locator(".math.set")).to_have_count(1)
    await expect(lab.locator(".math:not(.set)")).to_have_text(texts)


@BOTH
async def test_right_to_left_text_begins_at_the_right(page: Page, lab: Locator) -> None:
    await show(
        page,
        "مرحبا! هذه إجابة.\n\n- أولا\n- English\n\n> اقتباس\n\n"
        "| واحد | اثنان |\n|---|---|\n| 1 | 2 |\n\n"
        "```py\nprint(1)\n```\n\n`code` ثم نص\n\nAnd an English paragraph.\n\n- One\n- اثنان",
    )
    found = await lab.evaluate(
        """(place) => {
          const direction = (selector) => Array.from(
            place.querySelectorAll(selector), (element) => getComputedStyle(element).direction)
          // At which side of an element its first letter stands.
          const side = (element) => {
            const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT)
            walker.nextNode()
            const range = document.createRange()
            range.setStart(walker.currentNode, 0)
            range.setEnd(walker.currentNode, 1)
            const [letter, box] = [range.getBoundingClientRect(), element.getBoundingClientRect()]
            return letter.left - box.left < box.right - letter.right ? 'left' : 'right'
          }
          const sides = (selector) => Array.from(place.querySelectorAll(selector), side)
          const style = (selector, name) =>
            getComputedStyle(place.querySelector(selector))[name] !== '0px'
          const [first, second] = place.querySelectorAll('th')
          return {
            paragraphs: sides('.blocks > p'),
            lists: direction('ul'),
            quote: [direction('blockquote')[0], style('blockquote', 'borderRightWidth'),
              style('blockquote', 'borderLeftWidth')],
            table: [direction('table')[0],
              first.getBoundingClientRect().left > second.getBoundingClientRect().left],
            code: direction('.code, .code pre, code'),
            // "English" ends at the right edge too: its item begins there.
            item: side(place.querySelector('li')),
          }
        }"""
    )
    assert found == {
        "paragraphs": ["right", "right", "left"],
        "lists": ["rtl", "ltr"],
        "quote": ["rtl", True, False],
        "table": ["rtl", True],
        "code": ["ltr"] * 4,
        "item": "right",
    }


@BOTH
@pytest.mark.parametrize("width", [390, 1280])
async def test_a_wide_table_scrolls_and_keeps_its_words_whole(
    page: Page, lab: Locator, width: int
) -> None:
    await page.set_viewport_size({"width": width, "height": 800})
    heads = " | ".join(f"Internationalization {number}" for number in range(12))
    url = "https://x.test/" + "a" * 600
    row = " | ".join([url, *["x"] * 11])
    await show(page, f"| {heads} |\n|{'---|' * 12}\n| {row} |")
    lines, scrolls, longest = await lab.evaluate(
        """(place) => {
          place.style.flex = 'none'
          place.style.width = `${Math.min(innerWidth, 700) - 40}px`
          const range = document.createRange()
          const lines = Array.from(place.querySelectorAll('th'), (cell) => {
            range.setStart(cell.firstChild, 0)
            range.setEnd(cell.firstChild, 'Internationalization'.length)
            return range.getClientRects().length
          })
          const region = place.querySelector('.table')
          return [lines, region.scrollWidth > region.clientWidth,
            Math.max(...Array.from(place.querySelectorAll('td'), (cell) => cell.offsetWidth))]
        }"""
    )
    assert lines == [1] * 12
    assert scrolls
    assert longest < 700


async def test_rows_and_items_that_are_there_stay(page: Page, lab: Locator) -> None:
    """Of a long list or table only what is new is made."""
    for line, head in (("- item\n", ""), ("| a | b |\n", "| x | y |\n|---|---|\n")):
        same = await page.evaluate(
            """([line, head]) => {
              const view = lab.view()
              view.update(head + line.repeat(50))
              const before = lab.place.lastElementChild.querySelectorAll('li, tbody tr')
              view.update(head + line.repeat(99))
              const after = lab.place.lastElementChild.querySelectorAll('li, tbody tr')
              return [before.length, after.length, Array.from(before).slice(0, 49)
                .every((piece, index) => piece === after[index])]
            }""",
            [line, head],
        )
        assert same == [50, 99, True]


async def test_a_text_that_changes_is_shown_anew(page: Page, lab: Locator) -> None:
    await page.evaluate(
        """() => {
          const view = lab.view()
          view.finish('# one\\n\\ntwo\\n\\nthree')
          view.update('# one\\n\\nfour')
          view.finish('# one\\n\\nfour **five**')
        }"""
    )
    await expect(lab.locator("h3")).to_have_text("one")
    await expect(lab.locator("p")).to_have_text(["four five"])


async def test_a_text_that_gets_shorter_leaves_nothing_behind(page: Page, lab: Locator) -> None:
    await page.evaluate(
        """() => {
          const view = lab.view()
          view.finish('one\\n\\n'.repeat(30))
          view.finish('two\\n\\n'.repeat(9))
        }"""
    )
    await expect(lab.locator("p")).to_have_text(["two"] * 9)
    await expect(lab.locator(".blocks:empty")).to_have_count(0)


async def test_the_end_comes_though_a_rendering_waits(page: Page, lab: Locator) -> None:
    """A rendering that took long makes the next one wait, but neither the last nor the end."""
    shown = await page.evaluate(
        """async () => {
          let now = 0
          performance.now = () => (now += 20)
          const view = lab.view()
          const { firstElementChild: element } = lab.place
          view.update('one')
          view.update('one two')
          const waiting = element.textContent
          await new Promise((done) => {
            const changes = { childList: true, characterData: true, subtree: true }
            new MutationObserver(done).observe(element, changes)
          })
          const came = element.textContent
          view.update('one two three')
          view.finish('one two three.')
          return [waiting, came, element.textContent]
        }"""
    )
    assert shown == ["one", "one two", "one two three."]


# What it looks like.


async def test_links_say_where_they_lead_and_keep_this_page_to_themselves(
    page: Page, lab: Locator
) -> None:
    await show(
        page, "[a](https://x.test/?b=1&c=2 'hint') [no](/api/sessions) ![i](https://y.test/i)"
    )
    links = lab.get_by_role("link")
    await expect(links).to_have_text(["a", "i (image at y.test)"])
    await expect(links.first).to_have_attribute("href", "https://x.test/?b=1&c=2")
    await expect(links.first).to_have_attribute("title", "hint")
    for link in await links.all():
        await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
        await expect(link).to_have_attribute("target", "_blank")


async def test_tasks_and_tables(page: Page, lab: Locator) -> None:
    await show(page, "- [x] one\n- [ ] two\n\n| a | b |\n|:-:|--:|\n| 1 | 2 |\n\n3. three\n4. four")
    boxes = lab.get_by_role("checkbox")
    await expect(boxes).to_have_count(2)
    await expect(boxes.first).to_be_checked()
    for box in await boxes.all():
        await expect(box).to_be_disabled()
    await expect(lab.get_by_role("group", name="Table")).to_have_attribute("tabindex", "0")
    await expect(lab.get_by_role("cell").last).to_have_css("text-align", "right")
    await expect(lab.locator("ol")).to_have_attribute("start", "3")


@BOTH
async def test_code_gets_its_colours_without_changing(page: Page, lab: Locator) -> None:
    code = "def f(x):\n    return f'<b>{x}</b>'  # &amp;\n" + "y = [1, 'two', None]\n" * 120
    nested = "> ```dockerfile\n> FROM debian\n> ```\n"
    await show(page, f"```python\n{code}```\n\n```nonsense\nx\n```\n\n{nested}")
    blocks = lab.locator('[data-part="code"]')
    await expect(blocks.first.locator(".hljs-keyword").first).to_have_text("def")
    await expect(blocks.first.locator(".hljs-literal")).to_have_count(120)
    assert await blocks.first.locator("code").text_content() == code.removesuffix("\n")
    await blocks.last.scroll_into_view_if_needed()
    await expect(blocks.last.locator(".hljs-keyword")).to_have_text("FROM")
    await expect(blocks.nth(1).locator("code")).to_have_text("x")


async def test_code_can_be_copied(page: Page, lab: Locator) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await show(page, "```py\nx = '<1>'\n\n  y\n```")
    await expect(lab.locator('[data-part="code"] .head')).to_contain_text("py")
    button = lab.get_by_test_id("copy-code")
    await button.click()
    await expect(button).to_have_text("Copied")
    await expect(lab.get_by_role("status")).to_have_text("The code was copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == "x = '<1>'\n\n  y"


async def test_long_code_is_selected_as_it_is(page: Page, lab: Locator) -> None:
    """It is in the page in parts, which nobody may notice."""
    code = "\n".join(f"{number}{'' if number % 7 else chr(10)}" for number in range(170))
    await show(page, f"```\n{code}\n```")
    selected = await page.evaluate(
        """() => {
          getSelection().selectAllChildren(lab.place.querySelector('code'))
          return getSelection().toString()
        }"""
    )
    assert selected.rstrip("\n") == code.rstrip("\n")


async def test_code_can_be_copied_where_the_page_is_not_trusted(page: Page, lab: Locator) -> None:
    """Over plain http from another machine there is no clipboard to write to."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.evaluate("navigator.clipboard.writeText('before')")
    await page.evaluate("() => { navigator.clipboard.writeText = undefined }")
    await show(page, "    a\n\n    b")
    button = lab.get_by_test_id("copy-code")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(button).to_have_text("Copied")
    await expect(button).to_be_focused()
    assert await page.evaluate("navigator.clipboard.readText()") == "a\n\nb"


async def test_without_a_worker_code_stays_as_it_is(page: Page, server: Server) -> None:
    await page.add_init_script("delete window.Worker")
    await page.goto(server.url)
    await page.evaluate(LAB)
    await show(page, "```py\nreturn 1\n```")
    code = page.get_by_test_id("lab").locator("pre")
    await expect(code).to_have_text("return 1")

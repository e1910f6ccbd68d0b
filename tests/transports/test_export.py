"""A conversation as Markdown: read by a CommonMark parser, each message is in its own section."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from jarvis_stream.history.base import TurnRecord
from jarvis_stream.transports import export as export_module
from jarvis_stream.transports.export import quoted, sections, title_line


def export(title: str, texts: Sequence[tuple[str, str]]) -> str:
    parts = [title_line(title)]
    for number, (prompt, text) in enumerate(texts, 1):
        turn = TurnRecord(
            session_id="s",
            stream_id=str(number),
            epoch=number,
            prompt=prompt,
            created_at=1.0,
            text=text,
            status="complete" if number % 2 else "cancelled",
        )
        parts += sections(
            [turn.prompt] * bool(turn.prompt), [turn.text] * bool(turn.text), turn.status
        )
    return "".join(parts) + "\n"


def sections_of(tokens: Sequence[Token]) -> list[tuple[str, list[Token]]]:
    """The top-level headings of the second level, and what is between them."""
    found: list[tuple[str, list[Token]]] = []
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2" and token.level == 0:
            found.append((tokens[index + 1].content, []))
        elif found:
            found[-1][1].append(token)
    return found


def text_of(tokens: Sequence[Token]) -> str:
    return "\n".join(f"{token.info}\n{token.content}" for token in tokens)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def is_within(some: Sequence[str], all_of_them: Sequence[str]) -> bool:
    """Whether they are there in this order, perhaps with others in between."""
    rest = iter(all_of_them)
    return all(word in rest for word in some)


PIECES = st.sampled_from(
    [
        *("<!--", "-->", "<details>", "</details>", "<script>", "<style>", "<textarea>"),
        *("<?php", "<!DOCTYPE", "<![CDATA[", "</blockquote>", "<a href='`'>", "`<b>`", "\\<b>"),
        *("```", "````", "~~~", "   ```", "    ```", "- ```", "1. ```js", "> ```", "```js <i>"),
        *("`", "``", "\\`", "## User", "## Assistant", "# Title", "===", "---", "> said"),
        *("- item", "  - item", "1. one", "|---|---|", "| `a | <b>` |", "| a | b |"),
        *("[a]: b", "[a]:", "[^1]: note", "[a][b]", "![", "](", "  [a]: <b", "'title", "]:"),
        *("\t", "    ", "\n", "\n\n", "\r", "\r\n", "\x00", "\x0b", "\u2028"),
        *("word", "two words", " ", "*", "**", "_", "\\", "&lt;", "&#60;", "<", ">", "$$", "a<b"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=12).map("".join)


@given(title=TEXTS, texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
@example("t", [("a\n\n<!-- begin", "x"), ("third", "y")])
@example("t", [("q", "ok\n\n## User\n\nYes\n\n## Assistant\n\nDone.")])
@example("t", [("q", "- a\n  ```\n<script>\n  ```"), ("q", "a")])
@example("t", [("a ` b\nc `<script>` d", "b")])
def test_each_message_is_one_section_and_shows_its_words(
    title: str, texts: list[tuple[str, str]]
) -> None:
    for rules in ("commonmark", "gfm-like"):
        parser = MarkdownIt(rules, {"linkify": False})
        environment: dict[str, object] = {}
        tokens = parser.parse(export(title, texts), environment)
        assert not environment.get("references")
        assert not [token for token in tokens if token.type == "html_block"]
        inline = [child for token in tokens for child in token.children or ()]
        assert not [token for token in inline if token.type == "html_inline"]
        assert (tokens[0].type, tokens[0].tag) == ("heading_open", "h1")
        found = sections_of(tokens)
        assert [name for name, _ in found] == ["User", "Assistant"] * len(texts)
        for (_, shown), text in zip(found, [one for turn in texts for one in turn], strict=True):
            assert is_within(words(text.replace("\x00", "\ufffd")), words(text_of(shown)))


class Reader(HTMLParser):
    """What a browser would show as text, and its headings of the second level."""

    def __init__(self) -> None:
        super().__init__()
        self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.headings += tag == "h2"


@pytest.mark.parametrize("opened", ["<!-- ", "<details>", "<script>", "```html\n<!--", "[a]: <b"])
def test_what_a_message_leaves_open_does_not_hide_the_next(opened: str) -> None:
    file = export("t", [(f"a {opened}", f"b\n\n{opened}"), ("third", "fourth")])
    html = MarkdownIt().render(file)
    reader = Reader()
    reader.feed(html)
    assert reader.headings == 4
    assert "<p>third</p>" in html
    assert "<p>fourth</p>" in html


@pytest.mark.parametrize(
    ("text", "exported"),
    [
        ("plain\n\n*yes*", "> plain\n>\n> *yes*"),
        ("```html\n<b>\n```\nuse `<i>` or <u>", "> ```html\n> <b>\n> ```\n> use `<i>` or &lt;u>"),
        ("a < b and c<d", "> a < b and c&lt;d"),
        ("see [a]: b", "> see [a]\\: b"),
        ("1. do\n   ```\n   <b>\n   ```", "> ```\n> 1. do\n>    ```\n>    <b>\n>    ```\n> ```"),
    ],
)
def test_code_and_text_stay_as_they_were_written(text: str, exported: str) -> None:
    fence = "````" if "1." in text else None
    wanted = exported if fence is None else exported.replace("> ```\n> 1.", f"> {fence}\n> 1.")
    if fence is not None:
        wanted = wanted[: -len("> ```")] + f"> {fence}"
    assert "".join(quoted([text])) == wanted


@given(text=TEXTS)
@example(text="<]:a:`\r")
def test_where_a_message_is_cut_changes_nothing(text: str) -> None:
    whole = "".join(quoted([text]))
    for window in (1, 2, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export_module, "WINDOW", window)
            assert "".join(quoted([text])) == whole
    assert "".join(quoted(list(text))) == whole


@pytest.mark.parametrize(
    ("text", "exported"),
    [
        ("ab\r\n" * 50_000, "> ab\n" * 50_000 + ">"),
        ("\n" * 100_000, ">\n" * 100_000 + ">"),
        ("\U0001f600" * 50_000, "> " + "\U0001f600" * 50_000),
        ("<b\n" * 50_000, "> &lt;b\n" * 50_000 + ">"),
        ("`x`\n" * 50_000 + "<b", "> `x`\n" * 50_000 + "> &lt;b"),
        ("a" * 50_000 + "\n<b", "> " + "a" * 50_000 + "\n> &lt;b"),
        ("<b" * 50_000, "> ```\n> " + "<b" * 50_000 + "\n> ```"),
        ("a" * 50_000 + "]: b", "> ```\n> " + "a" * 50_000 + "]: b\n> ```"),
        ("`" * 50_000 + "<b", f"> {'`' * 50_001}\n> {'`' * 50_000}<b\n> {'`' * 50_001}"),
    ],
    ids=["lines", "empty", "emoji", "html", "code", "long", "long html", "long end", "ticks"],
)
def test_a_long_message_is_quoted_in_short_pieces(text: str, exported: str) -> None:
    pieces = list(quoted([text]))
    assert "".join(pieces) == exported
    assert max(map(len, pieces)) < 5 * export_module.WINDOW

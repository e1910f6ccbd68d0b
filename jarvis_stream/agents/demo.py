"""An agent that needs no network and is no language model: it plays back prepared text.

It is there for whoever builds a front end or tests a load: every kind of markdown, echo, status
events, and slash commands for the pace, the length and every way in which an agent can go wrong.
`/help` lists them, from the same tables that the parser reads.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from itertools import chain, cycle, islice
from math import inf, nan
from typing import Any, Final

from jarvis_stream.agents.base import Piece, Turn
from jarvis_stream.errors import AgentFailure
from jarvis_stream.frames import Done, Status

INTRODUCTION: Final = "This is the demo, **not a language model**: it plays back prepared text."


def _option(default: float | None, low: float, high: float, meaning: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an answer is played back. Bounds that are ints make an option a whole number."""

    tps: float = _option(50.0, 0.0, 100_000.0, "tokens per second; 0 is as fast as it goes")
    ttft: float = _option(0.3, 0.0, 600.0, "seconds before the first token")
    jitter: float = _option(0.2, 0.0, 1.0, "share by which each pause between tokens varies")
    seed: int | None = _option(None, 0, 2**32 - 1, "makes the jitter repeat itself")
    length: int | None = _option(None, 1, 10**7, "tokens in all: the text is cut, or repeated")
    error_at: int | None = _option(None, 1, 10**7, "fails instead of saying this token")
    hang_at: int | None = _option(None, 1, 10**7, "falls silent for ever instead of saying it")
    stubborn: float = _option(0.0, 0.0, 600.0, "seconds for which it ignores being cancelled")
    cleanup: float = _option(0.0, 0.0, 600.0, "seconds its cleanup takes, however it ends")


OPTIONS: Final[dict[str, Field[Any]]] = {option.name: option for option in fields(Options)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A slash command: what it plays when no text is given, and how."""

    meaning: str
    text: str = ""
    """Empty: the prompt must bring one."""
    preset: Mapping[str, float] = field(default_factory=dict)
    value: str | None = None
    """The option that a bare value sets; None when there is none."""
    verbatim: bool = False
    """All that follows the options is text, with or without a bar."""
    tools: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt, understood."""

    text: str
    options: Options = field(default_factory=Options)
    tools: bool = False


class CommandError(Exception):
    """A slash command that means nothing; the text says what would."""


def parse(prompt: str, nth: int = 0) -> Request:
    """What to play for `prompt`, the user's message number `nth` (from 0); raises CommandError.

    A command is `/name [value] [option=value …] [| text]`; the text replaces the command's own.
    Any other prompt gets a prepared answer, a different one each time.
    """
    prompt = prompt.strip()
    if (start := re.match(r"/(\w*)", prompt)) is None:
        said = f"{INTRODUCTION} You said {_quote(prompt, 200)}; `/help` lists what else I do."
        return Request(text=f"{said}\n\n{SAMPLES[nth % len(SAMPLES)]}")
    name = start[1]
    if (command := COMMANDS.get(name)) is None:
        raise CommandError(f"There is no command {_quote('/' + name)}. {_nearest(name, COMMANDS)}")
    words, text = _split(command, prompt[start.end() :])
    options = dict(command.preset)
    for word in words:
        option, equals, value = word.partition("=")
        if not equals:
            if command.value is None:
                raise CommandError(
                    f"`/{name}` cannot use {_quote(word)}. An option is written `name=value`, and "
                    "a text stands behind a bar: `| text`."
                )
            option, value = command.value, word
        options[option] = _read(option, value)
    if not (text or command.text):
        raise CommandError(f"`/{name}` needs a text, as in `/{name} Hello`.")
    return Request(
        text=text or command.text,
        options=Options(**options),  # type: ignore[arg-type]
        tools=command.tools,
    )


def _split(command: Command, rest: str) -> tuple[list[str], str]:
    """The words of a command, and the text behind them."""
    if not command.verbatim:
        head, _, text = rest.partition("|")
        return head.split(), text.strip()
    words = []
    while (word := re.match(r"\s*((\w+)=\S+)", rest)) and word[2] in OPTIONS:
        words.append(word[1])
        rest = rest[word.end() :]
    text = rest.strip()
    # Without options a first bar is the text's own: it may begin with a table.
    return words, text.removeprefix("|").strip() if words else text


def _read(name: str, value: str) -> float:
    """The option's value, checked; raises CommandError naming option, value and what is allowed."""
    if name not in OPTIONS:
        raise CommandError(f"There is no option {_quote(name)}. {_nearest(name, OPTIONS)}")
    low, high = OPTIONS[name].metadata["low"], OPTIONS[name].metadata["high"]
    try:
        number: float = type(low)(value)
    except ValueError:
        number = nan
    if not low <= number <= high:
        raise CommandError(
            f"The option `{name}` cannot be {_quote(value)}: it takes {_range(name)}."
        )
    return number


def _range(option: str) -> str:
    low, high = OPTIONS[option].metadata["low"], OPTIONS[option].metadata["high"]
    return f"{'a whole number' if isinstance(low, int) else 'a number'} from {low:g} to {high:.10g}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean `{near[0]}`?" if near else "`/help` lists what there is."


def _quote(text: str, most: int = 40) -> str:
    """Somebody's own words as a markdown code span, on one line, cut after `most` characters."""
    text = " ".join(text.replace("`", "'").split())
    return f"`{text[:most]}…`" if len(text) > most else f"`{text or ' '}`"


def tokenize(text: str) -> list[str]:
    """`text` in pieces of about a token's size, blanks in front; joined, they are `text`."""
    return re.findall(r"\s*\S{1,6}|\s+", text)


class DemoAgent:
    """Plays back what the prompt asks for; `/help` tells what that can be."""

    async def __call__(self, turn: Turn, /) -> AsyncIterator[Piece]:
        """Pieces of prepared text, status events, and a `Done("length")` if the text was cut.

        Raises AgentFailure where `error_at` says so. Cancelled or closed it ends at once, unless
        the prompt asked it to be stubborn or to clean up slowly.
        """
        nth = sum(message["role"] == "user" for message in turn.messages) - 1
        try:
            request = parse(turn.prompt, nth)
        except CommandError as error:
            request = Request(text=f"{INTRODUCTION} {error}")
        options = request.options
        tokens = tokenize(request.text)
        chance = random.Random(options.seed)
        loop = asyncio.get_running_loop()
        patience = _Patience(options.stubborn)
        try:
            await patience.sleep(options.ttft)
            if request.tools:
                for status, seconds in TOOL_STEPS:
                    yield status
                    await patience.sleep(seconds)
            due = loop.time()  # a timetable: late wake-ups do not slow the answer down
            for number, token in enumerate(_repeated(tokens, options.length), 1):
                if number == options.error_at:
                    raise AgentFailure(f"The demo failed at token {number}, as it was told to.")
                while number == options.hang_at:
                    await patience.sleep(3600)
                yield token
                if options.tps:
                    due += (1 + options.jitter * chance.uniform(-1, 1)) / options.tps
                    await patience.sleep(due - loop.time())
        except GeneratorExit:  # closed at a `yield`, which is being cancelled by another name
            await patience.outlast()
            raise
        finally:
            if options.cleanup:
                await asyncio.sleep(options.cleanup)
        if options.length is not None and options.length < len(tokens):
            yield Done("length")


def _repeated(tokens: list[str], length: int | None) -> Iterator[str]:
    """The tokens, cut to `length` or repeated up to it."""
    if length is None:
        return iter(tokens)
    return islice(chain(tokens, cycle(["\n\n", *tokens])), length)


class _Patience:
    """Sleeps on when it is cancelled, until `seconds` after the first time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._time = asyncio.get_running_loop().time
        self._end = inf

    async def sleep(self, delay: float) -> None:
        """Sleep `delay` seconds; CancelledError once the patience has run out."""
        wake = self._time() + delay
        while (left := min(wake, self._end) - self._time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                if not self._seconds:
                    raise
                self._end = min(self._end, self._time() + self._seconds)
        if self._time() >= self._end:
            raise asyncio.CancelledError  # the one that was ignored

    async def outlast(self) -> None:
        """Use up what patience is left, as if cancelled just now."""
        self._end = min(self._end, self._time() + self._seconds)
        with suppress(asyncio.CancelledError):
            await self.sleep(inf)


TOOL_STEPS: Final[tuple[tuple[Status, float], ...]] = (
    (Status("reasoning", detail="Reading the question"), 0.4),
    (Status("reasoning", detail="Choosing a tool"), 0.4),
    (Status("tool", name="search", detail="jarvis stream protocol", state="running"), 0.6),
    (Status("tool", name="search", detail="3 results", state="done", duration_ms=600), 0.2),
    (Status("tool", name="clock", detail="UTC", state="running"), 0.1),
    (
        Status("tool", name="clock", detail="no such zone", state="error", duration_ms=100),
        0,
    ),
)
"""The status events of `/tools`, and the seconds after each."""

SAMPLES: Final = (
    """\
## Lists and emphasis

Words can be *emphasised*, **strong**, ***both***, ~~struck out~~ or `code`.

1. First
2. Second
   - nested
   - and nested again
     - a third level, with `code`
3. Third

- [x] a task that is done
- [ ] a task that is not""",
    """\
## Code

```python
async def agent(turn):
    for word in turn.prompt.split():
        yield f"{word} "  # one piece
```

```js
const frames = text.split("\\n").filter(Boolean).map((line) => JSON.parse(line));
```

```sql
SELECT role, count(*) FROM messages WHERE content LIKE '%<b>%' GROUP BY role;
```

```bash
curl -N http://127.0.0.1:8765/api/chat -H 'Content-Type: application/json' \\
     -d '{"prompt": "Hello"}'
```

```json
{"type": "token", "seq": 2, "text": "Hello", "ok": true, "usage": null}
```

```html
<p class="note">Text &amp; <em>markup</em></p> <!-- shown, never run -->
```

```diff
- for await (const chunk of body) render(all += chunk);
+ for await (const chunk of body) queue(chunk);
```

    An indented block, and no language.""",
    """\
## A table, a quotation, links

| transport | media type | frames per write |
|:----------|:----------:|-----------------:|
| HTTP      | `application/x-ndjson` | 1 to many |
| WebSocket | text messages | 1 to many |

> A quotation
>
> > inside a quotation, with **strong** words.

A [link](https://example.org/ "with a title"), a bare one, https://example.org/?a=1&b=2, and a
footnote-like reference [1].

---

The end, after a rule.""",
    """\
## What breaks naive pages

- Mathematics: $e^{i\\pi} + 1 = 0$ and $$\\sum_{k=1}^{n} k = \\frac{n(n+1)}{2}$$
- Emoji of several code points: 👩‍🚀 🇩🇪 👍🏽 1️⃣
- Scripts: 日本語, العربية, हिन्दी, Ελληνικά, Zürich
- A long word: Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverordnung
- HTML that must stay harmless: <b>bold?</b> <img src=x onerror="alert(1)"> &lt;&amp;&gt;
- A link that must: [click](javascript:alert(1))
- Left **open at the end of a line, and `closed never""",
)
"""Markdown of every kind, one kind each."""

_TALK: Final = (
    f"{INTRODUCTION} This text stands in for an answer, so that there is something to watch, to "
    "stop and to interrupt. A second message in the middle of it supersedes it; `/help` lists the "
    "commands that change how fast it comes, how long it is, and how it goes wrong."
)

COMMANDS: Final[dict[str, Command]] = {
    "demo": Command(meaning="plays a text with the options given", text=_TALK),
    "echo": Command(meaning="says exactly the text given, and nothing else", verbatim=True),
    "markdown": Command(
        meaning="markdown of every kind", text="\n\n".join((INTRODUCTION, *SAMPLES))
    ),
    "tools": Command(
        meaning="thinking steps and tool calls, as status events",
        text=f"{INTRODUCTION} No tool was really called: these were status events.",
        tools=True,
    ),
    "fail": Command(
        meaning="fails at a token", text=_TALK, preset={"error_at": 20}, value="error_at"
    ),
    "hang": Command(
        meaning="falls silent at a token", text=_TALK, preset={"hang_at": 1}, value="hang_at"
    ),
    "stubborn": Command(
        meaning="ignores being cancelled for some seconds",
        text=_TALK,
        preset={"stubborn": 10, "length": 2000},
        value="stubborn",
    ),
    "cleanup": Command(
        meaning="takes some seconds to clean up",
        text=_TALK,
        preset={"cleanup": 1, "length": 2000},
        value="cleanup",
    ),
}


def _help() -> str:
    lines = [
        INTRODUCTION,
        "",
        "A command is `/name [value] [option=value …] [| text]`, for example "
        "`/demo tps=200 ttft=0.5 length=500 seed=7 error_at=20 | text`.",
        "",
    ]
    for name, command in COMMANDS.items():
        value = f" [{command.value}]" if command.value else " text" if command.verbatim else ""
        lines.append(f"- `/{name}{value}` {command.meaning}")
    lines += ["- `/help` lists all this", "", "Options, for every command:", ""]
    for name, option in OPTIONS.items():
        usual = "" if option.default is None else f"; usually {option.default:g}"
        lines.append(f"- `{name}` {option.metadata['meaning']} ({_range(name)}{usual})")
    return "\n".join(lines)


COMMANDS["help"] = Command(meaning="lists all this", text=_help(), preset={"tps": 200})

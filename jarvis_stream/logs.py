"""Where log records go, configured once and only by the entry point.

Whatever a record contains, it leaves as exactly one line: a JSON object, or on a terminal a line
for people. The package itself only ever calls `logger.bind(...).info("{}", value)`, or for the
lines that come with every answer `journal.tell`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from time import gmtime, localtime, strftime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, TextIO, TypeGuard

import orjson
from loguru import logger

from jarvis_stream import journal

if TYPE_CHECKING:
    from loguru import Message, Record

Style = Literal["auto", "pretty", "json"]

SHORTEST_SECRET: Final = 8
"""Anything shorter (`ollama`, `x`) protects nothing, and hiding it would mangle the log."""

_LIKE_SECRETS: Final = (
    # A URL's password, and the user it is of.
    re.compile(r"(://)[^\s/@:]*:[^\s/@]+(?=@)"),
    re.compile(r"(?i)\b((?:bearer|basic) +)[\w.~+/=-]{8,}"),
    re.compile(
        r"(?i)((?:api[_-]?key|passw(?:or)?d|secret|auth[_-]?token|access[_-]?token|cookie)"
        r"[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&]{4,}"
    ),
    # What OpenAI's keys look like, and what JSON Web Tokens do.
    re.compile(r"()\bsk-[\w-]{8,}"),
    re.compile(r"()\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
)
# In small letters: an ASCII text with none of these has nothing of the above.
_SIGNS: Final = "://", "bearer", "basic", "key", "passw", "secret", "token", "cookie", "sk-", "eyj"

# What ends a line somewhere (str.splitlines knows eleven ways), moves a terminal's cursor, turns
# text around, or cannot be encoded.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_HEX: Final = re.compile("[0-9a-f -]*")
HELD_BACK: Final = 0.02
"""Seconds for which a line of an answer's life is held back, so that many leave in one write."""

MOST_HELD_BACK: Final = 128
"""Lines that are held back at a time."""

_INFO: Final = 20
_worker: Final[dict[str, Any]] = {}
"""Which of several workers this process is, if it is one of several."""

_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_PLAIN: Final = "\x1b[0m"


def configure(
    level: str = "INFO",
    style: Style = "auto",
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send every record of loguru, stdlib logging and warnings to `stream` (stderr).

    Replaces whatever was configured before. `secrets` never appear in it, wherever in a record
    they stand.
    """
    out = sys.stderr if stream is None else stream
    if style == "json" or (style == "auto" and not out.isatty()):
        show: _Show = _json_lines
    else:
        coloured = out.isatty() and "NO_COLOR" not in os.environ
        show = _coloured_lines if coloured else _pretty_lines
    logger.remove()
    sink = _Sink(out, show, _Redactor(secrets))
    logger.add(sink, level=level, format="", backtrace=False, diagnose=False, colorize=False)
    journal.open_outlet(sink.tell if logger.level(level).no <= _INFO else _ignore)
    logging.basicConfig(handlers=[_ToLoguru()], level=logger.level(level).no, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each of its plugins
    logging.captureWarnings(True)


def flush() -> None:
    """Write what is still held back. For the end: what comes later is not held back for long."""
    for sink in tuple(_Sink.in_use):
        sink.write_out()


def name_worker(number: int) -> None:
    """Let every record of this process tell which of several workers it is."""
    _worker["worker"] = number
    logger.configure(extra=_worker)


class _Entry(NamedTuple):
    """What a line is made of, whichever way it came."""

    seconds: int
    """Since the epoch, and the microseconds beside them."""
    microseconds: int
    level: str
    name: str
    text: str
    exception: str | None
    extra: Mapping[str, Any]


_Show = Callable[[Sequence[_Entry], "_Redactor"], str]


class _Sink:
    """The place where all lines meet: loguru's, one by one, and the journal's.

    The journal's are held back for HELD_BACK seconds at most, so that many leave in one write; a
    line of loguru's takes those that were told before it along.
    """

    in_use: ClassVar[set[_Sink]] = set()

    def __init__(self, out: TextIO, show: _Show, redact: _Redactor) -> None:
        self._out = out
        self._show = show
        self._redact = redact
        self._lock = threading.Lock()
        self._told: list[journal.Line] = []
        self.in_use.add(self)

    def write(self, message: Message) -> None:
        """Write a line of loguru's."""
        entry = _entry_of(message.record)
        with self._lock:
            self._write(self._text([*map(_entry_told, self._take()), entry]))

    def tell(self, line: journal.Line) -> None:
        """Take a line of the journal's."""
        with self._lock:
            self._told.append(line)
            count = len(self._told)
        if count == 1:
            asyncio.get_running_loop().call_later(HELD_BACK, self.write_out)
        elif count >= MOST_HELD_BACK:
            self.write_out()

    def write_out(self) -> None:
        """Hold nothing back any longer."""
        # As with loguru's own lines, a log that nobody reads any more stops nothing.
        with self._lock, contextlib.suppress(OSError, ValueError):
            if told := self._take():
                is_plain = self._show is _json_lines and _are_plain(told, self._redact)
                text = _plain_json(told) if is_plain else self._text(map(_entry_told, told))
                self._write(text)

    def stop(self) -> None:
        """Loguru has let it go."""
        journal.open_outlet(None)
        self.write_out()
        self.in_use.discard(self)

    def _take(self) -> list[journal.Line]:
        told, self._told = self._told, []
        return told

    def _text(self, entries: Iterable[_Entry]) -> str:
        return self._show([*entries], self._redact)

    def _write(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def _ignore(line: journal.Line) -> None:
    """For a level that has no room for it."""


def _entry_of(record: Record) -> _Entry:
    time = record["time"]
    return _Entry(
        int(time.timestamp()),
        time.microsecond,
        record["level"].name,
        record["name"] or "",
        record["message"],
        _exception_text(record),
        record["extra"],
    )


def _entry_told(line: journal.Line) -> _Entry:
    seconds, microseconds = divmod(line.at // 1000, 1_000_000)
    extra = {**_worker, **line.ids}
    return _Entry(seconds, microseconds, "INFO", journal.__name__, line.text, None, extra)


# Most lines are the journal's, and nearly all of those are made of nothing but letters and digits:
# the same JSON as `_json_lines` makes, at half the price.


def _are_plain(lines: Sequence[journal.Line], redact: _Redactor) -> bool:
    """Whether nothing in the lines has to be escaped or hidden."""
    text = " ".join([f"{line.text} {line.session}" for line in lines])
    ids = " ".join([f"{line.trace} {line.stream}" for line in lines])
    return (
        _HEX.fullmatch(ids) is not None
        and not redact.knows(ids)
        and text.isprintable()
        and '"' not in text
        and "\\" not in text
        and not redact.suspects(text)
    )


def _plain_json(lines: Sequence[journal.Line]) -> str:
    after = '"' + "".join([f',"{key}":"{value}"' for key, value in _worker.items()])
    return "\n".join([_plain_line(line, after) for line in lines])


def _plain_line(line: journal.Line, after: str) -> str:
    seconds, microseconds = divmod(line.at // 1000, 1_000_000)
    return (
        f'{{"time":"{_second(seconds)}.{microseconds:06}Z","level":"INFO"'
        f',"logger":"{journal.__name__}","message":"{line.text}{after}'
        f',"trace":"{line.trace}","session":"{line.session}","stream":"{line.stream}"}}'
    )


class _Redactor:
    """Hides secrets: those it knows, and what looks like one (an exception of somebody else's may
    quote one of theirs)."""

    def __init__(self, secrets: Iterable[str]) -> None:
        hidden = (secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
        self._hidden = sorted(hidden, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self.suspects(text):
            for secret in self._hidden:
                text = text.replace(secret, "***")
            for pattern in _LIKE_SECRETS:
                text = pattern.sub(r"\1***", text)
        return text

    def suspects(self, text: str) -> bool:
        """Whether there may be one: cheap, and False for nearly every line."""
        small = text.lower()
        return not text.isascii() or self.knows(text) or any(sign in small for sign in _SIGNS)

    def knows(self, text: str) -> bool:
        """Whether a secret that was told stands in it."""
        return any(secret in text for secret in self._hidden)


def _escape(text: str, how: Callable[[re.Match[str]], str]) -> str:
    return text if text.isprintable() else _UNSAFE.sub(how, text)


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


@lru_cache(maxsize=2)
def _local_second(seconds: int) -> str:
    return strftime("%H:%M:%S", localtime(seconds))


def _exception_text(record: Record) -> str | None:
    # Not loguru's own formatting: with `diagnose` it prints the values of variables.
    exception = record["exception"]
    if exception is None:
        return None
    return "".join(traceback.format_exception(exception.value)).rstrip()


def _json_lines(entries: Sequence[_Entry], redact: _Redactor) -> str:
    lines = [_fields_of(entry) for entry in entries]
    # All of it is looked at in one go; seldom does that find a reason to look at each.
    if redact.suspects(
        "\n".join([text for line in lines for text in filter(_is_text, line.values())])
    ):
        lines = [
            {key: redact(value) if _is_text(value) else value for key, value in line.items()}
            for line in lines
        ]
    try:
        raw = b"\n".join([orjson.dumps(line) for line in lines])
    except TypeError:  # a lone surrogate
        raw = b"\n".join([orjson.dumps(_without_surrogates(line)) for line in lines])
    text = raw.decode()
    if text.replace("\n", "").isprintable():
        return text
    # Inside a JSON string \\uXXXX is the character itself: nothing is lost by escaping it.
    return "\n".join(
        [_escape(line, lambda found: f"\\u{ord(found[0]):04x}") for line in text.split("\n")]
    )


_Fields = dict[str, str | bool | None]


def _fields_of(entry: _Entry) -> _Fields:
    fields: _Fields = {
        "time": f"{_second(entry.seconds)}.{entry.microseconds:06}Z",
        "level": entry.level,
        "logger": entry.name,
        "message": entry.text,
    }
    if entry.exception is not None:
        fields["exception"] = entry.exception
    for key, value in entry.extra.items():
        fields.setdefault(key, value if value is None or isinstance(value, bool) else str(value))
    return fields


def _without_surrogates(fields: _Fields) -> _Fields:
    return {
        key: value.encode(errors="backslashreplace").decode() if _is_text(value) else value
        for key, value in fields.items()
    }


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _pretty_line(entry: _Entry, redact: _Redactor, colour: str = "") -> str:
    level = f"{entry.level:<8}"
    text = entry.text if entry.exception is None else f"{entry.text} {entry.exception}"
    if "worker" in entry.extra:
        text = f"[{entry.extra['worker']}] {text}"
    if colour:
        level = f"{colour}{level}{_PLAIN}"
    time = f"{_local_second(entry.seconds)}.{entry.microseconds // 1000:03}"
    return f"{time} {level} {_escape(redact(text), lambda found: ascii(found[0])[1:-1])}"


def _pretty_lines(entries: Sequence[_Entry], redact: _Redactor) -> str:
    return "\n".join([_pretty_line(entry, redact) for entry in entries])


def _coloured_lines(entries: Sequence[_Entry], redact: _Redactor) -> str:
    return "\n".join(
        [_pretty_line(each, redact, _COLOURS.get(each.level, "\x1b[2m")) for each in entries]
    )


class _ToLoguru(logging.Handler):
    """Hands stdlib records (aiohttp, asyncio, warnings) on to loguru, under their logger's name."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # the arguments do not fit the format
            text = f"{record.msg} {record.args}"

        def under_its_name(ours: Record) -> None:
            ours["name"] = record.name

        ours = logger.patch(under_its_name).opt(exception=record.exc_info)
        ours.log(_loguru_level(record), "{}", text)


def _loguru_level(record: logging.LogRecord) -> str | int:
    try:
        return logger.level(record.levelname).name
    except ValueError:  # a level that loguru has no name for
        return record.levelno

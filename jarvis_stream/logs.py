"""Where log records go, configured once and only by the entry point.

Whatever a record contains, it leaves as exactly one line: a JSON object, or on a terminal a line
for people. The package itself only ever calls `logger.bind(...).info("{}", value)`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import gmtime, strftime
from typing import TYPE_CHECKING, Final, Literal, TextIO, TypeGuard

import orjson
from loguru import logger

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
    redact = _Redactor(secrets)
    if style == "json" or (style == "auto" and not out.isatty()):
        line_of = _json_line
    else:
        line_of = _coloured_line if out.isatty() and "NO_COLOR" not in os.environ else _pretty_line

    def sink(message: Message) -> None:
        out.write(line_of(message.record, redact) + "\n")
        out.flush()

    logger.remove()
    logger.add(sink, level=level, format="", backtrace=False, diagnose=False, colorize=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logger.level(level).no, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each of its plugins
    logging.captureWarnings(True)


def name_worker(number: int) -> None:
    """Let every record of this process tell which of several workers it is."""
    logger.configure(extra={"worker": number})


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
        if any(secret in text for secret in self._hidden):
            return True
        small = text.lower()
        return not text.isascii() or any(sign in small for sign in _SIGNS)


def _escape(text: str, how: Callable[[re.Match[str]], str]) -> str:
    return text if text.isprintable() else _UNSAFE.sub(how, text)


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


def _exception_text(record: Record) -> str | None:
    # Not loguru's own formatting: with `diagnose` it prints the values of variables.
    exception = record["exception"]
    if exception is None:
        return None
    return "".join(traceback.format_exception(exception.value)).rstrip()


def _json_line(record: Record, redact: _Redactor) -> str:
    time = record["time"]
    line: dict[str, str | bool | None] = {
        "time": f"{_second(int(time.timestamp()))}.{time.microsecond:06}Z",
        "level": record["level"].name,
        "logger": record["name"],
        "message": record["message"],
    }
    if (exception := _exception_text(record)) is not None:
        line["exception"] = exception
    for key, value in record["extra"].items():
        line.setdefault(key, value if value is None or isinstance(value, bool) else str(value))
    # All of it is looked at in one go; seldom does that find a reason to look at each.
    if redact.suspects("\n".join(filter(_is_text, line.values()))):
        line = {key: redact(value) if _is_text(value) else value for key, value in line.items()}
    try:
        text = orjson.dumps(line)
    except TypeError:  # a lone surrogate
        text = orjson.dumps(
            {
                key: value.encode(errors="backslashreplace").decode() if _is_text(value) else value
                for key, value in line.items()
            }
        )
    # Inside a JSON string \\uXXXX is the character itself: nothing is lost by escaping it.
    return _escape(text.decode(), lambda found: f"\\u{ord(found[0]):04x}")


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _pretty_line(record: Record, redact: _Redactor, colour: str = "") -> str:
    level = f"{record['level'].name:<8}"
    text = record["message"]
    if (exception := _exception_text(record)) is not None:
        text = f"{text} {exception}"
    if "worker" in record["extra"]:
        text = f"[{record['extra']['worker']}] {text}"
    if colour:
        level = f"{colour}{level}{_PLAIN}"
    time = record["time"].strftime("%H:%M:%S.%f")[:-3]
    return f"{time} {level} {_escape(redact(text), lambda found: ascii(found[0])[1:-1])}"


def _coloured_line(record: Record, redact: _Redactor) -> str:
    return _pretty_line(record, redact, _COLOURS.get(record["level"].name, "\x1b[2m"))


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

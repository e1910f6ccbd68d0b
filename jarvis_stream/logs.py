"""Where log records go, configured once and only by the entry point.

Whatever a record contains, it leaves as exactly one line: a JSON object, or on a terminal a line
for people. The package itself only ever calls `logger.bind(...).info("{}", value)`, or for the
lines that come with every answer `journal.tell`.

No caller waits for the log: a thread formats and writes what the callers queue (line_writer.py).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from time import gmtime, localtime, strftime, time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TextIO, TypeGuard

import orjson
from loguru import logger

from jarvis_stream import journal, line_writer
from jarvis_stream.line_writer import Dropped, LineWriter

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
    # What OpenAI's keys look like, and what JSON Web Tokens do, whole or cut off by the end. Every
    # pattern is linear: this one starts once in a run of such characters, and never goes back.
    re.compile(r"()\bsk-[\w-]{8,}"),
    re.compile(
        r"((?<![\w-])(?:[A-Za-z0-9]++-)?)eyJ[\w-]{8,}+(?:\.[\w-]{8,}+\.[\w-]*+|(?:\.[\w-]*+)?\Z)"
    ),
)
# In small letters: an ASCII text with none of these has nothing of the above.
_SIGNS: Final = "://", "bearer", "basic", "key", "passw", "secret", "token", "cookie", "sk-", "eyj"

# What ends a line somewhere (str.splitlines knows eleven ways), moves a terminal's cursor, turns
# text around, or cannot be encoded.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_HEX: Final = re.compile("[0-9a-f -]*")
MAX_TEXT: Final = 4 * 1024
"""Characters of a message or of a field; more are cut off before secrets are searched in them."""

MAX_EXCEPTION: Final = 32 * 1024
"""Characters of a traceback; more are left out of its middle."""

MAX_EXCEPTION_LINE: Final = 2 * 1024
"""Characters of each of its lines."""

_MARGIN: Final = 1024
"""Characters after a cut that are searched for secrets too: no secret is longer."""

MAX_FIELDS: Final = 50
"""Fields of a record; further ones are left out."""

_MAX_FRAMES: Final = 100
"""Frames of a traceback, counted from the place where the exception was raised."""

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
    out = sys.__stderr__ if stream is None else stream
    if stream is None and not isinstance(sys.stderr, _Console):
        out = sys.stderr
    assert out is not None
    logger.remove()
    sink = _Sink(out, _resolve(style, out), _Redactor(secrets))
    sink.is_json_wanted = style == "json"
    logger.add(sink, level=level, format="", backtrace=False, diagnose=False, colorize=False)
    journal.open_outlet(sink.tell if logger.level(level).no <= _INFO else _ignore)
    logging.basicConfig(handlers=[_ToLoguru()], level=logger.level(level).no, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each of its plugins
    logging.captureWarnings(True)
    global _sink
    _sink = sink


def _resolve(style: Style, out: TextIO) -> Literal["pretty", "json"]:
    """What `auto` means for a file: pretty on a terminal, JSON elsewhere."""
    if style == "auto":
        return "pretty" if out.isatty() else "json"
    return style


def flush(timeout: float = line_writer.FLUSH_TIMEOUT) -> None:
    """Wait until the lines logged and printed so far are written, at most `timeout` seconds."""
    line_writer.flush_all(timeout)


def dropped_lines() -> int:
    """How many lines this process has lost because nothing took them."""
    return line_writer.dropped_lines()


def complain(sentence: str) -> None:
    """Write why the program cannot go on: as a record, or as a line for people."""
    assert _sink is not None, "configure comes first"
    # One line, even if it quotes an exception of somebody else's.
    sentence = _cut(" ".join(sentence.split()), MAX_TEXT, _sink.redact)
    if _sink.is_json:
        _sink.put(_entry_now("CRITICAL", "jarvis_stream", sentence))
    else:
        _sink.put(f"jarvis-stream: {sentence}\n")


@contextlib.contextmanager
def capturing() -> Iterator[None]:
    """Send what is printed, and every uncaught exception, the way of the log while inside.

    Only after `configure`. Where the log is JSON, each line that is printed to stderr is a record.
    To stdout, too, if JSON is asked for or stdout is the log's own file; a program that starts this
    one with a pipe of its own as stdout reads the lines as they are. No print waits for a reader.
    """
    assert _sink is not None, "configure comes first"
    stdout, stderr = sys.stdout, sys.stderr
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    is_json = _sink.is_json and (_sink.is_json_wanted or _is_same_file(stdout, stderr))
    printed = _Sink(stdout, "json" if is_json else "pretty", _sink.redact)
    try:
        sys.stdout = _Console(stdout, printed, "stdout")
        sys.stderr = _Console(stderr, _sink, "stderr")
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
        sys.unraisablehook = _log_unraisable
        yield
    except Exception as error:
        _log_uncaught(type(error), error, error.__traceback__)
        raise SystemExit(1) from error
    finally:
        for console in (sys.stdout, sys.stderr):
            if isinstance(console, _Console):
                console.finish()
        sys.stdout, sys.stderr = stdout, stderr
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        flush()
        printed.stop()


def _is_same_file(one: TextIO, other: TextIO) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError, AttributeError):
        return False


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    logger.opt(exception=error).critical("uncaught_exception error={}", kind.__name__)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        logger.opt(exception=args.exc_value).error(
            "uncaught_exception thread={} error={}", name, args.exc_type.__name__
        )


def _log_unraisable(args: sys.UnraisableHookArgs) -> None:
    logger.opt(exception=args.exc_value).error(
        "unraisable_exception error={} where={}",
        args.exc_type.__name__,
        args.err_msg or type(args.object).__name__,
    )


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
_Item = _Entry | journal.Line | str | Dropped
"""What is queued; a str is text for people that is written as it is."""


_LINE_SIZE: Final = 400
"""Bytes that a line of the journal's takes, roughly: its ids are bounded."""


class _Sink:
    """The place where all lines meet: loguru's, the journal's, and what is printed."""

    def __init__(
        self, out: TextIO, style: Literal["pretty", "json"], redact: _Redactor | None = None
    ) -> None:
        self.redact = redact or _Redactor(())
        self.is_json = style == "json"
        self.is_json_wanted = False
        """Whether JSON was asked for, and not chosen because the log is no terminal."""
        if self.is_json:
            self._show: _Show = _json_lines
        else:
            coloured = out.isatty() and "NO_COLOR" not in os.environ
            self._show = _coloured_lines if coloured else _pretty_lines
        self._writer = LineWriter(out, self._render)

    def write(self, message: Message) -> None:
        """Queue a line of loguru's."""
        self.put(_entry_of(message.record, self.redact))

    def put(self, item: _Entry | str) -> None:
        """Queue a line; it leaves at once, and takes those before it along."""
        self._writer.put(item, _size_of(item), urgent=True)

    def tell(self, line: journal.Line) -> None:
        """Queue a line of the journal's; it may wait for others."""
        self._writer.put(line, _LINE_SIZE)

    def stop(self) -> None:
        """Write what is queued, and end; loguru calls this when it removes the sink."""
        global _sink
        if _sink is self:
            journal.open_outlet(None)
            _sink = None
        self._writer.close()

    def _render(self, items: Sequence[_Item]) -> str:
        # Runs of one kind: what the journal tells is mostly plain, and cheap in one piece.
        kinds = {*map(type, items)}
        if len(kinds) == 1:
            return self._render_run(kinds.pop(), items)
        return "".join(
            [self._render_run(kind, list(run)) for kind, run in itertools.groupby(items, type)]
        )

    def _render_run(self, kind: type[_Item], run: Sequence[Any]) -> str:
        if kind is str:
            return "".join(run)
        if kind is journal.Line and self.is_json and _are_plain(run, self.redact):
            return _plain_json(run) + "\n"
        return self._show([_as_entry(item) for item in run], self.redact) + "\n"


_sink: _Sink | None = None
"""Where the log goes, once it is configured."""


class _Console(io.TextIOBase):
    """Takes the place of sys.stdout or sys.stderr: what is printed is queued like the log."""

    def __init__(self, file: TextIO, sink: _Sink, name: str) -> None:
        self._file = file
        self._sink = sink
        self._name = name
        self._begun = ""
        self.unlock()
        _consoles.append(self)

    def unlock(self) -> None:
        """Replace the lock, which another thread may have held when this process was forked."""
        # Reentrant: the garbage collector may print while this thread holds it.
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Queue whole lines; a begun line waits for its end, or for `flush` on a terminal."""
        with self._lock:
            self._begun += text
            if "\n" in self._begun or len(self._begun) > MAX_TEXT:
                whole, end, self._begun = self._begun.rpartition("\n")
                if not end:
                    whole, self._begun = self._begun, ""
                self._put(whole + end)
        return len(text)

    def _put(self, text: str) -> None:
        if self._sink.is_json:
            for line in text.splitlines():
                if line.strip():
                    text = _cut(line, MAX_TEXT, self._sink.redact)
                    self._sink.put(_entry_now("INFO", self._name, text))
        else:
            for start in range(0, len(text), MAX_TEXT):
                self._sink.put(text[start : start + MAX_TEXT])

    def flush(self) -> None:
        """Hurry what is printed along. Does not wait."""
        with self._lock:
            if self._begun and not self._sink.is_json:
                begun, self._begun = self._begun, ""
                self._sink.put(begun)

    def finish(self) -> None:
        """Queue a begun line, too: nothing more is printed."""
        with self._lock:
            begun, self._begun = self._begun, ""
            if begun:
                self._put(begun)

    def writable(self) -> bool:
        """See io.IOBase."""
        return True

    def isatty(self) -> bool:
        """See io.IOBase."""
        return self._file.isatty()

    def fileno(self) -> int:
        """See io.IOBase."""
        return self._file.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """See io.TextIOBase."""
        return self._file.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


_consoles: Final[list[_Console]] = []
"""Every console there was: `print` of a thread may use one after it was replaced, and keeps no
reference of its own."""


def _unlock_consoles() -> None:
    for console in _consoles:
        console.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_consoles)


def _ignore(line: journal.Line) -> None:
    """For a level that has no room for it."""


def _as_entry(item: _Entry | journal.Line | Dropped) -> _Entry:
    if isinstance(item, _Entry):
        return item
    if isinstance(item, journal.Line):
        return _entry_told(item)
    return _entry_now("WARNING", __name__, f"log_lines_dropped count={item.count}")


def _entry_now(level: str, name: str, text: str) -> _Entry:
    seconds, nanoseconds = divmod(time_ns(), 1_000_000_000)
    return _Entry(seconds, nanoseconds // 1000, level, name, text, None, {**_worker})


def _size_of(item: _Entry | str) -> int:
    if isinstance(item, str):
        return len(item)
    texts = (item.text, item.exception or "", *filter(_is_text, item.extra.values()))
    return sum(map(len, texts))


def _cut(text: str, most: int, redact: _Redactor) -> str:
    """The text, or its beginning without secrets, and how long it was."""
    if len(text) <= most:
        return text
    # A secret at the cut is found whole in the margin, and what is half a secret stands in it.
    return f"{redact(text[: most + _MARGIN])[:-_MARGIN]}… ({len(text)} characters)"


def _entry_of(record: Record, redact: _Redactor) -> _Entry:
    time = record["time"]
    return _Entry(
        int(time.timestamp()),
        time.microsecond,
        record["level"].name,
        record["name"] or "",
        _cut(record["message"], MAX_TEXT, redact),
        _exception_text(record, redact),
        {
            _cut(str(key), MAX_TEXT, redact): value
            if value is None or isinstance(value, bool)
            else _cut(str(value), MAX_TEXT, redact)
            for key, value in itertools.islice(record["extra"].items(), MAX_FIELDS)
        },
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


def _exception_text(record: Record, redact: _Redactor) -> str | None:
    # Not loguru's own formatting: with `diagnose` it prints the values of variables.
    exception = record["exception"]
    if exception is None:
        return None
    lines = traceback.format_exception(exception.value, limit=-_MAX_FRAMES)
    lines = "".join(lines).rstrip().split("\n")
    first = _how_many_fit(lines, MAX_EXCEPTION // 2)
    last = _how_many_fit(reversed(lines[first:]), MAX_EXCEPTION // 2)
    left_out = len(lines) - first - last
    if left_out:
        lines = [*lines[:first], f"… ({left_out} lines)", *lines[len(lines) - last :]]
    return "\n".join([_cut(line, MAX_EXCEPTION_LINE, redact) for line in lines])


def _how_many_fit(lines: Iterable[str], room: int) -> int:
    """How many lines, cut as they will be, have room for their characters."""
    count = 0
    for line in lines:
        room -= min(len(line), MAX_EXCEPTION_LINE) + 1
        if room < 0:
            break
        count += 1
    return count


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

"""Logs: exactly one line per record, whatever it contains, and never a secret."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from jarvis_stream import journal, logs

NASTY = "a\r\nb\x1b[2Jc\u2028d\u2029e\x85f\x00g\u202eh\x7fi<red>j</red>{k}{}\ud800"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def configured(style: logs.Style = "json", *, secret: str | None = None) -> io.StringIO:
    out = io.StringIO()
    logs.configure("TRACE", style, secrets=[secret] if secret else [], stream=out)
    return out


def only_record(out: io.StringIO) -> dict[str, Any]:
    logs.flush()
    (line,) = out.getvalue().splitlines()
    record = orjson.loads(line)
    assert isinstance(record, dict)
    return record


def only_line(out: io.StringIO) -> str:
    logs.flush()
    (line,) = out.getvalue().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d [A-Z]+ +", line)
    return line


def fail(text: str) -> None:
    raise ValueError(text)


@given(text=st.text(st.characters(exclude_categories=())), extra=st.text())
def test_any_text_is_one_json_record(text: str, extra: str) -> None:
    out = configured()
    logger.bind(session=extra).info("{}", text)
    record = only_record(out)
    if text.isprintable():
        assert record["message"] == text
    assert out.getvalue().count("\n") == 1


@given(text=st.text(st.characters(exclude_categories=())))
def test_any_text_is_one_pretty_line(text: str) -> None:
    out = configured("pretty")
    logger.info("{}", text)
    line = only_line(out)
    assert line + "\n" == out.getvalue()
    assert "\x1b" not in line


@given(
    text=st.text(st.characters(exclude_categories=())), style=st.sampled_from(["json", "pretty"])
)
def test_any_exception_is_one_line(text: str, style: logs.Style) -> None:
    out = configured(style)
    try:
        fail(text)
    except ValueError:
        logger.exception("stream_generator_exception trace={}", "t1")
    logs.flush()
    assert len(out.getvalue().splitlines()) == 1


def test_nasty_text_is_kept_but_can_do_nothing() -> None:
    out = configured()
    logger.bind(session=NASTY).info("{}", NASTY)
    record = only_record(out)
    readable = NASTY.replace("\ud800", "\\ud800")
    assert record["message"] == record["session"] == readable
    assert "\x1b" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_nasty_text_is_escaped_on_a_terminal() -> None:
    out = configured("pretty")
    logger.info("{}", NASTY)
    assert only_line(out).endswith(
        r"a\r\nb\x1b[2Jc\u2028d\u2029e\x85f\x00g\u202eh\x7fi<red>j</red>{k}{}\ud800"
    )


def test_a_json_record_has_time_level_logger_message_and_what_is_bound() -> None:
    out = configured()
    logger.bind(trace="t1", stream="s1").info("stream_end trace={} duration_ms={}", "t1", 12)
    record = only_record(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("time"))
    assert record == {
        "level": "INFO",
        "logger": __name__,
        "message": "stream_end trace=t1 duration_ms=12",
        "trace": "t1",
        "stream": "s1",
    }


def test_what_is_bound_cannot_replace_the_records_own_fields() -> None:
    out = configured()
    logger.bind(message="forged", level="forged", big=10**30, none=None).info("real")
    record = only_record(out)
    assert (record["message"], record["level"]) == ("real", "INFO")
    assert (record["big"], record["none"]) == (str(10**30), None)


def test_a_traceback_stands_in_the_record_without_the_values_of_variables() -> None:
    out = configured()
    hidden = "value-of-a-variable"
    try:
        fail(hidden[:0] + "boom")
    except ValueError:
        logger.exception("it failed")
    record = only_record(out)
    assert record["message"] == "it failed"
    assert record["exception"].startswith("Traceback (most recent call last):\n")
    assert record["exception"].endswith("ValueError: boom")
    assert hidden not in record["exception"]


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_a_secret_never_leaves(style: logs.Style) -> None:
    secret = "sk-0123456789"
    out = configured(style, secret=secret)
    logger.bind(session=f"<{secret}>").info("Bearer {}", secret)
    logging.getLogger("x").warning("key=%s", secret)
    try:
        fail(f"401 for {secret}")
    except ValueError:
        logger.exception("refused")
    logs.flush()
    assert secret not in out.getvalue()
    assert "Bearer ***" in out.getvalue()
    assert "401 for ***" in out.getvalue()


def test_a_word_too_short_to_protect_anything_is_left_alone() -> None:
    out = configured(secret="ollama")
    logger.info("http://ollama:11434")
    assert only_record(out)["message"] == "http://ollama:11434"


def test_stdlib_records_join_the_stream_under_their_own_name() -> None:
    out = configured()
    try:
        fail("boom")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error %s\n", "handling")
    record = only_record(out)
    assert (record["logger"], record["level"]) == ("aiohttp.server", "ERROR")
    assert record["message"] == "Error handling\n"
    assert record["exception"].endswith("ValueError: boom")


def test_a_stdlib_record_with_the_wrong_arguments_is_still_one_line() -> None:
    out = configured()
    logging.getLogger("x").warning("%d items", "no")
    assert "%d items" in only_record(out)["message"]


def test_a_stdlib_level_loguru_does_not_know_is_kept() -> None:
    out = configured()
    logging.getLogger("x").log(35, "between")
    assert only_record(out)["level"] == "Level 35"


def test_warnings_join_the_stream() -> None:
    out = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nways", UserWarning, stacklevel=1)
    assert "old\nways" in only_record(out)["message"]


def test_records_below_the_level_are_left_out() -> None:
    out = io.StringIO()
    logs.configure("WARNING", "json", stream=out)
    logger.info("quiet")
    logging.getLogger("x").info("quiet")
    logs.flush()
    assert out.getvalue() == ""


def test_configuring_again_replaces_what_was() -> None:
    first, second = configured(), configured()
    logger.info("hello")
    logging.getLogger("x").info("hello")
    logs.flush()
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 2


def test_auto_is_pretty_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    logs.configure("INFO", "auto", stream=terminal)
    logger.error("hello")
    logs.flush()
    assert "\x1b[31mERROR   \x1b[0m hello\n" in terminal.getvalue()
    other = io.StringIO()
    logs.configure("INFO", "auto", stream=other)
    logger.error("hello")
    assert only_record(other)["message"] == "hello"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    logs.configure("INFO", "auto", stream=terminal)
    logger.error("hello")
    logs.flush()
    assert "\x1b" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgres://jarvis:hunter2@db/x?a=b", "at postgres://***@db/x?a=b"),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"),
        ('{"api_key": "abcdefgh", "b": 1}', '{"api_key": "***", "b": 1}'),
        ("connect(password=hunter2, user=x)", "connect(password=***, user=x)"),
        ("Incorrect API key provided: sk-proj-abcdefgh1234.", "Incorrect API key provided: ***."),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln is no token", "*** is no token"),
        (
            "API-KEY=HUNTER22; PASSWD: HUNTER22, BEARER HUNTER22",
            "API-KEY=***; PASSWD: ***, BEARER ***",
        ),
        ("the auth-Token: hunter22, the Cookie: hunter22", "the auth-Token: ***, the Cookie: ***"),
        ("the \u017fecret: hunter22", "the \u017fecret: ***"),
        ("basic things, a secret garden, http://a.example/b@c", None),
        ("stream_cancelled trace=0123456789abcdef reason=client_stop session=s-1", None),
    ],
)
def test_what_looks_like_a_secret_is_hidden(
    logging_as_it_was: None, text: str, shown: str | None
) -> None:
    out = io.StringIO()
    logs.configure("INFO", "json", stream=out)
    logger.info("{}", text)
    logs.flush()
    assert orjson.loads(out.getvalue())["message"] == (text if shown is None else shown)


IDS = {"trace": "t1", "session": "s1", "stream": "i1"}


def told(out: io.StringIO) -> list[str]:
    logs.flush()
    return [orjson.loads(line)["message"] for line in out.getvalue().splitlines()]


async def test_a_line_of_an_answers_life_is_like_any_other() -> None:
    out = configured()
    journal.tell("stream_end trace=t1 duration_ms=3", **IDS)
    logs.flush()
    record = only_record(out)
    logger.bind(**IDS).info("{}", "stream_end trace=t1 duration_ms=3")
    logs.flush()
    other = orjson.loads(out.getvalue().splitlines()[1])
    assert record.keys() == other.keys()
    for each in (record, other):
        assert re.fullmatch(r"\d{4}(-\d\d){2}T\d\d(:\d\d){2}\.\d{6}Z", each.pop("time"))
        each.pop("logger")
    assert record == other


async def test_lines_of_answers_leave_together_and_soon() -> None:
    written = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Out(io.StringIO):
        def flush(self) -> None:
            loop.call_soon_threadsafe(written.set)

    out = Out()
    logs.configure("INFO", "json", stream=out)
    for number in range(3):
        journal.tell(f"line {number}", **IDS)
    await written.wait()
    assert told(out) == ["line 0", "line 1", "line 2"]


async def test_a_line_of_another_kind_takes_those_before_it_along() -> None:
    out = configured()
    journal.tell("first", **IDS)
    logger.warning("second")
    journal.tell("third", **IDS)
    logger.info("fourth")
    assert told(out) == ["first", "second", "third", "fourth"]


async def test_secrets_stay_out_of_the_lines_of_answers() -> None:
    out = configured(secret="hunter2hunter2")
    journal.tell("stream_end trace=t1", **IDS)
    journal.tell("stream_end trace=t2", **{**IDS, "session": "hunter2hunter2"})
    logs.flush()
    assert "hunter2" not in out.getvalue()
    assert [orjson.loads(line)["session"] for line in out.getvalue().splitlines()] == ["s1", "***"]


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=())) | st.text("a=1 "), min_size=1),
    session=st.sampled_from(["s-1", "hunter2hunter2", 'q"', "sk-0123456789", "\ud800"]),
    stream=st.sampled_from(["0196f0a0-1111", "hunter2hunter2", "cafe0123cafe", "\\"]),
    worker=st.booleans(),
)
def test_held_back_or_not_a_line_is_the_same(
    texts: list[str], session: str, stream: str, worker: bool
) -> None:
    async def tell() -> None:
        for text in texts:
            journal.tell(text, "0123456789abcdef", session, stream)
        logs.flush()

    out = io.StringIO()
    logs.configure("INFO", "json", stream=out, secrets=["hunter2hunter2", "cafe0123cafe"])
    if worker:
        logs.name_worker(3)
    try:
        asyncio.run(tell())
        together = [orjson.loads(line) for line in out.getvalue().splitlines()]
        journal.open_outlet(None)
        out.seek(0)
        out.truncate()
        asyncio.run(tell())
        logs.flush()
        one_by_one = [orjson.loads(line) for line in out.getvalue().splitlines()]
    finally:
        logs._worker.clear()
        logger.configure(extra={})
    for line in (*together, *one_by_one):
        assert line.keys() >= {"time", "logger"}
        del line["time"], line["logger"]
    assert together == one_by_one


@given(
    text=st.text(st.characters(exclude_categories=())), style=st.sampled_from(["json", "pretty"])
)
def test_any_line_of_an_answer_is_one_line(text: str, style: logs.Style) -> None:
    async def tell() -> None:
        logs.flush()
        out.seek(0)
        out.truncate()  # asyncio tells of itself
        journal.tell(text, **IDS)

    out = configured(style)
    asyncio.run(tell())
    logs.flush()
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


async def test_below_their_level_the_lines_of_answers_are_not_told() -> None:
    out = io.StringIO()
    logs.configure("WARNING", "json", stream=out)
    journal.tell("stream_end trace=t1", **IDS)
    logs.flush()
    assert out.getvalue() == ""


def test_long_texts_are_cut_and_tell_how_long_they_were() -> None:
    out = configured()
    logger.bind(session="s" * 10_000).info("{}", "x" * 1_000_000)
    record = only_record(out)
    assert record["message"] == "x" * logs.MAX_TEXT + "… (1000000 characters)"
    assert record["session"] == "s" * logs.MAX_TEXT + "… (10000 characters)"


@pytest.mark.parametrize("text", ["x" * 10_000_000, "x\n" * 1_000_000, "x" * 500 + "\n" * 500])
def test_a_traceback_is_bounded_and_keeps_its_frames(text: str) -> None:
    out = configured()
    try:
        fail(text)
    except ValueError:
        logger.exception("failed")
    record = only_record(out)
    assert len(record["exception"]) < 2 * logs.MAX_EXCEPTION
    assert "in fail" in record["exception"]


@pytest.mark.parametrize("secret", ["hunter2hunter2", "sk-" + "0123456789" * 20])
def test_no_part_of_a_secret_that_stands_at_a_cut_is_logged(secret: str) -> None:
    for before in range(logs.MAX_TEXT - len(secret), logs.MAX_TEXT + 1, 3):
        out = configured(secret="hunter2hunter2")
        logger.info("{}", "x " * (before // 2) + secret + " y" * 10_000)
        assert secret[:6] not in only_record(out)["message"]


ADVERSARIAL = ["eyJ-", "a-eyJ-", "eyJaaaaaaaa.", "cookie  ", "bearer ", "://a:", "sk-", 'key: "']


@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_secrets_are_searched_in_linear_time(unit: str) -> None:
    redact = logs._Redactor([])

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        took = []
        for _ in range(3):
            began = time.process_time()
            redact(text)
            took.append(time.process_time() - began)
        return min(took)

    # 16 times as much takes 16 times as long, and not 256 times.
    assert seconds(320_000) < 100 * max(seconds(20_000), 0.001)


def test_a_web_token_is_hidden_after_a_prefix_and_at_the_end() -> None:
    redact = logs._Redactor([])
    assert redact("token-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln.") == "token-***."
    assert redact("cut: eyJhbGciOiJIUzI1NiJ9.eyJzdWI") == "cut: ***"


PROGRAM = """
import asyncio, sys, threading, warnings
from jarvis_stream import logs

logs.configure("INFO", sys.argv[1])
with logs.capturing():
    print("printed\\nin two lines, and", end=" ")
    print("more", flush=True)
    sys.stderr.write("to stderr\\n")
    warnings.warn("old ways", UserWarning)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    raise SystemError("the end")
"""


def test_with_json_everything_that_is_printed_is_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    out = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [(record["logger"], record["message"]) for record in out] == [
        ("stdout", "printed"),
        ("stdout", "in two lines, and more"),
    ]
    err = [orjson.loads(line) for line in done.stderr.splitlines()]
    messages = [record["message"] for record in err]
    assert messages[0] == "to stderr"
    assert "old ways" in messages[1]
    assert messages[2].startswith("uncaught_exception thread=Thread-")
    assert "ZeroDivisionError" in err[2]["exception"]
    assert messages[3] == "uncaught_exception error=SystemError"


def test_the_banner_in_a_pipe_of_its_own_is_json_only_if_json_is_asked_for() -> None:
    command = [sys.executable, "-c", PROGRAM, "auto"]
    apart = subprocess.run(command, capture_output=True, text=True, check=False)
    assert apart.stdout == "printed\nin two lines, and more\n"
    together = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    for line in (*apart.stderr.splitlines(), *together.stdout.splitlines()):
        assert {"time", "level", "message"} <= orjson.loads(line).keys()


def test_for_people_what_is_printed_stays_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "pretty"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "printed\nin two lines, and more\n"
    assert done.stderr.startswith("to stderr\n")


async def test_a_log_that_is_gone_stops_nothing() -> None:
    out = configured()
    journal.tell("nobody will read this", **IDS)
    out.close()
    logs.flush()


async def test_whoever_sets_up_loguru_himself_gets_the_lines_of_answers_from_it(
    log_lines: list[str],
) -> None:
    journal.tell("stream_end trace=t1", **IDS)
    assert log_lines == ["stream_end trace=t1"]


async def test_what_is_held_back_is_written_when_the_log_is_set_up_anew() -> None:
    before = configured()
    journal.tell("before", **IDS)
    after = configured()
    journal.tell("after", **IDS)
    logs.flush()
    assert (told(before), told(after)) == (["before"], ["after"])


COLLECTS = """
from jarvis_stream import logs

class Printing:
    def __del__(self):
        print("collected")

entry_now, garbage = logs._entry_now, [Printing()]

def collecting(*fields):
    garbage.clear()  # the garbage collector may run wherever an object is made
    return entry_now(*fields)

logs._entry_now = collecting
logs.configure("INFO", "json")
with logs.capturing():
    print("printed")
"""


def test_the_garbage_collector_may_print_while_a_line_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTS], capture_output=True, text=True, timeout=60, check=True
    )
    messages = {orjson.loads(line)["message"] for line in done.stdout.splitlines()}
    assert messages == {"printed", "collected"}


PRINTS_AND_FORKS = """
import os, sys, threading
from jarvis_stream import logs

logs.configure("INFO", "json", stream=open(os.devnull, "w"))
with logs.capturing():
    console, held, go = sys.stdout, threading.Event(), threading.Event()
    def print_slowly(text):
        held.set()
        go.wait()
    put, console._put = console._put, print_slowly
    thread = threading.Thread(target=print, args=["one"])
    thread.start()
    held.wait()
    child = os.fork()
    console._put = put
    if child == 0:
        print("from the child")
        logs.flush()
        os._exit(0)
    os.waitpid(child, 0)
    go.set()
    thread.join()
"""


def test_a_process_that_is_forked_while_a_thread_prints_can_print() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTS_AND_FORKS],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert '"from the child"' in done.stdout


OUTLIVES = """
import sys, threading
from jarvis_stream import logs

logs.configure("INFO", "json", stream=sys.__stderr__)
with logs.capturing():
    console = sys.stdout
    began, go = threading.Event(), threading.Event()
    class Slow:
        def __str__(self):
            began.set()
            go.wait()
            return "late"
    thread = threading.Thread(target=print, args=[Slow()])
    thread.start()
    began.wait()
    del console
go.set()
thread.join()
logs.flush()
"""


def test_a_thread_that_prints_while_the_capturing_ends_does_no_harm() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUTLIVES], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert '"late"' in done.stdout
    assert done.stderr == ""

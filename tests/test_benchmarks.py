"""The benchmarks measure what they say: the load generator, the statistics, the tables."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from benchmarks import lab
from benchmarks.contenders import OURS, PUSH, RAW, SENDS, WRITE, jarvis
from benchmarks.lab import Contender, Failed, Missing, serving
from benchmarks.report import checks, markdown
from benchmarks.series import Results, Series
from benchmarks.suite import main
from benchmarks.workloads import FRAMES, Bench

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TOKEN = b'{"type":"token","seq":%d,"text":"a"}\n'
DONE = b'{"type":"done","seq":%d}\n'


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(lab, "CACHE", tmp_path_factory.getbasetemp() / "benchmarks")


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """The port of a server that has one client, and for each of its requests one of these.

    They are sent byte by byte.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, suppress(OSError):  # the client leaves when something is wrong
            for answer in answers:
                connection.recv(65536)
                for place in range(len(answer)):
                    connection.sendall(answer[place : place + 1])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(timeout=20)


def generate(port: int, *options: str) -> tuple[int, dict[str, Any]]:
    """What the load generator says, and its exit status."""
    command = [str(lab.compiled("loadgen.c")), "--port", str(port), "--timeout", "20", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def chunks(*frames: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames)


def test_the_generator_compiles_without_a_warning(tmp_path: Path) -> None:
    for source in ("loadgen.c", "references/sends.c"):
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "program")]
        subprocess.run([*command, str(ROOT / "benchmarks" / source)], check=True)


def test_frames_are_counted_however_they_are_cut() -> None:
    frames = TOKEN % 1 + b"\n" + TOKEN % 2 + DONE % 3
    for answer in (
        CHUNKED + chunks(frames) + b"0\r\n\r\n",
        CHUNKED + chunks(frames[:7], frames[7:50], frames[50:]) + b"0\r\n\r\n",
        HEAD + b"Content-Length: %d\r\n\r\n" % len(frames) + frames,
    ):
        with answering(answer, answer) as port:
            status, seen = generate(port, "--chats", "2")
        assert (status, seen["errors"], seen["chats"]) == (0, 0, 2)
        assert (seen["frames"], seen["tokens"]) == (6, 4)
        assert seen["first_token"]["count"] == 2


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (CHUNKED + chunks(TOKEN % 1, TOKEN % 3, DONE % 4) + b"0\r\n\r\n", "seq 3 after 1"),
        (CHUNKED + chunks(TOKEN % 1) + b"0\r\n\r\n", "without its terminal frame"),
        (CHUNKED + chunks(TOKEN % 1), "hung up"),
        (CHUNKED + chunks(b'{"type":"error","seq":1}\n') + b"0\r\n\r\n", "an error"),
        (CHUNKED + chunks(b"Oops\n"), "no frame"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "503"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(answer: bytes, complaint: str) -> None:
    with answering(answer) as port:
        status, seen = generate(port)
    assert status == 1
    assert complaint in seen["first_error"]


def test_a_token_that_says_when_it_was_due_has_a_delay() -> None:
    late = b'{"type":"token","seq":1,"text":"t%d"}\n'
    with answering(CHUNKED + chunks(late % 1, DONE % 2) + b"0\r\n\r\n") as port:
        _, seen = generate(port)
    assert seen["steady"]["due"] in (0, 1)
    assert seen["tokens"] == 1


@pytest.mark.parametrize("transport", ["http", "ws"])
@pytest.mark.parametrize("contender", [jarvis(), SENDS, RAW, PUSH, WRITE], ids=lambda c: c.name)
def test_every_token_of_a_server_arrives(contender: Contender, transport: str) -> None:
    with serving(contender) as server:
        load = server.load(transport, "tokens=40 burst=3", connections=5, chats=2)
    assert load.seen["chats"] == 10
    assert load.seen["tokens"] == 400
    assert load.seen["frames"] == 420


def test_paced_tokens_say_when_they_were_due() -> None:
    with serving(jarvis()) as server:
        load = server.load("ws", "tokens=10 rate=200", connections=5)
    assert load.seen["tokens"] == 50
    assert load.milliseconds("delay", "p50") > 0


@pytest.mark.parametrize("transport", ["http", "ws"])
def test_a_storm_of_superseding_leaves_nothing_behind(transport: str) -> None:
    with serving(jarvis()) as server:
        load = server.load(
            transport, "tokens=1 hold", fields={"session_id": "s"}, connections=4, supersede=0.3
        )
        assert load.seen["replaced"] > 1
        waited = server.metrics()["jarvis_supersede_wait_seconds_count"]
    assert waited >= load.seen["replaced"] - 1


def test_connections_can_be_held_open() -> None:
    with serving(jarvis()) as server:
        with server.held("ws", None, connections=20):
            assert server.metrics()["jarvis_websockets"] == 20
        with server.held("http", "tokens=1 hold", connections=20):
            assert server.metrics()['jarvis_streams{state="active"}'] == 20


def test_a_failure_of_a_server_is_an_error() -> None:
    with serving(jarvis("--max-streams=1")) as server, pytest.raises(Failed, match="503"):
        server.load("http", "tokens=1 hold", connections=2)


# Statistics


def test_medians_and_ratios_are_taken_over_the_rounds() -> None:
    ours = Series("w", "c", "a", "m", [10.0, 30.0, 20.0])
    theirs = Series("w", "c", "b", "m", [10.0, 10.0, 10.0])
    assert ours.median == 20
    assert ours.spread == 1
    assert ours.over(theirs) == 2
    assert math.isnan(Series("w", "c", "a", "m").median)
    assert math.isnan(ours.over(Series("w", "c", "b", "m")))


def test_results_are_kept_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results = Results()
    results.series("single", "http", OURS, FRAMES).values += [1.0, 2.0]
    results.taken["single"] = {"cores": 2}
    results.save(file)
    assert Results.load(file).of("single") == results.of("single")
    assert Results.load(file).taken == results.taken
    assert list(Results.load(tmp_path / "none.json")) == []


def test_a_check_passes_fails_or_was_not_measured() -> None:
    results = Results()
    results.series("single", "http", OURS, FRAMES).values += [90.0, 70.0]
    results.series("single", "http", PUSH.name, FRAMES).values += [100.0, 100.0]
    results.series("single", "http", WRITE.name, FRAMES).values += [100.0, 100.0]
    verdicts = [check.verdict for check in checks(results)]
    assert verdicts[:3] == ["pass", "FAIL", "not measured"]


# The suite


def _bench(**options: Any) -> Bench:
    fields: dict[str, Any] = {"rounds": 2, "seconds": 0.1, "only": (), "servers": (), "also": ()}
    return Bench(Results(), **{**fields, **options})


def _missing() -> list[str]:
    raise Missing("a thing")


def test_servers_take_turns_after_a_round_to_warm_up() -> None:
    bench, turns = _bench(), []

    def measure(server: lab.Server) -> dict[str, float]:
        turns.append(server.contender.name)
        return {"m": float(len(turns))}

    bench.alternate("w", "c", [SENDS, PUSH], measure)
    assert turns == 3 * [SENDS.name, PUSH.name]
    assert bench.results.series("w", "c", SENDS.name, "m").values == [3, 5]
    assert bench.results.series("w", "c", PUSH.name, "m").values == [4, 6]


def test_another_checkout_is_measured_beside_each_of_ours_with_the_same_flags(
    tmp_path: Path,
) -> None:
    bench, seen = _bench(also=[tmp_path]), []

    def measure(contender: Contender) -> dict[str, float]:
        seen.append((contender.name, contender.folder, "--lease=9" in contender.command()))
        return {"m": 1.0}

    ours = [jarvis("--lease=9", name="sqlite"), jarvis(), PUSH]
    bench.alternate_afresh("w", "c", ours, measure)
    assert seen[:5] == [
        ("sqlite", lab.ROOT, True),
        (f"sqlite, also {tmp_path}", tmp_path, True),
        (OURS, lab.ROOT, False),
        (f"also {tmp_path}", tmp_path, False),
        (PUSH.name, lab.ROOT, False),
    ]


def test_what_is_missing_or_fails_is_in_the_table_and_the_others_go_on() -> None:
    def measure(server: lab.Server) -> dict[str, float]:
        if server.contender is PUSH:
            raise Failed("it fell")
        return {FRAMES: 1.0}

    bench = _bench()
    bench.alternate("single", "http", [SENDS, Contender("absent", _missing), PUSH], measure)
    table = markdown(bench.results)
    assert f"| http | {SENDS.name} | 1 |" in table
    assert "skipped, missing: a thing" in table
    assert "failed: it fell" in table


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        ((), True),
        (("single",), True),
        (("http",), True),
        (("single+http",), True),
        (("ws",), False),
    ],
)
def test_words_choose_what_is_measured(only: tuple[str, ...], wanted: bool) -> None:
    assert _bench(only=only).wants("single", "http") is wanted


def test_the_command_writes_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--quick", "--rounds", "1", "--only", "single+http", "--servers", OURS]
    assert main([*options, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "results.md").read_text() in capsys.readouterr().out
    (series,) = [s for s in Results.load(tmp_path / "results.json") if s.metric == FRAMES]
    assert series.server == OURS
    assert len(series.values) == 1

"""The agent that asks an OpenAI-compatible server, against a real one in a process of its own."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from itertools import pairwise
from typing import Any

import openai
import pytest
import uvloop
from aiohttp import test_utils, web
from certificates import Certificates
from fake_openai import FakeServer, Refusal, Script, answer, chunk, sse, usage
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import patience

from jarvis_stream import Done, Status, Turn
from jarvis_stream.agents.base import Piece
from jarvis_stream.agents.openai import EventReader, OpenAIAgent
from jarvis_stream.errors import StreamFailure, UpstreamError, UpstreamTimeout

TRACE = "0af7651916cd43dd8448eb211c80319c"
TURN = Turn(
    "Hi",
    [{"role": "user", "content": "Hi"}],
    "session",
    "stream",
    TRACE,
    f"00-{TRACE}-00f067aa0ba902b7-01",
)
PATIENCE = patience(20.0)
"""Seconds after which something that should have ended is a failure."""
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer.running() as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@pytest.fixture(scope="module")
def ca_file(certificates: Certificates) -> str:
    return str(certificates.authority)


@pytest.fixture(scope="module")
def tls_server(certificates: Certificates, ca_file: str) -> Iterator[FakeServer]:
    files = str(certificates.chain), str(certificates.key)
    with FakeServer.running("--tls", *files, ca_file=ca_file) as running:
        yield running


@asynccontextmanager
async def playing(
    server: FakeServer, script: Script, **options: Any
) -> AsyncIterator[tuple[OpenAIAgent, str]]:
    """An agent whose model plays `script`, and that model's name."""
    model = await server.play(script)
    options = {"base_url": server.url, "model": model, "backoff": 0.001, **options}
    async with OpenAIAgent(**options) as agent:
        yield agent, model


async def said(server: FakeServer, script: Script, **options: Any) -> list[Piece]:
    async with playing(server, script, **options) as (agent, _):
        return [piece async for piece in agent(TURN)]


async def failure(
    server: FakeServer, script: Script, **options: Any
) -> tuple[StreamFailure, list[Piece], int]:
    """How an answer fails, the pieces before that, and the number of requests it took."""
    pieces: list[Piece] = []
    async with playing(server, script, **options) as (agent, model):
        try:
            async for piece in agent(TURN):
                pieces.append(piece)
        except StreamFailure as failed:
            return failed, pieces, len((await server.seen(model)).requests)
    raise AssertionError(f"it did not fail: {pieces}")


# The line reader


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """`data` cut at the places given (modulo its length)."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[a:b] for a, b in pairwise(places)]


LINE_TEXT = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"))


@given(
    lines=st.lists(
        st.tuples(st.sampled_from(["data:", "data: ", ":", "event: ", "", "datum: "]), LINE_TEXT)
    ),
    newline=st.sampled_from(["\n", "\r\n"]),
    at=st.lists(st.integers(0, 10_000)),
)
def test_the_events_do_not_depend_on_where_the_bytes_are_cut(
    lines: list[tuple[str, str]], newline: str, at: list[int]
) -> None:
    stream = "".join(start + text + newline for start, text in lines).encode()
    reader = EventReader(max_line=100_000)
    payloads = [payload for piece in cut(stream, at) for payload in reader.feed(piece)]
    whole = [start.encode() + text.encode() for start, text in lines]
    expected = [line[5:].strip() for line in whole if line.startswith(b"data:")]
    assert payloads == [payload for payload in expected if payload]


@given(at=st.lists(st.integers(0, 40)))
def test_one_byte_order_mark_at_the_beginning_is_dropped(at: list[int]) -> None:
    stream = "\ufeffdata: 1\n\ufeffdata: 2\ndata: 3\n".encode()
    reader = EventReader(max_line=100)
    payloads = [payload for piece in cut(stream, at) for payload in reader.feed(piece)]
    assert payloads == [b"1", b"3"]


@given(length=st.integers(0, 60), at=st.lists(st.integers(0, 100)), ended=st.booleans())
def test_a_line_over_the_limit_is_an_error_wherever_it_is_cut(
    length: int, at: list[int], ended: bool
) -> None:
    stream = b"data: 1\n\n" + b"x" * length + b"\n" * ended
    reader = EventReader(max_line=30)
    with pytest.raises(ValueError, match="longer than 30") if length > 30 else nullcontext():
        payloads = [payload for piece in cut(stream, at) for payload in reader.feed(piece)]
        assert payloads == [b"1"]


# The official client as the oracle


async def oracle(server: FakeServer, model: str) -> tuple[str, str | None, dict[str, Any] | None]:
    text, reason, used = "", None, None
    async with openai.AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for event in stream:
            if event.usage:
                used = event.usage.model_dump(exclude_unset=True)
            for choice in event.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
    return text, reason, used


@settings(max_examples=60)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=8),
    reason=st.sampled_from(["stop", "length", "content_filter", "tool_calls"]),
    used=st.none() | st.builds(usage, st.integers(0, 10**6), st.integers(0, 10**6)),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    comment=st.booleans(),
    at=st.lists(st.integers(0, 5000), max_size=12),
)
async def test_the_answer_is_what_the_official_client_reads(
    server: FakeServer,
    texts: list[str],
    reason: str,
    used: dict[str, int] | None,
    newline: bytes,
    comment: bool,
    at: list[int],
) -> None:
    events = [sse(chunk({"role": "assistant", "content": ""}))]
    events += [b": keep-alive\n\n"] * comment
    events += [sse(chunk({"content": text})) for text in texts]
    events += [sse(chunk({}, reason))]
    if used:
        events += [sse({**chunk({}), "choices": [], "usage": used})]
    stream = b"".join([*events, sse("[DONE]")]).replace(b"\n", newline)
    async with playing(server, Script(cut(stream, at))) as (agent, model):
        *pieces, done = [piece async for piece in agent(TURN)]
        expected = await oracle(server, model)
    assert isinstance(done, Done)
    assert "" not in pieces
    assert ("".join(map(str, pieces)), done.finish_reason, done.usage) == expected


async def test_the_answer_over_tls_is_the_same(tls_server: FakeServer, ca_file: str) -> None:
    pieces = await said(tls_server, Script(answer(["Grüße", " 👋"])), ca_file=ca_file)
    assert pieces == ["Grüße", " 👋", Done("stop", usage(3, 2))]


async def test_a_server_nobody_vouches_for_is_not_asked_again(tls_server: FakeServer) -> None:
    failed, _, requests = await failure(tls_server, Script(answer(["no"])))
    assert isinstance(failed, UpstreamError)
    assert not failed.retryable
    assert requests == 0


# What is asked


async def test_the_request_carries_history_system_prompt_key_and_trace(server: FakeServer) -> None:
    options = {"api_key": "sk-1", "system_prompt": "Be brief."}
    async with playing(server, Script(answer(["Yes"])), **options) as (agent, model):
        assert [piece async for piece in agent(TURN)]
        (request,) = (await server.seen(model)).requests
    assert request["body"] == {
        "model": model,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request["headers"]["authorization"] == "Bearer sk-1"
    assert request["headers"]["traceparent"] == TURN.traceparent


async def test_an_answer_read_to_its_end_leaves_the_connection_for_the_next(
    server: FakeServer,
) -> None:
    # [DONE] and the end of the body come apart, as they do from most servers.
    async with playing(server, Script(answer(["Yes"]), every=0.001)) as (agent, model):
        for _ in range(3):
            assert [piece async for piece in agent(TURN)]
        requests = (await server.seen(model)).requests
    assert len({request["port"] for request in requests}) == 1


async def test_without_a_model_the_first_that_chats_is_asked_for_once() -> None:
    with FakeServer.running("--models", "nomic-embed-text", "fake-1", "fake-2") as server:
        async with OpenAIAgent(base_url=server.url) as agent:

            async def ask() -> list[Piece]:
                return [piece async for piece in agent(TURN)]

            answers = await asyncio.gather(*(ask() for _ in range(5)))
        assert answers == [["Hi", Done("stop", usage(3, 1))]] * 5
        seen = await server.seen(await server.play(Script()))
        assert seen.listings == 1


async def test_a_server_without_models_is_a_clear_failure() -> None:
    with FakeServer.running("--models") as server:
        async with OpenAIAgent(base_url=server.url) as agent:
            with pytest.raises(UpstreamError, match="offers no model"):
                await anext(agent(TURN))


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://localhost:11434/", "http://localhost:11434/v1"),
        ("http://localhost:11434/v1/", "http://localhost:11434/v1"),
        (" https://host/api/v3 ", "https://host/api/v3"),
        ("https://host/openai/v1/chat/completions", "https://host/openai/v1"),
    ],
)
def test_a_base_url_is_understood_as_people_write_it(given_url: str, url: str) -> None:
    assert OpenAIAgent(base_url=given_url).url == url


@pytest.mark.parametrize(
    "url", ["localhost:11434", "ftp://h", "http://", "", "http://h/?a", "http://h:0x", "http://u@h"]
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|Port"):
        OpenAIAgent(base_url=url)


# What is answered


async def test_a_server_that_does_not_stream_gives_its_answer_in_one_piece(
    server: FakeServer,
) -> None:
    choice = {"index": 0, "message": {"content": "All at once"}, "finish_reason": "length"}
    body = json.dumps({"choices": [choice], "usage": usage(1, 2)}).encode()
    pieces = await said(server, Script([body], content_type="application/json"))
    assert pieces == ["All at once", Done("length", usage(1, 2))]


@pytest.mark.parametrize(
    ("tail", "ending", "reason"),
    [
        ([sse(chunk({}, "length")), sse("[DONE]")], "end", "length"),
        ([sse(chunk({}, "length"))], "end", "length"),
        ([sse(chunk({}, "length"))], "cut", "length"),
        ([sse("[DONE]")], "end", "stop"),
        ([sse("[DONE]")], "hang", "stop"),
        ([sse(chunk({}, "eos_token")), sse("[DONE]")], "end", "stop"),
    ],
)
async def test_a_finish_reason_or_the_word_done_makes_an_answer_complete(
    server: FakeServer, tail: list[bytes], ending: Any, reason: str
) -> None:
    pieces = await said(server, Script([*answer(["x"])[:2], *tail], ending=ending))
    assert pieces == ["x", Done(reason)]


def escaped(delta: dict[str, Any]) -> bytes:
    return sse(json.dumps(chunk(delta)))


async def test_half_a_character_in_an_event_never_ends_the_answer(server: FakeServer) -> None:
    """A high surrogate before a low one is one character, wherever it is cut."""
    texts = ["Hi ", "\ud83d", "\ude00", " there", "\ud83d", "!", "\ud83d"]
    call = {"function": {"name": "find\ude00"}}
    events = [
        *(escaped({"content": text}) for text in texts),
        escaped({"tool_calls": [call]}),
        sse(chunk({}, "stop")),
        sse("[DONE]"),
    ]
    pieces = await said(server, Script(events))
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    assert text == "Hi 😀 there\ufffd!\ufffd"
    assert Status("tool", name="find\ufffd") in pieces
    assert pieces[-1] == Done("stop", None)


async def test_reasoning_and_tool_calls_are_told_as_status_never_as_text(
    server: FakeServer,
) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "search", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"content": "Let me look."},
        {"tool_calls": [call]},
        {"tool_calls": [more]},
    ]
    events = [sse(chunk(delta)) for delta in deltas] + [sse(chunk({}, "tool_calls"))]
    assert await said(server, Script(events)) == [
        Status("reasoning"),
        "Let me look.",
        Status("tool", name="search"),
        Done("tool_calls"),
    ]


def deltas(*pieces: dict[str, Any], reason: str | None = "stop") -> list[bytes]:
    return [*(sse(chunk(piece)) for piece in pieces), sse(chunk({}, reason)), sse("[DONE]")]


async def test_content_parts_are_text_and_reasoning(server: FakeServer) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "let me see"}]}
    events = deltas(
        {"role": "assistant", "content": ""},
        {"content": [thinking]},
        {"content": [thinking, {"type": "text", "text": "Hel"}]},
        {"content": "lo"},
    )
    assert await said(server, Script(events)) == [Status("reasoning"), "Hel", "lo", Done("stop")]


async def test_tagged_reasoning_is_no_part_of_the_answer(server: FakeServer) -> None:
    events = deltas(*({"content": text} for text in ("<th", "ink>Hm.</thi", "nk>\n\n", "Paris.")))
    pieces = await said(server, Script(events))
    assert pieces == [Status("reasoning"), "Paris.", Done("stop")]


async def test_a_refusal_of_the_model_is_its_answer(server: FakeServer) -> None:
    events = deltas({"content": None, "refusal": "I can't"}, {"refusal": " help."})
    assert await said(server, Script(events)) == ["I can't", " help.", Done("stop")]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_an_answer_that_is_all_reasoning_is_not_lost(server: FakeServer, field: str) -> None:
    events = deltas({"content": ""}, {field: "9.9 is "}, {field: "larger."})
    assert await said(server, Script(events)) == [
        Status("reasoning"),
        "9.9 is larger.",
        Done("stop"),
    ]


@pytest.mark.parametrize("piece", [{"reasoning_content": "Hm"}, {"content": "<think>Hm"}])
async def test_reasoning_up_to_the_length_limit_is_a_failure(
    server: FakeServer, piece: dict[str, Any]
) -> None:
    failed, pieces, _ = await failure(server, Script(deltas(piece, reason="length")))
    assert isinstance(failed, UpstreamError)
    assert "length limit" in failed.sentence
    assert pieces == [Status("reasoning")]


async def test_reasoning_before_a_tool_call_is_no_answer(server: FakeServer) -> None:
    call = {"index": 0, "function": {"name": "search", "arguments": "{}"}}
    events = deltas({"reasoning": "Hm"}, {"tool_calls": [call]}, reason="stop")
    assert await said(server, Script(events)) == [
        Status("reasoning"),
        Status("tool", name="search"),
        Done("stop"),
    ]


@pytest.mark.parametrize("label", ["application/json", "text/html", "text/plain", "x/y"])
@pytest.mark.parametrize("start", [b"", b"\n\n", b": hello\n\n", b"event: m\n", b"\xef\xbb\xbf"])
async def test_an_event_stream_is_recognised_by_its_content(
    server: FakeServer, label: str, start: bytes
) -> None:
    stream = start + b"".join(answer(["Hel", "lo"]))
    chunks = [*(bytes([byte]) for byte in stream[:12]), stream[12:]]
    pieces = await said(server, Script(chunks, content_type=label))
    assert "".join(map(str, pieces[:-1])) == "Hello"


async def test_json_labelled_as_an_event_stream_is_recognised(server: FakeServer) -> None:
    choice = {"index": 0, "message": {"content": "All at once"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}, indent=1).encode()
    pieces = await said(server, Script([b"\n" + body[:1], body[1:]]))
    assert pieces == ["All at once", Done("stop")]


async def test_an_event_of_megabytes_is_read(server: FakeServer) -> None:
    text = "x" * (3 << 20)
    pieces = await said(server, Script(answer([text])))
    assert pieces[0] == text


@pytest.mark.parametrize(
    ("vendors", "ours"),
    [
        ("max_tokens", "length"),
        ("model_length", "length"),
        ("SAFETY", "content_filter"),
        ("function_call", "tool_calls"),
        ("eos", "stop"),
    ],
)
async def test_a_finish_reason_is_understood_in_the_vendors_words(
    server: FakeServer, vendors: str, ours: str
) -> None:
    assert await said(server, Script(deltas({"content": "x"}, reason=vendors))) == ["x", Done(ours)]


# What is asked again, in another way


async def asked(agent: OpenAIAgent, turn: Turn = TURN) -> str:
    """The text of an answer."""
    return "".join([piece async for piece in agent(turn) if isinstance(piece, str)])


def conversation(*texts: str) -> Turn:
    """A turn whose messages are the user's and the assistant's, one after the other; "" is none."""
    messages = [
        {"role": ("user", "assistant")[at % 2], "content": text}
        for at, text in enumerate(texts)
        if text
    ]
    return Turn(texts[-1], messages, "session", "stream", TRACE)  # type: ignore[arg-type]


def error(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, **more}})


async def bodies(server: FakeServer, model: str) -> list[dict[str, Any]]:
    return [request["body"] for request in (await server.seen(model)).requests]


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_stream_options_are_left_out_once_they_are_refused(
    server: FakeServer, status: int
) -> None:
    refusal = Refusal(status, {}, "stream_options: Extra inputs are not permitted")
    async with playing(server, Script(answer(["Hi"]), refusals=[refusal])) as (agent, model):
        assert [await asked(agent), await asked(agent)] == ["Hi", "Hi"]
        requests = await bodies(server, model)
    assert ["stream_options" in body for body in requests] == [True, False, False]


async def test_what_did_not_help_is_not_left_out_for_good(server: FakeServer) -> None:
    refusals = [Refusal(400, {}, "unknown parameter"), Refusal(400, {}, "unknown parameter")]
    async with playing(server, Script(answer(["Hi"]), refusals=refusals)) as (agent, model):
        with pytest.raises(UpstreamError, match="refused"):
            await asked(agent)
        assert await asked(agent) == "Hi"
        requests = await bodies(server, model)
    assert ["stream_options" in body for body in requests] == [True, False, True]


async def test_a_system_prompt_becomes_part_of_the_question_where_there_is_no_such_role(
    server: FakeServer,
) -> None:
    script = Script(answer(["Hi"]), refusals=[Refusal(400, {}, error("System role not supported"))])
    async with playing(server, script, system_prompt="Be brief.") as (agent, model):
        assert [await asked(agent), await asked(agent)] == ["Hi", "Hi"]
        *_, last = await bodies(server, model)
    assert last["messages"] == [{"role": "user", "content": "Be brief.\n\nHi"}]


async def test_a_model_that_may_not_stream_answers_at_once(server: FakeServer) -> None:
    refusal = Refusal(400, {}, error("Your organization must be verified to stream this model."))
    body = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})
    script = Script([body.encode()], content_type="application/json", refusals=[refusal])
    async with playing(server, script) as (agent, model):
        assert await asked(agent) == "Hi"
        *_, last = await bodies(server, model)
    assert last["stream"] is False
    assert "stream_options" not in last


async def test_the_request_alternates_after_questions_without_an_answer(
    server: FakeServer,
) -> None:
    async with playing(server, Script(answer(["Hi"]))) as (agent, model):
        assert await asked(agent, conversation("1", "", "2", "", "3", "three", "4"))
        (body,) = await bodies(server, model)
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == "1\n\n2\n\n3"


TOO_LONG = Refusal(400, {}, error("maximum context length", code="context_length_exceeded"))


async def test_a_conversation_that_is_too_long_is_shortened_from_its_beginning(
    server: FakeServer, log_lines: list[str]
) -> None:
    turn = conversation(*(f"{at:0100}" for at in range(9)))
    async with playing(server, Script(answer(["Hi"]), refusals=[TOO_LONG] * 2)) as (agent, model):
        assert await asked(agent, turn) == "Hi"
        requests = await bodies(server, model)
    lengths = [len(body["messages"]) for body in requests]
    assert lengths[0] == 9
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[2] < lengths[0]
    assert requests[-1]["messages"] == turn.messages[-lengths[2] :]
    assert any("upstream_adapted" in line and "too_long" in line for line in log_lines)


@pytest.mark.parametrize("in_stream", [False, True])
async def test_a_message_that_is_too_long_by_itself_has_a_sentence_of_its_own(
    server: FakeServer, in_stream: bool
) -> None:
    script = Script(refusals=[TOO_LONG] * 99)
    if in_stream:
        script = Script([f"data: {TOO_LONG.body}\n\n".encode()])
    async with playing(server, script) as (agent, model):
        with pytest.raises(UpstreamError, match="too long for this model") as failed:
            await asked(agent, conversation("1", "one", "2", "two", "3"))
        requests = await bodies(server, model)
    assert not failed.value.retryable
    assert len(requests[-1]["messages"]) == 1
    assert len(requests) <= 5


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (Refusal(429, {}, error("You exceeded", code="insufficient_quota")), "no credit"),
        (Refusal(402, {}, error("Insufficient Balance")), "no credit"),
        (Refusal(400, {}, error("x", code="content_filter")), "content filter"),
        (Refusal(404, {}, error("model not found")), "does not have the model"),
        (Refusal(400, {}, error('"x" does not support chat')), "cannot chat"),
        (Refusal(401, {}, error("key")), "credentials"),
    ],
)
async def test_a_refusal_that_no_retry_can_mend_says_what_is_wrong(
    server: FakeServer, refusal: Refusal, sentence: str
) -> None:
    failed, _, requests = await failure(server, Script(refusals=[refusal] * 5))
    assert sentence in failed.sentence
    assert (failed.retryable, requests) == (False, 1)


async def test_an_overloaded_server_that_says_so_in_an_event_is_asked_again(
    server: FakeServer,
) -> None:
    busy = sse({"error": {"message": "Provider returned error", "code": 429}})
    failed, pieces, requests = await failure(server, Script([busy]), max_retries=2)
    assert failed.retryable
    assert (pieces, requests) == ([], 3)


async def test_a_listed_model_that_cannot_chat_is_passed_over() -> None:
    refusal = Refusal(400, {}, error('"script-1" does not support chat'))
    with FakeServer.running("--models", "script-1", "script-2") as server:
        await server.play(Script(refusals=[refusal]))
        await server.play(Script(answer(["Hi"])))
        async with OpenAIAgent(base_url=server.url) as agent:
            assert await asked(agent) == "Hi"
            assert agent.model == "script-2"


async def test_a_late_refusal_of_one_model_does_not_count_for_the_next() -> None:
    answered = asyncio.Event()
    refusals = 0

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "one"}, {"id": "two"}]})

    async def completions(request: web.Request) -> web.Response:
        nonlocal refusals
        if (await request.json())["model"] == "one":
            refusals += 1
            if refusals == 2:
                await answered.wait()
            return web.json_response({"error": '"one" does not support chat'}, status=400)
        answered.set()
        return web.json_response({"choices": [{"message": {"content": "Hi"}}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", completions)
    async with (
        test_utils.TestServer(app) as server,
        OpenAIAgent(base_url=str(server.make_url("/v1"))) as agent,
    ):
        assert await asyncio.gather(*(asked(agent) for _ in range(2))) == ["Hi", "Hi"]
        assert agent.model == "two"


async def test_models_that_could_not_chat_are_tried_again_for_the_next_answer() -> None:
    refusal = Refusal(400, {}, error('"script-1" does not support chat'))
    with FakeServer.running("--models", "script-1") as server:
        await server.play(Script(answer(["Hi"]), refusals=[refusal]))
        async with OpenAIAgent(base_url=server.url) as agent:
            with pytest.raises(UpstreamError, match="no model that can chat"):
                await anext(agent(TURN))
            assert await asked(agent) == "Hi"


async def test_one_question_is_sent_to_few_models_of_a_long_list() -> None:
    requests = 0

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": f"model-{n}"} for n in range(1000)]})

    async def completions(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.json_response({"error": "does not support chat"}, status=400)

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", completions)
    async with (
        test_utils.TestServer(app) as server,
        OpenAIAgent(base_url=str(server.make_url("/v1")), first_token_timeout=PATIENCE) as agent,
    ):
        with pytest.raises(UpstreamError, match="cannot chat"):
            await anext(agent(TURN))
    assert requests == 10


async def test_another_model_is_taken_when_the_first_is_unloaded() -> None:
    with FakeServer.running("--models", "script-1") as server:
        await server.play(Script(answer(["Hi"]), refusals=[Refusal(404)]))
        async with OpenAIAgent(base_url=server.url, backoff=0.001) as agent:
            assert await asked(agent) == "Hi"
        assert (await server.seen("script-1")).listings == 2


async def test_every_question_to_an_unloaded_model_is_sent_to_another_one() -> None:
    with FakeServer.running("--models", "script-1") as server:
        await server.play(Script(answer(["Hi"]), refusals=[Refusal(404)] * 3))
        async with OpenAIAgent(base_url=server.url, backoff=0.2) as agent:
            answers = await asyncio.gather(*(asked(agent) for _ in range(3)))
    assert answers == ["Hi"] * 3


async def test_a_list_without_chat_models_is_named_in_the_log_only() -> None:
    with FakeServer.running("--models", "bge-m3", "whisper-1") as server:
        async with OpenAIAgent(base_url=server.url) as agent:
            with pytest.raises(UpstreamError, match="no model that can chat") as failed:
                await anext(agent(TURN))
    assert "bge-m3, whisper-1" in str(failed.value.__cause__)
    assert "bge-m3" not in failed.value.sentence


# How it fails

BUSY = [Refusal(503), Refusal(429), Refusal(0)]


async def test_a_passing_failure_before_the_first_token_is_tried_again(
    server: FakeServer, log_lines: list[str]
) -> None:
    pieces = await said(server, Script(answer(["At last"]), refusals=BUSY), max_retries=3)
    assert pieces[0] == "At last"
    retries = [line for line in log_lines if line.startswith(f"upstream_retry trace={TRACE}")]
    assert len(retries) == 3


@pytest.mark.parametrize("refusal", BUSY)
async def test_when_the_retries_are_used_up_the_user_may_try_again(
    server: FakeServer, refusal: Refusal
) -> None:
    failed, pieces, requests = await failure(server, Script(refusals=[refusal] * 9), max_retries=2)
    assert isinstance(failed, UpstreamError)
    assert failed.retryable
    assert (pieces, requests) == ([], 3)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413, 422])
async def test_a_refusal_for_good_is_not_tried_again(server: FakeServer, status: int) -> None:
    refusal = Refusal(status, {"Location": "/elsewhere"}, "internals")
    failed, pieces, requests = await failure(server, Script(refusals=[refusal]))
    assert isinstance(failed, UpstreamError)
    assert not failed.retryable
    assert (pieces, requests) == ([], 1)
    assert "internals" not in failed.sentence
    assert "internals" in str(failed.__cause__)


async def test_the_upstream_says_how_long_to_wait(server: FakeServer) -> None:
    script = Script(answer(["x"]), refusals=[Refusal(429, {"Retry-After": "1"})])
    began = asyncio.get_running_loop().time()
    assert (await said(server, script))[0] == "x"
    assert asyncio.get_running_loop().time() - began >= 1


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "soon",
        "-1",
        "nan",
        "Wed, 01 Jan 99999999999999999999 00:00:00 GMT",
    ],
)
async def test_a_time_that_has_passed_or_means_nothing_is_not_waited_for(
    server: FakeServer, value: str
) -> None:
    script = Script(answer(["x"]), refusals=[Refusal(503, {"Retry-After": value})])
    assert (await said(server, script, first_token_timeout=10))[0] == "x"


@pytest.mark.parametrize("value", ["31", "inf", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_an_upstream_that_asks_for_too_long_a_wait_is_reported_at_once(
    server: FakeServer, value: str
) -> None:
    script = Script(refusals=[Refusal(429, {"Retry-After": value})])
    failed, _, requests = await failure(server, script)
    assert failed.retryable
    assert requests == 1


async def test_no_wait_goes_past_the_first_token_timeout(server: FakeServer) -> None:
    script = Script(refusals=[Refusal(429, {"Retry-After": "20"})])
    failed, _, requests = await failure(server, script, first_token_timeout=10)
    assert isinstance(failed, UpstreamError)
    assert requests == 1


@pytest.mark.parametrize("ending", ["end", "cut"])
async def test_a_stream_that_breaks_off_after_its_first_token_is_not_tried_again(
    server: FakeServer, ending: Any
) -> None:
    failed, pieces, requests = await failure(server, Script(answer(["x"])[:2], ending=ending))
    assert isinstance(failed, UpstreamError)
    assert failed.retryable
    assert "broke off" in failed.sentence
    assert (pieces, requests) == (["x"], 1)


async def test_a_stream_that_breaks_off_before_it_is_tried_again(server: FakeServer) -> None:
    _, pieces, requests = await failure(server, Script(answer([])[:1], ending="cut"), max_retries=2)
    assert (pieces, requests) == ([], 3)


@pytest.mark.parametrize("together", [False, True])
async def test_an_error_in_the_middle_of_the_stream_ends_it_after_what_came_before(
    server: FakeServer, together: bool
) -> None:
    error = sse({"error": {"message": "CUDA out of memory at 0x1", "code": 500}})
    chunks = [*answer(["x"])[:2], error]
    script = Script([b"".join(chunks)] if together else chunks, ending="hang")
    failed, pieces, _ = await failure(server, script)
    assert isinstance(failed, UpstreamError)
    assert "CUDA" not in failed.sentence
    assert "CUDA" in str(failed.__cause__)
    assert pieces == ["x"]


MISHAP = "CUDA out of memory at 0x1"


@pytest.mark.parametrize(
    "event",
    [
        sse({"object": "error", "message": MISHAP, "code": 500}),
        b"event: error\n" + sse({"message": MISHAP}),
        sse({"detail": MISHAP}),
        sse(chunk({}, "error", error={"message": MISHAP})),
        sse({**chunk({}), "choices": [{"index": 0, "delta": {}, "error": {"message": MISHAP}}]}),
        sse({**chunk({}), "choices": [{"delta": {}, "finish_reason": "error", "why": MISHAP}]}),
    ],
)
@pytest.mark.parametrize("before", [answer([])[:1], answer(["x"])[:2]])
async def test_a_failure_is_one_however_it_is_put(
    server: FakeServer, before: list[bytes], event: bytes
) -> None:
    failed, pieces, requests = await failure(server, Script([*before, event, sse("[DONE]")]))
    assert isinstance(failed, UpstreamError)
    assert MISHAP not in failed.sentence
    assert MISHAP in str(failed.__cause__)
    assert (pieces, requests) == (["x"] * (len(before) - 1), 1)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"detail": "loading"}', "application/json"),
        (b'{"object": "error", "message": "loading"}', "application/json"),
        (b'{"choices": []}', "application/json"),
        (b"{}", "application/json"),
        (b'data: {"detail": "loading"}\n\ndata: [DONE]\n\n', "text/event-stream"),
        (b"data: [DONE]\n\n", "text/event-stream"),
    ],
)
async def test_a_good_status_without_an_answer_is_none(
    server: FakeServer, body: bytes, content_type: str
) -> None:
    failed, pieces, _ = await failure(server, Script([body], content_type=content_type))
    assert isinstance(failed, UpstreamError)
    assert pieces == []
    assert "loading" not in failed.sentence
    assert ("loading" in str(failed.__cause__)) == (b"loading" in body)


async def test_what_is_no_event_of_an_answer_is_passed_over_when_the_answer_is_whole(
    server: FakeServer,
) -> None:
    first, *rest = answer(["x"])
    pieces = await said(server, Script([first, sse({"type": "ping"}), *rest]))
    assert pieces == ["x", Done("stop", usage(3, 1))]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"data: {\n\n",
        b"data: \xff\n\n",
        b"data: []\n\n",
        b"data: null\n\n",
        b'data: {"choices": 5}\n\n',
        b'data: {"choices": [null]}\n\n',
        sse(chunk({"content": 5})),
        sse(chunk({"content": [5]})),
        sse({**chunk({}), "usage": "many"}),
        sse({**chunk({}), "choices": [{"finish_reason": {"a": 1}}]}),
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: " + b"x" * (1 << 20) + b"\n\n",
    ],
    ids=lambda nonsense: repr(nonsense[:60]),
)
async def test_what_is_no_chat_completion_ends_the_stream(
    server: FakeServer, nonsense: bytes
) -> None:
    script = Script([*answer(["x"])[:2], nonsense], ending="hang")
    failed, pieces, requests = await failure(server, script)
    assert isinstance(failed, UpstreamError)
    assert "no chat completion" in failed.sentence
    assert (pieces, requests) == (["x"], 1)


async def test_a_page_instead_of_a_stream_is_no_answer(server: FakeServer) -> None:
    failed, _, requests = await failure(
        server, Script([b"<html>"], content_type="text/html; charset=utf-8")
    )
    assert isinstance(failed, UpstreamError)
    assert "text/html" in str(failed.__cause__)
    assert requests == 1


async def test_a_server_that_is_not_there_can_be_tried_again_later(
    unused_tcp_port: int,
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with OpenAIAgent(base_url=url, model="m", backoff=0.001) as agent:
        with pytest.raises(UpstreamError, match="cannot be reached") as failed:
            await anext(agent(TURN))
    assert failed.value.retryable


@pytest.mark.parametrize("script", [Script(mute=True), Script(answer(["x"])[:1], ending="hang")])
async def test_an_answer_that_does_not_begin_is_a_time_out(
    server: FakeServer, script: Script
) -> None:
    async with playing(server, script, first_token_timeout=0.2) as (agent, model):
        with pytest.raises(UpstreamTimeout, match="did not begin"):
            await anext(agent(TURN))
        assert (await server.seen(model, "gone")).gone


@pytest.mark.parametrize(
    "script",
    [
        Script(answer(["x"])[:2], ending="hang"),
        Script([*answer(["x"])[:2], b": still here\n\n"], ending="flood", every=0.02),
    ],
)
async def test_an_answer_that_falls_silent_is_a_time_out(
    server: FakeServer, script: Script
) -> None:
    async with playing(server, script, token_timeout=0.3) as (agent, model):
        answering = agent(TURN)
        assert await anext(answering) == "x"
        with pytest.raises(UpstreamTimeout, match="fell silent"):
            await asyncio.wait_for(anext(answering), PATIENCE)
        assert (await server.seen(model, "gone")).gone


async def test_events_without_text_after_the_finish_reason_do_not_extend_the_answer(
    server: FakeServer,
) -> None:
    script = Script([*answer(["x"])[:3], sse({"choices": []})], ending="flood", every=0.02)
    async with playing(server, script, token_timeout=0.3) as (agent, model):
        assert [piece async for piece in agent(TURN)] == ["x", Done("stop")]
        assert (await server.seen(model, "gone")).gone


@pytest.mark.parametrize(
    "extra",
    [
        json.dumps({"details": "x" * 70_000}),
        '{"details": ' + "[" * 20 + "]" * 20 + "}",
        '{"note": "\\ud83d", "tokens": 123456789012345678901234567890}',
    ],
    ids=["too large", "too deep", "too great a number"],
)
async def test_a_usage_that_no_frame_can_hold_is_left_out(server: FakeServer, extra: str) -> None:
    events = [*answer(["x"])[:3], sse('{"choices": [], "usage": ' + extra + "}"), sse("[DONE]")]
    assert await said(server, Script(events)) == ["x", Done("stop")]


async def test_the_name_of_a_tool_is_cut(server: FakeServer) -> None:
    call = chunk({"tool_calls": [{"function": {"name": "n" * 100_000}}]})
    pieces = await said(server, Script([sse(call), *answer(["x"])]))
    assert pieces[0] == Status("tool", name="n" * 200)


async def test_reasoning_after_an_early_finish_reason_is_waited_for(server: FakeServer) -> None:
    thoughts = [sse(chunk({"reasoning_content": "Hm."}, "stop"))] * 15
    script = Script([*thoughts, *answer(["x"])], every=0.3)
    pieces = await said(server, script, token_timeout=3.0)
    assert pieces == [Status("reasoning"), "x", Done("stop", usage(3, 1))]


async def test_the_word_null_is_no_finish_reason(server: FakeServer) -> None:
    script = Script([sse(chunk({"content": "x"}, "null"))], ending="cut")
    failed, pieces, _ = await failure(server, script)
    assert "broke off" in failed.sentence
    assert pieces == ["x"]


async def test_a_slow_reader_is_no_silence_of_the_upstream(server: FakeServer) -> None:
    script = Script(answer(["x", "y"]), every=0.05)
    async with playing(server, script, token_timeout=2) as (agent, _):
        pieces = []
        async for piece in agent(TURN):
            pieces.append(piece)
            await asyncio.sleep(2.5 if piece == "x" else 0)
    assert pieces == ["x", "y", Done("stop", usage(3, 2))]


async def test_the_key_stands_in_no_log_line_and_no_error(
    server: FakeServer, log_lines: list[str]
) -> None:
    key = "sk-very-secret"
    echo = f"Incorrect API key provided: {key}"
    in_stream = [*answer(["x"])[:2], sse({"error": {"message": echo}})]
    scripts = [
        Script(refusals=[Refusal(401, {}, echo)]),
        Script(refusals=[Refusal(503, {}, echo)] * 3),
        Script(refusals=[Refusal(0)] * 3),
        Script(in_stream),
        Script([b"x"], content_type="text/html"),
    ]
    for script in scripts:
        failed, _, _ = await failure(server, script, api_key=key)
        assert key not in "".join(traceback.format_exception(failed))
    assert any("upstream_retry" in line for line in log_lines)
    assert key not in "".join(log_lines)


# How it stops


@pytest.fixture(params=["http", "tls"])
def any_server(
    request: pytest.FixtureRequest, server: FakeServer, tls_server: FakeServer
) -> FakeServer:
    return server if request.param == "http" else tls_server


async def stop(answering: asyncio.Task[None]) -> None:
    answering.cancel()
    await asyncio.wait({answering})
    assert answering.cancelled()


@LOOPS
@pytest.mark.parametrize(
    ("script", "heard"),
    [
        (Script(mute=True), 0),
        (Script(ending="hang"), 0),
        (Script(answer(["x", "y"])[:3], ending="hang"), 2),
    ],
    ids=["before the headers", "before the first token", "in the middle"],
)
def test_cancelling_hangs_up_at_whatever_await_it_stands(
    any_server: FakeServer,
    ca_file: str,
    loop: Callable[[], asyncio.AbstractEventLoop],
    script: Script,
    heard: int,
) -> None:
    async def scenario() -> None:
        async with playing(any_server, script, ca_file=ca_file) as (agent, model):
            pieces: asyncio.Queue[Piece] = asyncio.Queue()

            async def listen() -> None:
                async with aclosing(agent(TURN)) as answer:  # type: ignore[type-var]
                    async for piece in answer:
                        pieces.put_nowait(piece)

            answering = asyncio.create_task(listen())
            await any_server.seen(model, "arrived")
            for _ in range(heard):
                await pieces.get()
            await stop(answering)
            seen = await any_server.seen(model, "gone")
            assert seen.gone
            assert len(seen.requests) == 1

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@LOOPS
@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_an_upstream_that_only_writes_is_stopped_at_once(
    any_server: FakeServer,
    ca_file: str,
    loop: Callable[[], asyncio.AbstractEventLoop],
    how: str,
) -> None:
    script = Script([sse(chunk({"content": "word "}))], ending="flood", every=0.02)

    async def scenario() -> None:
        async with playing(any_server, script, ca_file=ca_file) as (agent, model):
            enough = asyncio.Event()

            async def listen() -> None:
                async with aclosing(agent(TURN)) as answer:  # type: ignore[type-var]
                    for _ in range(5):
                        await anext(answer)
                    enough.set()
                    if how == "cancelled":
                        async for _ in answer:
                            pass

            answering = asyncio.create_task(listen())
            await asyncio.wait_for(enough.wait(), PATIENCE)
            if how == "cancelled":
                await stop(answering)
            else:
                await answering
            sent = (await any_server.seen(model)).sent
            seen = await any_server.seen(model, "gone")
            assert seen.gone
            assert seen.sent - sent < 10

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())

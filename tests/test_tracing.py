"""Streams as OpenTelemetry spans."""

from __future__ import annotations

import asyncio
import signal
import sys

from aiohttp import ClientSession, web
from conftest import ROOT
from fakes import FakeAgents, FakeReader, fails, says, talks
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id
from processes import serving

from jarvis_stream.agents.base import Turn
from jarvis_stream.history.memory import MemoryHistory
from jarvis_stream.ids import TraceParent
from jarvis_stream.registry import Opening, StreamRegistry
from jarvis_stream.tracing import StreamTracer

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = TraceParent(TRACE, "b7ad6b7169203331")


async def spans_of(agents: FakeAgents, *openings: Opening) -> tuple[ReadableSpan, ...]:
    """The spans of streams that are opened one after another, each once its predecessor speaks."""
    exporter = InMemorySpanExporter()
    async with StreamTracer(SimpleSpanProcessor(exporter)) as tracer:
        registry = StreamRegistry(agents, MemoryHistory(), trace=tracer.trace)
        for opening in openings:
            stream = registry.open(opening)
            await FakeReader(stream).begins()
        await asyncio.wait([stream.stopped])
        return exporter.get_finished_spans()


async def test_a_stream_is_a_span_with_its_events() -> None:
    (span,) = await spans_of(
        FakeAgents(hello=says("a", "b")),
        Opening(prompt="hello", stream_id="A", session_id="S", trace_id=TRACE),
    )
    assert span.name == "jarvis.stream"
    assert format_trace_id(span.context.trace_id) == TRACE
    assert span.parent is None
    assert span.attributes is not None
    assert span.attributes["jarvis.stream_id"] == "A"
    assert span.attributes["session.id"] == "S"
    assert span.attributes["jarvis.finish_reason"] == "stop"
    assert span.attributes["jarvis.answer_bytes"] == 2
    assert [event.name for event in span.events] == ["activated", "first_token", "ended"]
    moments = [span.start_time, *(event.timestamp for event in span.events), span.end_time]
    assert moments == sorted(moment for moment in moments if moment is not None)


async def test_it_is_its_callers_child_and_its_upstreams_parent() -> None:
    turns = []

    async def agent(turn: Turn):  # type: ignore[no-untyped-def]
        turns.append(turn)
        yield "a"

    (span,) = await spans_of(
        agent,  # type: ignore[arg-type]
        Opening(prompt="hello", stream_id="A", trace_id=TRACE, parent=PARENT),
    )
    assert span.parent is not None
    assert format_span_id(span.parent.span_id) == PARENT.span_id
    assert turns[0].traceparent == f"00-{TRACE}-{format_span_id(span.context.span_id)}-01"


async def test_a_superseded_stream_tells_when_and_why() -> None:
    first, _ = await spans_of(
        FakeAgents(long=talks("a"), short=says("b")),
        Opening(prompt="long", stream_id="A", session_id="S", trace_id=TRACE),
        Opening(prompt="short", stream_id="B", session_id="S", trace_id=TRACE),
    )
    (revoked,) = [event for event in first.events if event.name == "revoked"]
    assert revoked.attributes == {"reason": "registry_new_stream"}
    assert first.attributes is not None
    assert first.attributes["jarvis.finish_reason"] == "superseded"


async def test_a_failure_is_a_code_and_never_the_exceptions_text() -> None:
    (span,) = await spans_of(
        FakeAgents(hello=fails(ValueError("secret-4711"))),
        Opening(prompt="hello", stream_id="A", trace_id=TRACE),
    )
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "agent_error"
    assert "secret" not in span.to_json()


async def test_what_the_caller_does_not_sample_is_no_span() -> None:
    assert not await spans_of(
        FakeAgents(hello=says("a")),
        Opening(
            prompt="hello",
            stream_id="A",
            trace_id=TRACE,
            parent=TraceParent(TRACE, PARENT.span_id, sampled=False),
        ),
    )


async def test_a_server_sends_its_spans_to_where_the_variables_say() -> None:
    received: asyncio.Queue[ExportTraceServiceRequest] = asyncio.Queue()

    async def collect(request: web.Request) -> web.Response:
        await received.put(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()

    try:
        with serving(
            sys.executable,
            ROOT / "run.py",
            "--agent",
            "demo",
            "--traces",
            "otlp",
            "--database-url",
            "memory:",
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": site.name, "OTEL_SERVICE_NAME": "chat"},
        ) as server:
            async with ClientSession() as session:
                answer = await session.post(
                    server.url + "/api/chat",
                    json={"prompt": "/echo hi"},
                    headers={"traceparent": str(PARENT)},
                )
                await answer.read()
            # On its way out it sends what was not sent yet.
            await asyncio.to_thread(server.stop, signal.SIGTERM)
        request = await received.get()
    finally:
        await runner.cleanup()
    (resource,) = request.resource_spans
    names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert names["service.name"] == "chat"
    ((span,),) = [scope.spans for scope in resource.scope_spans]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT.span_id)

"""Streams as OpenTelemetry spans: one each, made when it is over, so that a token pays nothing.

The span has the ids that the stream's frames, its log lines and the upstream's `traceparent` carry.
Where spans go, and which are kept, the usual variables tell (OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, …: https://opentelemetry.io/docs/languages/sdk-configuration/).
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from jarvis_stream import __version__
from jarvis_stream.frames import Failed
from jarvis_stream.ids import TraceParent
from jarvis_stream.stream import Stream

SPAN: Final = "jarvis.stream"


class StreamTracer:
    """Makes the spans. An async context manager; leaving it sends what is still here."""

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        """`processor`: where spans go; by default in batches, from a thread of its own, to OTLP."""
        if processor is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            processor = BatchSpanProcessor(OTLPSpanExporter())
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            id_generator=self._ids,
            resource=Resource({SERVICE_NAME: "jarvis-stream", SERVICE_VERSION: __version__}).merge(
                OTELResourceDetector().detect()  # what the variables say wins
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("jarvis_stream", __version__)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # It waits for the network; its own time-out bounds that.
        await asyncio.to_thread(self._provider.shutdown)

    def trace(self, stream: Stream) -> None:
        """Make the span of a stream whose agent has stopped."""
        offset = time.time_ns() - time.monotonic_ns()

        def moment(seconds: float) -> int:
            return round(seconds * 1e9) + offset

        self._ids.next = stream.place
        span = self._tracer.start_span(
            SPAN,
            _context(stream.parent),
            kind=SpanKind.SERVER,
            start_time=moment(stream.started_at),
            attributes={
                "session.id": stream.session_id,
                "jarvis.stream_id": stream.stream_id,
                "jarvis.epoch": stream.epoch,
                "jarvis.frames": stream.seq,
                "jarvis.answer_bytes": stream.text_size,
            },
        )
        for name, seconds in (
            ("activated", stream.activated_at),
            ("first_token", stream.first_token_at),
        ):
            if seconds:
                span.add_event(name, timestamp=moment(seconds))
        if stream.ended_at is not None:
            span.add_event("ended", timestamp=round(stream.ended_at * 1e9))
        if stream.revoked_at:
            reason = {"reason": stream.revoked_for or ""}
            span.add_event("revoked", reason, timestamp=moment(stream.revoked_at))
        if isinstance(stream.ending, Failed):
            span.set_attribute("error.type", stream.ending.code)
            span.set_status(StatusCode.ERROR)
        elif stream.ending is not None:
            span.set_attribute("jarvis.finish_reason", stream.ending.finish_reason)
        span.end()


class _GivenIds(IdGenerator):
    """The ids of the span to be made; a trace that has a parent asks only for the span's."""

    next: TraceParent

    def generate_trace_id(self) -> int:
        return int(self.next.trace_id, 16)

    def generate_span_id(self) -> int:
        return int(self.next.span_id, 16)


def _context(parent: TraceParent | None) -> Context:
    if parent is None:
        return Context()
    return trace.set_span_in_context(
        NonRecordingSpan(
            SpanContext(
                int(parent.trace_id, 16),
                int(parent.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(parent.sampled),
            )
        ),
        Context(),
    )

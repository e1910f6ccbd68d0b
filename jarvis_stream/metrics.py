"""What is counted, read from where it is counted anyway: a scrape costs the hot path nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from jarvis_stream.history.base import Health
from jarvis_stream.registry import StreamRegistry


class StreamCollector(Collector):
    """The registry's figures, as of now."""

    def __init__(self, registry: StreamRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        registry = self._registry
        states = GaugeMetricFamily(
            "jarvis_streams", "Streams that are not retired, by state.", labels=["state"]
        )
        counts: dict[str, int] = dict.fromkeys(
            ("pending", "active", "sealed", "ended", "undead"), 0
        )
        readers = 0
        for stream in registry:
            counts["undead" if stream.undead else stream.state.value] += 1
            readers += stream.followers
        for state, count in counts.items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily("jarvis_readers", "Readers of live streams.", readers)
        yield GaugeMetricFamily(
            "jarvis_replayable_streams", "Ended streams that can be replayed.", len(registry.shelf)
        )
        yield GaugeMetricFamily("jarvis_replayable_bytes", "Memory they take.", registry.shelf.size)
        ended = CounterMetricFamily(
            "jarvis_streams_ended", "Streams that ended, by outcome.", labels=["outcome"]
        )
        for outcome, count in registry.endings.items():
            ended.add_metric([outcome], count)
        yield ended
        yield CounterMetricFamily(
            "jarvis_cancel_timeouts",
            "Streams that a successor could not wait for any longer.",
            registry.timeouts,
        )
        yield from _history(registry.history.health)


def _history(health: Health) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "jarvis_history_writable", "1 if the last attempt to write succeeded.", health.writable
    )
    yield GaugeMetricFamily(
        "jarvis_history_backlog_turns", "Turns not yet durable.", health.backlog
    )
    yield GaugeMetricFamily(
        "jarvis_history_backlog_bytes", "Memory they take.", health.backlog_bytes
    )
    yield CounterMetricFamily(
        "jarvis_history_saved", "Questions and answers that became durable.", health.saved
    )
    yield CounterMetricFamily(
        "jarvis_history_failures", "Transactions that failed.", health.failures
    )
    yield CounterMetricFamily("jarvis_history_dropped", "Turns given up.", health.dropped)


COLLECTORS: Final = web.AppKey("collectors", CollectorRegistry)


def collectors(registry: StreamRegistry) -> CollectorRegistry:
    """Everything that `/metrics` shows: the streams, the process and the Python it runs on."""
    collected = CollectorRegistry()
    collected.register(StreamCollector(registry))
    ProcessCollector(registry=collected)
    PlatformCollector(registry=collected)
    return collected


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`, in Prometheus's text format."""
    return web.Response(
        body=generate_latest(request.app[COLLECTORS]),
        headers={"Content-Type": CONTENT_TYPE_LATEST},
    )

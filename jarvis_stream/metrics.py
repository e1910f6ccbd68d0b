"""What is counted, read from where it is counted anyway: a scrape costs the hot path nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Final, Self

from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from jarvis_stream import logs
from jarvis_stream.history.base import Health
from jarvis_stream.node import Node
from jarvis_stream.registry import StreamRegistry
from jarvis_stream.tally import Tally
from jarvis_stream.transports.context import Counts
from jarvis_stream.watchdog import LoopWatchdog


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
        now = time.monotonic()
        yield GaugeMetricFamily(
            "jarvis_oldest_stream_seconds",
            "Age of the oldest stream that is not retired.",
            max((now - stream.started_at for stream in registry), default=0),
        )
        yield GaugeMetricFamily(
            "jarvis_longest_silence_seconds",
            "Longest time that a stream which is not retired has had no new frame.",
            max((stream.silence(now) for stream in registry), default=0),
        )
        yield GaugeMetricFamily("jarvis_readers", "Readers of live streams.", readers)
        yield GaugeMetricFamily(
            "jarvis_replayable_streams", "Ended streams that can be replayed.", len(registry.shelf)
        )
        yield GaugeMetricFamily("jarvis_replayable_bytes", "Memory they take.", registry.shelf.size)
        yield _counter(
            "jarvis_streams_ended",
            "Streams that ended, by outcome.",
            ("outcome",),
            (((outcome,), count) for outcome, count in registry.endings.items()),
        )
        yield CounterMetricFamily(
            "jarvis_cancel_timeouts",
            "Streams that did not stop in time when they were cancelled.",
            registry.timeouts,
        )
        yield _counter(
            "jarvis_starts",
            "Requests for an answer that were taken, by transport and outcome.",
            ("transport", "outcome"),
            registry.starts.items(),
        )
        yield GaugeMetricFamily(
            "jarvis_log_bytes",
            "Memory that the logs of live streams take.",
            sum(stream.size for stream in registry),
        )
        times = registry.times
        yield _histogram(
            "jarvis_first_token_seconds", "From a start to its first token.", times.first_token
        )
        yield _histogram(
            "jarvis_supersede_wait_seconds",
            "What a start waited for the streams it superseded.",
            times.supersede_wait,
        )
        yield _histogram(
            "jarvis_stop_seconds",
            "From a stop until the agent, its upstream closed, had ended.",
            times.stop,
        )
        yield _histogram(
            "jarvis_delivery_delay_seconds",
            "From the log to the readers' connections; a sample of the frames.",
            times.delivery,
        )
        yield from _history(registry.history.health)


def _counter(
    name: str, about: str, labels: tuple[str, ...], counts: Iterable[tuple[tuple[str, ...], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, about, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family


def _histogram(name: str, about: str, tally: Tally) -> HistogramMetricFamily:
    buckets = [(f"{bound:g}".replace("inf", "+Inf"), count) for bound, count in tally.cumulated()]
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=tally.total)


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
    yield GaugeMetricFamily(
        "jarvis_history_lag_seconds", "How long the oldest of them has waited.", health.lag
    )
    yield CounterMetricFamily(
        "jarvis_history_saved", "Questions and answers that became durable.", health.saved
    )
    yield CounterMetricFamily(
        "jarvis_history_failures", "Transactions that failed.", health.failures
    )
    yield CounterMetricFamily("jarvis_history_dropped", "Turns given up.", health.dropped)


class NodeCollector(Collector):
    """What a node of several has to tell."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        health, counts = self._node.health, self._node.counts
        yield GaugeMetricFamily(
            "jarvis_store_reachable",
            "1 if the store that the nodes share answered the last call.",
            health.reachable and health.refusal is None,
        )
        yield _histogram(
            "jarvis_store_trip_seconds", "How long the store took to answer a call.", health.trips
        )
        yield CounterMetricFamily(
            "jarvis_store_failures", "Calls that it did not answer.", health.failures
        )
        yield GaugeMetricFamily(
            "jarvis_mirrors", "Readers here of other nodes' streams.", self._node.mirrors
        )
        yield CounterMetricFamily(
            "jarvis_shipped_batches", "Batches of frames given to the store.", counts.batches
        )
        yield CounterMetricFamily(
            "jarvis_shipped_frames", "Frames given to the store.", counts.frames
        )
        yield _histogram(
            "jarvis_shipping_seconds", "How long a round of giving frames took.", counts.rounds
        )
        yield CounterMetricFamily(
            "jarvis_fenced",
            "Streams whose frames the store refused: another has their session.",
            counts.fenced,
        )
        yield CounterMetricFamily(
            "jarvis_regressed", "How often the store had lost what it knew.", counts.regressed
        )
        yield CounterMetricFamily(
            "jarvis_buried", "Streams of dead nodes that were ended here.", counts.buried
        )


class LoopLag:
    """How late the event loop is: a timer that counts by how much it was missed.

    A context manager; must be entered on the running loop.
    """

    def __init__(self, every: float = 0.25) -> None:
        self.tally = Tally((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3))
        self._every = every

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._wind()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def _wind(self) -> None:
        self._due = self._loop.time() + self._every
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self.tally.add(max(0.0, self._loop.time() - self._due))
        self._wind()


class TransportCollector(Collector):
    """What the transports and the event loop have to tell."""

    def __init__(
        self,
        counts: Counts,
        sockets: Sized,
        lag: LoopLag,
        connections: Sized = (),
        watchdog: LoopWatchdog | None = None,
    ) -> None:
        self._watchdog = watchdog
        self._counts = counts
        self._sockets = sockets
        self._lag = lag
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        counts = self._counts
        yield _counter(
            "jarvis_requests_refused",
            "Requests and WebSocket messages that were refused.",
            ("transport", "code"),
            counts.refused.items(),
        )
        yield _counter(
            "jarvis_readers_let_go",
            "Connections that ended while they still followed a stream; slow: it took nothing.",
            ("transport", "reason"),
            counts.let_go.items(),
        )
        yield GaugeMetricFamily(
            "jarvis_websockets",
            "WebSockets that are open.",
            len(self._sockets),
        )
        yield GaugeMetricFamily(
            "jarvis_connections",
            "Connections that are open, of whatever kind.",
            len(self._connections),
        )
        yield CounterMetricFamily(
            "jarvis_loop_blocked",
            "How often the event loop was blocked for about 0.75 seconds or longer.",
            0 if self._watchdog is None else self._watchdog.blocked,
        )
        yield CounterMetricFamily(
            "jarvis_log_lines_dropped",
            "Lines of the log, or printed ones, that were lost because nothing took them.",
            logs.dropped_lines(),
        )
        yield _histogram(
            "jarvis_loop_lag_seconds", "By how much the event loop missed a timer.", self._lag.tally
        )


COLLECTORS: Final = web.AppKey("collectors", CollectorRegistry)


def collectors(*own: Collector) -> CollectorRegistry:
    """Everything that `/metrics` shows: our own, the process and the Python it runs on."""
    collected = CollectorRegistry()
    for collector in own:
        collected.register(collector)
    ProcessCollector(registry=collected)
    PlatformCollector(registry=collected)
    return collected


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`, in The Prometheus text format."""
    return web.Response(
        body=generate_latest(request.app[COLLECTORS]),
        headers={"Content-Type": CONTENT_TYPE_LATEST},
    )

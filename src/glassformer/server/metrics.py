"""Counts and levels in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glassformer.server.serving import Served

_COUNTERS = {
    "requests": "Requests taken",
    "cancelled": "Requests that were given up before they were done",
    "failed": "Requests that ended with an error",
    "prompt_tokens": "Tokens of prompts",
    "completion_tokens": "Tokens written",
}


def exposition(models: Iterable[Served]) -> bytes:
    """All metrics of these models, one sample a model."""
    registry = CollectorRegistry()
    registry.register(_Models([served for served in models if served.worker is not None]))
    return generate_latest(registry)


class _Models(Collector):
    def __init__(self, models: list[Served]):
        self.models = models

    def collect(self) -> Iterable[Metric]:
        for name, what in _COUNTERS.items():
            counter = CounterMetricFamily(f"glassformer_{name}", what, labels=["model"])
            for served in self.models:
                assert served.worker is not None
                counter.add_metric([served.name], served.worker.counts[name])
            yield counter
        levels = {
            "rows_active": ("Samples being read or written", lambda engine: len(engine.active)),
            "rows_waiting": ("Samples that wait for a row", lambda engine: len(engine.waiting)),
            "cache_bytes": ("Memory of the key-value cache", lambda engine: engine.cache.n_bytes),
            "cache_max_bytes": ("The most that it will ever have", lambda engine: engine.cache.max_bytes),
        }
        for name, (what, level) in levels.items():
            gauge = GaugeMetricFamily(f"glassformer_{name}", what, labels=["model"])
            for served in self.models:
                assert served.worker is not None
                gauge.add_metric([served.name], level(served.worker.engine))
            yield gauge

"""Metrics in Prometheus's text format."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_server.store import LoadedModel

# Seconds: from a cached prompt on a small model to a long prompt on a slow processor.
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BETWEEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counts requests, and measures the times that their clients feel.

    Attributes:
        requests: finished requests by path and status.
        first_token: time from the arrival of a request to its first token, in seconds.
        between_tokens: time between two tokens of an answer, in seconds.
    """

    def __init__(self, list_loaded: Callable[[], Sequence[LoadedModel]]) -> None:
        """Start counting.

        Args:
            list_loaded: returns the models in memory.
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_EngineCollector(list_loaded))
        self.requests = Counter(
            "glm_requests", "Finished requests.", ("path", "status"), registry=self._registry
        )
        self.first_token = Histogram(
            "glm_time_to_first_token_seconds",
            "Time from the arrival of a request to its first token.",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self._registry,
        )
        self.between_tokens = Histogram(
            "glm_time_between_tokens_seconds",
            "Time between two tokens of an answer.",
            buckets=_BETWEEN_BUCKETS,
            registry=self._registry,
        )

    def to_text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Reads the engines' own counters when Prometheus asks."""

    def __init__(self, list_loaded: Callable[[], Sequence[LoadedModel]]) -> None:
        self._list_loaded = list_loaded

    def collect(self) -> Iterator[Metric]:
        """Yield the counters of every model in memory."""
        found = [(one.name, one.engine.statistics) for one in self._list_loaded()]

        def gauge(name: str, text: str, values: Iterable[float]) -> Metric:
            family = GaugeMetricFamily(name, text, labels=["model"])
            for (model, _), value in zip(found, values, strict=True):
                family.add_metric([model], value)
            return family

        def counter(name: str, text: str, values: Iterable[float]) -> Metric:
            family = CounterMetricFamily(name, text, labels=["model"])
            for (model, _), value in zip(found, values, strict=True):
                family.add_metric([model], value)
            return family

        counted = [statistics for _, statistics in found]
        yield gauge("glm_running", "Answers in progress.", (one.running for one in counted))
        yield gauge("glm_waiting", "Requests that wait.", (one.waiting for one in counted))
        yield gauge(
            "glm_context_bytes",
            "Memory of KV caches and the prefix cache.",
            (one.cache_bytes for one in counted),
        )
        yield counter(
            "glm_prompt_tokens",
            "Prompt tokens that the model has read.",
            (one.prompt_tokens_read for one in counted),
        )
        yield counter(
            "glm_cached_tokens",
            "Prompt tokens that came from the prefix cache.",
            (one.prompt_tokens_cached for one in counted),
        )
        yield counter(
            "glm_generated_tokens", "Generated tokens.", (one.generated_tokens for one in counted)
        )

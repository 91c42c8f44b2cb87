"""From what dispatch tells each second to SageMaker's metrics of asynchronous endpoints.

Those of a backlog have the dimension EndpointName alone, those of invocations VariantName too, and then also the sum of
the endpoint, as Eyrie has for all. While dispatch is away nothing is recorded: missing is not zero.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from eyrie.control.metering import NAMESPACE
from eyrie.decide.async_dispatch import per_instance
from eyrie.domain.exposition import Family, Sample, counter, gauge
from eyrie.domain.metrics import Measured, Metric, Summary, merged
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Metrics, MetricsFull

log = logging.getLogger(__name__)

UNITS = {
    "ApproximateBacklogSize": "Count",
    "ApproximateBacklogSizePerInstance": "Count",
    "HasBacklogWithoutCapacity": "Count",
    "ApproximateAgeOfOldestRequest": "Seconds",
    "RequestDownloadLatency": "Microseconds",
    "ResponseUploadLatency": "Microseconds",
    "ModelLatency": "Microseconds",
    "TimeInBacklog": "Milliseconds",
    "TotalProcessingTime": "Milliseconds",
}
Told = Mapping[str, Any]


class Backlogs:
    """Hears dispatch. Called on the event loop: nothing here waits."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._newest: Told = {}
        self._dropped = 0

    def take(self, told: Told) -> None:
        """A second of dispatch. Raises KeyError, TypeError or ValueError for what is none."""
        self._newest = told
        try:
            self._metrics.record(list(measurements(told, self._clock.now_ms())))
        except MetricsFull as error:
            self._dropped += 1
            log.warning("%d seconds of backlogs dropped so far: %s", self._dropped, error)

    def families(self) -> list[Family]:
        """For monitoring systems: backlogs, and what dispatch counts of itself."""
        told = self._newest
        backlogs = [
            Sample({"endpoint": EndpointKey.from_slug(slug).name}, float(seen["backlog"]))
            for slug, seen in sorted(told.get("endpoints", {}).items())
        ]
        counts = [Sample({"what": name}, float(n)) for name, n in sorted(told.get("counters", {}).items())]
        gauges = [Sample({"what": name}, float(n)) for name, n in sorted(told.get("gauges", {}).items())]
        return [
            gauge("eyrie_async_backlog", "Asynchronous requests that wait or are processed", backlogs),
            counter("eyrie_dispatch_events", "What dispatch counts: retries, losses, limits that were hit", counts),
            gauge("eyrie_dispatch_active", "Invocations under way, and results on their way into objects", gauges),
        ]


def measurements(told: Told, at_ms: int) -> Iterator[Measured]:
    """What a second comes to."""
    for slug, seen in told["endpoints"].items():
        yield from _backlog(EndpointKey.from_slug(slug), seen, at_ms)
    for slug, variants in told["measured"].items():
        yield from _invocations(EndpointKey.from_slug(slug), variants, at_ms)


def _backlog(key: EndpointKey, seen: Told, at_ms: int) -> Iterator[Measured]:
    backlog, instances = int(seen["backlog"]), int(seen["instances"])
    values = {
        "ApproximateBacklogSize": float(backlog),
        "ApproximateBacklogSizePerInstance": per_instance(backlog, instances),
        "HasBacklogWithoutCapacity": 1.0 if backlog and not instances else 0.0,
        "ApproximateAgeOfOldestRequest": float(seen["age_s"]),
    }
    for name, value in values.items():
        if value is not None:
            summary = Summary()
            summary.add(value)
            yield _measured(key, name, (("EndpointName", key.name),), summary, at_ms)


def _invocations(key: EndpointKey, variants: Mapping[str, Told], at_ms: int) -> Iterator[Measured]:
    endpoint = ("EndpointName", key.name)
    whole: dict[str, list[Summary]] = {}
    for variant, metrics in variants.items():
        for name, parts in metrics.items():
            summary = _summary(parts)
            whole.setdefault(name, []).append(summary)
            if variant:
                yield _measured(key, name, (endpoint, ("VariantName", variant)), summary, at_ms)
    for name, summaries in whole.items():
        yield _measured(key, name, (endpoint,), merged(summaries), at_ms)


def _summary(parts: list[Any]) -> Summary:
    count, total, lowest, highest, buckets = parts
    counts = {int(bucket): float(n) for bucket, n in buckets.items()}
    return Summary(float(count), float(total), float(lowest), float(highest), counts)


def _measured(
    key: EndpointKey, name: str, dimensions: tuple[tuple[str, str], ...], summary: Summary, at_ms: int
) -> Measured:
    return Measured(Metric(key.scope, NAMESPACE, name, dimensions), at_ms, summary, UNITS.get(name, "Count"))

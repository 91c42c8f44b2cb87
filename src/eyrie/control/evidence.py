"""What both fleets of a deployment have answered since a step began to bake, from the metrics that are told by
EndpointConfigName: the evidence of `decide/analysis`.

The metrics outlive control; what is kept here is only what was added up of them already, so that a look costs a
second's worth of rows. Read by the loop and by the API, one at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from eyrie.decide import rollout
from eyrie.domain.analysis import CELLS, Evidence, FleetSample
from eyrie.domain.deployment import Deployment
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import Fleet
from eyrie.domain.metrics import Metric, Summary, bucket_of, merged, middle_of
from eyrie.domain.names import EndpointKey, Scope
from eyrie.ports import Metrics

OWN = "AWS/SageMaker"
NAMESPACE = "Eyrie/CanaryAnalysis"
LABELS, NUMBERS, UNREAD = "PredictedLabels", "PredictedNumbers", "UnreadPredictions"
REMEMBERED_MAX = 256  # endpoints whose sums are kept
SECONDS_MS = 2 * 3_600_000  # a longer part is read minute by minute: seconds are not kept much longer
MINUTE_MS = 60_000
_CELL = {bucket_of(float(cell)): cell for cell in range(1, CELLS + 1)}

Told = Mapping[str, Any]
EvidenceOf = Callable[[Endpoint, int], Evidence | None]  # of an endpoint, now


def no_evidence(endpoint: Endpoint, now_ms: int) -> Evidence | None:
    """Where nothing is measured."""
    return None


def predicted(told: Told) -> dict[str, Summary]:
    """What a worker counted of predictions in a second, as summaries by the name of their metric."""
    labels, numbers, unread = Summary(), Summary(), Summary()
    for cell, count in told["labels"].items():
        labels.add(float(int(cell)), float(count))
    for bucket, count in told["numbers"].items():
        value, times = middle_of(int(bucket)), float(count)
        numbers.merge(Summary(times, value * times, value, value, {int(bucket): times}))
    if told["unread"]:
        unread.add(1.0, float(told["unread"]))
    return {name: s for name, s in ((LABELS, labels), (NUMBERS, numbers), (UNREAD, unread)) if s.count}


@dataclass(slots=True)
class _Fleet:
    """Sums of one fleet."""

    latency: Summary = field(default_factory=Summary)
    requests: float = 0.0
    errors: float = 0.0
    labels: dict[int, float] = field(default_factory=dict)
    numbers: dict[int, float] = field(default_factory=dict)
    unread: float = 0.0

    def add(self, read: Callable[[str, str], Summary]) -> None:
        """Count in what lies in one more part of the time. `read`: a metric of a namespace."""
        self.latency.merge(read(OWN, "ModelLatency"))
        self.requests += read(OWN, "Invocations").total
        self.errors += read(OWN, "Invocation4XXErrors").total + read(OWN, "Invocation5XXErrors").total
        for bucket, times in read(NAMESPACE, LABELS).buckets.items():
            cell = _CELL.get(bucket, 0)
            self.labels[cell] = self.labels.get(cell, 0.0) + times
        for bucket, times in read(NAMESPACE, NUMBERS).buckets.items():
            self.numbers[bucket] = self.numbers.get(bucket, 0.0) + times
        self.unread += read(NAMESPACE, UNREAD).total

    def sample(self) -> FleetSample:
        """A copy, that no longer grows."""
        return FleetSample(
            self.latency.copy(), self.requests, self.errors, dict(self.labels), dict(self.numbers), self.unread
        )


@dataclass(slots=True)
class _Step:
    """What was added up of one step of a deployment."""

    generation: int
    since_ms: int
    until_ms: int
    blue: _Fleet = field(default_factory=_Fleet)
    green: _Fleet = field(default_factory=_Fleet)


class EvidenceBook:
    """Evidence of every deployment that is analysed."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._steps: dict[EndpointKey, _Step] = {}
        self._names: dict[tuple[str, int], str] = {}  # a label of each cell, by endpoint

    def hear(self, told: Told) -> None:
        """A worker's second: the labels in it, for people."""
        for slug, variants in told.get("endpoints", {}).items():
            for rollup in (each for instances in variants.values() for each in instances.values()):
                for cell, name in rollup.get("predictions", {}).get("names", {}).items():
                    if len(self._names) >= REMEMBERED_MAX * CELLS:
                        self._names.clear()
                    self._names.setdefault((slug, int(cell)), str(name))

    def of(self, endpoint: Endpoint, now_ms: int) -> Evidence | None:
        """What is known of the present step; None where nothing is analysed."""
        deployment = endpoint.deployment
        if deployment is None or deployment.policy.analysis is None or not rollout.judged(deployment):
            return None
        with self._lock:
            step = self._step(endpoint, deployment, deployment.policy.analysis.warm_up_ms)
            self._read_on(endpoint, deployment, step, now_ms)
            names = {cell: name for (slug, cell), name in self._names.items() if slug == endpoint.key.slug}
            return Evidence(step.blue.sample(), step.green.sample(), step.since_ms, names)

    def _step(self, endpoint: Endpoint, deployment: Deployment, warm_up_ms: int) -> _Step:
        since_ms = deployment.phase_ms + warm_up_ms
        since_ms += -since_ms % 1000
        found = self._steps.get(endpoint.key)
        if found is None or (found.generation, found.since_ms) != (deployment.green.generation, since_ms):
            if len(self._steps) >= REMEMBERED_MAX:
                self._steps.clear()
            found = self._steps[endpoint.key] = _Step(deployment.green.generation, since_ms, since_ms)
        return found

    def _read_on(self, endpoint: Endpoint, deployment: Deployment, step: _Step, now_ms: int) -> None:
        """Add what was measured since; the present second is not over."""
        end_ms = now_ms - now_ms % 1000
        for start_ms, part_ms in _parts(step.until_ms, end_ms):
            for sums, fleet in ((step.blue, endpoint.fleet), (step.green, deployment.green)):
                sums.add(partial(self._sum, endpoint, fleet, start_ms, part_ms))
            step.until_ms = start_ms + part_ms

    def _sum(self, endpoint: Endpoint, fleet: Fleet, start_ms: int, part_ms: int, namespace: str, name: str) -> Summary:
        """A metric of all variants of a fleet, over one part of the time."""
        found = (
            self._metrics.summaries(metric, start_ms, start_ms + part_ms, part_ms)
            for metric in _metrics(endpoint.key.scope, endpoint.key.name, fleet, namespace, name)
        )
        return merged(summary for parts in found for summary in parts.values())


def _parts(start_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
    """Pieces of the time, each a start and a length: whole minutes of what is long ago, the rest at once."""
    if end_ms - start_ms > SECONDS_MS:
        first_ms = start_ms + -start_ms % MINUTE_MS
        long_ms = (end_ms - first_ms) // MINUTE_MS * MINUTE_MS
        yield first_ms, long_ms
        start_ms = first_ms + long_ms
    if end_ms > start_ms:
        yield start_ms, end_ms - start_ms


def _metrics(scope: Scope, endpoint: str, fleet: Fleet, namespace: str, name: str) -> Iterator[Metric]:
    for variant in fleet.variants:
        dimensions = (
            ("EndpointConfigName", fleet.config_name),
            ("EndpointName", endpoint),
            ("VariantName", variant.name),
        )
        yield Metric(scope, namespace, name, dimensions)

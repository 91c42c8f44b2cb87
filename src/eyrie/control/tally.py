"""What gateway workers told since control started, summed up: the counters that monitoring systems want.

Hears the same rollups as `metering`. An instance that nothing was heard of for an hour is left out, so that the number
of series follows the number of instances.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from eyrie.domain.exposition import Distribution, Family, Labels, Sample, counter, gauge, histogram
from eyrie.domain.metrics import middle_of
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
KEPT_MS = 3_600_000
SERIES_MAX = 20_000  # instances at once; more are not counted apart
WORKERS_MAX = 256
_ERRORS = (("e4", "4xx"), ("e5", "5xx"), ("em", "model"))
_MODELS = ("hits", "misses")


@dataclass(slots=True)
class Spread:
    """A histogram that grows."""

    counts: list[float] = field(default_factory=lambda: [0.0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float, times: float = 1.0) -> None:
        """A value, so many times."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += times
        self.total_s += seconds * times

    def merge(self, buckets: Mapping[str, int], total_us: float) -> None:
        """A rollup's durations."""
        for bucket, times in buckets.items():
            self.counts[bisect_left(BOUNDS_S, middle_of(int(bucket)) / 1e6)] += times
        self.total_s += total_us / 1e6

    def told(self, labels: Labels) -> Distribution:
        """As it is now."""
        return Distribution(labels, BOUNDS_S, tuple(self.counts), self.total_s)


@dataclass(slots=True)
class _Instance:
    """What was told of one instance ("" for requests that reached none)."""

    labels: Labels
    heard_ms: int
    requests: int = 0
    peak: int = 0  # at once, in the second that was told last
    counts: Counter[str] = field(default_factory=Counter)
    model: Spread = field(default_factory=Spread)
    overhead: Spread = field(default_factory=Spread)


class Tally:
    """Sums what it hears. Safe from threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._instances: dict[tuple[str, str, str], _Instance] = {}
        self._counters: dict[str, dict[str, int]] = {}  # by worker: running totals, as it told them
        self._gauges: dict[str, dict[str, float]] = {}

    def take(self, told: Mapping[str, Any]) -> None:
        """One worker's second. Raises KeyError, TypeError or ValueError for what is none."""
        worker, now_ms = str(told.get("worker", "")), self._clock.now_ms()
        with self._lock:
            if worker in self._counters or len(self._counters) < WORKERS_MAX:
                totals = {str(name): int(count) for name, count in told.get("counters", {}).items()}
                self._counters.setdefault(worker, {}).update(totals)
                levels = {str(name): float(level) for name, level in told.get("gauges", {}).items()}
                self._gauges.setdefault(worker, {}).update(levels)
            for slug, variants in told.get("endpoints", {}).items():
                for variant, instances in variants.items():
                    for instance_id, rollup in instances.items():
                        self._add(slug, variant, instance_id, rollup, now_ms)

    def _add(self, slug: str, variant: str, instance_id: str, rollup: Mapping[str, Any], now_ms: int) -> None:
        place = (slug, variant, instance_id)
        known = self._instances.get(place)
        if known is None:
            self._forget(now_ms)
            if len(self._instances) >= SERIES_MAX:
                return
            known = self._instances[place] = _Instance(labels_of(slug, variant, instance_id), now_ms)
        known.heard_ms = now_ms
        known.requests += int(rollup["n"])
        known.peak = int(rollup["peak"])
        for name, kind in _ERRORS:
            known.counts[kind] += int(rollup[name])
        for name in _MODELS if rollup.get("models") else ():
            known.counts[name] += int(rollup["models"][name])
        if instance_id:
            known.model.merge(rollup["model"], float(rollup["model_us"]))
        known.overhead.merge(rollup["overhead"], float(rollup["overhead_us"]))

    def _forget(self, now_ms: int) -> None:
        for place in [p for p, known in self._instances.items() if known.heard_ms < now_ms - KEPT_MS]:
            del self._instances[place]

    def families(self) -> list[Family]:
        """Everything, as it is now."""
        with self._lock:
            self._forget(self._clock.now_ms())
            known = list(self._instances.values())
            return [*_of_instances(known), *self._of_workers()]

    def _of_workers(self) -> Iterator[Family]:
        events = [
            Sample({"worker": worker, "event": name}, float(count))
            for worker, counts in sorted(self._counters.items())
            for name, count in sorted(counts.items())
        ]
        yield counter("eyrie_gateway_events", "What a gateway worker did or refused, by its own name for it", events)
        names = sorted({name for told in self._gauges.values() for name in told})
        for name in names:
            levels = [Sample({"worker": w}, told[name]) for w, told in sorted(self._gauges.items()) if name in told]
            yield gauge(f"eyrie_gateway_{name}", f"{name.replace('_', ' ')} of a gateway worker", levels)


def labels_of(slug: str, variant: str = "", instance_id: str = "") -> Labels:
    """The labels of an endpoint, a variant of it, or an instance."""
    key = EndpointKey.from_slug(slug)
    labels = {"account": key.account, "region": key.region, "endpoint": key.name}
    return {**labels, "variant": variant, "instance": instance_id}


def _of_instances(known: list[_Instance]) -> Iterator[Family]:
    yield counter("eyrie_invocations", "Requests that were answered", [Sample(k.labels, k.requests) for k in known])
    errors = [Sample({**k.labels, "kind": kind}, k.counts[kind]) for k in known for _, kind in _ERRORS]
    yield counter("eyrie_invocation_errors", "Requests that were answered with an error", errors)
    peaks = [Sample(k.labels, k.peak) for k in known if k.labels["instance"]]
    yield gauge("eyrie_concurrent_requests", "Requests at once, in the second that was told last", peaks)
    model = [k.model.told(k.labels) for k in known if k.labels["instance"]]
    yield histogram("eyrie_model_latency_seconds", "Time that instances took", model, "s")
    overhead = [k.overhead.told(k.labels) for k in known]
    yield histogram("eyrie_overhead_latency_seconds", "Time that the gateway took", overhead, "s")
    asked = [Sample({**k.labels, "found": n}, k.counts[n]) for k in known for n in _MODELS if n in k.counts]
    yield counter("eyrie_model_cache_requests", "Requests for one of many models, by whether it was loaded", asked)

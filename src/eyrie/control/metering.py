"""From what gateway workers tell each second to SageMaker's metrics, for an endpoint, a variant and an instance.

Namespace, names, units and dimensions are CloudWatch's (`AWS/SageMaker`, EndpointName and VariantName); those for a
whole endpoint (EndpointName alone) and for one instance (InstanceId besides) are Eyrie's own addition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eyrie.domain.metrics import Dimensions, Measured, Metric, Summary, bucket_of, merged, middle_of
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Metrics, MetricsFull

log = logging.getLogger(__name__)

NAMESPACE = "AWS/SageMaker"
UNITS = {"ModelLatency": "Microseconds", "OverheadLatency": "Microseconds", "ConcurrentRequestsPerModel": "Count"}
_ONE = bucket_of(1)
_ONCE_AN_ENDPOINT = ("InvocationsPerInstance", "ConcurrentRequestsPerModel")  # have no meaning for one instance

Told = Mapping[str, Any]
Found = dict[str, Summary]  # by metric name
InstancesOf = Callable[[EndpointKey, str], int]  # instances in the route, of an endpoint's variant


class Metering:
    """Hears the workers' rollups and records them. Called on the event loop: nothing here waits."""

    def __init__(self, metrics: Metrics, clock: Clock, instances_of: InstancesOf) -> None:
        self._metrics = metrics
        self._clock = clock
        self._instances_of = instances_of
        self._dropped = 0

    def take(self, told: Told) -> None:
        """One worker's second. Raises KeyError, TypeError or ValueError for what is none."""
        at_ms = self._clock.now_ms()
        for slug, variants in told.get("endpoints", {}).items():
            measured = list(measurements(EndpointKey.from_slug(slug), variants, at_ms, self._instances_of))
            try:
                self._metrics.record(measured)
            except MetricsFull as error:
                self._dropped += len(measured)
                log.warning("%d measurements dropped so far: %s", self._dropped, error)


def measurements(
    key: EndpointKey, variants: Mapping[str, Told], at_ms: int, instances_of: InstancesOf
) -> Iterator[Measured]:
    """What an endpoint's rollups, by variant and instance, come to."""
    endpoint = (("EndpointName", key.name),)
    whole: list[Found] = []
    for variant, instances in variants.items():
        dimensions = (*endpoint, ("VariantName", variant))
        count = max(instances_of(key, variant), 1)
        parts: list[Found] = []
        for instance_id, rollup in instances.items():
            found = summaries(rollup, count)
            if not instance_id:  # what reached none: no model took any time
                found.pop("ModelLatency", None)
            parts.append(found)
            if instance_id:
                alone = {name: summary for name, summary in found.items() if name not in _ONCE_AN_ENDPOINT}
                yield from _measured(key, alone, (dimensions[0], ("InstanceId", instance_id), dimensions[1]), at_ms)
        together = _together(parts)
        whole.append(together)
        if variant:
            yield from _measured(key, together, dimensions, at_ms)
    yield from _measured(key, _together(whole), endpoint, at_ms)


def summaries(rollup: Told, instances: int) -> Found:
    """One instance's second, by metric name. `instances`: among how many the variant's requests are shared."""
    n = int(rollup["n"])
    return {
        "Invocations": _times(1, n),
        "InvocationsPerInstance": _times(1 / instances, n),
        "Invocation4XXErrors": _share(n, int(rollup["e4"])),
        "Invocation5XXErrors": _share(n, int(rollup["e5"])),
        "InvocationModelErrors": _share(n, int(rollup["em"])),
        "ModelLatency": _durations(rollup["model"], float(rollup["model_us"])),
        "OverheadLatency": _durations(rollup["overhead"], float(rollup["overhead_us"])),
        "ConcurrentRequestsPerModel": _times(float(rollup["peak"]), 1),
    }


def _together(parts: list[Found]) -> Found:
    names = dict.fromkeys(name for found in parts for name in found)
    return {name: merged([found[name] for found in parts if name in found]) for name in names}


def _measured(key: EndpointKey, found: Found, dimensions: Dimensions, at_ms: int) -> Iterator[Measured]:
    for name, summary in found.items():
        if summary.count:
            yield Measured(Metric(key.scope, NAMESPACE, name, dimensions), at_ms, summary, UNITS.get(name, "None"))


def _times(value: float, count: int) -> Summary:
    """The same value so many times."""
    summary = Summary()
    if count:
        summary.add(value, count)
    return summary


def _share(count: int, hits: int) -> Summary:
    """Ones among zeros: the average is the rate."""
    buckets = {bucket: float(times) for bucket, times in ((0, count - hits), (_ONE, hits)) if times}
    return Summary(count, hits, 0.0 if hits < count else 1.0, 1.0 if hits else 0.0, buckets)


def _durations(told: Mapping[str, int], total_us: float) -> Summary:
    buckets = {int(bucket): float(times) for bucket, times in told.items()}
    if not buckets:
        return Summary()
    return Summary(sum(buckets.values()), total_us, middle_of(min(buckets)), middle_of(max(buckets)), buckets)

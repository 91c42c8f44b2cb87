"""From what gateway workers tell each second to SageMaker's metrics, for an endpoint, a variant and an instance.

Namespace, names, units and dimensions are CloudWatch's (`AWS/SageMaker`, EndpointName and VariantName); those for a
whole endpoint (EndpointName alone) and for one instance (InstanceId besides) are Eyrie's own addition. During an update
every variant's are also told by EndpointConfigName, the old fleet's and the new one's apart. A shadow variant has all
that its copies come to under its own name; to the endpoint as a whole they do not count. How many
requests an instance has at once is the sum of what the workers tell for one second: known when it is over for all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from eyrie.control import evidence
from eyrie.domain.metrics import Dimensions, Measured, Metric, Summary, bucket_of, merged, middle_of
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Metrics, MetricsFull

log = logging.getLogger(__name__)

NAMESPACE = "AWS/SageMaker"
CONCURRENCY = "ConcurrentRequestsPerModel"
UNITS = {
    "ModelLatency": "Microseconds",
    "OverheadLatency": "Microseconds",
    CONCURRENCY: "Count",
    "ModelLoadingWaitTime": "Microseconds",
    "ModelDownloadingTime": "Microseconds",
    "ModelLoadingTime": "Microseconds",
    "ModelUnloadingTime": "Microseconds",
    "FirstChunkLatency": "Microseconds",
    "FirstChunkModelLatency": "Microseconds",
    "FirstChunkOverheadLatency": "Microseconds",
}
STREAM_TIMES = {
    "whole": "FirstChunkLatency",
    "model": "FirstChunkModelLatency",
    "overhead": "FirstChunkOverheadLatency",
}
MODEL_TIMES = {  # of a multi-model endpoint, by what a rollup calls them
    "wait": "ModelLoadingWaitTime",
    "download": "ModelDownloadingTime",
    "load": "ModelLoadingTime",
    "unload": "ModelUnloadingTime",
}
PATIENCE_MS = 1_500  # real time in which every worker has told a second that is over
_ONE = bucket_of(1)
_ONCE_AN_ENDPOINT = ("InvocationsPerInstance",)  # has no meaning for one instance

Told = Mapping[str, Any]
Found = dict[str, Summary]  # by metric name
InstancesOf = Callable[[EndpointKey, str], int]  # instances in the route, of an endpoint's variant
ConfigOf = Callable[[EndpointKey, str], str]  # EndpointConfigName of an instance during an update, else ""


def _no_update(key: EndpointKey, instance_id: str) -> str:
    return ""


@dataclass(slots=True)
class _Second:
    """How many requests each instance had at once in one second, summed over the workers that told it so far."""

    at_ms: int
    told_s: float  # when it was first told of
    peaks: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by slug, variant and instance
    shadows: set[tuple[str, str]] = field(default_factory=set)  # slug and variant of those that answer copies


class Metering:
    """Hears the workers' rollups and records them. Called on the event loop: nothing here waits."""

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        instances_of: InstancesOf,
        monotonic: Callable[[], float] = time.monotonic,
        config_of: ConfigOf = _no_update,
    ) -> None:
        self._config_of = config_of
        self._metrics = metrics
        self._clock = clock
        self._instances_of = instances_of
        self._monotonic = monotonic
        self._seconds: dict[int, _Second] = {}
        self._dropped = 0

    def take(self, told: Told) -> None:
        """One worker's second. Raises KeyError, TypeError or ValueError for what is none."""
        at_ms, at_s = self._clock.now_ms(), int(told.get("at_s", 0))
        for slug, variants in told.get("endpoints", {}).items():
            key = EndpointKey.from_slug(slug)
            self._record(list(measurements(key, variants, at_ms, self._instances_of, self._config_of)))
            second = self._seconds.setdefault(at_s, _Second(at_ms, self._monotonic()))
            for variant, instances in variants.items():
                for instance_id, rollup in instances.items():
                    if instance_id and variant:
                        second.peaks[slug, variant, instance_id] += int(rollup["peak"])
                        if rollup.get("shadow"):
                            second.shadows.add((slug, variant))
        self.flush()

    async def run(self) -> None:
        """Close seconds that nothing follows, for ever."""
        while True:
            await asyncio.sleep(1.0)
            self.flush()

    def flush(self) -> None:
        """Record what is known of seconds that are over for every worker."""
        over_s = self._monotonic() - PATIENCE_MS / 1000
        for at_s in [at_s for at_s, second in self._seconds.items() if second.told_s <= over_s]:
            second = self._seconds.pop(at_s)
            self._record(list(concurrency(second.peaks, second.at_ms, second.shadows)))

    def _record(self, measured: list[Measured]) -> None:
        try:
            self._metrics.record(measured)
        except MetricsFull as error:
            self._dropped += len(measured)
            log.warning("%d measurements dropped so far: %s", self._dropped, error)


def concurrency(
    peaks: Mapping[tuple[str, str, str], int], at_ms: int, shadows: Collection[tuple[str, str]] = ()
) -> Iterator[Measured]:
    """How many requests instances had at once: a value an instance, so that a variant's average is by instance.
    Copies that `shadows` answer are no requests of the endpoint as a whole.
    """
    found: dict[tuple[str, Dimensions], Summary] = {}
    for (slug, variant, instance_id), peak in peaks.items():
        endpoint, of_variant = ("EndpointName", EndpointKey.from_slug(slug).name), ("VariantName", variant)
        alone = (endpoint, ("InstanceId", instance_id), of_variant)
        levels: tuple[Dimensions, ...] = ((endpoint,), (endpoint, of_variant), alone)
        for dimensions in levels[(slug, variant) in shadows :]:
            found.setdefault((slug, dimensions), Summary()).add(float(peak))
    for (slug, dimensions), summary in found.items():
        metric = Metric(EndpointKey.from_slug(slug).scope, NAMESPACE, CONCURRENCY, dimensions)
        yield Measured(metric, at_ms, summary, UNITS[CONCURRENCY])


def measurements(
    key: EndpointKey,
    variants: Mapping[str, Told],
    at_ms: int,
    instances_of: InstancesOf,
    config_of: ConfigOf = _no_update,
) -> Iterator[Measured]:
    """What an endpoint's rollups, by variant and instance, come to; during an update also by EndpointConfigName."""
    endpoint = (("EndpointName", key.name),)
    whole: list[Found] = []
    for variant, instances in variants.items():
        dimensions = (*endpoint, ("VariantName", variant))
        count = max(instances_of(key, variant), 1)
        parts: list[Found] = []
        by_config: dict[str, list[Found]] = {}
        predictions: dict[str, list[Found]] = {}
        for instance_id, rollup in instances.items():
            found = summaries(rollup, count)
            if not instance_id:  # what reached none: no model took any time
                found.pop("ModelLatency", None)
            parts.append(found)
            if instance_id and (config := config_of(key, instance_id)):
                by_config.setdefault(config, []).append(found)
                if "predictions" in rollup:
                    predictions.setdefault(config, []).append(evidence.predicted(rollup["predictions"]))
            if instance_id:
                alone = {name: summary for name, summary in found.items() if name not in _ONCE_AN_ENDPOINT}
                yield from _measured(key, alone, (dimensions[0], ("InstanceId", instance_id), dimensions[1]), at_ms)
        together = _together(parts)
        if not any(rollup.get("shadow") for rollup in instances.values()):
            whole.append(together)
        if variant:
            yield from _measured(key, together, dimensions, at_ms)
        for config, ours in by_config.items():
            yield from _measured(key, _together(ours), (("EndpointConfigName", config), *dimensions), at_ms)
        for config, ours in predictions.items():
            of_config = (("EndpointConfigName", config), *dimensions)
            yield from _measured(key, _together(ours), of_config, at_ms, evidence.NAMESPACE)
    yield from _measured(key, _together(whole), endpoint, at_ms)


def summaries(rollup: Told, instances: int) -> Found:
    """One instance's second, by metric name. `instances`: among how many the variant's requests are shared."""
    n = int(rollup["n"])
    models, streams = rollup.get("models"), rollup.get("streams")
    return {
        **(of_models(models) if models else {}),
        **(of_streams(streams) if streams else {}),
        "Invocations": _times(1, n),
        "InvocationsPerInstance": _times(1 / instances, n),
        "Invocation4XXErrors": _share(n, int(rollup["e4"])),
        "Invocation5XXErrors": _share(n, int(rollup["e5"])),
        "InvocationModelErrors": _share(n, int(rollup["em"])),
        "ModelLatency": durations(rollup["model"], float(rollup["model_us"])),
        "OverheadLatency": durations(rollup["overhead"], float(rollup["overhead_us"])),
    }


def of_models(told: Told) -> Found:
    """What an instance of a multi-model endpoint did with its models in a second."""
    hits, misses = int(told["hits"]), int(told["misses"])
    times = {name: _spread(told[key]) for key, name in MODEL_TIMES.items()}
    return {"ModelCacheHit": _share(hits + misses, hits), **times}


def of_streams(told: Told) -> Found:
    """Streams of an instance that ended in a second: their first pieces, and whether they broke off."""
    times = {name: _spread(told[key]) for key, name in STREAM_TIMES.items()}
    return {"MidStreamErrors": _share(int(told["streams"]), int(told["broken"])), **times}


def _together(parts: list[Found]) -> Found:
    names = dict.fromkeys(name for found in parts for name in found)
    return {name: merged([found[name] for found in parts if name in found]) for name in names}


def _measured(
    key: EndpointKey, found: Found, dimensions: Dimensions, at_ms: int, namespace: str = NAMESPACE
) -> Iterator[Measured]:
    for name, summary in found.items():
        if summary.count:
            yield Measured(Metric(key.scope, namespace, name, dimensions), at_ms, summary, UNITS.get(name, "None"))


def _times(value: float, count: int) -> Summary:
    """The same value so many times."""
    summary = Summary()
    if count:
        summary.add(value, count)
    return summary


def _share(count: int, hits: int) -> Summary:
    """Ones among zeros: the average is the rate."""
    if not count:
        return Summary()
    buckets = {bucket: float(times) for bucket, times in ((0, count - hits), (_ONE, hits)) if times}
    return Summary(count, hits, 0.0 if hits < count else 1.0, 1.0 if hits else 0.0, buckets)


def durations(told: Mapping[str, int], total_us: float) -> Summary:
    """The summary of durations that are told by bucket, with their sum in microseconds."""
    buckets = {int(bucket): float(times) for bucket, times in told.items()}
    if not buckets:
        return Summary()
    return Summary(sum(buckets.values()), total_us, middle_of(min(buckets)), middle_of(max(buckets)), buckets)


def _spread(told: Mapping[str, int]) -> Summary:
    """Durations of which only the buckets are known: their sum is within 1 %."""
    return durations(told, sum(middle_of(int(bucket)) * times for bucket, times in told.items()))

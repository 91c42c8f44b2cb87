"""From what gateway workers tell of shadows' answers to metrics, which `eyrie shadow report` (and alarms) read.

All of it is kept in metrics.db, whose one writer is control, in the namespace Eyrie/Shadow with the dimensions
EndpointName and VariantName (the shadow's):
- Outcome by OutcomeName: pairs where both answered, production failed, the shadow failed, both failed;
- ErrorDifference: -1, 0, 1, the shadow's failures less production's, of every pair;
- Dropped by Reason: copies that were due and not sent; NotCompared by Reason: pairs whose bodies were not read;
- LatencyDifference (microseconds), Agreement (of a request's rows), PredictionDifference: of the compared pairs;
- FeatureValue and FeatureValueDisagreeing by Feature: how compared rows, and those that disagree, are spread;
- SliceAgreement by Feature and Value, of features that are text.
Summaries are those of `domain/metrics`: they merge over workers, seconds and restarts, and buckets bound them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from eyrie.domain.metrics import Measured, Metric, Summary, middle_of
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Metrics, MetricsFull

log = logging.getLogger(__name__)

NAMESPACE = "Eyrie/Shadow"
OUTCOMES = ("BothAnswered", "ProductionFailed", "ShadowFailed", "BothFailed")
OTHER = "(other)"
SHADOWS_MAX = 1_000  # remembered at once
FEATURES_MAX = 32  # of one shadow, as the workers have it
VALUES_MAX = 16  # of one text feature
Told = Mapping[str, Any]


class ShadowMeter:
    """Hears the workers' pairs and records them. Called on the event loop: nothing here waits."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._features: dict[tuple[EndpointKey, str], dict[str, set[str]]] = {}  # of a shadow: their values, if text
        self._dropped = 0

    def take(self, told: Told) -> None:
        """One worker's second. Raises KeyError, TypeError or ValueError for what is none."""
        at_ms = self._clock.now_ms()
        for slug, shadows in told.get("shadows", {}).items():
            key = EndpointKey.from_slug(slug)
            for shadow, counts in shadows.items():
                known = self._known(key, shadow)
                try:
                    self._metrics.record(list(measurements(key, shadow, counts, at_ms, known)))
                except MetricsFull as error:
                    self._dropped += 1
                    log.warning("%d seconds of shadows dropped so far: %s", self._dropped, error)

    def _known(self, key: EndpointKey, shadow: str) -> dict[str, set[str]]:
        """The features of a shadow that are kept already, and the values of those that are text; also those of before
        a restart.
        """
        known = self._features.get((key, shadow))
        if known is None:
            if len(self._features) >= SHADOWS_MAX:
                self._features.clear()
            known = self._features[key, shadow] = {}
            for name in ("FeatureValue", "SliceAgreement"):
                for series in self._metrics.series(key.scope, NAMESPACE, name):
                    own = dict(series.metric.dimensions)
                    if (own.get("EndpointName"), own.get("VariantName")) == (key.name, shadow):
                        values = known.setdefault(own["Feature"], set())
                        if "Value" in own:
                            values.add(own["Value"])
        return known


def measurements(
    key: EndpointKey, shadow: str, told: Told, at_ms: int, known: dict[str, set[str]]
) -> Iterator[Measured]:
    """What one second of a shadow comes to. `known`: its features and their texts so far; it grows, within bounds."""

    def measured(name: str, summary: Summary, unit: str = "None", **more: str) -> Measured:
        own = {"EndpointName": key.name, "VariantName": shadow, **more}
        return Measured(Metric(key.scope, NAMESPACE, name, tuple(sorted(own.items()))), at_ms, summary, unit)

    both, production, failed, neither = (int(count) for count in told["outcomes"])
    for outcome, count in zip(OUTCOMES, (both, production, failed, neither), strict=True):
        if count:
            yield measured("Outcome", times({1.0: count}), "Count", OutcomeName=outcome)
    if both + production + failed + neither:
        yield measured("ErrorDifference", times({-1.0: production, 0.0: both + neither, 1.0: failed}))
    for name, by_reason in (("Dropped", told["dropped"]), ("NotCompared", told["skipped"])):
        for reason, count in by_reason.items():
            yield measured(name, times({1.0: int(count)}), "Count", Reason=str(reason))
    for name, member, unit in (
        ("LatencyDifference", "latency", "Microseconds"),
        ("Agreement", "agreement", "None"),
        ("PredictionDifference", "difference", "None"),
    ):
        if told[member]:
            yield measured(name, summary_of(told[member]), unit)
    for feature, counts in told["features"].items():
        for name, summary, more in of_feature(str(feature), counts, known):
            yield measured(name, summary, **more)


def of_feature(name: str, counts: Told, known: dict[str, set[str]]) -> Iterator[tuple[str, Summary, dict[str, str]]]:
    """Metric name, summary and dimensions of one feature's second."""
    if name not in known and len(known) >= FEATURES_MAX:
        return
    texts = known.setdefault(name, set())
    for metric, member in (("FeatureValue", "every"), ("FeatureValueDisagreeing", "off")):
        buckets = {int(bucket): float(count) for bucket, count in counts[member].items()}
        if buckets:
            yield metric, spread(buckets), {"Feature": name}
    by_value: dict[str, tuple[int, int]] = {}
    for value, (count, off) in counts["values"].items():
        if value not in texts and len(texts) >= VALUES_MAX:
            value = OTHER
        texts.add(value)
        before = by_value.get(value, (0, 0))
        by_value[value] = (before[0] + int(count), before[1] + int(off))
    for value, (count, off) in by_value.items():
        yield "SliceAgreement", times({0.0: off, 1.0: count - off}), {"Feature": name, "Value": value or "(empty)"}


def times(counts: Mapping[float, int]) -> Summary:
    """A summary of values that were seen so often."""
    summary = Summary()
    for value, count in counts.items():
        if count > 0:
            summary.add(value, count)
    return summary


def spread(buckets: dict[int, float]) -> Summary:
    """A summary of which only the buckets are known: its sum is within 1 %."""
    total = sum(middle_of(bucket) * count for bucket, count in buckets.items())
    return Summary(sum(buckets.values()), total, middle_of(min(buckets)), middle_of(max(buckets)), buckets)


def summary_of(told: Any) -> Summary:
    """A summary as it travels. Raises ValueError or TypeError for what is none."""
    count, total, lowest, highest, buckets = told
    own = {int(bucket): float(n) for bucket, n in buckets.items()}
    return Summary(float(count), float(total), float(lowest), float(highest), own)

"""`/eyrie/shadow/ENDPOINT`: what a shadow's answers came to beside production's, gathered for `eyrie shadow report`.

Of the shadow that the endpoint has now, since its config is in place (or its experiment runs); else of the endpoint's
last inference experiment; or of the one that the query names (`experiment=`). All numbers are metrics (`shadow_meter`,
`metering`); every interval is a confidence sequence of `decide/compare`, which holds however often one looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any
from urllib.parse import parse_qs, unquote

from eyrie.control.context import Context
from eyrie.control.inference_experiments import decode
from eyrie.control.shadow_meter import NAMESPACE, OUTCOMES
from eyrie.decide.compare import COUNT_MIN, Difference, Sample, mean_of, sample_of
from eyrie.decide.shadow import slices
from eyrie.decide.statistics import statistic
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.inference_experiments import KIND, Experiment
from eyrie.domain.metrics import Metric, Summary, merged
from eyrie.domain.names import EndpointKey
from eyrie.wire.errors import resource_not_found, validation

PATH = "/eyrie/shadow/"
OWN = "AWS/SageMaker"
MINUTE_MS = 60_000
SECONDS_KEPT_MS = 10_000_000  # metrics are kept by second for a little longer


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a report is about, and when."""

    endpoint: str
    production: str
    shadow: str
    percent: float
    since_ms: int
    until_ms: int
    experiment: Experiment | None


def report(context: Context, path: str, query: str) -> dict[str, Any]:
    """The report. Raises ResourceNotFound, and ValidationException for an experiment that never ran."""
    name = unquote(path.removeprefix(PATH))
    subject = find(context, name, parse_qs(query).get("experiment", [""])[0])
    read = _Reader(context, subject)
    requests = {"sent": 0, "dropped": read.by("Dropped", "Reason"), "not_compared": read.by("NotCompared", "Reason")}
    outcomes = read.by("Outcome", "OutcomeName")
    requests["sent"] = sum(outcomes.values())
    return {
        "endpoint": subject.endpoint,
        "production": subject.production,
        "shadow": subject.shadow,
        "percent": subject.percent,
        "since_ms": subject.since_ms,
        "until_ms": subject.until_ms,
        "experiment": _experiment(subject.experiment),
        "count_min": COUNT_MIN,
        "requests": requests,
        "outcomes": {outcome: outcomes.get(outcome, 0) for outcome in OUTCOMES},
        "errors": _told(mean_of(sample_of(read.whole("ErrorDifference"))), lower=True),
        "latency": _latency(read, subject),
        "agreement": _interval(read.whole("Agreement"), top=1.0),
        "prediction_difference": _differences(read.whole("PredictionDifference")),
        "features": list(_features(read)),
    }


def find(context: Context, name: str, experiment: str) -> Subject:
    """Whom the report is about. Raises ResourceNotFound and ValidationException."""
    endpoint = context.endpoints.get(EndpointKey(context.scope.account, context.scope.region, name))
    every = [decode(document.body) for document in context.store.scan(KIND, context.scope)]
    ours = [e for e in every if e.endpoint.name == name and e.started_ms]
    if experiment:
        named = next((e for e in ours if e.key.name == experiment), None)
        if named is None:
            raise validation(f"There is no inference experiment {experiment!r} of endpoint {name} that ever ran.")
        return _of_experiment(named, context.now_ms)
    running = next((e for e in ours if not e.over), None)
    if running is not None:
        return _of_experiment(running, context.now_ms)
    if endpoint is not None and endpoint.fleet.shadows:
        return _of_endpoint(endpoint, context.now_ms)
    if not ours:
        raise resource_not_found(f"Endpoint {name!r} has no shadow variant, and had no inference experiment that ran.")
    return _of_experiment(max(ours, key=lambda e: e.started_ms), context.now_ms)


def _of_experiment(experiment: Experiment, now_ms: int) -> Subject:
    return Subject(
        endpoint=experiment.endpoint.name,
        production=experiment.source,
        shadow=experiment.shadow.name,
        percent=float(experiment.percent),
        since_ms=experiment.started_ms,
        until_ms=experiment.ended_ms or now_ms,
        experiment=experiment,
    )


def _of_endpoint(endpoint: Endpoint, now_ms: int) -> Subject:
    shadow = endpoint.fleet.shadows[0]
    share = next((s.share for s in endpoint.route.shadows), 0.0) if endpoint.route is not None else 0.0
    return Subject(
        endpoint=endpoint.key.name,
        production=shadow.spec.shadow_of,
        shadow=shadow.name,
        percent=100 * share,
        since_ms=endpoint.fleet.created_ms,
        until_ms=now_ms,
        experiment=None,
    )


class _Reader:
    """Reads metrics of one shadow, over the report's time."""

    def __init__(self, context: Context, subject: Subject) -> None:
        self._context = context
        self._subject = subject
        recent = context.now_ms - subject.since_ms < SECONDS_KEPT_MS
        self._period_ms = 1_000 if recent else MINUTE_MS
        self._start_ms = subject.since_ms - subject.since_ms % self._period_ms
        self._names: dict[str, list[dict[str, str]]] = {}
        for series in context.metrics.series(context.scope, NAMESPACE):
            own = dict(series.metric.dimensions)
            if (own.pop("EndpointName", ""), own.pop("VariantName", "")) == (subject.endpoint, subject.shadow):
                self._names.setdefault(series.metric.name, []).append(own)

    def whole(self, name: str, **more: str) -> Summary:
        """All that was measured of one of our metrics."""
        return self.of(NAMESPACE, name, self._subject.shadow, **more)

    def of(self, namespace: str, name: str, variant: str, **more: str) -> Summary:
        """All that was measured of a metric of one of both variants."""
        own = {"EndpointName": self._subject.endpoint, "VariantName": variant, **more}
        metric = Metric(self._context.scope, namespace, name, tuple(sorted(own.items())))
        end_ms = self._subject.until_ms + 2_000  # a second is told when it is over
        found = self._context.metrics.summaries(metric, self._start_ms, end_ms - end_ms % 1_000, self._period_ms)
        return merged(found.values())

    def by(self, name: str, dimension: str) -> dict[str, int]:
        """Counts of a metric by one dimension."""
        found = {own[dimension]: int(self.whole(name, **own).total) for own in self._names.get(name, [])}
        return {value: count for value, count in sorted(found.items()) if count}

    def features(self) -> dict[str, list[str]]:
        """The features, with the values of those that are text."""
        found: dict[str, list[str]] = {}
        for own in (*self._names.get("FeatureValue", []), *self._names.get("SliceAgreement", [])):
            values = found.setdefault(own["Feature"], [])
            if "Value" in own:
                values.append(own["Value"])
        return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _experiment(experiment: Experiment | None) -> dict[str, Any] | None:
    if experiment is None:
        return None
    return {"name": experiment.key.name, "status": str(experiment.status), "reason": experiment.reason}


def _latency(read: _Reader, subject: Subject) -> dict[str, Any]:
    sides = {"production": subject.production, "shadow": subject.shadow}
    found = {side: read.of(OWN, "ModelLatency", name) for side, name in sides.items()}
    shown = {side: _quantiles(summary) for side, summary in found.items()}
    return {**shown, "difference": _told(mean_of(sample_of(read.whole("LatencyDifference"))), lower=True)}


def _quantiles(summary: Summary) -> dict[str, float | None]:
    if not summary.count:
        return {"count": 0, "mean_us": None, "p50_us": None, "p99_us": None}
    mean = summary.total / summary.count
    return {"count": summary.count, "mean_us": mean, **{f"{p}_us": statistic(p)(summary) for p in ("p50", "p99")}}


def _differences(summary: Summary) -> dict[str, Any]:
    told = _told(mean_of(sample_of(summary)))
    if not summary.count:
        return told
    return {**told, "count": summary.count, **{p: statistic(p)(summary) for p in ("p5", "p50", "p95")}}


def _told(found: Difference, lower: bool | None = None) -> dict[str, Any]:
    """A mean with its interval; `lower` values being better, what it decides."""
    known = isfinite(found.low)
    told: dict[str, Any] = {
        "value": found.value,
        "low": found.low if known else None,
        "high": found.high if known else None,
    }
    if lower is not None:
        better = (found.value < 0) is lower
        told["verdict"] = ("better" if better else "worse") if known and found.decided else "undecided"
    return told


def _interval(summary: Summary, top: float) -> dict[str, Any]:
    """A share with its interval, which stays within 0 and `top`."""
    if not summary.count:
        return {"count": 0, "value": None, "low": None, "high": None}
    told = _told(mean_of(sample_of(summary)))
    if told["low"] is not None:
        told |= {"low": max(0.0, told["low"]), "high": min(top, told["high"])}
    return {"count": summary.count, **told}


def _features(read: _Reader) -> Iterator[dict[str, Any]]:
    for feature, values in read.features().items():
        every = read.whole("FeatureValue", Feature=feature).buckets
        off = read.whole("FeatureValueDisagreeing", Feature=feature).buckets
        found = [_slice(s.name, s.count, s.off) for s in slices(every, off)]
        for value in values:
            told = read.whole("SliceAgreement", Feature=feature, Value=value)
            if told.count:
                found.append(_slice(value, told.count, told.count - told.total))
        if found:
            found.sort(key=lambda s: s["agreement"])
            yield {"feature": feature, "slices": found}


def _slice(name: str, count: float, off: float) -> dict[str, Any]:
    rate = 1 - off / count
    told = _told(mean_of(Sample(count, rate, rate * (1 - rate))))
    low, high = told["low"], told["high"]
    return {
        "slice": name,
        "count": count,
        "agreement": rate,
        "low": None if low is None else max(0.0, low),
        "high": None if high is None else min(1.0, high),
    }

"""`/eyrie/compare/ENDPOINT`: what is measured of an endpoint's variants, gathered for `decide/compare`.

Every metric counts whose dimensions are EndpointName and VariantName: what the gateway measures, and what users tell
by PutMetricData (accuracy by ground truth, revenue, whatever has a mean). The first variant of the config is what
the others are compared with, unless the query says `baseline=`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote

from eyrie.control.context import Context
from eyrie.decide.compare import COUNT_MIN, Sample, difference, needed, sample_of
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.metrics import Metric, Summary, merged
from eyrie.domain.names import EndpointKey
from eyrie.wire.errors import resource_not_found, validation

PATH = "/eyrie/compare/"
OWN = "AWS/SageMaker"
OWN_METRICS = ("ModelLatency", "Invocation5XXErrors", "Invocation4XXErrors", "InvocationModelErrors")
LOWER_IS_BETTER = ("latency", "error", "loss", "time", "cost")
PERIOD_MS = 60_000
SERIES_MAX = 100


def compare(context: Context, path: str, query: str) -> dict[str, Any]:
    """Every metric of every variant against the baseline's. Raises ResourceNotFound or ValidationException."""
    name = unquote(path.removeprefix(PATH))
    key = EndpointKey(context.scope.account, context.scope.region, name)
    endpoint = context.endpoints.get(key)
    if endpoint is None:
        raise resource_not_found(f"There is no endpoint {name!r} here.")
    names = [variant.name for variant in endpoint.fleet.variants]
    baseline = parse_qs(query).get("baseline", names[:1])[0]
    if baseline not in names:
        raise validation(f"Endpoint {name} has no variant {baseline!r}; it has {', '.join(names)}.")
    since_ms = endpoint.fleet.created_ms
    return {
        "endpoint": name,
        "since_ms": since_ms,
        "baseline": baseline,
        "count_min": COUNT_MIN,
        "metrics": list(_metrics(context, endpoint, baseline, since_ms)),
    }


def _metrics(context: Context, endpoint: Endpoint, baseline: str, since_ms: int) -> Iterator[dict[str, Any]]:
    variants = [variant.name for variant in endpoint.fleet.variants if variant.name != baseline]
    for namespace, metric in _names(context, endpoint):
        first = _sample(context, endpoint, baseline, namespace, metric, since_ms)
        lower = any(word in metric.lower() for word in LOWER_IS_BETTER)
        for variant in variants:
            second = _sample(context, endpoint, variant, namespace, metric, since_ms)
            if not first.count and not second.count:
                continue
            yield {"namespace": namespace, "metric": metric, "variant": variant, **_told(first, second, lower)}


def _told(first: Sample, second: Sample, lower: bool) -> dict[str, Any]:
    found = difference(first, second)
    known = min(first.count, second.count) >= COUNT_MIN
    better = found.decided and (found.value < 0) is lower
    return {
        "baseline_count": first.count,
        "count": second.count,
        "baseline_mean": first.mean,
        "mean": second.mean,
        "difference": found.value,
        "low": found.low if known else None,
        "high": found.high if known else None,
        "verdict": ("better" if better else "worse") if found.decided else "undecided",
        "needed": needed(first, second),
    }


def _names(context: Context, endpoint: Endpoint) -> list[tuple[str, str]]:
    """Namespaces and names of the metrics that are told by variant: ours first, then users' own."""
    told = {
        (series.metric.namespace, series.metric.name)
        for series in context.metrics.series(context.scope)
        if not series.metric.namespace.startswith(("AWS/", "/aws/", "Eyrie/"))
        and {name for name, _ in series.metric.dimensions} == {"EndpointName", "VariantName"}
        and dict(series.metric.dimensions)["EndpointName"] == endpoint.key.name
    }
    return [(OWN, name) for name in OWN_METRICS] + sorted(told)[:SERIES_MAX]


def _sample(context: Context, endpoint: Endpoint, variant: str, namespace: str, name: str, since_ms: int) -> Sample:
    dimensions = (("EndpointName", endpoint.key.name), ("VariantName", variant))
    metric = Metric(context.scope, namespace, name, dimensions)
    start_ms = since_ms - since_ms % PERIOD_MS
    found: dict[int, Summary] = context.metrics.summaries(metric, start_ms, context.now_ms + 1_000, PERIOD_MS)
    return sample_of(merged(found.values()))

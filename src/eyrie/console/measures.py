"""Metrics as charts need them: GetMetricData queries, and series out of the reply. Pure.

A Measure is one metric with one statistic; `ask` packs many into one call, `found` gives back one series each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyrie.console.charts import Points, Span

INVOKED, USED = "AWS/SageMaker", "/aws/sagemaker/Endpoints"
_POINTS_MAX = 300
_PERIODS_S = (1, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)
QUERIES_MAX = 500  # of one call


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric, how it is summed up, and what its values are multiplied by to be shown (1e-3: µs as ms)."""

    namespace: str
    name: str
    stat: str
    dimensions: tuple[tuple[str, str], ...]
    factor: float = 1.0
    per_second: bool = False  # a sum, shown as a rate


@dataclass(frozen=True, slots=True)
class Said:
    """An expression of metric math over the queries beside it, or a SEARCH."""

    expression: str
    factor: float = 1.0


def invoked(name: str, stat: str, endpoint: str, variant: str = "", **how: Any) -> Measure:
    """A metric of AWS/SageMaker, of an endpoint or one of its variants."""
    return Measure(INVOKED, name, stat, _of(endpoint, variant), **how)


def used(name: str, stat: str, endpoint: str, variant: str, instance: str = "", **how: Any) -> Measure:
    """A metric of the instances, of a variant or of one instance."""
    return Measure(USED, name, stat, _of(endpoint, variant, instance), **how)


def _of(endpoint: str, variant: str = "", instance: str = "") -> tuple[tuple[str, str], ...]:
    named = (("EndpointName", endpoint), ("VariantName", variant), ("InstanceId", instance))
    return tuple((name, value) for name, value in named if value)


def span_of(minutes: float, now_ms: float) -> Span:
    """The last so many minutes, in points that are as fine as they are few enough; it ends with a whole period."""
    length_s = minutes * 60
    period_s = next((p for p in _PERIODS_S if length_s / p <= _POINTS_MAX), _PERIODS_S[-1])
    end_s = now_ms / 1000 // period_s * period_s
    return Span((end_s - length_s) * 1000, end_s * 1000, period_s * 1000)


def queries(measures: Sequence[Measure | Said], span: Span) -> list[dict[str, Any]]:
    """The MetricDataQueries, ids m0, m1 ... in the given order."""
    return [_query(f"m{at}", one, int(span.period_ms // 1000)) for at, one in enumerate(measures)]


def _query(name: str, one: Measure | Said, period_s: int) -> dict[str, Any]:
    if isinstance(one, Said):
        return {"Id": name, "Expression": one.expression, "Period": period_s}
    dimensions = [{"Name": key, "Value": value} for key, value in one.dimensions]
    metric = {"Namespace": one.namespace, "MetricName": one.name, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": metric, "Period": period_s, "Stat": one.stat}}


def found(reply: Mapping[str, Any], measures: Sequence[Measure | Said], span: Span) -> list[Points]:
    """The points of each measure, oldest first, in the order of `measures`."""
    by_id: dict[str, list[tuple[float, float]]] = {}
    for result in reply.get("MetricDataResults", ()):
        times = [at.timestamp() * 1000 for at in result["Timestamps"]]
        by_id.setdefault(result["Id"], []).extend(zip(times, result["Values"], strict=True))
    return [tuple(sorted(_scaled(by_id.get(f"m{at}", ()), one, span))) for at, one in enumerate(measures)]


def labelled(reply: Mapping[str, Any]) -> list[tuple[str, str, Points]]:
    """Every result by itself, with its query's id and its label: a SEARCH gives a series for each metric it finds."""
    return [
        (
            str(result["Id"]),
            str(result.get("Label") or ""),
            sorted((at.timestamp() * 1000, v) for at, v in zip(result["Timestamps"], result["Values"], strict=True)),
        )
        for result in reply.get("MetricDataResults", ())
    ]


def _scaled(points: Any, one: Measure | Said, span: Span) -> Points:
    factor = one.factor
    if isinstance(one, Measure) and one.per_second:
        factor *= 1000 / span.period_ms
    return [(ms, value * factor) for ms, value in points]


def latest(points: Points, span: Span, periods: float = 3.0) -> float | None:
    """The last value, where it is recent; None where nothing was measured lately."""
    if not points or points[-1][0] < span.end_ms - periods * span.period_ms:
        return None
    return points[-1][1]


def recent(points: Points, span: Span) -> float | None:
    """The last value, where it is at most half a minute old (or as old as points are apart)."""
    return latest(points, span, max(2.0, 30_000 / span.period_ms))


def total(points: Points) -> float:
    """All values together."""
    return sum(value for _, value in points)

"""What MetricDataQueries come to: the series of GetMetricData and of alarms on metric math.

A query names a metric with a statistic and a period, or an expression over other queries' ids. Each is worked out once;
an id that leads back to itself is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyrie.control.alarm_data import HISTORY_POINTS_MAX, band_of
from eyrie.control.metric_search import search
from eyrie.decide.alarm_bands import HISTORY_MS, train
from eyrie.decide.metric_grammar import MathError, parse
from eyrie.decide.metric_math import TimeSeries, Value, evaluate
from eyrie.decide.statistics import statistic
from eyrie.domain.metrics import Metric
from eyrie.domain.names import Scope
from eyrie.ports import Metrics

QUERIES_MAX = 500
PERIODS_S = (1, 5, 10, 20, 30)  # below a minute


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is asked about, milliseconds since the epoch."""

    start_ms: int
    end_ms: int


def metric_of(scope: Scope, named: Mapping[str, Any]) -> Metric:
    """The metric that a request names by Namespace, MetricName and Dimensions."""
    pairs = sorted((d["Name"], d["Value"]) for d in named.get("Dimensions", ()))
    return Metric(scope, named["Namespace"], named["MetricName"], tuple(pairs))


def series_of(metrics: Metrics, metric: Metric, name: str, period_s: int, span: Span) -> TimeSeries:
    """A statistic of a metric over time, in periods of the clock. Raises MathError for what is no statistic."""
    try:
        of = statistic(name)
    except ValueError as error:
        raise MathError(str(error)) from None
    period_ms = period_s * 1000
    start_ms = span.start_ms - span.start_ms % period_ms
    return TimeSeries(metric.name, metrics.statistics(metric, start_ms, span.end_ms, period_ms, of), period_ms)


def check_period(period_s: int) -> str | None:
    """Why this is no period of CloudWatch, or None."""
    if period_s in PERIODS_S or (period_s >= 60 and period_s % 60 == 0):
        return None
    return f"Period must be 1, 5, 10, 20, 30 or a multiple of 60 seconds, not {period_s}"


class Queries:
    """The queries of one request, as the world of their expressions."""

    def __init__(self, metrics: Metrics, scope: Scope, queries: Sequence[Mapping[str, Any]], span: Span) -> None:
        self._metrics = metrics
        self._scope = scope
        self._queries = {query["Id"]: query for query in queries}
        self._span = span
        self._known: dict[str, Value] = {}
        self._begun: set[str] = set()

    def named(self, name: str) -> Value:
        """What the query with this id comes to. Raises MathError."""
        if name in self._known:
            return self._known[name]
        query = self._queries.get(name)
        if query is None:
            raise MathError(f"there is no query with the id {name!r}")
        if name in self._begun:
            raise MathError(f"{name!r} is made of itself")
        self._begun.add(name)
        self._known[name] = found = self._worked_out(query)
        return found

    def _worked_out(self, query: Mapping[str, Any]) -> Value:
        stat = query.get("MetricStat")
        if stat is not None:
            metric = metric_of(self._scope, stat["Metric"])
            if "Unit" in stat and not self._has_unit(metric, stat["Unit"]):
                return TimeSeries(metric.name, {}, stat["Period"] * 1000)
            return series_of(self._metrics, metric, stat["Stat"], stat["Period"], self._span)
        return self._band(query["Expression"]) or evaluate(parse(query["Expression"]), self)

    def _band(self, expression: str) -> list[TimeSeries] | None:
        """The bounds of ANOMALY_DETECTION_BAND by the model that alarms have, learnt from what came before the span;
        None where it is something else, or too little came before.
        """
        asked = band_of(expression)
        query = self._queries.get(asked[0], {}) if asked is not None else {}
        if asked is None or "MetricStat" not in query:
            return None
        series, stat = self.named(asked[0]), query["MetricStat"]
        if not isinstance(series, TimeSeries):
            return None
        period_ms = series.period_ms
        start_ms = self._span.start_ms - self._span.start_ms % period_ms
        before = Span(start_ms - min(HISTORY_MS, HISTORY_POINTS_MAX * period_ms), start_ms)
        metric = metric_of(self._scope, stat["Metric"])
        band = train(series_of(self._metrics, metric, stat["Stat"], stat["Period"], before).points)
        if band is None:
            return None
        bounds = {at_ms: band.at(at_ms, asked[1]) for at_ms in series.points}
        upper = TimeSeries("upper", {at_ms: high for at_ms, (_, high) in bounds.items()}, period_ms)
        return [upper, TimeSeries("lower", {at_ms: low for at_ms, (low, _) in bounds.items()}, period_ms)]

    def _has_unit(self, metric: Metric, unit: str) -> bool:
        known = self._metrics.series(self._scope, metric.namespace, metric.name)
        return any(series.metric == metric and series.unit == unit for series in known)

    def all_named(self, part: str) -> list[TimeSeries]:
        """The metrics of this request whose id contains `part`."""
        names = [name for name, query in self._queries.items() if "MetricStat" in query and part in name]
        return [series for series in map(self.named, names) if isinstance(series, TimeSeries)]

    def search(self, query: str, statistic: str, period_s: int) -> list[TimeSeries]:
        """Every series that a SEARCH finds, those without a point left out."""
        trouble = check_period(period_s)
        if trouble:
            raise MathError(trouble)
        found = search(query, self._metrics.series(self._scope))
        made = [
            TimeSeries(label, one.points, one.period_ms)
            for label, metric in found
            for one in (series_of(self._metrics, metric, statistic, period_s, self._span),)
        ]
        return [series for series in made if series.points]

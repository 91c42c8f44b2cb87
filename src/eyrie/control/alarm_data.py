"""The values that an alarm is evaluated on: its evaluation range, read from the metrics, math and bands worked out.

Periods end at the last whole minute (the last whole ten seconds, for periods below a minute) and slide with it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eyrie.decide.alarm_bands import HISTORY_MS, WIDTH_DEFAULT, Band, Training, train
from eyrie.decide.alarms import Datapoint, Range, range_length
from eyrie.decide.metric_grammar import Call, MathError, Name, Number, parse
from eyrie.decide.metric_math import TimeSeries, Value, evaluate
from eyrie.decide.statistics import statistic
from eyrie.domain.alarms import MetricQuery, MetricRule, MetricStat
from eyrie.domain.metrics import Summary
from eyrie.domain.names import Scope
from eyrie.ports import Metrics

BAND_FUNCTION = "ANOMALY_DETECTION_BAND"
MINUTE_MS = 60_000
TRAINED_FOR_MS = 3_600_000  # a model is trained anew after it
TRY_AGAIN_MS = 300_000  # where there was too little history for one
HISTORY_POINTS_MAX = 8_064  # 28 days of five minutes
BANDS_KEPT = 1_000

TrainingOf = Callable[[Scope, MetricStat], Training]


def step_ms(period_s: int) -> int:
    """How often an alarm with this period is evaluated."""
    return 10_000 if period_s < 60 else MINUTE_MS


def window_end(period_s: int, now_ms: int) -> int:
    """When the newest whole period ended."""
    return now_ms - now_ms % step_ms(period_s)


def band_of(expression: str) -> tuple[str, float] | None:
    """Which id's band an expression asks for, and how wide; None where it is something else. Raises MathError."""
    node = parse(expression)
    if not isinstance(node, Call) or node.function != BAND_FUNCTION:
        return None
    match node.arguments:
        case (Name(name),):
            return name, WIDTH_DEFAULT
        case (Name(name), Number(width)) if width > 0:
            return name, width
    raise MathError(f"{BAND_FUNCTION} takes the id of a query, and a positive number of standard deviations")


class Window:
    """An alarm's queries over a span of time that is a whole number of periods: the world of their expressions."""

    def __init__(self, metrics: Metrics, scope: Scope, rule: MetricRule, start_ms: int, end_ms: int) -> None:
        self._metrics, self._scope = metrics, scope
        self._queries = {query.query_id: query for query in rule.queries}
        self._start_ms, self._end_ms, self._period_ms = start_ms, end_ms, rule.period_s * 1000
        self._begun: set[str] = set()

    def summaries(self, stat: MetricStat) -> Mapping[int, Summary]:
        """What was measured, by the start of each period."""
        metric = stat.metric(self._scope)
        if stat.unit:
            known = self._metrics.series(self._scope, stat.namespace, stat.name)
            if not any(series.metric == metric and series.unit == stat.unit for series in known):
                return {}
        return self._metrics.summaries(metric, self._start_ms, self._end_ms, self._period_ms)

    def values(self, query_id: str) -> Mapping[int, float]:
        """The values of a query. Raises MathError where it is not one series."""
        found = self.named(query_id)
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if not isinstance(found, TimeSeries):
            raise MathError(f"{query_id!r} is not a single time series")
        return found.points

    def named(self, name: str) -> Value:
        """What the query with this id comes to. Raises MathError."""
        query = self._queries.get(name)
        if query is None:
            raise MathError(f"there is no query with the id {name!r}")
        if name in self._begun:
            raise MathError(f"{name!r} is made of itself")
        self._begun.add(name)
        try:
            if query.stat is None:
                return evaluate(parse(query.expression), self)
            return self._series(query, query.stat)
        finally:
            self._begun.discard(name)

    def _series(self, query: MetricQuery, stat: MetricStat) -> TimeSeries:
        of = statistic_of(stat.stat)
        points = {at_ms: of(summary) for at_ms, summary in self.summaries(stat).items()}
        known = {at_ms: value for at_ms, value in points.items() if value is not None}
        return TimeSeries(query.label or stat.name, known, self._period_ms)

    def all_named(self, part: str) -> list[TimeSeries]:
        """The metrics among the queries whose id contains `part`."""
        found = [self.named(name) for name, query in self._queries.items() if query.stat and part in name]
        return [series for series in found if isinstance(series, TimeSeries)]

    def search(self, query: str, statistic: str, period_s: int) -> list[TimeSeries]:
        """Alarms watch what they name."""
        raise MathError("SEARCH cannot be used in an alarm")


def statistic_of(name: str) -> Callable[[Summary], float | None]:
    """The function of a statistic's name. Raises MathError."""
    try:
        return statistic(name)
    except ValueError as error:
        raise MathError(str(error)) from None


@dataclass(frozen=True, slots=True)
class _Trained:
    band: Band | None
    until_ms: int


class Bands:
    """The models of bands, kept until they are trained anew. Safe to use from many threads."""

    def __init__(self, metrics: Metrics, training_of: TrainingOf) -> None:
        self._metrics, self._training_of = metrics, training_of
        self._lock = threading.Lock()
        self._trained: OrderedDict[tuple[Scope, MetricRule], _Trained] = OrderedDict()

    def band(self, scope: Scope, rule: MetricRule, query_id: str, now_ms: int) -> Band | None:
        """The model of a query's values before the evaluation range. Raises MathError."""
        key = (scope, rule)
        with self._lock:
            known = self._trained.get(key)
        if known is None or now_ms >= known.until_ms:
            known = self._train(scope, rule, query_id, now_ms)
            with self._lock:
                self._trained[key] = known
                while len(self._trained) > BANDS_KEPT:
                    self._trained.popitem(last=False)
        return known.band

    def _train(self, scope: Scope, rule: MetricRule, query_id: str, now_ms: int) -> _Trained:
        period_ms = rule.period_s * 1000
        end_ms = window_end(rule.period_s, now_ms) - range_length(rule) * period_ms
        count = min(HISTORY_POINTS_MAX, HISTORY_MS // period_ms)
        window = Window(self._metrics, scope, rule, end_ms - count * period_ms, end_ms)
        stat = next((query.stat for query in rule.queries if query.query_id == query_id), None)
        training = self._training_of(scope, stat) if stat is not None else Training()
        band = train(window.values(query_id), training)
        return _Trained(band, now_ms + (TRAINED_FOR_MS if band is not None else TRY_AGAIN_MS))


def read_range(metrics: Metrics, bands: Bands, scope: Scope, rule: MetricRule, now_ms: int) -> Range:
    """The evaluation range of an alarm's rule. Raises MathError."""
    period_ms, length = rule.period_s * 1000, range_length(rule)
    end_ms = window_end(rule.period_s, now_ms)
    start_ms = end_ms - length * period_ms
    window = Window(metrics, scope, rule, start_ms, end_ms)
    points = _plain(window, rule) if rule.watched.stat is not None else _of_math(window, rule)
    if rule.band_id:
        points = _banded(points, bands, scope, rule, now_ms)
    return [points.get(start_ms + n * period_ms) for n in range(length)]


def _plain(window: Window, rule: MetricRule) -> dict[int, Datapoint]:
    stat = rule.watched.stat
    assert stat is not None
    of = statistic_of(stat.stat)
    found = {}
    for at_ms, summary in window.summaries(stat).items():
        value = of(summary)
        if value is not None:
            found[at_ms] = Datapoint(at_ms, value, summary.count)
    return found


def _of_math(window: Window, rule: MetricRule) -> dict[int, Datapoint]:
    return {at_ms: Datapoint(at_ms, value) for at_ms, value in window.values(rule.watched.query_id).items()}


def _banded(
    points: Mapping[int, Datapoint], bands: Bands, scope: Scope, rule: MetricRule, now_ms: int
) -> dict[int, Datapoint]:
    """The values with what was to be expected of each."""
    expression = next(query.expression for query in rule.queries if query.query_id == rule.band_id)
    asked = band_of(expression)
    if asked is None:
        raise MathError(f"{rule.band_id!r} is no {BAND_FUNCTION}")
    band = bands.band(scope, rule, asked[0], now_ms)
    if band is None:
        return {}  # without a model nothing can be said of any value
    found = {}
    for at_ms, point in points.items():
        lower, upper = band.at(at_ms, asked[1])
        found[at_ms] = Datapoint(at_ms, point.value, point.samples, lower, upper)
    return found

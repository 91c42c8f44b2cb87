"""What PutMetricAlarm asks for, read into a rule; whatever cannot be is refused by the name of its field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eyrie.control.alarm_data import band_of, statistic_of
from eyrie.control.context import Params, first_duplicate
from eyrie.decide.metric_grammar import MathError, names_of, parse
from eyrie.domain.alarms import (
    BAND_COMPARISONS,
    Comparison,
    MetricQuery,
    MetricRule,
    MetricStat,
    MissingData,
)
from eyrie.wire.errors import ApiError

METRICS_MAX = 10  # in the math of one alarm
QUERIES_MAX = 20
SHORT_PERIODS_S = (10, 20, 30)
DAY_S = 86_400
_NOT_BUILT = {
    "EvaluationCriteria": "it evaluates no PromQL",
    "EvaluationInterval": "it evaluates no PromQL",
    "WarmUpConfiguration": "it has no warm-up periods",
    "ActionConfiguration": "it hands no tags to actions",
}
_OF_ONE_METRIC = ("MetricName", "Namespace", "Dimensions", "Period", "Unit", "Statistic", "ExtendedStatistic")


def refused(message: str) -> ApiError:
    """ValidationError: CloudWatch's word for a request that says something it may not say."""
    return ApiError("ValidationError", message)


def metric_rule(params: Params) -> MetricRule:
    """The rule that a request asks for. Raises ApiError."""
    _refuse_what_is_not_built(params)
    for name in ("EvaluationPeriods", "ComparisonOperator"):
        _need(params, name)
    comparison, missing = Comparison(params["ComparisonOperator"]), _missing(params)
    single = "Metrics" not in params
    queries = (_of_one_metric(params),) if single else _of_several(params)
    band_id = params.get("ThresholdMetricId", "")
    _check_threshold(params, comparison, queries)
    periods: int = params["EvaluationPeriods"]
    to_alarm: int = params.get("DatapointsToAlarm", periods)
    if to_alarm > periods:
        raise refused(
            f"The parameter DatapointsToAlarm ({to_alarm}) must be less than or equal to EvaluationPeriods ({periods})."
        )
    rule = MetricRule(
        queries=queries,
        comparison=comparison,
        periods=periods,
        to_alarm=to_alarm,
        threshold=params.get("Threshold"),
        band_id=band_id,
        missing=missing,
        low_samples=_low_samples(params),
        single=single,
        to_alarm_given="DatapointsToAlarm" in params,
        missing_given="TreatMissingData" in params,
    )
    _check_span(rule)
    return rule


def watched_for_bands(rule: MetricRule) -> Iterator[MetricStat]:
    """The metric that a band is learnt of, where the rule has one."""
    for query in rule.queries:
        asked = band_of(query.expression) if query.expression and query.query_id == rule.band_id else None
        for other in rule.queries:
            if asked is not None and other.query_id == asked[0] and other.stat is not None:
                yield other.stat


def _need(params: Params, name: str) -> None:
    if name not in params:
        raise refused(f"The parameter {name} is required.")


def _refuse_what_is_not_built(params: Params) -> None:
    for name, why in _NOT_BUILT.items():
        if name in params:
            raise refused(f"The parameter {name} is not supported by this Eyrie: {why}.")
    if "SlidingWindow" not in params.get("EvaluationWindow", {"SlidingWindow": {}}):
        raise refused("The parameter EvaluationWindow is not supported by this Eyrie but as a SlidingWindow.")


def _missing(params: Params) -> MissingData:
    told = params.get("TreatMissingData", "missing")
    try:
        return MissingData(told)
    except ValueError:
        values = "breaching, notBreaching, ignore, missing"
        raise refused(
            f"Option {told} is not supported for TreatMissingData parameter. Supported values are [{values}]."
        ) from None


def _low_samples(params: Params) -> str:
    told = str(params.get("EvaluateLowSampleCountPercentile", ""))
    if told not in ("", "evaluate", "ignore"):
        raise refused(
            f"Option {told} is not supported for EvaluateLowSampleCountPercentile parameter. "
            "Supported values are [evaluate, ignore]."
        )
    return told


def _of_one_metric(params: Params) -> MetricQuery:
    for name in ("MetricName", "Namespace", "Period"):
        _need(params, name)
    named = [name for name in ("Statistic", "ExtendedStatistic") if name in params]
    if len(named) != 1:
        raise refused("Exactly one of the parameters Statistic and ExtendedStatistic is required.")
    stat = params[named[0]]
    if named[0] == "ExtendedStatistic":
        _check_statistic(stat, "ExtendedStatistic")
    return MetricQuery("m1", _stat(params, stat, params["Period"], params.get("Unit", ""), "Period"))


def _stat(named: Params, stat: str, period_s: int, unit: str, place: str) -> MetricStat:
    if period_s not in SHORT_PERIODS_S and period_s % 60:
        raise refused(f"The parameter {place} must be 10, 20, 30 or a multiple of 60, not {period_s}.")
    pairs = sorted((d["Name"], d["Value"]) for d in named.get("Dimensions", ()))
    twice = first_duplicate([name for name, _ in pairs])
    if twice is not None:
        raise refused(f"The parameter Dimensions is invalid: {twice} is named twice.")
    return MetricStat(named["Namespace"], named["MetricName"], stat, period_s, tuple(pairs), unit)


def _check_statistic(stat: str, place: str) -> None:
    try:
        statistic_of(stat)
    except MathError as error:
        raise refused(f"The value {stat} for parameter {place} is not supported: {error}.") from None


def _of_several(params: Params) -> tuple[MetricQuery, ...]:
    given = [name for name in _OF_ONE_METRIC if name in params]
    if given:
        raise refused(f"The parameters Metrics and {given[0]} are mutually exclusive.")
    metrics = params["Metrics"]
    if not 0 < len(metrics) <= QUERIES_MAX:
        raise refused(f"The parameter Metrics must have 1 to {QUERIES_MAX} members, not {len(metrics)}.")
    queries = tuple(_query(query, f"Metrics.member.{n}") for n, query in enumerate(metrics, 1))
    _check_queries(queries, params.get("ThresholdMetricId", ""))
    return queries


def _query(query: Params, place: str) -> MetricQuery:
    name = query["Id"]
    if not (name[0].islower() and name.isascii() and name.replace("_", "a").isalnum()):
        raise refused(f"The value {name} for parameter {place}.Id must be letters, digits and _, beginning lower-case.")
    if ("MetricStat" in query) == ("Expression" in query):
        raise refused(f"{place} ({name}) needs exactly one of MetricStat and Expression.")
    shown: dict[str, Any] = {"label": query.get("Label", ""), "returns": query.get("ReturnData", True)}
    if "Expression" in query:
        _check_expression(query["Expression"], f"{place}.Expression")
        return MetricQuery(name, None, query["Expression"], period_s=query.get("Period", 0), **shown)
    stat = query["MetricStat"]
    for needed in ("Namespace", "MetricName"):
        if not stat["Metric"].get(needed):
            raise refused(f"The parameter {place}.MetricStat.Metric.{needed} is required.")
    _check_statistic(stat["Stat"], f"{place}.MetricStat.Stat")
    period = f"{place}.MetricStat.Period"
    return MetricQuery(name, _stat(stat["Metric"], stat["Stat"], stat["Period"], stat.get("Unit", ""), period), **shown)


def _check_expression(expression: str, place: str) -> None:
    try:
        parse(expression)
        band_of(expression)
    except MathError as error:
        raise refused(f"Error in expression '{expression[:64]}' ({place}): {error}.") from None
    if "SEARCH(" in expression.upper().replace(" ", ""):
        raise refused(f"Error in expression '{expression[:64]}' ({place}): SEARCH cannot be used in an alarm.")


def _check_queries(queries: Sequence[MetricQuery], band_id: str) -> None:
    ids = [query.query_id for query in queries]
    twice = first_duplicate(ids)
    if twice is not None:
        raise refused(f"The values for parameter Id in Metrics are not unique: {twice}.")
    stats = [query.stat for query in queries if query.stat is not None]
    if not stats or len(stats) > METRICS_MAX:
        raise refused(f"The parameter Metrics must have 1 to {METRICS_MAX} members with a MetricStat.")
    if len({stat.period_s for stat in stats}) > 1:
        raise refused("The parameter Metrics is invalid: all metrics of an alarm must have the same Period.")
    for query in queries:
        unknown = sorted(names_of(parse(query.expression)) - set(ids) - _WORDS) if query.expression else []
        if unknown:
            raise refused(f"Error in expression '{query.query_id}': there is no query with the id {unknown[0]!r}.")
    if band_id and band_id not in ids:
        raise refused(f"The value {band_id} for parameter ThresholdMetricId is not the Id of any member of Metrics.")
    shown = [query for query in queries if query.returns and query.query_id != band_id]
    if len(shown) != 1:
        raise refused("The parameter Metrics must have exactly one member whose ReturnData is true, besides a band.")


_WORDS = frozenset({"REPEAT", "LINEAR", "ASC", "DESC", "SUM", "AVG", "MIN", "MAX", "STDDEV"})  # read as names, too


def _check_threshold(params: Params, comparison: Comparison, queries: Sequence[MetricQuery]) -> None:
    band_id = params.get("ThresholdMetricId", "")
    if band_id and "Metrics" not in params:
        raise refused("The parameter ThresholdMetricId needs the parameter Metrics.")
    if bool(band_id) != (comparison in BAND_COMPARISONS):
        raise refused(
            f"The value {comparison} for parameter ComparisonOperator "
            + ("cannot be used with a ThresholdMetricId." if band_id else "needs a ThresholdMetricId.")
        )
    if bool(band_id) == ("Threshold" in params):
        raise refused("Exactly one of the parameters Threshold and ThresholdMetricId is required.")
    for query in queries:
        asked = band_of(query.expression) if query.expression else None
        if query.query_id == band_id and asked is None:
            raise refused(f"The value {band_id} for parameter ThresholdMetricId is no ANOMALY_DETECTION_BAND.")
        if query.query_id != band_id and asked is not None:
            raise refused(f"The band {query.query_id} in Metrics is not the ThresholdMetricId.")


def _check_span(rule: MetricRule) -> None:
    period_s, longest = rule.period_s, DAY_S if rule.period_s < 3600 else 7 * DAY_S
    if period_s not in SHORT_PERIODS_S and period_s % 60:
        raise refused(f"The parameter Period must be 10, 20, 30 or a multiple of 60, not {period_s}.")
    if any(query.stat and query.stat.period_s != period_s for query in rule.queries):
        raise refused("The parameter Metrics is invalid: all metrics of an alarm must have the same Period.")
    if rule.periods * period_s > longest:
        days = "a day" if longest == DAY_S else "seven days"
        raise refused(
            f"Metrics cannot be checked across more than {days} (EvaluationPeriods * Period must be <= {longest})."
        )

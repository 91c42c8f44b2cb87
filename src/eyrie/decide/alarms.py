"""Whether a metric alarm's values breach: M of N, missing data, too few samples; and the reason, told as CloudWatch
tells it. Pure: values in, state and reason out; `now_ms` is an argument.

The values are those of the evaluation range: N periods and EXTRA_PERIODS before them, from which real values are taken
where recent ones are missing. What missing data is treated as matters only when the whole range has fewer than N.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyrie.decide.moments import iso, short
from eyrie.domain.alarms import BAND_COMPARISONS, Alarm, AlarmState, Comparison, MetricRule, MissingData

EXTRA_PERIODS = 2  # CloudWatch's published tables have an evaluation range of 5 periods for N = 3
REASON_MAX = 1023  # characters; what is longer is cut
REASON_DATA_MAX = 4000
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)", re.IGNORECASE)

_WORDS: Mapping[Comparison, str] = {
    Comparison.AT_OR_ABOVE: "greater than or equal to the threshold",
    Comparison.ABOVE: "greater than the threshold",
    Comparison.BELOW: "less than the threshold",
    Comparison.AT_OR_BELOW: "less than or equal to the threshold",
    Comparison.OUTSIDE_BAND: "less than the lower thresholds or greater than the upper thresholds",
    Comparison.BELOW_BAND: "less than the lower thresholds",
    Comparison.ABOVE_BAND: "greater than the upper thresholds",
}
_BREACH: Mapping[Comparison, Callable[[float, float], bool]] = {
    Comparison.AT_OR_ABOVE: lambda value, threshold: value >= threshold,
    Comparison.ABOVE: lambda value, threshold: value > threshold,
    Comparison.BELOW: lambda value, threshold: value < threshold,
    Comparison.AT_OR_BELOW: lambda value, threshold: value <= threshold,
}


@dataclass(frozen=True, slots=True)
class Datapoint:
    """The value of one period. `lower` and `upper` are the band at that time, where the alarm has one."""

    at_ms: int  # when the period began
    value: float
    samples: float | None = None  # measurements behind it; None where it is the outcome of math
    lower: float | None = None
    upper: float | None = None


Range = Sequence[Datapoint | None]  # the evaluation range, oldest first; None where nothing was measured


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an alarm's values come to. `datapoints` are those that counted, newest first."""

    state: AlarmState
    reason: str
    reason_data: str
    datapoints: tuple[Datapoint, ...] = ()
    kept: bool = False  # the state is what it was, for want of data: reason and data are no news


AlarmActions = Mapping[str, Callable[[Alarm, Evaluation], None]]  # who does what, by how an action's ARN begins


def range_length(rule: MetricRule) -> int:
    """How many periods the evaluation range has."""
    return rule.periods + EXTRA_PERIODS


def breaches(rule: MetricRule, point: Datapoint) -> bool:
    """Whether a value is on the wrong side of the threshold, or of its band; where there is no band it is not."""
    if rule.comparison not in BAND_COMPARISONS:
        assert rule.threshold is not None
        return _BREACH[rule.comparison](point.value, rule.threshold)
    below = point.lower is not None and point.value < point.lower
    above = point.upper is not None and point.value > point.upper
    if rule.comparison is Comparison.BELOW_BAND:
        return below
    return above if rule.comparison is Comparison.ABOVE_BAND else below or above


def evaluate(rule: MetricRule, state: AlarmState, seen: Range, now_ms: int) -> Evaluation:
    """The state that the evaluation range asks for, from the state that the alarm is in."""
    real = [point for point in seen if point is not None]
    counted = real[-rule.periods :]
    if rule.low_samples == "ignore" and any(too_few(rule, point) for point in counted):
        return Evaluation(state, _too_few_reason(rule), "", tuple(reversed(counted)), kept=True)
    breaching = sum(breaches(rule, point) for point in counted)
    missing = rule.periods - len(counted)
    if missing == 0:
        found = AlarmState.ALARM if breaching >= rule.to_alarm else AlarmState.OK
        return _told(rule, found, counted, _crossed(rule, found, counted), now_ms)
    decided = _with_missing(rule, seen, len(counted), breaching, missing)
    if decided is None:
        return Evaluation(state, "", "", tuple(reversed(counted)), kept=True)
    reason = _unknown(rule, missing) if decided is AlarmState.INSUFFICIENT_DATA else ""
    return _told(rule, decided, counted, reason or _filled(rule, decided, counted, missing), now_ms)


def _with_missing(rule: MetricRule, seen: Range, real: int, breaching: int, missing: int) -> AlarmState | None:
    """The state where real values are too few; None: as it was."""
    if rule.missing is MissingData.BREACHING:
        return AlarmState.ALARM if breaching + missing >= rule.to_alarm else AlarmState.OK
    if breaching >= rule.to_alarm:
        return AlarmState.ALARM
    if rule.missing is MissingData.NOT_BREACHING or breaching < real:
        return AlarmState.OK
    if rule.missing is MissingData.IGNORE:
        return None
    if real == 0:
        return AlarmState.INSUFFICIENT_DATA
    return AlarmState.ALARM if _age_of_oldest(seen) >= rule.to_alarm else None


def _age_of_oldest(seen: Range) -> int:
    """How many periods ago the oldest real value was, the newest period being 1.

    Where all real values breach and the oldest is as old as M, the alarm does not wait for more ("premature alarm
    state"); a younger one might yet be followed by a value that does not breach.
    """
    return next(len(seen) - index for index, point in enumerate(seen) if point is not None)


# --- too few samples for a percentile -------------------------------------------------------------------------------


def samples_needed(stat: str) -> float:
    """Measurements that a percentile needs to mean something; 0 for other statistics."""
    found = _PERCENTILE.fullmatch(stat)
    if found is None:
        return 0.0
    share = float(found[1]) / 100
    if not 0 < share < 1:
        return 0.0
    return 10 / (1 - share) if share >= 0.5 else 10 / share


def too_few(rule: MetricRule, point: Datapoint) -> bool:
    """Whether a percentile of so few measurements says nothing."""
    watched = rule.watched.stat
    return point.samples is not None and watched is not None and point.samples < samples_needed(watched.stat) - 1e-9


def _too_few_reason(rule: MetricRule) -> str:
    stat = rule.watched.stat
    return f"Too few samples for {stat.stat if stat else 'the statistic'}: the state is kept."


# --- reasons --------------------------------------------------------------------------------------------------------


def _told(rule: MetricRule, state: AlarmState, counted: Sequence[Datapoint], reason: str, now_ms: int) -> Evaluation:
    newest_first = tuple(reversed(counted))
    return Evaluation(state, shortened(reason), reason_data(rule, counted, now_ms), newest_first)


def shortened(reason: str) -> str:
    """A reason of at most REASON_MAX characters."""
    return reason if len(reason) <= REASON_MAX else reason[: REASON_MAX - 1] + "…"


def _crossed(rule: MetricRule, state: AlarmState, counted: Sequence[Datapoint]) -> str:
    """The reason where N real values were compared."""
    wanted = state is AlarmState.ALARM
    hits = [point for point in counted if breaches(rule, point) is wanted]
    change, needed = ("OK -> ALARM", rule.to_alarm) if wanted else ("ALARM -> OK", rule.periods - rule.to_alarm + 1)
    minimum = f"(minimum {_datapoints(needed)} for {change} transition)"
    last = f"{len(hits)} out of the last {rule.periods} datapoints"
    return f"{_headline(rule)}: {last} {_values(hits)} {_compared(rule, len(hits), wanted, hits)} {minimum}."


def _filled(rule: MetricRule, state: AlarmState, counted: Sequence[Datapoint], missing: int) -> str:
    """The reason where missing data was treated as something."""
    words = {MissingData.BREACHING: "Breaching", MissingData.NOT_BREACHING: "NonBreaching"}
    treated = words.get(rule.missing, "Missing" if rule.missing is MissingData.MISSING else "Ignored")
    gaps = f"{missing} missing {'datapoint was' if missing == 1 else 'datapoints were'} treated as [{treated}]"
    if not counted:
        periods = f"{missing} period" if missing == 1 else f"{missing} periods"
        return f"{_headline(rule)}: no datapoints were received for {periods} and {gaps}."
    wanted = state is AlarmState.ALARM
    hits = [point for point in counted if breaches(rule, point) is wanted] or list(counted)
    wanted = breaches(rule, hits[0])
    told = f"{_datapoints(len(hits))} {_values(hits)} {_compared(rule, len(hits), wanted, hits)}"
    return f"{_headline(rule)}: {told} and {gaps}."


def _unknown(rule: MetricRule, missing: int) -> str:
    return f"Insufficient Data: {_datapoints(missing)} {'was' if missing == 1 else 'were'} unknown."


def _headline(rule: MetricRule) -> str:
    return "Thresholds Crossed" if rule.comparison in BAND_COMPARISONS else "Threshold Crossed"


def _datapoints(count: int) -> str:
    return f"{count} datapoint" if count == 1 else f"{count} datapoints"


def _compared(rule: MetricRule, count: int, breached: bool, hits: Sequence[Datapoint]) -> str:
    verb = ("was" if count == 1 else "were") + ("" if breached else " not")
    if rule.comparison not in BAND_COMPARISONS:
        return f"{verb} {_WORDS[rule.comparison]} ({rule.threshold})"
    lower = [point.lower for point in reversed(hits)]
    upper = [point.upper for point in reversed(hits)]
    bounds = {"lower thresholds": _numbers(lower), "upper thresholds": _numbers(upper)}
    words = _WORDS[rule.comparison]
    for name, values in bounds.items():
        words = words.replace(name, f"{name} {values}")
    return f"{verb} {words}"


def _numbers(values: Sequence[float | None]) -> str:
    return "[" + ", ".join("unknown" if value is None else str(value) for value in values) + "]"


def _values(points: Sequence[Datapoint]) -> str:
    """Newest first, each with its time."""
    told = [f"{point.value} ({short(point.at_ms)})" for point in reversed(points)]
    return "[" + ", ".join(told) + "]"


def reason_data(rule: MetricRule, counted: Sequence[Datapoint], now_ms: int) -> str:
    """The reason for programs, JSON; the oldest values are left out where it would be too long."""
    kept = list(counted)
    while True:
        text = json.dumps(_data(rule, kept, now_ms), separators=(",", ":"))
        if len(text) <= REASON_DATA_MAX or not kept:
            return text
        kept = kept[len(kept) // 8 + 1 :]


def _data(rule: MetricRule, counted: Sequence[Datapoint], now_ms: int) -> dict[str, Any]:
    data: dict[str, Any] = {"version": "1.0", "queryDate": iso(now_ms)}
    if counted:
        data["startDate"] = iso(counted[0].at_ms)
    stat = rule.watched.stat
    if stat is not None:
        data["statistic"] = stat.stat
        if stat.unit:
            data["unit"] = stat.unit
    data["period"] = rule.period_s
    data["recentDatapoints"] = [point.value for point in counted]
    if rule.threshold is not None:
        data["threshold"] = rule.threshold
    else:
        data["recentLowerThresholds"] = [point.lower for point in counted]
        data["recentUpperThresholds"] = [point.upper for point in counted]
    data["evaluatedDatapoints"] = [_evaluated(point) for point in reversed(counted)]
    return data


def _evaluated(point: Datapoint) -> dict[str, Any]:
    told: dict[str, Any] = {"timestamp": iso(point.at_ms)}
    if point.samples is not None:
        told["sampleCount"] = point.samples
    told["value"] = point.value
    if point.lower is not None or point.upper is not None:
        told["threshold"] = {"lower": point.lower, "upper": point.upper}
    return told

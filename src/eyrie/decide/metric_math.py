"""Metric math: expressions over time series, as GetMetricData and alarms take them. Pure: series come as an argument.

    parse("100 * errors / FILL(requests, 1)") -> tree;  evaluate(tree, world) -> a number, a series, or several series

`metric_grammar` reads the text; here is what it means. Two series are combined at the times that both have; a number
with a series at each of its times; several series with a number or a series one by one. `world` gives the named series,
and answers SEARCH.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from eyrie.decide.metric_grammar import Array, Call, MathError, Name, Node, Number, Operation, Text

SERIES_MAX = 500  # in one answer


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """Values by time, in milliseconds since the epoch, ascending; `label` is for people."""

    label: str
    points: Mapping[int, float]
    period_ms: int = 60_000


Value = float | TimeSeries | list[TimeSeries]


class World(Protocol):
    """What an expression may ask for."""

    def named(self, name: str) -> Value:
        """The series or number of an id of the same request. Raises MathError."""
        ...

    def all_named(self, part: str) -> list[TimeSeries]:
        """METRICS(): the metrics (not the expressions) of the same request whose id contains `part`."""
        ...

    def search(self, query: str, statistic: str, period_s: int) -> list[TimeSeries]:
        """SEARCH(): every series that the query finds. Raises MathError."""
        ...


def evaluate(node: Node, world: World) -> Value:
    """What an expression comes to. Raises MathError."""
    match node:
        case Number(value):
            return value
        case Name(name):
            return world.named(name)
        case Text(_):
            raise MathError("a quoted text has no meaning here")
        case Array(items):
            return [series for item in items for series in _all_series(evaluate(item, world))]
        case Operation(sign, left, right):
            return _combined(_OPERATIONS[sign], evaluate(left, world), evaluate(right, world))
        case Call(function, arguments):
            return _called(function, arguments, world)


def _all_series(value: Value) -> list[TimeSeries]:
    if isinstance(value, float):
        raise MathError("a number stands where a time series is needed")
    return value if isinstance(value, list) else [value]


# --- operators ------------------------------------------------------------------------------------------------------


def _divided(a: float, b: float) -> float:
    return a / b if b else math.nan


def _powered(a: float, b: float) -> float:
    try:
        found = a**b
    except (OverflowError, ZeroDivisionError):
        return math.nan
    return found if isinstance(found, float) else math.nan


_OPERATIONS: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divided,
    "^": _powered,
    "<": lambda a, b: float(a < b),
    ">": lambda a, b: float(a > b),
    "<=": lambda a, b: float(a <= b),
    ">=": lambda a, b: float(a >= b),
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "&&": lambda a, b: float(bool(a) and bool(b)),
    "||": lambda a, b: float(bool(a) or bool(b)),
}


def _combined(sign: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if isinstance(left, list):
        if isinstance(right, list):
            raise MathError("two lists of time series cannot be combined: make one of them a single series")
        return [_one(_combined(sign, series, right)) for series in left]
    if isinstance(right, list):
        return [_one(_combined(sign, left, series)) for series in right]
    if isinstance(left, float):
        if isinstance(right, float):
            return sign(left, right)
        return _mapped(right, lambda value: sign(left, value))
    if isinstance(right, float):
        return _mapped(left, lambda value: sign(value, right))
    other = right.points
    return _series(left, {at: sign(value, other[at]) for at, value in left.points.items() if at in other})


def _one(value: Value) -> TimeSeries:
    assert isinstance(value, TimeSeries)
    return value


def _series(like: TimeSeries, points: Mapping[int, float]) -> TimeSeries:
    """A series with only finite values: what has no answer is no point."""
    return TimeSeries(like.label, {at: value for at, value in points.items() if math.isfinite(value)}, like.period_ms)


def _mapped(series: TimeSeries, change: Callable[[float], float]) -> TimeSeries:
    return _series(series, {at: change(value) for at, value in series.points.items()})


# --- functions ------------------------------------------------------------------------------------------------------


def _called(function: str, arguments: Sequence[Node], world: World) -> Value:
    if function == "SEARCH":
        return _searched(arguments, world)
    if function == "METRICS":
        part = arguments[0].text if arguments and isinstance(arguments[0], Text) else ""
        return world.all_named(part)
    if function == "FILL":
        return _filled(arguments, world)
    if function == "IF":
        return _chosen([evaluate(argument, world) for argument in arguments])
    if function in ("SORT", "SLICE"):
        return _ordered(function, arguments, world)
    if len(arguments) != 1 and not (function == "ANOMALY_DETECTION_BAND" and len(arguments) == 2):
        raise MathError(f"{function} takes one argument, not {len(arguments)}")
    values = [evaluate(argument, world) for argument in arguments]
    if function in _POINTWISE:
        return _each(values[0], lambda series: _mapped(series, _POINTWISE[function]), _POINTWISE[function])
    if function in _ALONG:
        return _each(values[0], lambda series: _series(series, _ALONG[function](series)))
    if function in _TOGETHER:
        return _together(values[0], _TOGETHER[function])
    if function in _SINGLE:
        return _SINGLE[function](values[0])
    if function == "ANOMALY_DETECTION_BAND":
        return _band(values)
    raise MathError(f"there is no function {function}")


def _each(
    value: Value, change: Callable[[TimeSeries], TimeSeries], number: Callable[[float], float] | None = None
) -> Value:
    if isinstance(value, list):
        return [change(series) for series in value]
    if isinstance(value, TimeSeries):
        return change(value)
    if number is None:
        raise MathError("a number stands where a time series is needed")
    return number(value)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan


_POINTWISE: Mapping[str, Callable[[float], float]] = {
    "ABS": abs,
    "CEIL": lambda value: float(math.ceil(value)),
    "FLOOR": lambda value: float(math.floor(value)),
    "LOG": _log,
    "LOG10": lambda value: _log(value) / math.log(10),
}


def _pairs(series: TimeSeries) -> list[tuple[tuple[int, float], tuple[int, float]]]:
    return list(pairwise(series.points.items()))


def _running_sum(series: TimeSeries) -> dict[int, float]:
    total, found = 0.0, {}
    for at, value in series.points.items():
        found[at] = total = total + value
    return found


def _date(at_ms: int) -> tuple[int, int, int]:
    """Year, month and day of a moment, UTC; worked out from March on, so that the leap day is a year's last."""
    days = at_ms // 86_400_000 + 719_468  # since the 1st of March of the year 0
    era, day = divmod(days, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    return era * 400 + year + (month >= 10), month + (3 if month < 10 else -9), day - (153 * month + 2) // 5 + 1


def _times(part: Callable[[int], int]) -> Callable[[TimeSeries], dict[int, float]]:
    return lambda series: {at: float(part(at)) for at in series.points}


_ALONG: Mapping[str, Callable[[TimeSeries], dict[int, float]]] = {
    "RATE": lambda s: {b[0]: (b[1] - a[1]) / ((b[0] - a[0]) / 1000) for a, b in _pairs(s)},
    "DIFF": lambda s: {b[0]: b[1] - a[1] for a, b in _pairs(s)},
    "DIFF_TIME": lambda s: {b[0]: (b[0] - a[0]) / 1000 for a, b in _pairs(s)},
    "RUNNING_SUM": _running_sum,
    "MINUTE": _times(lambda at: at // 60_000 % 60),
    "HOUR": _times(lambda at: at // 3_600_000 % 24),
    "DAY": _times(lambda at: (at // 86_400_000 + 3) % 7 + 1),  # Monday is 1
    "DATE": _times(lambda at: _date(at)[2]),
    "MONTH": _times(lambda at: _date(at)[1]),
    "YEAR": _times(lambda at: _date(at)[0]),
    "EPOCH": lambda s: {at: at / 1000 for at in s.points},
}


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


_TOGETHER: Mapping[str, Callable[[Sequence[float]], float]] = {
    "AVG": lambda values: sum(values) / len(values),
    "SUM": lambda values: math.fsum(values),
    "MIN": lambda values: min(values),
    "MAX": lambda values: max(values),
    "STDDEV": _deviation,
}


def _together(value: Value, reduce: Callable[[Sequence[float]], float]) -> Value:
    """Of one series a number; of several a series, at each time that any of them has."""
    if isinstance(value, float):
        raise MathError("a number stands where a time series is needed")
    if isinstance(value, TimeSeries):
        return reduce(list(value.points.values())) if value.points else math.nan
    times = sorted({at for series in value for at in series.points})
    points = {at: reduce([s.points[at] for s in value if at in s.points]) for at in times}
    return TimeSeries("", points, value[0].period_ms if value else 60_000)


def _count_points(value: Value) -> Value:
    return _each(value, lambda s: _series(s, dict.fromkeys(s.points, float(len(s.points)))))


def _end_of(last: bool) -> Callable[[Value], Value]:
    def end(value: Value) -> Value:
        if isinstance(value, list):
            if not value:
                raise MathError("there is no series to take")
            return value[-1 if last else 0]
        if isinstance(value, float) or not value.points:
            raise MathError("there is no point to take")
        return list(value.points.values())[-1 if last else 0]

    return end


_SINGLE: Mapping[str, Callable[[Value], Value]] = {
    "PERIOD": lambda value: _all_series(value)[0].period_ms / 1000,
    "METRIC_COUNT": lambda value: float(len(_all_series(value))),
    "DATAPOINT_COUNT": _count_points,
    "REMOVE_EMPTY": lambda value: [series for series in _all_series(value) if series.points],
    "FIRST": _end_of(False),
    "LAST": _end_of(True),
    "TIME_SERIES": lambda value: value,
}


def _searched(arguments: Sequence[Node], world: World) -> list[TimeSeries]:
    if not 2 <= len(arguments) <= 3 or not all(isinstance(a, Text) for a in arguments[:2]):
        raise MathError("SEARCH takes a quoted search, a quoted statistic and a period: SEARCH('{N,D} x', 'Sum', 60)")
    texts = [a.text for a in arguments[:2] if isinstance(a, Text)]
    period = arguments[2] if len(arguments) == 3 else Number(300.0)
    if not isinstance(period, Number) or period.value < 1:
        raise MathError("the third argument of SEARCH is a period in seconds")
    return world.search(texts[0], texts[1], int(period.value))[:SERIES_MAX]


def _filled(arguments: Sequence[Node], world: World) -> Value:
    if len(arguments) != 2:
        raise MathError("FILL takes a time series and a value, REPEAT or LINEAR")
    how = arguments[1].name if isinstance(arguments[1], Name) else ""
    value = evaluate(arguments[0], world)
    if how not in ("REPEAT", "LINEAR"):
        filler = evaluate(arguments[1], world)
        return _each(value, lambda series: _fill_with(series, filler))
    return _each(value, lambda series: _fill_between(series, how == "LINEAR"))


def _steps(series: TimeSeries) -> range:
    """Every time between the first and the last."""
    times = list(series.points)
    return range(times[0], times[-1] + 1, series.period_ms) if times else range(0)


def _fill_with(series: TimeSeries, filler: Value) -> TimeSeries:
    if isinstance(filler, list):
        raise MathError("FILL takes one value, not several series")
    if isinstance(filler, float):
        return _series(series, {at: series.points.get(at, filler) for at in _steps(series)})
    times = sorted({*series.points, *filler.points})
    return _series(series, {at: series.points.get(at, filler.points.get(at, math.nan)) for at in times})


def _fill_between(series: TimeSeries, linear: bool) -> TimeSeries:
    found: dict[int, float] = {}
    for (at, value), (later, other) in _pairs(series):
        for step in range(at, later, series.period_ms):
            found[step] = value + (other - value) * (step - at) / (later - at) if linear else value
    found.update(series.points)
    return _series(series, dict(sorted(found.items())))


def _chosen(values: list[Value]) -> Value:
    """IF(condition, then, else): at each time of the condition; without an else, only where it holds."""
    if not 2 <= len(values) <= 3:
        raise MathError("IF takes a condition, a value, and maybe another value")
    condition, then, *rest = values
    other: Value = rest[0] if rest else math.nan
    if isinstance(condition, float):
        return then if condition else other
    if isinstance(condition, list) or isinstance(then, list) or isinstance(other, list):
        raise MathError("IF takes numbers and single time series")

    def at_time(value: float | TimeSeries, at: int) -> float:
        return value if isinstance(value, float) else value.points.get(at, math.nan)

    return _series(condition, {at: at_time(then if c else other, at) for at, c in condition.points.items()})


def _ordered(function: str, arguments: Sequence[Node], world: World) -> list[TimeSeries]:
    if not arguments:
        raise MathError(f"{function} takes several time series")
    series = _all_series(evaluate(arguments[0], world))
    if function == "SLICE":
        bounds = [int(a.value) for a in arguments[1:] if isinstance(a, Number)]
        if not 1 <= len(bounds) <= 2 or len(bounds) != len(arguments) - 1:
            raise MathError("SLICE takes time series, a first place, and maybe the place to end before")
        return series[bounds[0] : bounds[1] if len(bounds) == 2 else None]
    names = [a.name for a in arguments[1:3] if isinstance(a, Name)]
    if len(names) != 2 or names[0] not in _TOGETHER or names[1] not in ("ASC", "DESC"):
        raise MathError("SORT takes time series, one of SUM, AVG, MIN, MAX, STDDEV, ASC or DESC, and maybe a limit")
    key = _TOGETHER[names[0]]
    limit = int(arguments[3].value) if len(arguments) == 4 and isinstance(arguments[3], Number) else None
    filled = [s for s in series if s.points]
    return sorted(filled, key=lambda s: key(list(s.points.values())), reverse=names[1] == "DESC")[:limit]


def _band(values: list[Value]) -> list[TimeSeries]:
    """What is expected at each time: the mean of what came before it, `width` deviations up and down."""
    series = values[0]
    width = values[1] if len(values) > 1 else 2.0
    if not isinstance(series, TimeSeries) or not isinstance(width, float) or width <= 0:
        raise MathError("ANOMALY_DETECTION_BAND takes one time series and a positive width")
    upper: dict[int, float] = {}
    lower: dict[int, float] = {}
    count = mean = spread = 0.0
    for at, value in series.points.items():
        if count >= 2:
            deviation = math.sqrt(spread / count)
            upper[at], lower[at] = mean + width * deviation, mean - width * deviation
        count += 1
        step = value - mean
        mean += step / count
        spread += step * (value - mean)
    return [TimeSeries("upper", upper, series.period_ms), TimeSeries("lower", lower, series.period_ms)]

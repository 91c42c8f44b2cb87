"""Metric math: what expressions mean, and what is said of those that mean nothing."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide.metric_grammar import MathError, names_of, parse
from eyrie.decide.metric_math import TimeSeries, Value, evaluate

MINUTE = 60_000


def series(*values: float | None, label: str = "") -> TimeSeries:
    """Values of one minute each; None where there is none."""
    return TimeSeries(label, {n * MINUTE: float(value) for n, value in enumerate(values) if value is not None})


class World:
    """The series of a request."""

    def __init__(self, known: Mapping[str, Value]) -> None:
        self.known = known
        self.searches: list[tuple[str, str, int]] = []

    def named(self, name: str) -> Value:
        if name not in self.known:
            raise MathError(f"there is no {name}")
        return self.known[name]

    def all_named(self, part: str) -> list[TimeSeries]:
        return [v for k, v in self.known.items() if part in k and isinstance(v, TimeSeries)]

    def search(self, query: str, statistic: str, period_s: int) -> list[TimeSeries]:
        self.searches.append((query, statistic, period_s))
        return [series(1, 2), series(3)]


KNOWN: dict[str, Value] = {
    "m1": series(1, 2, None, 4),
    "m2": series(10, None, 30, 40),
    "zero": series(0, 1),
    "empty": series(),
}


def of(expression: str, known: Mapping[str, Value] = KNOWN) -> object:
    """The value of an expression; series as lists with None for what is missing."""
    return shown(evaluate(parse(expression), World(known)))


def shown(value: Value) -> object:
    if isinstance(value, list):
        return [shown(one) for one in value]
    if isinstance(value, float):
        return value
    last = max(value.points, default=-MINUTE)
    return [value.points.get(at) for at in range(0, last + 1, MINUTE)]


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("10 - 4 - 3", 3.0),
        ("1 < 2 AND 2 < 1 OR 1 == 1", 1.0),
        ("m1 * 2", [2, 4, None, 8]),
        ("100 - m1", [99, 98, None, 96]),
        ("m1 + m2", [11, None, None, 44]),
        ("m2 / zero", []),
        ("1 / zero", [None, 1]),
        ("m1 > 1", [0, 1, None, 1]),
        ("[m1, m2] + 1", [[2, 3, None, 5], [11, None, 31, 41]]),
        ("AVG([m1, m2])", [5.5, 2, 30, 22]),
        ("SUM(METRICS())", [11, 3, 30, 44]),
        ("SUM(METRICS('m1'))", [1, 2, None, 4]),
        ("MAX(m1)", 4.0),
        ("MIN([m1, m2])", [1, 2, 30, 4]),
        ("STDDEV(zero)", 0.5),
        ("m1 / MAX(m1)", [0.25, 0.5, None, 1]),
        ("FILL(m1, 0)", [1, 2, 0, 4]),
        ("FILL(m1, REPEAT)", [1, 2, 2, 4]),
        ("FILL(m1, LINEAR)", [1, 2, 3, 4]),
        ("FILL(m1, m2)", [1, 2, 30, 4]),
        ("FILL(empty, 0)", []),
        ("RATE(m2)", [None, None, 20 / 120, 10 / 60]),
        ("DIFF(m1)", [None, 1, None, 2]),
        ("DIFF_TIME(m1)", [None, 60, None, 120]),
        ("RUNNING_SUM(m1)", [1, 3, None, 7]),
        ("PERIOD(m1)", 60.0),
        ("IF(m1 > 1, m1, 0)", [0, 2, None, 4]),
        ("IF(m1 > 1, 7)", [None, 7, None, 7]),
        ("IF(1 > 2, 3, 4)", 4.0),
        ("ABS(0 - m1)", [1, 2, None, 4]),
        ("CEIL(m1 / 2)", [1, 1, None, 2]),
        ("FLOOR(m1 / 2)", [0, 1, None, 2]),
        ("LOG10(m2 * 10)", [2, None, pytest.approx(2.477, abs=1e-3), pytest.approx(2.602, abs=1e-3)]),
        ("LOG(zero)", [None, 0]),
        ("SORT([m1, m2], MAX, DESC)", [[10, None, 30, 40], [1, 2, None, 4]]),
        ("SORT([m1, m2], AVG, ASC, 1)", [[1, 2, None, 4]]),
        ("SLICE([m1, m2, zero], 1)", [[10, None, 30, 40], [0, 1]]),
        ("SLICE([m1, m2, zero], 0, 1)", [[1, 2, None, 4]]),
        ("FIRST([m1, m2])", [1, 2, None, 4]),
        ("LAST(m1)", 4.0),
        ("METRIC_COUNT([m1, m2])", 2.0),
        ("DATAPOINT_COUNT(m1)", [3, 3, None, 3]),
        ("REMOVE_EMPTY([m1, empty])", [[1, 2, None, 4]]),
        ("SEARCH('{N,D} x', 'Sum', 60)", [[1, 2], [3]]),
        ("SUM(SEARCH('{N,D} x', 'Sum', 60))", [4, 2]),
        ("MINUTE(m1)", [0, 1, None, 3]),
    ],
)
def test_what_an_expression_means(expression: str, wanted: object) -> None:
    assert of(expression) == wanted


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "1 +",
        "(1",
        "1)",
        "m1 m2",
        "m1 $ m2",
        "'text'",
        "unknown",
        "NOSUCH(m1)",
        "AVG()",
        "AVG(m1, m2)",
        "AVG(1)",
        "[m1] + [m2]",
        "[1]",
        "FILL(m1)",
        "FILL(m1, [m1])",
        "IF(m1)",
        "IF([m1], 1, 2)",
        "SORT(m1)",
        "SORT([m1], NAME, ASC)",
        "SLICE(m1, m2)",
        "SEARCH(m1)",
        "SEARCH('x', 'Sum', 0)",
        "FIRST(empty)",
        "ANOMALY_DETECTION_BAND(m1, 0)",
        "ANOMALY_DETECTION_BAND([m1], 2)",
        "(" * 100 + "1" + ")" * 100,
        "-" * 100 + "1",
        "+".join(["1"] * 600),
        "2 ^^ 3",
        "AND",
    ],
)
def test_what_means_nothing_is_said_so(expression: str) -> None:
    with pytest.raises(MathError) as caught:
        of(expression)
    assert str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(MathError):
        parse(text)


@given(st.integers(0, 4_102_444_800_000))
def test_dates_are_those_of_the_calendar(at_ms: int) -> None:
    known: dict[str, Value] = {"m": TimeSeries("", {at_ms: 1.0})}
    moment = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    found = [evaluate(parse(f"{part}(m)"), World(known)) for part in ("YEAR", "MONTH", "DATE", "DAY", "HOUR", "MINUTE")]
    values = [next(iter(one.points.values())) for one in found if isinstance(one, TimeSeries)]
    assert values == [moment.year, moment.month, moment.day, moment.isoweekday(), moment.hour, moment.minute]


def test_a_band_follows_what_came_before() -> None:
    values: Value = series(*[10.0, 12.0] * 10, 50.0)
    found = evaluate(parse("ANOMALY_DETECTION_BAND(m, 2)"), World({"m": values}))
    assert isinstance(found, list)
    upper, lower = found
    last = 20 * MINUTE
    assert (upper.points[last], lower.points[last]) == (pytest.approx(13), pytest.approx(9))
    assert 0 not in upper.points


def test_names_of_an_expression() -> None:
    assert names_of(parse("SUM([m1, m2]) / FILL(e3, 0) ^ 2")) == {"m1", "m2", "e3"}

"""The published tables of CloudWatch on missing data, M of N, low samples, and the words of reasons."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide.alarms import (
    EXTRA_PERIODS,
    REASON_DATA_MAX,
    REASON_MAX,
    Datapoint,
    Evaluation,
    Range,
    evaluate,
    range_length,
    samples_needed,
)
from eyrie.domain.alarms import AlarmState, Comparison, MetricRule, MetricStat, MissingData, rule_on_metric

START_MS = 1_795_273_200_000  # 2026-11-21 15:00:00 UTC
MINUTE_MS = 60_000
KEPT = "kept"


def rule(periods: int, to_alarm: int, missing: str = "missing", stat: str = "Average") -> MetricRule:
    made = rule_on_metric(MetricStat("AWS/SageMaker", "Errors", stat, 60), Comparison.ABOVE, 1.0, periods, to_alarm)
    return replace(made, missing=MissingData(missing))


def seen(row: str, samples: float | None = 5.0) -> Range:
    """`0 - X`: not breaching, missing, breaching; the newest on the right."""
    values = {"0": 0.5, "X": 2.0}
    signs = row.split()
    return [
        None if sign == "-" else Datapoint(START_MS + n * MINUTE_MS, values[sign], samples)
        for n, sign in enumerate(signs)
    ]


def outcome(rule: MetricRule, row: str, state: AlarmState = AlarmState.OK) -> str:
    found = evaluate(rule, state, seen(row), START_MS)
    return KEPT if found.kept else str(found.state)


# Datapoints, and the state under: missing, ignore, breaching, notBreaching.
THREE_OF_THREE = [
    ("0 - X - X", "OK", "OK", "OK", "OK"),
    ("0 - - - -", "OK", "OK", "OK", "OK"),
    ("- - - - -", "INSUFFICIENT_DATA", KEPT, "ALARM", "OK"),
    ("0 X X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("- - X - -", "ALARM", KEPT, "ALARM", "OK"),
]
TWO_OF_THREE = [
    ("0 - X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("0 0 X 0 X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("0 - X - -", "OK", "OK", "ALARM", "OK"),
    ("- - - - 0", "OK", "OK", "ALARM", "OK"),
    ("- - - X -", "ALARM", KEPT, "ALARM", "OK"),
]


@pytest.mark.parametrize(("to_alarm", "row"), [(3, row) for row in THREE_OF_THREE] + [(2, row) for row in TWO_OF_THREE])
@pytest.mark.parametrize(("column", "missing"), list(enumerate(["missing", "ignore", "breaching", "notBreaching"], 1)))
def test_the_published_tables(to_alarm: int, row: tuple[str, ...], column: int, missing: str) -> None:
    assert range_length(rule(3, to_alarm)) == 5
    for state in AlarmState:
        assert outcome(rule(3, to_alarm, missing), row[0], state) == row[column]


@pytest.mark.parametrize("row", ["- - - - X", "- - - X -"])
def test_a_young_breach_alone_does_not_alarm_at_once(row: str) -> None:
    assert outcome(rule(3, 3), row) == KEPT


@pytest.mark.parametrize(("row", "state"), [("0 0 X X X", "OK"), ("X X X X X", "ALARM"), ("X 0 0 0 X", "OK")])
def test_only_the_newest_n_count_where_none_is_missing(row: str, state: str) -> None:
    assert outcome(rule(4, 4), "X " + row) == state


def test_an_ignored_low_sample_keeps_the_state() -> None:
    made = replace(rule(1, 1, stat="p99"), low_samples="ignore")
    few = evaluate(made, AlarmState.OK, seen("- - X", samples=999), START_MS)
    assert (few.kept, few.state) == (True, AlarmState.OK)
    enough = evaluate(made, AlarmState.OK, seen("- - X", samples=1000), START_MS)
    assert (enough.kept, enough.state) == (False, AlarmState.ALARM)
    said = replace(made, low_samples="evaluate")
    assert evaluate(said, AlarmState.OK, seen("- - X", samples=1), START_MS).state is AlarmState.ALARM


@pytest.mark.parametrize(("stat", "needed"), [("p99", 1000), ("p50", 20), ("p10", 100), ("Average", 0), ("p100", 0)])
def test_how_many_samples_a_percentile_needs(stat: str, needed: float) -> None:
    assert samples_needed(stat) == pytest.approx(needed)


def told(rule: MetricRule, row: str, state: AlarmState = AlarmState.OK) -> Evaluation:
    return evaluate(rule, state, seen(row), START_MS + 10 * MINUTE_MS + 7)


def test_reasons_read_as_those_of_cloudwatch() -> None:
    assert told(rule(1, 1), "- - X").reason == (
        "Threshold Crossed: 1 out of the last 1 datapoints [2.0 (21/11/26 15:02:00)] was greater than the threshold "
        "(1.0) (minimum 1 datapoint for OK -> ALARM transition)."
    )
    assert told(rule(3, 2), "0 X X", AlarmState.ALARM).reason == (
        "Threshold Crossed: 2 out of the last 3 datapoints [2.0 (21/11/26 15:02:00), 2.0 (21/11/26 15:01:00)] were "
        "greater than the threshold (1.0) (minimum 2 datapoints for OK -> ALARM transition)."
    )
    assert told(rule(3, 2), "0 0 X", AlarmState.ALARM).reason.endswith(
        "were not greater than the threshold (1.0) (minimum 2 datapoints for ALARM -> OK transition)."
    )
    assert told(rule(3, 3), "- - - - -").reason == "Insufficient Data: 3 datapoints were unknown."
    assert told(rule(1, 1, "notBreaching"), "- - -").reason == (
        "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as "
        "[NonBreaching]."
    )
    assert told(rule(3, 3, "breaching"), "X - - - -").reason == (
        "Threshold Crossed: 1 datapoint [2.0 (21/11/26 15:00:00)] was greater than the threshold (1.0) and 2 missing "
        "datapoints were treated as [Breaching]."
    )


def test_reason_data_says_what_was_evaluated() -> None:
    data = json.loads(told(rule(2, 1), "- - X 0").reason_data)
    assert data == {
        "version": "1.0",
        "queryDate": "2026-11-21T15:10:00.007+0000",
        "startDate": "2026-11-21T15:02:00.000+0000",
        "statistic": "Average",
        "period": 60,
        "recentDatapoints": [2.0, 0.5],
        "threshold": 1.0,
        "evaluatedDatapoints": [
            {"timestamp": "2026-11-21T15:03:00.000+0000", "sampleCount": 5.0, "value": 0.5},
            {"timestamp": "2026-11-21T15:02:00.000+0000", "sampleCount": 5.0, "value": 2.0},
        ],
    }


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        (Comparison.OUTSIDE_BAND, [-1.0, 11.0]),
        (Comparison.BELOW_BAND, [-1.0]),
        (Comparison.ABOVE_BAND, [11.0]),
    ],
)
def test_a_band_is_left_on_its_sides(comparison: Comparison, breaching: list[float]) -> None:
    made = replace(rule(1, 1), comparison=comparison, threshold=None, band_id="b")
    for value in (-1.0, 0.0, 5.0, 10.0, 11.0):
        found = evaluate(made, AlarmState.OK, [Datapoint(START_MS, value, 3, 0.0, 10.0)], START_MS)
        assert (found.state is AlarmState.ALARM) is (value in breaching)
        assert found.reason.startswith("Thresholds Crossed: ")


def test_no_band_no_breach() -> None:
    made = replace(rule(1, 1), comparison=Comparison.OUTSIDE_BAND, threshold=None, band_id="b")
    assert evaluate(made, AlarmState.OK, [Datapoint(START_MS, 1e9, 3)], START_MS).state is AlarmState.OK


@given(
    st.integers(1, 8),
    st.data(),
    st.sampled_from(MissingData),
    st.sampled_from(AlarmState),
)
def test_every_range_has_an_outcome(periods: int, data: st.DataObject, missing: MissingData, state: AlarmState) -> None:
    to_alarm = data.draw(st.integers(1, periods))
    row = data.draw(st.lists(st.sampled_from("0X-"), min_size=periods + 2, max_size=periods + EXTRA_PERIODS))
    found = evaluate(rule(periods, to_alarm, str(missing)), state, seen(" ".join(row)), START_MS)
    real = [sign for sign in row if sign != "-"][-periods:]
    if real.count("X") >= to_alarm and len(real) == periods:
        assert found.state is AlarmState.ALARM
    if not found.kept and found.state is AlarmState.INSUFFICIENT_DATA:
        assert (missing, real) == (MissingData.MISSING, [])
    if found.state is AlarmState.ALARM and not found.kept and missing is MissingData.NOT_BREACHING:
        assert real.count("X") >= to_alarm
    if found.kept:
        assert found.state is state


def test_long_reasons_are_bounded() -> None:
    found = evaluate(rule(1440, 1440), AlarmState.OK, seen(" ".join("X" * 1442)), START_MS)
    assert len(found.reason) == REASON_MAX
    assert len(found.reason_data) <= REASON_DATA_MAX
    assert len(json.loads(found.reason_data)["recentDatapoints"]) > 10

"""Statistics of summaries against the same statistics of the values themselves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide.statistics import statistic
from eyrie.domain.metrics import Summary, bucket_of, merged, middle_of, told

VALUES = st.lists(st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-9), min_size=1, max_size=60)


def of(*values: float) -> Summary:
    summary = Summary()
    for value in values:
        summary.add(value)
    return summary


def near(found: float | None, wanted: float) -> bool:
    return found is not None and math.isclose(found, wanted, rel_tol=0.0101, abs_tol=1e-12)


@given(st.floats(-1e300, 1e300))
def test_a_bucket_stands_for_its_values_within_one_percent(value: float) -> None:
    if value == 0 or abs(value) > 1e-300:
        assert near(middle_of(bucket_of(value)), value)


@given(st.lists(st.floats(-1e9, 1e9), min_size=2))
def test_buckets_sort_as_their_values(values: list[float]) -> None:
    assert [bucket_of(v) for v in sorted(values)] == sorted(bucket_of(v) for v in values)


@given(VALUES, st.integers(0, 100))
def test_a_percentile_is_the_value_of_its_rank(values: list[float], percent: int) -> None:
    rank = max(math.ceil(percent / 100 * len(values)), 1)
    assert near(statistic(f"p{percent}")(of(*values)), sorted(values)[rank - 1])


@given(VALUES, VALUES)
def test_what_is_merged_is_what_was_measured_together(first: list[float], second: list[float]) -> None:
    together, apart = of(*first, *second), merged([of(*first), of(*second)])
    assert together.buckets == apart.buckets
    assert (together.count, together.lowest, together.highest) == (apart.count, apart.lowest, apart.highest)
    assert math.isclose(together.total, apart.total, rel_tol=1e-9, abs_tol=1e-3)


def test_the_plain_ones_are_exact() -> None:
    summary = of(1, 2, 3, 10)
    found = {name: statistic(name)(summary) for name in ("SampleCount", "Sum", "Average", "Minimum", "Maximum")}
    assert found == {"SampleCount": 4, "Sum": 16, "Average": 4, "Minimum": 1, "Maximum": 10}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tm90", sum(range(1, 91)) / 90),
        ("TM(10%:90%)", sum(range(11, 91)) / 80),
        ("TM(:90%)", sum(range(1, 91)) / 90),
        ("IQM", sum(range(26, 76)) / 50),
        ("tc90", 90),
        ("TC(20.5:30.5)", 10),
        ("ts10", 55),
        ("TS(20.5:30.5)", 255),
        ("PR(:50.5)", 50),
        ("PR(89.5:)", 11),
        ("wm90", (sum(range(1, 91)) + 10 * 90) / 100),
        ("WM(10%:90%)", (sum(range(11, 91)) + 10 * 11 + 10 * 90) / 100),
        ("p99.9", 100),
        ("P50", 50),
    ],
)
def test_trimmed_statistics_of_one_to_a_hundred(name: str, wanted: float) -> None:
    found = statistic(name)(of(*range(1, 101)))
    assert found is not None
    assert math.isclose(found, wanted, rel_tol=0.012)


@pytest.mark.parametrize(
    "name", ["", "p", "p101", "average", "tm", "TM()", "TM(:)", "TM(90%:10%)", "TM(10%:20)", "PR(1%:2%)", "x50", "p-1"]
)
def test_what_is_no_statistic_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"statistic|bounds|PR takes"):
        statistic(name)


def test_of_a_statistic_set_only_the_plain_ones_are_known() -> None:
    summary = told(10, 55, 1, 10)
    assert statistic("Average")(summary) == 5.5
    assert [statistic(name)(summary) for name in ("p50", "tm90", "IQM", "PR(1:5)", "wm90")] == [None] * 5
    assert statistic("p50")(told(3, 6, 2, 2)) == 2
    summary.merge(of(1, 2))
    assert statistic("p50")(summary) is None


@pytest.mark.parametrize("four", [(0, 0, 0, 0), (1, 1, 2, 1), (-1, 0, 0, 0), (1, math.nan, 0, 0), (1, 1, 0, math.inf)])
def test_a_statistic_set_that_contradicts_itself_is_refused(four: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        told(*four)


@pytest.mark.parametrize(("value", "times"), [(math.nan, 1), (math.inf, 1), (1, 0), (1, -1), (1, math.nan)])
def test_what_is_no_measurement_is_refused(value: float, times: float) -> None:
    with pytest.raises(ValueError, match="cannot count"):
        Summary().add(value, times)


def test_nothing_has_no_statistics() -> None:
    assert [statistic(name)(Summary()) for name in ("Average", "Minimum", "Maximum", "p50", "tm90")] == [None] * 5

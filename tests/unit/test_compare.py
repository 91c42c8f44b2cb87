"""Comparing variants while looking all the time: seldom a false alarm, no many more samples than a test of one size."""

from __future__ import annotations

import random
import statistics
from math import inf, sqrt

import pytest

from eyrie.decide.compare import COUNT_MIN, Sample, difference, needed, sample_of
from eyrie.domain.metrics import Summary

RUNS = 2_000


def share(count: int, hits: int) -> Sample:
    mean = hits / count
    return Sample(count, mean, mean * (1 - mean))


def hits(chance: random.Random, count: int, rate: float) -> int:
    """A binomial number, by its normal limit rounded: quick, and within a thousandth of its distribution here."""
    return min(count, max(0, round(chance.gauss(count * rate, sqrt(count * rate * (1 - rate))))))


def stopped_at(chance: random.Random, rates: tuple[float, float], batch: int, most: int) -> int | None:
    """Look after every batch; the values of each variant when it was decided."""
    count = first = second = 0
    while count < most:
        count += batch
        first += hits(chance, batch, rates[0])
        second += hits(chance, batch, rates[1])
        if difference(share(count, first), share(count, second)).decided:
            return count
    return None


def test_alike_variants_are_seldom_told_apart_though_one_looks_all_the_time() -> None:
    chance = random.Random(20261121)
    false = sum(stopped_at(chance, (0.9, 0.9), 200, 5_000) is not None for _ in range(RUNS))
    assert false / RUNS < 0.05


@pytest.mark.heavy
def test_alike_variants_are_seldom_told_apart_though_one_looks_at_every_value() -> None:
    chance = random.Random(7)
    false = 0
    for _ in range(RUNS):
        count = first = second = 0
        while count < 3_000:
            count += 1
            first += chance.random() < 0.9
            second += chance.random() < 0.9
            if count >= COUNT_MIN and difference(share(count, first), share(count, second)).decided:
                false += 1
                break
    assert false / RUNS < 0.05


def test_two_points_are_found_with_few_more_values_than_a_fixed_size_needs() -> None:
    fixed = (1.959964 * sqrt(2 * 0.91 * 0.09) + 0.841621 * sqrt(0.9 * 0.1 + 0.92 * 0.08)) ** 2 / 0.02**2  # power 80 %
    chance = random.Random(11)
    stops = [stopped_at(chance, (0.90, 0.92), 100, 40_000) for _ in range(200)]
    assert statistics.median(stop if stop is not None else inf for stop in stops) <= 2.5 * fixed


def test_what_is_still_needed_comes_true() -> None:
    both = share(2_000, 1_800), share(2_000, 1_820)
    assert not difference(*both).decided
    more = needed(*both)
    assert more is not None
    for part, decided in ((0.9, False), (1.02, True)):
        times = 1 + part * more / 4_000
        first, second = share(int(2_000 * times), int(1_800 * times)), share(int(2_000 * times), int(1_820 * times))
        assert difference(first, second).decided is decided


def test_few_values_decide_nothing_and_no_difference_never_will() -> None:
    few = difference(share(50, 0), share(50, 50))
    assert not few.decided
    assert few.high == inf
    assert needed(share(1_000, 500), share(1_000, 500)) is None
    assert needed(Sample(0, 0, 0), Sample(0, 0, 0)) is None


def test_values_that_never_vary_are_told_apart_in_the_end() -> None:
    assert difference(share(1_000, 1_000), share(1_000, 1_000)).low == pytest.approx(-0.003)
    assert difference(Sample(1_000, 1.0, 0.0), Sample(1_000, 2.0, 0.0)).decided


def test_mean_and_variance_come_from_a_summary() -> None:
    chance = random.Random(5)
    values = [chance.lognormvariate(3, 1) for _ in range(5_000)]
    summary = Summary()
    for value in values:
        summary.add(value)
    found = sample_of(summary)
    assert found.count == 5_000
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.variance == pytest.approx(statistics.pvariance(values), rel=0.05)
    assert sample_of(Summary()) == Sample(0.0, 0.0, 0.0)

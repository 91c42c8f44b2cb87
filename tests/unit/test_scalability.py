"""The Universal Scalability Law is found again in points that were made by it."""

from __future__ import annotations

import random

import pytest

from eyrie.decide.scalability import Law, Point, fit


def points(law: Law, counts: tuple[int, ...], noise: float = 0.0, seed: int = 1) -> list[Point]:
    chance = random.Random(seed)
    return [Point(n, law.at(n) * (1 + chance.uniform(-noise, noise))) for n in counts]


@pytest.mark.parametrize(
    ("rate", "contention", "coherence"),
    [(995.0, 0.02671, 0.000769), (100.0, 0.0, 0.0), (50.0, 0.3, 0.0), (1e6, 0.0, 0.01), (0.5, 0.05, 0.02)],
)
def test_a_known_curve_is_found_again(rate: float, contention: float, coherence: float) -> None:
    law = Law(rate, contention, coherence, 0.0, 0)
    found = fit(points(law, (1, 2, 4, 8, 16)))
    assert (found.rate, found.contention, found.coherence) == pytest.approx((rate, contention, coherence), abs=1e-6)
    assert found.error < 1e-6
    assert found.at(5) == pytest.approx(law.at(5))


def test_a_noisy_curve_is_found_nearly() -> None:
    law = Law(200.0, 0.05, 0.002, 0.0, 0)
    found = fit(points(law, (1, 2, 4, 8, 16, 32), noise=0.02))
    assert found.rate == pytest.approx(200, rel=0.05)
    assert found.contention == pytest.approx(0.05, abs=0.02)
    assert found.coherence == pytest.approx(0.002, abs=0.001)
    assert 0 < found.error < 0.02


def test_the_peak_and_the_ceiling() -> None:
    found = fit(points(Law(995.0, 0.02671, 0.000769, 0, 0), (1, 4, 8, 16, 32)))
    assert found.best == pytest.approx(35.6, abs=0.1)
    assert found.highest == pytest.approx(found.at(found.best or 0))
    lined = fit(points(Law(100.0, 0.25, 0.0, 0, 0), (1, 2, 4, 8)))
    assert lined.best is None
    assert lined.highest == pytest.approx(400)
    straight = fit(points(Law(100.0, 0.0, 0.0, 0, 0), (1, 2, 4)))
    assert (straight.best, straight.highest) == (None, None)


def test_few_points_tell_few_things() -> None:
    alone = fit([Point(2, 100.0), Point(2, 120.0)])
    assert (alone.contention, alone.coherence) == (0, 0)
    assert alone.rate == pytest.approx(54.098, abs=0.01)
    two = fit([Point(1, 100.0), Point(2, 150.0)])
    assert (two.rate, two.contention, two.coherence) == pytest.approx((100, 1 / 3, 0))


def test_a_host_that_is_full_is_fitted_where_the_bound_of_contention_holds() -> None:
    found = fit([Point(2, 1192.2), Point(4, 1095.6), Point(8, 1045.4)])  # as measured on two cores
    assert found.contention == 1
    assert found.error < 0.02
    assert found.at(2) == pytest.approx(1192, rel=0.05)


def test_no_factor_is_negative_where_more_brings_more_than_its_share() -> None:
    found = fit([Point(1, 100.0), Point(2, 220.0), Point(4, 500.0)])
    assert (found.contention, found.coherence) == (0, 0)
    assert found.rate > 100


def test_a_host_that_is_full_with_one_instance_is_told_as_contention() -> None:
    found = fit([Point(1, 1000.0), Point(2, 1010.0), Point(4, 990.0)])
    assert found.contention == pytest.approx(1, abs=0.1)
    assert found.at(4) == pytest.approx(1000, rel=0.03)


def test_contention_is_a_share_where_more_instances_bring_less() -> None:
    found = fit([Point(2, 1725.0), Point(4, 996.0), Point(8, 1100.0)])
    assert 0 <= found.contention <= 1
    assert found.rate < 5000
    assert found.error < 0.3


@pytest.mark.parametrize("wrong", [[], [Point(0, 1.0)], [Point(1, 0.0)], [Point(1, float("nan"))]])
def test_points_that_cannot_be_are_refused(wrong: list[Point]) -> None:
    with pytest.raises(ValueError, match="point"):
        fit(wrong)

"""Shares of traffic as a DescribeEndpoint reply tells them: over both fleets of a deployment they make one whole."""

from __future__ import annotations

from typing import Any

import pytest

from eyrie.domain.described import percents, portions


def variant(name: str, current: float, desired: float) -> dict[str, Any]:
    return {"VariantName": name, "CurrentWeight": current, "DesiredWeight": desired}


def test_weights_of_one_fleet_are_shares() -> None:
    found = portions({"ProductionVariants": [variant("a", 3, 3), variant("b", 1, 1)]})
    assert [(p.name, p.share) for p in found] == [("a", 0.75), ("b", 0.25)]


def test_two_fleets_whose_weights_do_not_compare_share_one_whole() -> None:
    described = {
        "ProductionVariants": [variant("v", 7.5, 10)],  # three quarters of the traffic, by weights around 10
        "PendingDeploymentSummary": {"ProductionVariants": [variant("v", 0.25, 1)]},
    }
    assert [(p.name, p.share) for p in portions(described)] == [("v (old)", 0.75), ("v (new)", 0.25)]


def test_where_nothing_is_routed_nobody_has_a_share() -> None:
    assert [p.share for p in portions({"ProductionVariants": [variant("a", 0, 1)]})] == [0.0]
    assert portions({}) == []


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ([1 / 3, 1 / 3, 1 / 3], [33.4, 33.3, 33.3]),
        ([2 / 3, 1 / 3], [66.7, 33.3]),
        ([0.0005, 0.9995], [0.1, 99.9]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([], []),
    ],
)
def test_rounded_percentages_sum_to_100(shares: list[float], told: list[float]) -> None:
    assert percents(shares) == told
    assert round(sum(told), 6) == (100 if any(shares) else 0)

"""zone_for: spread of a variant over zones, as properties."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide.placement import zone_for

ZONES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)
PLACED = st.lists(st.sampled_from("abcdefgh"), max_size=40)


@given(zones=ZONES, own=PLACED, overall=PLACED)
def test_the_zone_has_fewest_of_the_variant_then_fewest_of_all(
    zones: list[str], own: list[str], overall: list[str]
) -> None:
    chosen = zone_for(zones, own, overall)
    fewest = [z for z in zones if own.count(z) == min(own.count(y) for y in zones)]
    assert chosen in fewest
    assert overall.count(chosen) == min(overall.count(z) for z in fewest)


@given(zones=ZONES, count=st.integers(1, 30), overall=PLACED)
def test_a_variant_never_shares_a_zone_while_another_is_free(zones: list[str], count: int, overall: list[str]) -> None:
    placed: list[str] = []
    for _ in range(count):
        placed.append(zone_for(zones, placed, overall + placed))
    counts = Counter(placed)
    assert max(counts.values()) - min(counts[z] for z in zones) <= 1


@given(zones=ZONES, own=PLACED, overall=PLACED)
def test_the_order_in_which_instances_are_given_does_not_matter(
    zones: list[str], own: list[str], overall: list[str]
) -> None:
    assert zone_for(zones, own, overall) == zone_for(zones, own[::-1], overall[::-1])


@given(zones=ZONES, own=PLACED)
def test_a_replacement_goes_where_the_lost_one_leaves_a_gap(zones: list[str], own: list[str]) -> None:
    even = zones * 3
    for lost in zones:
        left = list(even)
        left.remove(lost)
        assert zone_for(zones, left, own) == lost


def test_ties_go_to_the_first_zone_named() -> None:
    assert zone_for(("b", "a"), (), ()) == "b"
    assert zone_for(("b", "a"), ("b",), ()) == "a"
    assert zone_for(("a", "b"), (), ("a",)) == "b"


def test_no_zone_is_an_error() -> None:
    with pytest.raises(ValueError, match="no zone"):
        zone_for((), ())

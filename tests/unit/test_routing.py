"""decide/routing: shares exact within one request, ties by draw, budgets, poison memory."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.decide.routing import (
    PoisonMemory,
    RetryBudget,
    Wheel,
    at_random,
    least_outstanding,
    may_eject_silent,
    rendezvous,
    silence_limit_s,
    spread,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=10))
def test_every_prefix_is_less_than_one_request_off_its_share(weights: list[float]) -> None:
    named = {f"v{i}": w for i, w in enumerate(weights)}
    wheel, total = Wheel(named), sum(weights)
    counts = [0] * len(weights)
    for n in range(1, 250):
        counts[wheel.deal()] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - n * weight / total) < 1.000001


def test_a_variant_without_weight_gets_nothing() -> None:
    wheel = Wheel({"a": 1.0, "b": 0.0, "c": 3.0})
    assert wheel.names == ("a", "c")
    assert Counter(wheel.names[wheel.deal()] for _ in range(400)) == {"a": 100, "c": 300}


def test_no_weight_at_all_is_an_error() -> None:
    with pytest.raises(IndexError):
        Wheel({"a": 0.0}).deal()


def test_a_change_of_weights_keeps_the_place() -> None:
    wheel = Wheel({"a": 1.0, "b": 1.0})
    counts: Counter[str] = Counter()
    # replaced after every single request: a wheel that forgot its place would always deal to the same
    for _ in range(200):
        counts[wheel.names[wheel.deal()]] += 1
        wheel = Wheel({"a": 1.0, "b": 1.0}, wheel.place())
    assert counts == {"a": 100, "b": 100}


def test_places_stay_balanced_when_variants_come_and_go() -> None:
    wheel = Wheel({"a": 5.0, "b": 1.0, "c": 1.0})
    wheel.deal()
    wheel = Wheel({"a": 5.0, "d": 2.0}, wheel.place())
    assert sum(wheel.place().values()) == pytest.approx(0.0)


def test_least_outstanding_takes_the_lowest() -> None:
    assert least_outstanding([3, 1, 2], 0.99) == 1


def test_ties_are_broken_evenly_by_the_draw() -> None:
    dice = random.Random(7)
    seen = Counter(least_outstanding([1, 0, 0, 2, 0], dice.random()) for _ in range(3_000))
    assert set(seen) == {1, 2, 4}
    assert min(seen.values()) > 900


def test_above_eight_two_are_sampled_and_the_better_taken() -> None:
    dice = random.Random(7)
    loads = [0] + [5] * 9
    seen = Counter(least_outstanding(loads, dice.random()) for _ in range(5_000))
    assert 0.17 < seen[0] / 5_000 < 0.23  # drawn first or second: 2 of 10
    assert len(seen) == 10


def test_two_samples_are_never_the_same_instance() -> None:
    loads = [1] * 8 + [0, 0]
    for i in range(1_000):
        assert 0 <= least_outstanding(loads, i / 1_000) < 10


def test_at_random_covers_all() -> None:
    assert [at_random(3, d) for d in (0.0, 0.34, 0.999)] == [0, 1, 2]


def test_the_retry_budget_runs_out_and_refills_with_traffic_and_time() -> None:
    budget = RetryBudget(0.0, most=2, per_request=0.5, per_second=1.0)
    assert [budget.withdraw(0.0) for _ in range(3)] == [True, True, False]
    budget.request()
    budget.request()
    assert budget.withdraw(0.0)
    assert not budget.withdraw(0.5)
    assert budget.withdraw(1.5)


def test_a_request_that_two_instances_died_under_is_refused_for_a_while() -> None:
    memory = PoisonMemory(refused_s=60)
    assert memory.empty
    assert not memory.died(1, "i-a", 0.0)
    assert not memory.refused(1, 0.0)
    assert memory.died(1, "i-b", 1.0)
    assert memory.refused(1, 60.9)
    assert not memory.refused(1, 61.0)


def test_two_notes_of_the_same_death_are_one() -> None:
    memory = PoisonMemory()
    assert not memory.died(1, "i-a", 0.0)
    assert not memory.died(1, "i-a", 0.1)


def test_an_answer_clears_a_bystander() -> None:
    memory = PoisonMemory()
    memory.died(1, "i-a", 0.0)
    memory.answered(1)
    assert not memory.died(1, "i-b", 1.0)


def test_the_memory_is_bounded_and_forgets() -> None:
    memory = PoisonMemory(most=10)
    for request in range(100):
        memory.died(request, "i-a", 0.0)
    assert memory.died(99, "i-b", 1.0)
    assert not memory.died(5, "i-b", 1.0)
    memory.forget(1_000.0)
    assert memory.empty


def test_a_slow_model_is_given_more_time_than_a_quick_one() -> None:
    assert silence_limit_s(1.0, 0.01, 500) == 1.0
    assert silence_limit_s(1.0, 30.0, 3) == 90.0
    assert silence_limit_s(1.0, 0.0, 0) == 5.0


@pytest.mark.parametrize(
    ("silent", "routed", "may"), [(1, 1, False), (1, 2, True), (2, 2, False), (1, 3, True), (2, 3, False), (2, 4, True)]
)
def test_the_last_that_answers_is_never_ejected_for_silence(silent: int, routed: int, may: bool) -> None:
    assert may_eject_silent(silent, routed) is may


def test_rendezvous_spreads_keys_evenly_and_moves_only_those_of_a_name_that_goes() -> None:
    names = [f"i-{n}" for n in range(5)]
    keys = [f"{n:032x}" for n in range(2_000)]
    first = {key: names[rendezvous(names, key)[0]] for key in keys}
    shares = Counter(first.values())
    assert all(300 < shares[name] < 500 for name in names), shares
    left = names[:4]
    for key, name in first.items():
        again = left[rendezvous(left, key)[0]]
        assert again == name or name == "i-4"
        if name == "i-4":
            assert again == names[rendezvous(names, key)[1]], "the next in its order"


def test_rendezvous_is_the_same_in_every_process_and_in_any_order_of_names() -> None:
    assert rendezvous(["i-a", "i-b", "i-c"], "0123") == [1, 0, 2]
    assert sorted(rendezvous(["i-a", "i-b", "i-c"], "0123")) == [0, 1, 2]
    forward = [["i-a", "i-b", "i-c"][n] for n in rendezvous(["i-a", "i-b", "i-c"], "k")]
    assert forward == [["i-c", "i-a", "i-b"][n] for n in rendezvous(["i-c", "i-a", "i-b"], "k")]


@pytest.mark.parametrize(("outstanding", "targets", "wide"), [(0, 3, 1), (3, 3, 1), (4, 3, 2), (8, 3, 3), (99, 3, 3)])
def test_a_model_is_worth_another_target_for_every_four_requests(outstanding: int, targets: int, wide: int) -> None:
    assert spread(outstanding, 4, targets) == wide

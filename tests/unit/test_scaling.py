"""Decisions of scaling: the published examples of target tracking and step scaling as tables, several policies at
once, bounds, suspensions, cool-downs; eyrie:Fast follows steps of load and never flaps.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from eyrie.decide.fast_scaling import Demand
from eyrie.decide.scaling import Observation, Signal, decide, schedule
from eyrie.decide.step_scaling import step_of
from eyrie.domain.scaling import (
    AdjustmentType,
    Bounds,
    Breach,
    Code,
    FastTracking,
    Policy,
    ScalingDecision,
    ScalingMemory,
    Schedule,
    ScheduledAction,
    Step,
    StepScaling,
    Suspended,
    TargetTracking,
)

NOW_MS = 1_800_000_000_000
BOUNDS = Bounds(1, 20)
SETTLED = ScalingMemory(bounds=(1, 20))
TRACKING = TargetTracking("track", target=50.0)
PERCENT, CHANGE, EXACT = AdjustmentType.PERCENT, AdjustmentType.CHANGE, AdjustmentType.EXACT


def asked(
    capacity: int,
    *pairs: tuple[Policy, Signal],
    bounds: Bounds = BOUNDS,
    memory: ScalingMemory = SETTLED,
    held: str | None = None,
    now_ms: int = NOW_MS,
) -> ScalingDecision:
    seen = Observation(capacity, {policy.name: signal for policy, signal in pairs}, held)
    return decide(bounds, [policy for policy, _ in pairs], seen, memory, now_ms)


def codes(decision: ScalingDecision) -> list[Code]:
    return [refused.code for refused in decision.not_scaled]


@pytest.mark.parametrize(
    ("capacity", "points", "wanted"),
    [
        (1, [150.0] * 3, 3),  # in proportion, in one jump
        (4, [51.0] * 3, 5),
        (2, [50.0] * 3, None),  # at the target is not above it
        (2, [90.0] * 2, None),  # three of three
        (2, [90.0, 40.0, 90.0], None),
        (2, [90.0, None, 90.0], None),  # missing is not above
        (2, [90.0, 90.0, 90.0, None], None),
        (10, [46.0] * 20, None),  # between 90 % and the target
        (10, [45.0] * 15, None),  # at 90 % is not below it
        (10, [44.9] * 15, 9),
        (10, [20.0] * 15, 4),
        (10, [20.0] * 14, None),  # fifteen of fifteen
        (10, [None] + [20.0] * 14, None),
        (10, [0.0] * 15, 1),
        (10, [20.0] * 13 + [40.0, 20.0], 8),  # never to where a recent point would be above the target
        (10, [], None),
        (15, [200.0] * 3, 20),  # the maximum
    ],
)
def test_target_tracking(capacity: int, points: list[float | None], wanted: int | None) -> None:
    assert asked(capacity, (TRACKING, points)).capacity == wanted


def test_a_decision_says_why() -> None:
    out = asked(1, (TRACKING, [150.0] * 3))
    assert (out.policy, out.alarm) == ("track", "High")
    assert out.why == "3 points of 60 s above 50, the newest 150: 1 x 150 / 50 = 3"
    low = asked(10, (TRACKING, [20.0] * 15))
    assert low.why == "15 points of 60 s below 45, 90 % of the target: 10 x 20 / 50 = 4"


def test_a_cool_down_out_counts_what_was_just_added() -> None:
    first = asked(1, (TRACKING, [150.0] * 3))
    assert first.memory is not None
    soon = NOW_MS + 60_000
    assert asked(3, (TRACKING, [150.0] * 3), memory=first.memory, now_ms=soon).capacity is None
    more = asked(3, (TRACKING, [250.0] * 3), memory=first.memory, now_ms=soon)
    assert more.capacity == 5  # the demand of 1 x 250, not of 3 x 250
    later = NOW_MS + 300_000
    assert asked(3, (TRACKING, [150.0] * 3), memory=first.memory, now_ms=later).capacity == 9


def test_a_cool_down_in_stops_reductions_only_and_ends_with_growth() -> None:
    first = asked(10, (TRACKING, [20.0] * 15))
    assert first.memory is not None
    soon = NOW_MS + 60_000
    assert asked(4, (TRACKING, [20.0] * 15), memory=first.memory, now_ms=soon).capacity is None
    grown = asked(4, (TRACKING, [100.0] * 3), memory=first.memory, now_ms=soon)
    assert grown.capacity == 8
    assert grown.memory is not None
    assert asked(8, (TRACKING, [20.0] * 15), memory=grown.memory, now_ms=soon + 1).capacity == 4
    later = NOW_MS + 300_000
    assert asked(4, (TRACKING, [20.0] * 15), memory=first.memory, now_ms=later).capacity == 2


def test_scale_in_may_be_disabled() -> None:
    only_out = TargetTracking("track", 50.0, scale_in=False)
    assert asked(10, (only_out, [0.0] * 15)).capacity is None
    assert asked(10, (only_out, [100.0] * 3)).capacity == 20


def test_high_resolution_points_of_ten_seconds() -> None:
    fine = TargetTracking("fine", 5.0, period_ms=10_000, high_points=3, low_points=90)
    assert asked(2, (fine, [10.0] * 3)).capacity == 4
    assert asked(4, (fine, [1.0] * 89)).capacity is None
    assert asked(4, (fine, [1.0] * 90)).capacity == 1


# The step adjustments of AWS's own guide: +10 % from 60, +30 % from 70, -10 % and -30 % below 40 and 30, threshold 50.
OUT_STEPS = (Step(0.0, 10.0, 0), Step(10.0, 20.0, 10), Step(20.0, None, 30))
IN_STEPS = (Step(-10.0, 0.0, 0), Step(-20.0, -10.0, -10), Step(None, -20.0, -30))


@pytest.mark.parametrize(
    ("metric", "adjustment"),
    [(50, 0), (59.9, 0), (60, 10), (69.9, 10), (70, 30), (1e9, 30), (40.1, 0), (40, -10), (30.1, -10), (30, -30)],
)
def test_bounds_of_steps(metric: float, adjustment: int) -> None:
    step = step_of(OUT_STEPS + IN_STEPS, metric - 50)
    assert step is not None
    assert step.adjustment == adjustment


def test_no_step_between_intervals() -> None:
    assert step_of((Step(10.0, None, 1),), 9.99) is None
    assert asked(3, (StepScaling("s", CHANGE, (Step(10.0, None, 1),)), Breach("a", 5.0, 0.0))) == ScalingDecision()


@pytest.mark.parametrize(
    ("how", "adjustment", "magnitude", "capacity", "wanted"),
    [
        (CHANGE, 3, 0, 3, 6),
        (CHANGE, -3, 0, 5, 2),
        (CHANGE, -9, 0, 5, 1),  # the minimum
        (CHANGE, 90, 0, 5, 20),  # the maximum
        (EXACT, 3, 0, 5, 3),
        (EXACT, 8, 0, 5, 8),
        (PERCENT, 10, 0, 10, 11),
        (PERCENT, 30, 0, 11, 14),  # 3.3
        (PERCENT, -10, 0, 10, 9),
        (PERCENT, -30, 0, 9, 7),  # 2.7 towards zero
        (PERCENT, 25, 0, 3, 4),  # 0.75 is one
        (PERCENT, -25, 0, 3, 2),
        (PERCENT, 25, 2, 4, 6),  # 1, but a magnitude of 2
        (PERCENT, -25, 2, 4, 2),
        (PERCENT, 100, 2, 4, 8),
        (CHANGE, 1, 5, 4, 5),  # a magnitude is for percentages
    ],
)
def test_adjustments(how: AdjustmentType, adjustment: int, magnitude: int, capacity: int, wanted: int) -> None:
    policy = StepScaling("step", how, (Step(None, None, adjustment),), magnitude=magnitude)
    assert asked(capacity, (policy, Breach("cpu", 70.0, 60.0))).capacity == wanted


def test_a_larger_step_within_the_cool_down_adds_the_difference() -> None:
    policy = StepScaling("step", CHANGE, (Step(0.0, 10.0, 2), Step(10.0, None, 3)))
    first = asked(5, (policy, Breach("cpu", 65.0, 60.0)))
    assert (first.capacity, first.alarm) == (7, "cpu")
    assert first.why == "65 is +5 from 60: ChangeInCapacity +2 of 5 = 7"
    assert first.memory is not None
    soon = NOW_MS + 60_000
    assert asked(7, (policy, Breach("cpu", 65.0, 60.0)), memory=first.memory, now_ms=soon).capacity is None
    assert asked(7, (policy, Breach("cpu", 75.0, 60.0)), memory=first.memory, now_ms=soon).capacity == 8
    later = NOW_MS + 300_000
    assert asked(7, (policy, Breach("cpu", 65.0, 60.0)), memory=first.memory, now_ms=later).capacity == 9


def test_several_policies_the_largest_wins() -> None:
    other = TargetTracking("other", 10.0)
    assert asked(2, (TRACKING, [100.0] * 3), (other, [30.0] * 3)).capacity == 6
    assert asked(10, (TRACKING, [10.0] * 15), (other, [5.0] * 15)).capacity == 5
    assert asked(10, (TRACKING, [10.0] * 15), (other, [9.5] * 15)).capacity is None  # not ready to scale in
    assert asked(10, (TRACKING, [10.0] * 15), (other, [None] * 15)).capacity is None  # nor is one that knows nothing
    never = TargetTracking("other", 10.0, scale_in=False)
    assert asked(10, (TRACKING, [10.0] * 15), (never, [8.5] * 15)).capacity == 9  # it has no say, but is not exceeded
    assert asked(10, (TRACKING, [10.0] * 15), (other, [20.0] * 3)).capacity == 20  # never both


def test_a_step_down_stops_where_a_target_would_be_exceeded() -> None:
    step = StepScaling("step", CHANGE, (Step(None, 0.0, -4),))
    low = Breach("idle", 10.0, 30.0)
    assert asked(10, (TRACKING, [35.0] * 3), (step, low)).capacity == 7
    kept = asked(10, (TRACKING, [49.0] * 3), (step, low))
    assert (kept.capacity, codes(kept)) == (None, [Code.FLAPPING])


def test_why_nothing_was_scaled() -> None:
    assert codes(asked(20, (TRACKING, [99.0] * 3))) == [Code.AT_MAX]
    step = StepScaling("step", CHANGE, (Step(None, None, -1),))
    assert codes(asked(1, (step, Breach("idle", 1.0, 5.0)))) == [Code.AT_MIN]
    assert codes(asked(2, (TRACKING, [44.0] * 15))) == [Code.AT_DESIRED]
    held = asked(2, (TRACKING, [99.0] * 3), held="the endpoint is Updating")
    assert (codes(held), held.capacity, held.memory) == ([Code.UNSCALABLE], None, None)
    assert held.not_scaled[0].why == "the endpoint is Updating"


def test_suspended() -> None:
    quiet = Bounds(1, 20, Suspended(scale_out=True))
    assert asked(2, (TRACKING, [99.0] * 3), bounds=quiet).capacity is None
    assert asked(9, (TRACKING, [1.0] * 15), bounds=quiet).capacity == 1
    quiet = Bounds(1, 20, Suspended(scale_in=True))
    assert asked(2, (TRACKING, [99.0] * 3), bounds=quiet).capacity == 4
    assert asked(9, (TRACKING, [1.0] * 15), bounds=quiet).capacity is None


def test_new_bounds_act_at_once_and_once() -> None:
    raised = asked(2, bounds=Bounds(4, 9))
    assert (raised.capacity, raised.why) == (4, "minimum capacity was set to 4")
    lowered = asked(12, bounds=Bounds(4, 9))
    assert (lowered.capacity, lowered.why) == (9, "maximum capacity was set to 9")
    inside = asked(5, bounds=Bounds(4, 9))
    assert (inside.capacity, inside.memory) == (None, ScalingMemory(bounds=(4, 9)))
    assert asked(2, bounds=Bounds(4, 9), memory=ScalingMemory(bounds=(4, 9))) == ScalingDecision()  # by hand: left
    assert asked(2, bounds=Bounds(4, 9), held="busy") == ScalingDecision()  # later
    assert asked(3, bounds=Bounds(0, 0)).capacity == 1  # a variant that serves has an instance


def test_scheduled_bounds() -> None:
    night = ScheduledAction("night", Schedule("cron(0 20 * * ? *)"), lowest=None, highest=4)
    assert schedule(Bounds(2, 9), night) == Bounds(2, 4)
    assert schedule(Bounds(5, 9), night) is None
    both = ScheduledAction("day", Schedule("cron(0 8 * * ? *)"), lowest=10, highest=30)
    assert schedule(Bounds(1, 4), both) == Bounds(10, 30)


# --- eyrie:Fast -----------------------------------------------------------------------------------------------------

FAST = FastTracking("fast", target=20.0)


class Fleet:
    """A variant under a fast policy, a second at a time; instances are there at once."""

    def __init__(self, policy: FastTracking = FAST, capacity: int = 1) -> None:
        self.policy, self.capacity = policy, capacity
        self.memory = SETTLED
        self.demand = Demand(policy.stable_s, policy.panic_s)
        self.second = 0
        self.changes: list[tuple[int, int]] = []

    def load(self, *rates: float) -> None:
        for rate in rates:
            self.second += 1
            self.demand.add(rate, rate)
            now_ms = NOW_MS + self.second * 1000
            made = asked(self.capacity, (self.policy, self.demand), memory=self.memory, now_ms=now_ms)
            self.memory = made.memory or self.memory
            if made.capacity is not None:
                self.capacity = made.capacity
                self.changes.append((self.second, made.capacity))


def poisson(mean: float, chance: random.Random) -> float:
    return max(round(chance.gauss(mean, mean**0.5)), 0) if mean > 0 else 0


def test_fast_answers_a_step_within_two_seconds() -> None:
    fleet = Fleet()
    fleet.load(*[15.0] * 70)
    assert fleet.changes == []
    fleet.load(45.0, 45.0)
    assert fleet.changes == [(71, 3)]  # half of the window is from before the step
    fleet.load(*[45.0] * 200)
    assert len(fleet.changes) == 1
    fleet.load(150.0, 150.0)
    assert fleet.capacity == 8


def test_fast_shrinks_a_long_window_after_the_load_has_gone() -> None:
    fleet = Fleet(capacity=6)
    fleet.load(*[110.0] * 100)
    fleet.load(*[10.0] * 59)
    assert fleet.changes == []
    fleet.load(*[10.0] * 120)
    assert [capacity for _, capacity in fleet.changes] == [4, 2]
    fleet.load(*[0.0] * 120)
    assert fleet.capacity == 1


def test_fast_knows_nothing_after_a_gap() -> None:
    fleet = Fleet(capacity=6)
    fleet.load(*[110.0] * 100)
    fleet.demand.forget()
    fleet.load(*[0.0] * 59)
    assert fleet.changes == []  # a long window must be known
    fleet.load(0.0)
    assert fleet.changes == [(160, 3)]
    fleet.demand.forget()
    fleet.load(90.0, 90.0)
    assert fleet.capacity == 5  # growth needs only a short window


def test_fast_does_not_grow_by_chance_alone() -> None:
    fleet = Fleet(FastTracking("fast", target=10.0), capacity=2)
    chance = random.Random(4)
    fleet.load(*(poisson(16.0, chance) for _ in range(600)))
    assert fleet.changes == []


def test_fast_follows_a_slow_rise_by_its_long_window() -> None:
    fleet = Fleet(FastTracking("fast", target=10.0), capacity=1)
    chance = random.Random(5)
    fleet.load(*(poisson(12.0, chance) for _ in range(120)))
    assert fleet.capacity == 2


def test_fast_holds_its_cool_downs_and_may_be_kept_from_shrinking() -> None:
    slow = Fleet(FastTracking("fast", target=20.0, out_cooldown_ms=30_000))
    slow.load(*[40.0] * 2, *[200.0] * 29)
    assert slow.capacity == 2
    slow.load(200.0)
    assert slow.capacity == 10
    kept = Fleet(FastTracking("fast", target=20.0, scale_in=False), capacity=5)
    kept.load(*[0.0] * 300)
    assert kept.changes == []


@example(seed=1, rates=[95.0], target=10.0)
@settings(max_examples=30)
@given(
    seed=some.integers(0, 10_000),
    rates=some.lists(some.floats(0, 400), min_size=1, max_size=4),
    target=some.floats(5, 50),
)
def test_fast_never_flaps(seed: int, rates: list[float], target: float) -> None:
    """Under a steady load it turns round once at the most, when chance had it grow too far; and nothing shrinks for a
    long window after any change.
    """
    fleet = Fleet(FastTracking("fast", target=target), capacity=1)
    chance = random.Random(seed)
    for rate in rates:
        fleet.load(*(poisson(rate, chance) for _ in range(100)))
        settled = len(fleet.changes)
        fleet.load(*(poisson(rate, chance) for _ in range(300)))
        before = fleet.changes[settled - 1][1] if settled else 1
        steps = [capacity for _, capacity in fleet.changes[settled:]]
        ups = [b > a for a, b in zip([before, *steps], steps, strict=False)]
        assert sum(a != b for a, b in pairwise(ups)) <= 1, (rate, before, steps)
        assert 1 <= fleet.capacity <= 20
    for (earlier, was), (later, now) in pairwise(fleet.changes):
        if now < was:
            assert later - earlier >= 60

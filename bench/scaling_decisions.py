"""Scaling decisions a second, on one core: what `decide/scaling` takes for a day of many variants.

    python bench/scaling_decisions.py [--rounds 3] [--seconds 2]

Each decision is a whole call of `decide`, with its observation made anew. The variants follow a day's curve of load
with noise, each at its own hour, and their capacities follow the decisions; so most decisions find that nothing is to
be done, as in a real day, and all kinds occur. Half of them track a target on one-minute points, a quarter has a step
policy besides, a quarter is eyrie:Fast, a second a decision.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable

import frame
from eyrie.decide.fast_scaling import Demand
from eyrie.decide.scaling import Observation, decide
from eyrie.domain.scaling import (
    AdjustmentType,
    Bounds,
    Breach,
    FastTracking,
    Policy,
    ScalingMemory,
    Step,
    StepScaling,
    TargetTracking,
)

GOAL = 200_000.0
BOUNDS = Bounds(1, 40)
TARGET = 1_000.0  # requests a minute an instance
TRACK = TargetTracking("track", TARGET)
STEPS = StepScaling("steps", AdjustmentType.PERCENT, (Step(0.0, 200.0, 10), Step(200.0, None, 30)))
FAST = FastTracking("fast", TARGET / 60)
NOISE = [random.Random(7).gauss(1.0, 0.05) for _ in range(4_099)]


class Variant:
    """One variant's day: a minute (or a second) a turn."""

    def __init__(self, number: int) -> None:
        self.kind = number % 4
        self.policies: tuple[Policy, ...] = ((TRACK,), (TRACK,), (TRACK, STEPS), (FAST,))[self.kind]
        self.capacity, self.memory = 4, ScalingMemory(bounds=(BOUNDS.lowest, BOUNDS.highest))
        self.points: list[float | None] = []
        self.demand = Demand(FAST.stable_s, FAST.panic_s)
        self.turn = number * 97
        self.now_ms = 1_800_000_000_000

    def load(self, period: int) -> float:
        """Requests a minute: between 2,000 and 18,000 over a day."""
        self.turn += 1
        curve = 10_000 + 8_000 * math.sin(2 * math.pi * self.turn / period)
        return curve * NOISE[self.turn % len(NOISE)]

    def observed(self) -> Observation:
        """What is seen next."""
        if self.kind == 3:
            self.now_ms += 1000
            rate = self.load(86_400) / 60
            self.demand.add(rate, rate)
            return Observation(self.capacity, {"fast": self.demand})
        self.now_ms += 60_000
        value = self.load(1_440) / self.capacity
        self.points.append(value)
        del self.points[:-15]
        if self.kind == 2 and value > TARGET * 1.3:
            return Observation(self.capacity, {"track": self.points, "steps": Breach("a", value, TARGET * 1.3)})
        return Observation(self.capacity, {"track": self.points})

    def decide(self) -> bool:
        """Decide once; whether the capacity changed."""
        made = decide(BOUNDS, self.policies, self.observed(), self.memory, self.now_ms)
        if made.memory is not None:
            self.memory = made.memory
        if made.capacity is None:
            return False
        self.capacity = made.capacity
        return True


def measured(turn: Callable[[Variant], object], variants: list[Variant], seconds: float) -> tuple[int, float]:
    """How many turns, and their CPU seconds."""
    count, began = 0, time.process_time()
    while (took_s := time.process_time() - began) < seconds:
        for variant in variants:
            turn(variant)
        count += len(variants)
    return count, took_s


def main() -> int:
    options = frame.arguments(__doc__)
    chosen = options.parse_args()
    rates, changed = [], 0.0
    for _ in range(chosen.rounds):
        variants = [Variant(number) for number in range(200)]
        for _ in range(100):
            for variant in variants:
                variant.decide()
        looks, looks_s = measured(Variant.observed, variants, chosen.seconds / 2)
        changes = 0

        def turn(variant: Variant) -> None:
            nonlocal changes
            changes += variant.decide()

        count, took_s = measured(turn, variants, chosen.seconds)
        deciding_s = took_s - count * looks_s / looks  # the load itself is not a decision
        rates.append(count / deciding_s)
        changed = changes / count
        print(f"{rates[-1]:,.0f} decisions a second, {changed:.2%} of them change something", flush=True)
    goal = [GOAL] * len(rates)
    detail = f"{statistics.median(rates):,.0f} decisions a second a core; {GOAL:,.0f} are asked for"
    return frame.finish([frame.Ratio.of("scaling decisions", rates, goal, 1.0, detail=detail)], chosen.report)


if __name__ == "__main__":
    sys.exit(main())

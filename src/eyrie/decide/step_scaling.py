"""Step scaling: by how far an alarm's metric is beyond its threshold, as AWS rounds and bounds it."""

from __future__ import annotations

from math import inf

from eyrie.decide.wish import Wish
from eyrie.domain.scaling import AdjustmentType, Breach, ScalingMemory, Step, StepScaling


def step_of(steps: tuple[Step, ...], difference: float) -> Step | None:
    """The step for a distance from the threshold. From the threshold upwards a lower bound belongs to its interval, an
    upper one does not; below it is the other way round.
    """
    for step in steps:
        lower = -inf if step.lower is None else step.lower
        upper = inf if step.upper is None else step.upper
        if upper > 0 and lower >= 0:
            if lower <= difference < upper:
                return step
        elif lower < difference <= upper:
            return step
    return None


def adjusted(policy: StepScaling, adjustment: int, capacity: int) -> int:
    """The capacity after an adjustment. A percentage is rounded towards zero, but to one at least."""
    if policy.adjustment is AdjustmentType.EXACT:
        return adjustment
    if policy.adjustment is AdjustmentType.CHANGE:
        return capacity + adjustment
    exact = capacity * adjustment / 100
    if exact == 0:
        return capacity
    size = max(int(abs(exact)), 1, policy.magnitude)
    return capacity + (size if exact > 0 else -size)


def step_wish(policy: StepScaling, breach: Breach, capacity: int, memory: ScalingMemory, now_ms: int) -> Wish | None:
    """What the policy asks for; None: no step is meant, or it waits."""
    difference = breach.value - breach.threshold
    step = step_of(policy.steps, difference)
    if step is None:
        return None
    cooling = now_ms - memory.out_ms < policy.cooldown_ms
    base = memory.out_base if cooling and memory.out_base else capacity
    wanted = adjusted(policy, step.adjustment, base)
    if wanted <= capacity and base != capacity:
        base, wanted = capacity, adjusted(policy, step.adjustment, capacity)
        if wanted >= capacity:
            return None  # in the cool-down, and what was added is part of this step
    if wanted < capacity and now_ms - memory.in_ms < policy.cooldown_ms:
        return None
    wanted = max(wanted, 0)

    def why() -> str:
        how = f"{policy.adjustment} {step.adjustment:+d} of {base}"
        return f"{breach.value:g} is {difference:+g} from {breach.threshold:g}: {how} = {wanted}"

    return Wish(policy.name, wanted, base, breach.alarm, why, tracks=False)

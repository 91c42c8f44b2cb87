"""How many instances a variant is to have: pure, the clock an argument, the same code in control and the simulator.

`decide` asks every policy for its wish and makes one decision of them: it grows where any asks for it, to the largest
wish; it shrinks only where every policy that tracks a target agrees, again to the largest. What a policy wishes is in
decide/target_tracking, decide/step_scaling and decide/fast_scaling; `schedule` is for scheduled actions. Bounds come
last, cool-downs are each policy's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from eyrie.decide.fast_scaling import Demand, fast_wish
from eyrie.decide.step_scaling import step_wish
from eyrie.decide.target_tracking import tracking_wish
from eyrie.decide.wish import Wish
from eyrie.domain.scaling import (
    Bounds,
    Breach,
    Code,
    FastTracking,
    NotScaled,
    Points,
    Policy,
    ScalingDecision,
    ScalingMemory,
    ScheduledAction,
    StepScaling,
    TargetTracking,
)

Signal = Points | Breach | Demand
NOTHING = ScalingDecision()
AS_IT_IS = "the capacity is what the policy asks for"  # said often: no numbers are made into words for it


@dataclass(slots=True)
class Observation:
    """What a decision rests on; made for it, and never changed."""

    capacity: int  # the desired count as it is now
    signals: Mapping[str, Signal]  # by policy: points for a tracked target, a breach for steps, demand for a fast one
    held: str | None = None  # why the capacity cannot be changed now: the endpoint is being updated
    least: int = 1  # the fewest instances there may be, whatever the bounds and the policies say


def decide(
    bounds: Bounds, policies: Sequence[Policy], seen: Observation, memory: ScalingMemory, now_ms: int
) -> ScalingDecision:
    """What becomes of the capacity now."""
    enforced = memory.bounds
    if enforced is None or enforced[0] != bounds.lowest or enforced[1] != bounds.highest:
        return _enforce(bounds, seen, memory)
    capacity, signals = seen.capacity, seen.signals
    growth: Wish | None = None
    reduction: Wish | None = None
    refused: tuple[NotScaled, ...] = ()
    content = False  # a policy that tracks a target and is not ready to scale in
    for policy in policies:
        signal, kind = signals.get(policy.name), type(policy)
        if signal is None:
            wish = None
        elif kind is TargetTracking:
            wish = tracking_wish(policy, signal, capacity, memory, now_ms, seen.least)  # type: ignore[arg-type]
        elif kind is FastTracking:
            wish = fast_wish(policy, signal, capacity, memory, now_ms)  # type: ignore[arg-type]
        else:
            wish = step_wish(policy, signal, capacity, memory, now_ms)  # type: ignore[arg-type]
        if wish is None:
            content = content or (kind is not StepScaling and policy.scale_in)  # type: ignore[union-attr]
        elif wish.capacity > capacity:
            if growth is None or wish.capacity > growth.capacity:
                growth = wish
        elif wish.capacity < capacity:
            if reduction is None or wish.capacity > reduction.capacity:
                reduction = wish
        else:
            content = True
            refused += (NotScaled(Code.AT_DESIRED, wish.policy, wish.alarm, AS_IT_IS, capacity),)
    if growth is not None:
        return _grow(growth, bounds, seen, memory, now_ms, refused)
    if reduction is not None:
        return _shrink(reduction, bounds, policies, seen, memory, now_ms, refused, content)
    return NOTHING if not refused else ScalingDecision(not_scaled=refused)


def schedule(bounds: Bounds, action: ScheduledAction) -> Bounds | None:
    """The bounds after a scheduled action; None where its lower one would be above the other."""
    lowest = bounds.lowest if action.lowest is None else action.lowest
    highest = bounds.highest if action.highest is None else action.highest
    return replace(bounds, lowest=lowest, highest=highest) if lowest <= highest else None


def _enforce(bounds: Bounds, seen: Observation, memory: ScalingMemory) -> ScalingDecision:
    """New bounds act at once, whatever is suspended, but not while the endpoint is being updated."""
    if seen.held is not None:
        return NOTHING
    kept = replace(memory, bounds=(bounds.lowest, bounds.highest))
    wanted = bounds.held(seen.capacity, seen.least)
    if wanted == seen.capacity:
        return ScalingDecision(memory=kept)
    which = f"minimum capacity was set to {bounds.lowest}"
    if wanted < seen.capacity:
        which = f"maximum capacity was set to {bounds.highest}"
    return ScalingDecision(wanted, why=which, memory=kept)


def _grow(
    wish: Wish,
    bounds: Bounds,
    seen: Observation,
    memory: ScalingMemory,
    now_ms: int,
    refused: tuple[NotScaled, ...],
) -> ScalingDecision:
    if bounds.suspended.scale_out:
        return ScalingDecision(not_scaled=refused)
    capacity, wanted = seen.capacity, bounds.held(wish.capacity, seen.least)
    if wanted <= capacity:
        return ScalingDecision(not_scaled=(*refused, _not(Code.AT_MAX, wish, capacity)))
    if seen.held is not None:
        return ScalingDecision(not_scaled=(*refused, _not(Code.UNSCALABLE, wish, capacity, seen.held)))
    kept = replace(memory, out_ms=now_ms, out_base=wish.base, in_ms=ScalingMemory().in_ms)
    return ScalingDecision(wanted, wish.policy, wish.alarm, wish.why(), kept, refused)


def _shrink(
    wish: Wish,
    bounds: Bounds,
    policies: Sequence[Policy],
    seen: Observation,
    memory: ScalingMemory,
    now_ms: int,
    refused: tuple[NotScaled, ...],
    content: bool,
) -> ScalingDecision:
    if bounds.suspended.scale_in or (wish.tracks and content):
        return ScalingDecision(not_scaled=refused)
    capacity, wanted = seen.capacity, bounds.held(wish.capacity, seen.least)
    if wanted >= capacity:
        return ScalingDecision(not_scaled=(*refused, _not(Code.AT_MIN, wish, capacity)))
    spared = _smallest_safe(wanted, policies, seen)
    if spared >= capacity:
        why = f"with {wanted} instances a target would be exceeded"
        return ScalingDecision(not_scaled=(*refused, _not(Code.FLAPPING, wish, capacity, why)))
    if seen.held is not None:
        return ScalingDecision(not_scaled=(*refused, _not(Code.UNSCALABLE, wish, capacity, seen.held)))
    kept = replace(memory, in_ms=now_ms)
    return ScalingDecision(spared, wish.policy, wish.alarm, wish.why(), kept, refused)


def _smallest_safe(wanted: int, policies: Sequence[Policy], seen: Observation) -> int:
    """The least capacity, from `wanted` on, at which no tracked target would be exceeded by what is measured now."""
    for policy in policies:
        signal = seen.signals.get(policy.name)
        load = 0.0
        if type(policy) is TargetTracking and signal and signal[-1] is not None:  # type: ignore[index]
            load = signal[-1] * seen.capacity / policy.target  # type: ignore[index]
        elif type(policy) is FastTracking and signal is not None:
            load = signal.peak / policy.target  # type: ignore[union-attr]
        wanted = max(wanted, min(ceil(load - 1e-9), seen.capacity))
    return wanted


def _not(code: Code, wish: Wish, capacity: int, why: str = "") -> NotScaled:
    return NotScaled(code, wish.policy, wish.alarm, why or wish.why(), capacity)

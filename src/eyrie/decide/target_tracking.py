"""Target tracking as AWS does it: on the points of complete periods, in proportion to the metric.

Three points in a row above the target scale out at once to what the newest asks for; fifteen in a row below nine tenths
of it scale in, never to where the highest of the newest three would be above the target. A point that is missing
speaks for neither.
"""

from __future__ import annotations

from math import ceil

from eyrie.decide.wish import Wish
from eyrie.domain.scaling import Points, ScalingMemory, TargetTracking

LOW = 0.9  # of the target: below it is room for fewer
_HAIR = 1e-9  # what a float may be off


def breached(policy: TargetTracking, points: Points) -> str:
    """ "High" or "Low" where so many points in a row are beyond the threshold, else empty: the state of its alarms."""
    newest = points[-1] if points else None
    if newest is None:
        return ""
    if newest > policy.target:
        return "High" if _above(policy, points) else ""
    return "Low" if newest < policy.target * LOW and _below(policy, points) else ""


def _above(policy: TargetTracking, points: Points) -> bool:
    tail = points[-policy.high_points :]
    return len(tail) == policy.high_points and None not in tail and min(tail) > policy.target  # type: ignore[type-var,operator]


def _below(policy: TargetTracking, points: Points) -> bool:
    tail = points[-policy.low_points :]
    return len(tail) == policy.low_points and None not in tail and max(tail) < policy.target * LOW  # type: ignore[type-var,operator]


def tracking_wish(
    policy: TargetTracking, points: Points, capacity: int, memory: ScalingMemory, now_ms: int, least: int = 1
) -> Wish | None:
    """What the policy asks for; None: it is content, or waits. `least`: never fewer instances than these."""
    newest = points[-1] if points else None
    if newest is None:
        return None
    target = policy.target
    if newest > target:
        return _out(policy, points, newest, capacity, memory, now_ms) if _above(policy, points) else None
    if newest >= target * LOW or not policy.scale_in or now_ms - memory.in_ms < policy.in_cooldown_ms:
        return None
    if not _below(policy, points):
        return None
    highest = max(p for p in points[-policy.high_points :] if p is not None)
    wanted = max(ceil(capacity * highest / target - _HAIR), least)
    return Wish(policy.name, wanted, capacity, "Low", lambda: _why_in(policy, highest, capacity, wanted))


def _out(
    policy: TargetTracking, points: Points, newest: float, capacity: int, memory: ScalingMemory, now_ms: int
) -> Wish | None:
    base = capacity if now_ms - memory.out_ms >= policy.out_cooldown_ms else memory.out_base
    wanted = ceil(base * newest / policy.target - _HAIR)
    if wanted <= capacity and base != capacity:
        return None  # in the cool-down, and what was added is enough
    return Wish(policy.name, wanted, base, "High", lambda: _why_out(policy, newest, base, wanted))


def _why_out(policy: TargetTracking, newest: float, base: int, wanted: int) -> str:
    periods = f"{policy.high_points} points of {policy.period_ms // 1000} s"
    return (
        f"{periods} above {policy.target:g}, the newest {newest:g}: {base} x {newest:g} / {policy.target:g} = {wanted}"
    )


def _why_in(policy: TargetTracking, highest: float, capacity: int, wanted: int) -> str:
    periods = f"{policy.low_points} points of {policy.period_ms // 1000} s"
    share = f"{capacity} x {highest:g} / {policy.target:g} = {wanted}"
    return f"{periods} below {policy.target * LOW:g}, 90 % of the target: {share}"

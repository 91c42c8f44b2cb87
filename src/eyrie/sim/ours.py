"""Eyrie's own policies in the wind tunnel: decide/scaling, fed from the meter as control feeds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from eyrie.decide.fast_scaling import Demand
from eyrie.decide.scaling import Observation, Signal, decide
from eyrie.domain.scaling import (
    MINUTE_MS,
    Bounds,
    FastTracking,
    Measure,
    Points,
    Policy,
    ScalingMemory,
    TargetTracking,
)
from eyrie.sim.meter import Meter
from eyrie.sim.policy import Sight, Wish

Source = Callable[[Meter, int], "Points | None"]


class Ours:
    """Policies of one scalable target. Those on points decide when a period ends, fast ones each second."""

    def __init__(self, name: str, policies: Sequence[Policy], sources: Mapping[str, Source] | None = None) -> None:
        self.name = name
        self.waits = True
        self._policies = tuple(policies)
        self._sources = sources or {}
        self._memory = ScalingMemory()
        self._demands = {p.name: Demand(p.stable_s, p.panic_s) for p in policies if isinstance(p, FastTracking)}
        self._fast_only = len(self._demands) == len(self._policies)

    def look(self, now_ms: int, sight: Sight) -> Wish | None:
        """Called at the end of each second."""
        signals: dict[str, Signal] = {}
        for policy in self._policies:
            signal = self._signal(policy, now_ms, sight.meter)
            if signal is not None:
                signals[policy.name] = signal
        if not signals and self._memory.bounds is not None:
            return None
        held = "the endpoint is being updated" if sight.changing else None
        seen = Observation(sight.desired, signals, held)
        bounds = Bounds(sight.minimum, sight.maximum)
        decision = decide(bounds, self._policies, seen, self._memory, now_ms)
        if decision.memory is not None:
            self._memory = decision.memory
        return None if decision.capacity is None else Wish(decision.capacity, decision.why)

    def _signal(self, policy: Policy, now_ms: int, meter: Meter) -> Signal | None:
        if isinstance(policy, FastTracking):
            return self._demand(policy, now_ms, meter)
        if now_ms % MINUTE_MS:
            return None
        source = self._sources.get(policy.name, invocations_per_instance)
        return source(meter, now_ms) if isinstance(policy, TargetTracking) else None

    def _demand(self, policy: FastTracking, now_ms: int, meter: Meter) -> Demand:
        demand = self._demands[policy.name]
        seen = meter.last(1, now_ms)
        if not seen:
            demand.forget()
        elif policy.measure is Measure.CONCURRENCY:
            demand.add(seen[-1].in_flight, seen[-1].answered)
        else:
            demand.add(seen[-1].answered, seen[-1].answered)
        return demand


def invocations_per_instance(meter: Meter, now_ms: int) -> Points:
    """SageMakerVariantInvocationsPerInstance: the sum of each of the last 15 minutes, None for a silent one."""
    minutes: dict[int, list[float]] = {}
    for second in meter.last(15 * 60, now_ms):
        minutes.setdefault((second.at_ms - now_ms) // MINUTE_MS, []).append(second.arrived / max(1, second.routed))
    totals = [sum(minutes.get(n, ())) for n in range(-15, 0)]
    return tuple(total if total > 0 else None for total in totals)

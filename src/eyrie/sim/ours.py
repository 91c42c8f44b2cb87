"""Eyrie's own policies in the wind tunnel: decide/scaling on what control's own sight (control/scaling_watch) makes of
the simulated metrics, at the times and with the memory of control/scaler.
"""

from __future__ import annotations

from dataclasses import replace

from eyrie.adapters.schedules import following
from eyrie.control.alarm_data import Bands, read_range, step_ms
from eyrie.control.scaling_policies import policy_of
from eyrie.control.scaling_watch import DemandSight, PointSight
from eyrie.decide.alarm_bands import Training
from eyrie.decide.alarms import evaluate
from eyrie.decide.scaling import Observation, Signal, decide, schedule
from eyrie.domain.alarms import AlarmState, MetricRule
from eyrie.domain.scaling import (
    Bounds,
    Breach,
    Code,
    FastTracking,
    Points,
    ScalingMemory,
    ScheduledAction,
    TargetKey,
    TargetTracking,
)
from eyrie.sim.meter import Meter
from eyrie.sim.policy import Sight, Wish
from eyrie.sim.policy_file import ScalingSetup

KEY = TargetKey("123456789012", "us-east-1", "simulated", "AllTraffic")


class Ours:
    """The policies of one scalable target. Those on points decide when a period ends, fast ones each second."""

    waits = True  # for an earlier change: the endpoint is being updated

    def __init__(self, setup: ScalingSetup, idle_is_zero: bool = True) -> None:
        self.name = setup.name
        self.setup = setup
        self.policies = tuple(policy_of(record) for record in setup.records)
        self.memory = ScalingMemory()
        self._idle_is_zero = idle_is_zero
        self._bounds = setup.bounds
        self._senses: _Senses | None = None
        self._again = True
        self._scaled_ms: int | None = None  # a change is under way since then
        self._next: list[tuple[int, ScheduledAction]] | None = None

    def look(self, now_ms: int, sight: Sight) -> Wish | None:
        """Called at the end of each second."""
        if self._senses is None:
            self._senses = _Senses(self.setup, sight.meter, self._idle_is_zero, now_ms)
        senses = self._senses
        bounds = self._scheduled(self._bounds or Bounds(sight.minimum, sight.maximum), now_ms)
        senses.look(now_ms, sight.desired)
        if self._scaled_ms is not None and not sight.changing:
            self._ended(now_ms)
        if not (self._again or senses.due(now_ms)):
            return None
        held = "the endpoint is Updating" if sight.changing and not (senses.fast and sight.growing) else None
        signals = {p.name: s for p in self.policies if (s := senses.signal(p, now_ms)) is not None}
        made = decide(bounds, self.policies, Observation(sight.desired, signals, held), self.memory, now_ms)
        refused = any(n.code is Code.UNSCALABLE for n in made.not_scaled)
        self._again = held is not None and (refused or self.memory.bounds != (bounds.lowest, bounds.highest))
        if not self._again:
            senses.breaches.clear()
        if made.memory is not None:
            self.memory = made.memory
        if made.capacity is None:
            return None
        self._scaled_ms = now_ms
        return Wish(made.capacity, made.why)

    def _ended(self, now_ms: int) -> None:
        """A cool-down counts from the end of its change."""
        memory, began_ms = self.memory, self._scaled_ms
        if memory.out_ms == began_ms:
            memory = replace(memory, out_ms=now_ms)
        if memory.in_ms == began_ms:
            memory = replace(memory, in_ms=now_ms)
        self.memory, self._scaled_ms = memory, None

    def _scheduled(self, bounds: Bounds, now_ms: int) -> Bounds:
        """The bounds after what is planned for now."""
        if self._next is None:
            self._next = [pair for a in self.setup.scheduled for pair in _following(a, now_ms - 1000, now_ms)]
        due = [pair for pair in self._next if pair[0] <= now_ms]
        for pair in sorted(due, key=lambda p: p[0]):
            self._next.remove(pair)
            self._next += _following(pair[1], pair[0], now_ms)
            if not bounds.suspended.scheduled:
                bounds = schedule(bounds, pair[1]) or bounds
                self._bounds, self._again = bounds, True
        return bounds


class _Senses:
    """What the policies can know: points of periods, the demand of seconds, alarms of step policies."""

    def __init__(self, setup: ScalingSetup, meter: Meter, idle_is_zero: bool, now_ms: int) -> None:
        self._meter = meter
        self._began_ms = now_ms - 1000
        self._records = {record.name: record for record in setup.records}
        self._points = PointSight(meter, 1.0, idle_is_zero)
        policies = [policy_of(record) for record in setup.records]
        self._tracked = [p for p in policies if isinstance(p, TargetTracking)]
        key = setup.records[0].key if setup.records else KEY
        self.fast = {p.name: DemandSight(meter, key, p, 1.0) for p in policies if isinstance(p, FastTracking)}
        self._ends = {p.name: 0 for p in self._tracked}
        self._alarms = [_AlarmSight(name, rule, meter) for name, rule in setup.alarms]
        self.breaches: dict[str, Breach] = {}

    def look(self, now_ms: int, capacity: int) -> None:
        """Take one more second in."""
        for sight in self.fast.values():
            sight.look(now_ms // 1000, now_ms, self._meter.sees(now_ms), capacity)
        for alarm in self._alarms:
            breach = alarm.look(now_ms)
            if breach is not None:
                self.breaches[alarm.policy] = breach

    def due(self, now_ms: int) -> bool:
        """Whether there is anything to decide on."""
        ended = any(self._points.newest_end(p, now_ms) > self._ends[p.name] for p in self._tracked)
        return bool(self.fast) or bool(self.breaches) or ended

    def signal(self, policy: object, now_ms: int) -> Signal | None:
        """What speaks to a policy now."""
        if isinstance(policy, FastTracking):
            return self.fast[policy.name].demand
        if isinstance(policy, TargetTracking):
            return self._newest(policy, now_ms)
        return self.breaches.get(getattr(policy, "name", ""))

    def _newest(self, policy: TargetTracking, now_ms: int) -> Points:
        end_ms = self._ends[policy.name] = self._points.newest_end(policy, now_ms)
        watched_ms = max(self._began_ms, self._meter.blind_until_ms)
        return self._points.points(self._records[policy.name], policy, end_ms, watched_ms)


class _AlarmSight:
    """The alarm of a step policy, evaluated as control/alarms does; it asks again at each period while in ALARM."""

    def __init__(self, policy: str, rule: MetricRule, meter: Meter) -> None:
        self.policy = policy
        self._rule, self._meter = rule, meter
        self._state = AlarmState.INSUFFICIENT_DATA
        self._bands = Bands(meter, lambda scope, stat: Training())

    def look(self, now_ms: int) -> Breach | None:
        """A breach where it is in ALARM at the end of a period."""
        if now_ms % step_ms(self._rule.period_s):
            return None
        seen = read_range(self._meter, self._bands, KEY.scope, self._rule, now_ms)
        found = evaluate(self._rule, self._state, seen, now_ms)
        self._state = found.state
        if found.state is not AlarmState.ALARM:
            return None
        threshold = self._rule.threshold or 0.0
        value = found.datapoints[0].value if found.datapoints else threshold
        return Breach(f"alarm of {self.policy}", value, threshold)


def _following(action: ScheduledAction, after_ms: int, created_ms: int) -> list[tuple[int, ScheduledAction]]:
    at_ms = following(action.schedule, after_ms, created_ms)
    return [] if at_ms is None else [(at_ms, action)]

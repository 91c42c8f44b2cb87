"""What the scaler sees of a target: the points of its metrics, the demand of its last seconds, alarms that speak to it.

Unknown is not zero: a period or second in which not every gateway worker was connected says nothing. One in which all
were, and told of no request, had none; so a variant without traffic scales in (real SageMaker's never does, since there
it has no data; `EYRIE_SCALE_IN_WHEN_IDLE=off` is as it is there).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from eyrie.control.alarm_data import Window
from eyrie.control.scaling_policies import counts_requests, policy_of, queries_of
from eyrie.control.scaling_table import PolicyRecord, Scheduled, State, Target
from eyrie.decide.fast_scaling import Demand
from eyrie.decide.metric_grammar import MathError
from eyrie.decide.scaling import Signal
from eyrie.domain.alarms import Comparison, MetricQuery, MetricRule
from eyrie.domain.metrics import Metric, Summary
from eyrie.domain.scaling import Breach, FastTracking, Measure, Points, Policy, StepScaling, TargetKey, TargetTracking
from eyrie.ports import Document, Metrics

LOG = logging.getLogger(__name__)
LOOK_BACK_MS = 4_000  # seconds that a worker's word may still change
LONG_S = 1.0  # requests that take longer are counted while they run, shorter ones by the time that they took
_NAMESPACE = "AWS/SageMaker"


class Tally:
    """A metric's total, second by second: how much came in since the last look, also for seconds seen before."""

    def __init__(self, metrics: Metrics, metric: Metric) -> None:
        self._metrics, self._metric = metrics, metric
        self._seen: dict[int, tuple[float, float]] | None = None

    def since(self, now_ms: int, scale: float) -> tuple[float, float]:
        """Count and sum that are new; nothing at the first look. `scale`: milliseconds of the clock in a real one."""
        start_ms = int(now_ms - LOOK_BACK_MS * scale) // 1000 * 1000
        found = self._metrics.summaries(self._metric, start_ms, now_ms // 1000 * 1000 + 1000, 1000)
        before, self._seen = self._seen, {at_ms: (s.count, s.total) for at_ms, s in found.items()}
        if before is None:
            return 0.0, 0.0
        count = sum(n - before.get(at_ms, (0.0, 0.0))[0] for at_ms, (n, _) in self._seen.items())
        total = sum(n - before.get(at_ms, (0.0, 0.0))[1] for at_ms, (_, n) in self._seen.items())
        return count, total


class DemandSight:
    """What the seconds of a variant say to one fast policy."""

    def __init__(self, metrics: Metrics, key: TargetKey, policy: FastTracking, scale: float) -> None:
        self.policy = policy
        self.demand = Demand(policy.stable_s, policy.panic_s)
        self._metrics, self._scale = metrics, scale
        dimensions = (("EndpointName", key.endpoint), ("VariantName", key.variant))
        metric = {name: Metric(key.scope, _NAMESPACE, name, dimensions) for name in _MEASURED}
        self._tallies = {name: Tally(metrics, metric[name]) for name in ("Invocations", "ModelLatency")}
        self._busy = metric["ConcurrentRequestsPerModel"]
        self._second: int | None = None

    def look(self, second: int, now_ms: int, watched: bool, capacity: int) -> None:
        """Take in what was measured until now. `second` counts real ones; those in between were not looked at, but
        what happened in them is among what is new now.
        """
        if second == self._second:
            return  # a second is taken in once, however often it is looked at
        passed = second - self._second if self._second is not None else 0
        self._second = second
        requests, _ = self._tallies["Invocations"].since(now_ms, self._scale)
        answered, busy_us = self._tallies["ModelLatency"].since(now_ms, self._scale)
        if not watched or not 1 <= passed <= LOOK_BACK_MS // 1000:
            self.demand.forget()
            return
        if self.policy.measure is Measure.REQUEST_RATE:
            demand, samples = requests / passed, requests / passed
        else:
            demand = self._concurrency(answered, busy_us / 1e6, passed, now_ms, capacity)
            samples = requests / passed + demand
        for _ in range(passed):
            self.demand.add(demand, samples)

    def _concurrency(self, answered: float, busy_s: float, passed: int, now_ms: int, capacity: int) -> float:
        """Requests in flight on average: the time that they took; of long ones, which end too late, those seen."""
        if answered and busy_s / answered <= LONG_S:
            return busy_s / passed
        start_ms = int(now_ms - LOOK_BACK_MS * self._scale) // 1000 * 1000
        found = self._metrics.summaries(self._busy, start_ms, now_ms // 1000 * 1000 + 1000, 1000)
        if not found:
            return busy_s / passed
        newest: Summary = found[max(found)]
        return max(busy_s / passed, newest.total / newest.count * min(newest.count, capacity))


_MEASURED = ("Invocations", "ModelLatency", "ConcurrentRequestsPerModel")


@dataclass(slots=True)
class Watch:
    """A target with all that it has, as the scaler holds it between two looks."""

    document: Document
    target: Target
    records: Mapping[str, PolicyRecord]  # by name
    policies: tuple[Policy, ...]
    scheduled: tuple[tuple[Scheduled, int], ...]  # with when each was created
    state: State
    state_document: Document | None
    fast: dict[str, DemandSight] = field(default_factory=dict)  # by policy
    points: dict[str, tuple[int, Points]] = field(default_factory=dict)  # by policy: the newest, and their end
    breaches: dict[str, Breach] = field(default_factory=dict)  # of alarms, to be decided on
    next_scheduled_ms: int | None = None
    again: bool = True  # decide at the next look, whatever is due
    failures: int = 0  # changes in a row that came to nothing
    held_until_ms: int = 0  # for that reason


def readable(record: PolicyRecord) -> Policy | None:
    """The policy of a record; None, and a line in the log, for one that this version cannot follow."""
    try:
        return policy_of(record)
    except (ValueError, KeyError, TypeError) as error:
        LOG.error("scaling policy %s of %s cannot be followed: %s", record.name, record.key.resource_id, error)
        return None


class PointSight:
    """Reads the points that target tracking decides on."""

    def __init__(self, metrics: Metrics, scale: float, idle_is_zero: bool) -> None:
        self._metrics, self._scale, self._idle_is_zero = metrics, scale, idle_is_zero

    def newest_end(self, policy: TargetTracking, now_ms: int) -> int:
        """When the newest period ended of which everything has come in."""
        settled_ms = now_ms - int(2_000 * self._scale) if policy.period_ms < 60_000 else now_ms
        return settled_ms - settled_ms % policy.period_ms

    def points(self, record: PolicyRecord, policy: TargetTracking, end_ms: int, watched_ms: int) -> Points:
        """The values of the newest periods. `watched_ms`: since when nothing can have been missed."""
        queries, period_s = queries_of(record.key, record.configuration)
        start_ms = end_ms - policy.low_points * policy.period_ms
        rule = MetricRule(queries, Comparison.ABOVE, policy.low_points, policy.low_points, policy.target)
        window = Window(self._metrics, record.key.scope, rule, start_ms, end_ms)
        try:
            found = window.values(_watched(queries))
        except MathError as error:
            LOG.warning("scaling policy %s of %s: %s", record.name, record.key.resource_id, error)
            return ()
        zero = self._idle_is_zero and counts_requests(queries)
        starts = range(start_ms, end_ms, period_s * 1000)
        return [found.get(at_ms, 0.0 if zero and at_ms >= watched_ms else None) for at_ms in starts]


def _watched(queries: tuple[MetricQuery, ...]) -> str:
    return next(query.query_id for query in queries if query.returns)


def signals_of(watch: Watch, sight: PointSight, now_ms: int, watched_ms: int) -> dict[str, Signal]:
    """What speaks to each policy now."""
    found: dict[str, Signal] = {}
    for policy in watch.policies:
        name = policy.name
        if type(policy) is TargetTracking:
            found[name] = _points(watch, policy, sight, now_ms, watched_ms)
        elif type(policy) is FastTracking:
            found[name] = watch.fast[name].demand
        elif type(policy) is StepScaling and name in watch.breaches:
            found[name] = watch.breaches[name]
    return found


def _points(watch: Watch, policy: TargetTracking, sight: PointSight, now_ms: int, watched_ms: int) -> Points:
    end_ms = sight.newest_end(policy, now_ms)
    if end_ms <= max(watch.state.memory.out_ms, watch.state.memory.in_ms):
        return ()  # measured before the last change: it was for that one
    known = watch.points.get(policy.name)
    if known is None or known[0] != end_ms:
        known = watch.points[policy.name] = (
            end_ms,
            sight.points(watch.records[policy.name], policy, end_ms, watched_ms),
        )
    return known[1]


def due(watch: Watch, sight: PointSight, now_ms: int) -> bool:
    """Whether there is anything to decide on."""
    return (
        watch.again
        or bool(watch.fast)
        or bool(watch.breaches)
        or any(
            type(policy) is TargetTracking
            and sight.newest_end(policy, now_ms) > watch.points.get(policy.name, (0, ()))[0]
            for policy in watch.policies
        )
    )

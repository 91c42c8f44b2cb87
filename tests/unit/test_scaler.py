"""The scaler on a toy world: what is measured becomes a count, an activity and a line of the story; what is held back
while an endpoint is updated is done later; schedules, failures, restarts, deletion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from toyworld import KEY as ENDPOINT
from toyworld import MemoryStore, Rig, SeededIdentity, ToyClock, World, wish

from eyrie.control import alarm_table, scaling_table
from eyrie.control.scaler import Scaler
from eyrie.control.scaling_policies import STEPS, TRACKING, alarms_of
from eyrie.control.scaling_table import POLICY, SCHEDULED, STATE, TARGET, PolicyRecord, Scheduled, State, Target
from eyrie.decide.alarms import Datapoint, Evaluation
from eyrie.decide.endpoint import Update
from eyrie.domain.alarms import AlarmState
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.scaling import (
    ActivityStatus,
    Bounds,
    ScalingMemory,
    Schedule,
    ScheduledAction,
    Suspended,
    TargetKey,
)
from eyrie.ports import Commit, Document, Series, Statistic

KEY = TargetKey(ENDPOINT.account, ENDPOINT.region, ENDPOINT.name, "A")
MINUTE = 60_000
BY_INVOCATIONS = {
    "TargetValue": 100.0,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
}
FAST = {
    "TargetValue": 20.0,
    "CustomizedMetricSpecification": {"Namespace": "eyrie:Fast", "MetricName": "RequestRate", "Statistic": "Average"},
}
DIMENSIONS = (("EndpointName", ENDPOINT.name), ("VariantName", "A"))


class MemoryMetrics:
    """The Metrics port in memory, second by second."""

    def __init__(self) -> None:
        self.found: dict[Metric, dict[int, Summary]] = {}

    def record(self, measured: Sequence[Measured]) -> None:
        for one in measured:
            seconds = self.found.setdefault(one.metric, {})
            seconds.setdefault(one.at_ms // 1000, Summary()).merge(one.summary)

    def keep(self) -> None: ...

    def series(self, scope: Any, namespace: str | None = None, name: str | None = None) -> list[Series]:
        return [Series(metric, "None", 0) for metric in self.found]

    def summaries(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int) -> dict[int, Summary]:
        found: dict[int, Summary] = {}
        for second, summary in self.found.get(metric, {}).items():
            if start_ms <= second * 1000 < end_ms:
                start = start_ms + (second * 1000 - start_ms) // period_ms * period_ms
                found.setdefault(start, Summary()).merge(summary)
        return found

    def statistics(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int, of: Statistic) -> dict[int, float]:
        found = {at: of(summary) for at, summary in self.summaries(metric, start_ms, end_ms, period_ms).items()}
        return {at: value for at, value in found.items() if value is not None}


class Stage:
    """An endpoint of one variant, its scaler, and requests."""

    def __init__(self, count: int = 1, idle_is_zero: bool = True) -> None:
        self.store, self.clock, self.metrics = MemoryStore(), ToyClock(), MemoryMetrics()
        self.clock.ms = 1_800_000_000_000
        self.world = World(self.clock)
        self.rig = Rig(self.store, self.world, self.clock)
        self.rig.endpoints.create(ENDPOINT, wish(("A", count)))
        self.rig.run_until(lambda: self.rig.endpoint().status is EndpointStatus.IN_SERVICE)
        self.watched = True
        self.idle_is_zero = idle_is_zero
        self.second = 0
        self.start()

    def start(self) -> None:
        """A scaler, or the next one after a crash."""
        self.scaler = Scaler(
            *(self.store, self.metrics, self.clock, SeededIdentity(2), self.rig.endpoints, lambda: self.watched),
            idle_is_zero=self.idle_is_zero,
        )

    def put(self, kind: str, noun: Any, name: str = "") -> None:
        before = scaling_table.found(self.store, kind, KEY, name)
        document = scaling_table.put(before, kind, KEY, name, noun, self.clock.ms)
        self.store.commit(Commit(puts=[document]))
        self.scaler.wake()

    def scaled(self, lowest: int = 1, highest: int = 9, scheduled: bool = True) -> None:
        bounds = Bounds(lowest, highest, Suspended(scheduled=not scheduled))
        self.put(TARGET, Target(KEY, "t", "role", bounds))

    def policy(self, name: str, configuration: dict[str, Any], kind: str = TRACKING) -> PolicyRecord:
        alarms = (
            (("High", f"{name}-High"), ("Low", f"{name}-Low"))
            if "PredefinedMetricSpecification" in configuration
            else ()
        )
        record = PolicyRecord(KEY, name, "p", kind, configuration, alarms)
        self.put(POLICY, record, name)
        for alarm in alarms_of(record, self.idle_is_zero):
            alarm_table.put(self.store, alarm, self.clock.ms)
        return record

    def requests(self, count: float) -> None:
        """So many in this second, over all instances."""
        if count:
            invocations, shared = Summary(), Summary()
            invocations.add(1.0, count)
            shared.add(1 / max(self.count, 1), count)
            for name, summary in (("Invocations", invocations), ("InvocationsPerInstance", shared)):
                self.metrics.record(
                    [Measured(Metric(KEY.scope, "AWS/SageMaker", name, DIMENSIONS), self.clock.ms, summary)]
                )

    def seconds(self, count: int, rate: float = 0.0, rig: bool = True, step_s: int = 1) -> None:
        """Let time pass under a load of requests a second; `rig`: instances start and stop meanwhile."""
        for _ in range(count):
            self.clock.ms += 1000 * step_s
            self.second += step_s
            self.requests(rate)
            self.scaler.look(self.second)
            if rig:
                self.rig.ping()
                self.rig.settle()

    @property
    def count(self) -> int:
        variant = self.rig.endpoint().fleet.variant("A")
        assert variant is not None
        return variant.desired_count

    @property
    def state(self) -> State:
        document = scaling_table.found(self.store, STATE, KEY)
        return scaling_table.decode(document, State) if document is not None else State(KEY, "t")

    def story(self) -> list[str]:
        return [f"{e.what}: {e.why}" for e in self.store.events("Endpoint", KEY.scope, ENDPOINT.name)]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    assert made.world.wrongs == []


def test_three_minutes_above_the_target_scale_out_and_are_told(stage: Stage) -> None:
    stage.scaled()
    record = stage.policy("track", BY_INVOCATIONS)
    stage.seconds(300, rate=5.0)  # 300 a minute
    assert stage.count == 3
    activity = stage.state.scaled[0]
    assert activity.status is ActivityStatus.SUCCESSFUL
    assert activity.description == "Setting desired instance count to 3."
    assert activity.cause == "monitor alarm track-High in state ALARM triggered policy track"
    assert activity.message.endswith("Change successfully fulfilled by sagemaker.")
    assert activity.ended_ms is not None
    assert activity.ended_ms > activity.started_ms
    told = next(line for line in stage.story() if "scaled from 1 to 3" in line)
    assert "the newest 300: 1 x 300 / 100 = 3" in told
    assert record.name in told


def test_without_traffic_it_scales_in_unless_told_to_be_as_aws() -> None:
    ours, theirs = Stage(count=4), Stage(count=4, idle_is_zero=False)
    for stage in (ours, theirs):
        stage.scaled()
        stage.policy("track", BY_INVOCATIONS)
        stage.seconds(17 * 6, step_s=10)
    assert (ours.count, theirs.count) == (1, 4)


def test_what_no_gateway_could_tell_is_unknown_and_not_zero(stage: Stage) -> None:
    stage = Stage(count=4)
    stage.scaled()
    stage.policy("track", BY_INVOCATIONS)
    stage.watched = False
    stage.seconds(20 * 6, step_s=10)
    assert stage.count == 4
    stage.watched = True
    stage.seconds(14 * 6, step_s=10)
    assert stage.count == 4
    stage.seconds(3 * 6, step_s=10)
    assert stage.count == 1


def test_fast_scales_within_seconds_and_back(stage: Stage) -> None:
    stage.scaled()
    stage.policy("fast", FAST)
    stage.seconds(70, rate=15.0)
    assert stage.count == 1
    stage.seconds(3, rate=80.0)
    assert stage.count == 4
    stage.seconds(5, rate=80.0)
    assert [a.status for a in stage.state.scaled] == [ActivityStatus.SUCCESSFUL] * len(stage.state.scaled)
    assert stage.state.scaled[0].cause == "eyrie:Fast policy fast on one-second data"
    stage.seconds(55, rate=10.0)
    assert stage.count == 4
    stage.seconds(180, rate=10.0)
    assert stage.count == 1


def test_an_alarm_asks_for_steps(stage: Stage) -> None:
    stage.scaled()
    steps = {
        "AdjustmentType": "ChangeInCapacity",
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 2}],
    }
    record = stage.policy("steps", steps, STEPS)
    stage.seconds(2)
    pair = alarms_of(
        replace(record, kind=TRACKING, configuration=BY_INVOCATIONS, alarms=(("High", "mine"), ("Low", "l"))), True
    )
    alarm = replace(pair[0], state=AlarmState.ALARM, alarm_actions=(record.arn,))
    stage.scaler.alarmed(alarm, Evaluation(AlarmState.ALARM, "", "", (Datapoint(0, 130.0),)))
    stage.seconds(2)
    assert stage.count == 3
    assert stage.state.scaled[0].cause == "monitor alarm mine in state ALARM triggered policy steps"
    stage.scaler.alarmed(alarm, Evaluation(AlarmState.ALARM, "", "", (Datapoint(0, 130.0),)))
    stage.seconds(2)
    assert stage.count == 3  # its cool-down
    stage.seconds(300)
    stage.scaler.alarmed(alarm, Evaluation(AlarmState.ALARM, "", ""))  # set by hand: at the threshold
    stage.seconds(2)
    assert stage.count == 5


def test_an_endpoint_that_is_updated_is_scaled_afterwards(stage: Stage) -> None:
    stage.scaled()
    stage.policy("fast", FAST)
    stage.seconds(3, rate=10.0)
    stage.rig.endpoints.update(ENDPOINT, Update(wish(("A", 1), config="config-2")))
    stage.seconds(10, rate=100.0, rig=False)
    assert stage.count == 1
    refused = stage.state.unscaled
    assert [reason["Code"] for reason in refused[0].not_scaled] == ["TargetServicePutResourceAsUnscalable"]
    assert len(refused) == 1  # told once
    stage.rig.run_until(lambda: stage.rig.endpoint().status is EndpointStatus.IN_SERVICE)
    stage.seconds(3, rate=100.0)
    assert stage.rig.endpoint().config_name == "config-2"
    assert stage.count == 5


def test_bounds_act_at_once_also_after_a_deployment(stage: Stage) -> None:
    stage.scaled(lowest=3)
    stage.seconds(3)
    assert stage.count == 3
    assert stage.state.scaled[0].cause == "minimum capacity was set to 3"
    stage.rig.run_until(lambda: stage.rig.endpoint().status is EndpointStatus.IN_SERVICE)
    stage.rig.endpoints.update(ENDPOINT, Update(wish(("A", 1), config="config-2")))
    stage.rig.run_until(lambda: stage.rig.endpoint().status is EndpointStatus.IN_SERVICE)
    assert stage.count == 1
    stage.seconds(30)
    assert stage.count == 3
    stage.scaled(highest=2, lowest=1)
    stage.seconds(5)
    assert stage.count == 2


def test_scheduled_actions_move_the_bounds(stage: Stage) -> None:
    stage.scaled()
    at_ms = stage.clock.ms + 90_000
    action = ScheduledAction("morning", Schedule("rate(1 hour)", start_ms=at_ms), lowest=4, highest=6)
    stage.put(SCHEDULED, Scheduled(KEY, "s", action), "morning")
    stage.seconds(85)
    assert stage.count == 1
    stage.seconds(10)
    assert stage.count == 4
    document = scaling_table.found(stage.store, TARGET, KEY)
    assert document is not None
    assert scaling_table.decode(document, Target).bounds == Bounds(4, 6)
    causes = [activity.cause for activity in stage.state.scaled]
    assert causes == ["minimum capacity was set to 4", "scheduled action name morning was triggered"]
    stage.start()  # a restart does not do it again
    stage.scaled(1, 9)
    stage.seconds(30)
    document = scaling_table.found(stage.store, TARGET, KEY)
    assert document is not None
    assert scaling_table.decode(document, Target).bounds == Bounds(1, 9)


def test_suspended_schedules_are_left_out(stage: Stage) -> None:
    stage.scaled(scheduled=False)
    action = ScheduledAction("soon", Schedule("rate(1 minute)"), lowest=4)
    stage.put(SCHEDULED, Scheduled(KEY, "s", action), "soon")
    stage.seconds(130)
    assert stage.count == 1


def test_a_change_that_fails_is_told_and_not_tried_at_once_again(stage: Stage) -> None:
    stage.scaled()
    stage.policy("fast", FAST)
    stage.world.capacity = 1
    stage.seconds(40, rate=60.0)
    failed = [a for a in stage.state.scaled if a.status is ActivityStatus.FAILED]
    assert failed
    assert "limit of 1 instances" in failed[0].message
    assert len(failed) <= 3
    stage.world.capacity = 9
    stage.seconds(120, rate=60.0)
    assert stage.count == 3


def test_a_restarted_scaler_remembers_its_cool_downs(stage: Stage) -> None:
    stage.scaled()
    stage.policy("track", BY_INVOCATIONS)
    stage.seconds(240, rate=5.0)
    assert stage.count == 3
    memory = stage.state.memory
    assert memory != ScalingMemory()
    stage.start()
    stage.seconds(60, rate=15.0)  # 300 a minute an instance: of one instance that would be three
    assert stage.state.memory.out_ms == memory.out_ms
    assert stage.count == 3


def test_with_the_endpoint_goes_all_that_scaled_it(stage: Stage) -> None:
    stage.scaled()
    stage.policy("track", BY_INVOCATIONS)
    stage.seconds(200, rate=5.0)
    stage.rig.run_until(lambda: stage.rig.endpoint().status is EndpointStatus.IN_SERVICE)
    stage.rig.endpoints.delete(ENDPOINT)
    stage.rig.run_until(lambda: stage.rig.endpoints.get(ENDPOINT) is None)
    stage.scaler.wake()
    for _ in range(90):
        stage.clock.ms += 1000
        stage.second += 1
        stage.scaler.look(stage.second)
    left: list[Document] = [d for kind in (TARGET, POLICY, STATE, "Alarm") for d in stage.store.scan(kind)]
    assert left == []


def test_points_are_decided_on_once_whatever_the_cool_down(stage: Stage) -> None:
    stage.scaled(highest=30)
    stage.policy("track", {**BY_INVOCATIONS, "ScaleOutCooldown": 0})
    stage.policy("fast", {**FAST, "TargetValue": 1000.0})
    stage.seconds(200, rate=5.0)
    assert stage.count == 3


def test_requests_in_flight_are_the_time_that_they_take(stage: Stage) -> None:
    in_flight = {**FAST["CustomizedMetricSpecification"], "MetricName": "ConcurrentRequests"}
    stage.scaled()
    stage.policy("fast", {"TargetValue": 4.0, "CustomizedMetricSpecification": in_flight})

    def told(name: str, value: float, times: int) -> None:
        summary = Summary()
        summary.add(value, times)
        stage.metrics.record([Measured(Metric(KEY.scope, "AWS/SageMaker", name, DIMENSIONS), stage.clock.ms, summary)])

    def seconds(count: int, requests: int, took_ms: float, busy: int = 0) -> None:
        for _ in range(count):
            stage.clock.ms += 1000
            stage.second += 1
            stage.requests(requests)
            if requests:
                told("ModelLatency", took_ms * 1000, requests)
            if busy:
                told("ConcurrentRequestsPerModel", busy, 3)
            stage.scaler.look(stage.second)
            stage.rig.ping()
            stage.rig.settle()

    seconds(70, requests=100, took_ms=30)  # three at once
    assert stage.count == 1
    seconds(3, requests=200, took_ms=50)  # ten
    assert stage.count == 3
    seconds(5, requests=200, took_ms=50)
    assert stage.count == 3
    seconds(70, requests=0, took_ms=0, busy=8)  # long ones that have not ended: 8 in each of three instances
    assert stage.count == 6

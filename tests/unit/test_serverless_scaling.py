"""ProvisionedConcurrency that is scaled: by target tracking on its utilisation, and by schedules."""

from __future__ import annotations

from typing import Any

from test_scaler import MemoryMetrics
from toyworld import KEY as ENDPOINT
from toyworld import MemoryStore, Rig, SeededIdentity, ToyClock, World, wish

from eyrie.control import alarm_table, scaling_table
from eyrie.control.scaler import Scaler
from eyrie.control.scaling_policies import TRACKING, alarms_of
from eyrie.control.scaling_table import POLICY, SCHEDULED, STATE, TARGET, PolicyRecord, Scheduled, State, Target
from eyrie.control.serverless_meter import PROVISIONED, measurement
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.scaling import Bounds, Schedule, ScheduledAction, TargetKey
from eyrie.domain.serverless import Serverless
from eyrie.ports import Commit

KEY = TargetKey(ENDPOINT.account, ENDPOINT.region, ENDPOINT.name, "A", provisioned=True)
MINUTE = 60_000
HALF = {
    "TargetValue": 0.5,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantProvisionedConcurrencyUtilization"},
}


class Stage:
    """A serverless endpoint, its scaler, and what is measured of it."""

    def __init__(self, provisioned: int, most: int = 100) -> None:
        self.store, self.clock, self.metrics = MemoryStore(), ToyClock(), MemoryMetrics()
        self.clock.ms = 1_800_000_000_000
        self.rig = Rig(self.store, World(self.clock), self.clock)
        allowed = Serverless(1024, most, provisioned)
        self.rig.endpoints.create(ENDPOINT, wish(("A", 1), may_be_empty=True, serverless=allowed))
        self.rig.run_until(lambda: self.rig.endpoint().status is EndpointStatus.IN_SERVICE)
        self.scaler = Scaler(self.store, self.metrics, self.clock, SeededIdentity(2), self.rig.endpoints, lambda: True)
        self.second = 0

    @property
    def provisioned(self) -> int:
        allowed = self.rig.endpoint().fleet.variants[0].serverless
        assert allowed is not None
        return allowed.provisioned

    def put(self, kind: str, noun: Any, name: str = "") -> None:
        before = scaling_table.found(self.store, kind, KEY, name)
        self.store.commit(Commit(puts=[scaling_table.put(before, kind, KEY, name, noun, self.clock.ms)]))
        self.scaler.wake()

    def track(self) -> None:
        record = PolicyRecord(KEY, "p", "p", TRACKING, HALF, (("High", "h"), ("Low", "l")))
        self.put(POLICY, record, "p")
        for alarm in alarms_of(record, True):
            self.store.commit(Commit(puts=[alarm_table.configured(self.store, alarm, self.clock.ms)[0]]))

    def minutes(self, count: int, utilisation: float) -> None:
        """Let time pass at a utilisation."""
        for _ in range(count):
            self.clock.ms += MINUTE
            name = PROVISIONED + "Utilization"
            at_ms = self.clock.ms - MINUTE // 2
            self.metrics.record([measurement(ENDPOINT, "A", name, utilisation, "None", at_ms)])
            self.second += 60
            self.scaler.look(self.second)
            self.rig.run_until(lambda: self.rig.endpoint().status is EndpointStatus.IN_SERVICE, step_ms=100)
            self.scaler.look(self.second)


def test_it_follows_its_utilisation_out_and_in_within_bounds() -> None:
    stage = Stage(4)
    stage.put(TARGET, Target(KEY, "t", "role", Bounds(2, 500)))
    stage.track()
    stage.minutes(4, 1.0)
    assert stage.provisioned == 8
    document = stage.store.get(STATE, KEY.scope, scaling_table.document_name(KEY))
    assert document is not None
    activity = scaling_table.decode(document, State).scaled[0]
    assert activity.description == "Setting desired provisioned concurrency to 8."
    stage.minutes(40, 1.0)
    assert stage.provisioned == 100  # MaxConcurrency, below the target's own bound
    assert stage.rig.endpoint().ready_count(stage.rig.endpoint().fleet, "A") == 7  # 16 requests at once each
    stage.minutes(60, 0.0)
    assert stage.provisioned == 2


def test_a_schedule_makes_it_ready_beforehand() -> None:
    stage = Stage(0)
    stage.put(TARGET, Target(KEY, "t", "role", Bounds(1, 50)))
    action = ScheduledAction("open", Schedule("rate(10 minutes)"), lowest=30)
    stage.put(SCHEDULED, Scheduled(KEY, "s", action), "open")
    stage.minutes(1, 0.0)
    assert stage.provisioned == 1
    stage.minutes(12, 0.0)
    assert stage.provisioned == 30


def test_a_target_of_another_dimension_is_not_this_one() -> None:
    stage = Stage(1)
    stage.put(TARGET, Target(KEY, "t", "role", Bounds(1, 50)))
    other = TargetKey(KEY.account, KEY.region, KEY.endpoint, KEY.variant)
    assert scaling_table.found(stage.store, TARGET, other) is None
    assert scaling_table.found(stage.store, TARGET, KEY) is not None

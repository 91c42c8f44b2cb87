"""One life of control with an endpoint and its inference experiment, in the toy world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toyworld import KEY, MemoryStore, Rig, ToyClock, World, wish

from eyrie.control.inference_experiments import InferenceExperiments, decode, encode, events
from eyrie.decide.inference_experiments import DAY_MS, Step
from eyrie.domain.fleet import VariantSpec
from eyrie.domain.inference_experiments import KIND, Ending, Experiment, ExperimentStatus, VariantAction
from eyrie.domain.names import EndpointKey
from eyrie.ports import Commit, Document

S = ExperimentStatus
NAME = EndpointKey(KEY.account, KEY.region, "test")
REMOVE = Ending(VariantAction.RETAIN, VariantAction.REMOVE, S.CANCELLED, "enough")
PROMOTE = Ending(VariantAction.REMOVE, VariantAction.PROMOTE, S.COMPLETED, "better")
RETAIN = Ending(VariantAction.RETAIN, VariantAction.RETAIN, S.COMPLETED, "stays")
GUARD = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 10
        }
    },
    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "bad"}]},
}  # fmt: skip


def shadow(count: int = 1, model: str = "model-S") -> VariantSpec:
    spec = wish(("S", count)).variants[0]
    return replace(spec, shadow_of="A", model=replace(spec.model, name=model))


class Life:
    """One life of control with an endpoint and its experiment."""

    def __init__(self, store: MemoryStore, world: World, seed: int = 0) -> None:
        self.store = store
        self.rig = Rig(store, world, world.clock, seed)
        self.driver = InferenceExperiments(store, self.rig.endpoints, world.clock)

    def document(self) -> Document:
        found = self.store.get(KIND, NAME.scope, NAME.name)
        assert found is not None
        return found

    def experiment(self) -> Experiment:
        return decode(self.document().body)

    def put(self, step: Step) -> None:
        document = self.document()
        self.store.commit(Commit(puts=[replace(document, body=encode(step.experiment))], events=events(step, self.now)))

    @property
    def now(self) -> int:
        return self.rig.clock.ms

    def run(self, for_ms: int = 400) -> None:
        until_ms = self.now + for_ms
        while self.now < until_ms:
            self.driver.look()
            self.rig.run(200)

    def until(self, true: Callable[[], bool], limit_ms: int = 400_000) -> None:
        began_ms = self.now
        while not true():
            assert self.now - began_ms < limit_ms, (self.experiment().status, self.experiment().reason, self.rig.told())
            self.run()

    def until_status(self, status: ExperimentStatus) -> None:
        self.until(lambda: self.experiment().status is status)

    def variants(self) -> list[tuple[str, str, int]]:
        return [(v.name, v.spec.shadow_of, v.desired_count) for v in self.rig.endpoint().fleet.variants]


def begun(store: MemoryStore | None = None, start_ms: int = 0, deployment: dict[str, Any] | None = None) -> Life:
    """An endpoint that serves, and an experiment that was just created."""
    life = Life(store or MemoryStore(), World(ToyClock()))
    life.rig.endpoints.create(KEY, wish(("A", 2)), deployment_config=deployment)
    life.rig.run_until(life.rig.whole)
    now = life.now
    experiment = Experiment(
        key=NAME, uid="abcd1234", endpoint=KEY, endpoint_uid=life.rig.endpoint().uid, status=S.CREATING, reason="asked",
        created_ms=now, modified_ms=now, start_ms=now + start_ms, end_ms=now + start_ms + 7 * DAY_MS, source="A",
        shadow=shadow(), percent=40, request={},
    )  # fmt: skip
    life.store.commit(Commit(puts=[Document(KIND, NAME.scope, NAME.name, 0, now, now, encode(experiment))]))
    return life

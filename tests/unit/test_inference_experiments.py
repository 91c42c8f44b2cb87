"""Inference experiments in the toy world: their statuses, and what they do to the endpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest
from experiment_life import GUARD, PROMOTE, REMOVE, RETAIN, S, begun, shadow
from toyworld import KEY, wish

from eyrie.decide import inference_experiments as decide
from eyrie.decide.endpoint import Update
from eyrie.decide.inference_experiments import Step
from eyrie.domain.alarms import AlarmState
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.inference_experiments import KIND


def test_it_waits_for_its_start_runs_and_ends_by_itself() -> None:
    life = begun(start_ms=60_000)
    life.run(10_000)
    assert life.experiment().status is S.CREATED
    assert life.variants() == [("A", "", 2)]
    life.until_status(S.RUNNING)
    assert life.now >= life.experiment().start_ms
    assert life.variants() == [("A", "", 2), ("S", "A", 1)]
    assert life.rig.world.tables[KEY].shadows[0].share == pytest.approx(0.4)
    config = life.store.get("EndpointConfig", KEY.scope, life.rig.endpoint().config_name)
    assert config is not None
    assert [v["VariantName"] for v in config.body["ShadowProductionVariants"]] == ["S"]
    life.rig.clock.ms = life.experiment().end_ms
    life.until_status(S.COMPLETED)
    assert life.variants() == [("A", "", 2)]
    assert "EndTime" in life.experiment().reason
    told = [e.what for e in life.store.events(KIND, KEY.scope, KEY.name)]
    statuses = ["Created", "Starting", "Starting", "Running", "Stopping", "Stopping", "Completed"]
    assert [what.removeprefix("test: experiment ") for what in told] == statuses


def test_it_can_be_started_early_and_stopped() -> None:
    life = begun(start_ms=60_000)
    life.run()
    life.put(decide.start(life.experiment(), life.now))
    life.until_status(S.RUNNING)
    life.put(decide.stop(life.experiment(), REMOVE, life.now))
    life.until_status(S.CANCELLED)
    assert (life.experiment().reason, life.variants()) == ("enough", [("A", "", 2)])


def test_what_never_began_ends_without_touching_the_endpoint() -> None:
    life = begun(start_ms=60_000)
    life.run()
    generation = life.rig.endpoint().generation
    life.put(decide.stop(life.experiment(), REMOVE, life.now))
    life.until_status(S.CANCELLED)
    assert life.rig.endpoint().generation == generation


def test_to_retain_both_changes_nothing() -> None:
    life = begun()
    life.until_status(S.RUNNING)
    generation = life.rig.endpoint().generation
    life.put(decide.stop(life.experiment(), RETAIN, life.now))
    life.until_status(S.COMPLETED)
    assert life.rig.endpoint().generation == generation
    assert life.variants() == [("A", "", 2), ("S", "A", 1)]


def test_a_promotion_is_an_update_by_the_endpoints_own_guardrails() -> None:
    life = begun(deployment=GUARD)
    life.rig.world.alarms["bad"] = AlarmState.OK
    life.until_status(S.RUNNING)
    life.put(decide.stop(life.experiment(), replace(PROMOTE, desired=(shadow(3),)), life.now))
    shares = set()

    def over() -> bool:
        weights = {v.name: v.weight for v in life.rig.world.tables[KEY].variants}
        shares.add(round(weights.get("S", 0.0) / sum(weights.values()), 3))
        return life.experiment().over

    life.until(over)
    assert life.experiment().status is S.COMPLETED
    assert life.variants() == [("S", "", 3)]
    assert shares >= {0.0, 0.5, 1.0}
    assert life.rig.endpoint().last_deployment_config == GUARD
    assert life.rig.world.wrongs == []


def test_a_promotion_that_an_alarm_rolls_back_is_cancelled_and_production_serves() -> None:
    life = begun(deployment=GUARD)
    life.rig.world.alarms["bad"] = AlarmState.OK
    life.until_status(S.RUNNING)
    life.put(decide.stop(life.experiment(), PROMOTE, life.now))
    life.run(2_000)
    life.rig.world.alarms["bad"] = AlarmState.ALARM
    life.until_status(S.CANCELLED)
    assert "ALARM" in life.experiment().reason
    assert life.variants() == [("A", "", 2), ("S", "A", 1)]


def test_an_update_of_weights_and_counts_is_live() -> None:
    life = begun()
    life.until_status(S.RUNNING)
    fleet = life.rig.endpoint().fleet.generation
    changed = replace(life.experiment(), percent=90, shadow=replace(shadow(2), shadow_of="A"))
    life.put(decide.update(changed, True, life.now))
    assert life.experiment().status is S.UPDATING
    life.until_status(S.RUNNING)
    assert life.rig.endpoint().fleet.generation == fleet
    assert life.rig.world.tables[KEY].shadows[0].share == pytest.approx(0.9)
    assert life.variants() == [("A", "", 2), ("S", "A", 2)]


def test_an_update_to_another_model_is_a_deployment() -> None:
    life = begun()
    life.until_status(S.RUNNING)
    fleet = life.rig.endpoint().fleet.generation
    life.put(decide.update(replace(life.experiment(), shadow=shadow(model="other")), False, life.now))
    life.until_status(S.RUNNING)
    assert life.rig.endpoint().fleet.generation > fleet
    assert life.rig.endpoint().fleet.shadows[0].spec.model.name == "other"


def test_it_notices_when_its_endpoint_is_changed_or_gone() -> None:
    life = begun()
    life.until_status(S.RUNNING)
    life.rig.endpoints.update(KEY, Update(wish(("A", 1), config="mine")))
    life.until_status(S.CANCELLED)
    assert "config mine" in life.experiment().reason
    gone = begun()
    gone.until_status(S.RUNNING)
    gone.rig.endpoints.delete(KEY)
    gone.until(lambda: gone.experiment().over)
    assert gone.experiment().status is S.CANCELLED


def test_a_shadow_that_does_not_start_cancels_it_and_production_serves_on() -> None:
    life = begun()
    container = replace(shadow().model.containers[0], image="broken")
    life.rig.world.crashing_images.add("broken")
    broken = replace(shadow(), model=replace(shadow().model, containers=(container,)))
    life.put(Step(replace(life.experiment(), shadow=broken)))
    life.until_status(S.CANCELLED)
    assert "did not come about" in life.experiment().reason
    assert (life.rig.endpoint().status, life.variants()) == (EndpointStatus.IN_SERVICE, [("A", "", 2)])

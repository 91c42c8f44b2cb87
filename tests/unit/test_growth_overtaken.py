"""A growth that is on its way may grow further, for a fast policy; nothing else may change what is Updating."""

from __future__ import annotations

import pytest
from test_scaler import FAST, Stage
from toyworld import KEY, serving

from eyrie.decide.endpoint import growing, update_weights_and_capacities
from eyrie.domain.endpoint import CapacityChange, Endpoint, EndpointStatus
from eyrie.domain.errors import EndpointBusy
from eyrie.domain.scaling import ActivityStatus

NOW_MS = 2_000_000


def changed(endpoint: Endpoint, *changes: CapacityChange, overtake: bool = True) -> Endpoint:
    after = update_weights_and_capacities(endpoint, changes, NOW_MS, overtake=overtake).endpoint
    assert after is not None
    return after


def test_more_is_taken_while_more_is_on_its_way_and_what_to_go_back_to_is_kept() -> None:
    resting = serving(("A", 2)).endpoint()
    once = changed(resting, CapacityChange("A", count=4))
    assert growing(once)
    twice = changed(once, CapacityChange("A", count=7))
    assert twice.fleet.variants[0].desired_count == 7
    assert twice.status is EndpointStatus.UPDATING
    assert twice.resize is not None
    assert twice.resize == once.resize
    assert twice.resize.counts_before == {"A": 2}
    assert twice.generation == once.generation + 1


@pytest.mark.parametrize(
    "change", [CapacityChange("A", count=3), CapacityChange("A", count=9, weight=2.0), CapacityChange("A", weight=2.0)]
)
def test_nothing_else_is(change: CapacityChange) -> None:
    once = changed(serving(("A", 2)).endpoint(), CapacityChange("A", count=4))
    with pytest.raises(EndpointBusy):
        changed(once, change)


def test_a_user_waits_and_so_does_whoever_shrinks() -> None:
    rig = serving(("A", 3))
    more = changed(rig.endpoint(), CapacityChange("A", count=4))
    with pytest.raises(EndpointBusy):
        changed(more, CapacityChange("A", count=5), overtake=False)
    fewer = changed(rig.endpoint(), CapacityChange("A", count=1))
    assert not growing(fewer)
    with pytest.raises(EndpointBusy):
        changed(fewer, CapacityChange("A", count=5))


def test_the_fleet_arrives_at_the_last_count() -> None:
    rig = serving(("A", 2))
    rig.endpoints.scale(KEY, "A", 2, 4, "first")
    rig.run(100, step_ms=50)
    assert rig.endpoint().status is EndpointStatus.UPDATING
    rig.endpoints.scale(KEY, "A", 4, 6, "second")
    rig.run_until(rig.in_status(EndpointStatus.IN_SERVICE))
    assert rig.whole()
    assert rig.endpoint().fleet.variants[0].desired_count == 6


def test_the_scaler_follows_a_ramp_without_waiting_for_each_step() -> None:
    stage = Stage()
    stage.scaled()
    stage.policy("fast", FAST)
    stage.seconds(70, rate=15.0)
    stage.seconds(3, rate=50.0, rig=False)  # nothing starts meanwhile
    first = stage.count
    assert stage.rig.endpoint().status is EndpointStatus.UPDATING
    stage.seconds(3, rate=150.0, rig=False)
    assert stage.count > first > 1
    assert [a.status for a in stage.state.scaled[:2]] == [ActivityStatus.IN_PROGRESS, ActivityStatus.OVERRIDDEN]
    stage.seconds(20, rate=150.0)
    assert stage.state.scaled[0].status is ActivityStatus.SUCCESSFUL

"""Shadow variants in the toy world: kept as all variants are, and never in the split of the traffic."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toyworld import KEY, Rig, fresh, wish

from eyrie.decide.endpoint import Update
from eyrie.domain.deployment import CapacitySize, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import CapacityChange, EndpointStatus, FleetSpec
from eyrie.domain.fleet import InstanceState
from eyrie.domain.routing import EndpointRoute

IN_SERVICE = EndpointStatus.IN_SERVICE


def shadowed(count: int = 2, shadows: int = 1, weight: float = 0.25, config: str = "config-1") -> FleetSpec:
    """Production variant A, and S that shadows it."""
    made = wish(("A", count), ("S", shadows), config=config)
    a, s = made.variants
    return replace(made, variants=(a, replace(s, shadow_of="A", initial_weight=weight)))


def serving(count: int = 2) -> Rig:
    rig = fresh()
    rig.endpoints.create(KEY, shadowed(count))
    rig.run_until(rig.in_status(IN_SERVICE))
    return rig


def table(rig: Rig) -> EndpointRoute:
    return rig.world.tables[KEY]


def test_a_shadow_is_started_and_routed_apart_from_the_traffic() -> None:
    rig = serving()
    assert rig.whole()
    assert [(v.name, len(v.targets)) for v in table(rig).variants] == [("A", 2)]
    (shadow,) = table(rig).shadows
    assert (shadow.variant.name, shadow.source, shadow.share, len(shadow.variant.targets)) == ("S", "A", 0.25, 1)


def test_the_sampled_share_is_live_and_never_more_than_all() -> None:
    rig = serving()
    for weight, share in ((0.5, 0.5), (3.0, 1.0), (0.0, 0.0)):
        rig.endpoints.update_weights(KEY, [CapacityChange("S", weight=weight)])
        rig.run_until(rig.in_status(IN_SERVICE))
        assert table(rig).shadows[0].share == share
        assert [v.weight for v in table(rig).variants] == [1.0]


def test_a_dead_shadow_is_replaced_and_production_is_not_touched() -> None:
    rig = serving()
    before = {i.instance_id for i in rig.endpoint().instances if i.variant == "A"}
    (dead,) = (i.instance_id for i in rig.endpoint().instances if i.variant == "S")
    rig.world.kill(dead)
    rig.run_until(lambda: rig.whole() and rig.endpoint().instances[-1].instance_id != dead)
    assert {i.instance_id for i in rig.endpoint().instances if i.variant == "A"} == before
    assert [i.state for i in rig.endpoint().instances if i.variant == "S"] == [InstanceState.READY]
    assert rig.endpoint().status is IN_SERVICE


def test_an_endpoint_without_shadows_has_none_left_after_an_update() -> None:
    rig = serving()
    rig.endpoints.update(KEY, Update(wish(("A", 2), config="config-2")))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert (rig.endpoint().config_name, table(rig).shadows) == ("config-2", ())
    assert {i.spec.variant for i in rig.world.instances.values() if i.alive} == {"A"}
    assert rig.world.wrongs == []


SIZE = CapacitySize(SizeKind.CAPACITY_PERCENT, 50)


@pytest.mark.parametrize("strategy", [Strategy.ALL_AT_ONCE, Strategy.CANARY, Strategy.LINEAR, Strategy.ROLLING])
def test_each_fleet_has_its_own_shadow_while_traffic_shifts(strategy: Strategy) -> None:
    rig = serving(count=4)
    size = None if strategy is Strategy.ALL_AT_ONCE else SIZE
    how = TrafficPolicy(strategy, size, bake_ms=5_000, termination_wait_ms=5_000)
    rig.endpoints.update(KEY, Update(shadowed(4, 2, 0.5, "config-2"), policy=how))
    both = False
    for _ in range(1_000):
        if rig.endpoint().deployment is None:
            break
        rig.run(200)
        held = {v.fleet for v in table(rig).variants}
        assert {s.variant.fleet for s in table(rig).shadows} == held
        assert all(s.source in {v.name for v in table(rig).variants} for s in table(rig).shadows)
        both |= len(held) == 2
    assert rig.endpoint().config_name == "config-2"
    assert both is (strategy is not Strategy.ALL_AT_ONCE)
    assert [(s.share, len(s.variant.targets)) for s in table(rig).shadows] == [(0.5, 2)]
    assert rig.world.wrongs == []


def test_a_shadow_that_does_not_start_fails_the_change_and_blue_serves_on() -> None:
    rig = serving()
    broken = shadowed(config="config-2")
    a, s = broken.variants
    container = replace(s.model.containers[0], image="broken")
    rig.world.crashing_images.add("broken")
    rig.endpoints.update(
        KEY, Update(replace(broken, variants=(a, replace(s, model=replace(s.model, containers=(container,))))))
    )
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().config_name == "config-1"
    assert rig.endpoint().failure_reason
    assert len(table(rig).variants[0].targets) == 2


def test_a_promoted_shadow_is_dealt_the_traffic() -> None:
    rig = serving()
    made = shadowed(config="config-2")
    promoted = replace(made.variants[1], shadow_of="", initial_weight=1.0)
    rig.endpoints.update(KEY, Update(replace(made, variants=(promoted,)), retain_all=True))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert [(v.name, v.weight) for v in table(rig).variants] == [("S", 1.0)]
    assert table(rig).shadows == ()
    assert rig.world.wrongs == []

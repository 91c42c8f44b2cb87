"""No instance at all is a legal wish of a variant whose requests may wait for one: the endpoint is InService, its table
has no target, and what comes is held by the gateway. Of any other variant at least one is wanted, always.
"""

from __future__ import annotations

import asyncio

import gateway_world
import pytest
from toyworld import KEY, Rig, fresh, wish

from eyrie.decide.endpoint import Update
from eyrie.decide.scaling import Observation, decide
from eyrie.domain.deployment import CapacitySize, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import CapacityChange, EndpointStatus
from eyrie.domain.errors import BadAmount
from eyrie.domain.scaling import AdjustmentType, Bounds, Breach, ScalingMemory, Step, StepScaling, TargetTracking

IN_SERVICE = EndpointStatus.IN_SERVICE
ROLLING = TrafficPolicy(Strategy.ROLLING, CapacitySize(SizeKind.CAPACITY_PERCENT, 50))


def emptied(count: int = 2) -> Rig:
    """An endpoint that came up and was scaled to zero."""
    rig = fresh()
    rig.endpoints.create(KEY, wish(("A", count), may_be_empty=True))
    rig.run_until(rig.in_status(IN_SERVICE))
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=0)])
    rig.run_until(rig.in_status(IN_SERVICE))
    return rig


def test_an_endpoint_without_instances_is_in_service_and_its_table_has_no_target() -> None:
    rig = emptied()
    endpoint = rig.endpoint()
    assert (endpoint.status, endpoint.instances) == (IN_SERVICE, ())
    assert [v.targets for v in rig.world.tables[KEY].variants] == [()]
    assert not rig.world.instances
    assert rig.world.wrongs == []


def test_it_comes_back_from_zero() -> None:
    rig = emptied()
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=3)])
    rig.run_until(rig.in_status(IN_SERVICE))
    assert [len(v.targets) for v in rig.world.tables[KEY].variants] == [3]


def test_it_stays_at_zero_whatever_time_passes_and_after_a_restart_of_control() -> None:
    rig = emptied()
    version = rig.store.get("Endpoint", KEY.scope, KEY.name)
    again = Rig(rig.store, rig.world, rig.clock, 7)
    again.run(60_000)
    assert again.store.get("Endpoint", KEY.scope, KEY.name) == version


def test_any_other_variant_needs_one_and_the_refusal_says_so() -> None:
    rig = fresh()
    rig.endpoints.create(KEY, wish(("A", 1)))
    rig.run_until(rig.in_status(IN_SERVICE))
    with pytest.raises(BadAmount, match="must be at least 1, and is 0"):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", count=0)])
    with pytest.raises(BadAmount, match="must be at least 0, and is -1"):
        emptied().endpoints.update_weights(KEY, [CapacityChange("A", count=-1)])


@pytest.mark.parametrize("policy", [TrafficPolicy(), ROLLING])
@pytest.mark.parametrize("retain", [True, False])
def test_an_update_at_zero_succeeds_and_starts_what_the_new_config_says(policy: TrafficPolicy, retain: bool) -> None:
    rig = emptied()
    rig.endpoints.update(KEY, Update(wish(("A", 2), config="new", may_be_empty=True), retain_all=retain, policy=policy))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().config_name == "new"
    assert [len(v.targets) for v in rig.world.tables[KEY].variants] == [0 if retain else 2]


def test_a_count_of_zero_is_not_carried_over_to_a_variant_that_needs_one() -> None:
    rig = emptied()
    rig.endpoints.update(KEY, Update(wish(("A", 2), config="new"), retain_all=True))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert len(rig.endpoint().instances) == 1


def test_an_endpoint_at_zero_can_be_deleted() -> None:
    rig = emptied()
    rig.endpoints.delete(KEY)
    rig.run_until(lambda: rig.endpoints.get(KEY) is None)
    assert KEY not in rig.world.tables


# --- scaling --------------------------------------------------------------------------------------------------------


def test_a_tracked_target_reaches_zero_only_where_that_is_legal() -> None:
    policy, idle = TargetTracking("track", 10.0), [0.0] * 15
    settled = ScalingMemory(bounds=(0, 5))
    for least, wanted in ((0, 0), (1, 1)):
        made = decide(Bounds(0, 5), [policy], Observation(3, {"track": idle}, None, least), settled, 10_000_000)
        assert made.capacity == wanted


def test_a_step_policy_comes_back_from_zero_and_a_minimum_is_kept() -> None:
    step = StepScaling("wake", AdjustmentType.CHANGE, (Step(0.0, None, 1),))
    seen = Observation(0, {"wake": Breach("HasBacklog", 1.0, 1.0)}, None, 0)
    assert decide(Bounds(0, 5), [step], seen, ScalingMemory(bounds=(0, 5)), 10_000_000).capacity == 1
    raised = decide(Bounds(2, 5), [], Observation(0, {}, None, 0), ScalingMemory(bounds=(0, 5)), 1)
    assert raised.capacity == 2


def test_bounds_hold_a_capacity_at_one_unless_told_otherwise() -> None:
    assert [Bounds(0, 5).held(0), Bounds(0, 5).held(0, 0), Bounds(2, 5).held(0, 0)] == [1, 0, 2]
    assert Bounds(0, 5).held(9, 0) == 5


# --- the gateway ----------------------------------------------------------------------------------------------------


def test_a_request_to_an_endpoint_without_targets_is_held_until_one_appears() -> None:
    async def scene() -> None:
        async with gateway_world.world() as world:
            world.publish({"A": (1.0, [])})
            asked = asyncio.ensure_future(world.invoke())
            await gateway_world.until(lambda: world.counter("held") == 1)
            assert not asked.done()
            one = await world.instance("i-1")
            world.publish({"A": (1.0, [one])})
            reply = await asked
            assert (reply.status, reply.body) == (200, b"i-1")

    asyncio.run(scene())


def test_where_none_appears_the_wait_ends_with_an_error() -> None:
    async def scene() -> None:
        async with gateway_world.world(hold_ms=100) as world:
            world.publish({"A": (1.0, [])})
            reply = await world.invoke()
            assert reply.status == 503
            assert "no instance" in reply.json()["Message"]

    asyncio.run(scene())

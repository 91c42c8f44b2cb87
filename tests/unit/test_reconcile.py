"""Creating, changing, healing and deleting an endpoint, decision by decision, in the toy world."""

from __future__ import annotations

from collections import Counter

import pytest
import toyworld
from toyworld import KEY, Rig, fresh, serving, wish

from eyrie.decide.endpoint import Update
from eyrie.domain.deployment import TrafficPolicy
from eyrie.domain.endpoint import CapacityChange, EndpointStatus
from eyrie.domain.errors import (
    BadAmount,
    EndpointBusy,
    EndpointExists,
    EndpointMissing,
    EndpointUnusable,
    VariantMissing,
    VariantTwice,
)
from eyrie.domain.fleet import InstanceState

IN_SERVICE, FAILED = EndpointStatus.IN_SERVICE, EndpointStatus.FAILED


def zones(rig: Rig, variant: str = "A") -> list[str]:
    return sorted(i.zone for i in rig.endpoint().instances if i.variant == variant)


def ids(rig: Rig, state: InstanceState) -> list[str]:
    return [i.instance_id for i in rig.endpoint().instances if i.state is state]


def routed(rig: Rig) -> set[str]:
    table = rig.world.tables[KEY]
    return {t.instance_id for v in table.variants for t in v.targets}


def test_create_starts_every_instance_spread_over_zones_and_serves_when_all_are_ready() -> None:
    rig = fresh()
    rig.endpoints.create(KEY, wish(("A", 2), ("B", 3)))
    assert rig.endpoint().status is EndpointStatus.CREATING
    rig.settle()
    assert KEY not in rig.world.tables  # nothing is served before all of it is
    took_ms = rig.run_until(rig.in_status(IN_SERVICE))
    assert took_ms < 1_500
    assert rig.whole()
    assert zones(rig, "A") == ["a", "b"]
    assert zones(rig, "B") == ["a", "b", "c"]
    assert all(n == 1 for n in rig.world.starts.values())


def test_in_service_waits_for_every_live_gateway() -> None:
    rig = fresh()
    rig.world.lazy_gateways = True
    rig.endpoints.create(KEY, wish(("A", 1)))
    rig.run(3_000)
    assert rig.endpoint().status is EndpointStatus.CREATING
    rig.world.read_tables(rig.world.gateways[:1])
    rig.run(1_000)
    assert rig.endpoint().status is EndpointStatus.CREATING
    rig.world.read_tables(rig.world.gateways)
    rig.run(1_000)
    assert rig.endpoint().status is IN_SERVICE


def test_a_gateway_that_lives_and_says_nothing_is_not_waited_for_for_ever() -> None:
    rig = fresh()
    rig.world.lazy_gateways = True
    rig.endpoints.create(KEY, wish(("A", 1)))
    took_ms = rig.run_until(rig.in_status(IN_SERVICE))
    assert toyworld.POLICY.ack_limit_ms <= took_ms < toyworld.POLICY.ack_limit_ms + 3_000


def test_missing_model_data_fails_the_creation_and_says_which() -> None:
    rig = fresh()
    rig.world.missing_urls.add("s3://b/m")
    rig.endpoints.create(KEY, wish(("A", 1)))
    rig.run_until(rig.in_status(FAILED))
    reason = rig.endpoint().failure_reason or ""
    assert reason.startswith('Failed to download model data for container "primary"')
    assert "s3://b/m" in reason
    assert not rig.world.starts


def test_a_container_that_never_answers_fails_the_creation_with_its_last_log_lines() -> None:
    rig = fresh()
    rig.world.silent_images.add("eyrie/xgboost")
    rig.endpoints.create(KEY, wish(("A", 1)))
    took_ms = rig.run_until(rig.in_status(FAILED))
    assert 60_000 <= took_ms <= 61_000
    reason = rig.endpoint().failure_reason or ""
    assert reason.startswith(
        "The primary container for production variant A did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint."
    )
    assert "It did not answer within 60 s: no answer." in reason  # with what the last ping saw
    assert "ValueError: this model does not load" in reason
    rig.run(10_000)
    assert rig.world.alive() == []
    assert rig.endpoint().instances == ()


def test_a_container_that_crashes_at_every_start_fails_the_creation_after_three() -> None:
    rig = fresh()
    rig.world.crashing_images.add("eyrie/xgboost")
    rig.endpoints.create(KEY, wish(("A", 1)))
    rig.run_until(rig.in_status(FAILED))
    assert sum(rig.world.starts.values()) == 3
    assert "exit status 1" in (rig.endpoint().failure_reason or "")


def test_a_refused_start_fails_the_creation_at_once() -> None:
    rig = fresh()
    rig.world.capacity = 1
    rig.endpoints.create(KEY, wish(("A", 2)))
    assert rig.run_until(rig.in_status(FAILED)) <= 400
    assert rig.endpoint().failure_reason == "the limit of 1 instances on this host is reached"
    rig.run(5_000)
    assert rig.world.alive() == []


def test_a_failed_endpoint_can_only_be_deleted() -> None:
    rig = fresh()
    rig.world.missing_urls.add("s3://b/m")
    rig.endpoints.create(KEY, wish(("A", 1)))
    rig.run_until(rig.in_status(FAILED))
    with pytest.raises(EndpointUnusable):
        rig.endpoints.update(KEY, Update(wish(("A", 1), config="config-2")))
    rig.endpoints.delete(KEY)
    rig.run_until(rig.gone)


def test_commands_are_refused_while_another_is_going_on() -> None:
    rig = fresh()
    rig.endpoints.create(KEY, wish(("A", 1)))
    with pytest.raises(EndpointExists, match='Cannot create already existing endpoint "arn:aws:sagemaker:'):
        rig.endpoints.create(KEY, wish(("A", 1)))
    with pytest.raises(EndpointBusy, match="Cannot update in-progress endpoint"):
        rig.endpoints.update(KEY, Update(wish(("A", 1))))
    with pytest.raises(EndpointBusy):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", count=2)])
    with pytest.raises(EndpointBusy):
        rig.endpoints.delete(KEY)


def test_bad_changes_are_named() -> None:
    rig = serving(("A", 1))
    with pytest.raises(VariantMissing, match='"Z"'):
        rig.endpoints.update_weights(KEY, [CapacityChange("Z", weight=1)])
    with pytest.raises(VariantTwice):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", weight=1), CapacityChange("A", count=1)])
    with pytest.raises(BadAmount, match="at least 1"):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", count=0)])
    with pytest.raises(BadAmount):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", weight=float("nan"))])
    with pytest.raises(EndpointMissing, match="Could not find endpoint"):
        rig.endpoints.delete(toyworld.EndpointKey("123456789012", "us-east-1", "none"))


def test_a_dead_instance_is_out_of_the_route_and_replaced_at_once() -> None:
    rig = serving(("A", 2))
    victim = ids(rig, InstanceState.READY)[0]
    rig.clock.ms += 60_000
    rig.world.kill(victim)
    rig.ping()
    rig.settle()
    assert victim not in routed(rig)
    assert len(ids(rig, InstanceState.STARTING)) == 1  # the replacement is under way in the same breath
    assert rig.run_until(rig.whole) <= 600
    assert zones(rig) == ["a", "b"]


def test_a_silent_instance_is_unrouted_replaced_beside_and_killed_when_the_replacement_is_ready() -> None:
    rig = serving(("A", 2))
    silent, healthy = ids(rig, InstanceState.READY)
    rig.world.instances[silent].hung = True
    rig.run_until(lambda: ids(rig, InstanceState.UNKNOWN) == [silent])
    assert routed(rig) == {healthy}
    assert rig.world.instances[silent].alive
    assert len(ids(rig, InstanceState.STARTING)) == 1
    rig.run_until(lambda: len(ids(rig, InstanceState.READY)) == 2)
    rig.run_until(rig.whole)
    assert silent not in rig.world.alive()


def test_a_silent_instance_that_answers_again_is_kept_and_the_replacement_dropped() -> None:
    rig = serving(("A", 2))
    rig.world.start_ms = 20_000
    silent = ids(rig, InstanceState.READY)[0]
    rig.world.instances[silent].hung = True
    rig.run_until(lambda: ids(rig, InstanceState.UNKNOWN) == [silent])
    rig.run(2_000)
    rig.world.instances[silent].hung = False
    rig.run_until(rig.whole)
    assert silent in routed(rig)
    assert len(rig.world.starts) == 3


def test_a_silent_instance_is_given_up_when_its_grace_ends() -> None:
    rig = serving(("A", 2))
    rig.world.silent_images.add("eyrie/xgboost")  # no replacement will ever answer
    silent = ids(rig, InstanceState.READY)[0]
    rig.world.instances[silent].hung = True
    rig.run_until(lambda: ids(rig, InstanceState.UNKNOWN) == [silent])
    rig.run(29_000)
    assert rig.world.instances[silent].alive
    rig.run(3_000)
    assert silent not in rig.world.alive()


def test_when_all_go_silent_the_prober_is_suspect_and_they_stay_routed() -> None:
    rig = serving(("A", 3))
    all_of_them = set(ids(rig, InstanceState.READY))
    rig.world.silent_images.add("eyrie/xgboost")
    for i in all_of_them:
        rig.world.instances[i].hung = True
    rig.run(60_000)
    assert set(ids(rig, InstanceState.UNKNOWN)) == all_of_them
    assert routed(rig) == all_of_them
    assert all(rig.world.instances[i].alive for i in all_of_them)
    assert len([i for i in rig.world.alive() if i not in all_of_them]) <= 1  # one replacement at a time
    for i in all_of_them:
        rig.world.instances[i].hung = False
    rig.run_until(rig.whole)
    assert set(routed(rig)) == all_of_them


def test_a_crash_loop_backs_off_and_the_endpoint_says_why_until_it_is_whole() -> None:
    rig = serving(("A", 1))
    rig.clock.ms += 60_000
    rig.world.crashing_images.add("eyrie/xgboost")
    rig.world.kill(ids(rig, InstanceState.READY)[0])
    rig.run(60_000)
    starts = sum(rig.world.starts.values()) - 1
    assert 5 <= starts <= 8  # 0, 1, 2, 4, 8, 16 s apart, not one every 200 ms
    assert rig.endpoint().status is IN_SERVICE
    assert "did not pass the ping health check" in (rig.endpoint().trouble or "")
    assert any("backs off" in line for line in rig.told())
    rig.run(900_000, step_ms=1_000)
    starts = [i.requested_ms for i in rig.endpoint().instances]
    rig.world.crashing_images.clear()
    rig.run_until(rig.whole, limit_ms=400_000)
    rig.run(10_000)
    assert rig.endpoint().trouble is None
    assert rig.endpoint().backoffs == ()


def test_update_moves_all_traffic_from_blue_to_green_and_retires_blue() -> None:
    rig = serving(("A", 2))
    blue = set(ids(rig, InstanceState.READY))
    rig.endpoints.update(KEY, Update(wish(("A", 2), ("B", 1), config="config-2")))
    assert rig.endpoint().config_name == "config-1"
    seen: set[frozenset[str]] = set()

    def done() -> bool:
        seen.add(frozenset(routed(rig)))
        return rig.endpoint().status is IN_SERVICE

    rig.run_until(done)
    assert rig.endpoint().config_name == "config-2"
    assert rig.whole()
    assert seen == {frozenset(blue), frozenset(routed(rig))}  # never a mixture, never nothing
    assert not blue & set(rig.world.instances)


def test_a_green_fleet_that_fails_leaves_blue_serving_and_the_reason_behind() -> None:
    rig = serving(("A", 2))
    blue = set(ids(rig, InstanceState.READY))
    rig.world.crashing_images.add("broken")
    rig.endpoints.update(KEY, Update(wish(("A", 2), config="config-2", image="broken")))
    rig.run_until(rig.in_status(IN_SERVICE))
    endpoint = rig.endpoint()
    assert endpoint.config_name == "config-1"
    assert "did not pass the ping health check" in (endpoint.failure_reason or "")
    assert routed(rig) == blue
    assert rig.whole()
    rig.endpoints.update(KEY, Update(wish(("A", 1), config="config-3")))
    assert rig.endpoint().failure_reason is None
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.whole()


def test_update_may_retain_counts_and_weights() -> None:
    rig = serving(("A", 1))
    rig.endpoints.update_weights(KEY, [CapacityChange("A", weight=5, count=2)])
    rig.run_until(rig.in_status(IN_SERVICE))
    fleet = wish(("A", 1), config="config-2")
    rig.endpoints.update(KEY, Update(fleet, retain_all=True, exclude_retained=["DesiredWeight"]))
    rig.run_until(rig.in_status(IN_SERVICE))
    (variant,) = rig.endpoint().fleet.variants
    assert (variant.desired_count, variant.desired_weight) == (2, 1.0)
    assert rig.whole()


def test_bake_and_termination_wait_are_kept() -> None:
    rig = serving(("A", 1))
    blue = ids(rig, InstanceState.READY)[0]
    waits = TrafficPolicy(bake_ms=10_000, termination_wait_ms=5_000)
    rig.endpoints.update(KEY, Update(wish(("A", 1), config="config-2"), policy=waits))
    rig.run_until(lambda: blue not in routed(rig))
    rig.run(14_000)
    assert blue in rig.world.alive()
    rig.run_until(rig.in_status(IN_SERVICE))
    assert blue not in rig.world.alive()


def test_weights_are_live_at_once_and_counts_follow() -> None:
    rig = serving(("A", 1), ("B", 1))
    rig.endpoints.update_weights(KEY, [CapacityChange("A", weight=9), CapacityChange("B", count=3)])
    assert rig.endpoint().status is EndpointStatus.UPDATING
    rig.settle()
    assert {v.name: v.weight for v in rig.world.tables[KEY].variants} == {"A": 9, "B": 1}
    rig.run_until(rig.in_status(IN_SERVICE))
    assert zones(rig, "B") == ["a", "b", "c"]
    rig.endpoints.update_weights(KEY, [CapacityChange("B", count=1)])
    rig.run_until(rig.in_status(IN_SERVICE))
    assert len(zones(rig, "B")) == 1
    assert rig.whole()


def test_a_count_that_cannot_be_had_goes_back_and_says_why() -> None:
    rig = serving(("A", 2))
    rig.world.capacity = 3
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=4)])
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().fleet.variants[0].desired_count == 2
    assert "limit of 3" in (rig.endpoint().failure_reason or "")
    rig.run_until(rig.whole)


def test_a_surplus_instance_is_stopped_only_when_its_last_request_is_answered() -> None:
    rig = serving(("A", 2))
    for gateway in rig.world.gateways:
        gateway.busy = set(ids(rig, InstanceState.READY))
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=1)])
    rig.run(5_000)
    (draining,) = ids(rig, InstanceState.DRAINING)
    assert draining in rig.world.alive()
    assert draining not in routed(rig)
    for gateway in rig.world.gateways:
        gateway.busy.clear()
    rig.run(1_000)
    assert draining not in rig.world.alive()
    assert rig.world.wrongs == []


def test_the_drain_limit_bounds_that_wait() -> None:
    rig = serving(("A", 2))
    for gateway in rig.world.gateways:
        gateway.busy = set(ids(rig, InstanceState.READY))
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=1)])
    took_ms = rig.run_until(lambda: len(rig.world.alive()) == 1)
    assert 30_000 <= took_ms <= 31_500


def test_no_instance_stops_before_every_live_gateway_has_acknowledged() -> None:
    rig = serving(("A", 2))
    rig.world.lazy_gateways = True
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=1)])
    rig.world.read_tables(rig.world.gateways[:1])
    rig.run(20_000)
    assert len(rig.world.alive()) == 2
    rig.world.gateways[1].live = False  # it died: nobody waits for it
    rig.world.read_tables(rig.world.gateways[:1])
    rig.run(1_000)
    assert len(rig.world.alive()) == 1


def test_one_that_ignores_its_stop_is_killed_even_if_the_timer_was_lost() -> None:
    rig = serving(("A", 2))
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=1)])
    rig.run_until(lambda: len(rig.world.alive()) == 1 or bool(ids(rig, InstanceState.DRAINING)))
    draining = next(i for i in rig.endpoint().instances if i.state is InstanceState.DRAINING)
    toy = rig.world.instances[draining.instance_id]
    toy.alive, toy.hung, toy.dies_ms = True, True, None  # as if the adapter's timer had died with control
    rig.run_until(lambda: len(rig.world.alive()) == 1, limit_ms=50_000)
    assert any("SIGKILL" in line for line in rig.told())


def test_delete_drains_stops_forgets_and_removes_the_archive() -> None:
    rig = serving(("A", 2))
    rig.endpoints.delete(KEY)
    assert rig.endpoint().status is EndpointStatus.DELETING
    rig.settle()
    assert KEY not in rig.world.tables
    rig.run_until(rig.gone)
    rig.settle()
    assert rig.world.instances == {}
    assert rig.world.archives == {}
    assert rig.store.outbox() == []
    assert rig.told()[-1].startswith("endpoint gone")


def test_a_name_may_be_used_again_and_its_route_is_newer() -> None:
    rig = serving(("A", 1))
    first = rig.world.tables[KEY].generation
    rig.endpoints.delete(KEY)
    rig.run_until(rig.gone)
    rig.endpoints.create(KEY, wish(("A", 1)))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.world.tables[KEY].generation > first
    assert rig.whole()


def test_scaling_in_leaves_the_zones_spread() -> None:
    rig = serving(("A", 5))
    assert Counter(zones(rig)) == {"a": 2, "b": 2, "c": 1}
    rig.endpoints.update_weights(KEY, [CapacityChange("A", count=3)])
    rig.run_until(rig.in_status(IN_SERVICE))
    assert zones(rig) == ["a", "b", "c"]


def test_after_a_restart_what_runs_is_adopted_and_nothing_is_started_twice() -> None:
    rig = serving(("A", 3))
    before = set(routed(rig))
    rig.world.kill(sorted(before)[0])
    again = Rig(rig.store, rig.world, rig.clock, seed=99)
    again.run_until(again.whole)
    assert len(before & set(routed(again))) == 2
    assert len(again.world.starts) == 4

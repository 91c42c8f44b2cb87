"""Deployments step by step in the toy world: what green gets of the traffic, when, and how each way back ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from toyworld import KEY, Rig, serving, wish

from eyrie.decide import rollout
from eyrie.decide.endpoint import Update
from eyrie.domain.alarms import AlarmState
from eyrie.domain.deployment import CapacitySize, Deployment, DeploymentPhase, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.fleet import Fleet, InstanceState, Variant

IN_SERVICE = EndpointStatus.IN_SERVICE
PERCENT, COUNT = SizeKind.CAPACITY_PERCENT, SizeKind.INSTANCE_COUNT
BAKE_MS = 10_000


def policy(strategy: Strategy, value: int = 0, kind: SizeKind = PERCENT, **more: object) -> TrafficPolicy:
    size = CapacitySize(kind, value) if value else None
    return TrafficPolicy(strategy, size, **{"bake_ms": BAKE_MS, **more})  # type: ignore[arg-type]


CANARY = policy(Strategy.CANARY, 10)
LINEAR = policy(Strategy.LINEAR, 30)
ROLLING = policy(Strategy.ROLLING, 25)
ALL = policy(Strategy.ALL_AT_ONCE)
EVERY = {"all at once": ALL, "canary": CANARY, "linear": LINEAR, "rolling": ROLLING}


def updating(rig: Rig, how: TrafficPolicy, *variants: tuple[str, int], image: str = "eyrie/xgboost") -> int:
    """Begin an update to config-2; green's generation."""
    rig.endpoints.update(KEY, Update(wish(*(variants or (("A", 4),)), config="config-2", image=image), policy=how))
    deployment = rig.endpoint().deployment
    assert deployment is not None
    return deployment.green.generation


def green_share(rig: Rig, green: int) -> float:
    table = rig.world.tables[KEY].variants
    return round(sum(v.weight for v in table if v.fleet == green) / sum(v.weight for v in table), 6)


def green_targets(rig: Rig, green: int) -> int:
    return sum(len(v.targets) for v in rig.world.tables[KEY].variants if v.fleet == green)


def phase(rig: Rig) -> DeploymentPhase | None:
    return rig.endpoint().pending_phase


def in_phase(rig: Rig, wanted: DeploymentPhase, step: int | None = None) -> Callable[[], bool]:
    def there() -> bool:
        deployment = rig.endpoint().deployment
        return deployment is not None and deployment.phase is wanted and step in (None, deployment.step)

    return there


def steps_of(rig: Rig, green: int) -> list[tuple[float, int, int, int]]:
    """Run an update to its end; at each bake: green's share, its targets, and both fleets' running instances."""
    seen: list[tuple[float, int, int, int]] = []
    for _ in range(2_000):
        if rig.endpoint().deployment is None:
            return seen
        rig.run(200)
        if phase(rig) is DeploymentPhase.BAKING:
            running = [i.fleet for i in rig.endpoint().instances if i.state is InstanceState.READY]
            blue_now, green_now = sum(f != green for f in running), sum(f == green for f in running)
            now = (green_share(rig, green), green_targets(rig, green), blue_now, green_now)
            if not seen or seen[-1] != now:
                seen.append(now)
    raise AssertionError(rig.told()[-5:])


def test_all_at_once_has_one_step() -> None:
    rig = serving(("A", 4))
    assert steps_of(rig, updating(rig, ALL)) == [(1.0, 4, 4, 4)]
    assert rig.endpoint().config_name == "config-2"
    assert rig.whole()


def test_a_canary_gets_its_share_on_few_instances_and_then_everything() -> None:
    rig = serving(("A", 4))
    assert steps_of(rig, updating(rig, CANARY)) == [(0.1, 1, 4, 4), (1.0, 4, 4, 4)]
    assert rig.whole()


def test_a_canary_may_be_counted_in_instances() -> None:
    rig = serving(("A", 4))
    assert steps_of(rig, updating(rig, policy(Strategy.CANARY, 2, COUNT)))[0] == (0.5, 2, 4, 4)


def test_linear_moves_in_equal_steps() -> None:
    rig = serving(("A", 4))
    assert steps_of(rig, updating(rig, LINEAR)) == [(0.3, 2, 4, 4), (0.6, 3, 4, 4), (0.9, 4, 4, 4), (1.0, 4, 4, 4)]


def test_rolling_moves_batches_and_never_runs_more_than_one_beyond_the_fleet() -> None:
    rig = serving(("A", 4))
    green = updating(rig, ROLLING)
    assert steps_of(rig, green) == [(0.25, 1, 4, 1), (0.5, 2, 3, 2), (0.75, 3, 2, 3), (1.0, 4, 1, 4)]
    assert rig.whole()


def test_each_bake_lasts_as_long_as_asked() -> None:
    rig = serving(("A", 2))
    updating(rig, CANARY, ("A", 2))
    rig.run_until(in_phase(rig, DeploymentPhase.BAKING, 1))
    took_ms = rig.run_until(in_phase(rig, DeploymentPhase.BAKING, 2))
    assert BAKE_MS <= took_ms < BAKE_MS + 1_500


def test_weights_of_several_variants_are_kept_within_each_share() -> None:
    rig = serving(("A", 2), ("B", 2))
    updating(rig, CANARY, ("A", 2), ("C", 2))
    rig.run_until(in_phase(rig, DeploymentPhase.BAKING, 1))
    weights = {(v.name, v.fleet): round(v.weight, 6) for v in rig.world.tables[KEY].variants}
    (blue, *_), green = [f.generation for f in rig.endpoint().fleets], rig.endpoint().fleets[1].generation
    assert weights == {("A", blue): 0.45, ("B", blue): 0.45, ("A", green): 0.05, ("C", green): 0.05}


@pytest.mark.parametrize("how", list(EVERY))
@pytest.mark.parametrize("when", [DeploymentPhase.PROVISIONING, DeploymentPhase.SHIFTING, DeploymentPhase.BAKING])
def test_an_alarm_gives_everything_back(how: str, when: DeploymentPhase) -> None:
    rig = serving(("A", 4))
    rig.world.alarms["errors"] = AlarmState.OK
    green = updating(rig, replace(EVERY[how], alarms=("errors",)))
    rig.world.lazy_gateways = when is DeploymentPhase.SHIFTING  # which acknowledge nothing for a while
    rig.run_until(in_phase(rig, when))
    rig.world.alarms["errors"] = AlarmState.ALARM
    rig.run(2_000)
    rig.world.lazy_gateways = False
    rig.world.read_tables(rig.world.gateways)
    rig.run_until(rig.in_status(IN_SERVICE))
    endpoint = rig.endpoint()
    assert endpoint.config_name == "config-1"
    assert "in ALARM: errors" in (endpoint.failure_reason or "")
    assert all(v.fleet != green for v in rig.world.tables[KEY].variants)
    assert rig.whole()


def test_an_alarm_that_rings_before_the_start_stops_it_before_any_instance_is_started() -> None:
    rig = serving(("A", 2))
    rig.world.alarms["errors"] = AlarmState.ALARM
    updating(rig, policy(Strategy.CANARY, 50, alarms=("errors",)), ("A", 2))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert sum(rig.world.starts.values()) == 2
    assert rig.endpoint().config_name == "config-1"


def test_an_alarm_while_blue_waits_for_its_end_still_gives_everything_back() -> None:
    rig = serving(("A", 2))
    green = updating(rig, policy(Strategy.ALL_AT_ONCE, alarms=("errors",), termination_wait_ms=30_000), ("A", 2))
    rig.run_until(in_phase(rig, DeploymentPhase.TERMINATION_WAIT))
    assert green_share(rig, green) == 1.0
    rig.world.alarms["errors"] = AlarmState.ALARM
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().config_name == "config-1"
    assert rig.whole()


@pytest.mark.parametrize("how", list(EVERY))
def test_a_green_that_never_becomes_healthy_is_rolled_back_with_its_reason(how: str) -> None:
    rig = serving(("A", 4))
    rig.world.crashing_images.add("other")
    updating(rig, EVERY[how], image="other")
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().config_name == "config-1"
    assert "did not pass the ping health check" in (rig.endpoint().failure_reason or "")
    assert rig.whole()


def test_the_time_limit_rolls_back() -> None:
    rig = serving(("A", 2))
    rig.world.silent_images.add("other")
    updating(rig, policy(Strategy.CANARY, 50, limit_ms=40_000), ("A", 2), image="other")
    took_ms = rig.run_until(rig.in_status(IN_SERVICE))
    assert "MaximumExecutionTimeoutInSeconds of 40" in (rig.endpoint().failure_reason or "")
    assert 40_000 <= took_ms < 60_000


def test_a_roll_back_asks_first_which_fleet_is_healthy() -> None:
    """Blue died while green held everything: green keeps the traffic until blue is back."""
    rig = serving(("A", 2))
    rig.world.alarms["errors"] = AlarmState.OK
    green = updating(rig, policy(Strategy.ALL_AT_ONCE, alarms=("errors",), bake_ms=60_000), ("A", 2))
    rig.run_until(in_phase(rig, DeploymentPhase.BAKING))
    rig.world.capacity = 0
    for instance in rig.endpoint().instances:
        if instance.fleet != green:
            rig.world.kill(instance.instance_id)
    rig.run(1_000)
    rig.world.alarms["errors"] = AlarmState.ALARM
    rig.run(1_500)
    assert green_share(rig, green) == 1.0
    assert green_targets(rig, green) == 2


def test_where_blue_cannot_come_back_the_update_says_so_and_green_goes_on() -> None:
    rig = serving(("A", 2))
    rig.world.alarms["errors"] = AlarmState.OK
    green = updating(rig, policy(Strategy.ROLLING, 50, alarms=("errors",)), ("A", 2))
    rig.run_until(in_phase(rig, DeploymentPhase.BAKING, 2))
    rig.world.capacity = 0
    rig.world.alarms["errors"] = AlarmState.ALARM
    rig.run_until(rig.in_status(EndpointStatus.UPDATE_ROLLBACK_FAILED))
    assert green_targets(rig, green) >= 1
    assert "could not be made whole" in (rig.endpoint().failure_reason or "")
    rig.endpoints.delete(KEY)
    rig.run_until(lambda: rig.endpoints.get(KEY) is None)
    assert not rig.world.instances


@pytest.mark.parametrize(
    ("strategy", "value", "kind", "count", "want"),
    [
        (Strategy.CANARY, 10, PERCENT, 4, [0.1, 1.0]),
        (Strategy.CANARY, 1, COUNT, 4, [0.25, 1.0]),
        (Strategy.LINEAR, 50, PERCENT, 4, [0.5, 1.0]),
        (Strategy.LINEAR, 1, COUNT, 3, [1 / 3, 2 / 3, 1.0]),
        (Strategy.LINEAR, 10, PERCENT, 1, [n / 10 for n in range(1, 11)]),
        (Strategy.ROLLING, 50, PERCENT, 3, [1 / 3, 2 / 3, 1.0]),
        (Strategy.ROLLING, 5, PERCENT, 40, [n / 20 for n in range(1, 21)]),
        (Strategy.ROLLING, 5, PERCENT, 1, [1.0]),
    ],
)
def test_the_shares_of_each_step(strategy: Strategy, value: int, kind: SizeKind, count: int, want: list[float]) -> None:
    spec = wish(("A", count)).variants[0]
    variant = Variant(spec, count, 1.0)
    green = Fleet(2, "c", "arn", (variant,), 0)
    now = Deployment(DeploymentPhase.PENDING, green, 0, 0, TrafficPolicy(strategy, CapacitySize(kind, value)))
    steps = rollout.steps(now.policy, green)
    found = [rollout.share(now, variant, step) for step in range(1, steps + 1)]
    assert found == pytest.approx(want)
    assert rollout.share(now, variant, 0) == 0.0
    assert rollout.active(now, variant, steps) == count

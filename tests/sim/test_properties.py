"""Seeds of the wind tunnel: faults, loads and policies drawn at random; safety all the while, rest when faults stop.

EYRIE_SIM_SEEDS=500 runs more of them than `make test` does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from worlds import AWS, FAST, PROFILE, STEPS, ours

from eyrie.sim import check, faults, traffic
from eyrie.sim.fleet import Unsafe
from eyrie.sim.ours import Ours
from eyrie.sim.policy import Policy, Sight, Wish
from eyrie.sim.run import Experiment, ScalingAction, run
from eyrie.sim.traffic import Traffic

SEEDS = int(os.environ.get("EYRIE_SIM_SEEDS", "6"))
SECONDS = 400


def drawn_traffic(chance: random.Random) -> Traffic:
    high = chance.uniform(20, 300)
    low = high * chance.random() * 0.5
    shapes: list[Callable[[], Traffic]] = [
        lambda: traffic.poisson(high, SECONDS),
        lambda: traffic.on_off(high, low, SECONDS, chance.randint(20, 200), chance.randint(20, 200)),
        lambda: traffic.flash_crowd(low, high, SECONDS, 120, 10, 120, 60),
        lambda: traffic.diurnal(low, high, SECONDS, period_s=400, peak_s=200),
    ]
    return chance.choice(shapes)()


def drawn(seed: int) -> tuple[Experiment, Ours]:
    chance = random.Random(f"experiment {seed}")
    low = chance.randint(1, 3)
    experiment = Experiment(
        traffic=drawn_traffic(chance),
        profile=replace(PROFILE, startup_s=chance.choice([1.0, 8.0, 40.0])),
        minimum=low,
        maximum=low + chance.randint(1, 8),
        seed=seed,
        faults=faults.drawn(seed, SECONDS, an_hour=chance.choice([0, 20, 60])),
    )
    return experiment, ours(chance.choice([AWS, FAST, STEPS]))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_bounds_hold_and_nothing_is_ended_that_must_not_be(seed: int) -> None:
    experiment, policy = drawn(seed)
    check.safe(experiment, policy)


@pytest.mark.parametrize("seed", range(SEEDS // 4))
def test_when_faults_stop_the_fleet_settles(seed: int) -> None:
    experiment, policy = drawn(1000 + seed)
    check.converges(experiment, policy)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(SEEDS, SEEDS + 150))
def test_many_more_seeds(seed: int) -> None:
    experiment, policy = drawn(seed)
    check.converges(experiment, policy)


def test_the_same_seed_is_the_same_run() -> None:
    experiment, _ = drawn(3)
    one, two = (run(experiment, ours(FAST)) for _ in range(2))
    assert (one.actions, one.serving, one.arrived, one.minutes) == (two.actions, two.serving, two.arrived, two.minutes)
    other = run(replace(experiment, seed=99), ours(FAST))
    assert other.arrived != one.arrived


class Rogue:
    """Wants what nobody may have."""

    name = "rogue"
    waits = False

    def __init__(self, counts: list[int]) -> None:
        self._counts = counts

    def look(self, now_ms: int, sight: Sight) -> Wish | None:
        return Wish(self._counts.pop(0), "because") if self._counts else None


def test_the_checks_see_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(traffic.poisson(50, 60), PROFILE, minimum=1, maximum=5)
    with pytest.raises(AssertionError, match="outside 1 to 5"):
        check.safe(experiment, Rogue([3, 6]))
    monkeypatch.setattr(check, "SETTLE_S", 20)
    monkeypatch.setattr(check, "CALM_S", 20)
    restless: Policy = Rogue([2, 1] * 2000)
    with pytest.raises(AssertionError, match="the wish still changes"):
        check.converges(experiment, restless)
    policy = ours(FAST)
    shrinks = [ScalingAction(10, 4, 3, "in"), ScalingAction(30, 3, 2, "in")]
    with pytest.raises(AssertionError, match="within one cool-down of 60 s"):
        check.cooled(shrinks, policy)


def test_the_world_sees_a_stop_that_must_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    from eyrie.sim.run import Tunnel

    tunnel = Tunnel(Experiment(traffic.poisson(50, 60), PROFILE), ours(FAST))
    only = tunnel.fleet.routed()[0]
    with pytest.raises(Unsafe, match="while it is in the route"):
        tunnel.fleet._stopped(only)
    monkeypatch.setattr(tunnel.fleet, "routed", list)
    with pytest.raises(Unsafe, match="the last one that answers"):
        tunnel.fleet._stopped(only)

"""Rollouts in the wind tunnel: seeds of policies, faults, alarms, crashes of control and people's commands, drawn at
random. Whatever happens: never zero healthy capacity by our own action, never more on green than the policy allows, one
deployment at a time, roll-back possible until blue is retired, and an end.

20 seeds are run by `make test`, 2,000 by `make test-heavy`, and as many as one likes by
`EYRIE_SIM_SEEDS=10000 pytest -n 2 tests/sim/test_rollouts.py`.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from eyrie.decide import rollout as arithmetic
from eyrie.decide.steering import Steer
from eyrie.domain.alarms import AlarmState
from eyrie.domain.analysis import AnalysisPolicy
from eyrie.domain.deployment import CapacitySize, Deployment, DeploymentPhase, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.errors import EndpointBusy, EndpointUnusable, Refused
from eyrie.domain.fleet import COUNTED
from eyrie.sim import faults, traffic
from eyrie.sim.faults import Fault, Kind
from eyrie.sim.meter import Meter
from eyrie.sim.profile import InstanceProfile
from eyrie.sim.rollout import KEY, Behaviour, Rollout, RolloutFleet, RolloutRun, over, run
from eyrie.sim.run import EPOCH_MS

SEEDS = int(os.environ.get("EYRIE_SIM_SEEDS", "20"))
HEAVY_SEEDS = 2_000
FOUND = (
    2314,  # that once went wrong: green's only instance died in the bake, and blue drained all the same
    7194,  # green's only instance hung two pings before blue drained, or died in the same moment: blue has gone by then
    7598,
)
TROUBLE_S = 90  # faults strike for so long
DECIDED_S = 1_000
LIMIT_S = 6_000  # by then it must have ended
PROFILE = InstanceProfile(service_ms=50, slots=2, startup_s=4, drain_s=1)
_ROLLBACK = frozenset({DeploymentPhase.PROVISIONING, DeploymentPhase.SHIFTING, DeploymentPhase.BAKING})


@dataclass
class Draw:
    """What one seed is made of."""

    rollout: Rollout
    faults: list[Fault]
    alarm_s: int | None  # an alarm rings
    crashes: list[tuple[int, int]]  # of control: when, for how many milliseconds
    commands: list[tuple[int, Steer]]
    lag_ms: int  # of a gateway worker at the most
    seen: Counter[str] = field(default_factory=Counter)


def drawn_policy(chance: random.Random, count: int) -> TrafficPolicy:
    strategy = chance.choice(list(Strategy))
    low, high = arithmetic.BOUNDS_PERCENT.get(strategy, (0, 0))
    size = CapacitySize(SizeKind.CAPACITY_PERCENT, chance.randint(max(low, 10), high)) if high else None
    analysed = high and chance.random() < 0.5 and count > 1
    analysis = AnalysisPolicy(samples_min=100, latency=0.3, errors=0.1, predictions=0.3, pause_limit_ms=120_000)
    back = chance.choice([None, CapacitySize(SizeKind.CAPACITY_PERCENT, chance.randint(20, 100))])
    return TrafficPolicy(
        strategy,
        size,
        bake_ms=1000 * chance.choice([1, 5, 20]),
        termination_wait_ms=1000 * chance.choice([0, 10]) if strategy is not Strategy.ROLLING else 0,
        limit_ms=1000 * chance.choice([0, 0, 400, 1_000]),
        alarms=("alarm",),
        rollback_size=back if strategy is Strategy.ROLLING else None,
        analysis=analysis if analysed else None,
    )


def drawn(seed: int) -> Draw:
    chance = random.Random(f"rollout {seed}")
    count = chance.randint(1, 5)
    policy = drawn_policy(chance, count)
    made = Rollout(
        traffic.poisson(chance.choice([2.0, 8.0]), 1),
        policy,
        count,
        replace(PROFILE, startup_s=chance.choice([1.0, 4.0])),
        green=Behaviour(chance.choice([1.0, 1.0, 2.0]), chance.choice([0.0, 0.0, 0.6]), chance.choice([0.0, 0.0, 0.5])),
        seed=seed,
    )
    moments = [chance.randint(0, TROUBLE_S) for _ in range(8)]
    kinds = [Kind.KILL, Kind.HANG, Kind.REFUSE, Kind.CRASH, Kind.SLOW]
    return Draw(
        made,
        [Fault(chance.choice(kinds), at, chance.choice([3.0, 15.0, 40.0])) for at in moments[: chance.randint(0, 3)]],
        moments[3] if chance.random() < 0.3 else None,
        [(at, chance.choice([1_000, 8_000, 30_000])) for at in moments[4 : 4 + chance.randint(0, 3)]],
        [(moments[7], chance.choice(list(Steer)))] if chance.random() < 0.4 else [],
        chance.choice([0, 500, 4_000]),
    )


def play(draw: Draw) -> RolloutRun:
    """A whole run, looked at after every second. Raises where something is wrong."""
    chance, meter = random.Random(f"faults {draw.rollout.seed}"), Meter(KEY, "AllTraffic")

    def then(fleet: RolloutFleet, second: int) -> None:
        fleet.lag_ms = lambda: chance.randint(0, draw.lag_ms)
        for fault in draw.faults:
            if fault.at_s == second:
                faults.strike(fault, fleet, meter, chance)
        for at_s, for_ms in draw.crashes:
            if at_s == second:
                fleet.crash(for_ms)
        fleet.alarms["alarm"] = AlarmState.ALARM if draw.alarm_s == second else AlarmState.OK
        for at_s, how in draw.commands:
            if at_s == second:
                command(fleet, how, draw.seen)
        if second == DECIDED_S and fleet.endpoint.deployment is not None and fleet.endpoint.deployment.pause:
            command(fleet, Steer.PROMOTE, draw.seen)  # in the end somebody looks
        safe(fleet, draw)
        assert second < LIMIT_S, f"not over after {second} s: {fleet.endpoint.pending_phase}"

    found = run(draw.rollout, then)
    assert found.outcome != "UNFINISHED"
    draw.seen[found.outcome] += 1
    return found


def command(fleet: RolloutFleet, how: Steer, seen: Counter[str]) -> None:
    try:
        fleet.steer(how)
        seen[str(how)] += 1
    except Refused:
        seen[f"{how} refused"] += 1


def safe(fleet: RolloutFleet, draw: Draw) -> None:
    """What must hold at every moment (sim/fleet raises for stops that must not be, decide/check for each decision)."""
    deployment = fleet.endpoint.deployment
    if deployment is None:
        return
    with pytest.raises((EndpointBusy, EndpointUnusable)):
        fleet.begin()  # one deployment at a time
    dealt(fleet, deployment)
    counts = {
        name: sum(i.fleet == generation and i.state in COUNTED for i in fleet.endpoint.instances)
        for name, generation in (("blue", fleet.endpoint.fleet.generation), ("green", deployment.green.generation))
    }
    if deployment.phase in _ROLLBACK and fleet.endpoint.status is EndpointStatus.UPDATING:
        # control gives no instance of what it may have to go back to away; what faults took is being replaced
        ended_by_us = draw.rollout.policy.strategy is Strategy.ROLLING
        least = draw.rollout.count
        assert counts["blue"] + (counts["green"] if ended_by_us else 0) >= least or troubled(fleet, draw), counts
    draw.seen["looks"] += 1


def troubled(fleet: RolloutFleet, draw: Draw) -> bool:
    """Instances that ended by themselves are not replaced at once while control is away or starts back off."""
    struck = [f.at_s for f in draw.faults if f.kind in (Kind.KILL, Kind.CRASH, Kind.HANG, Kind.REFUSE)]
    return bool(struck) and (fleet.now_ms - EPOCH_MS) / 1000 >= min(struck)


def dealt(fleet: RolloutFleet, deployment: Deployment) -> None:
    """By every worker's own table: green's weight there is what its step allows, or an older step's."""
    green = deployment.green.generation
    for worker in fleet.workers:
        if worker.route is None or deployment.phase not in _ROLLBACK:
            continue
        total = sum(v.weight for v in worker.route.variants)
        part = sum(v.weight for v in worker.route.variants if v.fleet == green) / total
        allowed = max(arithmetic.share(deployment, v, deployment.step) for v in deployment.green.variants)
        assert part <= allowed + 1e-9, f"a worker gives green {part:.3f} where {allowed:.3f} is allowed"


@pytest.mark.parametrize("seed", [*range(SEEDS), *FOUND])
def test_whatever_happens_a_rollout_is_safe_and_ends(seed: int) -> None:
    play(drawn(seed))


@pytest.mark.heavy
@pytest.mark.timeout(3_600)
def test_two_thousand_seeds() -> None:
    seen: Counter[str] = Counter()
    for seed in range(HEAVY_SEEDS):
        draw = drawn(seed)
        try:
            play(draw)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        seen.update(draw.seen)
        if seed % 500 == 499:
            print(f"{seed + 1} of {HEAVY_SEEDS}: {dict(seen)}", flush=True)
    assert min(seen[outcome] for outcome in ("SUCCEEDED", "ROLLED_BACK", "promote", "abort", "pause")) > 50


CANARY = TrafficPolicy(
    Strategy.CANARY, CapacitySize(SizeKind.CAPACITY_PERCENT, 20), bake_ms=60_000, analysis=AnalysisPolicy()
)


def test_the_replay_of_a_good_green_ends_well_and_that_of_a_bad_one_costs_its_share_only() -> None:
    good = run(Rollout(traffic.poisson(200, 1), CANARY))
    assert good.outcome == "SUCCEEDED"
    assert good.failed == good.unserved == good.paused_s == 0
    assert good.peak == 8
    bad = run(Rollout(traffic.poisson(200, 1), CANARY, green=Behaviour(errors=0.5)))
    assert bad.outcome == "ROLLED_BACK"
    assert "errors FAIL" in bad.reason
    assert bad.failed == bad.failed_by_green < 0.2 * 0.5 * 200 * 30  # found long before its bake was over
    assert bad.took_s < 60


def test_a_replay_with_too_few_requests_pauses_and_comes_back() -> None:
    hasty = replace(CANARY, analysis=AnalysisPolicy(pause_limit_ms=120_000))
    found = run(Rollout(traffic.poisson(2, 1), hasty))
    assert found.outcome == "ROLLED_BACK"
    assert "nobody decided within 120 s" in found.reason
    assert 118 <= found.paused_s <= 122


def test_recorded_traffic_begins_anew_when_it_is_over() -> None:
    recorded = traffic.from_counts("recorded", [(0.0, 200.0), (1.0, 0.0)], 1)
    hasty = replace(CANARY, analysis=AnalysisPolicy(pause_limit_ms=60_000))
    assert run(Rollout(recorded, hasty)).outcome == "ROLLED_BACK"  # its last second goes on, in which nobody asks
    found = run(Rollout(recorded, hasty, again=True))
    assert (found.outcome, found.paused_s) == ("SUCCEEDED", 0)
    assert found.requests == pytest.approx(100 * found.took_s, rel=0.1)


def test_the_same_seed_is_the_same_rollout() -> None:
    one, two = (play(drawn(7)) for _ in range(2))
    assert one == two


def test_the_checks_see_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "share", lambda deployment, variant, step: 0.01)
    fleet = RolloutFleet(Rollout(traffic.poisson(5, 1), replace(CANARY, analysis=None)))
    assert not over(fleet) or fleet.endpoint.deployment is None
    monkeypatch.undo()
    fleet.begin()
    for second in range(30):
        fleet.advance(EPOCH_MS + 1000 * second)
    deployment = fleet.endpoint.deployment
    assert deployment is not None
    with pytest.raises(AssertionError, match="is allowed"):
        dealt(fleet, replace(deployment, step=0))

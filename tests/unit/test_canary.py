"""Canary analysis: what verdict the numbers get, and what a deployment makes of it in the toy world."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import log1p, sqrt

import pytest
from toyworld import KEY, Rig, serving, wish

from eyrie.control.endpoints import decode, encode
from eyrie.decide import check
from eyrie.decide.analysis import judge, told
from eyrie.decide.endpoint import Update
from eyrie.decide.rehearsal import rehearse
from eyrie.decide.steering import Steer
from eyrie.domain.analysis import (
    PAUSE_LIMIT_MS,
    AnalysisPolicy,
    Compared,
    Evidence,
    FleetSample,
    Pause,
    PausedBy,
    Verdict,
)
from eyrie.domain.deployment import CapacitySize, DeploymentPhase, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.errors import BadAmount, NoDeployment, NotInThisPhase
from eyrie.domain.metrics import Summary, bucket_of
from eyrie.domain.plan import Decision

POLICY = AnalysisPolicy()
BAKE_MS = 10_000
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
_Phase = DeploymentPhase


def fleet(count: int, ms: float = 50.0, errors: int = 0, label: float = 0.5, spread: float = 0.3) -> FleetSample:
    """So many answers, exactly spread: half of them fast, half slow; `label` of them the first of two labels."""
    latency = Summary()
    for factor in (1 - spread, 1 + spread):
        latency.add(1000 * ms * factor, count / 2)
    return FleetSample(latency, count, errors, {1: count * label, 2: count * (1 - label)})


def seen(blue: FleetSample, green: FleetSample) -> Evidence:
    return Evidence(blue, green, 0, {1: "yes", 2: "no"})


def verdicts(blue: FleetSample, green: FleetSample, policy: AnalysisPolicy = POLICY) -> list[Verdict]:
    return [f.verdict for f in judge(policy, seen(blue, green), 1, 1, 0).findings]


GOOD = seen(fleet(20_000), fleet(4_000))
BAD = seen(fleet(20_000), fleet(4_000, errors=400))
FEW = seen(fleet(900), fleet(99))


# --- the verdict ---


def test_alike_fleets_pass_once_there_are_enough_requests() -> None:
    assert verdicts(fleet(20_000), fleet(4_000)) == [PASS] * 3
    assert judge(POLICY, GOOD, 1, 1, 0).verdict is PASS


@pytest.mark.parametrize(
    ("green", "compared"),
    [
        (fleet(4_000, ms=65), Compared.LATENCY),
        (fleet(4_000, errors=160), Compared.ERRORS),
        (fleet(4_000, label=0.75), Compared.PREDICTIONS),
    ],
)
def test_what_is_worse_than_accepted_fails_by_itself(green: FleetSample, compared: Compared) -> None:
    found = judge(POLICY, seen(fleet(20_000), green), 1, 1, 0)
    assert found.verdict is FAIL
    assert {f.compared for f in found.findings if f.verdict is FAIL} == {compared}
    assert str(compared) in told(found)


def test_a_little_worse_than_blue_is_accepted_and_better_always_is() -> None:
    assert verdicts(fleet(40_000), fleet(40_000, ms=53, errors=200, label=0.55)) == [PASS] * 3
    assert verdicts(fleet(40_000, errors=900), fleet(40_000, ms=20)) == [PASS] * 3


def test_few_requests_are_inconclusive_and_it_is_told_how_many_are_missing() -> None:
    found = judge(POLICY, FEW, 1, 1, 0)
    assert found.verdict is INCONCLUSIVE
    assert all(f.verdict is INCONCLUSIVE and f.low is None for f in found.findings)
    assert [f.needed is not None and f.needed >= 401 for f in found.findings] == [True] * 3
    assert "fewer than 500" in told(found)


def test_no_evidence_at_all_is_inconclusive() -> None:
    found = judge(POLICY, None, 1, 1, 0)
    assert found.verdict is INCONCLUSIVE
    assert all(f.verdict is INCONCLUSIVE for f in found.findings)


def test_a_failure_that_is_certain_does_not_wait_for_the_samples_that_a_pass_needs() -> None:
    assert verdicts(fleet(1_000), fleet(120, errors=120))[1] is FAIL
    assert verdicts(fleet(1_000), fleet(120))[1] is INCONCLUSIVE


def test_a_difference_between_accepted_and_not_stays_inconclusive() -> None:
    found = judge(POLICY, seen(fleet(2_000), fleet(2_000, ms=55)), 1, 1, 0).findings[0]
    assert found.verdict is INCONCLUSIVE
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.1 < found.high


def test_numbers_are_compared_by_how_they_are_spread_not_by_their_mean() -> None:
    blue = FleetSample(numbers={bucket_of(x): 1_000.0 for x in (-1.0, 1.0)})
    green = FleetSample(numbers={bucket_of(x): 1_000.0 for x in (-100.0, 100.0)})
    only = AnalysisPolicy(latency=None, errors=None)
    assert verdicts(blue, green, only) == [FAIL]
    assert verdicts(blue, blue, only) == [PASS]


def test_replies_that_can_no_longer_be_read_are_a_shift_and_where_none_ever_could_nothing_is_known() -> None:
    only = AnalysisPolicy(latency=None, errors=None)
    blue, green = fleet(5_000), replace(fleet(3_500), unread=1_500.0)
    found = judge(only, seen(blue, green), 1, 1, 0).findings[0]
    assert found.verdict is FAIL
    assert found.detail == "cannot be read"
    assert verdicts(FleetSample(unread=5_000.0), FleetSample(unread=5_000.0), only) == [INCONCLUSIVE]


def test_the_label_that_moved_is_named() -> None:
    found = judge(POLICY, seen(fleet(20_000), fleet(4_000, label=0.8)), 1, 1, 0).findings[2]
    assert found.detail in ("label yes", "label no")
    assert abs(found.difference - 0.3) < 1e-9


def test_more_steps_ask_for_more_certainty() -> None:
    widths = []
    for steps in (1, 10):
        finding = judge(POLICY, GOOD, 1, steps, 0).findings[0]
        assert finding.low is not None
        assert finding.high is not None
        widths.append(finding.high - finding.low)
    assert widths[0] < widths[1]


# --- chance: how often it errs, looked at all the time ---


def drawn(chance: random.Random, count: int, latency: float, errors: float, label: float) -> Iterator[FleetSample]:
    """Answers that come in, a hundred at a time. Latencies are lognormal with half of their mean as spread."""
    sample, failed, labels, sigma = Summary(), 0, {1: 0.0, 2: 0.0}, sqrt(log1p(0.25))
    for so_far in range(1, count + 1):
        sample.add(50_000 * latency * chance.lognormvariate(-sigma * sigma / 2, sigma))
        failed += chance.random() < errors
        labels[1 + (chance.random() >= label)] += 1
        if so_far % 100 == 0:
            yield FleetSample(sample, so_far, failed, labels)


def ever(
    chance: random.Random, policy: AnalysisPolicy, green: tuple[float, float, float], count: int = 1_500
) -> set[Verdict]:
    """The verdicts that a run shows, looked at after every hundred requests; blue is (1, 2 % errors, half and half)."""
    pairs = zip(drawn(chance, count, 1.0, 0.02, 0.5), drawn(chance, count, *green), strict=True)
    return {judge(policy, seen(b, g), 1, 1, 0).verdict for b, g in pairs}


ALIKE = (1.0, 0.02, 0.5)
AT_THE_LIMIT = {  # exactly as much worse as is accepted: neither verdict is right
    "latency": (AnalysisPolicy(errors=None, predictions=None), (1.1, 0.02, 0.5)),
    "errors": (AnalysisPolicy(latency=None, predictions=None), (1.0, 0.03, 0.5)),
    "predictions": (AnalysisPolicy(latency=None, errors=None), (1.0, 0.02, 0.6)),
}


@pytest.mark.parametrize("runs", [20, pytest.param(2_000, marks=pytest.mark.heavy)])
@pytest.mark.timeout(1_800)
def test_alike_fleets_are_seldom_rolled_back(runs: int) -> None:
    chance = random.Random(20261121)
    strict = AnalysisPolicy(latency=0.0, errors=0.0, predictions=0.0)  # any difference at all would fail
    false = sum(FAIL in ever(chance, strict, ALIKE) for _ in range(runs))
    print(f"{false} of {runs} pairs of alike fleets failed where nothing worse is accepted")
    assert false <= 0.05 * runs


@pytest.mark.parametrize("name", AT_THE_LIMIT)
@pytest.mark.parametrize("runs", [10, pytest.param(2_000, marks=pytest.mark.heavy)])
@pytest.mark.timeout(1_800)
def test_what_is_exactly_at_the_limit_is_seldom_decided(name: str, runs: int) -> None:
    policy, green = AT_THE_LIMIT[name]
    chance = random.Random(5)
    found = [ever(chance, policy, green) for _ in range(runs)]
    failed, passed = sum(FAIL in each for each in found), sum(PASS in each for each in found)
    print(f"{name}: of {runs} at the limit {failed} failed and {passed} passed")
    assert failed <= 0.05 * max(runs, 20)
    assert passed <= 0.05 * max(runs, 20)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("green", "least"), [((1.3, 0.02, 0.5), 0.8), ((1.0, 0.06, 0.5), 0.65), ((1.0, 0.02, 0.7), 0.8)]
)
@pytest.mark.timeout(1_800)
def test_what_is_clearly_worse_is_found_within_1500_requests(green: tuple[float, float, float], least: float) -> None:
    chance = random.Random(6)
    found = sum(FAIL in ever(chance, POLICY, green) for _ in range(200))
    print(f"{green}: {found} of 200 found")
    assert found >= least * 200


# --- what a deployment makes of it ---


def policy(strategy: Strategy, value: int, **more: object) -> TrafficPolicy:
    size = CapacitySize(SizeKind.CAPACITY_PERCENT, value)
    hasty = replace(POLICY, pause_limit_ms=120_000)
    return TrafficPolicy(strategy, size, **{"bake_ms": BAKE_MS, "analysis": hasty, **more})  # type: ignore[arg-type]


EVERY = {
    "canary": policy(Strategy.CANARY, 10),
    "linear": policy(Strategy.LINEAR, 50),
    "rolling": policy(Strategy.ROLLING, 50),
}


def updating(rig: Rig, how: TrafficPolicy = EVERY["canary"], evidence: Evidence | None = None) -> None:
    rig.world.evidence = evidence
    rig.endpoints.update(KEY, Update(wish(("A", 4), config="config-2"), policy=how))


def in_phase(rig: Rig, phase: DeploymentPhase, step: int = 1) -> Callable[[], bool]:
    def there() -> bool:
        deployment = rig.endpoint().deployment
        return deployment is not None and (deployment.phase, deployment.step) == (phase, step)

    return there


def paused(rig: Rig) -> bool:
    deployment = rig.endpoint().deployment
    return deployment is not None and deployment.pause is not None


def settled(rig: Rig) -> str:
    rig.run_until(rig.in_status(EndpointStatus.IN_SERVICE), limit_ms=400_000, step_ms=5_000)
    assert rig.whole()
    assert rig.world.wrongs == []
    return rig.endpoint().config_name


@pytest.mark.parametrize("how", EVERY)
def test_a_green_that_proves_itself_is_promoted_by_itself(how: str) -> None:
    rig = serving(("A", 4))
    updating(rig, EVERY[how], GOOD)
    assert settled(rig) == "config-2"
    assert any("its analysis passed: latency PASS" in line for line in rig.told())
    assert not any("PAUSED" in line for line in rig.told())


@pytest.mark.parametrize("how", EVERY)
def test_a_green_that_fails_is_rolled_back_before_its_bake_is_over(how: str) -> None:
    rig = serving(("A", 4))
    updating(rig, EVERY[how], GOOD)
    rig.run_until(in_phase(rig, _Phase.BAKING))
    rig.world.evidence = BAD
    took_ms = rig.run_until(rig.in_status(EndpointStatus.IN_SERVICE))
    assert took_ms < BAKE_MS
    assert settled(rig) == "config-1"
    reason = rig.endpoint().failure_reason or ""
    assert "canary analysis failed at step 1" in reason
    assert "errors FAIL: green 10.00 %, blue 0.00 %" in reason


@pytest.mark.parametrize("how", EVERY)
def test_what_is_inconclusive_never_goes_on_by_itself_and_is_given_back_in_the_end(how: str) -> None:
    rig = serving(("A", 4))
    updating(rig, EVERY[how], FEW)
    rig.run_until(lambda: paused(rig))
    rig.run(100_000, step_ms=5_000)
    assert in_phase(rig, _Phase.BAKING)()
    assert settled(rig) == "config-1"
    assert "nobody decided within 120 s" in (rig.endpoint().failure_reason or "")
    assert sum("deployment PAUSED" in line for line in rig.told()) == 1


def test_a_person_promotes_what_is_inconclusive() -> None:
    rig = serving(("A", 4))
    updating(rig, evidence=FEW)
    rig.run_until(lambda: paused(rig))
    rig.endpoints.steer(KEY, Steer.PROMOTE, "the holiday is over")
    assert settled(rig) == "config-2"
    assert any("a person lets step 1 pass: the holiday is over" in line for line in rig.told())


def test_more_requests_decide_what_was_inconclusive() -> None:
    rig = serving(("A", 4))
    updating(rig, evidence=FEW)
    rig.run_until(lambda: paused(rig))
    rig.world.evidence = GOOD
    assert settled(rig) == "config-2"


def test_a_promotion_counts_for_one_step_only() -> None:
    rig = serving(("A", 4))
    updating(rig, policy(Strategy.LINEAR, 30), FEW)
    for step in (1, 2, 3):
        rig.run_until(in_phase(rig, _Phase.BAKING, step))
        rig.run_until(lambda: paused(rig))
        rig.endpoints.steer(KEY, Steer.PROMOTE)
    assert settled(rig) == "config-2"


@pytest.mark.parametrize("phase", [_Phase.PROVISIONING, _Phase.BAKING, _Phase.TERMINATION_WAIT])
def test_a_person_aborts_in_any_phase_until_blue_is_retired(phase: DeploymentPhase) -> None:
    rig = serving(("A", 4))
    updating(rig, policy(Strategy.CANARY, 10, termination_wait_ms=60_000), GOOD)
    rig.run_until(lambda: rig.endpoint().pending_phase is phase)
    rig.endpoints.steer(KEY, Steer.ABORT, "not today")
    assert settled(rig) == "config-1"
    assert rig.endpoint().failure_reason == "A person aborted it: not today."


@pytest.mark.parametrize("phase", [_Phase.PROVISIONING, _Phase.BAKING])
def test_a_person_pauses_and_lets_it_go_on(phase: DeploymentPhase) -> None:
    rig = serving(("A", 4))
    updating(rig, replace(EVERY["canary"], analysis=None))
    rig.run_until(lambda: rig.endpoint().pending_phase is phase)
    rig.endpoints.steer(KEY, Steer.PAUSE)
    rig.run(60_000, step_ms=5_000)
    assert rig.endpoint().pending_phase is phase
    rig.endpoints.steer(KEY, Steer.PROMOTE)
    assert settled(rig) == "config-2"


def test_a_pause_that_nobody_ends_is_given_back() -> None:
    rig = serving(("A", 4))
    updating(rig, replace(EVERY["canary"], analysis=None))
    rig.run_until(in_phase(rig, _Phase.BAKING))
    rig.endpoints.steer(KEY, Steer.PAUSE, "let me look")
    rig.clock.ms += PAUSE_LIMIT_MS - 10_000
    rig.run(5_000)
    assert in_phase(rig, _Phase.BAKING)()
    assert settled(rig) == "config-1"
    assert "paused (by a person: let me look)" in (rig.endpoint().failure_reason or "")


def test_a_second_pause_is_for_longer_and_keeps_its_reason() -> None:
    rig = serving(("A", 4))
    updating(rig, replace(EVERY["canary"], analysis=None))
    rig.run_until(in_phase(rig, _Phase.BAKING))
    for why, kept in (("lunch", "by a person: lunch"), ("", "by a person: lunch"), ("tea", "by a person: tea")):
        rig.clock.ms += 1_000
        rig.endpoints.steer(KEY, Steer.PAUSE, why)
        deployment = rig.endpoint().deployment
        assert deployment is not None
        assert deployment.pause == Pause(PausedBy.PERSON, rig.clock.ms, PAUSE_LIMIT_MS, kept)


def test_what_cannot_be_steered_is_refused() -> None:
    rig = serving(("A", 4))
    with pytest.raises(NoDeployment):
        rig.endpoints.steer(KEY, Steer.PROMOTE)
    updating(rig, policy(Strategy.CANARY, 10, termination_wait_ms=60_000), GOOD)
    with pytest.raises(NotInThisPhase, match="nothing waits"):
        rig.endpoints.steer(KEY, Steer.PROMOTE)
    rig.run_until(lambda: rig.endpoint().pending_phase is _Phase.TERMINATION_WAIT)
    with pytest.raises(NotInThisPhase, match="all traffic has been moved"):
        rig.endpoints.steer(KEY, Steer.PAUSE)
    rig.endpoints.steer(KEY, Steer.ABORT)
    rig.run_until(lambda: rig.endpoint().pending_phase is _Phase.ROLLING_BACK)
    with pytest.raises(NotInThisPhase, match="it ends already"):
        rig.endpoints.steer(KEY, Steer.ABORT)


def test_the_lint_refuses_a_step_that_was_not_proven() -> None:
    rig = serving(("A", 4))
    updating(rig, evidence=FEW)
    rig.run_until(lambda: paused(rig))
    before = rig.endpoint()
    assert before.deployment is not None
    onwards = replace(before.deployment, phase=_Phase.SHIFTING, step=2, pause=None)
    found = check.problems(before, Decision(replace(before, deployment=onwards)), rig.world.policy)
    assert "green goes on from step 1 and has not passed its analysis" in found


def test_an_analysis_needs_both_fleets_at_once_and_configs_that_tell_them_apart() -> None:
    rig = serving(("A", 4))
    with pytest.raises(BadAmount, match="ALL_AT_ONCE of 4 instances in one step"):
        rig.endpoints.update(KEY, Update(wish(("A", 4), config="config-2"), policy=TrafficPolicy(analysis=POLICY)))
    with pytest.raises(BadAmount, match="both are config-1"):
        rig.endpoints.update(KEY, Update(wish(("A", 4)), policy=EVERY["canary"]))
    late = replace(EVERY["canary"], analysis=replace(POLICY, warm_up_ms=BAKE_MS))
    with pytest.raises(BadAmount, match="WarmUpInSeconds is 10"):
        rig.endpoints.update(KEY, Update(wish(("A", 4), config="config-2"), policy=late))


def test_a_paused_deployment_is_stored_whole() -> None:
    rig = serving(("A", 4))
    updating(rig, evidence=FEW)
    rig.run_until(lambda: paused(rig))
    assert decode(encode(rig.endpoint())) == rig.endpoint()


def test_the_plan_tells_what_then_happens() -> None:
    rig = serving(("A", 4))
    for name, peak in (("canary", 8), ("linear", 8), ("rolling", 6)):
        rig = serving(("A", 4))
        updating(rig, EVERY[name], GOOD)
        plan = rehearse(rig.endpoint(), startup_ms=300)
        assert plan.peak.blue + plan.peak.green == peak
        assert (plan.steps, plan.starts) == (2, 4)
        assert [stage.judged for stage in plan.stages if stage.phase is _Phase.BAKING] == [True, False]
        began_ms, most = rig.clock.ms, 0
        while rig.endpoint().deployment is not None:
            rig.run(200)
            most = max(most, len(rig.world.alive()))
        assert most == peak
        assert abs(rig.clock.ms - began_ms - plan.takes_ms) < 3_000

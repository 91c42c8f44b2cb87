"""What explains trouble, on made-up worlds: the suspect that a person would name comes first, and honestly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from eyrie.control.insights import changes_of
from eyrie.decide.insights import Change, InstanceSeen, Kind, Signal, World, anomaly, insight
from eyrie.decide.log_templates import mined, template_of, unseen_before
from eyrie.domain.names import Scope
from eyrie.ports import Event

START = 1_700_000_000_000
PERIOD = 10_000
NOW = START + 3_600_000
T = START + 1_800_000  # when trouble begins


def series(before: float, after: float, noise: float = 0.0, at_ms: int = T, seed: int = 1) -> dict[int, float]:
    chance = random.Random(seed)
    return {
        at: max(0.0, (before if at < at_ms else after) * (1 + noise * chance.uniform(-1, 1)))
        for at in range(START, NOW, PERIOD)
    }


def errors(after: float, before: float = 0.0) -> Signal:
    return Signal("the share of requests that failed (5xx)", series(before, after), 2.0, " %", usual=0.0)


def latency(after: float, before: float = 40.0) -> Signal:
    return Signal("the model's latency (p90)", series(before, after, noise=0.2), 20.0, " ms")


def load(after: float, before: float = 100.0, at_ms: int = T) -> Signal:
    return Signal("requests a second", series(before, after, 0.1, at_ms), 5.0, is_load=True)


DEPLOYED = Change(T - 5_000, Kind.DEPLOYMENT, "UpdateEndpoint from one to two")
SCALED_IN = Change(T - 20_000, Kind.SCALED_IN, "from 4 to 2 instances")


def world(signals: Sequence[Signal], changes: Sequence[Change] = (), **more: object) -> World:
    return replace(World(NOW, PERIOD, signals, changes), **more)  # type: ignore[arg-type]


def lines(*told: tuple[int, str]) -> list[tuple[int, str, str]]:
    return [(at_ms, "v/i-1", text) for at_ms, text in told]


USUAL = [(START + n * 60_000, f"served request {n} in {n % 7}.5 ms") for n in range(50)]


def test_a_bad_deployment_is_named_first() -> None:
    said = mined(lines(*USUAL, (T + 1_000, "ValueError: X has 3 features, but 4 are expected")))
    fleet = [InstanceSeen("i-3", T - 4_000, 90, 80), InstanceSeen("i-4", T - 4_000, 90, 85)]
    found = insight(world([errors(90), latency(41)], [DEPLOYED], patterns=said, instances=fleet))
    first = found.explanations[0]
    assert (first.kind, first.certainty) == (Kind.DEPLOYMENT, "very likely")
    assert any("100% of the errors are on the 2 instances that came with it" in told for told in first.evidence)
    assert any("X has 3 features" in told for told in first.evidence)
    assert "UpdateEndpoint from one to two" in found.summary
    assert "no proof" in found.summary


def test_a_canary_is_told_by_its_own_instances() -> None:
    fleet = [InstanceSeen("old", START, 900, 2), InstanceSeen("new", T, 100, 60)]
    found = insight(world([errors(6)], [DEPLOYED], instances=fleet))
    assert found.explanations[0].certainty == "very likely"
    told = "97% of the errors are on the 1 instances that came with it, which have 10% of the requests: 60% of theirs"
    assert any(evidence.startswith(told) for evidence in found.explanations[0].evidence)


def test_errors_on_the_old_instances_speak_against_a_deployment() -> None:
    fleet = [InstanceSeen("old", START, 900, 300), InstanceSeen("new", T, 100, 1)]
    lost = Change(T - 8_000, Kind.LOST, "instance i-9 LOST", "its process ended")
    found = insight(world([errors(30)], [DEPLOYED, lost], instances=fleet))
    assert found.explanations[0].kind is Kind.LOST
    assert any(told.startswith("against it") for e in found.explanations[1:] for told in e.evidence)


def test_a_scale_in_explains_latency() -> None:
    found = insight(world([latency(400)], [SCALED_IN, Change(START, Kind.DEPLOYMENT, "CreateEndpoint")]))
    assert found.explanations[0].kind is Kind.SCALED_IN
    assert "The model's latency (p90) rose from" in found.summary


def test_load_explains_latency_where_nothing_was_changed() -> None:
    found = insight(world([latency(400), load(900)]))
    assert found.explanations[0].kind is Kind.LOAD
    assert found.explanations[0].what.startswith("requests a second rose from")


def test_load_that_the_endpoint_bears_is_no_trouble() -> None:
    found = insight(world([latency(40), load(900)]))
    assert found.explanations == ()
    assert "the endpoint coped" in found.summary


def test_of_two_changes_the_nearer_one_is_more_likely_and_neither_is_sure() -> None:
    weights = Change(T - 60_000, Kind.WEIGHTS, "weights")
    found = insight(world([errors(20)], [weights, replace(DEPLOYED, at_ms=T - 60_000)]))
    assert [e.kind for e in found.explanations] == [Kind.DEPLOYMENT, Kind.WEIGHTS]
    assert found.explanations[0].certainty in ("possible", "likely")
    far = insight(world([errors(20)], [weights, replace(DEPLOYED, at_ms=T - 1_500_000)]))
    assert far.explanations[0].kind is Kind.WEIGHTS


def test_what_was_changed_after_the_trouble_began_does_not_explain_it() -> None:
    found = insight(world([errors(20)], [replace(DEPLOYED, at_ms=T + 60_000)]))
    assert found.explanations == ()
    assert "Nothing that was recorded before explains it" in found.summary


def test_without_a_change_new_log_lines_are_what_there_is() -> None:
    said = mined(lines(*USUAL, (T - 3_000, "ConnectionError: features.internal:6379 refused"), (T, "other news")))
    found = insight(world([errors(20)], patterns=said))
    assert [e.kind for e in found.explanations] == [Kind.LOG]
    assert "features.internal" in found.explanations[0].what


def test_nothing_unusual_is_said_so() -> None:
    found = insight(world([errors(0), latency(41)], [DEPLOYED]))
    assert (found.anomalies, found.explanations) == ((), ())
    assert found.summary.startswith("Nothing unusual")


def test_an_alarm_without_an_anomaly_is_explained_by_its_time() -> None:
    found = insight(world([latency(41)], [DEPLOYED], alarm_ms=T + 20_000, alarm="too-slow"))
    assert found.explanations[0].kind is Kind.DEPLOYMENT
    assert "the alarm too-slow went off" in found.summary.lower()


def test_of_several_anomalies_an_alarm_is_about_the_one_before_it() -> None:
    early = Change(START + 600_000, Kind.DEPLOYMENT, "the first update")
    late = Change(T - 5_000, Kind.DEPLOYMENT, "the second update")
    points = series(0, 30)
    points.update(dict.fromkeys(range(START + 610000, START + 700000, PERIOD), 50.0))
    both = Signal("errors", points, 2.0, usual=0.0)
    found = insight(world([both], [early, late], alarm_ms=T + 60_000, alarm="a"))
    assert found.explanations[0].what == "the second update"


@pytest.mark.parametrize("seed", range(40))
def test_noise_is_no_anomaly(seed: int) -> None:
    assert anomaly(Signal("x", series(100, 100, noise=0.3, seed=seed), 20.0)) is None
    spike = series(100, 100, noise=0.1, seed=seed)
    spike[T] = 900.0  # a single point, as one slow request makes it
    assert anomaly(Signal("x", spike, 20.0)) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_step_is_found_where_it_is(seed: int) -> None:
    found = anomaly(Signal("x", series(100, 300, noise=0.2, seed=seed), 20.0))
    assert found is not None
    assert found.from_ms == T
    assert found.before == pytest.approx(100, rel=0.15)


def test_a_new_endpoint_has_what_is_usual_for_all() -> None:
    points = dict.fromkeys(range(T, NOW, PERIOD), 100.0)
    found = anomaly(Signal("errors", points, 2.0, usual=0.0))
    assert found is not None
    assert not found.known_before
    assert anomaly(Signal("latency", points, 20.0)) is None


def test_lines_alike_are_one_pattern() -> None:
    told = [f"user {n} from 10.0.0.{n} took {n}.5ms id=0af{n:05d}bc 'x{n}'" for n in range(10, 50)]
    found = mined((n, "s", text) for n, text in enumerate(told))
    assert [(p.count, p.first_ms, p.last_ms) for p in found] == [(40, 0, 39)]
    trace = "ERROR it failed\n  File a, line 3\nKeyError: 'age'"
    assert template_of(trace) == "ERROR it failed ... KeyError: <text>"
    assert template_of(trace.replace("3", "77").replace("age", "sex")) == template_of(trace)


def test_trouble_comes_first_among_new_patterns() -> None:
    found = mined(lines((1, "old"), (5, "hello"), (5, "hello"), (6, "it failed"), (7, "old")))
    assert [p.template for p in unseen_before(found, 5)] == ["it failed", "hello"]


def test_an_endpoints_story_tells_what_was_changed() -> None:
    told = [
        ("endpoint Creating", "CreateEndpoint with config one (v x 2 ml.m5.large)", Kind.DEPLOYMENT),
        ("instance i-1 READY", "/ping answered", None),
        ("endpoint Updating", "scaling policy p: v: count 4, weight 1", Kind.SCALED_OUT),
        ("endpoint InService", "every instance is READY", None),
        ("endpoint Updating", "UpdateEndpointWeightsAndCapacities: v: count 1, weight 1", Kind.SCALED_IN),
        ("endpoint Updating", "UpdateEndpointWeightsAndCapacities: v: count 1, weight 3", Kind.WEIGHTS),
        ("endpoint Updating", "UpdateEndpoint from one to config two (v x 1 ml.m5.large), CANARY", Kind.DEPLOYMENT),
        ("deployment SHIFTING", "step 1 of 2: green gets v 10%", Kind.DEPLOYMENT),
        ("instance i-2 LOST", "its lock is free", Kind.LOST),
    ]
    scope = Scope("1", "r")
    events = [Event("Endpoint", scope, "e", n, what, why) for n, (what, why, _) in enumerate(told)]
    found = {change.at_ms: change for change in changes_of(events)}
    assert {n: change.kind for n, change in found.items()} == {n: kind for n, (_, _, kind) in enumerate(told) if kind}
    assert found[7].what == found[6].what == told[6][1]


def test_failures_are_explained_before_slowness() -> None:
    created = Change(START, Kind.DEPLOYMENT, "CreateEndpoint")
    slow = Signal("the model's latency (p90)", series(40, 400, at_ms=START + 60_000), 20.0, " ms")
    found = insight(world([slow, replace(errors(90), gravity=2)], [created, DEPLOYED]))
    assert found.from_ms == T
    assert found.explanations[0].what == DEPLOYED.what


def test_an_update_soon_after_the_creation_is_named_before_it() -> None:
    created = Change(T - 30_000, Kind.DEPLOYMENT, "CreateEndpoint")
    fleet = [InstanceSeen("old", T - 20_000, 30, 0), InstanceSeen("new", T, 500, 500)]
    found = insight(world([errors(100)], [created, DEPLOYED], instances=fleet))
    assert found.explanations[0].what == DEPLOYED.what
    assert found.explanations[0].certainty == "very likely"

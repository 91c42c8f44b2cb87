"""Policies in the tunnel: files as the API takes them, the rivals' formulas, and what is made of a run."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worlds import AWS, FAST, PROFILE, RATE, STEPS, ours, tracking

from eyrie.cli import simulate
from eyrie.cli.errors import CommandError
from eyrie.domain.names import EndpointKey
from eyrie.domain.scaling import Bounds, FastTracking, TargetTracking
from eyrie.sim import many, policy_file, profile, report, traffic, tune
from eyrie.sim.faults import Kind, written
from eyrie.sim.fleet import VARIANT
from eyrie.sim.meter import Meter, Second
from eyrie.sim.policy import Fixed, Sight
from eyrie.sim.policy_file import PolicyError
from eyrie.sim.queue import Shape
from eyrie.sim.rivals import Hpa, Kpa
from eyrie.sim.run import KEY, Experiment, run
from eyrie.sim.words import Objective

NOW_MS = 1_800_000_000_000
FLAT: Shape = ()


def measured(in_flight: float, instances: int, now_ms: int = NOW_MS, seconds: int = 120) -> Meter:
    meter = Meter(KEY, VARIANT)
    slots = instances * PROFILE.slots
    for n in range(seconds):
        at_ms = now_ms - 1000 * (seconds - n)
        meter.take(Second(at_ms, 1, 1, 0, instances, instances, slots, min(in_flight, slots), in_flight, FLAT))
    return meter


def sight(in_flight: float, desired: int, ready: int | None = None, now_ms: int = NOW_MS) -> Sight:
    return Sight(measured(in_flight, ready or desired, now_ms), desired, ready or desired, 1, 100, False)


@pytest.mark.parametrize(
    ("in_flight", "desired", "wanted"),
    [
        (5.59, 4, 4),  # 0.70 of eight slots: on target
        (6.0, 4, 4),  # 0.75: within the tolerance
        (6.4, 4, 5),  # 0.80 / 0.70 x 4 = 4.57
        (8.0, 4, 6),  # all busy: 1 / 0.70 x 4 = 5.7
        (2.0, 4, 2),  # the first look knows of no higher wish
    ],
)
def test_hpa_is_kubernetes_formula(in_flight: float, desired: int, wanted: int) -> None:
    wish = Hpa().look(NOW_MS, sight(in_flight, desired))
    assert wish is not None
    assert wish.count == wanted


def test_hpa_shrinks_to_the_highest_wish_of_five_minutes_and_grows_by_a_bound() -> None:
    hpa = Hpa()
    assert hpa.look(NOW_MS, sight(5.6, 4)) is not None
    later = hpa.look(NOW_MS + 60_000, sight(2.0, 4, now_ms=NOW_MS + 60_000))
    assert later is not None
    assert later.count == 4
    assert hpa.look(NOW_MS + 61_000, sight(2.0, 4)) is None  # it looks every 15 s
    capped = Hpa().look(NOW_MS, sight(400.0, 2))
    assert capped is not None
    assert capped.count == 3  # utilisation is no more than 100 %
    coming = Hpa().look(NOW_MS, sight(4.0, 6, ready=2))  # 2 of 6 are ready: what comes counts as idle
    assert coming is not None
    assert coming.count == 6


@pytest.mark.parametrize(
    ("in_flight", "ready", "wanted"),
    [(2.79, 2, 2), (2.81, 2, 3), (14.0, 2, 10), (1.0, 8, 4), (0.0, 8, 4), (0.0, 1, 1)],
)
def test_kpa_is_knatives_formula(in_flight: float, ready: int, wanted: int) -> None:
    wish = Kpa(PROFILE.slots).look(NOW_MS, sight(in_flight, ready))
    assert wish is not None
    assert wish.count == wanted


def test_kpa_does_not_shrink_in_panic() -> None:
    kpa = Kpa(PROFILE.slots)
    up = kpa.look(NOW_MS, sight(14.0, 2))
    assert up is not None
    assert up.reason.startswith("panic")
    calm = kpa.look(NOW_MS + 30_000, sight(0.0, 10, now_ms=NOW_MS + 30_000))
    assert calm is not None
    assert calm.count == 10


# ---- files ----


def read(given: Any) -> policy_file.ScalingSetup:
    return policy_file.read("policy.json", json.dumps(given), EndpointKey("123456789012", "us-east-1", "e"), "v")


def test_a_file_is_what_the_api_takes() -> None:
    document = {
        "Name": "nightly",
        "ScalableTarget": {"MinCapacity": 2, "MaxCapacity": 9, "SuspendedState": {"DynamicScalingInSuspended": True}},
        "ScalingPolicies": [tracking(AWS)],
        "ScheduledActions": [
            {
                "ScheduledActionName": "night",
                "Schedule": "cron(0 22 * * ? *)",
                "Timezone": "Europe/Berlin",
                "ScalableTargetAction": {"MinCapacity": 1},
            }
        ],
    }
    setup = read(document)
    assert setup.name == "nightly"
    assert setup.bounds is not None
    assert (setup.bounds.lowest, setup.bounds.highest, setup.bounds.suspended.scale_in) == (2, 9, True)
    assert setup.scheduled[0].lowest == 1
    assert read(tracking(FAST)).records[0].name == "p"
    assert read([tracking(FAST)]).bounds is None
    assert [name for name, _ in read(STEPS).alarms] == ["out", "in"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"PolicyName": "p"}, "StepScaling lacks its configuration"),
        (tracking({**AWS, "TargetValue": 0}), "TargetValue must be a positive number"),
        (tracking({"TargetValue": 5}), "Exactly one of PredefinedMetricSpecification"),
        (tracking({**AWS, "TargetValue": "much"}), "targetValue"),
        (tracking({**AWS, "Colour": 1}) | {"Shape": 2}, "no parameter 'Shape'"),
        ({"ScalingPolicies": []}, "1 to 10 members"),
        ({"Policies": []}, "neither ScalingPolicies nor"),
        ({"ScalingPolicies": [tracking(AWS)], "Extra": 1}, "no 'Extra'"),
        ({"ScalingPolicies": [tracking(AWS)], "ScalableTarget": {"MinCapacity": 5, "MaxCapacity": 2}}, "above"),
        ({"ScalingPolicies": [tracking(AWS)], "ScalableTarget": {"MinCapacity": 5}}, "MinCapacity and MaxCapacity"),
        ({"ScalingPolicies": [3]}, "list of objects"),
        ({**STEPS, "Alarms": [{**STEPS["Alarms"][0], "AlarmActions": ["other"]}]}, "name no policy"),
        (
            {"ScalingPolicies": [tracking(AWS)], "ScheduledActions": [{"ScheduledActionName": "a", "Schedule": "x"}]},
            "policy.json",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_its_field(given: Any, names: str) -> None:
    with pytest.raises(PolicyError, match=names):
        read(given)


def test_no_json_is_refused() -> None:
    with pytest.raises(PolicyError, match="no JSON"):
        policy_file.read("policy.json", "{", EndpointKey("1", "r", "e"), "v")


def test_steps_follow_their_alarms() -> None:
    found = run(Experiment(traffic.poisson(60, 900), PROFILE, minimum=1, maximum=9), ours(STEPS))
    assert found.actions[0].after - found.actions[0].before == 2
    assert "is +" in found.actions[0].reason


def test_a_schedule_moves_the_bounds_when_its_time_has_come() -> None:
    action = {
        "ScheduledActionName": "soon",
        "Schedule": "at(2026-01-05T00:05:00)",
        "ScalableTargetAction": {"MinCapacity": 4},
    }
    document = {
        "ScalableTarget": {"MinCapacity": 1, "MaxCapacity": 9},
        "ScalingPolicies": [tracking(FAST)],
        "ScheduledActions": [action],
    }
    found = run(Experiment(traffic.poisson(10, 420), PROFILE, maximum=9), ours(document))
    assert [(a.at_s, a.after) for a in found.actions] == [(300, 4)]


# ---- what is made of it ----


@pytest.fixture(scope="module")
def flash() -> Experiment:
    crowd = traffic.flash_crowd(20, 150, 500, at_s=100, rise_s=10, hold_s=150, fall_s=60)
    return Experiment(crowd, PROFILE, Objective(99, 300), minimum=1, maximum=9)


def test_scaling_beats_what_does_not_scale(flash: Experiment) -> None:
    fast, few, most = run(flash, ours(FAST)), run(flash, Fixed(1)), run(flash, Fixed(9))
    assert few.outside_minutes > 3 > fast.outside_minutes > 0
    assert fast.instance_hours < 0.7 * most.instance_hours
    assert fast.cost_usd == pytest.approx(0.1 * fast.instance_hours)
    rows = {row.policy: row for row in report.rows([fast, few, most])}
    assert all(row.frontier for row in rows.values())
    worse = run(flash, Fixed(8))
    worse.policy = "worse"
    worse.paid[0] += 10**6
    assert not report.on_frontier(worse, [fast, few, most, worse])


@pytest.mark.heavy
def test_a_picture_needs_the_extra(flash: Experiment, tmp_path: Path) -> None:
    drawn = run(flash, Fixed(2))
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(report.NoPicture, match=r"eyrie\[sim\]"):
            report.png(tmp_path / "run.png", [drawn])
    else:
        report.png(tmp_path / "run.png", [drawn])
        assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_holds_everything_it_shows(flash: Experiment) -> None:
    found = run(flash, ours({"Name": "<b>mine</b>", "ScalingPolicies": [tracking(FAST)]}))
    page = report.page([found])
    assert "<b>mine" not in page
    assert "&lt;b&gt;mine" in page
    assert page.count("<svg") == page.count("</svg>") == 2
    assert "http" not in page
    assert found.actions[0].reason.split(" over")[0] in page


def test_tuning_finds_the_cheapest_that_keeps_the_objective() -> None:
    experiment = Experiment(traffic.poisson(100, 90), PROFILE, Objective(99, 250), maximum=9, initial=5)
    found = tune.tune(experiment, trials=5, plain=True)
    assert found.kept
    assert found.searched_by == "a grid"
    assert found.best.result.instance_hours == min(
        t.result.instance_hours for t in found.trials if t.result.outside_minutes <= 0
    )
    assert tune.tune(experiment, trials=5, plain=True).best.policy == found.best.policy
    assert read(found.best.policy).records
    hopeless = tune.tune(Experiment(traffic.poisson(500, 60), PROFILE, maximum=2), trials=2, plain=True)
    assert not hopeless.kept


def test_faults_are_read_and_refused() -> None:
    assert [f.kind for f in written("kill@5, hang@10:2")] == [Kind.KILL, Kind.HANG]
    with pytest.raises(ValueError, match="melt@3"):
        written("melt@3")


@pytest.mark.parametrize(("given", "names"), [({"slots": 0}, "slots"), ({"spin": 1}, "spin"), ({"slots": "a"}, "int")])
def test_a_wrong_profile_is_refused(given: dict[str, Any], names: str) -> None:
    with pytest.raises(profile.ProfileError, match=names):
        profile.changed(PROFILE, given)


# ---- very many ----


def test_what_is_left_out_would_have_changed_nothing() -> None:
    policy = TargetTracking("t", 0.7 * RATE * 60)
    low, high = many.quiet_band(policy)
    assert 0 < low < high
    assert high == pytest.approx(policy.target)
    crowd = many.Crowd(25, bounds=Bounds(1, 12))
    some, every = many.minutes(crowd, policy, 200), many_without_a_band(crowd, policy)
    assert (some.actions, some.instance_hours) == (every.actions, every.instance_hours)
    assert some.actions > 10
    assert some.decided < every.decided


def many_without_a_band(crowd: many.Crowd, policy: TargetTracking) -> many.Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "quiet_band", lambda _policy: (float("inf"), float("-inf")))
        return many.minutes(crowd, policy, 200)


def test_a_second_of_many_is_decided_each() -> None:
    found = many.seconds(many.Crowd(5), FastTracking("f", 0.7 * RATE), 700)
    assert found.decided == 5 * 700
    assert found.instance_hours >= 5 * 700 / 3600


def asked(tmp_path: Path, *policies: str) -> simulate.Asked:
    return simulate.Asked(
        data=tmp_path,
        endpoint=None,
        variant=None,
        policies=policies,
        traffic="poisson:100,duration=3m",
        profile="slots=4,startup_s=5",
        objective="p99=300ms",
        minimum=None,
        maximum=None,
        seed=1,
        faults="kill@30",
        png=None,
        page=tmp_path / "page.html",
        tune=None,
        trials=3,
    )


def test_the_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"Name": "mine", "ScalingPolicies": [tracking(FAST)]}))
    simulate.run(asked(tmp_path, str(policy), "hpa", "kpa:0.5", "fixed:3"))
    told = capsys.readouterr().out
    assert all(name in told for name in ("mine", "HPA", "KPA", "fixed 3", "poisson 100/s", "80 requests/s"))
    assert "<svg" in (tmp_path / "page.html").read_text()


def test_the_command_tunes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate.run(replace(asked(tmp_path), tune="aws", trials=2))
    told = capsys.readouterr().out
    assert "2 candidates by" in told
    assert json.loads(told[told.index("{") : told.rindex("}") + 1])["ScalingPolicies"][0]["PolicyName"]


@pytest.mark.parametrize(
    ("policies", "names"),
    [
        (("no.json",), "no.json cannot be read"),
        ((), "--policy FILE"),
        (("hpa:7",), "hpa:7"),
        (("fixed:99",), "fixed:99"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, policies: tuple[str, ...], names: str) -> None:
    with pytest.raises(CommandError, match=names) as caught:
        simulate.run(asked(tmp_path, *policies))
    assert caught.value.code == 2

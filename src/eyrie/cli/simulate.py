"""`eyrie simulate`: policies in the wind tunnel, side by side, before any of them touches production. Needs no Eyrie
that runs, unless the traffic or the instances are to be a running endpoint's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from eyrie.adapters.instance_types import load_instance_types
from eyrie.cli import rollout
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.recorded import RecordedEndpoint
from eyrie.cli.screen import show
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.sim import faults, policy_file, profile, report, traffic, tune, words
from eyrie.sim.fleet import VARIANT
from eyrie.sim.ours import Ours
from eyrie.sim.policy import Fixed, Policy
from eyrie.sim.profile import InstanceProfile
from eyrie.sim.rivals import Hpa, HpaSettings, Kpa, KpaSettings
from eyrie.sim.rollout import Behaviour
from eyrie.sim.run import KEY, Experiment, ExperimentError, Run, runs
from eyrie.sim.traffic import Traffic, TrafficError

FILE_BYTES_MAX = 64 * 1024 * 1024
ACTIONS_SHOWN = 20
RIVAL_TARGET = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    data: Path
    endpoint: str | None
    variant: str | None
    policies: Sequence[str]
    traffic: str
    profile: str | None
    objective: str
    minimum: int | None
    maximum: int | None
    seed: int
    faults: str | None
    png: Path | None
    page: Path | None
    tune: str | None
    trials: int
    rollout: Path | None = None
    green: str = ""
    runs: int = 1
    as_json: bool = False


def run(asked: Asked) -> None:
    """Simulate, and print what came of it. Raises CommandError."""
    if asked.rollout is not None:
        _replay(asked, asked.rollout)
        return
    try:
        experiment, setups = _experiment(asked)
        if asked.tune is not None:
            _tuned(asked, experiment)
            return
        found = runs(experiment, [_policy(name, setups.get(name), experiment) for name in asked.policies])
    except (TrafficError, ExperimentError, profile.ProfileError, policy_file.PolicyError, ValueError) as error:
        raise CommandError(str(error), code=2) from None
    if asked.as_json:
        print_document(_document(found))
    else:
        _print(found)
    _write(asked, found)


def _replay(asked: Asked, path: Path) -> None:
    """A deployment, on the traffic and the instances that are asked for."""
    endpoint = _endpoint(asked)
    plan, green = rollout.read(path), rollout.behaviour(asked.green)
    blue = Behaviour(errors=endpoint.errors() if endpoint is not None else 0.0)
    green = replace(green, errors=min(1.0, green.errors + blue.errors))
    try:
        blown, profile_ = _traffic(asked, endpoint), _profile(asked, endpoint)
    except (TrafficError, profile.ProfileError, ValueError) as error:
        raise CommandError(str(error), code=2) from None
    recorded = asked.traffic.partition(":")[0] == "recorded"
    rollout.simulate(plan, blown, profile_, blue, green, asked.seed, asked.runs, again=recorded, as_json=asked.as_json)


def _experiment(asked: Asked) -> tuple[Experiment, dict[str, policy_file.ScalingSetup]]:
    if not asked.policies and asked.tune is None:
        raise CommandError("--policy FILE (or hpa, kpa, fixed:N) must be given at least once, or --tune", code=2)
    setups = {name: _setup(Path(name)) for name in asked.policies if not _built_in(name)}
    bounds = [s.bounds for s in setups.values() if s.bounds is not None]
    minimum = asked.minimum or (max(1, bounds[0].lowest) if bounds else 1)
    maximum = asked.maximum or (bounds[0].highest if bounds else max(20, minimum))
    endpoint = _endpoint(asked)
    blown = _traffic(asked, endpoint)
    experiment = Experiment(
        traffic=blown,
        profile=_profile(asked, endpoint),
        objective=words.objective(asked.objective),
        minimum=minimum,
        maximum=maximum,
        seed=asked.seed,
        faults=faults.written(asked.faults or ""),
    )
    first = math.ceil(blown.rates[0] / experiment.profile.rate / RIVAL_TARGET)
    return replace(experiment, initial=min(max(first, minimum), maximum)), setups


def _setup(path: Path) -> policy_file.ScalingSetup:
    return policy_file.read(path.name, _text(path), KEY, VARIANT)


def _built_in(name: str) -> bool:
    return name in ("hpa", "kpa") or name.startswith(("hpa:", "kpa:", "fixed:"))


def _policy(name: str, setup: policy_file.ScalingSetup | None, experiment: Experiment) -> Policy:
    if setup is not None:
        return Ours(setup)
    kind, _, value = name.partition(":")
    try:
        number = float(value or RIVAL_TARGET)
    except ValueError:
        raise CommandError(f"--policy {kind}: {value[:40]!r} is no number", code=2) from None
    if kind == "fixed":
        if not experiment.minimum <= number <= experiment.maximum:
            raise CommandError(f"--policy {name}: not within {experiment.minimum} to {experiment.maximum}", code=2)
        return Fixed(int(number))
    if not 0 < number <= 1:
        raise CommandError(f"--policy {name}: the target is a share of an instance, above 0 and at most 1", code=2)
    if kind == "hpa":
        return Hpa(HpaSettings(target=number))
    return Kpa(experiment.profile.slots, KpaSettings(target=number))


def _traffic(asked: Asked, endpoint: RecordedEndpoint | None) -> Traffic:
    kind, _, rest = asked.traffic.partition(":")
    if kind == "recorded":
        if endpoint is None:
            raise CommandError("--traffic recorded needs --endpoint, and an Eyrie that runs", code=2)
        hours = words.seconds(rest, "recorded") / 3600 if rest else 24.0
        return endpoint.recorded(hours)
    path = Path(asked.traffic)
    if kind not in words.SHAPES and path.suffix == ".csv":
        return traffic.from_csv(path.name, _text(path).splitlines())
    return words.shape(asked.traffic)


def _profile(asked: Asked, endpoint: RecordedEndpoint | None) -> InstanceProfile:
    base = endpoint.profile() if endpoint is not None else InstanceProfile()
    given = asked.profile
    if given is None:
        return _priced(base, asked.data)
    if given.endswith(".json"):
        return _priced(profile.from_json(_text(Path(given)), base), asked.data)
    pairs = [word.partition("=") for word in given.split(",") if word.strip()]
    named = {name.strip(): value.strip() for name, _, value in pairs}
    return _priced(profile.changed(base, named), asked.data)


def _priced(given: InstanceProfile, data: Path) -> InstanceProfile:
    """With the price of its type where it has none of its own."""
    if given.usd_per_hour:
        return given
    try:
        price = load_instance_types(data).get(given.instance_type).usd_per_hour
    except UnknownInstanceType as error:
        raise CommandError(str(error), code=2) from None
    return replace(given, usd_per_hour=price or 0.0)


def _endpoint(asked: Asked) -> RecordedEndpoint | None:
    if asked.endpoint is None:
        return None
    return RecordedEndpoint(asked.data, asked.endpoint, asked.variant)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CommandError(f"{path} is larger than {FILE_BYTES_MAX} bytes", code=2)
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}", code=2) from None


def _print(found: Sequence[Run]) -> None:
    first = found[0].experiment
    print(
        f"{first.traffic.name}: {first.traffic.seconds / 3600:.4g} h, {found[0].requests:,.0f} requests; "
        f"{first.objective}; "
        f"{first.minimum} to {first.maximum} instances of {first.profile.rate:.4g} requests/s; seed {first.seed}"
    )
    show(compared(found))
    for one in found:
        if one.actions:
            print(f"\n{one.policy}: {len(one.actions)} scaling actions")
            show(acted(one))


def _document(found: Sequence[Run]) -> dict[str, Any]:
    """What was asked for and what came of it, for programs: a row a policy, with every action."""
    first = found[0].experiment
    policies = [
        {**asdict(row), "actions": [asdict(action) for action in one.actions]}
        for row, one in zip(report.rows(found), found, strict=True)
    ]
    return {
        "traffic": first.traffic.name,
        "seconds": first.traffic.seconds,
        "requests": round(found[0].requests),
        "objective": str(first.objective),
        "min": first.minimum,
        "max": first.maximum,
        "instance_rps": first.profile.rate,
        "seed": first.seed,
        "policies": policies,
    }


def compared(found: Sequence[Run]) -> Table:
    """One row a policy."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("policy", "instance-hours", "USD", "min outside", "late", "failed", "worst p", "actions", "most"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    table.add_column("frontier")
    for row in report.rows(found):
        cells = (f"{row.instance_hours:.2f}", f"{row.cost_usd:.2f}", f"{row.outside_minutes:.2f}", f"{row.late:,}")
        more = (f"{row.failed:,}", f"{row.worst_ms:.0f} ms", str(row.actions), str(row.most))
        table.add_row(row.policy, *cells, *more, "yes" if row.frontier else "")
    return table


def acted(one: Run) -> Table:
    """The first actions, with their reasons."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("at")
    table.add_column("instances")
    table.add_column("why")
    for action in one.actions[:ACTIONS_SHOWN]:
        table.add_row(report.clock(action.at_s), f"{action.before} -> {action.after}", action.reason)
    if len(one.actions) > ACTIONS_SHOWN:
        table.add_row("...", "", f"{len(one.actions) - ACTIONS_SHOWN} more (all of them in --html)")
    return table


def _tuned(asked: Asked, experiment: Experiment) -> None:
    found = tune.tune(experiment, asked.tune or "fast", asked.trials)
    best = sorted(found.trials, key=lambda t: t.rank)[:5]
    policy = {"ScalableTarget": _bounds(experiment), "ScalingPolicies": [found.best.policy]}
    if asked.as_json:
        others = [asdict(row) for row in report.rows([trial.result for trial in best])]
        told = {"candidates": len(found.trials), "searched_by": found.searched_by, "kept": found.kept}
        print_document({**_document([found.best.result]), "tuned": {**told, **policy, "best": others}})
        _write(asked, [found.best.result])
        return
    kept = "keeps the objective" if found.kept else "no candidate keeps the objective; this one comes nearest"
    print(f"{len(found.trials)} candidates by {found.searched_by}: the cheapest {kept}")
    _print([found.best.result])
    show(compared([trial.result for trial in best]))
    print(json.dumps(policy, indent=2))
    _write(asked, [found.best.result])


def _bounds(experiment: Experiment) -> dict[str, int]:
    return {"MinCapacity": experiment.minimum, "MaxCapacity": experiment.maximum}


def _write(asked: Asked, found: Sequence[Run]) -> None:
    try:
        if asked.page is not None:
            asked.page.write_text(report.page(found))
            _wrote(asked, asked.page)
        if asked.png is not None:
            report.png(asked.png, found)
            _wrote(asked, asked.png)
    except (OSError, report.NoPicture) as error:
        raise CommandError(str(error)) from None


def _wrote(asked: Asked, path: Path) -> None:
    """Said to people; a program knows what it asked for."""
    if not asked.as_json:
        print(f"written: {path}")

"""`eyrie simulate --rollout FILE`: a deployment in the wind tunnel, with an imagined green fleet, before a real one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.screen import show
from eyrie.control.canary_tags import analysis_policy
from eyrie.control.deployment_config import traffic_policy
from eyrie.domain.deployment import TrafficPolicy
from eyrie.domain.errors import BadAmount, Refused
from eyrie.sim.profile import InstanceProfile
from eyrie.sim.report import clock
from eyrie.sim.rollout import Behaviour, Rollout, RolloutRun, run
from eyrie.sim.traffic import Traffic
from eyrie.wire.errors import ApiError

RUNS_MAX = 10_000
FILE_BYTES_MAX = 1_048_576
_MEMBERS = frozenset({"DeploymentConfig", "CanaryAnalysis", "InstanceCount"})
_BOUNDS: Mapping[str, tuple[float, float]] = {"latency": (0.01, 1000), "errors": (0, 1), "shift": (-0.5, 0.5)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the file says."""

    policy: TrafficPolicy
    count: int


def read(path: Path) -> Plan:
    """The file of --rollout. Raises CommandError naming what is wrong in it."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CommandError(f"{path} is larger than {FILE_BYTES_MAX} bytes", code=2)
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"--rollout {path}: {error}", code=2) from None
    if not isinstance(given, dict) or not given.keys() <= _MEMBERS:
        raise CommandError(f"--rollout {path}: an object with {', '.join(sorted(_MEMBERS))} is wanted", code=2)
    count = given.get("InstanceCount", 4)
    if not isinstance(count, int) or not 1 <= count <= 1_000:
        raise CommandError(f"--rollout {path}: InstanceCount must be from 1 to 1000, and is {count!r}", code=2)
    try:
        policy = traffic_policy(given.get("DeploymentConfig"))
        analysis = analysis_policy(str(given["CanaryAnalysis"])) if "CanaryAnalysis" in given else None
    except ApiError as error:
        raise CommandError(f"--rollout {path}: {error.message}", code=2) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CommandError(
            f"--rollout {path}: the DeploymentConfig is not as UpdateEndpoint has it: {error!r}", code=2
        ) from None
    return Plan(replace(policy, analysis=analysis), count)


def behaviour(text: str) -> Behaviour:
    """`latency=1.2,errors=0.05,shift=0.1`. Raises CommandError naming field and value."""
    found: dict[str, float] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, _, value = word.partition("=")
        if name not in {f.name for f in fields(Behaviour)}:
            raise CommandError(f"--green: {name[:40]!r} is none of {', '.join(_BOUNDS)}", code=2)
        low, high = _BOUNDS[name]
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise CommandError(
                f"--green: {name} must be a number from {low:g} to {high:g}, and is {value[:40]!r}", code=2
            )
        found[name] = number
    return Behaviour(**found)


def simulate(
    plan: Plan,
    traffic: Traffic,
    profile: InstanceProfile,
    blue: Behaviour,
    green: Behaviour,
    seed: int,
    runs: int,
    again: bool = False,
    as_json: bool = False,
) -> None:
    """Run it, and print what came of it; `again`: as Rollout has it. Raises CommandError for a policy that the fleet
    cannot follow.
    """
    if not 1 <= runs <= RUNS_MAX:
        raise CommandError(f"--runs must be from 1 to {RUNS_MAX}, and is {runs}", code=2)
    first = Rollout(traffic, plan.policy, plan.count, profile, blue, green, seed=seed, again=again)
    try:
        found = [run(replace(first, seed=seed + n)) for n in range(runs)]
    except BadAmount as error:
        raise CommandError(str(error), code=2) from None
    except Refused as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_document(_document(first, found))
        return
    print(
        f"{traffic.name}; {plan.count} instances; green: latency x {green.latency:g}, errors {green.errors:.2%}, "
        f"predictions shifted {green.shift:.0%}; blue: errors {blue.errors:.2%}; seed {seed}"
    )
    if runs == 1:
        _story(found[0])
    show(_compared(found))


def _document(asked: Rollout, found: Sequence[RolloutRun]) -> dict[str, Any]:
    """What was asked for, and every run, for programs."""
    runs = [
        {
            **{f.name: getattr(one, f.name) for f in fields(one) if f.name != "story"},
            "story": [{"at_ms": at_ms, "what": note.what, "why": note.why} for at_ms, note in one.story],
        }
        for one in found
    ]
    return {
        "traffic": asked.traffic.name,
        "instances": asked.count,
        "blue": asdict(asked.blue),
        "green": asdict(asked.green),
        "seed": asked.seed,
        "runs": runs,
    }


def _story(one: RolloutRun) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("at", "what", "why"):
        table.add_column(name)
    for at_ms, note in one.story:
        if note.what.startswith(("deployment", "endpoint")):
            table.add_row(clock(at_ms // 1000), note.what, note.why)
    show(table)


def _compared(found: Sequence[RolloutRun]) -> Table:
    """One row an outcome."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("outcome", "runs", "time", "paused", "requests", "to green", "failed", "by green", "peak"):
        table.add_column(name, justify="left" if name == "outcome" else "right")
    outcomes: Counter[str] = Counter(each.outcome for each in found)
    for outcome, times in outcomes.most_common():
        of = [each for each in found if each.outcome == outcome]
        cells: list[Any] = [outcome, f"{times} ({times / len(found):.1%})", clock(_mean([r.took_s for r in of]))]
        cells += [clock(_mean([r.paused_s for r in of]))]
        for name in ("requests", "to_green", "failed", "failed_by_green"):
            cells.append(f"{_mean([getattr(r, name) for r in of]):,}")
        table.add_row(*cells, str(max(r.peak for r in of)))
    return table


def _mean(values: Sequence[int]) -> int:
    return round(sum(values) / len(values))

"""`eyrie deployment plan|show|promote|abort|pause ENDPOINT`: a person's hands on a deployment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.screen import show

FILE_BYTES_MAX = 1_048_576
_COLOURS = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "yellow"}
_DONE = {"promote": "promoted", "abort": "aborted", "pause": "paused"}


def plan(
    data: Path,
    endpoint: str,
    config: str,
    deployment_config: str | None,
    retain: bool,
    retain_all: bool,
    as_json: bool,
) -> None:
    """Print a plan; nothing is done. Raises CommandError where it cannot be followed, code 1 also for a peak that this
    Eyrie's limits do not allow.
    """
    given = _given(deployment_config) if deployment_config is not None else None
    found = _client(data).steer(
        endpoint,
        do="plan",
        config=config,
        deployment_config=given,
        retain_deployment_config=retain,
        retain_all_variant_properties=retain_all,
    )
    if as_json:
        print_document(found)
    else:
        _print_plan(found)
    if found["problems"]:
        raise CommandError("; ".join(found["problems"]))


def show_now(data: Path, endpoint: str, as_json: bool) -> None:
    """Print the deployment that is on its way. Raises CommandError where there is none."""
    found = _client(data).deployment(endpoint)
    if as_json:
        print_document(found)
    else:
        _print_now(found)


def steer(data: Path, endpoint: str, how: str, why: str, as_json: bool) -> None:
    """Do it. Raises CommandError where there is nothing to do it to, or it has come too far."""
    found = _client(data).steer(endpoint, do=how, why=why)
    if as_json:
        print_document(found)
    else:
        print(f"{endpoint}: {_DONE[how]} at step {found['step']} of {found['steps']} ({found['phase']})")


def _client(data: Path) -> ControlClient:
    return ControlClient(data, str(datadir.running_env(data)["region"]), timeout_s=60.0)


def _given(text: str) -> dict[str, Any]:
    """A DeploymentConfig in place, or of a file, as the AWS CLI takes it."""
    try:
        if text.startswith("file://"):
            path = Path(text.removeprefix("file://"))
            if path.stat().st_size > FILE_BYTES_MAX:
                raise CommandError(f"{path} is larger than {FILE_BYTES_MAX} bytes", code=2)
            text = path.read_text()
        given = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"--deployment-config: {error}", code=2) from None
    if not isinstance(given, dict):
        raise CommandError("--deployment-config: a JSON object is wanted", code=2)
    return given


def _print_plan(found: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("at", "phase", "step", "green's traffic", "blue", "green", "vCPU", "memory", "takes"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for stage in found["stages"]:
        table.add_row(
            _span(stage["begins_ms"]),
            stage["phase"] + (" (judged)" if stage["judged"] else ""),
            f"{stage['step']} of {found['steps']}",
            f"{stage['green_share']:.0%}",
            str(stage["blue"]),
            str(stage["green"]),
            f"{stage['vcpu_milli'] / 1000:g}",
            f"{stage['memory_mb'] / 1000:g} GB",
            _span(stage["takes_ms"]),
        )
    print(f"{found['endpoint']}: {found['from']} -> {found['to']}, {found['strategy']} in {found['steps']} steps")
    show(table)
    for line in _sentences(found):
        print(line)


def _sentences(found: dict[str, Any]) -> list[str]:
    peak, host = found["peak"], found["host"]
    measured = f"median of {found['startup_measured']} starts" if found["startup_measured"] else "assumed"
    limit = f"{host['instances_max']} instances" if host["instances_max"] else "no limit of instances (overcommitted)"
    lines = [
        f"Time: {_span(found['takes_ms'])} at least; a start takes {_span(found['startup_ms'])} ({measured}); "
        + (f"rolled back after {_span(found['limit_ms'])}." if found["limit_ms"] else "no limit of time."),
        f"Peak: {peak['blue'] + peak['green']} instances of this endpoint while {peak['phase']} (step {peak['step']}), "
        f"and {peak['others']} of others: {_size(peak['needed'])}.",
        f"Host: {_size(host)}, {limit}.",
    ]
    lines += [f"Note: {note}." for note in found["notes"]]
    lines.append(f"Alarms that roll back: {', '.join(found['alarms']) or 'none'}.")
    policy = found["analysis"]
    if policy is None:
        return [*lines, "Canary analysis: off (tag eyrie:CanaryAnalysis)."]
    limits = {"latency": policy["latency"], "errors": policy["errors"], "predictions": policy["predictions"]}
    told = ", ".join(f"{name} at most {limit:+.3g}" for name, limit in limits.items() if limit is not None)
    return [
        *lines,
        f"Canary analysis: {told}; at least {policy['samples_min']} requests of each fleet and step; a step that is "
        f"inconclusive waits for a person, {_span(policy['pause_limit_ms'])} at most.",
    ]


def _size(found: dict[str, Any]) -> str:
    return f"{found['vcpu_milli'] / 1000:g} vCPU, {found['memory_mb'] / 1000:g} GB"


def _print_now(found: dict[str, Any]) -> None:
    since = _span(found["now_ms"] - found["since_ms"])
    if found["phase"] == "BAKING":
        since += f" of {_span(found['bake_ends_ms'] - found['since_ms'])}"
    print(
        f"{found['endpoint']}: {found['from']} -> {found['to']}, {found['strategy']}: {found['phase']} for {since}, "
        f"step {found['step']} of {found['steps']}, green has {found['green_share']:.0%} of the traffic"
    )
    if found["failure"] or found["aborted"]:
        print(f"Rolled back: {found['failure'] or found['aborted']}")
    pause = found["pause"]
    if pause is not None:
        left = _span(max(0, pause["since_ms"] + pause["limit_ms"] - found["now_ms"]))
        who = f"by {pause['by']}" if pause["by"] == "analysis" else pause["why"]
        print(f"Paused {who}; rolled back in {left} otherwise.")
    if found["analysis"] is not None:
        show(_findings(found["analysis"]), whole=True)


def _findings(analysis: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("compared", "verdict", "blue", "green", "difference", "interval", "limit", "needed", ""):
        table.add_column(name, justify="left" if name in ("compared", "verdict", "") else "right")
    for row in analysis["findings"]:
        latency = row["compared"] == "latency"
        between = "unknown" if row["low"] is None else f"{row['low']:+.2%} to {row['high']:+.2%}"
        table.add_row(
            row["compared"],
            Text(row["verdict"], style=_COLOURS[row["verdict"]]),
            f"{_value(row['blue'], latency)} ({row['blue_count']:.0f})",
            f"{_value(row['green'], latency)} ({row['green_count']:.0f})",
            f"{row['difference']:+.2%}",
            between,
            f"{row['limit']:+.2%}",
            "" if row["needed"] is None else f"{row['needed']:.0f}",
            row["detail"],
        )
    return table


def _value(value: float, latency: bool) -> str:
    return f"{value / 1000:.2f} ms" if latency else f"{value:.2%}"


def _span(ms: float) -> str:
    """A time as people say it."""
    s = ms / 1000
    if s < 120:
        return f"{s:.3g} s"
    return f"{s / 60:.3g} min" if s < 7_200 else f"{s / 3600:.3g} h"

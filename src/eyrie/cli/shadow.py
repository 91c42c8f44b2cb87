"""`eyrie shadow report ENDPOINT`: a shadow's answers beside production's, with what is decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.screen import show

SLICES_SHOWN = 12  # those that agree least, of all features
_COLOURS = {"better": "bold green", "worse": "bold red", "undecided": "dim"}


def report(data: Path, endpoint: str, experiment: str | None, as_json: bool) -> None:
    """Print the report. Raises CommandError for an endpoint without a shadow."""
    region = str(datadir.running_env(data)["region"])
    found = ControlClient(data, region, timeout_s=60.0).shadow(endpoint, experiment or "")
    if as_json:
        print_document(found)
        return
    show(Text(_head(found)))
    show(_table(found), whole=True)
    if found["features"]:
        show(_slices(found), whole=True)
    show(Text("95 % intervals that hold however often you look. Latencies and predictions: of the pairs compared."))


def _head(found: dict[str, Any]) -> str:
    requests, experiment = found["requests"], found["experiment"]
    lines = [f"{found['endpoint']}: {found['shadow']} shadows {found['percent']:.3g} % of {found['production']}"]
    if experiment:
        lines.append(f"experiment {experiment['name']}: {experiment['status']}, {experiment['reason']}")
    dropped = ", ".join(f"{count} {why}" for why, count in requests["dropped"].items()) or "none"
    skipped = ", ".join(f"{count} {why}" for why, count in requests["not_compared"].items()) or "none"
    lines.append(f"copies answered or failed: {requests['sent']}; dropped: {dropped}; not readable: {skipped}")
    return "\n".join(lines)


def _table(found: dict[str, Any]) -> Table:
    table = Table(show_header=True)
    for name in ("", found["production"], found["shadow"], "difference", "interval", "verdict"):
        table.add_column(name, justify="left" if name in ("", "verdict") else "right")
    outcomes, latency = found["outcomes"], found["latency"]
    failed = outcomes["ProductionFailed"] + outcomes["BothFailed"], outcomes["ShadowFailed"] + outcomes["BothFailed"]
    _row(table, "errors", str(failed[0]), str(failed[1]), found["errors"], "{:+.3%}")
    first, second = latency["production"], latency["shadow"]
    means = _us(first["mean_us"]), _us(second["mean_us"])
    _row(table, "model latency, mean us", *means, latency["difference"], "{:+,.0f}")
    table.add_row("model latency, p99 us", _us(first["p99_us"]), _us(second["p99_us"]), "", "", "")
    agreement = found["agreement"]
    told = "" if agreement["value"] is None else f"{agreement['value']:.2%} of {agreement['count']:.0f}"
    table.add_row("agreement of predictions", "", told, "", _interval(agreement, "{:.2%}"), "")
    difference = found["prediction_difference"]
    if "count" in difference:
        spread = f"p5 {difference['p5']:+.3g}, p95 {difference['p95']:+.3g}"
        table.add_row("prediction, number", "", spread, f"{difference['value']:+.4g}", _interval(difference), "")
    return table


def _us(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _row(table: Table, name: str, first: str, second: str, told: dict[str, Any], form: str) -> None:
    verdict = Text(told["verdict"], style=_COLOURS[told["verdict"]])
    table.add_row(name, first, second, form.format(told["value"]), _interval(told, form), verdict)


def _interval(told: dict[str, Any], form: str = "{:+.4g}") -> str:
    return "too few" if told["low"] is None else f"{form.format(told['low'])} to {form.format(told['high'])}"


def _slices(found: dict[str, Any]) -> Table:
    table = Table(title="where they agree least", title_justify="left")
    for name in ("feature", "value", "rows", "agreement", "interval"):
        table.add_column(name, justify="left" if name in ("feature", "value") else "right")
    every = [(feature["feature"], part) for feature in found["features"] for part in feature["slices"]]
    every.sort(key=lambda each: (each[1]["agreement"], -each[1]["count"]))
    for name, part in every[:SLICES_SHOWN]:
        rate, interval = f"{part['agreement']:.2%}", _interval(part, "{:.2%}")
        table.add_row(name, part["slice"], f"{part['count']:.0f}", rate, interval)
    return table

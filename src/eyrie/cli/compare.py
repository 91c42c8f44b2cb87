"""`eyrie compare ENDPOINT`: the variants of an endpoint against each other, and what is decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.screen import show

_COLOURS = {"better": "bold green", "worse": "bold red", "undecided": "dim"}


def run(data: Path, endpoint: str, baseline: str | None, as_json: bool) -> None:
    """Print every metric's difference with its interval. Raises CommandError for an endpoint that is not there."""
    region = str(datadir.running_env(data)["region"])
    found = ControlClient(data, region, timeout_s=60.0).compare(endpoint, baseline or "")
    if as_json:
        print_document(found)
    elif not found["metrics"]:
        show(Text(f"Nothing to compare: {endpoint} has one variant, or was not invoked since its config is in place."))
    else:
        show(_table(found), whole=True)
        show(Text("95 % intervals that hold however often you look; needed: requests still to come, of both together."))


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['endpoint']}: against {found['baseline']}", title_justify="left")
    for name in ("variant", "metric", found["baseline"], "it", "difference", "interval", "verdict", "needed"):
        table.add_column(name, justify="left" if name in ("variant", "metric", "verdict") else "right")
    for row in found["metrics"]:
        table.add_row(
            row["variant"],
            row["metric"],
            f"{row['baseline_mean']:.6g} ({row['baseline_count']:.0f})",
            f"{row['mean']:.6g} ({row['count']:.0f})",
            f"{row['difference']:+.4g}",
            f"fewer than {found['count_min']}" if row["low"] is None else f"{row['low']:+.4g} to {row['high']:+.4g}",
            Text(row["verdict"], style=_COLOURS[row["verdict"]]),
            _needed(row),
        )
    return table


def _needed(row: dict[str, Any]) -> str:
    if row["verdict"] != "undecided":
        return ""
    return "?" if row["needed"] is None else f"{row['needed']:.0f}"

"""`eyrie story ENDPOINT`: every decision about an endpoint with its reason."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.screen import show


def run(data: Path, endpoint: str, as_json: bool) -> None:
    """Print the story, oldest first. Raises CommandError where there is none."""
    region = str(datadir.running_env(data)["region"])
    events = ControlClient(data, region).story(endpoint)
    if not events:
        raise CommandError(f"nothing is known of an endpoint {endpoint!r} in {region}")
    if as_json:
        print_document(events)
    else:
        show(told(events))


def told(events: list[dict[str, Any]]) -> Table:
    """One row an event: when, what, why."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("when (UTC)", no_wrap=True)
    table.add_column("what")
    table.add_column("why")
    for event in events:
        at = datetime.fromtimestamp(event["at_ms"] / 1000, UTC)
        table.add_row(f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}", str(event["what"]), str(event["why"]))
    return table

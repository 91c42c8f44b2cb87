"""`eyrie insights [ENDPOINT|ALARM]`: what is unusual, and what probably explains it, with the evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.screen import show

_COLOURS = {"very likely": "bold red", "likely": "red", "possible": "yellow"}


def run(data: Path, name: str | None, as_json: bool) -> None:
    """Print the insight into one endpoint or alarm, or into all endpoints. Raises CommandError for an unknown name."""
    region = str(datadir.running_env(data)["region"])
    found = ControlClient(data, region, timeout_s=60.0).insights(name or "")
    if as_json:
        print_document(found)
        return
    if not found:
        show(Text("There are no endpoints."))
    for insight in found:
        show(told(insight), whole=True)


def told(insight: dict[str, Any]) -> Text:
    """One endpoint's insight, for people."""
    text = Text()
    text.append(f"{insight['endpoint']}\n", style="bold")
    text.append(f"  {insight['summary']}\n")
    for explanation in insight["explanations"][:5]:
        at = datetime.fromtimestamp(explanation["at_ms"] / 1000, UTC)
        certainty = str(explanation["certainty"])
        text.append(f"  {certainty}", style=_COLOURS.get(certainty, "dim"))
        text.append(f" (score {explanation['score']:.2f}): {explanation['kind']} at {at:%H:%M:%S} UTC: ")
        text.append(f"{explanation['what']}\n")
        for evidence in explanation["evidence"]:
            text.append(f"    - {evidence}\n", style="dim")
    return text

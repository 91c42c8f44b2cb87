"""`eyrie doctor`: what isolation, limits and extras this machine offers, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from eyrie import __version__
from eyrie.adapters.host import host_facts
from eyrie.cli.screen import show
from eyrie.settings import Settings

_EXTRAS = {
    "scikit-learn": "sklearn",
    "skops": "sklearn",
    "xgboost-cpu": "xgboost",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `good` is None for a plain fact."""

    what: str
    found: str
    good: bool | None = None
    advice: str = ""


def run(settings: Settings) -> None:
    """Print the findings. Missing optional things are no failure: the exit code is 0."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings(settings):
        mark = {True: Text("ok", "green"), False: Text("--", "yellow"), None: Text("  ")}[finding.good]
        table.add_row(mark, finding.what, f"{finding.found}{'; ' + finding.advice if finding.advice else ''}")
    show(table)


def findings(settings: Settings) -> list[Finding]:
    """Everything there is to say, in order."""
    host = [Finding(fact.what, fact.found, fact.good, fact.advice) for fact in host_facts(settings)]
    return [_versions(), *host, *(_extra(package, extra) for package, extra in _EXTRAS.items())]


def _versions() -> Finding:
    return Finding(
        "eyrie", f"{__version__} on Python {sys.version.split()[0]}, {os.uname().sysname} {os.uname().release}"
    )


def _extra(package: str, extra: str) -> Finding:
    try:
        return Finding(package, importlib.metadata.version(package), True)
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "not installed", False, f"pip install 'eyrie[{extra}]'")

"""`eyrie doctor`: what isolation, limits and extras this machine offers, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import asdict, dataclass

from rich.table import Table
from rich.text import Text

from eyrie import __version__
from eyrie.adapters.host import host_facts
from eyrie.cli.documents import print_document
from eyrie.cli.screen import show
from eyrie.settings import Settings

# The extra of each library, and the distributions that bring it, the first one the extra's own.
_EXTRAS = (
    ("sklearn", ("scikit-learn",)),
    ("sklearn", ("skops",)),
    ("xgboost", ("xgboost-cpu", "xgboost")),
    ("lightgbm", ("lightgbm",)),
    ("onnx", ("onnxruntime", "onnxruntime-gpu")),
    ("torch", ("torch",)),
    ("huggingface", ("transformers",)),
    ("tensorflow", ("tensorflow-cpu", "tensorflow")),
    ("spark", ("pyarrow",)),
    ("console", ("nicegui",)),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `good` is None for a plain fact."""

    what: str
    found: str
    good: bool | None = None
    advice: str = ""


def run(settings: Settings, as_json: bool) -> None:
    """Print the findings. Missing optional things are no failure: the exit code is 0."""
    if as_json:
        print_document([asdict(finding) for finding in findings(settings)])
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings(settings):
        mark = {True: Text("ok", "green"), False: Text("--", "yellow"), None: Text("  ")}[finding.good]
        told = f"{finding.found}{'; ' + finding.advice if finding.advice else ''}"
        table.add_row(mark, finding.what, Text(told))  # no markup: eyrie[torch] has brackets of its own
    show(table)


def findings(settings: Settings) -> list[Finding]:
    """Everything there is to say, in order."""
    host = [Finding(fact.what, fact.found, fact.good, fact.advice) for fact in host_facts(settings)]
    return [_versions(), *host, *(_extra(extra, packages) for extra, packages in _EXTRAS)]


def _versions() -> Finding:
    return Finding(
        "eyrie", f"{__version__} on Python {sys.version.split()[0]}, {os.uname().sysname} {os.uname().release}"
    )


def _extra(extra: str, packages: tuple[str, ...]) -> Finding:
    for package in packages:
        try:
            return Finding(package, importlib.metadata.version(package), True)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(packages[0], "not installed", False, f"pip install 'eyrie[{extra}]'")

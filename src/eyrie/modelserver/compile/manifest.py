"""`compiled/manifest.json`: what a compiled model is and how its graph is to be called. Written by `compiler`, read by
`serving` without the libraries that the original needed.

It came in a model archive, so it is read with care: what is not as it should be raises LoadError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eyrie.modelserver.codecs import RowShape
from eyrie.modelserver.frameworks.interface import LoadError

FOLDER = "compiled"  # in the model archive, beside the original
MANIFEST, REPORT, GRAPH = "manifest.json", "report.json", "model.onnx"
FORMAT = 1
BYTES_MAX = 33_554_432
FAMILIES = ("sklearn", "xgboost", "lightgbm")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Values that the original refuses, column by column, and the words that it has for it."""

    what: str  # "missing", "infinite" or "large" (beyond float32)
    columns: tuple[int, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Known:
    """The categories of a text column whose unknown values the original refuses."""

    column: int
    values: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """How to call a graph, and how to answer with what it gives."""

    family: str  # whose forms the answers have: sklearn, xgboost or lightgbm
    title: str  # of the original
    shape: RowShape
    output: str  # the graph's output that `predict` answers with
    dtype: str  # of the original's predictions, as NumPy spells it
    ndim: int
    probabilities: str = ""  # the output with a column a class, where there is one
    columns: tuple[tuple[str, bool], ...] = ()  # inputs of a graph that takes columns: name, and whether it is text
    classes: tuple[Any, ...] | None = None
    objective: str = ""
    num_class: int = 0
    refusals: tuple[Refusal, ...] = ()
    known: tuple[Known, ...] = ()
    decision: str = "compiled"  # or "original": which of the two is served
    made_for: str = ""  # target device or platform, where a job made it
    digest: str = ""  # sha256 of the graph
    versions: dict[str, str] = field(default_factory=dict)

    def written(self) -> str:
        """As a file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def read(folder: Path) -> Manifest | None:
    """The manifest of a model folder; None where there is none. Raises LoadError."""
    path = folder / FOLDER / MANIFEST
    if not path.is_file():
        return None
    if path.stat().st_size > BYTES_MAX:
        raise LoadError(f"{FOLDER}/{MANIFEST} is larger than {BYTES_MAX} bytes")
    try:
        return _manifest(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise LoadError(f"{FOLDER}/{MANIFEST} cannot be read: {error}") from error


def _manifest(given: Mapping[str, Any]) -> Manifest:
    if given["format"] != FORMAT:
        raise ValueError(f"its format is {given['format']!r}, known is {FORMAT}")
    if given["family"] not in FAMILIES:
        raise ValueError(f"its family is {given['family']!r}")
    shape = dict(given["shape"])
    fields = dict(given)
    del fields["format"]
    return Manifest(
        **{
            **fields,
            "shape": RowShape(**{**shape, "names": tuple(shape["names"])}),
            "columns": tuple((str(name), bool(text)) for name, text in given["columns"]),
            "classes": None if given["classes"] is None else tuple(given["classes"]),
            "refusals": tuple(Refusal(r["what"], tuple(r["columns"]), r["message"]) for r in given["refusals"]),
            "known": tuple(Known(k["column"], tuple(k["values"]), k["message"]) for k in given["known"]),
        }
    )

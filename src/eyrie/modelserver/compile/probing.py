"""What a model refuses, found by trying: missing, infinite and too large numbers column by column, unknown categories.

A graph computes whatever it is given, so what the original refuses has to be checked before. The words of the refusal
are the original's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from eyrie.modelserver.codecs import Array, Refused
from eyrie.modelserver.compile.columns import Column
from eyrie.modelserver.compile.manifest import Known, Refusal
from eyrie.modelserver.compile.rows import UNKNOWN
from eyrie.modelserver.frameworks.interface import RowModel

PREFIX = "Unable to evaluate payload provided: "
VALUES = {"missing": float("nan"), "infinite": float("inf"), "large": 1e39}  # the last: beyond float32


def refusals(model: RowModel, columns: Sequence[Column], usual: Array) -> tuple[Refusal, ...]:
    """Numbers that the model refuses. `usual` is a row that it takes."""
    numbers = [place for place, column in enumerate(columns) if not column.text]
    found = []
    for what, value in VALUES.items():
        if what == "large" and model.shape.dtype == "float32":
            continue  # it is infinite by then
        everywhere = usual.copy()
        everywhere[:, numbers] = value
        if _refused(model, everywhere) is None:
            continue
        messages = {place: _refused(model, _with(usual, place, value)) for place in numbers}
        refused = {place: message for place, message in messages.items() if message is not None}
        if refused:
            found.append(Refusal(what, tuple(refused), next(iter(refused.values()))))
    return tuple(found)


def known_categories(model: RowModel, columns: Sequence[Column], usual: Array) -> tuple[Known, ...]:
    """Text columns whose unknown categories the model refuses."""
    found = []
    for place, column in enumerate(columns):
        message = _refused(model, _with(usual, place, UNKNOWN)) if column.text else None
        if message is not None:
            found.append(Known(place, tuple(str(value) for value in column.values), message))
    return tuple(found)


def _with(usual: Array, place: int, value: object) -> Array:
    row = usual.copy()
    row[:, place] = value
    return row


def _refused(model: RowModel, row: Array) -> str | None:
    try:
        model.predict(row)
    except Refused as refused:
        return str(refused).removeprefix(PREFIX)
    return None

"""Rows to compare a model and its ONNX form on: on its thresholds and one step beside them, ordinary ones, large and
small ones, with missing values, and those that its owner supplies.

The same model gets the same rows every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import stack
from eyrie.modelserver.codecs import Array, Refused, RowShape
from eyrie.modelserver.compile.columns import Boundaries, Column
from eyrie.modelserver.compile.errors import CannotConvert

ORDINARY, EXTREME, MISSING = 1000, 200, 200
BOUNDARY_MAX = 3000  # thresholds that are tried; of more, an even selection
SUPPLIED_BYTES_MAX = 67_108_864
SUPPLIED_ROWS_MAX = 100_000
SUPPLIED = "compile"  # a folder of the model archive; its rows.* are the owner's
UNKNOWN = "\u2205 no such category"
_TYPES = {".csv": codecs.CSV, ".json": codecs.JSON, ".jsonl": codecs.JSONLINES, ".npy": codecs.NPY}


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one kind, as the model gets them."""

    name: str
    rows: Array


def generate(columns: Sequence[Column], boundaries: Boundaries | None, dtype: str) -> list[Group]:
    """The rows that are made up, as arrays of the model's dtype, or of objects where a column is text."""
    chance = np.random.default_rng(20_260_101)
    ordinary = _ordinary(columns, boundaries, ORDINARY, chance)
    text = any(column.text for column in columns)
    groups = [Group("ordinary", ordinary), Group("extreme", _extreme(columns, ordinary[:EXTREME], chance))]
    groups.append(Group("missing", _missing(columns, ordinary[:MISSING], chance)))
    if boundaries is not None and not text:
        groups += _boundary(boundaries, dtype, chance)
    if text:
        groups.append(Group("unknown categories", _unknown(columns, ordinary[:MISSING], chance)))
    return [Group(g.name, g.rows if text else np.ascontiguousarray(g.rows, dtype=dtype)) for g in groups]


def supplied(folder: Path, shape: RowShape) -> list[Group]:
    """The rows that the owner put into the archive. Raises CannotConvert where they cannot be read."""
    groups = []
    for suffix, kind in _TYPES.items():
        path = folder / SUPPLIED / f"rows{suffix}"
        if not path.is_file():
            continue
        if path.stat().st_size > SUPPLIED_BYTES_MAX:
            raise CannotConvert(f"{SUPPLIED}/{path.name} is larger than {SUPPLIED_BYTES_MAX} bytes")
        try:
            rows = stack([codecs.decode(path.read_bytes(), kind, shape)], shape)
        except (Refused, ValueError) as error:
            raise CannotConvert(f"{SUPPLIED}/{path.name} cannot be read: {error}") from error
        groups.append(Group(f"{SUPPLIED}/{path.name}", rows[:SUPPLIED_ROWS_MAX]))
    return groups


def _ordinary(
    columns: Sequence[Column], boundaries: Boundaries | None, count: int, chance: np.random.Generator
) -> Array:
    if boundaries is not None and not any(c.values for c in columns):
        return boundaries.outer(_inner(boundaries, count, chance))
    made: list[Any] = [_column(column, count, chance) for column in columns]
    if any(column.text for column in columns):
        out = np.empty((count, len(columns)), dtype=object)
        for place, values in enumerate(made):
            out[:, place] = values
        return out
    return np.column_stack(made)


def _column(column: Column, count: int, chance: np.random.Generator) -> Sequence[object] | Array:
    if column.values:
        return [column.values[i] for i in chance.integers(0, len(column.values), count)]
    return chance.normal(column.center, column.spread * 1.5, count)


def _inner(boundaries: Boundaries, count: int, chance: np.random.Generator) -> Array:
    """Rows of the trees' own columns, spread over their thresholds."""
    rows = chance.normal(size=(count, boundaries.width))
    for feature, values in boundaries.thresholds.items():
        low, high = float(values[0]), float(values[-1])
        room = (high - low) * 0.1 + abs(low) * 1e-3 + 1e-3
        rows[:, feature] = chance.uniform(low - room, high + room, count)
    return rows


def _boundary(boundaries: Boundaries, dtype: str, chance: np.random.Generator) -> list[Group]:
    """Rows that lie on a threshold, and the nearest numbers on both sides of it, in float64 and in float32."""
    pairs = [(f, v) for f, values in boundaries.thresholds.items() for v in values.tolist()]
    if len(pairs) > BOUNDARY_MAX:
        pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, BOUNDARY_MAX).astype(int)]
    rows = _inner(boundaries, len(pairs), chance)
    places = np.array([feature for feature, _ in pairs])
    exact = np.array([value for _, value in pairs])
    single = exact.astype(np.float32)
    beside: Mapping[str, Array] = {
        "on thresholds": exact,
        "just below": np.nextafter(exact, -np.inf),
        "just above": np.nextafter(exact, np.inf),
        "just below, float32": np.nextafter(single, np.float32(-np.inf)).astype(np.float64),
        "just above, float32": np.nextafter(single, np.float32(np.inf)).astype(np.float64),
    }
    groups = []
    for name, values in beside.items():
        if dtype == "float32" and name in ("just below", "just above"):
            continue  # the same number
        moved = rows.copy()
        moved[np.arange(len(pairs)), places] = values
        groups.append(Group(name, boundaries.outer(moved)))
    return groups


def _extreme(columns: Sequence[Column], ordinary: Array, chance: np.random.Generator) -> Array:
    """Zeros, and numbers far from where the model was trained."""
    rows = ordinary.copy()
    for place, column in enumerate(columns):
        if not column.values:
            scale = 10.0 ** chance.uniform(-6, 6, len(rows)) * chance.choice([-1.0, 0.0, 1.0], len(rows))
            rows[:, place] = column.center + column.spread * scale
    return rows


def _missing(columns: Sequence[Column], ordinary: Array, chance: np.random.Generator) -> Array:
    """Numbers left out, here and there."""
    rows = ordinary.copy()
    for place, column in enumerate(columns):
        if not column.text:
            rows[chance.random(len(rows)) < 0.25, place] = np.nan
    return rows


def _unknown(columns: Sequence[Column], ordinary: Array, chance: np.random.Generator) -> Array:
    """Text that no encoder has seen."""
    rows = ordinary.copy()
    for place, column in enumerate(columns):
        if column.text:
            rows[chance.random(len(rows)) < 0.25, place] = UNKNOWN
    return rows

"""Do two models answer alike? Labels must be equal, probabilities within 1e-5, other numbers within 1e-5 of the
largest; and what one refuses, the other must refuse.

Knows nothing of ONNX: it compares two functions of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from eyrie.modelserver.batcher import predict_each
from eyrie.modelserver.codecs import Array, Refused, RowShape
from eyrie.modelserver.compile.rows import Group

TOLERANCE = 1e-5
SHOWN_CELLS = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """One of the two models. `probabilities` is None where it has none."""

    predict: Callable[[Array], Array]
    probabilities: Callable[[Array], Array | None]
    shape: RowShape


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the comparison came to. `difference` is "" where the two agree, else the first difference in words."""

    rows: dict[str, int] = field(default_factory=dict)  # compared, by kind
    refused_alike: int = 0
    labels_different: int = 0
    largest_difference: float = 0.0  # of numbers, in units of the scale that the tolerance is of
    difference: str = ""

    @property
    def agrees(self) -> bool:
        """No difference was found."""
        return not self.difference


def compare(one: Answers, other: Answers, groups: Sequence[Group]) -> Agreement:
    """Compare `other` with `one`, whose answers are the right ones."""
    found = Agreement()
    for group in groups:
        if len(group.rows):
            found = _with(found, group, _group(one, other, group))
    return found


@dataclass(frozen=True, slots=True)
class _Group:
    refused_alike: int
    labels_different: int
    largest: float
    difference: str


def _with(found: Agreement, group: Group, more: _Group) -> Agreement:
    return Agreement(
        rows={**found.rows, group.name: len(group.rows)},
        refused_alike=found.refused_alike + more.refused_alike,
        labels_different=found.labels_different + more.labels_different,
        largest_difference=max(found.largest_difference, more.largest),
        difference=found.difference or (f"{group.name}: {more.difference}" if more.difference else ""),
    )


def _group(one: Answers, other: Answers, group: Group) -> _Group:
    """Both on all rows at once where neither refuses any, else on those rows that neither refuses."""
    refused_one, refused_other = _refused(one, group.rows), _refused(other, group.rows)
    alike = sum(a is not None and b is not None for a, b in zip(refused_one, refused_other, strict=True))
    for number, (a, b) in enumerate(zip(refused_one, refused_other, strict=True)):
        if (a is None) is not (b is None):
            who, what = ("the original", a) if a is not None else ("the compiled model", b)
            return _Group(alike, 0, 0.0, f"{who} refuses {_show(group.rows[number])}: {str(what)[:200]}")
    taken = np.array([a is None for a in refused_one])
    rows = group.rows[taken]
    if not len(rows):
        return _Group(alike, 0, 0.0, "")
    labels, largest, difference = _values(one.predict(rows), other.predict(rows), rows, one.shape)
    chances = one.probabilities(rows)
    if chances is not None and not difference:
        also = other.probabilities(rows)
        if also is None:
            return _Group(alike, labels, largest, "the compiled model has no probabilities")
        _, most, difference = _numbers(np.asarray(chances), np.asarray(also), rows, 1.0)
        largest = max(largest, most)
    return _Group(alike, labels, largest, difference)


def _refused(model: Answers, rows: Array) -> list[Exception | None]:
    """What each row is refused with, if it is. Raises what is no refusal."""
    try:
        model.predict(rows)
    except Refused:
        outcomes = predict_each(model.predict, model.shape, [rows[i : i + 1] for i in range(len(rows))])
        return [outcome if isinstance(outcome, Exception) else None for outcome in outcomes]
    return [None] * len(rows)


def _values(one: Array, other: Array, rows: Array, shape: RowShape) -> tuple[int, float, str]:
    """Labels that differ, the largest difference of numbers, and the first of either in words."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return 0, 0.0, f"predictions of {other.dtype} {other.shape[1:]} in place of {one.dtype} {one.shape[1:]}"
    if one.dtype.kind != "f":
        different = np.flatnonzero(np.any((one != other).reshape(len(one), -1), axis=1))
        return len(different), 0.0, _told(one, other, rows, different)
    finite = np.abs(one[np.isfinite(one)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    return _numbers(one, other, rows, scale)


def _numbers(one: Array, other: Array, rows: Array, scale: float) -> tuple[int, float, str]:
    if one.shape != other.shape:
        return 0, 0.0, f"numbers of shape {other.shape[1:]} in place of {one.shape[1:]}"
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(same, 0.0, np.abs(one.astype(np.float64) - other.astype(np.float64)) / scale)
    apart = np.where(np.isnan(apart), np.inf, apart)
    labels = _labels(one) != _labels(other)
    different = np.flatnonzero(np.any((apart > TOLERANCE).reshape(len(one), -1), axis=1) | labels)
    return int(labels.sum()), float(apart.max(initial=0.0)), _told(one, other, rows, different)


def _labels(values: Array) -> Array:
    """The class that probabilities say; nothing of numbers that are no probabilities."""
    if not ((values >= 0.0) & (values <= 1.0)).all():
        return np.zeros(len(values))
    return np.asarray(values > 0.5) if values.ndim == 1 else values.argmax(axis=1)


def _told(one: Array, other: Array, rows: Array, different: Array) -> str:
    if not len(different):
        return ""
    first = int(different[0])
    return (
        f"{len(different)} of {len(rows)} rows differ, the first at {_show(rows[first])}: "
        f"{_show(np.ravel(one[first]))} in the original, {_show(np.ravel(other[first]))} compiled"
    )


def _show(values: Array) -> str:
    shown = ", ".join(str(value)[:40] for value in values[:SHOWN_CELLS].tolist())
    return f"({shown}, ... {len(values)} in all)" if len(values) > SHOWN_CELLS else f"({shown})"

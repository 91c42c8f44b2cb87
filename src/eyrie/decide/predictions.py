"""Predictions read out of a reply's body, as rows that can be compared: of two variants, a shadow, or over time.

A row is a label, a number, or several of both. Read are CSV, JSON in the shapes that SageMaker's containers answer
({"predictions": [...]}, bare lists, {"outputs": [...]} of /v2, label and score of a pipeline), JSON lines and plain
text. Whatever is malformed, of another type or too large is None: it says nothing, and never raises.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from math import isclose, isfinite
from typing import Any

BODY_BYTES_MAX = 1_048_576
ROWS_MAX = 10_000  # what comes after is not read
CELLS_MAX = 64  # of one row, likewise
LABEL_CHARS_MAX = 160  # a longer one is its beginning and a digest: equal only to itself
DEPTH_MAX = 8  # of what is nested in one row
WITHIN = 1e-6  # relative: two numbers are the same answer

Cell = str | float
Row = Cell | tuple[Cell, ...]

_JSON = frozenset({"application/json", "text/json", "application/x-json"})
_LINES = frozenset(
    {"application/jsonlines", "application/jsonl", "application/x-jsonlines", "application/x-ndjson",
     "application/json-lines", "application/x-json-lines"}
)  # fmt: skip
_LISTS = ("predictions", "outputs", "results", "scores", "data")  # members of a reply that hold its rows
_LABELS = ("predicted_label", "label", "predicted_class", "class", "prediction", "closest_cluster", "generated_text")
_NUMBERS = ("score", "probability", "prob", "value")


def rows(content_type: str, body: bytes) -> tuple[Row, ...] | None:
    """The predictions of a reply, in their order: at most ROWS_MAX. None for what cannot be read as such."""
    if len(body) > BODY_BYTES_MAX:
        return None
    kind = content_type.partition(";")[0].strip().lower()
    try:
        text = body.decode()
        if kind in _JSON or kind.endswith("+json"):
            return _of_json(_parsed(text))
        if kind in _LINES:
            found = (row for line in text.splitlines() if line.strip() for row in _of_json(_parsed(line)))
            return _first(found)
        if kind == "text/csv":
            return _first(_of_cells(cells) for cells in csv.reader(text.splitlines(True), strict=True) if cells)
        if kind == "text/plain":
            return _first(_cell(line.strip()) for line in text.splitlines() if line.strip())
    except (ValueError, RecursionError, csv.Error):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return None
    return None


def signal(row: Row) -> Cell:
    """What a row says in one word, for how predictions are spread: a label, or a number. Of probabilities the likeliest
    class, of any other list its first cell.
    """
    if not isinstance(row, tuple):
        return row
    likeliest = _likeliest(row)
    if likeliest is not None:
        return f"class {likeliest}"
    return row[0] if row else ""


def cell_of(label: str, cells: int) -> int:
    """Which of so many cells a label falls into, from 1 on: by its digest, the same everywhere and for ever. Two labels
    of one cell are not told apart.
    """
    return 1 + int.from_bytes(hashlib.blake2b(label.encode("utf-8", "surrogatepass"), digest_size=4).digest()) % cells


def agree(first: Row, second: Row, within: float = WITHIN) -> bool:
    """Whether two rows are the same answer: labels are equal, numbers equal within a relative difference,
    probabilities are of the same likeliest class.
    """
    if isinstance(first, tuple) and isinstance(second, tuple):
        if len(first) != len(second):
            return False
        likeliest = _likeliest(first)
        if likeliest is not None and likeliest == _likeliest(second):
            return True
        return all(agree(a, b, within) for a, b in zip(first, second, strict=True))
    if isinstance(first, float) and isinstance(second, float):
        return isclose(first, second, rel_tol=within, abs_tol=within)
    return first == second


def _likeliest(row: tuple[Cell, ...]) -> int | None:
    """The place of the highest of probabilities of several classes; None where they are none."""
    numbers = [cell for cell in row if isinstance(cell, float)]
    if len(numbers) < 2 or len(numbers) != len(row) or min(numbers) < 0 or abs(sum(numbers) - 1) > 1e-3:
        return None
    return numbers.index(max(numbers))


def _first(found: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(row for row, _ in zip(found, range(ROWS_MAX), strict=False))


def _parsed(text: str) -> Any:
    return json.loads(text)


def _of_json(value: Any) -> tuple[Row, ...]:
    if isinstance(value, dict):
        held = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), None)
        if held is None:
            return (_row(value),)
        if held and all(isinstance(each, dict) and isinstance(each.get("data"), list) for each in held):
            return _of_tensor(held[0])
        value = held
    if isinstance(value, list):
        return tuple(_row(each) for each in value[:ROWS_MAX])
    return (_row(value),)


def _of_tensor(output: Mapping[str, Any]) -> tuple[Row, ...]:
    """Rows of the first output of /v2: its data lies flat, the first of its shape counts the rows."""
    data, shape = output["data"], output.get("shape")
    count = shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], int) else len(data)
    if count <= 0 or not data or len(data) % count or isinstance(data[0], list):
        return tuple(_row(each) for each in data[:ROWS_MAX])
    wide = len(data) // count
    return tuple(_row(data[at : at + wide]) for at in range(0, min(count, ROWS_MAX) * wide, wide))


def _row(value: Any, depth: int = 0) -> Row:
    if depth >= DEPTH_MAX:
        return _label("...")
    if isinstance(value, dict):
        return _of_members(value, depth)
    if not isinstance(value, list):
        return _scalar(value)
    if value and all(isinstance(each, dict) and _scored(each) for each in value):
        return _row(max(value, key=lambda each: float(each["score"])), depth + 1)  # all classes, each with its score
    return _together(_row(each, depth + 1) for each in value[:CELLS_MAX])


def _scored(each: Mapping[str, Any]) -> bool:
    score = each.get("score")
    return "label" in each and isinstance(score, int | float) and not isinstance(score, bool)


def _of_members(value: Mapping[str, Any], depth: int) -> Row:
    """One prediction that is told by names: its label where it has one, else its score, else all that it holds."""
    for name in (*_LABELS, *_NUMBERS):
        if name in value:
            return _row(value[name], depth + 1)
    return _together(_row(value[name], depth + 1) for name in sorted(value)[:CELLS_MAX])


def _together(parts: Iterable[Row]) -> Row:
    cells: list[Cell] = []
    for part in parts:
        cells.extend(part if isinstance(part, tuple) else (part,))
        if len(cells) >= CELLS_MAX:
            break
    return cells[0] if len(cells) == 1 else tuple(cells[:CELLS_MAX])


def _scalar(value: Any) -> Cell:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _label(value)
    try:
        return _number(float(value))
    except OverflowError:  # a whole number beyond every float
        return "inf" if value > 0 else "-inf"


def _of_cells(cells: Sequence[str]) -> Row:
    return _together(_cell(cell.strip()) for cell in cells[:CELLS_MAX])


def _cell(text: str) -> Cell:
    if "_" in text:  # Python's float would take 1_000
        return _label(text)
    try:
        return _number(float(text))
    except ValueError:
        return _label(text)


def _number(value: float) -> Cell:
    """A number; one that is none (nan, inf) is a label of its own: it is the very thing to notice."""
    return value + 0.0 if isfinite(value) else str(value)


def _label(text: str) -> str:
    if len(text) <= LABEL_CHARS_MAX:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{text[:LABEL_CHARS_MAX]}... {digest}"

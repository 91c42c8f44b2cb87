"""What a shadow's answer says beside production's: how many rows agree, and for which requests they do not.

Pure. The rows of replies are read by `decide/predictions`; here the request's own rows are read, so that agreement can
be told by feature: the columns of CSV, the fields of JSON objects, the places of JSON lists. In `slices` the spread of
a feature over all compared rows is cut into values (few, or text) or quantile bins (numbers).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from eyrie.decide import predictions
from eyrie.domain.metrics import bucket_of, middle_of

BYTES_MAX = 16_384  # of a request and of each reply: larger ones are not compared, for it is done on the gateway's loop
ROWS_MAX = 32  # of a request, that count for the slices
FEATURES_MAX = 32
NAME_CHARS_MAX = 64
VALUE_CHARS_MAX = 40
BINS = 5  # of a numeric feature
VALUES_MAX = 8  # distinct ones, up to which a numeric feature is told by value

Feature = float | str
_LISTS = ("instances", "inputs", "data", "records", "rows")  # members of a request that hold its rows
_LINES = ("jsonlines", "jsonl", "ndjson", "json-lines")


@dataclass(frozen=True, slots=True)
class Compared:
    """Two replies to one request, row by row."""

    agree: tuple[bool, ...]
    differences: tuple[float, ...]  # the shadow's number less production's, of rows that are numbers
    features: tuple[Mapping[str, Feature], ...]  # of the first rows, where the request could be read

    @property
    def share(self) -> float:
        """The part of the rows that agree."""
        return sum(self.agree) / len(self.agree)


def compared(
    request: tuple[str, bytes], production: tuple[str, bytes], shadow: tuple[str, bytes], within: float
) -> Compared | str:
    """Compare two replies to a request, each a content type and a body; or why that cannot be. `within`: the relative
    (and absolute) difference up to which two numbers are the same answer.
    """
    if max(len(request[1]), len(production[1]), len(shadow[1])) > BYTES_MAX:
        return "too_large"
    first, second = predictions.rows(*production), predictions.rows(*shadow)
    if not first or not second:
        return "unreadable"
    if len(first) != len(second):
        return "other_count"
    agree = tuple(predictions.agree(a, b, within) for a, b in zip(first, second, strict=True))
    numbers = [(a, b) for a, b in zip(first, second, strict=True) if isinstance(a, float) and isinstance(b, float)]
    found = features(*request)
    return Compared(agree, tuple(b - a for a, b in numbers), found if len(found) <= len(agree) else ())


def features(content_type: str, body: bytes) -> tuple[Mapping[str, Feature], ...]:
    """The rows of a request, each by feature; none where the body is of another kind, or malformed."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        text = body.decode()
        if kind == "text/csv":
            return tuple(_row(cells) for cells, _ in zip(csv.reader(text.splitlines()), range(ROWS_MAX), strict=False))
        if kind.endswith(_LINES):
            lines = [line for line in text.splitlines() if line.strip()][:ROWS_MAX]
            return tuple(_row(json.loads(line)) for line in lines)
        if kind.endswith("json"):
            return tuple(_row(row) for row in _rows_of(json.loads(text))[:ROWS_MAX])
    except (ValueError, RecursionError, csv.Error):
        return ()
    return ()


def _rows_of(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        held = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), None)
        if held is None:
            return [value]
        value = held
    if not isinstance(value, list):
        return [value]
    return value if value and isinstance(value[0], dict | list) else [value]


def _row(value: Any) -> Mapping[str, Feature]:
    found: dict[str, Feature] = {}
    for name, cell in _cells(value):
        if len(found) >= FEATURES_MAX:
            break
        feature = _feature(cell)
        if feature is not None:
            found[name[:NAME_CHARS_MAX]] = feature
    return found


def _cells(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and scalars of a row; what is nested once has the names of both."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict | list) and not prefix:
                yield from _cells(inner, f"{name}.")
            else:
                yield prefix + str(name), inner
    elif isinstance(value, list):
        yield from ((f"{prefix}{place}", cell) for place, cell in enumerate(value))
    else:
        yield prefix or "0", value


def _feature(cell: Any) -> Feature | None:
    if isinstance(cell, bool) or cell is None:
        return {True: "true", False: "false", None: "null"}[cell]
    if isinstance(cell, int | float):
        return float(cell) if abs(cell) < 1e300 else None
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    try:
        number = float(text)
    except ValueError:
        return text[:VALUE_CHARS_MAX]
    return number if isfinite(number) else text[:VALUE_CHARS_MAX]


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the requests' rows, by one feature, and how many of them disagree."""

    name: str  # "3", "1.5 to 4", "red"
    count: float
    off: float


def slices(every: Mapping[int, float], off: Mapping[int, float]) -> list[Slice]:
    """A numeric feature's slices: one a value where there are few, else quantile bins of about equal counts.

    `every` and `off` are counts by bucket of `domain.metrics`, of all compared rows and of those that disagree.
    """
    buckets = sorted(every)
    if len(buckets) <= VALUES_MAX:
        return [Slice(_value(b), every[b], off.get(b, 0.0)) for b in buckets]
    total = sum(every.values())
    found: list[Slice] = []
    begun, count = 0, 0.0
    for place, bucket in enumerate(buckets):
        count += every[bucket]
        last = place == len(buckets) - 1
        if last or (count >= total / BINS and len(found) < BINS - 1):
            inside = buckets[begun : place + 1]
            lowest, highest = _value(inside[0]), _value(inside[-1])
            name = lowest if lowest == highest else f"{lowest} to {highest}"
            found.append(Slice(name, count, sum(off.get(b, 0.0) for b in inside)))
            begun, count = place + 1, 0.0
    return found


def _value(bucket: int) -> str:
    """A bucket's value for people: the whole number in it where there is one, else its middle."""
    middle = middle_of(bucket)
    whole = round(middle)
    return f"{whole}" if abs(whole) < 10_000 and bucket_of(whole) == bucket else f"{middle:.3g}"

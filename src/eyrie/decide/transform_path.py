"""The part of JSONPath that DataProcessing takes: `$`, `.name`, `['a','b']`, `[0,5:]`, slices, `*`; no filters. Pure.

A path yields one value where every step names one place (`$.a[0]`), and a list of values otherwise. CSV rows are
lists of cells here; their path is applied to the row and the cells that it names are written as they stood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*|\*)")
_QUOTED = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*""")
_RANGE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?\d+)?\s*)?")
_INDEX = re.compile(r"\s*(-?\d+)\s*")
_DIGITS_MAX = 9


class PathError(ValueError):
    """A path that is none, or that names what is not there; the message is for people."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: names of members, or places in a list; `many`: it may name any number of them."""

    picks: tuple[str | int | slice | None, ...]  # None: everything
    many: bool


@dataclass(frozen=True, slots=True)
class Path:
    """A path that was read."""

    text: str
    steps: tuple[Step, ...]

    @property
    def whole(self) -> bool:
        """It is `$`."""
        return not self.steps

    @property
    def many(self) -> bool:
        """It yields a list of values."""
        return any(step.many for step in self.steps)

    def of(self, value: Any) -> Any:
        """What it names of a value. Raises PathError for an index or a name that is not there."""
        found = [value]
        for step in self.steps:
            found = [inner for outer in found for pick in step.picks for inner in _picked(outer, pick, self.text)]
        return found if self.many else found[0]


def parsed(text: str) -> Path:
    """A path. Raises PathError."""
    if not text.startswith("$"):
        raise PathError(f"{text!r} is no JSONPath: it does not begin with $")
    steps: list[Step] = []
    at = 1
    while at < len(text):
        name = _NAME.match(text, at)
        if name is not None:
            steps.append(Step((None,), True) if name[1] == "*" else Step((name[1],), False))
            at = name.end()
        elif text[at] == "[":
            step, at = _bracket(text, at + 1)
            steps.append(step)
        else:
            raise _strange(text, at)
    return Path(text, tuple(steps))


def _bracket(text: str, at: int) -> tuple[Step, int]:
    picks: list[str | int | slice | None] = []
    while True:
        pick, at = _pick(text, at)
        picks.append(pick)
        if text[at : at + 1] == "]":
            many = len(picks) > 1 or picks[0] is None or isinstance(picks[0], slice)
            return Step(tuple(picks), many), at + 1
        if text[at : at + 1] != ",":
            raise _strange(text, at)
        at += 1


def _pick(text: str, at: int) -> tuple[str | int | slice | None, int]:
    if text[at : at + 1] == "*":
        return None, at + 1
    quoted = _QUOTED.match(text, at)
    if quoted is not None:
        name = quoted[1] if quoted[1] is not None else quoted[2]
        return re.sub(r"\\(.)", r"\1", name), quoted.end()
    span = _RANGE.match(text, at)
    if span is not None:
        start, stop, stride = (None if part is None else _number(part, text) for part in span.groups())
        if stride is not None and stride < 1:
            raise PathError(f"{text!r}: the step of a slice must be at least 1")
        return slice(start, stop, stride), span.end()
    index = _INDEX.match(text, at)
    if index is not None:
        return _number(index[1], text), index.end()
    raise _strange(text, at)


def _strange(text: str, at: int) -> PathError:
    """What is said of a path that is not understood from a place on."""
    rest = f"from {text[at:]!r} on" if at < len(text) else "it breaks off"
    return PathError(f"{text!r} is no JSONPath that is understood here: {rest}")


def _number(digits: str, text: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise PathError(f"{text!r}: {digits} is no index")
    return int(digits)


def _picked(value: Any, pick: str | int | slice | None, text: str) -> Sequence[Any]:
    if isinstance(value, Mapping):
        if pick is None:
            return list(value.values())
        if isinstance(pick, str) and pick in value:
            return [value[pick]]
        raise PathError(f"{text}: the record has no {pick!r}" if isinstance(pick, str) else f"{text}: it is no list")
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if pick is None:
            return value
        if isinstance(pick, slice):
            return value[pick]
        if isinstance(pick, int) and -len(value) <= pick < len(value):
            return [value[pick]]
        raise PathError(
            f"{text}: index {pick} is out of range in a record of {len(value)} values"
            if isinstance(pick, int)
            else f"{text}: the record is a list and has no {pick!r}"
        )
    raise PathError(f"{text}: there is nothing to take {pick!r} from")

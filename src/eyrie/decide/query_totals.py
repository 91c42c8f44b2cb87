"""The functions of `stats`: each takes in the values of a group one by one, and tells what they come to. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Protocol

from eyrie.decide.query_values import number, order, shown

HELD_MAX = 4_000_000  # values that all groups of a query hold together, for quantiles and distinct counts


class TooMuch(Exception):
    """A query that would hold more than it may; the message is for people."""


class Held:
    """How many values a query holds."""

    def __init__(self) -> None:
        self._count = 0

    def one(self) -> None:
        """One more. Raises TooMuch."""
        self._count += 1
        if self._count > HELD_MAX:
            raise TooMuch(f"the query holds more than {HELD_MAX} values: filter first, or take fewer groups")


class Total(Protocol):
    """One function over one group."""

    def add(self, value: Any, at: tuple[int, int]) -> None:
        """A value that is there; `at`: time and order of its record."""
        ...

    def result(self) -> Any:
        """What it comes to; None where nothing came."""
        ...


class Count:
    """count: of records, or of values that are there."""

    def __init__(self, held: Held) -> None:
        self._count = 0

    def add(self, value: Any, at: tuple[int, int]) -> None:
        """Counts."""
        self._count += 1

    def result(self) -> Any:
        """0 where nothing came."""
        return self._count


class Distinct:
    """count_distinct: exact."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._seen: set[str] = set()

    def add(self, value: Any, at: tuple[int, int]) -> None:
        """Values are the same where they are shown the same."""
        text = shown(value)
        if text not in self._seen:
            self._held.one()
            self._seen.add(text)

    def result(self) -> Any:
        """How many there were."""
        return len(self._seen)


class Numbers:
    """sum, avg, min, max, stddev: of the values that are numbers."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0
        self._total: float = 0
        self._lowest: Any = None
        self._highest: Any = None
        self._mean = self._squares = 0.0

    def add(self, value: Any, at: tuple[int, int]) -> None:
        """Numbers alone count."""
        known = number(value)
        if known is None:
            return
        self._count += 1
        self._total += known
        if self._lowest is None or known < self._lowest:
            self._lowest = value if isinstance(value, int) else known
        if self._highest is None or known > self._highest:
            self._highest = value if isinstance(value, int) else known
        if self._what != "stddev":
            return
        step = known - self._mean
        self._mean += step / self._count
        self._squares += step * (known - self._mean)

    def result(self) -> Any:
        """None where no number came."""
        if not self._count:
            return None
        match self._what:
            case "sum":
                return self._total
            case "avg":
                return self._total / self._count
            case "min":
                return self._lowest
            case "max":
                return self._highest
        return sqrt(self._squares / (self._count - 1)) if self._count > 1 else 0.0


class Quantile:
    """pct, percentile, median: exact, by the nearest rank between two values."""

    def __init__(self, held: Held, percent: float) -> None:
        self._held = held
        self._percent = percent
        self._values = array("d")

    def add(self, value: Any, at: tuple[int, int]) -> None:
        """Numbers alone count."""
        known = number(value)
        if known is not None:
            self._held.one()
            self._values.append(known)

    def result(self) -> Any:
        """Linear between the two nearest."""
        if not self._values:
            return None
        ordered = sorted(self._values)
        place = (len(ordered) - 1) * self._percent / 100
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


class Extreme:
    """earliest, latest: by time; sortsfirst, sortslast: by value."""

    def __init__(self, by_time: bool, last: bool) -> None:
        self._by_time = by_time
        self._last = last
        self._key: Any = None
        self._value: Any = None

    def add(self, value: Any, at: tuple[int, int]) -> None:
        """Keeps one."""
        key = at if self._by_time else order(value)
        if self._key is None or (key > self._key if self._last else key < self._key):
            self._key, self._value = key, value

    def result(self) -> Any:
        """The value that was kept."""
        return self._value


Made = Callable[[Held], Total]

# name -> how one is made
TOTALS: Mapping[str, Made] = {
    "count": Count,
    "count_distinct": Distinct,
    **{
        name: (lambda held, what=name: Numbers(what))  # type: ignore[misc]
        for name in ("sum", "avg", "min", "max", "stddev")
    },
    "median": lambda held: Quantile(held, 50),
    "earliest": lambda held: Extreme(by_time=True, last=False),
    "latest": lambda held: Extreme(by_time=True, last=True),
    "sortsfirst": lambda held: Extreme(by_time=False, last=False),
    "sortslast": lambda held: Extreme(by_time=False, last=True),
}
QUANTILES = ("pct", "percentile")  # of two arguments: the field and the percent

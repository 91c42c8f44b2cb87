"""Metrics: what is measured, and the summaries that measurements become, which merge without loss of what they know.

A summary holds count, sum, minimum and maximum exactly, and how the values are spread over logarithmic buckets:
any quantile of any merged summaries is within 1 % of the true value. Where an instance's second, a minute of a fleet
and a day of an account meet, they are this one noun.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, isfinite, log

from eyrie.domain.names import Scope

GAMMA = 1.02  # upper bound of a bucket over its lower one: its middle is within 1 % of whatever is in it
_LOG_GAMMA = log(GAMMA)
_ZERO = 40_000  # distance of the bucket of 1.0 from that of zero: beyond the logarithm of any double
_MIDDLE = 2 / (1 + GAMMA)

Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One time series' name: whose, in which namespace, and its dimensions, sorted by name."""

    scope: Scope
    namespace: str
    name: str
    dimensions: Dimensions = ()
    _hash: int = field(init=False, repr=False, compare=False, default=0)  # each measurement is looked up by its metric

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.scope, self.namespace, self.name, self.dimensions)))

    def __hash__(self) -> int:
        return self._hash


def bucket_of(value: float) -> int:
    """The bucket that a finite value falls into; buckets sort as their values do, zero's is 0."""
    if value > 0:
        return ceil(log(value) / _LOG_GAMMA) + _ZERO
    return 0 if value == 0 else -(ceil(log(-value) / _LOG_GAMMA) + _ZERO)


@lru_cache(8_192)
def middle_of(bucket: int) -> float:
    """The value that stands for a bucket."""
    if bucket == 0:
        return 0.0
    size = GAMMA ** (abs(bucket) - _ZERO) * _MIDDLE
    return size if bucket > 0 else -size


@dataclass(slots=True)
class Summary:
    """What is known of many measurements together. It grows by `add` and `merge`; alone among the nouns it is not
    frozen, since a new object a measurement would cost more than the measuring.
    """

    count: float = 0.0
    total: float = 0.0
    lowest: float = float("inf")
    highest: float = float("-inf")
    buckets: dict[int, float] = field(default_factory=dict)  # counts; less than `count` where a value was told as a sum

    def add(self, value: float, times: float = 1.0) -> None:
        """A value that was measured `times` times. Raises ValueError for one that is no finite number."""
        if not (isfinite(value) and isfinite(times) and times > 0):
            raise ValueError(f"cannot count the value {value!r} {times!r} times")
        self.count += times
        self.total += value * times
        if value < self.lowest:
            self.lowest = value
        if value > self.highest:
            self.highest = value
        bucket = bucket_of(value)
        self.buckets[bucket] = self.buckets.get(bucket, 0.0) + times

    def merge(self, other: Summary) -> None:
        """Count in what another summary knows."""
        self.count += other.count
        self.total += other.total
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)
        buckets = self.buckets
        for bucket, times in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0.0) + times

    def parts(self) -> tuple[float, float, float, float, dict[int, float]]:
        """What another one is made of that knows the same and grows apart."""
        return self.count, self.total, self.lowest, self.highest, self.buckets.copy()

    def copy(self) -> Summary:
        """The same, to grow apart."""
        return Summary(*self.parts())

    @property
    def spread_known(self) -> bool:
        """Whether quantiles can be told: every value fell into a bucket."""
        count, spread = self.count, sum(self.buckets.values())
        return count > 0 and (spread == count or abs(spread - count) <= 1e-6 * count)


def told(count: float, total: float, lowest: float, highest: float) -> Summary:
    """The summary of values of which only these are known; a single value (or equal ones) is known wholly.

    Raises ValueError where the four contradict each other.
    """
    if not all(isfinite(x) for x in (count, total, lowest, highest)) or count <= 0 or lowest > highest:
        raise ValueError("SampleCount must be positive and Minimum not above Maximum, all of them finite")
    summary = Summary(count, total, lowest, highest)
    if lowest == highest:
        summary.buckets[bucket_of(lowest)] = count
    return summary


def merged(summaries: Iterable[Summary]) -> Summary:
    """One summary of all."""
    whole = Summary()
    for summary in summaries:
        whole.merge(summary)
    return whole


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one metric around a moment, on its way into the store."""

    metric: Metric
    at_ms: int  # milliseconds since the epoch
    summary: Summary
    unit: str = "None"

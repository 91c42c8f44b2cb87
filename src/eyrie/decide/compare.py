"""Which of two variants is better, and how sure that is, valid however often one looks.

A confidence sequence for the difference of two means: Robbins' normal mixture, whose bound holds at every moment at
once, so that one may look after every request and stop when it is decided (Howard, Ramdas, McAuliffe and Sekhon 2021;
for means of anything with a variance, asymptotically: Waudby-Smith and others 2024). Wider than a test of one fixed
size, never misleading by peeking. Values are taken to be independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, sqrt

from eyrie.domain.metrics import Summary, middle_of

ALPHA = 0.05  # chance of ever deciding wrongly where there is no difference
COUNT_MIN = 100  # of each variant: below it a variance says too little
PLANNED = 1_500.0  # samples a variant, halved, that the bound is tightest at
COUNT_MAX = 10**9  # more than that is "never"
NEEDED_STEPS = 24  # halvings of what is needed: it is told within a millionth


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of one variant's values."""

    count: float
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The second variant's mean less the first one's, and the interval that holds the true one with 95 %."""

    value: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """There is a difference, and its direction is known."""
        return self.low > 0 or self.high < 0


def sample_of(summary: Summary) -> Sample:
    """Mean and variance of summarised values; the variance within a few percent, from the buckets."""
    if not summary.count:
        return Sample(0.0, 0.0, 0.0)
    mean = summary.total / summary.count
    known = sum(summary.buckets.values())
    if not known:
        return Sample(summary.count, mean, (summary.highest - summary.lowest) ** 2 / 4)  # at most this
    middle = sum(middle_of(b) * n for b, n in summary.buckets.items()) / known
    variance = sum((middle_of(b) - middle) ** 2 * n for b, n in summary.buckets.items()) / known
    return Sample(summary.count, mean, variance)


def difference(first: Sample, second: Sample, alpha: float = ALPHA) -> Difference:
    """The difference of two variants' means, now."""
    value = second.mean - first.mean
    width = _width(first, second, alpha)
    return Difference(value, value - width, value + width)


def mean_of(sample: Sample, alpha: float = ALPHA) -> Difference:
    """The mean of one sample (of differences within pairs, of agreement), with the interval that holds the true one."""
    width = inf
    if sample.count >= COUNT_MIN:
        varies = sample.variance > 0
        width = _bound(sample.count / sample.variance, PLANNED / sample.variance, alpha) if varies else 3 / sample.count
    return Difference(sample.mean, sample.mean - width, sample.mean + width)


def _bound(known: float, planned: float, alpha: float) -> float:
    """Robbins' mixture: half the interval's width where so much is known (one over the variance of what is estimated),
    tightest about where as much is known as was planned.
    """
    start = planned / (2 * log(1 / alpha) + log(1 + 2 * log(1 / alpha)))
    return sqrt((known + start) * (2 * log(1 / alpha) + log((known + start) / start))) / known


def _width(first: Sample, second: Sample, alpha: float, times: float = 1.0) -> float:
    """Half the interval's width, were there so many times as many values."""
    if min(first.count, second.count) * times < COUNT_MIN:
        return inf
    noise = (first.variance / first.count + second.variance / second.count) / times
    pooled = (first.count * first.variance + second.count * second.variance) / (first.count + second.count)
    if noise <= 0 or pooled <= 0:  # nothing ever varied: as if one value more of each had
        return 3.0 / (min(first.count, second.count) * times)
    return _bound(1 / noise, PLANNED / 2 / pooled, alpha)


def needed(first: Sample, second: Sample, alpha: float = ALPHA) -> float | None:
    """How many more values of both together would decide it, were means and variances what they are now; None where
    that is never.
    """
    both, value = first.count + second.count, abs(second.mean - first.mean)
    if not both or not value:
        return None
    low, high = 1.0, COUNT_MAX / both
    if _width(first, second, alpha) < value:
        return 0.0
    if high <= 1 or _width(first, second, alpha, high) >= value:
        return None
    for _ in range(NEEDED_STEPS):
        middle = sqrt(low * high)
        low, high = (low, middle) if _width(first, second, alpha, middle) < value else (middle, high)
    return both * (high - 1)

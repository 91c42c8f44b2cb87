"""What a summary answers when it is asked for a statistic, by CloudWatch's names: SampleCount, Average, Sum, Minimum,
Maximum, p99.9, tm90 and TM(10%:90%), the other trimmed ones (wm, tc, ts), PR(low:high) and IQM. Pure.

A trimmed statistic is bounded by quantiles (`%`) or by values; where the spread of the values is not known it has no
answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from eyrie.domain.metrics import Summary, middle_of

Statistic = Callable[[Summary], float | None]

_PLAIN: dict[str, Statistic] = {
    "SampleCount": lambda s: s.count,
    "Sum": lambda s: s.total,
    "Average": lambda s: s.total / s.count if s.count else None,
    "Minimum": lambda s: s.lowest if s.count else None,
    "Maximum": lambda s: s.highest if s.count else None,
}
_PERCENTILE = re.compile(r"(p|tm|wm|tc|ts)(\d{1,2}(?:\.\d{1,10})?|100)", re.IGNORECASE)
_NUMBER = r"-?\d+(?:\.\d+)?%?"
_RANGE = re.compile(rf"(TM|WM|TC|TS|PR)\(({_NUMBER})?:({_NUMBER})?\)", re.IGNORECASE)


def statistic(name: str) -> Statistic:
    """The function of a statistic's name. Raises ValueError for one that CloudWatch has not."""
    plain = _PLAIN.get(name)
    if plain is not None:
        return plain
    if name.upper() == "IQM":
        return lambda s: _trimmed("tm", _by_rank(s, 25, 75))
    point = _PERCENTILE.fullmatch(name)
    if point:
        kind, upper = point[1].lower(), float(point[2])
        return _quantile(upper) if kind == "p" else lambda s: _over(kind, s, None, (upper, True))
    found = _RANGE.fullmatch(name)
    if found is None or (found[2] is None and found[3] is None):
        raise ValueError(f"{name[:64]!r} is no statistic: Average, Sum, Maximum, p99.9, TM(10%:90%) …")
    low, high = _bound(found[2]), _bound(found[3])
    _check_range(name, low, high)
    kind = found[1].lower()
    return lambda s: _over(kind, s, low, high)


Bound = tuple[float, bool]  # a value, or a percentage where the second is true


def _bound(text: str | None) -> Bound | None:
    return None if text is None else (float(text.rstrip("%")), text.endswith("%"))


def _check_range(name: str, low: Bound | None, high: Bound | None) -> None:
    given = [b for b in (low, high) if b is not None]
    if len({b[1] for b in given}) > 1:
        raise ValueError(f"{name!r}: both bounds must be percentages, or none")
    if any(percent and not 0 <= value <= 100 for value, percent in given) or (low and high and low[0] >= high[0]):
        raise ValueError(f"{name!r}: bounds go from low to high, percentages from 0 to 100")
    if name[:2].upper() == "PR" and any(percent for _, percent in given):
        raise ValueError(f"{name!r}: PR takes values, not percentages")


def _quantile(percent: float) -> Statistic:
    share = 1 - percent / 100

    def of(summary: Summary) -> float | None:
        buckets, count = summary.buckets, summary.count
        if not buckets or (sum(buckets.values()) != count and not summary.spread_known):
            return None
        if percent > 50:  # from above, since what is asked for is mostly near the top
            above, beyond = 0.0, share * count + 1e-9
            top = max(buckets)
            if buckets[top] > beyond:  # of few values, mostly
                return _clamped(summary, top)
            for bucket in sorted(buckets, reverse=True):
                above += buckets[bucket]
                if above > beyond:
                    return _clamped(summary, bucket)
            return summary.lowest
        passed, rank = 0.0, percent / 100 * summary.count - 1e-9
        for bucket in sorted(buckets):
            passed += buckets[bucket]
            if passed >= rank:
                return _clamped(summary, bucket)
        return summary.highest

    return of


def _over(kind: str, summary: Summary, low: Bound | None, high: Bound | None) -> float | None:
    """A statistic over what lies between two bounds."""
    if not summary.spread_known:
        return None
    percent = (low or high or (0.0, False))[1]
    if percent:
        parts = list(_by_rank(summary, low[0] if low else 0.0, high[0] if high else 100.0))
    else:
        parts = list(_by_value(summary, low[0] if low else None, high[0] if high else None))
    if kind == "wm":
        return _winsorized(summary, parts)
    if kind == "pr":
        return 100 * sum(times for _, times in parts) / summary.count
    return _trimmed(kind, iter(parts))


Parts = Iterator[tuple[float, float]]  # values and how often each counts


def _by_rank(summary: Summary, low: float, high: float) -> Parts:
    if not summary.spread_known:
        return
    first, last = low / 100 * summary.count, high / 100 * summary.count
    passed = 0.0
    for bucket, times in sorted(summary.buckets.items()):
        inside = min(passed + times, last) - max(passed, first)
        if inside > 0:
            yield _clamped(summary, bucket), inside
        passed += times


def _by_value(summary: Summary, low: float | None, high: float | None) -> Parts:
    for bucket, times in sorted(summary.buckets.items()):
        value = _clamped(summary, bucket)
        if (low is None or value > low) and (high is None or value <= high):
            yield value, times


def _clamped(summary: Summary, bucket: int) -> float:
    middle = middle_of(bucket)
    return summary.highest if middle > summary.highest else summary.lowest if middle < summary.lowest else middle


def _trimmed(kind: str, parts: Parts) -> float | None:
    values = list(parts)
    count = sum(times for _, times in values)
    if kind == "tc":
        return count
    total = sum(value * times for value, times in values)
    if kind == "ts":
        return total
    return total / count if count else None


def _winsorized(summary: Summary, parts: list[tuple[float, float]]) -> float | None:
    """What lies outside counts as the nearest value inside."""
    if not parts:
        return None
    inside = sum(times for _, times in parts)
    lowest, highest = parts[0][0], parts[-1][0]
    below = sum(times for bucket, times in summary.buckets.items() if _clamped(summary, bucket) < lowest)
    above = max(summary.count - inside - below, 0.0)
    total = sum(value * times for value, times in parts) + lowest * below + highest * above
    return total / summary.count

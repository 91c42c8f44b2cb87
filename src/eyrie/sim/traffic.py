"""What the wind tunnel blows: how many requests a second are wanted, second by second, from a shape or from a record.

First of the sim's steps: a `Traffic` is a value; sim/world draws the arrivals of each second from it with its own seed.
"""

from __future__ import annotations

import csv
import math
import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

SECONDS_MAX = 31 * 86_400
RATE_MAX = 1e7
HEADS_OF_TIME = ("time", "timestamp", "t", "seconds", "at")
HEADS_OF_RATE = ("rate", "rps", "requests_per_second")
HEADS_OF_COUNT = ("requests", "invocations", "count", "sum")


class TrafficError(ValueError):
    """A shape or a record that makes no sense; the message names the field and its value."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests a second, one figure for each second. `even`: they arrive evenly, not at random."""

    name: str
    rates: array[float]
    even: bool = False

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return len(self.rates)

    @property
    def requests(self) -> float:
        """How many requests are to be expected in all."""
        return sum(self.rates)


def traffic(name: str, rates: Iterable[float], even: bool = False) -> Traffic:
    """The traffic of these rates. Raises TrafficError for none, too many, or one that is no rate."""
    kept = array("d", rates)
    if not 1 <= len(kept) <= SECONDS_MAX:
        raise TrafficError(f"traffic lasts 1 to {SECONDS_MAX} seconds, and {name} lasts {len(kept)}")
    worst = next((r for r in kept if not 0 <= r <= RATE_MAX), None)
    if worst is not None:
        raise TrafficError(f"a rate lies between 0 and {RATE_MAX:g} requests a second, and {name} has {worst}")
    return Traffic(name, kept, even)


def constant(rate: float, seconds: int = 3600) -> Traffic:
    """The same rate all the time; it arrives evenly."""
    return traffic(f"constant {rate:g}/s", (rate for _ in range(_bounded(seconds))), even=True)


def poisson(rate: float, seconds: int = 3600) -> Traffic:
    """The same rate on average; requests arrive independently of each other."""
    return traffic(f"poisson {rate:g}/s", (rate for _ in range(_bounded(seconds))))


def diurnal(low: float, high: float, seconds: int = 86_400, period_s: int = 86_400, peak_s: int = 50_400) -> Traffic:
    """Day and night: a sine from `low` to `high` that peaks at `peak_s` (14:00) of each period."""
    if period_s < 2:
        raise TrafficError(f"period must be at least 2 seconds, and is {period_s}")
    middle, swing = (high + low) / 2, (high - low) / 2
    turns = (2 * math.pi * (t - peak_s) / period_s for t in range(_bounded(seconds)))
    return traffic(f"diurnal {low:g} to {high:g}/s", (middle + swing * math.cos(turn) for turn in turns))


def flash_crowd(
    base: float,
    peak: float,
    seconds: int = 7200,
    at_s: int = 1800,
    rise_s: int = 30,
    hold_s: int = 900,
    fall_s: int = 900,
) -> Traffic:
    """Quiet, then within `rise_s` a crowd that stays for `hold_s` and leaves over `fall_s`."""
    points = [(0, base), (at_s, base), (at_s + rise_s, peak), (at_s + rise_s + hold_s, peak)]
    points += [(at_s + rise_s + hold_s + fall_s, base), (_bounded(seconds) + at_s + rise_s + hold_s + fall_s, base)]
    return traffic(f"flash crowd {base:g} to {peak:g}/s", _between(points, seconds))


def on_off(high: float, low: float = 0.0, seconds: int = 14_400, on_s: int = 600, off_s: int = 600) -> Traffic:
    """Batches: `off_s` at `low`, `on_s` at `high`, over and over, without any slope."""
    if on_s < 1 or off_s < 1:
        raise TrafficError(f"on and off must be at least 1 second, and are {on_s} and {off_s}")
    rates = (low if t % (on_s + off_s) < off_s else high for t in range(_bounded(seconds)))
    return traffic(f"on-off {low:g} and {high:g}/s", rates)


def from_points(name: str, points: Sequence[tuple[float, float]], seconds: int | None = None) -> Traffic:
    """Rates at moments (seconds from the first one), straight lines between them; it ends at the last.

    Raises TrafficError where moments do not rise.
    """
    if len(points) < 2:
        raise TrafficError(f"{name} needs at least two rows, and has {len(points)}")
    first = points[0][0]
    moved = [(at - first, rate) for at, rate in points]
    wrong = next((i for i in range(1, len(moved)) if moved[i][0] <= moved[i - 1][0]), None)
    if wrong is not None:
        raise TrafficError(f"{name}: times must rise, and row {wrong + 1} has {points[wrong][0]:g}")
    return traffic(name, _between(moved, seconds or math.ceil(moved[-1][0])))


def from_counts(name: str, counts: Sequence[tuple[float, float]], period_s: float) -> Traffic:
    """Requests in periods, by the seconds at which each begins, as a recorded metric tells them; a gap is silence."""
    if not counts:
        raise TrafficError(f"{name} holds no requests")
    if period_s < 1:
        raise TrafficError(f"{name}: a period is at least 1 second, and is {period_s:g}")
    first = min(at for at, _ in counts)
    seconds = _bounded(math.ceil(max(at for at, _ in counts) - first + period_s))
    rates = array("d", bytes(8 * seconds))
    for at, count in counts:
        begin = int(at - first)
        for second in range(begin, min(seconds, begin + int(period_s))):
            rates[second] += count / period_s
    return traffic(name, rates)


def from_csv(name: str, lines: Iterable[str]) -> Traffic:
    """A table of two columns: time (seconds, or ISO 8601), and `rate` (a second) or `requests` (until the next row).

    Without a header the columns are seconds and rate. Raises TrafficError naming row and value.
    """
    rows = [row for row in csv.reader(lines) if row and any(cell.strip() for cell in row)]
    if not rows:
        raise TrafficError(f"{name} is empty")
    counted = False
    time_at, value_at = 0, 1
    if not _is_number(rows[0][-1]):
        time_at, value_at, counted = _columns(name, rows.pop(0))
    points = [_point(name, n, row, time_at, value_at) for n, row in enumerate(rows, 1)]
    return _steps(name, points) if counted else from_points(name, points)


def arrivals(chance: random.Random, rate: float, even: bool, carried: float) -> tuple[int, float]:
    """How many requests one second brings, and what is carried over of a fraction where they arrive evenly."""
    if not even:
        return drawn(chance, rate), 0.0
    whole = int(rate + carried)
    return whole, rate + carried - whole


def drawn(chance: random.Random, mean: float) -> int:
    """A Poisson number: by products up to 30, by its normal neighbour above."""
    if mean <= 0:
        return 0
    if mean > 30:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        count += 1
    return count


def _bounded(seconds: int) -> int:
    if not 1 <= seconds <= SECONDS_MAX:
        raise TrafficError(f"duration must lie between 1 and {SECONDS_MAX} seconds, and is {seconds}")
    return seconds


def _between(points: Sequence[tuple[float, float]], seconds: int) -> Iterable[float]:
    index = 0
    for t in range(_bounded(seconds)):
        while index + 2 < len(points) and points[index + 1][0] <= t:
            index += 1
        (t0, r0), (t1, r1) = points[index], points[index + 1]
        yield r1 if t1 <= t0 else r0 + (r1 - r0) * min(1.0, (t - t0) / (t1 - t0))


def _steps(name: str, points: Sequence[tuple[float, float]]) -> Traffic:
    """Each row's requests, spread until the next row; the last one lasts as long as the one before."""
    if len(points) < 2:
        raise TrafficError(f"{name} needs at least two rows, and has {len(points)}")
    first, rates = points[0][0], array("d")
    ends = [at for at, _ in points[1:]] + [2 * points[-1][0] - points[-2][0]]
    for n, ((at, count), end) in enumerate(zip(points, ends, strict=True), 1):
        if end <= at:
            raise TrafficError(f"{name}: times must rise, and row {n + 1} has {end:g}")
        seconds = round(end - first) - len(rates)
        _bounded(len(rates) + max(1, seconds))
        rates.extend(count / (end - at) for _ in range(seconds))
    return traffic(name, rates)


def _columns(name: str, head: Sequence[str]) -> tuple[int, int, bool]:
    known = [cell.strip().lower() for cell in head]
    times = [i for i, cell in enumerate(known) if cell in HEADS_OF_TIME]
    rates = [i for i, cell in enumerate(known) if cell in HEADS_OF_RATE]
    counts = [i for i, cell in enumerate(known) if cell in HEADS_OF_COUNT]
    if not times or not (rates or counts):
        raise TrafficError(f"{name}: the header {','.join(head)[:80]!r} must name `time`, and `rate` or `requests`")
    return times[0], (rates or counts)[0], not rates


def _point(name: str, number: int, row: Sequence[str], time_at: int, value_at: int) -> tuple[float, float]:
    if len(row) <= max(time_at, value_at):
        raise TrafficError(f"{name}: row {number} has {len(row)} columns")
    value = row[value_at].strip()
    if not _is_number(value):
        raise TrafficError(f"{name}: row {number} has {value[:40]!r} where a number belongs")
    return _moment(name, number, row[time_at].strip()), float(value)


def _moment(name: str, number: int, text: str) -> float:
    if _is_number(text):
        return float(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise TrafficError(f"{name}: row {number} has {text[:40]!r} where seconds or a time belongs") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

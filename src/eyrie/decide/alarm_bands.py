"""The band of values that are to be expected of a metric: ANOMALY_DETECTION_BAND. Pure: history in, band out.

The model is robust: outliers of the past move it little. A value is expected to be near the median of what was measured
at the same time of day (of the week, once three weeks are known), moved by how far the last hours as a whole were off;
how near, is told by the median of the distances from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
HISTORY_MS = 28 * DAY_MS  # what a model is made of, at the most
POINTS_MIN = 30  # fewer values say nothing: no band
SLOT_MS = 30 * MINUTE_MS
SLOT_POINTS_MIN = 3  # of a time of day, before it is believed
SIGMA = 1.4826  # a normal distribution's standard deviation over its median distance
WIDTH_DEFAULT = 2.0
_FLOOR = 0.01  # of the level: what never varied may yet vary a little
_ADAPTED_MS = {"FAST": 6 * HOUR_MS, "NORMAL": DAY_MS, "SLOW": 3 * DAY_MS}


@dataclass(frozen=True, slots=True)
class Training:
    """How a detector is to learn."""

    excluded: tuple[tuple[int, int], ...] = ()  # spans of time, milliseconds since the epoch
    offset_ms: int = 0  # of the time zone that its days are of
    speed: str = "NORMAL"


@dataclass(frozen=True, slots=True)
class Band:
    """What is expected, trained once and asked for any time."""

    level: float  # the median of all
    spread: float  # one standard deviation, robustly
    season_ms: int = 0  # 0: none
    offset_ms: int = 0
    seasonal: Mapping[int, tuple[float, float]] = field(default_factory=dict)  # slot: centre and spread
    shift: float = 0.0  # of the last hours, against their season
    points: int = 0

    def at(self, at_ms: int, width: float = WIDTH_DEFAULT) -> tuple[float, float]:
        """Lower and upper bound at a time; `width` is in standard deviations."""
        centre, spread = self.level, self.spread
        if self.season_ms:
            centre, spread = self.seasonal.get(slot_of(at_ms, self.season_ms, self.offset_ms), (centre, spread))
        centre += self.shift
        return centre - width * spread, centre + width * spread


def slot_of(at_ms: int, season_ms: int, offset_ms: int) -> int:
    """The half hour of a day or a week that a time falls into."""
    return (at_ms + offset_ms) % season_ms // SLOT_MS


def train(history: Mapping[int, float], training: Training | None = None) -> Band | None:
    """The model of a history, values by time in milliseconds; None where there is too little of it."""
    told = training or Training()
    points = [
        (at_ms, value)
        for at_ms, value in sorted(history.items())
        if not any(start <= at_ms < end for start, end in told.excluded)
    ]
    if len(points) < POINTS_MIN:
        return None
    values = [value for _, value in points]
    level = median(values)
    floor = max(abs(level) * _FLOOR, 1e-9)
    season_ms = _season(points[-1][0] - points[0][0])
    if not season_ms:
        return Band(level, max(_spread(values, level), floor), points=len(points))
    seasonal = _seasonal(points, season_ms, told.offset_ms, floor)
    residuals = [
        (at_ms, value - seasonal.get(slot_of(at_ms, season_ms, told.offset_ms), (level, 0.0))[0])
        for at_ms, value in points
    ]
    recent = [off for at_ms, off in residuals if at_ms >= points[-1][0] - _ADAPTED_MS[told.speed]]
    shift = median(recent) if len(recent) >= SLOT_POINTS_MIN else 0.0
    spread = max(_spread([off for _, off in residuals], 0.0), floor)
    return Band(level, spread, season_ms, told.offset_ms, seasonal, shift, len(points))


def _season(span_ms: int) -> int:
    """Days count once there are two, weeks once there are three."""
    if span_ms >= 3 * WEEK_MS:
        return WEEK_MS
    return DAY_MS if span_ms >= 2 * DAY_MS else 0


def _seasonal(
    points: Sequence[tuple[int, float]], season_ms: int, offset_ms: int, floor: float
) -> dict[int, tuple[float, float]]:
    """Centre and spread by slot; neighbours are counted in, so that a slot is not all its own noise."""
    slots: defaultdict[int, list[float]] = defaultdict(list)
    for at_ms, value in points:
        slots[slot_of(at_ms, season_ms, offset_ms)].append(value)
    count = season_ms // SLOT_MS
    found = {}
    for slot, own in slots.items():
        if len(own) < SLOT_POINTS_MIN:
            continue
        around = [*own, *slots.get((slot - 1) % count, ()), *slots.get((slot + 1) % count, ())]
        centre = median(own)
        found[slot] = centre, max(_spread(around, centre), floor)
    return found


def _spread(values: Sequence[float], centre: float) -> float:
    """One standard deviation around a centre. Where half of the values are all but equal, the mean distance says it."""
    distances = [abs(value - centre) for value in values]
    robust = SIGMA * median(distances)
    return robust or sum(distances) / len(distances) * 1.2533

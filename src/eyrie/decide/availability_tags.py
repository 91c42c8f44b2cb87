"""What the tags of an endpoint say about its availability: the objective, planned maintenance, a probe. Pure.

eyrie:objective      99.9                                   percent, above 0 and below 100
eyrie:maintenance    2026-11-22T02:00Z/2h sun/02:00Z/30min  windows, once or each day or week, in UTC
eyrie:probe          text/csv NS4xLDMuNSwxLjQsMC4y          a content type, and a request's body in Base64
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping

from eyrie.decide.moments import DAY_MS, midnight
from eyrie.domain.availability import Probe, Wanted, Window

OBJECTIVE, MAINTENANCE, PROBE = "eyrie:objective", "eyrie:maintenance", "eyrie:probe"
LENGTH_MAX_MS = 7 * DAY_MS
_DAYS = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")  # the epoch began on a Thursday
_ONCE = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)Z/(\d{1,5})(min|h|d)", re.IGNORECASE)
_AGAIN = re.compile(rf"(daily|{'|'.join(_DAYS)})/(\d\d):(\d\d)Z/(\d{{1,5}})(min|h|d)", re.IGNORECASE)
_UNITS_MS: Mapping[str, int] = {"min": 60_000, "h": 3_600_000, "d": DAY_MS}
_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def wanted(tags: Mapping[str, str], default: float) -> Wanted:
    """What tags say; what of them cannot be read is left out, and told. `default`: the objective without one."""
    faults: list[str] = []
    goal: float | None = None
    windows: list[Window] = []
    probe: Probe | None = None
    if OBJECTIVE in tags:
        try:
            goal = objective(tags[OBJECTIVE])
        except ValueError as fault:
            faults.append(f"{OBJECTIVE}: {fault}")
    for word in tags.get(MAINTENANCE, "").split():
        try:
            windows.append(window(word))
        except ValueError as fault:
            faults.append(f"{MAINTENANCE}: {fault}")
    if tags.get(PROBE):
        try:
            probe = request(tags[PROBE])
        except ValueError as fault:
            faults.append(f"{PROBE}: {fault}")
    return Wanted(default if goal is None else goal, goal is not None, tuple(windows), probe, tuple(faults))


def objective(text: str) -> float:
    """Percent. Raises ValueError for people."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 < value < 100.0:
        raise ValueError(f"an objective is a percentage above 0 and below 100, and not {text[:64]!r}")
    return value


def window(text: str) -> Window:
    """Maintenance, once or again and again. Raises ValueError for people."""
    once, again = _ONCE.fullmatch(text), _AGAIN.fullmatch(text)
    if once is not None:
        year, month, day = int(once[1]), int(once[2]), int(once[3])
        if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= _DAYS_OF_MONTH[month - 1]):
            raise ValueError(f"{text[:64]!r} names no day")
        return Window(midnight(year, month, day) + _of_day(once[4], once[5], text), _length(once[6], once[7], text))
    if again is not None:
        name = again[1].lower()
        first, every = (0, 1) if name == "daily" else (_DAYS.index(name), 7)
        start_ms = first * DAY_MS + _of_day(again[2], again[3], text)
        length_ms = _length(again[4], again[5], text)
        if length_ms >= every * DAY_MS:
            raise ValueError(f"{text[:64]!r} would never end")
        return Window(start_ms, length_ms, every * DAY_MS)
    like = "2026-11-22T02:00Z/2h, sun/02:00Z/2h or daily/02:00Z/30min"
    raise ValueError(f"{text[:64]!r} cannot be read: give it like {like}")


def _of_day(hour: str, minute: str, text: str) -> int:
    if int(hour) > 23 or int(minute) > 59:
        raise ValueError(f"{text[:64]!r} names no time of day")
    return int(hour) * 3_600_000 + int(minute) * 60_000


def _length(count: str, unit: str, text: str) -> int:
    length_ms = int(count) * _UNITS_MS[unit.lower()]
    if not 0 < length_ms <= LENGTH_MAX_MS:
        raise ValueError(f"{text[:64]!r}: maintenance takes more than nothing and at most 7 days")
    return length_ms


def request(text: str) -> Probe:
    """A probe. Raises ValueError for people."""
    content_type, _, body = text.partition(" ")
    if not (content_type.isascii() and content_type.isprintable()):
        raise ValueError(f"{content_type[:64]!r} is no content type")
    try:
        return Probe(content_type, b64decode(body.encode("ascii"), validate=True))
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("give a content type, a space, and the body of a request in Base64") from None

"""How numbers, times and sizes are written for people. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NOTHING = "–"
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None) -> str:
    """Three significant digits, thousands by a thin space: 0.0123, 4.56, 789, 12 345."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}".replace(",", "\u202f")
    if size == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:.{min(digits, 6)}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def rate(per_second: float | None) -> str:
    """Requests a second."""
    return NOTHING if per_second is None else f"{number(per_second)}/s"


def percent(part: float | None) -> str:
    """A share between 0 and 1. What is not quite none or not quite all is never shown as none or all."""
    if part is None or not math.isfinite(part):
        return NOTHING
    if 0 < part < 0.001:
        return "<0.1 %"
    if 0.999 < part < 1:
        return ">99.9 %"
    return f"{number(part * 100)} %"


def latency(microseconds: float | None) -> str:
    """A latency in its sensible unit."""
    if microseconds is None or not math.isfinite(microseconds):
        return NOTHING
    if microseconds < 1_000:
        return f"{number(microseconds)} µs"
    if microseconds < 1_000_000:
        return f"{number(microseconds / 1_000)} ms"
    return f"{number(microseconds / 1_000_000)} s"


def size(count: float | None) -> str:
    """Bytes in their sensible unit."""
    if count is None:
        return NOTHING
    step = 0
    while count >= 1024 and step < len(_SIZES) - 1:
        count, step = count / 1024, step + 1
    return f"{number(count)} {_SIZES[step]}"


def age(ms: float) -> str:
    """A duration in its one largest sensible unit."""
    seconds = int(max(0.0, ms) // 1000)
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def money(usd: float | None) -> str:
    """US dollars."""
    if usd is None:
        return NOTHING
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.3f}"


def clock(ms: float) -> str:
    """The time of day in UTC, with milliseconds."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"


def stamp(ms: float) -> str:
    """Date and time in UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 instance`, `2 instances`."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"

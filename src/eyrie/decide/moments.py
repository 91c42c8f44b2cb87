"""Moments in time as texts, UTC, without a clock or a calendar's library: decisions may have neither."""

from __future__ import annotations

DAY_MS = 86_400_000


def date_of(at_ms: int) -> tuple[int, int, int]:
    """Year, month and day of a moment; worked out from March on, so that the leap day is a year's last."""
    days = at_ms // DAY_MS + 719_468  # since the 1st of March of the year 0
    era, day = divmod(days, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    return era * 400 + year + (month >= 10), month + (3 if month < 10 else -9), day - (153 * month + 2) // 5 + 1


def midnight(year: int, month: int, day: int) -> int:
    """The beginning of a day: milliseconds since the epoch. The inverse of `date_of`."""
    since_march = (month - 3) % 12
    years = year - (month < 3)
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * since_march + 2) // 5 + day - 1
    return (days - 719_468) * DAY_MS


def time_of(at_ms: int) -> str:
    """15:04:05"""
    second = at_ms % DAY_MS // 1000
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def short(at_ms: int) -> str:
    """21/11/26 15:04:05, as reasons of alarms have it."""
    year, month, day = date_of(at_ms)
    return f"{day:02d}/{month:02d}/{year % 100:02d} {time_of(at_ms)}"


def iso(at_ms: int) -> str:
    """2026-11-21T15:04:05.000+0000, as reason data and events of alarms have it."""
    return f"{_day(at_ms)}T{time_of(at_ms)}.{at_ms % 1000:03d}+0000"


def zulu(at_ms: int, fraction: bool = False) -> str:
    """2026-11-21T15:04:05Z, or with milliseconds."""
    return f"{_day(at_ms)}T{time_of(at_ms)}" + (f".{at_ms % 1000:03d}Z" if fraction else "Z")


def _day(at_ms: int) -> str:
    year, month, day = date_of(at_ms)
    return f"{year:04d}-{month:02d}-{day:02d}"

"""When something scheduled happens next: `at(…)`, `rate(…)` and `cron(…)` as Application Auto Scaling, EventBridge and
SageMaker's monitors write them, in any time zone of the IANA database.

AWS's cron has six fields (minutes, hours, day of month, month, day of week, year), days of the week from 1 (Sunday)
and a `?` in one of the two day fields. cronsim does the calendar, daylight saving included: a time that a day does not
have is an hour later, one that it has twice comes once.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from eyrie.domain.scaling import Schedule

_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_RATE = re.compile(r"rate\((\d{1,6}) (minutes?|hours?|days?)\)")
_CRON = re.compile(r"cron\(([^()]{1,256})\)")
_UNIT_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_YEARS = (1970, 2199)


class BadSchedule(ValueError):
    """What cannot be read as a schedule; the message is for people, and names the field."""


def check(schedule: Schedule) -> None:
    """Raise BadSchedule for what will never be understood, or never happen."""
    zone(schedule.timezone)
    if schedule.start_ms is not None and schedule.end_ms is not None and schedule.start_ms > schedule.end_ms:
        raise BadSchedule("The start time must be before the end time")
    following(schedule, 0, 0)


def following(schedule: Schedule, after_ms: int, created_ms: int) -> int | None:
    """The first time after `after_ms` (milliseconds since the epoch); None: never again. A rate counts from the start
    time, else from `created_ms`. Raises BadSchedule.
    """
    if schedule.start_ms is not None:
        after_ms = max(after_ms, schedule.start_ms - 1)
    text = schedule.expression
    at, rate, cron = _AT.fullmatch(text), _RATE.fullmatch(text), _CRON.fullmatch(text)
    if at:
        found = _at(at[1], zone(schedule.timezone))
        found = found if found is not None and found > after_ms else None
    elif rate:
        first_ms = created_ms if schedule.start_ms is None else schedule.start_ms
        found = _rate(int(rate[1]), rate[2], after_ms, first_ms, schedule.start_ms is not None)
    elif cron:
        found = _cron(cron[1], after_ms, zone(schedule.timezone))
    else:
        raise BadSchedule(f"{text[:64]!r} is none of at(yyyy-mm-ddThh:mm:ss), rate(value unit) and cron(fields)")
    if found is not None and schedule.end_ms is not None and found > schedule.end_ms:
        return None
    return found


def zone(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises BadSchedule."""
    if name == "UTC":
        return UTC
    if name not in available_timezones():
        raise BadSchedule(f"{name[:64]!r} is no time zone of the IANA database")
    return ZoneInfo(name)


def _at(text: str, where: tzinfo) -> int | None:
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=where)
    except ValueError as error:
        raise BadSchedule(f"at({text}): {error}") from None
    return int(moment.timestamp() * 1000)


def _rate(count: int, unit: str, after_ms: int, first_ms: int, at_start: bool) -> int:
    """Every so long; the first time is the start time itself, or one period after the creation."""
    if count < 1:
        raise BadSchedule("The value of a rate must be positive")
    if (count == 1) == unit.endswith("s"):
        raise BadSchedule(f"rate({count} {unit}): a value of 1 goes with a singular unit, others with a plural one")
    period_ms = count * _UNIT_MS[unit.rstrip("s")]
    earliest = 0 if at_start else 1
    passed = (after_ms - first_ms) // period_ms + 1 if after_ms >= first_ms else 0
    return first_ms + max(passed, earliest) * period_ms


def _cron(text: str, after_ms: int, where: tzinfo) -> int | None:
    fields = text.split()
    if len(fields) != 6:
        raise BadSchedule(f"cron({text}): there must be six fields, and there are {len(fields)}")
    minutes, hours, day, month, weekday, year = fields
    if (day == "?") == (weekday == "?"):
        raise BadSchedule(f"cron({text}): one of day-of-month and day-of-week must be ?, and only one")
    years = _years(year)
    expression = " ".join((minutes, hours, day.replace("?", "*"), month, _weekday(weekday)))
    moment = datetime.fromtimestamp(max(after_ms, 0) / 1000, where)
    try:
        while True:
            found = next(CronSim(expression, moment))
            if found.year in years:
                return int(found.timestamp() * 1000)
            later = [y for y in years if y > found.year]
            if not later:
                return None
            moment = datetime(min(later), 1, 1, tzinfo=where) - timedelta(seconds=1)
    except CronSimError as error:
        raise BadSchedule(f"cron({text}): {error}") from None
    except StopIteration:
        raise BadSchedule(f"cron({text}): there is no such day") from None


def _weekday(field: str) -> str:
    """AWS counts the days of the week from 1, cron from 0: names and numbers become cron's."""
    field = "*" if field == "?" else field

    def day(found: re.Match[str]) -> str:
        number = int(found[0])
        if not 1 <= number <= 7:
            raise BadSchedule(f"Bad day-of-week: {number} is not from 1 (Sunday) to 7")
        return str(number - 1)

    head, mark, rest = re.match(r"([^#/]*)([#/]?)(.*)", field).groups()  # type: ignore[union-attr]
    if head == "L":
        return "6"  # alone it is Saturday
    for number, name in enumerate(_DAYS, 1):
        head = re.sub(name, str(number), head, flags=re.IGNORECASE)
    return re.sub(r"\d+", day, head) + mark + rest


def _years(field: str) -> range | frozenset[int]:
    low, high = _YEARS
    if field == "*":
        return range(low, high + 1)
    found: set[int] = set()
    for part in field.split(","):
        matched = re.fullmatch(r"(\*|\d{4})(?:-(\d{4}))?(?:/(\d{1,3}))?", part)
        if matched is None:
            raise BadSchedule(f"Bad year: {part[:32]!r}")
        first, last, step = matched.groups()
        start = low if first == "*" else int(first)
        end = int(last) if last else high if step or first == "*" else start
        if not (low <= start <= end <= high) or step == "0":
            raise BadSchedule(f"Bad year: {part[:32]!r} is not within {low}-{high}")
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)

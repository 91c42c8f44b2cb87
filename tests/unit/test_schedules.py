"""When scheduled things happen: at, rate and cron, in time zones, over daylight saving, within start and end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from eyrie.adapters.schedules import BadSchedule, check, following
from eyrie.domain.scaling import Schedule


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def told(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M")


def after(expression: str, moment: str, timezone: str = "UTC", **within: int) -> str | None:
    schedule = Schedule(expression, timezone, **within)
    check(schedule)
    return told(following(schedule, ms(moment), ms("2026-01-01T00:00")))


@pytest.mark.parametrize(
    ("expression", "moment", "timezone", "expected"),
    [
        ("at(2026-11-21T08:00:00)", "2026-11-20T00:00", "UTC", "2026-11-21T08:00"),
        ("at(2026-11-21T08:00:00)", "2026-11-21T08:00", "UTC", None),
        ("at(2026-07-01T08:00:00)", "2026-01-01T00:00", "Europe/Berlin", "2026-07-01T06:00"),
        ("rate(5 minutes)", "2026-01-01T00:00", "UTC", "2026-01-01T00:05"),
        ("rate(5 minutes)", "2026-01-01T00:04", "UTC", "2026-01-01T00:05"),
        ("rate(1 hour)", "2026-01-03T10:30", "UTC", "2026-01-03T11:00"),
        ("rate(1 day)", "2026-01-03T10:30", "UTC", "2026-01-04T00:00"),
        ("cron(0 8 * * ? *)", "2026-11-20T09:00", "UTC", "2026-11-21T08:00"),
        ("cron(0 8 * * ? *)", "2026-11-20T09:00", "America/New_York", "2026-11-20T13:00"),
        ("cron(15 10 ? * 6L 2026-2027)", "2026-11-01T00:00", "UTC", "2026-11-27T10:15"),
        ("cron(0 0 ? * 2#1 *)", "2026-11-03T00:00", "UTC", "2026-12-07T00:00"),
        ("cron(0 18 ? * MON-FRI *)", "2026-11-20T19:00", "UTC", "2026-11-23T18:00"),
        ("cron(0/10 * ? * MON-FRI *)", "2026-11-20T19:01", "UTC", "2026-11-20T19:10"),
        ("cron(0 0 1 1 ? 2030)", "2026-11-20T19:00", "UTC", "2030-01-01T00:00"),
        ("cron(0 0 L * ? *)", "2026-02-02T00:00", "UTC", "2026-02-28T00:00"),
        ("cron(0 0 1 1 ? 2020)", "2026-11-20T19:00", "UTC", None),
    ],
)
def test_the_next_time(expression: str, moment: str, timezone: str, expected: str | None) -> None:
    assert after(expression, moment, timezone) == expected


def test_daylight_saving() -> None:
    nightly = "cron(30 2 * * ? *)"  # not there on 2026-03-29 in Berlin, there twice on 2026-10-25
    assert after(nightly, "2026-03-28T12:00", "Europe/Berlin") == "2026-03-29T01:00"
    assert after(nightly, "2026-10-24T12:00", "Europe/Berlin") == "2026-10-25T00:30"
    assert after(nightly, "2026-10-25T00:30", "Europe/Berlin") == "2026-10-26T01:30"


def test_start_and_end() -> None:
    start, end = ms("2026-02-01T00:00"), ms("2026-02-02T00:00")
    assert after("rate(1 hour)", "2026-01-01T00:00", start_ms=start) == "2026-02-01T00:00"
    assert after("cron(0 8 * * ? *)", "2026-01-01T00:00", start_ms=start, end_ms=end) == "2026-02-01T08:00"
    assert after("cron(0 8 * * ? *)", "2026-02-01T08:00", start_ms=start, end_ms=end) is None


@pytest.mark.parametrize(
    ("expression", "timezone", "names"),
    [
        ("every day", "UTC", "none of at"),
        ("at(2026-02-30T00:00:00)", "UTC", "day"),
        ("rate(5 minute)", "UTC", "plural"),
        ("rate(0 minutes)", "UTC", "positive"),
        ("cron(0 8 * * *)", "UTC", "six fields"),
        ("cron(0 8 * * * *)", "UTC", "must be ?"),
        ("cron(0 8 ? * ? *)", "UTC", "must be ?"),
        ("cron(61 8 * * ? *)", "UTC", "minute"),
        ("cron(0 25 * * ? *)", "UTC", "hour"),
        ("cron(0 8 ? * 8 *)", "UTC", "day-of-week"),
        ("cron(0 8 * 13 ? *)", "UTC", "month"),
        ("cron(0 8 31 2 ? *)", "UTC", "day"),
        ("cron(0 8 * * ? 1969)", "UTC", "year"),
        ("cron(0 8 15W * ? *)", "UTC", "day-of-month"),
        ("cron(0 8 * * ? *)", "Mars/Olympus", "time zone"),
    ],
)
def test_what_cannot_be_read_is_told(expression: str, timezone: str, names: str) -> None:
    with pytest.raises(BadSchedule, match=names):
        check(Schedule(expression, timezone))

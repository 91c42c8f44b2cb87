"""Availability: seconds to minutes, minutes to outages, budgets and burn rates; tags; and the file that keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eyrie.adapters.availability_file import KEPT_MS, AvailabilityFile
from eyrie.adapters.sqlite_file import FileUnusable
from eyrie.decide import availability as decide
from eyrie.decide.availability import Severity, minute_of
from eyrie.decide.availability_tags import wanted, window
from eyrie.decide.moments import date_of, midnight
from eyrie.domain.availability import MINUTE_MS, Minute, Probe, Verdict

M = MINUTE_MS
DAY = 1_440 * M
GOOD = [(0.0, 60.0, True)]


def minute(at: int, bad_s: float = 0.0, **more: object) -> Minute:
    return Minute(at * M, observed_s=60.0, bad_s=bad_s, **more)  # type: ignore[arg-type]


# --- a minute ---------------------------------------------------------------------------------------------------------


def test_seconds_with_requests_are_judged_by_them_and_others_by_probes() -> None:
    found = minute_of(0, {0: (10, 10), 1: (4, 2)}, GOOD, planned=False)
    assert (found.requests, found.failed, found.observed_s, found.bad_s) == (14, 12, 60.0, 1.5)


def test_what_nobody_saw_is_unknown() -> None:
    assert minute_of(0, {}, [], planned=False).verdict is Verdict.UNKNOWN
    part = minute_of(0, {}, [(0.0, 20.0, False), (20.0, 30.0, True)], planned=False)
    assert (part.observed_s, part.bad_s) == (30.0, 20.0)
    assert part.badness == pytest.approx(2 / 3)


def test_a_later_probe_speaks_for_a_second_that_two_share() -> None:
    found = minute_of(0, {}, [(0.0, 30.5, False), (30.5, 60.0, True)], planned=False)
    assert found.bad_s == 30.0


def test_requests_speak_for_the_whole_minute_once_they_are_enough() -> None:
    few = minute_of(0, {5: (4, 4)}, GOOD, planned=False)
    enough = minute_of(0, {5: (5, 5)}, GOOD, planned=False)
    assert few.badness == pytest.approx(1 / 60)
    assert (enough.badness, enough.verdict) == (1.0, Verdict.BAD)
    assert few.verdict is Verdict.GOOD


def test_planned_maintenance_counts_neither_way() -> None:
    away = minute_of(0, {5: (50, 50)}, [(0.0, 60.0, False)], planned=True)
    assert away.verdict is Verdict.PLANNED
    found = decide.totals([away, minute(1)], 0, 2 * M)
    assert (found.planned, found.good, found.percent, found.requests) == (1, 1, 100.0, 0)


def test_a_minute_seen_in_two_parts_is_one() -> None:
    first = minute_of(0, {1: (5, 0)}, [(0.0, 20.0, True)], planned=False)
    rest = minute_of(0, {50: (5, 5)}, [(40.0, 60.0, False)], planned=False)
    both = first.and_also(rest)
    assert (both.requests, both.failed, both.observed_s, both.bad_s) == (10, 5, 40.0, 20.0)


# --- many -------------------------------------------------------------------------------------------------------------


def test_totals_leave_out_what_is_not_known() -> None:
    found = decide.totals([minute(0), minute(1, 60.0), minute(2, 30.0), minute(5, 2.0)], 0, 10 * M)
    assert (found.good, found.bad, found.unknown, found.planned) == (2, 2, 6, 0)
    assert found.percent == pytest.approx(100 * (1 - (1 + 0.5 + 2 / 60) / 4))
    assert found.good_minutes_percent == 50.0
    assert decide.totals([], 0, 10 * M).percent is None


def test_outages_are_bad_minutes_in_a_row() -> None:
    seen = [minute(0, 60.0), minute(1, 30.0), minute(2), minute(3, 6.0), minute(5, 6.0)]
    found = list(decide.outages(seen))
    assert [(o.start_ms // M, o.minutes) for o in found] == [(0, 2), (3, 1), (5, 1)]
    assert found[0].badness == pytest.approx(1.5)


def test_spells_tell_every_minute() -> None:
    found = list(decide.spells([minute(1), minute(2), minute(3, 60.0)], 0, 5 * M))
    assert [(at // M, count, str(what)) for at, count, what in found] == [
        (0, 1, "unknown"),
        (1, 2, "good"),
        (3, 1, "bad"),
        (4, 1, "unknown"),
    ]


def test_a_burn_rate_of_one_uses_up_the_budget_in_thirty_days() -> None:
    assert decide.burn(43.2, decide.BUDGET_MINUTES, 99.9) == pytest.approx(1.0)
    assert decide.budget_left(43.2, 99.9) == pytest.approx(0.0, abs=1e-6)
    assert decide.budget_left(21.6, 99.9) == pytest.approx(50.0)
    assert decide.burn(0.864, 60, 99.9) == pytest.approx(14.4)  # 2 % of the budget in an hour


def test_both_windows_of_a_pair_must_burn() -> None:
    quiet = dict.fromkeys(decide.WINDOWS, 0.0)
    assert decide.burning(decide.burns(quiet, 99.9), Severity.PAGE) == 0.0
    over = decide.burns({**quiet, "1h": 10.0, "6h": 10.0}, 99.9)  # it was bad, and is not any more
    assert decide.burning(over, Severity.PAGE) == 0.0
    now = decide.burns({**quiet, "5m": 1.0, "30m": 1.0, "1h": 1.0, "2h": 1.0, "6h": 1.0, "24h": 1.0}, 99.9)
    assert decide.burning(now, Severity.PAGE) == pytest.approx(1 / 60 / 0.001 / 14.4)
    slow = decide.burns({**quiet, "6h": 0.5, "3d": 5.0}, 99.9)
    assert decide.burning(slow, Severity.TICKET) > 1 > decide.burning(slow, Severity.PAGE)


# --- tags -------------------------------------------------------------------------------------------------------------


def test_tags_say_what_is_wanted() -> None:
    tags = {
        "eyrie:objective": "99.95",
        "eyrie:maintenance": "2026-11-22T02:00Z/2h sun/02:00Z/30min",
        "eyrie:probe": "text/csv NS4x",
    }
    found = wanted(tags, 99.9)
    assert (found.objective, found.own, found.probe) == (99.95, True, Probe("text/csv", b"5.1"))
    assert len(found.windows) == 2
    assert found.faults == ()
    assert wanted({}, 99.9).objective == 99.9


def test_what_cannot_be_read_is_told_and_left_out() -> None:
    tags = {"eyrie:objective": "110", "eyrie:maintenance": "soon daily/01:00Z/5min", "eyrie:probe": "text/csv ?"}
    found = wanted(tags, 99.0)
    assert (found.objective, found.own, len(found.windows), found.probe) == (99.0, False, 1, None)
    assert [fault.split(":")[1] for fault in found.faults] == ["objective", "maintenance", "probe"]
    for no_type in ("行/csv NS4x", "text/csv\u2028x NS4x"):  # no header can say it
        assert "no content type" in wanted({"eyrie:probe": no_type}, 99.0).faults[0]


def test_a_window_once_each_day_and_each_week() -> None:
    at = midnight(2026, 11, 22) + 2 * 60 * M  # a Sunday
    once = window("2026-11-22T02:00Z/90min")
    assert [once.holds(at + m * M) for m in (-1, 0, 89, 90, 7 * 1_440)] == [False, True, True, False, False]
    weekly = window("sun/02:00Z/2h")
    assert [weekly.holds(at + m * M) for m in (-1, 0, 119, 120, 1_440, 7 * 1_440)] == [
        False,
        True,
        True,
        False,
        False,
        True,
    ]
    late = window("daily/23:30Z/1h")
    assert [late.holds(midnight(2026, 11, 22) + m * M) for m in (0, 29, 30, 1_409, 1_410)] == [
        True,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "text", ["2026-13-01T00:00Z/1h", "2026-11-22T25:00Z/1h", "2026-11-22T02:00Z/8d", "daily/02:00Z/24h", "sun/2h", ""]
)
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"day|read|week|end|takes"):
        window(text)


def test_midnight_is_the_inverse_of_the_date() -> None:
    for day in range(0, 40_000, 13):
        assert midnight(*date_of(day * DAY)) == day * DAY


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[AvailabilityFile]:
    made = AvailabilityFile(tmp_path / "availability.db")
    yield made
    made.close()


def test_minutes_are_kept_over_a_restart_and_added_to(tmp_path: Path, file: AvailabilityFile) -> None:
    file.keep([("e", minute(61, 30.0)), ("e", minute(59)), ("f", minute(59, 60.0))], 0)
    file.close()
    again = AvailabilityFile(tmp_path / "availability.db")
    ((_, now),) = again.keep([("e", Minute(61 * M, 10, 3, 0.0, 0.0))], 0)
    assert (now.requests, now.failed, now.bad_s) == (10, 3, 30.0)
    assert [m.at_ms // M for m in again.minutes("e", 0, 120 * M)] == [59, 61]
    assert [m.at_ms // M for m in again.minutes("e", 60 * M, 61 * M)] == []
    assert again.badness("e", -60 * M) == pytest.approx(0.5)
    assert again.badness("e", 60 * M) == 0.0
    again.close()


def test_planned_and_unknown_minutes_are_not_bad(file: AvailabilityFile) -> None:
    file.keep([("e", minute(1, 60.0, planned=True)), ("e", Minute(2 * M, 9, 9))], 0)
    assert file.badness("e", -60 * M) == 0.0


def test_what_is_older_than_it_may_be_goes(file: AvailabilityFile) -> None:
    file.keep([("e", minute(0, 60.0))], 0)
    file.keep([("e", Minute(KEPT_MS + 2 * DAY, observed_s=60.0))], KEPT_MS + 2 * DAY)
    assert [m.at_ms for m in file.minutes("e", 0, KEPT_MS + 3 * DAY)] == [KEPT_MS + 2 * DAY]


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path, file: AvailabilityFile) -> None:
    file._db.execute("PRAGMA user_version = 9")
    file.close()
    with pytest.raises(FileUnusable, match="newer"):
        AvailabilityFile(tmp_path / "availability.db")

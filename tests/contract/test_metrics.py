"""What the Metrics port promises, of the file that keeps it: what was measured is found again, at every coarseness."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyrie.adapters import metric_file
from eyrie.adapters.metric_file import MetricFile
from eyrie.adapters.sqlite_file import FileUnusable
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope
from eyrie.ports import MetricsFull

SCOPE = Scope("123456789012", "us-east-1")
METRIC = Metric(SCOPE, "N", "m", (("A", "1"),))
NOW_MS = 1_795_262_400_000  # a full hour
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at_ms = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


@pytest.fixture
def metrics(path: Path, clock: Clock) -> Iterator[MetricFile]:
    made = MetricFile(path, clock)
    yield made
    made.close()


def measured(value: float, at_ms: int = NOW_MS, metric: Metric = METRIC) -> Measured:
    summary = Summary()
    summary.add(value)
    return Measured(metric, at_ms, summary)


def totals(metrics: MetricFile, start_ms: int, end_ms: int, period_ms: int) -> dict[int, float]:
    """What was measured, by seconds since NOW; asked for as summaries and as a statistic, which agree."""
    found = metrics.summaries(METRIC, start_ms, end_ms, period_ms)
    told = metrics.statistics(METRIC, start_ms, end_ms, period_ms, lambda summary: summary.total)
    assert list(told.items()) == [(at_ms, summary.total) for at_ms, summary in found.items()]
    return {(at_ms - NOW_MS) // 1000: summary.total for at_ms, summary in found.items()}


@pytest.mark.parametrize("written", [False, True])
def test_seconds_and_minutes_are_found_before_and_after_they_are_written(metrics: MetricFile, written: bool) -> None:
    metrics.record([measured(1, NOW_MS), measured(2, NOW_MS + 900), measured(4, NOW_MS + 1_000)])
    if written:
        metrics.write()
    metrics.record([measured(8, NOW_MS + 61_000)])
    assert totals(metrics, NOW_MS, NOW_MS + HOUR, 1_000) == {0: 3, 1: 4, 61: 8}
    assert totals(metrics, NOW_MS, NOW_MS + HOUR, 10_000) == {0: 7, 60: 8}
    assert totals(metrics, NOW_MS, NOW_MS + HOUR, MINUTE) == {0: 7, 60: 8}
    assert totals(metrics, NOW_MS, NOW_MS + HOUR, 5 * MINUTE) == {0: 15}
    assert totals(metrics, NOW_MS + 1_000, NOW_MS + 61_000, 1_000) == {1: 4}
    assert totals(metrics, NOW_MS + 1_000, NOW_MS + HOUR, MINUTE) == {1: 4, 61: 8}
    assert totals(metrics, NOW_MS + HOUR, NOW_MS + 2 * HOUR, MINUTE) == {}


def test_whatever_was_written_is_there_after_a_restart(path: Path, clock: Clock) -> None:
    first = MetricFile(path, clock)
    first.record([measured(1), measured(5, NOW_MS + 30_000)])
    first.close()
    again = MetricFile(path, clock)
    again.record([measured(2), measured(3, NOW_MS + 1_000)])
    assert totals(again, NOW_MS, NOW_MS + HOUR, 1_000) == {0: 3, 1: 3, 30: 5}
    again.close()
    third = MetricFile(path, clock)
    assert totals(third, NOW_MS, NOW_MS + HOUR, MINUTE) == {0: 11}
    assert [s.metric for s in third.series(SCOPE)] == [METRIC]
    third.close()


def test_a_period_without_an_answer_is_left_out_of_a_statistic(metrics: MetricFile, clock: Clock) -> None:
    metrics.record([measured(n, NOW_MS + n * MINUTE) for n in range(8)])
    clock.at_ms = NOW_MS + 7 * MINUTE  # the first minutes are rows by now, the last ones are not
    metrics.write()
    found = metrics.statistics(METRIC, NOW_MS, NOW_MS + HOUR, MINUTE, lambda s: s.total if s.total % 2 else None)
    assert found == {NOW_MS + n * MINUTE: float(n) for n in (1, 3, 5, 7)}


def test_what_a_killed_process_had_written_is_whole(path: Path, clock: Clock) -> None:
    killed = MetricFile(path, clock)
    killed.record([measured(1)])
    killed.write()
    killed.record([measured(2)])
    killed.keep()
    killed.record([measured(4)])  # never written
    again = MetricFile(path, clock)
    assert totals(again, NOW_MS, NOW_MS + HOUR, MINUTE) == {0: 3}
    again.close()
    killed._db.close()


def test_coarser_rows_say_what_the_minutes_said(metrics: MetricFile, clock: Clock) -> None:
    metrics.record([measured(1, NOW_MS + n * MINUTE) for n in range(130)])
    clock.at_ms = NOW_MS + 133 * MINUTE
    metrics.write()
    fives = totals(metrics, NOW_MS, NOW_MS + 3 * HOUR, 5 * MINUTE)
    assert fives == {n * 300: 5 for n in range(26)}
    assert totals(metrics, NOW_MS, NOW_MS + 3 * HOUR, HOUR) == {0: 60, 3600: 60, 7200: 10}
    assert totals(metrics, NOW_MS, NOW_MS + 3 * HOUR, 15 * MINUTE)[7200] == 10


def test_what_comes_late_counts_at_every_coarseness(metrics: MetricFile, clock: Clock) -> None:
    metrics.record([measured(1)])
    clock.at_ms = NOW_MS + 5 * HOUR
    metrics.write()  # the coarser rows are made, the minute is out of memory, its seconds are gone
    metrics.record([measured(2), measured(4, NOW_MS + MINUTE)])
    for _ in range(2):
        for period_ms in (MINUTE, 5 * MINUTE, HOUR):
            assert sum(totals(metrics, NOW_MS, NOW_MS + HOUR, period_ms).values()) == 7
        metrics.write()


def test_each_coarseness_is_kept_for_its_time(metrics: MetricFile, clock: Clock) -> None:
    metrics.record([measured(1)])
    metrics.write()
    held = []
    for later_ms in (2 * HOUR, 4 * HOUR, 16 * DAY, 64 * DAY, 456 * DAY):
        clock.at_ms = NOW_MS + later_ms
        metrics.write()
        day = NOW_MS + DAY
        held.append([bool(totals(metrics, NOW_MS, day, period)) for period in (1_000, MINUTE, 5 * MINUTE, HOUR)])
    assert held == [
        [True, True, True, True],
        [False, True, True, True],
        [False, False, True, True],
        [False, False, False, True],
        [False, False, False, False],
    ]
    assert metrics.series(SCOPE) == []


def test_series_are_apart_by_account_region_namespace_name_and_dimensions(metrics: MetricFile) -> None:
    others = [
        Metric(Scope("210987654321", "us-east-1"), "N", "m", (("A", "1"),)),
        Metric(Scope("123456789012", "eu-west-1"), "N", "m", (("A", "1"),)),
        Metric(SCOPE, "O", "m", (("A", "1"),)),
        Metric(SCOPE, "N", "o", (("A", "1"),)),
        Metric(SCOPE, "N", "m", (("A", "2"),)),
        Metric(SCOPE, "N", "m"),
    ]
    metrics.record([measured(1), *(measured(9, metric=other) for other in others)])
    assert totals(metrics, NOW_MS, NOW_MS + MINUTE, MINUTE) == {0: 1}
    assert {s.metric for s in metrics.series(SCOPE)} == {METRIC, *others[2:]}
    assert {s.metric for s in metrics.series(SCOPE, "N", "m")} == {METRIC, others[4], others[5]}
    assert {s.metric for s in metrics.series(SCOPE, "O")} == {others[2]}


def test_a_write_that_fails_is_made_up_for(path: Path, clock: Clock) -> None:
    metrics = MetricFile(path, clock)
    metrics.record([measured(1)])
    blocker = sqlite3.connect(path)
    blocker.execute("BEGIN IMMEDIATE")
    metrics._db.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(sqlite3.OperationalError):
        metrics.write()
    blocker.rollback()
    blocker.close()
    metrics.record([measured(2)])
    metrics.close()
    again = MetricFile(path, clock)
    assert totals(again, NOW_MS, NOW_MS + MINUTE, MINUTE) == {0: 3}
    again.close()


def test_a_full_inbox_and_too_many_series_are_told(metrics: MetricFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_file, "SERIES_MAX", 1)
    metrics.record([measured(1)])
    metrics.write()
    with pytest.raises(MetricsFull):
        metrics.record([measured(1, metric=Metric(SCOPE, "N", "other"))])
    metrics.record([measured(2)])
    monkeypatch.setattr(metric_file, "INBOX_MAX", 2)
    with pytest.raises(MetricsFull):
        metrics.record([measured(1), measured(1)])
    assert totals(metrics, NOW_MS, NOW_MS + MINUTE, MINUTE) == {0: 3}


def test_a_file_of_a_newer_version_is_told_from_a_broken_one(path: Path, clock: Clock) -> None:
    MetricFile(path, clock).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FileUnusable, match="newer"):
        MetricFile(path, clock)


def test_what_was_handed_over_and_what_was_answered_stay_as_they_were(metrics: MetricFile) -> None:
    first, second = measured(1), measured(2)
    metrics.record([first])
    (answered,) = metrics.summaries(METRIC, NOW_MS, NOW_MS + MINUTE, MINUTE).values()
    metrics.record([second])
    (both,) = metrics.summaries(METRIC, NOW_MS, NOW_MS + MINUTE, MINUTE).values()
    metrics.record([measured(4)])
    metrics.write()
    assert (first.summary.total, second.summary.total, answered.total, both.total) == (1, 2, 1, 3)
    assert totals(metrics, NOW_MS, NOW_MS + MINUTE, MINUTE) == {0: 7}

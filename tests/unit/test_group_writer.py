"""What Eyrie writes into log groups of its own: bounded while it waits, counted by filters, told where it is lost."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eyrie.adapters.instance_logs import InstanceLogs
from eyrie.adapters.log_file import LogFile
from eyrie.control.group_writer import GroupWriter, Kind, Line
from eyrie.control.log_book import ALWAYS, LogBook
from eyrie.domain.logs import LogGroup, MetricFilter
from eyrie.domain.names import Scope

SCOPE = Scope("123456789012", "eu-west-1")
GROUP = "/eyrie/test"


class Stopped:
    def now_ms(self) -> int:
        return 5_000

    def monotonic_ms(self) -> int:
        return 5_000


class Recorder:
    """The part of Metrics and of Store that a LogBook asks here."""

    def __init__(self) -> None:
        self.recorded: list[Any] = []

    def record(self, measurements: list[Any]) -> None:
        self.recorded += measurements


@pytest.fixture
def made(tmp_path: Path) -> Iterator[LogFile]:
    file = LogFile(tmp_path / "logs.db", Stopped(), 1 << 20)
    yield file
    file.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def book(made: LogFile, tmp_path: Path, recorder: Recorder) -> LogBook:
    return LogBook(made, InstanceLogs(tmp_path), recorder, recorder)  # type: ignore[arg-type]


def writer(book: LogBook, waiting_max: int = 100) -> GroupWriter[int]:
    def lines_of(number: int) -> Iterator[Line]:
        yield Line(SCOPE, GROUP, f"stream-{number % 2}", (number, f"number {number}"))

    return GroupWriter(Kind("test records", lines_of, 3, waiting_max), book, Stopped())


def written(file: LogFile, stream: str) -> list[str]:
    return [entry.text for entry in file.read(SCOPE, GROUP, stream, ALWAYS, None, forward=True)]


def test_group_and_streams_are_made_as_they_are_needed(book: LogBook, made: LogFile) -> None:
    records = writer(book)
    for number in (1, 2, 3):
        records.hear(number)
    records.write()
    assert (written(made, "stream-0"), written(made, "stream-1")) == (["number 2"], ["number 1", "number 3"])
    assert made.groups(SCOPE)[GROUP].retention_days == 3


def test_a_group_that_is_there_keeps_its_retention(book: LogBook, made: LogFile) -> None:
    made.put_group(LogGroup(SCOPE, GROUP, 0, 30))
    records = writer(book)
    records.hear(1)
    records.write()
    assert made.groups(SCOPE)[GROUP].retention_days == 30


def test_metric_filters_of_the_group_count_what_is_written(book: LogBook, made: LogFile, recorder: Recorder) -> None:
    made.put_group(LogGroup(SCOPE, GROUP, 0, 3))
    seen = {"metricName": "Seen", "metricNamespace": "Mine", "metricValue": "1"}
    made.put_filter(SCOPE, MetricFilter(GROUP, "numbers", "number", (seen,), 0))
    records = writer(book)
    records.hear(1)
    records.hear(2)
    records.write()
    assert len(recorder.recorded) == 2


def test_the_newest_are_kept_where_too_many_wait_and_it_is_told(
    book: LogBook, made: LogFile, caplog: pytest.LogCaptureFixture
) -> None:
    records = writer(book, waiting_max=2)
    for number in (1, 3, 5):
        records.hear(number)
    with caplog.at_level(logging.ERROR):
        records.write()
    assert written(made, "stream-1") == ["number 3", "number 5"]
    assert "1 test records were dropped" in caplog.text


def test_what_cannot_be_written_is_told_and_stops_nothing(
    book: LogBook, made: LogFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*asked: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    records = writer(book)
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(made, "append_all", full)
        records.hear(1)
        records.write()
    assert "1 test records cannot be written and are dropped: database or disk is full" in caplog.text
    records.hear(3)
    records.write()
    assert written(made, "stream-1") == ["number 3"]


def test_the_last_write_waits_for_one_that_is_under_way(
    book: LogBook, made: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    append_all = made.append_all

    def slow(*asked: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        append_all(*asked)

    monkeypatch.setattr(made, "append_all", slow)
    records = writer(book)
    records.hear(1)
    first = threading.Thread(target=records.write)
    first.start()
    assert begun.wait(30)
    records.hear(3)
    last = threading.Thread(target=records.write)
    last.start()
    go_on.set()
    for thread in (first, last):
        thread.join(30)
    assert written(made, "stream-1") == ["number 1", "number 3"]

"""logs.db: events in order, bounds, crashes, and what Eyrie itself writes there."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from eyrie.adapters.instance_logs import InstanceLogs
from eyrie.adapters.log_file import LogFile, Missing
from eyrie.adapters.sqlite_file import FileUnusable
from eyrie.control import log_follower
from eyrie.control.access_log import events
from eyrie.control.log_book import LogBook
from eyrie.control.log_follower import LogFollower
from eyrie.domain.logs import LogGroup, MetricFilter, Place
from eyrie.domain.metrics import Measured
from eyrie.domain.names import Scope
from eyrie.gateway.meter import Meter

SCOPE = Scope("123456789012", "us-east-1")
HOUR = 3_600_000
ALL = (0, 1 << 62)


class Clock:
    def __init__(self) -> None:
        self.at_ms = 500_000 * HOUR

    def now_ms(self) -> int:
        return self.at_ms


class NoDocuments:
    """A store without any endpoint."""

    def get(self, kind: str, scope: Scope, name: str) -> None:
        return None


class Recorder:
    """Metrics that are only heard."""

    def __init__(self, heard: list[Measured]) -> None:
        self._heard = heard

    def record(self, measured: Sequence[Measured]) -> None:
        self._heard.extend(measured)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LogFile]:
    made = LogFile(tmp_path / "logs.db", Clock(), 10_000)
    made.put_group(LogGroup(SCOPE, "/g", 1))
    made.create_stream(SCOPE, "/g", "s", 1)
    yield made
    made.close()


def texts(file: LogFile, stream: str = "s", **asked: object) -> list[str]:
    given = {"span": ALL, "after": None, "forward": True, **asked}
    return [entry.text for entry in file.read(SCOPE, "/g", stream, **given)]  # type: ignore[arg-type]


def test_events_are_in_the_order_of_time_then_of_coming(file: LogFile) -> None:
    file.append(SCOPE, "/g", "s", [(5, "b"), (5, "c"), (9, "e")], 10)
    file.append(SCOPE, "/g", "s", [(1, "a"), (5, "d")], 11)
    assert texts(file) == ["a", "b", "c", "d", "e"]
    assert texts(file, forward=False, page=2) == ["e", "d", "c", "b", "a"]
    assert texts(file, page=1, span=(5, 9)) == ["b", "c", "d"]
    assert texts(file, after=Place(5, 1)) == ["d", "e"]
    assert texts(file, after=Place(5, 1), forward=False) == ["b", "a"]


def test_what_is_missing_is_said(file: LogFile) -> None:
    for group, stream in (("/none", "s"), ("/g", "none")):
        with pytest.raises(Missing):
            file.append(SCOPE, group, stream, [(1, "a")], 1)
    assert texts(file, "none") == []


def test_beyond_the_bound_the_oldest_hours_go(file: LogFile) -> None:
    for hour in range(5):
        file.append(SCOPE, "/g", "s", [(hour * HOUR + n, "x" * 974) for n in range(3)], 1)
    file.sweep()
    left = [entry.at_ms // HOUR for entry in file.read(SCOPE, "/g", "s", ALL, None, True)]
    assert sorted(set(left)) == [2, 3, 4]
    assert sum(stream.size_bytes for stream in file.streams(SCOPE, "/g").values()) == 9_000


def test_what_was_deleted_leaves_the_disk(file: LogFile, tmp_path: Path) -> None:
    file.append(SCOPE, "/g", "s", [(n, "x") for n in range(20)], 1)
    file.delete_stream(SCOPE, "/g", "s")
    file.sweep()
    with sqlite3.connect(tmp_path / "logs.db") as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM hours").fetchone() == (0,)
    db.close()


_WRITES = """
import sys, os
from eyrie.adapters.instance_logs import InstanceLogs
from eyrie.adapters.log_file import LogFile
from eyrie.domain.logs import LogGroup
from eyrie.domain.names import Scope
from pathlib import Path
class Clock:
    def now_ms(self): return 1
scope = Scope("123456789012", "us-east-1")
file = LogFile(Path(sys.argv[1]), Clock(), 1 << 30)
file.put_group(LogGroup(scope, "/g", 1)); file.create_stream(scope, "/g", "s", 1)
for n in range(1000):
    file.append(scope, "/g", "s", [(n, f"{n}/{k}") for k in range(10)], 1)
    os.write(1, b"%d\\n" % n)
"""


def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    writer = subprocess.Popen([sys.executable, "-c", _WRITES, str(path)], stdout=subprocess.PIPE, env=os.environ)
    assert writer.stdout is not None
    acknowledged = -1
    for line in writer.stdout:
        acknowledged = int(line)
        if acknowledged >= 20:
            writer.kill()
            break
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    writer.wait()
    writer.stdout.close()
    file = LogFile(path, Clock(), 1 << 30)
    found = texts(file)
    file.close()
    assert found[: 10 * (acknowledged + 1)] == [f"{n}/{k}" for n in range(acknowledged + 1) for k in range(10)]
    assert len(found) % 10 == 0  # a batch is there whole, or not at all


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "logs.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FileUnusable, match="newer Eyrie"):
        LogFile(tmp_path / "logs.db", Clock(), 1)


def test_access_records_count_every_request_and_tell_some() -> None:
    meter = Meter(2)
    rollup = meter.rollup("1.r.e", "v", "i-1")
    for n, status in enumerate((200, 200, 200, 424, 500, 500)):
        rollup.add(status, 1_000 * (n + 1), 100, n)
    told = meter.take(1)
    assert told is not None
    wired = json.loads(json.dumps(told))["endpoints"]["1.r.e"]
    wall_ms = wired["v"]["i-1"]["records"][-1][0] + 5
    found = [(stream, at_ms, json.loads(text)) for stream, (at_ms, text) in events(wired, "gateway-0", 9_000, wall_ms)]
    assert {stream for stream, _, _ in found} == {"v/i-1"}
    requests = [told for _, _, told in found if told["kind"] == "request"]
    assert [r["status"] for r in requests] == [200, 200, 424, 500]  # the first two, and as many errors beyond them
    assert all(8_900 <= at_ms <= 9_000 for _, at_ms, _ in found)
    second = found[-1][2]
    assert (second["requests"], second["errors4xx"], second["errors5xx"], second["modelErrors"]) == (6, 0, 3, 1)
    assert second["modelMsAvg"] == 3.5
    assert second["modelMsP99"] == pytest.approx(6, rel=0.02)


def test_access_records_tell_by_which_table_requests_went() -> None:
    meter = Meter(10)
    rollup = meter.rollup("1.r.e", "v", "i-1")
    for generation in (7, 7, 7, 8, 7, 9):  # the last but one was on its way when table 8 came
        rollup.add(200, 1_000, 100, 1, 200, generation)
    meter.rollup("1.r.e", "v", "i-2").add(200, 1_000, 100, 1, 200, 9)
    wired = json.loads(json.dumps(meter.take(1)))["endpoints"]["1.r.e"]
    found = [json.loads(text) for _, (_, text) in events(wired, "gateway-0", 9_000, 9_000)]
    assert [told["generation"] for told in found if told["kind"] == "request"] == [7, 7, 7, 8, 7, 9, 9]
    one, two = (told for told in found if told["kind"] == "second")
    assert (one["requests"], one["generation"], one["generations"]) == (6, 9, {"7": 4, "8": 1, "9": 1})
    assert two["generation"] == 9
    assert "generations" not in two


def test_no_requests_are_told_where_none_are_wanted() -> None:
    meter = Meter()
    meter.rollup("1.r.e", "", "").add(503, 0, 100, 0)
    told = meter.take(1)
    assert told is not None
    found = list(events(told["endpoints"]["1.r.e"], "gateway-0", 9_000, 9_000))
    assert [stream for stream, _ in found] == ["none/none"]


def test_of_what_is_gone_nothing_stays(file: LogFile) -> None:
    group = LogGroup(SCOPE, "/own/e", 1, retention_days=1)
    file.append_all(SCOPE, group, {"v/old": [(1, "a")], "v/new": [(500_000 * HOUR - 5, "b")]}, 500_000 * HOUR)
    file.sweep()
    file.remove_empty("/own/", 500_000 * HOUR)
    assert list(file.streams(SCOPE, "/own/e")) == ["v/new", "v/old"]  # something came of late
    file.remove_empty("/own/", 500_001 * HOUR)
    assert file.stream_names(SCOPE, "/own/e") == ["v/new"]
    file.delete_stream(SCOPE, "/own/e", "v/new")
    file.remove_empty("/own/", 500_001 * HOUR)
    assert file.group(SCOPE, "/own/e") is None
    assert file.group(SCOPE, "/g") is not None


def test_printed_lines_are_counted_once(tmp_path: Path) -> None:
    """The follower of metric filters, over a log that an instance goes on writing."""
    recorded: list[Measured] = []
    clock, now = Clock(), [1_700_000_000_000]
    slot = tmp_path / "slots" / "i-1"
    (slot / "box").mkdir(parents=True)
    endpoint = {"account": SCOPE.account, "region": SCOPE.region, "name": "e"}
    (slot / "spec.json").write_text(json.dumps({"instance_id": "i-1", "endpoint": endpoint, "variant": "v"}))
    made = LogFile(tmp_path / "logs.db", clock, 10_000)
    book = LogBook(made, InstanceLogs(tmp_path), NoDocuments(), Recorder(recorded))  # type: ignore[arg-type]
    group = LogGroup(SCOPE, "/aws/sagemaker/Endpoints/e", 1)
    made.put_group(group)
    transformation = {"metricName": "M", "metricNamespace": "N", "metricValue": "1"}
    made.put_filter(SCOPE, MetricFilter(group.name, "f", "ERROR", (transformation,), 1))
    follower = LogFollower(book, clock, lambda: now[0])
    with open(slot / "box" / "log", "a") as log:
        for n in range(12):
            log.write(f"2023-11-14T22:13:{20 + n:02d}.500Z ERROR {n}\n2023-11-14T22:13:{20 + n:02d}.500Z fine\n")
            log.flush()
            os.utime(slot / "box" / "log", ns=(now[0] * 1_000_000, now[0] * 1_000_000))
            follower.look()
            now[0] += 1_000
    now[0] += 5_000
    os.utime(slot / "box" / "log", ns=(now[0] * 1_000_000, now[0] * 1_000_000))
    follower.look()
    follower.look()
    made.close()
    assert sum(measured.summary.count for measured in recorded) == 12


def test_a_full_disk_does_not_end_the_follower(
    file: LogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor control with it: a work of control that ends is taken for a defect."""
    looks: list[LogFollower] = []

    def full(follower: LogFollower) -> None:
        looks.append(follower)
        raise sqlite3.OperationalError("database or disk is full")

    async def scenario() -> None:
        book = LogBook(file, InstanceLogs(tmp_path), NoDocuments(), Recorder([]))  # type: ignore[arg-type]
        running = asyncio.create_task(LogFollower(book, Clock(), lambda: 0).run())
        async with asyncio.timeout(30):
            while len(looks) < 2 and not running.done():
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    monkeypatch.setattr(log_follower, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(LogFollower, "look", full)
    asyncio.run(scenario())
    assert "logs cannot be followed: database or disk is full" in caplog.text

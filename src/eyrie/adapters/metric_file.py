"""The Metrics port on one SQLite file of its own, DATA/metrics.db: no metrics write waits for a commit of the state,
nor the other way round.

What is measured goes into an inbox and costs its writer nothing more; a thread merges it in memory and writes what has
changed every few seconds, or when something was decided on it. A row is ten seconds of a series, each apart. Seconds
are kept for 3 hours, minutes for 15 days, five minutes for 63 days, hours for 455 days; the coarser ones are made when
their time is over, and again where a measurement came late. What a crash loses is what was not written yet.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eyrie.adapters.metric_rows import (
    CHUNK_MS,
    FIVES,
    HOURS,
    MINUTE_MS,
    MINUTES,
    ROLLED,
    SCHEMA,
    SECONDS,
    Chunk,
    amend,
    packed_seconds,
    read_rows,
    replace,
    roll,
    seconds_of,
    summary_of,
)
from eyrie.adapters.sqlite_file import open_file
from eyrie.domain.exposition import Family, Sample, gauge
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope
from eyrie.ports import Clock, MetricsFull, Series, Statistic

log = logging.getLogger(__name__)
T = TypeVar("T")

SERIES_MAX = 200_000
INBOX_MAX = 2_000_000  # measurements that wait for the thread
LATE_MS = 120_000  # a coarser row is made so long after its time is over
_SCHEMA_VERSION = 1
_WRITE_EVERY_S = 5.0
_AMENDED_MS = SECONDS.kept_ms - 300_000  # older measurements change the minute itself: its seconds are about to go
_TOLD_EVERY_MS = 600_000  # how precisely the file knows when a series was last written
_EXPIRE_EVERY_MS = 3_600_000


@dataclass(slots=True)
class _Known:
    """A series in memory."""

    number: int
    metric: Metric
    unit: str
    latest_ms: int
    told_ms: int  # latest_ms as the file has it


class _Grown(Summary):
    """A summary of our own, which may grow; all others are as they came, and may be another's too."""


class _Gathered(Summary):
    """Likewise one that is made of several for an answer."""


class MetricFile:
    """Measurements of all accounts. `record` may be called from anywhere and never waits; the rest from threads."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open or make the file. Raises FileUnusable for one of a newer version."""
        self._clock = clock
        self._db = open_file(path, SCHEMA, _SCHEMA_VERSION, autocommit=False)
        self._lock = threading.Lock()  # the connection, and all that follows
        self._inbox: deque[Measured] = deque()
        self._series = {known.metric: known for known in map(_known, self._db.execute("SELECT * FROM series"))}
        self._next = 1 + max((known.number for known in self._series.values()), default=0)
        self._met: list[_Known] = []  # series that the file has not
        self._open: dict[int, dict[int, Chunk]] = {}  # by series and chunk: what may still change
        self._dirty: dict[int, set[int]] = {}  # by chunk: the series of which the file has it not
        self._amended: dict[tuple[int, int], Summary] = {}  # minutes and series whose seconds are kept no more
        self._newest = self._db.execute("SELECT max(at) FROM seconds").fetchone()[0] or -1  # chunk in the file
        self._rolled = dict(self._db.execute("SELECT level, until FROM rolled"))  # first step that is not made yet
        self._expired_ms = 0
        self._ending = threading.Event()
        self._writer = threading.Thread(target=self._write_on, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin to write once a second."""
        self._writer.start()

    def close(self) -> None:
        """Write what there is, and close the file."""
        self._ending.set()
        if self._writer.is_alive():
            self._writer.join()
        self.write()
        with self._lock:
            self._db.close()

    def families(self) -> list[Family]:
        """What this file says of itself."""
        return [
            gauge("eyrie_metrics_series", "Metrics that are kept", [Sample({}, float(len(self._series)))]),
            gauge("eyrie_metrics_waiting", "Measurements not merged yet", [Sample({}, float(len(self._inbox)))]),
        ]

    # --- what is measured ---------------------------------------------------------------------------------------------

    def record(self, measured: Sequence[Measured]) -> None:
        """Take measurements in. Raises MetricsFull, and takes none, where there is no room."""
        if len(self._inbox) + len(measured) > INBOX_MAX:
            raise MetricsFull("Too many measurements wait to be written. Try again.")
        if len(self._series) >= SERIES_MAX and any(m.metric not in self._series for m in measured):
            raise MetricsFull(f"There are {SERIES_MAX} metrics already; no further one is kept.")
        self._inbox.extend(measured)

    def _absorb(self) -> None:
        """Merge what came in."""
        inbox, opened, oldest_ms = self._inbox, self._open, self._clock.now_ms() - _AMENDED_MS
        while inbox:
            measured = inbox.popleft()
            at_ms = measured.at_ms
            known = self._series.get(measured.metric) or self._meet(measured)
            if at_ms > known.latest_ms:
                known.latest_ms = at_ms
            if at_ms < oldest_ms:
                self._amended.setdefault((at_ms // MINUTE_MS, known.number), Summary()).merge(measured.summary)
                continue
            place, second = divmod(at_ms // 1000, CHUNK_MS // 1000)
            number = known.number
            chunks = opened.get(number)
            if chunks is None:
                chunks = opened[number] = {}
            chunk = chunks.get(place)
            if chunk is None:
                chunk = chunks[place] = self._stored(place, number) if place <= self._newest else {}
            dirty = self._dirty.get(place)
            if dirty is None:
                dirty = self._dirty[place] = set()
            dirty.add(number)
            summary = chunk.get(second)
            if summary is None:
                chunk[second] = measured.summary
            else:
                if type(summary) is not _Grown:
                    chunk[second] = summary = _Grown(*summary.parts())
                summary.merge(measured.summary)

    def _meet(self, measured: Measured) -> _Known:
        metric = measured.metric
        known = self._series[metric] = _Known(self._next, metric, measured.unit, measured.at_ms, measured.at_ms)
        self._next += 1
        self._met.append(known)
        return known

    def _stored(self, place: int, series: int) -> Chunk:
        row = self._db.execute("SELECT data FROM seconds WHERE at = ? AND series = ?", (place, series)).fetchone()
        return seconds_of(row[0]) if row else {}

    # --- the thread that writes ---------------------------------------------------------------------------------------

    def _write_on(self) -> None:
        while not self._ending.wait(_WRITE_EVERY_S):
            try:
                self.write()
            except sqlite3.Error as error:  # a full disk, say: what is in memory stays there, and is tried again
                log.error("metrics cannot be written: %s", error)

    def write(self) -> None:
        """Write what has changed, make what is due, remove what is old."""
        with self._lock:
            self._absorb()
            self._write_all(self._clock.now_ms())

    def keep(self) -> None:
        """Write what has changed, now: a killed process loses none of it. A disk that refuses is logged."""
        with self._lock:
            self._absorb()
            try:
                with self._db:
                    self._write_changed()
            except sqlite3.Error as error:
                log.error("metrics cannot be written: %s", error)
            else:
                self._all_written()

    def _write_all(self, now_ms: int) -> None:
        with self._db:
            self._write_changed()
            rolled = self._roll(now_ms)
            self._tell_series()
            if now_ms - self._expired_ms >= _EXPIRE_EVERY_MS:
                self._expire(now_ms)
        self._all_written()
        self._rolled.update(rolled)
        self._forget((now_ms - LATE_MS) // CHUNK_MS)

    def _write_changed(self) -> None:
        self._db.executemany("INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_row, self._met))
        self._write_dirty()

    def _all_written(self) -> None:
        """From here on the file has it all; had it failed, all of it would be tried again."""
        self._met.clear()
        self._dirty.clear()
        self._amended.clear()

    def _forget(self, before: int) -> None:
        """Chunks that are hardly going to change are read from the file from now on."""
        for series, chunks in list(self._open.items()):
            for place in [c for c in chunks if c < before]:
                del chunks[place]
            if not chunks:
                del self._open[series]

    def _write_dirty(self) -> None:
        opened = self._open
        rows = [(p, number, packed_seconds(opened[number][p])) for p, dirty in self._dirty.items() for number in dirty]
        replace(self._db, SECONDS, rows)
        self._newest = max([self._newest, *(place for place, _, _ in rows)])
        for (minute, series), summary in self._amended.items():
            amend(self._db, minute, series, summary)
        for level, source in ROLLED:  # what comes late is made again at each level that is made already
            until_ms = self._rolled.get(level.table, 0) * level.step_ms
            late = {place: dirty for place, dirty in self._dirty.items() if place * CHUNK_MS < until_ms}
            times = {(place * CHUNK_MS, number) for place, dirty in late.items() for number in dirty}
            if source is not SECONDS:
                times |= {(minute * MINUTE_MS, series) for minute, series in self._amended}
            for step, series in {(at_ms // level.step_ms, series) for at_ms, series in times if at_ms < until_ms}:
                roll(self._db, level, source, step, step + 1, series)

    def _roll(self, now_ms: int) -> dict[str, int]:
        """Make the coarser rows that are due; up to where, by level."""
        rolled = {}
        for level, source in ROLLED:
            first, last = self._rolled.get(level.table, 0), (now_ms - LATE_MS) // level.step_ms
            if last > first:
                roll(self._db, level, source, first, last)
                rolled[level.table] = last
                self._db.execute("REPLACE INTO rolled VALUES (?, ?)", (level.table, last))
        return rolled

    def _tell_series(self) -> None:
        late = [k for k in self._series.values() if k.latest_ms - k.told_ms >= _TOLD_EVERY_MS]
        self._db.executemany("UPDATE series SET latest_ms = ? WHERE id = ?", [(k.latest_ms, k.number) for k in late])
        for known in late:
            known.told_ms = known.latest_ms

    def _expire(self, now_ms: int) -> None:
        self._expired_ms = now_ms
        for level in (SECONDS, MINUTES, FIVES, HOURS):
            self._db.execute(f"DELETE FROM {level.table} WHERE at < ?", ((now_ms - level.kept_ms) // level.step_ms,))
        for known in [k for k in self._series.values() if k.latest_ms < now_ms - HOURS.kept_ms]:
            self._db.execute("DELETE FROM series WHERE id = ?", (known.number,))
            del self._series[known.metric]

    # --- what is asked ------------------------------------------------------------------------------------------------

    def series(self, scope: Scope, namespace: str | None = None, name: str | None = None) -> list[Series]:
        """Every series of an account and region, or those of a namespace and a name."""
        with self._lock:
            self._absorb()
            found = [
                Series(k.metric, k.unit, k.latest_ms)
                for k in self._series.values()
                if k.metric.scope == scope and namespace in (None, k.metric.namespace) and name in (None, k.metric.name)
            ]
        return sorted(found, key=lambda s: (s.metric.namespace, s.metric.name, s.metric.dimensions))

    def summaries(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int) -> dict[int, Summary]:
        """What was measured from `start_ms` to before `end_ms`, by the start of each period; empty ones are left out.

        Periods begin at `start_ms`; both are whole seconds.
        """
        return self._found(metric, start_ms, end_ms, period_ms, lambda summary: summary)

    def statistics(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int, of: Statistic) -> dict[int, float]:
        """Likewise what `of` makes of each of them; periods for which it knows no answer are left out."""
        return self._found(metric, start_ms, end_ms, period_ms, of)

    def _found(
        self, metric: Metric, start_ms: int, end_ms: int, period_ms: int, of: Callable[[Summary], T | None]
    ) -> dict[int, T]:
        with self._lock:
            self._absorb()
            known = self._series.get(metric)
            if known is None:
                return {}
            if self._late(known.number):
                self._write_all(self._clock.now_ms())
            found, made_ms = self._made(known.number, start_ms, end_ms, period_ms, of)
            rest = self._gathered(known.number, max(start_ms, made_ms), end_ms, period_ms)
        found |= {at_ms: told for at_ms, summary in sorted(rest.items()) if (told := of(summary)) is not None}
        return found

    def _made(
        self, series: int, start_ms: int, end_ms: int, period_ms: int, of: Callable[[Summary], T | None]
    ) -> tuple[dict[int, T], int]:
        """The periods that are rows of the file, and up to where: each is looked at while it is in the processor's
        cache, which thousands would not be.
        """
        level = next((level for level in (HOURS, FIVES, MINUTES) if level.step_ms == period_ms), None)
        if level is None or start_ms % period_ms:
            return {}, start_ms
        until = min(self._rolled.get(level.table, 0), -(-end_ms // period_ms))
        rows = read_rows(self._db, level, series, start_ms // period_ms, until)
        found = {at * period_ms: told for at, data in rows if (told := of(summary_of(data))) is not None}
        return found, until * period_ms

    def _gathered(self, series: int, start_ms: int, end_ms: int, period_ms: int) -> dict[int, Summary]:
        """The periods that finer parts make up."""
        found: dict[int, Summary] = {}
        for at_ms, summary in self._parts(series, start_ms, end_ms, period_ms):
            at_ms -= (at_ms - start_ms) % period_ms
            whole = found.get(at_ms)
            if whole is None:
                found[at_ms] = summary
            else:
                if type(whole) is not _Gathered:
                    found[at_ms] = whole = _Gathered(*whole.parts())
                whole.merge(summary)
        return found

    def _late(self, series: int) -> bool:
        """Whether coarser rows do not have yet what came late."""
        made = self._rolled.get(MINUTES.table, 0) * (MINUTE_MS // CHUNK_MS)
        if any(series in dirty for place, dirty in self._dirty.items() if place < made):
            return True
        return any(number == series for _, number in self._amended)

    def _parts(self, series: int, start_ms: int, end_ms: int, period_ms: int) -> Iterator[tuple[int, Summary]]:
        """Summaries at the coarsest level that fits the period, finer ones where that is not made yet."""
        for level in (HOURS, FIVES, MINUTES):
            if period_ms % level.step_ms == 0 and start_ms % level.step_ms == 0:
                until = min(self._rolled.get(level.table, 0), -(-end_ms // level.step_ms))
                for at, data in read_rows(self._db, level, series, start_ms // level.step_ms, until):
                    yield at * level.step_ms, summary_of(data)
                start_ms = max(start_ms, until * level.step_ms)
        for place, chunk in self._chunks(series, start_ms // CHUNK_MS, -(-end_ms // CHUNK_MS)):
            for second, summary in chunk.items():
                at_ms = place * CHUNK_MS + second * 1000
                if start_ms <= at_ms < end_ms:
                    yield at_ms, Summary(*summary.parts()) if type(summary) is _Grown else summary

    def _chunks(self, series: int, first: int, last: int) -> Iterator[tuple[int, Chunk]]:
        in_memory = self._open.get(series, {})
        for place, data in read_rows(self._db, SECONDS, series, first, last):
            if place not in in_memory:
                yield place, seconds_of(data)
        for place, chunk in in_memory.items():
            if first <= place < last:
                yield place, chunk


_SeriesRow = tuple[int, str, str, str, str, str, str, int]


def _row(known: _Known) -> _SeriesRow:
    metric = known.metric
    account, region = metric.scope.account, metric.scope.region
    dimensions = json.dumps(metric.dimensions)
    return known.number, account, region, metric.namespace, metric.name, dimensions, known.unit, known.told_ms


def _known(row: _SeriesRow) -> _Known:
    number, account, region, namespace, name, dimensions, unit, latest_ms = row
    pairs = tuple((str(key), str(value)) for key, value in json.loads(dimensions))
    return _Known(number, Metric(Scope(account, region), namespace, name, pairs), unit, latest_ms, latest_ms)

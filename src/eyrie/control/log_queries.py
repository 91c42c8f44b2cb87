"""Logs Insights queries under way and done: each runs in a thread of its own, within bounds of bytes and time.

What is done is kept in memory for a while, as its results are asked for again and again; it does not outlive control.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from eyrie.control.log_book import LogBook
from eyrie.decide.query_run import Query, Record, Row, TooMuch
from eyrie.domain.logs import EVENT_OVERHEAD_BYTES, LogGroup
from eyrie.domain.names import Scope

log = logging.getLogger(__name__)

THREADS = 2
WAITING_MAX = 30  # queries that run or wait; the next StartQuery is refused
KEPT_MAX = 200
SCANNED_BYTES_MAX = 2_147_483_648
SECONDS_MAX = 60.0
_LOOK_EVERY = 500  # records between looks at the time and at StopQuery


class Status(StrEnum):
    """Of a query, as the API spells them."""

    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    TIMEOUT = "Timeout"


@dataclass(slots=True)
class Running:
    """One query and what became of it. Written by its thread alone, but for `stop`."""

    query_id: str
    scope: Scope
    text: str
    groups: Sequence[LogGroup]
    span: tuple[int, int]  # from, to before: milliseconds since the epoch
    created_ms: int
    query: Query
    status: Status = Status.SCHEDULED
    rows: Sequence[Row] = ()
    why: str = ""
    scanned: int = 0
    bytes_scanned: int = 0
    took_ms: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


class TooManyQueries(Exception):
    """As many as may run or wait do."""


class LogQueries:
    """Starts queries, and knows them for as long as they are kept. Every method may be called from any thread."""

    def __init__(self, book: LogBook, wall_s: Callable[[], float] = time.monotonic) -> None:
        self._book = book
        self._wall_s = wall_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="queries")
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Running] = OrderedDict()

    def close(self) -> None:
        """Stop what runs."""
        for running in list(self._known.values()):
            running.stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def start(self, running: Running) -> None:
        """Run a query as soon as a thread is free. Raises TooManyQueries."""
        with self._lock:
            under_way = sum(one.status in (Status.SCHEDULED, Status.RUNNING) for one in self._known.values())
            if under_way >= WAITING_MAX:
                raise TooManyQueries
            for query_id in [q for q, one in self._known.items() if one.status not in ("Scheduled", "Running")]:
                if len(self._known) < KEPT_MAX:
                    break
                del self._known[query_id]
            self._known[running.query_id] = running
        self._threads.submit(self._run, running)

    def get(self, scope: Scope, query_id: str) -> Running | None:
        """A query of an account and region."""
        found = self._known.get(query_id)
        return found if found is not None and found.scope == scope else None

    def all(self, scope: Scope) -> list[Running]:
        """Those of an account and region, the newest first."""
        with self._lock:
            return [running for running in reversed(self._known.values()) if running.scope == scope]

    def stop(self, running: Running) -> bool:
        """Stop a query; False where it is over already."""
        if running.status not in (Status.SCHEDULED, Status.RUNNING):
            return False
        running.stop.set()
        if running.status is Status.SCHEDULED:
            running.status = Status.CANCELLED
        return True

    def _run(self, running: Running) -> None:
        if running.stop.is_set():
            running.status = Status.CANCELLED
            return
        running.status = Status.RUNNING
        began_s = self._wall_s()
        try:
            ended = self._scan(running, began_s)
            running.rows = running.query.rows() if ended is not Status.CANCELLED else ()
        except TooMuch as error:
            running.why, ended = str(error), Status.FAILED
        except Exception:  # the boundary of one query: it fails, and nothing else does
            log.exception("query %s failed", running.query_id)
            running.why, ended = "an internal error, which control's log tells", Status.FAILED
        running.took_ms = round((self._wall_s() - began_s) * 1000)
        running.status = ended

    def _scan(self, running: Running, began_s: float) -> Status:
        for group in running.groups:
            source = f"{group.scope.account}:{group.name}"
            for stream in self._book.names(group):
                for entry in self._book.read(group, stream, running.created_ms, running.span):
                    running.scanned += 1
                    running.bytes_scanned += len(entry.text) + EVENT_OVERHEAD_BYTES
                    if running.scanned % _LOOK_EVERY == 0 and (ended := self._ended(running, began_s)) is not None:
                        return ended
                    running.query.feed(
                        Record(entry.at_ms, entry.text, entry.stream, source, entry.ingested_ms, entry.ordinal)
                    )
        return Status.CANCELLED if running.stop.is_set() else Status.COMPLETE

    def _ended(self, running: Running, began_s: float) -> Status | None:
        if running.stop.is_set():
            return Status.CANCELLED
        if self._wall_s() - began_s > SECONDS_MAX or running.bytes_scanned > SCANNED_BYTES_MAX:
            running.why = f"more than {SECONDS_MAX:.0f} s or {SCANNED_BYTES_MAX} bytes: what was read until then counts"
            return Status.TIMEOUT
        return None

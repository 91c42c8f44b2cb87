"""What Eyrie itself writes into log groups of its own (what instances answered, who changed what), once a second.

Heard on the event loop, without waiting; made into lines and written by a thread, one transaction a group. A control
process that is killed loses what it heard within its last second.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from eyrie.adapters.log_file import Event
from eyrie.control.log_book import LogBook
from eyrie.domain.logs import LogGroup
from eyrie.domain.names import Scope
from eyrie.ports import Clock

log = logging.getLogger(__name__)

_WRITE_EVERY_S = 1.0
Heard = TypeVar("Heard")


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a stream of a group."""

    scope: Scope
    group: str
    stream: str
    event: Event


@dataclass(frozen=True, slots=True)
class Kind(Generic[Heard]):
    """What is written, and how: `lines_of` makes one thing that was heard into lines, on the writing thread."""

    name: str  # for Eyrie's own log
    lines_of: Callable[[Heard], Iterable[Line]]
    retention_days: int  # of groups that are made here; one that is there keeps its own
    waiting_max: int  # things heard that wait to be written; the oldest are dropped, and told


class GroupWriter(Generic[Heard]):
    """Keeps what was heard until it is written. What cannot be written is dropped, and told."""

    def __init__(self, kind: Kind[Heard], book: LogBook, clock: Clock) -> None:
        self._kind = kind
        self._book = book
        self.clock = clock
        self._waiting: deque[Heard] = deque()
        self._one_writer = threading.Lock()  # the last write, at the end of control, may meet one that is under way
        self._crowded_out = 0

    def hear(self, one: Heard) -> None:
        """One more to be written."""
        if len(self._waiting) >= self._kind.waiting_max:
            self._waiting.popleft()
            self._crowded_out += 1
        self._waiting.append(one)

    async def run(self) -> None:
        """Write what was heard, each second."""
        while True:
            await asyncio.sleep(_WRITE_EVERY_S)
            if self._waiting:
                await asyncio.to_thread(self.write)

    def write(self) -> None:
        """Write what was heard so far."""
        with self._one_writer:
            crowded_out, self._crowded_out = self._crowded_out, 0
            if crowded_out:
                log.error("%d %s were dropped: more were waiting than can be kept", crowded_out, self._kind.name)
            found: dict[tuple[Scope, str], dict[str, list[Event]]] = {}
            for _ in range(len(self._waiting)):
                for line in self._kind.lines_of(self._waiting.popleft()):
                    found.setdefault((line.scope, line.group), {}).setdefault(line.stream, []).append(line.event)
            for (scope, name), streams in found.items():
                self._put(scope, name, streams)

    def _put(self, scope: Scope, name: str, streams: dict[str, list[Event]]) -> None:
        now_ms = self.clock.now_ms()
        try:
            self._book.append_all(LogGroup(scope, name, now_ms, self._kind.retention_days), streams, now_ms)
        except (sqlite3.Error, OSError) as error:
            lost = sum(map(len, streams.values()))
            log.error("%d %s cannot be written and are dropped: %s", lost, self._kind.name, error)

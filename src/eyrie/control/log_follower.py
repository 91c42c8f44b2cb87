"""Metric filters on what instances print: new lines of their files are counted within moments.

Where it has come to is in memory: after a restart of control it goes on with lines printed from then on, so none counts
twice, and those printed while control was away do not count.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable

from eyrie.control.access_log import PREFIX as ACCESS
from eyrie.control.log_book import LogBook, endpoint_of
from eyrie.domain.logs import LogGroup, MetricFilter
from eyrie.domain.names import Scope
from eyrie.ports import Clock

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_EXPIRE_EVERY_MS = 60_000
_EMPTY_FOR_MS = 3_600_000
_LATE_MS = 1_000  # lines of the last moment are left for the next look: their file may not have them all yet
Known = tuple[Scope, str, str]  # a stream of a group


class LogFollower:
    """Follows the streams of groups that have metric filters, and removes printed logs past their retention."""

    def __init__(self, book: LogBook, clock: Clock, wall_ms: Callable[[], int]) -> None:
        """`wall_ms` is real time, by which instances stamp their lines."""
        self._book = book
        self._clock = clock
        self._wall_ms = wall_ms
        self._begun: dict[tuple[Scope, str], int] = {}  # since when a group is followed
        self._places: dict[Known, int] = {}  # up to where each stream was read: milliseconds since the epoch
        self._expired_ms = 0

    async def run(self) -> None:
        """Look every other second."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await asyncio.to_thread(self.look)
            except (sqlite3.Error, OSError) as error:  # a full disk, say: the next look goes on from there
                log.error("logs cannot be followed: %s", error)

    def look(self) -> None:
        """Count what is new."""
        seen: set[Known] = set()
        filtered = [found for found in self._book.file.filtered() if endpoint_of(*found[:2]) is not None]
        self._begun = {(s, name): self._begun.get((s, name), self._wall_ms() - _LATE_MS) for s, name, _ in filtered}
        for scope, name, filters in filtered:
            group = self._book.group(scope, name)
            if group is not None:
                seen |= self._follow(group, filters)
        for known in set(self._places) - seen:
            del self._places[known]
        now_ms = self._clock.now_ms()
        if now_ms - self._expired_ms >= _EXPIRE_EVERY_MS:
            self._expired_ms = now_ms
            self._expire(now_ms)

    def _follow(self, group: LogGroup, filters: list[MetricFilter]) -> set[Known]:
        seen: set[Known] = set()
        for stream in self._book.printed_names(group):
            known = (group.scope, group.name, stream)
            seen.add(known)
            from_ms = self._places.get(known, self._begun[group.scope, group.name])
            until_ms = self._wall_ms() - _LATE_MS
            if until_ms > from_ms and self._book.printed_since(group, stream, from_ms):
                entries = self._book.read(group, stream, until_ms, (from_ms, until_ms))
                self._book.count(group.scope, filters, [(entry.at_ms, entry.text) for entry in entries])
                self._places[known] = until_ms
        return seen

    def _expire(self, now_ms: int) -> None:
        """Remove the files of gone instances that are past the retention of their group; and of the access records of
        what is gone, the empty streams and groups.
        """
        self._book.file.remove_empty(ACCESS, now_ms - _EMPTY_FOR_MS)
        for key in self._book.instances.endpoints():
            group = self._book.file.group(key.scope, f"/aws/sagemaker/Endpoints/{key.name}")
            if group is not None and group.shown_from_ms(now_ms):
                self._book.instances.remove_old(key, group.shown_from_ms(now_ms))

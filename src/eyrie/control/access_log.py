"""What every instance answered, as a log group an endpoint: `/eyrie/Endpoints/NAME`, stream `VARIANT/INSTANCE`.

Of each second of each gateway worker there is one event that counts every request (kind "second"), and events of
single requests (kind "request"): the first few of that second, and errors beyond them. So `stats sum(requests) by
bin(1s), instance` is exact whatever the load, and the single requests are all there where there are few. Requests that
reached no instance are in the stream `VARIANT/none`. Kept for a day unless the group's retention says otherwise.

Each event has the generation of the route table by which the worker sent the request on (its own snapshot, whatever
control had published by then); a second in which a table changed tells how many requests went by each.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eyrie.adapters.log_file import Event
from eyrie.control.log_book import LogBook
from eyrie.domain.logs import LogGroup
from eyrie.domain.metrics import middle_of
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock

log = logging.getLogger(__name__)

PREFIX = "/eyrie/Endpoints/"
RETENTION_DAYS = 1
WAITING_MAX = 2_000  # seconds of endpoints that wait to be written; the oldest are dropped, and counted
NOBODY = "none"  # in place of an instance
_WRITE_EVERY_S = 1.0
Told = Mapping[str, Any]


class AccessLog:
    """Hears the workers' rollups, on the event loop and without waiting; writes them from a thread."""

    def __init__(self, book: LogBook, clock: Clock, wall_ms: Callable[[], int]) -> None:
        """`wall_ms` is real time, which gateway workers stamp requests with."""
        self._book = book
        self._clock = clock
        self._wall_ms = wall_ms
        self._waiting: deque[tuple[EndpointKey, int, int, str, Told]] = deque()
        self._dropped = 0

    def take(self, told: Told) -> None:
        """One worker's second."""
        at_ms, behind_ms = self._clock.now_ms(), self._wall_ms()
        for slug, variants in told.get("endpoints", {}).items():
            if len(self._waiting) >= WAITING_MAX:
                self._waiting.popleft()
                self._dropped += 1
            worker = str(told.get("worker", ""))
            self._waiting.append((EndpointKey.from_slug(slug), at_ms, behind_ms, worker, variants))

    async def run(self) -> None:
        """Write what was heard, each second."""
        while True:
            await asyncio.sleep(_WRITE_EVERY_S)
            await asyncio.to_thread(self.write)

    def write(self) -> None:
        """Write what was heard so far; what cannot be written is dropped, and told."""
        by_endpoint: dict[EndpointKey, dict[str, list[Event]]] = {}
        while self._waiting:
            key, at_ms, wall_ms, worker, variants = self._waiting.popleft()
            streams = by_endpoint.setdefault(key, {})
            for stream, event in events(variants, worker, at_ms, wall_ms):
                streams.setdefault(stream, []).append(event)
        for key, streams in by_endpoint.items():
            try:
                self._put(key, streams)
            except (sqlite3.Error, OSError) as error:
                self._dropped += sum(map(len, streams.values()))
                log.error("access records cannot be written (%d dropped so far): %s", self._dropped, error)

    def _put(self, key: EndpointKey, streams: dict[str, list[Event]]) -> None:
        now_ms = self._clock.now_ms()
        group = LogGroup(key.scope, PREFIX + key.name, now_ms, RETENTION_DAYS)
        self._book.file.append_all(key.scope, group, streams, now_ms)
        filters = self._book.file.filters(key.scope).get(group.name, ())
        for put in streams.values() if filters else ():
            self._book.count(key.scope, filters, put)


def events(
    variants: Mapping[str, Told], worker: str, at_ms: int, wall_ms: int
) -> Iterator[tuple[str, tuple[int, str]]]:
    """(stream, event) of a worker's second that ended at `at_ms`, which is `wall_ms` by the worker's clock."""
    for variant, instances in variants.items():
        for instance_id, rollup in instances.items():
            stream = f"{variant or NOBODY}/{instance_id or NOBODY}"
            named = {"variant": variant, "instance": instance_id, "worker": worker}
            for record in rollup.get("records", ()):
                request_ms, status, model_us, overhead_us, generation = record
                ago_ms = min(max(wall_ms - int(request_ms), 0), 2_000)
                told = {**named, "status": status, "modelMs": model_us / 1000, "overheadMs": overhead_us / 1000}
                told["generation"] = generation
                yield stream, (at_ms - ago_ms, json.dumps({"kind": "request", **told}))
            if rollup["n"]:
                yield stream, (at_ms, json.dumps({"kind": "second", **named, **_counts(rollup)}))


def _counts(rollup: Told) -> dict[str, Any]:
    n = int(rollup["n"])
    generation = int(rollup.get("generation", 0))
    others = {int(each): int(count) for each, count in rollup.get("generations", {}).items()}
    several = {"generations": {generation: n - sum(others.values()), **others}} if others else {}
    return {
        "requests": n,
        "generation": max(generation, *others) if others else generation,
        **several,
        "errors4xx": int(rollup["e4"]),
        "errors5xx": int(rollup["e5"]),
        "modelErrors": int(rollup["em"]),
        "concurrent": int(rollup["peak"]),
        "modelMsAvg": round(int(rollup["model_us"]) / n / 1000, 3),
        "modelMsP99": round(_quantile(rollup["model"], 0.99) / 1000, 3),
        "overheadMsAvg": round(int(rollup["overhead_us"]) / n / 1000, 3),
    }


def _quantile(histogram: Mapping[Any, int], part: float) -> float:
    """Microseconds below which that part of the requests took."""
    left = part * sum(histogram.values())
    for bucket in sorted(histogram, key=int):
        left -= histogram[bucket]
        if left <= 0:
            return middle_of(int(bucket))
    return 0.0

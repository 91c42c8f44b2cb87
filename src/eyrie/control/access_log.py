"""What every instance answered, as a log group an endpoint: `/eyrie/Endpoints/NAME`, stream `VARIANT/INSTANCE`.

Of each second of each gateway worker there is one event that counts every request (kind "second"), and events of
single requests (kind "request"): the first few of that second, and errors beyond them. So `stats sum(requests) by
bin(1s), instance` is exact whatever the load, and the single requests are all there where there are few. Requests that
reached no instance are in the stream `VARIANT/none`. Kept for a day unless the group's retention says otherwise.

Each event has the generation of the route table by which the worker sent the request on (its own snapshot, whatever
control had published by then); a second in which a table changed tells how many requests went by each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eyrie.control.group_writer import GroupWriter, Kind, Line
from eyrie.control.log_book import LogBook
from eyrie.domain.metrics import middle_of
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock

PREFIX = "/eyrie/Endpoints/"
RETENTION_DAYS = 1
WAITING_MAX = 2_000  # seconds of endpoints that wait to be written
NOBODY = "none"  # in place of an instance
Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Second:
    """What one worker told of one endpoint; it ended at `at_ms`, which is `wall_ms` by the worker's clock."""

    key: EndpointKey
    worker: str
    at_ms: int
    wall_ms: int
    variants: Told


class AccessLog(GroupWriter[_Second]):
    """Hears the workers' rollups, on the event loop and without waiting; writes them each second."""

    def __init__(self, book: LogBook, clock: Clock, wall_ms: Callable[[], int]) -> None:
        """`wall_ms` is real time, which gateway workers stamp requests with."""
        super().__init__(Kind("access records", _lines, RETENTION_DAYS, WAITING_MAX), book, clock)
        self._wall_ms = wall_ms

    def take(self, told: Told) -> None:
        """One worker's second."""
        worker, at_ms, wall_ms = str(told.get("worker", "")), self.clock.now_ms(), self._wall_ms()
        for slug, variants in told.get("endpoints", {}).items():
            self.hear(_Second(EndpointKey.from_slug(slug), worker, at_ms, wall_ms, variants))


def _lines(second: _Second) -> Iterator[Line]:
    group = PREFIX + second.key.name
    for stream, event in events(second.variants, second.worker, second.at_ms, second.wall_ms):
        yield Line(second.key.scope, group, stream, event)


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

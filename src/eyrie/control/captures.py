"""Brings captured records to their buckets, and tells of those that were dropped. A part of control on its own.

Gateway workers write files of records (`adapters/capture_spool`); each second this looks for those that are whole, or
whose worker was killed, and uploads them, oldest first. A destination that cannot be written is left alone for a while,
longer each time, and its files wait; what is there when control is killed, the next one finds. What the workers drop
for want of room they tell with their rollups: it becomes metrics, and a line in the endpoint's story.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyrie.adapters.capture_buckets import CaptureBuckets, NotDelivered
from eyrie.adapters.capture_spool import Spool
from eyrie.control.metering import NAMESPACE
from eyrie.control.recurring import Recurring
from eyrie.decide.capture import retry_in_ms
from eyrie.domain.capture import CaptureFile
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Commit, Event, Metrics, MetricsFull, Store

log = logging.getLogger(__name__)

EVERY_S = 1.0
FINISH_S = 5.0  # at the end of control, for what the gateways wrote last
RECORDS = "DataCaptureRecords"
DROPPED = "DataCaptureDropped"
DELIVERED = "DataCaptureFilesDelivered"
WHY = {
    "disk": "the disk is fuller than EYRIE_CAPTURE_DISK_PERCENT_MAX",
    "waiting": "more than EYRIE_CAPTURE_BYTES_MAX wait for their bucket",
    "memory": "a gateway worker holds all that it may until the disk has taken it",
    "disk error": "the disk did not take them",
}
Told = Mapping[str, Any]
Place = tuple[str, str, str]  # slug, variant, and why


@dataclass(slots=True)
class _Trouble:
    """A destination of an endpoint that could not be written."""

    why: str
    failures: int = 0
    again_s: float = 0.0


@dataclass(slots=True)
class Captures:
    """The loop that uploads. `take` is called on the event loop, all else in threads."""

    spool: Spool
    buckets: CaptureBuckets
    store: Store
    metrics: Metrics
    clock: Clock
    monotonic: Callable[[], float] = time.monotonic
    _troubles: dict[tuple[str, str], _Trouble] = field(default_factory=dict)  # by slug and destination
    _drops: Recurring[Place] = field(default_factory=Recurring)
    _ending: bool = False
    _looking: threading.Lock = field(default_factory=threading.Lock)  # one look at a time

    async def run(self) -> None:
        """Look each second, for ever."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # the loop boundary: the next second looks again
                log.exception("captured records could not be looked at")
            await asyncio.sleep(EVERY_S)

    def finish(self) -> None:
        """Control ends, and the gateways have ended before it: take what they wrote last to its buckets, in a bounded
        time. What is left stays on disk for the next control.
        """
        until_s = self.monotonic() + FINISH_S
        self._ending = True
        with self._looking:
            self._troubles.clear()
            for path in self.spool.waiting():
                if self.monotonic() < until_s:
                    self._deliver(path)

    def look(self) -> None:
        """One look."""
        self._tell_drops()
        with self._looking:
            for path in self.spool.waiting():
                if not self._ending:
                    self._deliver(path)

    def take(self, told: Told) -> None:
        """One worker's second. Raises KeyError, TypeError or ValueError for what is none."""
        measured: list[Measured] = []
        at_ms = self.clock.now_ms()
        for slug, variants in told.get("capture", {}).items():
            key = EndpointKey.from_slug(slug)
            for variant, counts in variants.items():
                dropped = {why: int(count) for why, count in counts.items() if why != "records"}
                measured += _measured(key, variant, at_ms, RECORDS, int(counts.get("records", 0)))
                measured += _measured(key, variant, at_ms, DROPPED, sum(dropped.values()))
                for why, count in dropped.items():
                    self._drops.add((slug, variant, why), count)
        self._record(measured)

    # --- uploading --------------------------------------------------------------------------------------------------

    def _deliver(self, path: Path) -> None:
        try:
            file = self.spool.head(path)
        except FileNotFoundError:
            return
        except ValueError as error:
            log.error("%s is set aside: %s", path, error)
            self.spool.set_aside(path)
            return
        place = file.slug, file.destination
        trouble = self._troubles.get(place)
        if trouble is not None and self.monotonic() < trouble.again_s:
            return
        records = self.spool.records(path)
        try:
            uri = self.buckets.put(file, records) if records else ""
        except NotDelivered as error:
            self._failed(file, str(error))
            return
        self.spool.remove(path)
        if self._troubles.pop(place, None) is not None:
            self._tell(file.slug, "captured data goes to its bucket again", f"{uri} was written")
        if uri:
            log.info("%d captured bytes are at %s", len(records), uri)
            key = EndpointKey.from_slug(file.slug)
            self._record(_measured(key, file.variant, self.clock.now_ms(), DELIVERED, 1))

    def _failed(self, file: CaptureFile, why: str) -> None:
        trouble = self._troubles.setdefault((file.slug, file.destination), _Trouble(""))
        trouble.failures += 1
        trouble.again_s = self.monotonic() + retry_in_ms(trouble.failures) / 1000
        if trouble.why != why:
            trouble.why = why
            log.warning("captured data of %s waits: %s", file.slug, why)
            self._tell(file.slug, "captured data waits for its bucket", why)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell_drops(self) -> None:
        """What was dropped: at once, then once a minute while it goes on."""
        for (slug, variant, why), count in self._drops.due(self.monotonic()):
            self._tell(slug, f"{count} captured records of {variant} dropped", WHY.get(why, why))

    def _tell(self, slug: str, what: str, why: str) -> None:
        key = EndpointKey.from_slug(slug)
        event = Event("Endpoint", key.scope, key.name, self.clock.now_ms(), what, why)
        self.store.commit(Commit(events=[event]))

    def _record(self, measured: list[Measured]) -> None:
        if not measured:
            return
        try:
            self.metrics.record(measured)
        except MetricsFull as error:
            log.warning("%d measurements of captures dropped: %s", len(measured), error)


def _measured(key: EndpointKey, variant: str, at_ms: int, name: str, count: int) -> list[Measured]:
    """A count of a variant, as a metric whose Sum it is."""
    if not count:
        return []
    summary = Summary()
    summary.add(float(count))
    dimensions = (("EndpointName", key.name), ("VariantName", variant))
    return [Measured(Metric(key.scope, NAMESPACE, name, dimensions), at_ms, summary, "Count")]

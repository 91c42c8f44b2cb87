"""Requests that gateway workers sent to an instance a second time, as a metric and in the endpoint's story.

On the path of a worker's second: `wiring` -> `take`; the store is written in a thread. What a replay is:
`gateway/replays`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eyrie.control.metering import NAMESPACE
from eyrie.control.recurring import Recurring
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Commit, Event, Metrics, MetricsFull, Store

log = logging.getLogger(__name__)

EVERY_S = 1.0
REPLAYED = "ReplayedRequests"
WHY = (
    "their connections to {} ended before a byte of a reply came (one of its worker processes died, or it closes idle "
    "connections early): each went to it once more"
)


@dataclass(slots=True)
class Replays:
    """Tells of them. `take` is called on the event loop."""

    store: Store
    metrics: Metrics
    clock: Clock
    monotonic: Callable[[], float] = time.monotonic
    _recurring: Recurring[tuple[str, str, str]] = field(default_factory=Recurring)  # by slug, variant and instance

    def take(self, told: Mapping[str, Any]) -> None:
        """One worker's second. Raises ValueError for what is none."""
        for slug, variants in told.get("replays", {}).items():
            for variant, instances in variants.items():
                for instance_id, count in instances.items():
                    self._recurring.add((slug, variant, instance_id), int(count))
                self._record(EndpointKey.from_slug(slug), variant, sum(map(int, instances.values())))

    async def run(self) -> None:
        """Tell the stories, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            events = self.events()
            if not events:
                continue
            try:
                await asyncio.to_thread(self.store.commit, Commit(events=events))
            except Exception:  # the loop boundary: the metric has them
                log.exception("requests that were sent twice could not be told: %s", events)

    def events(self) -> list[Event]:
        """What the stories are to be told now."""
        found = []
        for (slug, variant, instance_id), count in self._recurring.due(self.monotonic()):
            key = EndpointKey.from_slug(slug)
            what = f"{count} requests of {variant} sent twice" if count > 1 else f"a request of {variant} sent twice"
            found.append(Event("Endpoint", key.scope, key.name, self.clock.now_ms(), what, WHY.format(instance_id)))
        return found

    def _record(self, key: EndpointKey, variant: str, count: int) -> None:
        summary = Summary()
        summary.add(float(count))
        dimensions = (("EndpointName", key.name), ("VariantName", variant))
        metric = Metric(key.scope, NAMESPACE, REPLAYED, dimensions)
        try:
            self.metrics.record([Measured(metric, self.clock.now_ms(), summary, "Count")])
        except MetricsFull as error:
            log.warning("a count of requests that were sent twice is dropped: %s", error)

"""The metrics of serverless variants, each second: requests at once against what is allowed, those that provisioned
concurrency covered and those beyond it, and how long each start of an instance took.

Names and units are CloudWatch's; what gateway workers measure themselves (Invocations, ModelLatency, OverheadLatency
with the wait for an instance in it) comes through control/metering, MemoryUtilization through control/sampling.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping

from eyrie.control.use_book import Told, UseBook
from eyrie.decide import rollout
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import Instance
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import EndpointKey
from eyrie.domain.serverless import Serverless
from eyrie.ports import Clock, Metrics, MetricsFull

log = logging.getLogger(__name__)

NAMESPACE = "AWS/SageMaker"
SETUP = "ModelSetupTime"
UTILISATION = "ServerlessConcurrentExecutionsUtilization"
PROVISIONED = "ServerlessProvisionedConcurrency"
EVERY_S = 1.0


class ServerlessMeter:
    """Looks at every serverless endpoint. Called on the event loop: nothing here waits."""

    def __init__(
        self, metrics: Metrics, clock: Clock, endpoints: Mapping[EndpointKey, Endpoint], uses: UseBook, scale: float
    ) -> None:
        """`endpoints` is kept up to date by its owner. `scale`: of the clock that instances are stamped by."""
        self._metrics, self._clock, self._endpoints, self._uses = metrics, clock, endpoints, uses
        self._scale = scale
        self._seen: dict[str, None] = {}  # instances whose start was told, or was over before this began
        self._since_ms = clock.now_ms()
        self._dropped = 0

    async def run(self) -> None:
        """Look each second, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.look()

    def look(self) -> None:
        """Record what came since the last look."""
        now_ms = self._clock.now_ms()
        measured = [one for endpoint in list(self._endpoints.values()) for one in self._of(endpoint, now_ms)]
        instances = {i.instance_id for endpoint in self._endpoints.values() for i in endpoint.instances}
        self._seen = {known: None for known in self._seen if known in instances}
        try:
            self._metrics.record(measured)
        except MetricsFull as error:
            self._dropped += len(measured)
            log.warning("%d measurements of serverless endpoints dropped so far: %s", self._dropped, error)

    def _of(self, endpoint: Endpoint, now_ms: int) -> Iterator[Measured]:
        told = self._uses.counts(endpoint.key)
        for fleet, by in rollout.shares(endpoint):
            for variant in fleet.variants:
                if variant.serverless is None or variant.name not in by:
                    continue
                for name, value, unit, times in of_use(variant.serverless, told):
                    yield measurement(endpoint.key, variant.name, name, value, unit, now_ms, times)
        for instance in endpoint.instances:
            if self._is_new(instance):
                took_us = (instance.ready_ms - instance.requested_ms) * 1000 / self._scale
                yield measurement(endpoint.key, instance.variant, SETUP, took_us, "Microseconds", now_ms)

    def _is_new(self, instance: Instance) -> bool:
        """Whether an instance has answered its first /ping, and that was not told yet."""
        if instance.ready_ms <= self._since_ms or instance.instance_id in self._seen:
            return False
        self._seen[instance.instance_id] = None
        return True


def of_use(allowed: Serverless, told: Told) -> Iterator[tuple[str, float, str, int]]:
    """Name, value, unit and how often it was measured; of a second without requests only what is provisioned."""
    if told.peak:
        yield UTILISATION, told.peak / allowed.max_concurrency, "None", 1
    if not allowed.provisioned:
        return
    covered = min(told.peak, allowed.provisioned)
    yield PROVISIONED + "Executions", float(covered), "Count", 1
    yield PROVISIONED + "Utilization", covered / allowed.provisioned, "None", 1
    if told.ready:
        yield PROVISIONED + "Invocations", 1.0, "None", told.ready
    if told.beyond:
        yield PROVISIONED + "SpilloverInvocations", 1.0, "None", told.beyond


def measurement(
    key: EndpointKey, variant: str, name: str, value: float, unit: str, at_ms: int, times: int = 1
) -> Measured:
    """A value of a variant, measured so many times."""
    summary = Summary()
    summary.add(value, times)
    dimensions = (("EndpointName", key.name), ("VariantName", variant))
    return Measured(Metric(key.scope, NAMESPACE, name, dimensions), at_ms, summary, unit)

"""Counts what everything that runs costs, and records it each minute: `Eyrie/Costs`, for endpoints, variants and jobs.

An instance costs from its first answered /ping until it is not there any more, as its type's row has the price; a
serverless variant while its model works on requests, by its memory, and for what it keeps ready; a transform job by its
instances from its start to its end. Where this was away (killed, upgraded), what runs now is counted for that time too:
decide/costs says how that cannot count anything twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from eyrie.control.jobs import decode
from eyrie.decide import costs as decide
from eyrie.domain.costs import Life, Payer, Served
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import Instance, Variant
from eyrie.domain.instance_types import InstanceTypes, UnknownInstanceType
from eyrie.domain.metrics import Measured, Metric, Summary, merged
from eyrie.domain.names import Scope
from eyrie.ports import Clock, Metrics, MetricsFull, Store

log = logging.getLogger(__name__)

EVERY_S = 5.0  # between looks: what ends is charged up to the last look that saw it
JOBS = "TransformJob"
_GATEWAYS = "AWS/SageMaker"


Standing = tuple[Endpoint, frozenset[str]]  # an endpoint, and those of its instances that compute sees alive


class CostMeter:
    """Looks at what there is, and settles what is over. `standing` is None until the world has been looked at."""

    def __init__(
        self,
        metrics: Metrics,
        store: Store,
        clock: Clock,
        standing: Callable[[], list[Standing] | None],
        types: InstanceTypes,
        own: Scope,
    ) -> None:
        """`own`: the account and region whose total tells, after a restart, up to when costs are on record."""
        self._metrics, self._store, self._clock = metrics, store, clock
        self._standing = standing
        self._types = types
        self._own = own
        self._lives: dict[str, Life] = {}  # by instance id; those that have gone stay until they are settled
        self._serverless: dict[Payer, tuple[int, int]] = {}  # MemorySizeInMB, and since when it is known
        self._cursor_ms: int | None = None
        self._began_ms = clock.now_ms()
        self._unpriced: set[str] = set()

    async def run(self) -> None:
        """Look and settle, for ever."""
        while True:
            try:
                standing = self._standing()
                if standing is not None:
                    await asyncio.to_thread(self.look, standing)
            except Exception:  # the loop boundary: what was not settled is settled the next time
                log.exception("what things cost could not be counted")
            await asyncio.sleep(EVERY_S)

    def look(self, standing: list[Standing]) -> None:
        """Note what is there now, and record the minutes that are over."""
        now_ms = self._clock.now_ms()
        if self._cursor_ms is None:
            self._cursor_ms = self._recorded_until(now_ms)
        self._see(standing, now_ms)
        over = list(decide.steps(self._cursor_ms, now_ms))
        if over:
            self._settle(over, now_ms)

    def _recorded_until(self, now_ms: int) -> int:
        """The end of the newest minute on record; now where there is none."""
        start_ms = now_ms - now_ms % decide.MINUTE_MS - decide.AWAY_MAX_MS
        total = Metric(self._own, decide.NAMESPACE, decide.COST)
        found = self._metrics.summaries(total, start_ms, now_ms + decide.MINUTE_MS, decide.MINUTE_MS)
        return max(found) + decide.MINUTE_MS if found else now_ms - now_ms % decide.MINUTE_MS

    # --- what is there ------------------------------------------------------------------------------------------------

    def _see(self, standing: list[Standing], now_ms: int) -> None:
        for endpoint, alive in standing:
            variants = {(f.generation, v.name): v for f in endpoint.fleets for v in f.variants}
            for instance in endpoint.instances:
                variant = variants.get((instance.fleet, instance.variant))
                if variant is not None and instance.ready_ms and instance.instance_id in alive:
                    self._lives.update(self._life(endpoint, variant, instance, now_ms))
            for variant in variants.values():
                self._see_serverless(endpoint, variant, now_ms)

    def _life(
        self, endpoint: Endpoint, variant: Variant, instance: Instance, now_ms: int
    ) -> Iterator[tuple[str, Life]]:
        """An instance of a type that has a price."""
        if variant.serverless is not None:
            return
        price = self._price(variant.spec.instance_type)
        if price is not None:
            payer = Payer(endpoint.key.scope, endpoint.key.name, variant.name)
            yield instance.instance_id, Life(payer, price, instance.ready_ms, now_ms)

    def _see_serverless(self, endpoint: Endpoint, variant: Variant, now_ms: int) -> None:
        if variant.serverless is None:
            return
        payer, price = Payer(endpoint.key.scope, endpoint.key.name, variant.name), self._types.serverless
        self._serverless[payer] = (variant.serverless.memory_mb, now_ms)
        if not variant.serverless.provisioned:
            return
        per_hour = decide.provisioned_per_hour(variant.serverless.provisioned, variant.serverless.memory_mb, price)
        name = f"{endpoint.uid}/{variant.name}/{variant.serverless.provisioned}"  # another number is another life
        known = self._lives.get(name)
        self._lives[name] = Life(payer, per_hour, known.from_ms if known else now_ms, now_ms)

    def _jobs(self, now_ms: int) -> Iterator[Life]:
        """Transform jobs that ran since the cursor."""
        for document in self._store.scan(JOBS):
            job = decode(document.body)
            if not job.started_ms or (job.ended_ms and job.ended_ms <= (self._cursor_ms or 0)):
                continue
            resources = job.request.get("TransformResources", {})
            price = self._price(str(resources.get("InstanceType", "")))
            if price is not None:
                payer = Payer(job.key.scope, job=job.key.name)
                from_ms = max(job.started_ms, self._began_ms - decide.JOB_AWAY_MAX_MS)
                count = int(resources.get("InstanceCount", 1))
                yield Life(payer, price * count, from_ms, job.ended_ms or now_ms)

    def _price(self, instance_type: str) -> float | None:
        try:
            price = self._types.get(instance_type).usd_per_hour
        except UnknownInstanceType:
            price = None
        if price is None and instance_type not in self._unpriced:
            self._unpriced.add(instance_type)
            log.warning("instance type %s has no price: what it costs is not counted", instance_type)
        return price

    # --- what is over -------------------------------------------------------------------------------------------------

    def _settle(self, over: list[decide.Step], now_ms: int) -> None:
        """Record steps, all of them or none: the next look takes up what was not taken."""
        lives = [*self._lives.values(), *self._jobs(now_ms)]
        measured = [one for step in over for one in self._of_step(lives, step)]
        try:
            self._metrics.record(measured)
        except MetricsFull as error:
            log.warning("costs are recorded later: %s", error)
            return
        self._cursor_ms = cursor_ms = over[-1][1]
        self._lives = {name: life for name, life in self._lives.items() if life.until_ms > cursor_ms}
        self._serverless = {payer: seen for payer, seen in self._serverless.items() if seen[1] > cursor_ms}

    def _of_step(self, lives: Iterable[Life], step: decide.Step) -> Iterator[Measured]:
        found = decide.by_the_hour(lives, step)
        served = {payer: self._served(payer, step) for payer in {*found, *self._serverless} if not payer.job}
        for payer, (memory_mb, _) in self._serverless.items():
            usd = decide.by_the_second(served[payer].busy_us, memory_mb, self._types.serverless)
            found[payer] = found.get(payer, 0.0) + usd
        yield from decide.measurements(found, served, step, self._own)

    def _served(self, payer: Payer, step: decide.Step) -> Served:
        """What the gateway measured of a variant in a step."""
        told = {name: self._sum(payer, name, step) for name in ("Invocations", "ModelLatency")}
        return Served(told["Invocations"].total, told["ModelLatency"].total)

    def _sum(self, payer: Payer, name: str, step: decide.Step) -> Summary:
        metric = Metric(payer.scope, _GATEWAYS, name, payer.dimensions[-1])
        return merged(self._metrics.summaries(metric, *step, step[1] - step[0]).values())

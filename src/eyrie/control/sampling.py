"""Looks at what instances and this host use, each second, and records it: `/aws/sagemaker/Endpoints` and `CWAgent`.

A part of control on its own. An instance's values are recorded under its variant's dimensions, so that a variant's
average is over its instances, and once more with InstanceId. Reading happens in a thread; what goes wrong costs one
look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from eyrie.decide.host_metrics import host_metrics
from eyrie.decide.usage import utilisation
from eyrie.domain.fleet import JOB_INSTANCE
from eyrie.domain.metrics import Dimensions, Measured, Metric, Summary
from eyrie.domain.names import Scope
from eyrie.domain.usage import HostUsage, InstanceUsage
from eyrie.ports import Clock, Host, Metrics, MetricsFull, Usages

log = logging.getLogger(__name__)

NAMESPACE = "/aws/sagemaker/Endpoints"
JOBS_NAMESPACE = "/aws/sagemaker/TransformJobs"
HOST_NAMESPACE = "CWAgent"
EVERY_S = 1.0
HOST_EVERY = 10  # looks at instances a look at the host
HELD_UNIT = "None"
LOADED = "LoadedModelCount"


@dataclass(frozen=True, slots=True)
class Watched:
    """An instance between the last two looks."""

    before: InstanceUsage
    after: InstanceUsage


Hears = Callable[[Mapping[str, Watched], int], list[Measured]]  # by instance id, and the time; what it adds


class Sampling:
    """The loop that looks."""

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        usages: Usages,
        host: Host,
        scope: Scope,
        models_of: Callable[[str], int] = lambda socket: 0,
        hears: tuple[Hears, ...] = (),
    ) -> None:
        """`scope` is the host's own account and region; `models_of` counts the models that an instance of a multi-model
        endpoint holds, by its socket; `hears` are those who decide on what is seen.
        """
        self._metrics = metrics
        self._clock = clock
        self._usages = usages
        self._host = host
        self._scope = scope
        self._models_of = models_of
        self._hears = hears
        self._before: dict[str, InstanceUsage] = {}
        self._looks = 0
        self._watched: dict[str, Watched] = {}
        self._hosts: tuple[HostUsage | None, HostUsage | None] = (None, None)

    async def run(self) -> None:
        """Look each second, for ever."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # the loop boundary: the next second looks again
                log.exception("what instances use could not be read")
            await asyncio.sleep(EVERY_S)

    def look(self) -> None:
        """One look at all instances, and at the host where its time has come."""
        now_ms = self._clock.now_ms()
        seen = {usage.instance_id: usage for usage in self._usages.read()}
        watched = {i: Watched(self._before[i], usage) for i, usage in seen.items() if i in self._before}
        self._before, self._watched = seen, watched
        measured = [one for known in watched.values() for one in self._of_instance(known, now_ms)]
        for hear in self._hears:
            measured += hear(watched, now_ms)
        if self._looks % HOST_EVERY == 0:
            measured += self._of_host(now_ms)
        self._looks += 1
        try:
            self._metrics.record(measured)
        except MetricsFull as error:
            log.warning("%d measurements of instances dropped: %s", len(measured), error)

    def used(self) -> dict[str, tuple[InstanceUsage, dict[str, float]]]:
        """What each instance used between the last two looks, by its id."""
        return {i: (known.after, utilisation(known.before, known.after)) for i, known in self._watched.items()}

    def host(self) -> tuple[HostUsage | None, HostUsage | None]:
        """The last two readings of the host, None for one that was not taken yet."""
        return self._hosts

    def _of_instance(self, known: Watched, at_ms: int) -> Iterator[Measured]:
        usage = known.after
        if usage.instance_id.startswith(JOB_INSTANCE):
            yield from _of_job(known, at_ms)
            return
        for name, value in utilisation(known.before, usage).items():
            yield from instance_metric(usage, NAMESPACE, name, value, "Percent", at_ms)
        models = self._models_of(usage.socket)
        if models:
            yield from instance_metric(usage, NAMESPACE, LOADED, float(models), HELD_UNIT, at_ms)

    def _of_host(self, at_ms: int) -> list[Measured]:
        before, after = self._hosts[1], self._host.read()
        self._hosts = (before, after)
        if before is None:
            return []
        return [
            single(Metric(self._scope, HOST_NAMESPACE, m.name, m.dimensions), m.value, m.unit, at_ms)
            for m in host_metrics(before, after)
        ]


def _of_job(known: Watched, at_ms: int) -> Iterator[Measured]:
    """What an instance of a transform job uses."""
    usage = known.after
    host: Dimensions = (("Host", f"{usage.endpoint.name}/{usage.instance_id}"),)
    for name, value in utilisation(known.before, usage).items():
        yield single(Metric(usage.endpoint.scope, JOBS_NAMESPACE, name, host), value, "Percent", at_ms)


def instance_metric(
    usage: InstanceUsage, namespace: str, name: str, value: float, unit: str, at_ms: int
) -> Iterator[Measured]:
    """A value of an instance, under its variant's dimensions and under its own."""
    endpoint, variant = ("EndpointName", usage.endpoint.name), ("VariantName", usage.variant)
    alone: Dimensions = (endpoint, ("InstanceId", usage.instance_id), variant)
    for dimensions in ((endpoint, variant), alone):
        yield single(Metric(usage.endpoint.scope, namespace, name, dimensions), value, unit, at_ms)


def single(metric: Metric, value: float, unit: str, at_ms: int) -> Measured:
    """One value."""
    summary = Summary()
    summary.add(value)
    return Measured(metric, at_ms, summary, unit)

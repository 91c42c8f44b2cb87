"""What the wind tunnel measures each second, and the same as CloudWatch's metrics, for policies and alarms to read.

It keeps the promise of `ports.Metrics` for the metrics of the one simulated variant, under control/metering's names and
units, so that whatever reads metrics in production reads them here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from eyrie.control.metering import NAMESPACE, UNITS
from eyrie.domain.metrics import Measured, Metric, Summary, bucket_of, middle_of
from eyrie.domain.names import EndpointKey, Scope
from eyrie.ports import MetricsFull, Series, Statistic
from eyrie.sim.queue import Shape, count_in

KEPT_S = 3 * 3600
ONES_KEPT = 64
_US = 1000.0  # microseconds in a millisecond: the unit of CloudWatch's latencies


@dataclass(frozen=True, slots=True)
class Second:
    """One second of the simulated variant."""

    at_ms: int
    arrived: float
    answered: float
    failed: float
    instances: int  # in the table, and answering
    routed: int  # in the table
    slots: int  # of the answering ones
    busy: float  # slots at work on average
    in_flight: float  # requests at work or waiting, on average
    shape: Shape


class Meter:
    """The newest seconds, oldest first."""

    def __init__(self, key: EndpointKey, variant: str) -> None:
        self._key = key
        self._dimensions = (("EndpointName", key.name), ("VariantName", variant))
        self._seconds: deque[Second] = deque(maxlen=KEPT_S)
        self._known: dict[tuple[str, int], Summary] = {}
        self.blind_until_ms = 0  # no measurement arrives until then

    def take(self, second: Second) -> None:
        """Measure one second; while blind it is lost."""
        if second.at_ms >= self.blind_until_ms:
            self._seconds.append(second)

    def sees(self, now_ms: int) -> bool:
        """Whether measurements arrive."""
        return now_ms > self.blind_until_ms

    def blind(self, until_ms: int) -> None:
        """No metric arrives until then: the way of the measurements is broken, not the service."""
        self.blind_until_ms = until_ms

    def last(self, seconds: int, now_ms: int) -> list[Second]:
        """The seconds that began in the last so many, oldest first; those that were not measured are missing."""
        found: list[Second] = []
        for second in reversed(self._seconds):
            if second.at_ms < now_ms - 1000 * seconds:
                break
            found.append(second)
        return found[::-1]

    # ports.Metrics
    def record(self, measured: Sequence[Measured]) -> None:
        """Nothing is recorded from outside."""
        raise MetricsFull(f"a simulated variant measures itself; {len(measured)} measurements were refused")

    def keep(self) -> None:
        """A simulated world has no crash that its measurements would have to outlive."""

    def series(self, scope: Scope, namespace: str | None = None, name: str | None = None) -> list[Series]:
        """The simulated variant's series."""
        if scope != self._key.scope or namespace not in (None, NAMESPACE):
            return []
        latest = self._seconds[-1].at_ms if self._seconds else 0
        names = [n for n in sorted(_OF_SECONDS) if name in (None, n)]
        return [Series(self._metric(n), UNITS.get(n, "None"), latest) for n in names]

    def summaries(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int) -> dict[int, Summary]:
        """As the port says; any namespace but EndpointName and VariantName must be the variant's."""
        of = _OF_SECONDS.get(metric.name)
        if of is None or metric.scope != self._key.scope or dict(metric.dimensions) != dict(self._dimensions):
            return {}
        if period_ms == 1000:
            return self._singly(metric.name, of, start_ms, end_ms)
        periods: dict[int, list[Second]] = {}
        for second in reversed(self._seconds):
            if second.at_ms < start_ms:
                break
            if second.at_ms < end_ms:
                periods.setdefault(second.at_ms - (second.at_ms - start_ms) % period_ms, []).append(second)
        found = {at_ms: of(seconds) for at_ms, seconds in sorted(periods.items())}
        return {at_ms: summary for at_ms, summary in found.items() if summary.count}

    def statistics(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int, of: Statistic) -> dict[int, float]:
        """As the port says, of the same series."""
        found = self.summaries(metric, start_ms, end_ms, period_ms)
        return {at_ms: told for at_ms, summary in found.items() if (told := of(summary)) is not None}

    def _singly(
        self, name: str, of: Callable[[Sequence[Second]], Summary], start_ms: int, end_ms: int
    ) -> dict[int, Summary]:
        """The same, second by second; the newest are asked for again and again."""
        known = self._known
        if len(known) > ONES_KEPT:
            known.clear()
        found: dict[int, Summary] = {}
        for second in reversed(self._seconds):
            at_ms = second.at_ms
            if at_ms < start_ms:
                break
            if at_ms < end_ms:
                summary = known.get((name, at_ms))
                if summary is None:
                    summary = known[name, at_ms] = of((second,))
                if summary.count:
                    found[at_ms] = summary
        return found

    def _metric(self, name: str) -> Metric:
        return Metric(self._key.scope, NAMESPACE, name, self._dimensions)


def mean(values: Iterable[float]) -> float | None:
    """Their mean; None of none."""
    kept = list(values)
    return sum(kept) / len(kept) if kept else None


def _invocations(seconds: Sequence[Second]) -> Summary:
    return _weighted((1.0, s.answered + s.failed) for s in seconds)


def _per_instance(seconds: Sequence[Second]) -> Summary:
    return _weighted((1.0 / max(1, s.routed), s.answered + s.failed) for s in seconds)


def _errors(seconds: Sequence[Second]) -> Summary:
    return _weighted(pair for s in seconds for pair in ((1.0, s.failed), (0.0, s.answered)))


def _none_of_them(seconds: Sequence[Second]) -> Summary:
    return _weighted((0.0, s.answered + s.failed) for s in seconds)


def _latency(seconds: Sequence[Second]) -> Summary:
    summary = Summary()
    for s in seconds:
        count_in(summary, _in_microseconds(s.shape), s.answered)
    return summary


def _concurrency(seconds: Sequence[Second]) -> Summary:
    return _weighted((s.in_flight / max(1, s.routed), 1.0) for s in seconds)


def _cpu(seconds: Sequence[Second]) -> Summary:
    """A slot at work is a core at work: 100 for each core, as SageMaker counts."""
    return _weighted((100.0 * s.busy / max(1, s.instances), 1.0) for s in seconds if s.instances)


_OF_SECONDS: Mapping[str, Callable[[Sequence[Second]], Summary]] = {
    "Invocations": _invocations,
    "InvocationsPerInstance": _per_instance,
    "Invocation5XXErrors": _errors,
    "Invocation4XXErrors": _none_of_them,
    "ModelLatency": _latency,
    "ConcurrentRequestsPerModel": _concurrency,
    "CPUUtilization": _cpu,
}


def _weighted(values: Iterable[tuple[float, float]]) -> Summary:
    summary = Summary()
    for value, times in values:
        if times > 0:
            summary.add(value, times)
    return summary


@lru_cache(maxsize=4096)
def _in_microseconds(shape: Shape) -> Shape:
    return tuple((bucket_of(middle_of(bucket) * _US), share) for bucket, share in shape)

"""How long requests take at a number of slots: one second of a queue as a fluid, with chance on top.

What waits from second to second is counted (arrivals less what the slots can do, so a crowd's queue grows and drains as
it must). Within a second the wait of an M/G/c queue is added: Erlang's probability of waiting, an exponential tail
whose scale is Allen and Cunneen's. tests/sim holds it against a simulation of every request. What leaves it is how the
latencies spread over the buckets of domain/metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

from eyrie.domain.metrics import Summary, bucket_of, middle_of
from eyrie.sim.profile import InstanceProfile

BUSY_MAX = 0.98  # above, the queue that is counted tells the wait
SHAPES_MAX = 20_000
_SERVICE_RANKS = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.925, 0.965, 0.985, 0.9945, 0.9985)
_SERVICE_SHARES = (0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.03, 0.01, 0.009, 0.001)
_WAIT_RANKS = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 0.985, 0.998)
_WAIT_SHARES = (0.2, 0.2, 0.2, 0.2, 0.1, 0.07, 0.028, 0.002)


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one second's requests."""

    answered: float
    failed: float  # refused at a full queue, or nobody there, or waited too long
    backlog: float  # still waiting at its end
    busy: float  # slots at work on average
    in_flight: float  # at work or waiting, on average
    shape: Shape


Shape = tuple[tuple[int, float], ...]  # latency buckets of domain/metrics, milliseconds, and the share of each


@dataclass(slots=True)
class Queue:
    """One variant's queue, second after second."""

    profile: InstanceProfile
    backlog: float = 0.0
    _shapes: dict[tuple[int, int], Shape] = field(default_factory=dict)
    _service: Shape = ()

    def second(self, arrived: float, expected: float, instances: float) -> Served:
        """One second: `arrived` requests where `expected` were likely, on so many instances that answer."""
        profile = self.profile
        if instances <= 0:
            return self._nobody(arrived)
        slots = instances * profile.slots
        rate = instances * profile.rate
        work = self.backlog + arrived
        done = min(work, rate)
        waiting = work - done
        room = min(profile.queue_max * instances, profile.timeout_s * rate)
        failed = max(0.0, waiting - room)
        waiting -= failed
        first, last = self.backlog / rate, waiting / rate
        self.backlog = waiting
        busy = slots * done / rate
        share = min(expected / rate, BUSY_MAX)
        shape = self._shape(slots, share) if max(first, last) * 1000 < 0.5 else self._late(slots, share, first, last)
        queued = (first + last) / 2 * rate
        return Served(done, failed, waiting, busy, busy + queued, shape)

    def _nobody(self, arrived: float) -> Served:
        """Without any instance the gateway answers 503 at once."""
        failed = arrived + self.backlog
        self.backlog = 0.0
        return Served(0.0, failed, 0.0, 0.0, 0.0, ())

    def _shape(self, slots: float, share: float) -> Shape:
        key = (max(1, round(slots)), round(share * 100))
        known = self._shapes.get(key)
        if known is None:
            known = collapsed(_latencies(self.profile, key[0], key[1] / 100))
            if len(self._shapes) < SHAPES_MAX:
                self._shapes[key] = known
        return known

    def _late(self, slots: float, share: float, first_s: float, last_s: float) -> Shape:
        """The shape of a second whose requests wait in a queue besides: from `first_s` to `last_s`, evenly."""
        saturated = last_s > 0 and first_s > 0
        plain = self._plain() if saturated else self._shape(slots, share)
        delays = [(first_s + (last_s - first_s) * part) * 1000 for part in (0.1, 0.3, 0.5, 0.7, 0.9)]
        return collapsed((middle_of(b) + delay, times / 5) for delay in delays for b, times in plain)

    def _plain(self) -> Shape:
        if not self._service:
            self._service = collapsed(_service(self.profile))
        return self._service


def over(shape: Shape, limit_ms: float) -> float:
    """The share of a second's answered requests that took longer than the limit."""
    bucket = bucket_of(limit_ms)
    return sum(times for b, times in shape if b > bucket)


def count_in(summary: Summary, shape: Shape, requests: float) -> None:
    """Count a second's requests into a summary of latencies, milliseconds."""
    if requests <= 0 or not shape:
        return
    buckets = summary.buckets
    if buckets:
        for bucket, share in shape:
            buckets[bucket] = buckets.get(bucket, 0.0) + share * requests
    else:
        summary.buckets = {bucket: share * requests for bucket, share in shape}
    summary.count += requests
    summary.total += mean_of(shape) * requests
    summary.lowest = min(summary.lowest, middle_of(shape[0][0]))
    summary.highest = max(summary.highest, middle_of(shape[-1][0]))


@lru_cache(maxsize=65_536)
def mean_of(shape: Shape) -> float:
    """The mean of a second's latencies."""
    return sum(middle_of(bucket) * share for bucket, share in shape)


def waits(slots: int, share: float) -> float:
    """Erlang's C: the probability that a request finds all slots busy, of which `share` are on average."""
    load = slots * share
    blocked = 1.0
    for n in range(1, slots + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked / (1 - share * (1 - blocked)) if share < 1 else 1.0


def collapsed(parts: Iterator[tuple[float, float]] | list[tuple[float, float]]) -> Shape:
    """Latencies and their shares, by bucket, lowest first."""
    found: dict[int, float] = {}
    for value, share in parts:
        bucket = bucket_of(value)
        found[bucket] = found.get(bucket, 0.0) + share
    return tuple(sorted(found.items()))


def _service(profile: InstanceProfile) -> Iterator[tuple[float, float]]:
    sigma = math.sqrt(math.log1p(profile.service_spread**2))
    middle = math.log(profile.service_ms) - sigma * sigma / 2
    for rank, share in zip(_SERVICE_RANKS, _SERVICE_SHARES, strict=True):
        yield math.exp(middle + sigma * NormalDist().inv_cdf(rank)) + profile.overhead_ms, share


def _latencies(profile: InstanceProfile, slots: int, share: float) -> Iterator[tuple[float, float]]:
    """Service and wait together, of a queue in balance."""
    waiting = waits(slots, share) if share > 0 else 0.0
    scale_ms = profile.service_ms * (1 + profile.service_spread**2) / (2 * slots * (1 - min(share, BUSY_MAX)))
    for service, part in _service(profile):
        yield service, part * (1 - waiting)
        for rank, piece in zip(_WAIT_RANKS, _WAIT_SHARES, strict=True):
            yield service - scale_ms * math.log(1 - rank), part * waiting * piece

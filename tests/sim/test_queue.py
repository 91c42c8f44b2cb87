"""The fluid against a simulation of every single request, and its books."""

from __future__ import annotations

import heapq
import random

import pytest

from eyrie.decide.statistics import statistic
from eyrie.domain.metrics import Summary
from eyrie.sim.profile import InstanceProfile, lognormal
from eyrie.sim.queue import Queue, count_in, over
from eyrie.sim.traffic import drawn


def every_request(rate: float, profile: InstanceProfile, instances: int, seconds: int) -> list[float]:
    """Latencies of one queue before all slots, request by request, sorted."""
    chance, at_s, found = random.Random(1), 0.0, []
    free = [0.0] * (instances * profile.slots)
    while at_s < seconds:
        at_s += chance.expovariate(rate)
        ends = max(at_s, free[0]) + lognormal(chance, profile.service_ms, profile.service_spread) / 1000
        heapq.heapreplace(free, ends)
        found.append((ends - at_s) * 1000 + profile.overhead_ms)
    return sorted(found)


def fluid(rate: float, profile: InstanceProfile, instances: int, seconds: int) -> Summary:
    chance, queue, summary = random.Random(2), Queue(profile), Summary()
    for _ in range(seconds):
        served = queue.second(drawn(chance, rate), rate, instances)
        count_in(summary, served.shape, served.answered)
    return summary


@pytest.mark.parametrize(("instances", "share"), [(1, 0.4), (1, 0.8), (4, 0.6), (4, 0.85), (12, 0.9)])
def test_latencies_are_those_of_single_requests(instances: int, share: float) -> None:
    profile = InstanceProfile(service_ms=60, slots=2, service_spread=0.6)
    rate = share * instances * profile.rate
    true, told = every_request(rate, profile, instances, 150), fluid(rate, profile, instances, 150)
    for percent in (50, 90, 99):
        exact = true[int(len(true) * percent / 100)]
        assert statistic(f"p{percent}")(told) == pytest.approx(exact, rel=0.25), f"p{percent}"


def test_nothing_is_lost_or_made() -> None:
    queue, chance = Queue(InstanceProfile(queue_max=50)), random.Random(3)
    arrived = answered = failed = 0.0
    for second in range(300):
        rate, instances = chance.choice([0, 30, 200]), second // 20 % 4
        requests = drawn(chance, rate)
        served = queue.second(requests, rate, instances)
        arrived, answered, failed = arrived + requests, answered + served.answered, failed + served.failed
        assert served.backlog <= 50 * instances
        assert 0 <= served.busy <= instances * 2 + 1e-9
        assert not served.shape or sum(s for _, s in served.shape) == pytest.approx(1)
    assert arrived == pytest.approx(answered + failed + queue.backlog)


def test_a_crowd_waits_as_long_as_its_queue() -> None:
    queue = Queue(InstanceProfile(service_ms=50, slots=2, queue_max=10_000))
    for _ in range(10):
        served = queue.second(140, 140, 1)  # 40 a second are done
    assert served.backlog == pytest.approx(1000)
    assert over(served.shape, 20_000) > 0.9  # 900 to 1000 before each
    assert over(served.shape, 30_000) == 0


def test_without_instances_all_fail_at_once() -> None:
    served = Queue(InstanceProfile()).second(25, 25, 0)
    assert (served.answered, served.failed, served.shape) == (0, 25, ())

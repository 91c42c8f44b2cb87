"""What control makes of the gateways' words about serverless endpoints, and the metrics that come of it."""

from __future__ import annotations

from test_scaler import MemoryMetrics
from toyworld import KEY, ToyClock, fresh, wish

from eyrie.control.serverless_meter import ServerlessMeter, of_use
from eyrie.control.use_book import Told, UseBook
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.serverless import Serverless, Use


def book() -> tuple[UseBook, ToyClock]:
    clock = ToyClock()
    made = UseBook(clock)
    made.joined(1)
    made.joined(2)
    clock.ms += 1_000
    return made, clock


def test_an_endpoint_has_what_all_workers_have() -> None:
    made, clock = book()
    assert made.hear(1, {KEY: Told(3, 3)}) == {KEY}
    assert made.hear(2, {KEY: Told(2, 4)}) == {KEY}
    assert made.hear(2, {KEY: Told(1, 2)}) == set()
    assert made.use(KEY) == Use(4, clock.ms - 1_000, ((7, clock.ms), (5, clock.ms)))


def test_a_short_request_between_two_words_leaves_its_mark() -> None:
    made, clock = book()
    assert made.hear(1, {KEY: Told(0, 1)}) == set()
    assert made.use(KEY) == Use(0, clock.ms - 1_000, ((1, clock.ms),))


def test_what_a_worker_had_is_not_known_once_it_is_gone() -> None:
    made, clock = book()
    made.hear(1, {KEY: Told(3, 3)})
    clock.ms += 5_000
    made.left(1)
    assert made.use(KEY) == Use(0, clock.ms, ((3, clock.ms - 5_000),))
    made.left(2)
    assert made.use(KEY) is None  # nobody tells anything


def test_the_counts_of_a_second_are_taken_once() -> None:
    made, _ = book()
    made.hear(1, {KEY: Told(2, 5, ready=4, beyond=1)})
    assert made.counts(KEY) == Told(2, 5, 4, 1)
    assert made.counts(KEY) == Told(2, 2, 0, 0)
    made.forget(KEY)
    assert made.counts(KEY) == Told(2, 2)


def test_metrics_of_a_second() -> None:
    told = Told(0, 30, ready=100, beyond=20)
    found = {name: (value, unit, times) for name, value, unit, times in of_use(Serverless(1024, 120, 10), told)}
    assert found == {
        "ServerlessConcurrentExecutionsUtilization": (0.25, "None", 1),
        "ServerlessProvisionedConcurrencyExecutions": (10.0, "Count", 1),
        "ServerlessProvisionedConcurrencyUtilization": (1.0, "None", 1),
        "ServerlessProvisionedConcurrencyInvocations": (1.0, "None", 100),
        "ServerlessProvisionedConcurrencySpilloverInvocations": (1.0, "None", 20),
    }
    assert list(of_use(Serverless(1024, 120), Told(0, 0))) == []
    idle = {name: value for name, value, _, _ in of_use(Serverless(1024, 120, 10), Told(0, 0))}
    assert idle == {
        "ServerlessProvisionedConcurrencyExecutions": 0.0,
        "ServerlessProvisionedConcurrencyUtilization": 0.0,
    }


def test_each_start_is_measured_once_in_real_time() -> None:
    rig, metrics = fresh(), MemoryMetrics()
    rig.endpoints.create(KEY, wish(("A", 2), may_be_empty=True, serverless=Serverless(1024, 20)))
    endpoints = {KEY: rig.endpoint()}
    meter = ServerlessMeter(metrics, rig.clock, endpoints, UseBook(rig.clock), scale=2.0)
    rig.run_until(lambda: rig.endpoint().status is EndpointStatus.IN_SERVICE)
    endpoints[KEY] = rig.endpoint()
    meter.look()
    meter.look()
    ((metric, seconds),) = metrics.found.items()
    assert (metric.name, dict(metric.dimensions)) == ("ModelSetupTime", {"EndpointName": "birds", "VariantName": "A"})
    (summary,) = seconds.values()
    took_ms = [i.ready_ms - i.requested_ms for i in rig.endpoint().instances]
    assert (summary.count, summary.total) == (2, sum(took_ms) * 1000 / 2.0)


def test_starts_from_before_control_began_are_not_told_again() -> None:
    rig, metrics = fresh(), MemoryMetrics()
    rig.endpoints.create(KEY, wish(("A", 1), may_be_empty=True, serverless=Serverless(1024, 20)))
    rig.run_until(lambda: rig.endpoint().status is EndpointStatus.IN_SERVICE)
    ServerlessMeter(metrics, rig.clock, {KEY: rig.endpoint()}, UseBook(rig.clock), scale=1.0).look()
    assert metrics.found == {}

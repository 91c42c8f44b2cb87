"""Workers' rollups become SageMaker's metrics, each with its unit and dimensions."""

from __future__ import annotations

from typing import Any

import pytest

from eyrie.control.metering import Metering, measurements
from eyrie.domain.metrics import Measured, Summary
from eyrie.domain.names import EndpointKey
from eyrie.gateway.meter import Meter
from eyrie.ports import MetricsFull

KEY = EndpointKey("123456789012", "us-east-1", "churn")
ONE, TWO = ("EndpointName", "churn"), ("VariantName", "v")


def told(*answers: Any) -> dict[str, Any]:
    """A worker's second: instance, status, microseconds of model and gateway, how many at once, and the status that the
    container answered.
    """
    meter = Meter()
    for instance, *rest in answers:
        meter.rollup(KEY.slug, "v", instance).add(*rest)
    found = meter.take(1_700_000_000)
    assert found is not None
    return found


def by_dimensions(measured: list[Measured]) -> dict[tuple[tuple[str, str], ...], dict[str, Summary]]:
    found: dict[tuple[tuple[str, str], ...], dict[str, Summary]] = {}
    for one in measured:
        found.setdefault(one.metric.dimensions, {})[one.metric.name] = one.summary
    return found


def test_a_second_of_two_instances() -> None:
    both = ("i-1", 200, 100, 10, 1), ("i-1", 424, 300, 20, 2, 400)
    second = told(*both, ("i-2", 200, 900, 30, 4), ("", 503, 0, 40, 0))
    measured = list(measurements(KEY, second["endpoints"][KEY.slug], 5_000, lambda key, variant: 2))
    assert {m.at_ms for m in measured} == {5_000}
    assert {m.unit for m in measured if m.metric.name.endswith("Latency")} == {"Microseconds"}
    found = by_dimensions(measured)
    assert set(found) == {(ONE,), (ONE, TWO), (ONE, ("InstanceId", "i-1"), TWO), (ONE, ("InstanceId", "i-2"), TWO)}
    variant = found[ONE, TWO]
    assert (variant["Invocations"].count, variant["Invocations"].total) == (4, 4)
    assert (variant["InvocationsPerInstance"].count, variant["InvocationsPerInstance"].total) == (4, 2)
    assert (variant["Invocation4XXErrors"].count, variant["Invocation4XXErrors"].total) == (4, 1)
    assert (variant["Invocation5XXErrors"].count, variant["Invocation5XXErrors"].total) == (4, 1)
    assert variant["InvocationModelErrors"].total == 1
    latency = variant["ModelLatency"]
    assert (latency.count, latency.total) == (3, 1300)
    assert latency.lowest == pytest.approx(100, rel=0.01)
    assert latency.highest == pytest.approx(900, rel=0.01)
    assert (variant["OverheadLatency"].count, variant["OverheadLatency"].total) == (4, 100)
    assert variant["Invocations"].spread_known
    assert variant["Invocation4XXErrors"].spread_known
    assert found[(ONE,)]["Invocations"].total == 4
    alone = found[ONE, ("InstanceId", "i-1"), TWO]
    assert (alone["Invocations"].total, alone["ModelLatency"].total) == (2, 400)
    assert "InvocationsPerInstance" not in alone


def test_requests_at_once_are_summed_over_the_workers_of_a_second() -> None:
    kept, times = Kept(), [0.0]
    metering = Metering(kept, Clock(), lambda key, variant: 2, lambda: times[0])
    for instance, peak in (("i-1", 3), ("i-1", 2), ("i-2", 1)):  # two workers tell of i-1
        metering.take(told((instance, 200, 100, 10, peak)))
    assert not [m for m in kept.measured if m.metric.name == "ConcurrentRequestsPerModel"]
    times[0] = 2.0
    metering.flush()
    found = by_dimensions([m for m in kept.measured if m.metric.name == "ConcurrentRequestsPerModel"])
    summary = found[ONE, TWO]["ConcurrentRequestsPerModel"]
    assert (summary.count, summary.total, summary.lowest, summary.highest) == (2, 6, 1, 5)
    assert found[ONE, ("InstanceId", "i-1"), TWO]["ConcurrentRequestsPerModel"].total == 5
    metering.flush()
    assert len(found) == 4


def test_a_request_that_goes_on_counts_as_one_at_once_and_as_no_invocation() -> None:
    meter = Meter()
    meter.rollup(KEY.slug, "v", "i-1").at_once(7)
    second = meter.take(1_700_000_000)
    assert second is not None
    assert list(measurements(KEY, second["endpoints"][KEY.slug], 5_000, lambda key, variant: 1)) == []
    assert second["endpoints"][KEY.slug]["v"]["i-1"]["peak"] == 7


def test_what_a_multi_model_endpoint_did_with_its_models() -> None:
    meter = Meter()
    rollup = meter.rollup(KEY.slug, "v", "i-1")
    rollup.add(200, 100, 10, 1)
    models = rollup.of_models()
    models.add_request(True, 0)
    models.add_request(True, 0)
    models.add_request(False, 5_000)
    models.add_load({"models": 3, "load_us": 1_000, "download_us": 20_000, "unload_us": [50, 70]})
    second = meter.take(1_700_000_000)
    assert second is not None
    found = by_dimensions(list(measurements(KEY, second["endpoints"][KEY.slug], 0, lambda key, variant: 1)))[ONE, TWO]
    assert (found["ModelCacheHit"].count, found["ModelCacheHit"].total) == (3, 2)
    for name, count, total in (
        ("ModelLoadingWaitTime", 1, 5_000),
        ("ModelLoadingTime", 1, 1_000),
        ("ModelDownloadingTime", 1, 20_000),
        ("ModelUnloadingTime", 2, 120),
    ):
        assert found[name].count == count
        assert found[name].total == pytest.approx(total, rel=0.01)


def test_streams_are_measured_by_their_first_pieces() -> None:
    meter = Meter()
    rollup = meter.rollup(KEY.slug, "v", "i-1")
    for took_us, broken in ((1_000, False), (3_000, True)):
        rollup.add(200, took_us, 10, 1)
        rollup.of_streams().add(took_us, 500, broken)
    second = meter.take(1_700_000_000)
    assert second is not None
    found = by_dimensions(list(measurements(KEY, second["endpoints"][KEY.slug], 0, lambda key, variant: 1)))[ONE, TWO]
    assert (found["MidStreamErrors"].count, found["MidStreamErrors"].total) == (2, 1)
    for name, total in (
        ("FirstChunkLatency", 5_000),
        ("FirstChunkModelLatency", 4_000),
        ("FirstChunkOverheadLatency", 1_000),
    ):
        assert found[name].count == 2
        assert found[name].total == pytest.approx(total, rel=0.01)


class Kept:
    """A Metrics port that remembers, or has no room."""

    def __init__(self, full: bool = False) -> None:
        self.measured: list[Measured] = []
        self.full = full

    def record(self, measured: list[Measured]) -> None:
        if self.full:
            raise MetricsFull("no room")
        self.measured += measured

    def keep(self) -> None: ...

    def series(self, *_: object) -> list[Any]:
        return []

    def summaries(self, *_: object) -> dict[int, Summary]:
        return {}


class Clock:
    def now_ms(self) -> int:
        return 7_000


def test_what_a_worker_tells_is_recorded_and_no_room_costs_nobody_anything() -> None:
    kept = Kept()
    metering = Metering(kept, Clock(), lambda key, variant: 0)
    metering.take(told(("i-1", 200, 100, 10, 1)))
    assert {m.metric.scope.account for m in kept.measured} == {KEY.account}
    per_instance = [m for m in kept.measured if m.metric.name == "InvocationsPerInstance"]
    assert per_instance[0].summary.total == 1  # an instance that has just left the table counts as one
    Metering(Kept(full=True), Clock(), lambda key, variant: 1).take(told(("i-1", 200, 100, 10, 1)))


NONE = [{"endpoints": 3}, {"endpoints": {"x": {}}}, {"endpoints": {KEY.slug: {"v": {"i": {}}}}}]


@pytest.mark.parametrize("line", NONE)
def test_what_is_no_rollup_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Metering(Kept(), Clock(), lambda key, variant: 1).take(line)


def test_a_models_error_counts_as_what_its_container_answered() -> None:
    failed = [("i-1", 424, 1, 1, 1, origin) for origin in (500, 415, 0)]
    second = told(*failed, ("i-1", 400, 0, 1, 1))
    found = by_dimensions(list(measurements(KEY, second["endpoints"][KEY.slug], 0, lambda key, variant: 1)))[ONE, TWO]
    assert [found[f"Invocation{kind}"].total for kind in ("5XXErrors", "4XXErrors", "ModelErrors")] == [2, 2, 3]


def test_during_an_update_each_config_is_told_apart() -> None:
    second = told(("i-1", 200, 100, 10, 1), ("i-2", 424, 300, 20, 1, 500), ("", 503, 0, 1, 0))
    config = {"i-1": "old", "i-2": "new"}
    measured = measurements(
        KEY, second["endpoints"][KEY.slug], 0, lambda key, variant: 2, lambda key, instance: config[instance]
    )
    found = by_dimensions(list(measured))
    blue, green = found[("EndpointConfigName", "old"), ONE, TWO], found[("EndpointConfigName", "new"), ONE, TWO]
    assert (blue["Invocation5XXErrors"].total, green["Invocation5XXErrors"].total) == (0, 1)
    assert found[ONE, TWO]["Invocations"].total == 3

"""The evidence of a canary's analysis: counted by gateway workers, kept as metrics, added up for the verdict; and the
tag that asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from toyworld import KEY, ToyClock, serving, wish

from eyrie.control import evidence
from eyrie.control.canary_tags import analysis_policy
from eyrie.control.evidence import EvidenceBook
from eyrie.control.metering import Metering
from eyrie.decide.endpoint import Update
from eyrie.decide.predictions import cell_of
from eyrie.domain.analysis import CELLS, AnalysisPolicy
from eyrie.domain.deployment import CapacitySize, DeploymentPhase, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.metrics import Measured, Metric, Summary, bucket_of, merged
from eyrie.gateway.meter import Meter
from eyrie.gateway.predictions import BODY_BYTES_MAX, READ_MAX, Predictions
from eyrie.wire.errors import ApiError

SLUG = KEY.slug


class MemoryMetrics:
    """The Metrics port, in memory."""

    def __init__(self) -> None:
        self.kept: list[Measured] = []
        self.asked: list[tuple[int, int]] = []

    def record(self, measured: Any) -> None:
        self.kept.extend(measured)

    def keep(self) -> None: ...

    def series(self, scope: Any, namespace: str | None = None, name: str | None = None) -> list[Any]:
        return []

    def summaries(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int) -> dict[int, Summary]:
        self.asked.append((start_ms, end_ms))
        found = [m.summary for m in self.kept if m.metric == metric and start_ms <= m.at_ms < end_ms]
        return {start_ms: merged(found)} if found else {}


@dataclass
class Reply:
    """As much of an Exchange as a PredictionTap looks at."""

    instance: Any
    reply_body: bytes | None
    status: int = 200
    reply_type: str = "text/csv"


def baking() -> tuple[Endpoint, int]:
    """An endpoint whose canary bakes, and when that began."""
    rig = serving(("A", 2))
    size = CapacitySize(SizeKind.CAPACITY_PERCENT, 50)
    policy = TrafficPolicy(Strategy.CANARY, size, bake_ms=600_000, analysis=AnalysisPolicy(warm_up_ms=5_000))
    rig.endpoints.update(KEY, Update(wish(("A", 2), config="config-2"), policy=policy))
    rig.run_until(lambda: rig.endpoint().pending_phase is DeploymentPhase.BAKING)
    deployment = rig.endpoint().deployment
    assert deployment is not None
    return rig.endpoint(), deployment.phase_ms


def an_instance(meter: Meter, instance_id: str = "i-1") -> Any:
    rollup = meter.rollup(SLUG, "A", instance_id)
    return SimpleNamespace(
        rollup=rollup, instance_id=instance_id, endpoint=SimpleNamespace(slug=SLUG), variant=SimpleNamespace(name="A")
    )


def read_all(predictions: Predictions) -> None:
    """As many turns as a slow machine may need: each is a slice of time."""
    for _ in range(200):
        predictions.turn()


def tapped(percent: float = 100.0) -> tuple[Meter, Predictions, Any, Any]:
    meter = Meter()
    predictions = Predictions(meter)
    tap = predictions.tap(SimpleNamespace(), SimpleNamespace(analysis=SimpleNamespace(sampling=percent)))  # type: ignore[arg-type]
    return meter, predictions, tap, an_instance(meter)


# --- counting, in a gateway worker ---


def test_labels_and_numbers_and_what_cannot_be_read_are_counted_apart() -> None:
    meter, predictions, tap, instance = tapped()
    for body in (b"setosa\n", b"setosa\n", b"0.5\n", b'"open', None, b"x" * (BODY_BYTES_MAX + 1)):
        tap.answered(Reply(instance, body))
    read_all(predictions)
    told = meter.take(1)
    assert told is not None
    found = told["endpoints"][SLUG]["A"]["i-1"]["predictions"]
    cell = cell_of("setosa", CELLS)
    assert found == {"labels": {cell: 2}, "names": {cell: "setosa"}, "numbers": {bucket_of(0.5): 1}, "unread": 3}


def test_errors_are_no_predictions_and_a_second_is_bounded() -> None:
    meter, predictions, tap, instance = tapped()
    tap.answered(Reply(instance, b"1\n", status=424))
    for _ in range(READ_MAX + 50):
        tap.answered(Reply(instance, b"1\n"))
    read_all(predictions)
    found = instance.rollup.predictions.as_json()
    assert sum(found["numbers"].values()) == READ_MAX
    assert meter.counters == {}


def test_sampling_takes_so_many_percent_evenly() -> None:
    _, predictions, tap, instance = tapped(percent=25.0)
    for _ in range(40):
        tap.answered(Reply(instance, b"1\n"))
    read_all(predictions)
    assert sum(instance.rollup.predictions.numbers.values()) == 10


def test_rows_of_one_reply_count_one_at_a_time() -> None:
    _, predictions, tap, instance = tapped()
    for _ in range(4):
        tap.answered(Reply(instance, b"a\nb\n"))
    read_all(predictions)
    assert sorted(instance.rollup.predictions.labels.values()) == [2, 2]


def test_what_waits_is_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyrie.gateway.predictions.WAITING_BYTES_MAX", 10)
    meter, _, tap, instance = tapped()
    for _ in range(3):
        tap.answered(Reply(instance, b"12345\n"))
    assert meter.counters == {"predictions_dropped": 2}


def test_a_variant_that_is_not_analysed_has_no_tap() -> None:
    assert Predictions(Meter()).tap(SimpleNamespace(), SimpleNamespace(analysis=None)) is None  # type: ignore[arg-type]


# --- from the rollup to the evidence ---


def rollup(n: int, e5: int = 0, label: str = "yes") -> dict[str, Any]:
    cell = cell_of(label, CELLS)
    predictions = {
        "labels": {str(cell): n},
        "names": {str(cell): label},
        "numbers": {str(bucket_of(-2.0)): 3},
        "unread": 1,
    }
    spread = {str(bucket_of(1000)): n}
    return {
        "n": n, "e4": 0, "e5": e5, "em": e5, "peak": 1, "model": spread, "model_us": 1000 * n,
        "overhead": spread, "overhead_us": n, "predictions": predictions,
    }  # fmt: skip


def told(book: EvidenceBook, metering: Metering, second: int, blue: int, green: int, e5: int = 0) -> None:
    instances = {"blue": rollup(blue), "green": rollup(green, e5, "no")}
    line = {"at_s": second, "endpoints": {SLUG: {"A": instances}}, "counters": {}}
    metering.take(line)
    book.hear(line)


def test_both_fleets_are_told_apart_and_only_the_present_step_counts() -> None:
    endpoint, began_ms = baking()
    clock, metrics = ToyClock(), MemoryMetrics()
    book = EvidenceBook(metrics)  # type: ignore[arg-type]
    configs = {"blue": "config-1", "green": "config-2"}
    metering = Metering(metrics, clock, lambda key, variant: 2, config_of=lambda key, i: configs[i])  # type: ignore[arg-type]
    for at_ms, blue in ((began_ms + 1_000, 1_000), (began_ms + 7_000, 10), (began_ms + 8_000, 20)):
        clock.ms = at_ms
        told(book, metering, at_ms // 1000, blue, 5, e5=2)
    found = book.of(endpoint, began_ms + 10_000)
    assert found is not None
    assert (found.blue.requests, found.green.requests) == (30, 10)  # the first second was within the warm-up
    assert (found.blue.errors, found.green.errors) == (0, 4)
    assert found.green.latency.count == 10
    assert found.blue.labels == {cell_of("yes", CELLS): 30}
    assert found.green.labels == {cell_of("no", CELLS): 10}
    assert found.green.numbers == {bucket_of(-2.0): 6}
    assert found.green.unread == 2
    assert set(found.names.values()) == {"yes", "no"}


def test_a_second_is_added_up_once_and_a_new_control_finds_the_same() -> None:
    endpoint, began_ms = baking()
    clock, metrics = ToyClock(), MemoryMetrics()
    configs = {"blue": "config-1", "green": "config-2"}
    metering = Metering(metrics, clock, lambda key, variant: 2, config_of=lambda key, i: configs[i])  # type: ignore[arg-type]
    book = EvidenceBook(metrics)  # type: ignore[arg-type]
    for second in range(6, 60):
        clock.ms = began_ms + 1_000 * second
        told(book, metering, second, 10, 5)
        book.of(endpoint, clock.ms + 999)
    after_ms = began_ms + 61_000
    one, two = book.of(endpoint, after_ms), EvidenceBook(metrics).of(endpoint, after_ms)  # type: ignore[arg-type]
    assert one is not None
    assert two is not None
    assert one.blue == two.blue
    assert one.blue.requests == 540
    later = metrics.asked[-100:]
    assert all(end_ms > start_ms for start_ms, end_ms in later)


def test_what_is_long_ago_is_read_by_the_minute() -> None:
    parts = list(evidence._parts(5_000, 5_000 + 3 * 3_600_000))
    assert parts[0] == (60_000, 10_740_000)
    assert sum(length for _, length in parts) == 3 * 3_600_000 + 5_000 - 60_000


def test_an_endpoint_that_is_not_analysed_has_no_evidence() -> None:
    rig = serving(("A", 2))
    assert EvidenceBook(MemoryMetrics()).of(rig.endpoint(), 0) is None  # type: ignore[arg-type]


# --- the tag ---


def test_the_tag_of_a_config() -> None:
    assert analysis_policy("off") is None
    assert analysis_policy("on") == AnalysisPolicy()
    said = "LatencyIncrease=0.2 ErrorIncrease=off MinimumSamples=1000 PauseLimitInSeconds=3600 WarmUpInSeconds=5"
    assert analysis_policy(said) == AnalysisPolicy(
        latency=0.2, errors=None, samples_min=1000, pause_limit_ms=3_600_000, warm_up_ms=5_000
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("yes", "'yes' is not one of its fields"),
        ("LatencyIncrease", "'LatencyIncrease' is not one of its fields"),
        ("LatencyIncrease=fast", "LatencyIncrease must be a number from 0 to 100, and is 'fast'"),
        ("ErrorIncrease=1.5", "ErrorIncrease must be a number from 0 to 1, and is '1.5'"),
        ("ErrorIncrease=nan", "ErrorIncrease must be a number"),
        ("MinimumSamples=5", "MinimumSamples must be a number from 100"),
        ("PredictionShift=0.1 PredictionShift=0.2", "PredictionShift is given twice"),
        ("LatencyIncrease=off ErrorIncrease=off PredictionShift=off", "nothing is left to compare"),
    ],
)
def test_a_tag_that_cannot_be_followed_is_refused_by_field_and_value(value: str, said: str) -> None:
    with pytest.raises(ApiError) as refused:
        analysis_policy(value)
    assert said in refused.value.message

"""What two replies to one request say beside each other, by rows and by features; and what becomes of it as metrics."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest

from eyrie.control.shadow_meter import VALUES_MAX, measurements
from eyrie.decide.compare import PLANNED, Sample, mean_of
from eyrie.decide.shadow import BINS, BYTES_MAX, Compared, compared, features, slices
from eyrie.domain.metrics import Summary, bucket_of
from eyrie.domain.names import EndpointKey

CSV, JSON = "text/csv", "application/json"
ASKED = (CSV, b"1,red\n2,blue\n")


def test_rows_agree_within_the_tolerance() -> None:
    found = compared(ASKED, (CSV, b"0.5\n0.9\n"), (CSV + "; charset=utf-8", b"0.504\n0.1\n"), within=0.01)
    assert isinstance(found, Compared)
    assert found.agree == (True, False)
    assert found.share == 0.5
    assert found.differences == pytest.approx((0.004, -0.8))
    assert found.features == ({"0": 1.0, "1": "red"}, {"0": 2.0, "1": "blue"})


def test_labels_agree_when_they_are_equal() -> None:
    found = compared((JSON, b'{"instances": [[1], [2]]}'), (JSON, b'["a", "b"]'), (JSON, b'["a", "c"]'), 0.01)
    assert isinstance(found, Compared)
    assert (found.agree, found.differences) == ((True, False), ())
    assert found.features == ({"0": 1.0}, {"0": 2.0})


@pytest.mark.parametrize(
    ("production", "shadow", "why"),
    [
        ((CSV, b"1\n2\n"), (CSV, b"1\n"), "other_count"),
        ((CSV, b"1\n"), ("image/png", b"\x89"), "unreadable"),
        ((CSV, b"1\n"), (JSON, b"{"), "unreadable"),
        ((CSV, b"1\n"), (CSV, b"1" * (BYTES_MAX + 1)), "too_large"),
    ],
)
def test_what_cannot_be_compared_says_why(production: tuple[str, bytes], shadow: tuple[str, bytes], why: str) -> None:
    assert compared(ASKED, production, shadow, 0.01) == why


@pytest.mark.parametrize(
    ("kind", "body", "rows"),
    [
        (CSV, b'1.5,"a, b"\n', ({"0": 1.5, "1": "a, b"},)),
        (JSON, b'{"instances": [{"age": 3, "in": "Bern", "ok": true}]}', ({"age": 3.0, "in": "Bern", "ok": "true"},)),
        (JSON, b"[[1, 2], [3, null]]", ({"0": 1.0, "1": 2.0}, {"0": 3.0, "1": "null"})),
        (JSON, b'{"features": {"x": 1, "y": {"z": 2}}, "n": 5}', ({"features.x": 1.0, "n": 5.0},)),
        ("application/jsonlines", b'{"a": 1}\n{"a": 2}\n', ({"a": 1.0}, {"a": 2.0})),
        (JSON, b"7", ({"0": 7.0},)),
        ("application/x-npy", b"\x93NUMPY", ()),
        (JSON, b"not json", ()),
        (CSV, b"\xff\xfe", ()),
        (JSON, b"[" * 5_000, ()),
    ],
)  # fmt: skip
def test_features_of_a_request(kind: str, body: bytes, rows: tuple[dict[str, Any], ...]) -> None:
    assert features(kind, body) == rows


def test_a_numeric_feature_is_told_by_value_or_by_quantile_bins() -> None:
    few = slices({bucket_of(0.0): 5, bucket_of(1.0): 7}, {bucket_of(1.0): 7})
    assert [(s.name, s.count, s.off) for s in few] == [("0", 5, 0), ("1", 7, 7)]
    chance = random.Random(1)
    every, off = Summary(), Summary()
    for _ in range(5_000):
        value = chance.gauss(0, 10)
        every.add(value)
        if value > 9:
            off.add(value)
    bins = slices(every.buckets, off.buckets)
    assert len(bins) == BINS
    assert sum(s.count for s in bins) == 5_000
    assert max(s.count for s in bins) < 1_200
    assert [s.off == 0 for s in bins] == [True, True, True, True, False]
    counts = {bucket_of(float(value)): 100.0 if value == 20 else 1.0 for value in range(21)}
    assert [s.name for s in slices(counts, {})] == ["0 to 20"]
    counts[bucket_of(0.0)] = 100.0
    assert [s.name for s in slices(counts, {})] == ["0", "1 to 20"]  # a bin of one value is called by it


def told(**more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"dropped": {}, "skipped": {}, "latency": [], "agreement": [], "difference": []}
    return {"outcomes": [0, 0, 0, 0], "features": {}, **empty, **more}


KEY = EndpointKey("123456789012", "us-east-1", "e")


def test_a_second_of_pairs_becomes_metrics() -> None:
    known: dict[str, set[str]] = {}
    given = told(
        outcomes=[7, 1, 2, 0],
        dropped={"requests": 3},
        latency=[7, 700.0, 50.0, 150.0, {str(bucket_of(100.0)): 7}],
        features={"age": {"every": {bucket_of(3.0): 5}, "off": {}, "values": {}},
                  "city": {"every": {}, "off": {}, "values": {"Bern": [4, 1]}}},
    )  # fmt: skip
    found = {
        (m.metric.name, *(v for k, v in m.metric.dimensions if k not in ("EndpointName", "VariantName"))): m.summary
        for m in measurements(KEY, "S", given, 1_000, known)
    }
    assert {name: summary.total for name, summary in found.items()} == pytest.approx(
        {("Outcome", "BothAnswered"): 7, ("Outcome", "ProductionFailed"): 1, ("Outcome", "ShadowFailed"): 2,
         ("ErrorDifference",): 1, ("Dropped", "requests"): 3, ("LatencyDifference",): 700,
         ("FeatureValue", "age"): 15, ("SliceAgreement", "city", "Bern"): 3}, rel=0.02
    )  # fmt: skip
    assert (found["ErrorDifference",].count, found["ErrorDifference",].lowest) == (10, -1)
    assert known == {"age": set(), "city": {"Bern"}}


def test_texts_and_features_are_bounded() -> None:
    known: dict[str, set[str]] = {}
    for n in range(200):
        counts = {"every": {}, "off": {}, "values": {f"id-{n}": [1, 0]}}
        list(measurements(KEY, "S", told(features={"id": counts, f"f{n}": counts}), 1_000, known))
    assert len(known) == 32
    assert len(known["id"]) == VALUES_MAX + 1


def test_the_interval_of_a_mean_holds_at_every_look() -> None:
    chance, wrong, runs = random.Random(5), 0, 200
    for _ in range(runs):
        count = total = 0
        for _step in range(40):
            for _ in range(100):
                total += chance.random() < 0.8
                count += 1
            rate = total / count
            found = mean_of(Sample(count, rate, rate * (1 - rate)))
            if not found.low <= 0.8 <= found.high:
                wrong += 1
                break
    assert wrong <= 0.05 * runs
    assert mean_of(Sample(50, 0.8, 0.16)).low == -inf
    assert mean_of(Sample(1_000, 1.0, 0.0)).low == pytest.approx(0.997)
    wide, narrow = mean_of(Sample(PLANNED, 0.0, 1.0)), mean_of(Sample(100 * PLANNED, 0.0, 1.0))
    assert 5 < wide.high / narrow.high < 12

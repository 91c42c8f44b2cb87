"""Traffic: shapes, records, and what is refused by the name of its field."""

from __future__ import annotations

import random
import statistics

import pytest

from eyrie.sim import traffic, words
from eyrie.sim.traffic import TrafficError


def test_shapes_have_the_heights_and_times_that_were_asked_for() -> None:
    day = words.shape("diurnal:low=20,high=200,duration=24h,peak_at=14h")
    assert (day.seconds, round(max(day.rates)), round(min(day.rates))) == (86_400, 200, 20)
    assert max(range(86_400), key=day.rates.__getitem__) == 14 * 3600
    crowd = words.shape("flash:base=50,peak=500,at=10m,rise=10s,hold=5m,fall=1m,duration=30m")
    assert [round(crowd.rates[t]) for t in (0, 599, 605, 610, 909, 940, 1799)] == [50, 50, 275, 500, 500, 275, 50]
    batch = words.shape("onoff:high=100,low=1,on=2m,off=1m,duration=10m")
    assert [batch.rates[t] for t in (0, 59, 60, 179, 180)] == [1, 1, 100, 100, 1]
    assert words.shape("constant:7").rates[0] == 7
    assert words.shape("constant:7").even


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("sawtooth:rate=1", "sawtooth"),
        ("diurnal:low=1", "high"),
        ("diurnal:low=1,high=x", "high must be a number"),
        ("poisson:10,peak=3", "no 'peak'"),
        ("poisson:10,duration=soon", "duration must be a span"),
        ("poisson:-1", "a rate lies between"),
        ("poisson:1e99", "a rate lies between"),
        ("poisson:nan", "a rate lies between"),
        ("poisson:1,duration=400d", "duration must lie between"),
        ("poisson:1,duration=0s", "duration must lie between"),
        ("onoff:high=1,on=0s", "at least 1 second"),
    ],
)
def test_what_is_wrong_is_named(text: str, names: str) -> None:
    with pytest.raises(TrafficError, match=names):
        words.shape(text)


def test_records_are_read_as_rates_or_as_counts() -> None:
    lines = traffic.from_csv("a.csv", ["time,rate", "0,10", "10,20", "20,20"])
    assert (lines.seconds, lines.rates[0], lines.rates[5], lines.rates[19]) == (20, 10, 15, 20)
    counts = traffic.from_csv("b.csv", ["timestamp,requests", "2026-01-05T00:00:00Z,60", "2026-01-05T00:01:00Z,120"])
    assert (counts.seconds, counts.rates[0], counts.rates[60], counts.requests) == (120, 1, 2, 180)
    bare = traffic.from_csv("c.csv", ["0,5", "", "2,5"])
    assert list(bare.rates) == [5, 5]
    gaps = traffic.from_counts("m", [(1000.0, 60.0), (1120.0, 60.0)], 60)
    assert [gaps.rates[t] for t in (0, 59, 60, 119, 120, 179)] == [1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], "empty"),
        (["when,what", "1,2"], "header"),
        (["0,5", "1,many"], "row 2 has 'many'"),
        (["0,5", "0,6"], "times must rise"),
        (["0,5", "noon,6"], "row 2 has 'noon'"),
        (["0,5", "7"], "row 2 has 1 columns"),
        (["0,5"], "two rows"),
        (["0,5", "99999999999,5"], "duration must lie between"),
    ],
)
def test_bad_records_are_refused_with_row_and_value(lines: list[str], names: str) -> None:
    with pytest.raises(TrafficError, match=names):
        traffic.from_csv("t.csv", lines)


@pytest.mark.parametrize("mean", [0.3, 4.0, 29.0, 500.0])
def test_arrivals_vary_as_independent_ones_do(mean: float) -> None:
    chance = random.Random(5)
    found = [traffic.drawn(chance, mean) for _ in range(4000)]
    assert statistics.mean(found) == pytest.approx(mean, rel=0.06)
    assert statistics.variance(found) == pytest.approx(mean, rel=0.12)


def test_even_arrivals_carry_their_fractions_over() -> None:
    chance, carried, total = random.Random(1), 0.0, 0
    for _ in range(10):
        count, carried = traffic.arrivals(chance, 0.75, True, carried)
        total += count
    assert total == 7


@pytest.mark.parametrize("text", ["p99=0ms", "99=1s", "p100=1s", "p99", "p99=soon"])
def test_objectives_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="objective"):
        words.objective(text)


def test_objectives() -> None:
    assert words.objective("p99.9=250ms") == words.Objective(99.9, 250)
    assert words.objective("p50=2s").limit_ms == 2000
    assert words.objective("p95=300").limit_ms == 300

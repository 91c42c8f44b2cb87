"""Which way to infer fits: the two worked cases of the public guide, "twice a day for five minutes", and the limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eyrie.cli import advise as command
from eyrie.cli.errors import CommandError
from eyrie.decide.advice import GB, KB, MB, Advice, Option, Price, Way, Workload, advise, traced

PRICE = Price("ml.m5.large", 2, 0.115)
FRAUD = Workload(2 * KB, 20, 1_000_000, latency_ms=100)
VIDEOS = Workload(500 * MB, 180_000, 200, waits=False)
TWICE_A_DAY = Workload(50 * KB, 200, 600, active_hours=10 / 60)


def told(advice: Advice, way: Way) -> str:
    return "; ".join(next(option.reasons for option in advice.options if option.way is way))


def cost(advice: Advice, way: Way) -> float:
    found = next(option.usd_per_month for option in advice.options if option.way is way)
    assert found is not None
    return found


def test_a_fraud_check_within_100_ms_is_real_time() -> None:
    advice = advise(FRAUD, PRICE)
    assert advice.way is Way.REAL_TIME
    assert "within 100 ms: instances must stand ready" in advice.reasons[1]
    assert "longer than 100 ms" in told(advice, Way.SERVERLESS)


def test_videos_of_500_mb_and_three_minutes_without_a_waiting_client_are_asynchronous() -> None:
    advice = advise(VIDEOS, PRICE)
    assert advice.way is Way.ASYNCHRONOUS
    assert "no client waits" in advice.reasons[0]
    assert "500 MB or 3 min a request is more than a real-time endpoint takes" in advice.reasons[1]
    assert "25 MB is the limit" in told(advice, Way.REAL_TIME)
    assert "1 min is the limit" in told(advice, Way.SERVERLESS)


def test_twice_a_day_for_five_minutes_is_serverless() -> None:
    advice = advise(TWICE_A_DAY, PRICE)
    assert advice.way is Way.SERVERLESS
    assert "99% of the day brings no request" in advice.reasons[1]
    assert cost(advice, Way.SERVERLESS) < 1 < cost(advice, Way.REAL_TIME)
    assert cost(advice, Way.REAL_TIME) == pytest.approx(0.115 * 730)


@pytest.mark.parametrize(
    ("work", "way"),
    [
        (replace(FRAUD, whole_set=True), Way.BATCH),
        (replace(FRAUD, latency_ms=None), Way.REAL_TIME),  # all day long: it seldom rests
        (replace(FRAUD, latency_ms=None, requests_per_day=10, active_hours=2), Way.SERVERLESS),
        (replace(FRAUD, waits=False), Way.ASYNCHRONOUS),
        (replace(TWICE_A_DAY, payload_bytes=5 * MB), Way.REAL_TIME),  # more than serverless takes
        (replace(TWICE_A_DAY, memory_mb=8_000), Way.REAL_TIME),
        (replace(TWICE_A_DAY, accelerator=True), Way.REAL_TIME),
        (replace(TWICE_A_DAY, requests_per_day=20_000_000), Way.REAL_TIME),  # serverless would cost more, and is full
        (replace(TWICE_A_DAY, payload_bytes=26 * MB), Way.ASYNCHRONOUS),
        (replace(TWICE_A_DAY, processing_ms=61_000), Way.ASYNCHRONOUS),
        (replace(VIDEOS, whole_set=True), Way.ASYNCHRONOUS),  # a record is too large for batch
        (replace(VIDEOS, payload_bytes=2 * GB), Way.BATCH),
    ],
)
def test_the_limits_turn_the_advice(work: Workload, way: Way) -> None:
    assert advise(work, PRICE).way is way


def test_a_price_that_is_not_known_leaves_costs_open() -> None:
    advice = advise(TWICE_A_DAY, replace(PRICE, usd_per_hour=None))
    assert advice.way is Way.SERVERLESS
    assert [o.usd_per_month is None for o in advice.options] == [True, False, True, True]


@pytest.mark.parametrize("bad", [{"active_hours": 0}, {"active_hours": 25}, {"payload_bytes": -1}, {"latency_ms": 0}])
def test_numbers_that_no_workload_has_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must not|hours|latency"):
        advise(replace(FRAUD, **bad), PRICE)


def ask(
    tmp_path: Path, *, payload: str = "2KB", active: str = "24h", as_json: bool = False, kind: str = "ml.m5.large"
) -> None:
    told = {"requests": 1e6, "active": active, "latency": "100ms", "instance_type": kind, "as_json": as_json}
    command.run(command.Asked(data=tmp_path, payload=payload, processing="20ms", **told))  # type: ignore[arg-type]


def test_the_command_prints_the_way_and_all_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("real-time: a client waits")
    assert all(str(way) in printed for way in Way)
    ask(tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["way"] == "real-time"


def test_the_command_reads_amounts_and_says_what_it_cannot(tmp_path: Path) -> None:
    assert [command.size("", text) for text in ("500MB", "1.5 kb", "100")] == [500 * MB, 1536, 100]
    assert [command.duration_ms("", text) for text in ("3min", "100ms", "1.5 s", "2h")] == [
        180_000,
        100,
        1_500,
        7_200_000,
    ]
    for bad in ({"payload": "much"}, {"active": "5"}, {"active": "0min"}, {"kind": "ml.q9.huge"}):
        with pytest.raises(CommandError):
            ask(tmp_path, **bad)


# --- traffic that is known --------------------------------------------------------------------------------------------


def of(advice: Advice, way: Way) -> Option:
    return next(option for option in advice.options if option.way is way)


def test_a_trace_counts_instances_minute_by_minute() -> None:
    minutes = tuple([10.0] * 1_200 + [400.0] * 240)  # four busy hours a day
    work = traced(Workload(2 * KB, 20, 0, latency_ms=100), minutes)
    assert work.requests_per_day == 10 * 72_000 + 400 * 14_400
    option = of(advise(work, PRICE), Way.REAL_TIME)  # an instance bears 100 a second, and 80 are aimed at
    assert option.instances == (1, 5)
    assert option.scaling == "SageMakerVariantInvocationsPerInstance at 4800 a minute, 1 to 5 instances"
    assert option.usd_per_month == pytest.approx(0.115 * 730 * (1 * 20 + 5 * 4) / 24)


def test_twice_a_day_for_five_minutes_as_a_trace_is_serverless() -> None:
    minutes = tuple(1.0 if minute // 5 in (100, 200) else 0.0 for minute in range(1_440))
    work = traced(Workload(50 * KB, 200, 0), minutes)
    assert (work.requests_per_day, work.active_hours) == (600, pytest.approx(10 / 60))
    advice = advise(work, PRICE)
    assert advice.way is Way.SERVERLESS
    assert cost(advice, Way.SERVERLESS) == pytest.approx(cost(advise(TWICE_A_DAY, PRICE), Way.SERVERLESS))


def test_measured_throughput_is_what_instances_are_counted_by() -> None:
    work = replace(FRAUD, requests_per_day=86_400 * 100)
    assert of(advise(work, PRICE), Way.REAL_TIME).instances == (1, 2)
    assert of(advise(work, replace(PRICE, rps=2_000)), Way.REAL_TIME).instances == (1, 1)
    assert of(advise(work, replace(PRICE, rps=25)), Way.REAL_TIME).instances == (1, 5)


def test_videos_scale_on_their_backlog_from_zero() -> None:
    option = of(advise(VIDEOS, PRICE), Way.ASYNCHRONOUS)
    assert option.instances == (0, 1)
    assert option.scaling.startswith("ApproximateBacklogSizePerInstance at 3,")


@pytest.mark.parametrize(
    ("work", "hours"),
    [
        (replace(VIDEOS, requests_per_day=1_000_000, processing_ms=1), 24.0),  # it never comes to rest
        (replace(VIDEOS, requests_per_day=3), 3 * 8 / 60),  # each is worked on for 3 minutes, and 5 pass idle
        (replace(TWICE_A_DAY, waits=False), 15 / 60),
        (traced(VIDEOS, (0.001,) * 1_440), 24.0),
        (traced(VIDEOS, (0.001,) + (0.0,) * 1_439), 6 / 60),
    ],
)
def test_an_asynchronous_instance_costs_until_it_has_been_idle_for_a_while(work: Workload, hours: float) -> None:
    assert cost(advise(work, PRICE), Way.ASYNCHRONOUS) == pytest.approx(0.115 * hours * 730 / 24)


def test_traffic_without_a_request_is_refused() -> None:
    for none in ((), (0.0, 0.0)):
        with pytest.raises(ValueError, match="no request"):
            traced(FRAUD, none)


def test_the_command_reads_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,requests\n0,600\n60,0\n120,6000\n180,0\n")
    command.run(
        command.Asked(
            data=tmp_path, payload="2KB", processing="20ms", latency="100ms", traffic=str(trace), throughput=50.0
        )
    )
    printed = capsys.readouterr().out
    assert "1 to 3 x ml.m5.large" in printed
    assert "SageMakerVariantInvocationsPerInstance at 2400 a minute" in printed
    assert "50 requests/s an instance, as measured" in printed
    with pytest.raises(CommandError, match="--processing"):
        command.run(command.Asked(data=tmp_path, payload="2KB", processing=None))
    with pytest.raises(CommandError, match="--endpoint"):
        command.run(command.Asked(data=tmp_path, payload="2KB", processing="20ms", traffic="recorded:6h"))

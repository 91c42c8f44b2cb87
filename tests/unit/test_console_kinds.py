"""What the console's pages of shadow tests, queues, serverless endpoints and transform jobs say: pure parts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from eyrie.console import (
    availability_views,
    costs_views,
    endpoint_views,
    kind_views,
    recommendation_views,
    shadow_views,
    transform_views,
)
from eyrie.console.charts import Span
from eyrie.console.markup import facts

NASTY = "<script>alert('x')</script>"
AT = datetime(2026, 11, 21, tzinfo=UTC)


def report(**more: Any) -> dict[str, Any]:
    side = {"count": 10, "mean_us": 1_500.0, "p50_us": 1_200.0, "p99_us": 4_000.0}
    mean = {"value": -200.0, "low": -300.0, "high": -100.0, "verdict": "better"}
    told: dict[str, Any] = {
        "endpoint": "e",
        "production": "old",
        "shadow": "new",
        "percent": 50.0,
        "experiment": {"name": "t", "status": "Running", "reason": ""},
        "requests": {"sent": 12, "dropped": {"TooMany": 3}, "not_compared": {}},
        "outcomes": {"BothAnswered": 9, "ProductionFailed": 1, "ShadowFailed": 2, "BothFailed": 0},
        "errors": {"value": 0.08, "low": None, "high": None, "verdict": "undecided"},
        "latency": {"production": side, "shadow": {**side, "mean_us": 1_300.0}, "difference": mean},
        "agreement": {"count": 9, "value": 0.75, "low": 0.5, "high": 0.9},
        "prediction_difference": {"value": 0.0, "low": None, "high": None},
        "features": [
            {"feature": "age", "slices": [
                {"slice": "20 to 30", "count": 4, "agreement": 0.25, "low": None, "high": None},
                {"slice": "30 to 40", "count": 5, "agreement": 1.0, "low": None, "high": None},
            ]},
        ],
    }  # fmt: skip
    return {**told, **more}


def test_production_stands_beside_its_shadow_with_what_is_decided() -> None:
    shown = shadow_views.beside(report())
    assert "Production: old" in shown
    assert "1.5 ms" in shown
    assert "−300 µs to −100 µs" in shown
    assert "the shadow is better" in shown
    assert "too few" in shown
    head = shadow_views.head(report())
    assert "−200 µs" in head
    assert "75 %" in head
    assert "3 dropped: TooMany" in shadow_views.lost(report())
    slices = shadow_views.slices(report())
    assert slices.index("20 to 30") < slices.index("30 to 40")


def test_a_shadow_that_was_sent_nothing_has_no_differences() -> None:
    requests = {"sent": 0, "dropped": {}, "not_compared": {}}
    nothing = {"count": 0, "value": None, "low": None, "high": None}
    side = {"count": 0, "mean_us": None, "p50_us": None, "p99_us": None}
    none = {"value": 0.0, "low": None, "high": None, "verdict": "undecided"}
    empty = report(
        requests=requests,
        agreement=nothing,
        latency={"production": side, "shadow": side, "difference": none},
        features=[],
    )
    head = shadow_views.head(empty)
    assert "+" not in head
    assert "−" not in head
    assert "No feature was seen yet" in shadow_views.slices(empty)
    assert shadow_views.lost(empty) == ""


def test_names_from_outside_are_escaped() -> None:
    one = {"Name": NASTY, "EndpointName": NASTY, "Status": NASTY, "CreationTime": AT, "StatusReason": NASTY}
    job = {
        "ModelName": NASTY,
        "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": NASTY, "S3DataType": NASTY}}},
        "TransformOutput": {"S3OutputPath": NASTY},
        "TransformResources": {"InstanceCount": 1, "InstanceType": NASTY},
    }
    described = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": NASTY}}}
    pages = [
        shadow_views.experiments([one], 0.0),
        shadow_views.shadowed([(NASTY, NASTY, NASTY)]),
        shadow_views.beside(report(production=NASTY, shadow=NASTY)),
        endpoint_views.subnav(NASTY, "", [("queue", NASTY)]),
        facts(transform_views.details(job, {})),
        facts(kind_views.where(described)),
    ]
    assert [page for page in pages if "<script" in page] == []


def test_only_endpoints_of_a_kind_have_its_section() -> None:
    assert kind_views.sections_of({"ProductionVariants": [{"VariantName": "v"}]}) == []
    serverless = {"VariantName": "v", "CurrentServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 5}}
    described = {
        "AsyncInferenceConfig": {},
        "ProductionVariants": [serverless],
        "ShadowProductionVariants": [{"VariantName": "s"}],
    }
    assert [name for name, _ in kind_views.sections_of(described)] == ["queue", "serverless", "shadow"]
    shown = endpoint_views.subnav("e", "queue", kind_views.sections_of(described))
    assert 'href="/console/endpoints/e/queue" aria-current="page"' in shown
    assert 'href="/console/shadow/e"' in shown


def test_a_queue_and_a_serverless_endpoint_in_figures() -> None:
    span = Span(0.0, 60_000.0, 1_000.0)
    points: dict[str, Any] = {
        "backlog": [(60_000.0, 12.0)],
        "age": [(60_000.0, 95.0)],
        "stuck": [(60_000.0, 1.0)],
        "InvocationsProcessed": [(59_000.0, 30.0), (60_000.0, 10.0)],
        **{kind: [] for kind, _ in kind_views.FAILURES},
    }
    queue = kind_views.queue_figures(points, span)
    assert ">12<" in queue
    assert "95 s" in queue
    assert "yes" in queue
    assert ">40<" in queue
    points = {
        "concurrency": [(60_000.0, 50.0)],
        "starts": [(1_000.0, 2.0)],
        "rate": [(1_000.0, 8.0)],
        "longest": [(1_000.0, 340.0)],
    }
    shown = kind_views.serverless_figures({"CurrentInstanceCount": 0}, points, span)
    assert "0: at rest" in shown
    assert "50 %" in shown
    assert "25 %" in shown
    assert "340 ms" in shown


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_progress_that_cannot_be_read_is_none(text: str) -> None:
    assert transform_views.progress_of({"Environment": {transform_views.PROGRESS: text}}) == {}


def test_a_transform_job_in_figures() -> None:
    told = {"percent": 42.4, "records": 120, "objects": 3, "objects_done": 1, "bad_records": 2, "objects_failed": 0}
    job = {
        "Environment": {transform_views.PROGRESS: json.dumps(told)},
        "TransformStartTime": datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC),
        "TransformEndTime": datetime(2026, 11, 21, 10, 0, 10, tzinfo=UTC),
    }
    assert transform_views.progress_of(job) == told
    assert transform_views.rate(job, told, 0.0) == 12.0
    assert transform_views.rate({}, told, 0.0) is None
    shown = transform_views.head(job, told, 0.0)
    assert "42.4 %" in shown
    assert "1 of 3" in shown
    assert 'aria-label="Progress: 42.4 %"' in transform_views.bar(told)


def benchmark(**more: Any) -> dict[str, Any]:
    """A configuration as it was measured."""
    variables = [
        {"Key": "MODEL_SERVER_WORKERS", "Value": "2"},
        {"Key": "EYRIE_NOTE", "Value": "caps <are> not enforced"},
    ]
    metrics = {"MaxInvocations": 6000, "ModelLatency": 12, "CostPerHour": 0.115, "CostPerInference": 3.2e-7}
    return {
        "EndpointConfiguration": {"EndpointName": "e", "VariantName": "v", "InstanceType": "ml.m5.large"},
        "ModelConfiguration": {"EnvironmentParameters": variables},
        "Metrics": {**metrics, "CpuUtilization": 85.0, "MemoryUtilization": 12.5},
        **more,
    }


def test_what_a_recommendations_job_found_is_told_with_its_cost_and_a_way_to_deploy_it() -> None:
    serverless = benchmark(EndpointConfiguration={"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 5}})
    job = {"InputConfig": {"ModelName": "churn"}, "InferenceRecommendations": [benchmark(), serverless]}
    shown = recommendation_views.candidates(job)
    for text in ("ml.m5.large MODEL_SERVER_WORKERS=2", "100", "12 ms", "85 %", "12.5 %", "0.115", "0.32"):
        assert f">{text}<" in shown
    assert "serverless, 1024 MB" in shown
    assert shown.count("/deploy?model=churn") == 2
    assert shown.count("caps &lt;are&gt; not enforced") == 1
    assert "Nothing is recommended yet" in recommendation_views.candidates({})


def test_every_test_of_a_recommendations_job_is_told_those_that_failed_too() -> None:
    failed = {"FailureReason": "half of the requests failed", "Metrics": {}}
    steps: list[dict[str, Any]] = [
        {"Status": "COMPLETED", "InferenceBenchmark": benchmark()},
        {"Status": "FAILED", "InferenceBenchmark": benchmark(**failed)},
        {"Status": "IN_PROGRESS"},
    ]
    shown = recommendation_views.tests(steps)
    assert "half of the requests failed" in shown
    assert all(f">{state}<" in shown for state in ("COMPLETED", "FAILED", "IN_PROGRESS"))
    head = recommendation_views.head({"InferenceRecommendations": [benchmark()]}, steps)
    assert "2 of 3" in head
    assert "6\u202f000" in head
    told = recommendation_views.details(
        {
            "JobType": "Advanced",
            "InputConfig": {"Endpoints": [{"EndpointName": "e"}], "JobDurationInSeconds": 90},
            "StoppingConditions": {"ModelLatencyThresholds": [{"Percentile": "P95", "ValueInMilliseconds": 50}]},
        }
    )
    assert told["Time"] == "90 s at the most"
    assert told["Latency at the most"] == "50 ms (P95)"


def availability(**more: Any) -> dict[str, Any]:
    window = {"start_ms": 1_700_000_000_000, "length_ms": 7_200_000, "every_ms": 0}
    told: dict[str, Any] = {
        "since_ms": 1_700_000_000_000,
        "availability_percent": 99.87,
        "good_minutes_percent": 99.9,
        "good_requests_percent": 99.99999,
        "minutes": {"good": 999, "bad": 1, "unknown": 3, "planned": 60},
        "requests": 50_000,
        "failed": 2,
        "objective": {"percent": 99.95, "maintenance": [window], "probe": "text/csv"},
        "budget_left_percent": -160.0,
        "burn_rates": {"5m": 0.0, "1h": 15.0},
        "burning": {"page": 1.04, "ticket": 0.2},
        "in_maintenance": False,
        "trouble": "",
        "outages": [{"start_ms": 1_700_000_000_000, "minutes": 1, "badness": 0.25, "requests": 8, "failed": 2}],
    }
    return {**told, **more}


def test_availability_against_its_objective() -> None:
    head = availability_views.head(availability())
    assert 'class="figure bad"><dt>Availability, 30 days</dt><dd>99.87 %' in head.replace("figure bad ", "figure bad")
    assert "99.95 %" in head
    assert "-160.0 %" in head
    assert ">99.999 %" in availability_views.terms(availability(), availability()).replace("&gt;", ">")
    assert "burns too fast: page" in availability_views.burning(availability())
    assert "2 of 8" in availability_views.outages(availability())
    assert "No bad minute" in availability_views.outages(availability(outages=[]))
    assert "for 2 h" in availability_views.planned(availability())
    unseen = availability(availability_percent=None, budget_left_percent=None, good_requests_percent=None)
    assert availability_views.head(unseen).count("–") == 3


def test_costs_are_told_by_payer_the_dearest_first_without_sums_of_others() -> None:
    listed: list[dict[str, object]] = [
        {"Dimensions": []},
        {"Dimensions": [{"Name": "EndpointName", "Value": "e"}]},
        {"Dimensions": [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "v"}]},
        {"Dimensions": [{"Name": "TransformJobName", "Value": NASTY}]},
    ]
    variant, job = costs_views.leaves(listed)
    payers = [costs_views.Payer(variant, 0.5, 0.1, 2_000.0), costs_views.Payer(job, 2.0, None, 0.0)]
    shown = costs_views.payers_table(payers)
    assert shown.index("transform job") < shown.index(">v<")
    assert "$0.250" in shown
    assert "<script" not in shown
    head = costs_views.head(payers, None)
    assert "$0.100" in head
    assert "$73.00" in head

"""What an inference recommendations job says of itself, in HTML. Pure functions of what the API told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.console import shown
from eyrie.console.markup import Html, chip, figures, join, link, note, table, tag

NOTE = "EYRIE_NOTE"  # what is to be known of the figures, among the variables of a configuration
MINUTE_S = 60
MILLION = 1_000_000
MEASURED = ("Invocations a minute", "Requests/s", "Latency", "CPU", "Memory", "USD an hour", "USD a million")
Row = Mapping[str, Any]


def title(one: Row) -> str:
    """A configuration in words: what it runs on, and the variables that were tried."""
    where = one.get("EndpointConfiguration", {})
    limits = where.get("ServerlessConfig")
    kind = f"serverless, {limits['MemorySizeInMB']} MB" if limits else where.get("InstanceType") or shown.NOTHING
    return " ".join([str(kind), *(f"{name}={value}" for name, value in variables(one).items() if name != NOTE)])


def variables(one: Row) -> dict[str, str]:
    """The variables of a configuration."""
    given = one.get("ModelConfiguration", {}).get("EnvironmentParameters", [])
    return {str(entry["Key"]): str(entry["Value"]) for entry in given}


def measured(metrics: Row) -> tuple[object, ...]:
    """The cells of MEASURED; those that are not known yet are dashes."""
    most, each = metrics.get("MaxInvocations"), metrics.get("CostPerInference")
    latency = metrics.get("ModelLatency")
    return (
        shown.number(most),
        shown.number(None if most is None else most / MINUTE_S),
        shown.latency(None if latency is None else 1000 * latency),
        _percent(metrics.get("CpuUtilization")),
        _percent(metrics.get("MemoryUtilization")),
        shown.number(metrics.get("CostPerHour")),
        shown.number(None if each is None else each * MILLION),
    )


def head(job: Row, steps: Sequence[Row]) -> Html:
    """The figures on top."""
    found = job.get("InferenceRecommendations", [])
    best: Row = found[0]["Metrics"] if found else {}
    failed = sum(step["Status"] == "FAILED" for step in steps)
    over = sum(step["Status"] in ("COMPLETED", "FAILED", "STOPPED") for step in steps)
    each = best.get("CostPerInference")
    return figures(
        (
            ("Tests over", f"{over} of {len(steps)}", ""),
            ("Tests failed", shown.number(failed), "bad" if failed else ""),
            ("Best: invocations a minute", shown.number(best.get("MaxInvocations")), ""),
            ("Best: USD a million", shown.number(None if each is None else each * MILLION), ""),
        )
    )


def candidates(job: Row) -> Html:
    """What is recommended, the best first, each with the way to deploy it."""
    model = job.get("InputConfig", {}).get("ModelName")
    rows = [
        (
            title(one),
            *measured(one.get("Metrics", {})),
            link("Deploy", "deploy", **way_on(str(model), one)) if model else shown.NOTHING,
        )
        for one in job.get("InferenceRecommendations", [])
    ]
    columns = ("Configuration", *MEASURED, "Way on")
    found = table("Recommended configurations", columns, rows, range(1, 8), "Nothing is recommended yet.")
    told = {variables(one).get(NOTE) for one in job.get("InferenceRecommendations", [])} - {None}
    return join([found, *(note(said, "hint") for said in sorted(map(str, told)))])


def way_on(model: str, one: Row) -> dict[str, str]:
    """What the page that deploys is told of a configuration: model, type or serverless memory, and variables."""
    where = one.get("EndpointConfiguration", {})
    asked = {"model": model, "env": json.dumps({k: v for k, v in variables(one).items() if k != NOTE})}
    limits = where.get("ServerlessConfig")
    if limits:
        return {**asked, "serverless": f"{limits['MemorySizeInMB']}:{limits['MaxConcurrency']}"}
    count = where.get("InitialInstanceCount")
    return {**asked, "type": str(where.get("InstanceType", "")), **({"count": str(count)} if count else {})}


def tests(steps: Sequence[Row]) -> Html:
    """Every test, those that failed too, with the reason."""
    rows = []
    for step in steps:
        one = step.get("InferenceBenchmark", {})
        rows.append(
            (
                title(one),
                chip(str(step["Status"])),
                *measured(one.get("Metrics", {})),
                str(one.get("FailureReason", "")),
            )
        )
    columns = ("Test", "Status", *MEASURED, "Why")
    return table("Tests of the job", columns, rows, range(2, 9), "No test has begun yet.")


def details(job: Row) -> dict[str, object]:
    """What a job is made of."""
    given = job.get("InputConfig", {})
    said: dict[str, object] = {"Kind": job.get("JobType", shown.NOTHING)}
    if given.get("ModelName"):
        said["Model"] = link(given["ModelName"], "models", given["ModelName"])
    endpoints = [one["EndpointName"] for one in given.get("Endpoints", [])]
    if endpoints:
        said["Endpoints"] = join([link(name, "endpoints", name) for name in endpoints], ", ")
    payload = given.get("ContainerConfig", {}).get("PayloadConfig", {})
    if payload.get("SamplePayloadUrl"):
        said["Requests"] = tag("code", payload["SamplePayloadUrl"])
    if given.get("JobDurationInSeconds"):
        said["Time"] = f"{given['JobDurationInSeconds']} s at the most"
    if given.get("TrafficPattern", {}).get("TrafficType"):
        said["Traffic"] = given["TrafficPattern"]["TrafficType"]
    for limit in job.get("StoppingConditions", {}).get("ModelLatencyThresholds", []):
        said["Latency at the most"] = f"{limit['ValueInMilliseconds']} ms ({limit['Percentile']})"
    return said


def _percent(value: float | None) -> str:
    return shown.NOTHING if value is None else f"{shown.number(value)} %"

"""What the sections of asynchronous and serverless endpoints say, in HTML. Pure functions of what the API told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.console import charts, measures, shown
from eyrie.console.markup import Html, figures, tag

Row = Mapping[str, Any]
FAILURES = (
    ("InvocationFailures", "invocation"),
    ("ExpiredRequests", "expired"),
    ("RequestDownloadFailures", "input not read"),
    ("ResponseUploadFailures", "result not stored"),
    ("NotificationFailures", "notification"),
)


def sections_of(described: Row) -> list[tuple[str, str]]:
    """The sections that an endpoint has beyond those of every endpoint."""
    found = []
    if "AsyncInferenceConfig" in described:
        found.append(("queue", "Queue"))
    if serverless_of(described):
        found.append(("serverless", "Serverless"))
    if described.get("ShadowProductionVariants"):
        found.append(("shadow", "Shadow"))
    return found


def serverless_of(described: Row) -> list[Row]:
    """The serverless variants."""
    return [v for v in described.get("ProductionVariants", ()) if "CurrentServerlessConfig" in v]


def queue_figures(points: Mapping[str, charts.Points], span: charts.Span) -> Html:
    """The numbers on top of a queue."""
    backlog, age = (measures.recent(points[what], span) for what in ("backlog", "age"))
    stuck = measures.recent(points["stuck"], span)
    seconds = span.period_ms / 1000
    done, failed = (
        sum(measures.total(points[kind]) for kind in kinds) * seconds
        for kinds in (("InvocationsProcessed",), tuple(kind for kind, _ in FAILURES))
    )
    return figures(
        (
            ("Waiting or processed now", shown.number(backlog), ""),
            ("Oldest request", shown.NOTHING if age is None else shown.age(1000 * age), ""),
            ("Without any instance", "yes" if stuck else "no", "bad" if stuck else ""),
            ("Processed in this time", shown.number(done), ""),
            ("Failed in this time", shown.number(failed), "bad" if failed else ""),
        )
    )


def where(described: Row) -> dict[str, object]:
    """Where the results of an asynchronous endpoint go, and who is told."""
    config = described["AsyncInferenceConfig"]
    output, client = config.get("OutputConfig", {}), config.get("ClientConfig", {})
    told = output.get("NotificationConfig", {})
    return {
        "Results": tag("code", output.get("S3OutputPath", "told only")),
        "Failures": tag("code", output.get("S3FailurePath", "told only")),
        "Told of success": tag("code", told.get("SuccessTopic", "nobody")),
        "Told of failure": tag("code", told.get("ErrorTopic", "nobody")),
        "At once, an instance": client.get("MaxConcurrentInvocationsPerInstance", "4, the default"),
    }


def serverless_figures(variant: Row, points: Mapping[str, charts.Points], span: charts.Span) -> Html:
    """The numbers on top of a serverless endpoint."""
    used = measures.recent(points["concurrency"], span)
    starts = measures.total(points["starts"])
    requests = measures.total(points["rate"]) * span.period_ms / 1000
    longest = max((value for _, value in points["longest"]), default=None)
    running = variant.get("CurrentInstanceCount", 0)
    return figures(
        (
            ("Instances now", shown.number(running) if running else "0: at rest", ""),
            ("Concurrency in use", shown.percent(None if used is None else used / 100), ""),
            ("Cold starts in this time", shown.number(starts), ""),
            ("Of its requests", shown.percent(starts / requests if requests else None), ""),
            ("Longest cold start", shown.latency(None if longest is None else longest * 1000), ""),
        )
    )


def limits(variants: Sequence[Row]) -> dict[str, object]:
    """What serverless variants may use."""
    said: dict[str, object] = {}
    for variant in variants:
        config = variant["CurrentServerlessConfig"]
        kept = config.get("ProvisionedConcurrency")
        said[str(variant["VariantName"])] = (
            f"{config['MemorySizeInMB']} MB an instance, {config['MaxConcurrency']} requests at once"
            + (f", {kept} of them kept ready" if kept else "")
        )
    return said

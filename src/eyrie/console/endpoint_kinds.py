"""Sections that only some endpoints have: the queue of an asynchronous one, the concurrency of a serverless one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from nicegui import ui

from eyrie.console import charts, endpoint_live, kind_views, measures
from eyrie.console.charts import Series
from eyrie.console.client import Client
from eyrie.console.endpoint_live import SPANS, Choice
from eyrie.console.frame import Chart, Frame, Live
from eyrie.console.kind_views import FAILURES
from eyrie.console.markup import facts, note, tag
from eyrie.console.measures import Measure, invoked

Row = Mapping[str, Any]
_MS = 1e-3  # as seconds


class Queue:
    """What waits, how long it has waited, what came of it."""

    every_s = 2.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name, self._minutes = frame, name, 15.0
        self._figures = Live(note("Loading …"))
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Where results go"), sanitize=False)
            self._where = Live(note("Loading …"))
        with ui.element("div") as self._measured:
            Choice("Time shown", SPANS, self._minutes, self._choose)
        with self._measured, ui.element("div").classes("grid"):
            self._backlog = Chart(frame, "Backlog", "requests that wait or are processed")
            self._age = Chart(frame, "Oldest request", "seconds in the queue")
            self._done = Chart(frame, "Processed", "per second")
            self._failed = Chart(frame, "Failures", "per second, by kind")
            self._took = Chart(frame, "Time from request to result", "seconds")

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name, minutes = self._frame.client, self._name, self._minutes
        described, points, span = await self._frame.ask(lambda: queue_of(client, name, minutes))
        self._measured.set_visibility("AsyncInferenceConfig" in described)
        if "AsyncInferenceConfig" not in described:
            self._figures.show(note("This endpoint answers at once: it has no queue."))
            self._where.show(note("Nothing is stored."))
            return
        self._figures.show(kind_views.queue_figures(points, span))
        self._where.show(facts(kind_views.where(described)))
        self._backlog.show([Series("", points["backlog"], kind="area")], span, "Nothing was queued in this time.")
        self._age.show([Series("", points["age"])], span, "Nothing waited in this time.")
        self._done.show([Series("", points["InvocationsProcessed"], kind="bar")], span, "Nothing was processed.")
        failures = [
            Series(said, points[kind], colour=c) for (kind, said), c in zip(FAILURES, charts.COLOURS, strict=False)
        ]
        self._failed.show(failures, span, "Nothing failed in this time.")
        took = [Series("in the queue, p50", points["waited"]), Series("processed, p50", points["processed"])]
        self._took.show(took, span, "Nothing was processed in this time.")


def queue_of(client: Client, name: str, minutes: float) -> tuple[Row, dict[str, charts.Points], charts.Span]:
    """The endpoint, its queue's metrics by what they are, and the time that they cover. Raises Trouble."""
    described = client.endpoint(name)
    variant = next(iter(endpoint_live.names_of(described)), "")
    span = measures.span_of(minutes, time.time() * 1000)
    wanted: dict[str, Measure] = {
        "backlog": invoked("ApproximateBacklogSize", "Maximum", name),
        "age": invoked("ApproximateAgeOfOldestRequest", "Maximum", name),
        "stuck": invoked("HasBacklogWithoutCapacity", "Maximum", name),
        "waited": invoked("TimeInBacklog", "p50", name, variant, factor=_MS),
        "processed": invoked("TotalProcessingTime", "p50", name, variant, factor=_MS),
    }
    for kind in ("InvocationsProcessed", *(kind for kind, _ in FAILURES)):
        wanted[kind] = invoked(kind, "Sum", name, variant, per_second=True)
    return described, dict(zip(wanted, client.measured(list(wanted.values()), span), strict=True)), span


class Serverless:
    """How much runs at once of what may, and how often an instance had to be started first."""

    every_s = 2.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name, self._minutes = frame, name, 15.0
        self._figures = Live(note("Loading …"))
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "What it may use"), sanitize=False)
            self._limits = Live(note("Loading …"))
        with ui.element("div") as self._measured:
            Choice("Time shown", SPANS, self._minutes, self._choose)
        with self._measured, ui.element("div").classes("grid"):
            self._concurrency = Chart(frame, "Concurrency", "percent of MaxConcurrency")
            self._provisioned = Chart(frame, "Provisioned concurrency", "percent of what is kept ready")
            self._starts = Chart(frame, "Cold starts", "instances started in each point of time")
            self._setup = Chart(frame, "Time of a cold start", "ms")
            self._rate = Chart(frame, "Invocations", "per second")
            self._memory = Chart(frame, "Memory", "percent of MemorySizeInMB")

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name, minutes = self._frame.client, self._name, self._minutes
        described, points, span = await self._frame.ask(lambda: serverless_seen(client, name, minutes))
        variants = kind_views.serverless_of(described)
        self._measured.set_visibility(bool(variants))
        if not variants:
            self._figures.show(note("This endpoint runs on instances: it is not serverless."))
            self._limits.show(note("It has an instance type."))
            return
        self._figures.show(kind_views.serverless_figures(variants[0], points, span))
        self._limits.show(facts(kind_views.limits(variants)))
        self._concurrency.show([Series("", points["concurrency"])], span, "No request came in this time.", top=100.0)
        self._provisioned.show(
            [Series("", points["provisioned"])], span, "No concurrency is provisioned, or used.", top=100.0
        )
        self._starts.show([Series("", points["starts"], kind="bar")], span, "No instance was started in this time.")
        setup = [Series("p50", points["setup"]), Series("longest", points["longest"])]
        self._setup.show(setup, span, "No instance was started in this time.")
        self._rate.show([Series("", points["rate"], kind="bar")], span, "No request came in this time.")
        self._memory.show([Series("", points["memory"])], span, "No instance ran in this time.", top=100.0)


def serverless_seen(client: Client, name: str, minutes: float) -> tuple[Row, dict[str, charts.Points], charts.Span]:
    """The endpoint, its metrics by what they are, and the time that they cover. Raises Trouble."""
    described = client.endpoint(name)
    variant = next(iter(endpoint_live.names_of(described)), "")
    span = measures.span_of(minutes, time.time() * 1000)
    wanted: dict[str, Measure] = {
        "concurrency": invoked("ServerlessConcurrentExecutionsUtilization", "Maximum", name, variant, factor=100.0),
        "provisioned": invoked("ServerlessProvisionedConcurrencyUtilization", "Maximum", name, variant, factor=100.0),
        "spilled": invoked("ServerlessProvisionedConcurrencySpilloverInvocations", "Sum", name, variant),
        "starts": invoked("ModelSetupTime", "SampleCount", name, variant),
        "setup": invoked("ModelSetupTime", "p50", name, variant, factor=1e-3),
        "longest": invoked("ModelSetupTime", "Maximum", name, variant, factor=1e-3),
        "rate": invoked("Invocations", "Sum", name, variant, per_second=True),
        "throttled": invoked("Invocation4XXErrors", "Sum", name, variant),
        "memory": measures.used("MemoryUtilization", "Maximum", name, variant),
    }
    return described, dict(zip(wanted, client.measured(list(wanted.values()), span), strict=True)), span

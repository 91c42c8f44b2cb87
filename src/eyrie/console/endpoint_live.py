"""The first section of an endpoint's page: load, traffic split, instances by zone, and charts that move on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from eyrie.console import charts, endpoint_views, measures
from eyrie.console.charts import Series
from eyrie.console.client import Client, Trouble
from eyrie.console.frame import Chart, Frame, Live
from eyrie.console.markup import note, tag
from eyrie.console.measures import Measure, invoked, used

SPANS = (("5 min", 5.0), ("15 min", 15.0), ("1 h", 60.0), ("3 h", 180.0), ("1 day", 1440.0), ("1 week", 10_080.0))
_INSTANCES_MAX = 60  # whose CPU and memory are asked for
_MS = 1e-3  # from µs


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the section shows."""

    described: Mapping[str, Any]
    status: Mapping[str, Any]
    variants: Sequence[str]
    points: Mapping[tuple[str, str], charts.Points]  # by what and variant
    instances: Mapping[str, Mapping[str, float | None]]
    marks: Sequence[charts.Mark]
    span: charts.Span
    now_ms: float


def wanted_of(name: str, variants: Sequence[str]) -> dict[tuple[str, str], Measure]:
    """What is asked for, by what it is and the variant ("" for the endpoint as a whole)."""
    found: dict[tuple[str, str], Measure] = {}
    for stat in ("p50", "p90", "p99"):
        found[(stat, "")] = invoked("ModelLatency", stat, name, factor=_MS)
    found[("overhead", "")] = invoked("OverheadLatency", "p99", name, factor=_MS)
    for kind in ("Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors"):
        found[(kind, "")] = invoked(kind, "Sum", name, per_second=True)
    for variant in variants:
        found[("rate", variant)] = invoked("Invocations", "Sum", name, variant, per_second=True)
        found[("cpu", variant)] = used("CPUUtilization", "Average", name, variant)
        found[("memory", variant)] = used("MemoryUtilization", "Average", name, variant)
        found[("concurrent", variant)] = invoked("ConcurrentRequestsPerModel", "Maximum", name, variant)
    return found


def look(client: Client, name: str, minutes: float) -> Seen:
    """Ask for everything. Raises Trouble."""
    now_ms = time.time() * 1000
    described = client.endpoint(name)
    status = next((one for one in client.status() if one["name"] == name), {})
    variants = names_of(described)
    span = measures.span_of(minutes, now_ms)
    wanted = wanted_of(name, variants)
    instances = list(status.get("instances", ()))[:_INSTANCES_MAX]
    more = [
        used(kind, "Average", name, one["variant"], one["id"])
        for one in instances
        for kind in ("CPUUtilization", "MemoryUtilization")
    ]
    points = client.measured([*wanted.values(), *more], span)
    by_key = dict(zip(wanted, points, strict=False))
    tail = points[len(wanted) :]
    by_instance = {
        str(one["id"]): {"cpu": measures.recent(tail[2 * at], span), "memory": measures.recent(tail[2 * at + 1], span)}
        for at, one in enumerate(instances)
    }
    return Seen(described, status, variants, by_key, by_instance, marks_of(client.story(name)), span, now_ms)


def names_of(described: Mapping[str, Any]) -> list[str]:
    """The variants of both fleets, each once."""
    pending = described.get("PendingDeploymentSummary", {}).get("ProductionVariants", ())
    return list(dict.fromkeys(v["VariantName"] for v in [*described.get("ProductionVariants", ()), *pending]))


def marks_of(story: Sequence[Mapping[str, Any]]) -> list[charts.Mark]:
    """What a reader wants to see beside a jump in a chart: deployments, their steps, lost instances."""
    marks = []
    for event in story[-200:]:
        what = str(event["what"])
        if what in ("deployment SHIFTING", "deployment ROLLING_BACK", "endpoint Updating"):
            marks.append(charts.Mark(float(event["at_ms"]), what.partition(" ")[2].replace("_", " ").lower()))
        elif what.startswith("instance ") and what.endswith((" LOST", " FAILED")):
            marks.append(charts.Mark(float(event["at_ms"]), what.rpartition(" ")[2].lower()))
    return marks[-12:]


def figures(seen: Seen) -> dict[str, float | None]:
    """The numbers on top, over the last minute (or the last point, where points are further apart)."""
    since_ms = seen.span.end_ms - max(60_000.0, seen.span.period_ms)

    def lately(points: charts.Points) -> list[float]:
        return [value for ms, value in points if ms >= since_ms]

    length_s = max(60.0, seen.span.period_ms / 1000)
    requests = (
        sum(sum(lately(points)) for (what, _), points in seen.points.items() if what == "rate")
        * seen.span.period_ms
        / 1000
    )
    failed = sum(lately(seen.points[("Invocation5XXErrors", "")])) * seen.span.period_ms / 1000
    slow = {stat: max(lately(seen.points[(stat, "")]), default=None) for stat in ("p50", "p99")}
    return {
        "rate": requests / length_s,
        "errors": failed / requests if requests else None,
        **{stat: None if value is None else value * 1000 for stat, value in slow.items()},
    }


class LiveSection:
    """The live parts."""

    every_s = 2.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        self._minutes = 15.0
        self._figures = Live(note("Loading …"))
        with ui.element("div").classes("grid"):
            with ui.element("section").classes("card"):
                ui.html(tag("h2", "Traffic now"), sanitize=False)
                self._split = Live(note("Loading …"))
            with ui.element("section").classes("card"):
                ui.html(tag("h2", "Made of"), sanitize=False)
                self._made_of = Live(note("Loading …"))
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Instances by zone"), sanitize=False)
            self._zones = Live(note("Loading …"))
        self._choice = Choice("Time shown", SPANS, self._minutes, self._choose)
        with ui.element("div").classes("grid"):
            self._rate = Chart(frame, "Invocations", "per second, by variant")
            self._latency = Chart(frame, "Latency", "ms, of the model, and p99 that Eyrie adds")
            self._errors = Chart(frame, "Errors", "per second")
            self._concurrent = Chart(frame, "Requests in flight", "at most, an instance")
            self._cpu = Chart(frame, "CPU", "percent; 100 is one vCPU")
            self._memory = Chart(frame, "Memory", "percent")
        self._config: tuple[str, Mapping[str, Any] | None] = ("", None)

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name, minutes = self._frame.client, self._name, self._minutes
        seen: Seen = await self._frame.ask(lambda: look(client, name, minutes))
        if minutes != self._minutes:
            return  # another time was chosen meanwhile
        variants = seen.status.get("variants", ())
        ready, desired = sum(v["ready"] for v in variants), sum(v["desired"] for v in variants)
        self._figures.show(endpoint_views.load(figures(seen), ready, desired))
        self._split.show(endpoint_views.split(seen.described))
        self._zones.show(endpoint_views.by_zone(seen.status.get("instances", ()), seen.now_ms, seen.instances))
        await self._tell_config(client, seen)
        self._draw(seen)

    async def _tell_config(self, client: Client, seen: Seen) -> None:
        """Configs do not change: one is asked for once."""
        wanted = str(seen.described["EndpointConfigName"])
        if self._config[0] != wanted:
            try:
                self._config = (wanted, await self._frame.ask(lambda: client.config(wanted)))
            except Trouble:
                self._config = (wanted, None)  # it may be deleted: the endpoint goes on without it
        self._made_of.show(endpoint_views.config_facts(seen.described, self._config[1]))

    def _draw(self, seen: Seen) -> None:
        span, points, several = seen.span, seen.points, len(seen.variants) > 1
        rates = [Series(v if several else "", points[("rate", v)], kind="bar", stack="all") for v in seen.variants]
        self._rate.show(rates, span, "No request came in this time.", marks=seen.marks)
        slow = [Series(stat, points[(stat, "")]) for stat in ("p50", "p90", "p99")]
        self._latency.show(
            [*slow, Series("overhead p99", points[("overhead", "")], dashed=True)],
            span,
            "No request came in this time.",
            marks=seen.marks,
        )
        names = (
            ("Invocation4XXErrors", "4xx", charts.COLOURS[2]),
            ("Invocation5XXErrors", "5xx", charts.BAD),
            ("InvocationModelErrors", "of these the model's", charts.COLOURS[4]),
        )
        failed = [Series(said, points[(kind, "")], kind="line", colour=colour) for kind, said, colour in names]
        self._errors.show(failed, span, "No request came in this time.")
        for chart, what in ((self._concurrent, "concurrent"), (self._cpu, "cpu"), (self._memory, "memory")):
            series = [Series(v if several else "", points[(what, v)]) for v in seen.variants]
            chart.show(series, span, top=100.0 if what in ("cpu", "memory") else None)


class Choice:
    """One of a few, as buttons."""

    def __init__(self, what: str, entries: Sequence[tuple[str, float]], chosen: float, choose: Any) -> None:
        self._choose = choose
        self._buttons: list[tuple[float, Any]] = []
        with ui.element("div").classes("choice").props(f'role=group aria-label="{what}"').style("margin-bottom: 14px"):
            for said, value in entries:
                button = ui.button(said, on_click=lambda _, value=value: self._take(value), color=None)
                button.props("flat no-caps").classes("button")
                self._buttons.append((value, button))
        self._mark(chosen)

    async def _take(self, value: float) -> None:
        self._mark(value)
        await self._choose(value)

    def _mark(self, chosen: float) -> None:
        for value, button in self._buttons:
            button.classes(add="on") if value == chosen else button.classes(remove="on")
            button.props(f"aria-pressed={'true' if value == chosen else 'false'}")

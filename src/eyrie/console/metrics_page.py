"""The metrics explorer: namespaces, metrics and dimensions that there are, drawn together with any statistic."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from eyrie.console import measures
from eyrie.console.charts import Series, Span
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.endpoint_live import SPANS, Choice
from eyrie.console.frame import Chart, Frame, Live, button, field, framed
from eyrie.console.markup import Html, note, tag
from eyrie.console.pages import place

STATISTICS = ("Average", "Sum", "Minimum", "Maximum", "SampleCount", "p50", "p90", "p95", "p99", "p99.9", "TM(10%:90%)")
SERIES_MAX = 20
_METRICS_MAX = 5_000


def register(desk: Desk) -> None:
    """The page at /console/metrics."""

    async def page(request: Any) -> None:
        with framed(desk, request, "Metrics", ("metrics",)) as frame:
            ui.html(tag("div", tag("h1", "Metrics"), class_="head"), sanitize=False)
            explorer = Explorer(frame)
            await frame.live(explorer.refresh, 5.0)

    place("/metrics", page)


def listed(client: Client) -> list[dict[str, Any]]:
    """Every metric that there is. Raises Trouble."""
    return client.every("cloudwatch", "list_metrics", "Metrics", most=_METRICS_MAX)


def titles(metrics: Sequence[dict[str, Any]], namespace: str, name: str) -> dict[str, measures.Measure]:
    """The metrics of a namespace and a name, by what tells them apart."""
    found = {}
    for one in metrics:
        if one["Namespace"] == namespace and one["MetricName"] == name:
            dimensions = tuple(sorted((d["Name"], d["Value"]) for d in one.get("Dimensions", ())))
            said = ", ".join(f"{key}={value}" for key, value in dimensions) or "no dimension"
            found[said] = measures.Measure(namespace, name, "Average", dimensions)
    return dict(sorted(found.items()))


class Explorer:
    """Choices above, the chart below."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._minutes = 60.0
        self._metrics: list[dict[str, Any]] = []
        with ui.element("section").classes("card"):
            with ui.element("div").classes("inputs"):
                self._namespace = field("Namespace", "AWS/SageMaker", options=("AWS/SageMaker",), classes="grow")
                self._name = field("Metric", "Invocations", options=("Invocations",), classes="grow")
                self._stat = field("Statistic", "Average", options=STATISTICS)
            ui.element("div").style("height: 10px")
            self._which = (
                ui.select([], multiple=True, label="Series (empty: those of whole endpoints, or all)")
                .props("outlined dense use-chips")
                .classes("grow")
            )
            ui.element("div").style("height: 10px")
            self._math = field(
                "Or an expression: SUM(SEARCH('{AWS/SageMaker,EndpointName,VariantName} Invocations', 'Sum', 60))",
                classes="coded",
            )
            ui.element("div").style("height: 12px")
            button("Draw", self.refresh, "main")
        Choice("Time shown", SPANS, self._minutes, self._choose)
        self._chart = Chart(frame, "Values", tall=True)
        self._said = Live()
        self._namespace.on_value_change(self._choices)
        self._name.on_value_change(self._choices)

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    def _choices(self) -> None:
        """What can be chosen now."""
        namespaces = sorted({one["Namespace"] for one in self._metrics} | {"AWS/SageMaker"})
        self._namespace.set_options(namespaces)
        names = sorted({one["MetricName"] for one in self._metrics if one["Namespace"] == self._namespace.value})
        if self._name.value not in names and names:
            self._name.set_options(names, value=names[0])
        else:
            self._name.set_options(names or ["Invocations"])
        there = list(titles(self._metrics, str(self._namespace.value), str(self._name.value)))
        self._which.set_options(there, value=[one for one in (self._which.value or []) if one in there])

    async def refresh(self) -> None:
        """Ask again and draw. Raises Trouble."""
        client = self._frame.client
        if not self._metrics:
            self._metrics = await self._frame.ask(lambda: listed(client))
            self._choices()
        span = measures.span_of(self._minutes, time.time() * 1000)
        try:
            series, beyond = await self._frame.ask(lambda: self._series(client, span))
        except Trouble as trouble:
            if trouble.code == AWAY:
                raise
            self._said.show(Html(""))
            self._chart.tell(str(trouble))
            return
        left_out = f"{beyond} more are not drawn: choose among the series, or search for fewer."
        self._said.show(note(left_out) if beyond > 0 else Html(""))
        self._chart.show(series, span)

    def _series(self, client: Client, span: Span) -> tuple[list[Series], int]:
        """What was asked for, and how many more there are than are drawn. Raises Trouble."""
        expression = str(self._math.value or "").strip()
        if expression:
            found = found_by(client, expression, span)
            return found[:SERIES_MAX], len(found) - SERIES_MAX
        wanted = self._wanted()
        few = dict(list(wanted.items())[:SERIES_MAX])
        points = client.measured(list(few.values()), span)
        return [Series(said, one) for said, one in zip(few, points, strict=True)], len(wanted) - SERIES_MAX

    def _wanted(self) -> dict[str, measures.Measure]:
        there = titles(self._metrics, str(self._namespace.value), str(self._name.value))
        few = {said: one for said, one in there.items() if len(one.dimensions) == 1} or there
        chosen = {said: there[said] for said in self._which.value or [] if said in there} or few
        stat = str(self._stat.value)
        return {said: measures.Measure(one.namespace, one.name, stat, one.dimensions) for said, one in chosen.items()}


def found_by(client: Client, expression: str, span: Span) -> list[Series]:
    """What an expression gives: a series, or each of those that it finds by itself. Raises Trouble."""
    query = {"Id": "said", "Expression": expression, "Period": int(span.period_ms // 1000)}
    found = client.series([query], span)
    return [Series(expression[:60] if label in ("", "said") else label, points) for _, label, points in found]

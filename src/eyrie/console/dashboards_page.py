"""Dashboards: the list, and one drawn as its body says."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from eyrie.console import charts, dashboard_bodies, logs_page, measures, shown, views
from eyrie.console.charts import Series
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.dashboard_bodies import Widget
from eyrie.console.desk import Desk
from eyrie.console.endpoint_live import SPANS, Choice
from eyrie.console.frame import Chart, Frame, Live, framed
from eyrie.console.markup import Html, figures, join, link, note, table, tag
from eyrie.console.pages import place

_ROW_PX = 44  # of the grid's rows


def register(desk: Desk) -> None:
    """The pages at /console/dashboards."""

    async def every(request: Any) -> None:
        with framed(desk, request, "Dashboards", ("dashboards",)) as frame:
            ui.html(tag("div", tag("h1", "Dashboards"), class_="head"), sanitize=False)
            with ui.element("section").classes("card"):
                listed = Live(note("Loading …"))

            async def refresh() -> None:
                client = frame.client
                listed.show(await frame.ask(lambda: list_of(client)))

            await frame.live(refresh, 5.0)

    async def one(request: Any, name: str) -> None:
        with framed(desk, request, name, ("dashboards",), (("Dashboards", ("dashboards",)),)) as frame:
            ui.html(tag("div", tag("h1", name), class_="head"), sanitize=False)
            await frame.live(Dashboard(frame, name).refresh, 5.0)

    place("/dashboards", every)
    place("/dashboards/{name}", one)


def list_of(client: Client) -> Html:
    """The table of dashboards. Raises Trouble."""
    found = client.every("cloudwatch", "list_dashboards", "DashboardEntries")
    now_ms = time.time() * 1000
    rows = [
        (
            link(one["DashboardName"], "dashboards", one["DashboardName"]),
            views.since_of(one.get("LastModified"), now_ms),
            shown.size(one.get("Size")),
        )
        for one in found
    ]
    empty = join(
        ["No dashboard yet. ", tag("code", "aws cloudwatch put-dashboard"), " stores one, from CloudWatch's own JSON."]
    )
    return table("Dashboards", ("Dashboard", "Changed", "Size"), rows, (2,), empty)


class Dashboard:
    """The widgets of one dashboard, kept live."""

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        self._minutes = 180.0
        self._body = ""
        self._drawn: list[tuple[Widget, Any]] = []
        Choice("Time shown", SPANS, self._minutes, self._choose)
        self._place = ui.element("div").classes("dashboard")

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask for the body, build what changed, and fill it. Raises Trouble."""
        client, name = self._frame.client, self._name
        body = str(
            (await self._frame.ask(lambda: client.call("cloudwatch", "get_dashboard", DashboardName=name)))[
                "DashboardBody"
            ]
        )
        if body != self._body:
            self._body = body
            self._build(dashboard_bodies.widgets(body))
        for widget, part in self._drawn:
            await self._fill(widget, part)

    def _build(self, found: list[Widget]) -> None:
        self._place.clear()
        with self._place:
            self._drawn = [(widget, self._made(widget)) for widget in found[: dashboard_bodies.WIDGETS_MAX]]
            if not found:
                ui.html(note("This dashboard has no widget yet."), sanitize=False).classes("wide")
            if beyond := len(found) - len(self._drawn):
                ui.html(note(f"{shown.plural(beyond, 'widget')} more are not drawn."), sanitize=False).classes("wide")

    def _made(self, widget: Widget) -> Any:
        style = f"--w: {min(widget.width, dashboard_bodies.COLUMNS)}; min-height: {widget.height * _ROW_PX}px"
        with ui.element("div").classes("widget").style(style):
            if widget.kind == "metric" and widget.view == "timeSeries":
                return Chart(self._frame, widget.title)
            with ui.element("section").classes("card"):
                if widget.title:
                    ui.html(tag("h2", widget.title), sanitize=False)
                return Live(dashboard_bodies.markdown(widget.text) if widget.kind == "text" else note("Loading …"))

    async def _fill(self, widget: Widget, part: Any) -> None:
        client, minutes = self._frame.client, self._minutes
        try:
            if widget.kind == "metric":
                await self._fill_metric(widget, part)
            elif widget.kind == "alarm":
                alarms = [one for one in await self._frame.ask(client.alarms) if one["AlarmName"] in widget.alarms]
                part.show(views.alarms_table(alarms, time.time() * 1000, "None of its alarms is there."))
            elif widget.kind == "log":
                part.show(await self._frame.ask(lambda: queried(client, widget, minutes)))
            elif widget.kind != "text":
                part.show(note(f"A widget of type {widget.kind!r} is not drawn here."))
        except Trouble as trouble:
            if trouble.code == AWAY:
                raise
            if isinstance(part, Chart):
                part.tell(str(trouble))
            else:
                part.show(note(str(trouble), "error"))

    async def _fill_metric(self, widget: Widget, part: Any) -> None:
        client = self._frame.client
        span = measures.span_of(self._minutes, time.time() * 1000)
        if widget.alarms:
            widget = dashboard_bodies.with_alarms(widget, await self._frame.ask(client.alarms))
        found = await self._frame.ask(lambda: values_of(client, widget, span))
        if widget.view != "timeSeries":
            last = [(label, shown.number(points[-1][1] if points else None), "") for label, points in found]
            part.show(figures(last) if last else note("Nothing was measured."))
            return
        kind = "area" if widget.stacked else "line"
        series = [Series(label, points, kind=kind, stack="all" if widget.stacked else "") for label, points in found]
        drawn = charts.Span(span.start_ms, span.end_ms, max(span.period_ms, widget.period_s * 1000))
        series += [charts.level(label, value, span) for label, value in widget.levels]
        part.show(series, drawn)


def values_of(client: Client, widget: Widget, span: charts.Span) -> list[tuple[str, charts.Points]]:
    """The labels and points of a metric widget. Raises Trouble."""
    lines = {str(line.query["Id"]): line for line in widget.lines}
    if not any(line.shown for line in lines.values()):
        return []
    queries = [{**line.query, "ReturnData": line.shown} for line in lines.values()]
    return [(dashboard_bodies.told(lines[name], label), points) for name, label, points in client.series(queries, span)]


def queried(client: Client, widget: Widget, minutes: float) -> Html:
    """The table of a log widget. Raises Trouble."""
    if not widget.groups:
        return note("This query names no log group.")
    end_s = int(time.time())
    started = client.call(
        "logs",
        "start_query",
        logGroupNames=list(widget.groups),
        queryString=widget.query,
        startTime=int(end_s - minutes * 60),
        endTime=end_s,
    )
    deadline = time.monotonic() + 10
    while True:
        found = client.call("logs", "get_query_results", queryId=started["queryId"])
        if found["status"] not in ("Running", "Scheduled") or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    columns, rows = logs_page.rows_of(found["results"])
    return table(widget.title, columns or ["Nothing"], rows[:100], empty="Nothing was found.")

"""The first page: endpoints, their health and load, alarms, and what happened lately."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from eyrie.console import charts, measures, views
from eyrie.console.client import Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.frame import Chart, Frame, Live, framed
from eyrie.console.markup import join, note, tag
from eyrie.console.pages import place

ENDPOINTS_MAX = 300  # whose load the overview asks for; what is beyond is said
DRAWN_MAX = 10  # series of the chart; the others are one
MINUTES = 15.0
_STORIES = 8
_EVENTS = 100
_COST_PERIODS = 20  # costs are counted each minute, and known a little later


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the overview shows."""

    endpoints: Sequence[Mapping[str, Any]]
    rates: Mapping[str, Mapping[str, float | None]]
    drawn: Sequence[charts.Series]
    alarms: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    host: Mapping[str, float | None]
    span: charts.Span
    now_ms: float


def look(client: Client) -> Seen:
    """Ask for everything. Raises Trouble."""
    now_ms = time.time() * 1000
    endpoints = client.status()
    span = measures.span_of(MINUTES, now_ms)
    names = [str(one["name"]) for one in endpoints][:ENDPOINTS_MAX]
    wanted: list[measures.Measure | measures.Said] = []
    for name in names:
        wanted += [
            measures.invoked("Invocations", "Sum", name),
            measures.invoked("Invocation5XXErrors", "Sum", name),
            measures.invoked("ModelLatency", "p99", name),
        ]
    wanted += [
        measures.Said("SEARCH('{CWAgent,cpu,host} MetricName=\"cpu_usage_idle\" cpu=\"cpu-total\"', 'Average', 10)"),
        measures.Said("SEARCH('{CWAgent,host} MetricName=\"mem_used_percent\"', 'Average', 10)"),
        measures.Measure("Eyrie/Costs", "CostPerHour", "Maximum", ()),
    ]
    points = client.measured(wanted, span)
    rates = {name: _load(points[3 * at : 3 * at + 3], span) for at, name in enumerate(names)}
    drawn = drawn_of({name: _per_second(points[3 * at], span) for at, name in enumerate(names)})
    events = _stories(client, names[:_STORIES])
    alarms = views.own_alarms(client.alarms())
    idle, used = measures.latest(points[-3], span, 12), measures.latest(points[-2], span, 12)
    host = {"cpu": None if idle is None else 1 - idle / 100, "memory": None if used is None else used / 100}
    host["cost"] = measures.latest(points[-1], span, _COST_PERIODS)
    return Seen(endpoints, rates, drawn, alarms, events, host, span, now_ms)


def drawn_of(rates: Mapping[str, charts.Points]) -> list[charts.Series]:
    """The busiest endpoints as series of a stack, and all the others as one: nothing is left out of its height."""
    asked = {name: points for name, points in rates.items() if points}
    busiest = sorted(asked, key=lambda name: -measures.total(asked[name]))
    if len(busiest) > DRAWN_MAX:
        busiest = busiest[: DRAWN_MAX - 1]
    others: dict[float, float] = {}
    for name in asked.keys() - set(busiest):
        for ms, value in asked[name]:
            others[ms] = others.get(ms, 0.0) + value
    drawn = [charts.Series(name, asked[name], kind="bar", stack="all") for name in sorted(busiest)]
    if others:
        said = f"{len(asked) - len(busiest)} others"
        drawn.append(charts.Series(said, sorted(others.items()), kind="bar", stack="all", colour=charts.OTHERS))
    return drawn


def _per_second(points: charts.Points, span: charts.Span) -> charts.Points:
    return [(ms, value * 1000 / span.period_ms) for ms, value in points]


def _load(points: Sequence[charts.Points], span: charts.Span) -> dict[str, float | None]:
    """Rate, share of errors and p99 over the last minute or so."""
    since_ms = span.end_ms - 60_000
    sums = [measures.total([p for p in one if p[0] >= since_ms]) for one in points[:2]]
    recent = [value for ms, value in points[2] if ms >= since_ms]
    return {
        "rate": sums[0] / 60,
        "errors": sums[1] / sums[0] if sums[0] else None,
        "p99": max(recent, default=None),
        "requests": sums[0],
        "failed": sums[1],
    }


def _stories(client: Client, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """The newest events of some endpoints; one whose story cannot be had is left out."""
    events: list[Mapping[str, Any]] = []
    for name in names:
        try:
            events += client.story(name)[-_EVENTS:]
        except Trouble:
            continue
    return events


def figures(seen: Seen) -> Mapping[str, float | None]:
    """The numbers on top."""
    rates = seen.rates.values()
    requests = sum(one["requests"] or 0 for one in rates)
    failed = sum(one["failed"] or 0 for one in rates)
    variants = [v for one in seen.endpoints for v in one.get("variants", ())]
    return {
        "endpoints": len(seen.endpoints),
        "in_service": sum(one["status"] == "InService" for one in seen.endpoints),
        "ready": sum(v["ready"] for v in variants),
        "desired": sum(v["desired"] for v in variants),
        "rate": requests / 60,
        "errors": failed / requests if requests else None,
        "p99": max((one["p99"] for one in rates if one["p99"] is not None), default=None),
        "alarms": sum(alarm.get("StateValue") == "ALARM" for alarm in seen.alarms),
        **seen.host,
    }


class Overview:
    """The live parts of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        ui.html(
            tag(
                "div",
                tag("h1", "Overview"),
                tag("span", class_="spacer"),
                views.pager("Deploy a model", "deploy"),
                class_="head",
            ),
            sanitize=False,
        )
        self._figures = Live(note("Loading …"))
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Endpoints"), sanitize=False)
            self._endpoints = Live(note("Loading …"))
        self._chart = Chart(frame, "Requests", "per second, by endpoint")
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Alarms"), sanitize=False)
            self._alarms = Live(note("Loading …"))
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "What happened lately"), sanitize=False)
            self._lately = Live(note("Loading …"))

    async def refresh(self) -> None:
        """Ask again and show it."""
        client = self._frame.client
        seen: Seen = await self._frame.ask(lambda: look(client))
        self._figures.show(views.load_of(figures(seen)))
        beyond = len(seen.endpoints) - ENDPOINTS_MAX
        left_out = note(f"The load of {beyond} endpoints beyond {ENDPOINTS_MAX} is not in these figures.", "error")
        self._endpoints.show(join([left_out if beyond > 0 else "", views.endpoints_table(seen.endpoints, seen.rates)]))
        self._chart.show(list(seen.drawn), seen.span, "No endpoint was asked in the last 15 minutes.")
        self._alarms.show(views.alarms_table(seen.alarms, seen.now_ms))
        self._lately.show(views.lately(views.weighty(seen.events), seen.now_ms))


def register(desk: Desk) -> None:
    """The page at /console."""

    async def page(request: Any) -> None:
        with framed(desk, request, "Overview", ()) as frame:
            await frame.live(Overview(frame).refresh, 3.0)

    place("/", page)

"""What endpoints and jobs cost: now, over a time, by request, from the metrics of Eyrie/Costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from eyrie.console import charts, costs_views, measures
from eyrie.console.charts import Series
from eyrie.console.client import Client
from eyrie.console.costs_views import NAMESPACE, Dimensions, Payer
from eyrie.console.desk import Desk
from eyrie.console.endpoint_live import Choice
from eyrie.console.frame import Chart, Frame, Live, framed
from eyrie.console.markup import note, tag
from eyrie.console.measures import Measure
from eyrie.console.pages import place

HERE = ("costs",)
PAYERS_MAX = 100  # that the page asks for
DRAWN_MAX = 6  # by name; the rest together
SPANS = (("1 h", 60.0), ("6 h", 360.0), ("1 day", 1440.0), ("1 week", 10_080.0), ("30 days", 43_200.0))
MONTH_MINUTES = 43_200.0
_RECENT_MINUTES = 4.0  # in which a rate is one of now
_MINUTE_MS = 60_000.0


def register(desk: Desk) -> None:
    """The page at /console/costs."""

    async def page(request: Any) -> None:
        with framed(desk, request, "Costs", HERE) as frame:
            ui.html(tag("div", tag("h1", "Costs"), class_="head"), sanitize=False)
            await frame.live(Costs(frame).refresh, 10.0)

    place("/costs", page)


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the page shows."""

    payers: Sequence[Payer]
    rates: Sequence[tuple[Dimensions, charts.Points]]  # US dollars an hour
    month_usd: float | None
    span: charts.Span


def span_of(minutes: float, now_ms: float) -> charts.Span:
    """As of any chart, but with the period that is under way, and no finer than costs are counted: a minute."""
    span = measures.span_of(minutes, now_ms)
    period_ms = max(span.period_ms, _MINUTE_MS)
    end_ms = now_ms // period_ms * period_ms + period_ms
    return charts.Span(end_ms - minutes * _MINUTE_MS, end_ms, period_ms)


def look(client: Client, minutes: float) -> Seen:
    """Ask for everything. Raises Trouble."""
    now_ms = time.time() * 1000
    listed = client.every("cloudwatch", "list_metrics", "Metrics", Namespace=NAMESPACE, MetricName="Cost")
    known = costs_views.leaves(listed)[:PAYERS_MAX]
    span, recent = span_of(minutes, now_ms), span_of(_RECENT_MINUTES, now_ms)
    spent = client.measured([Measure(NAMESPACE, "Cost", "Sum", one) for one in known], span)
    asked = client.measured([Measure(measures.INVOKED, "Invocations", "Sum", one) for one in known], span)
    pace = client.measured([Measure(NAMESPACE, "CostPerHour", "Average", one) for one in known], recent)
    month = client.measured([Measure(NAMESPACE, "Cost", "Sum", ())], span_of(MONTH_MINUTES, now_ms))
    payers = [
        Payer(one, measures.total(spent[at]), measures.latest(pace[at], recent), measures.total(asked[at]))
        for at, one in enumerate(known)
    ]
    hours = span.period_ms / 3_600_000
    rates = [(one, [(ms, usd / hours) for ms, usd in spent[at]]) for at, one in enumerate(known) if spent[at]]
    return Seen(payers, rates, measures.total(month[0]) if month[0] else None, span)


def drawn(rates: Sequence[tuple[Dimensions, charts.Points]]) -> list[Series]:
    """The dearest by name, the others together, as stacked bars."""
    ordered = sorted(rates, key=lambda each: -measures.total(each[1]))
    series = [
        Series(" ".join(value for _, value in one), points, kind="bar", stack="all")
        for one, points in ordered[:DRAWN_MAX]
    ]
    rest: dict[float, float] = {}
    for _, points in ordered[DRAWN_MAX:]:
        for ms, usd in points:
            rest[ms] = rest.get(ms, 0.0) + usd
    if rest:
        series.append(Series("others", sorted(rest.items()), kind="bar", stack="all"))
    return series


class Costs:
    """The live parts of the page."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._minutes = frame, 60.0
        self._figures = Live(note("Loading …"))
        Choice("Time shown", SPANS, self._minutes, self._choose)
        self._chart = Chart(frame, "Costs", "US dollars an hour, by variant or job", tall=True)
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Who costs what"), sanitize=False)
            self._payers = Live(note("Loading …"))

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, minutes = self._frame.client, self._minutes
        seen: Seen = await self._frame.ask(lambda: look(client, minutes))
        if minutes != self._minutes:
            return
        self._figures.show(costs_views.head(seen.payers, seen.month_usd))
        self._chart.show(drawn(seen.rates), seen.span, "Nothing cost anything in this time.")
        self._payers.show(costs_views.payers_table(seen.payers))

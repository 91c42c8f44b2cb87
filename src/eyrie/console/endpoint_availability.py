"""How available an endpoint was, by the minute: objective, error budget, burn rates, outages, maintenance."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from nicegui import ui

from eyrie.console import availability_views, charts, measures
from eyrie.console.charts import Series
from eyrie.console.client import Client
from eyrie.console.endpoint_live import SPANS, Choice
from eyrie.console.frame import Chart, Frame, Live
from eyrie.console.markup import note, tag
from eyrie.console.measures import Measure

NAMESPACE = "Eyrie/Availability"
MONTH, QUARTER = 30, 90  # days
_MINUTE_MS = 60_000.0


class Availability:
    """The section of an endpoint's page."""

    every_s = 5.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name, self._minutes = frame, name, 60.0
        self._figures = Live(note("Loading …"))
        Choice("Time shown", SPANS[2:], self._minutes, self._choose)
        with ui.element("div").classes("grid"):
            self._share = Chart(frame, "Availability", "percent of each minute")
            self._budget = Chart(frame, "Error budget left", "percent of 30 days'")
            self._rates = Chart(frame, "Burn rate", "by window")
        self._places = {}
        for title in ("Over 30 and 90 days", "How fast the budget goes", "Outages", "Maintenance and probe"):
            with ui.element("section").classes("card").style("margin-top: 16px"):
                ui.html(tag("h2", title), sanitize=False)
                self._places[title] = Live(note("Loading …"))

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name, minutes = self._frame.client, self._name, self._minutes
        month, quarter, points, span = await self._frame.ask(lambda: look(client, name, minutes))
        self._figures.show(availability_views.head(month))
        shown = (
            availability_views.terms(month, quarter),
            availability_views.burning(month),
            availability_views.outages(month),
            availability_views.planned(month),
        )
        for place, html in zip(self._places.values(), shown, strict=True):
            place.show(html)
        share = [Series("observed", points[0]), charts.level("objective", month["objective"]["percent"], span)]
        self._share.show(share if points[0] else [], span, "No minute of this time was seen.", top=100.0)
        self._budget.show([Series("", points[1])], span, "No minute of this time was seen.", top=100.0)
        rates = [Series("1 hour", points[2]), Series("6 hours", points[3])]
        self._rates.show(rates, span, "No minute of this time was seen.")


def look(client: Client, name: str, minutes: float) -> tuple[dict[str, Any], dict[str, Any], list[charts.Points], Any]:
    """What Eyrie tells of 30 and of 90 days, and the metrics of a time. Raises Trouble."""
    path = f"/eyrie/availability/{quote(name, safe='')}"
    month, quarter = (client.own(f"{path}?days={days}") for days in (MONTH, QUARTER))
    span = measures.span_of(minutes, time.time() * 1000)
    if span.period_ms < _MINUTE_MS:
        span = charts.Span(span.start_ms, span.end_ms, _MINUTE_MS)
    own = (("EndpointName", name),)
    wanted = [
        Measure(NAMESPACE, "Availability", "Average", own),
        Measure(NAMESPACE, "ErrorBudgetRemaining", "Minimum", own),
        *(Measure(NAMESPACE, "BurnRate", "Maximum", (*own, ("Window", window))) for window in ("1h", "6h")),
    ]
    return month, quarter, client.measured(wanted, span), span

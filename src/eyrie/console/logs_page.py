"""Queries over logs: Logs Insights, with its answer as a table, and as a chart where it is one of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from nicegui import ui

from eyrie.console import charts
from eyrie.console.charts import Series
from eyrie.console.client import Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.endpoint_live import SPANS, Choice
from eyrie.console.frame import Chart, Frame, Live, button, field, framed
from eyrie.console.markup import note, table, tag
from eyrie.console.pages import place

QUERY = 'filter kind = "second"\n| stats sum(requests) as requests, sum(errors5xx) as errors by bin(10s)'
LINES = "fields @timestamp, @logStream, @message\n| sort @timestamp desc\n| limit 100"
ROWS_MAX = 1_000
_POLL_S = 0.2
_PATIENCE_S = 65.0


def register(desk: Desk) -> None:
    """The page at /console/logs."""

    async def page(request: Any) -> None:
        with framed(desk, request, "Logs", ("logs",)) as frame:
            ui.html(tag("div", tag("h1", "Queries over logs"), class_="head"), sanitize=False)
            await frame.live(Queries(frame).refresh, 30.0)

    place("/logs", page)


def groups_of(client: Client) -> list[str]:
    """The log groups that there are. Raises Trouble."""
    return [str(one["logGroupName"]) for one in client.every("logs", "describe_log_groups", "logGroups", most=500)]


def rows_of(results: Sequence[Sequence[dict[str, str]]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a query's results; @ptr is nothing for people."""
    columns = list(dict.fromkeys(cell["field"] for row in results for cell in row if cell["field"] != "@ptr"))
    rows = [{cell["field"]: cell.get("value", "") for cell in row} for row in results]
    return columns, [[row.get(column, "") for column in columns] for row in rows]


def over_time(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Series]:
    """Series, where a column is a bin of time: one a number column and value of the other columns."""
    when = next((at for at, name in enumerate(columns) if name.startswith("bin(")), None)
    if when is None:
        return []
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        ms = moment(row[when])
        if ms is None:
            return []
        words = [cell for at, cell in enumerate(row) if at != when and number(cell) is None and cell]
        for at, cell in enumerate(row):
            value = number(cell)
            if at != when and value is not None:
                found.setdefault(" ".join([*words, columns[at]]), []).append((ms, value))
    return [Series(name, sorted(points)) for name, points in sorted(found.items())[:12]]


def moment(text: str) -> float | None:
    """The time that a cell tells, in milliseconds."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000


def number(text: str) -> float | None:
    """The number that a cell tells."""
    try:
        return float(text)
    except ValueError:
        return None


class Queries:
    """The group, the query, and what it found."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._minutes = 60.0
        with ui.element("section").classes("card"):
            self._group = ui.select([], label="Log group").props("outlined dense").classes("grow")
            ui.element("div").style("height: 10px")
            self._query = field("Query (Logs Insights)", QUERY, lines=5, classes="coded")
            ui.element("div").style("height: 12px")
            with ui.element("div").classes("buttons"):
                button("Run", self.run, "main")
                button("Example: load by second", lambda: self._query.set_value(QUERY))
                button("Example: newest lines", lambda: self._query.set_value(LINES))
        Choice("Time searched", SPANS, self._minutes, self._choose)
        self._chart = Chart(frame, "Over time", tall=True)
        with ui.element("section").classes("card"):
            self._said = Live(note("Choose a group and run a query."))
            self._rows = Live()
        self._chart.hide()

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes

    async def refresh(self) -> None:
        """The groups that can be chosen. Raises Trouble."""
        client = self._frame.client
        groups = await self._frame.ask(lambda: groups_of(client))
        chosen = (
            self._group.value
            if self._group.value in groups
            else next((g for g in groups if g.startswith("/eyrie/")), groups[0] if groups else None)
        )
        self._group.set_options(groups, value=chosen)

    async def run(self) -> None:
        """Start the query, and show what it finds until it is done."""
        if not self._group.value:
            self._said.show(note("There is no log group yet: an endpoint makes one.", "error"))
            return
        client, end_s = self._frame.client, int(time.time())
        params = {
            "logGroupName": self._group.value,
            "queryString": str(self._query.value),
            "startTime": int(end_s - self._minutes * 60),
            "endTime": end_s,
        }
        began = time.monotonic()
        self._said.show(note("The query runs …"))
        self._rows.show("")
        self._chart.hide()
        try:
            query = (await self._frame.ask(lambda: client.call("logs", "start_query", **params)))["queryId"]
            while time.monotonic() - began < _PATIENCE_S:
                found = await self._frame.ask(lambda: client.call("logs", "get_query_results", queryId=query))
                if found["status"] not in ("Running", "Scheduled"):
                    break
                await asyncio.sleep(_POLL_S)
        except Trouble as trouble:
            self._said.show(note(str(trouble), "error"))
            return
        self._show(found)

    def _show(self, found: dict[str, Any]) -> None:
        columns, rows = rows_of(found["results"])
        searched = found.get("statistics", {})
        matched, scanned = (int(searched.get(name, 0)) for name in ("recordsMatched", "recordsScanned"))
        said = f"{found['status']}: {len(rows)} rows; {matched} of {scanned} lines matched."
        self._said.show(note(said))
        self._rows.show(
            table("What the query found", columns or ["Nothing"], rows[:ROWS_MAX], empty="Nothing was found.")
        )
        series = over_time(columns, rows)
        if series:
            now_ms = time.time() * 1000
            times = sorted({ms for one in series for ms, _ in one.points})
            apart = min((after - before for before, after in pairwise(times)), default=10_000.0)
            self._chart.show(series, charts.Span(now_ms - self._minutes * 60_000, now_ms, apart))
        else:
            self._chart.hide()

"""Who changed what: calls that changed something, and those that were refused, from the log group of the audit.

The group is written by control (`control/audit.py`); this page is a client of the logs API, like any other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nicegui import ui

from eyrie.console.client import Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.endpoint_live import Choice
from eyrie.console.frame import Frame, Live, button, field, framed
from eyrie.console.markup import Html, chip, note, since, table, tag
from eyrie.console.pages import place

GROUP = "/eyrie/audit"
ROWS_MAX = 200
_SPANS = (("1 h", 60.0), ("1 day", 1_440.0), ("1 week", 10_080.0), ("90 days", 129_600.0))
_ASKED_CHARS_MAX = 2_000
_NAMES = ("EndpointName", "ResourceId", "TransformJobName", "AlarmName", "DashboardName", "logGroupName", "Name")
COLUMNS = ("When", "What", "On", "By", "Outcome")


def register(desk: Desk) -> None:
    """The page at /console/audit."""

    async def page(request: Any) -> None:
        with framed(desk, request, "Audit", ("audit",)) as frame:
            ui.html(tag("div", tag("h1", "Audit"), class_="head"), sanitize=False)
            await frame.live(Audit(frame).refresh, 5.0)

    place("/audit", page)


class Audit:
    """The calls of a time, the newest first, with a search."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._minutes = frame, 1_440.0
        with ui.element("section").classes("card"):
            said = "Every call that changed something, or was refused, and whose key signed it. "
            said += "What Eyrie decides by itself is among the events."
            ui.html(tag("p", said, class_="hint"), sanitize=False)
            with ui.element("div").classes("inputs"):
                self._words = field("Only calls with (a name, a key, an operation)", classes="grow")
                self._words.on("keydown.enter", self.refresh)
                button("Search", self.refresh, "main")
            ui.element("div").style("height: 10px")
            Choice("Time searched", _SPANS, self._minutes, self._choose)
            self._rows = Live(note("Loading …"))

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, words, now_ms = self._frame.client, str(self._words.value or "").strip(), time.time() * 1000
        since_ms = now_ms - self._minutes * 60_000
        deeds = await self._frame.ask(lambda: deeds_of(client, words, since_ms))
        empty = "No call in this time has that." if words else "Nothing was changed in this time."
        self._rows.show(deeds_table(deeds, now_ms, empty))


def pattern_of(words: str) -> str:
    """A filter pattern of CloudWatch Logs for lines that have these words, as they are."""
    return " ".join(json.dumps(word) for word in words.replace('"', " ").split())


def deeds_of(client: Client, words: str, since_ms: float) -> list[Mapping[str, Any]]:
    """Calls, oldest first. Raises Trouble."""
    try:
        lines = client.newest_lines(GROUP, ROWS_MAX, pattern_of(words), since_ms)
    except Trouble as trouble:
        if trouble.code == "ResourceNotFoundException":  # nothing was changed since there is an Eyrie here
            return []
        raise
    return [found for line in lines if (found := _read(str(line["message"]))) is not None]


def _read(line: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return {**found, "line": line} if isinstance(found, dict) and "eventName" in found else None


def deeds_table(deeds: Sequence[Mapping[str, Any]], now_ms: float, empty: str) -> Html:
    """A row a call, the newest first."""
    rows = []
    for deed in reversed(deeds):
        asked = deed.get("requestParameters") or {}
        service = str(deed.get("eventSource", "")).removesuffix(".amazonaws.com")
        told = json.dumps(asked, indent=1)[:_ASKED_CHARS_MAX]
        details = tag("details", tag("summary", "What was asked for"), tag("pre", told, class_="body")) if asked else ""
        rows.append(
            (
                when(deed, now_ms),
                tag("div", tag("b", deed["eventName"]), tag("div", service, class_="hint"), details),
                subject(asked, str(deed["eventName"])),
                tag("code", deed.get("userIdentity", {}).get("accessKeyId", "")),
                outcome(deed),
            )
        )
    return table("Calls that changed something", COLUMNS, rows, empty=empty)


def when(deed: Mapping[str, Any], now_ms: float) -> Html:
    """When a call came."""
    try:
        at = datetime.fromisoformat(str(deed.get("eventTime")))
    except ValueError:
        return Html("")
    return since(at.timestamp() * 1000, now_ms)


def outcome(deed: Mapping[str, Any]) -> Html:
    """What came of a call, in words."""
    code = deed.get("errorCode")
    if not code:
        return chip("OK", "done")
    words = f"{code}: {deed.get('errorMessage', '')}"[:300]
    return tag("div", chip("Failed", "refused"), tag("div", words, class_="hint"))


def subject(asked: Mapping[str, Any], operation: str) -> str:
    """What a call was about, as its parameters name it; of Eyrie's own paths their end."""
    if operation.startswith(("POST ", "PUT ", "DELETE ")):
        return operation.rpartition("/")[2]
    of_noun = next(
        (str(value) for name, value in asked.items() if name.endswith("Name") and name[:-4] in operation), ""
    )
    return of_noun or next((str(asked[name]) for name in _NAMES if asked.get(name)), "")

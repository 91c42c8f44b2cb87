"""How available an endpoint was, in HTML. Pure functions of what Eyrie told of its minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.console import shown
from eyrie.console.markup import Html, chip, facts, figures, join, note, table, tag

Row = Mapping[str, Any]
OUTAGES_MAX = 30
_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "24h", "3d")


def percent(value: float | None) -> str:
    """A percentage with the digits that an objective has: 99.95 %. What is not quite all is never shown as all."""
    if value is None:
        return shown.NOTHING
    if 99.9995 <= value < 100:
        return ">99.999 %"
    return f"{value:.3f}".rstrip("0").rstrip(".") + " %"


def head(month: Row) -> Html:
    """The figures on top, of the last 30 days."""
    wanted, found = float(month["objective"]["percent"]), month["availability_percent"]
    left = month["budget_left_percent"]
    return figures(
        (
            ("Availability, 30 days", percent(found), "bad" if found is not None and found < wanted else ""),
            ("Objective", percent(wanted), ""),
            ("Error budget left", shown.NOTHING if left is None else f"{left:.1f} %", "bad" if (left or 0) < 0 else ""),
            ("Good requests", percent(month["good_requests_percent"]), ""),
            ("Now", "in trouble" if month["trouble"] else "well", "bad" if month["trouble"] else ""),
        )
    )


def terms(month: Row, quarter: Row) -> Html:
    """The last 30 and 90 days side by side."""
    rows = [
        ("Availability", *(percent(one["availability_percent"]) for one in (month, quarter))),
        ("Good minutes", *(percent(one["good_minutes_percent"]) for one in (month, quarter))),
        ("Good requests", *(percent(one["good_requests_percent"]) for one in (month, quarter))),
        ("Requests", *(shown.number(one["requests"]) for one in (month, quarter))),
        ("of them failed", *(shown.number(one["failed"]) for one in (month, quarter))),
        *(
            (f"Minutes, {kind}", *(shown.number(one["minutes"][kind]) for one in (month, quarter)))
            for kind in ("good", "bad", "unknown", "planned")
        ),
    ]
    since = shown.stamp(float(quarter["since_ms"]))[:16]
    said = f"On record since {since} UTC. What is unknown or planned counts neither way."
    return join([table("Availability", ("", "30 days", "90 days"), rows, (1, 2)), tag("p", said, class_="hint")])


def burning(month: Row) -> Html:
    """How fast the error budget goes, by window, and whether that rings."""
    rates = month["burn_rates"]
    rows = [(window, shown.number(rates[window])) for window in _WINDOWS if rates.get(window) is not None]
    ringing = [severity for severity, value in month["burning"].items() if value is not None and value >= 1]
    said = chip("ALARM", f"burns too fast: {', '.join(ringing)}") if ringing else chip("OK", "no alarm of its budget")
    hint = tag("p", "At 1 the budget lasts 30 days; at 14.4 an hour costs 2 % of it.", class_="hint")
    return join([said, table("Burn rates", ("Window", "Burn rate"), rows, (1,), "No window is known yet."), hint])


def outages(month: Row) -> Html:
    """When it was not available, the newest first."""
    rows = [
        (
            shown.stamp(float(one["start_ms"]))[:16],
            shown.plural(int(one["minutes"]), "minute"),
            shown.number(float(one["badness"])),
            f"{shown.number(one['failed'])} of {shown.number(one['requests'])}",
        )
        for one in list(reversed(month["outages"]))[:OUTAGES_MAX]
    ]
    columns = ("From (UTC)", "Lasted", "Of it bad, minutes", "Requests failed")
    return table("Outages", columns, rows, (2, 3), "No bad minute is on record.")


def planned(month: Row) -> Html:
    """Announced maintenance, and how the endpoint is probed."""
    windows: Sequence[Row] = month["objective"]["maintenance"]
    now = chip("Running", "in maintenance now") if month["in_maintenance"] else ""
    if not windows and not month["objective"]["probe"]:
        return note("No maintenance is announced: eyrie maintenance add ENDPOINT START LENGTH does it.")
    said: dict[str, object] = {f"Maintenance {at + 1}": _window(window) for at, window in enumerate(windows)}
    if month["objective"]["probe"]:
        said["Probe"] = f"asks the model, {month['objective']['probe']}"
    return join([now, facts(said)])


def _window(window: Row) -> str:
    """When, how long, and whether again and again."""
    again = f", every {shown.age(float(window['every_ms']))}" if window["every_ms"] else ""
    begins, lasts = shown.stamp(float(window["start_ms"]))[:16], shown.age(float(window["length_ms"]))
    return f"from {begins} UTC for {lasts}{again}"

"""What pages say, in HTML: the overview and the lists. Pure functions of what the API told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eyrie.console import shown
from eyrie.console.markup import Html, chip, figures, href, join, link, note, since, table, tag

Row = Mapping[str, Any]
LATELY_MAX = 14
SCALING = "TargetTracking-"  # how the names of alarms begin that scaling policies keep for themselves
_STEPS = (" REQUESTED in zone ", " STARTING", " DRAINING", " STOPPED")  # of an instance's life, that need no attention


def load_of(numbers: Mapping[str, float | None]) -> Html:
    """The figures on top of the overview: endpoints, in_service, ready, desired, rate, errors, p99, alarms, cpu ..."""
    endpoints, good = int(numbers["endpoints"] or 0), int(numbers["in_service"] or 0)
    ready, desired = int(numbers["ready"] or 0), int(numbers["desired"] or 0)
    errors, alarms = numbers["errors"], int(numbers["alarms"] or 0)
    return figures(
        (
            ("Endpoints in service", f"{good} of {endpoints}", "" if good == endpoints else "busy"),
            ("Instances ready", f"{ready} of {desired}", "" if ready >= desired else "busy"),
            ("Requests", shown.rate(numbers["rate"]), ""),
            ("Errors (5xx)", shown.percent(errors), "bad" if errors and errors >= 0.01 else ""),
            ("Slowest endpoint, p99", shown.latency(numbers["p99"]), ""),
            ("Alarms ringing", alarms, "bad" if alarms else ""),
            ("Cost an hour", shown.money(numbers.get("cost")), ""),
            ("Host CPU · memory", f"{shown.percent(numbers['cpu'])} · {shown.percent(numbers['memory'])}", ""),
        )
    )


def endpoints_table(endpoints: Sequence[Row], rates: Mapping[str, Row]) -> Html:
    """A row an endpoint. `rates`: by name, its rate, errors (a share) and p99 (µs)."""
    rows = []
    for one in sorted(endpoints, key=lambda e: str(e["name"])):
        load = rates.get(one["name"], {})
        fleet = [f"{v['name']} {v['ready']}/{v['desired']}" for v in one.get("variants", ())]
        rows.append(
            (
                link(one["name"], "endpoints", one["name"]),
                join([chip(one["status"]), _trouble(one.get("reason"))]),
                join([tag("div", said) for said in fleet]) if fleet else shown.NOTHING,
                shown.rate(load.get("rate")),
                shown.latency(load.get("p99")),
                shown.percent(load.get("errors")),
            )
        )
    empty = join(
        [
            "No endpoint yet. ",
            link("Deploy a model", "deploy"),
            ", or use boto3: the guide is ",
            tag("code", "docs/guides/first-endpoint.md"),
            ".",
        ]
    )
    return table("Endpoints", ("Endpoint", "Status", "Ready", "Requests", "p99", "Errors"), rows, (3, 4, 5), empty)


def _trouble(reason: object) -> Html:
    return tag("div", str(reason)[:300], class_="hint") if reason else Html("")


def alarms_table(
    alarms: Iterable[Row], now_ms: float, empty: str = "No alarm is set.", caption: str = "Alarms"
) -> Html:
    """A row an alarm, those that ring first."""
    order = {"ALARM": 0, "INSUFFICIENT_DATA": 1, "OK": 2}
    rows = [
        (
            alarm["AlarmName"],
            chip(str(alarm.get("StateValue", ""))),
            watched(alarm),
            join([str(alarm.get("StateReason", ""))[:260], " ", since_of(alarm.get("StateUpdatedTimestamp"), now_ms)]),
        )
        for alarm in sorted(alarms, key=lambda a: (order.get(str(a.get("StateValue")), 3), a["AlarmName"]))
    ]
    return table(caption, ("Alarm", "State", "Watches", "Why"), rows, empty=empty)


def own_alarms(alarms: Iterable[Row]) -> list[Row]:
    """Those that somebody set; what a scaling policy keeps rings whenever there is too much or too little."""
    return [alarm for alarm in alarms if not str(alarm["AlarmName"]).startswith(SCALING)]


def weighty(events: Iterable[Row]) -> list[Row]:
    """Events without the small steps of instances, route tables and archives."""
    kept = []
    for event in events:
        what = str(event["what"])
        small = what.startswith(("route ", "artifact ")) or (
            what.startswith("instance ") and any(step in what for step in _STEPS)
        )
        if not small:
            kept.append(event)
    return kept


def watched(alarm: Row) -> str:
    """What an alarm watches, in one line."""
    if "AlarmRule" in alarm:
        return str(alarm["AlarmRule"])
    metric = alarm.get("MetricName") or "an expression"
    signs = {
        "GreaterThanThreshold": ">",
        "GreaterThanOrEqualToThreshold": "≥",
        "LessThanThreshold": "<",
        "LessThanOrEqualToThreshold": "≤",
    }
    sign = signs.get(str(alarm.get("ComparisonOperator")), "outside of")
    stat = alarm.get("Statistic") or alarm.get("ExtendedStatistic") or ""
    threshold = shown.number(alarm["Threshold"]) if "Threshold" in alarm else "a band"
    times = alarm.get("EvaluationPeriods", 1)
    return f"{stat} {metric} {sign} {threshold}, {times} × {alarm.get('Period', '?')} s".strip()


def lately(
    events: Sequence[Row], now_ms: float, most: int = LATELY_MAX, empty: str = "Nothing has happened yet."
) -> Html:
    """What happened, newest first. Each event: at_ms, name, what, why."""
    if not events:
        return note(empty)
    newest = sorted(events, key=lambda e: float(e["at_ms"]), reverse=True)[:most]
    items = [
        tag(
            "li",
            since(float(event["at_ms"]), now_ms),
            tag(
                "p",
                join([link(event["name"], "endpoints", event["name"]), " "])
                if event.get("kind") == "Endpoint"
                else f"{event['name']} ",
                tag("b", event["what"]),
                tag("span", f" {event['why']}"[:400], class_="why") if event.get("why") else "",
            ),
        )
        for event in newest
    ]
    return tag("ol", *items, class_="timeline")


def rows_of(names: Sequence[tuple[str, str]], rows: Iterable[Row], caption: str, now_ms: float, empty: str) -> Html:
    """A table of API rows as they are: (member, heading). Times as ages, statuses as chips."""
    return table(
        caption,
        [heading for _, heading in names],
        [[_cell(row.get(name), name, now_ms) for name, _ in names] for row in rows],
        empty=empty,
    )


def _cell(value: Any, name: str, now_ms: float) -> object:
    if value is None or value == "":
        return shown.NOTHING
    if hasattr(value, "timestamp"):
        return since(value.timestamp() * 1000, now_ms)
    return chip(str(value)) if name.endswith(("Status", "StateValue")) else value


def since_of(at: Any, now_ms: float) -> Html:
    """How long ago a time of the API is; nothing where there is none."""
    return tag("span", since(at.timestamp() * 1000, now_ms), " ago", class_="hint") if at is not None else Html("")


def pager(said: str, *path: str, **query: str) -> Html:
    """A link that looks like a button."""
    return tag("a", said, href=href(*path, **query), class_="button")

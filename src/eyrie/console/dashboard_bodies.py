"""A CloudWatch dashboard's body, read into what can be drawn: metric lists with shorthands, texts, alarms. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from eyrie.console.markup import Html, tag

COLUMNS = 24
WIDGETS_MAX = 100
_ALARM_NAME = re.compile(r"arn:[^:]*:cloudwatch:[^:]*:[^:]*:alarm:(.+)")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`(.+?)`")
_LINK = re.compile(r"\[([^\]\n]+)\]\((https?://[^\s()*`]+)\)")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line of a metric widget: a query of GetMetricData, and its label. `shown`: false for what only others use;
    `named`: false for an expression without a label, whose own text is in its place."""

    query: Mapping[str, Any]
    label: str
    shown: bool = True
    named: bool = True


@dataclass(frozen=True, slots=True)
class Widget:
    """One widget: what kind, where (in 24 columns), its title, and what it is made of."""

    kind: str
    title: str
    x: int
    y: int
    width: int
    height: int
    lines: Sequence[Drawn] = ()
    view: str = "timeSeries"
    stacked: bool = False
    period_s: int = 60
    text: str = ""
    alarms: Sequence[str] = ()
    levels: Sequence[tuple[str, float]] = ()
    query: str = ""
    groups: Sequence[str] = field(default=())


def widgets(body: str) -> list[Widget]:
    """The widgets of a body, top to bottom. A body that cannot be read has none."""
    try:
        found = json.loads(body).get("widgets", [])
    except (ValueError, AttributeError):
        return []
    drawn = [_widget(one, at) for at, one in enumerate(found) if isinstance(one, dict)]
    return sorted(drawn, key=lambda w: (w.y, w.x))


def _widget(one: Mapping[str, Any], at: int) -> Widget:
    kind, properties = str(one.get("type", "")), one.get("properties") or {}
    place: dict[str, Any] = {
        "x": int(one.get("x", 0)),
        "y": int(one.get("y", at * 6)),
        "width": int(one.get("width", 6)),
        "height": int(one.get("height", 6)),
    }
    title = str(properties.get("title") or "")
    if kind == "text":
        return Widget(kind, title, **place, text=str(properties.get("markdown", "")))
    if kind == "alarm":
        names = [found[1] for arn in properties.get("alarms", ()) if (found := _ALARM_NAME.match(str(arn)))]
        return Widget(kind, title or "Alarms", **place, alarms=names)
    if kind == "log":
        query, groups = _log_query(str(properties.get("query", "")))
        return Widget(kind, title or "Query", **place, query=query, groups=groups)
    if kind == "metric":
        return _metric(title, place, properties)
    return Widget(kind, title, **place)


def _metric(title: str, place: Mapping[str, Any], properties: Mapping[str, Any]) -> Widget:
    annotations = properties.get("annotations") or {}
    alarms = [found[1] for arn in _flat(annotations.get("alarms")) if (found := _ALARM_NAME.match(str(arn)))]
    levels = [
        (str(level.get("label") or "level"), float(level["value"]))
        for level in _flat(annotations.get("horizontal"))
        if isinstance(level, dict) and isinstance(level.get("value"), int | float)
    ]
    lines = lines_of(
        properties.get("metrics") or [], str(properties.get("stat") or "Average"), int(properties.get("period") or 300)
    )
    return Widget(
        "metric",
        title or (lines[0].label if lines else " ".join(alarms) or "Metric"),
        **place,
        lines=lines,
        view=str(properties.get("view") or "timeSeries"),
        stacked=bool(properties.get("stacked")),
        period_s=int(properties.get("period") or 300),
        alarms=alarms,
        levels=levels,
    )


def _flat(given: object) -> list[object]:
    """The members of a list, and of lists in it (a band is a list of two levels); of anything else none."""
    if not isinstance(given, list):
        return []
    return [one for member in given for one in (member if isinstance(member, list) else [member])]


def with_alarms(widget: Widget, alarms: Sequence[Mapping[str, Any]]) -> Widget:
    """A metric widget with what its alarms watch: their metric and their threshold."""
    lines, levels = list(widget.lines), list(widget.levels)
    for at, alarm in enumerate(one for one in alarms if one["AlarmName"] in widget.alarms and "MetricName" in one):
        metric = {name: alarm.get(name, []) for name in ("Namespace", "MetricName", "Dimensions")}
        stat = str(alarm.get("Statistic") or alarm.get("ExtendedStatistic") or "Average")
        asked = {"Metric": metric, "Period": alarm["Period"], "Stat": stat}
        lines.append(Drawn({"Id": f"alarm{at}", "MetricStat": asked}, f"{alarm['MetricName']} {stat}"))
        levels += [(str(alarm["AlarmName"]), float(alarm["Threshold"]))] if "Threshold" in alarm else []
    return replace(widget, lines=lines, levels=levels)


def told(line: Drawn, label: str) -> str:
    """What a series is called: of those that an expression finds, each by its own label."""
    own = "" if "MetricStat" in line.query or label == line.query["Id"] else label
    return " ".join(part for part in (line.label if line.named or not own else "", own) if part)


def lines_of(metrics: Sequence[Any], stat: str, period_s: int) -> list[Drawn]:
    """The lines of a metrics list: `.` repeats what the row above has there, `...` all that it has up to the end."""
    lines: list[Drawn] = []
    above: list[str] = []
    for at, row in enumerate(metrics):
        if not isinstance(row, list) or not row:
            continue
        options = row[-1] if isinstance(row[-1], dict) else {}
        words = [str(word) for word in row if not isinstance(word, dict)]
        if not words:
            lines.append(_expression(options, at, period_s))
            continue
        words = spelled_out(words, above)
        above = words
        lines.append(_line(words, options, stat, period_s, at))
    return told_apart(lines)


def told_apart(lines: Sequence[Drawn]) -> list[Drawn]:
    """The lines, those of one label with their statistics besides."""
    labels = [line.label for line in lines]
    return [
        replace(line, label=f"{line.label} {line.query['MetricStat']['Stat']}")
        if labels.count(line.label) > 1 and "MetricStat" in line.query
        else line
        for line in lines
    ]


def spelled_out(words: Sequence[str], above: Sequence[str]) -> list[str]:
    """A row without shorthands."""
    if words[0] == "...":
        kept = len(above) - (len(words) - 1)
        return [*above[: max(0, kept)], *words[1:]]
    return [above[at] if word == "." and at < len(above) else word for at, word in enumerate(words)]


def _line(words: Sequence[str], options: Mapping[str, Any], stat: str, period_s: int, at: int) -> Drawn:
    dimensions = [{"Name": words[i], "Value": words[i + 1]} for i in range(2, len(words) - 1, 2)]
    metric: dict[str, Any] = {
        "Namespace": words[0],
        "MetricName": words[1] if len(words) > 1 else "",
        "Dimensions": dimensions,
    }
    query = {
        "Id": str(options.get("id") or f"line{at}"),
        "MetricStat": {
            "Metric": metric,
            "Period": int(options.get("period") or period_s),
            "Stat": str(options.get("stat") or stat),
        },
    }
    label = str(options.get("label") or " ".join([metric["MetricName"], *(d["Value"] for d in dimensions)]))
    return Drawn(query, label, bool(options.get("visible", True)))


def _expression(options: Mapping[str, Any], at: int, period_s: int) -> Drawn:
    said = str(options.get("expression", ""))
    query = {
        "Id": str(options.get("id") or f"line{at}"),
        "Expression": said,
        "Period": int(options.get("period") or period_s),
    }
    label = str(options.get("label") or "")
    return Drawn(query, label or said, bool(options.get("visible", True)), bool(label))


def _log_query(text: str) -> tuple[str, list[str]]:
    """`SOURCE 'a' | SOURCE 'b' | query` as the query and its groups."""
    groups: list[str] = []
    parts = [part.strip() for part in text.split("|")]
    while parts and parts[0].upper().startswith("SOURCE"):
        groups += re.findall(r"'([^']+)'", parts.pop(0))
    return " | ".join(parts), groups


def markdown(source: str) -> Html:
    """The little Markdown that dashboards use: headings, lists, links, bold, code; everything else as it stands."""
    parts: list[object] = []
    items: list[Html] = []
    for line in [*source.splitlines(), ""]:
        plain = line.strip()
        if plain.startswith(("- ", "* ")):
            items.append(tag("li", _inline(plain[2:])))
            continue
        if items:
            parts.append(tag("ul", *items))
            items = []
        depth = len(plain) - len(plain.lstrip("#"))
        if 0 < depth <= 6 and plain[depth : depth + 1] == " ":
            parts.append(tag(f"h{min(6, depth + 1)}", _inline(plain[depth + 1 :])))
        elif plain:
            parts.append(tag("p", _inline(plain)))
    return tag("div", *parts, class_="markdown")


def _inline(said: str) -> Html:
    linked = _LINK.sub(r'<a href="\2" rel="noreferrer">\1</a>', escape(said))
    return Html(_CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<b>\1</b>", linked)))

"""What is wrong with the body of a CloudWatch dashboard, each fault with its place in the JSON. Pure.

A fault is an error where nothing could be drawn (a property that is missing or of another kind), and only a warning
where what is written has no meaning and the rest can be drawn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDGETS_MAX = 500
METRICS_MAX = 500  # of a widget
ALARMS_MAX = 100
COLUMNS = 24
HEIGHT_MAX = 1000
_VIEWS = ("timeSeries", "singleValue", "gauge", "bar", "pie", "table")
_LOG_VIEWS = ("table", "timeSeries", "bar", "pie")
_RELATIVE = re.compile(r"-P(?=.)(\d+[YMWD])*(T(\d+[HMS])+)?")
_ABSOLUTE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
_ZONE = re.compile(r"[+-]\d{4}")
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")
_ARN = re.compile(r"arn:aws[a-z-]*:cloudwatch:[^:]*:\d{12}:alarm:.+")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong. `path` is as CloudWatch writes it: /widgets/0/properties/region."""

    path: str
    message: str
    fatal: bool = True


Faults = Iterator[Fault]
Kind = tuple[type | tuple[type, ...], str]
_TEXT: Kind = (str, "string")
_FLAG: Kind = (bool, "boolean")
_NUMBER: Kind = ((int, float), "number")
_WHOLE: Kind = (int, "integer")
_OBJECT: Kind = (dict, "object")
_LIST: Kind = (list, "array")

_METRIC = {
    "accountId": _TEXT, "annotations": _OBJECT, "labels": _OBJECT, "legend": _OBJECT, "liveData": _FLAG,
    "metrics": _LIST, "period": _WHOLE, "region": _TEXT, "setPeriodToTimeRange": _FLAG,
    "singleValueFullPrecision": _FLAG, "sparkline": _FLAG,
    "stacked": _FLAG, "start": _TEXT, "end": _TEXT, "stat": _TEXT, "table": _OBJECT,
    "timezone": _TEXT, "title": _TEXT, "trend": _FLAG, "view": _TEXT, "yAxis": _OBJECT,
}  # fmt: skip
_PROPERTIES: Mapping[str, Mapping[str, Kind]] = {
    "metric": _METRIC,
    "text": {"markdown": _TEXT, "background": _TEXT},
    "log": {
        "accountId": _TEXT, "query": _TEXT, "queryLanguage": _TEXT, "region": _TEXT, "stacked": _FLAG, "title": _TEXT,
        "view": _TEXT,
    },
    "alarm": {"alarms": _LIST, "sortBy": _TEXT, "states": _LIST, "title": _TEXT},
    "explorer": {
        "aggregateBy": _OBJECT, "labels": _LIST, "metrics": _LIST, "period": _WHOLE, "region": _TEXT, "splitBy": _TEXT,
        "title": _TEXT, "widgetOptions": _OBJECT,
    },
    "custom": {"endpoint": _TEXT, "params": _OBJECT, "title": _TEXT, "updateOn": _OBJECT},
}  # fmt: skip
_REQUIRED = {
    "metric": ("region",),
    "text": ("markdown",),
    "log": ("query", "region"),
    "alarm": ("alarms",),
    "explorer": ("metrics", "labels"),
    "custom": ("endpoint",),
}
_RENDERING = {
    "accountId": _TEXT, "color": _TEXT, "expression": _TEXT, "id": _TEXT, "label": _TEXT, "period": _WHOLE,
    "region": _TEXT, "stat": _TEXT, "visible": _FLAG, "yAxis": _TEXT,
}  # fmt: skip
_BODY = {"start": _TEXT, "end": _TEXT, "periodOverride": _TEXT, "variables": _LIST, "widgets": _LIST}
_WIDGET = {"type": _TEXT, "x": _WHOLE, "y": _WHOLE, "width": _WHOLE, "height": _WHOLE, "properties": _OBJECT}


def faults(body: object) -> list[Fault]:
    """Everything that is wrong with a parsed body."""
    if not isinstance(body, dict):
        return [Fault("", "The dashboard body must be a JSON object")]
    found = [*_object("", body, _BODY, ("widgets",)), *_span("", body)]
    found += _chosen("", body, "periodOverride", ("auto", "inherit"))
    widgets = body.get("widgets")
    if isinstance(widgets, list):
        if len(widgets) > WIDGETS_MAX:
            found.append(Fault("/widgets", f"Should NOT have more than {WIDGETS_MAX} items"))
        for place, widget in enumerate(widgets[:WIDGETS_MAX]):
            found += _widget(f"/widgets/{place}", widget)
    return found


def _object(path: str, given: Mapping[str, Any], known: Mapping[str, Kind], required: Sequence[str] = ()) -> Faults:
    """Names and kinds of an object's properties."""
    for name in required:
        if name not in given:
            yield Fault(path, f"Should have required property '{name}'")
    for name, value in given.items():
        kind = known.get(name)
        if kind is None:
            yield Fault(f"{path}/{name[:64]}", "Should NOT have additional properties", fatal=False)
        elif not _is(value, kind):
            yield Fault(f"{path}/{name}", f"Should be {kind[1]}")


def _is(value: object, kind: Kind) -> bool:
    return isinstance(value, kind[0]) and (kind is _FLAG or not isinstance(value, bool))


def _chosen(path: str, given: Mapping[str, Any], name: str, values: Sequence[str]) -> Faults:
    value = given.get(name)
    if isinstance(value, str) and value not in values:
        yield Fault(f"{path}/{name}", f"Should be equal to one of the allowed values: {', '.join(values)}")


def _within(path: str, given: Mapping[str, Any], name: str, low: int, high: int | None) -> Faults:
    value = given.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < low:
            yield Fault(f"{path}/{name}", f"Should be >= {low}")
        elif high is not None and value > high:
            yield Fault(f"{path}/{name}", f"Should be <= {high}")


def _span(path: str, given: Mapping[str, Any]) -> Faults:
    """A beginning, and an end that needs it."""
    start, end = given.get("start"), given.get("end")
    if "end" in given and "start" not in given:
        yield Fault(path, "Should have required property 'start' where 'end' is given")
    if isinstance(start, str) and not (_RELATIVE.fullmatch(start) or _ABSOLUTE.fullmatch(start)):
        yield Fault(f"{path}/start", "Should be a time in ISO 8601, or one relative to now such as -PT3H")
    if isinstance(end, str) and not _ABSOLUTE.fullmatch(end):
        yield Fault(f"{path}/end", "Should be a time in ISO 8601")


def _widget(path: str, widget: object) -> Faults:
    if not isinstance(widget, dict):
        yield Fault(path, "Should be object")
        return
    yield from _object(path, widget, _WIDGET, ("type", "properties"))
    yield from _within(path, widget, "x", 0, COLUMNS - 1)
    yield from _within(path, widget, "y", 0, None)
    yield from _within(path, widget, "width", 1, COLUMNS)
    yield from _within(path, widget, "height", 1, HEIGHT_MAX)
    if ("x" in widget) != ("y" in widget):
        yield Fault(path, f"Should have required property '{'y' if 'x' in widget else 'x'}'")
    kind, given = widget.get("type"), widget.get("properties")
    if isinstance(kind, str) and kind not in _PROPERTIES:
        yield from _chosen(path, widget, "type", tuple(_PROPERTIES))
    elif isinstance(kind, str) and isinstance(given, dict):
        below = f"{path}/properties"
        yield from _object(below, given, _PROPERTIES[kind], _REQUIRED[kind])
        yield from _CHECKS[kind](below, given)


def _metric(path: str, given: Mapping[str, Any]) -> Faults:
    annotations = given.get("annotations")
    alarms = annotations.get("alarms") if isinstance(annotations, dict) else None
    if "metrics" not in given and not alarms:
        yield Fault(path, "Should have required property 'metrics'")
    yield from _chosen(path, given, "view", _VIEWS)
    yield from _period(path, given)
    yield from _span(path, given)
    zone = given.get("timezone")
    if isinstance(zone, str) and not _ZONE.fullmatch(zone):
        yield Fault(f"{path}/timezone", 'Should match pattern "[+-]HHMM"')
    legend, axes = given.get("legend"), given.get("yAxis")
    if isinstance(legend, dict):
        yield from _chosen(f"{path}/legend", legend, "position", ("right", "bottom", "hidden"))
    if given.get("view") == "gauge" and not _bounded(axes):
        yield Fault(f"{path}/yAxis", "A gauge needs yAxis.left with min and max")
    metrics = given.get("metrics")
    if isinstance(metrics, list):
        if not 1 <= len(metrics) <= METRICS_MAX:
            yield Fault(f"{path}/metrics", f"Should have 1 to {METRICS_MAX} items")
        yield from _series(f"{path}/metrics", metrics[:METRICS_MAX])


def _bounded(axes: object) -> bool:
    left = axes.get("left") if isinstance(axes, dict) else None
    return isinstance(left, dict) and _is(left.get("min"), _NUMBER) and _is(left.get("max"), _NUMBER)


def _period(path: str, given: Mapping[str, Any]) -> Faults:
    period = given.get("period")
    if not isinstance(period, int) or isinstance(period, bool) or period in (1, 5, 10, 20, 30):
        return
    if period < 60 or period % 60:
        yield Fault(f"{path}/period", "Should be 1, 5, 10, 20, 30 or a multiple of 60")


def _series(path: str, metrics: Sequence[object]) -> Faults:
    """Rows of [namespace, name, dimension, value, ..., {rendering}]; "." repeats the row above at its place, "..." the
    rest of it.
    """
    above: Sequence[object] = ()
    ids: set[object] = set()
    for place, row in enumerate(metrics):
        here = f"{path}/{place}"
        if not isinstance(row, list) or not row:
            yield Fault(here, "Should be a non-empty array")
            continue
        rendering = row[-1] if isinstance(row[-1], dict) else {}
        names = row[:-1] if isinstance(row[-1], dict) else row
        yield from _rendering(f"{here}/{len(row) - 1}", rendering, alone=not names)
        if rendering.get("id") in ids:
            yield Fault(f"{here}/{len(row) - 1}/id", "Should be unique among the metrics of a widget")
        ids |= {rendering["id"]} if isinstance(rendering.get("id"), str) else set()
        if names:
            yield from _names(here, names, above)
        if names and "..." not in names:
            above = [a if n == "." else n for n, a in zip(names, [*above, *names[len(above) :]], strict=False)]


def _rendering(path: str, given: Mapping[str, Any], alone: bool) -> Faults:
    yield from _object(path, given, _RENDERING, ("expression",) if alone else ())
    yield from _chosen(path, given, "yAxis", ("left", "right"))
    yield from _period(path, given)
    name = given.get("id")
    if isinstance(name, str) and not _ID.fullmatch(name):
        yield Fault(f"{path}/id", "Should be letters, digits and _, beginning in lower case")


def _names(path: str, names: Sequence[object], above: Sequence[object]) -> Faults:
    if not all(isinstance(name, str) for name in names):
        yield Fault(path, "Should be strings, with at most one object at the end")
        return
    if "..." in names:
        if not above:
            yield Fault(path, "'...' needs a metric above it")
        return
    if "." in names and len(above) < max(place for place, name in enumerate(names) if name == ".") + 1:
        yield Fault(path, "'.' needs a metric above it that has something at this place")
    if len(names) < 2 or len(names) % 2:
        yield Fault(path, "Should be a namespace, a metric's name, and a value for each dimension's name")


def _text(path: str, given: Mapping[str, Any]) -> Faults:
    yield from _chosen(path, given, "background", ("solid", "transparent"))


def _log(path: str, given: Mapping[str, Any]) -> Faults:
    yield from _chosen(path, given, "view", _LOG_VIEWS)
    query = given.get("query")
    if isinstance(query, str) and not query.lstrip().upper().startswith("SOURCE"):
        yield Fault(f"{path}/query", "Names no log group: it should begin with SOURCE 'GROUP' |", fatal=False)


def _alarm(path: str, given: Mapping[str, Any]) -> Faults:
    yield from _chosen(path, given, "sortBy", ("default", "stateUpdatedTimestamp", "timestamp"))
    alarms = given.get("alarms")
    if isinstance(alarms, list):
        if not 1 <= len(alarms) <= ALARMS_MAX:
            yield Fault(f"{path}/alarms", f"Should have 1 to {ALARMS_MAX} items")
        for place, arn in enumerate(alarms[:ALARMS_MAX]):
            if not isinstance(arn, str) or not _ARN.fullmatch(arn):
                yield Fault(f"{path}/alarms/{place}", "Should be the ARN of an alarm")
    states = given.get("states")
    for place, state in enumerate(states if isinstance(states, list) else ()):
        if state not in ("OK", "ALARM", "INSUFFICIENT_DATA"):
            yield Fault(f"{path}/states/{place}", "Should be OK, ALARM or INSUFFICIENT_DATA")


_CHECKS: Mapping[str, Callable[[str, Mapping[str, Any]], Faults]] = {
    "metric": _metric,
    "text": _text,
    "log": _log,
    "alarm": _alarm,
    "explorer": _period,
    "custom": lambda path, given: iter(()),
}

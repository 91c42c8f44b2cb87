"""What metric filters make of log events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite

from eyrie.decide.log_pattern import Pattern, parse_pattern, property_of
from eyrie.domain.logs import MetricFilter
from eyrie.domain.metrics import Dimensions, Measured, Metric, Summary
from eyrie.domain.names import Scope

MINUTE_MS = 60_000
Made = dict[tuple[Metric, int, str], Summary]  # by metric, minute and unit


def measurements(
    scope: Scope, filters: Sequence[MetricFilter], events: Iterable[tuple[int, str]]
) -> Iterator[Measured]:
    """What events, (milliseconds, text), add to metrics: a measurement a metric and second."""
    made: Made = {}
    minutes: dict[int, bool] = {}
    read = [(put, parse_pattern(put.pattern)) for put in filters]
    for at_ms, text in events:
        minutes.setdefault(at_ms - at_ms % MINUTE_MS, True)
        for put, pattern in read:
            found = pattern.match(text)
            for transformation in put.transformations if found is not None else ():
                _add(made, scope, transformation, at_ms - at_ms % 1000, text, found or {})
    for put in filters:
        for transformation in put.transformations:
            _default(made, scope, transformation, minutes)
    for (metric, at_ms, unit), summary in made.items():
        yield Measured(metric, at_ms, summary, unit)


def _add(
    made: Made, scope: Scope, transformation: Mapping[str, object], at_ms: int, text: str, found: Mapping[str, str]
) -> None:
    value = _value(str(transformation["metricValue"]), text, found)
    dimensions = _dimensions(transformation, text, found)
    if value is None or dimensions is None:
        return
    metric = Metric(scope, str(transformation["metricNamespace"]), str(transformation["metricName"]), dimensions)
    made.setdefault((metric, at_ms, str(transformation.get("unit", "None"))), Summary()).add(value)


def _default(made: Made, scope: Scope, transformation: Mapping[str, object], minutes: Iterable[int]) -> None:
    """A minute with events of which none matched has the default value, once."""
    if "defaultValue" not in transformation:
        return
    name = Metric(scope, str(transformation["metricNamespace"]), str(transformation["metricName"]))
    matched = {at_ms - at_ms % MINUTE_MS for metric, at_ms, _ in made if metric == name}
    for minute in minutes:
        if minute not in matched:
            summary = Summary()
            summary.add(float(str(transformation["defaultValue"])))
            made[(name, minute, str(transformation.get("unit", "None")))] = summary


def _value(written: str, text: str, found: Mapping[str, str]) -> float | None:
    told = _named(written, text, found) if written.startswith("$") else written
    try:
        value = float(told) if told is not None else None
    except ValueError:
        return None
    return value if value is not None and isfinite(value) else None


def _dimensions(transformation: Mapping[str, object], text: str, found: Mapping[str, str]) -> Dimensions | None:
    """The dimensions of a measurement; None where one of them is not in the event."""
    pairs = []
    wanted = transformation.get("dimensions") or {}
    assert isinstance(wanted, Mapping)
    for name, written in wanted.items():
        value = _named(str(written), text, found)
        if not value:
            return None
        pairs.append((str(name), value[:1024]))
    return tuple(sorted(pairs))


def _named(written: str, text: str, found: Mapping[str, str]) -> str | None:
    if written in found:
        return found[written]
    return property_of(text, written) if written.startswith("$.") or written.startswith("$[") else None


def known_names(pattern: Pattern, names: Iterable[str]) -> str | None:
    """The first name that a pattern extracts nothing under, where it can be told."""
    known = pattern.variables
    for name in names:
        if "$" not in known and name not in known:
            return name
    return None

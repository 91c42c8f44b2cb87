"""`/eyrie/insights`: what is known of an endpoint gathered into the world that `decide/insights` judges.

An alarm's name means the endpoint whose metric it watches, at the time when it went off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any
from urllib.parse import unquote

from eyrie.control import alarm_table
from eyrie.control.context import Context
from eyrie.control.log_book import ENDPOINTS
from eyrie.decide.insights import Change, Insight, InstanceSeen, Kind, Signal, World, insight
from eyrie.decide.log_templates import LogPattern, mined
from eyrie.decide.statistics import statistic
from eyrie.domain.alarms import Alarm, AlarmState
from eyrie.domain.metrics import Dimensions, Metric, Summary
from eyrie.ports import Event
from eyrie.wire.errors import resource_not_found

PATH = "/eyrie/insights"
NAMESPACE = "AWS/SageMaker"
PERIOD_MS = 10_000
LOOK_BACK_MS = 3_600_000
ENDPOINTS_MAX = 50
LINES_MAX = 20_000  # of an endpoint's logs, the newest
EVENTS_MAX = 1_000
COUNT_MIN = 3  # requests in a period: a share of fewer says nothing
_ERRORS = ("Invocation5XXErrors", "Invocation4XXErrors")
_TROUBLED = re.compile(r"instance \S+ (LOST|UNKNOWN|FAILED)")
_COUNT = re.compile(r"(\S+) x (\d+) |(\S+): count (\d+)")  # of a variant, as stories of endpoints tell it


def insights(context: Context, path: str) -> dict[str, Any]:
    """The insight into the endpoint or alarm that the path names; into every endpoint where it names none."""
    name = unquote(path.removeprefix(PATH).removeprefix("/"))
    if name:
        return {"insights": [_named(context, name)]}
    endpoints = [document.name for document in context.store.scan("Endpoint", context.scope)]
    return {"insights": [_told(context, endpoint, None) for endpoint in sorted(endpoints)[:ENDPOINTS_MAX]]}


def _named(context: Context, name: str) -> dict[str, Any]:
    if context.get("Endpoint", name) is not None or context.logs.group(context.scope, ENDPOINTS + name) is not None:
        return _told(context, name, None)
    alarm = alarm_table.get(context.store, context.scope, name)
    if alarm is None:
        raise resource_not_found(f"There is no endpoint and no alarm {name!r} here.")
    endpoint = endpoint_of(context, alarm)
    if endpoint is None:
        raise resource_not_found(f"The alarm {name!r} watches no metric of an endpoint.")
    return _told(context, endpoint, alarm)


def endpoint_of(context: Context, alarm: Alarm, depth: int = 0) -> str | None:
    """The endpoint whose metric an alarm watches; of a composite one, that of any alarm that it names."""
    if alarm.metric is not None:
        found = (dict(query.stat.dimensions).get("EndpointName") for query in alarm.metric.queries if query.stat)
        return next((name for name in found if name), None)
    named = re.findall(r"ALARM\(\"?([^\")]+)\"?\)", alarm.composite.expression) if alarm.composite else []
    for name in named if depth < 8 else ():
        child = alarm_table.get(context.store, context.scope, alarm_table.name_of(name))
        endpoint = endpoint_of(context, child, depth + 1) if child is not None else None
        if endpoint is not None:
            return endpoint
    return None


def _told(context: Context, endpoint: str, alarm: Alarm | None) -> dict[str, Any]:
    found = insight(world(context, endpoint, alarm))
    return {"endpoint": endpoint, "alarm": alarm.name if alarm else None, **_as_json(found)}


def _as_json(found: Insight) -> dict[str, Any]:
    return {
        "summary": found.summary,
        "anomalies": [asdict(one) for one in found.anomalies],
        "explanations": [{**asdict(one), "kind": str(one.kind)} for one in found.explanations],
    }


def world(context: Context, endpoint: str, alarm: Alarm | None) -> World:
    """What is known of an endpoint in the last hour, or around the time when an alarm went off."""
    alarm_ms = alarm.transitioned_ms if alarm is not None and alarm.state is AlarmState.ALARM else None
    end_ms = context.now_ms if alarm_ms is None else min(context.now_ms, alarm_ms + 600_000)
    end_ms -= end_ms % PERIOD_MS
    start_ms = end_ms - LOOK_BACK_MS
    signals = list(_signals(context, endpoint, start_ms, end_ms))
    known = insight(World(context.now_ms, PERIOD_MS, signals, alarm_ms=alarm_ms))
    began_ms = known.from_ms if known.from_ms is not None else start_ms
    return World(
        now_ms=context.now_ms,
        period_ms=PERIOD_MS,
        signals=signals,
        changes=_changes(context, endpoint, start_ms),
        patterns=_patterns(context, endpoint, start_ms),
        instances=_instances(context, endpoint, (start_ms, end_ms), began_ms),
        alarm_ms=alarm_ms,
        alarm=alarm.name if alarm is not None else "",
    )


def _signals(context: Context, endpoint: str, start_ms: int, end_ms: int) -> Iterator[Signal]:
    p90 = statistic("p90")

    def series(name: str) -> Mapping[int, Summary]:
        return _series(context, name, (("EndpointName", endpoint),), start_ms, end_ms)

    for name, told, floor, gravity in (
        ("Invocation5XXErrors", "the share of requests that failed (5xx)", 0.02, 2),
        ("Invocation4XXErrors", "the share of requests that were refused (4xx)", 0.05, 1),
    ):
        shares = {
            at_ms: 100 * found.total / found.count for at_ms, found in series(name).items() if found.count >= COUNT_MIN
        }
        yield Signal(told, shares, floor * 100, " %", gravity=gravity, usual=0.0)
    for name, told in (("ModelLatency", "the model's latency (p90)"), ("OverheadLatency", "the overhead (p90)")):
        found = {at_ms: p90(summary) for at_ms, summary in series(name).items()}
        yield Signal(told, {at_ms: us / 1000 for at_ms, us in found.items() if us is not None}, 20.0, " ms")
    requests = {at_ms: found.total / (PERIOD_MS / 1000) for at_ms, found in series("Invocations").items()}
    yield Signal("requests a second", requests, 5.0, is_load=True)


def _series(
    context: Context, name: str, dimensions: Dimensions, start_ms: int, end_ms: int, period_ms: int = PERIOD_MS
) -> Mapping[int, Summary]:
    metric = Metric(context.scope, NAMESPACE, name, tuple(sorted(dimensions)))
    return context.metrics.summaries(metric, start_ms, end_ms, period_ms)


def _changes(context: Context, endpoint: str, start_ms: int) -> list[Change]:
    events = context.store.events("Endpoint", context.scope, endpoint, EVENTS_MAX)
    return [change for change in changes_of(events) if change.at_ms >= start_ms]


def changes_of(events: Sequence[Event]) -> list[Change]:
    """What was changed, or happened, by an endpoint's story; not what followed from that. A deployment is a change
    when it was asked for, and again at each step that shifts traffic.
    """
    found = []
    counts: dict[str, int] = {}
    deployed = ""
    for event in events:
        before = counts
        if event.what in ("endpoint Creating", "endpoint Updating"):
            counts = {m[1] or m[3]: int(m[2] or m[4]) for m in _COUNT.finditer(event.why.replace("(", " "))}
        if event.what == "endpoint Creating" or event.why.startswith("UpdateEndpoint from "):
            deployed = event.why
            found.append(Change(event.at_ms, Kind.DEPLOYMENT, deployed))
        elif event.what == "endpoint Updating":
            found.append(Change(event.at_ms, _resized(before, counts), event.why))
        elif event.what == "deployment SHIFTING" and deployed:
            found.append(Change(event.at_ms, Kind.DEPLOYMENT, deployed))
        elif _TROUBLED.match(event.what):
            found.append(Change(event.at_ms, Kind.LOST, event.what, event.why))
    return found


def _resized(before: Mapping[str, int], after: Mapping[str, int]) -> Kind:
    if any(after.get(name, count) < count for name, count in before.items()):
        return Kind.SCALED_IN
    return Kind.SCALED_OUT if any(count > before.get(name, count) for name, count in after.items()) else Kind.WEIGHTS


def _patterns(context: Context, endpoint: str, start_ms: int) -> list[LogPattern]:
    group = context.logs.group(context.scope, ENDPOINTS + endpoint)
    if group is None:
        return []
    names = context.logs.names(group)
    share = max(LINES_MAX // max(len(names), 1), 100)
    lines = []
    for stream in names:
        span = (start_ms - LOOK_BACK_MS, 1 << 62)
        entries = context.logs.read(group, stream, context.now_ms, span, forward=False)
        lines += [(entry.at_ms, entry.stream, entry.text) for entry in islice(entries, share)]
    return mined(lines)


def _instances(context: Context, endpoint: str, span: tuple[int, int], from_ms: int) -> list[InstanceSeen]:
    """What each instance answered since the trouble began."""
    start_ms, end_ms = span
    from_ms -= (from_ms - start_ms) % PERIOD_MS
    found = []
    for series in context.metrics.series(context.scope, NAMESPACE, "Invocations"):
        dimensions = dict(series.metric.dimensions)
        if dimensions.get("EndpointName") != endpoint or "InstanceId" not in dimensions or len(dimensions) != 3:
            continue
        answered = _series(context, "Invocations", series.metric.dimensions, start_ms, end_ms)
        since = {at_ms: summary.total for at_ms, summary in answered.items() if at_ms >= from_ms}
        if since:
            errors = sum(
                summary.total
                for name in _ERRORS
                for at_ms, summary in _series(context, name, series.metric.dimensions, start_ms, end_ms).items()
                if at_ms >= from_ms
            )
            found.append(InstanceSeen(dimensions["InstanceId"], min(answered), sum(since.values()), errors))
    return found

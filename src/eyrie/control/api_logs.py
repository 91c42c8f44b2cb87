"""CloudWatch Logs, its reading half, over what instances print: group `/aws/sagemaker/Endpoints/NAME`, stream
`VARIANT/INSTANCE`.

Tokens name a place in time (milliseconds, and how many lines of that millisecond came before), so they hold when
files rotate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from eyrie.adapters.instance_logs import Line, Stream
from eyrie.control.context import Context, Operation, Params
from eyrie.control.log_filter import LogFilter, UnreadablePattern, parse_filter
from eyrie.domain.names import EndpointKey
from eyrie.wire.errors import ApiError

PREFIX = "/aws/sagemaker/Endpoints/"
PAGE_MAX = 50  # groups, streams
EVENTS_MAX = 10_000
REPLY_BYTES_MAX = 1_048_576  # of messages in one reply


class Entry(NamedTuple):
    """A line at its place among all lines; entries sort by time, then stream, then order in it."""

    at_ms: int
    stream: str
    ordinal: int  # among the lines of this stream and millisecond
    text: str


def operations() -> Mapping[str, Operation]:
    """The operations of CloudWatch Logs."""
    return {
        "DescribeLogGroups": describe_log_groups,
        "DescribeLogStreams": describe_log_streams,
        "GetLogEvents": get_log_events,
        "FilterLogEvents": filter_log_events,
    }


def describe_log_groups(context: Context, params: Params) -> dict[str, Any]:
    """The groups of all endpoints that there are, or whose logs there still are."""
    prefix, pattern = params.get("logGroupNamePrefix", ""), params.get("logGroupNamePattern", "")
    if prefix and pattern:
        raise _invalid("logGroupNamePrefix and logGroupNamePattern are mutually exclusive.")
    names = {d.name for d in context.store.scan("Endpoint", context.scope)}
    names |= {key.name for key in context.logs.endpoints() if key.scope == context.scope}
    groups = sorted(name for name in (PREFIX + n for n in names) if name.startswith(prefix) and pattern in name)
    wanted = {_group_name(identifier) for identifier in params.get("logGroupIdentifiers", [])}
    shown, token = _page([g for g in groups if not wanted or g in wanted], params)
    return _with_token({"logGroups": [_group(context, name) for name in shown]}, token)


def describe_log_streams(context: Context, params: Params) -> dict[str, Any]:
    """The streams of a group, by name or by the time of their last event."""
    by_time = params.get("orderBy") == "LastEventTime"
    prefix = params.get("logStreamNamePrefix", "")
    if by_time and prefix:
        raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    group, streams = _streams(context, params)
    described = {s.name: _described(context, group, s) for s in streams if s.name.startswith(prefix)}
    names = sorted(described, key=lambda n: (described[n].get("lastEventTimestamp", 0) if by_time else 0, n))
    if params.get("descending"):
        names.reverse()
    shown, token = _page(names, params)
    return _with_token({"logStreams": [described[name] for name in shown]}, token)


def get_log_events(context: Context, params: Params) -> dict[str, Any]:
    """Events of one stream, the latest first page unless startFromHead; tokens lead both ways."""
    _, streams = _streams(context, params)
    stream = next((s for s in streams if s.name == params["logStreamName"]), None)
    if stream is None:
        raise ApiError("ResourceNotFoundException", "The specified log stream does not exist.")
    start_ms, end_ms = params.get("startTime", 0), params.get("endTime")
    entries = [e for e in _entries(context, stream) if e.at_ms >= start_ms and (end_ms is None or e.at_ms < end_ms)]
    token = params.get("nextToken")
    forward, place = _read_place(token) if token else (bool(params.get("startFromHead")), None)
    if place is not None:
        entries = [e for e in entries if ((e.at_ms, e.ordinal) > place if forward else (e.at_ms, e.ordinal) < place)]
    shown = _bounded(entries, params, from_head=forward)
    first = (shown[0].at_ms, shown[0].ordinal) if shown else place or (0, 0)
    last = (shown[-1].at_ms, shown[-1].ordinal) if shown else place or (0, -1)
    return {
        "events": [{"timestamp": e.at_ms, "message": e.text, "ingestionTime": e.at_ms} for e in shown],
        "nextForwardToken": _place("f", last),
        "nextBackwardToken": _place("b", first),
    }


def filter_log_events(context: Context, params: Params) -> dict[str, Any]:
    """Events over the streams of a group that match a pattern, oldest first unless startFromHead is false."""
    if "logStreamNames" in params and "logStreamNamePrefix" in params:
        raise _invalid("logStreamNames and logStreamNamePrefix are mutually exclusive.")
    wanted = _pattern(params.get("filterPattern", ""))
    _, streams = _streams(context, params)
    names, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix", "")
    chosen = [s for s in streams if s.name.startswith(prefix) and (names is None or s.name in names)]
    from_head = bool(params.get("startFromHead", True))
    start_ms, end_ms = params.get("startTime", 0), params.get("endTime")
    found = [
        e
        for s in chosen
        for e in _entries(context, s)
        if e.at_ms >= start_ms and (end_ms is None or e.at_ms <= end_ms) and wanted.matches(e.text)
    ]
    found.sort(reverse=not from_head)
    after = _read_filter_token(params)
    if after is not None:
        found = [e for e in found if (e[:3] > after if from_head else e[:3] < after)]
    shown = _bounded(found, params, from_head=True)
    token = _filter_token(params, shown[-1]) if len(shown) < len(found) else None
    return _with_token({"events": [_event(e) for e in shown], "searchedLogStreams": []}, token)


def _event(e: Entry) -> dict[str, Any]:
    name = hashlib.sha256(f"{e.stream}/{e.ordinal}".encode()).hexdigest()[:24]
    return {
        "logStreamName": e.stream,
        "timestamp": e.at_ms,
        "message": e.text,
        "ingestionTime": e.at_ms,
        "eventId": f"{e.at_ms}{name}",
    }


def _entries(context: Context, stream: Stream) -> list[Entry]:
    lines: list[Line] = sorted(context.logs.lines(stream), key=lambda line: line.at_ms)
    return [
        Entry(at_ms, stream.name, ordinal, line.text)
        for at_ms, same in groupby(lines, key=lambda line: line.at_ms)
        for ordinal, line in enumerate(same)
    ]


def _bounded(entries: Sequence[Entry], params: Params, from_head: bool) -> list[Entry]:
    """As many entries as a reply may have, from one end, at least one; in the order given."""
    limit = min(int(params.get("limit", EVENTS_MAX)), EVENTS_MAX)
    taken: list[Entry] = []
    size = 0
    for entry in entries if from_head else reversed(entries):
        size += len(entry.text)
        if len(taken) >= limit or (taken and size > REPLY_BYTES_MAX):
            break
        taken.append(entry)
    return taken if from_head else taken[::-1]


def _streams(context: Context, params: Params) -> tuple[str, list[Stream]]:
    """A group's name and streams. Raises ResourceNotFoundException where there is no such group."""
    if ("logGroupName" in params) == ("logGroupIdentifier" in params):
        raise _invalid("Exactly one of logGroupName and logGroupIdentifier is needed.")
    group = _group_name(params.get("logGroupName") or params["logGroupIdentifier"])
    name = group.removeprefix(PREFIX)
    if group.startswith(PREFIX) and name and "/" not in name:
        streams = context.logs.streams(EndpointKey(context.scope.account, context.scope.region, name))
        if streams or context.get("Endpoint", name) is not None:
            return group, streams
    raise ApiError("ResourceNotFoundException", "The specified log group does not exist.")


def _group_name(identifier: str) -> str:
    """A group's name from its name or ARN."""
    return identifier.split(":")[6] if identifier.startswith("arn:") and identifier.count(":") >= 6 else identifier


def _group(context: Context, name: str) -> dict[str, Any]:
    scope = context.scope
    arn = f"arn:aws:logs:{scope.region}:{scope.account}:log-group:{name}"
    endpoint = context.get("Endpoint", name.removeprefix(PREFIX))
    return {
        "logGroupName": name,
        "creationTime": endpoint.created_ms if endpoint else 0,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "logGroupClass": "STANDARD",
    }


def _described(context: Context, group: str, stream: Stream) -> dict[str, Any]:
    span, scope = context.logs.span(stream), context.scope
    found: dict[str, Any] = {
        "logStreamName": stream.name,
        "creationTime": span.first_ms,
        "arn": f"arn:aws:logs:{scope.region}:{scope.account}:log-group:{group}:log-stream:{stream.name}",
        "storedBytes": span.size_bytes,
    }
    if span.last_ms:
        found |= {"firstEventTimestamp": span.first_ms, "lastEventTimestamp": span.last_ms}
        found["lastIngestionTime"] = span.last_ms
    return found


def _pattern(text: str) -> LogFilter:
    try:
        return parse_filter(text)
    except UnreadablePattern as error:
        raise _invalid(f"Invalid filter pattern: {error}.") from None


def _page(names: Sequence[str], params: Params) -> tuple[Sequence[str], str | None]:
    """One page of names, in their order; the token is the last name shown."""
    token, start = params.get("nextToken"), 0
    if token is not None:
        shown = _decode(token)
        if shown not in names:
            raise _invalid("The specified nextToken is invalid.")
        start = names.index(shown) + 1
    stop = start + min(int(params.get("limit", PAGE_MAX)), PAGE_MAX)
    return names[start:stop], _encode(names[stop - 1]) if stop < len(names) else None


def _with_token(reply: dict[str, Any], token: str | None) -> dict[str, Any]:
    return reply if token is None else {**reply, "nextToken": token}


def _place(direction: str, at: tuple[int, int]) -> str:
    return f"{direction}/{at[0]}:{at[1]}"


def _read_place(token: str) -> tuple[bool, tuple[int, int]]:
    """Direction (True: forward) and place of a token of GetLogEvents."""
    try:
        direction, _, place = token.partition("/")
        at_ms, ordinal = place.split(":")
        if direction not in ("f", "b") or len(place) > 40:
            raise ValueError
        return direction == "f", (int(at_ms), int(ordinal))
    except ValueError:
        raise _invalid("The specified nextToken is invalid.") from None


def _filter_token(params: Params, last: Entry) -> str:
    return _encode([_filters(params), *last[:3]])


def _read_filter_token(params: Params) -> tuple[int, str, int] | None:
    if "nextToken" not in params:
        return None
    read = _decode(params["nextToken"])
    if (
        not isinstance(read, list)
        or [type(part) for part in read] != [str, int, str, int]
        or read[0] != _filters(params)
    ):
        raise _invalid("The specified nextToken is invalid.")
    return read[1], read[2], read[3]


def _filters(params: Params) -> str:
    given = {name: value for name, value in params.items() if name not in ("nextToken", "limit")}
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def _decode(token: str) -> Any:
    try:
        return json.loads(base64.b64decode(token.encode("ascii"), b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise _invalid("The specified nextToken is invalid.") from None


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", message)

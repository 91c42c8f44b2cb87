"""CloudWatch Logs: groups and streams, and reading their events. `api_log_events` puts, `api_log_filters` counts,
`api_log_queries` asks.

Tokens name a place in time and in a stream, so they hold when files rotate and events expire.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from typing import Any

from eyrie.adapters.log_file import Missing
from eyrie.control import api_log_events, api_log_filters, api_log_queries
from eyrie.control.context import Context, Operation, Params
from eyrie.control.log_book import retained
from eyrie.control.log_calls import (
    NO_STREAM,
    bad_token,
    decoded,
    digest,
    encoded,
    group_called,
    group_name,
    group_named,
    invalid,
    missing,
    page,
    pattern_of,
    with_token,
)
from eyrie.domain.logs import EVENT_OVERHEAD_BYTES, Entry, LogGroup, LogStream, Place
from eyrie.wire.errors import ApiError

EVENTS_MAX = 10_000
REPLY_BYTES_MAX = 1_048_576  # of messages in one reply
SCANNED_BYTES_MAX = 33_554_432  # looked at for one page of FilterLogEvents; the next page goes on from there
GROUPS_MAX = 10_000  # that users made, in an account and region
STREAMS_MAX = 100_000  # in a group
RETENTION_DAYS = frozenset(
    (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
)
_EVENTS_AT_ONCE = 100_000  # of all streams together, that are read ahead


def operations() -> Mapping[str, Operation]:
    """The operations of CloudWatch Logs."""
    return {
        "CreateLogGroup": create_log_group,
        "DeleteLogGroup": delete_log_group,
        "DescribeLogGroups": describe_log_groups,
        "PutRetentionPolicy": put_retention_policy,
        "DeleteRetentionPolicy": delete_retention_policy,
        "CreateLogStream": create_log_stream,
        "DeleteLogStream": delete_log_stream,
        "DescribeLogStreams": describe_log_streams,
        "GetLogEvents": get_log_events,
        "FilterLogEvents": filter_log_events,
        **api_log_events.operations(),
        **api_log_filters.operations(),
        **api_log_queries.operations(),
    }


# --- groups ---------------------------------------------------------------------------------------------------------


def create_log_group(context: Context, params: Params) -> dict[str, Any]:
    """Make a group."""
    name = params["logGroupName"]
    if name.startswith("aws/"):
        raise invalid("Log groups starting with AWS/ are reserved for AWS.")
    if context.logs.group(context.scope, name) is not None:
        raise ApiError("ResourceAlreadyExistsException", "The specified log group already exists")
    if len(context.logs.file.groups(context.scope)) >= GROUPS_MAX:
        raise ApiError("LimitExceededException", f"There are {GROUPS_MAX} log groups already.")
    settings: dict[str, str] = {key: str(params[key]) for key in ("kmsKeyId", "logGroupClass") if key in params}
    context.logs.keep(
        LogGroup(context.scope, name, context.now_ms, tags=dict(params.get("tags", {})), settings=settings)
    )
    return {}


def delete_log_group(context: Context, params: Params) -> dict[str, Any]:
    """Remove a group with all that is in it."""
    context.logs.delete(group_called(context, params["logGroupName"]), context.now_ms)
    return {}


def describe_log_groups(context: Context, params: Params) -> dict[str, Any]:
    """The groups that there are, by name."""
    prefix, pattern = params.get("logGroupNamePrefix", ""), params.get("logGroupNamePattern", "")
    if prefix and pattern:
        raise invalid("logGroupNamePrefix and logGroupNamePattern are mutually exclusive.")
    groups = context.logs.groups(context.scope)
    wanted = {group_name(identifier) for identifier in params.get("logGroupIdentifiers", [])}
    names = sorted(
        name
        for name, group in groups.items()
        if name.startswith(prefix)
        and pattern.lower() in name.lower()
        and (not wanted or name in wanted)
        and params.get("logGroupClass", "STANDARD") == group.settings.get("logGroupClass", "STANDARD")
    )
    shown, token = page(names, params)
    filters = context.logs.file.filters(context.scope)
    described = [_group(context, groups[name], len(filters.get(name, ()))) for name in shown]
    return with_token({"logGroups": described}, token)


def _group(context: Context, group: LogGroup, filters: int) -> dict[str, Any]:
    streams = context.logs.streams(group, context.now_ms)
    found: dict[str, Any] = {
        "logGroupName": group.name,
        "creationTime": group.created_ms,
        "metricFilterCount": filters,
        "arn": f"{group.arn}:*",
        "logGroupArn": group.arn,
        "storedBytes": sum(stream.size_bytes for stream in streams.values()),
        "logGroupClass": "STANDARD",
        **group.settings,
    }
    if group.retention_days is not None:
        found["retentionInDays"] = group.retention_days
    return found


def put_retention_policy(context: Context, params: Params) -> dict[str, Any]:
    """Keep events for so many days: older ones are not shown from now on, and removed within moments."""
    group, days = group_called(context, params["logGroupName"]), params["retentionInDays"]
    if days not in RETENTION_DAYS:
        raise invalid(f"retentionInDays must be one of {sorted(RETENTION_DAYS)}, not {days}.")
    context.logs.keep(retained(group, days))
    return {}


def delete_retention_policy(context: Context, params: Params) -> dict[str, Any]:
    """Keep events without limit of time."""
    context.logs.keep(retained(group_called(context, params["logGroupName"]), None))
    return {}


# --- streams --------------------------------------------------------------------------------------------------------


def create_log_stream(context: Context, params: Params) -> dict[str, Any]:
    """Make a stream."""
    group, name = group_called(context, params["logGroupName"]), params["logStreamName"]
    names = context.logs.names(group)
    if name in names:
        raise ApiError("ResourceAlreadyExistsException", "The specified log stream already exists")
    if len(names) >= STREAMS_MAX:
        raise ApiError("LimitExceededException", f"There are {STREAMS_MAX} streams in this log group already.")
    context.logs.keep(group)
    context.logs.file.create_stream(context.scope, group.name, name, context.now_ms)
    return {}


def delete_log_stream(context: Context, params: Params) -> dict[str, Any]:
    """Remove a stream with its events; one that an instance writes cannot be."""
    group, name = group_called(context, params["logGroupName"]), params["logStreamName"]
    try:
        context.logs.file.delete_stream(context.scope, group.name, name)
    except Missing:
        if name in context.logs.names(group):
            raise invalid(f"The stream {name} is an instance's own, and goes with it.") from None
        raise missing(NO_STREAM) from None
    return {}


def describe_log_streams(context: Context, params: Params) -> dict[str, Any]:
    """The streams of a group, by name or by the time of their last event."""
    by_time = params.get("orderBy") == "LastEventTime"
    prefix = params.get("logStreamNamePrefix", "")
    if by_time and prefix:
        raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    group = group_named(context, params)
    streams = context.logs.streams(group, context.now_ms)
    names = [name for name in streams if name.startswith(prefix)]
    names.sort(key=lambda n: (streams[n].last_ms if by_time else 0, n), reverse=bool(params.get("descending")))
    shown, token = page(names, params)
    return with_token({"logStreams": [_stream(group, streams[name]) for name in shown]}, token)


def _stream(group: LogGroup, stream: LogStream) -> dict[str, Any]:
    found: dict[str, Any] = {
        "logStreamName": stream.name,
        "creationTime": stream.created_ms,
        "arn": f"{group.arn}:log-stream:{stream.name}",
        "storedBytes": stream.size_bytes,
        "uploadSequenceToken": api_log_events.SEQUENCE_TOKEN,
    }
    if stream.last_ms:
        found |= {"firstEventTimestamp": stream.first_ms, "lastEventTimestamp": stream.last_ms}
        found["lastIngestionTime"] = stream.ingested_ms
    return found


# --- reading --------------------------------------------------------------------------------------------------------


def get_log_events(context: Context, params: Params) -> dict[str, Any]:
    """Events of one stream, the latest first page unless startFromHead; tokens lead both ways."""
    group, name = group_named(context, params), params["logStreamName"]
    if name not in context.logs.names(group):
        raise missing(NO_STREAM)
    token = params.get("nextToken")
    forward, place = _read_place(token) if token else (bool(params.get("startFromHead")), None)
    span = (params.get("startTime", 0), params.get("endTime", 1 << 62))
    found = context.logs.read(group, name, context.now_ms, span, place, forward)
    shown = _bounded(found, min(params.get("limit", EVENTS_MAX), EVENTS_MAX))
    if not forward:
        shown.reverse()
    first = (shown[0].at_ms, shown[0].ordinal) if shown else place or (0, 0)
    last = (shown[-1].at_ms, shown[-1].ordinal) if shown else place or (0, -1)
    return {
        "events": [{"timestamp": e.at_ms, "message": e.text, "ingestionTime": e.ingested_ms} for e in shown],
        "nextForwardToken": f"f/{last[0]}:{last[1]}",
        "nextBackwardToken": f"b/{first[0]}:{first[1]}",
    }


def _bounded(entries: Iterable[Entry], count: int) -> list[Entry]:
    """The first entries, at most `count`, whose messages fit a reply; one at least."""
    taken: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.text.encode()) + EVENT_OVERHEAD_BYTES
        if taken and size > REPLY_BYTES_MAX:
            break
        taken.append(entry)
        if len(taken) >= count:
            break
    return taken


def filter_log_events(context: Context, params: Params) -> dict[str, Any]:
    """Events over the streams of a group that match a pattern, oldest first unless startFromHead is false."""
    if "logStreamNames" in params and "logStreamNamePrefix" in params:
        raise invalid("logStreamNames and logStreamNamePrefix are mutually exclusive.")
    wanted = pattern_of(params.get("filterPattern", ""))
    group = group_named(context, params)
    names, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix", "")
    chosen = [name for name in context.logs.names(group) if name.startswith(prefix) and (not names or name in names)]
    from_head, limit = bool(params.get("startFromHead", True)), min(params.get("limit", EVENTS_MAX), EVENTS_MAX)
    shown: list[Entry] = []
    scanned, size, last = 0, 0, None
    for entry in _merged(context, group, chosen, params, from_head):
        text_bytes = len(entry.text.encode()) + EVENT_OVERHEAD_BYTES
        matched = wanted.match(entry.text) is not None
        full = len(shown) == limit or (shown and matched and size + text_bytes > REPLY_BYTES_MAX)
        if full or (scanned and scanned + text_bytes > SCANNED_BYTES_MAX):
            break
        last = entry
        scanned += text_bytes
        if matched:
            shown.append(entry)
            size += text_bytes
    else:
        last = None
    token = encoded([digest(params), *last[:3]]) if last is not None else ""
    return with_token({"events": [_event(e) for e in shown], "searchedLogStreams": []}, token)


def _merged(context: Context, group: LogGroup, names: Sequence[str], params: Params, forward: bool) -> Iterator[Entry]:
    """The entries of streams in the order of time, from where the token says."""
    at = _read_filter_token(params)
    span = (params.get("startTime", 0), params.get("endTime", (1 << 62) - 1) + 1)
    ahead = max(min(2_000, _EVENTS_AT_ONCE // max(len(names), 1)), 10)

    def entries(name: str) -> Iterator[Entry]:
        after = None
        if at is not None:  # of streams that sort after it, that moment is not read yet
            seen = name <= at[1] if forward else name >= at[1]
            edge = (1 << 62) if forward else -1
            unseen = -1 if forward else 1 << 62
            after = Place(at[0], at[2] if name == at[1] else edge if seen else unseen)
        return context.logs.read(group, name, context.now_ms, span, after, forward, ahead)

    return merge(*map(entries, names), key=lambda e: e[:3], reverse=not forward)


def _event(e: Entry) -> dict[str, Any]:
    name = hashlib.sha256(f"{e.stream}/{e.ordinal}".encode()).hexdigest()[:24]
    return {
        "logStreamName": e.stream,
        "timestamp": e.at_ms,
        "message": e.text,
        "ingestionTime": e.ingested_ms,
        "eventId": f"{e.at_ms}{name}",
    }


_PLACE = re.compile(r"([fb])/(\d{1,19}):(-?\d{1,18})")


def _read_place(token: str) -> tuple[bool, Place]:
    """Direction (True: forward) and place of a token of GetLogEvents."""
    found = _PLACE.fullmatch(token)
    if found is None or int(found[2]) >= 1 << 63:
        raise bad_token()
    return found[1] == "f", Place(int(found[2]), int(found[3]))


def _read_filter_token(params: Params) -> tuple[int, str, int] | None:
    if "nextToken" not in params:
        return None
    read = decoded(params["nextToken"])
    if not isinstance(read, list) or [type(part) for part in read] != [str, int, str, int] or read[0] != digest(params):
        raise bad_token()
    if not all(-1 <= part < 1 << 62 for part in (read[1], read[3])):
        raise bad_token()
    return read[1], read[2], read[3]

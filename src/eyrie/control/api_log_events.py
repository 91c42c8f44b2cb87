"""PutLogEvents, and the tags of log groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from eyrie.adapters.log_file import Missing
from eyrie.control.context import Context, Operation, Params
from eyrie.control.log_calls import NO_STREAM, group_called, invalid, missing
from eyrie.domain.logs import DAY_MS, EVENT_OVERHEAD_BYTES, LogGroup

BATCH_EVENTS_MAX = 10_000
BATCH_BYTES_MAX = 1_048_576  # 26 of each event's bytes included
FUTURE_MS = 7_200_000
OLDEST_MS = 14 * DAY_MS
SEQUENCE_TOKEN = "49590302938409283409234829348239482394823948239482394823"  # no order of calls is asked for any more
TAGS_MAX = 50


def operations() -> Mapping[str, Operation]:
    """The operations that write."""
    return {
        "PutLogEvents": put_log_events,
        "TagResource": tag_resource,
        "UntagResource": untag_resource,
        "ListTagsForResource": list_tags_for_resource,
        "TagLogGroup": tag_log_group,
        "UntagLogGroup": untag_log_group,
        "ListTagsLogGroup": list_tags_log_group,
    }


def put_log_events(context: Context, params: Params) -> dict[str, Any]:
    """Put events into a stream; those that are too old or too new are left out, and the reply says which."""
    group, stream = group_called(context, params["logGroupName"]), params["logStreamName"]
    events = [(int(event["timestamp"]), str(event["message"])) for event in params["logEvents"]]
    _check(events)
    too_old, expired, too_new = _limits(context, group, [at_ms for at_ms, _ in events])
    taken = events[max(too_old, expired) : too_new]
    try:
        context.logs.append(group, stream, taken, context.now_ms)
    except Missing:
        if stream in context.logs.names(group):
            raise invalid(f"The stream {stream} is an instance's own: only it writes there.") from None
        raise missing(NO_STREAM) from None
    rejected = {
        name: index
        for name, index, is_so in (
            ("tooNewLogEventStartIndex", too_new, too_new < len(events)),
            ("tooOldLogEventEndIndex", too_old, too_old > 0),
            ("expiredLogEventEndIndex", expired, expired > too_old),
        )
        if is_so
    }
    reply: dict[str, Any] = {"nextSequenceToken": SEQUENCE_TOKEN}
    return {**reply, "rejectedLogEventsInfo": rejected} if rejected else reply


def _check(events: Sequence[tuple[int, str]]) -> None:
    """Raises InvalidParameterException for a batch that is beyond what one may be."""
    if not 0 < len(events) <= BATCH_EVENTS_MAX:
        raise invalid(f"1 validation error: logEvents must have 1 to {BATCH_EVENTS_MAX} members, not {len(events)}.")
    sizes = [len(text.encode()) + EVENT_OVERHEAD_BYTES for _, text in events]
    if max(sizes) > BATCH_BYTES_MAX:
        raise invalid(f"Log event too large: {max(sizes)} bytes exceeds limit of {BATCH_BYTES_MAX}")
    if sum(sizes) > BATCH_BYTES_MAX:
        raise invalid(f"Upload too large: {sum(sizes)} bytes exceeds limit of {BATCH_BYTES_MAX}")
    times = [at_ms for at_ms, _ in events]
    if any(later < earlier for earlier, later in pairwise(times)):
        raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
    if times[-1] - times[0] > DAY_MS:
        raise invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")


def _limits(context: Context, group: LogGroup, times: Sequence[int]) -> tuple[int, int, int]:
    """(end of those that are too old, end of those past the retention, start of those too new), by index."""
    too_old = sum(at_ms < context.now_ms - OLDEST_MS for at_ms in times)
    kept_ms = context.now_ms - (group.retention_days or 1 << 20) * DAY_MS
    expired = sum(at_ms < kept_ms for at_ms in times)
    too_new = sum(at_ms <= context.now_ms + FUTURE_MS for at_ms in times)
    return too_old, expired, too_new


# --- tags -----------------------------------------------------------------------------------------------------------


def tag_resource(context: Context, params: Params) -> dict[str, Any]:
    """Add tags to the group that an ARN names."""
    return _tag(context, params["resourceArn"], params["tags"])


def tag_log_group(context: Context, params: Params) -> dict[str, Any]:
    """Add tags to a group."""
    return _tag(context, params["logGroupName"], params["tags"])


def _tag(context: Context, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
    group = group_called(context, name)
    tagged = {**group.tags, **tags}
    if len(tagged) > TAGS_MAX:
        raise invalid(f"A log group has at most {TAGS_MAX} tags.")
    context.logs.keep(replace(group, tags=tagged))
    return {}


def untag_resource(context: Context, params: Params) -> dict[str, Any]:
    """Remove tags of the group that an ARN names."""
    return _untag(context, params["resourceArn"], params["tagKeys"])


def untag_log_group(context: Context, params: Params) -> dict[str, Any]:
    """Remove tags of a group."""
    return _untag(context, params["logGroupName"], params["tags"])


def _untag(context: Context, name: str, keys: Sequence[str]) -> dict[str, Any]:
    group = group_called(context, name)
    context.logs.keep(replace(group, tags={key: value for key, value in group.tags.items() if key not in keys}))
    return {}


def list_tags_for_resource(context: Context, params: Params) -> dict[str, Any]:
    """The tags of the group that an ARN names."""
    return {"tags": dict(group_called(context, params["resourceArn"]).tags)}


def list_tags_log_group(context: Context, params: Params) -> dict[str, Any]:
    """The tags of a group."""
    return {"tags": dict(group_called(context, params["logGroupName"]).tags)}

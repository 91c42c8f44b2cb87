"""Every log of an account as one kind of thing: what users and Eyrie itself put (DATA/logs.db), and what instances
print (their own files), as groups of streams of events.

The group of an endpoint, `/aws/sagemaker/Endpoints/NAME`, is there as long as the endpoint is or anything that it
printed; that of compilation jobs, `/aws/sagemaker/CompilationJobs`, has a stream a job; that of transform jobs one an
instance and one of the job itself; that of inference recommendations jobs one a job. A group's settings (retention,
filters, tags) and the streams that users add to it are in logs.db, like any group's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from eyrie.adapters.instance_logs import InstanceLogs, Stream
from eyrie.adapters.log_file import Event, LogFile
from eyrie.decide.log_metrics import measurements
from eyrie.domain.logs import Entry, LogGroup, LogStream, MetricFilter, Place
from eyrie.domain.names import EndpointKey, Scope
from eyrie.ports import Metrics, MetricsFull, Store

log = logging.getLogger(__name__)

ENDPOINTS = "/aws/sagemaker/Endpoints/"
JOBS = {
    "/aws/sagemaker/CompilationJobs": "CompilationJob",
    "/aws/sagemaker/TransformJobs": "TransformJob",
    "/aws/sagemaker/InferenceRecommendationsJobs": "InferenceRecommendationsJob",
}  # groups with a stream a job, and the kind of job
ALWAYS = (0, 1 << 62)


class LogBook:
    """Reads all logs, and writes those of users. Every method may be called from any thread."""

    def __init__(self, file: LogFile, instances: InstanceLogs, store: Store, metrics: Metrics) -> None:
        self.file = file
        self.instances = instances
        self._store = store
        self._metrics = metrics

    def groups(self, scope: Scope) -> dict[str, LogGroup]:
        """Every group, by name."""
        created = {d.name: d.created_ms for d in self._store.scan("Endpoint", scope)}
        for key in self.instances.endpoints():
            if key.scope == scope:
                created.setdefault(key.name, 0)
        found = {ENDPOINTS + name: LogGroup(scope, ENDPOINTS + name, ms) for name, ms in created.items()}
        found |= {name: LogGroup(scope, name, 0) for name, kind in JOBS.items() if self.instances.jobs(kind, scope)}
        return found | self.file.groups(scope)

    def group(self, scope: Scope, name: str) -> LogGroup | None:
        """One group."""
        known = self.file.group(scope, name)
        if known is not None:
            return known
        if name in JOBS:
            return LogGroup(scope, name, 0) if self.instances.jobs(JOBS[name], scope) else None
        key = endpoint_of(scope, name)
        if key is None:
            return None
        document = self._store.get("Endpoint", scope, key.name)
        if document is not None:
            return LogGroup(scope, name, document.created_ms)
        return LogGroup(scope, name, 0) if self.instances.streams(key) else None

    def keep(self, group: LogGroup) -> None:
        """Give a group that exists its row in logs.db, as it is said to be now."""
        self.file.put_group(group)

    def delete(self, group: LogGroup, now_ms: int) -> None:
        """Delete a group. What living instances have printed until now is not shown any more."""
        key = endpoint_of(group.scope, group.name)
        self.file.delete_group(group.scope, group.name)
        if key is not None:
            self.instances.remove_gone(key)
        if group.name in JOBS:
            self.instances.remove_jobs(JOBS[group.name], group.scope)
        if self._printed(group):
            self.file.put_group(LogGroup(group.scope, group.name, now_ms, hidden_before_ms=now_ms))

    def streams(self, group: LogGroup, now_ms: int) -> dict[str, LogStream]:
        """The streams of a group, by name."""
        found = self.file.streams(group.scope, group.name)
        for stream in self._printed(group):
            span = self.instances.span(stream)
            if span.last_ms >= group.shown_from_ms(now_ms) or stream.alive:
                found[stream.name] = LogStream(
                    stream.name, span.first_ms, span.first_ms, span.last_ms, span.last_ms, span.size_bytes
                )
        return dict(sorted(found.items()))

    def names(self, group: LogGroup) -> list[str]:
        """The names of its streams, and nothing else of them."""
        return sorted({*self.file.stream_names(group.scope, group.name), *self.printed_names(group)})

    def printed_names(self, group: LogGroup) -> list[str]:
        """The streams that instances write."""
        return [stream.name for stream in self._printed(group)]

    def printed_since(self, group: LogGroup, stream: str, at_ms: int) -> bool:
        """Whether an instance wrote to its stream after a time: told by its files, without reading them."""
        return any(s.name == stream and self.instances.written_ms(s) >= at_ms for s in self._printed(group))

    def read(
        self,
        group: LogGroup,
        stream: str,
        now_ms: int,
        span: tuple[int, int] = ALWAYS,
        after: Place | None = None,
        forward: bool = True,
        page: int = 2_000,
    ) -> Iterator[Entry]:
        """The events of a stream with times from `span[0]` to before `span[1]`, beyond a place; oldest first, or newest
        first. What is past its retention is not among them, even where a file has it still.
        """
        span = (min(max(span[0], group.shown_from_ms(now_ms)), ALWAYS[1]), min(span[1], ALWAYS[1]))
        printed = next((s for s in self._printed(group) if s.name == stream), None)
        if printed is None:
            return self.file.read(group.scope, group.name, stream, span, after, forward, page)
        return _within(self.instances.lines_of(printed), span, after, forward)

    def append(self, group: LogGroup, stream: str, events: Sequence[Event], now_ms: int) -> None:
        """Put events into a stream, durably, and count them by the group's metric filters. Raises Missing."""
        self.file.append(group.scope, group.name, stream, events, now_ms)
        self.count(group.scope, self.file.filters(group.scope).get(group.name, ()), events)

    def append_all(self, group: LogGroup, by_stream: dict[str, list[Event]], now_ms: int) -> None:
        """Put events into streams of a group of Eyrie's own, as `append` does; what is missing is made."""
        self.file.append_all(group.scope, group, by_stream, now_ms)
        filters = self.file.filters(group.scope).get(group.name, ())
        for events in by_stream.values():
            self.count(group.scope, filters, events)

    def count(self, scope: Scope, filters: Sequence[MetricFilter], events: Sequence[Event]) -> None:
        """Let events become what metric filters make of them."""
        if not filters or not events:
            return
        try:
            self._metrics.record(list(measurements(scope, filters, events)))
        except MetricsFull as error:
            log.warning("metrics of log filters are dropped: %s", error)

    def _printed(self, group: LogGroup) -> list[Stream]:
        if group.name in JOBS:
            return self.instances.jobs(JOBS[group.name], group.scope)
        key = endpoint_of(group.scope, group.name)
        return self.instances.streams(key) if key is not None else []


def endpoint_of(scope: Scope, group: str) -> EndpointKey | None:
    """The endpoint whose instances' logs a group has."""
    name = group.removeprefix(ENDPOINTS)
    if not group.startswith(ENDPOINTS) or not name or "/" in name or "." in name:
        return None
    return EndpointKey(scope.account, scope.region, name)


def _within(
    told: tuple[str, Sequence[tuple[int, str]]], span: tuple[int, int], after: Place | None, forward: bool
) -> Iterator[Entry]:
    """The events of a stream that was read whole, at their places."""
    name, lines = told
    ordered = sorted(lines, key=lambda line: line[0])
    entries = [
        Entry(at_ms, name, ordinal, text, at_ms)
        for at_ms, same in groupby(ordered, key=lambda line: line[0])
        for ordinal, (_, text) in enumerate(same)
        if span[0] <= at_ms < span[1]
    ]
    if not forward:
        entries.reverse()
    for entry in entries:
        place = (entry.at_ms, entry.ordinal)
        if after is None or (place > after if forward else place < after):
            yield entry


def retained(group: LogGroup, days: int | None) -> LogGroup:
    """The group with another retention."""
    return replace(group, retention_days=days)

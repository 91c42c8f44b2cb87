"""Logs: groups of streams of events, as CloudWatch Logs has them, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from eyrie.domain.names import Scope

DAY_MS = 86_400_000
EVENT_OVERHEAD_BYTES = 26  # of an event besides its text, in every limit of the logs API


class Place(NamedTuple):
    """Where an event stands in its stream: tokens name it, so they hold while files rotate and events expire."""

    at_ms: int
    ordinal: int  # among the events of its stream (of its millisecond, where an instance printed it)


class Entry(NamedTuple):
    """An event at its place among all events of a group; entries sort by time, then stream, then place."""

    at_ms: int
    stream: str
    ordinal: int
    text: str
    ingested_ms: int


@dataclass(frozen=True, slots=True)
class LogGroup:
    """What is known and set of a group."""

    scope: Scope
    name: str
    created_ms: int
    retention_days: int | None = None
    hidden_before_ms: int = 0  # events up to here were deleted with the group, though an instance's file has them
    tags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)  # kmsKeyId, logGroupClass

    @property
    def arn(self) -> str:
        """Without the `:*` that some replies add."""
        return f"arn:aws:logs:{self.scope.region}:{self.scope.account}:log-group:{self.name}"

    def shown_from_ms(self, now_ms: int) -> int:
        """Events before this time are expired or deleted."""
        kept_ms = 0 if self.retention_days is None else now_ms - self.retention_days * DAY_MS
        return max(self.hidden_before_ms, kept_ms)


@dataclass(frozen=True, slots=True)
class LogStream:
    """A stream and how far it reaches; times are 0 where nothing is in it."""

    name: str
    created_ms: int
    first_ms: int = 0
    last_ms: int = 0
    ingested_ms: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MetricFilter:
    """What becomes a metric of each event that matches."""

    group: str
    name: str
    pattern: str
    transformations: tuple[Mapping[str, object], ...]  # as the API spells them
    created_ms: int

"""Availability: what is known of an endpoint's minutes, what is wanted of them, and when it was planned to be away.

A minute that nobody looked at is unknown: it counts neither as good nor as bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MINUTE_MS = 60_000
REQUESTS_ENOUGH = 5  # of a minute: from here on the share of them that failed speaks for the whole minute
BAD_SHARE = 0.05  # a minute is bad when more of it than this was


class Verdict(StrEnum):
    """What a minute comes to."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"  # nobody looked
    PLANNED = "planned"  # maintenance that was announced before it began


@dataclass(frozen=True, slots=True)
class Minute:
    """What was seen of one minute of an endpoint. Seconds, where there were requests, are judged by them, else by
    probes.
    """

    at_ms: int  # its beginning
    requests: int = 0
    failed: int = 0  # answered 5xx, the model's own among them
    observed_s: float = 0.0
    bad_s: float = 0.0  # of the observed ones
    planned: bool = False

    @property
    def badness(self) -> float:
        """The share of it that was bad, 0 to 1: of its seconds, or of its requests where that is more."""
        share = self.bad_s / self.observed_s if self.observed_s else 0.0
        if self.requests >= REQUESTS_ENOUGH:
            share = max(share, self.failed / self.requests)
        return min(1.0, share)

    @property
    def counts(self) -> bool:
        """Whether it says anything about availability."""
        return bool(self.observed_s) and not self.planned

    @property
    def verdict(self) -> Verdict:
        """What it comes to."""
        if self.planned:
            return Verdict.PLANNED
        if not self.observed_s:
            return Verdict.UNKNOWN
        return Verdict.BAD if self.badness > BAD_SHARE else Verdict.GOOD

    def and_also(self, other: Minute) -> Minute:
        """The same minute, seen in two parts: before and after a restart."""
        return Minute(
            self.at_ms,
            self.requests + other.requests,
            self.failed + other.failed,
            min(60.0, self.observed_s + other.observed_s),
            min(60.0, self.bad_s + other.bad_s),
            self.planned or other.planned,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Planned maintenance: once, or again and again."""

    start_ms: int  # of the first time: milliseconds since the epoch
    length_ms: int
    every_ms: int = 0  # 0: once

    def holds(self, at_ms: int) -> bool:
        """Whether a moment is within it."""
        since_ms = at_ms - self.start_ms
        if self.every_ms and since_ms >= 0:
            since_ms %= self.every_ms
        return 0 <= since_ms < self.length_ms


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that is sent now and then to see whether an endpoint answers."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the tags of an endpoint say about its availability."""

    objective: float  # percent of minutes, say 99.9
    own: bool = False  # it was set for this endpoint
    windows: tuple[Window, ...] = ()
    probe: Probe | None = None
    faults: tuple[str, ...] = ()  # what of the tags cannot be read, for people


@dataclass(frozen=True, slots=True)
class Outage:
    """Bad minutes in a row."""

    start_ms: int
    minutes: int
    badness: float  # of all of them together, in minutes
    requests: int
    failed: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What many minutes come to."""

    good: int = 0
    bad: int = 0
    unknown: int = 0
    planned: int = 0
    badness: float = 0.0  # bad minutes, in parts of minutes
    requests: int = 0
    failed: int = 0

    @property
    def observed(self) -> int:
        """Minutes that count."""
        return self.good + self.bad

    @property
    def percent(self) -> float | None:
        """Availability over the minutes that count; None where there are none."""
        return 100.0 * (1.0 - self.badness / self.observed) if self.observed else None

    @property
    def good_minutes_percent(self) -> float | None:
        """Share of minutes that were good."""
        return 100.0 * self.good / self.observed if self.observed else None

    @property
    def good_requests_percent(self) -> float | None:
        """Share of requests that did not fail."""
        return 100.0 * (1.0 - self.failed / self.requests) if self.requests else None

"""The nouns of a load test: when requests are meant to begin, and what was seen, second by second.

Times are seconds from the beginning of the test; latencies are microseconds. A *service time* runs from the moment when
a request was sent, a *response time* from the moment when it was meant to be sent: what a user waits who does not know
that others wait before him.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eyrie.domain.metrics import Summary

RATE_MAX = 1_000_000.0  # requests a second
SECONDS_MAX = 86_400.0
STEPS_MAX = 1_000


class LoadError(ValueError):
    """A load that makes no sense; the message names the field and its value."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of an open load: the rate goes from one to the other in a straight line."""

    seconds: float
    begin_rps: float
    end_rps: float

    @property
    def requests(self) -> float:
        """How many requests it is meant to bring."""
        return self.seconds * (self.begin_rps + self.end_rps) / 2


@dataclass(frozen=True, slots=True)
class Step:
    """One stair: a rate that is held from a second to another."""

    begin_s: float
    end_s: float
    rps: float


def stages(given: Iterable[Stage]) -> tuple[Stage, ...]:
    """Checked stages. Raises LoadError."""
    kept = tuple(given)
    total = sum(stage.seconds for stage in kept)
    if not kept or not 0 < total <= SECONDS_MAX:
        raise LoadError(f"a load lasts more than 0 and at most {SECONDS_MAX:g} seconds, not {total:g}")
    for stage in kept:
        for rate in (stage.begin_rps, stage.end_rps):
            if not 0 <= rate <= RATE_MAX:
                raise LoadError(f"a rate lies between 0 and {RATE_MAX:g} requests a second, not {rate:g}")
    if sum(stage.requests for stage in kept) < 1:
        raise LoadError("this load is less than one request")
    return kept


def stairs(begin: float, end: float, by: float, seconds: float) -> tuple[Step, ...]:
    """Rates from `begin` to `end`, `seconds` each. Raises LoadError."""
    if by <= 0 or begin <= 0 or end < begin or seconds < 1:
        raise LoadError(
            f"stairs go up: FROM:TO:STEP:SECONDS with 0 < FROM <= TO, STEP > 0 and SECONDS >= 1, "
            f"not {begin:g}:{end:g}:{by:g}:{seconds:g}"
        )
    count = int((end - begin) / by + 1e-9) + 1
    if count > STEPS_MAX:
        raise LoadError(f"at most {STEPS_MAX} stairs, not {count}")
    return tuple(Step(n * seconds, (n + 1) * seconds, begin + n * by) for n in range(count))


@dataclass(slots=True)
class Second:
    """What happened in one second of the test. It grows while the test runs, so it is not frozen."""

    intended: int = 0  # requests that were meant to begin in it
    sent: int = 0
    answered: int = 0  # good replies that came in it
    errors: Counter[str] = field(default_factory=Counter)  # by kind, when they were noticed
    service: Summary = field(default_factory=Summary)  # of good replies, by the second that they were meant to begin in
    response: Summary = field(default_factory=Summary)
    lateness: Summary = field(default_factory=Summary)  # how late requests began though a connection was free

    def merge(self, other: Second) -> None:
        """Count in what another process saw of this second."""
        self.intended += other.intended
        self.sent += other.sent
        self.answered += other.answered
        self.errors.update(other.errors)
        self.service.merge(other.service)
        self.response.merge(other.response)
        self.lateness.merge(other.lateness)

    def document(self) -> dict[str, Any]:
        """As plain values, for a line between processes."""
        return {
            "i": self.intended,
            "s": self.sent,
            "a": self.answered,
            "e": dict(self.errors),
            "service": _plain(self.service),
            "response": _plain(self.response),
            "lateness": _plain(self.lateness),
        }


def second_of(told: Mapping[str, Any]) -> Second:
    """The reverse of `Second.document`."""
    return Second(
        told["i"],
        told["s"],
        told["a"],
        Counter(told["e"]),
        _summary(told["service"]),
        _summary(told["response"]),
        _summary(told["lateness"]),
    )


def _plain(summary: Summary) -> list[Any] | None:
    if not summary.count:
        return None
    return [summary.count, summary.total, summary.lowest, summary.highest, list(summary.buckets.items())]


def _summary(told: list[Any] | None) -> Summary:
    if told is None:
        return Summary()
    count, total, lowest, highest, buckets = told
    return Summary(count, total, lowest, highest, {int(bucket): times for bucket, times in buckets})

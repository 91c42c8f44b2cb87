"""What one process of a load test saw, second by second, told to the one that gathers it.

Counting is on the path of every request: latencies are counted by whole microseconds, and become log buckets only when
they are told.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec

from eyrie.domain.load import Second
from eyrie.domain.metrics import Summary

_A_SECOND = 1_000_000


class Recorder:
    """Counts by the second of the test."""

    def __init__(self, begin_s: float) -> None:
        self._begin_s = begin_s
        self._intended: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self._answered: Counter[int] = Counter()
        self._errors: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._service: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._response: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._lateness: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def meant(self, intended: float) -> None:
        """A request is meant to begin."""
        self._intended[int(intended - self._begin_s)] += 1

    def sent(self, intended: float, sent: float, free: bool) -> None:
        """It was sent; `free`: a connection was at hand, so that any lateness is the load's own."""
        self._sent[int(sent - self._begin_s)] += 1
        if free:
            self._lateness[int(intended - self._begin_s)][int((sent - intended) * _A_SECOND)] += 1

    def answered(self, intended: float, sent: float, now: float) -> None:
        """A good reply."""
        second = int(intended - self._begin_s)
        self._answered[int(now - self._begin_s)] += 1
        self._service[second][int((now - sent) * _A_SECOND)] += 1
        self._response[second][int((now - intended) * _A_SECOND)] += 1

    def failed(self, now: float, kind: str, times: int = 1) -> None:
        """An error of a kind."""
        self._errors[int(now - self._begin_s)][kind] += times

    def line(self, **more: float | bool) -> bytes:
        """What was seen since the last line, which is forgotten here."""
        seconds = {
            *self._intended,
            *self._sent,
            *self._answered,
            *self._errors,
            *self._service,
            *self._lateness,
        }
        told = {str(at): self._second(at).document() for at in sorted(seconds)}
        for counts in (self._intended, self._sent, self._answered):
            counts.clear()
        for spread in (self._errors, self._service, self._response, self._lateness):
            spread.clear()
        return msgspec.json.encode({"seconds": told, **more}) + b"\n"

    def _second(self, at: int) -> Second:
        return Second(
            self._intended[at],
            self._sent[at],
            self._answered[at],
            self._errors[at],
            _summary(self._service[at]),
            _summary(self._response[at]),
            _summary(self._lateness[at]),
        )


def _summary(counts: Counter[int]) -> Summary:
    summary = Summary()
    for value, times in counts.items():
        summary.add(float(max(0, value)), float(times))
    return summary

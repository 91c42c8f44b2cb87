"""Availability as arithmetic: from seconds to a minute, from minutes to outages, budgets and burn rates. Pure.

The error budget of an objective is the part of 30 days that may be bad; how fast it is used up is the burn rate, 1 for
a pace that uses it up in exactly that time. A burn is told when both a long window and a short one burn fast: the long
one says that it matters, the short one that it still goes on (the usual pairs of windows, as in the literature on
service-level objectives). What is unknown burns nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby

from eyrie.domain.availability import MINUTE_MS, Minute, Outage, Totals, Verdict

DAYS_KEPT = 90
BUDGET_DAYS = 30
BUDGET_MINUTES = BUDGET_DAYS * 24 * 60
WINDOWS: Mapping[str, int] = {  # minutes, by the name that metrics have in the dimension Window
    "5m": 5,
    "30m": 30,
    "1h": 60,
    "2h": 120,
    "6h": 360,
    "24h": 1_440,
    "3d": 4_320,
}


class Severity(StrEnum):
    """Whom a burn concerns: somebody now, or somebody tomorrow."""

    PAGE = "page"
    TICKET = "ticket"


PAIRS: Mapping[Severity, tuple[tuple[str, str, float], ...]] = {  # long window, short window, burn rate of both
    Severity.PAGE: (("1h", "5m", 14.4), ("6h", "30m", 6.0)),
    Severity.TICKET: (("24h", "2h", 3.0), ("3d", "6h", 1.0)),
}

Seconds = Mapping[int, tuple[int, int]]  # by second of a minute: requests, and those of them that failed
Answer = tuple[float, float, bool]  # a probe: seconds of the minute that it speaks for, from and to, and its result


def minute_of(at_ms: int, seconds: Seconds, answers: Sequence[Answer], planned: bool) -> Minute:
    """What was seen of a minute. A second with requests is as bad as they were; one without is as the probe says that
    speaks for it; one of which nobody says anything is not observed.
    """
    observed, bad = 0.0, 0.0
    for second in range(60):
        requests, failed = seconds.get(second, (0, 0))
        if requests:
            observed, bad = observed + 1, bad + failed / requests
            continue
        said = [ok for start, end, ok in answers if start < second + 1 and end > second]
        if said:
            observed, bad = observed + 1, bad + (not said[-1])
    requests, failed = (sum(part) for part in zip((0, 0), *seconds.values(), strict=True))
    return Minute(at_ms, requests, failed, observed, bad, planned)


def totals(minutes: Iterable[Minute], since_ms: int, until_ms: int) -> Totals:
    """What the minutes from `since_ms` to before `until_ms` come to; those of which there is no record are unknown."""
    verdicts = dict.fromkeys(Verdict, 0)
    badness, requests, failed = 0.0, 0, 0
    for minute in minutes:
        verdicts[minute.verdict] += 1
        if not minute.planned:
            requests, failed = requests + minute.requests, failed + minute.failed
        if minute.counts:
            badness += minute.badness
    all_minutes = max(0, (until_ms - since_ms) // MINUTE_MS)
    known = verdicts[Verdict.GOOD] + verdicts[Verdict.BAD] + verdicts[Verdict.PLANNED]
    return Totals(
        good=verdicts[Verdict.GOOD],
        bad=verdicts[Verdict.BAD],
        unknown=max(0, all_minutes - known),
        planned=verdicts[Verdict.PLANNED],
        badness=badness,
        requests=requests,
        failed=failed,
    )


def outages(minutes: Iterable[Minute]) -> Iterator[Outage]:
    """Bad minutes in a row, oldest first. A minute of which nothing is known ends one: it may have been over."""
    bad = [minute for minute in minutes if minute.verdict is Verdict.BAD]
    for _, run in groupby(enumerate(bad), lambda pair: pair[1].at_ms // MINUTE_MS - pair[0]):
        some = [minute for _, minute in run]
        badness = sum(minute.badness for minute in some)
        requests, failed = sum(m.requests for m in some), sum(m.failed for m in some)
        yield Outage(some[0].at_ms, len(some), badness, requests, failed)


def spells(minutes: Iterable[Minute], since_ms: int, until_ms: int) -> Iterator[tuple[int, int, Verdict]]:
    """Every minute's verdict, equal ones in a row told together: when, how many minutes, what."""
    known = {minute.at_ms: minute.verdict for minute in minutes}
    every = range(since_ms, until_ms, MINUTE_MS)
    for verdict, run in groupby(every, lambda at_ms: known.get(at_ms, Verdict.UNKNOWN)):
        some = list(run)
        yield some[0], len(some), verdict


def burn(bad_minutes: float, window_minutes: int, objective: float) -> float:
    """How fast a window used up the budget: 1 is the pace that uses up all of it in 30 days."""
    return bad_minutes / window_minutes / (1.0 - objective / 100.0)


def burns(bad_minutes: Mapping[str, float], objective: float) -> dict[str, float]:
    """The burn rate of every window, of its bad minutes."""
    return {name: burn(bad_minutes[name], size, objective) for name, size in WINDOWS.items()}


def burning(rates: Mapping[str, float], severity: Severity) -> float:
    """How far the worst pair of windows is towards its limit: at 1 and above it is time to tell somebody."""
    return max(min(rates[long], rates[short]) / limit for long, short, limit in PAIRS[severity])


def budget_left(bad_minutes: float, objective: float) -> float:
    """Percent of 30 days' budget that is left, of the bad minutes in them; below 0 where it is overdrawn."""
    return 100.0 * (1.0 - bad_minutes / (BUDGET_MINUTES * (1.0 - objective / 100.0)))

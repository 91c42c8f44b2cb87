"""`/eyrie/availability/ENDPOINT?days=90`: what is known of an endpoint's minutes, added up, for `eyrie availability`.

What is told here in minutes for 90 days is told in metrics too (`Eyrie/Availability`), coarser as it gets older.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from eyrie.adapters.availability_file import AvailabilityFile
from eyrie.control.availability import Availability
from eyrie.control.context import Context
from eyrie.decide import availability as decide
from eyrie.domain.availability import MINUTE_MS, Minute, Totals, Wanted
from eyrie.domain.names import EndpointKey
from eyrie.wire.errors import resource_not_found, validation

PATH = "/eyrie/availability/"
OUTAGES_MAX = 200  # the newest ones
_DAY_MS = 24 * 60 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class AvailabilityDoor:
    """Answers for all endpoints."""

    file: AvailabilityFile
    watch: Availability

    def answer(self, context: Context, path: str, query: str) -> dict[str, Any]:
        """The last so many days. Raises ResourceNotFound or ValidationException."""
        name = unquote(path.removeprefix(PATH))
        key = EndpointKey(context.scope.account, context.scope.region, name)
        endpoint = context.endpoints.get(key)
        if endpoint is None:
            raise resource_not_found(f"There is no endpoint {name!r} here.")
        until_ms = context.now_ms - context.now_ms % MINUTE_MS
        minutes = self.file.minutes(endpoint.uid, until_ms - _days(query) * _DAY_MS, until_ms)
        since_ms = minutes[0].at_ms if minutes else until_ms
        asked = self.watch.wanted(key)
        rates = self.watch.rates(endpoint.uid, until_ms, asked.objective)
        return {
            "endpoint": name,
            "days": _days(query),
            "since_ms": since_ms,  # nothing is known of what was before
            "until_ms": until_ms,
            **_told(decide.totals(minutes, since_ms, until_ms)),
            "objective": _objective(asked),
            "budget_left_percent": rates.budget_left,
            "burn_rates": dict(rates.by_window),
            "burning": {str(s): decide.burning(rates.by_window, s) for s in decide.Severity},
            "in_maintenance": any(window.holds(context.now_ms) for window in asked.windows),
            "trouble": self.watch.trouble(key),
            "outages": [asdict(outage) for outage in decide.outages(minutes)][-OUTAGES_MAX:],
            "by_day": _by_day(minutes, since_ms, until_ms),
            "spells": [list(spell) for spell in decide.spells(minutes, since_ms, until_ms)],
        }


def _days(query: str) -> int:
    given = parse_qs(query).get("days", ["30"])[0]
    if not given.isdecimal() or not 1 <= int(given) <= decide.DAYS_KEPT:
        raise validation(f"days must be a number from 1 to {decide.DAYS_KEPT}, and not {given[:64]!r}.")
    return int(given)


def _objective(asked: Wanted) -> dict[str, Any]:
    return {
        "percent": asked.objective,
        "own": asked.own,
        "maintenance": [asdict(window) for window in asked.windows],
        "probe": asked.probe.content_type if asked.probe else "",
        "faults": list(asked.faults),
    }


def _told(found: Totals) -> dict[str, Any]:
    return {
        "availability_percent": found.percent,
        "good_minutes_percent": found.good_minutes_percent,
        "good_requests_percent": found.good_requests_percent,
        "minutes": {"good": found.good, "bad": found.bad, "unknown": found.unknown, "planned": found.planned},
        "bad_minutes": found.badness,
        "requests": found.requests,
        "failed": found.failed,
    }


def _by_day(minutes: Sequence[Minute], since_ms: int, until_ms: int) -> list[dict[str, Any]]:
    days: dict[int, list[Minute]] = {}
    for minute in minutes:
        days.setdefault(minute.at_ms // _DAY_MS, []).append(minute)
    return [
        {"day_ms": day * _DAY_MS, **_told(decide.totals(some, *_within(day, since_ms, until_ms)))}
        for day, some in sorted(days.items())
    ]


def _within(day: int, since_ms: int, until_ms: int) -> tuple[int, int]:
    return max(since_ms, day * _DAY_MS), min(until_ms, (day + 1) * _DAY_MS)

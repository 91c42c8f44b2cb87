"""Watches how available every endpoint is, minute by minute: what the gateway workers answered, and a probe of its own.

Each round (EYRIE_PROBE_PERIOD_MS by the clock of decisions) asks the door for a pong and one instance in each
endpoint's route for its /ping, or sends the request that the tag `eyrie:probe` gives. A minute is kept when it is over,
in DATA/availability.db, and told as metrics, `Eyrie/Availability`. While this is away nothing is seen, and those
minutes are unknown; what it cannot tell (its own lateness, a door that closes because Eyrie stops) it does not count.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from eyrie.adapters.availability_file import AvailabilityFile
from eyrie.adapters.endpoint_probe import EndpointProbe, Unprobed
from eyrie.control.prober import ping
from eyrie.control.records import TAGS_KIND
from eyrie.decide import availability as decide
from eyrie.decide.availability_tags import wanted
from eyrie.domain.availability import MINUTE_MS, Minute, Verdict, Wanted
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Commit, Event, Metrics, MetricsFull, Store
from eyrie.settings import Settings

log = logging.getLogger(__name__)

NAMESPACE = "Eyrie/Availability"
KIND = "Endpoint"
ROUND_MIN_S = 0.25  # real time between rounds, however fast the clock runs
UNPROBED_MS = 10_000  # between rounds that ask nobody
LATE_S = 0.5  # a round that took so much longer than its limits says more about us than about endpoints
INSTANCES_MAX = 16  # of an endpoint, asked before it counts as silent
OPEN_MAX = 60  # minutes of an endpoint that wait for a disk which does not take them; older ones are given up
_OWED = frozenset({EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING, EndpointStatus.UPDATE_ROLLBACK_FAILED})
_DAY_MS = 24 * 60 * MINUTE_MS


@dataclass(slots=True)
class _Open:
    """A minute of an endpoint that is not kept yet. Seconds are counted from its beginning."""

    seconds: dict[int, tuple[int, int]] = field(default_factory=dict)
    answers: list[tuple[float, float, bool]] = field(default_factory=list)


@dataclass(slots=True)
class _Watched:
    """An endpoint that is looked after."""

    endpoint: Endpoint
    open: dict[int, _Open] = field(default_factory=dict)  # by the beginning of the minute, ms
    asked_ms: int = 0  # the last probe
    served_ms: int = 0  # the last request that was answered well
    before: Verdict = Verdict.UNKNOWN
    trouble: str = ""  # of the last probe
    turn: int = 0  # which instance is asked first


Standing = Callable[[], list[tuple[Endpoint, frozenset[str]]] | None]


class Availability:
    """Called on the event loop; what waits for a disk or an answer runs aside."""

    def __init__(
        self,
        file: AvailabilityFile,
        probe: EndpointProbe,
        metrics: Metrics,
        store: Store,
        clock: Clock,
        settings: Settings,
        standing: Standing,
        gateways: Callable[[], bool],
    ) -> None:
        """`standing`: the endpoints, None until they are known; `gateways`: whether any worker is connected."""
        self._file, self._probe, self._metrics = file, probe, metrics
        self._store, self._clock, self._settings = store, clock, settings
        self._standing, self._gateways = standing, gateways
        self._watched: dict[EndpointKey, _Watched] = {}
        self._served = False  # a gateway worker was there since we began
        self._door_since_ms = 0  # since when nobody is at the door; 0: somebody is

    # --- what is heard ------------------------------------------------------------------------------------------------

    def take(self, told: Mapping[str, Any]) -> None:
        """One gateway worker's second. Raises KeyError, TypeError or ValueError for what is none."""
        now_ms = self._clock.now_ms()
        for slug, variants in told.get("endpoints", {}).items():
            watched = self._watched.get(EndpointKey.from_slug(slug))
            rollups = [r for by in variants.values() for r in by.values() if not r.get("shadow")]
            requests, failed = sum(int(r["n"]) for r in rollups), sum(int(r["e5"]) for r in rollups)
            if watched is None or not requests:
                continue
            minute_ms, second = _place(now_ms)
            seconds = watched.open.setdefault(minute_ms, _Open()).seconds
            before = seconds.get(second, (0, 0))
            seconds[second] = (before[0] + requests, before[1] + failed)
            if failed < requests:
                watched.served_ms = now_ms

    # --- the rounds ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask and keep, for ever."""
        while True:
            try:
                self._attend()
                await self._round()
                await self._keep_over()
            except Exception:  # the loop boundary: the next round asks again
                log.exception("a round over the availability of endpoints failed")
            await asyncio.sleep(self._step_ms() / 1000 / self._settings.time_scale)

    def _attend(self) -> None:
        """Which endpoints there are now. One that never was in service owes nothing yet."""
        standing = self._standing()
        if standing is None:
            return
        self._served = self._served or self._gateways()
        owed = {e.key: e for e, _ in standing if e.status in _OWED and e.route is not None}
        for key, endpoint in owed.items():
            watched = self._watched.get(key)
            if watched is None or watched.endpoint.uid != endpoint.uid:
                self._watched[key] = _Watched(endpoint, asked_ms=self._clock.now_ms())
            else:
                watched.endpoint = endpoint
        for key in self._watched.keys() - owed.keys():
            del self._watched[key]

    async def _round(self) -> None:
        """Ask the door, and every endpoint."""
        if not self._served or not self._settings.probe_period_ms:
            return  # after a start of everything nobody can be there yet
        limit_s, began = self._limit_s(), asyncio.get_running_loop().time()
        watched = list(self._watched.values())
        asked = asyncio.gather(*(self._ask(one, limit_s) for one in watched), return_exceptions=True)
        door = await asyncio.to_thread(self._probe.door, limit_s)
        answers = await asked
        now_ms = self._clock.now_ms()
        self._door_since_ms = (self._door_since_ms or now_ms) if door is not None else 0
        if asyncio.get_running_loop().time() - began > limit_s + LATE_S:
            log.warning("a round of probes ended late: not counted")
            return
        for one, answer in zip(watched, answers, strict=True):
            if isinstance(answer, BaseException):  # nothing is known of this one; the others have their own answers
                log.error("probing %s failed", one.endpoint.key.slug, exc_info=answer)
            known, trouble = (False, None) if isinstance(answer, BaseException) else answer
            if known or door is not None:
                self._note(one, door or trouble, now_ms)

    def _limit_s(self) -> float:
        """How long an answer may take: real time, as for any client."""
        return max(self._settings.ping_timeout_ms, self._settings.foreign_ping_timeout_ms) / 1000

    async def _ask(self, watched: _Watched, limit_s: float) -> tuple[bool, str | None]:
        """Whether anything was found out, and what is wrong."""
        endpoint = watched.endpoint
        request = (await asyncio.to_thread(self.wanted, endpoint.key)).probe
        if request is not None:
            try:
                return True, await asyncio.to_thread(self._probe.invoke, endpoint.key, request, limit_s)
            except Unprobed as error:
                log.warning("%s is not probed: %s", endpoint.key.slug, error)
                return False, None
        if any(v.serverless is not None or v.spec.may_be_empty for v in endpoint.fleet.variants):
            return False, None  # instances come and go with requests: only these can tell
        sockets = [t.socket for v in (endpoint.route.variants if endpoint.route else ()) for t in v.targets]
        if not sockets:
            return True, "no instance is in the route"
        return self._weighed(watched, await self._ping_any(watched, sockets, limit_s))

    async def _ping_any(self, watched: _Watched, sockets: list[str], limit_s: float) -> str | None:
        """One instance, in turn; where it is silent, all of them: None where any answers."""
        watched.turn += 1
        first = await ping(sockets[watched.turn % len(sockets)], limit_s / 2)
        if first is None:
            return None
        found = await asyncio.gather(*(ping(socket, limit_s / 2) for socket in sockets[:INSTANCES_MAX]))
        return None if None in found else f"no instance answers /ping: {first}"

    def _weighed(self, watched: _Watched, trouble: str | None) -> tuple[bool, str | None]:
        """Instances that are too busy for a /ping but answer requests are not away."""
        busy = trouble is not None and "no answer in" in trouble
        if busy and self._clock.now_ms() - watched.served_ms < MINUTE_MS:
            return False, None
        return True, trouble

    def _note(self, watched: _Watched, trouble: str | None, now_ms: int) -> None:
        """A probe's result: it speaks for the time since the one before, within two periods."""
        since_ms = max(watched.asked_ms, now_ms - 2 * self._step_ms())
        watched.asked_ms, watched.trouble = now_ms, trouble or ""
        for minute_ms in range(since_ms - since_ms % MINUTE_MS, now_ms, MINUTE_MS):
            start, end = max(0, since_ms - minute_ms) / 1000, min(MINUTE_MS, now_ms - minute_ms) / 1000
            watched.open.setdefault(minute_ms, _Open()).answers.append((start, end, trouble is None))

    def _step_ms(self) -> int:
        """Between two rounds, by the clock of decisions."""
        period_ms = self._settings.probe_period_ms or UNPROBED_MS
        return max(period_ms, int(ROUND_MIN_S * 1000 * self._settings.time_scale))

    # --- minutes that are over ----------------------------------------------------------------------------------------

    async def _keep_over(self) -> None:
        """Keep the minutes that no probe will speak for any more; those that the disk does not take, later."""
        until_ms = self._clock.now_ms() - 2 * self._step_ms() - MINUTE_MS
        over = [
            (one, at_ms, one.open.pop(at_ms))
            for one in self._watched.values()
            for at_ms in [at_ms for at_ms in one.open if at_ms <= until_ms]
        ]
        if not over:
            return
        try:
            kept = await asyncio.to_thread(self._keep, [(one.endpoint, at_ms, seen) for one, at_ms, seen in over])
        except (sqlite3.Error, OSError):
            for one, at_ms, seen in over:
                one.open[at_ms] = seen
            for one in self._watched.values():
                for at_ms in sorted(one.open)[:-OPEN_MAX]:
                    del one.open[at_ms]
            raise
        await asyncio.to_thread(self._tell, kept)

    def _keep(self, over: list[tuple[Endpoint, int, _Open]]) -> list[tuple[Endpoint, Minute]]:
        """Judge minutes and store them. Raises sqlite3.Error, OSError."""
        judged: list[tuple[Endpoint, Minute]] = []
        for endpoint, at_ms, seen in sorted(over, key=lambda one: one[1]):
            planned = any(window.holds(at_ms) for window in self.wanted(endpoint.key).windows)
            judged.append((endpoint, decide.minute_of(at_ms, seen.seconds, seen.answers, planned)))
        kept = self._file.keep([(endpoint.uid, minute) for endpoint, minute in judged], self._clock.now_ms())
        return [(endpoint, minute) for (endpoint, _), (_, minute) in zip(judged, kept, strict=True)]

    def finish(self) -> None:
        """Keep what was seen of minutes that are not over, when control ends in good order. A door that closed on the
        way is part of that end, and counts for nothing.
        """
        if self._door_since_ms:
            for one in self._watched.values():
                self._forget_since(one, self._door_since_ms)
        over = [(one.endpoint, at_ms, seen) for one in self._watched.values() for at_ms, seen in one.open.items()]
        if over:
            self._keep(over)

    def _forget_since(self, one: _Watched, door_ms: int) -> None:
        since_ms = door_ms - 2 * self._step_ms()
        for at_ms, seen in one.open.items():
            seen.answers = [a for a in seen.answers if a[2] or at_ms + a[1] * 1000 <= since_ms]

    def wanted(self, key: EndpointKey) -> Wanted:
        """What an endpoint's tags say."""
        found = self._store.get(TAGS_KIND, key.scope, f"endpoint/{key.name}")
        tags = {tag["Key"]: tag["Value"] for tag in found.body["Tags"]} if found is not None else {}
        return wanted(tags, self._settings.objective)

    def trouble(self, key: EndpointKey) -> str:
        """What the last probe found wrong; "" for nothing."""
        watched = self._watched.get(key)
        return watched.trouble if watched is not None else ""

    # --- what is told -------------------------------------------------------------------------------------------------

    def _tell(self, kept: list[tuple[Endpoint, Minute]]) -> None:
        """Metrics of the minutes, and what begins and ends in the endpoint's story."""
        measured: list[Measured] = []
        for endpoint, minute in kept:
            if minute.verdict is Verdict.UNKNOWN:
                continue
            rates = self.rates(endpoint.uid, minute.at_ms + MINUTE_MS, self.wanted(endpoint.key).objective)
            measured += of_minute(endpoint.key, minute, rates)
            self._note_change(endpoint, minute)
        try:
            self._metrics.record(measured)
        except MetricsFull as error:
            log.warning("%d measurements of availability dropped: %s", len(measured), error)

    def rates(self, uid: str, now_ms: int, objective: float) -> Rates:
        """How fast the budget is used up, and what of it is left. Windows beyond six hours count whole hours."""
        recent = self._file.minutes(uid, now_ms - 360 * MINUTE_MS, now_ms)
        bad: dict[str, float] = {}
        for name, size in decide.WINDOWS.items():
            since_ms = now_ms - size * MINUTE_MS
            some = [m.badness for m in recent if m.counts and m.at_ms >= since_ms]
            bad[name] = sum(some) if size <= 360 else self._file.badness(uid, since_ms)
        month = self._file.badness(uid, now_ms - decide.BUDGET_DAYS * _DAY_MS)
        return Rates(decide.burns(bad, objective), decide.budget_left(month, objective))

    def _note_change(self, endpoint: Endpoint, minute: Minute) -> None:
        """The story tells when an outage begins and when it is over."""
        watched = self._watched.get(endpoint.key)
        if watched is None or minute.verdict is Verdict.PLANNED:
            return
        before, watched.before = watched.before, minute.verdict
        if (before is Verdict.BAD) == (minute.verdict is Verdict.BAD):
            return
        what = "UNAVAILABLE" if minute.verdict is Verdict.BAD else "AVAILABLE"
        scope, name = endpoint.key.scope, endpoint.key.name
        self._store.commit(Commit(events=[Event(KIND, scope, name, minute.at_ms, what, why(minute, watched.trouble))]))


@dataclass(frozen=True, slots=True)
class Rates:
    """Burn rates by window, and percent of the budget that is left."""

    by_window: Mapping[str, float]
    budget_left: float


def why(minute: Minute, trouble: str) -> str:
    """A minute in words."""
    seen = f"{minute.bad_s:.1f} of {minute.observed_s:.0f} observed seconds were bad"
    asked = f"; {minute.failed} of {minute.requests} requests failed" if minute.requests else ""
    return f"{seen}{asked}{f'; {trouble}' if trouble else ''}"


def of_minute(key: EndpointKey, minute: Minute, rates: Rates) -> Iterator[Measured]:
    """What a minute is told as. Averages over any time are shares of what was observed in it."""

    def one(name: str, value: float, unit: str = "None", times: float = 1.0, **more: str) -> Measured:
        summary = Summary()
        summary.add(value, times)
        dimensions = (("EndpointName", key.name), *more.items())
        return Measured(Metric(key.scope, NAMESPACE, name, dimensions), minute.at_ms, summary, unit)

    if minute.planned:
        yield one("Maintenance", 1.0)
    else:
        yield one("Availability", 100.0 * (1.0 - minute.badness), "Percent")
        yield one("GoodMinutes", float(minute.verdict is Verdict.GOOD))
        for value, count in ((0.0, minute.failed), (1.0, minute.requests - minute.failed)):
            if count > 0:
                yield one("GoodRequests", value, times=float(count))
    yield one("ErrorBudgetRemaining", rates.budget_left, "Percent")
    for window, rate in rates.by_window.items():
        yield one("BurnRate", rate, Window=window)
    for severity in decide.Severity:
        yield one("Burning", decide.burning(rates.by_window, severity), Severity=str(severity))


def _place(at_ms: int) -> tuple[int, int]:
    """The minute of a moment, and the second in it."""
    return at_ms - at_ms % MINUTE_MS, at_ms % MINUTE_MS // 1000

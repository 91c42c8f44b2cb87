"""How the requests of serverless endpoints are spread over time, as gateway workers tell of them.

Each worker tells how many requests it has at once, waiting ones included, when that changes; the sum over the workers
is an endpoint's use. It is in memory only: after a restart, or while a worker's word is missing, the past is not known,
and decide/serverless shrinks nothing until it is known again (law 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eyrie.decide.serverless import marked
from eyrie.domain.names import EndpointKey
from eyrie.domain.serverless import Mark, Use
from eyrie.ports import Clock

ENDPOINTS_MAX = 10_000  # whose past is remembered


@dataclass(frozen=True, slots=True)
class Told:
    """One worker's word about one endpoint."""

    now: int  # requests at once
    peak: int  # the most since its last word
    ready: int = 0  # requests since then that came while no more than ProvisionedConcurrency were there
    beyond: int = 0  # and those that came on top of them


@dataclass(slots=True)
class _Known:
    marks: tuple[Mark, ...] = ()
    peak: int = 0  # since it was last asked for, as `counts` tells it
    ready: int = 0
    beyond: int = 0


@dataclass(slots=True)
class UseBook:
    """Hears the workers. Called on the event loop."""

    clock: Clock
    _levels: dict[int, dict[EndpointKey, int]] = field(default_factory=dict)  # by worker's connection
    _known: dict[EndpointKey, _Known] = field(default_factory=dict)
    _since_ms: int = 0

    def joined(self, worker: int) -> None:
        """A worker is connected: from now on it tells everything."""
        self._levels[worker] = {}
        self._since_ms = self.clock.now_ms()

    def left(self, worker: int) -> None:
        """A worker is not connected any more; what it had is not known."""
        if self._levels.pop(worker, None) is not None:
            self._since_ms = self.clock.now_ms()

    def hear(self, worker: int, told: Mapping[EndpointKey, Told]) -> set[EndpointKey]:
        """Take in what a worker tells; the endpoints that have more requests at once than before."""
        levels, more = self._levels.setdefault(worker, {}), set()
        for key, word in told.items():
            before = self._now(key)
            if word.now:
                levels[key] = word.now
            else:
                levels.pop(key, None)
            self._note(key, word, before)
            if self._now(key) > before:
                more.add(key)
        return more

    def _note(self, key: EndpointKey, word: Told, before: int) -> None:
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= ENDPOINTS_MAX:
                self._known.clear()
                self._since_ms = self.clock.now_ms()
            known = self._known[key] = _Known()
        now = self._now(key)
        at_once = max(now + max(word.peak - word.now, 0), before)
        known.marks = marked(known.marks, at_once, self.clock.now_ms())
        known.peak = max(known.peak, at_once)
        known.ready += word.ready
        known.beyond += word.beyond

    def use(self, key: EndpointKey) -> Use | None:
        """The use of an endpoint; None while no worker is connected."""
        if not self._levels:
            return None
        known = self._known.get(key)
        return Use(self._now(key), self._since_ms, known.marks if known is not None else ())

    def counts(self, key: EndpointKey) -> Told:
        """What came since this was last asked for: requests at once now and at most, and the two counts."""
        now, known = self._now(key), self._known.get(key)
        if known is None:
            return Told(now, now)
        found = Told(now, max(known.peak, now), known.ready, known.beyond)
        known.peak, known.ready, known.beyond = now, 0, 0
        return found

    def forget(self, key: EndpointKey) -> None:
        """The endpoint is gone."""
        self._known.pop(key, None)

    def _now(self, key: EndpointKey) -> int:
        return sum(levels.get(key, 0) for levels in self._levels.values())

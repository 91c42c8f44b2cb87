"""Control's own vital signs: how long commits of the state take, and how late its event loop runs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from eyrie.control.tally import Spread
from eyrie.domain.exposition import Family, Sample, counter, gauge, histogram
from eyrie.domain.names import Scope
from eyrie.ports import Action, Commit, Conflict, Document, Event, Store

LOOK_S = 0.25


class LoopLag:
    """How late the event loop comes to what is due: the worst of the last seconds."""

    def __init__(self) -> None:
        self._worst_s = [0.0] * 40  # of ten seconds
        self._place = 0

    async def run(self) -> None:
        """Measure, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(LOOK_S)
            self._worst_s[self._place] = max(loop.time() - began - LOOK_S, 0.0)
            self._place = (self._place + 1) % len(self._worst_s)

    def families(self) -> list[Family]:
        """As it is now."""
        worst = [Sample({}, max(self._worst_s))]
        return [
            gauge("eyrie_control_loop_lag_seconds", "How late control's event loop ran, in ten seconds", worst, "s")
        ]


class TimedStore:
    """A Store that counts the commits of another, and how long they take."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store, self._monotonic = store, monotonic
        self._outcomes: Counter[str] = Counter()
        self._took = Spread()

    def commit(self, commit: Commit) -> None:
        """Store a transaction durably. Raises Conflict."""
        began, outcome = self._monotonic(), "failed"
        try:
            self._store.commit(commit)
            outcome = "done"
        except Conflict:
            outcome = "conflict"
            raise
        finally:
            self._outcomes[outcome] += 1
            self._took.add(self._monotonic() - began)

    def get(self, kind: str, scope: Scope, name: str) -> Document | None:
        """The document, or None."""
        return self._store.get(kind, scope, name)

    def scan(self, kind: str, scope: Scope | None = None) -> list[Document]:
        """All documents of a kind, in one scope or in all."""
        return self._store.scan(kind, scope)

    def outbox(self) -> list[Action]:
        """Actions not finished yet."""
        return self._store.outbox()

    def events(self, kind: str, scope: Scope, name: str, limit: int = 1000) -> list[Event]:
        """The newest events of a resource, oldest first."""
        return self._store.events(kind, scope, name, limit)

    def lease(self, name: str, holder: str, now_ms: int, duration_ms: int) -> bool:
        """Take or renew a lease."""
        return self._store.lease(name, holder, now_ms, duration_ms)

    def families(self) -> list[Family]:
        """As it is now."""
        samples = [Sample({"outcome": name}, float(count)) for name, count in sorted(self._outcomes.items())]
        return [
            counter("eyrie_store_commits", "Commits of the state, by what became of them", samples),
            histogram("eyrie_store_commit_seconds", "Time that commits took", [self._took.told({})], "s"),
        ]

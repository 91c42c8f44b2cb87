"""Deliveries: what rules and topics owe to addresses outside, tried until it is done or given up.

A delivery is a document, put by the commit that says why it is owed. One thread looks at what is due, some send; one
address never holds more than SENDING_MAX of them. What fails waits, twice as long each time, and is given up after so
many tries or so long: that is counted, and told in the story of the rule or topic that owed it. Everything here may be
done twice: a crash between an answer and its commit repeats the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from eyrie.adapters.described import described
from eyrie.control.wakeup import Wakeup
from eyrie.domain.events import Delivery
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope
from eyrie.ports import Clock, Commit, Conflict, Document, Event, Metrics, MetricsFull, Store

described(Delivery)  # it is read into in several threads

LOG = logging.getLogger(__name__)
KIND = "Delivery"
WAITING_MAX = 10_000  # deliveries owed at once; beyond it publishing is refused
SENDERS = 12
SENDING_MAX = 3  # to one address at once
BACKOFF_FIRST_MS = 1_000
BACKOFF_MAX_MS = 60_000
LOOK_PERIOD_S = 5.0  # for what is new without a wake-up
TICK_S = 0.2  # while anything is owed
REST = 10  # times as long as a look took, until the next one: many that wait do not keep the thread busy
_NAMES = {  # origin: namespace, dimension, metrics of success and failure
    "EventRule": ("AWS/Events", "RuleName", "Invocations", "FailedInvocations"),
    "Topic": ("AWS/SNS", "TopicName", "NumberOfNotificationsDelivered", "NumberOfNotificationsFailed"),
}
Key = tuple[Scope, str]


class Failed(Exception):
    """A delivery did not work this time; the message says why. `final`: it never will."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


Send = Callable[[Delivery], None]  # raises Failed


def delivery_document(delivery: Delivery) -> Document:
    """The document to put for a new delivery."""
    body: dict[str, Any] = msgspec.to_builtins(delivery)
    created_ms = delivery.created_ms
    return Document(KIND, delivery.scope, delivery.delivery_id, 0, created_ms, created_ms, body)


def backoff_ms(attempts: int) -> int:
    """How long to wait after so many failures."""
    return int(min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** min(attempts - 1, 16)))


class Deliveries:
    """Brings every delivery to its end. `send` does one, on a thread."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, send: Send) -> None:
        self._store, self._clock, self._metrics, self._send = store, clock, metrics, send
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="deliveries")
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="delivery")
        self._wakeup = Wakeup()
        self._fresh = True  # something is owed that the last look did not see
        self._look_from_s = 0.0  # no look before
        self._looked_s = 0.0
        self._known: dict[Key, Document] = {}  # as the last look saw them, or the last try left them
        self._ended: set[Key] = set()  # since the look that is under way began
        self._sending: set[Key] = set()
        self._addresses: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()  # done, failed, given_up

    def wake(self) -> None:
        """Something new is owed. From any thread."""
        self._fresh = True
        self._wakeup.wake()

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                self._wakeup.begin_round()
                now_s = time.monotonic()
                if (self._fresh or now_s - self._looked_s >= LOOK_PERIOD_S) and now_s >= self._look_from_s:
                    await self._look()
                self._begin()
                await self._wakeup.wait(TICK_S if self._known or self._fresh else LOOK_PERIOD_S)
        finally:
            self._looks.shutdown(wait=False, cancel_futures=True)
            self._senders.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        """See what is owed; what came to its end meanwhile is not taken from what an older look saw."""
        self._fresh, begun_s = False, time.monotonic()
        self._ended.clear()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._looks, self._store.scan, KIND)
        except Exception:  # the boundary of a look: the next one may go better
            LOG.exception("a look at the deliveries failed")
            found = list(self._known.values())
        self._looked_s = time.monotonic()
        self._look_from_s = self._looked_s + REST * (self._looked_s - begun_s)
        before, self._known = self._known, {}
        for document in found:
            key = (document.scope, document.name)
            known = before.get(key)
            newer = known is not None and known.version > document.version
            if key not in self._ended:
                self._known[key] = known if known is not None and newer else document

    def _begin(self) -> None:
        """Send what is due, oldest first."""
        now_ms = self._clock.now_ms()
        waiting = sorted(self._known.items(), key=lambda item: (item[1].body["next_ms"], item[1].created_ms))
        for key, document in waiting:
            if len(self._sending) >= SENDERS * 2 or document.body["next_ms"] > now_ms:
                break
            address = str(document.body["to"])
            if key in self._sending or self._addresses[address] >= SENDING_MAX:
                continue
            self._sending.add(key)
            self._addresses[address] += 1
            future = asyncio.get_running_loop().run_in_executor(self._senders, self._deliver, document)
            future.add_done_callback(partial(self._over, key, address))

    def _over(self, key: Key, address: str, sent: asyncio.Future[Document | None]) -> None:
        self._sending.discard(key)
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        later = None if sent.cancelled() else sent.result()
        if later is not None:
            self._known[key] = later
        else:
            self._ended.add(key)
            self._known.pop(key, None)
        self._wakeup.wake()

    # ------------------------------------------------------------------------------------------ on a sender's thread
    def _deliver(self, document: Document) -> Document | None:
        """One try; the delivery as it is owed still, or None: it came to its end."""
        try:
            return self._try(document)
        except Conflict:
            LOG.info("delivery %s was changed meanwhile", document.name)
            self._fresh = True
        except Exception:  # the boundary of a delivery: it is owed still
            LOG.exception("delivery %s failed", document.name)
            self._fresh = True
        return None

    def _try(self, document: Document) -> Document | None:
        owed = msgspec.convert(document.body, Delivery)
        try:
            self._send(owed)
        except Failed as error:
            return self._missed(document, owed, error)
        self._store.commit(Commit(deletes=[document]))
        self._count(owed, 2)
        self.counts["done"] += 1
        return None

    def _missed(self, document: Document, owed: Delivery, error: Failed) -> Document | None:
        now_ms, attempts = self._clock.now_ms(), owed.attempts + 1
        self.counts["failed"] += 1
        next_ms = now_ms + backoff_ms(attempts)
        if not (error.final or attempts >= owed.attempts_max or next_ms > owed.created_ms + owed.age_max_ms):
            later = replace(owed, attempts=attempts, next_ms=next_ms)
            put = replace(document, body=msgspec.to_builtins(later), modified_ms=now_ms)
            self._store.commit(Commit(puts=[put]))
            return replace(put, version=put.version + 1)
        why = f"{owed.what} to {owed.to}: {error}, after {attempts} tries"
        LOG.warning("%s %s: delivery given up: %s", owed.origin, owed.name, why)
        told = Event(owed.origin, owed.scope, owed.name, now_ms, "delivery given up", why)
        self._store.commit(Commit(deletes=[document], events=[told]))
        self._count(owed, 3)
        self.counts["given_up"] += 1
        return None

    def _count(self, owed: Delivery, outcome: int) -> None:
        """A metric of the rule's or the topic's: `outcome` is its place among _NAMES."""
        if owed.origin in _NAMES:
            names = _NAMES[owed.origin]
            count_one(self._metrics, owed.scope, names[0], (names[1], owed.name), names[outcome], self._clock.now_ms())


def count_one(
    metrics: Metrics, scope: Scope, namespace: str, dimension: tuple[str, str], name: str, now_ms: int
) -> None:
    """Count one of something as a metric, where there is room for it."""
    summary = Summary()
    summary.add(1.0)
    with contextlib.suppress(MetricsFull):
        metrics.record([Measured(Metric(scope, namespace, name, (dimension,)), now_ms, summary, "Count")])

"""The loop of events: takes up what was announced, finds the rules that pick it, and commits what their targets are
owed together with the end of the announcement, so that each event is taken up exactly once; and fires the rules that
have a schedule.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from eyrie.adapters.schedules import BadSchedule, following
from eyrie.control import announcements, deliveries, event_table
from eyrie.control.deliveries import count_one
from eyrie.control.event_table import Patterns, matching, owed_by
from eyrie.control.topics import uuid
from eyrie.control.wakeup import Wakeup
from eyrie.decide.events import event
from eyrie.domain.events import EventRule
from eyrie.domain.scaling import Schedule
from eyrie.ports import Clock, Commit, Conflict, Document, Identity, Metrics, Store
from eyrie.ports import Event as Told

LOG = logging.getLogger(__name__)
ROUND_PERIOD_S = 0.5
AT_ONCE_MAX = 200  # announcements in one round


class Events:
    """Turns announcements into deliveries."""

    def __init__(
        self, store: Store, clock: Clock, identity: Identity, metrics: Metrics, wake_deliveries: Callable[[], None]
    ) -> None:
        self._store, self._clock, self._identity, self._metrics = store, clock, identity, metrics
        self._wake_deliveries = wake_deliveries
        self._patterns = Patterns()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._wakeup = Wakeup()
        self._changed = True  # rules may have changed since the schedules were looked at
        self._next_ms: int | None = None  # when the next schedule is due; None: never

    def wake(self) -> None:
        """Something was announced, or a rule has changed. From any thread."""
        self._changed = True
        self._wakeup.wake()

    async def run(self) -> None:
        """Take up events until cancelled."""
        try:
            while True:
                self._wakeup.begin_round()
                try:
                    owed = await asyncio.get_running_loop().run_in_executor(self._thread, self._round)
                except Exception:  # the boundary of a round: the next one may go better
                    LOG.exception("a round of events failed")
                    owed = False
                if owed:
                    self._wake_deliveries()
                await self._wakeup.wait(ROUND_PERIOD_S)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    # --------------------------------------------------------------------------------------------------- on its thread
    def _round(self) -> bool:
        """Whether anything is owed now that was not before."""
        announced = sorted(self._store.scan(announcements.KIND), key=lambda d: (d.created_ms, d.name))[:AT_ONCE_MAX]
        due = self._changed or (self._next_ms is not None and self._clock.now_ms() >= self._next_ms)
        self._changed = False
        if not announced and not due:
            return False
        documents = self._store.scan(event_table.RULE)
        rules = [event_table.read(EventRule, document) for document in documents]
        owed = sum([self._take(document, rules) for document in announced])
        return bool(owed + self._fire(documents))

    def _take(self, document: Document, rules: list[EventRule]) -> int:
        """One announcement; how many deliveries it makes."""
        found, now_ms = document.body["event"], self._clock.now_ms()
        picked = list(matching(rules, self._patterns, found, document.scope))
        owed = [one for rule in picked for one in owed_by(self._store, rule, found, now_ms, self._identity.token)]
        owed, told = self._within_bound(owed, picked, now_ms)
        try:
            self._store.commit(Commit(puts=owed, deletes=[document], events=told))
        except Conflict:
            LOG.info("the event %s was taken up already", document.name)
            return 0
        for rule in picked:
            count_one(self._metrics, rule.scope, "AWS/Events", ("RuleName", rule.name), "TriggeredRules", now_ms)
        return len(owed)

    def _within_bound(
        self, owed: list[Document], picked: list[EventRule], now_ms: int
    ) -> tuple[list[Document], list[Told]]:
        """What there is room for; where there is none, that is told in the rules' stories."""
        if not owed or len(self._store.scan(deliveries.KIND)) + len(owed) <= deliveries.WAITING_MAX:
            return owed, []
        why = f"{deliveries.WAITING_MAX} deliveries wait already"
        LOG.warning("deliveries dropped: %s", why)
        return [], [Told(event_table.RULE, rule.scope, rule.name, now_ms, "delivery dropped", why) for rule in picked]

    def _fire(self, documents: list[Document]) -> int:
        """Fire the rules whose schedule is due; once, however long that was missed."""
        now_ms, owed, next_ms = self._clock.now_ms(), 0, None
        for document in documents:
            rule = event_table.read(EventRule, document)
            if not rule.schedule or not rule.enabled:
                continue
            if rule.next_ms and rule.next_ms <= now_ms:
                owed += self._fired(document, rule, now_ms)
                due_ms = next_fire_ms(rule.schedule, now_ms, document.created_ms)
            else:
                due_ms = rule.next_ms
            if due_ms:
                next_ms = min(next_ms or due_ms, due_ms)
        self._next_ms = next_ms
        return owed

    def _fired(self, document: Document, rule: EventRule, now_ms: int) -> int:
        event_id = uuid(self._identity.token)
        found = event(rule.scope, event_id, "aws.events", "Scheduled Event", {}, rule.next_ms, [rule.arn])
        owed = owed_by(self._store, rule, found, now_ms, self._identity.token)
        later = replace(rule, next_ms=next_fire_ms(rule.schedule, now_ms, document.created_ms))
        put = replace(event_table.document_of(self._store, later, now_ms), version=document.version)
        try:
            self._store.commit(Commit(puts=[put, *owed]))
        except Conflict:
            return 0
        count_one(self._metrics, rule.scope, "AWS/Events", ("RuleName", rule.name), "TriggeredRules", now_ms)
        return len(owed)


def next_fire_ms(schedule: str, now_ms: int, created_ms: int) -> int:
    """When a schedule is due next; 0: never again. Raises BadSchedule for what is none of EventBridge's."""
    if schedule.startswith("at("):
        raise BadSchedule(f"{schedule[:64]!r} is neither rate(value unit) nor cron(fields)")
    return following(Schedule(schedule), now_ms, created_ms) or 0

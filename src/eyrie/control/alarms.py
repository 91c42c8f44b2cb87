"""The loop of alarms: evaluates each when it is due, every minute (every ten seconds, where its period is shorter), and
composite ones whenever an alarm that they speak of has changed.

The event loop keeps the time; threads read and commit. A slow store or metrics file delays the evaluations that wait
for it and nothing else: an alarm is evaluated at most once at a time, what is not over when it is due again is counted
as late, and an evaluation that took longer than its deadline is thrown away. Alarms are known from the last look at the
store, so that evaluating does not begin with a read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from eyrie.control import alarm_table
from eyrie.control.alarm_actions import Transitions, changed
from eyrie.control.alarm_data import Bands, TrainingOf, read_range, step_ms
from eyrie.control.alarm_view import composite_reason
from eyrie.control.wakeup import Wakeup
from eyrie.decide.alarm_rule import RuleError, children_of, holds, parse_rule, suppression
from eyrie.decide.alarms import AlarmActions, Evaluation, evaluate
from eyrie.decide.metric_grammar import MathError
from eyrie.domain.alarms import Alarm, AlarmState, CompositeRule, MetricRule
from eyrie.domain.names import Scope
from eyrie.ports import Clock, Conflict, Document, Identity, Metrics, Store

LOG = logging.getLogger(__name__)
EVALUATORS = 4
TICK_S = 0.1
LOOK_PERIOD_S = 5.0  # for what changed without a wake-up
DEADLINE_S = 10.0  # of one evaluation, in real time
COMPOSITE_STEP_MS = 10_000
AlarmKey = tuple[Scope, str]


def _worth_a_line(count: int) -> bool:
    """Whether to log what happened for the n-th time: of a flood, the first and then few."""
    return count % 1_000 == 0 or count in (1, 10, 100)


@dataclass(slots=True)
class _Known:
    """An alarm as the last look saw it, or the last evaluation left it."""

    document: Document
    alarm: Alarm
    due_ms: int
    children: frozenset[str] = frozenset()  # names of the alarms that a composite one speaks of


_Work = Callable[[_Known, int, float], Document | None]  # an alarm, the decisions' time, real time in seconds


class Alarms:
    """Evaluates every alarm. `counts`: evaluated, changed, late, overdue, failed."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        identity: Identity,
        actions: AlarmActions,
        training_of: TrainingOf,
        wake_events: Callable[[], None] = lambda: None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """`wake_events` is called when there is something to announce or to deliver."""
        self._store, self._metrics, self._clock = store, metrics, clock
        self._bands = Bands(metrics, training_of)
        self._transitions = Transitions(store, identity, actions)
        self._wake_events, self._deadline_s = wake_events, deadline_s
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="alarms")
        self._evaluators = ThreadPoolExecutor(EVALUATORS, thread_name_prefix="alarm")
        self._wakeup = Wakeup()
        self._looking: asyncio.Future[list[Document]] | None = None
        self._looked_s = 0.0
        self._look_again = True
        self._table: dict[AlarmKey, _Known] = {}
        self._composites: set[AlarmKey] = set()  # those of the table that may be due when another one changes
        self._evaluating: set[AlarmKey] = set()
        self.counts: Counter[str] = Counter()

    def wake(self) -> None:
        """An alarm was created, changed or deleted: look soon. From any thread."""
        self._look_again = True
        self._wakeup.wake()

    async def run(self) -> None:
        """Evaluate until cancelled."""
        try:
            while True:
                self._wakeup.begin_round()
                self._look_where_due()
                self._evaluate_due()
                await self._wakeup.wait(TICK_S if self._table or self._looking else LOOK_PERIOD_S)
        finally:
            self._looks.shutdown(wait=False, cancel_futures=True)
            self._evaluators.shutdown(wait=False, cancel_futures=True)

    # ----------------------------------------------------------------------------------------------- on the event loop
    def _look_where_due(self) -> None:
        """Begin a look at the store, unless one is under way: a store that hangs is not asked again."""
        now_s = time.monotonic()
        if self._looking is not None or not (self._look_again or now_s - self._looked_s >= LOOK_PERIOD_S):
            return
        self._look_again, self._looked_s = False, now_s
        loop = asyncio.get_running_loop()
        self._looking = loop.run_in_executor(self._looks, self._store.scan, alarm_table.KIND)
        self._looking.add_done_callback(self._looked)

    def _looked(self, look: asyncio.Future[list[Document]]) -> None:
        self._looking = None
        if look.cancelled():
            return
        if look.exception() is not None:
            LOG.error("a look at the alarms failed: %s", look.exception())
            return
        self._take(look.result())
        self._wakeup.wake()

    def _take(self, documents: Sequence[Document]) -> None:
        """Make the table what the store has; what is new or changed is due now."""
        now_ms = self._clock.now_ms()
        found = {(document.scope, document.name): document for document in documents}
        for key in [key for key in self._table if key not in found]:
            del self._table[key]
            self._composites.discard(key)
        for key, document in found.items():
            known = self._table.get(key)
            if known is not None and known.document.created_ms != document.created_ms:
                known = None  # another alarm of that name
            if known is None or known.document.version < document.version:
                self._take_one(key, known, document, now_ms)

    def _take_one(self, key: AlarmKey, known: _Known | None, document: Document, now_ms: int) -> None:
        try:
            alarm = alarm_table.decode(document)
            fresh = _Known(document, alarm, now_ms, _children(alarm))
        except (msgspec.ValidationError, RuleError) as error:
            LOG.error("the alarm %s cannot be read: %s", document.name, error)
            return
        self._table[key] = fresh
        (self._composites.add if alarm.composite else self._composites.discard)(key)
        if known is not None and known.alarm.configured_ms == alarm.configured_ms:
            fresh.due_ms = known.due_ms  # its state was set: that holds until it is evaluated next
        if known is None or known.alarm.state is not alarm.state:
            self._tell_parents(key)

    def _evaluate_due(self) -> None:
        now_ms = self._clock.now_ms()
        for key, known in self._table.items():
            if known.due_ms > now_ms:
                continue
            if key in self._evaluating:
                if known.alarm.composite:
                    continue  # it may have seen states from before the change: once more, as soon as it is over
                self.counts["late"] += 1
                if _worth_a_line(self.counts["late"]):
                    LOG.warning(
                        "alarm %s: late (%d so far), its evaluation waits or is under way", key[1], self.counts["late"]
                    )
                known.due_ms = _next_due(known.alarm, now_ms)
                continue
            self._begin(key, known, now_ms)

    def _begin(self, key: AlarmKey, known: _Known, now_ms: int) -> None:
        known.due_ms = _next_due(known.alarm, now_ms)
        self._evaluating.add(key)
        work = self._evaluate_metric if known.alarm.metric else self._evaluate_composite
        job = asyncio.get_running_loop().run_in_executor(self._evaluators, self._guarded, work, known)
        job.add_done_callback(partial(self._over, key, known.alarm.state))

    def _over(self, key: AlarmKey, before: AlarmState, job: asyncio.Future[Document | None]) -> None:
        self._evaluating.discard(key)
        known = self._table.get(key)
        document = None if job.cancelled() else job.result()
        if document is None or known is None or document.version <= known.document.version:
            return
        known.document, known.alarm = document, alarm_table.decode(document)
        if known.alarm.state is not before:
            self._tell_parents(key)
        self._wake_events()

    def _tell_parents(self, changed_key: AlarmKey) -> None:
        """Composite alarms that speak of an alarm are due when it changes."""
        scope, name = changed_key
        for key in self._composites:
            known = self._table[key]
            rule = known.alarm.composite
            suppressed_by = rule is not None and alarm_table.name_of(rule.suppressor) == name
            if key[0] == scope and (name in known.children or suppressed_by):
                known.due_ms = 0
        self._wakeup.wake()

    # ----------------------------------------------------------------------------------------- on an evaluator's thread
    def _guarded(self, work: _Work, known: _Known) -> Document | None:
        """One evaluation; the alarm's document where it was changed. Its time is when it begins, not when it was due:
        many that are due at once wait for each other.
        """
        self.counts["evaluated"] += 1
        try:
            return work(known, self._clock.now_ms(), time.monotonic())
        except Conflict:
            self.wake()  # the API changed it meanwhile: it is looked at again
        except Exception:  # the boundary of an evaluation: the alarm is due again in a while
            self.counts["failed"] += 1
            LOG.exception("the evaluation of the alarm %s failed", known.alarm.name)
        return None

    def _too_late(self, begun_s: float, alarm: Alarm) -> bool:
        """Whether so much time went by that what was read says nothing any more."""
        took_s = time.monotonic() - begun_s
        if took_s <= self._deadline_s:
            return False
        self.counts["overdue"] += 1
        if _worth_a_line(self.counts["overdue"]):
            LOG.warning("alarm %s: an evaluation took %.1f s and is thrown away", alarm.name, took_s)
        return True

    def _evaluate_metric(self, known: _Known, now_ms: int, begun_s: float) -> Document | None:
        alarm, rule = known.alarm, known.alarm.metric
        assert rule is not None
        found = self._evaluation(alarm, rule, now_ms)
        if self._too_late(begun_s, alarm):
            return None
        document = None
        if found.state is not alarm.state:
            self.counts["changed"] += 1
            after = changed(alarm, found.state, found.reason, found.reason_data, now_ms)
            self._metrics.keep()  # else a control that is killed now would decide anew on older values alone
            document = self._transitions.commit(known.document, alarm, after, now_ms)
            alarm = after
        self._transitions.dispatch(alarm, found, changed=document is not None)
        return document

    def _evaluation(self, alarm: Alarm, rule: MetricRule, now_ms: int) -> Evaluation:
        try:
            seen = read_range(self._metrics, self._bands, alarm.scope, rule, now_ms)
        except MathError as error:  # was refused when the alarm was made, but for what only the data shows
            LOG.warning("alarm %s: %s", alarm.name, error)
            return Evaluation(AlarmState.INSUFFICIENT_DATA, f"Insufficient Data: {error}", "")
        return evaluate(rule, alarm.state, seen, now_ms)

    def _evaluate_composite(self, known: _Known, now_ms: int, begun_s: float) -> Document | None:
        alarm, rule = known.alarm, known.alarm.composite
        assert rule is not None
        true = holds(parse_rule(rule.expression), lambda name: self._state(alarm.scope, name))
        state = AlarmState.ALARM if true else AlarmState.OK
        after = alarm
        if state is not alarm.state:
            cause = self._cause(known, state)
            reason, data = composite_reason(cause) if cause else (f"The rule is {str(true).upper()}", "")
            after = changed(alarm, state, reason, data, now_ms)
        after = self._held_back(after, alarm, rule, now_ms)
        if after == alarm or self._too_late(begun_s, alarm):
            return None
        if state is alarm.state:
            left = alarm.owed_from if after.suppression is None else None
            return self._transitions.commit_actions(known.document, after, left, now_ms)
        self.counts["changed"] += 1
        return self._transitions.commit(known.document, alarm, after, now_ms, act=after.suppression is None)

    def _cause(self, known: _Known, state: AlarmState) -> Alarm | None:
        """The alarm to be named as the reason: that which changed last, of those in ALARM where the composite one goes
        there.
        """
        children = [alarm for name in known.children if (alarm := self._find(known.alarm.scope, name)) is not None]
        alike = [alarm for alarm in children if alarm.state is state] or children
        return max(alike, key=lambda alarm: (alarm.transitioned_ms, alarm.name), default=None)

    def _held_back(self, after: Alarm, before: Alarm, rule: CompositeRule, now_ms: int) -> Alarm:
        """The alarm with its suppression of now, and what it still owes."""
        suppressor = self._find(after.scope, rule.suppressor) if rule.suppressor else None
        held = suppression(after, rule, suppressor, now_ms)
        if held is None:
            return replace(after, suppression=None, owed_from=None)
        owed = before.owed_from or (before.state if after.state is not before.state else None)
        return replace(after, suppression=held, owed_from=None if owed is after.state else owed)

    def _find(self, scope: Scope, name_or_arn: str) -> Alarm | None:
        known = self._table.get((scope, alarm_table.name_of(name_or_arn)))
        return known.alarm if known is not None else None

    def _state(self, scope: Scope, name_or_arn: str) -> AlarmState | None:
        alarm = self._find(scope, name_or_arn)
        return alarm.state if alarm is not None else None


def _children(alarm: Alarm) -> frozenset[str]:
    if alarm.composite is None:
        return frozenset()
    return frozenset(map(alarm_table.name_of, children_of(parse_rule(alarm.composite.expression))))


def _next_due(alarm: Alarm, now_ms: int) -> int:
    """The next whole minute, or ten seconds."""
    step = COMPOSITE_STEP_MS if alarm.metric is None else step_ms(alarm.metric.period_s)
    due_ms = now_ms - now_ms % step + step
    rule, held = alarm.composite, alarm.suppression
    if rule is not None and held is not None and held.by != "Alarm":
        due_ms = min(due_ms, now_ms + 1_000)  # a period of waiting ends soon
    return due_ms

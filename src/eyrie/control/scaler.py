"""The reconciler of scalable targets: each second it looks at what is measured, has decide/scaling say what is to be
done, and commits the desired count together with its reason.

The API writes targets, policies and scheduled actions and calls `wake`; alarms of step policies come in by `alarmed`;
the count is changed by the same command as UpdateEndpointWeightsAndCapacities. What is refused while an endpoint is
being updated is decided again, on what is measured then, until it is free.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from eyrie.adapters.schedules import BadSchedule, following
from eyrie.control import alarm_table, quotas, scaling_activities, scaling_table
from eyrie.control.endpoints import Endpoints
from eyrie.control.scaling_table import POLICY, SCHEDULED, STATE, TARGET, PolicyRecord, Scheduled, State, Target
from eyrie.control.scaling_watch import DemandSight, PointSight, Watch, due, readable, signals_of
from eyrie.control.wakeup import Wakeup
from eyrie.decide.alarms import Evaluation
from eyrie.decide.endpoint import growing
from eyrie.decide.scaling import Observation, decide, schedule
from eyrie.domain.alarms import Alarm
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.domain.errors import Refused
from eyrie.domain.fleet import Variant
from eyrie.domain.names import EndpointKey
from eyrie.domain.scaling import (
    Activity,
    ActivityStatus,
    Bounds,
    Breach,
    Code,
    FastTracking,
    ScalingDecision,
    StepScaling,
    TargetKey,
    TargetTracking,
)
from eyrie.ports import Clock, Commit, Conflict, Document, Event, Identity, Metrics, Store

LOG = logging.getLogger(__name__)
LOAD_PERIOD_S = 5  # for what changed without a wake-up
AFTER_SECOND_S = 0.3  # the workers tell of a second as soon as it is over
RETRY_MS = 15_000  # after a change that came to nothing; doubled each time
RETRY_MAX_MS = 300_000
_S = EndpointStatus


class Scaler:
    """Scales every registered variant. One thread looks."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        identity: Identity,
        endpoints: Endpoints,
        watched: Callable[[], bool],
        scale: float = 1.0,
        idle_is_zero: bool = True,
    ) -> None:
        """`watched`: every gateway worker is connected, so that no request is missed. `scale`: of the clock."""
        self._store, self._metrics, self._clock, self._identity = store, metrics, clock, identity
        self._endpoints, self._watched, self._scale = endpoints, watched, scale
        self._sight = PointSight(metrics, scale, idle_is_zero)
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="scaler")
        self._lock = threading.Lock()  # guards the two below, which other threads reach
        self._changed = True
        self._alarmed: dict[str, Breach | None] = {}  # by the policy's ARN
        self._watches: dict[TargetKey, Watch] = {}
        self._loaded_s = 0
        self._watched_ms: int | None = None  # since when every request is known of
        self._wakeup = Wakeup()

    def wake(self) -> None:
        """A target, a policy or a schedule was changed: look soon. From any thread."""
        with self._lock:
            self._changed = True
        self._wakeup.wake()

    def alarmed(self, alarm: Alarm, evaluation: Evaluation) -> None:
        """An alarm asks for one of our policies; it is called again while it is in ALARM. From any thread."""
        threshold = alarm.metric.threshold if alarm.metric is not None else None
        values = [point.value for point in evaluation.datapoints]
        with self._lock:
            for arn in alarm.actions_of(alarm.state):
                if not arn.startswith("arn:aws:autoscaling:"):
                    continue
                at = threshold or 0.0
                self._alarmed[arn] = Breach(alarm.name, values[0] if values else at, at)
        self._wakeup.wake()

    async def run(self) -> None:
        """Look each second until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wakeup.begin_round()
                try:
                    await loop.run_in_executor(self._looks, self.look, math.floor(loop.time()))
                except Exception:  # the boundary of a look: the next one may go better
                    LOG.exception("a look at the scalable targets failed")
                now_s = loop.time()
                pause_s = math.floor(now_s - AFTER_SECOND_S) + 1 + AFTER_SECOND_S - now_s
                await self._wakeup.wait(pause_s)
        finally:
            self._looks.shutdown(wait=True, cancel_futures=True)

    # ----------------------------------------------------------------------------------------------- on the thread
    def look(self, second: int) -> None:
        """One look at every target. `second` counts real seconds; looks within one are for what was woken."""
        now_ms, watched = self._clock.now_ms(), self._watched()
        if not watched:
            self._watched_ms = None
        elif self._watched_ms is None:
            self._watched_ms = now_ms
        with self._lock:
            changed, self._changed = self._changed, False
            alarmed, self._alarmed = self._alarmed, {}
        if changed or second - self._loaded_s >= LOAD_PERIOD_S:
            self._load()
            self._loaded_s = second
        for watch in list(self._watches.values()):
            self._hear(watch, alarmed)
            try:
                self._turn(watch, second, now_ms, watched)
            except Conflict as error:
                LOG.info("scaling %s lost a race: %s", watch.target.key.resource_id, error)
                self.wake()
            except Exception:  # the boundary of a target: the others are scaled all the same
                LOG.exception("scaling %s failed", watch.target.key.resource_id)

    def _load(self) -> None:
        """Read what there is. What is remembered of a policy's seconds stays, as long as the policy is the same."""
        before, self._watches = self._watches, {}
        policies, scheduled = self._store.scan(POLICY), self._store.scan(SCHEDULED)
        states = {(d.scope, d.name): d for d in self._store.scan(STATE)}
        for document in self._store.scan(TARGET):
            target = scaling_table.decode(document, Target)
            prefix = document.name + ":"
            mine = [d for d in policies if d.scope == document.scope and d.name.startswith(prefix)]
            records = {r.name: r for r in (scaling_table.decode(d, PolicyRecord) for d in mine)}
            planned = tuple(
                (scaling_table.decode(d, Scheduled), d.created_ms)
                for d in scheduled
                if d.scope == document.scope and d.name.startswith(prefix)
            )
            state_document = states.get((document.scope, document.name))
            state = _state_of(target, state_document)
            read = (readable(record) for record in sorted(records.values(), key=lambda r: r.name))
            watch = Watch(document, target, records, tuple(p for p in read if p), planned, state, state_document)
            watch.next_scheduled_ms = self._next_scheduled(watch)
            self._carry_over(watch, before.get(target.key))
            self._watches[target.key] = watch

    def _carry_over(self, watch: Watch, before: Watch | None) -> None:
        if before is not None:
            watch.breaches = before.breaches
            watch.points = {name: before.points[name] for name in before.points if _same(watch, before, name)}
            watch.failures, watch.held_until_ms = before.failures, before.held_until_ms
        known = before.fast if before is not None else {}
        for policy in watch.policies:
            if type(policy) is FastTracking:
                sight = known.get(policy.name)
                if sight is None or sight.policy != policy:
                    sight = DemandSight(self._metrics, watch.target.key, policy, self._scale)
                watch.fast[policy.name] = sight

    def _hear(self, watch: Watch, alarmed: Mapping[str, Breach | None]) -> None:
        for policy in watch.policies:
            breach = alarmed.get(watch.records[policy.name].arn)
            if breach is not None and type(policy) is StepScaling:
                watch.breaches[policy.name] = breach
            elif breach is not None and type(policy) is TargetTracking:
                watch.again = True  # only a hint to look: the points say what is to be done

    def _turn(self, watch: Watch, second: int, now_ms: int, watched: bool) -> None:
        """One target: what is planned, what is under way, what is to be decided."""
        if watch.next_scheduled_ms is not None and watch.next_scheduled_ms <= now_ms:
            self._do_scheduled(watch, now_ms)
        under_way = bool(watch.state.scaled) and watch.state.scaled[0].status is ActivityStatus.IN_PROGRESS
        if not (under_way or due(watch, self._sight, now_ms)):
            return
        key = watch.target.key
        endpoint = self._endpoints.get(EndpointKey(key.account, key.region, key.endpoint))
        if endpoint is None:
            self._forget(watch, now_ms)
            return
        variant = endpoint.fleet.variant(key.variant)
        capacity = _capacity(variant, key)
        for sight in watch.fast.values():
            sight.look(second, now_ms, watched, capacity)
        if under_way:
            self._follow(watch, endpoint, now_ms)
        held = _held(endpoint, watch, now_ms)
        again, watch.again = watch.again, False
        if not (again or due(watch, self._sight, now_ms)):
            return
        signals = signals_of(watch, self._sight, now_ms, now_ms if self._watched_ms is None else self._watched_ms)
        if variant is None or (variant.serverless is not None) is not key.provisioned:
            watch.again = True
            return
        seen = Observation(capacity, signals, held, 1 if key.provisioned else variant.spec.least)
        if endpoint.fleet.generation != watch.state.fleet:  # of a deployment: its counts may be out of bounds
            memory = replace(watch.state.memory, bounds=None)
            watch.state = replace(watch.state, memory=memory, fleet=endpoint.fleet.generation)
        bounds_now = _bounds(watch.target.bounds, variant)
        made = decide(bounds_now, watch.policies, seen, watch.state.memory, now_ms)
        if held is not None:
            bounds = (bounds_now.lowest, bounds_now.highest)
            refused = any(n.code is Code.UNSCALABLE for n in made.not_scaled)
            watch.again = refused or watch.state.memory.bounds != bounds  # decide again once it is free
        if not watch.again:
            watch.breaches.clear()
        self._follow_decision(watch, made, capacity, now_ms)

    # ---------------------------------------------------------------------------------------------- what comes of it
    def _follow_decision(self, watch: Watch, made: ScalingDecision, capacity: int, now_ms: int) -> None:
        state = watch.state
        if made.memory is not None and made.capacity is None:
            state = replace(state, memory=made.memory)
        if made.not_scaled:
            state = scaling_activities.with_unscaled(
                state, made.not_scaled, watch.records, watch.target.bounds, now_ms, self._identity.token(32)
            )
        if made.capacity is not None:
            self._scale_to(watch, state, made, capacity, now_ms)
        elif state != watch.state:
            self._keep(watch, state, now_ms)

    def _scale_to(self, watch: Watch, state: State, made: ScalingDecision, capacity: int, now_ms: int) -> None:
        """Commit the count and the activity together."""
        assert made.capacity is not None
        key, wanted = watch.target.key, made.capacity
        activity = scaling_activities.begun(made, watch.records, now_ms, self._identity.token(32), key.noun)
        next_state = replace(state, memory=made.memory or state.memory)
        if _in_progress(state):
            overtaken = f"The desired {key.noun} was raised to {wanted} meanwhile."
            was = scaling_activities.ended(state.scaled[0], ActivityStatus.OVERRIDDEN, overtaken, now_ms)
            next_state = next_state.with_activity(was)
        next_state = next_state.with_activity(activity)
        why = f"variant {key.variant} scaled from {capacity} to {wanted}: {activity.cause}"
        why += f" ({made.why})" if made.policy else ""
        try:
            if not key.provisioned:
                self._check_quota(key, wanted - capacity)
            document = self._state_document(watch, next_state, now_ms)
            endpoint_key = EndpointKey(key.account, key.region, key.endpoint)
            scale = self._endpoints.provision if key.provisioned else self._endpoints.scale
            scale(endpoint_key, key.variant, capacity, wanted, why, [document])
        except Refused as error:  # it is being updated by now, say: decide again
            LOG.info("scaling %s to %d: %s", key.resource_id, wanted, error)
            watch.again = True
            return
        except _Full as error:
            self._failed(watch, scaling_activities.ended(activity, ActivityStatus.FAILED, str(error), now_ms), now_ms)
            return
        watch.state, watch.state_document = next_state, replace(document, version=document.version + 1)
        LOG.info("%s: %s", key.resource_id, why)

    def _check_quota(self, key: TargetKey, more: int) -> None:
        every = self._endpoints.list(key.scope)
        own = next((e for e in every if e.key.name == key.endpoint), None)
        variant = own.fleet.variant(key.variant) if own is not None else None
        if variant is None:
            return
        over = quotas.excess(self._store, key.scope, every, quotas.needed([(variant.spec, more, 0)]))
        if over is not None:
            raise _Full(f"{over.used} of {over.limit} are in use ({over.name}), and {over.wanted} more are wanted")

    def _follow(self, watch: Watch, endpoint: Endpoint, now_ms: int) -> None:
        """See what has become of the change that is under way. A cool-down counts from its end."""
        if endpoint.status in (_S.UPDATING, _S.CREATING):
            return
        activity, key = watch.state.scaled[0], watch.target.key
        now = _capacity(endpoint.fleet.variant(key.variant), key)
        if now != activity.desired:
            if endpoint.failure_reason:
                why = f"Failed to set desired {key.noun} to {activity.desired}: {endpoint.failure_reason}"
                self._failed(watch, scaling_activities.ended(activity, ActivityStatus.FAILED, why, now_ms), now_ms)
                return
            why = f"The desired {key.noun} was set to {now} meanwhile."
            done = scaling_activities.ended(activity, ActivityStatus.OVERRIDDEN, why, now_ms)
        else:
            done = scaling_activities.fulfilled(activity, now_ms, key.noun)
        memory = watch.state.memory
        if memory.out_ms == activity.started_ms:
            memory = replace(memory, out_ms=now_ms)
        elif memory.in_ms == activity.started_ms:
            memory = replace(memory, in_ms=now_ms)
        watch.failures = 0
        self._keep(watch, replace(watch.state, memory=memory).with_activity(done), now_ms)

    def _failed(self, watch: Watch, activity: Activity, now_ms: int) -> None:
        """Not at once again: every attempt starts instances, or could."""
        watch.held_until_ms = now_ms + min(RETRY_MS << min(watch.failures, 10), RETRY_MAX_MS)
        watch.failures += 1
        watch.again = True
        self._keep(watch, watch.state.with_activity(activity), now_ms)

    def _keep(self, watch: Watch, state: State, now_ms: int) -> None:
        document = self._state_document(watch, state, now_ms)
        self._store.commit(Commit(puts=[document]))
        watch.state, watch.state_document = state, replace(document, version=document.version + 1)

    def _state_document(self, watch: Watch, state: State, now_ms: int) -> Document:
        return scaling_table.put(watch.state_document, STATE, watch.target.key, "", state, now_ms)

    # ------------------------------------------------------------------------------------------------- schedules
    def _next_scheduled(self, watch: Watch) -> int | None:
        """When the next scheduled action is due."""
        times = [self._following(watch, scheduled, created_ms) for scheduled, created_ms in watch.scheduled]
        return min((at_ms for at_ms in times if at_ms is not None), default=None)

    def _following(self, watch: Watch, scheduled: Scheduled, created_ms: int) -> int | None:
        try:
            after_ms = max(watch.state.scheduled_ms, created_ms)
            return following(scheduled.action.schedule, after_ms, created_ms)
        except BadSchedule as error:
            LOG.error("scheduled action %s: %s", scheduled.action.name, error)
            return None

    def _do_scheduled(self, watch: Watch, now_ms: int) -> None:
        """Every action whose time has come, in the order of their times; of one that was missed several times, once."""
        times = [(self._following(watch, one, created_ms), one) for one, created_ms in watch.scheduled]
        ready = sorted(((at_ms, s) for at_ms, s in times if at_ms is not None and at_ms <= now_ms), key=lambda x: x[0])
        bounds, state = watch.target.bounds, replace(watch.state, scheduled_ms=now_ms)
        events = []
        for _, scheduled in ready:
            if bounds.suspended.scheduled:
                continue
            after = schedule(bounds, scheduled.action)
            activity = scaling_activities.scheduled(scheduled.action, bounds, after, now_ms, self._identity.token(32))
            state = state.with_activity(activity) if not _in_progress(state) else state
            key = watch.target.key
            events.append(Event("Endpoint", key.scope, key.endpoint, now_ms, activity.description, activity.cause))
            bounds = after or bounds
        document = self._state_document(watch, state, now_ms)
        puts, target = [document], replace(watch.target, bounds=bounds)
        if target != watch.target:
            changed = replace(watch.document, body=scaling_table.encode(target), modified_ms=now_ms)
            puts.append(changed)
        self._store.commit(Commit(puts=puts, events=events))
        if target != watch.target:
            watch.document, watch.target = replace(changed, version=changed.version + 1), target
        watch.state, watch.state_document = state, replace(document, version=document.version + 1)
        watch.next_scheduled_ms, watch.again = self._next_scheduled(watch), True

    def _forget(self, watch: Watch, now_ms: int) -> None:
        """The endpoint is gone: so is everything that scaled it."""
        key = watch.target.key
        LOG.info("%s is gone, and no longer scaled", key.resource_id)
        self._store.commit(forgotten(self._store, watch.document, key, now_ms))
        self._watches.pop(key, None)


def _capacity(variant: Variant | None, key: TargetKey) -> int:
    """What of a variant is scaled, as it is wanted now."""
    if variant is None:
        return 0
    if key.provisioned:
        return variant.serverless.provisioned if variant.serverless is not None else 0
    return variant.desired_count


def _bounds(bounds: Bounds, variant: Variant) -> Bounds:
    """Those of a target; provisioned concurrency never passes MaxConcurrency."""
    if variant.serverless is None:
        return bounds
    most = variant.serverless.max_concurrency
    return replace(bounds, lowest=min(bounds.lowest, most), highest=min(bounds.highest, most))


def _same(watch: Watch, before: Watch, policy: str) -> bool:
    return policy in watch.records and watch.records[policy] == before.records.get(policy)


class _Full(Exception):
    """There may be no more instances."""


def forgotten(store: Store, target: Document, key: TargetKey, now_ms: int) -> Commit:
    """What removes a target with all that it has."""
    owned = [document for kind in (POLICY, SCHEDULED) for document in scaling_table.owned(store, kind, key)]
    state = scaling_table.found(store, STATE, key)
    alarms = []
    for document in owned:
        if document.kind == POLICY:
            names = [name for _, name in scaling_table.decode(document, PolicyRecord).alarms]
            alarms += [d for name in names if (d := store.get(alarm_table.KIND, key.scope, name)) is not None]
    events = [alarm_table.deleted(alarm_table.decode(document), now_ms) for document in alarms]
    return Commit(deletes=[target, *owned, *alarms, *([state] if state else [])], events=events)


def _state_of(target: Target, document: Document | None) -> State:
    """What is remembered of this registration of the target."""
    if document is not None:
        state = scaling_table.decode(document, State)
        if state.target_id == target.target_id:
            return state
    return State(target.key, target.target_id)


def _in_progress(state: State) -> bool:
    return bool(state.scaled) and state.scaled[0].status is ActivityStatus.IN_PROGRESS


def _held(endpoint: Endpoint, watch: Watch, now_ms: int) -> str | None:
    """Why the count cannot be changed now. A fast policy may let a growth on its way grow further; those that act as
    AWS's do wait for its end, as there.
    """
    if endpoint.status is not _S.IN_SERVICE and not (watch.fast and growing(endpoint)):
        return f"the endpoint is {endpoint.status}"
    if endpoint.fleet.variant(watch.target.key.variant) is None:
        return f"the endpoint has no variant {watch.target.key.variant}"
    if now_ms < watch.held_until_ms:
        return "the last change failed a moment ago"
    return None

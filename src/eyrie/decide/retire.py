"""How an instance ends: out of the route, acknowledged, its last request answered or the limit passed, SIGTERM,
SIGKILL, forgotten (law 14). Last step of decide/reconcile; it looks only at instances that nobody counts on any more.
"""

from __future__ import annotations

from dataclasses import replace

from eyrie.decide.draft import Draft
from eyrie.decide.fleet import is_gone
from eyrie.decide.policy import Policy
from eyrie.decide.publication import in_route
from eyrie.domain.fleet import GIVEN_UP, Instance, InstanceState
from eyrie.domain.plan import Verb


def retire(draft: Draft, policy: Policy) -> None:
    """Take every instance that is on its way out one step further."""
    for instance in draft.endpoint.instances:
        if (
            instance.state is InstanceState.DRAINING
            or instance.state in GIVEN_UP
            or instance.state is InstanceState.STOPPED
        ):
            _take_further(draft, policy, instance)


def _take_further(draft: Draft, policy: Policy, instance: Instance) -> None:
    if draft.owed(Verb.ENSURE_INSTANCE, instance.instance_id):
        return  # its start is under way: what comes of it is not known yet
    seen = draft.seen.seen.get(instance.instance_id)
    if seen is not None and seen.alive:
        _stop(draft, policy, instance)
    elif is_gone(draft, instance, seen) and draft.seen.seen_ms > instance.requested_ms:
        _bury(draft, instance, nothing_left=seen is None)


def _bury(draft: Draft, instance: Instance, nothing_left: bool) -> None:
    if instance.state is InstanceState.DRAINING:
        instance = draft.move(instance, InstanceState.STOPPED, "drained and stopped: " + instance.reason)
    if nothing_left:
        draft.drop(instance)
    elif not draft.owed(Verb.FORGET_INSTANCE, instance.instance_id):
        draft.owe(Verb.FORGET_INSTANCE, instance.instance_id)


def _stop(draft: Draft, policy: Policy, instance: Instance) -> None:
    if instance.instance_id in in_route(draft.endpoint):
        return
    if instance.stop_ms:
        _kill_again(draft, policy, instance)
        return
    if instance.left_generation and not _left_for_good(draft, policy, instance):
        return
    grace_ms = policy.drain_ms if instance.state is InstanceState.DRAINING else 0
    draft.owe(Verb.STOP_INSTANCE, instance.instance_id, "stop", grace_ms=grace_ms)
    draft.put(replace(instance, stop_ms=draft.now_ms, acked_ms=instance.acked_ms or draft.now_ms))
    draft.wake_at(draft.now_ms + grace_ms + policy.kill_again_ms)


def _left_for_good(draft: Draft, policy: Policy, instance: Instance) -> bool:
    """Nobody sends it requests any more, and those in flight are answered; each wait has its limit."""
    acked_ms = instance.acked_ms
    if not acked_ms:
        limit_ms = instance.left_ms + policy.ack_limit_ms
        if not _acknowledged(draft, instance.left_generation) and draft.now_ms < limit_ms:
            draft.wake_at(limit_ms)
            return False
        acked_ms = draft.now_ms
    limit_ms = acked_ms + policy.drain_ms
    if instance.instance_id not in draft.seen.idle and draft.now_ms < limit_ms:
        draft.put(replace(instance, acked_ms=acked_ms))
        draft.wake_at(limit_ms)
        return False
    return True


def _acknowledged(draft: Draft, generation: int) -> bool:
    """The table is published (or withdrawn), and no live gateway serves an older one."""
    owed = any(draft.owed(verb, str(generation)) for verb in (Verb.PUBLISH_ROUTE, Verb.WITHDRAW_ROUTE))
    return not owed and draft.seen.served >= generation


def _kill_again(draft: Draft, policy: Policy, instance: Instance) -> None:
    """SIGKILL for one that outlived its grace: the adapter's own timer died with a control process, or was lost."""
    grace_ms = policy.drain_ms if instance.state is InstanceState.DRAINING and not instance.kills else 0
    due_ms = instance.stop_ms + grace_ms + policy.kill_again_ms
    if draft.now_ms < due_ms:
        draft.wake_at(due_ms)
        return
    draft.note(f"instance {instance.instance_id} SIGKILL", f"alive {draft.now_ms - instance.stop_ms} ms after its stop")
    draft.owe(Verb.STOP_INSTANCE, instance.instance_id, f"kill-{instance.kills + 1}", grace_ms=0)
    draft.put(replace(instance, stop_ms=draft.now_ms, kills=instance.kills + 1))
    draft.wake_at(draft.now_ms + policy.kill_again_ms)

"""What each instance of an endpoint is, as seen now: the ordered tables that turn facts into states (laws 6 and 13).

First of the steps of decide/reconcile. Gone (its lock is free) is LOST now; silent is UNKNOWN, not dead; a start that
takes too long or ends by itself is FAILED, and counts against the variant's back-off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from eyrie.decide.draft import Draft
from eyrie.decide.policy import Policy
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import (
    Backoff,
    Fleet,
    Instance,
    InstanceSpec,
    InstanceState,
    ModelSpec,
    ObservedInstance,
    Variant,
)
from eyrie.domain.observation import Health
from eyrie.domain.plan import Outcome, Verb

REASON_CHARS_MAX = 1024  # SageMaker's limit of a FailureReason
UNHEALTHY = (
    "The {container} container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


def spec_of(endpoint: Endpoint, instance: Instance) -> InstanceSpec | None:
    """What compute needs to bring an instance up, of the endpoint alone; None when its fleet is no more."""
    variant = variant_of(endpoint, instance)
    if variant is None:
        return None
    spec = variant.spec
    return InstanceSpec(
        instance_id=instance.instance_id,
        endpoint=endpoint.key,
        variant=instance.variant,
        zone=instance.zone,
        generation=instance.generation,
        instance_type=spec.instance_type,
        vcpu_milli=spec.vcpu_milli,
        memory_mb=spec.memory_mb,
        containers=spec.model.containers,
        startup_timeout_s=spec.startup_timeout_s,
        execution=spec.model.execution,
        workers=spec.workers,
    )


def variant_of(endpoint: Endpoint, instance: Instance) -> Variant | None:
    """The variant that an instance belongs to, while its fleet is one of the endpoint's."""
    fleet = next((f for f in endpoint.fleets if f.generation == instance.fleet), None)
    return fleet.variant(instance.variant) if fleet else None


def members(endpoint: Endpoint, fleet: Fleet, variant: str, *states: InstanceState) -> list[Instance]:
    """The counted instances of a variant, oldest first; of the given states only where there are any."""
    return [i for i in endpoint.members(fleet, variant) if not states or i.state in states]


def suspect(ready: int, unknown: int) -> bool:
    """More than half of a variant went silent together: then the prober is suspect, not the instances."""
    return 2 * unknown > ready + unknown


def absorb(draft: Draft, policy: Policy) -> None:
    """Take in how starts ended: STARTING, or FAILED for a reason that compute gave."""
    for outcome in draft.seen.outcomes:
        if outcome.verb is Verb.ENSURE_INSTANCE:
            _absorb_start(draft, policy, outcome)
        elif outcome.verb is Verb.FORGET_INSTANCE and outcome.error is None:
            for instance in draft.endpoint.instances:
                if instance.instance_id == outcome.subject and _over(instance):
                    draft.drop(instance)


def _absorb_start(draft: Draft, policy: Policy, outcome: Outcome) -> None:
    instance = next((i for i in draft.endpoint.instances if i.instance_id == outcome.subject), None)
    if instance is None:
        return
    if (
        instance.state is not InstanceState.REQUESTED
    ):  # it is on its way out already: now something may be there to stop
        draft.put(replace(instance, started_ms=draft.now_ms))
    elif outcome.error is None:
        draft.move(instance, InstanceState.STARTING, "compute has it", started_ms=draft.now_ms)
    else:
        _fail(draft, policy, instance, outcome.error, outcome.error, fatal=True)


def look(draft: Draft, policy: Policy) -> None:
    """Move every instance to the state that the facts say."""
    for instance in draft.endpoint.instances:
        seen = draft.seen.seen.get(instance.instance_id)
        if instance.state is InstanceState.STARTING:
            _look_at_starting(draft, policy, instance, seen)
        elif instance.state is InstanceState.READY:
            _look_at_ready(draft, policy, instance, seen)
        elif instance.state is InstanceState.UNKNOWN:
            _look_at_unknown(draft, policy, instance, seen)
    _forgive(draft, policy)


def is_gone(draft: Draft, instance: Instance, seen: ObservedInstance | None) -> bool:
    """True when compute shows that an instance runs no more. An inventory from before its start says nothing."""
    if seen is not None and seen.alive:
        return False
    return draft.seen.seen_ms > instance.started_ms


def _look_at_starting(draft: Draft, policy: Policy, instance: Instance, seen: ObservedInstance | None) -> None:
    variant = variant_of(draft.endpoint, instance)
    limit_s = variant.spec.startup_timeout_s if variant else 0
    health = draft.seen.health.get(instance.instance_id, Health())
    if is_gone(draft, instance, seen):
        why = f"ended before it answered /ping: {_last_words(seen)}"
        _fail(draft, policy, instance, why, _failure_text(draft, instance, f"It ended by itself: {_last_words(seen)}."))
    elif seen is not None and health.answers:
        took_ms = draft.now_ms - instance.requested_ms
        why = f"/ping answered {took_ms} ms after it was asked for"
        draft.move(
            instance, InstanceState.READY, why, ready_ms=draft.now_ms, socket=seen.socket, isolation=seen.isolation
        )
    elif draft.now_ms - instance.started_ms >= limit_s * 1000:
        last = f": {health.detail}" if health.detail else ""
        text = _failure_text(draft, instance, f"It did not answer within {limit_s} s{last}.")
        why = f"no 200 from /ping within the start-up limit of {limit_s} s{last}"
        _fail(draft, policy, instance, why, text, fatal=True)
    else:
        draft.wake_at(instance.started_ms + limit_s * 1000)


def _look_at_ready(draft: Draft, policy: Policy, instance: Instance, seen: ObservedInstance | None) -> None:
    variant = variant_of(draft.endpoint, instance)
    health = draft.seen.health.get(instance.instance_id, Health())
    if is_gone(draft, instance, seen):
        _lose(draft, policy, instance, seen)
    elif variant is not None and health.misses >= policy.misses_allowed(variant.spec):
        draft.move(instance, InstanceState.UNKNOWN, f"{health.misses} pings missed in a row, the last: {health.detail}")


def _look_at_unknown(draft: Draft, policy: Policy, instance: Instance, seen: ObservedInstance | None) -> None:
    health = draft.seen.health.get(instance.instance_id, Health())
    if is_gone(draft, instance, seen):
        _lose(draft, policy, instance, seen)
    elif health.answers and health.at_ms >= instance.since_ms:
        draft.move(instance, InstanceState.READY, f"answers again after {draft.now_ms - instance.since_ms} ms")


def give_up_silent(draft: Draft, policy: Policy, fleet: Fleet, variant: str) -> None:
    """LOST for the longest silent instance of a variant once its grace has ended, one at a time (law 13).

    While the prober is suspect a silent instance is given up only if no replacement could even be started.
    """
    silent = members(draft.endpoint, fleet, variant, InstanceState.UNKNOWN)
    if not silent:
        return
    oldest = min(silent, key=lambda i: i.since_ms)
    ends_ms = oldest.since_ms + policy.unknown_grace_ms
    if draft.now_ms < ends_ms:
        draft.wake_at(ends_ms)
        return
    ready = members(draft.endpoint, fleet, variant, InstanceState.READY)
    backoff = backoff_of(draft.endpoint, fleet.generation, variant)
    no_help = backoff is not None and backoff.last_ms >= oldest.since_ms
    if not suspect(len(ready), len(silent)) or no_help:
        draft.move(oldest, InstanceState.LOST, f"silent for {draft.now_ms - oldest.since_ms} ms: its grace has ended")


def backoff_of(endpoint: Endpoint, fleet: int, variant: str) -> Backoff | None:
    """The back-off of a variant, if its newest instances crashed."""
    return next((b for b in endpoint.backoffs if b.fleet == fleet and b.variant == variant), None)


def _lose(draft: Draft, policy: Policy, instance: Instance, seen: ObservedInstance | None) -> None:
    lived_ms = draft.now_ms - instance.ready_ms
    why = f"gone: its lock is free ({_last_words(seen)})"
    draft.move(instance, InstanceState.LOST, why)
    if lived_ms < policy.stable_ms:
        text = _failure_text(draft, instance, f"It died {lived_ms} ms after it was ready: {_last_words(seen)}.")
        _count_crash(draft, policy, instance, text)


def _fail(draft: Draft, policy: Policy, instance: Instance, why: str, text: str, fatal: bool = False) -> None:
    draft.move(instance, InstanceState.FAILED, why)
    _count_crash(draft, policy, instance, text, fatal)


def _count_crash(draft: Draft, policy: Policy, instance: Instance, text: str, fatal: bool = False) -> None:
    before = backoff_of(draft.endpoint, instance.fleet, instance.variant)
    crashes = (before.crashes if before else 0) + 1
    wait_ms = policy.backoff_ms(crashes)
    now = Backoff(instance.variant, instance.fleet, crashes, draft.now_ms, draft.now_ms + wait_ms, text, fatal)
    draft.change(backoffs=(*(b for b in draft.endpoint.backoffs if b is not before), now))
    if wait_ms:
        draft.note(f"variant {instance.variant} backs off", f"{crashes} crashes in a row: next start in {wait_ms} ms")


def _forgive(draft: Draft, policy: Policy) -> None:
    """A back-off ends when an instance that was asked for after the last crash has been READY for a stable time."""
    for backoff in draft.endpoint.backoffs:
        newer = [
            i.ready_ms
            for i in draft.endpoint.instances
            if i.state is InstanceState.READY
            and (i.fleet, i.variant) == (backoff.fleet, backoff.variant)
            and i.requested_ms >= backoff.last_ms
        ]
        if not newer:
            continue
        if draft.now_ms - min(newer) >= policy.stable_ms:
            draft.change(backoffs=tuple(b for b in draft.endpoint.backoffs if b is not backoff))
        else:
            draft.wake_at(min(newer) + policy.stable_ms)


def _over(instance: Instance) -> bool:
    return instance.state in (InstanceState.STOPPED, InstanceState.LOST, InstanceState.FAILED)


def _last_words(seen: ObservedInstance | None) -> str:
    if seen is None:
        return "nothing is left of it"
    return seen.exit_reason or "no reason known"


def _failure_text(draft: Draft, instance: Instance, detail: str) -> str:
    """SageMaker's sentence, then what is known: never longer than a FailureReason may be."""
    variant = variant_of(draft.endpoint, instance)
    tail = draft.seen.tails.get(instance.instance_id, ())
    container = _blamed(variant.spec.model, tail) if variant else "primary"
    before = backoff_of(draft.endpoint, instance.fleet, instance.variant)
    times = f" That was start {before.crashes + 1} in a row that failed." if before else ""
    head = UNHEALTHY.format(container=container, variant=instance.variant) + " " + detail + times
    return _with_log(head, tail)


def _blamed(model: ModelSpec, tail: Sequence[str]) -> str:
    """The host name of the container that failed: the last one in whose name the log speaks, else the first."""
    if len(model.containers) > 1:
        for line in reversed(tail):
            speaks = next((c.hostname for c in model.containers if f" [{c.hostname}] " in line), None)
            if speaks is not None:
                return speaks
    return model.hostname


def _with_log(head: str, lines: Iterable[str]) -> str:
    kept = ""
    for line in reversed(list(lines)):
        if len(head) + len(kept) + len(line) + 20 > REASON_CHARS_MAX:
            break
        kept = line + ("\n" + kept if kept else "")
    return f"{head} Last log lines: {kept}" if kept else head[:REASON_CHARS_MAX]


def renewed(instance: Instance) -> Instance:
    """An instance that is in the route (again)."""
    return replace(instance, left_generation=0, left_ms=0, acked_ms=0)

"""How many instances a serverless variant has: from zero on the first request, and to zero after idleness.

Step of decide/reconcile, before the status moves. The rules, each with its reason in the story:
 - One instance serves `requests_at_once` requests at once; so many more need another instance.
 - Beyond MaxConcurrency nothing is started: what comes then is throttled by the gateway.
 - It grows by doubling, and not while an instance is on its way or has just begun: one start serves many that wait, and
   a burst that the first instance answers within SETTLE_MS asks for no second one. A start that takes long is not
   waited for longer than PATIENCE_MS.
 - It shrinks to what the last `idle_ms` needed at most, and only where that whole time is known; what
   ProvisionedConcurrency asks for is always kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eyrie.decide import rollout
from eyrie.decide.draft import Draft
from eyrie.decide.fleet import members
from eyrie.decide.policy import Policy
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.fleet import COMING, Fleet, Instance, Variant
from eyrie.domain.serverless import Mark, Serverless, Use

MB_PER_GB = 1024
REQUESTS_PER_GB = 16  # at once, of our model server, which works on them in batches
FOREIGN_REQUESTS_PER_GB = 4  # of an image of the user's own
VCPU_MILLI_PER_GB = 1000  # the share of CPU grows with the memory
PATIENCE_MS = 5_000  # with a start, before others are made beside it
SETTLE_MS = 500  # an instance that has just begun may work off what waited for it
MARKS_MAX = 256  # falling numbers of at most CONCURRENCY_MAX: never reached

_SIZED = frozenset({EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING})


@dataclass(frozen=True, slots=True)
class Size:
    """A number of instances, why, and when to think again even if nothing happens."""

    count: int
    why: str
    look_ms: int | None = None


def requests_at_once(allowed: Serverless, foreign: bool) -> int:
    """How many requests at once one instance serves: as its model says, else by its memory."""
    if allowed.at_once:
        return allowed.at_once
    return max(1, allowed.memory_mb * (FOREIGN_REQUESTS_PER_GB if foreign else REQUESTS_PER_GB) // MB_PER_GB)


def vcpu_milli(memory_mb: int) -> int:
    """The CPU cap of an instance of this memory, thousandths of a core."""
    return memory_mb * VCPU_MILLI_PER_GB // MB_PER_GB


def instances_for(requests: int, each: int) -> int:
    """Instances that so many requests at once need."""
    return -(-requests // each)


def first_count(allowed: Serverless, foreign: bool) -> int:
    """Instances that a new fleet starts: one at least, so that a model that cannot serve fails here and not later."""
    return max(1, kept_ready(allowed, foreign))


def kept_ready(allowed: Serverless, foreign: bool) -> int:
    """Instances that ProvisionedConcurrency keeps ready."""
    return instances_for(allowed.provisioned, requests_at_once(allowed, foreign))


def marked(marks: Sequence[Mark], requests: int, at_ms: int) -> tuple[Mark, ...]:
    """The marks with one more observation, the newest: lower and equal ones before it say nothing any more."""
    kept = [mark for mark in marks if mark[0] > requests]
    return (*kept, (requests, at_ms))[-MARKS_MAX:]


def size(
    allowed: Serverless, each: int, count: int, patient_ms: int, use: Use | None, now_ms: int, idle_ms: int
) -> Size:
    """How many instances to have, where `count` are wanted now, and those that were started last deserve patience until
    `patient_ms`. Without `use` nothing is known of requests: no reason to grow, none to shrink.
    """
    kept = instances_for(allowed.provisioned, each)
    most = max(kept, instances_for(allowed.max_concurrency, each))
    if use is not None:
        made = _grown(allowed, each, count, patient_ms, use, now_ms) or _shrunk(each, count, use, now_ms, idle_ms)
    else:
        made = Size(count, "nothing is known of its requests")
    if made.count < kept:
        return Size(kept, f"{allowed.provisioned} requests at once are provisioned for, {each} an instance")
    if made.count > most:
        return Size(most, f"MaxConcurrency {allowed.max_concurrency} needs no more, {each} an instance", made.look_ms)
    return made


def _grown(allowed: Serverless, each: int, count: int, patient_ms: int, use: Use, now_ms: int) -> Size | None:
    """More, where what is there now needs more; None: it does not."""
    requests = min(use.now, allowed.max_concurrency)
    need = instances_for(requests, each)
    if need <= count:
        return None
    told = f"{requests} requests at once, {each} an instance, {count} wanted before"
    if now_ms < patient_ms:
        return Size(count, f"{told}: the newest instance may serve them all", patient_ms)
    return Size(min(need, max(1, 2 * count)), told, now_ms + PATIENCE_MS)


def _shrunk(each: int, count: int, use: Use, now_ms: int, idle_ms: int) -> Size:
    """As many as the last `idle_ms` needed at most; the present number while that is not known."""
    known_ms = use.since_ms + idle_ms
    if now_ms < known_ms:
        return Size(count, "its requests are not known for long enough", known_ms)
    lately = [mark for mark in marked(use.marks, use.now, now_ms) if mark[1] > now_ms - idle_ms]
    most = max(requests for requests, _ in lately)
    need = instances_for(most, each)
    told = f"{most} requests at once at most in {idle_ms} ms" if most else f"no request for {idle_ms} ms"
    if need >= count:
        return Size(count, told, _next_look(each, count, lately, idle_ms))
    return Size(need, told, _next_look(each, need, lately, idle_ms))


def _next_look(each: int, count: int, lately: Sequence[Mark], idle_ms: int) -> int | None:
    """When fewer than `count` may do: once the last time that needed so many is `idle_ms` ago."""
    needed = [at_ms for requests, at_ms in lately if instances_for(requests, each) >= count]
    return max(needed) + idle_ms if needed and count else None


def resize(draft: Draft, policy: Policy) -> None:
    """Set the count of every serverless variant that holds the endpoint's traffic."""
    if draft.endpoint.status not in _SIZED:
        return
    for fleet, by in rollout.shares(draft.endpoint):
        for variant in fleet.variants:
            if variant.serverless is not None and variant.name in by:
                _resize(draft, policy, fleet, variant, variant.serverless)


def _resize(draft: Draft, policy: Policy, fleet: Fleet, variant: Variant, allowed: Serverless) -> None:
    patient_ms = max((_patience(i) for i in members(draft.endpoint, fleet, variant.name)), default=0)
    each = requests_at_once(allowed, variant.spec.foreign)
    count, use = variant.desired_count, draft.seen.use
    made = size(allowed, each, count, patient_ms, use, draft.now_ms, policy.serverless_idle_ms)
    if made.look_ms is not None:
        draft.wake_at(made.look_ms)
    if made.count == count:
        return
    draft.note(f"variant {variant.name} from {count} to {made.count} instances", made.why)
    _set_count(draft, fleet.generation, variant.name, made.count)
    if not made.count:  # the next request is a new beginning, whatever became of the last start
        others = (b for b in draft.endpoint.backoffs if (b.fleet, b.variant) != (fleet.generation, variant.name))
        draft.change(backoffs=tuple(others))


def _patience(instance: Instance) -> int:
    """Until when what waits is left to an instance that is on its way, or has just begun."""
    return instance.requested_ms + PATIENCE_MS if instance.state in COMING else instance.ready_ms + SETTLE_MS


def _set_count(draft: Draft, fleet: int, variant: str, count: int) -> None:
    def with_count(f: Fleet) -> Fleet:
        if f.generation != fleet:
            return f
        changed = (replace(v, desired_count=count) if v.name == variant else v for v in f.variants)
        return replace(f, variants=tuple(changed))

    draft.change(fleet=with_count(draft.endpoint.fleet))
    deployment = draft.endpoint.deployment
    if deployment is not None:
        draft.change(deployment=replace(deployment, green=with_count(deployment.green)))

"""Asynchronous requests: which instance gets the next one, what becomes of one whose instance died, where a result
goes, and when something is tried again. Pure; the dispatch process does what is decided here.

A request that was in an instance when it died may be the cause. It is tried once more, alone on an instance, so that it
takes no others with it; when that dies too, the request is given up (law 13: never a third).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyrie.domain.async_inference import AsyncRoute

CONCURRENCY = 4  # invocations of an instance at once where the config does not say
LOSSES_MAX = 2  # instances that may die with one request
BUSY_TRIES_MAX = 20  # times that instances may answer 429 or 503 to it
RETRY_FIRST_MS = 100
RETRY_MAX_MS = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """A worker of an instance that requests may be sent to, and what runs on it."""

    instance_id: str
    running: int
    weight: float  # of its variant
    alone: bool = False  # it has a request that is to be alone


def concurrency(route: AsyncRoute) -> int:
    """Invocations that an instance gets at once."""
    return route.concurrency or CONCURRENCY


def choose(loads: Sequence[Load], most: int, alone: bool, draw: float) -> int | None:
    """The worker for the next request, by number; None where none has room. `most`: of one instance at once, over all
    its workers; `alone`: the request needs an instance that has nothing else; `draw`: from 0 to below 1.

    The least loaded instance of those with room; between variants by weight.
    """
    by_instance: dict[str, int] = {}
    taken: set[str] = set()
    for load in loads:
        by_instance[load.instance_id] = by_instance.get(load.instance_id, 0) + load.running
        if load.alone:
            taken.add(load.instance_id)
    room = 1 if alone else most
    free = [n for n, load in enumerate(loads) if by_instance[load.instance_id] < room and load.instance_id not in taken]
    if not free:
        return None
    weights = sorted({loads[n].weight for n in free})
    if len(weights) > 1:
        free = _of_variant(loads, free, weights, draw)
    return min(free, key=lambda n: (by_instance[loads[n].instance_id], loads[n].running, n))


def _of_variant(loads: Sequence[Load], free: list[int], weights: list[float], draw: float) -> list[int]:
    """Those of one weight, drawn in proportion to the weights."""
    total = sum(weights)
    if total <= 0:
        return free
    at = draw * total
    for weight in weights:
        at -= weight
        if at < 0:
            return [n for n in free if loads[n].weight == weight]
    return free


def given_up(losses: int) -> bool:
    """Whether a request that so many instances died with is not tried any more."""
    return losses >= LOSSES_MAX


def retry_ms(tries: int) -> int:
    """How long to wait after so many tries that came to nothing."""
    return min(RETRY_MAX_MS, RETRY_FIRST_MS << min(max(tries - 1, 0), 16))


def locations(route: AsyncRoute, token: str, extension: str, filename: str) -> tuple[str, str]:
    """The s3:// addresses of a request's result and of its failure; empty where the config names no path.

    A failure never has the name of a result, wherever the two paths lead.
    """
    stem, dot, suffix = filename.partition(".")
    good = filename or f"{token}.out"
    bad = f"{stem}-error{dot}{suffix}" if filename else f"{token}-error.out"
    return _below(route.output_path, extension, good), _below(route.failure_path, extension, bad)


def _below(path: str, extension: str, name: str) -> str:
    if not path:
        return ""
    parts = (path.rstrip("/"), extension.strip("/"), name)
    return "/".join(part for part in parts if part)


def per_instance(backlog: int, instances: int) -> float | None:
    """ApproximateBacklogSizePerInstance; None where requests wait and nobody is there to share them."""
    if instances:
        return backlog / instances
    return None if backlog else 0.0


def topic_of(route: AsyncRoute, completed: bool) -> tuple[str, bool]:
    """Who is told of an end, an ARN or empty, and whether the answer itself goes along."""
    if completed:
        return route.success_topic, "SUCCESS_NOTIFICATION_TOPIC" in route.responses_in
    return route.error_topic, "ERROR_NOTIFICATION_TOPIC" in route.responses_in


def told(base: Mapping[str, object], **more: object) -> dict[str, object]:
    """A notification without the members that have nothing to say."""
    return {name: value for name, value in {**base, **more}.items() if value not in (None, "", {})}

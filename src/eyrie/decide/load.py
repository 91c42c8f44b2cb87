"""The arithmetic of a load test: when each request is meant to begin, what a closed loop omits, and where an endpoint
is saturated. Pure: chance comes as an iterator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from math import sqrt

from eyrie.domain.load import Stage
from eyrie.domain.metrics import Summary, middle_of

OMITTED_MAX = 1_000_000  # values that one bucket may bring in
GOODPUT_MIN = 0.97  # of the offered rate, for a stair to be kept up with
ERRORS_MAX = 0.01
LATENCY_TIMES_MAX = 5.0  # p99 of a stair over the p99 of the quietest ones
LATENCY_FLOOR_US = 5_000.0  # below it a p99 is noise, whatever its ratio
QUIET_STAIRS = 3
OWN_LATENESS_MAX_US = 20_000.0
HOPELESS_STAIRS = 2  # in a row, after which climbing on tells nothing more
HOPELESS_GOODPUT = 0.9


# ------------------------------------------------------------------------------------------------------------ schedule
def even_gaps(share: int, shares: int) -> Iterator[float]:
    """Requests at even distances, one in `shares` of them beginning with the `share`-th: distances in requests."""
    return chain([share + 0.5], repeat(float(shares)))


def arrivals(stages: Sequence[Stage], gaps: Iterator[float]) -> Iterator[float]:
    """Seconds from the beginning at which requests are meant to begin.

    Each gap says how many requests of the whole load pass before the next one: 1.0 each time gives all of them at even
    distances, exponential gaps a Poisson process that follows the rate.
    """
    begun = passed = 0.0
    due = next(gaps)
    for stage in stages:
        while due < passed + stage.requests:
            yield begun + _moment(stage, due - passed)
            due += next(gaps)
        begun += stage.seconds
        passed += stage.requests


def _moment(stage: Stage, requests: float) -> float:
    """Seconds into a stage after which so many requests have passed: the root of a quadratic."""
    slope = (stage.end_rps - stage.begin_rps) / stage.seconds
    if abs(slope) * stage.seconds < 1e-9 * max(stage.begin_rps, stage.end_rps):
        return requests / stage.begin_rps
    root = sqrt(max(0.0, stage.begin_rps * stage.begin_rps + 2 * slope * requests))
    return min(stage.seconds, 2 * requests / (stage.begin_rps + root))  # the form without cancellation


# ------------------------------------------------------------------------------------------------------------ omission
def corrected(service: Summary, interval_us: float) -> Summary:
    """Service times of a closed loop as an open one would have seen them.

    While a user waits longer than the usual `interval_us` between his requests, those that he does not send would have
    waited too: a wait of w stands also for waits of w - interval, w - 2 interval ...
    """
    if interval_us <= 0:
        raise ValueError(f"the interval must be positive, not {interval_us!r}")
    whole = service.copy()
    for bucket, times in service.buckets.items():
        wait = middle_of(bucket) - interval_us
        for _ in range(OMITTED_MAX):
            if wait < interval_us:
                break
            whole.add(wait, times)
            wait -= interval_us
    return whole


def quantile(summary: Summary, share: float) -> float | None:
    """The value below which this share of the measurements lies, within 1 %; None of none."""
    if not summary.count:
        return None
    wanted, passed = share * summary.count, 0.0
    for bucket in sorted(summary.buckets):
        passed += summary.buckets[bucket]
        if passed >= wanted - 1e-9:
            return min(max(middle_of(bucket), summary.lowest), summary.highest)
    return summary.highest


# ---------------------------------------------------------------------------------------------------------- saturation
@dataclass(frozen=True, slots=True)
class Stair:
    """What was seen of one stair; latencies are response times."""

    offered_rps: float
    achieved_rps: float  # good replies
    errors: float  # share of the requests
    p50_us: float | None
    p99_us: float | None
    lateness_us: float | None = None  # p99 of how late the load itself began requests, though it was free to


@dataclass(frozen=True, slots=True)
class Saturation:
    """Where an endpoint stops keeping up."""

    sustained_rps: float | None  # the highest stair that it kept up with; None where it kept up with none
    saturated_at_rps: float | None  # the one after it; None where it kept up with the last
    best_rps: float  # the most good replies a second that any stair had
    reason: str


def saturation(stairs: Sequence[Stair], objective_us: float | None = None) -> Saturation:
    """The highest stair that was kept up with, the one after it, and why. `objective_us` bounds p99; without one a p99
    several times that of the quietest stairs does. A lower stair that was not kept up with, though a higher one was, is
    an accident. A stair that the load itself was late for tells nothing: the verdict ends there.
    """
    if not stairs:
        raise ValueError("there are no stairs")
    best = max(stair.achieved_rps for stair in stairs)
    quiet = [s.p99_us for s in stairs[:QUIET_STAIRS] if s.p99_us is not None]
    limit = (
        objective_us if objective_us is not None else max(LATENCY_FLOOR_US, LATENCY_TIMES_MAX * min(quiet, default=0.0))
    )
    found: list[str] = []  # why each was not kept up with; "" where it was
    late = ""
    for stair in stairs:
        why = _behind(stair, limit, objective_us is not None)
        if not why and stair.lateness_us is not None and stair.lateness_us > OWN_LATENESS_MAX_US:
            own_ms = stair.lateness_us / 1000
            late = f"at {stair.offered_rps:g}/s the load itself was {own_ms:.0f} ms late: more processes"
            break
        found.append(why)
    highest = max((n for n, why in enumerate(found) if not why), default=-1)
    sustained = stairs[highest].offered_rps if highest >= 0 else None
    after = highest + 1
    if after < len(found):
        return Saturation(sustained, stairs[after].offered_rps, best, found[after])
    if late:
        return Saturation(sustained, None, best, late)
    once = next((f"; once it did not: {why}" for why in found if why), "")
    return Saturation(sustained, None, best, f"it kept up with all of it, up to {stairs[-1].offered_rps:g}/s{once}")


def hopeless(stairs: Sequence[Stair]) -> bool:
    """Whether the last stairs were clearly not kept up with, or the load itself was late for them: the next ones would
    only add to what waits.
    """
    last = stairs[-HOPELESS_STAIRS:]
    return len(last) == HOPELESS_STAIRS and all(
        stair.achieved_rps < HOPELESS_GOODPUT * stair.offered_rps
        or (stair.lateness_us is not None and stair.lateness_us > OWN_LATENESS_MAX_US)
        for stair in last
    )


def _behind(stair: Stair, limit_us: float, asked: bool) -> str:
    """Why a stair was not kept up with; "" where it was."""
    at = f"at {stair.offered_rps:g}/s"
    if stair.errors > ERRORS_MAX:
        return f"{at} {stair.errors:.1%} of the requests failed"
    if stair.achieved_rps < GOODPUT_MIN * stair.offered_rps:
        return f"{at} only {stair.achieved_rps:.0f}/s were answered"
    if stair.p99_us is not None and stair.p99_us > limit_us:
        bound = "the objective" if asked else f"{LATENCY_TIMES_MAX:g} times the quiet one"
        return f"{at} p99 was {stair.p99_us / 1000:.1f} ms, above {limit_us / 1000:.1f} ms, {bound}"
    return ""

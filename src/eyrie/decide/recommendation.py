"""Inference recommendations, the arithmetic: how many users ask when, when a test has shown enough, what an instance
can do, which candidate is next, which is best, and how to run it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

from eyrie.domain.recommendation import (
    UTILISATION,
    Candidate,
    Level,
    Measured,
    Order,
    Pattern,
    Phase,
    Proposal,
    Stopping,
    Stretch,
    Trial,
    TrialState,
    TypeFacts,
)

LADDER = (1, 2, 4, 8, 16, 32, 64)  # users, where no traffic pattern is given
STEP_MIN_S, STEP_MAX_S = 2, 20  # of the ladder
STRETCH_MIN_S, STRETCH_MAX_S, STRETCHES_MAX = 2.0, 10.0, 40
FLAT_GAIN = 1.05  # less than this from more users is no gain
FLAT_STRETCHES = 2  # in a row
ERRORS_MAX = 0.01
ERRORS_HOPELESS = 0.5
FULL_SHARE = 0.97  # of the highest rate: the fewest users that reach it
TIE = 1.03
OVERHEAD_S = 8.0  # to deploy and to remove, before it was seen
SETTLE_FROM_S = 3.0  # a stretch as long as this loses its first second
LOAD_MIN_S, LOAD_MAX_S = 6.0, 140.0
WORKERS, COMPILE = "MODEL_SERVER_WORKERS", "EYRIE_COMPILE"
WORKERS_TIMES = (0.5, 2.0)
BATCH, BATCH_ROWS = "EYRIE_BATCH_ROWS", ("1", "16")  # each request alone, and a few together; usual: up to 256
USUAL = ("ml.c5.", "ml.m5.")
USD_A_GB_SECOND = 0.000_02  # of serverless; approximate
COOLDOWN_IN_S, COOLDOWN_OUT_MIN_S = 300, 60


# ------------------------------------------------------------------------------------------------------------- traffic
def phases(given: Sequence[Phase]) -> Pattern:
    """PHASES as levels."""
    levels: list[Level] = []
    begun = 0.0
    for phase in given:
        levels.append(Level(begun, phase.users))
        gap_s = 60.0 / phase.joining_a_minute if phase.joining_a_minute else float("inf")
        joined = 1
        while joined * gap_s < phase.seconds:
            levels.append(Level(begun + joined * gap_s, phase.users + joined))
            joined += 1
        begun += phase.seconds
    return Pattern(tuple(levels), begun)


def stairs(seconds: float, steps: int, users_a_step: int) -> Pattern:
    """STAIRS as levels."""
    return Pattern(tuple(Level(n * seconds, (n + 1) * users_a_step) for n in range(steps)), steps * seconds)


def ladder(seconds: float) -> Pattern:
    """Users doubled, within so many seconds: what is used where no traffic pattern is given."""
    step_s = float(max(STEP_MIN_S, min(STEP_MAX_S, int(seconds / len(LADDER)))))
    count = max(2, min(len(LADDER), int(seconds / step_s)))
    return Pattern(tuple(Level(n * step_s, users) for n, users in enumerate(LADDER[:count])), count * step_s)


def stretches(pattern: Pattern) -> list[tuple[float, float, int]]:
    """Begin, end and users of the parts of a test that are looked at by themselves; the shortest join the next."""
    shortest = max(STRETCH_MIN_S, pattern.seconds / STRETCHES_MAX)
    longest = max(STRETCH_MAX_S, shortest)
    found: list[tuple[float, float, int]] = []
    begun = 0.0
    for level, end in _ends(pattern):
        if end - begun < shortest and end < pattern.seconds:
            continue
        pieces = max(1, int((end - begun) / longest))
        edges = [begun + n * (end - begun) / pieces for n in range(pieces)]
        found += [(first, last, level.users) for first, last in pairwise([*edges, end])]
        begun = end
    return found


def _ends(pattern: Pattern) -> Iterator[tuple[Level, float]]:
    """Each level with its end."""
    ends = [*(level.at_s for level in pattern.levels[1:]), pattern.seconds]
    return zip(pattern.levels, ends, strict=True)


def whole_seconds(begin_s: float, end_s: float) -> range:
    """The seconds that lie within a stretch; of a long one without the first, which the step itself stirs up."""
    begin_s += 1.0 if end_s - begin_s >= SETTLE_FROM_S else 0.0
    return range(ceil(begin_s - 1e-9), int(end_s + 1e-9))


# --------------------------------------------------------------------------------------------------------- one test
def enough(seen: Sequence[Stretch], stopping: Stopping) -> str:
    """Why a test need not go on; "" where it is to."""
    if not seen:
        return ""
    last = seen[-1]
    if last.errors > ERRORS_HOPELESS:
        return f"{last.errors:.0%} of the requests failed with {last.users} users"
    if stopping.latency_ms is not None and last.latency_ms is not None and last.latency_ms > stopping.latency_ms:
        kind = f"P{stopping.percentile:g}"
        return f"{kind} was {last.latency_ms:.0f} ms with {last.users} users, above {stopping.latency_ms:g} ms"
    if stopping.max_invocations is not None and last.rps * 60 >= stopping.max_invocations:
        return f"{last.rps * 60:.0f} invocations a minute were reached"
    if stopping.flat and _flat(seen):
        return f"more than {_fullest(seen).users} users brought no more answers"
    return ""


def _flat(seen: Sequence[Stretch]) -> bool:
    """Whether the last stretches had more users than an earlier one, and no more answers."""
    before, after = seen[:-FLAT_STRETCHES], seen[-FLAT_STRETCHES:]
    if not before:
        return False
    best = _best(before)
    return all(one.users > best.users and one.rps < best.rps * FLAT_GAIN for one in after)


def _best(seen: Sequence[Stretch]) -> Stretch:
    return max(seen, key=lambda one: one.rps)


def _fullest(seen: Sequence[Stretch]) -> Stretch:
    """The one with the fewest users of those that come near the highest rate."""
    full = FULL_SHARE * _best(seen).rps
    return min((one for one in seen if one.rps >= full), key=lambda one: (one.users, -one.rps))


def best_stretch(seen: Sequence[Stretch], stopping: Stopping) -> Stretch | None:
    """Where a candidate did the most without failing and within the latency that is asked for. None: nowhere."""
    good = [
        one
        for one in seen
        if one.rps > 0
        and one.errors <= ERRORS_MAX
        and not (stopping.latency_ms is not None and (one.latency_ms or 0.0) > stopping.latency_ms)
    ]
    return _fullest(good) if good else None


def why_none(seen: Sequence[Stretch], stopping: Stopping) -> str:
    """What to say of a candidate that did well nowhere."""
    if not seen:
        return "no load could be put on it in the time that was left"
    first = next((one for one in seen if one.rps > 0 or one.errors > 0), None)
    if first is None:
        return f"no request was answered in {seen[-1].end_s:.0f} s, with {seen[0].users} to {seen[-1].users} users"
    if first.errors > ERRORS_MAX:
        return f"{first.errors:.0%} of the requests failed with {first.users} users"
    kind = f"P{stopping.percentile:g}"
    return f"{kind} was {first.latency_ms or 0:.0f} ms with {first.users} users, above {stopping.latency_ms:g} ms"


# ----------------------------------------------------------------------------------------------------- what comes next
def next_candidate(order: Order, tests: Sequence[Trial]) -> Candidate | None:
    """The candidate to test now; None where all were. Those given in turn, then, where it searches, one setting of the
    best so far changed at a time.
    """
    if len(tests) >= order.tests_max:
        return None
    tried = [test.candidate for test in tests]
    for candidate in order.candidates:
        if candidate not in tried:
            return candidate
    if not order.search:
        return None
    best = next(iter(ranked([t for t in tests if not t.candidate.endpoint], order)), None)
    if best is None:
        return None
    return next((one for one in _beside(best.candidate, order) if one not in tried), None)


def expected_left(order: Order, tests: Sequence[Trial]) -> int:
    """How many tests are likely to come yet, for dealing out the time."""
    tried = [test.candidate for test in tests]
    given = sum(candidate not in tried for candidate in order.candidates)
    more = 0
    if order.search:
        settings = len(WORKERS_TIMES) + order.compilable + len(BATCH_ROWS) * order.batching
        more = max(0, settings - max(0, len(tests) - len(order.candidates)))
    return max(1, min(given + more, order.tests_max - len(tests)))


def load_seconds(order: Order, tests: Sequence[Trial]) -> float | None:
    """How long the next candidate may be under load; None where there is no time for it."""
    used = sum(test.took_s for test in tests)
    known = [test.took_s - test.loaded_s for test in tests if test.state is TrialState.COMPLETED]
    overhead = max(known) if known else OVERHEAD_S
    left = order.budget_s - used
    if order.pattern is not None:
        return order.pattern.seconds if left >= order.pattern.seconds + (overhead if tests else 0) else None
    share = min(LOAD_MAX_S, left / expected_left(order, tests) - overhead)
    if share >= LOAD_MIN_S:
        return share
    return LOAD_MIN_S if left >= LOAD_MIN_S + (overhead if tests else 0) else None


def _beside(candidate: Candidate, order: Order) -> Iterator[Candidate]:
    """The candidate with one setting changed."""
    if candidate.serverless is not None:
        return
    facts = order.types.get(candidate.instance_type)
    usual = max(1, min(facts.vcpu if facts else 1, order.host_cpus))
    if order.compilable and COMPILE not in candidate.environment:
        yield _with(candidate, COMPILE, "1")
    if WORKERS not in candidate.environment:
        for times in WORKERS_TIMES:
            count = max(1, round(usual * times))
            if count != usual:
                yield _with(candidate, WORKERS, str(count))
    if order.batching and BATCH not in candidate.environment:
        yield from (_with(candidate, BATCH, rows) for rows in BATCH_ROWS)


def _with(candidate: Candidate, name: str, value: str) -> Candidate:
    return replace(candidate, environment={**candidate.environment, name: value})


def usual_types(rows: Mapping[str, TypeFacts], host_cpus: int) -> list[str]:
    """What a Default job begins with where nothing is said: of each of the usual families the sizes that this host
    really has.
    """
    fits = [name for name, row in rows.items() if name.startswith(USUAL) and row.vcpu <= max(2, host_cpus)]
    return sorted(fits, key=lambda name: (rows[name].vcpu, rows[name].usd_per_hour or 0.0, name))[:4]


# ------------------------------------------------------------------------------------------------------------ the best
def usd_per_hour(candidate: Candidate, types: Mapping[str, TypeFacts]) -> float | None:
    """Of one instance; None: not known, or it costs nothing by the hour."""
    facts = types.get(candidate.instance_type)
    return facts.usd_per_hour if facts is not None else None


def usd_per_inference(candidate: Candidate, measured: Measured, types: Mapping[str, TypeFacts]) -> float | None:
    """At the most that it can do."""
    if candidate.serverless is not None:
        return USD_A_GB_SECOND * candidate.serverless.memory_mb / 1024 * measured.latency_ms / 1000
    hour = usd_per_hour(candidate, types)
    return None if hour is None else hour / (measured.max_invocations * 60)


def ranked(tests: Iterable[Trial], order: Order) -> list[Trial]:
    """Completed tests, the best first: what an inference costs, or how much it can do where a price is not known;
    of those within 3 %, the lower latency.
    """
    left = [test for test in tests if test.state is TrialState.COMPLETED and test.measured is not None]
    costs = {test.number: _cost(test, left, order) for test in left}
    found: list[Trial] = []
    while left:
        least = min(costs[test.number] for test in left)
        level = [test for test in left if costs[test.number] <= least * TIE]
        found.append(min(level, key=lambda test: (test.measured.latency_ms if test.measured else 0.0, test.number)))
        left.remove(found[-1])
    return found


def _cost(test: Trial, among: Sequence[Trial], order: Order) -> float:
    assert test.measured is not None
    prices = [usd_per_inference(t.candidate, t.measured, order.types) for t in among if t.measured is not None]
    if any(price is None for price in prices):
        return 1.0 / test.measured.max_invocations
    return usd_per_inference(test.candidate, test.measured, order.types) or 0.0


# ------------------------------------------------------------------------------------------------------- how to run it
def instances_for(invocations: float, measured: Measured, utilisation: float = UTILISATION) -> int:
    """How many instances take so many invocations a minute, each at that share of what it can do."""
    return max(1, ceil(invocations / (measured.max_invocations * utilisation / 100) - 1e-9))


def proposal(
    measured: Measured, low: int | None = None, high: int | None = None, utilisation: float = UTILISATION
) -> Proposal:
    """Scaling between `low` and `high` invocations a minute; without them, from one instance to four times as many."""
    target = max(1, int(measured.max_invocations * utilisation / 100))
    least = instances_for(low, measured, utilisation) if low else 1
    most = instances_for(high, measured, utilisation) if high else 4 * least
    return Proposal(
        invocations_per_instance=target,
        latency_ms=latency_whole_ms(measured),
        instances=least,
        min_capacity=least,
        max_capacity=max(least, most),
        scale_in_cooldown_s=COOLDOWN_IN_S,
        scale_out_cooldown_s=max(COOLDOWN_OUT_MIN_S, ceil(2 * (measured.setup_s or 0.0))),
    )


def latency_whole_ms(measured: Measured) -> int:
    """The latency in whole milliseconds, never less than it was."""
    return max(1, ceil(measured.latency_ms))


def weights(capacities: Sequence[float]) -> list[float]:
    """Weights of variants beside each other, so that an instance of each is used alike; their sum is 1."""
    whole = sum(capacities)
    return [round(one / whole, 3) if whole else 0.0 for one in capacities]

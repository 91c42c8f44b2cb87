"""The arithmetic of `eyrie assess`: good seconds and budgets, what a fault cost, when latency was back, grades with
their rules, and the comparison of two assessments. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.decide.load import quantile
from eyrie.domain.assessment import (
    LETTERS,
    Assessment,
    Availability,
    Change,
    FaultRun,
    Grade,
    Performance,
    Scalability,
    Scale,
)
from eyrie.domain.load import Second
from eyrie.domain.metrics import Summary, merged

CALM_S = 3  # seconds together within the limit, for latency to be back
RESTORED_TIMES = 2.0  # of the steady p99, within which latency is back
RESTORED_FLOOR_MS = 5.0
TOLERANCE = 0.2  # of a figure, within which two assessments are the same
SECONDS_SAME = 0.5  # and of times: what a poll and a scheduler may add

TAIL_TIMES = (3.0, 5.0, 10.0, 20.0)  # p99 over p50 at 80 %: A, B, C, D
BUDGET_USED = (0.1, 0.5, 1.0, 10.0)
SCALE_KEPT = (0.9, 0.75, 0.5, 0.25)
CREDIBLE = 1.5  # more than that of what the cores allow is no gain of more instances, but a bad measurement of fewer
RECOVER_S = (5.0, 15.0, 30.0, 60.0)
LOST = (0.0, 0.0001, 0.001, 0.01)


# ------------------------------------------------------------------------------------------------------------ measures
def availability(seconds: Mapping[int, Second], first: int, last: int, objective: float) -> Availability:
    """Of the seconds from `first` to before `last`. A second is good where the share of its requests that were answered
    well keeps the objective; one without any request is not counted.
    """
    requests = failed = counted = good = run = longest = 0
    for at in range(first, last):
        second = seconds.get(at)
        bad = 0 if second is None else sum(second.errors.values())
        asked = 0 if second is None else max(second.intended, second.answered + bad)
        if not asked:
            continue
        requests, failed, counted = requests + asked, failed + bad, counted + 1
        kept = bad <= asked * (1 - objective) + 1e-9 and (second is not None and second.answered > 0)
        good, run = good + kept, 0 if kept else run + 1
        longest = max(longest, run)
    return Availability(objective, counted, good, requests, failed, requests * (1 - objective), longest)


def cost_of(run: FaultRun, seconds: Mapping[int, Second], calm_from: int, fault_at: int, until: int) -> FaultRun:
    """The run with what its requests tell: those meant to begin from `calm_from` before the fault, those from the
    second of the fault to `until` during it.
    """
    before = [second for at, second in seconds.items() if calm_from <= at < fault_at]
    during = [second for at, second in seconds.items() if fault_at <= at <= until]
    errors: dict[str, int] = {}
    for second in during:
        for kind, count in second.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    calm = sum(second.answered for second in before) / max(1, len(before))
    meanwhile = sum(second.answered for second in during) / max(1, len(during))
    return replace(
        run,
        requests=sum(second.intended for second in during),
        failed=sum(errors.values()),
        errors=errors,
        rate_kept=round(meanwhile / calm, 4) if calm else None,
        p99_before_ms=milliseconds(quantile(_response(before), 0.99)),
        p99_during_ms=milliseconds(quantile(_response(during), 0.99)),
    )


def restored_s(seconds: Mapping[int, Second], step_at: int, end: int, limit_ms: float) -> float | None:
    """Seconds from a step in load until the first `CALM_S` seconds in a row of which every request was answered, and
    p99 of them together was within the limit; None where there were none before `end`. What disturbs the endpoint
    later is not of the step.
    """
    for at in range(step_at, end - CALM_S + 1):
        some = [seconds.get(n, Second()) for n in range(at, at + CALM_S)]
        p99 = milliseconds(quantile(_response(some), 0.99))
        answered = all(one.intended and one.response.count >= one.intended and not one.errors for one in some)
        if answered and p99 is not None and p99 <= limit_ms:
            return float(at - step_at)
    return None


def restored_limit_ms(steady_p99_ms: float | None) -> float | None:
    """Within which latency counts as restored."""
    return None if steady_p99_ms is None else max(RESTORED_FLOOR_MS, RESTORED_TIMES * steady_p99_ms)


def kept_by_scale(scales: Sequence[Scale], vcpu: int, cores: int) -> float | None:
    """The throughput with the most instances, over what the cores of this host allow: that of the fewest, times the
    cores that the most may use over those that the fewest may. None of one number of instances.
    """
    if len({scale.instances for scale in scales}) < 2:
        return None
    few, many = min(scales, key=lambda s: s.instances), max(scales, key=lambda s: s.instances)
    allowed = min(cores, many.instances * vcpu) / min(cores, few.instances * vcpu)
    return round(many.rps / (few.rps * allowed), 4) if few.rps else None


def timeline(seconds: Mapping[int, Second], last: int) -> tuple[dict[str, float | None], ...]:
    """A row a second."""
    return tuple(
        {
            "second": at,
            "answered": second.answered,
            "failed": sum(second.errors.values()),
            "p50_ms": milliseconds(quantile(second.response, 0.5)),
            "p99_ms": milliseconds(quantile(second.response, 0.99)),
        }
        for at, second in sorted(seconds.items())
        if at < last
    )


def milliseconds(value_us: float | None) -> float | None:
    """Microseconds as milliseconds, to the microsecond."""
    return None if value_us is None else round(value_us / 1000, 3)


def _response(seconds: Sequence[Second]) -> Summary:
    return merged(second.response for second in seconds)


# -------------------------------------------------------------------------------------------------------------- grades
def graded(found: Assessment, p99_objective_ms: float | None) -> Assessment:
    """With the grade of each measure, the whole grade (the worst of them), and the objectives that were missed."""
    runs = [run for run in found.faults if not run.skipped]
    grades = (
        _performance(found.performance, p99_objective_ms),
        _availability(found.availability),
        _scalability(found.scalability),
        _resiliency(runs),
        _fault_tolerance(runs),
    )
    letters = [grade.letter for grade in grades if grade.letter != "-"]
    return replace(
        found, grades=grades, grade=max(letters, default="-"), missed=tuple(_missed(found, p99_objective_ms, runs))
    )


def letter(value: float, limits: Sequence[float], least: bool = False) -> str:
    """A to D for the first limit that the value keeps (at most, or at `least`), else E."""
    for name, limit in zip(LETTERS, limits, strict=False):
        if value >= limit if least else value <= limit + 1e-12:
            return name
    return LETTERS[len(limits)]


def worst(letters: Sequence[str]) -> str:
    """The worst of the letters that were given; "-" of none."""
    return max((one for one in letters if one != "-"), default="-")


def _performance(found: Performance | None, objective_ms: float | None) -> Grade:
    rule = f"p99 over p50 at 80 % of the saturation point: {_limits(TAIL_TIMES, ' times')}"
    if objective_ms is not None:
        rule = f"p99 at 80 % of the saturation point within {objective_ms:g} ms: A, else F"
    steady = None if found is None else found.at_80
    if found is None or steady is None or steady.p50_ms is None or steady.p99_ms is None:
        why = "it was not measured" if found is None else f"there is no saturation point: {found.reason}"
        return Grade("performance", "-" if found is None else "F", why, rule)
    if objective_ms is not None:
        why = f"p99 is {steady.p99_ms:g} ms at {steady.offered_rps:,.0f} requests/s"
        return Grade("performance", "A" if steady.p99_ms <= objective_ms else "F", why, rule)
    times = steady.p99_ms / max(steady.p50_ms, 1e-3)
    why = f"p99 is {times:.1f} times p50 at {steady.offered_rps:,.0f} requests/s"
    return Grade("performance", letter(times, TAIL_TIMES), why, rule)


def _availability(found: Availability | None) -> Grade:
    rule = f"share of the error budget of the window that was used: {_limits(BUDGET_USED, '', percent=True)}"
    if found is None or not found.requests:
        return Grade("availability", "-", "it was not measured", rule)
    why = (
        f"{found.failed:,} of {found.requests:,} requests failed, {found.allowed:,.1f} were allowed: "
        f"{found.budget_used:.0%} of the budget"
    )
    return Grade("availability", letter(found.budget_used, BUDGET_USED), why, rule)


def _scalability(found: Scalability | None) -> Grade:
    rule = (
        "throughput with the most instances, of what this host's cores allow: "
        f"{_limits(SCALE_KEPT, '', percent=True, least=True)}; latency restored after a step in load: "
        f"{_limits(RECOVER_S, ' s', otherwise='F')}; the worse of the two"
    )
    if found is None or (found.kept is None and found.step_to_rps is None):
        return Grade("scalability", "-", "it was not measured", rule)
    parts, letters = [], []
    if found.kept is not None:
        most = max(scale.instances for scale in found.scales)
        kept = f"{most} instances keep {found.kept:.0%} of what {found.cores} cores allow"
        if found.kept <= CREDIBLE:
            letters.append(letter(found.kept, SCALE_KEPT, least=True))
        else:  # the first measurement was held up by something else
            kept += ", which cannot be: no grade for that"
        parts.append(kept)
    if found.step_to_rps is not None:
        back = (
            f"not back within {RECOVER_S[-1]:g} s" if found.restored_s is None else f"back after {found.restored_s:g} s"
        )
        parts.append(f"after a step in load latency was {back}")
        letters.append("F" if found.restored_s is None else letter(found.restored_s, RECOVER_S))
    return Grade("scalability", worst(letters), "; ".join(parts), rule)


def _resiliency(runs: Sequence[FaultRun]) -> Grade:
    rule = f"the slowest recovery, counted from the end of the fault itself: {_limits(RECOVER_S, ' s')}, never: F"
    if not runs:
        return Grade("resiliency", "-", "nothing was broken", rule)
    never = [run.fault for run in runs if run.recover_s is None]
    if never:
        return Grade("resiliency", "F", f"not whole again: {', '.join(never)}", rule)
    slowest = max(runs, key=lambda run: run.recover_s or 0.0)
    seconds = slowest.recover_s or 0.0
    return Grade("resiliency", letter(seconds, RECOVER_S), f"{slowest.fault}: whole after {seconds:.2f} s", rule)


def _fault_tolerance(runs: Sequence[FaultRun]) -> Grade:
    rule = f"the largest share of requests that one fault lost: {_limits(LOST, '', percent=True)}; another answer: F"
    if not runs:
        return Grade("fault tolerance", "-", "nothing was broken", rule)
    other = [run.fault for run in runs if run.answers_same < run.answers]
    if other:
        return Grade("fault tolerance", "F", f"answers differed or failed meanwhile: {', '.join(other)}", rule)
    loser = max(runs, key=lambda run: run.failed / max(1, run.requests))
    share = loser.failed / max(1, loser.requests)
    why = f"{loser.fault} lost {loser.failed} of {loser.requests:,}" if loser.failed else "no fault lost a request"
    return Grade("fault tolerance", letter(share, LOST), why, rule)


def _limits(
    limits: Sequence[float], unit: str, percent: bool = False, least: bool = False, otherwise: str = "E"
) -> str:
    """The rule in words: "A at most 3 times, B 5 ..., else E"."""
    shown = [f"{limit * 100:g} %" if percent else f"{limit:g}{unit}" for limit in limits]
    head = "at least" if least else "at most"
    return ", ".join(f"{name} {head} {one}" for name, one in zip(LETTERS, shown, strict=False)) + f", else {otherwise}"


def _missed(found: Assessment, p99_objective_ms: float | None, runs: Sequence[FaultRun]) -> Iterator[str]:
    """Objectives that were not kept, in words."""
    if found.availability is not None and found.availability.of_requests < found.availability.objective - 1e-12:
        shown = f"{found.availability.of_requests:.4%} of the requests were good"
        yield f"{shown}, the objective is {found.availability.objective:.4%}"
    if p99_objective_ms is not None:
        steady = None if found.performance is None else found.performance.at_80
        if steady is None or steady.p99_ms is None or steady.p99_ms > p99_objective_ms:
            p99 = "not measured" if steady is None or steady.p99_ms is None else f"{steady.p99_ms:g} ms"
            yield f"p99 at 80 % utilisation is {p99}, the objective is {p99_objective_ms:g} ms"
    for run in runs:
        if run.whole_s is None:
            yield f"not whole again after {run.what}"


# ---------------------------------------------------------------------------------------------------------- comparison
def compared(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = TOLERANCE) -> list[Change]:
    """The figures of two assessments' documents that can be laid side by side; "same" within the tolerance."""
    old, new = dict(_figures(before)), dict(_figures(after))
    return [_change(name, old.get(name), new.get(name), tolerance) for name in dict.fromkeys([*old, *new])]


Figure = tuple[str, float | None, bool]  # unit, value, whether more is better


def _figures(told: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    performance, scale = told.get("performance") or {}, told.get("scalability") or {}
    steady, available = performance.get("at_80") or {}, told.get("availability") or {}
    yield "saturation point", ("/s", performance.get("saturation_rps"), True)
    yield "most replies of a closed loop", ("/s", performance.get("users_rps"), True)
    yield "p50 at 80 %", ("ms", steady.get("p50_ms"), False)
    yield "p99 at 80 %", ("ms", steady.get("p99_ms"), False)
    yield "cost of a million", ("USD", performance.get("usd_a_million"), False)
    if available.get("requests"):
        yield "good requests", ("%", 100 - 100 * available["failed"] / available["requests"], True)
    yield "throughput kept by scale", ("%", None if scale.get("kept") is None else 100 * scale["kept"], True)
    if scale.get("step_to_rps") is not None:
        yield "latency restored after a step", ("s", scale.get("restored_s"), False)
    for run in told.get("faults") or ():
        if not run.get("skipped"):
            yield f"{run['fault']}: recovered after", ("s", run.get("recover_s"), False)
            yield f"{run['fault']}: lost", ("%", 100 * run["failed"] / max(1, run["requests"]), False)


def _change(name: str, before: Figure | None, after: Figure | None, tolerance: float) -> Change:
    unit, _, more_is_better = after or before or ("", None, True)
    old, new = None if before is None else before[1], None if after is None else after[1]
    if old is None or new is None:
        never = old is not None and after is not None and after[0] == "s"  # it was not healed, or not restored
        verdict = "worse" if never else "same" if old is new else "new" if old is None else "gone"
        return Change(name, unit, old, new, verdict)
    room = max(tolerance * abs(old), SECONDS_SAME if unit == "s" else 0.0)
    if unit == "%":
        room = 0.1 if name != "throughput kept by scale" else 100 * tolerance * 0.5
    if abs(new - old) <= room + 1e-12:
        return Change(name, unit, old, new, "same")
    return Change(name, unit, old, new, "better" if (new > old) == more_is_better else "worse")

"""The verdict on a green fleet: as good as blue, worse, or not known yet. Pure; decide/deployment acts by it.

Each comparison is a difference with a confidence sequence (decide/compare), which holds however often one looks: it
passes once the whole interval lies within what is accepted, fails once the whole interval lies beyond, and is
inconclusive in between. The chance of error is shared out over the steps, the comparisons, and the places where
predictions may fall, so that ALPHA holds for a whole deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite

from eyrie.decide.compare import ALPHA, Sample, difference, needed, sample_of
from eyrie.domain.analysis import (
    Analysis,
    AnalysisPolicy,
    Compared,
    Evidence,
    Finding,
    FleetSample,
    Verdict,
)
from eyrie.domain.metrics import middle_of

TENTHS = 10  # numbers are told apart at so many places of how both fleets' are spread
READ_MIN = 0.01  # of the replies: where fewer can be read as predictions, they say nothing


def judge(policy: AnalysisPolicy, evidence: Evidence | None, step: int, steps: int, now_ms: int) -> Analysis:
    """The verdict on a step. `steps`: how many of the deployment are judged, which share its chance of error."""
    seen = evidence or Evidence(FleetSample(), FleetSample(), now_ms)
    alpha = ALPHA / max(len(policy.compared), 1) / max(steps, 1)
    findings = tuple(_JUDGES[name](policy, seen, alpha) for name in policy.compared)
    return Analysis(step, overall(findings), findings, now_ms)


def overall(findings: tuple[Finding, ...]) -> Verdict:
    """One comparison that fails is enough to fail; all must pass to pass."""
    verdicts = {finding.verdict for finding in findings}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.INCONCLUSIVE


def _latency(policy: AnalysisPolicy, seen: Evidence, alpha: float) -> Finding:
    """Green's mean against blue's and what is accepted on top: the difference is told relative to blue's mean."""
    limit = policy.latency or 0.0
    blue, green = sample_of(seen.blue.latency), sample_of(seen.green.latency)
    raised = Sample(blue.count, blue.mean * (1 + limit), blue.variance * (1 + limit) ** 2)
    found = difference(raised, green, alpha)
    mean = blue.mean or 1.0
    return _finding(
        _Told(Compared.LATENCY, blue, green, found.value / mean, found.low / mean, found.high / mean, limit),
        policy.samples_min,
        needed(raised, green, alpha),
    )


def _errors(policy: AnalysisPolicy, seen: Evidence, alpha: float) -> Finding:
    limit = policy.errors or 0.0
    blue = _share(seen.blue.errors, seen.blue.requests)
    green = _share(seen.green.errors, seen.green.requests)
    found = difference(blue, green, alpha)
    told = _Told(Compared.ERRORS, blue, green, found.value - limit, found.low - limit, found.high - limit, limit)
    return _finding(told, policy.samples_min, needed(_raised(blue, limit), green, alpha))


def _predictions(policy: AnalysisPolicy, seen: Evidence, alpha: float) -> Finding:
    """The place where the two fleets' predictions differ most: of labels a cell's share, of numbers the share below a
    tenth of both. It fails where any place differs by more than is accepted, and passes where none does.
    """
    limit = policy.predictions or 0.0
    places = list(_places(seen))
    counts = _predicted(seen.blue), _predicted(seen.green)
    readable = [
        _read(fleet) / count if count else 0.0 for fleet, count in zip((seen.blue, seen.green), counts, strict=True)
    ]
    if not places or max(readable) < READ_MIN:
        blind = "no reply could be read as predictions" if min(counts) else "no predictions were read yet"
        nothing = [Sample(count, 0.0, 0.0) for count in counts]
        told = _Told(Compared.PREDICTIONS, nothing[0], nothing[1], 0.0, -limit, limit, limit, blind)
        return _finding(told, policy.samples_min, None, known=False)
    one = alpha / len(places)
    found = [_place(name, _share(b, counts[0]), _share(g, counts[1]), limit, one) for name, b, g in places]
    failing = [told for told in found if told.low > 0]
    worst = max(failing or found, key=lambda told: (told.low if failing else told.high, told.value))
    apart = Sample(worst.green.count, worst.value + limit, worst.green.variance)  # whichever is the higher one
    more = needed(Sample(worst.blue.count, limit, worst.blue.variance), apart, one)
    return _finding(worst, policy.samples_min, more)


@dataclass(frozen=True, slots=True)
class _Told:
    """A difference beyond what is accepted: above 0 it is too much."""

    compared: Compared
    blue: Sample
    green: Sample
    value: float
    low: float
    high: float
    limit: float
    detail: str = ""


def _place(name: str, blue: Sample, green: Sample, limit: float, alpha: float) -> _Told:
    """One place: how far its share is from blue's, in whichever direction."""
    found = difference(blue, green, alpha)
    away, low, high = found.value, found.low, found.high
    if away < 0:
        away, low, high = -away, -high, -low
    return _Told(Compared.PREDICTIONS, blue, green, away - limit, low - limit, high - limit, limit, name)


def _finding(told: _Told, samples_min: int, more: float | None, known: bool = True) -> Finding:
    known = known and isfinite(told.low) and isfinite(told.high)
    more = _of_green(told, more)
    enough = min(told.blue.count, told.green.count) >= samples_min
    verdict, detail = Verdict.INCONCLUSIVE, told.detail
    if known and told.low > 0:
        verdict = Verdict.FAIL
    elif known and enough and told.high <= 0:
        verdict = Verdict.PASS
    elif not enough:
        detail = ", ".join(filter(None, [told.detail, f"fewer than {samples_min} of a fleet"]))
        more = max(more or 0.0, samples_min - told.green.count)
    return Finding(
        compared=told.compared,
        verdict=verdict,
        blue=told.blue.mean,
        green=told.green.mean,
        blue_count=told.blue.count,
        green_count=told.green.count,
        difference=told.value + told.limit if min(told.blue.count, told.green.count) else 0.0,
        low=told.low + told.limit if known else None,
        high=told.high + told.limit if known else None,
        limit=told.limit,
        needed=more if verdict is Verdict.INCONCLUSIVE else None,
        detail=detail,
    )


def _of_green(told: _Told, more: float | None) -> float | None:
    """How many of further requests go to green, were they shared out as those before."""
    both = told.blue.count + told.green.count
    if more is None or not both:
        return more
    return max(more * told.green.count / both, more if told.green.count == 0 else 0.0)


def _share(hits: float, count: float) -> Sample:
    """A share of so many. Its variance is as if one hit and one miss more had been seen: few values prove no zero."""
    if not count:
        return Sample(0.0, 0.0, 0.0)
    likely = (hits + 1) / (count + 2)
    return Sample(count, hits / count, likely * (1 - likely))


def _raised(sample: Sample, by: float) -> Sample:
    return Sample(sample.count, sample.mean + by, sample.variance)


def _predicted(fleet: FleetSample) -> float:
    """Replies whose predictions were looked at."""
    return _read(fleet) + fleet.unread


def _read(fleet: FleetSample) -> float:
    return sum(fleet.labels.values()) + sum(fleet.numbers.values())


def _places(seen: Evidence) -> Iterator[tuple[str, float, float]]:
    """Where predictions may fall: a name, and how many of blue's and of green's did."""
    blue, green = seen.blue, seen.green
    if blue.unread or green.unread:
        yield "cannot be read", blue.unread, green.unread
    for cell in sorted(blue.labels.keys() | green.labels.keys()):
        name = seen.names.get(cell, f"labels of cell {cell}")
        yield f"label {name}", blue.labels.get(cell, 0.0), green.labels.get(cell, 0.0)
    for edge in _tenths(blue.numbers, green.numbers):
        below = [sum(n for bucket, n in numbers.items() if bucket <= edge) for numbers in (blue.numbers, green.numbers)]
        yield f"at most {middle_of(edge):.4g}", below[0], below[1]


def _tenths(blue: dict[int, float], green: dict[int, float]) -> list[int]:
    """Buckets at which a tenth more of both fleets' numbers lies below: each fleet weighs the same."""
    totals = sum(blue.values()) or 1.0, sum(green.values()) or 1.0
    edges: list[int] = []
    below, next_part = 0.0, 1
    for bucket in sorted(blue.keys() | green.keys()):
        below += (blue.get(bucket, 0.0) / totals[0] + green.get(bucket, 0.0) / totals[1]) / 2
        if below >= next_part / TENTHS - 1e-9:
            edges.append(bucket)
            next_part = int(below * TENTHS + 1e-9) + 1
    return edges


_JUDGES: dict[Compared, Callable[[AnalysisPolicy, Evidence, float], Finding]] = {
    Compared.LATENCY: _latency,
    Compared.ERRORS: _errors,
    Compared.PREDICTIONS: _predictions,
}


def told(analysis: Analysis) -> str:
    """The verdict with its numbers, for the story."""
    return "; ".join(_sentence(finding) for finding in analysis.findings) or "nothing is compared"


def _sentence(f: Finding) -> str:
    counts = f"{f.green_count:.0f} against {f.blue_count:.0f}"
    unit = "%" if f.compared is Compared.LATENCY else " points"
    between = (
        f"{100 * f.low:+.1f} to {100 * f.high:+.1f}{unit}" if f.low is not None and f.high is not None else "unknown"
    )
    if f.compared is Compared.LATENCY:
        values = f"green {f.green / 1000:.2f} ms, blue {f.blue / 1000:.2f} ms"
    else:
        values = f"green {100 * f.green:.2f} %, blue {100 * f.blue:.2f} %"
    detail = f", {f.detail}" if f.detail else ""
    return (
        f"{f.compared} {f.verdict}: {values} ({counts}{detail}), difference {between}, limit {100 * f.limit:+g}{unit}"
    )

"""What probably explains that an endpoint misbehaves: anomalies of its metrics, what was changed, and log patterns
never seen before, joined in time. Pure: a world in, ranked explanations with their evidence out.

An anomaly begins where a series leaves the spread of what it was before (a robust z: by the median and the median
deviation). Each change before it is a suspect; what speaks for one is how soon the anomaly followed, whether it shows
on the instances that the change brought and not on the others, and new log patterns in between. It is a judgement by
coincidence, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp
from statistics import median

from eyrie.decide.log_templates import LogPattern, unseen_before
from eyrie.decide.query_values import moment_text

STRANGE_Z = 6.0
STILL_Z = 3.0  # the next point has to be this far out too
BASELINE_POINTS = 40
BASELINE_POINTS_MIN = 3
FADES_MS = 300_000.0  # after so long a change is a third as suspect
SUSPECT_MS = 3_600_000  # older changes are none
LOCAL_SHARE = 0.8
_CONTRAST = 3.0  # times as many of the new instances' requests fail as of the others'
PATTERNS_TOLD = 3
_MAD_TO_SIGMA = 1.4826
_SURE = 1.6  # weights that come to so much leave little doubt


class Kind(StrEnum):
    """What was changed, or happened."""

    DEPLOYMENT = "deployment"
    WEIGHTS = "traffic weights"
    SCALED_IN = "scale-in"
    SCALED_OUT = "scale-out"
    LOST = "lost instance"
    LOAD = "load"
    LOG = "new log pattern"


# How often such a thing is the cause of trouble, other things being equal.
_PRIORS = {
    Kind.DEPLOYMENT: 1.0,
    Kind.WEIGHTS: 0.7,
    Kind.SCALED_IN: 0.6,
    Kind.SCALED_OUT: 0.15,
    Kind.LOST: 0.6,
    Kind.LOAD: 0.6,
    Kind.LOG: 0.35,
}


@dataclass(frozen=True, slots=True)
class Signal:
    """A series: its name for people, its points by time, and from which difference on one matters at all."""

    name: str
    points: Mapping[int, float]  # start of a period in ms -> value
    floor: float
    unit: str = ""
    is_load: bool = False  # a cause rather than a symptom
    gravity: int = 0  # the gravest anomaly is what is to be explained: failures before slowness
    usual: float | None = None  # what it is where nothing is known of before


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A signal that left what was usual."""

    signal: str
    unit: str
    from_ms: int
    before: float
    worst: float
    z: float
    is_load: bool = False
    gravity: int = 0
    known_before: bool = True  # there was enough of before to compare with


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done to the endpoint, or happened to it."""

    at_ms: int
    kind: Kind
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """What one instance answered since the anomaly began."""

    instance_id: str
    first_ms: int  # of its first answer in the time that is looked at
    requests: float
    errors: float


@dataclass(frozen=True, slots=True)
class World:
    """All that is known of an endpoint in the time that is looked at."""

    now_ms: int
    period_ms: int  # of a signal's points
    signals: Sequence[Signal]
    changes: Sequence[Change] = ()
    patterns: Sequence[LogPattern] = ()
    instances: Sequence[InstanceSeen] = ()
    alarm_ms: int | None = None  # when an alarm that is to be explained went off
    alarm: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One thing that may explain it, and what speaks for it and against."""

    kind: Kind
    what: str
    at_ms: int
    score: float  # 0 to 1; not a probability
    certainty: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Insight:
    """What is unusual, what may explain it (the likeliest first), and how sure that is."""

    anomalies: tuple[Anomaly, ...]
    explanations: tuple[Explanation, ...]
    summary: str
    from_ms: int | None = None  # since when


def insight(world: World) -> Insight:
    """What the world tells."""
    anomalies = sorted(filter(None, map(anomaly, world.signals)), key=lambda found: found.from_ms)
    symptoms = [found for found in anomalies if not found.is_load]
    from_ms = _began(world, symptoms)
    if from_ms is None:
        told = "Nothing unusual: no metric left what it was before."
        if any(found.is_load for found in anomalies):
            told += " The load changed, and the endpoint coped."
        return Insight(tuple(anomalies), (), told)
    suspects = [*world.changes, *_load(anomalies, from_ms), *_spoken(world, from_ms)]
    found = [explained for change in suspects if (explained := _explained(world, change, from_ms)) is not None]
    best = {(one.kind, one.what): one for one in sorted(found, key=lambda e: e.score)}  # of several steps the nearest
    ranked = tuple(_with_certainty(sorted(best.values(), key=lambda e: -e.score)))
    return Insight(tuple(anomalies), ranked, _summary(world, symptoms, ranked), from_ms)


def _began(world: World, symptoms: Sequence[Anomaly]) -> int | None:
    """When the trouble began: where the gravest symptom did (of an alarm: of those before it); the first where several
    are as grave. Where there is none, when the alarm went off.
    """
    before = [found for found in symptoms if world.alarm_ms is None or found.from_ms <= world.alarm_ms]
    gravest = max((found.gravity for found in before), default=0)
    return min((found.from_ms for found in before if found.gravity == gravest), default=world.alarm_ms)


# --- anomalies ------------------------------------------------------------------------------------------------------


def anomaly(signal: Signal) -> Anomaly | None:
    """The latest time that a signal left what was usual before, and what it came to; None where it did not.

    The newest point is not looked at alone: it may not be whole yet.
    """
    times = sorted(signal.points)
    values = [signal.points[at_ms] for at_ms in times]
    found: Anomaly | None = None
    n = 0
    while n < len(values) - 1:
        usual = _usual(signal, values[:n])
        if usual is None:
            n += 1
            continue
        middle, spread = usual
        here, after = (values[n] - middle) / spread, (values[n + 1] - middle) / spread
        if here >= STRANGE_Z and after >= STILL_Z:
            end = n
            while end < len(values) and (values[end] - middle) / spread >= STILL_Z:
                end += 1
            worst = max(values[n:end])
            known = n >= BASELINE_POINTS_MIN
            z = (worst - middle) / spread
            found = Anomaly(signal.name, signal.unit, times[n], middle, worst, z, signal.is_load, signal.gravity, known)
            n = end
        n += 1
    return found


def _usual(signal: Signal, before: Sequence[float]) -> tuple[float, float] | None:
    """Median and spread of what was before; None where that is too little."""
    recent = before[-BASELINE_POINTS:]
    if len(recent) < BASELINE_POINTS_MIN:
        return None if signal.usual is None else (signal.usual, signal.floor / STRANGE_Z)
    middle = median(recent)
    deviation = median(abs(value - middle) for value in recent) * _MAD_TO_SIGMA
    return middle, max(deviation, signal.floor / STRANGE_Z, abs(middle) * 0.05)


# --- suspects -------------------------------------------------------------------------------------------------------


def _load(anomalies: Sequence[Anomaly], from_ms: int) -> list[Change]:
    return [
        Change(found.from_ms, Kind.LOAD, f"{found.signal} rose from {_value(found.before)} to {_value(found.worst)}")
        for found in anomalies
        if found.is_load and found.from_ms <= from_ms
    ]


def _spoken(world: World, from_ms: int) -> list[Change]:
    """A new pattern is a suspect of its own where no change could have brought it."""
    changed = any(-world.period_ms <= from_ms - change.at_ms <= SUSPECT_MS for change in world.changes)
    new = _new_patterns(world, from_ms - 2 * world.period_ms, from_ms)
    if changed or not new or not new[0].is_trouble:
        return []
    return [Change(new[0].first_ms, Kind.LOG, f"the instances began to say: {new[0].example[:160]}")]


def _new_patterns(world: World, since_ms: int, from_ms: int) -> list[LogPattern]:
    """Those first seen after a time, and not long after the trouble began."""
    new = unseen_before(world.patterns, since_ms)
    return [pattern for pattern in new if pattern.first_ms <= from_ms + 2 * world.period_ms]


def _explained(world: World, change: Change, from_ms: int) -> Explanation | None:
    lag_ms = from_ms - change.at_ms
    if not -world.period_ms <= lag_ms <= SUSPECT_MS:
        return None
    score = _PRIORS[change.kind] * exp(-max(lag_ms, 0) / FADES_MS)  # of two that are as likely, the nearer one
    evidence = [_lag(lag_ms, world.period_ms)]
    for weight, told in (_locality(world, change, from_ms), _patterns(world, change, from_ms)):
        score *= weight
        if told:
            evidence.append(told)
    if change.why:
        evidence.append(f"it was done because: {change.why}")
    return Explanation(change.kind, change.what, change.at_ms, score / _SURE, "", tuple(evidence))


def _lag(lag_ms: int, period_ms: int) -> str:
    if abs(lag_ms) <= period_ms:
        return f"the trouble began within {period_ms / 1000:.0f} s of it"
    return f"the trouble began {_span(lag_ms)} after it"


def _locality(world: World, change: Change, from_ms: int) -> tuple[float, str]:
    """Whether errors are on the instances that came with the change: how much that weighs, and how it is told."""
    errors = sum(seen.errors for seen in world.instances)
    if change.kind not in (Kind.DEPLOYMENT, Kind.SCALED_OUT) or not errors:
        return 1.0, ""
    new = [seen for seen in world.instances if seen.first_ms >= change.at_ms - world.period_ms]
    on_new, requests_new = sum(seen.errors for seen in new), sum(seen.requests for seen in new)
    requests = sum(seen.requests for seen in world.instances)
    if not new:
        return 0.5, "against it: none of the instances that answer came with it"
    share, rate = on_new / errors, on_new / max(requests_new, 1.0)
    told = f"{share:.0%} of the errors are on the {len(new)} instances that came with it"
    if len(new) == len(world.instances):
        return 1.2, f"{told}, which have all the requests; {rate:.0%} of those fail"
    others = (errors - on_new) / max(requests - requests_new, 1.0)
    told += f", which have {requests_new / max(requests, 1.0):.0%} of the requests"
    told += f": {rate:.0%} of theirs fail, of the others' {others:.0%}"
    if share >= LOCAL_SHARE and rate >= _CONTRAST * others:
        return 2.0, told
    return (0.4, f"against it: only {told}") if rate < others else (1.0, told)


def _patterns(world: World, change: Change, from_ms: int) -> tuple[float, str]:
    if change.kind is Kind.LOAD:
        return 1.0, ""
    new = _new_patterns(world, change.at_ms - world.period_ms, from_ms)
    if not new:
        return 1.0, ""
    shown = "; ".join(f"{pattern.count} times {pattern.example[:160]!r}" for pattern in new[:PATTERNS_TOLD])
    told = f"log lines never seen before it: {shown}"
    return (1.5 if new[0].is_trouble else 1.1), told


# --- words ----------------------------------------------------------------------------------------------------------


def _with_certainty(ranked: Sequence[Explanation]) -> list[Explanation]:
    """By the score, and by how far the next one is behind."""
    made = []
    for n, one in enumerate(ranked):
        rival = max((other.score for k, other in enumerate(ranked) if k != n), default=0.0)
        alone = one.score >= 1.5 * rival
        strong = one.score >= 0.6 and len(one.evidence) > 1
        words = "very likely" if strong and alone else "likely" if one.score >= 0.3 and alone else "possible"
        if one.score < 0.1:
            words = "unlikely"
        made.append(Explanation(one.kind, one.what, one.at_ms, round(min(one.score, 1.0), 3), words, one.evidence))
    return made


def _summary(world: World, symptoms: Sequence[Anomaly], ranked: Sequence[Explanation]) -> str:
    what = "; ".join(_symptom(found) for found in symptoms) or f"the alarm {world.alarm} went off"
    told = f"{what[0].upper()}{what[1:]}."
    if not ranked:
        return f"{told} Nothing that was recorded before explains it: look at what the models depend on."
    first = ranked[0]
    ago = f"at {moment_text(first.at_ms)[11:19]} UTC"
    told += f" What explains it best ({first.certainty}): {first.kind}, {first.what}, {ago}."
    if any(not found.known_before for found in symptoms):
        told += " There is little of before to compare with."
    return f"{told} It is judged by what coincides in time, which is no proof."


def _symptom(found: Anomaly) -> str:
    before, worst = _value(found.before), _value(found.worst)
    at = moment_text(found.from_ms)[11:19]
    return f"{found.signal} rose from {before}{found.unit} to {worst}{found.unit} at {at} UTC"


def _value(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _span(ms: float) -> str:
    return f"{ms / 1000:.0f} s" if ms < 120_000 else f"{ms / 60_000:.0f} min"

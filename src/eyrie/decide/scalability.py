"""The Universal Scalability Law, fitted to throughputs by least squares: what `eyrie assess` says of more instances.

X(n) = rate * n / (1 + contention * (n - 1) + coherence * n * (n - 1)), after Gunther. `contention` is the share of the
work that waits in line for something shared, `coherence` what each pair of instances costs the other. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

ROUNDS_MAX = 60
ENOUGH = 1e-12  # relative change of the parameters at which the refinement stops


@dataclass(frozen=True, slots=True)
class Point:
    """A throughput that was measured with so many instances."""

    instances: int
    rate: float  # of any unit of work


@dataclass(frozen=True, slots=True)
class Law:
    """The fitted law. Neither factor is ever negative, and contention, a share, at most 1."""

    rate: float  # of one instance
    contention: float
    coherence: float
    error: float  # root of the mean square of the relative residuals
    points: int

    def at(self, instances: float) -> float:
        """The throughput that the law tells."""
        return self.rate * instances / _slowed(instances, self.contention, self.coherence)

    @property
    def best(self) -> float | None:
        """How many instances bring the most; None where each more brings something."""
        if self.coherence <= 0:
            return None
        return sqrt(max(1.0, (1 - self.contention) / self.coherence))

    @property
    def highest(self) -> float | None:
        """The throughput that no number of instances exceeds; None where there is no such bound."""
        if self.best is not None:
            return self.at(self.best)
        return self.rate / self.contention if self.contention > 0 else None


def fit(points: Sequence[Point]) -> Law:
    """The law nearest to the points, by relative residuals. One number of instances tells the rate alone, two tell rate
    and contention, three or more everything. Raises ValueError for none, or for values that cannot be.
    """
    for point in points:
        if point.instances < 1 or not isfinite(point.rate) or point.rate <= 0:
            raise ValueError(f"a point has at least one instance and a positive rate, not {point}")
    different = len({point.instances for point in points})
    if not different:
        raise ValueError("there are no points")
    allowed = [(), (1,), (2,), (1, 2)] if different > 2 else [(), (1,)] if different == 2 else [()]
    found = [_refined(points, free, _first(points, free)) for free in allowed]
    found += [  # what more instances bring nothing to lies on the bound: all of the work waits in line
        _refined(points, tuple(k for k in free if k != 1), _rated(points, 1.0, 0.0)) for free in allowed if 1 in free
    ]
    best = min(_loss(points, one) for one in found)
    law = next(one for one in found if _loss(points, one) <= best * (1 + 1e-9) + 1e-18)  # the one with fewest factors
    return Law(*law, error=sqrt(_loss(points, law) / len(points)), points=len(points))


Parameters = tuple[float, float, float]


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _slowed(instances: float, contention: float, coherence: float) -> float:
    return 1 + contention * (instances - 1) + coherence * instances * (instances - 1)


def _loss(points: Sequence[Point], law: Parameters) -> float:
    """The sum of the squares of the relative residuals."""
    rate, contention, coherence = law
    told = (rate * p.instances / _slowed(p.instances, contention, coherence) / p.rate - 1 for p in points)
    return sum(one * one for one in told)


def _rated(points: Sequence[Point], contention: float, coherence: float) -> Parameters:
    """The law of these factors with the rate that fits best: residuals are linear in it."""
    told = [p.instances / _slowed(p.instances, contention, coherence) / p.rate for p in points]
    return sum(told) / sum(one * one for one in told), contention, coherence


def _terms(instances: int) -> tuple[float, float, float]:
    """What the three linear coefficients of n / X(n) are multiplied with."""
    return 1.0, instances - 1.0, instances * (instances - 1.0)


def _first(points: Sequence[Point], free: tuple[int, ...]) -> Parameters:
    """n / X(n) is linear in 1/rate, contention/rate and coherence/rate: least squares of that, weighted by X/n."""
    used = (0, *free)
    rows = [([_terms(p.instances)[k] * p.rate / p.instances for k in used], 1.0) for p in points]
    solved = dict(zip(used, _least_squares(rows), strict=True))
    base = solved[0]
    if base <= 0:  # points that no such law describes: begin with the slowest instance
        return (min(p.rate / p.instances for p in points), 0.0, 0.0)
    return 1 / base, _share(solved.get(1, 0.0) / base), max(0.0, solved.get(2, 0.0) / base)


def _refined(points: Sequence[Point], free: tuple[int, ...], law: Parameters) -> Parameters:
    """Gauss-Newton on the relative residuals themselves, halving a step that does not help."""
    used = (0, *free)
    for _ in range(ROUNDS_MAX):
        rows = []
        for p in points:
            slowed = _slowed(p.instances, law[1], law[2])
            told = law[0] * p.instances / slowed / p.rate
            slopes = (told / law[0], -told * (p.instances - 1) / slowed, -told * _terms(p.instances)[2] / slowed)
            rows.append(([slopes[k] for k in used], 1 - told))
        step = dict(zip(used, _least_squares(rows), strict=True))
        law, moved = _stepped(points, law, step)
        if moved < ENOUGH:
            break
    return law


def _stepped(points: Sequence[Point], law: Parameters, step: dict[int, float]) -> tuple[Parameters, float]:
    """The law after a step, its factors within their bounds; and how far it went, relatively. It never gets worse."""
    before, share = _loss(points, law), 1.0
    for _ in range(30):
        contention, coherence = (law[k] + share * step.get(k, 0.0) for k in (1, 2))
        tried = _rated(points, _share(contention), max(0.0, coherence))
        if _loss(points, tried) <= before:
            return tried, max(abs(new - old) / max(abs(old), 1e-9) for new, old in zip(tried, law, strict=True))
        share /= 2
    return law, 0.0


def _least_squares(rows: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """The solution of the normal equations; a direction that the rows say nothing about stays at zero."""
    size = len(rows[0][0])
    matrix = [[sum(row[i] * row[j] for row, _ in rows) for j in range(size)] for i in range(size)]
    right = [sum(row[i] * value for row, value in rows) for i in range(size)]
    scale = max(matrix[i][i] for i in range(size)) or 1.0
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(matrix[k][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        right[i], right[pivot] = right[pivot], right[i]
        if abs(matrix[i][i]) < 1e-13 * scale:
            continue
        for k in range(i + 1, size):
            factor = matrix[k][i] / matrix[i][i]
            matrix[k] = [a - factor * b for a, b in zip(matrix[k], matrix[i], strict=True)]
            right[k] -= factor * right[i]
    solved = [0.0] * size
    for i in reversed(range(size)):
        if abs(matrix[i][i]) >= 1e-13 * scale:
            rest = sum(matrix[i][j] * solved[j] for j in range(i + 1, size))
            solved[i] = (right[i] - rest) / matrix[i][i]
    return solved

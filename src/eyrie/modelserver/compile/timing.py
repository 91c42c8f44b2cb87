"""Which of two models is quicker on this host, called as the server calls them: one thread, batches of 1 to 100."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eyrie.modelserver.codecs import Array

SIZES = (1, 8, 32, 100)
ROUNDS = 7
ROUND_S = 0.008  # of one model at one size; a slower model is called once
CALLS_MAX = 200

Predict = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds a call, the median of several rounds in turn."""

    rows: int
    original_us: float
    compiled_us: float

    @property
    def gain(self) -> float:
        """How many times as quick the compiled one is."""
        return self.original_us / self.compiled_us


@dataclass(frozen=True, slots=True)
class Called:
    """A model and the rows that it is called with, none of which it refuses."""

    predict: Predict
    rows: Array

    def batch(self, size: int) -> Array:
        """So many of the rows, over again where there are fewer."""
        return self.rows[np.arange(size) % len(self.rows)]


def measure(original: Called, compiled: Called, clock: Callable[[], float]) -> list[Timing]:
    """Both at every size, in turn, so that a host that gets busy slows both. `clock` tells seconds."""
    found = []
    for size in SIZES:
        pairs = [(called.predict, called.batch(size)) for called in (original, compiled)]
        calls = [_calls(predict, batch, clock) for predict, batch in pairs]
        rounds = [
            [_round(predict, batch, count, clock) for (predict, batch), count in zip(pairs, calls, strict=True)]
            for _ in range(ROUNDS)
        ]
        medians = np.median(np.array(rounds), axis=0)
        found.append(Timing(size, float(medians[0]), float(medians[1])))
    return found


def overall(timings: Sequence[Timing]) -> float:
    """How many times as quick over all sizes: the geometric mean."""
    return math.exp(sum(math.log(timing.gain) for timing in timings) / len(timings))


def _calls(predict: Predict, batch: Array, clock: Callable[[], float]) -> int:
    predict(batch)  # the first one builds what later ones use
    before = clock()
    predict(batch)
    return max(1, min(CALLS_MAX, int(ROUND_S / max(clock() - before, 1e-7))))


def _round(predict: Predict, batch: Array, calls: int, clock: Callable[[], float]) -> float:
    before = clock()
    for _ in range(calls):
        predict(batch)
    return (clock() - before) / calls * 1e6

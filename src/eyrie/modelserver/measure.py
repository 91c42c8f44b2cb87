"""How long a model takes for a batch, measured once at load, to choose between the event loop and worker threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eyrie.modelserver.codecs import RowShape

ROWS = 32
ROUNDS = 5
ENOUGH_S = 0.002  # of measuring a model that is quick beyond doubt: whoever starts it waits for this
QUICK_S = 0.001


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """What the model answers for one row: NumPy's dtype, and the sizes beyond the first axis."""

    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds for one row and for a batch of 32, the best of a few; None when the model refused made-up rows."""

    one_s: float | None
    batch_s: float | None
    answer: AnswerShape | None = None

    def quick(self, limit_s: float) -> bool:
        """True when a batch is known to stay within the limit, so that the event loop may run it."""
        return self.batch_s is not None and self.batch_s <= limit_s

    def __str__(self) -> str:
        if self.one_s is None or self.batch_s is None:
            return "not measured: it refuses rows of zeros"
        return f"{self.one_s * 1e6:.0f} us for 1 row, {self.batch_s * 1e6:.0f} us for {ROWS}"


def pace(predict: Callable[[np.ndarray], object], shape: RowShape, clock: Callable[[], float]) -> Pace:
    """Measure a model on rows of zeros. It also warms up what libraries build at their first prediction."""
    if shape.width is None:
        return Pace(None, None)
    one_s, answer = _best(predict, shape, 1, clock)
    batch_s, _ = _best(predict, shape, ROWS, clock)
    return Pace(one_s, batch_s, answer)


def _best(
    predict: Callable[[np.ndarray], object], shape: RowShape, rows: int, clock: Callable[[], float]
) -> tuple[float | None, AnswerShape | None]:
    zeros = np.zeros((rows, shape.width or 0), dtype=shape.dtype)
    best: float | None = None
    spent = 0.0  # without the first prediction, which warms up
    answer: object = None
    for _ in range(ROUNDS):
        before = clock()
        try:
            answer = predict(zeros)
        except Exception:  # the boundary to foreign code: a model may refuse zeros and be a good one
            return None, None
        taken = clock() - before
        spent += taken if best is not None else 0.0
        best = taken if best is None else min(best, taken)
        if taken > 0.05 or (spent > ENOUGH_S and best < QUICK_S):
            break  # slow or quick enough to know
    return best, AnswerShape(answer.dtype.name, answer.shape[1:]) if isinstance(answer, np.ndarray) else None

"""Loop-turn batching: what arrived in one turn of the event loop is predicted in one call, and taken apart again.

On the path of every invocation of a row model: `app` submits decoded rows with a ticket, and is handed back each
ticket with its own predictions or its own error. Quick models run on the loop; slow ones in worker threads, batching
what gathers while those are busy. A batch that fails is halved until the requests at fault are alone, so nobody gets
another's error.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from eyrie.modelserver.codecs import CSV, Array, Refused, Rows, RowShape, decode, read_lines

log = logging.getLogger("eyrie.modelserver")

T = TypeVar("T")
Predict = Callable[[Array], Array]
Outcome = Array | Exception
Part = Rows | bytes  # of a batch: a request's rows, or its one line of CSV that is not read yet

SLOW_S = 0.002  # a batch that takes longer holds up /ping and every other request: it belongs in a thread
SLOW_BATCHES = 16  # in a row, before a model that was measured as quick is moved there; a busy host makes a few


class Off(Protocol):
    """Runs work off the event loop and gives its result back on it; False when it can hold no more."""

    def __call__(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        """Queue `work`; `done` is called with what it returned or raised."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one batcher."""

    batch_rows_max: int = 256  # rows in one call, unless a single request has more
    queue_requests_max: int = 1024  # requests waiting; one more is refused


class Batcher(Generic[T]):
    """Gathers requests into batches. Everything but the prediction itself happens on the event loop."""

    def __init__(
        self,
        predict: Predict,
        shape: RowShape,
        deliver: Callable[[T, Outcome], None],
        *,
        soon: Callable[[Callable[[], None]], object],
        off: Off,
        clock: Callable[[], float],
        threads: int = 0,
        wanted: Callable[[T], bool] = lambda ticket: True,
        bounds: Bounds | None = None,
    ) -> None:
        """`soon` calls back in the loop's next turn; `threads` is how many batches run in threads at once, 0: on the
        loop.
        """
        self._predict = predict
        self._shape = shape
        self._deliver = deliver
        self._soon = soon
        self._off = off
        self._clock = clock
        self._threads = threads
        self._wanted = wanted
        self._bounds = bounds or Bounds()
        self._queue: deque[tuple[T, Part]] = deque()
        self._scheduled = False
        self._running = 0  # batches in threads
        self._slow = 0  # slow batches on the loop in a row

    @property
    def threaded(self) -> bool:
        """True when batches run in worker threads."""
        return self._threads > 0

    @property
    def waiting(self) -> int:
        """Requests that are queued and not being predicted yet."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """True while requests wait or are being predicted."""
        return self._running > 0 or bool(self._queue)

    def submit(self, ticket: T, rows: Part) -> bool:
        """Queue a request's rows; False when the queue is full, and the ticket will not be heard of again."""
        if len(self._queue) >= self._bounds.queue_requests_max:
            return False
        self._queue.append((ticket, rows))
        if not self._scheduled:
            self._scheduled = True
            self._soon(self._turn)
        return True

    def _turn(self) -> None:
        self._scheduled = False
        if self._threads:
            self._start_threads()
        else:
            self._run_here()

    def _run_here(self) -> None:
        batch = self._take()
        if not batch:
            return
        before = self._clock()
        self._hand_out(batch, predict_each(self._predict, self._shape, [rows for _, rows in batch]))
        self._slow = self._slow + 1 if self._clock() - before > SLOW_S else 0
        if self._slow >= SLOW_BATCHES:
            self._threads = 1
            log.info("%d batches in a row took over %g ms: predicting in a thread now", self._slow, SLOW_S * 1000)
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._soon(self._turn)

    def _start_threads(self) -> None:
        while self._running < self._threads and self._queue:
            batch = self._take()
            if not batch:
                return
            self._running += 1
            work = _Work(self._predict, self._shape, [rows for _, rows in batch])
            if not self._off(work, _Done(self, batch)):
                self._running -= 1
                self._hand_out(batch, [RuntimeError("the worker threads are full")] * len(batch))

    def finished(self, batch: list[tuple[T, Part]], outcomes: Sequence[Outcome]) -> None:
        """A batch comes back from its thread: answer it and start the next."""
        self._running -= 1
        self._start_threads()
        self._hand_out(batch, outcomes)

    def _take(self) -> list[tuple[T, Part]]:
        """The next batch, without the requests whose clients have left."""
        batch: list[tuple[T, Part]] = []
        rows_left = self._bounds.batch_rows_max
        queue, wanted = self._queue, self._wanted
        while queue:
            rows = queue[0][1]
            count = 1 if type(rows) is bytes else len(rows)
            if rows_left < count and batch:
                break
            item = queue.popleft()
            if wanted(item[0]):
                batch.append(item)
                rows_left -= count
        return batch

    def _hand_out(self, batch: list[tuple[T, Part]], outcomes: Sequence[Outcome]) -> None:
        for (ticket, _), outcome in zip(batch, outcomes, strict=True):
            self._deliver(ticket, outcome)


@dataclass(frozen=True, slots=True)
class _Work:
    """One batch's prediction, to be run in a thread."""

    predict: Predict
    shape: RowShape
    parts: list[Part]

    def __call__(self) -> list[Outcome]:
        return predict_each(self.predict, self.shape, self.parts)


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    """Where a threaded batch's outcomes go."""

    batcher: Batcher[T]
    batch: list[tuple[T, Part]]

    def __call__(self, outcome: Any) -> None:
        failed = RuntimeError(f"the worker thread failed: {outcome}") if isinstance(outcome, BaseException) else None
        outcomes: list[Outcome] = [failed] * len(self.batch) if failed is not None else outcome
        self.batcher.finished(self.batch, outcomes)


def predict_each(predict: Predict, shape: RowShape, parts: Sequence[Part]) -> list[Outcome]:
    """The predictions or the error of each part: all in one call where that works, else by halves."""
    lines = [part for part in parts if type(part) is bytes]
    if not lines:
        return _predict_rows(predict, shape, parts)  # type: ignore[arg-type]
    whole = read_lines(lines, shape) if len(lines) == len(parts) else None
    if whole is not None:
        return _predict_array(predict, whole, [1] * len(whole))
    read = [_read(part, shape) for part in parts]
    good = [rows for rows in read if not isinstance(rows, Exception)]
    outcomes = iter(_predict_rows(predict, shape, good) if good else ())
    return [rows if isinstance(rows, Exception) else next(outcomes) for rows in read]


def _read(part: Part, shape: RowShape) -> Rows | Exception:
    """A part's rows, or why they cannot be read."""
    if type(part) is not bytes:
        return part  # type: ignore[return-value]
    try:
        return decode(part, CSV, shape)
    except Refused as refused:
        return refused


def _predict_rows(predict: Predict, shape: RowShape, parts: Sequence[Rows]) -> list[Outcome]:
    try:
        whole = stack(parts, shape)
    except (ValueError, TypeError) as error:  # rows of different widths: the model does not say how wide they are
        if len(parts) == 1:
            return [error]
        middle = len(parts) // 2
        return _predict_rows(predict, shape, parts[:middle]) + _predict_rows(predict, shape, parts[middle:])
    return _predict_array(predict, whole, list(map(len, parts)))


def _predict_array(predict: Predict, whole: Array, sizes: list[int]) -> list[Outcome]:
    """The outcomes of requests of so many rows each, which are stacked in `whole`."""
    try:
        values = predict(whole)
        if len(values) != len(whole):
            raise ValueError(f"the model gave {len(values)} predictions for {len(whole)} rows")
    except Exception as error:  # the boundary to foreign code: whatever a model raises is the answer to its request
        if len(sizes) == 1:
            return [error]
        middle = len(sizes) // 2
        row = sum(sizes[:middle])
        first = _predict_array(predict, whole[:row], sizes[:middle])
        return first + _predict_array(predict, whole[row:], sizes[middle:])
    if len(sizes) == len(values):
        return list(values[:, None])
    outcomes: list[Outcome] = []
    start = 0
    for size in sizes:
        outcomes.append(values[start : start + size])
        start += size
    return outcomes


def stack(parts: Sequence[Rows], shape: RowShape) -> Array:
    """One 2-D array of the model's dtype from the rows of several requests. Raises ValueError when their widths
    differ.
    """
    with np.errstate(over="ignore"):  # beyond float32 is infinity, as everywhere in this field
        if any(isinstance(part, np.ndarray) for part in parts):
            arrays = [part if isinstance(part, np.ndarray) else _array(part, shape) for part in parts]
            whole = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
            return whole if whole.dtype.kind in "OUS" else np.ascontiguousarray(whole, dtype=shape.dtype)
        return _array(list(chain.from_iterable(parts)) if len(parts) > 1 else parts[0], shape)


def _array(rows: Any, shape: RowShape) -> Array:
    if shape.strings and any(isinstance(cell, str) for row in rows for cell in row):
        return np.array(rows, dtype=object)
    return np.array(rows, dtype=shape.dtype)

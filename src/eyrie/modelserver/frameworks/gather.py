"""Requests for tensors that wait while the model is busy are run together, where that is proven to change nothing.

On the path of every invocation of a general tensor model (ONNX, PyTorch, TensorFlow): each request is in a worker
thread of its own; the one whose turn it is takes along those that wait. Rows have the event loop's `batcher` instead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from eyrie.modelserver.codecs import Array
from eyrie.modelserver.frameworks.interface import LoadError

log = logging.getLogger("eyrie.modelserver")

Tensors: TypeAlias = dict[str, Array]
Run: TypeAlias = Callable[[Tensors], Tensors]

THREADS = 8  # requests that are decoded while one batch runs; they share the model
ITEMS_MAX = 256  # along the first axis of one call, unless a single request has more
WORKERS = "SAGEMAKER_MODEL_SERVER_WORKERS"


class Gather:
    """A model's `run`, one call at a time; inputs and outputs are split along their first axis.

    The first time that requests meet, they are run both apart and together. Where that differs (a model that
    normalises over its batch, say) they are run apart for good.
    """

    def __init__(self, run: Run, together: bool) -> None:
        """`together` is False for a model whose first axis is no batch."""
        self._run = run
        self._together = together
        self._proven = False
        self._turn = threading.Lock()  # one call of the model at a time: it has all the cores
        self._gate = threading.Lock()
        self._waiting: list[_Job] = []

    def __call__(self, inputs: Tensors) -> Tensors:
        """The outputs for these inputs. Raises what the model raises for them."""
        job = _Job(inputs)
        with self._gate:
            self._waiting.append(job)
        with self._turn:
            if not job.finished:
                self._work(self._take(job))
        if job.error is not None:
            raise job.error
        return job.outputs

    def _take(self, first: _Job) -> list[_Job]:
        """The job whose turn it is, and those that can go along."""
        with self._gate:
            self._waiting.remove(first)
            batch, size = [first], first.size
            if not self._together or first.kind is None:
                return batch
            for job in list(self._waiting):
                if job.kind == first.kind and size + job.size <= ITEMS_MAX:
                    self._waiting.remove(job)
                    batch.append(job)
                    size += job.size
            return batch

    def _work(self, batch: list[_Job]) -> None:
        if len(batch) > 1 and self._all_at_once(batch):
            return
        for job in batch:
            job.finish(self._run)

    def _all_at_once(self, batch: list[_Job]) -> bool:
        """Run a batch in one call; False where that failed or is not the same as one by one."""
        joined = {name: np.concatenate([job.inputs[name] for job in batch]) for name in batch[0].inputs}
        try:
            outputs = self._run(joined)
        except Exception:  # the boundary to foreign code: somebody's input is at fault, or the model takes no batch
            return False
        total = sum(job.size for job in batch)
        if any(value.ndim == 0 or len(value) != total for value in outputs.values()):
            self._apart("its outputs have not one item for each of its inputs")
            return False
        parts = _split(outputs, batch)
        if not self._proven and not self._prove(batch, parts):
            return True
        for job, part in zip(batch, parts, strict=True):
            job.outputs, job.finished = part, True
        return True

    def _prove(self, batch: list[_Job], parts: list[Tensors]) -> bool:
        """Answer every job on its own, and compare."""
        for job in batch:
            job.finish(self._run)
        pairs = [(job.outputs, part) for job, part in zip(batch, parts, strict=True) if job.error is None]
        self._proven = bool(pairs) and all(_same(alone, part) for alone, part in pairs)
        if not self._proven:
            self._apart("its outputs for several requests at once differ from those one by one")
        return False

    def _apart(self, why: str) -> None:
        self._together = False
        log.warning("requests to this model run one by one: %s", why)


class _Job:
    """One request's inputs, then its outputs or its error."""

    def __init__(self, inputs: Tensors) -> None:
        self.inputs = inputs
        self.outputs: Tensors = {}
        self.error: Exception | None = None
        self.finished = False
        sizes = {len(value) if value.ndim else 0 for value in inputs.values()}
        self.size = sizes.pop() if len(sizes) == 1 else 0
        self.kind = (
            tuple(sorted((name, value.dtype.str, value.shape[1:]) for name, value in inputs.items()))
            if self.size
            else None
        )

    def finish(self, run: Run) -> None:
        """Run alone."""
        try:
            self.outputs = run(self.inputs)
        except Exception as error:  # the boundary to foreign code: whatever a model raises is the answer to its request
            self.error = error
        self.finished = True


def _split(outputs: Tensors, batch: list[_Job]) -> list[Tensors]:
    parts, start = [], 0
    for job in batch:
        parts.append({name: value[start : start + job.size] for name, value in outputs.items()})
        start += job.size
    return parts


def _same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    for name, value in one.items():
        twin = other[name]
        if value.shape != twin.shape:
            return False
        exact = value.dtype.kind not in "fc"
        if not (np.array_equal(value, twin) if exact else np.allclose(value, twin, 1e-4, 1e-5, equal_nan=True)):
            return False
    return True


def intra_op_threads(env: Mapping[str, str]) -> int:
    """Threads that a numeric library may use for one call: what the instance's share of the host allows."""
    text = env.get("OMP_NUM_THREADS", "")
    return max(1, int(text)) if text.isdecimal() else 1


def worker_threads(env: Mapping[str, str], otherwise: int = THREADS) -> int:
    """Requests that are worked on at once: SAGEMAKER_MODEL_SERVER_WORKERS where it is set. Raises LoadError."""
    text = env.get(WORKERS, "") or str(otherwise)
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise LoadError(f"{WORKERS} is {text!r}; it must be a number from 1 to 64")
    return int(text)

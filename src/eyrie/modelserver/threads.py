"""Worker threads beside the event loop, and how many threads the numeric libraries may use.

Slow models, large bodies and user code run here, so that /ping and everybody else's requests never wait for them.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

log = logging.getLogger(__name__)


class Workers:
    """A few daemon threads behind one bounded queue; a result comes back on the event loop."""

    def __init__(self, count: int, queue_max: int, soon: Callable[..., object], name: str = "worker") -> None:
        """`soon` is the loop's call_soon_threadsafe."""
        self._count = count
        self._room = count + queue_max
        self._soon = soon
        self._name = name
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]]] = queue.SimpleQueue()
        self._outstanding = 0  # touched on the loop only
        self._started = False

    @property
    def outstanding(self) -> int:
        """Jobs queued or running."""
        return self._outstanding

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        """Queue `work`; `done` is called on the loop with its result or its exception. False when the queue is full."""
        if self._outstanding >= self._room:
            return False
        self._outstanding += 1
        self._jobs.put((work, done))
        if not self._started:
            self._start()
        return True

    def _start(self) -> None:
        self._started = True
        for number in range(self._count):
            threading.Thread(target=self._loop, name=f"{self._name}-{number}", daemon=True).start()

    def _loop(self) -> None:
        while True:
            work, done = self._jobs.get()
            try:
                outcome: Any = work()
            except (
                BaseException
            ) as error:  # the thread's boundary: also SystemExit of user code must not end the worker
                outcome = error
            try:
                self._soon(self._finish, done, outcome)
            except RuntimeError:
                return  # the loop is closed: the process is ending
            del work, done, outcome

    def _finish(self, done: Callable[[Any], None], outcome: Any) -> None:
        self._outstanding -= 1
        done(outcome)


def threads_for(vcpu_milli: int) -> int:
    """Threads for numeric work: whole cores of the instance's share, no more than this process may run on, at least
    one.
    """
    return max(1, min(vcpu_milli // 1000, len(os.sched_getaffinity(0))))


def limit_native_threads(threads: int) -> None:
    """Bound the OpenMP and BLAS pools that are loaded by now, and those of libraries loaded later."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
    try:
        pools = import_module("threadpoolctl")
    except ImportError:
        log.info("threadpoolctl is not installed: thread pools keep their own sizes")
        return
    pools.threadpool_limits(limits=threads)

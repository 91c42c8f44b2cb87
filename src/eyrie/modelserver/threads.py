"""Worker threads beside the event loop, and how many threads the numeric libraries may use.

Slow models, large bodies and user code run here, so that /ping and everybody else's requests never wait for them.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, MutableMapping
from importlib import import_module
from typing import Any

POOL_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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


def threads_for(vcpu_milli: int, workers: int = 1) -> int:
    """Threads for numeric work in each of an instance's workers: whole cores of its share, no more than this process
    may run on, at least one.
    """
    return max(1, min(vcpu_milli // 1000, len(os.sched_getaffinity(0))) // workers)


def start_single(environ: MutableMapping[str, str] = os.environ) -> None:
    """Before the numeric libraries are imported: one thread each, and none that spins while it waits.

    A slot does not know yet how many cores it will have, and a library that starts one thread a core of a large host
    costs every slot its memory. `Pools.resize` gives them theirs.
    """
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for variable in POOL_VARIABLES:
        environ.setdefault(variable, "1")


class Pools:
    """The OpenMP and BLAS thread pools of the libraries that are loaded; finding them takes milliseconds, so it is
    done once.
    """

    def __init__(self) -> None:
        try:
            self._controller = import_module("threadpoolctl").ThreadpoolController()
        except ImportError:
            self._controller = None

    def resize(self, threads: int, environ: MutableMapping[str, str], asked: Mapping[str, str]) -> None:
        """Give pools this many threads, those of libraries loaded later by the environment; `asked` is what the user
        set.
        """
        for variable in POOL_VARIABLES:
            if variable not in asked:
                environ[variable] = str(threads)
        wanted = asked.get("OMP_NUM_THREADS", "")
        if self._controller is not None:
            self._controller.limit(limits=int(wanted) if wanted.isdecimal() and int(wanted) else threads)

"""An instance with several workers: who loads the model, who serves, who watches.

    keeper    the slot's own process: holds the lock, answers 503 while the model is loaded, then only waits
    nursery   forked by the keeper: loads the model, forks the workers, and forks one anew when one dies
    worker N  forked by the nursery: worker 0 serves on BOX/s, worker N on BOX/s.N

Forked after loading, workers share the model's memory page by page. That is sound only while the nursery has a single
thread and no connection of its own. Where loading leaves threads or sockets behind (a parallel region has run, a
library has a pool, user code talks to a database), the nursery becomes worker 0 itself, and the keeper, in which
nothing ever ran, forks the others; each of them loads a copy.

A light model (`Crew.light`) needs no nursery: its workers, forked ahead by the slot (`ahead`) or else by the keeper,
load side by side, which is sooner done than forks of a fork, whose pages have all to be copied again.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from eyrie.modelserver.board import Board
from eyrie.modelserver.family import Family, fork, sockets, threads

log = logging.getLogger("eyrie.modelserver")

Model = TypeVar("Model")
NURSERY = -1
_APART, _SERVES = b"a", b"s"


class News(Enum):
    """What ends the keeper's waiting while the model is loaded."""

    ALL_SERVE = "all workers serve"
    APART = "each worker must load for itself"
    ENDED = "a process ended"
    STOP = "asked to end"


@dataclass(frozen=True, slots=True)
class Wait:
    """What the keeper waits for: bytes on a pipe that `judge` finds worth waking for, the end of a process, SIGTERM."""

    pipe: int
    judge: Callable[[bytes], News | None]
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Crew(Generic[Model]):
    """What an instance of several workers is made of. Every function here runs in a process of its own."""

    board: Board
    listeners: Mapping[int, socket.socket]  # by worker; of one that was forked ahead, its own
    lock_fd: int | None
    load: Callable[[int], Model]  # in worker N, or in the nursery. Raises Failed
    serve: Callable[[int, Model, Callable[[], None]], int]  # worker N, until SIGTERM; calls back once it listens
    wait: Callable[[Wait], News]  # answers 503 meanwhile
    light: bool = False  # loaded sooner than forked: each worker loads a copy
    ahead: Callable[[int, int], int | None] = lambda number, tell: None  # worker N was forked ahead: its pid


def keep(crew: Crew[Model]) -> int:
    """The keeper's life, from the claim to the end of the instance; its exit code."""
    told, tell = os.pipe()
    for end in (told, tell):
        os.set_blocking(end, False)
    crew.board.keeper(os.getpid())
    apart = crew.light

    def again(number: int) -> int:
        return fork(lambda: _nurse(crew, told, tell) if number == NURSERY else _work_apart(crew, number, told, tell))

    family = Family(again, lambda number: None if number == NURSERY else crew.board.left(number))
    for number in range(crew.board.workers) if apart else (NURSERY,):
        family.add(number, crew.ahead(number, tell))

    def judge(said: bytes) -> News | None:
        if _APART in said:
            return News.APART
        return News.ALL_SERVE if crew.board.all_serving else None

    while (news := crew.wait(Wait(told, judge, family.pids))) is not News.ALL_SERVE:
        if news is News.STOP:
            family.stop()
        if news is not News.APART:
            crew.board.open = apart  # a worker that died loading is forked again, and serves when it has loaded
            return family.tend()
        apart = True
        for number in range(1, crew.board.workers):
            family.add(number)
    if not apart:  # else it may have to fork a worker again, which is given both ends
        os.close(told)
        os.close(tell)
        for listener in crew.listeners.values():
            listener.close()
    crew.board.open = True
    log.info("%d workers serve", crew.board.workers)
    return family.tend()


def _nurse(crew: Crew[Model], told: int, tell: int) -> int:
    """The nursery's life."""
    _leave_keeper(crew, told)
    crew.board.nursery(os.getpid())
    before = sockets()
    began = time.monotonic()
    model = crew.load(NURSERY)
    crew.board.loaded_ms = int((time.monotonic() - began) * 1000)
    why = unshareable(before)
    if why:
        log.info("loading left %s behind: %d workers load a copy each", why, crew.board.workers)
        crew.board.nursery(0)
        os.write(tell, _APART)
        return _work(crew, 0, model, tell)
    gc.collect()
    gc.freeze()  # the collector would write to every object that it looks at, and unshare its page

    def again(number: int) -> int:
        return fork(lambda: _work(crew, number, model, tell))

    family = Family(again, crew.board.left)
    signal.signal(signal.SIGTERM, lambda signum, frame: family.stop())
    for number in range(crew.board.workers):
        family.add(number)
    return family.tend()


def unshareable(sockets_before: int) -> str:
    """Why this process must not be forked now; empty where it may."""
    if threads() > 1:
        return f"{threads() - 1} threads"
    if sockets() > sockets_before:
        return f"{sockets() - sockets_before} open sockets"
    return ""


def _work_apart(crew: Crew[Model], number: int, told: int, tell: int) -> int:
    """The life of a worker that the keeper forked: it loads for itself."""
    _leave_keeper(crew, told)
    return join(crew, number, tell)


def join(crew: Crew[Model], number: int, tell: int) -> int:
    """The life of a worker that loads for itself and has nothing of the keeper's any more."""
    began = time.monotonic()
    model = crew.load(number)
    if number == 0:
        crew.board.loaded_ms = int((time.monotonic() - began) * 1000)
    return _work(crew, number, model, tell)


def _work(crew: Crew[Model], number: int, model: Model, tell: int) -> int:
    """A worker's life."""
    crew.board.born(number, os.getpid())
    for other, listener in crew.listeners.items():
        if other != number:
            listener.close()
    reseed()

    def listening() -> None:
        crew.board.serves(number)
        with contextlib.suppress(BrokenPipeError, BlockingIOError):  # born when the keeper waited no more
            os.write(tell, _SERVES)
        os.close(tell)

    return crew.serve(number, model, listening)


def _leave_keeper(crew: Crew[Model], told: int) -> None:
    """What only the keeper may have: its lock, and its end of the pipe."""
    os.close(told)
    if crew.lock_fd is not None:
        os.close(crew.lock_fd)


def reseed() -> None:
    """Random numbers of this process alone: a fork copies the state of the generator, Python's own reseeds itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()

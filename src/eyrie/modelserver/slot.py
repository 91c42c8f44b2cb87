"""A slot's life: log, lock, imports, socket, then waiting for a claim; SIGTERM ends it when what was begun is
answered. Claimed for several workers, it becomes their keeper (`crew`).

Started as `python -m eyrie.modelserver`; the command line and the sequence are contracts of
docs/concepts/processes.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from eyrie.modelserver.ahead import Order, Spare, dismiss, fork_ahead
from eyrie.modelserver.board import WORKERS_MAX, Board
from eyrie.modelserver.crew import Crew, News, Wait, join, keep
from eyrie.modelserver.family import Failed
from eyrie.modelserver.lean import import_lean
from eyrie.modelserver.log import StampedStream, open_log
from eyrie.modelserver.threads import Pools, start_single

if TYPE_CHECKING:
    from eyrie.modelserver.environment import Claim
    from eyrie.modelserver.guests import Guest
    from eyrie.modelserver.hosting import Hosted
    from eyrie.modelserver.loops import Ground

log = logging.getLogger("eyrie.modelserver")

SOCKET = "s"
IMPORTS = ("sklearn", "xgboost")
FIRST_WORD_S = 5.0  # of several workers that cannot load their model, the first one says why
# What a first prediction would import otherwise: seconds of a cold disk, milliseconds of a warm one.
ALONG = {
    "sklearn": (
        "joblib",
        "sklearn.pipeline",
        "sklearn.compose",
        "sklearn.linear_model",
        "sklearn.ensemble",
        "sklearn.preprocessing",
    ),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    box: Path
    ml: Path
    lock_fd: int | None
    imports: tuple[str, ...]
    log_bytes_max: int
    guests_fd: int | None = None


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; argparse answers a wrong one with exit code 2."""
    parser = argparse.ArgumentParser(
        "python -m eyrie.modelserver", description="A slot, which becomes an instance when it is claimed."
    )
    parser.add_argument("--box", required=True, type=Path, help="folder for the socket `s` and the log")
    parser.add_argument("--ml", required=True, type=Path, help="what a container sees as /opt/ml")
    parser.add_argument(
        "--lock-fd", type=int, help="inherited descriptor whose flock is held as long as this process lives"
    )
    parser.add_argument(
        "--imports", default=",".join(IMPORTS), help="frameworks to import before waiting, comma-separated"
    )
    parser.add_argument("--log-bytes-max", type=int, default=16_777_216, help="bound of the two log files together")
    parser.add_argument(
        "--guests-fd", type=int, help="inherited descriptor with programs of the user's own to start beside, as JSON"
    )
    given = parser.parse_args(arguments)
    imports = tuple(name.strip() for name in given.imports.split(",") if name.strip())
    box, ml = given.box.absolute(), given.ml.absolute()
    return Options(box, ml, given.lock_fd, imports, given.log_bytes_max, given.guests_fd)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a slot to its end; the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _leave)  # until the event loop has its own handler
    start_single()
    try:
        guests, fault = begin_guests(options.guests_fd), ""
    except OSError as error:
        guests, fault = (), str(error)
    file = open_log(options.box, options.log_bytes_max)
    if fault:
        log.error("%s", fault)
        return 1
    if options.lock_fd is not None and not hold_lock(options.lock_fd):
        log.error("the lock of this slot is held by another process")
        return 1
    import_all(options.imports)
    rehearsal = importlib.import_module("eyrie.modelserver.rehearsal")
    rehearsal.rehearse(options.imports)
    loops = importlib.import_module("eyrie.modelserver.loops")
    importlib.import_module("eyrie.modelserver.loader").frameworks()  # their own files, not their libraries
    pools = Pools()
    gc.collect()
    gc.freeze()
    ground = loops.Ground(options.ml, file, pools, guests)
    board = Board(WORKERS_MAX)
    spares = fork_spares(options, ground, board)
    listener = bind(options.box)
    code = serve(options, listener, ground, board, spares)
    for stream in {sys.stdout, sys.stderr}:
        if isinstance(stream, StampedStream):
            stream.finish()
    return code


def begin_guests(fd: int | None) -> tuple[Guest, ...]:
    """Start the containers of the user's own that share the instance, and become its user. Raises OSError."""
    if fd is None:
        return ()
    from eyrie.modelserver.guests import begin

    return begin(fd)


def _leave(signum: int, frame: object) -> None:
    """Nothing was begun yet: go."""
    os._exit(0)


def hold_lock(fd: int) -> bool:
    """Make sure that the inherited descriptor holds its lock, and that no child process will inherit it."""
    os.set_inheritable(fd, False)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def import_all(names: Sequence[str]) -> None:
    """Import frameworks ahead of need. One that is missing is only noted: a model that needs it will say so."""
    for name in names:
        before = time.monotonic()
        try:
            module = import_lean(name)
            for other in ALONG.get(name, ()):
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(other)
        except ImportError as error:
            log.info("%s is not available: %s", name, error)
            continue
        version = getattr(module, "__version__", "")
        log.info("imported %s %s in %d ms", name, version, int((time.monotonic() - before) * 1000))


def bind(box: Path, name: str = SOCKET) -> socket.socket:
    """The listening socket `box/s` (or another), however long the path is; leaves the process in `/`.

    It appears under its name only when it listens already: whoever sees it may connect.
    """
    from eyrie.http1.unix import listen_unix

    early = box / f".{name}"
    listener = listen_unix(str(early))
    os.replace(early, box / name)
    os.chdir("/")
    return listener


def fork_spares(options: Options, ground: Ground, board: Board) -> list[Spare]:
    """Workers forked ahead, where there are libraries to load models with; at most one a core."""
    if not options.imports or ground.guests:
        return []
    from eyrie.modelserver import environment, loops
    from eyrie.modelserver.rehearsal import rehearse

    def live(ordered: Callable[[], Order | None]) -> int:
        if options.lock_fd is not None:
            os.close(options.lock_fd)
        rehearse(options.imports, again=True)  # what it writes to is its own from here on
        loops.run_loop(asyncio.sleep(0))
        gc.collect()
        gc.freeze()
        order = ordered()
        if order is None:
            return 0
        environment.set_log_level({**os.environ, **order.claim.containers[0].environment})
        crew = together(options, order.claim, {order.number: order.listener}, ground, board)
        return join(crew, order.number, order.tell)

    spares = fork_ahead(len(os.sched_getaffinity(0)), live)
    rehearse(options.imports, again=True)  # likewise, of this process, whose pages the spares hold too
    return spares


def serve(options: Options, listener: socket.socket, ground: Ground, board: Board, spares: Sequence[Spare]) -> int:
    """Wait for a claim and serve, alone or with others; the exit code."""
    from eyrie.modelserver import hosting, loops

    outcome = loops.run_loop(loops.serve_slot(ground, listener, spares))
    if isinstance(outcome, int):
        return outcome
    claim = outcome
    others = {number: bind(options.box, f"{SOCKET}.{number}") for number in range(1, claim.workers)}
    listeners = {0: listener, **others}
    light = hosting.light(claim, options.ml)
    mine = dict(enumerate(spares[: claim.workers] if light else ()))
    for pidfd in dismiss(spares[len(mine) :]):
        os.close(pidfd)  # the keeper waits for every child that it has

    def ahead(number: int, tell: int) -> int | None:
        spare = mine.pop(number, None)
        return spare.pid if spare and spare.order(number, claim, listeners[number], tell) else None

    crew = together(options, claim, listeners, ground, board)
    return keep(replace(crew, lock_fd=options.lock_fd, light=light, ahead=ahead))


def together(
    options: Options, claim: Claim, listeners: Mapping[int, socket.socket], ground: Ground, board: Board
) -> Crew[Hosted]:
    """What an instance of several workers is made of, as `crew` wants it."""
    from eyrie.modelserver import hosting, loops
    from eyrie.modelserver.app import report_failure

    board.workers = claim.workers

    def load(number: int) -> Hosted:
        ground.file.reopen()
        try:
            return hosting.load(claim, ground.ml, ground.pools)
        except Exception as error:  # the boundary to foreign code: whatever it was is the reason that is logged
            if number > 0:
                time.sleep(FIRST_WORD_S)  # where it fails for all, they are ended by then, and one has told it
            report_failure(error)
            raise Failed from error

    def work(number: int, hosted: Hosted, listening: Callable[[], None]) -> int:
        ground.file.reopen()
        return loops.run_loop(loops.work(ground, hosted, number, board, listeners[number], listening))

    def wait(what: Wait) -> News:
        return loops.run_loop(loops.hold_off(ground, claim, board, listeners[0].dup(), what))

    return Crew(board, listeners, None, load, work, wait)

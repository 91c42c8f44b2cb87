"""A slot's life: log, lock, imports, socket, then waiting for a claim; SIGTERM ends it when what was begun is
answered. Claimed for several workers, it becomes their keeper (`crew`).

Started as `python -m eyrie.modelserver`; the command line and the sequence are contracts of
docs/concepts/processes.md.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eyrie.modelserver.board import Board
from eyrie.modelserver.crew import Crew, News, Wait, keep
from eyrie.modelserver.family import Failed
from eyrie.modelserver.lean import import_lean
from eyrie.modelserver.log import LogFile, StampedStream, open_log
from eyrie.modelserver.threads import Pools, start_single

if TYPE_CHECKING:
    from eyrie.modelserver.environment import Claim
    from eyrie.modelserver.guests import Guest
    from eyrie.modelserver.hosting import Hosted
    from eyrie.modelserver.loops import Ground

log = logging.getLogger("eyrie.modelserver")

SOCKET = "s"
IMPORTS = ("sklearn", "xgboost")
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
    importlib.import_module("eyrie.modelserver.rehearsal").rehearse(options.imports)
    importlib.import_module("eyrie.modelserver.loops")
    importlib.import_module("eyrie.modelserver.loader").frameworks()  # their own files, not their libraries
    pools = Pools()
    gc.collect()
    gc.freeze()
    listener = bind(options.box)
    code = serve(options, listener, file, pools, guests)
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


def serve(
    options: Options, listener: socket.socket, file: LogFile, pools: Pools, guests: Sequence[Guest] = ()
) -> int:
    """Wait for a claim and serve, alone or with others; the exit code."""
    from eyrie.modelserver import loops

    ground = loops.Ground(options.ml, file, pools, guests)
    outcome = loops.run_loop(loops.serve_slot(ground, listener))
    if isinstance(outcome, int):
        return outcome
    return keep(together(options, outcome, listener, ground))


def together(options: Options, claim: Claim, listener: socket.socket, ground: Ground) -> Crew[Hosted]:
    """What an instance of several workers is made of, as `crew` wants it."""
    from eyrie.modelserver import hosting, loops
    from eyrie.modelserver.app import report_failure

    board = Board(claim.workers)
    others = (bind(options.box, f"{SOCKET}.{number}") for number in range(1, claim.workers))
    listeners = (listener, *others)

    def load() -> Hosted:
        ground.file.reopen()
        try:
            return hosting.load(claim, ground.ml, ground.pools)
        except Exception as error:  # the boundary to foreign code: whatever it was is the reason that is logged
            report_failure(error)
            raise Failed from error

    def work(number: int, hosted: Hosted, listening: Callable[[], None]) -> int:
        ground.file.reopen()
        return loops.run_loop(loops.work(ground, hosted, number, board, listeners[number], listening))

    def wait(what: Wait) -> News:
        return loops.run_loop(loops.hold_off(ground, claim, board, listener.dup(), what))

    return Crew(board, listeners, options.lock_fd, load, work, wait)

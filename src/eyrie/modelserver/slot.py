"""A slot's life: log, lock, imports, socket, then waiting for a claim; SIGTERM ends it when what was begun is
answered.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyrie.modelserver.log import LogFile, StampedStream, open_log
from eyrie.modelserver.threads import Pools, start_single

log = logging.getLogger("eyrie.modelserver")

SOCKET = "s"
DRAIN_MS_MAX = 3_600_000  # whoever sent SIGTERM sends SIGKILL when its own patience ends
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
    "xgboost": ("xgboost.sklearn", "eyrie.modelserver.frameworks.xgboost"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    box: Path
    ml: Path
    lock_fd: int | None
    imports: tuple[str, ...]
    log_bytes_max: int


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
    given = parser.parse_args(arguments)
    imports = tuple(name.strip() for name in given.imports.split(",") if name.strip())
    return Options(given.box.absolute(), given.ml.absolute(), given.lock_fd, imports, given.log_bytes_max)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a slot to its end; the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _leave)  # until the event loop has its own handler
    start_single()
    file = open_log(options.box, options.log_bytes_max)
    if options.lock_fd is not None and not hold_lock(options.lock_fd):
        log.error("the lock of this slot is held by another process")
        return 1
    import_all(options.imports)
    importlib.import_module("eyrie.modelserver.app")
    pools = Pools()
    gc.collect()
    gc.freeze()
    listener = bind(options.box)
    code = run(options, listener, file, pools)
    for stream in {sys.stdout, sys.stderr}:
        if isinstance(stream, StampedStream):
            stream.finish()
    return code


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
            module = importlib.import_module(name)
            for other in ALONG.get(name, ()):
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(other)
        except ImportError as error:
            log.info("%s is not available: %s", name, error)
            continue
        version = getattr(module, "__version__", "")
        log.info("imported %s %s in %d ms", name, version, int((time.monotonic() - before) * 1000))


def bind(box: Path) -> socket.socket:
    """The listening socket `box/s`, however long the path is; leaves the process in `/`.

    It appears under its name only when it listens already: whoever sees it may connect.
    """
    from eyrie.http1.unix import listen_unix

    early = box / f".{SOCKET}"
    listener = listen_unix(str(early))
    os.replace(early, box / SOCKET)
    os.chdir("/")
    return listener


def run(options: Options, listener: socket.socket, file: LogFile, pools: Pools) -> int:
    """Serve until SIGTERM or until the model fails to load; the exit code."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve(options, listener, file, pools))


async def _serve(options: Options, listener: socket.socket, file: LogFile, pools: Pools) -> int:
    from eyrie.http1.limits import Limits
    from eyrie.http1.server import listen
    from eyrie.modelserver.app import ModelServer

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    loop.add_signal_handler(signal.SIGTERM, end, 0)
    loop.add_signal_handler(signal.SIGINT, end, 0)
    server = await listen(ModelServer(options.ml, loop, pools, end), listener, Limits(idle_ms=600_000))
    watch = loop.create_task(_watch_log(file))
    log.info("waiting for a model")
    code = await ended
    if code == 0:
        log.info("stopping: answering what was begun")
        await server.close(DRAIN_MS_MAX)
        log.info("stopped")  # not after a failure: its reason is to be the last line
    watch.cancel()
    return code


async def _watch_log(file: LogFile) -> None:
    """Keep the log in its bound also against those who write past Python's streams."""
    while True:
        await asyncio.sleep(1.0)
        file.check()

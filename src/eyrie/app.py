"""Floor 6, the door of each part: `python -m eyrie.app control|objects|dispatch|gateway|console --index N ...`.

Settings come from the EYRIE_ variables that the supervisor gave. The part takes its lock, sends what it says to its
log, and runs on uvloop until SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from eyrie.adapters import process_lock, process_log
from eyrie.settings import Settings, SettingsError

_LOCK_WAIT_S = 10.0  # an earlier process of this name may still be leaving


def main(argv: list[str]) -> int:
    """Run one part until it is told to stop. Returns the exit code."""
    options = _options(argv)
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    name = f"{options.part}-{options.index}" if options.part == "gateway" else options.part
    try:
        process_lock.take(settings.data / "run" / f"{name}.lock", _LOCK_WAIT_S)
    except process_lock.Held as error:
        print(error, file=sys.stderr)
        return 1
    process_log.log_to(settings.data / "logs" / f"{name}.log")
    import uvloop  # here, so that a wrong flag or a held lock is told without loading anything

    uvloop.run(_part(options, settings))
    return 0


def _part(options: argparse.Namespace, settings: Settings) -> Coroutine[Any, Any, None]:
    """The coroutine of a part; each imports only what it needs."""
    if options.part != "control":  # whose children would inherit it
        _allow_many_files()
    if options.part == "gateway":
        from eyrie.gateway import app as gateway

        return gateway.serve(settings, options.index, socket.socket(fileno=options.listen_fd))
    if options.part == "objects":
        from eyrie.objects import app as objects

        return objects.serve(settings)
    if options.part == "dispatch":
        from eyrie.dispatch import app as dispatch

        return dispatch.serve(settings)
    if options.part == "console":
        from eyrie.console import app as console

        return console.serve(settings)
    from eyrie.wiring import control

    return control(settings)


def _allow_many_files() -> None:
    """As many connections as the host allows: shells and services start with a soft limit of 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eyrie.app", description="One process of Eyrie; `eyrie up` starts it.")
    parser.add_argument("part", choices=("control", "objects", "dispatch", "gateway", "console"))
    parser.add_argument("--index", type=int, default=0, help="number of the gateway worker")
    parser.add_argument("--listen-fd", type=int, default=3, help="descriptor of the inherited listening socket")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

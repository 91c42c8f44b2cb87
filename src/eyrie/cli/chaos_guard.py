"""Holds processes still for a while, and lets them go whatever happens: `python -m eyrie.cli.chaos_guard`.

A fault that must be reverted is never the command's own to revert, since a command may be killed. This small process,
in a session of its own, stops others by pidfd and continues them when its time is over, when it is told to end, or when
its standard input closes, which it does when the command ends in any way.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from time import monotonic

CYCLE_S = 0.1  # of a slow process: stopped for a share of it
SECONDS_MAX = 3_600.0


def main() -> int:
    """Do what the line on standard input says, and undo it. Returns the exit code."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, _end)
    told = json.loads(sys.stdin.readline())
    held = _held([int(pid) for pid in told["pids"]])
    deadline = monotonic() + min(float(told["seconds"]), SECONDS_MAX)
    try:
        print("holding", flush=True)
        if told["kind"] == "hang":
            _send(held, signal.SIGSTOP)
            _wait(deadline)
        else:
            _slow(held, deadline, float(told["share"]))
    finally:
        _send(held, signal.SIGCONT)
    return 0


def _end(signum: int, frame: object) -> None:
    raise SystemExit(0)


def _held(pids: list[int]) -> list[int]:
    """A pidfd each: signals reach these processes or nobody."""
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    return found


def _send(held: list[int], signum: signal.Signals) -> None:
    for pidfd in held:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signum)


def _wait(until: float) -> bool:
    """Wait; True when the other side has closed our input."""
    readable, _, _ = select.select([sys.stdin], [], [], max(0.0, until - monotonic()))
    return bool(readable)


def _slow(held: list[int], deadline: float, share: float) -> None:
    """Stop them for a share of each cycle."""
    over = False
    while not over and monotonic() < deadline:
        _send(held, signal.SIGSTOP)
        over = _wait(monotonic() + CYCLE_S * share)
        _send(held, signal.SIGCONT)
        over = over or _wait(monotonic() + CYCLE_S * (1 - share))


if __name__ == "__main__":
    sys.exit(main())

"""Holds what a fault holds for a while, and lets go whatever happens: `python -m eyrie.cli.chaos_guard`.

A fault that must be reverted is never the command's own to revert, since a command may be killed. This small process,
in a session of its own, holds (`chaos_holds`) and lets go when its time is over, when it is told to end, or when its
standard input closes, which it does when the command ends in any way. Before it holds anything it writes that into
the journal (`chaos_journal`), from which others revert it should this process be killed too.
"""

from __future__ import annotations

import json
import select
import signal
import sqlite3
import sys
from pathlib import Path
from time import monotonic

from eyrie.cli.chaos_holds import CYCLE_S, Hold, hold_of, refused
from eyrie.cli.chaos_journal import Entry

SECONDS_MAX = 3_600.0
HOLDING = "holding"


def main() -> int:
    """Do what the line on standard input says, and undo it. Returns the exit code."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, _end)
    told = json.loads(sys.stdin.readline())
    hold = hold_of(told)
    seconds = min(float(told["seconds"]), SECONDS_MAX)
    deadline = monotonic() + seconds
    entry = None
    try:
        entry = Entry.begun(Path(told["data"]), told, seconds)
        hold.grip()
        print(HOLDING, flush=True)
        _while_it_lasts(hold, deadline)
    except (OSError, sqlite3.Error) as error:
        print(refused(error), flush=True)
    finally:
        hold.release()
        if entry is not None:
            entry.over()
    return 0


def _end(signum: int, frame: object) -> None:
    raise SystemExit(0)


def _wait(until: float) -> bool:
    """Wait; True when the other side has closed our input."""
    readable, _, _ = select.select([sys.stdin], [], [], max(0.0, until - monotonic()))
    return bool(readable)


def _while_it_lasts(hold: Hold, deadline: float) -> None:
    """Grip in each cycle, and let go for the rest of it where the hold is for a share."""
    over = False
    while not over and monotonic() < deadline:
        hold.grip()
        over = _wait(min(deadline, monotonic() + CYCLE_S * hold.stopped_share))
        if hold.stopped_share < 1.0 and not over:
            hold.release()
            over = _wait(min(deadline, monotonic() + CYCLE_S * (1 - hold.stopped_share)))


if __name__ == "__main__":
    sys.exit(main())

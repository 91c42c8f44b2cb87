"""What an instance takes of its host: processes, and addresses that it listens at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from eyrie.cli.chaos_processes import processes_of

LISTENS = "0A"  # of /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one instance."""

    processes: int
    addresses: int  # TCP, at which it listens


def footprint(pid: int) -> Footprint:
    """Look at an instance by its first process."""
    family = processes_of(pid)
    return Footprint(len(family), sum(listening(one) for one in family))


def listening(pid: int) -> int:
    """How many TCP sockets of a process listen; 0 for one that has ended."""
    root = Path("/proc") / str(pid)
    try:
        held = {os.readlink(fd) for fd in (root / "fd").iterdir()}
        rows = [row.split() for name in ("tcp", "tcp6") for row in (root / "net" / name).read_text().splitlines()[1:]]
    except OSError:
        return 0
    return sum(row[3] == LISTENS and f"socket:[{row[9]}]" in held for row in rows)

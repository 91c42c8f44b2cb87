"""Processes that a fault reaches: those below one, and whether a pid still is the process that it was."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def processes_of(pid: int) -> list[int]:
    """A process and those below it; a model server may have forked workers."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, level = [pid], [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL a process and those below it, the deepest first."""
    for one in reversed(processes_of(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def started(pid: int) -> str:
    """Clock ticks since the host's start at which a process began; "" of one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if not fields or fields[0] == "Z" else fields[19]


def births(pids: Iterable[int]) -> dict[str, str]:
    """When each began, by its pid: together they name a process for good."""
    return {str(pid): started(pid) for pid in pids}

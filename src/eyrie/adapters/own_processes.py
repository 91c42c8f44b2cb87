"""What Eyrie's own processes use, read from /proc by the locks that they hold: control, objects, gateway workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from eyrie.adapters.process_lock import holder
from eyrie.domain.exposition import Family, Sample, counter, gauge

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def families(data: Path) -> list[Family]:
    """CPU time, memory, files and threads of each process of a data directory."""
    found = list(_processes(data))
    return [
        counter("eyrie_process_cpu_seconds", "CPU time of a process", [Sample(n, v[0]) for n, v in found], "s"),
        gauge("eyrie_process_resident_memory_bytes", "Memory of a process", [Sample(n, v[1]) for n, v in found], "By"),
        gauge("eyrie_process_open_fds", "Open files of a process", [Sample(n, v[2]) for n, v in found]),
        gauge("eyrie_process_threads", "Threads of a process", [Sample(n, v[3]) for n, v in found]),
    ]


def _processes(data: Path) -> Iterator[tuple[dict[str, str], tuple[float, float, float, float]]]:
    for lock in sorted((data / "run").glob("*.lock")):
        pid = os.getpid() if lock.stem == "control" else holder(lock)
        try:
            if pid is not None:
                yield {"process": lock.stem}, _numbers(Path("/proc", str(pid)))
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile


def _numbers(folder: Path) -> tuple[float, float, float, float]:
    words = (folder / "stat").read_text().rpartition(")")[2].split()
    resident = int((folder / "statm").read_text().split()[1])
    files = len(os.listdir(folder / "fd"))
    return (int(words[11]) + int(words[12])) * _TICK_S, float(resident * _PAGE_BYTES), float(files), float(words[17])

"""Reads the GPUs of this host through `nvidia-smi`, where there is one: how busy each is, and which processes use it.

The program takes up to a second, so its answer is kept for a few; without it there are no GPUs.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eyrie.domain.usage import GpuLevel

KEPT_S = 5.0
_TIMEOUT_S = 10.0
_GPUS = ("--query-gpu=uuid,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")
_PROCESSES = ("--query-compute-apps=pid,gpu_uuid", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU and the processes that use it, by their pids on the host."""

    level: GpuLevel
    pids: frozenset[int]


GpuTable = Mapping[str, Gpu]  # by the GPU's UUID


class GpuReader:
    """Asks `nvidia-smi`, at most every few seconds."""

    def __init__(self) -> None:
        self._program = shutil.which("nvidia-smi")
        self._read_s = 0.0
        self._table: GpuTable = {}

    def read(self) -> GpuTable:
        """The GPUs that this host has; none where it cannot be told."""
        if self._program is not None and (not self._read_s or time.monotonic() - self._read_s >= KEPT_S):
            self._table = gpu_table(self._ask(*_GPUS), self._ask(*_PROCESSES))
            self._read_s = time.monotonic()
        return self._table

    def _ask(self, *arguments: str) -> str:
        assert self._program is not None
        try:
            done = subprocess.run(
                [self._program, *arguments], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout if done.returncode == 0 else ""


def gpu_table(gpus: str, processes: str) -> dict[str, Gpu]:
    """What both answers of the program say together; what it does not support is 0."""
    pids: dict[str, set[int]] = {}
    for words in _rows(processes, 2):
        if words[0].isdigit():
            pids.setdefault(words[1], set()).add(int(words[0]))
    found = {}
    for uuid, busy, used, total in _rows(gpus, 4):
        memory = 100 * _number(used) / _number(total) if _number(total) else 0.0
        found[uuid] = Gpu(GpuLevel(_number(busy), memory), frozenset(pids.get(uuid, ())))
    return found


def used_by(table: GpuTable, pids: Iterable[int]) -> tuple[GpuLevel, ...]:
    """The GPUs that any of these processes uses."""
    wanted = frozenset(pids)
    return tuple(gpu.level for gpu in table.values() if gpu.pids & wanted)


def _rows(text: str, width: int) -> list[list[str]]:
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == width]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # "[N/A]"

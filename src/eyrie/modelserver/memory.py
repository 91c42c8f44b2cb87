"""What memory a process has, holds and gives back: the measures behind a multi-model container's budget."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

MEMORY_MB = "MULTI_MODEL_MEMORY_MB"  # for the models of one container; otherwise a share of the instance's memory
MODELS_MAX = "MULTI_MODEL_MODELS_MAX"
MODELS_MAX_DEFAULT = 10_000
SHARE = 0.8  # of an instance's memory, for what the server itself holds and its models
BLOCK_BYTES = 72  # of one object of Python's own allocator, on average


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


class Heap:
    """The C library's allocator; where it is not glibc's, nothing is known and nothing given back."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._info = getattr(library, "mallinfo2", None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._info is not None:
            self._info.restype = _Mallinfo2

    def used_bytes(self) -> int:
        """What is allocated now: the C library's blocks, and about as much as Python's objects take."""
        objects = sys.getallocatedblocks() * BLOCK_BYTES
        if self._info is None:
            return objects
        info = self._info()
        return int(info.uordblks + info.hblkhd) + objects

    def give_back(self) -> None:
        """Return free pages to the kernel; may take milliseconds."""
        if self._trim is not None:
            self._trim(0)


def resident_bytes() -> int:
    """What this process keeps in memory, shared pages included."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder."""
    found = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in found)


def number_of(env: Mapping[str, str], name: str, default: int) -> int:
    """A positive number of the environment, else the default."""
    text = env.get(name, "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else default


def budget_bytes(env: Mapping[str, str], memory_mb: int, workers: int, held_bytes: int) -> int:
    """What the models of one process may take together; 0: nobody said a limit. `held_bytes`: what it holds without
    any.
    """
    asked = number_of(env, MEMORY_MB, 0)
    if asked:
        return asked * 1_048_576 // workers
    return max(1, int(memory_mb * 1_048_576 * SHARE) // workers - held_bytes) if memory_mb else 0

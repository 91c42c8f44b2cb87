"""CPU, memory and process limits of instances by control groups, version 1 or 2, where this process may write them.

A group an instance, made before its server starts and limited when it is claimed. What is usable is found by trying,
once: `detect` makes a group and looks for the files that limits need. Counters of the group tell afterwards whether
the kernel killed for memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
WARMING_PERCENT = 50  # a slot that imports its frameworks gives way to what serves
PIDS_MAX = 2048  # threads count, and OpenMP starts one a core
_PERIOD_US = 100_000
_V1_FILES = {
    "cpu": "cpu.cfs_quota_us",
    "cpuacct": "cpuacct.usage",  # limits nothing: it counts
    "memory": "memory.limit_in_bytes",
    "pids": "pids.max",
}
_V2_FILES = {"cpu": "cpu.max", "memory": "memory.max", "pids": "pids.max"}


@dataclass(frozen=True, slots=True)
class Cgroups:
    """What can be limited here. A group's folder is a prefix with the instance's name behind it, one a hierarchy.

    In version 1 the groups lie side by side with the tasks of everyone else, so that each weighs as much as a process
    of its own; version 2 wants a folder between, which is given the weight of this host's CPUs.
    """

    version: int  # 1, 2, or 0: none can be written
    prefixes: tuple[str, ...]
    controllers: frozenset[str]  # of "cpu", "memory", "pids", and in version 1 "cpuacct"
    detail: str  # for people

    def create(self, name: str) -> tuple[str, ...]:
        """Make an instance's groups; their folders. A hierarchy that fails is left out: limits are then not had."""
        made = []
        for group in (f"{prefix}{name}" for prefix in self.prefixes):
            with contextlib.suppress(OSError):
                Path(group).mkdir(parents=True, exist_ok=True)
                _put(Path(group, "pids.max"), PIDS_MAX)
                _weigh(Path(group), WARMING_PERCENT)
                made.append(group)
        return tuple(made)

    def sweep(self, wanted: Callable[[str], bool]) -> None:
        """Remove groups whose slots are no more: their processes took longer to end than whoever removed them waited.

        `wanted` is asked after a group was seen, and a slot's folder is there before its groups: none is swept too
        early.
        """
        for prefix in self.prefixes:
            folder, _, start = prefix.rpartition("/")
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(start) and entry.is_dir() and not wanted(entry.name[len(start) :]):
                        kill((entry.path,))
                        remove((entry.path,))

    def tidy(self) -> None:
        """Remove the folder between, where there is one and nothing is left in it."""
        for prefix in self.prefixes:
            if prefix.endswith("/"):
                with contextlib.suppress(OSError):
                    os.rmdir(prefix)


def limit(groups: Sequence[str], vcpu_milli: int, memory_mb: int) -> list[str]:
    """Set the caps of an instance; returns what could not be set, for people."""
    quota, memory = vcpu_milli * _PERIOD_US // 1000, memory_mb * 1_048_576
    failed = []
    for group in map(Path, groups):
        _weigh(group, max(100, vcpu_milli // 10))
        for name, value in (
            ("cpu.cfs_period_us", _PERIOD_US),
            ("cpu.cfs_quota_us", quota),
            ("cpu.max", f"{quota} {_PERIOD_US}"),
            ("memory.limit_in_bytes", memory),
            ("memory.max", memory),
            ("memory.oom.group", 1),
        ):
            if not _put(group / name, value):
                failed.append(f"{name} could not be set to {value}")
    return failed


def cap_cpu(groups: Sequence[str], vcpu_milli: int) -> bool:
    """Change how much CPU the groups may use; False where none of them can be told."""
    quota = vcpu_milli * _PERIOD_US // 1000
    told = False
    for group in map(Path, groups):
        for name, value in (("cpu.cfs_quota_us", str(quota)), ("cpu.max", f"{quota} {_PERIOD_US}")):
            if (group / name).exists():
                told = _put(group / name, value) or told
    return told


def cpu_us(groups: Sequence[str]) -> int | None:
    """CPU time that was used in the groups since they were made, microseconds; None where none of them counts it."""
    for group in map(Path, groups):
        for line in _lines(group / "cpuacct.usage"):
            if line.isdigit():
                return int(line) // 1000
        for key, _, value in (line.partition(" ") for line in _lines(group / "cpu.stat")):
            if key == "usage_usec":
                return int(value)
    return None


def memory_bytes(groups: Sequence[str]) -> int | None:
    """Memory of the groups but for file pages that the kernel drops first; None where none of them counts it."""
    for group in map(Path, groups):
        for used, dropped in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
            for line in _lines(group / used):
                told = dict(line.split(" ", 1) for line in _lines(group / "memory.stat") if " " in line)
                return max(int(line) - int(told.get(dropped, 0)), 0)
    return None


def limits_memory(groups: Sequence[str]) -> bool:
    """Whether one of the groups can cap memory."""
    return any((Path(g) / name).exists() for g in groups for name in ("memory.max", "memory.limit_in_bytes"))


def oom_kills(groups: Sequence[str]) -> int:
    """How often the kernel killed a process of the groups because their memory limit was reached."""
    found = 0
    for group in map(Path, groups):
        for name in ("memory.events", "memory.oom_control"):
            for line in _lines(group / name):
                key, _, count = line.partition(" ")
                if key == "oom_kill" and count.isdigit():
                    found = max(found, int(count))
    return found


def members(groups: Sequence[str]) -> set[int]:
    """The processes in the groups."""
    return {int(line) for g in groups for line in _lines(Path(g) / "cgroup.procs") if line.isdigit() and line != "0"}


def kill(groups: Sequence[str]) -> None:
    """SIGKILL to every process in the groups, again for those that were forked meanwhile."""
    for _ in range(5):
        left = members(groups)
        if not left:
            return
        for group in groups:
            _put(Path(group) / "cgroup.kill", 1)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def remove(groups: Sequence[str]) -> bool:
    """Remove empty groups; False when one is still there (its processes are not gone yet: try again)."""
    for group in groups:
        with contextlib.suppress(OSError):
            os.rmdir(group)
    return not any(os.path.isdir(group) for group in groups)


def detect(name: str, root: Path = ROOT, own: Path = Path("/proc/self/cgroup")) -> Cgroups:
    """The control groups that can be written here; `name` is the folder that ours go below."""
    places = _own_places(own)
    found = _version_1(name, root, places)
    if found.version == 0 and (root / "cgroup.controllers").exists():
        found = _version_2(name, root, places.get("", "/"))
    return found


def _own_places(own: Path) -> dict[str, str]:
    """Controller -> this process's own group; the empty name is version 2."""
    places = {}
    for line in _lines(own):
        _, controllers, place = line.split(":", 2)
        for controller in controllers.split(","):
            places[controller] = place
    return places


def _version_1(name: str, root: Path, places: dict[str, str]) -> Cgroups:
    prefixes, had, refused = [], set(), []
    for controller, file in _V1_FILES.items():
        folder = root / controller
        if not (folder / "cgroup.procs").exists():
            continue
        for parent in _candidates(folder, places.get(controller, "/")):
            if _usable(f"{parent}/{name}.", file):
                prefixes.append(f"{parent}/{name}.")
                had.add(controller)
                break
        else:
            refused.append(controller)
    if prefixes:
        return Cgroups(1, tuple(dict.fromkeys(prefixes)), frozenset(had), f"version 1: {_names(had)}")
    why = f"version 1 is mounted, but {_names(refused)} cannot be written" if refused else "none is mounted"
    return Cgroups(0, (), frozenset(), why)


def _version_2(name: str, root: Path, place: str) -> Cgroups:
    for parent in _candidates(root, place):
        ours = parent / name
        if not _delegate(parent):
            continue
        with contextlib.suppress(OSError):
            ours.mkdir(exist_ok=True)
            _delegate(ours)
            had = {c for c, file in _V2_FILES.items() if _usable(f"{ours}/", file)}
            if had & {"cpu", "memory"}:
                _weigh(ours, 100 * (os.cpu_count() or 1))
                return Cgroups(2, (f"{ours}/",), frozenset(had), f"version 2: {_names(had)}")
            ours.rmdir()
    return Cgroups(0, (), frozenset(), "version 2 is mounted, but cpu and memory cannot be handed to a group of ours")


def _candidates(folder: Path, place: str) -> Iterator[Path]:
    """Below our own group first, so that limits above us hold; else beside it; else at the top."""
    own = folder / place.lstrip("/")
    for parent in dict.fromkeys((own, own.parent, folder)):
        if parent.is_dir() and parent.is_relative_to(folder):
            yield parent


def _delegate(folder: Path) -> bool:
    """Let groups below a folder have controllers; False where the kernel or its rights refuse."""
    offered = (_lines(folder / "cgroup.controllers") or [""])[0].split()
    wanted = [c for c in _V2_FILES if c in offered]
    given = (_lines(folder / "cgroup.subtree_control") or [""])[0].split()
    missing = [c for c in wanted if c not in given]
    return bool(wanted) and (not missing or _put(folder / "cgroup.subtree_control", " ".join(f"+{c}" for c in missing)))


def _usable(prefix: str, file: str) -> bool:
    """Whether a group with this prefix can be made and has the limit's file, and a process may join it."""
    probe = Path(f"{prefix}probe")
    try:
        probe.mkdir(parents=True, exist_ok=True)
        return os.access(probe / file, os.W_OK) and os.access(probe / "cgroup.procs", os.W_OK)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()


def _weigh(group: Path, percent: int) -> None:
    """Its share of a busy CPU, relative to one process (100)."""
    _put(group / "cpu.shares", min(1024 * percent // 100, 262_144))
    _put(group / "cpu.weight", min(percent, 10_000))


def _put(path: Path, value: int | str) -> bool:
    """Write a control file; True also where the file does not exist (another version's, or a controller not had)."""
    if not path.exists():
        return True
    try:
        path.write_text(str(value))
    except OSError:
        return False
    return True


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _names(controllers: set[str] | list[str]) -> str:
    return ", ".join(sorted(controllers))

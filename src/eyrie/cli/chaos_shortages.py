"""The faults of `eyrie chaos` that take something away: memory from an instance, disk from an instance or from Eyrie's
own processes, the store from control. Each is bounded by what Eyrie itself bounds: never the host's memory or disk.

What lasts is held by `chaos_guard`, by the means of `chaos_holds`.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyrie.adapters import cgroups, process_lock
from eyrie.adapters.slots import Slot
from eyrie.adapters.tending import DISK_SLACK_BYTES
from eyrie.cli import data as datadir
from eyrie.cli.chaos_faults import Fault, Guard, victim_of, whole
from eyrie.cli.chaos_holds import soft_limit
from eyrie.cli.chaos_place import Instance, Place
from eyrie.cli.chaos_processes import processes_of
from eyrie.cli.errors import CommandError
from eyrie.settings import Settings

FILLER = "chaos-filler"
FILLER_OVER_BYTES = 1_048_576  # beyond what the box may hold
FREE_DISK_BYTES_MIN = 1_073_741_824  # that stay free whatever is filled
SQUEEZE_OVER_BYTES = 65_536
HOG_BYTES = 268_435_456  # asked for in a group that has no more than it uses
# File of a memory group -> what it is lowered to; the first of its kind that is there is the limit.
_USED_AND_LIMIT = (("memory.current", "memory.max"), ("memory.usage_in_bytes", "memory.limit_in_bytes"))
_NO_SWAP = ("memory.swap.max", "memory.swappiness")


def memory(place: Place, seconds: float) -> Fault:
    """An instance reaches its own memory limit, which is lowered to what it uses; the kernel kills in its group alone.
    Where no control group limits memory, its processes may have no more data than they have (RLIMIT_DATA).
    """
    victim = victim_of(place)
    slot = slot_of(place, victim)
    record = None if slot is None else slot.record()
    group = _memory_group(record.groups if record is not None else ())
    pids = processes_of(victim.pid)
    if group is None:
        told: dict[str, Any] = {"kind": "cap", "pids": _data_limits(pids)}
        how = "its data is capped at what it has (RLIMIT_DATA)"
    else:
        scores = [(pid, score) for pid in pids if (score := _read(Path(f"/proc/{pid}/oom_score_adj"))) is not None]
        told = {"kind": "squeeze", "files": _squeeze(group), "scores": scores, "group": str(group), "bytes": HOG_BYTES}
        how = "its memory limit is what it uses"
    guard = Guard(place.data, {**told, "seconds": seconds})
    return Fault(
        f"{victim.id} has no memory left: {how}",
        lambda: whole(place, set() if guard.over else {victim.id}),
        guard.end,
        noticed=lambda: place.noticed({victim.id}),
        seconds=0.0 if group is not None else seconds,
    )


def fill_box(place: Place, seconds: float) -> Fault:
    """An instance fills the disk that it may have: its box, which Eyrie bounds. Raises CommandError where this host has
    not much more than that.
    """
    victim = victim_of(place)
    slot = slot_of(place, victim)
    if slot is None or not (slot.path / "box").is_dir():
        raise CommandError(f"{victim.id} has no box on this host's disk")
    size = _settings(place).log_bytes_max + DISK_SLACK_BYTES + FILLER_OVER_BYTES
    _enough_disk(place, size)
    guard = Guard(
        place.data, {"kind": "fill", "path": str(slot.path / "box" / FILLER), "bytes": size, "seconds": seconds}
    )
    return Fault(
        f"{victim.id} fills its disk ({size / 1e6:.0f} MB)",
        lambda: whole(place, set() if guard.over else {victim.id}),
        guard.end,
        noticed=lambda: place.noticed({victim.id}),
    )


def full_disk(place: Place, seconds: float) -> Fault:
    """The data directory's disk is full to Eyrie's own processes, those that come meanwhile too: no file that they
    write grows (RLIMIT_FSIZE). Model servers as well, where this user may tell them.
    """
    folder = place.data / "run"
    locks = [place.data / "eyrie.lock", *sorted(folder.glob("*.lock"))]
    supervisor = process_lock.holder(place.data / "eyrie.lock")
    if supervisor is None:
        raise CommandError("`eyrie up` does not run")
    instances = [pid for one in place.instances() or [] if one.pid for pid in processes_of(one.pid)]
    soft = soft_limit(supervisor, resource.RLIMIT_FSIZE)
    told = {"kind": "full", "locks": [str(path) for path in locks], "pids": instances, "soft": soft}
    guard = Guard(place.data, {**told, "seconds": seconds})
    return Fault(
        f"nothing can be written to the data directory for {seconds:g} s",
        lambda: guard.over and whole(place),
        guard.end,
        seconds=seconds,
    )


def lock_store(place: Place, seconds: float) -> Fault:
    """The store is gone: somebody else holds an exclusive transaction on it. Raises CommandError for a store that is no
    file of this data directory.
    """
    url = _settings(place).store_url
    path = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or not path.is_file():
        raise CommandError(f"the store is no SQLite file of this host ({url.partition(':')[0]}): it cannot be locked")
    guard = Guard(place.data, {"kind": "lock", "path": str(path), "seconds": seconds})
    return Fault(
        f"the store is locked for {seconds:g} s", lambda: guard.over and whole(place), guard.end, seconds=seconds
    )


def slot_of(place: Place, instance: Instance) -> Slot | None:
    """The slot that an instance lives in; None where it is no process of this host's."""
    for path in (place.data / "slots").glob("[!.]*"):
        slot = Slot(path)
        spec = slot.spec()
        if spec is not None and spec.instance_id == instance.id:
            return slot
    return None


def _settings(place: Place) -> Settings:
    return datadir.running_settings(Settings(data=place.data))


def _memory_group(groups: Sequence[str]) -> Path | None:
    """The group that limits memory, where this user may change its limit."""
    for group in map(Path, groups):
        for _, limit in _USED_AND_LIMIT:
            if (group / limit).exists() and _writable(group / limit) and cgroups.members([str(group)]):
                return group
    return None


def _squeeze(group: Path) -> list[tuple[str, str, str]]:
    """Files of a group, what stands in them now, and what is to: no swap, and no more memory than is used."""
    changes = [(str(group / name), text, "0") for name in _NO_SWAP if (text := _read(group / name)) is not None]
    for used, limit in _USED_AND_LIMIT:
        now, before = _read(group / used), _read(group / limit)
        if now is not None and before is not None:
            changes.append((str(group / limit), before, str(int(now) + SQUEEZE_OVER_BYTES)))
    return changes


def _data_limits(pids: Sequence[int]) -> list[tuple[int, int]]:
    """The soft limits of data of the processes that this user may change. Raises CommandError where there is none."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found.append((pid, soft_limit(pid, resource.RLIMIT_DATA)))
    if not found:
        raise CommandError("this user may change neither the memory group nor the limits of the instance")
    return found


def _enough_disk(place: Place, size: int) -> None:
    free = shutil.disk_usage(place.data).free
    if free < size + FREE_DISK_BYTES_MIN:
        raise CommandError(f"only {free / 1e9:.1f} GB are free at {place.data}: nothing is filled there")


def _writable(path: Path) -> bool:
    try:
        with path.open("r+"):
            return True
    except OSError:
        return False


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None

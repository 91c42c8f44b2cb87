"""Reads what each instance of this host uses: from its control groups, and without them from its processes.

The port `Usages` on `slots/`: an instance's record and spec lie there, so nothing has to be asked of compute. Counters
of control groups know of processes that ended, too; a sum over processes only of those whose parents waited for them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from eyrie.adapters import cgroups, ending, gpus, processes, slot_client
from eyrie.adapters.described import described
from eyrie.adapters.slots import Slot, SlotRecord, read_bounded
from eyrie.domain.credits import Credits
from eyrie.domain.fleet import InstanceSpec
from eyrie.domain.usage import InstanceUsage

described(Credits)  # it is read into in several threads

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_CREDITS = "credits.json"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessUsage(NamedTuple):
    """One process of the host."""

    pid: int
    parent: int
    cpu_us: int  # its own, and its children's whose end it has seen
    memory_bytes: int  # resident, without what lies in files


@dataclass(slots=True)
class _Read:
    """An instance that was read before."""

    slot: Slot
    record: SlotRecord
    spec: InstanceSpec
    cpu_us: int = 0


class HostUsages:
    """Readings of all instances of a data directory. Called from one thread at a time."""

    def __init__(self, data: Path, gpu_reader: Callable[[], gpus.GpuTable] | None = None) -> None:
        self._data = data
        self._known: dict[str, _Read] = {}  # by slot
        self._gpus = gpu_reader or gpus.GpuReader().read

    def read(self) -> list[InstanceUsage]:
        """Every instance that lives, now."""
        found = {slot.slot_id: slot for slot in ending.slots_of(self._data)}
        for gone in self._known.keys() - found.keys():
            del self._known[gone]
        table = _Once(process_table)
        seen_gpus = self._gpus()
        disk = _disk_percent(self._data)
        usages = [self._one(known, table, seen_gpus, disk) for known in map(self._meet, found.values()) if known]
        return [usage for usage in usages if usage is not None]

    def throttle(self, instance_id: str, vcpu_milli: int) -> bool:
        """Let an instance use so much CPU from now on: by its control group, else by its model server's admission."""
        known = self._find(instance_id)
        if known is None:
            return False
        return cgroups.cap_cpu(known.record.groups, vcpu_milli) or _pace(known, vcpu_milli)

    def remember(self, instance_id: str, credits: Credits) -> None:
        """Keep what an instance has, in its slot."""
        known = self._find(instance_id)
        if known is not None:
            with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
                known.slot.write(_CREDITS, credits)

    def recall(self, instance_id: str) -> Credits | None:
        """What was kept last."""
        known = self._find(instance_id)
        if known is None:
            return None
        try:
            return msgspec.json.decode(read_bounded(known.slot.path / _CREDITS), type=Credits)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None

    def _find(self, instance_id: str) -> _Read | None:
        return next((known for known in self._known.values() if known.spec.instance_id == instance_id), None)

    def _meet(self, slot: Slot) -> _Read | None:
        known = self._known.get(slot.slot_id)
        if known is None:
            record, spec = slot.record(), slot.spec()
            if record is None or spec is None:
                return None  # nobody has claimed it
            known = self._known[slot.slot_id] = _Read(slot, record, spec)
        return known if slot.alive() else None

    def _one(self, known: _Read, table: _Once, seen: gpus.GpuTable, disk_percent: float) -> InstanceUsage | None:
        spec, groups = known.spec, known.record.groups
        at_us = time.monotonic_ns() // 1_000
        cpu_us, memory = cgroups.cpu_us(groups), cgroups.memory_bytes(groups)
        pids = cgroups.members(groups) if seen and groups else set()
        if cpu_us is None or memory is None or (seen and not pids):
            whole = below(table(), known.slot.status().init)
            cpu_us = sum(p.cpu_us for p in whole) if cpu_us is None else cpu_us
            memory = sum(p.memory_bytes for p in whole) if memory is None else memory
            pids = pids or {p.pid for p in whole}
        known.cpu_us = max(cpu_us, known.cpu_us)  # a process that ended takes its time with it: counters only rise
        return InstanceUsage(
            instance_id=spec.instance_id,
            endpoint=spec.endpoint,
            variant=spec.variant,
            instance_type=spec.instance_type,
            vcpu_milli=spec.vcpu_milli,
            memory_mb=spec.memory_mb,
            socket=str(known.slot.socket),
            at_us=at_us,
            cpu_us=known.cpu_us,
            memory_bytes=memory,
            disk_percent=disk_percent,
            gpus=gpus.used_by(seen, pids),
            containers=len(spec.containers),
        )


class _Once:
    """A table that is made when it is first needed."""

    def __init__(self, make: Callable[[], Mapping[int, ProcessUsage]]) -> None:
        self._make = make
        self._made: Mapping[int, ProcessUsage] | None = None

    def __call__(self) -> Mapping[int, ProcessUsage]:
        if self._made is None:
            self._made = self._make()
        return self._made


def _pace(known: _Read, vcpu_milli: int) -> bool:
    """Ask an instance's model servers to take in no more than so much CPU can do, shared among them."""
    if known.spec.foreign:
        return False
    share = max(vcpu_milli // known.spec.workers, 1)
    for worker in range(known.spec.workers):
        socket = known.slot.socket.with_name(f"s.{worker}" if worker else "s")
        try:
            reply = slot_client.ask(socket, "POST", "/eyrie/pace", b'{"vcpu_milli": %d}' % share)
        except slot_client.NoAnswer:
            return False
        if reply.status != 200:
            return False
    return True


def process_table(proc: Path = Path("/proc")) -> dict[int, ProcessUsage]:
    """Every process, by pid."""
    found = {}
    for pid in processes.pids():
        try:
            with open(proc / str(pid) / "stat") as stat, open(proc / str(pid) / "statm") as statm:
                found[pid] = process_usage(pid, stat.read(), statm.read())
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    return found


def process_usage(pid: int, stat: str, statm: str) -> ProcessUsage:
    """One process, of its `stat` and `statm`. Raises ValueError and IndexError for what is none of both."""
    words = stat.rpartition(")")[2].split()  # its name may hold anything
    _, resident, shared, *_ = map(int, statm.split())
    ticks = sum(int(word) for word in words[11:15])  # its own in user mode and in the kernel, and its children's
    return ProcessUsage(pid, int(words[1]), ticks * _TICK_US, max(resident - shared, 0) * _PAGE_BYTES)


def below(table: Mapping[int, ProcessUsage], root: int | None) -> list[ProcessUsage]:
    """A process and all that descend from it."""
    if root is None or root not in table:
        return []
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    return [table[pid] for pid in _descent(children, root)]


def _descent(children: Mapping[int, list[int]], root: int) -> Iterable[int]:
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, ())


def _disk_percent(path: Path) -> float:
    """How much of the file system is taken."""
    told = os.statvfs(path)
    usable = told.f_blocks - told.f_bfree + told.f_bavail
    return 100 * (told.f_blocks - told.f_bfree) / usable if usable else 0.0

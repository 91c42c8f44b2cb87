"""Whether an instance works: the CPU time that its processes have used, and whether one of them is stopped.

Asked by control's prober, by way of compute, of an instance that does not answer its ping.
"""

from __future__ import annotations

from pathlib import Path

from eyrie.adapters import cgroups, usage
from eyrie.adapters.slots import Slot, SlotRecord

_STOPPED = frozenset("Tt")  # by a signal, by a debugger


def cpu_us(slot: Slot, record: SlotRecord) -> int | None:
    """CPU time of a slot's processes since it was made, microseconds; None: not known, or one of them is stopped."""
    counted = cgroups.cpu_us(record.groups)
    pids = cgroups.members(record.groups)
    if counted is None or not pids:
        whole = usage.below(usage.process_table(), slot.status().init)
        counted, pids = sum(process.cpu_us for process in whole), {process.pid for process in whole}
    return counted if pids and not any(map(_stopped, pids)) else None


def _stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False  # it ended meanwhile
    return stat.rpartition(")")[2].split()[0] in _STOPPED

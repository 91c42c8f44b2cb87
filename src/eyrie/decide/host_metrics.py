"""From two readings of a host to the metrics that a CloudWatch agent would send of it: names, units, dimensions. Pure.

Counters become what was added between the readings, as the agent does with those of disks and networks; CPU states
become shares of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from eyrie.domain.metrics import Dimensions
from eyrie.domain.usage import HostUsage

IDLE = ("idle", "iowait")
_DISK_UNITS = {"read_bytes": "Bytes", "write_bytes": "Bytes", "read_time": "Milliseconds", "write_time": "Milliseconds",
               "io_time": "Milliseconds"}  # fmt: skip
_LEVELS = frozenset({"iops_in_progress"})  # of the moment, not counted up


class HostMetric(NamedTuple):
    """One value of a host."""

    name: str
    value: float
    unit: str
    dimensions: Dimensions


def host_metrics(before: HostUsage, after: HostUsage) -> list[HostMetric]:
    """Everything that two readings tell."""
    host = ("host", after.host)
    return [
        HostMetric(metric.name, metric.value, metric.unit, tuple(sorted((host, *metric.dimensions))))
        for part in (_cpu(before, after), _memory(after), _filesystems(after), _counted(before, after))
        for metric in part
    ]


def _cpu(before: HostUsage, after: HostUsage) -> Iterator[HostMetric]:
    spent = {state: max(ticks - before.cpu.get(state, ticks), 0) for state, ticks in after.cpu.items()}
    total = sum(spent.values())
    if not total:
        return
    of_all = (("cpu", "cpu-total"),)
    active = total - sum(spent.get(state, 0) for state in IDLE)
    for state, ticks in (*spent.items(), ("active", active)):
        yield HostMetric(f"cpu_usage_{state}", 100 * ticks / total, "Percent", of_all)


def _memory(after: HostUsage) -> Iterator[HostMetric]:
    told = after.memory
    total = told.get("MemTotal", 0)
    if total:
        available = told.get("MemAvailable", told.get("MemFree", 0))
        used = max(total - available, 0)
        yield HostMetric("mem_used_percent", 100 * used / total, "Percent", ())
        yield HostMetric("mem_available_percent", 100 * available / total, "Percent", ())
        for name, size in (("used", used), ("available", available), ("total", total), ("free", told.get("MemFree", 0)),
                           ("cached", told.get("Cached", 0)), ("buffered", told.get("Buffers", 0))):  # fmt: skip
            yield HostMetric(f"mem_{name}", float(size), "Bytes", ())
    swap, free = told.get("SwapTotal", 0), told.get("SwapFree", 0)
    yield HostMetric("swap_used_percent", 100 * (swap - free) / swap if swap else 0.0, "Percent", ())
    yield HostMetric("swap_used", float(swap - free), "Bytes", ())
    yield HostMetric("swap_free", float(free), "Bytes", ())


def _filesystems(after: HostUsage) -> Iterator[HostMetric]:
    for one in after.filesystems:
        where = (("device", one.device), ("fstype", one.kind), ("path", one.path))
        usable = one.used + one.free
        yield HostMetric("disk_used_percent", 100 * one.used / usable if usable else 0.0, "Percent", where)
        for name, size in (("used", one.used), ("free", one.free), ("total", one.total)):
            yield HostMetric(f"disk_{name}", float(size), "Bytes", where)
        inodes = (("inodes_total", one.inodes_total), ("inodes_free", one.inodes_free),
                  ("inodes_used", one.inodes_total - one.inodes_free))  # fmt: skip
        for name, count in inodes:
            yield HostMetric(f"disk_{name}", float(count), "Count", where)


def _counted(before: HostUsage, after: HostUsage) -> Iterator[HostMetric]:
    for device, told in after.disks.items():
        for name, value in _added(before.disks.get(device), told):
            yield HostMetric(f"diskio_{name}", value, _DISK_UNITS.get(name, "Count"), (("name", device),))
    for interface, told in after.networks.items():
        for name, value in _added(before.networks.get(interface), told):
            unit = "Bytes" if name.startswith("bytes_") else "Count"
            yield HostMetric(f"net_{name}", value, unit, (("interface", interface),))


def _added(before: Mapping[str, int] | None, after: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    """What was added to counters; nothing of one that went back (the device came anew) or was not there."""
    for name, value in after.items():
        if name in _LEVELS:
            yield name, float(value)
        elif before is not None and name in before and value >= before[name]:
            yield name, float(value - before[name])

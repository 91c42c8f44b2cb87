"""What an instance and a host have used of their CPUs, memory, disks and network, as read at one moment.

Counters only rise; levels are of the moment. `decide/usage` and `decide/host_metrics` make metrics of two readings.
`at_us` is of a real, steady clock: a scaled clock does not make CPUs faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eyrie.domain.names import EndpointKey


@dataclass(frozen=True, slots=True)
class GpuLevel:
    """One GPU that an instance's processes use."""

    percent: float  # of the time that it was busy
    memory_percent: float  # of its memory that is taken


@dataclass(frozen=True, slots=True)
class InstanceUsage:
    """One instance at one moment."""

    instance_id: str
    endpoint: EndpointKey
    variant: str
    instance_type: str
    vcpu_milli: int  # CPU cap, thousandths of a core
    memory_mb: int
    socket: str
    at_us: int
    cpu_us: int  # CPU time since it was started
    memory_bytes: int  # without what the kernel may drop at any time
    disk_percent: float  # taken of the file system that it writes to
    gpus: tuple[GpuLevel, ...] = ()
    containers: int = 1


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A mounted file system. Sizes are bytes."""

    path: str
    device: str
    kind: str  # "ext4"
    total: int
    free: int  # for those without rights
    used: int
    inodes_total: int
    inodes_free: int


@dataclass(frozen=True, slots=True)
class HostUsage:
    """A host at one moment. Counters are by name, as CWAgent calls them."""

    host: str
    at_us: int
    cpu: Mapping[str, int] = field(default_factory=dict)  # ticks by state: "user", "system", "idle" ...
    memory: Mapping[str, int] = field(default_factory=dict)  # bytes, by /proc/meminfo's names
    filesystems: tuple[Filesystem, ...] = ()
    disks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by device: "read_bytes", "io_time" (ms) ...
    networks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # by interface: "bytes_sent" ...

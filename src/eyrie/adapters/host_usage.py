"""Reads what this host uses, from /proc: CPU, memory, file systems, disks, network. Counters as the kernel has them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from eyrie.domain.usage import Filesystem, HostUsage

DEVICES_MAX = 64  # disks, interfaces and file systems, each
_CPU_STATES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
_SECTOR_BYTES = 512  # of /proc/diskstats, whatever the disk's own
# Places of /proc/diskstats after the device's name.
_DISK = {"reads": 0, "read_bytes": 2, "read_time": 3, "writes": 4, "write_bytes": 6, "write_time": 7,
         "iops_in_progress": 8, "io_time": 9}  # fmt: skip
# Places of /proc/net/dev after the interface's name.
_NET = {"bytes_recv": 0, "packets_recv": 1, "err_in": 2, "drop_in": 3, "bytes_sent": 8, "packets_sent": 9,
        "err_out": 10, "drop_out": 11}  # fmt: skip
_NO_DISKS = ("loop", "ram", "zram")


class HostReader:
    """Reads this host. `proc` is where the kernel tells."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._host = socket.gethostname()

    def read(self) -> HostUsage:
        """The host now; what the kernel does not tell is left out."""
        return HostUsage(
            host=self._host,
            at_us=time.monotonic_ns() // 1_000,
            cpu=cpu_ticks(self._text("stat")),
            memory=memory_bytes(self._text("meminfo")),
            filesystems=tuple(_filesystems(self._text("self/mounts"))),
            disks=disk_counters(self._text("diskstats")),
            networks=network_counters(self._text("net/dev")),
        )

    def _text(self, name: str) -> str:
        try:
            return (self._proc / name).read_text(errors="replace")
        except OSError:
            return ""


def cpu_ticks(text: str) -> dict[str, int]:
    """Ticks of all CPUs by state, of /proc/stat. What guests ran is in "user" and "nice" already, and is taken out."""
    words = text.partition("\n")[0].split()
    if not words or words[0] != "cpu":
        return {}
    found = dict(zip(_CPU_STATES, map(int, words[1:]), strict=False))
    for guest, host in (("guest", "user"), ("guest_nice", "nice")):
        found[host] -= found.get(guest, 0)
    return found


def memory_bytes(text: str) -> dict[str, int]:
    """Sizes of /proc/meminfo."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


def disk_counters(text: str) -> dict[str, dict[str, int]]:
    """Counters of disks and their partitions, of /proc/diskstats; those that were never used are left out."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 14 or words[2].startswith(_NO_DISKS) or not any(word != "0" for word in words[3:]):
            continue
        told = {name: int(words[3 + place]) for name, place in _DISK.items()}
        found[words[2]] = {n: v * _SECTOR_BYTES if n.endswith("_bytes") else v for n, v in told.items()}
        if len(found) >= DEVICES_MAX:
            break
    return found


def network_counters(text: str) -> dict[str, dict[str, int]]:
    """Counters of interfaces, of /proc/net/dev; those that were never used are left out."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines()[2 : 2 + DEVICES_MAX]:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) >= 12 and any(word != "0" for word in words):
            found[name.strip()] = {counter: int(words[place]) for counter, place in _NET.items()}
    return found


def _filesystems(mounts: str) -> Iterator[Filesystem]:
    """Each mounted block device once, at the place where it was mounted first."""
    seen: set[str] = set()
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3 or not words[0].startswith("/dev/") or words[0] in seen or len(seen) >= DEVICES_MAX:
            continue
        seen.add(words[0])
        path = words[1].replace("\\040", " ")
        try:
            told = os.statvfs(path)
        except OSError:
            continue
        size = told.f_frsize
        yield Filesystem(
            path=path,
            device=words[0].removeprefix("/dev/"),
            kind=words[2],
            total=told.f_blocks * size,
            free=told.f_bavail * size,
            used=(told.f_blocks - told.f_bfree) * size,
            inodes_total=told.f_files,
            inodes_free=told.f_ffree,
        )

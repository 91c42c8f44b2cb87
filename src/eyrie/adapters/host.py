"""What this host offers to instances, as data: `eyrie doctor` prints it, and nothing here changes anything."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import cgroups, sandbox
from eyrie.adapters.dependencies import DependencyError, installer
from eyrie.adapters.instance_types import InstanceTypesError, load_instance_types
from eyrie.adapters.sandbox import BUBBLEWRAP, PROCESS, SandboxUnavailable
from eyrie.settings import Settings

OPEN_FILES_WANTED = 8192
FREE_BYTES_WANTED = 1_000_000_000


@dataclass(frozen=True, slots=True)
class HostFact:
    """One thing found. `good` is None for a plain fact; `advice` says what to do about one that is not good."""

    what: str
    found: str
    good: bool | None = None
    advice: str = ""


def host_facts(settings: Settings) -> list[HostFact]:
    """Everything about this host that decides how instances run, in the order to read it. Takes about 0.1 s."""
    return [_isolation(settings), _users(settings), _limits(), _machine(settings), _types(settings), _disk(settings),
            _open_files(), _requirements()]  # fmt: skip


def _isolation(settings: Settings) -> HostFact:
    try:
        found = sandbox.detect(settings.sandbox)
    except SandboxUnavailable as why:
        return HostFact("isolation", str(why), False, "install bubblewrap, or set sandbox=auto")
    if found.kind == BUBBLEWRAP:
        filtered = "system calls filtered" if found.seccomp else f"no filter of system calls for {os.uname().machine}"
        return HostFact("isolation", f"{found.detail}; no network; {filtered}", True)
    asked = settings.sandbox == PROCESS
    advice = "set sandbox=auto" if asked else "install the package bubblewrap and allow it its namespaces"
    return HostFact("isolation", found.detail, False, advice)


def _users(settings: Settings) -> HostFact:
    if os.getuid():
        return HostFact("users", "models run as this user, inside a user namespace where they are sandboxed")
    return HostFact("users", "Eyrie runs as root; each sandboxed model runs as a user of its own without rights")


def _limits() -> HostFact:
    found = cgroups.detect("eyrie-doctor")
    found.tidy()
    missing = sorted({"cpu", "memory", "pids"} - found.controllers)
    if not missing:
        return HostFact("limits", f"control groups {found.detail}: instance types are caps", True)
    lacking = f"no group limits {', '.join(missing)} of an instance"
    if "memory" in missing:
        lacking += "; each of its processes has the memory of the type as its own limit (rlimit)"
    return HostFact("limits", f"control groups: {found.detail}", False, lacking)


def _machine(settings: Settings) -> HostFact:
    cores, memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = settings.instances_max
    bound = f"at most {count} instances" if count else "overcommitted without a limit: set instances_max for one"
    return HostFact("host", f"{cores} CPUs, {memory / 1e9:.1f} GB of memory; {bound}")


def _types(settings: Settings) -> HostFact:
    try:
        rows = load_instance_types(settings.data).rows
    except InstanceTypesError as fault:
        return HostFact("instance types", str(fault), False, "mend or remove the file")
    accelerated = sum(1 for row in rows.values() if row.accelerators)
    return HostFact("instance types", f"{len(rows)} known, {accelerated} refused since this host has no accelerator")


def _disk(settings: Settings) -> HostFact:
    place = next(parent for parent in (settings.data, *settings.data.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    enough = free >= FREE_BYTES_WANTED
    return HostFact("data", f"{settings.data}, {free / 1e9:.1f} GB free", enough, "" if enough else "make room")


def _open_files() -> HostFact:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= OPEN_FILES_WANTED
    advice = "" if enough else f"raise the hard limit to {OPEN_FILES_WANTED}"
    return HostFact("open files", f"{soft}, at most {hard}", enough, advice)


def _requirements() -> HostFact:
    try:
        tool, command = installer()
    except DependencyError as fault:
        return HostFact(
            "requirements.txt", str(fault), False, "install uv, so that models may bring their requirements"
        )
    return HostFact("requirements.txt", f"built with {tool} ({Path(command[0])})", True)

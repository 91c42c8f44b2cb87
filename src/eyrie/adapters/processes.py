"""Finding and signalling the processes of a slot by what they hold, never by a pid alone.

A pid may have been given to another process meanwhile. So a process is pinned first (pidfd), then recognised (it has
the slot's lock open, or lives in the sandbox's pid namespace), then signalled through the pin.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from eyrie.adapters.slots import LOCK_FD, Slot

Recognised = Callable[[int], bool]


def pids() -> Iterator[int]:
    """Every process that this one can see, but itself."""
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            yield int(name)


def holders(lock: Path) -> list[int]:
    """The processes that have a slot's lock file open on the server's descriptor. One look at every process: not
    cheap.
    """
    inode = _inode(lock)
    return [] if inode is None else [pid for pid in pids() if _inode(_lock_of(pid)) == inode]


def server_pid(slot: Slot) -> int | None:
    """The model server's pid as seen from here, or None: it is gone, or the launcher has not come to it yet.

    In a sandbox it is the child of the sandbox's pid 1: bubblewrap's own processes have the lock open for a moment too.
    """
    status, recognised = slot.status(), holds_lock(slot)
    if status.init is None:
        return None
    if status.server is not None:
        return status.server if recognised(status.server) else None
    candidates = [status.init] if status.pid_namespace is None else _children(status.init)
    return next((pid for pid in candidates if recognised(pid)), None)


def holds_lock(slot: Slot) -> Recognised:
    """Recognises the processes that hold the slot's lock."""
    inode = _inode(slot.lock)
    return lambda pid: inode is not None and _inode(_lock_of(pid)) == inode


def in_namespace(number: int | None) -> Recognised:
    """Recognises the processes of one pid namespace."""

    def recognised(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return number is not None and os.stat(f"/proc/{pid}/ns/pid").st_ino == number
        return False

    return recognised


def send(pid: int | None, signum: int, recognised: Recognised) -> bool:
    """Signal a process if it is (still) the one that is meant; False where it is not."""
    if pid is None:
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not recognised(pid):
            return False
        signal.pidfd_send_signal(pidfd, signum)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


def pss_bytes(pid: int) -> int:
    """Proportional memory of a process: shared pages are counted by share. 0 where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def pss_with_children(pid: int) -> int:
    """The same of a process and those that it has forked."""
    return sum(pss_bytes(one) for one in (pid, *_children(pid)))


def _children(parent: int) -> Iterator[int]:
    """Of its first thread where the kernel lists them, which is the one that starts any; else by a look at everyone."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            return iter([int(pid) for pid in file.read().split()])
    except OSError:
        return (pid for pid in pids() if _parent(pid) == parent)


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _lock_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/fd/{LOCK_FD}")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino

"""Compute's own thread: claims that wait for a slot to come up, SIGKILL after a grace, deaths, boxes that grew too
large.

It sleeps in `poll` on the pidfds of the instances, so a death is known within milliseconds: the instance is buried
and the hint goes out. Everything it does can also be found out by looking (locks, `stop.json`), and is, once a
second.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from eyrie.adapters import cgroups, ending, processes
from eyrie.adapters.placing import container_folders
from eyrie.adapters.slot_client import NoAnswer, ask
from eyrie.adapters.slots import Slot
from eyrie.adapters.warm_pool import WarmPool
from eyrie.domain.fleet import InstanceSpec

log = logging.getLogger("eyrie.compute")

CLAIM_TIMEOUT_S = 1.0
SOON_MS, LATER_MS = 25, 1000
SWEEP_PERIOD_S = 30.0
BOX_FILES_MAX = 96  # log, its older half, and a socket a worker
DISK_SLACK_BYTES = 4_194_304  # beyond the bound of the log


@dataclass(slots=True)
class _Watched:
    slot: Slot
    spec: InstanceSpec
    claimed: bool = False
    buried: bool = False
    pid: int | None = None
    pidfd: int | None = None


@dataclass(slots=True)
class Tending:
    """The thread and what it looks after. Only the thread touches pidfds."""

    pool: WarmPool
    on_death: Callable[[InstanceSpec], None]
    disk_bytes_max: int
    sweep: Callable[[], None]  # called once in a while
    _watched: dict[Slot, _Watched] = field(default_factory=dict)
    _kill_at_ms: dict[Slot, int] = field(default_factory=dict)
    _dropped: list[_Watched] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _poll: select.poll = field(default_factory=select.poll)
    _wake: int = -1
    _thread: threading.Thread | None = None
    _closing: bool = False
    _all_again_s: float = 0.0
    _sweep_again_s: float = 0.0

    def start(self) -> None:
        """Begin."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; nothing that it looked after is touched."""
        if self._thread is None:
            return
        self._closing = True
        self._rouse()
        self._thread.join()
        self._thread = None
        os.close(self._wake)
        for watched in (*self._watched.values(), *self._dropped):
            self._unwatch(watched)

    def claim(self, slot: Slot, spec: InstanceSpec, now: bool) -> None:
        """Give a slot its instance: at once where it can answer, else as soon as it does; then watch it."""
        watched = _Watched(slot, spec, claimed=spec.contained)  # a container of the user's own is told at its start
        if now:
            self._try_claim(watched)
        with self._lock:
            self._watched[slot] = watched
        self._rouse()

    def pid(self, slot: Slot) -> int | None:
        """The pid of a living slot's server, outside of its sandbox."""
        with self._lock:
            watched = self._watched.get(slot)
        if watched is None or watched.pid is None:
            return processes.server_pid(slot)
        return watched.pid

    def end_later(self, slot: Slot, kill_at_ms: int) -> None:
        """SIGKILL at a wall-clock time, should it live then."""
        with self._lock:
            self._kill_at_ms[slot] = kill_at_ms
        self._rouse()

    def drop(self, slot: Slot) -> None:
        """Look after a slot no more."""
        with self._lock:
            self._kill_at_ms.pop(slot, None)
            watched = self._watched.pop(slot, None)
            if watched is not None:
                self._dropped.append(watched)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        signalled: set[int] = set()
        while not self._closing:
            try:
                self._turn(signalled)
            except Exception:
                log.exception("compute's thread goes on")
                time.sleep(LATER_MS / 1000)
            signalled = self._sleep()

    def _turn(self, signalled: set[int]) -> None:
        now_s = time.monotonic()
        self.pool.tend(now_s)
        with self._lock:
            everything, dropped = list(self._watched.values()), list(self._dropped)
            self._dropped.clear()
        for watched in dropped:
            self._unwatch(watched)
        whole = now_s >= self._all_again_s
        for watched in everything:
            if whole or not watched.claimed or watched.pidfd is None or watched.pidfd in signalled:
                self._look_at(watched)
        if whole:
            self._all_again_s = now_s + LATER_MS / 1000
        if now_s >= self._sweep_again_s:
            self._sweep_again_s = now_s + SWEEP_PERIOD_S
            self.sweep()
        self._kill_the_late()

    def _look_at(self, watched: _Watched) -> None:
        if watched.buried:
            return
        if not watched.slot.alive():
            self._bury(watched)
            return
        if not watched.claimed:
            self._try_claim(watched)
        if watched.pidfd is None:
            self._watch(watched)
        why = excess(watched.slot, self.disk_bytes_max)
        if why is not None:
            log.warning("%s is killed: %s", watched.spec.instance_id, why)
            ending.kill(watched.slot)

    def _sleep(self) -> set[int]:
        """Until something is due or a process ended; the pidfds of those."""
        with self._lock:
            soon = self.pool.busy or any(not w.claimed and not w.buried for w in self._watched.values())
            due = min((at - time.time() * 1000 for at in self._kill_at_ms.values()), default=float(LATER_MS))
        ready = {fd for fd, _ in self._poll.poll(min(SOON_MS if soon else LATER_MS, max(due, 1.0)))}
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return ready

    def _rouse(self) -> None:
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)

    def _try_claim(self, watched: _Watched) -> None:
        told = json.dumps(claim_body(watched.spec)).encode()
        if watched.slot.socket.exists():
            _cap(watched)  # before it may fork workers, which inherit the limit
        try:
            reply = ask(watched.slot.socket, "POST", "/eyrie/claim", told, CLAIM_TIMEOUT_S)
        except NoAnswer:
            return  # it is still importing, or gone: the next turn sees which
        if reply.status != 202:
            log.error("%s: slot %s answers %d", watched.spec.instance_id, watched.slot.slot_id, reply.status)
            ending.kill(watched.slot)
        watched.claimed = True
        self.pool.claimed(watched.slot)

    def _watch(self, watched: _Watched) -> None:
        """Find the server, so that poll tells of its end."""
        pid = processes.server_pid(watched.slot)
        if pid is None:
            return
        watched.pid = pid
        with contextlib.suppress(OSError):
            watched.pidfd = os.pidfd_open(pid)
            self._poll.register(watched.pidfd, select.POLLIN)

    def _bury(self, watched: _Watched) -> None:
        self._unwatch(watched)
        watched.buried = True
        with self._lock:
            self._kill_at_ms.pop(watched.slot, None)
        self.on_death(watched.spec)
        record = watched.slot.record()
        if record is not None:
            reason = ending.bury(watched.slot, record, watched.spec.memory_mb)
            log.info("%s: %s", watched.spec.instance_id, reason)

    def _unwatch(self, watched: _Watched) -> None:
        if watched.pidfd is not None:
            self._poll.unregister(watched.pidfd)
            os.close(watched.pidfd)
            watched.pidfd = None

    def _kill_the_late(self) -> None:
        now_ms = time.time() * 1000
        with self._lock:
            late = [slot for slot, at_ms in self._kill_at_ms.items() if at_ms <= now_ms]
        for slot in late:
            ending.kill(slot)
            with self._lock:
                self._kill_at_ms.pop(slot, None)


def _cap(watched: _Watched) -> None:
    """Cap the memory of the server, and of each process that it will fork, where no control group caps them all."""
    record = watched.slot.record()
    if record is None or cgroups.limits_memory(record.groups):
        return
    pid = processes.server_pid(watched.slot)
    cap = watched.spec.memory_mb * 1_048_576
    if pid is not None:
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_DATA, (cap, cap))


def claim_body(spec: InstanceSpec) -> dict[str, object]:
    """What a model server is told of the instance that it becomes (docs/concepts/processes.md)."""
    first = spec.containers[0]
    return {
        "instance_id": spec.instance_id,
        "endpoint": spec.endpoint.slug,
        "variant": spec.variant,
        "zone": spec.zone,
        "vcpu_milli": spec.vcpu_milli,
        "memory_mb": spec.memory_mb,
        "workers": spec.workers,
        "execution": spec.execution,
        "containers": [
            {
                "hostname": container.hostname,
                "image": container.image,
                "environment": dict(container.environment),
                "mode": container.mode,
                "folder": folder,
            }
            for container, folder in zip(spec.containers, container_folders(spec), strict=True)
        ],
        "container": first.hostname,
        "image": first.image,
        "environment": dict(first.environment),
    }


def excess(slot: Slot, bytes_max: int) -> str | None:
    """Why a model must be ended for what it did to the host's disk, or None. It may write to its box; and where it runs
    as Eyrie's own user, by way of descriptors that it inherited, to its lock and the launcher's log.
    """
    files = size = 0
    with contextlib.suppress(OSError), os.scandir(slot.path / "box") as entries:
        for entry in entries:
            files += 1
            if entry.name.partition(".")[0] == "s" and entry.is_symlink():
                return "its socket was replaced by a link"
            if entry.is_dir(follow_symlinks=False):
                return "it made a folder in its box"
            size += entry.stat(follow_symlinks=False).st_blocks * 512
            if files > BOX_FILES_MAX:
                break
    for path in (slot.lock, slot.path / "start.log"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    too_much = files > BOX_FILES_MAX or size > bytes_max
    return f"it holds {files} files and {size} bytes of this host's disk" if too_much else None

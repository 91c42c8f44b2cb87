"""The faults of `eyrie chaos`: what each breaks, of this host's own Eyrie and of its user alone, and when all is whole.

Processes are reached by pidfd, looked up anew for each fault. What is killed Eyrie replaces; what is held still
`chaos_guard` lets go.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyrie.adapters import process_lock
from eyrie.cli.chaos_guard import HOLDING
from eyrie.cli.chaos_holds import known
from eyrie.cli.chaos_journal import reverted
from eyrie.cli.chaos_processes import kill_tree, processes_of
from eyrie.cli.client import ControlClient, ControlUnreachable
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import living
from eyrie.http1.unix import connect_unix

GUARD_READY_S = 15.0
STATS_WITHIN_S = 0.5
STATS_BYTES_MAX = 16 * 1024 * 1024


@dataclass(slots=True)
class Instance:
    """An instance as control tells of it."""

    id: str
    zone: str
    pid: int
    serving: bool


class Place:
    """The Eyrie of a data directory, and one endpoint of it."""

    def __init__(self, data: Path, region: str, endpoint: str) -> None:
        """Raises CommandError for a directory of another user."""
        if data.stat().st_uid != os.geteuid():
            raise CommandError(f"{data} belongs to another user: faults are for one's own Eyrie", code=2)
        self.data, self.endpoint, self.region = data, endpoint, region
        self._control = ControlClient(data, region, timeout_s=2.0)

    def instances(self) -> list[Instance] | None:
        """Those of the endpoint; None while control does not answer."""
        told = self._told()
        if told is None:
            return None
        return [
            Instance(str(i["id"]), str(i["zone"]), int(i["pid"] or 0), i["state"] == "READY" and bool(i["routed"]))
            for i in told.get("instances", [])
        ]

    def wanted(self) -> int:
        """How many instances the endpoint is to have. Raises CommandError where there is none of the name."""
        told = self._told()
        if not told:
            raise CommandError(f"there is no endpoint {self.endpoint!r}, or control does not answer")
        return sum(int(variant["desired"]) for variant in told.get("variants", []))

    def process(self, name: str) -> int | None:
        """The pid of one of Eyrie's own processes, by its lock."""
        return process_lock.holder(self.data / "run" / f"{name}.lock")

    def gateways(self) -> list[str]:
        """The names of the gateway workers that live."""
        found = []
        for part in living(self.data):
            found.append(part.name)
            part.close()
        return sorted(name for name in found if name.startswith("gateway-"))

    def kill(self, name: str) -> None:
        """SIGKILL one of Eyrie's own processes."""
        running = process_lock.pin(self.data / "run" / f"{name}.lock")
        if running is None:
            raise CommandError(f"{name} does not run")
        running.send(signal.SIGKILL)
        running.close()

    def ejected(self) -> set[str]:
        """Targets that a gateway worker has taken out of its route: instance ids, perhaps with a worker's number."""
        found: set[str] = set()
        for path in (self.data / "run").glob("gateway-*.sock"):
            for slug, told in _stats(path).get("endpoints", {}).items():
                if slug.endswith(f".{self.endpoint}"):
                    found |= {name for name, target in told["instances"].items() if target["ejected"]}
        return found

    def noticed(self, victims: set[str]) -> bool:
        """Whether Eyrie knows: a gateway worker sends them nothing any more, or control does not count on them."""
        if any(name.startswith(tuple(victims)) for name in self.ejected()):
            return True
        found = self.instances()
        return found is not None and not victims & {instance.id for instance in found if instance.serving}

    def started(self, name: str) -> int | None:
        """The pid of a process that the supervisor started last under this name."""
        try:
            return int(json.loads((self.data / "env.json").read_text())["processes"][name])
        except (OSError, ValueError, LookupError):
            return None

    def warm(self) -> int:
        """How many slots wait for an instance; 0 while control does not answer."""
        try:
            return int(self._control.status().get("slots", {}).get("warm", 0))
        except ControlUnreachable:
            return 0

    def _told(self) -> dict[str, Any] | None:
        """What control says of the endpoint; {} where it knows none."""
        try:
            endpoints = self._control.status()["endpoints"]
        except ControlUnreachable:
            return None
        found = [e for e in endpoints if e["name"] == self.endpoint and e["region"] == self.region]
        return dict(found[0]) if found else {}


@dataclass(slots=True)
class Fault:
    """A fault that was injected: what it broke, and how it is told that all is whole again."""

    what: str
    whole: Callable[[], bool]
    end: Callable[[], None] = field(default=lambda: None)  # reverts it; harmless where that was done
    keep: Callable[[], None] = field(default=lambda: None)  # called again and again while it lasts
    noticed: Callable[[], bool] | None = None  # whether Eyrie itself knows; None: there is nothing that it should do
    seconds: float = 0.0  # how long it lasts by itself; 0: it is a moment, and healing begins at once


def kill_instance(place: Place) -> Fault:
    """SIGKILL an instance: as a crash, or the kernel's memory killer."""
    victim = victim_of(place)
    kill_tree(victim.pid)
    return Fault(
        f"kill -9 of {victim.id}", lambda: whole(place, {victim.id}), noticed=lambda: place.noticed({victim.id})
    )


def hang(place: Place, seconds: float) -> Fault:
    """SIGSTOP an instance: it holds its connections and answers nothing."""
    victim = victim_of(place)
    guard = Guard(place.data, {"kind": "hang", "pids": processes_of(victim.pid), "seconds": seconds})
    return Fault(
        f"{victim.id} hangs (SIGSTOP)",
        lambda: whole(place, set() if guard.over else {victim.id}),
        guard.end,
        noticed=lambda: place.noticed({victim.id}),
    )


def slow(place: Place, seconds: float, share: float) -> Fault:
    """Stop an instance for a share of the time: it does a fraction of its work."""
    victim = victim_of(place)
    guard = Guard(place.data, {"kind": "slow", "pids": processes_of(victim.pid), "seconds": seconds, "share": share})
    return Fault(
        f"{victim.id} stands still {share:.0%} of the time for {seconds:g} s",
        lambda: guard.over and whole(place),
        guard.end,
        noticed=lambda: place.noticed({victim.id}),
        seconds=seconds,
    )


def crash_loop(place: Place, seconds: float, clock: Callable[[], float]) -> Fault:
    """Kill an instance, and for a while each one that is started from then on: what comes in its place crashes too."""
    victim = victim_of(place)
    spared = {instance.id for instance in place.instances() or []} - {victim.id}
    end = clock() + seconds
    seen = {victim.id}

    def strike() -> None:
        if clock() < end:
            for instance in place.instances() or []:
                if instance.id not in spared and instance.pid:
                    seen.add(instance.id)
                    kill_tree(instance.pid)

    strike()
    return Fault(
        f"{victim.id} and what is started in its place crash for {seconds:g} s",
        lambda: clock() >= end and whole(place, seen),
        keep=strike,
        noticed=lambda: place.noticed({victim.id}),
        seconds=seconds,
    )


def kill_process(place: Place, name: str) -> Fault:
    """SIGKILL control or a gateway worker."""
    before = place.process(name)
    place.kill(name)
    return Fault(
        f"kill -9 of {name}",
        lambda: place.process(name) not in (None, before) and whole(place),
        noticed=lambda: place.started(name) != before,
    )


def stop_control(place: Place, seconds: float) -> Fault:
    """SIGSTOP control for a while: it is gone, and nobody replaces it."""
    pid = place.process("control")
    if pid is None:
        raise CommandError("control does not run")
    guard = Guard(place.data, {"kind": "hang", "pids": [pid], "seconds": seconds})
    return Fault(
        f"control stands still for {seconds:g} s", lambda: guard.over and whole(place), guard.end, seconds=seconds
    )


def zone_outage(place: Place, zone: str, seconds: float, clock: Callable[[], float]) -> Fault:
    """Kill what stands in a zone, and what is started there, for a while."""
    found = place.instances() or []
    if not any(instance.zone == zone for instance in found):
        zones = ", ".join(sorted({instance.zone for instance in found})) or "none"
        raise CommandError(f"no instance of {place.endpoint} stands in zone {zone!r}; they stand in {zones}", code=2)
    end = clock() + seconds

    def strike() -> None:
        if clock() < end:
            for instance in place.instances() or []:
                if instance.zone == zone and instance.pid:
                    kill_tree(instance.pid)

    victims = {instance.id for instance in found if instance.zone == zone}
    strike()
    return Fault(
        f"zone {zone} is out for {seconds:g} s",
        lambda: clock() >= end and whole(place),
        keep=strike,
        noticed=lambda: place.noticed(victims),
        seconds=seconds,
    )


def victim_of(place: Place) -> Instance:
    """The instance that a fault breaks: one that serves. Raises CommandError where none does."""
    serving = [instance for instance in place.instances() or [] if instance.serving and instance.pid]
    if not serving:
        raise CommandError(f"{place.endpoint} has no instance that serves")
    return serving[0]


def whole(place: Place, without: set[str] | None = None) -> bool:
    """As many instances serve as are wanted, the victim not among them."""
    found = place.instances()
    if not found:
        return False
    serving = {instance.id for instance in found if instance.serving}
    try:
        return len(serving) >= place.wanted() and not serving & (without or set())
    except CommandError:
        return False


# ---------------------------------------------------------------------------------------------------------- processes
class Guard:
    """A process that holds something (`chaos_holds`) and lets go, whatever becomes of this one."""

    def __init__(self, data: Path, told: Mapping[str, Any]) -> None:
        self._data = data
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eyrie.cli.chaos_guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**known(told), "data": str(data)}) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        if said != HOLDING:
            self.end()
            raise CommandError(f"nothing was broken: {said or 'the guard of the fault did not start'}")

    @property
    def over(self) -> bool:
        """Whether it has let go."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Let go now; should the guard itself have been killed, this does its work."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(GUARD_READY_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode != 0:
            reverted(self._data)


def _stats(path: Path) -> dict[str, Any]:
    """What a gateway worker tells of itself; {} where it does not."""
    try:
        with connect_unix(str(path)) as door:
            door.settimeout(STATS_WITHIN_S)
            door.sendall(b"stats\n")
            told = b""
            while not told.endswith(b"\n") and len(told) < STATS_BYTES_MAX and (more := door.recv(1_048_576)):
                told += more
        found = json.loads(told)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

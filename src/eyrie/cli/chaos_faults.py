"""The faults of `eyrie chaos`: what each breaks, of this host's own Eyrie and of its user alone, and when all is whole.

Processes are reached by pidfd, looked up anew for each fault. What is killed Eyrie replaces; what is held still
`chaos_guard` lets go.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyrie.cli.chaos_guard import HOLDING
from eyrie.cli.chaos_holds import known
from eyrie.cli.chaos_journal import reverted
from eyrie.cli.chaos_place import Instance, Place
from eyrie.cli.chaos_processes import kill_tree, processes_of
from eyrie.cli.errors import CommandError

GUARD_READY_S = 15.0
TOLD_WITHIN_S = 15.0
TOLD_PAUSE_S = 0.1


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
    deadline = time.monotonic() + TOLD_WITHIN_S
    while (found := place.instances()) is None and time.monotonic() < deadline:
        time.sleep(TOLD_PAUSE_S)  # control answers late where much was asked of it a moment ago
    if found is None:
        raise CommandError(f"control has not told of {place.endpoint} within {TOLD_WITHIN_S:g} s")
    serving = [instance for instance in found if instance.serving and instance.pid]
    if not serving:
        raise CommandError(f"{place.endpoint} has no instance that serves")
    return serving[0]


def whole(place: Place, without: Collection[str] = ()) -> bool:
    """As many instances serve as are wanted, the victims not among them: in the table that the gateways go by, which is
    looked at first since that asks nobody for anything, and as control tells.
    """
    routed = place.routed()
    if not routed.targets.isdisjoint(without) or place.lacking(routed):
        return False
    standing = place.standing()
    if not standing:
        return False
    serving = {one.id for one in standing.instances if one.serving} & place.routed().targets
    return len(serving) >= standing.wanted and serving.isdisjoint(without)


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

"""The supervisor behind `eyrie up`: keeps control, objects, dispatch, gateways and console running, and ends them in
order.

One thread, no event loop: it sleeps in sigtimedwait until a child dies, a stop is asked for or a restart is due. It is
a subreaper, so that instances whose starter died are reaped here. `takeover.py` says what happens when an earlier
`eyrie up` left processes behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import process_lock
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import CONSOLE, CONTROL, DISPATCH, OBJECTS, Command, Part, last_words, ready, spawn
from eyrie.decide import restart

_PR_SET_CHILD_SUBREAPER = 36
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WATCHED = (signal.SIGCHLD, *_STOP_SIGNALS)
_POLL_S = 0.02
_GIVE_UP_AFTER = 3  # deaths in a row of a part that has never been ready

log = logging.getLogger("supervisor")


@dataclass(slots=True)
class Child:
    """A part that should run: its process while it has one, and when it is due where it has none."""

    part: Part
    pid: int | None = None
    started_s: float = 0.0
    due_s: float = 0.0
    failures: int = 0
    trouble: str = ""  # why it could not be started the last time


@dataclass(frozen=True, slots=True)
class World:
    """What the supervisor touches besides its children: given, so that tests can give another."""

    data: Path
    env: Mapping[str, str]  # the environment of every part
    listener: socket.socket
    command: Command
    drain_s: float
    end_instances: Callable[[], None]
    changed: Callable[[dict[str, int]], None]  # told the pids by name whenever they change
    now_s: Callable[[], float] = time.monotonic
    sweep: Callable[[], None] = lambda: None  # looks at each turn for what a killed command left


class Supervisor:
    """Owns the children. Every method runs on the main thread."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._children: dict[str, Child] = {}
        self._retiring: list[tuple[process_lock.Running, float]] = []
        self._stop_asked = False
        self._hurry = False
        self._untold = False

    def prepare(self) -> None:
        """Take the signals into our own hands and become the reaper of orphans."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, part: Part) -> Child:
        """Start a part and keep it running from now on."""
        child = self._children[part.name] = Child(part)
        self._launch(child)
        return child

    def start_gateways(self, count: int) -> list[Child]:
        """Start this many workers under the lowest numbers that nobody holds."""
        return [self.start(self._free_gateway()) for _ in range(count)]

    def wait_ready(self, children: list[Child], wait_s: float) -> None:
        """Return when each is ready. Raises CommandError with the reason where one will not be, or on a stop."""
        deadline = self._world.now_s() + wait_s
        waiting = list(children)
        while waiting:
            waiting = [child for child in waiting if not self._is_ready(child)]
            if waiting:
                self._check_hopeless(waiting, deadline)
                self.turn(_POLL_S)

    def retire(self, old: process_lock.Running, grace_s: float) -> None:
        """Tell a process that an earlier `eyrie up` started to end; it is killed when it takes longer than that."""
        old.send(signal.SIGTERM)
        self._retiring.append((old, self._world.now_s() + grace_s))

    def replace(self, part: Part, old: process_lock.Running, grace_s: float) -> Child:
        """Retire a part's process and start its successor, which waits for the lock that the old one holds."""
        self.retire(old, grace_s)
        return self.start(part)

    def wait_retired(self, parts: Collection[Part]) -> None:
        """Return when the retired processes of these parts are gone, or on a stop."""
        names = {part.name for part in parts}
        while not self._stop_asked and any(old.name in names for old, _ in self._retiring):
            self.turn(_POLL_S)

    def run(self) -> None:
        """Keep everything running until a stop is asked for."""
        while not self._stop_asked:
            self.turn(min(1.0, self._until_next_start()))

    def turn(self, wait_s: float) -> None:
        """Wait for a signal or the time, then reap, restart what is due, and finish off what retires."""
        self._take_signal(signal.sigtimedwait(_WATCHED, max(0.0, wait_s)))
        self._reap()
        if not self._stop_asked:
            self._launch_due()
        if self._untold:
            self._tell()
        self._finish_retiring()
        self._world.sweep()

    @property
    def drain_grace_s(self) -> float:
        """How long a gateway or the console may take to end."""
        return self._world.drain_s + 5.0

    @property
    def stop_asked(self) -> bool:
        """Whether someone wants it all to end."""
        return self._stop_asked

    def stop(self, instances: bool = True) -> None:
        """End everything in order: gateways (and console), dispatch, control, instances, objects. A second stop signal
        takes away the grace.

        Without `instances` they serve on, for the next `eyrie up`: a start that fails must not end what serves.
        """
        self._stop_asked = True
        doors = [child for child in self._children.values() if child.part.kind in ("gateway", CONSOLE.kind)]
        self._end(doors, self.drain_grace_s)
        for old, _ in self._retiring:
            old.end(0.0)
            old.close()
        self._retiring.clear()
        for part in (DISPATCH, CONTROL):
            self._end([c for c in self._children.values() if c.part == part], 10.0)
        if instances:
            self._world.end_instances()
        self._end([c for c in self._children.values() if c.part == OBJECTS], 10.0)
        self._reap()

    def _take_signal(self, info: signal.struct_siginfo | None) -> None:
        if info is not None and info.si_signo in _STOP_SIGNALS:
            self._hurry = self._stop_asked
            self._stop_asked = True

    def _until_next_start(self) -> float:
        due = [child.due_s for child in self._children.values() if child.pid is None]
        return max(0.0, min(due) - self._world.now_s()) if due else 1.0

    def _launch_due(self) -> None:
        for child in list(self._children.values()):
            if child.pid is None and child.due_s <= self._world.now_s():
                self._launch(child)

    def _launch(self, child: Child) -> None:
        world = self._world
        child.started_s, child.trouble = world.now_s(), ""
        try:
            self._move_off_held_number(child)
            child.pid = spawn(child.part, world.command, world.env, world.data, world.listener)
        except OSError as error:  # no descriptor, process or program to be had: the others serve on meanwhile
            child.trouble = str(error)
            log.error("%s cannot be started: %s; next try in %d ms", child.part.name, error, self._put_off(child))
            return
        log.info("started %s as process %d", child.part.name, child.pid)
        self._tell()

    def _tell(self) -> None:
        """Say which processes run; where that cannot be written, the disk being full, say, again at the next turn."""
        try:
            self._world.changed(self.pids())
        except OSError as error:
            if not self._untold:
                log.error("which processes run cannot be written: %s", error)
            self._untold = True
        else:
            self._untold = False

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        return {child.part.name: child.pid for child in self._children.values() if child.pid is not None}

    def _free_gateway(self) -> Part:
        index = 0
        while (part := Part("gateway", index)).name in self._children or process_lock.holder(
            part.lock(self._world.data)
        ):
            index += 1
        return part

    def _put_off(self, child: Child) -> int:
        """When a part that lived too short, or not at all, is due again: in how many milliseconds."""
        now_s = self._world.now_s()
        child.failures = restart.failures_after(child.failures, int((now_s - child.started_s) * 1000))
        delay_ms = restart.delay_ms(child.failures)
        child.due_s = now_s + delay_ms / 1000
        return delay_ms

    def _move_off_held_number(self, child: Child) -> None:
        """A worker whose number is still held by someone starts under another one."""
        if child.part.kind == "gateway" and process_lock.holder(child.part.lock(self._world.data)):
            del self._children[child.part.name]
            child.part = self._free_gateway()
            self._children[child.part.name] = child

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                for child in self._children.values():
                    if child.pid == pid:
                        self._died(child, status)

    def _died(self, child: Child, status: int) -> None:
        child.pid = None
        delay_ms = self._put_off(child)
        self._tell()
        if not self._stop_asked:
            log.warning(
                "%s %s; next start in %d ms (%d in a row)", child.part.name, how(status), delay_ms, child.failures
            )

    def _is_ready(self, child: Child) -> bool:
        return child.pid is not None and ready(child.part, self._world.data, child.pid)

    def _check_hopeless(self, waiting: list[Child], deadline: float) -> None:
        if self._stop_asked:
            raise CommandError("stopped before it was ready", code=130)
        for child in waiting:
            late = self._world.now_s() > deadline
            if late or child.failures >= _GIVE_UP_AFTER:
                why = "is not ready in time" if late else "keeps ending"
                said = child.trouble or last_words(child.part, self._world.data) or "it said nothing"
                raise CommandError(f"{child.part.name} {why}: {said}")

    def _finish_retiring(self) -> None:
        now_s = self._world.now_s()
        for entry in list(self._retiring):
            old, deadline = entry
            if now_s > deadline:
                log.warning("%s (process %d) did not drain in time and is killed", old.name, old.pid)
                old.send(signal.SIGKILL)
            if old.gone() or now_s > deadline:
                self._retiring.remove(entry)
                old.close()

    def _end(self, children: list[Child], grace_s: float) -> None:
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)
        deadline = self._world.now_s() + grace_s
        while any(child.pid is not None for child in children):
            if self._hurry or self._world.now_s() > deadline:
                for child in children:
                    if child.pid is not None:
                        os.kill(child.pid, signal.SIGKILL)
            self.turn(_POLL_S)


def how(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"ended with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"

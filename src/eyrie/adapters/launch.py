"""Starts the model server of a slot as nobody's child: in a session of its own, holding its lock, inside its sandbox.

A short-lived shell puts the server behind it and ends, so the server belongs to the nearest subreaper (the
supervisor) or to init, and neither the end of control nor a signal to it reaches the server. Nothing here waits for
the server.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import sandbox
from eyrie.adapters.sandbox import Isolation, Sandbox
from eyrie.adapters.slots import LOCK_FD, Slot, SlotRecord
from eyrie.domain.kinds import FRAMEWORKS, frameworks_of

LAUNCH_TIMEOUT_S = 10.0
# $1 the slot, then its control groups up to "--", then the command. Descriptor 0 is the lock: it becomes 9. 8 takes
# what is said of pids and the end; 7 and 6 are bubblewrap's arguments and filter.
PREPARE = """
cd "$1" || exit 1
shift
exec 9<&0 0</dev/null 8>>status
ulimit -c 0
while [ "$1" != -- ]; do groups="$groups $1"; shift; done
shift
join() { for group in $groups; do echo 0 >"$group/cgroup.procs" || :; done; }
"""
_IN_SANDBOX = PREPARE + '(join; exec "$@" 7<args 6<filter) &'
_PLAIN = (
    PREPARE
    + """(
  join
  setsid "$@" 8>&- &
  pid=$!
  exec 9<&-
  echo "{\\"child-pid\\": $pid}" >&8
  wait $pid
  echo "{\\"exit-code\\": $?}" >&8
) &"""
)


class LaunchFailed(RuntimeError):
    """The server could not even be started; the message says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """The command of a model server, and what it must be able to read besides /usr."""

    command: tuple[str, ...]
    runtime: tuple[Path, ...]

    @staticmethod
    def of_eyrie() -> Server:
        """Eyrie's own model server in this Python."""
        command = (sys.executable, "-I", "-B", "-u", "-m", "eyrie.modelserver")
        return Server(command, tuple(sandbox.runtime_paths()))


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts servers in one way: with this isolation, the imports of their kind, this bound on logs."""

    isolation: Isolation
    server: Server
    data: Path
    imports: tuple[str, ...]  # of every slot, besides those of its kind
    log_bytes_max: int

    def start(self, slot: Slot, record: SlotRecord) -> None:
        """Start the slot's server; returns in milliseconds, long before it can answer. Raises LaunchFailed."""
        furnish(slot, record)
        sandboxed = record.isolation == sandbox.BUBBLEWRAP
        command = self._sandboxed(slot, record) if sandboxed else self._plain(slot, record)
        script = _IN_SANDBOX if record.isolation == sandbox.BUBBLEWRAP else _PLAIN
        words = ["/bin/sh", "-c", script, "eyrie-slot", str(slot.path), *record.groups, "--", *command]
        home = str(slot.path / "home")
        lock = slot.hold_lock()
        try:
            run(words, lock, slot, {**sandbox.ENVIRONMENT, "HOME": home, "TMPDIR": home})
        finally:
            os.close(lock)

    def _plain(self, slot: Slot, record: SlotRecord) -> list[str]:
        return self._command(str(slot.path / "box"), str(slot.path / "ml"), record.kind)

    def _sandboxed(self, slot: Slot, record: SlotRecord) -> list[str]:
        seen = {str(path): str(path) for path in self.server.runtime}
        seen |= {f"/etc/{name}": str(slot.path / "etc" / name) for name in etc_files(record.uid)}
        seen[sandbox.INNER_ML] = str(slot.path / "ml")
        hidden = sandbox.hidden_paths(self.server.runtime, self.data)
        box = Sandbox(seen, {sandbox.INNER_BOX: str(slot.path / "box")}, hidden, record.uid)
        args = sandbox.arguments(box, record.uid is not None)
        if self.isolation.seccomp:
            args += ["--seccomp", "6"]
        (slot.path / "filter").write_bytes(self.isolation.seccomp or b"")
        (slot.path / "args").write_bytes(b"\0".join(os.fsencode(arg) for arg in args) + b"\0")
        inner = [*sandbox.step_down(record.uid), *self._command(sandbox.INNER_BOX, sandbox.INNER_ML, record.kind)]
        return [self.isolation.bubblewrap, "--args", "7", "--json-status-fd", "8", "--", *inner]

    def _command(self, box: str, ml: str, kind: str) -> list[str]:
        imports = (*self.imports, *(FRAMEWORKS[name].library for name in frameworks_of(kind) if name in FRAMEWORKS))
        given = ("--box", box, "--ml", ml, "--lock-fd", str(LOCK_FD), "--imports", ",".join(imports))
        return [*self.server.command, *given, "--log-bytes-max", str(self.log_bytes_max)]


def furnish(slot: Slot, record: SlotRecord) -> None:
    """The folders of a slot, its box owned by the user that the server runs as."""
    slot.path.chmod(0o700)
    for name in ("ml", "box", "etc", "home"):
        (slot.path / name).mkdir(exist_ok=True)
    (slot.path / "ml").chmod(0o755)
    (slot.path / "box").chmod(0o700)
    if record.uid is not None:
        os.chown(slot.path / "box", record.uid, record.uid)
    for name, text in etc_files(record.uid).items():
        (slot.path / "etc" / name).write_text(text)
        (slot.path / "etc" / name).chmod(0o644)


def run(words: Sequence[str], lock: int, slot: Slot, environment: dict[str, str]) -> None:
    """Run the words that leave a server behind, with the lock as descriptor 0. Raises LaunchFailed."""
    with open(slot.path / "start.log", "wb") as output:
        try:
            done = subprocess.run(
                words,
                stdin=lock,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
                timeout=LAUNCH_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise LaunchFailed(f"the launcher of slot {slot.slot_id} failed: {fault}") from fault
    if done.returncode:
        raise LaunchFailed(f"the launcher of slot {slot.slot_id} ended with {done.returncode}: {slot.tail(3)}")


def etc_files(uid: int | None) -> dict[str, str]:
    """Stubs of the files in /etc that libraries ask for."""
    who = os.getuid() if uid is None else uid
    return {
        "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nmodel:x:{who}:{who}:model:/tmp:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nmodel:x:{who}:\n",
        "hosts": "127.0.0.1 localhost instance\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }

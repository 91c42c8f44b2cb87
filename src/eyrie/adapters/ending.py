"""How slots and instances end: asked, forced, and what is said of them afterwards.

`end_all` is what `eyrie down` calls, without control: it knows the processes of a data directory by the locks they
hold.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import cgroups, processes
from eyrie.adapters.slots import Slot, SlotRecord, Status

EXIT_CODE_WAIT_S = 0.2  # from the fall of the lock until the launcher has written the exit code
_PAUSE_S = 0.005
_LAST_LINE_CHARACTERS_MAX = 300
_TAIL_LINES = 150  # faulthandler writes up to a hundred frames of a thread
_CRASH_ACCOUNT = ("Extension modules:", 'File "')
_UNLOADABLE = "The model could not be loaded:"  # the model server's own word; a worker beside may have written after it


def terminate(slot: Slot) -> None:
    """SIGTERM to the model server, or to whatever is about to become it."""
    server = processes.server_pid(slot)
    for pid in processes.holders(slot.lock) if server is None else [server]:
        processes.send(pid, signal.SIGTERM, processes.holds_lock(slot))


def kill(slot: Slot) -> None:
    """SIGKILL to all of the slot's processes, stopped ones too. Returns at once."""
    status = slot.status()
    sent = processes.send(status.init, signal.SIGKILL, _identity(slot, status))
    if sent and status.pid_namespace is None and status.init is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(status.init, signal.SIGKILL)  # its own session: setsid in the launcher
    processes.send(status.server, signal.SIGKILL, processes.holds_lock(slot))
    if not sent and slot.alive():
        for pid in processes.holders(slot.lock):
            processes.send(pid, signal.SIGKILL, processes.holds_lock(slot))


def bury(slot: Slot, record: SlotRecord, memory_mb: int | None = None, wait_s: float = EXIT_CODE_WAIT_S) -> str:
    """Clear away what is left of a server whose lock is free, and write down how it ended. The reason, for people.

    Threads may come to bury together: the first one's word holds, since its look at the counters was before their end.
    `wait_s`: how long the launcher may take to write the exit code.
    """
    known = slot.exit_reason()
    if known is not None:
        return known
    status = _final_status(slot, wait_s)
    _kill_left_behind(status)
    oom_kills = cgroups.oom_kills(record.groups)
    reason = describe(status.exit_code, oom_kills, slot.ending() is not None, slot.tail(_TAIL_LINES), memory_mb)
    with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
        slot.write_once("exit.json", reason)
    cgroups.kill(record.groups)
    cgroups.remove(record.groups)
    return slot.exit_reason() or reason


def describe(
    exit_code: int | None, oom_kills: int, asked: bool, tail: Iterable[str], memory_mb: int | None = None
) -> str:
    """One sentence on how a server ended, with its last words."""
    if oom_kills:
        limit = f" of {memory_mb} MB" if memory_mb else ""
        how = f"killed by the kernel: its memory limit{limit} was reached (oom_kill {oom_kills})"
    elif exit_code is None:
        how = "gone, its lock is free; how it ended was not seen"
    elif exit_code > 128:
        how = f"killed by signal {exit_code - 128} ({_signal_name(exit_code - 128)})"
    else:
        how = f"exited with code {exit_code}"
    if asked:
        return f"stopped as asked, {how}"
    last = _last_words(tail)
    return f"{how}; last line: {last[:_LAST_LINE_CHARACTERS_MAX]}" if last else how


def _last_words(tail: Iterable[str]) -> str:
    """The last line, or the one before that says why: that the model could not be loaded, or, where the last only ends
    Python's account of a crash (frames, modules), what the crash was.
    """
    lines = [line.strip() for line in tail if line.strip()]
    if not lines:
        return ""
    if lines[-1].startswith(_CRASH_ACCOUNT):
        return next((line for line in reversed(lines) if line.startswith("Fatal Python error:")), lines[-1])
    return next((line for line in reversed(lines) if _UNLOADABLE in line), lines[-1])


@dataclass(frozen=True, slots=True)
class Ended:
    """What `end_all` did. `left` holds the ids of slots whose lock is still held."""

    asked: int
    killed: int
    left: tuple[str, ...]


def end_all(data: Path, grace_s: float, progress: Callable[[int], None] = lambda left: None) -> Ended:
    """End every slot and instance of a data directory: SIGTERM, SIGKILL after the grace, verified by their locks.

    Instances stay known (the next control finds them gone and replaces them); waiting slots are removed.
    """
    everything = slots_of(data)
    living = [slot for slot in everything if slot.alive()]
    for slot in living:
        terminate(slot)
    left = _wait_for(living, grace_s, progress)
    for slot in left:
        kill(slot)
    still = _wait_for(left, 5.0, progress)
    for slot in everything:
        if slot not in still:
            _clear(slot)
    return Ended(len(living), len(left), tuple(slot.slot_id for slot in still))


def slots_of(data: Path) -> list[Slot]:
    """Every slot of a data directory."""
    try:
        return [Slot(path) for path in sorted((data / "slots").iterdir()) if not path.name.startswith(".")]
    except FileNotFoundError:
        return []


def discard(slot: Slot, record: SlotRecord | None) -> None:
    """Remove a dead slot and its groups, and whatever else still runs in them."""
    groups = record.groups if record else ()
    _kill_left_behind(slot.status())
    cgroups.kill(groups)
    deadline = time.monotonic() + EXIT_CODE_WAIT_S
    while not cgroups.remove(groups) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    slot.remove()


def _clear(slot: Slot) -> None:
    record, spec = slot.record(), slot.spec()
    if spec is None or record is None:
        discard(slot, record)
    elif slot.started:
        bury(slot, record, spec.memory_mb)


def _identity(slot: Slot, status: Status) -> processes.Recognised:
    if status.pid_namespace is not None:
        return processes.in_namespace(status.pid_namespace)
    return processes.holds_lock(slot)


def _kill_left_behind(status: Status) -> None:
    """What may outlive a server: the rest of its sandbox, or, without one, of its process group."""
    if processes.send(status.init, signal.SIGKILL, processes.in_namespace(status.pid_namespace)) or status.init is None:
        return
    if status.pid_namespace is None and not os.path.exists(f"/proc/{status.init}"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(status.init, signal.SIGKILL)  # its leader is gone, so the number cannot be another's yet


def _final_status(slot: Slot, wait_s: float) -> Status:
    """The status with the exit code, which the launcher writes just after the lock has fallen."""
    deadline = time.monotonic() + wait_s
    while (status := slot.status()).exit_code is None and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return status


def _wait_for(slots: list[Slot], wait_s: float, progress: Callable[[int], None]) -> list[Slot]:
    deadline = time.monotonic() + wait_s
    left = list(slots)
    while left := [slot for slot in left if slot.alive()]:
        progress(len(left))
        if time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_S * 4)
    return left


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"

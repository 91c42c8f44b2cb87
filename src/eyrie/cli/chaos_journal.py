"""The journal of what must be put back: `DATA/faults/`, a file a fault that lasts, or a copy of an assessment.

A guard writes its file before it touches anything: what to revert, and how. It holds the file's flock for as long as it
lives, and removes the file when all is put back. So a file whose lock is free, or whose time has long passed, tells of
a fault that nobody reverts any more; whoever looks next does: `eyrie up` at each of its turns (`Sweeper`), and
`eyrie chaos` and `eyrie assess` before they begin. Reverting twice does no harm.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

from eyrie.adapters import durable, process_lock
from eyrie.cli.chaos_holds import hold_of

FOLDER = "faults"
ENDPOINT = "endpoint"  # the kind of what only the public API can put back
BYTES_MAX = 1_048_576
OVERDUE_S = 5.0  # beyond its time a fault is reverted though its guard lives: it may stand still itself
AGAIN_S = 20.0  # between two tries to put an endpoint back
GUARDS_MAX = 4  # at once
HALF_MADE_S = 60.0

log = logging.getLogger("faults")


class Entry:
    """One file of the journal, held by the process that has to revert what it tells."""

    def __init__(self, path: Path, fd: int, told: Mapping[str, Any]) -> None:
        self.path, self.told = path, told
        self._fd = fd

    @classmethod
    def begun(cls, data: Path, told: Mapping[str, Any], seconds: float) -> Entry:
        """A new one, on disk before it returns. Raises OSError."""
        folder = data / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{told['kind']}-{os.getpid()}-{secrets.token_hex(4)}.json"
        hidden = folder / f".{name}"
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            known = {**told, "guard": os.getpid(), "until_s": monotonic() + seconds}
            durable.write_all(fd, json.dumps(known).encode())
            os.fsync(fd)
            hidden.rename(folder / name)
            durable.sync(folder)
        except BaseException:
            hidden.unlink(missing_ok=True)
            os.close(fd)
            raise
        return cls(folder / name, fd, told)

    @classmethod
    def adopted(cls, path: Path, overdue: bool = True) -> Entry | None:
        """One that nobody looks after any more; None where somebody does, or where it is gone. What cannot be read is
        removed: nothing can be reverted by it. Raises OSError where it may not be read.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        told, free = _read(fd), process_lock.try_lock(fd)
        if os.fstat(fd).st_nlink and (free or (overdue and _late(told))):
            entry = cls(path, fd, told or {})
            if told is not None:
                return entry
            log.error("%s cannot be understood and is removed", path)
            entry.over()
            return None
        os.close(fd)
        return None

    def over(self) -> None:
        """All is put back."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def left(self) -> None:
        """It could not be put back: somebody else may try."""
        os.close(self._fd)


def entries(data: Path) -> list[Path]:
    """The files of the journal; none where no fault was ever injected."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in (data / FOLDER).iterdir() if not path.name.startswith("."))
    return []


def reverted(data: Path) -> list[str]:
    """Revert every fault that nobody else does any more, but what only the public API can put back: the names of the
    files. Raises OSError where the journal may not be read.
    """
    found = []
    for entry in _adopted(data):
        with contextlib.suppress(LookupError, TypeError, ValueError):  # not of this version: there is no more to it
            hold_of(entry.told).release()
        entry.over()
        found.append(entry.path.name)
    return found


def endpoints(data: Path) -> list[Path]:
    """The files of what only the public API can put back, and nobody does."""
    found = []
    for path in entries(data):
        if path.name.startswith(f"{ENDPOINT}-") and (entry := Entry.adopted(path, overdue=False)) is not None:
            entry.left()
            found.append(path)
    return found


def _adopted(data: Path) -> Iterator[Entry]:
    """Those of faults; a file whose guard was killed before it was whole, and so before anything was broken, goes."""
    for path in (data / FOLDER).glob(".*.json"):
        with contextlib.suppress(FileNotFoundError):
            if time() - path.stat().st_mtime > HALF_MADE_S:
                path.unlink()
    for path in entries(data):
        if not path.name.startswith(f"{ENDPOINT}-") and (entry := Entry.adopted(path)) is not None:
            yield entry


@dataclass(slots=True)
class Sweeper:
    """What `eyrie up` does about the journal, at each of its turns: a fault is reverted here, an endpoint is put back
    by a new guard. Level-triggered: it knows nothing but what lies there.
    """

    data: Path
    start: Callable[[Path, Path], None]  # a guard for an endpoint's file
    now_s: Callable[[], float] = monotonic
    _tried_s: dict[Path, float] = field(default_factory=dict)
    _told: str = ""

    def turn(self) -> None:
        """Look, and put back."""
        try:
            for name in reverted(self.data):
                log.warning("reverted a fault whose guard was killed: %s", name)
            self._endpoints()
        except OSError as error:
            if str(error) != self._told:
                log.error("what faults left cannot be reverted: %s", error)
            self._told = str(error)

    def _endpoints(self) -> None:
        now_s = self.now_s()
        self._tried_s = {path: at for path, at in self._tried_s.items() if now_s - at < AGAIN_S}
        for path in endpoints(self.data)[:GUARDS_MAX]:
            if path not in self._tried_s:
                log.warning("putting back what an assessment left whose guard was killed: %s", path.name)
                self._tried_s[path] = now_s
                self.start(self.data, path)


def start_guard(data: Path, path: Path) -> None:
    """A process that puts an endpoint back. It is nobody's to wait for: the supervisor reaps whatever ends."""
    command = [sys.executable, "-P", "-m", "eyrie.cli.assess_guard", str(data), str(path)]
    os.posix_spawn(command[0], command, os.environ, setsid=True, setsigmask=())


def run_guard(data: Path, path: Path) -> None:
    """The same, to its end."""
    command = [sys.executable, "-P", "-m", "eyrie.cli.assess_guard", str(data), str(path)]
    subprocess.run(command, check=False, start_new_session=True)


def _read(fd: int) -> dict[str, Any] | None:
    try:
        told = json.loads(os.pread(fd, BYTES_MAX, 0))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _late(told: Mapping[str, Any] | None) -> bool:
    until_s = None if told is None else told.get("until_s")
    return isinstance(until_s, int | float) and monotonic() > until_s + OVERDUE_S

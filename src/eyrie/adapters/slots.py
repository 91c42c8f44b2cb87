"""One slot on disk: `slots/ID/`, a sandbox that waits for a model, or an instance once `spec.json` lies in it.

Control writes everything here but `lock` (flock held by the model server for as long as it lives), `status` (what the
launcher says of pids and the end) and `box/` (the model server's own). Whatever lies in `box/` was written by a model
and is read as such: no links are followed, only regular files are opened, and no more than a bound is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from eyrie.adapters.described import described
from eyrie.domain.fleet import InstanceSpec
from eyrie.domain.kinds import PLAIN
from eyrie.domain.stored import instance_of_today

LOCK_FD = 9  # the descriptor on which a model server holds its lock; one digit, as the shell wants it
TAIL_BYTES_MAX = 262_144
LOG_BYTES_MAX = 67_108_864  # of one file; the server's own bound is lower
_SMALL_FILE_BYTES_MAX = 1_048_576
_T = TypeVar("_T")


class SlotRecord(msgspec.Struct, frozen=True):
    """`slot.json`: how the slot was made; written before it is started and never changed."""

    fingerprint: str  # of Eyrie's version and the settings that a slot is made by
    isolation: str  # "bubblewrap" or "process"
    uid: int | None  # the user that the model runs as, where that is one of its own
    groups: tuple[str, ...]  # its control groups, one a hierarchy
    created_ms: int
    kind: str = PLAIN  # the frameworks that it imports before it waits


class Ending(msgspec.Struct, frozen=True):
    """`stop.json`: that control was told to end the slot, and when its grace is over."""

    kill_at_ms: int


described(SlotRecord, Ending, InstanceSpec)  # they are read into in several threads


@dataclass(frozen=True, slots=True)
class Status:
    """What the launcher wrote: `init` is the pid to kill (pid 1 of the sandbox; the server itself without one)."""

    init: int | None = None
    pid_namespace: int | None = None
    exit_code: int | None = None  # 128 + N: killed by signal N
    server: int | None = None  # who holds the lock, where that is told: outside of the sandbox that `init` is pid 1 of


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot by its folder. Nothing is cached here."""

    path: Path

    @property
    def slot_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def socket(self) -> Path:
        """The Unix socket that its server listens on."""
        return self.path / "box" / "s"

    @property
    def lock(self) -> Path:
        """Held while the server lives; absent until it was first started."""
        return self.path / "lock"

    @property
    def model(self) -> Path:
        """Where the model's files go."""
        return self.path / "ml" / "model"

    @property
    def started(self) -> bool:
        """Whether a server was ever started here."""
        return self.lock.exists()

    def alive(self) -> bool:
        """Whether the lock is held."""
        try:
            fd = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def record(self) -> SlotRecord | None:
        """`slot.json`, or None where it cannot be read: the slot was never finished."""
        return _load(self.path / "slot.json", SlotRecord)

    def spec(self) -> InstanceSpec | None:
        """`spec.json`, or None: nobody claimed the slot."""
        given = _load(self.path / "spec.json", dict[str, Any])
        if given is None:
            return None
        try:
            return msgspec.convert(instance_of_today(given), InstanceSpec)
        except msgspec.ValidationError:
            return None

    def ending(self) -> Ending | None:
        """`stop.json`, or None: it was not told to end."""
        return _load(self.path / "stop.json", Ending)

    def claimed_ms(self) -> int:
        """When it became an instance: milliseconds since the epoch, 0 where it did not."""
        return _load(self.path / "claimed.json", int) or 0

    def exit_reason(self) -> str | None:
        """`exit.json`, written once the server was found gone."""
        return _load(self.path / "exit.json", str)

    def write(self, name: str, value: Any) -> None:
        """Write one of control's files, whole, and rename it into place."""
        self._write_beside(name, value).rename(self.path / name)

    def write_once(self, name: str, value: Any) -> None:
        """The same, unless the file is there: then it stays as it is."""
        new = self._write_beside(name, value)
        with contextlib.suppress(FileExistsError):
            os.link(new, self.path / name)
        new.unlink()

    def _write_beside(self, name: str, value: Any) -> Path:
        new = self.path / f"{name}.{threading.get_ident()}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(msgspec.json.encode(value))
        return new

    def hold_lock(self) -> int:
        """A locked descriptor for the server to inherit. It appears as `lock` only once it is held."""
        new = self.path / "lock.new"
        fd = os.open(new, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(self.lock)
        return fd

    def status(self) -> Status:
        """The launcher's lines, as far as they were written."""
        found: dict[str, Any] = {}
        for line in read_bounded(self.path / "status").decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.update(json.loads(line))
        return Status(*map(found.get, ("child-pid", "pid-namespace", "exit-code", "server-pid")))

    def tail(self, lines: int) -> list[str]:
        """The last lines of what it printed: the launcher's complaints first, then its log."""
        last: deque[str] = deque(maxlen=max(lines, 0))
        for part in (self.path / "start.log", self.path / "box" / "log.1", self.path / "box" / "log"):
            last.extend(read_bounded(part, TAIL_BYTES_MAX).decode(errors="replace").splitlines())
        return list(last)

    def whole_log(self) -> bytes:
        """Everything of its log that is still there, oldest first."""
        parts = (self.path / "start.log", self.path / "box" / "log.1", self.path / "box" / "log")
        return b"".join(read_bounded(part, LOG_BYTES_MAX) for part in parts)

    def remove(self) -> None:
        """Delete the folder: out of the way first, so that a crash in between leaves nothing that looks like a slot."""
        trash = self.path.with_name(f".{self.slot_id}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def read_bounded(path: Path, bytes_max: int = _SMALL_FILE_BYTES_MAX) -> bytes:
    """The last `bytes_max` bytes of a regular file; empty for anything else, links included."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        os.close(fd)
        return b""
    with open(fd, "rb") as file:
        file.seek(max(0, facts.st_size - bytes_max))
        return file.read(bytes_max)


def _load(path: Path, kind: type[_T]) -> _T | None:
    text = read_bounded(path)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None

"""Makes slots: a folder, a user id and control groups for each, and a fingerprint that tells slots of another
Eyrie apart.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import eyrie
from eyrie.adapters import ending
from eyrie.adapters.cgroups import Cgroups
from eyrie.adapters.launch import Launcher, LaunchFailed
from eyrie.adapters.sandbox import RESERVED_UIDS
from eyrie.adapters.slots import Slot, SlotRecord
from eyrie.domain.kinds import PLAIN
from eyrie.ports import Clock

_SOURCES = ("modelserver", "http1", "domain", "adapters/sandbox.py", "adapters/seccomp.py", "adapters/launch.py")


@dataclass(slots=True)
class SlotMaker:
    """Makes and starts slots under one data directory."""

    data: Path
    launcher: Launcher
    groups: Cgroups
    clock: Clock
    fingerprint: str
    _uids: dict[str, int] = field(default_factory=dict)  # slot id -> the user id that it has
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def isolation(self) -> str:
        """What new slots get: "bubblewrap" or "process"."""
        return self.launcher.isolation.kind

    def make(self, kind: str = PLAIN) -> Slot:
        """A new slot of a kind on disk, not started. Raises LaunchFailed."""
        try:
            (self.data / "slots").mkdir(parents=True, exist_ok=True)
            slot = Slot(self.data / "slots" / secrets.token_hex(6))
            slot.path.mkdir(mode=0o700)
            (slot.path / "ml").mkdir(mode=0o755)
            groups = self.groups.create(slot.slot_id)
            uid = self._take_uid(slot.slot_id)
            record = SlotRecord(self.fingerprint, self.isolation, uid, groups, self.clock.now_ms(), kind)
            slot.write("slot.json", record)
        except OSError as fault:
            raise LaunchFailed(f"a slot could not be made: {fault}") from fault
        return slot

    def start(self, slot: Slot) -> None:
        """Start its server. Raises LaunchFailed."""
        record = slot.record()
        if record is None:
            raise LaunchFailed(f"slot {slot.slot_id} has no record")
        try:
            self.launcher.start(slot, record)
        except OSError as fault:
            raise LaunchFailed(f"slot {slot.slot_id} could not be furnished: {fault}") from fault

    def adopt(self, slot: Slot, record: SlotRecord) -> None:
        """Count a slot that was found on disk."""
        if record.uid is not None:
            with self._lock:
                self._uids[slot.slot_id] = record.uid

    def discard(self, slot: Slot) -> None:
        """End and remove a slot that is no instance."""
        ending.kill(slot)
        ending.discard(slot, slot.record())
        self.release(slot)

    def release(self, slot: Slot) -> None:
        """Give back what a removed slot had."""
        with self._lock:
            self._uids.pop(slot.slot_id, None)

    def _take_uid(self, slot_id: str) -> int | None:
        uids = self.launcher.isolation.uids
        if uids is None:
            return None
        first, count = uids[0], uids[1] - RESERVED_UIDS
        with self._lock:
            taken = set(self._uids.values())
            if len(taken) >= count:
                raise LaunchFailed(f"all {count} user ids for instances are in use")
            start = secrets.randbelow(count)
            uid = next(u for i in range(count) if (u := first + (start + i) % count) not in taken)
            self._uids[slot_id] = uid
        return uid


def fingerprint(launcher: Launcher) -> str:
    """What a waiting slot must have in common with a new one: Eyrie's version and sources, Python, and the settings."""
    told = hashlib.sha256()
    given = (eyrie.__version__, sys.version, launcher.server, launcher.imports, launcher.log_bytes_max)
    told.update(repr((given, launcher.isolation.kind, launcher.isolation.uids)).encode())
    package = Path(eyrie.__file__).parent
    for name in _SOURCES:
        for path in sorted((package / name).rglob("*.py")) or [package / name]:
            facts = os.stat(path)
            told.update(f"{path.relative_to(package)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return told.hexdigest()

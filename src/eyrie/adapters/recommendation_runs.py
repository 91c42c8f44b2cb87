"""Inference recommendations jobs on this host: `DATA/jobs/RUN/`, a run's folder beside those of other jobs.

    RUN/run.json       what its program is told: the job, and how the API is reached
    RUN/attempt.json   which beginning of the program this is
    RUN/stop.json      by when it is killed that was asked to end
    RUN/box/           the program's: log, progress.json, result.json, and `removed`

The program (`eyrie.recommender`) is a client of the public API and makes endpoints of its own. Where it ended without
having removed them, whatever ended it, it is started once more just for that: a run is forgotten when nothing is left.
Control may die at any point between two calls.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from eyrie.adapters import ending, sandbox
from eyrie.adapters.job_runs import archive, launched, read_json
from eyrie.adapters.launch import Launcher, LaunchFailed, Server
from eyrie.adapters.sandbox import PROCESS, Isolation
from eyrie.adapters.slots import Ending, Slot, SlotRecord, read_bounded
from eyrie.domain.jobs import Job, RunSeen
from eyrie.domain.recommendation import Ledger, TrialState
from eyrie.ports import Clock, StartRefused
from eyrie.settings import Settings

log = logging.getLogger("eyrie.jobs")

PROGRAM = "eyrie.recommender"
REMOVE_WITHIN_S = 240.0  # for a program that was asked to end
SWEEP_AGAIN_S = 15.0
LEDGER_BYTES_MAX = 4 << 20
_RUN = re.compile(r"r-[0-9a-f]{16}")
_LEFT = ("lock", "lock.new", "status", "exit.json", "stop.json")  # of a program that was started before
_RESULT, _REMOVED = "result.json", "removed"


class RecommendationRuns:
    """The JobRuns port for inference recommendations jobs. One a data directory, in the control process."""

    def __init__(self, settings: Settings, keys: Path | None, clock: Clock, note: str) -> None:
        """`keys`: credentials.json; None with `--auth off`. `note`: what holds for all figures of this host."""
        self._settings, self._data, self._root = settings, settings.data, settings.data / "jobs"
        self._keys, self._clock, self._note = keys, clock, note
        self._root.mkdir(mode=0o700, exist_ok=True)

    def fetch(self, job: Job) -> None:
        """Nothing is fetched here: its endpoints fetch their models."""
        self._slot(job.run_id).path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(self, job: Job) -> None:
        """Start its program, unless this attempt's was. Raises StartRefused."""
        slot = self._slot(job.run_id)
        if launched(slot) and self._attempt(slot) >= job.attempt:
            return
        mission = {
            "scope": job.key.scope,
            "job": job.key.name,
            "run_id": job.run_id,
            "data": str(self._data),
            "keys": str(self._keys) if self._keys else "",
            "order": job.spec.arguments["order"],
            "time_scale": self._settings.time_scale,
            "note": self._note,
            "sweep": False,
        }
        try:
            slot.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            slot.write("job.json", {"kind": job.key.kind, "scope": list(_scope(job)), "name": job.key.name})
            _clear(slot)
            slot.write("attempt.json", job.attempt)  # before the launch: a crash in between leaves one that never ran
            self._launch(slot, mission)
        except (LaunchFailed, OSError) as fault:
            raise StartRefused(f"InternalError: the job could not be started: {fault}") from fault

    def inventory(self) -> list[RunSeen]:
        """Everything that is here of any job of this kind."""
        return [self._seen(Slot(path)) for path in sorted(self._root.iterdir()) if _RUN.fullmatch(path.name)]

    def stop(self, run_id: str) -> None:
        """Ask its program to remove what it made, and to end; kill it when it takes too long. Returns at once."""
        slot = self._slot(run_id)
        now_ms = time.time_ns() // 1_000_000
        asked = slot.ending()
        if asked is None:
            slot.write("stop.json", Ending(int(now_ms + REMOVE_WITHIN_S * 1000)))
            ending.terminate(slot)
        elif now_ms > asked.kill_at_ms:
            ending.kill(slot)

    def upload(self, job: Job) -> dict[str, str]:
        """What it found is in its progress."""
        return {}

    def forget(self, run_id: str) -> None:
        """Have removed what its program made and left, keep its log, remove the rest. To be repeated until then."""
        slot = self._slot(run_id)
        if slot.alive() or not slot.path.exists():
            return
        mission = read_json(slot.path / "run.json")
        if mission and not (slot.path / "box" / _REMOVED).exists():
            self._have_swept(slot, mission)
            return
        archive(slot, self._data)
        slot.remove()

    def _have_swept(self, slot: Slot, mission: dict[str, Any]) -> None:
        """Start the program to remove what is left, unless it was begun just now. Raises LaunchFailed, OSError."""
        try:
            begun_s = (slot.path / "slot.json").stat().st_mtime
        except FileNotFoundError:
            begun_s = 0.0
        if mission["sweep"] and abs(time.time() - begun_s) < SWEEP_AGAIN_S:
            return
        log.info("%s: what it left is being removed", slot.slot_id)
        self._launch(slot, {**mission, "sweep": True})

    def _launch(self, slot: Slot, mission: dict[str, Any]) -> None:
        _clear(slot)
        (slot.path / "box").mkdir(mode=0o700, exist_ok=True)
        for name in (_RESULT, _REMOVED):
            (slot.path / "box" / name).unlink(missing_ok=True)
        slot.write("run.json", mission)
        record = SlotRecord("recommender", PROCESS, None, (), self._clock.now_ms())
        slot.write("slot.json", record)
        server = Server((sys.executable, "-I", "-B", "-u", "-m", PROGRAM), tuple(sandbox.runtime_paths()))
        plain = Isolation(PROCESS, "Eyrie's own program")
        Launcher(plain, server, self._data, (), self._settings.log_bytes_max).start(slot, record)

    def _attempt(self, slot: Slot) -> int:
        text = read_bounded(slot.path / "attempt.json")
        return int(text) if text.isdigit() else -1

    def _seen(self, slot: Slot) -> RunSeen:
        ledger = _ledger(slot)
        facts: dict[str, Any] = {
            "attempt": max(0, self._attempt(slot)),
            "done": sum(test.state is not TrialState.IN_PROGRESS for test in ledger.tests) if ledger else 0,
            "progress": _plain(ledger) if ledger else {},
        }
        if not launched(slot):
            return RunSeen(slot.slot_id, started=False, alive=False, **facts)
        if slot.alive():
            return RunSeen(slot.slot_id, started=True, alive=True, **facts)
        record = slot.record()
        reason = ending.bury(slot, record) if record is not None else "its record is gone"
        error = str(read_json(slot.path / "box" / _RESULT).get("error", ""))[:900]
        code = slot.status().exit_code
        return RunSeen(slot.slot_id, started=True, alive=False, exit_code=code, ending=reason, error=error, **facts)

    def _slot(self, run_id: str) -> Slot:
        if not _RUN.fullmatch(run_id):
            raise ValueError(f"not a run: {run_id!r}")
        return Slot(self._root / run_id)


def _plain(ledger: Ledger) -> dict[str, Any]:
    """As a document gives it back, lists and all: what is told again is known to be the same."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(ledger))
    return found


def _clear(slot: Slot) -> None:
    """Nothing of a program that was started before is in the way."""
    for name in _LEFT:
        (slot.path / name).unlink(missing_ok=True)


def _scope(job: Job) -> tuple[str, str]:
    return job.key.account, job.key.region


def _ledger(slot: Slot) -> Ledger | None:
    text = read_bounded(slot.path / "box" / "progress.json", LEDGER_BYTES_MAX)
    try:
        return msgspec.json.decode(text, type=Ledger) if text else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None

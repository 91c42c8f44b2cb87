"""Runs jobs in sandboxes on this host: `DATA/jobs/RUN/`, a folder of the same form as a slot, whose server is the job's
program.

    RUN/ml/     seen by the program as /opt/ml, read-only: job.json, and a folder for each input
    RUN/box/    seen as /run/eyrie: log, result.json, output.tar.gz

What makes a slot safe makes a job safe: it is its lock, nobody's child, with a user id and control groups of its own,
no network, and nothing in its box is believed. Control may die at any point between two calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from eyrie.adapters import cgroups, ending, sandbox
from eyrie.adapters.artifacts import S3Artifacts, bucket_and_key, signing_key
from eyrie.adapters.compute_process import group_name
from eyrie.adapters.launch import Launcher, LaunchFailed, Server
from eyrie.adapters.s3_client import S3Client, S3Refused
from eyrie.adapters.sandbox import RESERVED_UIDS, Isolation
from eyrie.adapters.slots import Slot, SlotRecord, Status, read_bounded
from eyrie.domain.jobs import Job, RunSeen
from eyrie.ports import ArtifactError, Clock, StartRefused
from eyrie.settings import Settings

log = logging.getLogger("eyrie.jobs")

PROGRAMS: Mapping[str, str] = {"compile": "eyrie.modelserver.compile"}  # program -> the module that is run
OUTPUT, RESULT = "output.tar.gz", "result.json"
OUTPUT_BYTES_MAX = 8 << 30
BOX_BYTES_MAX = 2 * OUTPUT_BYTES_MAX
BOX_FILES_MAX = 10_000
ERROR_CHARACTERS_MAX = 900  # FailureReason holds 1,024
LOGS_MAX = 500  # of jobs that are forgotten, all kinds together
_RUN = re.compile(r"j-[0-9a-f]{16}")
_PIECE_BYTES = 1 << 20
_PAUSE_S = 0.02
KILL_WAIT_S = 5.0


class ProcessJobRuns:
    """The JobRuns port by processes. One a data directory, in the control process."""

    def __init__(
        self,
        settings: Settings,
        isolation: Isolation,
        artifacts: S3Artifacts,
        keys: Path | None,
        clock: Clock,
        programs: Mapping[str, str] = PROGRAMS,
    ) -> None:
        """`keys`: credentials.json; None with `--auth off`."""
        self._data, self._root = settings.data, settings.data / "jobs"
        self._isolation = isolation
        self._groups = cgroups.detect(f"{group_name(settings.data)}-jobs")  # apart from the instances', which are swept
        self._artifacts, self._keys, self._clock = artifacts, keys, clock
        self._log_bytes_max, self._programs = settings.log_bytes_max, programs
        self._uids = threading.Lock()
        self._root.mkdir(mode=0o700, exist_ok=True)
        for trash in self._root.glob(".*"):
            shutil.rmtree(trash, ignore_errors=True)
        self._groups.sweep(lambda run_id: (self._root / run_id).exists())

    def fetch(self, job: Job) -> None:
        """Download and unpack its inputs. Raises ArtifactError, OSError."""
        slot = self._slot(job.run_id)
        (slot.path / "ml").mkdir(mode=0o755, parents=True, exist_ok=True)
        slot.path.chmod(0o700)
        for name, url in job.spec.inputs.items():
            folder = slot.path / "ml" / name
            if not folder.is_dir():
                self._artifacts.download(job.key.scope, url, folder)

    def start(self, job: Job) -> None:
        """Start its program, unless it was ever started. Raises StartRefused."""
        slot = self._slot(job.run_id)
        if launched(slot):
            return
        try:
            for left in ("lock", "lock.new"):  # of a launch that did not come about
                (slot.path / left).unlink(missing_ok=True)
            record = slot.record() or self._furnish(slot, job)
            for failure in cgroups.limit(record.groups, job.spec.vcpu_milli, job.spec.memory_mb):
                log.warning("%s: %s", job.run_id, failure)
            self._launcher(job.spec.program).start(slot, record)
        except (LaunchFailed, OSError) as fault:
            raise StartRefused(f"InternalError: the job could not be started: {fault}") from fault

    def inventory(self) -> list[RunSeen]:
        """Everything that is here of any job."""
        return [_seen(Slot(path)) for path in sorted(self._root.iterdir()) if _RUN.fullmatch(path.name)]

    def stop(self, run_id: str) -> None:
        """Kill its program; returns without waiting."""
        ending.kill(self._slot(run_id))

    def upload(self, job: Job) -> dict[str, str]:
        """Store its output; its URL and digest. Raises ArtifactError, OSError."""
        bucket, prefix = bucket_and_key(job.spec.output_url)
        key = "/".join(part for part in (prefix.strip("/"), str(job.spec.arguments["output"])) if part)
        url = f"s3://{bucket}/{key}"
        scope = job.key.scope
        with _output(self._slot(job.run_id).path / "box" / OUTPUT) as file:
            size = os.fstat(file.fileno()).st_size
            digest = _digest(file)
            client = S3Client(self._data / "run" / "objects.sock", signing_key(self._keys, scope), scope.region)
            with client:
                try:
                    client.put(bucket, key, file, size)
                except S3Refused as refused:
                    raise ArtifactError(f"ClientError: could not write {url}: {refused}") from None
        return {"artifact": url, "digest": digest}

    def forget(self, run_id: str) -> None:
        """Remove what is left of a job that is over; its log moves to the archive. No-op while its program lives."""
        slot = self._slot(run_id)
        if slot.alive() or not slot.path.exists():
            return
        archive(slot, self._data)
        ending.discard(slot, slot.record())

    def _slot(self, run_id: str) -> Slot:
        if not _RUN.fullmatch(run_id):
            raise ValueError(f"not a run: {run_id!r}")
        return Slot(self._root / run_id)

    def _furnish(self, slot: Slot, job: Job) -> SlotRecord:
        """What its program is told, and who it will be."""
        (slot.path / "ml" / "job.json").write_text(json.dumps(dict(job.spec.arguments)))
        (slot.path / "ml" / "job.json").chmod(0o644)
        slot.write("job.json", {"kind": job.key.kind, "scope": [job.key.account, job.key.region], "name": job.key.name})
        groups = self._groups.create(slot.slot_id)
        with self._uids:
            record = SlotRecord("job", self._isolation.kind, self._free_uid(), groups, self._clock.now_ms())
            slot.write("slot.json", record)
        return record

    def _free_uid(self) -> int | None:
        """A user id of those that are kept for jobs, and that no other job has."""
        uids = self._isolation.uids
        if uids is None:
            return None
        records = (Slot(path).record() for path in self._root.iterdir() if _RUN.fullmatch(path.name))
        taken = {record.uid for record in records if record is not None}
        last = sum(uids) - 1  # builds requirements
        free = next((uid for uid in range(last - RESERVED_UIDS + 1, last) if uid not in taken), None)
        if free is None:
            raise LaunchFailed(f"all {RESERVED_UIDS - 1} user ids for jobs are in use")
        return free

    def _launcher(self, program: str) -> Launcher:
        command = (sys.executable, "-I", "-B", "-u", "-m", self._programs[program])
        server = Server(command, tuple(sandbox.runtime_paths()))
        return Launcher(self._isolation, server, self._data, (), self._log_bytes_max)


def archive(slot: Slot, data: Path) -> None:
    """Put the log of a run where those of the gone are: `logs/jobs/KIND/ACCOUNT.REGION.NAME.log`, of the newest run of
    that name.
    """
    given = read_json(slot.path / "job.json")
    if not given:
        return
    folder = data / "logs" / "jobs" / str(given["kind"])
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{slot.slot_id}.new"
    new.write_bytes(slot.whole_log())
    new.rename(folder / f"{'.'.join(given['scope'])}.{given['name']}.log")
    by_age = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for old in by_age[:-LOGS_MAX]:
        old.unlink(missing_ok=True)
        shutil.rmtree(old.with_suffix(""), ignore_errors=True)  # the logs of its instances, where it had some


def end_all(data: Path) -> int:
    """Kill every job of a data directory, and remove its sandbox: the next control begins it again, or, where it is
    resumable, goes on with what is left. How many ran.

    What `eyrie down` calls, without control.
    """
    ended = 0
    for path in sorted((data / "jobs").glob("[jrt]-*")):
        slot = Slot(path)
        if slot.alive():
            ended += 1
            ending.kill(slot)
            deadline = time.monotonic() + KILL_WAIT_S
            while slot.alive() and time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
        if path.name.startswith("j-"):
            ending.discard(slot, slot.record())
    return ended


def launched(slot: Slot) -> bool:
    """Whether its program was ever begun: it lives, or the launcher has said something of it."""
    return slot.started and (slot.alive() or slot.status() != Status())


def _seen(slot: Slot) -> RunSeen:
    if not launched(slot):
        return RunSeen(slot.slot_id, started=False, alive=False)
    if slot.alive():
        return RunSeen(slot.slot_id, started=True, alive=True, excess=_excess(slot.path / "box"))
    record = slot.record()
    reason = ending.bury(slot, record) if record is not None else "its record is gone"
    error = str(read_json(slot.path / "box" / RESULT).get("error", ""))[:ERROR_CHARACTERS_MAX]
    code = slot.status().exit_code
    return RunSeen(slot.slot_id, started=True, alive=False, exit_code=code, ending=reason, error=error)


def _excess(box: Path) -> str:
    """Why a program must be ended for what it wrote, or ""."""
    files = size = 0
    for folder, _, names in os.walk(box):
        for name in names:
            files += 1
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_blocks * 512
        if files > BOX_FILES_MAX or size > BOX_BYTES_MAX:
            return f"ClientError: the job wrote {files} files and {size} bytes, more than it may"
    return ""


def _output(path: Path) -> IO[bytes]:
    """What the program made, if it is a regular file of an allowed size. Raises ArtifactError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise ArtifactError("InternalError: the program ended well, and left no output") from None
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > OUTPUT_BYTES_MAX:
        os.close(fd)
        raise ArtifactError(f"ClientError: the output is no file, or larger than {OUTPUT_BYTES_MAX} bytes")
    return open(fd, "rb")


def _digest(file: IO[bytes]) -> str:
    sums = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        sums.update(piece)
    file.seek(0)
    return sums.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object, whoever wrote it; empty where it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        given = json.loads(read_bounded(path))
        if isinstance(given, dict):
            return given
    return {}

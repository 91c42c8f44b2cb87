"""Transform jobs on this host: `DATA/jobs/RUN/`, a run's folder beside those of other jobs, and instances of its own.

    RUN/run.json, seats.json   what its program is told: the job, where the instances are now
    RUN/place.json             which cluster has the model asked; "": none, instances here do
    RUN/resolved.json          digests of the model archives that it needs
    RUN/attempt.json           which beginning of the program this is
    RUN/box/                   the program's: log, marks, results that are on their way, result.json

Instances are compute's, as those of endpoints are, with the caps of their type; one that is gone is replaced. The
program (`eyrie.transform`) reads and writes the bucket, and knows instances by their sockets. Where EYRIE_COMPUTE names
a Ray cluster there are no instances: another program (`eyrie.raydata`) has the cluster do their work. Control may die
at any point between two calls.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from eyrie.adapters import ending, sandbox
from eyrie.adapters.artifacts import bucket_and_key, signing_key
from eyrie.adapters.described import described
from eyrie.adapters.job_runs import archive, launched, read_json
from eyrie.adapters.launch import Launcher, LaunchFailed, Server
from eyrie.adapters.s3_client import S3Client, S3Refused
from eyrie.adapters.sandbox import PROCESS, Isolation
from eyrie.adapters.shared_archives import SharedArchives
from eyrie.adapters.slots import Slot, SlotRecord, read_bounded
from eyrie.decide.transform_plan import kept_from_cluster, output_key, shares
from eyrie.domain.cluster import Cluster, cluster_of
from eyrie.domain.fleet import JOB_INSTANCE, ContainerSpec, InstanceSpec, ObservedInstance
from eyrie.domain.jobs import Job, RunSeen
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import Execution
from eyrie.domain.transform import InputObject, Mark, Progress, Seat, TransformSpec
from eyrie.ports import Clock, Compute, StartRefused
from eyrie.settings import Settings

described(Mark, Progress, list[Seat], TransformSpec, list[InputObject], list[ContainerSpec])  # in several threads

log = logging.getLogger("eyrie.jobs")

PROGRAM, CLUSTER_PROGRAM = "eyrie.transform", "eyrie.raydata"
CLUSTER_FOLDER_FILE = "cluster-folder"  # in the box: where the sockets of a cluster of the run's own are
CLUSTER_FOLDER = re.compile(r"/tmp/eyrie-ray-[A-Za-z0-9_]{1,40}")
VARIANT = "transform"
REPLACEMENTS_MAX = 3  # of an instance in a row, without its share getting any further
MARK_BYTES_MAX = 4 << 20
_RUN = re.compile(r"t-[0-9a-f]{16}")
_LEFT = ("lock", "lock.new", "status", "exit.json", "stop.json")  # of a program that was started before
_RESULT = "result.json"


class TransformRuns:
    """The JobRuns port for transform jobs. One a data directory, in the control process."""

    def __init__(
        self, settings: Settings, compute: Compute, archives: SharedArchives, keys: Path | None, clock: Clock
    ) -> None:
        """`keys`: credentials.json; None with `--auth off`."""
        self._settings, self._data, self._root = settings, settings.data, settings.data / "jobs"
        self._compute, self._archives, self._keys, self._clock = compute, archives, keys, clock
        self._cluster = cluster_of(settings.compute)
        self._root.mkdir(mode=0o700, exist_ok=True)

    def fetch(self, job: Job) -> None:
        """Download and unpack its models. Raises ArtifactError, OSError."""
        slot = self._slot(job.run_id)
        slot.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (slot.path / "resolved.json").exists():
            return
        digests = [self._fetch(job, container) for container in containers_of(job)]
        with self._archives.held():
            gone = [d for d in digests if d is not None and not (self._archives.path(d) / "model").is_dir()]
            if gone:
                raise OSError("a model archive was removed just now")
            slot.write("resolved.json", digests)

    def _fetch(self, job: Job, container: ContainerSpec) -> str | None:
        if container.complete:
            return container.artifact
        submitted = container.environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "").strip('"')
        code = submitted if submitted.startswith("s3://") and not container.foreign else None
        return self._archives.fetch(job.key.scope, str(container.model_data_url), code)

    def start(self, job: Job) -> None:
        """Have its instances, and its program unless this attempt's was started. Raises StartRefused."""
        slot = self._slot(job.run_id)
        try:
            self._place(job, slot)
            self._seat(job, slot)
            if not (launched(slot) and self._attempt(slot) >= job.attempt):
                self._launch(job, slot)
        except (LaunchFailed, OSError) as fault:
            raise StartRefused(f"InternalError: the job could not be started: {fault}") from fault

    def inventory(self) -> list[RunSeen]:
        """Everything that is here of any transform job."""
        paths = [path for path in sorted(self._root.iterdir()) if _RUN.fullmatch(path.name)]
        if not paths:
            return []
        known = {one.instance_id: one for one in self._compute.inventory()}
        self._sweep(paths, known)
        return [self._seen(Slot(path), known) for path in paths]

    def stop(self, run_id: str) -> None:
        """Kill its program; returns without waiting."""
        ending.kill(self._slot(run_id))

    def upload(self, job: Job) -> dict[str, str]:
        """Its outputs are in the bucket already: where."""
        return {"output": job.spec.output_url}

    def forget(self, run_id: str) -> None:
        """End its instances, give up uploads that were never completed, keep its log, remove the rest. To be repeated
        until the instances are gone. Raises OSError.
        """
        slot = self._slot(run_id)
        if slot.alive() or not slot.path.exists():
            return
        known = {one.instance_id: one for one in self._compute.inventory()}
        for seat in _seats(slot):
            if seat.instance_id in known and known[seat.instance_id].alive:
                self._compute.stop(seat.instance_id, 0)
            self._compute.forget(seat.instance_id)
        left = {one.instance_id for one in self._compute.inventory()}
        if any(seat.instance_id in left for seat in _seats(slot)):
            return
        self._abort_uploads(slot)
        _remove_cluster_folder(slot)
        archive(slot, self._data)
        slot.remove()

    def held(self) -> set[str]:
        """Digests of the archives that runs need."""
        if not self._root.is_dir():
            return set()
        lists = (_load(path / "resolved.json", list[str | None]) or [] for path in self._root.glob("t-*"))
        return {digest for digests in lists for digest in digests if digest is not None}

    # ----------------------------------------------------------------------------------------------------- the program
    def _launch(self, job: Job, slot: Slot) -> None:
        for name in _LEFT:
            (slot.path / name).unlink(missing_ok=True)
        (slot.path / "box").mkdir(mode=0o700, exist_ok=True)
        (slot.path / "box" / _RESULT).unlink(missing_ok=True)
        slot.write("job.json", {"kind": job.key.kind, "scope": [job.key.account, job.key.region], "name": job.key.name})
        slot.write("run.json", self._order(job) | self._cluster_order(job, slot))
        slot.write("attempt.json", job.attempt)
        record = SlotRecord("transform", PROCESS, None, (), self._clock.now_ms())
        slot.write("slot.json", record)
        program = CLUSTER_PROGRAM if _placed(slot) else PROGRAM
        server = Server((sys.executable, "-I", "-B", "-u", "-m", program), tuple(sandbox.runtime_paths()))
        plain = Isolation(PROCESS, "Eyrie's own program")
        Launcher(plain, server, self._data, (), self._settings.log_bytes_max).start(slot, record)

    def _order(self, job: Job) -> dict[str, Any]:
        return {
            "scope": job.key.scope,
            "job": job.key.name,
            "objects_socket": str(self._data / "run" / "objects.sock"),
            "keys": str(self._keys) if self._keys else "",
            "spec": transform_of(job),
        }

    def _place(self, job: Job, slot: Slot) -> None:
        """Decide once where the model is asked: a run that is taken up again stays there."""
        if (slot.path / "place.json").exists():
            return
        address, why = "", ""
        if self._cluster is not None:
            why = self._kept_here(job, slot)
            address = "" if why else self._cluster.url
            log.info("%s: %s", job.key.name, f"by instances here: {why}" if why else f"by {self._cluster.url}")
        slot.write("place.json", address)

    def _kept_here(self, job: Job, slot: Slot) -> str:
        """Why instances here have to do a job, although there is a cluster; "": they have not."""
        digests = _load(slot.path / "resolved.json", list[str | None]) or []
        asking = any(
            (self._archives.path(digest) / "model" / "code" / "requirements.txt").is_file()
            for digest in digests
            if digest is not None
        )
        return kept_from_cluster(transform_of(job), containers_of(job), asking)

    def _cluster_order(self, job: Job, slot: Slot) -> dict[str, Any]:
        """What the program of a cluster is told besides: there is one share, and so many workers."""
        url = _placed(slot)
        if not url:
            return {}
        spec, (container,) = transform_of(job), containers_of(job)
        (digest,) = _load(slot.path / "resolved.json", list[str | None]) or [None]
        if digest is None:
            raise OSError("the model's archive is not here")
        cluster = Cluster.of(url)
        told = {
            "address": cluster.address,
            "endpoint": cluster.endpoint or f"http://{_reached(self._settings.host)}:{self._settings.port}",
            "actors": spec.instances * int(job.spec.arguments["workers"]),
            "package": str(self._archives.path(digest)),
            "environment": container.environment,
            "image": container.image,
        }
        return {"spec": replace(spec, instances=1), "cluster": told}

    def _attempt(self, slot: Slot) -> int:
        return _load(slot.path / "attempt.json", int) or 0

    def _seen(self, slot: Slot, known: Mapping[str, ObservedInstance]) -> RunSeen:
        told = _load(slot.path / "box" / "progress.json", Progress)
        facts: dict[str, Any] = {
            "attempt": self._attempt(slot),
            "done": sum(_steps(mark) for mark in _marks(slot)),
            "progress": {**msgspec.to_builtins(told), "percent": round(told.percent, 1)} if told else {},
        }
        if not launched(slot):
            return RunSeen(slot.slot_id, started=False, alive=False, **facts)
        if slot.alive():
            gone = [seat for seat in _seats(slot) if not _sits(seat, known)]
            lacking = f"instance {gone[0].instance_id} is gone" if gone else ""
            return RunSeen(slot.slot_id, started=True, alive=True, lacking=lacking, **facts)
        record = slot.record()
        reason = ending.bury(slot, record) if record is not None else "its record is gone"
        error = str(read_json(slot.path / "box" / _RESULT).get("error", ""))[:900]
        code = slot.status().exit_code
        return RunSeen(slot.slot_id, started=True, alive=False, exit_code=code, ending=reason, error=error, **facts)

    # --------------------------------------------------------------------------------------------------- its instances
    def _seat(self, job: Job, slot: Slot) -> None:
        """Have an instance at each of its seats. Raises StartRefused."""
        if _placed(slot):
            slot.write("seats.json", [])
            return
        known = {one.instance_id: one for one in self._compute.inventory()}
        before = _seats(slot) or [
            Seat(number, _instance_id(), workers=int(job.spec.arguments["workers"]), foreign=_foreign(job))
            for number in range(transform_of(job).instances)
        ]
        marks = [read_mark(slot, seat.number) for seat in before]
        seats = [self._filled(seat, mark, known) for seat, mark in zip(before, marks, strict=True)]
        slot.write("seats.json", seats)  # before any of them is started: whoever comes next knows them
        digests = _load(slot.path / "resolved.json", list[str | None]) or []
        for seat in seats:
            self._compute.ensure(instance_spec(job, seat.instance_id, digests, self._settings.zones[0]))
        sockets = {one.instance_id: one.socket for one in self._compute.inventory()}
        slot.write("seats.json", [replace(seat, socket=sockets.get(seat.instance_id, "")) for seat in seats])

    def _filled(self, seat: Seat, mark: Mark, known: Mapping[str, ObservedInstance]) -> Seat:
        """The seat, with another instance where the one before is gone. Raises StartRefused."""
        if not seat.socket or _sits(seat, known):
            return seat
        further = _steps(mark) > seat.replaced_at
        replaced = 1 if further else seat.replaced + 1
        if replaced >= REPLACEMENTS_MAX:
            gone = known.get(seat.instance_id)
            why = (gone.exit_reason if gone else None) or "it is gone"
            raise StartRefused(
                f"ClientError: the instance ended {replaced} times without getting any further: {why}. "
                "See the job's log."
            )
        log.warning("instance %s is gone: another one takes its place", seat.instance_id)
        return replace(seat, instance_id=_instance_id(), socket="", replaced=replaced, replaced_at=_steps(mark))

    def _sweep(self, paths: Sequence[Path], known: Mapping[str, ObservedInstance]) -> None:
        """End and forget instances of jobs that have no seat any more."""
        seated = {seat.instance_id for path in paths for seat in _seats(Slot(path))}
        for instance_id, one in known.items():
            if instance_id.startswith(JOB_INSTANCE) and instance_id not in seated:
                if one.alive:
                    self._compute.stop(instance_id, 0)
                self._compute.forget(instance_id)

    # --------------------------------------------------------------------------------------------------------- the end
    def _abort_uploads(self, slot: Slot) -> None:
        """Forget uploads that will never be completed. Raises S3Unavailable."""
        order = read_json(slot.path / "run.json")
        begun = [(number, mark) for number, mark in enumerate(_marks(slot)) if mark.upload_id]
        if not order or not begun:
            return
        spec = msgspec.convert(order["spec"], TransformSpec)
        scope = EndpointKey(order["scope"]["account"], order["scope"]["region"], "").scope
        found = _load(slot.path / "box" / "work.json", dict[str, Any], 1 << 30) or {"objects": []}
        dealt = shares(msgspec.convert(found["objects"], list[InputObject]), spec.instances)
        bucket, prefix = bucket_and_key(spec.output_url)
        with S3Client(Path(order["objects_socket"]), signing_key(self._keys, scope), scope.region) as client:
            for number, mark in begun:
                if mark.index < len(dealt[number]):
                    key = output_key(prefix, dealt[number][mark.index].name)
                    with contextlib.suppress(S3Refused):
                        client.abort_upload(bucket, key, mark.upload_id)

    def _slot(self, run_id: str) -> Slot:
        if not _RUN.fullmatch(run_id):
            raise ValueError(f"not a run: {run_id!r}")
        return Slot(self._root / run_id)


class EndpointInstances:
    """The Compute port as endpoints see it: without the instances of jobs, which are not theirs to end."""

    def __init__(self, inner: Compute) -> None:
        self._inner = inner
        self.ensure, self.stop, self.forget = inner.ensure, inner.stop, inner.forget
        self.tail, self.cpu_us = inner.tail, inner.cpu_us

    def inventory(self) -> list[ObservedInstance]:
        """Every instance but those of jobs."""
        return [one for one in self._inner.inventory() if not one.instance_id.startswith(JOB_INSTANCE)]


class AllRuns:
    """The JobRuns port over several, by the first letter of a run's id."""

    def __init__(self, by_letter: Mapping[str, Any]) -> None:
        self._by_letter = by_letter

    def fetch(self, job: Job) -> None:
        """Download and unpack its inputs. Raises ArtifactError, OSError."""
        self._of(job.run_id).fetch(job)

    def start(self, job: Job) -> None:
        """Start its program. Raises StartRefused."""
        self._of(job.run_id).start(job)

    def inventory(self) -> list[RunSeen]:
        """Everything that is here of any job."""
        return [seen for runs in self._by_letter.values() for seen in runs.inventory()]

    def stop(self, run_id: str) -> None:
        """Kill its program; returns without waiting."""
        self._of(run_id).stop(run_id)

    def upload(self, job: Job) -> dict[str, str]:
        """Store its outputs. Raises ArtifactError, OSError."""
        outputs: dict[str, str] = self._of(job.run_id).upload(job)
        return outputs

    def forget(self, run_id: str) -> None:
        """Remove what is left of a job that is over."""
        self._of(run_id).forget(run_id)

    def _of(self, run_id: str) -> Any:
        return self._by_letter[run_id[:1]]


def transform_of(job: Job) -> TransformSpec:
    """What a transform job was asked for."""
    return msgspec.convert(job.spec.arguments["transform"], TransformSpec)


def containers_of(job: Job) -> list[ContainerSpec]:
    """The containers of its model."""
    return msgspec.convert(job.spec.arguments["containers"], list[ContainerSpec])


def instance_spec(job: Job, instance_id: str, digests: Sequence[str | None], zone: str) -> InstanceSpec:
    """What one of its instances is."""
    containers = containers_of(job)
    return InstanceSpec(
        instance_id=instance_id,
        endpoint=EndpointKey(job.key.account, job.key.region, job.key.name),
        variant=VARIANT,
        zone=zone,
        generation=1,
        instance_type=str(job.spec.arguments["instance_type"]),
        vcpu_milli=job.spec.vcpu_milli,
        memory_mb=job.spec.memory_mb,
        containers=tuple(replace(c, artifact=d) for c, d in zip(containers, digests, strict=True)),
        startup_timeout_s=transform_of(job).startup_s,
        execution=Execution(job.spec.arguments["execution"]),
        workers=int(job.spec.arguments["workers"]),
    )


def read_mark(slot: Slot, number: int) -> Mark:
    """Where a share stands."""
    return _load(slot.path / "box" / f"share-{number}.json", Mark, MARK_BYTES_MAX) or Mark()


def _marks(slot: Slot) -> list[Mark]:
    return [read_mark(slot, number) for number in range(1 if _placed(slot) else len(_seats(slot)))]


def _placed(slot: Slot) -> str:
    """The cluster that does a job, as EYRIE_COMPUTE named it; "": instances here do."""
    return _load(slot.path / "place.json", str) or ""


def _remove_cluster_folder(slot: Slot) -> None:
    """What is left of a cluster of a run that was killed."""
    noted = (read_bounded(slot.path / "box" / CLUSTER_FOLDER_FILE, 200) or b"").decode("utf-8", "replace")
    if CLUSTER_FOLDER.fullmatch(noted):
        shutil.rmtree(noted, ignore_errors=True)


def _reached(host: str) -> str:
    """Where an Eyrie that listens on a host is reached from this one."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host


def _steps(mark: Mark) -> int:
    """How far a share is: only rises."""
    return mark.records + mark.index


def _seats(slot: Slot) -> list[Seat]:
    return _load(slot.path / "seats.json", list[Seat], MARK_BYTES_MAX) or []


def _sits(seat: Seat, known: Mapping[str, ObservedInstance]) -> bool:
    """Whether its instance lives; one that is being started is not gone."""
    one = known.get(seat.instance_id)
    return one is not None and one.alive


def _foreign(job: Job) -> bool:
    return any(container.foreign for container in containers_of(job))


def _instance_id() -> str:
    return JOB_INSTANCE + secrets.token_hex(9)[:17]


def _load(path: Path, kind: Any, bytes_max: int = 1 << 20) -> Any:
    text = read_bounded(path, bytes_max)
    try:
        return msgspec.json.decode(text, type=kind) if text else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None

"""Compute by process: instances are sandboxed model servers on this host, claimed from warm slots (the port `Compute`).

On the path of an action: `control/act` -> here -> a slot of the pool (or a new one) -> its model server. On the path
of an observation: the reconciler's look at the world -> `inventory` -> the locks. Instances are nobody's children and
outlive control; everything that must be known after a crash lies in `slots/ID/`, the order of writes makes each call
repeatable: the model's files, then `spec.json` (from here on the slot is this instance), then the claim.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from eyrie.adapters import cgroups, effort, ending, kinds_seen, sandbox
from eyrie.adapters.containers import Containers, Engine
from eyrie.adapters.dependencies import DependencyError, Requirements
from eyrie.adapters.image_store import ImageStore
from eyrie.adapters.instance_types import load_instance_types
from eyrie.adapters.kinds_seen import LastStarts
from eyrie.adapters.launch import Launcher, LaunchFailed, Server
from eyrie.adapters.launch_container import ContainerLauncher
from eyrie.adapters.placing import MODELS, PlacingFailed, container_folders, make_folder, place
from eyrie.adapters.sandbox import Isolation
from eyrie.adapters.slot_maker import SlotMaker, fingerprint
from eyrie.adapters.slots import Ending, Slot, SlotRecord
from eyrie.adapters.tending import DISK_SLACK_BYTES, Tending
from eyrie.adapters.warm_pool import WarmPool
from eyrie.decide import warmth
from eyrie.decide.warmth import How, Use
from eyrie.domain.fleet import ContainerSpec, InstanceSpec, ObservedInstance
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.domain.kinds import PLAIN
from eyrie.ports import Artifacts, Clock, InsufficientCapacity, StartRefused
from eyrie.settings import Settings

log = logging.getLogger("eyrie.compute")

_SAFE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]){0,127}")
_LOCKS = 64
ARCHIVED_LOGS_MAX = 20  # of one variant; the oldest go first


@dataclass(frozen=True, slots=True)
class Known:
    """An instance of this compute: its slot and what it runs."""

    slot: Slot
    record: SlotRecord
    spec: InstanceSpec
    started_ms: int
    kind: str  # of slot that it needs


class ProcessCompute:
    """Instances on this host. Safe from threads; `start` before use, `close` leaves every instance running."""

    def __init__(
        self,
        settings: Settings,
        artifacts: Artifacts,
        clock: Clock,
        on_death: Callable[[InstanceSpec], None] = lambda spec: None,
        server: Server | None = None,
        engine: Engine | str = "EYRIE_COMPUTE names none",
    ) -> None:
        """`on_death` is a hint, called from a thread of ours within milliseconds. `engine` runs images that a container
        engine holds; a text says why there is none. Raises SandboxUnavailable.
        """
        self._data, self._settings = settings.data, settings
        self._artifacts, self._clock = artifacts, clock
        self._types = load_instance_types(settings.data)
        server = server or Server.of_eyrie()
        self.isolation: Isolation = sandbox.detect(settings.sandbox, server.runtime)
        self.groups = cgroups.detect(group_name(settings.data))
        first, imports = kinds_seen.divided(settings.slot_imports)
        launcher = Launcher(self.isolation, server, settings.data, imports, settings.log_bytes_max)
        self._maker = SlotMaker(settings.data, launcher, self.groups, clock, fingerprint(launcher))
        self._pool = WarmPool(self._maker, settings.warm_slots, first, self._uses)
        self._installed, self._last_starts = kinds_seen.installed(), LastStarts(settings.data)
        contained = ContainerLauncher(
            self.isolation, server, settings.data, ImageStore(settings.data), settings.log_bytes_max
        )
        no_engine = engine if isinstance(engine, str) else ""
        self._containers = Containers(contained, None if isinstance(engine, str) else engine, no_engine)
        self._requirements = Requirements(self.isolation, settings.data)
        self._known: dict[str, Known] = {}
        self._coming: set[str] = set()  # instances whose ensure is under way and that are not in `_known` yet
        self._table = threading.Lock()  # of the two above
        self._locks = [threading.Lock() for _ in range(_LOCKS)]  # by instance id: one call an instance at a time
        self._tending = Tending(self._pool, on_death, settings.log_bytes_max + DISK_SLACK_BYTES, self._sweep)

    def start(self) -> None:
        """Take in what is on disk, then keep the pool full and ended instances buried, in a thread."""
        slots = list(ending.slots_of(self._data))
        for slot in sorted(slots, key=lambda slot: slot.spec() is None):  # instances first: they say what to keep warm
            self._adopt(slot)
        for trash in (self._data / "slots").glob(".*"):
            Slot(trash.with_name(trash.name[1:])).remove()
        self._sweep()
        log.info("isolation: %s; limits: %s", self.isolation.detail, self.groups.detail)
        self._tending.start()

    def close(self) -> None:
        """Stop the thread. Instances and waiting slots live on."""
        self._tending.close()

    def ensure(self, spec: InstanceSpec) -> None:
        """Make the instance run, unless it already does or ever did. Raises StartRefused, InsufficientCapacity."""
        _check_names(spec)
        with self._one(spec.instance_id):
            known = self._find(spec.instance_id)
            if known is not None:
                self._again(known, spec)
                return
            self._admit(spec)
            try:
                self._bring_up(spec)
            finally:
                with self._table:
                    self._coming.discard(spec.instance_id)

    def stop(self, instance_id: str, grace_ms: int) -> None:
        """SIGTERM, and SIGKILL after the grace (at once where it is 0). Returns without waiting; unknown ids pass."""
        with self._one(instance_id):
            known = self._find(instance_id)
            if known is None or not known.slot.alive():
                return
            already = known.slot.ending()
            kill_at_ms = int(time.time() * 1000) + max(grace_ms, 0)
            if already is None or kill_at_ms < already.kill_at_ms:
                known.slot.write("stop.json", Ending(kill_at_ms))
            if grace_ms <= 0:
                ending.kill(known.slot)
            elif already is None:
                ending.terminate(known.slot)
            self._tending.end_later(known.slot, min(kill_at_ms, already.kill_at_ms if already else kill_at_ms))

    def forget(self, instance_id: str) -> None:
        """Remove what is left of an instance that is gone; its log moves to the archive. No-op while it lives."""
        with self._one(instance_id):
            known = self._find(instance_id)
            if known is None or known.slot.alive():
                return
            ending.bury(known.slot, known.record, known.spec.memory_mb)
            archive(known.slot, known.spec, self._data)
            self._forget_slot(known.slot, instance_id)

    def inventory(self) -> list[ObservedInstance]:
        """Every instance that was started here, alive or gone but not forgotten."""
        with self._table:
            everything = list(self._known.values())
        return [self._observe(known) for known in everything if known.slot.started]

    def tail(self, instance_id: str, lines: int) -> list[str]:
        """The last lines of its log, also of one that was forgotten."""
        known = self._find(instance_id)
        if known is not None:
            return known.slot.tail(lines)
        if not _SAFE_NAME.fullmatch(instance_id):
            return []
        for path in (self._data / "logs" / "endpoints").glob(f"*/*/{instance_id}.log"):
            return path.read_text(errors="replace").splitlines()[-lines:]
        return []

    def cpu_us(self, instance_id: str) -> int | None:
        """CPU time that its processes have used, microseconds; None: not known, or one of them is stopped."""
        known = self._find(instance_id)
        return effort.cpu_us(known.slot, known.record) if known is not None else None

    def stats(self) -> dict[str, int]:
        """Sizes and counters: `pool_*` of the warm slots, `instances_*` of the instances."""
        alive = sum(one.alive for one in self.inventory())
        return {**self._pool.stats(), "instances_alive": alive, "instances_max": self._settings.instances_max}

    def warm_kinds(self) -> list[dict[str, int | str]]:
        """The warm slots by kind, and how claims found theirs."""
        return self._pool.kinds()

    def _uses(self) -> dict[str, Use]:
        """How much each kind of slot is used."""
        with self._table:
            counts = Counter(known.kind for known in self._known.values() if not known.spec.foreign)
        last_ms = self._last_starts.of_all()
        return {kind: Use(counts[kind], last_ms.get(kind, 0)) for kind in counts.keys() | last_ms.keys()}

    def _observe(self, known: Known) -> ObservedInstance:
        slot, spec = known.slot, known.spec
        alive = slot.alive()
        return ObservedInstance(
            instance_id=spec.instance_id,
            spec_digest=spec_digest(spec),
            generation=spec.generation,
            alive=alive,
            pid=self._tending.pid(slot) if alive else None,
            socket=str(slot.socket),
            zone=spec.zone,
            started_ms=known.started_ms,
            isolation=known.record.isolation,
            exit_reason=None if alive else ending.bury(slot, known.record, spec.memory_mb),
        )

    # --- bringing up ------------------------------------------------------------------------------------------------

    def _bring_up(self, spec: InstanceSpec) -> None:
        image, guests = self._containers.image_of(spec), self._containers.guests_of(spec)
        parts = self._parts(spec)
        need = warmth.need_of(kinds_seen.contents_of(spec, parts.get), self._installed)
        claimed = None if image or guests else self._pool.take(need)
        try:
            slot, warm = claimed or (self._maker.make(PLAIN if image or guests else need.kind), False)
        except LaunchFailed as fault:
            raise StartRefused(str(fault)) from fault
        try:
            if image is not None:
                self._containers.mark(slot, image)
            known = self._occupy(slot, spec, parts, need.kind)
            if image is not None:
                self._containers.start(slot, spec, image)
            elif guests:
                self._containers.start_beside(slot, spec, guests)
            elif claimed is None:
                self._pool.claims(slot, need.kind, How.MISSED)
                self._maker.start(slot)
        except (PlacingFailed, LaunchFailed, OSError) as fault:
            self._forget_slot(slot, spec.instance_id)
            raise StartRefused(f"the instance could not be prepared: {fault}") from fault
        self._tending.claim(known.slot, spec, now=warm)
        if image is None:
            self._last_starts.note(need.kind, known.started_ms)

    def _occupy(self, slot: Slot, spec: InstanceSpec, parts: dict[str, Path], kind: str) -> Known:
        """Files, limits, then the spec: from here on the slot is this instance."""
        record = slot.record()
        if record is None:
            raise LaunchFailed(f"slot {slot.slot_id} has no record")
        for folder in container_folders(spec):
            make_folder(slot, folder)
        for name, source in parts.items():
            place(source, slot, name, share=record.uid is not None)
        if any(container.multi_model for container in spec.containers):
            make_folder(slot, MODELS)
        for failure in cgroups.limit(record.groups, spec.vcpu_milli, spec.memory_mb):
            log.warning("%s: %s", spec.instance_id, failure)
        started_ms = self._clock.now_ms()
        slot.write("claimed.json", started_ms)
        slot.write("spec.json", spec)
        known = Known(slot, record, spec, started_ms, kind)
        with self._table:
            self._known[spec.instance_id] = known
        return known

    def _parts(self, spec: InstanceSpec) -> dict[str, Path]:
        """What goes into the instance's /opt/ml, by name there; dependencies first. Raises StartRefused."""
        return {
            str(Path(folder, name)): source
            for container, folder in zip(spec.containers, container_folders(spec), strict=True)
            for name, source in self._parts_of(container).items()
        }

    def _parts_of(self, container: ContainerSpec) -> dict[str, Path]:
        """What one container needs, by name in its folder."""
        if container.artifact is None:
            return {}
        folder = self._artifacts.path(container.artifact)
        if not (folder / "model").is_dir():
            raise StartRefused(f"the model archive {container.artifact} is not unpacked on this host")
        if container.foreign:
            return {"model": folder / "model"}
        try:
            built = self._requirements.build(folder)
        except DependencyError as fault:
            raise StartRefused(str(fault)) from fault
        return {**({"deps": built} if built else {}), "model": folder / "model"}

    def _again(self, known: Known, spec: InstanceSpec) -> None:
        """A repeated call for an instance that was started before."""
        if spec.generation < known.spec.generation:
            raise StartRefused(
                f"generation {spec.generation} of {spec.instance_id} is older than {known.spec.generation}, which runs"
            )
        if spec_digest(spec) != spec_digest(known.spec):
            raise StartRefused(f"{spec.instance_id} was started with another specification")
        if spec.generation > known.spec.generation:
            known.slot.write("spec.json", spec)
            with self._table:
                self._known[spec.instance_id] = replace(known, spec=spec)

    def _admit(self, spec: InstanceSpec) -> None:
        """Refuse what this host cannot run, or can run no more of."""
        try:
            refusal = self._types.get(spec.instance_type).refusal()
        except UnknownInstanceType:
            refusal = None  # its size came with the spec, from whoever resolved it
        if refusal:
            raise StartRefused(refusal)
        with self._table:
            limit, others = self._settings.instances_max, list(self._known.values())
            if limit:
                alive = sum(known.slot.alive() for known in others) + len(self._coming)
                if alive >= limit:
                    raise InsufficientCapacity(
                        f"Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error: "
                        f"{alive} of at most {limit} instances run here (setting instances_max), and 1 more was asked"
                    )
            self._coming.add(spec.instance_id)

    # --- what is on disk --------------------------------------------------------------------------------------------

    def _adopt(self, slot: Slot) -> None:
        record, spec = slot.record(), slot.spec()
        if record is None or (spec is not None and not slot.started):
            self._maker.discard(slot)  # control died while it made the slot: nothing ever ran there
        elif spec is None:
            self._pool.adopt(slot, record)
        else:
            self._maker.adopt(slot, record)
            need = warmth.need_of(kinds_seen.contents_of(spec, lambda name: slot.path / "ml" / name), self._installed)
            with self._table:
                self._known[spec.instance_id] = Known(slot, record, spec, slot.claimed_ms(), need.kind)
            if not slot.alive():
                ending.bury(
                    slot, record, spec.memory_mb, wait_s=0.0
                )  # it ended before we came: nobody is writing still
            self._tending.claim(slot, spec, now=False)  # 202 again for one that was claimed before
            stopping = slot.ending()
            if stopping is not None:
                self._tending.end_later(slot, stopping.kill_at_ms)

    def _forget_slot(self, slot: Slot, instance_id: str) -> None:
        with self._table:
            self._known.pop(instance_id, None)
        self._tending.drop(slot)
        self._pool.gone(slot)
        self._containers.discard(slot)
        self._maker.discard(slot)

    def _sweep(self) -> None:
        self._containers.sweep()
        self.groups.sweep(lambda slot_id: (self._data / "slots" / slot_id).exists())

    def _find(self, instance_id: str) -> Known | None:
        with self._table:
            return self._known.get(instance_id)

    def _one(self, instance_id: str) -> threading.Lock:
        return self._locks[hash(instance_id) % _LOCKS]


def spec_digest(spec: InstanceSpec) -> str:
    """What tells two specifications apart, whatever their generation: sha256, hex."""
    return hashlib.sha256(msgspec.json.encode(replace(spec, generation=0), order="sorted")).hexdigest()


def archive(slot: Slot, spec: InstanceSpec, data: Path) -> None:
    """Put an instance's log where the logs of the gone are: `logs/endpoints/SLUG/VARIANT/INSTANCE.log`; of a job's
    `logs/jobs/TransformJob/ACCOUNT.REGION.NAME/INSTANCE.log`.
    """
    folder = data / "logs" / "endpoints" / spec.endpoint.slug / spec.variant
    if spec.of_job:
        folder = data / "logs" / "jobs" / "TransformJob" / spec.endpoint.slug
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{spec.instance_id}.new"
    new.write_bytes(slot.whole_log())
    if len(spec.containers) > 1:  # whose lines are whose
        names = msgspec.json.encode([container.hostname for container in spec.containers])
        (folder / f"{spec.instance_id}.containers").write_bytes(names)
    new.rename(folder / f"{spec.instance_id}.log")
    by_age = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for old in by_age[:-ARCHIVED_LOGS_MAX]:
        old.unlink(missing_ok=True)
        old.with_suffix(".containers").unlink(missing_ok=True)


def group_name(data: Path) -> str:
    """The control group that the instances of a data directory are below."""
    return f"eyrie-{hashlib.sha256(str(data.absolute()).encode()).hexdigest()[:10]}"


def end_all(settings: Settings) -> ending.Ended:
    """End every slot and instance of a data directory without control: what `eyrie down` calls last."""
    ended = ending.end_all(settings.data, settings.drain_ms / 1000)
    groups = cgroups.detect(group_name(settings.data))
    groups.sweep(lambda slot_id: (settings.data / "slots" / slot_id).exists())
    groups.tidy()
    return ended


def _check_names(spec: InstanceSpec) -> None:
    """Names become folders: nothing that could leave its place. Raises StartRefused."""
    for name in (spec.instance_id, spec.variant, *spec.endpoint.slug.split(".")):
        if not _SAFE_NAME.fullmatch(name):
            raise StartRefused(f"{name!r} is not a name that an instance can have")

"""Compute by container engine: images that dockerd or podman holds, run with the SageMaker container contract, for
`EYRIE_COMPUTE=docker://` (or `docker:///run/podman/podman.sock`).

On the path of an action: `compute_process` -> `containers` -> here. A container is one more thing that a slot can hold:
its files, spec, grace and log are the slot's, and the slot's lock is held by a process of ours outside of the container
(`eyrie.modelserver.contained`), which ends with it, whatever becomes of control or of the engine's client. Where Eyrie
is root that process enters the container's network, which is a loopback and nothing else; elsewhere the engine
publishes the port on this host's loopback. Of an image that is one of several containers only the files are taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import resource
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eyrie.adapters import sandbox
from eyrie.adapters.cgroups import PIDS_MAX
from eyrie.adapters.image_layout import lay_out, start_of
from eyrie.adapters.image_store import WRITABLE, ImageStore, Start, StoredImage
from eyrie.adapters.launch import PREPARE, LaunchFailed, furnish
from eyrie.adapters.launch_container import (
    CONTAINED,
    PORT,
    SMALL_TMP_BYTES_MAX,
    TOLD_FD,
    contract_of,
    launch,
    write_told,
)
from eyrie.adapters.sandbox import SHM_BYTES_MAX, TMP_BYTES_MAX
from eyrie.adapters.slots import LOCK_FD, Slot, SlotRecord
from eyrie.domain.cluster import names_cluster
from eyrie.domain.fleet import InstanceSpec
from eyrie.settings import Settings

log = logging.getLogger("eyrie.compute")

DOCKER, PROCESS = "docker", "process"
DEFAULT_SOCKET = "/var/run/docker.sock"
CALL_TIMEOUT_S = 30
OPEN_FILES_WANTED, PROCESSES_WANTED = 65_536, 16_384
CPU_PERIOD_US = 100_000
LOOPBACK = "127.0.0.1"
LABEL_DATA, LABEL_SLOT, LABEL_INSTANCE = "eyrie.data", "eyrie.slot", "eyrie.instance"
# What programs that expect to be root need to become somebody else, and nothing that reaches the host.
KEPT_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
STATUS_FD = 8
_FOLLOWING = (
    PREPARE
    + """(
  join
  setsid "$@" 5<told &
  pid=$!
  exec 9<&-
  wait $pid
  echo "{\\"exit-code\\": $?}" >&8
) &"""
)


class EngineUnavailable(RuntimeError):
    """There is no container engine where EYRIE_COMPUTE says; the message says why."""


def socket_of(compute: str) -> str:
    """The engine's Unix socket that a value of the setting `compute` names. Raises EngineUnavailable."""
    given = urlsplit(compute)
    if given.scheme != "docker" or given.netloc or given.query or given.fragment:
        raise EngineUnavailable(
            f"compute={compute!r} is none of process, docker://, docker:///PATH (an engine of this host), ray and "
            "ray://HOST:PORT"
        )
    return given.path if given.path not in ("", "/") else DEFAULT_SOCKET


def look_up(settings: Settings, images: ImageStore, name: str) -> StoredImage:
    """Note an image that the engine holds in the store. Raises EngineUnavailable, which also says that it has none."""
    engine = DockerEngine(settings)
    try:
        return engine.look_up(images, name)
    finally:
        engine.close()


def engine_of(settings: Settings) -> DockerEngine | str:
    """The engine that the setting `compute` names, or why there is none. Raises EngineUnavailable for a value that
    makes no sense.
    """
    if settings.compute == PROCESS or names_cluster(settings.compute):
        return f"the setting compute is `{settings.compute}`; docker:// names one"
    return DockerEngine(settings)


class DockerEngine:
    """One engine, by the docker SDK. Safe from threads."""

    name = DOCKER

    def __init__(self, settings: Settings) -> None:
        """Raises EngineUnavailable where the setting or the SDK is wrong; the engine itself may come later."""
        try:
            import docker
        except ImportError:
            raise EngineUnavailable("the docker SDK is not installed: pip install 'eyrie[docker]'") from None
        self._data, self._log_bytes_max = settings.data, settings.log_bytes_max
        self._sdk, self._socket = docker, socket_of(settings.compute)
        self._enters = os.geteuid() == 0
        self._failures = (docker.errors.DockerException, OSError)
        self._connected: Any = None
        self._connecting = threading.Lock()
        self._copying: frozenset[str] = frozenset()  # names of containers that exist only to be copied from

    def close(self) -> None:
        """Close the connections. Containers run on."""
        with self._connecting:
            if self._connected is not None:
                self._connected.close()
                self._connected = None

    def version(self) -> str:
        """The engine's own. Raises EngineUnavailable."""
        try:
            return str(self._client.version().get("Version", "?"))
        except self._failures as fault:
            raise EngineUnavailable(f"no container engine answers at {self._socket}: {fault}") from None

    @property
    def _client(self) -> Any:
        """Raises one of `_failures` where nobody answers."""
        with self._connecting:
            if self._connected is None:
                self._connected = self._sdk.DockerClient(base_url=f"unix://{self._socket}", timeout=CALL_TIMEOUT_S)
            return self._connected

    def look_up(self, images: ImageStore, name: str) -> StoredImage:
        """Note an image that the engine holds. Raises EngineUnavailable where it holds none of that name."""
        try:
            found = self._client.images.get(name)
        except self._failures as fault:
            self.version()
            raise EngineUnavailable(f"the engine at {self._socket} holds no image {name!r}: {fault}") from None
        return images.add_engine_image(str(found.id), int(found.attrs.get("Size", 0)), name)

    def start(self, slot: Slot, record: SlotRecord, spec: InstanceSpec, image: StoredImage) -> None:
        """Run the image for an instance. Raises LaunchFailed."""
        furnish(slot, record)
        (slot.path / "ml" / "model").mkdir(mode=0o755, exist_ok=True)
        try:
            container = self._client.containers.create(image.reference, **self._options(slot, spec))
            container.start()
            container.reload()
            told = self._told(container)
        except (*self._failures, LookupError) as fault:
            self.discard(slot)
            raise LaunchFailed(f"the engine could not start {image.source}: {_plainly(fault)}") from fault
        write_told(slot, told)
        given = ("--box", str(slot.path / "box"), "--lock-fd", str(LOCK_FD), "--told-fd", str(TOLD_FD))
        limits = ("--status-fd", str(STATUS_FD), "--log-bytes-max", str(self._log_bytes_max))
        launch(slot, record, _FOLLOWING, [*CONTAINED, *given, *limits])

    def lay_out(self, image: StoredImage, folder: Path) -> Start:
        """Copy the image's files into a folder; how it is started. Raises LaunchFailed, ImageError, OSError."""
        name = f"eyrie-copied-{data_label(self._data)}-{image.digest[:12]}"
        self._copying |= {name}
        try:
            self._remove(name)  # of a control that died here
            config = self._client.images.get(image.reference).attrs.get("Config")
            labels = {LABEL_DATA: data_label(self._data), LABEL_SLOT: name}
            made = self._client.containers.create(image.reference, ["serve"], name=name, labels=labels)
            try:
                lay_out(made.export(), folder)
            finally:
                made.remove(force=True, v=True)
        except self._failures as fault:
            raise LaunchFailed(f"the files of {image.source} could not be copied: {_plainly(fault)}") from fault
        finally:
            self._copying -= {name}
        return start_of(config or {})

    def discard(self, slot: Slot) -> None:
        """Remove a slot's container with all that runs in it."""
        self._remove(container_name(slot))

    def _remove(self, name: str) -> None:
        try:
            self._client.containers.get(name).remove(force=True, v=True)
        except self._sdk.errors.NotFound:
            return
        except self._failures as fault:
            log.warning("container %s is left for the next sweep: %s", name, fault)

    def sweep(self) -> None:
        """Remove containers of this data directory whose slots are no more."""
        for container in self._ours():
            slot_id = container.labels.get(LABEL_SLOT, "")
            if slot_id and slot_id not in self._copying and not (self._data / "slots" / slot_id).exists():
                log.info("container %s belongs to no slot: removed", container.name)
                with contextlib.suppress(*self._failures):
                    container.remove(force=True, v=True)

    def _ours(self) -> list[Any]:
        wanted = {"label": f"{LABEL_DATA}={data_label(self._data)}"}
        try:
            return list(self._client.containers.list(all=True, filters=wanted, ignore_removed=True))
        except self._failures as fault:
            log.warning("the engine's containers could not be listed: %s", fault)
            return []

    def _options(self, slot: Slot, spec: InstanceSpec) -> dict[str, Any]:
        """How a container is run: the contract, and the caps of its instance type."""
        types = self._sdk.types
        sizes = dict.fromkeys(WRITABLE, SMALL_TMP_BYTES_MAX) | {"tmp": TMP_BYTES_MAX}
        memory = spec.memory_mb * 1_048_576
        half = max(self._log_bytes_max // 2048, 16)
        network: dict[str, Any] = {"network_mode": "none"}
        if not self._enters:
            network = {"ports": {f"{PORT}/tcp": (LOOPBACK, None)}}
        return {
            "command": ["serve"],
            "name": container_name(slot),
            "hostname": "instance",
            "labels": {
                LABEL_DATA: data_label(self._data),
                LABEL_SLOT: slot.slot_id,
                LABEL_INSTANCE: spec.instance_id,
            },
            "environment": contract_of(spec),
            "volumes": {str(slot.path / "ml"): {"bind": sandbox.INNER_ML, "mode": "ro"}},
            "read_only": True,
            "tmpfs": {f"/{name}": f"rw,exec,nosuid,nodev,mode=1777,size={size}" for name, size in sizes.items()},
            "shm_size": SHM_BYTES_MAX,
            "mem_limit": memory,
            "memswap_limit": memory,
            "cpu_period": CPU_PERIOD_US,
            "cpu_quota": max(1_000, spec.vcpu_milli * CPU_PERIOD_US // 1000),
            "pids_limit": PIDS_MAX,
            "ulimits": [types.Ulimit(name=name, soft=limit, hard=limit) for name, limit in ulimits().items()],
            "security_opt": ["no-new-privileges"],
            "cap_drop": ["ALL"],
            "cap_add": list(KEPT_CAPABILITIES),
            "log_config": types.LogConfig(type="json-file", config={"max-size": f"{half}k", "max-file": "2"}),
            **network,
        }

    def _told(self, container: Any) -> dict[str, Any]:
        """What `contained` is told of a container that was started. Raises LookupError."""
        state = container.attrs["State"]
        pid = int(state.get("Pid") or 0)
        port = PORT
        if not self._enters and pid:
            port = int(container.attrs["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])
        engine = {
            "socket": self._socket,
            "container": str(container.id),
            "init_pid": pid,
            "network_pid": pid if self._enters else 0,
        }
        return {"port": port if pid else 0, "engine": engine}


def container_name(slot: Slot) -> str:
    """What a slot's container is called."""
    return f"eyrie-{slot.slot_id}"


def data_label(data: Path) -> str:
    """Tells the containers of one data directory from those of another."""
    return hashlib.sha256(str(data.absolute()).encode()).hexdigest()[:16]


def ulimits() -> dict[str, int]:
    """Limits that a container starts with, never above our own hard ones: an engine may be unable to raise them."""
    found = {"core": 0}
    for name, kind, wanted in (
        ("nofile", resource.RLIMIT_NOFILE, OPEN_FILES_WANTED),
        ("nproc", resource.RLIMIT_NPROC, PROCESSES_WANTED),
    ):
        hard = resource.getrlimit(kind)[1]
        found[name] = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return found


def _plainly(fault: BaseException) -> str:
    """The engine's own words, where it gave any."""
    return str(getattr(fault, "explanation", None) or fault)

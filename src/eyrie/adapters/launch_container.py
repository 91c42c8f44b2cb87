"""Starts an instance that runs an image of the user's own: a root file system or a folder, in the sandbox that our own
model servers get, or, for a folder where there is none, as a plain process.

`eyrie.modelserver.contained` stands in the instance: it holds the lock, owns the socket and the log, and starts the
`serve` program. The sandbox has a network of its own with nothing but a loopback, so every instance has its port 8080.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import sandbox, seccomp
from eyrie.adapters.image_store import (
    DEFAULT_PATH,
    FOLDER,
    IMAGE,
    ROOTFS,
    ImageStore,
    StoredImage,
    mounted_files,
    shown_to_the_folder,
    writable_places,
)
from eyrie.adapters.launch import PREPARE, LaunchFailed, Server, etc_files, furnish, run
from eyrie.adapters.sandbox import SHM_BYTES_MAX, TMP_BYTES_MAX, Isolation, Sandbox
from eyrie.adapters.slots import LOCK_FD, Slot, SlotRecord, read_bounded
from eyrie.domain.fleet import InstanceSpec

PORT = 8080
INNER_ROOT = "/rootfs"
TOLD_FD = 5
SMALL_TMP_BYTES_MAX = 67_108_864  # of each private folder but /tmp
CONTAINED = (sys.executable, "-I", "-B", "-u", "-m", "eyrie.modelserver.contained")
_IN_SANDBOX = PREPARE + '(join; exec "$@" 7<args 6<filter 5<told) &'
_PLAIN = (
    PREPARE
    + """(
  join
  setsid "$@" 8>&- 5<told &
  pid=$!
  exec 9<&-
  echo "{\\"child-pid\\": $pid}" >&8
  wait $pid
  echo "{\\"exit-code\\": $?}" >&8
) &"""
)


@dataclass(frozen=True, slots=True)
class ContainerLauncher:
    """Starts containers of the user's own in one way."""

    isolation: Isolation
    server: Server  # whose runtime `contained` needs
    data: Path
    images: ImageStore
    log_bytes_max: int

    def refusal(self, image: StoredImage) -> str | None:
        """Why this image cannot run on this host, or None."""
        if image.kind == ROOTFS and self.isolation.kind != sandbox.BUBBLEWRAP:
            return f"a root file system needs the sandbox of bubblewrap, which is not had: {self.isolation.detail}"
        if image.kind == FOLDER and self.sandboxed and sandbox.hidden_paths(self.server.runtime, self.data):
            return f"the data directory {self.data} lies below what instances see: images in it are out of their reach"
        return None

    def start(self, slot: Slot, record: SlotRecord, spec: InstanceSpec, image: StoredImage) -> None:
        """Start it; returns in milliseconds, long before it can answer. Raises LaunchFailed, OSError."""
        furnish(slot, record)
        root = self.images.path(image.digest) / "root"
        ml = sandbox.INNER_ML if self.sandboxed else str(slot.path / "ml")
        told = {
            "port": PORT if self.sandboxed else 0,
            "command": [placed(word, root) for word in image.command],
            "environment": environment_of(spec, image, root, ml),
            "workdir": placed(image.workdir, root),
        }
        words = self._words(sandbox.INNER_BOX if self.sandboxed else str(slot.path / "box"))
        if image.kind == ROOTFS:
            told |= {"root": INNER_ROOT, "uid": record.uid}
        if self.sandboxed:
            enclose = self._sandbox_of_root if image.kind == ROOTFS else self._sandbox_of_folder
            words = self.enclosed(slot, record, enclose(slot, record, root), words)
        self.leave(slot, record, told, words)

    def leave(self, slot: Slot, record: SlotRecord, told: Mapping[str, object], words: list[str]) -> None:
        """Leave a process behind that reads what it is told on descriptor 5. Raises LaunchFailed."""
        write_told(slot, told)
        launch(slot, record, _IN_SANDBOX if self.sandboxed else _PLAIN, words)

    @property
    def sandboxed(self) -> bool:
        """Whether containers run in a sandbox, rather than as plain processes."""
        return self.isolation.kind == sandbox.BUBBLEWRAP

    def _words(self, box: str) -> list[str]:
        given = ("--box", box, "--lock-fd", str(LOCK_FD), "--told-fd", str(TOLD_FD))
        return [*CONTAINED, *given, "--log-bytes-max", str(self.log_bytes_max)]

    def enclosed(self, slot: Slot, record: SlotRecord, box: Sandbox, words: list[str]) -> list[str]:
        """The words inside bubblewrap, whose arguments and filter go into the slot."""
        filtered = self.isolation.seccomp
        if filtered is not None and box.steps_into_root:
            filtered = seccomp.program(allowed=frozenset({"chroot"}))
        args = sandbox.arguments(box, record.uid is not None)
        if filtered:
            args += ["--seccomp", "6"]
        (slot.path / "filter").write_bytes(filtered or b"")
        (slot.path / "args").write_bytes(b"\0".join(os.fsencode(arg) for arg in args) + b"\0")
        first = [] if box.steps_into_root else sandbox.step_down(record.uid)
        return [self.isolation.bubblewrap, "--args", "7", "--json-status-fd", "8", "--", *first, *words]

    def _sandbox_of_folder(self, slot: Slot, record: SlotRecord, root: Path) -> Sandbox:
        shown = sandbox.outermost([*self.server.runtime, *shown_to_the_folder(root), root])
        seen = {str(path): str(path) for path in shown} | etc_of(slot, record)
        seen[sandbox.INNER_ML] = str(slot.path / "ml")
        return Sandbox(seen, {sandbox.INNER_BOX: str(slot.path / "box")}, uid=record.uid)

    def _sandbox_of_root(self, slot: Slot, record: SlotRecord, root: Path) -> Sandbox:
        runtime = self.server.runtime
        seen = {str(path): str(path) for path in runtime} | etc_of(slot, record)
        seen |= {INNER_ROOT: str(root), f"{INNER_ROOT}{sandbox.INNER_ML}": str(slot.path / "ml")}
        seen |= etc_of_root(slot, record, INNER_ROOT, root)
        return Sandbox(
            seen,
            {sandbox.INNER_BOX: str(slot.path / "box")},
            sandbox.hidden_paths(runtime, self.data),
            record.uid,
            mounts=system_of(root),
            steps_into_root=True,
        )


def etc_of(slot: Slot, record: SlotRecord) -> dict[str, str]:
    """Small files of the system with the instance's user in them: where they are seen, and where they are."""
    return {f"/etc/{name}": str(slot.path / "etc" / name) for name in etc_files(record.uid)}


def etc_of_root(slot: Slot, record: SlotRecord, at: str, root: Path) -> dict[str, str]:
    """The same in a root file system that is seen at `at`: beside its own users."""
    found = {}
    ours = etc_files(record.uid)
    for name in mounted_files(root):
        file = slot.path / "etc" / f"{at.strip('/').replace('/', '-')}-{Path(name).name}"
        theirs = "" if name == "etc/hosts" else read_bounded(root / name).decode(errors="replace")
        file.write_text(merged(theirs, ours[Path(name).name]))
        file.chmod(0o644)
        found[f"{at}/{name}"] = str(file)
    return found


def environment_of(spec: InstanceSpec, image: StoredImage, root: Path, ml: str, place: int = 0) -> dict[str, str]:
    """What the container at `place` finds in its environment: the image's own, the contract's, and over both what its
    model says.

    `ml` is where it sees its /opt/ml, which is elsewhere without a sandbox.
    """
    path = f"{root}/bin:{root}:{DEFAULT_PATH}" if image.kind == FOLDER else DEFAULT_PATH
    base = {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8"}
    if image.kind == FOLDER and (root / "pyvenv.cfg").exists():
        base["VIRTUAL_ENV"] = str(root)
    return {**base, **image.environment, **contract_of(spec, ml, place)}


def contract_of(spec: InstanceSpec, ml: str = sandbox.INNER_ML, place: int = 0) -> dict[str, str]:
    """The variables that a container of an instance is promised, and those of its model."""
    container, region = spec.containers[place], spec.endpoint.region
    promised = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region, "SM_MODEL_DIR": f"{ml}/model"}
    promised["SAGEMAKER_BASE_DIR"] = ml
    if container.multi_model:
        promised["SAGEMAKER_MULTI_MODEL"] = "true"
    return {**promised, **container.environment}


def placed(word: str, root: Path) -> str:
    """A word of an image's command, with the place of the image in it."""
    return word.replace(IMAGE, str(root))


def write_told(slot: Slot, told: Mapping[str, object]) -> None:
    """What `contained` reads on its descriptor: for the eyes of its launcher only."""
    slot.write("told", told)


def launch(slot: Slot, record: SlotRecord, script: str, words: list[str]) -> None:
    """Leave `contained` behind as nobody's child. Raises LaunchFailed."""
    home = str(slot.path / "home")
    shell = ["/bin/sh", "-c", script, "eyrie-slot", str(slot.path), *record.groups, "--", *words]
    try:
        lock = slot.hold_lock()
    except OSError as fault:
        raise LaunchFailed(f"the lock of slot {slot.slot_id} could not be taken: {fault}") from fault
    try:
        run(shell, lock, slot, {**sandbox.ENVIRONMENT, "HOME": home, "TMPDIR": home})
    finally:
        os.close(lock)


def merged(theirs: str, ours: str) -> str:
    """Lines of a users' or groups' file: ours that theirs does not have by name, then theirs."""
    named = {line.partition(":")[0] for line in theirs.splitlines()}
    added = [line for line in ours.splitlines() if line.partition(":")[0] not in named]
    return "\n".join([*added, *theirs.splitlines()]) + "\n"


def system_of(root: Path, seen_at: str = INNER_ROOT) -> tuple[str, ...]:
    """What a root file system gets from the kernel, and its private memory."""
    at = f"{seen_at}/{{}}".format
    mounts = ["--proc", at("proc"), "--dev", at("dev")]
    sizes = {"dev/shm": SHM_BYTES_MAX, **dict.fromkeys(writable_places(root), SMALL_TMP_BYTES_MAX)}
    if "tmp" in sizes:
        sizes["tmp"] = TMP_BYTES_MAX
    for name, size in sizes.items():
        mounts += ["--perms", "1777", "--size", str(size), "--tmpfs", at(name)]
    return tuple(mounts)

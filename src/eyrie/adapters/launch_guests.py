"""Starts an instance of several containers of which some are the user's own: our model server, which starts their
programs beside itself before it does anything else (`eyrie.modelserver.guests`), all in one sandbox.

On the path of an action: `compute_process` -> `containers` -> here. The sandbox has one loopback for all, so each
program gets a port of its own (SAGEMAKER_BIND_TO_PORT); a root file system is seen below /rootfs, and its program steps
into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import sandbox
from eyrie.adapters.image_store import ROOTFS, StoredImage, shown_to_the_folder
from eyrie.adapters.launch import furnish
from eyrie.adapters.launch_container import (
    INNER_ROOT,
    PORT,
    TOLD_FD,
    ContainerLauncher,
    environment_of,
    etc_of,
    etc_of_root,
    placed,
    system_of,
)
from eyrie.adapters.sandbox import Sandbox
from eyrie.adapters.slots import LOCK_FD, Slot, SlotRecord
from eyrie.domain.fleet import ContainerSpec, InstanceSpec


@dataclass(frozen=True, slots=True)
class Guest:
    """A container of the user's own among several."""

    container: ContainerSpec
    image: StoredImage
    folder: str  # its /opt/ml, below the instance's

    @property
    def seen_at(self) -> str:
        """Where its root file system is seen by our model server; "" where it has none of its own."""
        return f"{INNER_ROOT}/{self.folder.rpartition('/')[2]}" if self.image.kind == ROOTFS else ""


def start(
    launcher: ContainerLauncher, slot: Slot, record: SlotRecord, spec: InstanceSpec, guests: Sequence[Guest]
) -> None:
    """Start the instance; returns in milliseconds, long before it can answer. Raises LaunchFailed, OSError."""
    furnish(slot, record)
    inside = launcher.sandboxed
    stepping = any(guest.seen_at for guest in guests)
    told = {
        "uid": record.uid if stepping else None,
        "guests": [_told(launcher, slot, spec, guest, PORT + place) for place, guest in enumerate(guests)],
    }
    box, ml = (sandbox.INNER_BOX, sandbox.INNER_ML) if inside else (str(slot.path / "box"), str(slot.path / "ml"))
    given = ["--box", box, "--ml", ml, "--lock-fd", str(LOCK_FD), "--imports", "", "--guests-fd", str(TOLD_FD)]
    words = [*launcher.server.command, *given, "--log-bytes-max", str(launcher.log_bytes_max)]
    if inside:
        words = launcher.enclosed(slot, record, _sandbox(launcher, slot, record, guests), words)
    launcher.leave(slot, record, told, words)


def _told(launcher: ContainerLauncher, slot: Slot, spec: InstanceSpec, guest: Guest, port: int) -> dict[str, object]:
    """What our model server has to know to start one of them."""
    root = launcher.images.path(guest.image.digest) / "root"
    ml = sandbox.INNER_ML if guest.seen_at else f"{sandbox.INNER_ML}/{guest.folder}"
    if not launcher.sandboxed:
        ml = str(slot.path / "ml" / guest.folder)
    place = spec.containers.index(guest.container)
    return {
        "hostname": guest.container.hostname,
        "port": port if launcher.sandboxed else 0,
        "command": [placed(word, root) for word in guest.image.command],
        "environment": environment_of(spec, guest.image, root, ml, place),
        "workdir": placed(guest.image.workdir, root),
        "root": guest.seen_at,
    }


def _sandbox(launcher: ContainerLauncher, slot: Slot, record: SlotRecord, guests: Sequence[Guest]) -> Sandbox:
    shown: list[Path] = [*launcher.server.runtime]
    seen = etc_of(slot, record) | {sandbox.INNER_ML: str(slot.path / "ml")}
    mounts: list[str] = []
    for guest in guests:
        root = launcher.images.path(guest.image.digest) / "root"
        if not guest.seen_at:
            shown += [*shown_to_the_folder(root), root]
            continue
        seen |= {guest.seen_at: str(root), f"{guest.seen_at}{sandbox.INNER_ML}": str(slot.path / "ml" / guest.folder)}
        seen |= etc_of_root(slot, record, guest.seen_at, root)
        mounts += system_of(root, guest.seen_at)
    paths = sandbox.outermost(shown)
    return Sandbox(
        {str(path): str(path) for path in paths} | seen,
        {sandbox.INNER_BOX: str(slot.path / "box")},
        sandbox.hidden_paths(paths, launcher.data),
        record.uid,
        mounts=tuple(mounts),
        steps_into_root=bool(mounts),
    )

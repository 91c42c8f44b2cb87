"""Images of the user's own, as compute by process runs them: which one a specification means, and what starts it.

On the path of an action: `compute_process` -> here -> a sandbox on this host (`launch_container`) or the container
engine (`compute_docker`). Either way a slot's lock is held by a process of ours that ends with the container. Several
containers of an instance share one sandbox, so what an engine's image holds is taken out of the engine for that.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from eyrie.adapters import launch_guests
from eyrie.adapters.image_store import ENGINE, ROOTFS, ImageError, ImageStore, Start, StoredImage
from eyrie.adapters.launch import LaunchFailed
from eyrie.adapters.launch_container import ContainerLauncher
from eyrie.adapters.launch_guests import Guest
from eyrie.adapters.placing import container_folders
from eyrie.adapters.slots import Slot, SlotRecord
from eyrie.domain.fleet import ContainerSpec, InstanceSpec
from eyrie.ports import StartRefused


class Engine(Protocol):
    """A container engine: what `compute_docker` keeps."""

    name: str  # what an instance's isolation is called

    def start(self, slot: Slot, record: SlotRecord, spec: InstanceSpec, image: StoredImage) -> None:
        """Run the image for an instance. Raises LaunchFailed."""

    def lay_out(self, image: StoredImage, folder: Path) -> Start:
        """Copy the image's files into a folder; how it is started. Raises LaunchFailed, ImageError, OSError."""

    def discard(self, slot: Slot) -> None:
        """Remove what is left of a slot's container. Nothing is raised."""

    def sweep(self) -> None:
        """Remove containers of ours whose slots are no more."""


@dataclass(frozen=True, slots=True)
class Containers:
    """Starts containers of the user's own."""

    launcher: ContainerLauncher
    engine: Engine | None
    why_no_engine: str  # for people
    _laying_out: threading.Lock = field(default_factory=threading.Lock)  # one image at a time, and each once

    def image_of(self, spec: InstanceSpec) -> StoredImage | None:
        """The image of a specification that is one container of the user's own; None: our model server runs in it.
        Raises StartRefused.
        """
        if not spec.contained:
            return None
        image = self._find(spec.containers[0])
        if image.kind == ENGINE and self.engine is None:
            raise _cannot(spec.containers[0], self._no_engine)
        return image

    def guests_of(self, spec: InstanceSpec) -> tuple[Guest, ...]:
        """The containers of the user's own among several of a specification. Raises StartRefused."""
        if spec.contained:
            return ()
        given = zip(spec.containers, container_folders(spec), strict=True)
        return tuple(Guest(one, self._without_engine(one), folder) for one, folder in given if one.foreign)

    def _without_engine(self, container: ContainerSpec) -> StoredImage:
        """A container's image as it runs in our own sandbox. The first time, an engine's is copied: seconds a gigabyte.
        Raises StartRefused.
        """
        image = self._find(container)
        if image.kind != ENGINE:
            return image
        refused = self.launcher.refusal(msgspec.structs.replace(image, kind=ROOTFS))
        if refused:
            raise _cannot(container, f"among several containers {refused}")
        with self._laying_out:
            return self.images.root_of(image) or self._laid_out(container, image)

    def _laid_out(self, container: ContainerSpec, image: StoredImage) -> StoredImage:
        engine = self.engine
        if engine is None:
            raise _cannot(container, self._no_engine)
        try:
            return self.images.keep_root(image, lambda folder: engine.lay_out(image, folder))
        except (LaunchFailed, ImageError, OSError) as fault:
            raise _cannot(container, f"among several containers: {fault}") from fault

    def _find(self, container: ContainerSpec) -> StoredImage:
        """A container's image, which can run here unless it is an engine's. Raises StartRefused."""
        image = self.images.find(str(container.image_digest))
        if image is None:
            raise StartRefused(
                f"the image sha256:{container.image_digest} ({container.image}) is not on this host any more"
            )
        refused = None if image.kind == ENGINE else self.launcher.refusal(image)
        if refused:
            raise _cannot(container, refused)
        return image

    @property
    def _no_engine(self) -> str:
        return f"it needs a container engine, and there is none: {self.why_no_engine}"

    @property
    def images(self) -> ImageStore:
        """Where the images are."""
        return self.launcher.images

    def start(self, slot: Slot, spec: InstanceSpec, image: StoredImage) -> None:
        """Start an image in a slot that was made for it. Raises LaunchFailed, OSError."""
        record = slot.record()
        if record is None:
            raise LaunchFailed(f"slot {slot.slot_id} has no record")
        if image.kind == ENGINE:
            assert self.engine is not None  # image_of has seen to that
            self.engine.start(slot, record, spec, image)
        else:
            self.launcher.start(slot, record, spec, image)

    def start_beside(self, slot: Slot, spec: InstanceSpec, guests: Sequence[Guest]) -> None:
        """Start our model server with these containers beside it, in a slot that was made for them. Raises
        LaunchFailed, OSError.
        """
        record = slot.record()
        if record is None:
            raise LaunchFailed(f"slot {slot.slot_id} has no record")
        launch_guests.start(self.launcher, slot, record, spec, guests)

    def mark(self, slot: Slot, image: StoredImage) -> None:
        """Note in a slot that is not started yet what will keep its container apart. Raises LaunchFailed, OSError."""
        record = slot.record()
        if record is None:
            raise LaunchFailed(f"slot {slot.slot_id} has no record")
        if image.kind == ENGINE and self.engine is not None:
            slot.write("slot.json", msgspec.structs.replace(record, isolation=self.engine.name, uid=None))

    def discard(self, slot: Slot) -> None:
        """Remove what an engine has left of a slot's container."""
        record = slot.record()
        if self.engine is not None and record is not None and record.isolation == self.engine.name:
            self.engine.discard(slot)

    def sweep(self) -> None:
        """Remove containers of an engine's whose slots are no more."""
        if self.engine is not None:
            self.engine.sweep()


def _cannot(container: ContainerSpec, why: str) -> StartRefused:
    return StartRefused(f"the image {container.image} cannot run here: {why}")

"""Puts the files of a model into a slot, in milliseconds where they may be shared with the artifact store.

Under a user id of its own an instance cannot change files of Eyrie's, so it gets hard links; where it runs as Eyrie's
own user, copies. A tree is built beside its place and renamed into it.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from eyrie.adapters.slots import Slot
from eyrie.domain.fleet import InstanceSpec

ENTRIES_MAX = 200_000
MODELS = "models"  # where a multi-model container's models are, below /opt/ml


class PlacingFailed(OSError):
    """The model's files could not be put into a slot; the message says why."""


def place(source: Path, slot: Slot, name: str, share: bool) -> None:
    """Make `slots/ID/ml/NAME` out of `source`; the folder above it is there. Raises PlacingFailed."""
    half_made = slot.path / f"{name.replace('/', '-')}.new"
    shutil.rmtree(half_made, ignore_errors=True)
    try:
        _tree(source, half_made, share)
        half_made.rename(slot.path / "ml" / name)
    except OSError as fault:
        shutil.rmtree(half_made, ignore_errors=True)
        raise PlacingFailed(f"{name} could not be placed: {fault}") from fault


def container_folders(spec: InstanceSpec) -> tuple[str, ...]:
    """Each container's folder below /opt/ml: "" for a single one, "containers/N" for the Nth of several."""
    if len(spec.containers) == 1:
        return ("",)
    return tuple(f"containers/{number}" for number in range(len(spec.containers)))


def make_folder(slot: Slot, name: str) -> None:
    """A folder of `slots/ID/ml` that the instance may read."""
    path = slot.path / "ml"
    path.mkdir(mode=0o755, exist_ok=True)
    for part in Path(name).parts:
        path /= part
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def _tree(source: Path, target: Path, share: bool) -> None:
    entries = 0
    target.mkdir(mode=0o755)
    folders = [(source, target)]
    while folders:
        here, there = folders.pop()
        with os.scandir(here) as found:
            for entry in found:
                entries += 1
                if entries > ENTRIES_MAX:
                    raise PlacingFailed(f"more than {ENTRIES_MAX} files")
                to = there / entry.name
                if entry.is_dir(follow_symlinks=False):
                    to.mkdir(mode=0o755)
                    folders.append((Path(entry.path), to))
                elif entry.is_symlink():
                    to.symlink_to(os.readlink(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    _file(entry, to, share)
        there.chmod(0o755)


def _file(entry: os.DirEntry[str], to: Path, share: bool) -> None:
    if share and entry.stat(follow_symlinks=False).st_mode & stat.S_IROTH:
        try:
            os.link(entry.path, to, follow_symlinks=False)
            return
        except OSError:  # another file system, or its limit of links: copy
            pass
    shutil.copyfile(entry.path, to)
    executable = entry.stat(follow_symlinks=False).st_mode & stat.S_IXUSR
    to.chmod(0o555 if executable else 0o444)

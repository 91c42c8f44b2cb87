"""Lays out the file system of a container engine's image as a root file system that runs in our own sandbox.

On the path of an action: `containers` -> `compute_docker`, which has the image's files as one tar stream -> here. As
with every other root file system (`image_store`), all is readable for everybody, nothing is setuid, and what belongs
to the kernel is left out.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyrie.adapters.image_store import ENTRIES_MAX, NOT_TAKEN, ImageError, Start


def lay_out(pieces: Iterable[bytes], folder: Path) -> None:
    """Unpack a tar stream into a folder. Raises ImageError for one that is broken or leads out of it, OSError."""
    kept = _Kept()
    try:
        with tarfile.open(fileobj=io.BufferedReader(_Pieces(pieces)), mode="r|") as tar:
            tar.extractall(folder, filter=kept.take)
    except tarfile.TarError as fault:
        raise ImageError(f"its files cannot be unpacked: {fault}") from fault


def start_of(config: dict[str, Any]) -> Start:
    """How an image says that it is started, from what an engine tells of it."""
    named = (text.partition("=") for text in config.get("Env") or ())
    environment = tuple((name, value) for name, separator, value in named if separator)
    return Start(tuple(config.get("Entrypoint") or ()), environment, str(config.get("WorkingDir") or ""))


@dataclass(slots=True)
class _Kept:
    """Which members of a tar are unpacked, and as what."""

    count: int = 0

    def take(self, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        """A member as it is to be; None: left out. Raises tarfile.FilterError for one that leads out of the folder."""
        self.count += 1
        if self.count > ENTRIES_MAX:
            raise ImageError(f"it holds more than {ENTRIES_MAX} files")
        if member.name.removeprefix("./").partition("/")[0] in NOT_TAKEN or not _plain(member):
            return None
        # A symbolic link may point anywhere, as it will be followed inside; a hard link is made here.
        safe = tarfile.data_filter(member, folder) if member.islnk() else tarfile.tar_filter(member, folder)
        mode = 0o755 if member.isdir() or member.mode & 0o111 else 0o644
        return safe.replace(mode=mode, uid=None, gid=None, uname=None, gname=None, deep=False)  # type: ignore[arg-type]


def _plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() or member.isdir() or member.issym() or member.islnk()


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file to read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as a piece reaches; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

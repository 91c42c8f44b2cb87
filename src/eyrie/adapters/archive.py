"""Unpacks archives that strangers made: tar, gzipped or plain, into an empty folder and nowhere else.

Regular files and directories only: an entry that is a link, a device or a pipe, that leaves the folder, or that comes
twice as different things refuses the whole archive. The number of entries, what they say they hold, and what one header
may ask to be read are bounded, so a small archive cannot fill the disk or the memory.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

from eyrie.ports import ArtifactError

ENTRIES_MAX = 100_000
CONTENT_BYTES_MAX = 128 << 30
_HEADER_BYTES_MAX = 1 << 20  # a longer extended header is nobody's file name
_COPY_BYTES = 1 << 20
_ROOM_BYTES = 256 << 20  # left free on the disk


def unpack(file: IO[bytes], folder: Path, url: str) -> None:
    """Unpack an archive at its start. `url` is what error messages call it. Raises ArtifactError."""
    magic = file.read(2)
    file.seek(0)
    plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if magic == b"\x1f\x8b" else file
    try:
        bounded = _Bounded(plain)
        with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r:") as archive:
            _unpack_all(archive, bounded, folder, url)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError, OverflowError, IndexError) as error:
        # the last three: what tarfile itself stumbles over, in numbers that are none and maps of sparse files
        raise ArtifactError(f"The model data at {url} is not a readable tar.gz archive: {error}") from None


class _Bounded:
    """A file that gives no more than was granted: what a header announces is refused before it is read into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _HEADER_BYTES_MAX
        self.tell = file.tell
        self.seek = file.seek
        self.close = file.close

    def grant(self, size: int) -> None:
        """Allow an entry's content, and the headers up to the next entry."""
        self._left = size + _HEADER_BYTES_MAX

    def read(self, size: int) -> bytes:
        """At most `size` bytes. Raises tarfile.ReadError beyond what was granted."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise tarfile.ReadError("a header is too long")
        return self._file.read(size)


def _unpack_all(archive: tarfile.TarFile, bounded: _Bounded, folder: Path, url: str) -> None:
    total = count = 0
    last = -1
    for entry in archive:
        if entry.size < 0 or entry.offset <= last:  # else the same header is found again and again
            raise tarfile.ReadError("an entry says that it is smaller than nothing")
        last = entry.offset
        count, total = count + 1, total + entry.size
        if count > ENTRIES_MAX:
            raise ArtifactError(f"The model data at {url} has more than {ENTRIES_MAX} entries.")
        if total > CONTENT_BYTES_MAX:
            raise ArtifactError(f"The model data at {url} unpacks to more than {CONTENT_BYTES_MAX} bytes.")
        target = _target(folder, entry, url)
        bounded.grant(entry.size)
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all: it would grow with the archive
        try:
            if entry.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                check_room(folder, entry.size, url)
                _write(archive, entry, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ArtifactError(f"The model data at {url} has {entry.name!r} both as a file and as a folder.") from None


def _target(folder: Path, entry: tarfile.TarInfo, url: str) -> Path:
    if not (entry.isreg() or entry.isdir()):
        kind = "a link" if entry.issym() or entry.islnk() else "neither a file nor a folder"
        raise ArtifactError(
            f"The model data at {url} has an entry that is {kind}, which is not unpacked: {entry.name!r}."
        )
    parts = [part for part in entry.name.split("/") if part not in ("", ".")]
    bad = any(part == ".." or "\0" in part or len(os.fsencode(part)) > 255 for part in parts)
    if entry.name.startswith("/") or bad or (not parts and not entry.isdir()):
        raise ArtifactError(f"The model data at {url} has an entry outside of its folder: {entry.name!r}.")
    return folder.joinpath(*parts)


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(entry)
    assert content is not None  # it is a regular file
    if target.is_file():  # a later entry of the same name wins, as tar has it
        target.unlink()
    mode = 0o755 if entry.mode & 0o100 else 0o644
    with content, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as out:
        os.fchmod(out.fileno(), mode)
        shutil.copyfileobj(content, out, _COPY_BYTES)


def check_room(folder: Path, size: int, url: str) -> None:
    """Refuse what would fill the disk. Raises ArtifactError."""
    free = shutil.disk_usage(folder).free
    if size > free - _ROOM_BYTES:
        raise ArtifactError(
            f"There is no room on the disk for the model data at {url}: {size} bytes, and {free} are free."
        )


def sync_tree(folder: Path) -> None:
    """Make files and folders durable, and readable by everybody: instances have users of their own."""
    for root, _, files in os.walk(folder):
        os.chmod(root, 0o755)
        for path in (*(os.path.join(root, name) for name in files), root):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

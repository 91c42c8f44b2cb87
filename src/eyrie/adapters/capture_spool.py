"""Captured records on their way to a bucket: files under DATA/capture, written by gateway workers, uploaded by control.

A file is `SLUG/BEGAN_MS-NAME.open` while its worker writes it, with an flock that says so, and `.sealed` once it is
whole. Its first line says what it is (`domain.capture.CaptureFile`), each further one is a record. Control takes the
sealed ones, and open ones whose lock is free: their worker was killed, and all but its last write is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eyrie.adapters.durable import write_all
from eyrie.domain.capture import CaptureFile

log = logging.getLogger(__name__)

FOLDER = "capture"
_NEW, _OPEN, _SEALED, _BAD = ".new", ".open", ".sealed", ".unreadable"
_ABANDONED_S = 60.0  # a file that never got its name, and nobody works on
_HEAD_BYTES_MAX = 8_192


@dataclass(frozen=True, slots=True)
class Write:
    """Lines for one file, and whether it is whole with them."""

    file: CaptureFile
    data: bytes
    records: int
    seal: bool


class SpoolWriter:
    """The files of one gateway worker. Used by one thread."""

    def __init__(self, data: Path) -> None:
        self._root = data / FOLDER
        self._open: dict[str, tuple[int, int]] = {}  # descriptor and good size, by path

    def write(self, writes: Iterable[Write]) -> list[tuple[Write, OSError]]:
        """Append, and seal what is whole. Returns those that could not be written; their files are as before."""
        failed: list[tuple[Write, OSError]] = []
        for each in writes:
            try:
                self._write(each)
            except OSError as error:
                failed.append((each, error))
        return failed

    def used(self, slug: str) -> int:
        """Bytes of an endpoint's files, of all workers, that are still to be uploaded."""
        total = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root / slug) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def disk_percent(self) -> float:
        """How full the disk is, as `df` counts: what an ordinary user can still write is free."""
        self._root.mkdir(parents=True, exist_ok=True)
        usage = shutil.disk_usage(self._root)
        return 100 * usage.used / max(1, usage.used + usage.free)

    def close(self) -> None:
        """Let go of every file, sealed or not."""
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _write(self, each: Write) -> None:
        path = str(self._path(each.file))
        if path not in self._open:
            self._begin(each.file, path)
        descriptor, good = self._open[path]
        try:
            write_all(descriptor, each.data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, good)
            if each.seal:
                self._seal(path)
            raise
        self._open[path] = (descriptor, good + len(each.data))
        if each.seal:
            self._seal(path)

    def _path(self, file: CaptureFile) -> Path:
        return self._root / file.slug / f"{file.began_ms}-{file.name}"

    def _begin(self, file: CaptureFile, path: str) -> None:
        """A file gets its name once it is locked: nobody takes it for one that was left behind."""
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path + _NEW, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        head = msgspec.json.encode(file) + b"\n"
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(descriptor, head)
            os.rename(path + _NEW, path + _OPEN)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(path + _NEW)
            raise
        self._open[path] = (descriptor, len(head))

    def _seal(self, path: str) -> None:
        descriptor, _ = self._open.pop(path)
        try:
            os.fsync(descriptor)
            os.rename(path + _OPEN, path + _SEALED)
        finally:
            os.close(descriptor)


class Spool:
    """All files that wait to be uploaded. Used by one thread of control."""

    def __init__(self, data: Path) -> None:
        self._root = data / FOLDER

    def waiting(self) -> list[Path]:
        """Files that are whole, oldest first; those that a killed worker left are made so."""
        for path in [*self._files(_OPEN), *self._files(_NEW)]:
            with contextlib.suppress(OSError):
                self._adopt(path)
        return sorted(self._files(_SEALED), key=_age_of)

    def head(self, path: Path) -> CaptureFile:
        """What a file is. Raises ValueError for what is none, OSError."""
        with open(path, "rb") as file:
            try:
                return msgspec.json.decode(file.readline(_HEAD_BYTES_MAX), type=CaptureFile)
            except msgspec.MsgspecError as error:
                raise ValueError(f"its first line is not that of captured records: {error}") from None

    def records(self, path: Path) -> bytes:
        """Its records. Raises OSError."""
        with open(path, "rb") as file:
            file.readline(_HEAD_BYTES_MAX)
            return file.read()

    def remove(self, path: Path) -> None:
        """It is uploaded."""
        path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> None:
        """It cannot be read, now or ever: it stays for a person to look at."""
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(_BAD))

    def _files(self, suffix: str) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for folder in self._root.iterdir():
                if folder.is_dir():
                    yield from (path for path in folder.iterdir() if path.suffix == suffix)

    def _adopt(self, path: Path) -> None:
        """Take an open file whose worker is no more: what was half written of its last line is cut off."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its worker lives
            if path.suffix == _NEW:
                if time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_S:
                    path.unlink()
                return
            size = os.fstat(descriptor).st_size
            whole = _end_of_last_line(descriptor, size)
            if whole < size:
                log.warning("%s ended in the middle of a record: %d bytes cut off", path.name, size - whole)
                os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
            if path.exists():  # else its worker has just sealed it
                path.rename(path.with_suffix(_SEALED))
        finally:
            os.close(descriptor)


def _age_of(path: Path) -> tuple[int, str]:
    began = path.name.partition("-")[0]
    return int(began) if began.isdigit() else 0, path.name


def _end_of_last_line(descriptor: int, size: int) -> int:
    """Where the last whole line ends."""
    end = size
    while end > 0:
        start = max(0, end - 65_536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0

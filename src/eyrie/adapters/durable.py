"""Files that are whole, and stay: what a crash of the host or a full disk may not tear.

Every part that keeps a small file of its own writes it here: keys, route tables, the marks of a job. A rename is only
in the folder, so it lasts once the folder is synced; who tells somebody "done" waits for that, who writes a mark that
is made again after a crash does not.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that a reader sees the old one or the new one, whole, also after a crash of the host. It has one
    writer a process. Raises OSError; then the old one stands.
    """
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    half.unlink(missing_ok=True)
    fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(half, path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def write_lasting(path: Path, content: bytes, mode: int) -> None:
    """The same, and once this returns the new one is there after a power cut. Raises OSError."""
    write_whole(path, content, mode)
    sync(path.parent)


def write_all(fd: int, content: bytes) -> None:
    """All of it: one `write` may stop early, as it does where the disk fills up. Raises OSError."""
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def sync(path: Path) -> None:
    """Make a file's bytes, or what a folder holds under which names, last. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

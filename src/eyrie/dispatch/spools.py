"""Large results between an instance's answer and their object: files under DATA/async, each written once and synced
before its outcome is decided.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from eyrie.ports import Identity

PIECE_BYTES = 1 << 20
RESULT_BYTES_MAX = 5 << 30  # the largest object of one put


class ResultTooLarge(Exception):
    """The result is longer than any object may be."""


class Spools:
    """The folder, which dispatch alone writes."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder, self._identity = folder, identity
        folder.mkdir(parents=True, exist_ok=True)

    async def keep(self, first: bytes, rest: AsyncIterator[bytes]) -> tuple[str, int]:
        """Write a result whole and durably; its name and size. Raises ResultTooLarge, OSError, and what `rest`
        raises; then nothing is left.
        """
        name = self._identity.token(32)
        path = self._folder / name
        try:
            with open(path, "xb", buffering=0) as file:
                size = await _write(file.fileno(), first, rest)
                await asyncio.to_thread(os.fsync, file.fileno())
            return name, size
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """A result in pieces. Raises OSError."""
        with open(self._folder / name, "rb", buffering=0) as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece

    def remove(self, name: str) -> None:
        """Forget a result; one that is not there is no error."""
        if name:
            (self._folder / name).unlink(missing_ok=True)

    def tidy(self, needed: set[str]) -> int:
        """Remove what no outcome names: left by a process that died; how many."""
        left = [path for path in self._folder.iterdir() if path.name not in needed]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


async def _write(fd: int, first: bytes, rest: AsyncIterator[bytes]) -> int:
    held, waiting, size = [first], len(first), 0
    async for piece in rest:
        held.append(piece)
        waiting += len(piece)
        if waiting >= PIECE_BYTES:
            size += await asyncio.to_thread(_write_all, fd, b"".join(held))
            held, waiting = [], 0
            if size > RESULT_BYTES_MAX:
                raise ResultTooLarge
    return size + await asyncio.to_thread(_write_all, fd, b"".join(held))


def _write_all(fd: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)

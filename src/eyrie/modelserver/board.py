"""What the processes of one instance know of each other: a few numbers in memory that they share.

Made before the first fork, so that every process of the instance sees the same page. Each number has one writer and is
one aligned word: no lock is needed.
"""

from __future__ import annotations

import mmap
import struct

WORKERS_MAX = 64
_OPEN, _LOADED_MS, _KEEPER, _NURSERY, _FIRST = range(5)
_WORD = struct.Struct("i")


class Board:
    """Which workers serve, by process id; and how long loading took."""

    def __init__(self, workers: int) -> None:
        """`workers`: how many the instance has, 1 to WORKERS_MAX."""
        self.workers = workers
        self._memory = mmap.mmap(-1, _WORD.size * (_FIRST + 2 * workers))
        self._put(_LOADED_MS, -1)

    @property
    def open(self) -> bool:
        """Whether the keeper has left the sockets to the workers."""
        return bool(self._get(_OPEN))

    @open.setter
    def open(self, value: bool) -> None:
        self._put(_OPEN, value)

    @property
    def loaded_ms(self) -> int | None:
        """How long the model took to load, in its first process; None: it is not loaded."""
        known = self._get(_LOADED_MS)
        return None if known < 0 else known

    @loaded_ms.setter
    def loaded_ms(self, value: int) -> None:
        self._put(_LOADED_MS, value)

    def keeper(self, pid: int) -> None:
        """Note the process that holds the lock."""
        self._put(_KEEPER, pid)

    def nursery(self, pid: int) -> None:
        """Note the process that the workers are forked from."""
        self._put(_NURSERY, pid)

    def born(self, number: int, pid: int) -> None:
        """Note a worker that was forked; it does not serve yet."""
        self._put(_FIRST + 2 * number, pid)
        self._put(_FIRST + 2 * number + 1, 0)

    def serves(self, number: int) -> None:
        """A worker listens."""
        self._put(_FIRST + 2 * number + 1, 1)

    def left(self, number: int) -> None:
        """A worker has ended."""
        self.born(number, 0)

    def serving(self, number: int) -> bool:
        """Whether a worker serves."""
        return bool(self._get(_FIRST + 2 * number + 1))

    @property
    def all_serving(self) -> bool:
        """Whether every worker serves."""
        return all(self.serving(number) for number in range(self.workers))

    @property
    def pids(self) -> list[int]:
        """Every process of the instance that is known to live."""
        places = (_KEEPER, _NURSERY, *(_FIRST + 2 * number for number in range(self.workers)))
        return sorted({pid for place in places if (pid := self._get(place))})

    def _get(self, place: int) -> int:
        return int(_WORD.unpack_from(self._memory, place * _WORD.size)[0])

    def _put(self, place: int, value: int) -> None:
        _WORD.pack_into(self._memory, place * _WORD.size, value)

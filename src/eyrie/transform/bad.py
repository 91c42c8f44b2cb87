"""Bad records: found one by one in a request that was refused, told with their number, and, where the job tolerates
some, left out of the results and listed beside them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

from eyrie.decide.transform_join import Sieve, shaped
from eyrie.decide.transform_split import Payload
from eyrie.domain.transform import InputObject
from eyrie.transform.wire import Reply

SHOWN_MAX = 300
Asks = Callable[[Sequence[bytes]], list[Reply]]  # has requests answered
Piece = tuple[int, bytes, bytes]  # number, as it stands in the input, as it is sent


class BadRecord(Exception):
    """A record that the model refuses."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def sifted(
    payload: Payload, reply: Reply, joint: bytes, room: int, ask: Asks, sieve: Sieve | None
) -> tuple[list[bytes], list[BadRecord]]:
    """The results of a payload that was refused, an empty one for each bad record, of which there is room for so many.

    Raises BadRecord for the first one beyond.
    """
    results: list[bytes] = []
    bad: list[BadRecord] = []
    waiting: list[tuple[Sequence[Piece], Reply | None]] = [(payload.pieces(), reply)]
    while waiting:
        pieces, known = waiting.pop()
        answer = known or ask([joint.join(sent for _, _, sent in pieces)])[0]
        if answer.status == 200:
            records = [record for _, record, _ in pieces]
            results += shaped(answer.body, records, sieve.written) if sieve is not None else [answer.body]
        elif len(pieces) > 1:
            middle = len(pieces) // 2
            waiting += [(pieces[middle:], None), (pieces[:middle], None)]
        else:
            found = BadRecord(pieces[0][0], told(answer))
            if len(bad) >= room:
                raise found
            bad.append(found)
            results.append(b"\n")
    return results, bad


def told(reply: Reply) -> str:
    """An answer that is no success, in words."""
    text = reply.body[:SHOWN_MAX].decode("utf-8", "replace").strip()
    kind = "client" if reply.status < 500 else "server"
    return f'Received {kind} error ({reply.status}) from primary with message "{text}"'


class BadRecords:
    """The list of an object's bad records, on disk until the object is done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._size = 0

    @property
    def count(self) -> int:
        """Whether there are any: the size of the list."""
        return self._size

    def open(self, kept: int) -> None:
        """Stand where a mark says."""
        self.close()
        self._size = kept if self._path.exists() and self._path.stat().st_size >= kept else 0

    def add(self, one: InputObject, found: Iterable[BadRecord]) -> None:
        """More of them."""
        for bad in found:
            line = json.dumps({"object": one.url, "record": bad.line, "reason": str(bad)}) + "\n"
            if self._file is None:
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the object
                self._file.truncate(self._size)
                self._file.seek(self._size)
            self._file.write(line.encode())
            self._size += len(line.encode())

    def noted(self) -> int:
        """How long the list is, safely on disk."""
        if self._file is not None:
            os.fdatasync(self._file.fileno())
        return self._size

    def text(self) -> bytes:
        """The list."""
        with open(self._path, "rb") as file:
            return file.read(self._size)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """The object is done."""
        self.close()
        self._size = 0
        self._path.unlink(missing_ok=True)

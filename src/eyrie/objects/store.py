"""Bytes and index together: how a body becomes a blob and then an object, how it is read, and how what nothing names
goes away.

The rule that keeps a crash harmless: a blob is complete and durable before the commit that names it, and is deleted
only after the commit that names it no more. Blobs that no commit ever named (a killed PUT) are found by `sweep`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from eyrie.objects import catalogue
from eyrie.objects.errors import refuse
from eyrie.objects.index import Change, Index
from eyrie.objects.records import Segment
from eyrie.ports import Blobs

T = TypeVar("T")
log = logging.getLogger(__name__)

WRITES_MAX = 256  # bodies being stored at once; each holds some 3 MB (16 MB over s3://)
READS_MAX = 1024  # replies being streamed at once
UPLOAD_AGE_MS = 7 * 24 * 3600 * 1000  # a multipart upload that was begun longer ago is aborted
STORE_ID_DIGITS = 8  # the first digits of a blob's name say whose it is: another Eyrie may use the same bucket
_DELETE_BATCH = 64
_RETRY_S = 30


class ObjectStore:
    """The bytes and the index of one Eyrie.

    `token(digits)` draws lower-case hex digits; `now_ms` is wall-clock time.
    """

    def __init__(self, path: Path, blobs: Blobs, token: Callable[[int], str], now_ms: Callable[[], int]) -> None:
        self.index = Index(path, self._freed, token(STORE_ID_DIGITS))
        self.token = token
        self.now_ms = now_ms
        self._blobs = blobs
        self._writing: set[str] = set()
        self._readings = 0
        self._pins: Counter[str] = Counter()
        self._doomed: set[str] = set()  # freed, but still being read
        self._garbage: deque[str] = deque()
        self._reclaiming: asyncio.Task[None] | None = None
        self._commits: set[asyncio.Task[None]] = set()

    # --- writing ------------------------------------------------------------------------------------------

    async def receive(self, chunks: AsyncIterator[bytes]) -> Incoming:
        """Store a body under a new name, durably but named by nothing yet.

        Raises what `chunks` raises, and ApiError (SlowDown).
        """
        if len(self._writing) >= WRITES_MAX:
            raise refuse("SlowDown")
        name = self.index.store_id + self.token(32 - STORE_ID_DIGITS)
        self._writing.add(name)
        try:
            size = await self._put(name, chunks)
        except BaseException:
            self._writing.discard(name)
            raise
        return Incoming(self, name, size)

    async def _put(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """The size of the stored blob; an empty body stores none."""
        async for first in chunks:
            if first:
                return await self._blobs.put(name, _chained(first, chunks))
        return 0

    async def commit(self, incoming: Incoming, write: Callable[[Change], T]) -> T:
        """Run the write that names an incoming blob. It goes through or not whether or not the caller still waits."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._settle(incoming, write, result))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return await result

    async def _settle(self, incoming: Incoming, write: Callable[[Change], T], result: asyncio.Future[T]) -> None:
        try:
            answer = await self.index.write(write)
        except Exception as error:  # whatever the write raised belongs to the caller
            incoming.discard()
            if not result.done():
                result.set_exception(error)
            return
        self._writing.discard(incoming.name)
        if not result.done():
            result.set_result(answer)

    def discard(self, incoming: Incoming) -> None:
        """Let go of a blob that will not be named."""
        if incoming.name in self._writing:
            self._writing.discard(incoming.name)
            if incoming.size:
                self._freed([incoming.name])

    # --- reading ------------------------------------------------------------------------------------------

    def read(self, version: str, start: int, end: int) -> Reading:
        """The bytes of a version that stands in the index now, to be read even if it is overwritten meanwhile.

        Must be called in the same step of the event loop in which the index was asked for the version. Raises ApiError
        (SlowDown).
        """
        if self._readings >= READS_MAX:
            raise refuse("SlowDown")
        return Reading(self, catalogue.segments(self.index.db, version, start, end), start, end)

    def pin(self, blobs: Sequence[str]) -> None:
        """A reader begins: keep its blobs from being deleted."""
        self._readings += 1
        self._pins.update(blobs)

    def unpin(self, blobs: Sequence[str]) -> None:
        """A reader has ended: let its blobs go again."""
        self._readings -= 1
        for blob in blobs:
            self._pins[blob] -= 1
            if self._pins[blob] <= 0:
                del self._pins[blob]
                if blob in self._doomed:
                    self._doomed.discard(blob)
                    self._freed([blob])

    def blob(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes of one blob."""
        return self._blobs.read(name, start, end)

    # --- letting go ------------------------------------------------------------------------------------------

    def _freed(self, blobs: Sequence[str]) -> None:
        """Called on the event loop with blobs that nothing names any more."""
        for blob in blobs:
            if blob in self._pins:
                self._doomed.add(blob)
            else:
                self._garbage.append(blob)
        if self._garbage and (self._reclaiming is None or self._reclaiming.done()):
            self._reclaiming = asyncio.get_running_loop().create_task(self._reclaim())

    async def _reclaim(self) -> None:
        while self._garbage:
            batch = [self._garbage.popleft() for _ in range(min(_DELETE_BATCH, len(self._garbage)))]
            try:
                await self._blobs.delete(batch)
            except OSError as error:  # the next sweep finds them again
                log.warning("blobs were not deleted: %s", error)

    async def tidy(self) -> int:
        """Remove what interrupted puts of an earlier process left half written; how many. Before the first put only."""
        return await self._blobs.tidy(self.index.store_id)

    async def sweep(self) -> int:
        """Delete every blob that nothing names and nobody is writing or reading; abort old uploads. How many blobs."""
        await self._abort_old_uploads()
        found = 0
        async for names in self._blobs.list():
            orphans = [name for name in names if self._is_orphan(name)]
            found += len(orphans)
            self._freed(orphans)
            await asyncio.sleep(0)  # a big directory must not hold up requests
        return found

    def _is_orphan(self, name: str) -> bool:
        if not name.startswith(self.index.store_id):
            return False
        busy = name in self._writing or name in self._pins or name in self._doomed
        return not busy and not catalogue.is_named(self.index.db, name)

    async def _abort_old_uploads(self) -> None:
        old = catalogue.uploads_before(self.index.db, self.now_ms() - UPLOAD_AGE_MS, 1000)
        for upload_id in old:
            await self.index.write(lambda change, upload_id=upload_id: catalogue.drop_upload(change, upload_id))  # type: ignore[misc]

    async def close(self) -> None:
        """Finish commits and deletions that were begun, then close the index."""
        if self._commits:
            await asyncio.wait(self._commits)
        if self._reclaiming is not None:
            await asyncio.wait([self._reclaiming], timeout=_RETRY_S)
        self.index.close()
        await asyncio.sleep(0)


class Incoming:
    """A stored body that nothing names yet: `ObjectStore.commit` names it, `discard` lets it go."""

    def __init__(self, store: ObjectStore, name: str, size: int) -> None:
        self._store = store
        self.name = name
        self.size = size

    def segment(self, part: int = 1) -> Segment:
        """The whole of it as an object's or a part's only segment."""
        return Segment(0, self.size, self.name, 0, part)

    def discard(self) -> None:
        """Delete it."""
        self._store.discard(self)


class Reading:
    """The bytes of a range, piece by piece. Holds its blobs until it is closed or dropped."""

    def __init__(self, store: ObjectStore, segments: Sequence[Segment], start: int, end: int) -> None:
        self._store = store
        self._pinned: Sequence[str] | None = [segment.blob for segment in segments]
        store.pin(self._pinned)
        self._pieces = _pieces(store, segments, start, end)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def whole(self) -> bytes:
        """All of it at once; for small ranges."""
        try:
            pieces = [piece async for piece in self._pieces]
        finally:
            await self.aclose()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        """Let the blobs go."""
        self._release()
        await self._pieces.aclose()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        pinned, self._pinned = self._pinned, None
        if pinned is not None:
            self._store.unpin(pinned)


async def _pieces(store: ObjectStore, segments: Sequence[Segment], start: int, end: int) -> AsyncGenerator[bytes, None]:
    for segment in segments:
        low = max(start, segment.start) - segment.start + segment.blob_start
        high = min(end, segment.start + segment.size) - segment.start + segment.blob_start
        async for piece in store.blob(segment.blob, low, high):
            yield piece


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk

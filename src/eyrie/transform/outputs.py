"""The outputs of one share: what is written of its objects, in their order, and the `Mark` that says where that stands.

Whoever has the model asked (a share's own threads, or a cluster) hands in results in the order of the input. What goes
wrong with an object costs that object its output and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from eyrie.adapters.durable import write_whole
from eyrie.decide.transform_join import Sieve
from eyrie.decide.transform_plan import FAILURES_TOLD, output_key
from eyrie.domain.transform import Agreed, InputObject, Mark, TransformSpec
from eyrie.transform import source
from eyrie.transform.bad import BadRecords
from eyrie.transform.bucket import BucketError, Door
from eyrie.transform.results import Written
from eyrie.transform.sink import Sink

log = logging.getLogger("eyrie.transform")

MARK_EVERY_S, MARK_EVERY_MAX_S = 1.0, 30.0
MARK_TIMES = 20.0  # a mark that took long, on a disk that is busy, is followed by this many times as long without one
RESTARTS_MAX = 3  # of one object, where its upload is gone


@dataclass(frozen=True, slots=True)
class Work:
    """A job as its shares see it."""

    spec: TransformSpec
    agreed: Agreed
    sieve: Sieve | None
    door: Door
    bucket: str  # of the outputs
    prefix: str
    box: Path
    concurrent: int  # requests at once, of each instance
    batches: bool  # its instances take many requests in one message


class Outputs:
    """What a share has written. Used by one thread."""

    def __init__(self, work: Work, number: int, objects: Sequence[InputObject]) -> None:
        self._work, self._number, self._objects = work, number, objects
        self._path = work.box / f"share-{number}.json"
        self.mark = read_mark(self._path)
        self._marked_s, self._pause_s = 0.0, MARK_EVERY_S
        self._sink: Sink | None = None
        self._bad = BadRecords(work.box / f"share-{number}.bad")
        self._restarts = 0

    @property
    def room(self) -> int:
        """How many more records may be bad."""
        return self._work.spec.bad_records_max - self.mark.bad_records

    def write(self, index: int, found: Written) -> None:
        """More of an object's output. Raises BucketError, Restart."""
        self.opened(index).write(found.data)
        self._bad.add(self._objects[index], found.bad)
        mark = self.mark
        done = 0 if self._unpacked(index) else found.end - mark.offset
        self.mark = replace(
            mark,
            offset=found.end,
            line=found.line,
            records=mark.records + found.records,
            bytes_read=mark.bytes_read + done,
            bytes_written=mark.bytes_written + len(found.data),
            bad_records=mark.bad_records + len(found.bad),
        )

    def write_piece(self, index: int, data: bytes) -> None:
        """A piece of an answer that is the whole output: it is begun again where it breaks off."""
        self.opened(index).write(data)
        self.mark = replace(self.mark, bytes_written=self.mark.bytes_written + len(data))

    def note_in_time(self) -> None:
        """Write the mark down, where that was not done a moment ago."""
        if time.monotonic() - self._marked_s > self._pause_s:
            self._note()

    def opened(self, index: int) -> Sink:
        """The output of an object, which begins with this where it has not."""
        if self._sink is None:
            work, one = self._work, self._objects[index]
            key = output_key(work.prefix, one.name)
            kind = work.spec.accept or work.spec.content_type or "application/octet-stream"
            self._sink = Sink(work.door, work.bucket, key, kind, work.box, f"share-{self._number}.out")
            self._sink.open(self.mark)
            self._bad.open(self.mark.bad_kept)
            log.info("%s: from byte %d", one.url, self.mark.offset)
        return self._sink

    def finish(self, index: int) -> None:
        """An object is done: its output appears."""
        one, sink = self._objects[index], self.opened(index)
        self._note()
        if self._bad.count:
            key = output_key(self._work.prefix, one.name, ".errors.jsonl")
            listed = self._bad.text()
            self._work.door.call(lambda s3: s3.put_bytes(self._work.bucket, key, listed, "application/jsonlines"))
        sink.finish()
        log.info("%s: done, %s", one.url, sink.url)
        self._next(index)

    def fail(self, index: int, why: str) -> None:
        """An object gets no output."""
        one = self._objects[index]
        log.error("%s: %s", one.url, why)
        self.opened(index).abort()
        reason = why if one.url in why else f"{one.url}, {why}"
        told = (*self.mark.failed, reason[:400]) if len(self.mark.failed) < FAILURES_TOLD else self.mark.failed
        self.mark = replace(self.mark, failed=told, failed_count=self.mark.failed_count + 1)
        self._next(index)

    def begin_again(self) -> None:
        """The upload of an object is gone: its output is made anew. Raises BucketError, once that goes on and on."""
        self._restarts += 1
        if self._restarts > RESTARTS_MAX:
            raise BucketError(f"InternalError: the upload of {self._objects[self.mark.index].name}.out was lost again")
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()
        before = self.mark
        read = sum(one.size for one in self._objects[: before.index])
        self.mark = replace(before, offset=0, line=0, kept=0, upload_id="", parts=(), bad_kept=0, bytes_read=read)
        self._write_mark()

    def begin_whole(self, index: int) -> None:
        """An object is begun from its first byte."""
        self.mark = replace(self.mark, offset=0, kept=0, upload_id="", parts=())
        self.opened(index)

    def count_record(self) -> None:
        """The object was one record, and is answered."""
        self.mark = replace(self.mark, records=self.mark.records + 1)

    def close(self) -> None:
        """Let go of the files; they stay for whoever takes this up again."""
        if self._sink is not None:
            self._sink.close()
        self._bad.close()

    def _next(self, index: int) -> None:
        sink, self._sink = self._sink, None
        read = sum(one.size for one in self._objects[: index + 1])
        cleared = replace(self.mark, index=index + 1, offset=0, line=0, kept=0, upload_id="", parts=(), bad_kept=0)
        self.mark = replace(cleared, bytes_read=read)
        self._restarts = 0
        self._write_mark()
        if sink is not None:
            sink.remove()
        self._bad.remove()

    def _unpacked(self, index: int) -> bool:
        """Whether bytes of the stream are not those of the object: progress then counts whole objects."""
        return source.unpacked(self._work.spec, self._objects[index])

    # ----------------------------------------------------------------------------------------------------------- marks
    def _note(self) -> None:
        """Write down where the share stands, after everything that it says is on disk."""
        began = time.monotonic()
        if self._sink is not None:
            self.mark = replace(self._sink.noted(self.mark), bad_kept=self._bad.noted())
        self._write_mark()
        self._pause_s = min(max(MARK_EVERY_S, MARK_TIMES * (self._marked_s - began)), MARK_EVERY_MAX_S)
        if self._sink is not None:
            self._sink.tidy()

    def _write_mark(self) -> None:
        write_whole(self._path, msgspec.json.encode(self.mark), 0o644)
        self._marked_s = time.monotonic()


def read_mark(path: Path) -> Mark:
    """Where a share stands; at its beginning where nothing is written."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
        return Mark()

"""One instance's share of a job: its objects in order, each read, split, answered and written, many requests at once.

Requests go out ahead of what is written, and results come back in order, so that an object's output has the order of
its input, and a `Mark` says it all. What goes wrong with an object costs that object its output and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from eyrie.adapters.job_program import write_whole
from eyrie.decide.transform_join import JoinError, Sieve, assembled, shaped
from eyrie.decide.transform_plan import FAILURES_TOLD, output_key
from eyrie.decide.transform_split import Payload, SplitError, Splitter, splitter
from eyrie.domain.transform import Agreed, Assemble, InputObject, Mark, Split, Strategy, TransformSpec
from eyrie.transform import source
from eyrie.transform.bad import BadRecord, BadRecords, sifted
from eyrie.transform.bucket import BucketError, Door
from eyrie.transform.caller import Caller, NoReply
from eyrie.transform.sink import Restart, Sink
from eyrie.transform.wire import Reply

log = logging.getLogger("eyrie.transform")

BUNDLE_BYTES, BUNDLE_PAYLOADS = 1 << 20, 2_048  # that go out in one message
BUNDLE_FIRST, BUNDLE_SHORT_S, BUNDLE_LONG_S = 16, 0.2, 1.0  # a bundle grows and shrinks by how long one takes
MARK_EVERY_S = 1.0
STREAM_PIECE = 1 << 18
RESTARTS_MAX = 3  # of one object, where its upload is gone


class ObjectFailed(Exception):
    """An object has no output; the message says why."""


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


@dataclass(frozen=True, slots=True)
class _Sent:
    """Payloads of an object that are on their way; or, without any, its end, or its failure."""

    index: int
    payloads: Sequence[Payload] = ()
    replies: Future[list[Reply]] | None = None
    error: str = ""


class Share:
    """One share, worked off by one thread."""

    def __init__(self, work: Work, number: int, objects: Sequence[InputObject], caller: Caller) -> None:
        self._work, self._number, self._objects, self._caller = work, number, objects, caller
        self._path = work.box / f"share-{number}.json"
        self.mark = read_mark(self._path)
        self._marked_s = 0.0
        self._sink: Sink | None = None
        self._bad = BadRecords(work.box / f"share-{number}.bad")
        self._given_up: set[int] = set()
        self._restarts = 0
        self._bundle = BUNDLE_FIRST

    def run(self) -> None:
        """To the end of all objects. Raises BucketError, NotReady: nothing more can be done at all."""
        with ThreadPoolExecutor(self._work.concurrent, thread_name_prefix=f"share-{self._number}") as threads:
            try:
                while self.mark.index < len(self._objects):
                    try:
                        self._run(threads)
                    except Restart:
                        self._begin_again()
            finally:
                if self._sink is not None:
                    self._sink.close()
                self._bad.close()
                threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, threads: ThreadPoolExecutor) -> None:
        if self._work.agreed.payload_bytes == 0:
            for index in range(self.mark.index, len(self._objects)):
                self._stream(index)
            return
        ahead: deque[_Sent] = deque()
        for sent in self._sending(threads):
            ahead.append(sent)
            while len(ahead) > 2 * self._work.concurrent or (ahead and _here(ahead[0])):
                self._take(ahead.popleft())
        while ahead:
            self._take(ahead.popleft())

    # ------------------------------------------------------------------------------------------------------ going out
    def _sending(self, threads: ThreadPoolExecutor) -> Iterator[_Sent]:
        """Send everything from where the mark is; each object's payloads, then its end."""
        for index in range(self.mark.index, len(self._objects)):
            mark = self.mark if index == self.mark.index else Mark()
            try:
                for payloads in self._bundles(self._payloads(index, mark)):
                    if index in self._given_up:
                        break
                    bodies = [payload.body for payload in payloads]
                    yield _Sent(index, payloads, threads.submit(self._ask, bodies))
            except SplitError as error:
                yield _Sent(index, error=f"record {error.line}: {error.why}")
            except BucketError as error:
                yield _Sent(index, error=str(error))
            else:
                yield _Sent(index)

    def _payloads(self, index: int, mark: Mark) -> Iterator[Payload]:
        work, spec = self._work, self._work.spec
        cut = self._splitter(mark)
        for piece in source.pieces(work.door, spec, self._objects[index], mark.offset):
            yield from cut.feed(piece)
            if index in self._given_up:
                return
        yield from cut.finish()

    def _splitter(self, mark: Mark) -> Splitter:
        work, spec = self._work, self._work.spec
        sieve = work.sieve
        return splitter(
            spec.split,
            work.agreed.payload_bytes,
            work.agreed.strategy is Strategy.SINGLE_RECORD,
            sent=sieve.sent if sieve is not None and not sieve.input_path.whole else None,
            looked_at=spec.processing.shapes_output,
            offset=mark.offset,
            line=mark.line,
        )

    def _bundles(self, payloads: Iterator[Payload]) -> Iterator[list[Payload]]:
        """Payloads that go out together: one each where the instance takes no more."""
        bundle: list[Payload] = []
        size = 0
        for payload in payloads:
            if bundle and (
                not self._work.batches or size + len(payload.body) > BUNDLE_BYTES or len(bundle) >= self._bundle
            ):
                yield bundle
                bundle, size = [], 0
            bundle.append(payload)
            size += len(payload.body)
        if bundle:
            yield bundle

    def _ask(self, bodies: Sequence[bytes]) -> list[Reply]:
        """On a thread of its own: the answers. What they took says how many go out together from now on."""
        began = time.monotonic()
        replies = self._caller.ask(bodies)
        took_s = time.monotonic() - began
        if took_s > BUNDLE_LONG_S and len(bodies) > 1:
            self._bundle = max(1, len(bodies) // 2)
        elif took_s < BUNDLE_SHORT_S and len(bodies) >= self._bundle:
            self._bundle = min(2 * self._bundle, BUNDLE_PAYLOADS)
        return replies

    # -------------------------------------------------------------------------------------------------- coming back in
    def _take(self, sent: _Sent) -> None:
        """What comes next in order: write it, and note that it is done."""
        if sent.index in self._given_up:
            if not sent.payloads:
                self._given_up.discard(sent.index)
            return
        try:
            if sent.error:
                raise ObjectFailed(sent.error)
            if sent.replies is None:
                self._finish(sent.index)
                return
            self._write(sent.index, sent.payloads, sent.replies.result())
        except (ObjectFailed, NoReply) as error:
            if isinstance(error, NoReply):
                error = ObjectFailed(f"{_span(sent.payloads)}: {error}")
            self._fail(sent.index, str(error))
            if sent.payloads:
                self._given_up.add(sent.index)

    def _write(self, index: int, payloads: Sequence[Payload], replies: Sequence[Reply]) -> None:
        sink = self._opened(index)
        for payload, reply in zip(payloads, replies, strict=True):
            results, bad = self._results(index, payload, reply)
            several = len(results) > 1 and self._work.spec.processing.shapes_output
            data = assembled(results, several or self._work.spec.assemble is Assemble.LINE)
            sink.write(data)
            self._bad.add(self._objects[index], bad)
            mark = self.mark
            done = payload.end - mark.offset
            self.mark = replace(
                mark,
                offset=payload.end,
                line=payload.first_line + payload.lines - 1,
                records=mark.records + payload.count,
                bytes_read=mark.bytes_read + (0 if self._unpacked(index) else done),
                bytes_written=mark.bytes_written + len(data),
                bad_records=mark.bad_records + len(bad),
            )
        if time.monotonic() - self._marked_s > MARK_EVERY_S:
            self._note()

    def _results(self, index: int, payload: Payload, reply: Reply) -> tuple[list[bytes], list[BadRecord]]:
        """What is written for a payload. Raises ObjectFailed."""
        work = self._work
        try:
            if reply.status == 200:
                return self._shaped(payload, reply.body), []
            room = work.spec.bad_records_max - self.mark.bad_records
            joint = b"\n" if work.spec.split is Split.LINE else b""
            shaping = work.sieve if work.spec.processing.shapes_output else None
            return sifted(payload, reply, joint, room, self._caller, shaping)
        except (JoinError, BadRecord) as error:
            where = f"record {error.line}" if isinstance(error, BadRecord) else _span([payload])
            raise ObjectFailed(f"{where}: {error}") from None

    def _shaped(self, payload: Payload, body: bytes) -> list[bytes]:
        sieve = self._work.sieve
        if sieve is None or not self._work.spec.processing.shapes_output:
            return [body]
        return shaped(body, [record for _, record, _ in payload.pieces()], sieve.written)

    def _unpacked(self, index: int) -> bool:
        """Whether bytes of the stream are not those of the object: progress then counts whole objects."""
        return self._work.spec.gzip or source.parquet(self._work.spec, self._objects[index])

    # ---------------------------------------------------------------------------------------------- objects begin, end
    def _opened(self, index: int) -> Sink:
        if self._sink is None:
            work, one = self._work, self._objects[index]
            key = output_key(work.prefix, one.name)
            kind = work.spec.accept or work.spec.content_type or "application/octet-stream"
            self._sink = Sink(work.door, work.bucket, key, kind, work.box, f"share-{self._number}.out")
            self._sink.open(self.mark)
            self._bad.open(self.mark.bad_kept)
            log.info("%s: from byte %d", one.url, self.mark.offset)
        return self._sink

    def _finish(self, index: int) -> None:
        """An object is done: its output appears."""
        one, sink = self._objects[index], self._opened(index)
        self._note()
        if self._bad.count:
            key = output_key(self._work.prefix, one.name, ".errors.jsonl")
            listed = self._bad.text()
            self._work.door.call(lambda s3: s3.put_bytes(self._work.bucket, key, listed, "application/jsonlines"))
        sink.finish()
        log.info("%s: done, %s", one.url, sink.url)
        self._next(index)

    def _fail(self, index: int, why: str) -> None:
        """An object gets no output."""
        one = self._objects[index]
        log.error("%s: %s", one.url, why)
        self._opened(index).abort()
        reason = why if one.url in why else f"{one.url}, {why}"
        told = (*self.mark.failed, reason[:400]) if len(self.mark.failed) < FAILURES_TOLD else self.mark.failed
        self.mark = replace(self.mark, failed=told, failed_count=self.mark.failed_count + 1)
        self._next(index)

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

    def _begin_again(self) -> None:
        """The upload of an object is gone: its output is made anew."""
        self._restarts += 1
        if self._restarts > RESTARTS_MAX:
            raise BucketError(f"InternalError: the upload of {self._objects[self.mark.index].name}.out was lost again")
        self._given_up.clear()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()
        before = self.mark
        read = sum(one.size for one in self._objects[: before.index])
        self.mark = replace(before, offset=0, line=0, kept=0, upload_id="", parts=(), bad_kept=0, bytes_read=read)
        self._write_mark()

    def _stream(self, index: int) -> None:
        """An object in one request of any length: chunked, both ways."""
        one, work = self._objects[index], self._work
        self.mark = replace(self.mark, offset=0, kept=0, upload_id="", parts=())
        sink = self._opened(index)
        try:
            with self._caller.stream(source.pieces(work.door, work.spec, one, 0)) as response:
                if response.status != 200:
                    raise ObjectFailed(told(Reply(response.status, response.read(2_000))))
                last = b""
                while piece := response.read(STREAM_PIECE):
                    sink.write(piece)
                    last = piece
                    self.mark = replace(self.mark, bytes_written=self.mark.bytes_written + len(piece))
                if work.spec.assemble is Assemble.LINE and not last.endswith(b"\n"):
                    sink.write(b"\n")
            self.mark = replace(self.mark, records=self.mark.records + 1)
            self._finish(index)
        except (ObjectFailed, NoReply) as error:
            self._fail(index, str(error))

    # ----------------------------------------------------------------------------------------------------------- marks
    def _note(self) -> None:
        """Write down where the share stands, after everything that it says is on disk."""
        if self._sink is not None:
            self.mark = replace(self._sink.noted(self.mark), bad_kept=self._bad.noted())
        self._write_mark()
        if self._sink is not None:
            self._sink.tidy()

    def _write_mark(self) -> None:
        write_whole(self._path, msgspec.json.encode(self.mark))
        self._marked_s = time.monotonic()


def _here(sent: _Sent) -> bool:
    """Whether it can be taken without waiting."""
    return sent.replies is None or sent.replies.done()


def _span(payloads: Sequence[Payload]) -> str:
    first, last = payloads[0], payloads[-1]
    end = last.first_line + last.lines - 1
    return f"record {end}" if first.first_line == end else f"records {first.first_line} to {end}"


def told(reply: Reply) -> str:
    """An answer that is no success, in words."""
    text = reply.body[:300].decode("utf-8", "replace").strip()
    kind = "client" if reply.status < 500 else "server"
    return f'Received {kind} error ({reply.status}) from primary with message "{text}"'


def read_mark(path: Path) -> Mark:
    """Where a share stands; at its beginning where nothing is written."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
        return Mark()

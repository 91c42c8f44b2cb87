"""One instance's share of a job: its objects in order, each read, split, answered and written, many requests at once.

Requests go out ahead of what is written, and results come back in order, so that an object's output has the order of
its input, and a `Mark` says it all. What goes wrong with an object costs that object its output and nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from eyrie.decide.transform_split import Payload, SplitError
from eyrie.domain.transform import Assemble, InputObject, Mark
from eyrie.transform import source
from eyrie.transform.bad import told
from eyrie.transform.bucket import BucketError
from eyrie.transform.caller import Caller, NoReply
from eyrie.transform.outputs import Outputs, Work
from eyrie.transform.results import ObjectFailed, cutter, span, written
from eyrie.transform.sink import Restart
from eyrie.transform.wire import Reply

BUNDLE_BYTES, BUNDLE_PAYLOADS = 1 << 20, 2_048  # that go out in one message
BUNDLE_FIRST, BUNDLE_SHORT_S, BUNDLE_LONG_S = 16, 0.2, 1.0  # a bundle grows and shrinks by how long one takes
AHEAD = 4  # payloads made for each that is asked at once: workers do not wait while an output is being written
STREAM_PIECE = 1 << 18


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
        self._outputs = Outputs(work, number, objects)
        self._given_up: set[int] = set()
        self._bundle = BUNDLE_FIRST

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return self._outputs.mark

    def run(self) -> None:
        """To the end of all objects. Raises BucketError, NotReady: nothing more can be done at all."""
        with ThreadPoolExecutor(self._work.concurrent, thread_name_prefix=f"share-{self._number}") as threads:
            try:
                while self.mark.index < len(self._objects):
                    try:
                        self._run(threads)
                    except Restart:
                        self._given_up.clear()
                        self._outputs.begin_again()
            finally:
                self._outputs.close()
                threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, threads: ThreadPoolExecutor) -> None:
        if self._work.agreed.payload_bytes == 0:
            for index in range(self.mark.index, len(self._objects)):
                self._stream(index)
            return
        ahead: deque[_Sent] = deque()
        for sent in self._sending(threads):
            ahead.append(sent)
            while len(ahead) > AHEAD * self._work.concurrent or (ahead and _here(ahead[0])):
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
        cut = cutter(spec, work.agreed, work.sieve, mark)
        for piece in source.pieces(work.door, spec, self._objects[index], mark.offset):
            yield from cut.feed(piece)
            if index in self._given_up:
                return
        yield from cut.finish()

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
                self._outputs.finish(sent.index)
                return
            self._write(sent.index, sent.payloads, sent.replies.result())
        except (ObjectFailed, NoReply) as error:
            if isinstance(error, NoReply):
                error = ObjectFailed(f"{span(sent.payloads)}: {error}")
            self._outputs.fail(sent.index, str(error))
            if sent.payloads:
                self._given_up.add(sent.index)

    def _write(self, index: int, payloads: Sequence[Payload], replies: Sequence[Reply]) -> None:
        spec, sieve, outputs = self._work.spec, self._work.sieve, self._outputs
        for payload, reply in zip(payloads, replies, strict=True):
            outputs.write(index, written(spec, sieve, payload, reply, outputs.room, self._caller.ask))
        outputs.note_in_time()

    def _stream(self, index: int) -> None:
        """An object in one request of any length: chunked, both ways."""
        one, work, outputs = self._objects[index], self._work, self._outputs
        outputs.begin_whole(index)
        try:
            with self._caller.stream(source.pieces(work.door, work.spec, one, 0)) as response:
                if response.status != 200:
                    raise ObjectFailed(told(Reply(response.status, response.read(2_000))))
                last = b""
                while piece := response.read(STREAM_PIECE):
                    outputs.write_piece(index, piece)
                    last = piece
                if work.spec.assemble is Assemble.LINE and not last.endswith(b"\n"):
                    outputs.write_piece(index, b"\n")
            outputs.count_record()
            outputs.finish(index)
        except (ObjectFailed, NoReply) as error:
            outputs.fail(index, str(error))


def _here(sent: _Sent) -> bool:
    """Whether it can be taken without waiting."""
    return sent.replies is None or sent.replies.done()

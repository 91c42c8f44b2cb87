"""Data capture: of each variant that asks for it, a share of requests and replies is kept.

On the path: a variant's tap (`CaptureTap`) hears the exchange once the reply is on its way, draws, and puts it in a
queue; nothing else is done there. On each turn of the sweep what is queued becomes lines of JSON, a slice at a time, so
that no reply waits long behind it; a thread appends them to files (`adapters/capture_spool`), which control uploads.
What this worker holds is bounded: beyond it, and where an endpoint's files or the disk are full, exchanges are dropped
and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4
from weakref import WeakValueDictionary

import msgspec

from eyrie.adapters.capture_spool import SpoolWriter, Write
from eyrie.decide.capture import HOUR_MS, encoding_of, hour_of, is_done, sampled
from eyrie.domain.capture import CaptureFile, CaptureRoute, Encoding
from eyrie.domain.routing import EndpointRoute, VariantRoute
from eyrie.gateway.meter import Meter
from eyrie.gateway.taps import Exchange
from eyrie.settings import Settings

log = logging.getLogger(__name__)

HELD_BYTES_MAX = 67_108_864  # of exchanges and lines that are not on disk yet, a worker
BODY_BYTES_MAX = 6_291_456  # a longer one is left out of its record; SageMaker takes none that is longer
FILE_BYTES_MAX = 8_388_608  # a file that has reached it is whole
_EXCHANGE_BYTES = 1_024  # about what an exchange needs besides its bodies
_SHORT_BYTES = 8_192  # of a body whose record is made in one go
_SOON = 16  # exchanges that do not wait for the sweep, but for the replies of this turn only
_PARTS_MAX = 8 * 48  # of records that are joined in one go
_SLICE = 48  # records that are written in one go
_SLICE_BYTES = 98_304  # of a long body that are; a multiple of 3, for BASE64
_LOOK_S = 1.0  # how often the disk is looked at
_KINDS_MAX = 256  # content types a variant whose form is remembered

_text = msgspec.json.Encoder().encode

Form = tuple[bytes, Encoding]  # what stands before the data of one side, and how that is written
_METADATA = b'},"eventMetadata":{"eventId":"'
_AFTER = {encoding: b',"encoding":"%b"}' % str(encoding).encode() for encoding in Encoding}


class Known(NamedTuple):
    """What all lines of exchanges with the same content types have in common."""

    usual: bool  # text both ways, and both ways are kept
    around: tuple[bytes, bytes, bytes]  # what stands before, between and after the two bodies


class CaptureTap:
    """What is captured of one variant, and the file that it goes to."""

    __slots__ = (
        "__weakref__",
        "_capture",
        "_forms",
        "_from_ms",
        "_known",
        "_lines",
        "_parts",
        "_second",
        "_stamp",
        "_until_ms",
        "began_ms",
        "file",
        "records",
        "route",
        "size",
        "slug",
        "variant",
    )

    def __init__(self, capture: Capture, slug: str, variant: str, route: CaptureRoute) -> None:
        self._capture = capture
        self.slug = slug
        self.variant = variant
        self.route = route
        self.file: CaptureFile | None = None
        self.began_ms = 0
        self.size = 0  # bytes of the file, waiting ones included
        self.records = 0  # that wait to be appended
        self._lines: list[bytes] = []
        self._forms: dict[tuple[str, bool], Form] = {}
        self._known: dict[tuple[bytes | None, bytes], Known] = {}
        self._parts: list[bytes] = []  # of records that are not in `_lines` yet
        self._from_ms = self._until_ms = 0  # the hour of the file
        self._second, self._stamp = 0, b""  # the end of a record, as of the second that the last one was of

    def answered(self, exchange: Exchange) -> None:
        """Keep it, if it was answered well and the draw says so."""
        if exchange.status < 300:
            percentage = self.route.percentage
            if percentage >= 100 or sampled(percentage, self._capture.draw()):
                self._capture.put(self, exchange)

    # --- from exchanges to lines ------------------------------------------------------------------------------------

    def add_short(self, exchange: Exchange) -> bool:
        """Make the line of an exchange of the usual kind, short text both ways, in one go; False: it is none."""
        reply_type = b""
        for name, value in exchange.reply_headers:
            if name == b"content-type":
                reply_type = value
                break
        kinds = exchange.kinds[0], reply_type
        known = self._known.get(kinds)
        if known is None:
            known = self._know(exchange, kinds)
        body, reply = exchange.body, exchange.reply_body
        if not known.usual or reply is None or len(body) > _SHORT_BYTES or len(reply) > _SHORT_BYTES:
            return False
        if exchange.fields is not None or exchange.face is not None:
            return False
        try:
            asked, answered = _text(body.decode()), _text(reply.decode())
        except UnicodeDecodeError:
            return False
        at_ms = exchange.at_ms
        if not self._from_ms <= at_ms < self._until_ms:
            self._begin(at_ms)
        if at_ms // 1_000 != self._second:
            self._second = at_ms // 1_000
            self._stamp = stamp(self._second)
        before, between, after = known.around
        prefix, number = exchange.request_id
        self._parts += (before, asked, between, answered, after, prefix, b'%x"' % number, self._stamp)
        self.records += 1
        if len(self._parts) >= _PARTS_MAX:
            self._join()
        return True

    def _know(self, exchange: Exchange, kinds: tuple[bytes | None, bytes]) -> Known:
        """What is alike in all lines of such content types, which is most of a line."""
        forms = self._form(exchange.content_type, False), self._form(exchange.reply_type, True)
        text = all(encoding is not Encoding.BASE64 for _, encoding in forms)
        usual = text and self.route.inputs and self.route.outputs
        (first, one), (second, two) = forms
        around = b'{"captureData":{' + first, _AFTER[one] + b"," + second, _AFTER[two] + _METADATA
        if len(self._known) >= _KINDS_MAX:
            self._known.clear()
        known = self._known[kinds] = Known(usual, around)
        return known

    def add(self, exchange: Exchange) -> Iterator[None]:
        """Make the line of an exchange; a long one in several goes, one a `next`."""
        parts = [b'{"captureData":{']
        face, route = exchange.face, self.route
        if route.inputs:
            kind, body = (face.content_type, face.body) if face else (exchange.content_type, exchange.body)
            yield from self._side(parts, kind, body, False)
        if route.outputs:
            kind = face.reply_type if face else exchange.reply_type
            yield from self._side(parts, kind, face.reply_body if face else exchange.reply_body, True)
        prefix, number = exchange.request_id
        parts += (_METADATA, prefix, b'%x"' % number, _of_client(exchange), stamp(exchange.at_ms // 1_000))
        if not self._from_ms <= exchange.at_ms < self._until_ms:
            self._begin(exchange.at_ms)
        self._parts += parts
        self.records += 1
        self._join()

    def take(self, seal: bool) -> Write | None:
        """What is to be written now."""
        self._join()
        file = self.file
        if file is None or not (self._lines or seal):
            return None
        written = Write(file, b"".join(self._lines), self.records, seal)
        self._lines, self.records = [], 0
        if seal:
            self.file, self._from_ms, self._until_ms = None, 0, 0
        return written

    def _begin(self, at_ms: int) -> None:
        """A record is the first of its hour: another file begins with it."""
        if self.file is not None:
            self._capture.rotate(self)
        self.began_ms, self.size = at_ms, 0
        self._from_ms, self._until_ms = hour_of(at_ms) * HOUR_MS, (hour_of(at_ms) + 1) * HOUR_MS
        self.file = CaptureFile(
            self.slug, self.variant, self.route.destination, self.route.kms_key, at_ms, str(uuid4())
        )
        self._capture.busy[self] = None

    def _join(self) -> None:
        """The parts of a few records become one piece, while they are in the processor's caches."""
        if self._parts:
            piece = b"".join(self._parts)
            self._parts.clear()
            self._lines.append(piece)
            self.size += len(piece)
            self._capture.line_bytes += len(piece)

    def _side(self, parts: list[bytes], kind: str, body: bytes | None, output: bool) -> Iterator[None]:
        """The input or the output of a record; without one that was not kept, or is too long."""
        if body is None or len(body) > BODY_BYTES_MAX:
            self._capture.left_out()
            return
        before, encoding = self._form(kind, output)
        if len(parts) > 1:
            parts.append(b",")
        parts.append(before)
        if encoding is not Encoding.BASE64:
            try:
                text = body.decode()
            except UnicodeDecodeError:
                encoding = Encoding.BASE64
        if len(body) <= _SLICE_BYTES:
            parts.append(b'"%b"' % b64encode(body) if encoding is Encoding.BASE64 else _text(text))
        else:
            parts.append(b'"')
            for start in range(0, len(body), _SLICE_BYTES):
                if encoding is Encoding.BASE64:
                    parts.append(b64encode(body[start : start + _SLICE_BYTES]))
                else:
                    parts.append(_text(text[start : start + _SLICE_BYTES])[1:-1])
                yield
            parts.append(b'"')
        parts.append(_AFTER[encoding])

    def _form(self, kind: str, output: bool) -> Form:
        form = self._forms.get((kind, output))
        if form is None:
            if len(self._forms) >= _KINDS_MAX:
                self._forms.clear()
            side, mode = (b"endpointOutput", b"OUTPUT") if output else (b"endpointInput", b"INPUT")
            before = b'"%b":{"observedContentType":%b,"mode":"%b","data":' % (side, _text(kind), mode)
            form = self._forms[kind, output] = before, encoding_of(kind, self.route, self._capture.text)
        return form


class Capture:
    """All captures of one worker: the queue, the lines, the thread that writes."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        meter: Meter,
        draw: Callable[[], float] = random.random,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.text = settings.capture_text
        self.draw = draw
        self.busy: dict[CaptureTap, None] = {}  # those that have a file
        self.line_bytes = 0  # of lines that are not on disk yet
        self._now_ms = now_ms
        self._loop = loop
        self._meter = meter
        self._flush_ms = settings.capture_flush_ms
        self._queue: deque[tuple[CaptureTap, Exchange, int]] = deque()
        self._queued_bytes = 0
        self._taps: WeakValueDictionary[tuple[str, str, CaptureRoute], CaptureTap] = WeakValueDictionary()
        self._ready: list[Write] = []  # whole files that wait for the thread
        self._writing: list[Write] = []  # what the thread has
        self._pumping: Iterator[None] | None = None
        self._disk = _Disk(settings.data, settings.capture_bytes_max, settings.capture_disk_percent_max)
        self._thread: ThreadPoolExecutor | None = None
        self._written: Future[list[tuple[Write, OSError]]] | None = None

    def tap(self, table: EndpointRoute, variant: VariantRoute) -> CaptureTap | None:
        """The tap of a variant; the same one for as long as its capture stays as it is."""
        if variant.capture is None or not variant.capture.percentage:
            return None
        key = table.key.slug, variant.name, variant.capture
        found = self._taps.get(key)
        if found is None:
            found = self._taps[key] = CaptureTap(self, *key)
        return found

    def put(self, tap: CaptureTap, exchange: Exchange) -> None:
        """An exchange that is to be kept: into the queue, if there is room."""
        full = self._disk.full.get(tap.slug)
        if full is not None:
            self._meter.capture_dropped(tap.slug, tap.variant, full)
            return
        reply = exchange.reply_body
        size = len(exchange.body) + (len(reply) if reply is not None else 0) + _EXCHANGE_BYTES  # about
        if self._queued_bytes + self.line_bytes + size > HELD_BYTES_MAX:
            self._meter.capture_dropped(tap.slug, tap.variant, "memory")
            return
        self._queued_bytes += size
        self._queue.append((tap, exchange, size))
        if len(self._queue) == _SOON and self._pumping is None:  # while they are in the processor's caches
            self._loop.call_soon(self._pump_soon)

    def turn(self) -> None:
        """Called by the sweep: make lines of what is queued, and have the thread write what there is."""
        if self._queue and self._pumping is None:
            self._pump()
        self._collect()
        if self._written is None and (self.busy or self._ready or self._disk.full):
            self._write()

    def close(self) -> None:
        """This worker stops: everything that is held is written, and every file is whole."""
        self._pumping = None
        for _ in self._slices():
            pass
        if self._written is not None:
            self._written.exception()  # waits for it
            self._collect()
        if self.busy or self._ready:
            self._write(seal=True)
            assert self._written is not None
            self._written.exception()
            self._collect()
        if self._thread is not None:
            self._thread.submit(self._disk.close).result()
            self._thread.shutdown()
            self._thread = None

    def left_out(self) -> None:
        """One side of a record is not there: it was streamed, or too long."""
        self._meter.count("capture_bodies_left_out")

    def rotate(self, tap: CaptureTap) -> None:
        """The tap's file is whole: the next record begins another."""
        whole = tap.take(seal=True)
        self.busy.pop(tap, None)
        if whole is not None:
            self._ready.append(whole)

    # --- from the queue to lines ------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """A slice of what is queued; the rest after other callbacks had their turn."""
        work = self._pumping
        if work is None:
            work = self._pumping = self._slices()
        try:
            next(work)
        except StopIteration:
            self._pumping = None
        else:
            self._loop.call_soon(self._pump_on, work)

    def _pump_soon(self) -> None:
        if self._pumping is None:
            self._pump()

    def _pump_on(self, work: Iterator[None]) -> None:
        if self._pumping is work:  # else the worker stops, and all was done
            self._pump()

    def _slices(self) -> Iterator[None]:
        """Lines of everything that is queued, yielding between slices."""
        queue, done = self._queue, 0
        while queue:
            tap, exchange, size = queue[0]
            if not tap.add_short(exchange):
                for _ in tap.add(exchange):
                    yield
            queue.popleft()
            self._queued_bytes -= size
            done += 1
            if done % _SLICE == 0:
                yield

    # --- from lines to disk -----------------------------------------------------------------------------------------

    def _write(self, seal: bool = False) -> None:
        """Hand the thread what waits. `seal`: every file is whole with it."""
        now_ms = self._now_ms()
        writes, self._ready = self._ready, []
        for tap in list(self.busy):
            whole = seal or is_done(now_ms, tap.began_ms, tap.size, self._flush_ms, FILE_BYTES_MAX)
            write = tap.take(whole)
            if whole:
                del self.busy[tap]
            if write is not None:
                writes.append(write)
        if not writes and not self._disk.full:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
        self._writing = writes
        self._written = self._thread.submit(self._disk.write, writes)

    def _collect(self) -> None:
        """What became of the last writes."""
        done = self._written
        if done is None or not done.done():
            return
        failed = {id(write): error for write, error in done.result()}
        for write in self._writing:
            self.line_bytes -= len(write.data)
            slug, variant = write.file.slug, write.file.variant
            error = failed.get(id(write))
            if error is None:
                self._meter.captured(slug, variant, write.records)
            else:
                log.error("%d captured records of %s are lost: %s", write.records, slug, error)
                self._meter.capture_dropped(slug, variant, "disk error", write.records)
        self._written, self._writing = None, []


class _Disk:
    """What the thread does: it writes, and looks whether there is room."""

    def __init__(self, data: Path, bytes_max: int, percent_max: int) -> None:
        self.full: dict[str, str] = {}  # why nothing more is captured, by endpoint; replaced whole
        self._writer = SpoolWriter(data)
        self._bytes_max = bytes_max
        self._percent_max = percent_max
        self._slugs: set[str] = set()  # that were written for
        self._looked_s = 0.0

    def write(self, writes: list[Write]) -> list[tuple[Write, OSError]]:
        """Append; what could not be appended is returned."""
        failed = self._writer.write(writes)
        self._slugs.update(write.file.slug for write in writes)
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self.full = self._look()
        return failed

    def close(self) -> None:
        """Let go of the files."""
        self._writer.close()

    def _look(self) -> dict[str, str]:
        """Endpoints that have no room. One that has is forgotten until it is written for again."""
        if self._writer.disk_percent() > self._percent_max:
            return dict.fromkeys(self._slugs, "disk")
        full = {slug: "waiting" for slug in self._slugs if self._writer.used(slug) > self._bytes_max}
        self._slugs = set(full)
        return full


def stamp(second: int) -> bytes:
    """The end of a record: its second, and what follows."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
    return b',"inferenceTime":"%b"},"eventVersion":"0"}\n' % at.encode()


def _of_client(exchange: Exchange) -> bytes:
    """What the client said besides, as members between eventId and inferenceTime."""
    more = b""
    if (inference_id := exchange.inference_id) is not None:
        more += b',"inferenceId":%b' % _text(inference_id)
    if (attributes := exchange.custom_attributes) is not None:
        more += b',"customAttributes":[%b]' % _text(attributes)
    if (model := exchange.target_model) is not None:
        more += b',"targetModel":%b' % _text(model)
    return more

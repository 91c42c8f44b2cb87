"""Cuts a stream of bytes into records, and records into payloads: pure, and the same wherever the stream is cut.

Fed with pieces of any size, a splitter gives the payloads that are certain by then; what it gives depends on the
whole stream alone, so a run that begins again at the end of any payload cuts the rest as the first one would have.

A line ends at a newline, always: also within quotes, as with the real service. Blank lines are no records. A RecordIO
record goes out with its header and padding, a TFRecord with its lengths and sums: several make a file of that kind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from eyrie.domain.transform import Split

RECORD_IO_MAGIC = 0xCED7230A
_LENGTH_BITS = 29
RECORD_BYTES_MAX = 100 * 1_048_576  # no payload may be longer
BLOCK_RECORDS_MAX = 100_000  # of a payload whose records are looked at one by one


class SplitError(ValueError):
    """The stream cannot be cut. `line` counts records from 1."""

    def __init__(self, why: str, line: int) -> None:
        super().__init__(why)
        self.why, self.line = why, line


@dataclass(frozen=True, slots=True)
class Payload:
    """What one request carries."""

    body: bytes
    records: tuple[bytes, ...] | None  # as they stand in the input; None: they were not looked at one by one
    first_line: int  # its first record's number in the object, from 1; blank lines count
    lines: int  # how many records of the object it covers, blank ones too
    end: int  # bytes of the object that are done with it
    numbers: tuple[int, ...] | None = None  # of its records in the object; None: they are the lines of the body
    sent: tuple[bytes, ...] | None = None  # what is sent of each record, where that is not all of it

    @property
    def count(self) -> int:
        """How many records it has."""
        return len(self.records) if self.records is not None else sum(map(bool, map(_whole_line, self._lines())))

    def pieces(self) -> list[tuple[int, bytes, bytes]]:
        """Number, record as it stands in the input, and what is sent of it: of each record."""
        if self.numbers is not None and self.records is not None:
            return list(zip(self.numbers, self.records, self.sent or self.records, strict=True))
        lines = enumerate(self._lines(), self.first_line)
        return [(number, line, line) for number, line in lines if not blank(line)]

    def _lines(self) -> list[bytes]:
        return self.body.split(b"\n")


def _whole_line(line: bytes) -> bool:
    return not blank(line)


class Splitter(Protocol):
    """Gives payloads for what it is fed with."""

    def feed(self, piece: bytes) -> Iterator[Payload]:
        """More of the stream. Raises SplitError."""
        ...

    def finish(self) -> Iterator[Payload]:
        """The stream is over. Raises SplitError."""
        ...


def blank(line: bytes) -> bool:
    """Whether a line is no record."""
    return not line or line == b"\r"


@dataclass(slots=True)
class LineBlocks:
    """Lines, as many as fit, not looked at one by one: the quick way."""

    limit: int
    offset: int = 0
    line: int = 0
    _held: list[bytes] = field(default_factory=list)  # joined once they are more than a payload holds
    _size: int = 0

    def feed(self, piece: bytes) -> Iterator[Payload]:
        """More of the stream. Raises SplitError."""
        self._held.append(piece)
        self._size += len(piece)
        if self._size <= self.limit:
            return
        data, at = b"".join(self._held), 0
        while len(data) - at > self.limit:
            end = data.rfind(b"\n", at, at + self.limit) + 1
            if not end:
                if data[at + self.limit : at + self.limit + 1] != b"\n":
                    raise SplitError(too_long(self.limit), self.line + 1)
                end = at + self.limit + 1
            yield from self._payload(data[at:end])
            at = end
        self._held, self._size = [data[at:]], len(data) - at

    def finish(self) -> Iterator[Payload]:
        """The rest."""
        if self._size:
            rest = b"".join(self._held)
            self._held, self._size = [], 0
            yield from self._payload(rest)

    def _payload(self, body: bytes) -> Iterator[Payload]:
        first, lines = self.line + 1, body.count(b"\n") + (not body.endswith(b"\n"))
        self.line += lines
        self.offset += len(body)
        if len(body) > self.limit:  # its one line is as long as a payload may be, without its end
            body = body[:-1]
        if body.strip(b"\r\n"):
            yield Payload(body, None, first, lines, self.offset)


@dataclass(frozen=True, slots=True)
class Record:
    """One record: as it stands in the stream without what ends it, and where it does end."""

    data: bytes
    line: int
    end: int


@dataclass(slots=True)
class Lines:
    """Records that end at newlines."""

    offset: int = 0
    line: int = 0
    _rest: bytes = b""

    def feed(self, piece: bytes) -> Iterator[Record]:
        """Records that are complete. Raises SplitError."""
        lines = (self._rest + piece if self._rest else piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > RECORD_BYTES_MAX:
            raise SplitError(too_long(RECORD_BYTES_MAX), self.line + 1)
        for line in lines:
            self.offset += len(line) + 1
            self.line += 1
            if not blank(line):
                yield Record(line, self.line, self.offset)

    def finish(self) -> Iterator[Record]:
        """A last line without an end."""
        if self._rest:
            self.offset += len(self._rest)
            self.line += 1
            rest, self._rest = self._rest, b""
            if not blank(rest):
                yield Record(rest, self.line, self.offset)


@dataclass(slots=True)
class Framed:
    """Records whose headers say how long they are; `measure` gives a record's length, 0 where more bytes are needed."""

    measure: Callable[[bytes, int], int]
    kind: str
    offset: int = 0
    line: int = 0
    _rest: bytes = b""

    def feed(self, piece: bytes) -> Iterator[Record]:
        """Records that are complete. Raises SplitError."""
        data, at = (self._rest + piece if self._rest else piece), 0
        while at < len(data):
            size = self._measured(data, at)
            if not size or len(data) - at < size:
                break
            self.line += 1
            self.offset += size
            yield Record(data[at : at + size], self.line, self.offset)
            at += size
        self._rest = data[at:]

    def finish(self) -> Iterator[Record]:
        """Nothing may be left. Raises SplitError."""
        if self._rest:
            raise SplitError(f"the object ends within a {self.kind} record", self.line + 1)
        return iter(())

    def _measured(self, data: bytes, at: int) -> int:
        try:
            size = self.measure(data, at)
        except ValueError as error:
            raise SplitError(str(error), self.line + 1) from None
        if size > RECORD_BYTES_MAX:
            raise SplitError(too_long(RECORD_BYTES_MAX), self.line + 1)
        return size


def record_io_size(data: bytes, at: int) -> int:
    """The length of the RecordIO record at `at`, all its parts together; 0: more is needed. Raises ValueError."""
    size = 0
    while len(data) - at - size >= 8:
        magic, head = struct.unpack_from("<II", data, at + size)
        if magic != RECORD_IO_MAGIC:
            raise ValueError("this is no RecordIO record: its magic number is missing")
        length = int(head) & ((1 << _LENGTH_BITS) - 1)
        size += 8 + length + (-length % 4)
        if head >> _LENGTH_BITS in (0, 3):  # whole, or the last part of one that holds the magic number
            return size
    return 0


def tf_record_size(data: bytes, at: int) -> int:
    """The length of the TFRecord at `at`; 0: more is needed. Raises ValueError."""
    if len(data) - at < 12:
        return 0
    (length,) = struct.unpack_from("<Q", data, at)
    if length > RECORD_BYTES_MAX:
        raise ValueError(f"this is no TFRecord, or one of {length} bytes")
    return int(12 + length + 4)


class Records(Protocol):
    """Gives records for what it is fed with."""

    offset: int
    line: int

    def feed(self, piece: bytes) -> Iterator[Record]:
        """More of the stream."""
        ...

    def finish(self) -> Iterator[Record]:
        """The stream is over."""
        ...


@dataclass(slots=True)
class Packer:
    """Packs records into payloads, one or as many as fit; `sent` makes of a record what the model gets."""

    records: Records
    limit: int
    single: bool
    joint: bytes  # between records: a newline, or nothing where they say themselves how long they are
    sent: Callable[[bytes, int], bytes]  # of a record and its number; raises SplitError
    filters: bool
    _held: list[tuple[Record, bytes]]
    _size: int = 0
    _line: int = 0

    def feed(self, piece: bytes) -> Iterator[Payload]:
        """More of the stream. Raises SplitError."""
        return self._packed(self.records.feed(piece))

    def finish(self) -> Iterator[Payload]:
        """The rest. Raises SplitError."""
        yield from self._packed(self.records.finish())
        if self._held:
            yield self._payload()

    def _packed(self, found: Iterable[Record]) -> Iterator[Payload]:
        for record in found:
            body = self.sent(record.data, record.line)
            if len(body) > self.limit:
                if self._held:
                    yield self._payload()
                raise SplitError(too_long(self.limit), record.line)
            grown = self._size + len(self.joint) + len(body)
            if self._held and (self.single or grown > self.limit or len(self._held) >= BLOCK_RECORDS_MAX):
                yield self._payload()
                grown = len(body)
            self._held.append((record, body))
            self._size = grown if len(self._held) > 1 else len(body)

    def _payload(self) -> Payload:
        held, self._held, self._size = self._held, [], 0
        first, last = self._line + 1, held[-1][0]
        self._line = last.line
        body = self.joint.join(body for _, body in held)
        records, numbers = tuple(r.data for r, _ in held), tuple(r.line for r, _ in held)
        sent = tuple(body for _, body in held) if self.filters else None
        return Payload(body, records, first, last.line - first + 1, last.end, numbers, sent)


@dataclass(slots=True)
class Whole:
    """The object is one record."""

    limit: int
    sent: Callable[[bytes, int], bytes]
    _pieces: list[bytes]
    _size: int = 0

    def feed(self, piece: bytes) -> Iterator[Payload]:
        """More of the object. Raises SplitError."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self.limit:
            raise SplitError(too_long(self.limit), 1)
        return iter(())

    def finish(self) -> Iterator[Payload]:
        """The object."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        if whole:
            body = self.sent(whole, 1)
            yield Payload(body, (whole,), 1, 1, len(whole), (1,), (body,))


def too_long(limit: int) -> str:
    """What is said of a record that no payload holds."""
    return f"the record is longer than MaxPayloadInMB allows ({limit} bytes)"


def splitter(
    split: Split,
    limit: int,
    single: bool,
    *,
    sent: Callable[[bytes, int], bytes] | None = None,
    looked_at: bool = False,
    offset: int = 0,
    line: int = 0,
) -> Splitter:
    """The splitter of a job that begins at `offset` of an object, after `line` records of it.

    `sent` filters records; `looked_at`: they are needed one by one afterwards.
    """
    if split is Split.NONE:
        return Whole(limit, sent or as_it_is, [])
    if split is Split.LINE and not single and sent is None:
        blocks = LineBlocks(limit, offset, line)
        return Looked(blocks) if looked_at else blocks
    records: Records = Lines(offset, line)
    if split is not Split.LINE:
        measure = record_io_size if split is Split.RECORD_IO else tf_record_size
        records = Framed(measure, split.value, offset, line)
    joint = b"\n" if split is Split.LINE else b""
    return Packer(records, limit, single, joint, sent or as_it_is, sent is not None, [], 0, line)


@dataclass(slots=True)
class Looked:
    """Blocks of lines, whose lines are needed one by one as well."""

    blocks: LineBlocks

    def feed(self, piece: bytes) -> Iterator[Payload]:
        """More of the stream. Raises SplitError."""
        return map(_opened, self.blocks.feed(piece))

    def finish(self) -> Iterator[Payload]:
        """The rest."""
        return map(_opened, self.blocks.finish())


def _opened(payload: Payload) -> Payload:
    records = tuple(line for line in payload.body.split(b"\n") if not blank(line))
    return Payload(payload.body, records, payload.first_line, payload.lines, payload.end)


def as_it_is(record: bytes, line: int) -> bytes:
    """A record without a filter."""
    return record

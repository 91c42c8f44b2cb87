"""An input object as a stream of bytes, from any place on: fetched in pieces, unzipped, or rows of a parquet file as
CSV.

The connection may break at any time (the S3 API restarts, or cuts a reader that was slow): reading goes on where it
stopped, of the same object or not at all.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import time
import zlib
from collections.abc import Iterator
from typing import Any

from eyrie.adapters.s3_client import S3Refused, S3Unavailable
from eyrie.decide.transform_join import media_type
from eyrie.domain.transform import InputObject, TransformSpec
from eyrie.transform.bucket import PATIENCE_S, BucketError, Door, refused

log = logging.getLogger("eyrie.transform")

PIECE_BYTES = 1 << 20
PARQUET_TYPES = ("application/x-parquet", "application/vnd.apache.parquet")
PARQUET_ROWS = 16_384  # turned into CSV at a time
WINDOW_BYTES = 4 << 20  # of a parquet file, read at a time
_PAUSE_S = 0.2
_GZIP = 31  # zlib: a gzip header is wanted


def parquet(spec: TransformSpec, one: InputObject) -> bool:
    """Whether an object's rows are to be read out of a parquet file."""
    return media_type(spec.content_type) in PARQUET_TYPES or one.key.endswith(".parquet")


def sent_type(spec: TransformSpec) -> str:
    """The content type that the model is told."""
    return "text/csv" if "parquet" in spec.content_type else spec.content_type


def unpacked(spec: TransformSpec, one: InputObject) -> bool:
    """Whether the stream of an object is not its bytes as they are stored."""
    return spec.gzip or parquet(spec, one)


def pieces(door: Door, spec: TransformSpec, one: InputObject, offset: int) -> Iterator[bytes]:
    """The object's bytes, unpacked, from `offset` on. Raises BucketError."""
    if parquet(spec, one):
        yield from _skipped(_rows(door, one), offset)
    elif spec.gzip:
        yield from _skipped(_unzipped(raw(door, one, 0), one), offset)
    else:
        yield from raw(door, one, offset)


def raw(door: Door, one: InputObject, start: int) -> Iterator[bytes]:
    """The object's bytes as they are stored. Raises BucketError."""
    at, until = start, time.monotonic() + PATIENCE_S
    while at < one.size:
        try:
            with door.reader() as s3, s3.get_from(one.bucket, one.key, at, one.etag) as stream:
                while piece := stream.read(min(PIECE_BYTES, one.size - at)):
                    at += len(piece)
                    yield piece
                    until = time.monotonic() + PATIENCE_S
        except S3Refused as error:
            raise refused(error, one.url) from None
        except (S3Unavailable, OSError) as error:
            if time.monotonic() > until:
                raise BucketError(f"InternalError: {one.url} cannot be read: {error}") from None
            log.warning("%s broke off at byte %d, and is read on: %s", one.url, at, error)
            time.sleep(_PAUSE_S)


def _skipped(stream: Iterator[bytes], offset: int) -> Iterator[bytes]:
    left = offset
    for piece in stream:
        if left >= len(piece):
            left -= len(piece)
        else:
            yield piece[left:] if left else piece
            left = 0


def _unzipped(stream: Iterator[bytes], one: InputObject) -> Iterator[bytes]:
    """Gzip undone, member after member. Raises BucketError."""
    unzip = zlib.decompressobj(_GZIP)
    begun = False
    try:
        for packed in stream:
            rest = packed
            while rest:
                begun = True
                piece = unzip.decompress(rest, PIECE_BYTES)
                if piece:
                    yield piece
                rest = unzip.unconsumed_tail
                if unzip.eof:
                    rest, unzip, begun = unzip.unused_data, zlib.decompressobj(_GZIP), False
    except zlib.error as error:
        raise BucketError(f"ClientError: {one.url} is no gzip file: {error}") from None
    if begun:
        raise BucketError(f"ClientError: {one.url} is a gzip file that breaks off")


def _rows(door: Door, one: InputObject) -> Iterator[bytes]:
    """The rows of a parquet file as lines of CSV, without a header. Raises BucketError."""
    if importlib.util.find_spec("pyarrow") is None:
        raise BucketError(f"ClientError: {one.url} is a parquet file: install eyrie[parquet] to read it")
    import pyarrow
    from pyarrow import csv, parquet

    options = csv.WriteOptions(include_header=False, quoting_style="needed")
    try:
        file = parquet.ParquetFile(pyarrow.PythonFile(Ranges(door, one), mode="r"))
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            text = io.BytesIO()
            csv.write_csv(batch, text, options)
            yield text.getvalue()
    except pyarrow.ArrowException as error:
        raise BucketError(f"ClientError: {one.url} cannot be read as a parquet file: {error}") from None


class Ranges(io.RawIOBase):
    """An object as a file that can be read from any place: what a parquet reader wants, without a copy on disk."""

    def __init__(self, door: Door, one: InputObject) -> None:
        self._door, self._one, self._at = door, one, 0
        self._window, self._window_at = b"", 0

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._one.size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, target: Any) -> int:
        """Bytes from here on; 0 at the end. Raises BucketError."""
        view = memoryview(target).cast("B")
        size = min(len(view), self._one.size - self._at)
        if size <= 0:
            return 0
        data = self._read(self._at, size)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, at: int, size: int) -> bytes:
        inside = at - self._window_at
        if not 0 <= inside <= len(self._window) - size:
            end = min(at + max(size, WINDOW_BYTES), self._one.size)
            self._window, self._window_at, inside = self._fetch(at, end), at, 0
        return self._window[inside : inside + size]

    def _fetch(self, start: int, end: int) -> bytes:
        one = self._one
        try:
            return self._door.call(lambda s3: s3.get_range(one.bucket, one.key, start, end, one.etag))
        except S3Refused as error:
            raise refused(error, one.url) from None

"""`application/x-recordio-protobuf`: the records of SageMaker's own algorithms, rows in and scores out.

A body is records one after another: a magic number, a length, a message padded to four bytes. A message maps names to
tensors: `features["values"]` is a row, `label["score"]` a prediction. On the path of an invocation: `codecs` -> here.
All raise ValueError with a message for the client.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eyrie.modelserver.protobuf import Field, fields, message, text, varints
from eyrie.modelserver.sparse import Array, Pairs, dense

MAGIC = 0xCED7230A
WHOLE = 0  # of the three bits above a length: the record is not cut into parts
LENGTH_MAX = (1 << 29) - 1
_HEAD = struct.Struct("<II")
_FEATURES, _LABEL = 1, 2
_DTYPES = {2: "<f4", 3: "<f8", 7: ""}  # the tensors of a value, and how their numbers are packed: float, double, varint
_FLOAT32 = 2


def read(body: bytes, width: int | None, absent: float) -> Array:
    """The rows of a body."""
    rows = [_row(record) for record in _records(body)]
    if not rows:
        raise ValueError("the body holds no rows")
    if any(columns is not None for columns, _ in rows):
        return dense([_with_columns(row) for row in rows], width, absent, len(body), "recordio-protobuf")
    widths = {len(values) for _, values in rows}
    if len(widths) > 1:
        raise ValueError(f"the records have rows of different lengths: {', '.join(map(str, sorted(widths)[:3]))}")
    return np.array([values for _, values in rows])


def write(records: Sequence[dict[str, Any]]) -> bytes:
    """A record a prediction: each of its numbers, or lists of numbers, is a float32 tensor under its name."""
    out = bytearray()
    for record in records:
        data = b"".join(message(_LABEL, _entry(name, value)) for name, value in record.items())
        out += _HEAD.pack(MAGIC, len(data)) + data + bytes(-len(data) % 4)
    return bytes(out)


def _entry(name: str, value: Any) -> bytes:
    numbers = np.asarray(value, dtype="<f4").reshape(-1)
    return message(1, name.encode()) + message(2, message(_FLOAT32, message(1, numbers.tobytes())))


def _records(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        if at + _HEAD.size > len(body):
            raise ValueError("the body is not RecordIO: its last record is cut")
        magic, told = _HEAD.unpack_from(body, at)
        if magic != MAGIC:
            raise ValueError("the body is not RecordIO: a record does not begin with the magic number")
        if told >> 29 != WHOLE:
            raise ValueError("records that are cut into parts are not read here")
        at += _HEAD.size
        size = told & LENGTH_MAX
        if at + size > len(body):
            raise ValueError("the body is not RecordIO: its last record is cut")
        yield body[at : at + size]
        at += size + -size % 4


def _row(record: bytes) -> tuple[Array | None, Array]:
    """Columns (None: all of them) and values of a record's only feature, or the one that is called "values"."""
    try:
        found = dict(_feature(value) for number, value in fields(record) if number == _FEATURES)
        tensor = found.get("values") if len(found) != 1 else next(iter(found.values()))
        if tensor is None:
            raise ValueError('a record has no feature "values"')
        return _tensor(tensor)
    except UnicodeDecodeError:
        raise ValueError("a record is not of the protocol buffer that is wanted: a name is not text") from None


def _feature(entry: Field) -> tuple[str, Field]:
    told = dict(fields(entry))
    return text(told.get(1, b"")), told.get(2, b"")


def _tensor(value: Field) -> tuple[Array | None, Array]:
    for kind, tensor in fields(value):
        if kind in _DTYPES:
            parts = list(fields(tensor))
            values = [_numbers(part, _DTYPES[kind]) for number, part in parts if number == 1]
            keys = [varints(part) for number, part in parts if number == 2]
            columns = np.array([key for some in keys for key in some], dtype=np.int64) if keys else None
            if columns is not None and len(columns) and int(columns.min()) < 0:
                raise ValueError("a record's key is larger than any column")
            return columns, np.concatenate(values) if values else np.empty(0)
    raise ValueError("a record's values are no tensor of numbers")


def _numbers(part: Field, dtype: str) -> Array:
    """Numbers that are packed, or one that is not."""
    if not dtype:
        return np.array(varints(part), dtype=np.float64)
    if not isinstance(part, bytes) or len(part) % np.dtype(dtype).itemsize:
        raise ValueError("a record's tensor is cut")
    return np.frombuffer(part, dtype).astype(np.float64)


def _with_columns(row: tuple[Array | None, Array]) -> Pairs:
    columns, values = row
    return (np.arange(len(values)) if columns is None else columns), values

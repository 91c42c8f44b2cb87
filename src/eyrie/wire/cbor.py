"""CBOR (RFC 8949), as much of it as smithy-rpc-v2-cbor uses: read within bounds, written in definite lengths.

Timestamps are tag 1 and become aware datetimes. About the size of a dependency's glue, so it is our own.
"""

from __future__ import annotations

import math
import struct
from datetime import datetime
from functools import lru_cache
from typing import Any

from eyrie.wire.values import Malformed, Moment, epoch_seconds, timestamp_of

DEPTH_MAX = 64
_INDEFINITE = 31
_double = struct.Struct(">d").pack
_seconds = struct.Struct(">HI").pack  # a tag, and an integer of four bytes
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}


def loads(data: bytes) -> Any:
    """The one item that `data` holds. Raises Malformed for anything else, and for nesting deeper than DEPTH_MAX."""
    reader = _Reader(data)
    value = reader.item(0)
    if reader.at != len(data):
        raise Malformed("Trailing bytes after the CBOR item")
    return value


def dumps(value: Any) -> bytes:
    """A plain value (dict, list, str, bytes, int, float, bool, None, datetime) as CBOR."""
    out = bytearray()
    _write(out, value)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise Malformed("The CBOR item ends early")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def length(self, info: int) -> int:
        if info < 24:
            return info
        width = _WIDTHS.get(info)
        if width is None:
            raise Malformed("Invalid CBOR length")
        return int.from_bytes(self.take(width), "big")

    def item(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise Malformed(f"Nested deeper than {DEPTH_MAX} levels")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major == 0:
            return self.length(info)
        if major == 1:
            return -1 - self.length(info)
        if major in (2, 3):
            return self.string(major, info)
        if major == 4:
            return self.array(info, depth)
        if major == 5:
            return self.map(info, depth)
        return self.tag(info, depth) if major == 6 else self.simple(info)

    def string(self, major: int, info: int) -> bytes | str:
        if info == _INDEFINITE:
            pieces = []
            while not self.broke():
                first = self.take(1)[0]
                if first >> 5 != major or first & 31 == _INDEFINITE:
                    raise Malformed("Invalid CBOR string chunk")
                pieces.append(self.take(self.length(first & 31)))
            raw = b"".join(pieces)
        else:
            raw = self.take(self.length(info))
        if major == 2:
            return raw
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise Malformed("Invalid UTF-8") from None

    def broke(self) -> bool:
        if self.data[self.at : self.at + 1] == b"\xff":
            self.at += 1
            return True
        return False

    def array(self, info: int, depth: int) -> list[Any]:
        if info != _INDEFINITE:  # an announced billion of items fails at the first that is not there
            return [self.item(depth + 1) for _ in range(self.length(info))]
        items = []
        while not self.broke():
            items.append(self.item(depth + 1))
        return items

    def map(self, info: int, depth: int) -> dict[str, Any]:
        left = -1 if info == _INDEFINITE else self.length(info)
        pairs: dict[str, Any] = {}
        while left != 0 and not (left < 0 and self.broke()):
            key = self.item(depth + 1)
            if not isinstance(key, str):
                raise Malformed("A CBOR map key is not text")
            pairs[key] = self.item(depth + 1)
            left -= 1
        return pairs

    def tag(self, info: int, depth: int) -> Any:
        tag = self.length(info)
        value = self.item(depth + 1)
        return timestamp_of(value, "unixtimestamp") if tag == 1 else value

    def simple(self, info: int) -> Any:
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info not in _FLOATS:
            raise Malformed("Invalid CBOR simple value")
        form, width = _FLOATS[info]
        return struct.unpack(form, self.take(width))[0]


def _head(out: bytearray, major: int, value: int) -> None:
    if value < 24:
        out.append(major << 5 | value)
        return
    info = 24 if value < 1 << 8 else 25 if value < 1 << 16 else 26 if value < 1 << 32 else 27
    out.append(major << 5 | info)
    out += value.to_bytes(_WIDTHS[info], "big")


def _write(out: bytearray, value: Any) -> None:
    kind = type(value)
    if kind is float and value == value:
        out += b"\xfb" + _double(value)
    elif kind is Moment:
        out += _moment(value)
    elif kind is list and value and all(type(item) is float and item == item for item in value):
        _head(out, 4, len(value))
        out += b"\xfb" + b"\xfb".join(map(_double, value))
    elif kind is list and value and all(type(item) is Moment for item in value):
        _head(out, 4, len(value))
        out += b"".join(map(_moment, value))
    else:
        _write_any(out, value)


@lru_cache(4_096)  # a reply of metrics tells the same times of each series
def _moment(value: Moment) -> bytes:
    whole = int(value) if math.isfinite(value) else 0
    if whole == float(value) and 1 << 16 <= whole < 1 << 32:  # any time of our days
        return _seconds(0xC11A, whole)
    out = bytearray(b"\xc1")
    _write_any(out, whole if whole == float(value) else float(value))
    return bytes(out)


def _write_any(out: bytearray, value: Any) -> None:
    if value is None or isinstance(value, bool):
        out.append(0xF6 if value is None else 0xF5 if value else 0xF4)
    elif isinstance(value, int):
        _head(out, 0 if value >= 0 else 1, value if value >= 0 else -1 - value)
    elif isinstance(value, float):
        out += b"\xf9\x7e\x00" if math.isnan(value) else b"\xfb" + struct.pack(">d", value)
    elif isinstance(value, str):
        raw = value.encode("utf-8", "replace")
        _head(out, 3, len(raw))
        out += raw
    elif isinstance(value, (bytes, bytearray)):
        _head(out, 2, len(value))
        out += value
    elif isinstance(value, datetime):
        out.append(0xC1)
        _write(out, epoch_seconds(value))
    elif isinstance(value, dict):
        _head(out, 5, len(value))
        for key, item in value.items():
            _write(out, str(key))
            _write(out, item)
    elif isinstance(value, (list, tuple)):
        _head(out, 4, len(value))
        for item in value:
            _write(out, item)
    else:
        _write(out, str(value))

"""The wire format of protocol buffers, read and written without their library: a message is a list of numbered fields,
and what the numbers mean is the business of whoever reads it.

Used for MLeap's binary bundles (`frameworks/mleap_binary`) when a model is loaded, and for records in RecordIO
(`recordio`) on the path of an invocation. Reading raises ValueError for bytes that are no message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Field: TypeAlias = int | bytes  # a number, or the bytes of whatever else it is

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
SIGN, WIDTH = 1 << 63, 1 << 64


def fields(data: Field) -> Iterator[tuple[int, Field]]:
    """The fields of a message, in their order."""
    if not isinstance(data, bytes):
        raise ValueError("a number where a message should be")
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = varint(data, at)
        elif kind in (EIGHT, FOUR):
            size = 8 if kind == EIGHT else 4
        else:
            raise ValueError(f"a field of the kind {kind}")
        if at + size > len(data):
            raise ValueError("a message that is cut")
        yield key >> 3, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number that does not end")


def varints(value: Field) -> list[int]:
    """Whole numbers of a repeated field: one, or many that are packed; those below zero are two's complement."""
    if isinstance(value, int):
        return [signed(value)]
    found, at = list[int](), 0
    while at < len(value):
        one, at = varint(value, at)
        found.append(signed(one))
    return found


def signed(value: int) -> int:
    """A number of 64 bits as two's complement has it."""
    value &= WIDTH - 1
    return value - WIDTH if value & SIGN else value


def text(value: Field) -> str:
    """A field that is text."""
    if not isinstance(value, bytes):
        raise ValueError("a number where a text should be")
    return value.decode()


def message(number: int, content: bytes) -> bytes:
    """A field of this number that holds bytes: a message, a text or packed numbers."""
    return _number(number << 3 | BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

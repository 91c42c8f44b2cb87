"""Tensors of the Open Inference Protocol, their three spellings (JSON numbers, raw bytes, .npy files), and nothing of
NumPy: a gateway has none.

A numeric tensor is kept as its elements' little-endian bytes, row-major, so that the binary extension and .npy, which
hold the same, cost no look at an element. BYTES is a list of byte strings. Every size that a message claims is checked
against what is there before anything of that size is made.
"""

from __future__ import annotations

import ast
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from math import isnan, nan, prod
from typing import Any

NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER_BYTES_MAX = 16_384
_DIMENSIONS_MAX = 32
_SHOWN_CHARS_MAX = 60
_EMPTY_TEXTS_MAX = 1_048_576

# datatype -> size of an element, its struct letter, its .npy kind
_NUMBERS = {
    "BOOL": (1, "?", "|b1"),
    "UINT8": (1, "B", "|u1"),
    "UINT16": (2, "H", "<u2"),
    "UINT32": (4, "I", "<u4"),
    "UINT64": (8, "Q", "<u8"),
    "INT8": (1, "b", "|i1"),
    "INT16": (2, "h", "<i2"),
    "INT32": (4, "i", "<i4"),
    "INT64": (8, "q", "<i8"),
    "FP16": (2, "e", "<f2"),
    "FP32": (4, "f", "<f4"),
    "FP64": (8, "d", "<f8"),
}
DATATYPES = (*_NUMBERS, "BF16", "BYTES")
_OF_NPY = {kind.lstrip("|<"): datatype for datatype, (_, _, kind) in _NUMBERS.items()}
_OF_DTYPE = {
    "bool": "BOOL",
    **{f"{sign.lower()}{bits}": f"{sign}{bits}" for sign in ("INT", "UINT") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
_FLOATS = frozenset(("FP16", "FP32", "FP64"))


class TensorError(ValueError):
    """A tensor that is not what it says; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | list[bytes]  # elements, little-endian and row-major; a list for BYTES

    @property
    def count(self) -> int:
        """How many elements it has."""
        return prod(self.shape)


# ------------------------------------------------------------------------------------------------------------ from JSON
def from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    """A tensor whose data came as JSON, flat or nested. Raises TensorError."""
    flat = _flat(name, shape, data)
    try:
        if datatype == "BYTES":
            return Tensor(name, datatype, shape, [_text(element) for element in flat])
        if datatype == "BF16":
            return Tensor(name, "FP32", shape, _pack("FP32", flat))
        return Tensor(name, datatype, shape, _pack(datatype, flat))
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise TensorError(f"tensor {show(name)}: its data is not all {datatype}: {show(str(error))}") from None


def _flat(name: str, shape: tuple[int, ...], data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise TensorError(f'tensor {show(name)}: "data" must be a list')
    count = prod(shape)
    if not data or not isinstance(data[0], list):
        if len(data) != count:
            raise TensorError(f"tensor {show(name)}: {len(data)} elements, but its shape {list(shape)} has {count}")
        return data
    level: list[Any] = [data]
    for size in shape:
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise TensorError(f"tensor {show(name)}: its nested data does not have the shape {list(shape)}")
        level = list(chain.from_iterable(level))
    return level


def _text(element: Any) -> bytes:
    if not isinstance(element, str):
        raise TypeError(f"{element!r} is not text")
    return element.encode()


def _pack(datatype: str, flat: list[Any]) -> bytes:
    if datatype == "BOOL":
        if any(element not in (0, 1) for element in flat):
            raise ValueError("a BOOL is true or false")
        return bytes([bool(element) for element in flat])
    if datatype in _FLOATS and None in flat:  # JSON has no other word for it
        flat = [nan if element is None else element for element in flat]
    letter = _NUMBERS[datatype][1]
    if letter == "e":
        return struct.pack(f"<{len(flat)}e", *flat)
    return _little(array(letter, flat))


def _little(values: array[Any]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


# ------------------------------------------------------------------------------------------------------- from raw bytes
def from_raw(name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> Tensor:
    """A tensor of the binary extension. Raises TensorError."""
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, _split(name, prod(shape), raw))
    size = 2 if datatype == "BF16" else _NUMBERS[datatype][0]
    if prod(shape) * size != len(raw):
        raise TensorError(
            f"tensor {show(name)}: {len(raw)} bytes, but {datatype} of shape {list(shape)} has {prod(shape) * size}"
        )
    if datatype == "BF16":  # the upper half of a FP32
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[::2], raw[1::2]
        return Tensor(name, "FP32", shape, bytes(wide))
    if datatype == "BOOL" and raw.strip(b"\x00\x01"):
        raise TensorError(f"tensor {show(name)}: a BOOL is the byte 0 or 1")
    return Tensor(name, datatype, shape, raw)


def _split(name: str, count: int, raw: bytes) -> list[bytes]:
    """BYTES in binary: before each element its length, u32."""
    found: list[bytes] = []
    place = 0
    while place < len(raw) and len(found) <= count:
        end = place + 4 + int.from_bytes(raw[place : place + 4], "little")
        if place + 4 > len(raw) or end > len(raw):
            raise TensorError(f"tensor {show(name)}: its BYTES end in the middle of an element")
        found.append(raw[place + 4 : end])
        place = end
    if len(found) != count:
        raise TensorError(f"tensor {show(name)}: its BYTES do not have the {count} elements of its shape")
    return found


def to_raw(tensor: Tensor) -> bytes:
    """The bytes of the binary extension."""
    if isinstance(tensor.data, bytes):
        return tensor.data
    return b"".join([len(element).to_bytes(4, "little") + element for element in tensor.data])


# -------------------------------------------------------------------------------------------------------------- to JSON
def values(tensor: Tensor) -> list[Any]:
    """The elements, flat: numbers, booleans or text. Raises TensorError for BYTES that are no text."""
    data = tensor.data
    if isinstance(data, list):
        try:
            return [element.decode() for element in data]
        except UnicodeDecodeError:
            raise TensorError(f"tensor {show(tensor.name)} holds bytes that are not UTF-8 text") from None
    letter = _NUMBERS[tensor.datatype][1]
    if letter in "?e":
        return list(struct.unpack(f"<{tensor.count}{letter}", data))
    found = array(letter, data)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tolist()


def nested(tensor: Tensor) -> list[Any]:
    """The elements in lists as deep as the shape. Raises TensorError."""
    return nest(values(tensor), tensor.shape)


def nest(flat: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """A flat list in lists as deep as the shape."""
    for size in reversed(shape[1:]):
        flat = [flat[place : place + size] for place in range(0, len(flat), size)] if size else []
    return flat


# ------------------------------------------------------------------------------------------------------- guessing types
def from_list(name: str, found: list[Any]) -> Tensor | None:
    """The tensor that a JSON list holds: INT64, FP64, BOOL or BYTES; None where it is ragged or mixed."""
    shape, level = [len(found)], found
    while any(isinstance(element, list) for element in level):
        lengths = {len(element) if isinstance(element, list) else -1 for element in level}
        if len(lengths) != 1 or -1 in lengths or len(shape) == _DIMENSIONS_MAX:
            return None
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    datatype = _datatype(level)
    if datatype is None:
        return None
    try:
        return from_json(name, datatype, tuple(shape), level)
    except TensorError:
        return None


def _datatype(flat: list[Any]) -> str | None:
    kinds = {type(element) for element in flat}
    if not kinds or kinds == {int}:
        return "INT64"
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    return "FP64" if kinds & {int, float} and kinds <= {int, float, type(None)} else None


# ----------------------------------------------------------------------------------------------------------------- .npy
def to_npy(tensor: Tensor) -> bytes:
    """A .npy file, version 1.0, of a numeric tensor."""
    assert isinstance(tensor.data, bytes)
    sizes = "".join([f"{size}," for size in tensor.shape])
    kind = _NUMBERS[tensor.datatype][2]
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"%b\x01\x00%b%b%b" % (NPY_MAGIC, len(text).to_bytes(2, "little"), text, tensor.data)


def from_npy(name: str, body: bytes) -> Tensor:
    """The tensor of a .npy file of numbers or text. Raises TensorError."""
    descr, fortran, shape, data = _npy_parts(body)
    kind, size = descr.lstrip("|<=>"), 0
    swapped = descr[:1] == ">"
    if kind[:1] in ("U", "S") and kind[1:].isdigit():
        size = int(kind[1:]) * (4 if kind[0] == "U" else 1)
    elif kind in _OF_NPY:
        size = _NUMBERS[_OF_NPY[kind]][0]
    else:
        raise TensorError(f"an array of {show(descr)} is no tensor")
    if prod(shape) * size != len(data):
        raise TensorError("the .npy array is not as long as its header says")
    if kind[0] in "US":
        encoding = "latin-1" if kind[0] == "S" else ("utf-32-be" if swapped else "utf-32-le")
        texts = _texts(data, size, encoding, prod(shape))
        return Tensor(name, "BYTES", shape, _row_major(texts, shape) if fortran else texts)
    if swapped:
        data = b"".join([data[place : place + size][::-1] for place in range(0, len(data), size)])
    if fortran and len(shape) > 1:
        data = b"".join(_row_major([data[place : place + size] for place in range(0, len(data), size)], shape))
    return Tensor(name, _OF_NPY[kind], shape, data)


def _npy_parts(body: bytes) -> tuple[str, bool, tuple[int, ...], bytes]:
    if body[:6] != NPY_MAGIC or len(body) < 12:
        raise TensorError("the body is not an .npy array")
    width = 2 if body[6] == 1 else 4
    start = 8 + width
    length = int.from_bytes(body[8:start], "little")
    if length > _NPY_HEADER_BYTES_MAX or start + length > len(body):
        raise TensorError("the header of the .npy array is not as long as it says")
    return *_npy_header(body[start : start + length]), body[start + length :]


@lru_cache(maxsize=256)
def _npy_header(text: bytes) -> tuple[str, bool, tuple[int, ...]]:
    """What the header of a .npy file says; a model's replies repeat it, and reading one costs much."""
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise TensorError("the header of the .npy array cannot be read") from None
    sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not isinstance(descr, str) or not isinstance(fortran, bool) or not sizes or len(shape) > _DIMENSIONS_MAX:
        raise TensorError("the header of the .npy array cannot be read")
    return descr, fortran, shape or (1,)


def _texts(data: bytes, size: int, encoding: str, count: int) -> list[bytes]:
    if not size:
        if count > _EMPTY_TEXTS_MAX:
            raise TensorError("the .npy array claims too many texts without a letter")
        return [b""] * count
    try:
        cells = [data[place : place + size].decode(encoding) for place in range(0, len(data), size)]
    except UnicodeDecodeError:
        raise TensorError("the text of the .npy array cannot be read") from None
    return [cell.rstrip("\0").encode() for cell in cells]


def _row_major(elements: list[bytes], shape: tuple[int, ...]) -> list[bytes]:
    """Elements that lie column-major (Fortran's order), put in order."""
    if not elements:
        return []
    steps = [prod(shape[:axis]) for axis in range(len(shape))]
    places = [0]
    for size, step in zip(shape, steps, strict=True):
        places = [place + index * step for place in places for index in range(size)]
    return [elements[place] for place in places]


def of_dtype(dtype: str) -> str:
    """The datatype of an array of NumPy's dtype of this name; BYTES for text, objects and what is not known."""
    return _OF_DTYPE.get(dtype, "BYTES")


def show(text: str) -> str:
    """A piece of a client's own text, for a message."""
    return ascii(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "...")


def number(element: Any) -> Any:
    """An element as JSON can hold it: not-a-number becomes null."""
    return None if isinstance(element, float) and isnan(element) else element


def columns(tensors: Sequence[Tensor]) -> list[list[Any]] | None:
    """Rows of tensors that are one column each, [N] or [N, 1]; None where one is something else. Raises TensorError."""
    lengths = {tensor.shape[0] for tensor in tensors}
    if len(lengths) != 1 or any(tensor.count != tensor.shape[0] for tensor in tensors):
        return None
    return [list(row) for row in zip(*[map(number, values(tensor)) for tensor in tensors], strict=True)]

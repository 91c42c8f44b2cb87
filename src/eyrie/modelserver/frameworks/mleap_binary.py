"""MLeap's binary form (SerializationFormat.Protobuf): `model.pb`, `node.pb`, `tree.pb`, told as its JSON form tells it.

What the numbers of the fields mean is the schema of MLeap's bundles (ml.bundle). Reached from `mleap` when a model is
loaded; every function raises ValueError for bytes that are none of it.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import numpy as np

from eyrie.modelserver.protobuf import Field, fields, signed, text, varints

Json: TypeAlias = dict[str, Any]

_NAMES = {1: "boolean", 2: "string", 3: "int", 4: "long", 5: "float", 6: "double", 8: "tensor"}  # of Scalar and List
_FIXED = {5: "<f", 6: "<d"}
# By a tensor's base and width: the bases moved up by one when the schema got a word for "undefined".
_BASES = {
    (0, 1): "i1", (1, 1): "i1", (2, 1): "i1", (2, 2): ">i2", (3, 2): ">i2", (3, 4): ">i4", (4, 4): ">i4",
    (4, 8): ">i8", (5, 8): ">i8", (5, 4): ">f4", (6, 4): ">f4", (6, 8): ">f8", (7, 8): ">f8",
}  # fmt: skip


def model(data: bytes) -> Json:
    """`model.pb`: the op and its attributes."""
    told: Json = {"op": "", "attributes": {}}
    for number, value in fields(data):
        if number == 1:
            told["op"] = text(value)
        elif number == 2:
            told["attributes"] = dict(_attribute(entry) for n, entry in fields(value) if n == 1)
    return told


def node(data: bytes) -> Json:
    """`node.pb`: the name, and which column is at which port."""
    told: Json = {"name": "", "shape": {"inputs": [], "outputs": []}}
    for number, value in fields(data):
        if number == 1:
            told["name"] = text(value)
        elif number == 2:
            for side, socket in fields(value):
                found = {n: v for n, v in fields(socket) if n in (1, 2)}
                port = {"port": text(found.get(1, b"")), "name": text(found.get(2, b""))}
                told["shape"]["inputs" if side == 1 else "outputs"].append(port)
    return told


def tree(data: bytes) -> list[Json]:
    """`tree.pb`: the nodes of a tree, each after its length, in the order of `tree.json`."""
    lines: list[Json] = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise ValueError("a tree that is cut")
        lines.append(_branch(data[at + 4 : end]))
        at = end
    return lines


def _branch(data: bytes) -> Json:
    for number, value in fields(data):
        if number == 1:
            return {
                "type": "internal",
                "split": next(_split(n, v) for _, s in fields(value) for n, v in fields(s)),
            }
        if number == 2:
            return {"type": "leaf", "values": [d for n, v in fields(value) if n == 1 for d in _numbers(6, v)]}
    return {"type": "leaf", "values": []}


def _split(number: int, value: Field) -> Json:
    told = list(fields(value))
    found = dict(told)
    split: Json = {"featureIndex": found.get(1, 0)}
    if number == 2:
        threshold = found.get(2)
        return split | {"type": "continuous", "threshold": 0.0 if threshold is None else _numbers(6, threshold)[0]}
    categories = [category for n, v in told if n == 4 for category in _numbers(6, v)]
    kind = {"type": "categorical", "isLeft": bool(found.get(2, 0)), "numCategories": found.get(3, 0)}
    return split | kind | {"categories": categories}


# -------------------------------------------------------------------------------------------------------- attributes
def _attribute(entry: Field) -> tuple[str, Json]:
    """One entry of the map: its name, and its value as the JSON form has it."""
    found = dict(fields(entry))
    for kind, value in fields(found.get(2, b"")):
        if kind == 1:
            return text(found.get(1, b"")), next((_scalar(n, v) for n, v in fields(value) if n in _NAMES), {})
        return text(found.get(1, b"")), _list(value) if kind == 2 else _tensor(value)
    return text(found.get(1, b"")), {}


def _scalar(number: int, value: Field) -> Json:
    if number == 8:
        return _tensor(value)
    return {_NAMES[number]: text(value) if number == 2 else _numbers(number, value)[0]}


def _list(value: Field) -> Json:
    """All of one kind; numbers packed or one by one."""
    told: Json = {"type": "list"}
    for number, item in fields(value):
        if number in _NAMES:
            items = told.setdefault(_NAMES[number], [])
            if number == 8:
                items.append(_tensor(item))
            elif number == 2:
                items.append(text(item))
            else:
                items += _numbers(number, item)
    return told


def _tensor(value: Field) -> Json:
    base, sizes, content = 0, list[int](), b""
    for number, field in fields(value):
        if number == 1 and isinstance(field, int):
            base = field
        elif number == 2:
            sizes = [_numbers(3, dict(fields(one)).get(1, 0))[0] for n, one in fields(field) if n == 1]
        elif number == 3 and isinstance(field, bytes):
            content = field
        elif number > 3:
            raise ValueError("a sparse tensor")
    count = int(np.prod(sizes)) if sizes else 0
    width = len(content) // count if count else 8
    if (base, width) not in _BASES or (count and width * count != len(content)):
        raise ValueError(f"a tensor of base {base} with {len(content)} bytes for {count} numbers")
    numbers = np.frombuffer(content, _BASES[base, width]).astype(np.float64)
    return {"type": "tensor", "double": numbers, "shape": {"dimensions": [{"size": size} for size in sizes]}}


# ------------------------------------------------------------------------------------------------------------ numbers
def _numbers(number: int, value: Field) -> list[Any]:
    """Numbers of a Scalar's or List's field: one, or many that are packed."""
    if isinstance(value, int):
        return [bool(value) if number == 1 else signed(value)]
    if number in _FIXED:
        return [found for (found,) in struct.iter_unpack(_FIXED[number], value)] if value else []
    found = varints(value)
    return [bool(one) for one in found] if number == 1 else list(found)

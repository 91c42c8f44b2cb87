"""Structures between the wire's plain values (what JSON and CBOR hold) and the values that boto3 uses, by their
shapes, both ways.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

from eyrie.wire.model import Shape
from eyrie.wire.values import (
    Malformed,
    Moment,
    blob_text,
    epoch_seconds,
    float_of,
    float_word,
    integer_of,
    show_timestamp,
    timestamp_of,
    wrong_type,
)

DEPTH_MAX = 64


def lower_first(name: str) -> str:
    """A member as AWS's error texts spell it: EndpointName is 'endpointName'."""
    return name[:1].lower() + name[1:]


def read(shape: Shape, value: Any, depth: int = 0) -> Any:
    """A plain value as boto3 spells it. Raises Malformed; unknown members of nested structures are ignored, and so
    are nulls.
    """
    kind = shape.kind
    if kind == "string":
        if not isinstance(value, str):
            raise wrong_type(value, "a String")
        return value
    if kind == "structure":
        return read_structure(shape, value, depth)
    if kind == "list":
        return _read_list(shape, value, depth)
    if kind == "map":
        return _read_map(shape, value, depth)
    if kind in ("integer", "long"):
        return integer_of(value, kind)
    if kind == "boolean":
        if not isinstance(value, bool):
            raise wrong_type(value, "a Boolean")
        return value
    if kind == "timestamp":
        return timestamp_of(value, shape.timestamp_format or "unixtimestamp")
    if kind == "blob":
        return _read_blob(value)
    return float_of(value, kind)


def read_structure(shape: Shape, value: Any, depth: int = 0) -> Any:
    """A structure's members by their model names."""
    if shape.document:
        return value
    if not isinstance(value, dict):
        raise wrong_type(value, "a Structure")
    if depth > DEPTH_MAX:
        raise Malformed(f"Nested deeper than {DEPTH_MAX} levels")
    result = {}
    body = shape.body
    for wire_name, item in value.items():
        name = body.get(wire_name)
        if name is None or item is None:
            continue
        try:
            result[name] = read(shape.members[name], item, depth + 1)
        except Malformed as problem:
            problem.path.append(lower_first(name))
            raise
    return result


def unknown_members(shape: Shape, value: Mapping[str, Any]) -> list[str]:
    """The names that a request's body has and its shape has not."""
    return [] if shape.document else [name for name in value if name not in shape.body and name != "__type"]


def strays(shape: Shape, value: Any, path: str = "") -> Iterator[str]:
    """The same deep inside, each by its path: what botocore's clients refuse before they send it. For a value that
    could be read.
    """
    if shape.kind == "structure" and not shape.document and isinstance(value, dict):
        for name, item in value.items():
            member = shape.body.get(name)
            if member is None:
                yield path + name
            else:
                yield from strays(shape.members[member], item, f"{path}{name}.")
    elif shape.kind == "list" and shape.element is not None and isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from strays(shape.element, item, f"{path}{number}.")


def _read_list(shape: Shape, value: Any, depth: int) -> list[Any]:
    if not isinstance(value, list):
        raise wrong_type(value, "a List")
    if depth > DEPTH_MAX:
        raise Malformed(f"Nested deeper than {DEPTH_MAX} levels")
    element = shape.element
    assert element is not None
    result = []
    for item in value:
        try:
            result.append(read(element, item, depth + 1))
        except Malformed as problem:
            problem.path.append(f"{len(result) + 1}.member")
            raise
    return result


def _read_map(shape: Shape, value: Any, depth: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(value, "a Map")
    if depth > DEPTH_MAX:
        raise Malformed(f"Nested deeper than {DEPTH_MAX} levels")
    item_shape = shape.value
    assert item_shape is not None
    result = {}
    for key, item in value.items():
        try:
            result[key] = read(item_shape, item, depth + 1)
        except Malformed as problem:
            problem.path.append(f"{key[:64]}.member")
            raise
    return result


def _read_blob(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise wrong_type(value, "a Blob")
    return blob_text(value)


def write(shape: Shape, value: Any, binary: bool = False) -> Any:
    """A boto3 value as a plain one; `binary` (CBOR) leaves blobs, datetimes and floats to the format."""
    kind = shape.kind
    if kind == "string":
        return value if isinstance(value, str) else str(value)
    if kind == "structure":
        return write_structure(shape, value, binary)
    if kind == "list":
        assert shape.element is not None
        if binary and shape.element.kind in ("float", "double"):
            return list(map(float, value))  # thousands of them, in metrics
        if binary and shape.element.kind == "timestamp" and all(type(item) is float for item in value):
            return list(map(Moment, value))  # likewise
        return [write(shape.element, item, binary) for item in value]
    if kind == "map":
        assert shape.value is not None
        return {str(key): write(shape.value, item, binary) for key, item in value.items()}
    if kind == "timestamp":
        return _write_timestamp(shape, value, binary)
    if kind == "blob":
        raw = value.encode() if isinstance(value, str) else bytes(value)
        return raw if binary else base64.b64encode(raw).decode()
    if kind in ("float", "double"):
        return float(value) if binary else float_word(value)
    return value


def write_structure(shape: Shape, value: Mapping[str, Any], binary: bool = False) -> Any:
    """A structure's body members by their wire names; what is None or unknown to the shape is left out."""
    if shape.document:
        return value
    result = {}
    members = shape.members
    for name, item in value.items():
        member = members.get(name)
        if member is not None and item is not None and member.location is None:
            result[member.wire_name or name] = write(member, item, binary)
    return result


def _write_timestamp(shape: Shape, value: Any, binary: bool) -> Any:
    if shape.timestamp_format in (None, "unixtimestamp"):
        if binary:
            return Moment(value) if type(value) is float else timestamp_of(value, "unixtimestamp")
        seconds = epoch_seconds(value)
        return seconds if math.isfinite(seconds) else 0
    return timestamp_of(value, "unixtimestamp") if binary else show_timestamp(value, shape.timestamp_format or "")

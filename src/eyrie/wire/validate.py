"""Checks parameters against what their shapes ask for: required members, lengths, ranges, patterns, enums, also deep
inside.

botocore's clients check only what is required and minimum lengths, so everything else is ours to find. The texts are
AWS's own, but that of a long list of values only the nearest are named.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.wire import patterns
from eyrie.wire.model import Shape
from eyrie.wire.plain import lower_first

REPORTED_MAX = 50
_SHOWN_CHARS_MAX = 256
_DEPTH_MAX = 64
_ENUM_SHOWN_MAX = 40  # an instance type has hundreds of values: naming them all hides what was wrong
_NEAREST = 3
_COMPARED_CHARS_MAX = 64
_FLOAT_MAX = 3.4028235e38  # of a float that has 32 bits; an infinity is beyond it


def violations(shape: Shape | None, params: Mapping[str, Any]) -> list[str]:
    """Every constraint that the parameters break, at most REPORTED_MAX:
    `Value 'x' at 'instanceType' failed to satisfy constraint: Member must ...`.
    """
    found: list[str] = []
    if shape is not None:
        _structure(found, shape, params, "", 0)
    return found[:REPORTED_MAX]


def _structure(found: list[str], shape: Shape, value: Mapping[str, Any], path: str, depth: int) -> None:
    if shape.document or depth > _DEPTH_MAX:
        return
    missing = [name for name in shape.required if value.get(name) is None]
    found.extend(_text("null", path + lower_first(name), "Member must not be null") for name in missing)
    if shape.union and len(value) != 1:
        where = path[:-1] or lower_first(shape.name)
        found.append(_text(None, where, "Member must have exactly one of its members set"))
    for name, item in value.items():
        if len(found) >= REPORTED_MAX:
            return
        member = shape.members.get(name)
        if member is not None and item is not None:
            _check(found, member, item, path + lower_first(name), depth + 1)


def _check(found: list[str], shape: Shape, value: Any, path: str, depth: int) -> None:
    kind = shape.kind
    if kind == "structure":
        _structure(found, shape, value, path + ".", depth)
        return
    broken = _broken(shape, value)
    if broken:
        shown = None if shape.sensitive else _show(value)
        found.extend(_text(shown, path, constraint) for constraint in broken)
    if kind == "list":
        _list(found, shape, value, path, depth)
    elif kind == "map":
        _map(found, shape, value, path, depth)


def _list(found: list[str], shape: Shape, value: list[Any], path: str, depth: int) -> None:
    element = shape.element
    assert element is not None
    if element.kind in ("structure", "list", "map"):
        for i, item in enumerate(value, 1):
            if len(found) >= REPORTED_MAX:
                return
            _check(found, element, item, f"{path}.{i}.member", depth + 1)
        return
    for item in value:
        broken = _broken(element, item)
        if broken:
            found.append(_text(_show(value), path, f"Member must satisfy constraint: [{', '.join(broken)}]"))
            return


def _map(found: list[str], shape: Shape, value: Mapping[str, Any], path: str, depth: int) -> None:
    key_shape, item_shape = shape.key, shape.value
    assert key_shape is not None
    assert item_shape is not None
    for key, item in value.items():
        if len(found) >= REPORTED_MAX:
            return
        broken = _broken(key_shape, key)
        if broken:
            found.append(_text(_show(value), path, f"Map keys must satisfy constraint: [{', '.join(broken)}]"))
            return
        if item_shape.kind in ("structure", "list", "map"):
            _check(found, item_shape, item, f"{path}.{key[:64]}.member", depth + 1)
            continue
        broken = _broken(item_shape, item)
        if broken:
            found.append(_text(_show(value), path, f"Map value must satisfy constraint: [{', '.join(broken)}]"))
            return


def _broken(shape: Shape, value: Any) -> list[str]:
    """The constraints of its own that a value breaks, without those of its parts."""
    broken = []
    if shape.minimum is not None or shape.maximum is not None:
        broken += _out_of_bounds(shape, value)
    if shape.kind == "float" and shape.maximum is None and value > _FLOAT_MAX:
        broken.append(f"Member must have value less than or equal to {_FLOAT_MAX}")
    if shape.enum and value not in shape.enum:
        broken.append(f"Member must satisfy enum value set: {_set(shape.enum, str(value))}")
    # A pattern is tried only on what is not too long already: its cost grows with the length.
    if shape.pattern is not None and not broken and isinstance(value, str):
        bounded = shape.maximum is not None
        if not patterns.matches(shape.pattern, value, bounded):
            broken.append(f"Member must satisfy regular expression pattern: {shape.pattern}")
    return broken


def _set(enum: Sequence[str], value: str) -> str:
    """The values that an enum has; of a long one those that are nearest to what was given, and how many others."""
    if len(enum) <= _ENUM_SHOWN_MAX:
        return f"[{', '.join(enum)}]"
    near = difflib.get_close_matches(value[:_COMPARED_CHARS_MAX], enum, _NEAREST, 0.0)
    return f"[{', '.join(near)}, ... and {len(enum) - len(near)} others]"


def _out_of_bounds(shape: Shape, value: Any) -> list[str]:
    sized = shape.kind in ("string", "blob", "list", "map")
    size = len(value) if sized else value
    noun = "length" if sized else "value"
    if shape.kind == "structure" or not isinstance(size, (int, float)):
        return []
    broken = []
    if shape.maximum is not None and not size <= shape.maximum:
        broken.append(f"Member must have {noun} less than or equal to {shape.maximum}")
    if shape.minimum is not None and not size >= shape.minimum:
        broken.append(f"Member must have {noun} greater than or equal to {shape.minimum}")
    return broken


def _show(value: Any) -> str:
    text = f"[{', '.join(map(str, value[:20]))}]" if isinstance(value, list) else str(value)
    if isinstance(value, bytes):
        text = f"({len(value)} bytes)"
    return f"'{text}'" if len(text) <= _SHOWN_CHARS_MAX else f"'{text[:_SHOWN_CHARS_MAX]}...'"


def _text(shown: str | None, path: str, constraint: str) -> str:
    value = f"Value {shown}" if shown is not None else "Value"
    return f"{value} at '{path}' failed to satisfy constraint: {constraint}"

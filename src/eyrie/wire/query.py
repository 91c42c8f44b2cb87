"""The query protocol's form (`Tags.member.1.Key=...`) as boto3 values, by the shapes. Its replies are XML
(`eyrie.wire.xml`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from eyrie.wire.model import Shape
from eyrie.wire.plain import lower_first
from eyrie.wire.values import Malformed, read_scalar

FIELDS_MAX = 20_000
DEPTH_MAX = 64
_INDEX_DIGITS_MAX = 6
_TEXT = ""  # key of a branch's own value: names have at least one character

# What a form may hold besides the operation's members.
ENVELOPE = frozenset(
    [
        "Action",
        "Version",
        "AWSAccessKeyId",
        "Signature",
        "SignatureMethod",
        "SignatureVersion",
        "Timestamp",
        "Expires",
        "SecurityToken",
    ]
)

Tree = dict[str, Any]  # name -> Tree; "" -> text


def parse_form(text: bytes | str) -> Tree:
    """A form as a tree of its dotted names. Raises Malformed."""
    if not text:
        return {}
    try:
        decoded = text.decode("ascii") if isinstance(text, bytes) else text
        pairs = parse_qsl(
            decoded, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        raise Malformed("The form is not well-formed, not UTF-8 or too long") from None
    tree: Tree = {}
    for name, value in pairs:
        branch = tree
        parts = name.split(".", DEPTH_MAX + 1)
        if len(parts) > DEPTH_MAX:
            raise Malformed(f"Nested deeper than {DEPTH_MAX} levels")
        for part in parts:
            branch = branch.setdefault(part or "?", {})
        branch[_TEXT] = value
    return tree


def text_of(tree: Tree, name: str) -> str:
    """The text of a top-level name, "" where there is none."""
    text = tree.get(name, {}).get(_TEXT, "")
    return text if isinstance(text, str) else ""


def unknown_names(shape: Shape | None, tree: Tree) -> list[str]:
    """The top-level names that are neither members nor the envelope's."""
    known = {_name(name, member) for name, member in shape.members.items()} if shape else set()
    known |= {member.wire_name or name for name, member in shape.members.items()} if shape else set()
    return [name for name in tree if name not in known and name not in ENVELOPE and not name.startswith("X-Amz-")]


def read_structure(shape: Shape, tree: Tree) -> dict[str, Any]:
    """A structure's members. Raises Malformed."""
    result = {}
    for name, member in shape.members.items():
        branch = tree.get(_name(name, member))
        if branch is None:
            branch = tree.get(member.wire_name or name)
        if branch is None:
            continue
        try:
            result[name] = _read(member, branch)
        except Malformed as problem:
            problem.path.append(lower_first(name))
            raise
    return result


def _name(name: str, member: Shape) -> str:
    """What a member is called in a form: a flattened list goes by the name of its elements."""
    if member.kind == "list" and member.flattened and member.element is not None and member.element.wire_name:
        return member.element.wire_name
    return member.wire_name or name


def _read(shape: Shape, branch: Tree) -> Any:
    if shape.kind == "structure":
        return read_structure(shape, branch)
    if shape.kind == "list":
        return _read_list(shape, branch)
    if shape.kind == "map":
        return _read_map(shape, branch)
    text = branch.get(_TEXT)
    if not isinstance(text, str) or len(branch) > 1:
        raise Malformed(f"A structure can not be converted to {shape.kind}")
    return read_scalar(shape.kind, text, shape.timestamp_format or "iso8601")


def _read_list(shape: Shape, branch: Tree) -> list[Any]:
    element = shape.element
    assert element is not None
    inner = branch if shape.flattened else branch.get(element.wire_name or "member", branch)
    result = []
    for item in _numbered(inner):
        try:
            result.append(_read(element, item))
        except Malformed as problem:
            problem.path.append(f"{len(result) + 1}.member")
            raise
    return result


def _read_map(shape: Shape, branch: Tree) -> dict[str, Any]:
    key_shape, value_shape = shape.key, shape.value
    assert key_shape is not None
    assert value_shape is not None
    result = {}
    for entry in _numbered(branch if shape.flattened else branch.get("entry", branch)):
        key, value = entry.get(key_shape.wire_name or "key"), entry.get(value_shape.wire_name or "value")
        if key is None or value is None or _TEXT not in key:
            raise Malformed("A map entry lacks its key or its value")
        result[key[_TEXT]] = _read(value_shape, value)
    return result


def _numbered(branch: Tree) -> list[Tree]:
    """The branches 1, 2, 3 ... in order; `Name=` with nothing below is an empty list."""
    if branch.get(_TEXT, "") != "":
        raise Malformed("A value can not be converted to a List")
    items = []
    for name, item in branch.items():
        if name == _TEXT:
            continue
        if not (name.isascii() and name.isdigit()) or len(name) > _INDEX_DIGITS_MAX:
            raise Malformed(f"'{name[:32]}' is not an index")
        items.append((int(name), item))
    items.sort(key=lambda pair: pair[0])
    return [item for _, item in items]

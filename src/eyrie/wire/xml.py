"""XML, as the query and rest-xml protocols use it: a small tree read within bounds, and shapes written out and read
by their traits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

from eyrie.wire.model import Shape
from eyrie.wire.plain import lower_first
from eyrie.wire.values import Malformed, read_scalar, show_scalar

DEPTH_MAX = 64
NODES_MAX = 200_000
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile("[&<>\r]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}


class Node:
    """One element: its name without a prefix, attributes, children and the text before and between them."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: Mapping[str, str]) -> None:
        self.name = name.rpartition(":")[2]
        self.attributes = attributes
        self.children: list[Node] = []
        self.text = ""


class _Builder:
    """Listens to expat and builds the tree; a document type or an entity of one's own is refused."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.stack: list[Node] = []
        self.count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if self.count > NODES_MAX or len(self.stack) >= DEPTH_MAX:
            raise Malformed("The XML is too deep or too large")
        node = Node(name, attributes)
        if self.stack:
            self.stack[-1].children.append(node)
        else:
            self.root = node
        self.stack.append(node)

    def end(self, _name: str) -> None:
        self.stack.pop()

    def text(self, data: str) -> None:
        self.stack[-1].text += data

    def refuse(self, *_: Any) -> None:
        raise Malformed("A document type is not accepted")


def parse(data: bytes) -> Node:
    """The root element of a document. Raises Malformed."""
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError):
        raise Malformed("The XML is not well-formed") from None
    if builder.root is None:
        raise Malformed("The XML is not well-formed")
    return builder.root


def read(shape: Shape, node: Node) -> Any:
    """An element's content as boto3 spells it. Raises Malformed; unknown elements are ignored, as S3 does."""
    if shape.kind == "structure":
        return read_structure(shape, node)
    if shape.kind == "list":
        element = shape.element
        assert element is not None
        return [read(element, child) for child in node.children]
    if shape.kind == "map":
        return _read_map(shape, [child for child in node.children if child.name == "entry"])
    if node.children:
        raise Malformed(f"An element is not {shape.kind}")
    return read_scalar(shape.kind, node.text, shape.timestamp_format or "iso8601")


def read_structure(shape: Shape, node: Node) -> dict[str, Any]:
    """The members that an element's children and attributes hold."""
    by_name: dict[str, list[Node]] = {}
    for child in node.children:
        by_name.setdefault(child.name, []).append(child)
    result: dict[str, Any] = {}
    for name, member in shape.members.items():
        if member.location is not None:
            continue
        try:
            if member.xml_attribute:
                text = node.attributes.get(member.wire_name or name)
                found = None if text is None else read_scalar(member.kind, text, "iso8601")
            else:
                found = _read_member(name, member, by_name)
        except Malformed as problem:
            problem.path.append(lower_first(name))
            raise
        if found is not None:
            result[name] = found
    return result


def _read_member(name: str, member: Shape, by_name: Mapping[str, list[Node]]) -> Any:
    nodes = by_name.get(member.wire_name or name)
    if nodes is None and member.flattened and member.element is not None and member.element.wire_name:
        nodes = by_name.get(member.element.wire_name)
    if nodes is None:
        return None
    if member.flattened and member.kind == "list":
        assert member.element is not None
        return [read(member.element, node) for node in nodes]
    if member.flattened and member.kind == "map":
        return _read_map(member, nodes)
    return read(member, nodes[0])


def _read_map(shape: Shape, entries: list[Node]) -> dict[str, Any]:
    key_shape, value_shape = shape.key, shape.value
    assert key_shape is not None
    assert value_shape is not None
    result = {}
    for entry in entries:
        parts = {child.name: child for child in entry.children}
        key, value = parts.get(key_shape.wire_name or "key"), parts.get(value_shape.wire_name or "value")
        if key is None or value is None:
            raise Malformed("A map entry lacks its key or its value")
        result[key.text] = read(value_shape, value)
    return result


def escape(text: str) -> str:
    """Text as XML holds it; characters that XML cannot hold at all become U+FFFD."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found.group()], _NOT_XML.sub("\ufffd", text))


def quote(text: str) -> str:
    """An attribute's value, quoted."""
    return '"' + escape(text).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;") + '"'


def write(out: list[str], name: str, shape: Shape, value: Any) -> None:
    """Append an element holding a boto3 value."""
    if shape.kind == "structure":
        out.append(f"<{name}{_namespace(shape)}{_attributes(shape, value)}>")
        write_members(out, shape, value)
        out.append(f"</{name}>")
    elif shape.kind == "list":
        _write_list(out, name, shape, value)
    elif shape.kind == "map":
        _write_map(out, name, shape, value)
    else:
        out.append(f"<{name}>{escape(show_scalar(shape.kind, value, shape.timestamp_format or 'iso8601'))}</{name}>")


def write_members(out: list[str], shape: Shape, value: Mapping[str, Any]) -> None:
    """Append the elements of a structure's members; what is None or unknown to the shape is left out."""
    for name, item in value.items():
        member = shape.members.get(name)
        if member is not None and item is not None and member.location is None and not member.xml_attribute:
            write(out, member.wire_name or name, member, item)


def _write_list(out: list[str], name: str, shape: Shape, value: Any) -> None:
    element = shape.element
    assert element is not None
    if shape.flattened:
        for item in value:
            write(out, element.wire_name or name, element, item)
        return
    out.append(f"<{name}{_namespace(shape)}>")
    for item in value:
        write(out, element.wire_name or "member", element, item)
    out.append(f"</{name}>")


def _write_map(out: list[str], name: str, shape: Shape, value: Mapping[str, Any]) -> None:
    key_shape, value_shape = shape.key, shape.value
    assert key_shape is not None
    assert value_shape is not None
    entry = name if shape.flattened else "entry"
    if not shape.flattened:
        out.append(f"<{name}>")
    for key, item in value.items():
        out.append(f"<{entry}>")
        write(out, key_shape.wire_name or "key", key_shape, key)
        write(out, value_shape.wire_name or "value", value_shape, item)
        out.append(f"</{entry}>")
    if not shape.flattened:
        out.append(f"</{name}>")


def _namespace(shape: Shape) -> str:
    return f" {shape.xml_namespace[0]}={quote(shape.xml_namespace[1])}" if shape.xml_namespace else ""


def _attributes(shape: Shape, value: Mapping[str, Any]) -> str:
    return "".join(
        f" {member.wire_name or name}={quote(str(value[name]))}"
        for name, member in shape.members.items()
        if member.xml_attribute and value.get(name) is not None
    )

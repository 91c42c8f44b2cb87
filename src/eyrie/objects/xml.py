"""XML as S3 speaks it: a small careful writer for replies and a bounded reader for requests.

The reader refuses document types (so no entity is ever expanded), limits depth and the number of elements, and drops
namespaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Union
from xml.parsers import expat

from eyrie.objects.errors import refuse

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DEPTH_MAX = 8
ELEMENTS_MAX = 100_000  # 10,000 parts with an ETag, a number and a checksum each are 40,001

Value = Union[str, int, bool, "Element", None]

# XML 1.0 has no way to write the other control characters; S3 writes them as references all the same, and so do we.
_ESCAPES = {i: f"&#x{i:x};" for i in range(32)} | {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
    0xFFFE: "&#xfffe;",
    0xFFFF: "&#xffff;",
}


@dataclass(slots=True)
class Element:
    """One element: text, or children in order."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)
    attributes: str = ""  # as they are written

    def find(self, name: str) -> Element | None:
        """The first child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> Iterator[Element]:
        """The children of that name, in order."""
        return (child for child in self.children if child.name == name)

    def get(self, name: str, default: str = "") -> str:
        """The text of the first child of that name."""
        child = self.find(name)
        return default if child is None else child.text

    def add(self, name: str, value: Value) -> None:
        """Append a child with a text, a number or a truth value; None adds nothing."""
        if value is None:
            return
        if isinstance(value, Element):
            self.children.append(value)
            return
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        self.children.append(Element(name, text))


def element(name: str, **values: Value) -> Element:
    """An element with a child a keyword, in their order; None leaves one out."""
    made = Element(name)
    for child, value in values.items():
        made.add(child, value)
    return made


def document(root: Element, namespace: str = NAMESPACE) -> bytes:
    """The whole XML document, UTF-8."""
    out: list[str] = ['<?xml version="1.0" encoding="UTF-8"?>\n']
    _write(root, out, f' xmlns="{namespace}"' if namespace else "")
    return "".join(out).encode()


def _write(node: Element, out: list[str], namespace: str = "") -> None:
    attributes = namespace + node.attributes
    if not node.children and not node.text:
        out.append(f"<{node.name}{attributes}/>")
        return
    out.append(f"<{node.name}{attributes}>")
    out.append(node.text.translate(_ESCAPES))
    for child in node.children:
        _write(child, out)
    out.append(f"</{node.name}>")


def parse(body: bytes, root: str) -> Element:
    """The document's root element, which must have that name. Raises ApiError (MalformedXML)."""
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError):  # not XML, not allowed XML, or an encoding that nobody knows
        raise refuse("MalformedXML") from None
    found = reader.top.children
    if len(found) != 1 or found[0].name != root:
        raise refuse("MalformedXML")
    return found[0]


class _Reader:
    """Builds elements from expat's events; ValueError for what is not allowed."""

    def __init__(self) -> None:
        self.top = Element("")
        self._open = [self.top]
        self._count = 0

    def doctype(self, *_: object) -> None:
        raise ValueError("a document type is not allowed")

    def start(self, name: str, _: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) > DEPTH_MAX or self._count > ELEMENTS_MAX:
            raise ValueError("too deep or too many elements")
        node = Element(name.rpartition(" ")[2])
        self._open[-1].children.append(node)
        self._open.append(node)

    def end(self, _: str) -> None:
        done = self._open.pop()
        if done.children:
            done.text = ""

    def characters(self, text: str) -> None:
        self._open[-1].text += text

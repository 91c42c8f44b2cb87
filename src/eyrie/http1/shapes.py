"""Heads that come again and again, recognised whole instead of being parsed afresh.

A client's requests differ in a few values (the date, the signature, the length) and are otherwise equal byte for byte.
Of a head that the parser accepted, a shape is a pattern in which everything is literal but those values, each held to a
narrow form of its own: what matches would have been accepted by the parser, with the same fields. Anything else takes
the ordinary way.

The target is such a value too where the server says so (`PATH`): then the heads for many models are of one shape.

On the path: `server` asks a connection's shape before the parser. The application decides which heads are worth it
(`Connection.remember`), and finds what it derived from one in `Shape.derived`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

PATH = b":path"  # in the place of a header's name, which has no colon: the request's target as a whole
_LENGTH = b"content-length"
_UNFIT = frozenset((b"transfer-encoding", b"upgrade", b"expect", b"te", b"trailer"))
_HEAD_BYTES_MAX = 2_048
_SHAPES_MAX = 256  # of one server; all are forgotten when it is full
_SPACING_S = 0.05  # at least, between two patterns that a server makes: each takes about a millisecond


class Varying(NamedTuple):
    """The part of a header's value that differs from request to request."""

    form: bytes  # a regular expression without groups that no blank and no control character fits
    after: bytes = b""  # the part begins after the last one of these; what stands before is literal


LENGTH_ONLY: Mapping[bytes, Varying] = {_LENGTH: Varying(rb"[0-9]{1,9}")}


class Shape:
    """A head but for its varying values; the connection stays open after its reply."""

    __slots__ = ("_fields", "_literals", "derived", "length_group", "match", "method", "target", "target_group")

    def __init__(
        self, pattern: bytes, fields: dict[bytes, bytes], literals: dict[bytes, bytes], method: bytes, target: bytes
    ) -> None:
        self.match: Callable[[bytes], re.Match[bytes] | None] = re.compile(pattern).match
        self.method = method
        self.target = target
        self.derived: Any = None  # the application's own
        self._fields = fields
        self._literals = literals  # of each header that varies, in the order of the pattern's groups: what stands first
        self.length_group = self.groups[_LENGTH]
        self.target_group = self.groups.get(PATH, 0)  # 0: it does not vary

    @property
    def groups(self) -> dict[bytes, int]:
        """The headers that vary, and which group of a match holds the varying part of each."""
        return {name: number for number, name in enumerate(self._literals, 1)}

    def fields(self, values: re.Match[bytes]) -> dict[bytes, bytes]:
        """The headers of a head that matched, names in lower case."""
        fields = self._fields.copy()
        for (name, literal), value in zip(self._literals.items(), values.groups(), strict=True):
            if name is not PATH:
                fields[name] = literal + value
        return fields


class Shapes:
    """The shapes that the connections of one server have met."""

    def __init__(self, varying: Mapping[bytes, Varying]) -> None:
        self._varying = varying
        self._known: dict[bytes, Shape] = {}
        self._made_at_s = float("-inf")

    def __len__(self) -> int:
        return len(self._known)

    def of(self, head: bytes, fields: dict[bytes, bytes], method: bytes, target: bytes, now_s: float) -> Shape | None:
        """The shape of a head (its empty line included) that was accepted, with no header repeated; None where it has
        none, or where another was made just now.
        """
        if len(head) > _HEAD_BYTES_MAX or _LENGTH not in fields or not _UNFIT.isdisjoint(fields):
            return None
        first, *lines = head[:-4].split(b"\r\n")
        pattern = [re.escape(first)]
        literals: dict[bytes, bytes] = {}
        path = self._varying.get(PATH)
        if path is not None and first == b"%b %b HTTP/1.1" % (method, target) and re.fullmatch(path.form, target):
            pattern = [rb"%b\ (%b)\ HTTP/1\.1" % (re.escape(method), path.form)]
            literals[PATH] = b""
        for line in lines:
            name = line.partition(b":")[0].lower()
            varying = self._varying.get(name)
            literal = line if varying is None else self._literal(line, varying)
            if literal is None:
                return None
            pattern.append(re.escape(literal))
            if varying is not None:
                pattern[-1] += b"(%b)" % varying.form
                literals[name] = literal[len(name) + 1 :].lstrip(b" \t")
        return self._get(rb"\r\n".join([*pattern, rb"\r\n"]), fields, literals, method, target, now_s)

    def _literal(self, line: bytes, varying: Varying) -> bytes | None:
        """A line up to its varying part; None where that has another form than it should."""
        if varying.after:
            before, found, value = line.rpartition(varying.after)
            literal = before + found
        else:
            value = line.partition(b":")[2].lstrip(b" \t")
            literal = line[: len(line) - len(value)]
        return literal if re.fullmatch(varying.form, value) else None

    def _get(
        self,
        pattern: bytes,
        fields: dict[bytes, bytes],
        literals: dict[bytes, bytes],
        method: bytes,
        target: bytes,
        now_s: float,
    ) -> Shape | None:
        shape = self._known.get(pattern)
        if shape is None and now_s - self._made_at_s >= _SPACING_S:
            self._made_at_s = now_s
            if len(self._known) >= _SHAPES_MAX:
                self._known.clear()
            shape = self._known[pattern] = Shape(pattern, fields.copy(), literals, method, target)
        return shape

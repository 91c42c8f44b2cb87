"""The REST protocols' envelope: which operation a method and path mean, and what travels in path, query and headers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from eyrie.wire.model import Operation, Service, Shape
from eyrie.wire.plain import lower_first
from eyrie.wire.values import Malformed, read_scalar, show_scalar

QUERY_PARAMETERS_MAX = 1_000

Query = Mapping[str, list[str]]  # decoded names and values, in order


@dataclass(slots=True, frozen=True)
class _Route:
    operation: Operation
    segments: tuple[str, ...]  # "{Name}" and "{Name+}" are labels
    query: tuple[tuple[str, str], ...]  # literal
    needs: tuple[str, ...]  # query parameters of required members
    needs_headers: tuple[str, ...]

    @property
    def weight(self) -> tuple[int, int, int, bool]:
        """How much of a request this route asks for: the heaviest that fits is meant, and the newer of two alike."""
        fixed = sum(not segment.startswith("{") for segment in self.segments)
        return len(self.query) + len(self.needs), len(self.needs_headers), fixed, not self.operation.deprecated


class Router:
    """Finds the operation of a REST service by method, path, query and headers."""

    def __init__(self, service: Service) -> None:
        self._routes: dict[str, list[_Route]] = {}
        for operation in service.operations():
            self._routes.setdefault(operation.method, []).append(_route(operation))
        for routes in self._routes.values():
            routes.sort(key=lambda route: route.weight, reverse=True)

    def find(
        self, method: str, path: str, query: Query, headers: Mapping[str, str]
    ) -> tuple[Operation, dict[str, str]] | None:
        """The operation and its labels, percent-decoded; None where nothing fits. Raises Malformed for labels that
        are not UTF-8.
        """
        found = self._find(method, path, query, headers)
        if found is None and path.endswith("/") and len(path) > 1:
            found = self._find(method, path[:-1], query, headers)
        return found

    def _find(
        self, method: str, path: str, query: Query, headers: Mapping[str, str]
    ) -> tuple[Operation, dict[str, str]] | None:
        given = tuple(path[1:].split("/")) if path.startswith("/") else (path,)
        for route in self._routes.get(method, ()):
            if _asked(route, query, headers):
                labels = _labels(route.segments, given)
                if labels is not None:
                    return route.operation, {name: _decoded(value) for name, value in labels.items()}
        return None


def _route(operation: Operation) -> _Route:
    needs, needs_headers = [], []
    if operation.input is not None:
        for name in operation.input.required:
            member = operation.input.members[name]
            if member.location == "querystring":
                needs.append(member.wire_name or name)
            elif member.location == "header":
                needs_headers.append((member.wire_name or name).lower())
    literal = {name for name, _ in operation.query}
    return _Route(
        operation,
        tuple(operation.path.lstrip("/").split("/")),
        operation.query,
        tuple(name for name in needs if name not in literal),
        tuple(needs_headers) if operation.service == "s3" else (),
    )


def _asked(route: _Route, query: Query, headers: Mapping[str, str]) -> bool:
    for name, value in route.query:
        if name not in query or (value and value not in query[name]):
            return False
    if route.operation.service != "s3":
        return True
    return all(name in query for name in route.needs) and all(name in headers for name in route.needs_headers)


def _labels(segments: tuple[str, ...], given: tuple[str, ...]) -> dict[str, str] | None:
    """The labels' raw values, or None where the path does not fit. A greedy label is the last one before fixed
    segments.
    """
    labels: dict[str, str] = {}
    for i, segment in enumerate(segments):
        if segment.endswith("+}"):
            after = len(segments) - i - 1
            end = len(given) - after
            labels[segment[1:-2]] = "/".join(given[i:end])
            rest = _labels(segments[i + 1 :], given[end:]) if end > i else None
            return labels | rest if rest is not None and labels[segment[1:-2]] else None
        if i >= len(given):
            return None
        if segment.startswith("{"):
            if not given[i]:
                return None
            labels[segment[1:-1]] = given[i]
        elif segment != given[i]:
            return None
    return labels if len(given) == len(segments) else None


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except ValueError:
        raise Malformed("The path is not UTF-8") from None


def parse_query(query: str) -> dict[str, list[str]]:
    """A query's parameters, decoded. Raises Malformed."""
    parameters: dict[str, list[str]] = {}
    if not query:
        return parameters
    pairs = query.split("&", QUERY_PARAMETERS_MAX + 1)
    if len(pairs) > QUERY_PARAMETERS_MAX:
        raise Malformed("Too many query parameters")
    for pair in pairs:
        name, _, value = pair.replace("+", " ").partition("=")
        if name:
            parameters.setdefault(_decoded(name), []).append(_decoded(value))
    return parameters


def read_envelope(shape: Shape, labels: Mapping[str, str], query: Query, headers: Mapping[str, str]) -> dict[str, Any]:
    """The members that path, query and headers hold. Raises Malformed."""
    result: dict[str, Any] = {}
    for name, member in shape.members.items():
        if member.location is None:
            continue
        try:
            found = _read_located(name, member, labels, query, headers)
        except Malformed as problem:
            problem.path.append(lower_first(name))
            raise
        if found is not None:
            result[name] = found
    return result


def _read_located(name: str, member: Shape, labels: Mapping[str, str], query: Query, headers: Mapping[str, str]) -> Any:
    wire_name = member.wire_name or name
    if member.location == "header":
        text = headers.get(wire_name.lower())
        return None if text is None else _read_header(member, text)
    if member.location == "headers":
        prefix = wire_name.lower()
        found = {key[len(prefix) :]: value for key, value in headers.items() if key.startswith(prefix)}
        return found or None
    if member.location == "uri":
        text = labels.get(wire_name)
        return None if text is None else read_scalar(member.kind, text, member.timestamp_format or "iso8601")
    return _read_parameter(member, wire_name, query)


def _read_parameter(member: Shape, wire_name: str, query: Query) -> Any:
    if member.kind == "map":
        return {key: values[0] for key, values in query.items()}
    values = query.get(wire_name)
    if values is None:
        return None
    if member.kind == "list":
        assert member.element is not None
        fmt = member.element.timestamp_format or "iso8601"
        return [read_scalar(member.element.kind, value, fmt) for value in values]
    return read_scalar(member.kind, values[0], member.timestamp_format or "iso8601")


def _read_header(member: Shape, text: str) -> Any:
    if member.json_value:
        try:
            return json.loads(base64.b64decode(text, validate=True))
        except (ValueError, RecursionError):
            raise Malformed("Not JSON in base64") from None
    if member.kind == "list":
        element = member.element
        assert element is not None
        dated = element.kind == "timestamp" and (element.timestamp_format or "rfc822") == "rfc822"
        parts = _split_dates(text) if dated else _split_list(text)
        return [read_scalar(element.kind, part, element.timestamp_format or "rfc822") for part in parts]
    if member.kind == "string":
        return _header_text(text)
    return read_scalar(member.kind, text, member.timestamp_format or "rfc822")


def _header_text(text: str) -> str:
    """Header bytes are latin-1 to HTTP, and UTF-8 where a client meant more than ASCII."""
    try:
        return text if text.isascii() else text.encode("latin-1").decode()
    except ValueError:
        return text


def _split_list(text: str) -> list[str]:
    """A header's list at its commas; an item in double quotes may hold commas, and \\" for a quote."""
    parts: list[str] = []
    current: list[str] = []
    quoted = escaped = False
    for char in text:
        if escaped:
            current.append(char)
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            parts.append("".join(current).strip())
            current = []
        else:
            current.append(char)
    parts.append("".join(current).strip())
    return [part for part in parts if part]


def _split_dates(text: str) -> list[str]:
    """HTTP dates have one comma each."""
    parts = text.split(",")
    return [",".join(parts[i : i + 2]).strip() for i in range(0, len(parts), 2)]


def write_envelope(shape: Shape, result: Mapping[str, Any]) -> tuple[int | None, list[tuple[str, str]]]:
    """The status (None: the operation's own) and the headers of a reply."""
    status = None
    headers: list[tuple[str, str]] = []
    for name, member in shape.members.items():
        value = result.get(name)
        if value is None or member.location is None:
            continue
        if member.location == "statusCode":
            status = int(value)
        elif member.location == "headers":
            headers.extend(((member.wire_name or "") + key, header_value(item)) for key, item in value.items())
        elif member.location == "header":
            headers.append((member.wire_name or name, header_value(_show_header(member, value))))
    return status, headers


def _show_header(member: Shape, value: Any) -> str:
    if member.json_value:
        return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()
    if member.kind == "list":
        assert member.element is not None
        fmt = member.element.timestamp_format or "rfc822"
        return ",".join(show_scalar(member.element.kind, item, fmt) for item in value)
    return show_scalar(member.kind, value, member.timestamp_format or "rfc822")


def header_value(text: Any) -> str:
    """A header's value in latin-1 as UTF-8 bytes, without line breaks: no reply may be split."""
    one_line = str(text).replace("\r", " ").replace("\n", " ").replace("\0", " ")
    return one_line if one_line.isascii() else one_line.encode("utf-8", "replace").decode("latin-1")

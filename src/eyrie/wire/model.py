"""The schema: botocore's service models, read into small typed shapes, one service at a time and only when first
asked for.

`Models` is made once a process and passed around; it is the cache. Everything in `wire` that knows a field's name,
type, place or bounds has it from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from botocore.exceptions import DataNotFoundError, UnknownServiceError
from botocore.loaders import Loader

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PROTOCOLS = ("json", "rest-json", "rest-xml", "smithy-rpc-v2-cbor", "query")


class UnknownService(LookupError):
    """botocore has no service of this name."""


@dataclass(slots=True, eq=False)
class Shape:
    """One shape as a member refers to it: its own traits and those of the reference, merged."""

    name: str
    kind: str  # structure list map string integer long float double boolean timestamp blob
    wire_name: str | None = None  # locationName
    location: str | None = None  # uri querystring header headers statusCode; None: in the body
    required: tuple[str, ...] = ()
    members: dict[str, Shape] = field(default_factory=dict)
    element: Shape | None = None  # of a list
    key: Shape | None = None  # of a map
    value: Shape | None = None
    minimum: float | None = None  # of a length, of a count or of a value, by kind
    maximum: float | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    timestamp_format: str | None = None
    payload: str | None = None  # the member that is the whole body
    flattened: bool = False
    streaming: bool = False
    eventstream: bool = False
    document: bool = False
    union: bool = False
    exception: bool = False
    sensitive: bool = False
    json_value: bool = False
    xml_attribute: bool = False
    xml_namespace: tuple[str, str] | None = None  # attribute name, URI
    error: Mapping[str, Any] = field(default_factory=dict)  # of an exception: code, httpStatusCode
    body: dict[str, str] = field(default_factory=dict)  # name on the wire -> member, of members in the body

    @property
    def is_text(self) -> bool:
        """True for what may be a raw body as it is: a string or a blob."""
        return self.kind in ("string", "blob")


@dataclass(slots=True, frozen=True, eq=False)
class Operation:
    """One operation of a service."""

    service: str
    name: str
    method: str
    path: str  # template, without its literal query
    query: tuple[tuple[str, str], ...]  # literal query of the template
    status: int  # of success
    input: Shape | None
    output: Shape | None
    result_wrapper: str | None  # query protocol
    errors: tuple[str, ...]  # names of the modelled exceptions
    deprecated: bool


class Service:
    """One service model; operations and shapes are built when first asked for."""

    def __init__(self, name: str, raw: Mapping[str, Any]) -> None:
        meta = raw["metadata"]
        self.name = name
        self.api_version: str = meta["apiVersion"]
        self.protocols: tuple[str, ...] = tuple(meta.get("protocols") or (meta["protocol"],))
        self.target_prefix: str = meta.get("targetPrefix", "")
        self.json_version: str = meta.get("jsonVersion", "1.1")
        self.xml_namespace: str = meta.get("xmlNamespace") or f"http://{name}.amazonaws.com/doc/{self.api_version}/"
        self.signing_name: str = meta.get("signingName") or meta["endpointPrefix"]
        self.query_compatible: bool = "awsQueryCompatible" in meta
        self._raw_operations: Mapping[str, Any] = raw["operations"]
        self._raw_shapes: Mapping[str, Any] = raw["shapes"]
        self._operations: dict[str, Operation] = {}
        self._shapes: dict[tuple[Any, ...], Shape] = {}

    @property
    def protocol(self) -> str:
        """What a client of this service most likely speaks, in boto3's order of preference."""
        return next((p for p in _PROTOCOLS if p in self.protocols), self.protocols[0])

    @property
    def operation_names(self) -> list[str]:
        """All operations, in the model's order."""
        return list(self._raw_operations)

    def operation(self, name: str) -> Operation | None:
        """An operation, or None."""
        known = self._operations.get(name)
        if known is None and name in self._raw_operations:
            known = self._operations[name] = self._build(name)
        return known

    def operations(self) -> Iterator[Operation]:
        """Every operation, built."""
        for name in self._raw_operations:
            operation = self.operation(name)
            assert operation is not None
            yield operation

    def exception(self, code: str) -> Shape | None:
        """The modelled exception of an error code (its shape's name, or the code that the shape says), or None."""
        name = self._exceptions.get(code)
        return self._shape({"shape": name}) if name else None

    @cached_property
    def _exceptions(self) -> dict[str, str]:
        names = [name for name, raw in self._raw_shapes.items() if raw.get("exception")]
        by_code = {self._raw_shapes[name].get("error", {}).get("code", name): name for name in names}
        return by_code | {name: name for name in names}

    def _build(self, name: str) -> Operation:
        raw = self._raw_operations[name]
        path, _, query = raw["http"]["requestUri"].partition("?")
        pairs = tuple((k, v) for k, _, v in (part.partition("=") for part in query.split("&") if part))
        output = raw.get("output")
        return Operation(
            service=self.name,
            name=name,
            method=raw["http"]["method"],
            path=path,
            query=pairs,
            status=raw["http"].get("responseCode", 200),
            input=self._shape(raw["input"]) if "input" in raw else None,
            output=self._shape(output) if output else None,
            result_wrapper=output.get("resultWrapper") if output else None,
            errors=tuple(e["shape"] for e in raw.get("errors", ())),
            deprecated=bool(raw.get("deprecated")),
        )

    def _shape(self, ref: Mapping[str, Any]) -> Shape:
        traits = {k: v for k, v in ref.items() if k not in ("shape", "resultWrapper")}
        key = (ref["shape"], *sorted((k, str(v)) for k, v in traits.items()))
        known = self._shapes.get(key)
        if known is not None:
            return known
        raw = self._raw_shapes[ref["shape"]]
        shape = self._shapes[key] = _bare(ref["shape"], {**raw, **traits})
        shape.members = {name: self._shape(member) for name, member in raw.get("members", {}).items()}
        shape.body = {s.wire_name or name: name for name, s in shape.members.items() if s.location is None}
        for slot, part in (("element", "member"), ("key", "key"), ("value", "value")):
            if part in raw:
                setattr(shape, slot, self._shape(raw[part]))
        return shape


def _bare(name: str, raw: Mapping[str, Any]) -> Shape:
    """A shape without what it refers to: shapes may refer to themselves."""
    kind = raw["type"]
    return Shape(
        name=name,
        kind="string" if kind == "character" else kind,
        wire_name=raw.get("locationName"),
        location=raw.get("location"),
        required=tuple(raw.get("required", ())),
        minimum=raw.get("min"),
        maximum=raw.get("max"),
        pattern=raw.get("pattern"),
        enum=tuple(raw.get("enum", ())),
        timestamp_format=(raw.get("timestampFormat") or "").lower() or None,
        payload=raw.get("payload"),
        flattened=bool(raw.get("flattened")),
        streaming=bool(raw.get("streaming")),
        eventstream=bool(raw.get("eventstream")),
        document=bool(raw.get("document")),
        union=bool(raw.get("union")),
        exception=bool(raw.get("exception")),
        sensitive=bool(raw.get("sensitive")),
        json_value=bool(raw.get("jsonvalue")),
        xml_attribute=bool(raw.get("xmlAttribute")),
        xml_namespace=_xml_namespace(raw.get("xmlNamespace")),
        error=raw.get("error", {}),
    )


def _xml_namespace(raw: Any) -> tuple[str, str] | None:
    if not raw:
        return None
    if isinstance(raw, str):
        return "xmlns", raw
    prefix = raw.get("prefix")
    return (f"xmlns:{prefix}" if prefix else "xmlns"), raw["uri"]


class Models:
    """The services that this process has looked at so far. Reading one the first time takes up to a second."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}

    def service(self, name: str) -> Service:
        """A service by boto3's name. Raises UnknownService."""
        known = self._services.get(name)
        if known is None:
            known = self._services[name] = self._load(name)
        return known

    def operation(self, service: str, name: str) -> Operation:
        """An operation. Raises UnknownService, or KeyError for an operation that the service does not have."""
        operation = self.service(service).operation(name)
        if operation is None:
            raise KeyError(name)
        return operation

    def _load(self, name: str) -> Service:
        if not _NAME.fullmatch(name):
            raise UnknownService(name)
        # A loader of its own each time: one that lives keeps the whole model, prose and all.
        loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
        try:
            raw = loader.load_service_model(name, "service-2")
        except (UnknownServiceError, DataNotFoundError):
            raise UnknownService(name) from None
        _forget_prose(raw)
        return Service(name, raw)


def _forget_prose(raw: Mapping[str, Any]) -> None:
    """Drop the documentation, which is most of a model's memory."""
    for operation in raw["operations"].values():
        operation.pop("documentation", None)
    for shape in raw["shapes"].values():
        shape.pop("documentation", None)
        for part in (*shape.get("members", {}).values(), *(shape[p] for p in ("member", "key", "value") if p in shape)):
            part.pop("documentation", None)

"""The Open Inference Protocol, version 2, over REST: what a client sends and reads, between tensors and a model's
bytes.

    infer request (JSON, or JSON and raw tensors behind it) -> Request -> `model_input`: a body that a container takes
    a container's reply -> `model_output`: tensors -> `encode_reply`: JSON, or JSON and raw tensors behind it

A model behind Eyrie takes and gives bytes of a content type. One numeric tensor travels as application/x-npy, whose
bytes are the tensor's own; text, several tensors and columns as JSON (docs/guides/calling.md has the table).
Nothing here knows HTTP beyond a header's value. Every mistake of a client is a ProtocolError, answered with 400.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from eyrie.wire import tensors
from eyrie.wire.tensors import DATATYPES, Tensor, TensorError, show

JSON = "application/json"
NPY = "application/x-npy"
CSV = "text/csv"
JSONLINES = "application/jsonlines"
OUTPUT = "output"  # the name of an output that neither the model nor the client has named
_TENSORS_MAX = 1_024
_DIMENSIONS_MAX = 32
_NAME_CHARS_MAX = 256
_ID_CHARS_MAX = 1_024


class ProtocolError(ValueError):
    """A request that is not of the protocol, or asks for what nobody here gives; answered with 400."""


class UnreadableReply(ValueError):
    """The container's reply is not what its content type says."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that the client asked for."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One infer request."""

    inputs: tuple[Tensor, ...]
    request_id: str = ""
    wanted: tuple[Wanted, ...] = ()
    binary: bool = False  # for outputs that were not asked for by name
    content_type: str = ""  # what the client wants the container to be given, "" for what is best
    accept: str = ""  # what the client wants the container to be asked for
    parameters: dict[str, Any] = field(default_factory=dict)

    def given(self, content_type: str) -> Request:
        """The same, to be given to the container in another content type."""
        return replace(self, content_type=content_type)


# -------------------------------------------------------------------------------------------------------- the request
def read_request(body: bytes, header_length: bytes | None) -> Request:
    """The request of a body; `header_length` is Inference-Header-Content-Length. Raises ProtocolError."""
    length = len(body)
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 12 or int(header_length) > length:
            raise ProtocolError("Inference-Header-Content-Length must be a number within the length of the body")
        length = int(header_length)
    try:
        found = msgspec.json.decode(body[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the body is not JSON: {show(str(error))}") from None
    if not isinstance(found, dict):
        raise ProtocolError("the body must be a JSON object")
    request_id = found.get("id", "")
    if not isinstance(request_id, str) or len(request_id) > _ID_CHARS_MAX:
        raise ProtocolError(f'"id" must be text of at most {_ID_CHARS_MAX} characters')
    parameters = _parameters(found, "the request")
    inputs = _read_inputs(_list(found, "inputs"), body[length:])
    if not inputs:
        raise ProtocolError('"inputs" must hold at least one tensor')
    binary = _flag(parameters, "binary_data_output")
    wanted = tuple([_read_wanted(output, binary) for output in _list(found, "outputs")])
    _distinct([output.name for output in wanted], "output")
    kinds = [parameters.get(name, "") for name in ("content_type", "accept")]
    if not all(isinstance(kind, str) and kind.isascii() and kind.isprintable() for kind in kinds):
        raise ProtocolError('the parameters "content_type" and "accept" must be content types')
    return Request(inputs, request_id, wanted, binary, kinds[0], kinds[1], parameters)


def _read_inputs(entries: list[Any], rest: bytes) -> tuple[Tensor, ...]:
    """The tensors, of which those without "data" lie one after the other in `rest`."""
    found: list[Tensor] = []
    place = 0
    for entry in entries:
        name, datatype, shape, parameters = _read_head(entry)
        size = parameters.get("binary_data_size")
        try:
            if size is None:
                if "data" not in entry:
                    raise ProtocolError(f'input {show(name)} has neither "data" nor "binary_data_size"')
                found.append(tensors.from_json(name, datatype, shape, entry["data"]))
                continue
            if "data" in entry:
                raise ProtocolError(f'input {show(name)} has both "data" and "binary_data_size"')
            if type(size) is not int or not 0 <= size <= len(rest) - place:
                raise ProtocolError(
                    f"input {show(name)}: binary_data_size {show(str(size))} passes the end of the body"
                )
            found.append(tensors.from_raw(name, datatype, shape, rest[place : place + size]))
            place += size
        except TensorError as error:
            raise ProtocolError(str(error)) from None
    if place != len(rest):
        raise ProtocolError(f"{len(rest) - place} bytes of the body belong to no input")
    _distinct([tensor.name for tensor in found], "input")
    return tuple(found)


def _read_head(entry: Any) -> tuple[str, str, tuple[int, ...], dict[str, Any]]:
    if not isinstance(entry, dict):
        raise ProtocolError("an input must be a JSON object")
    name = _name(entry, "an input")
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if datatype not in DATATYPES:
        raise ProtocolError(f"input {show(name)}: datatype {show(str(datatype))} is none of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not 1 <= len(shape) <= _DIMENSIONS_MAX:
        raise ProtocolError(f'input {show(name)}: "shape" must be a list of 1 to {_DIMENSIONS_MAX} sizes')
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ProtocolError(f"input {show(name)}: shape {show(str(shape))} is not made of sizes")
    parameters = _parameters(entry, f"input {show(name)}")
    _no_shared_memory(parameters)
    return name, datatype, tuple(shape), parameters


def _read_wanted(entry: Any, binary: bool) -> Wanted:
    if not isinstance(entry, dict):
        raise ProtocolError("an output must be a JSON object")
    name = _name(entry, "an output")
    parameters = _parameters(entry, f"output {show(name)}")
    _no_shared_memory(parameters)
    if parameters.get("classification"):
        raise ProtocolError(f"output {show(name)}: the classification extension is not supported")
    return Wanted(name, _flag(parameters, "binary_data", binary))


def _no_shared_memory(parameters: dict[str, Any]) -> None:
    if any(name.startswith("shared_memory") for name in parameters):
        raise ProtocolError("the shared memory extension is not supported")


def _list(found: dict[str, Any], key: str) -> list[Any]:
    value = found.get(key, [])
    if not isinstance(value, list) or len(value) > _TENSORS_MAX:
        raise ProtocolError(f'"{key}" must be a list of at most {_TENSORS_MAX} tensors')
    return value


def _name(entry: dict[str, Any], what: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARS_MAX:
        raise ProtocolError(f'{what} must have a "name" of 1 to {_NAME_CHARS_MAX} characters')
    return name


def _parameters(entry: dict[str, Any], what: str) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ProtocolError(f'"parameters" of {what} must be an object')
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ProtocolError(f'the parameter "{name}" must be true or false')
    return value


def _distinct(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise ProtocolError(f"two {what}s have the same name")


# ---------------------------------------------------------------------------------------------------- towards the model
def model_input(request: Request) -> tuple[str, bytes]:
    """What the container is given: a content type and a body. Raises ProtocolError."""
    kind = request.content_type.partition(";")[0].strip().lower()
    single = request.inputs[0] if len(request.inputs) == 1 else None
    try:
        if kind == CSV:
            return request.content_type, _csv(request.inputs)
        if single is not None and single.datatype != "BYTES" and kind != JSON:
            return NPY, tensors.to_npy(single)
        if single is not None and single.datatype != "BYTES":
            return JSON, json.dumps({"instances": tensors.nested(single)}).encode()
        return JSON, json.dumps(_document(request.inputs)).encode()
    except TensorError as error:
        raise ProtocolError(str(error)) from None


def _document(inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Several tensors as JSON: rows under their columns' names where each is a column, else each under its name."""
    if len(inputs) == 1:
        return {"inputs": _nested(inputs[0])}
    rows = tensors.columns(inputs)
    if rows is not None:
        return {"columns": [tensor.name for tensor in inputs], "data": rows}
    return {"inputs": {tensor.name: _nested(tensor) for tensor in inputs}}


def _nested(tensor: Tensor) -> list[Any]:
    """In lists; bytes that are no text in the form that TensorFlow Serving reads."""
    try:
        return tensors.nested(tensor)
    except TensorError:
        coded = [{"b64": b64encode(element).decode()} for element in tensor.data if isinstance(element, bytes)]
        return tensors.nest(coded, tensor.shape)


def _csv(inputs: Sequence[Tensor]) -> bytes:
    """Rows of text: of one tensor [N] or [N, k], or of columns."""
    rows = tensors.nested(inputs[0]) if len(inputs) == 1 else tensors.columns(inputs)
    if rows is None or len(inputs[0].shape) > 2:
        raise ProtocolError("only rows can be given as text/csv: one tensor of two dimensions, or columns")
    return "".join([",".join(_cells(row)) + "\n" for row in rows]).encode()


def _cells(row: Any) -> list[str]:
    return [_cell(value) for value in (row if isinstance(row, list) else [row])]


def _cell(value: Any) -> str:
    if value is None or value != value:  # not a number
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if isinstance(value, str) and set(text) & set(',"\r\n') else text


# ------------------------------------------------------------------------------------------------------ from the model
def model_output(content_type: str, body: bytes) -> list[Tensor]:
    """The tensors of a container's reply. Raises UnreadableReply."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == NPY:
            return [tensors.from_npy(OUTPUT, body)]
        if kind == JSON or kind.endswith("+json"):
            return _of_json(msgspec.json.decode(body), body)
        if kind in (JSONLINES, "application/x-jsonlines", "application/x-ndjson"):
            return _of_json([msgspec.json.decode(line) for line in body.splitlines() if line.strip()], body)
        if kind == CSV:
            return [_of_csv(body)]
    except (TensorError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableReply(f"the model's reply is not {kind}: {error}") from None
    return [Tensor(OUTPUT, "BYTES", (1,), [body])]


def _of_json(found: Any, body: bytes) -> list[Tensor]:
    """What JSON replies look like: V2's own, predictions, one list a name, rows of objects, a list, or anything."""
    if isinstance(found, dict):
        outputs = found.get("outputs")
        if isinstance(outputs, list) and outputs and all(isinstance(o, dict) and "datatype" in o for o in outputs):
            return list(_read_outputs(outputs))
        for key in ("predictions", "instances", "outputs"):
            if isinstance(found.get(key), list | dict) and len(found) == 1:
                return _of_json(found[key], body)
        named = [_named(name, value) for name, value in found.items()]
        if named and all(tensor is not None for tensor in named):
            return [tensor for tensor in named if tensor is not None]
    elif isinstance(found, list):
        if found and all(isinstance(row, dict) and row.keys() == found[0].keys() for row in found):
            return _of_json({str(name): [row[name] for row in found] for name in found[0]}, body)
        tensor = tensors.from_list(OUTPUT, found)
        if tensor is not None:
            return [tensor]
    elif (tensor := tensors.from_list(OUTPUT, [found])) is not None:
        return [tensor]
    return [Tensor(OUTPUT, "BYTES", (1,), [body])]


def _read_outputs(entries: list[Any]) -> tuple[Tensor, ...]:
    try:
        return _read_inputs(entries, b"")
    except ProtocolError as error:
        raise TensorError(str(error)) from None


def _named(name: str, value: Any) -> Tensor | None:
    return tensors.from_list(name, value if isinstance(value, list) else [value])


def _of_csv(body: bytes) -> Tensor:
    """Numbers: a list where each line holds one, or all stand in one line, else rows; other text as it is."""
    lines = body.decode().split()
    try:
        rows = [[float(cell) for cell in line.split(",")] for line in lines]
    except ValueError:
        return Tensor(OUTPUT, "BYTES", (1,), [body])
    flat = rows[0] if len(rows) == 1 else [row[0] for row in rows] if {len(row) for row in rows} == {1} else rows
    return tensors.from_list(OUTPUT, [*flat]) or Tensor(OUTPUT, "BYTES", (1,), [body])


# -------------------------------------------------------------------------------------------------- towards the client
def encode_reply(request: Request, found: list[Tensor], model: str, version: str) -> tuple[int | None, bytes]:
    """The reply's body, and how much of it is JSON where raw tensors follow (None: all). Raises ProtocolError for an
    output that the model does not have.
    """
    entries: list[dict[str, Any]] = []
    rest: list[bytes] = []
    for tensor, binary in _chosen(request, found):
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if binary:
            raw = tensors.to_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            rest.append(raw)
        else:
            entry["data"] = _data(tensor)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if request.request_id:
        document["id"] = request.request_id
    text = msgspec.json.encode(document)
    return (len(text), b"".join([text, *rest])) if rest else (None, text)


def _data(tensor: Tensor) -> list[Any]:
    try:
        return tensors.values(tensor)
    except TensorError as error:
        raise ProtocolError(f"{error}: ask for it with binary_data") from None


def _chosen(request: Request, found: list[Tensor]) -> list[tuple[Tensor, bool]]:
    """The outputs that were asked for, else all. A model's only output has the name that it is asked for by."""
    if not request.wanted:
        return [(tensor, request.binary) for tensor in found]
    if len(request.wanted) == 1 and len(found) == 1:
        wanted, only = request.wanted[0], found[0]
        return [(Tensor(wanted.name, only.datatype, only.shape, only.data), wanted.binary)]
    known = {tensor.name: tensor for tensor in found}
    for wanted in request.wanted:
        if wanted.name not in known:
            raise ProtocolError(f"the model has no output {show(wanted.name)}, it has {', '.join(known)}")
    return [(known[wanted.name], wanted.binary) for wanted in request.wanted]

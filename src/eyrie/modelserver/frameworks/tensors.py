"""Tensors of a request body and back: JSON in the forms of TensorFlow Serving's REST API, CSV, JSON lines and .npy.

`{"instances": [...]}` is answered with `{"predictions": [...]}`, `{"inputs": ...}` with `{"outputs": ...}`, a bare list
with a bare list. On the path of every invocation of a general tensor model, whatever its framework.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, NPY, Array, BadPayload, RowShape, UnsupportedType
from eyrie.modelserver.frameworks.gather import Tensors

OFFERS = (JSON, CSV, JSONLINES, NPY)
TYPES = (JSON, CSV, JSONLINES, NPY)
NAME_CHARS_MAX = 80
DIMENSIONS_MAX = 32


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a model."""

    name: str
    dtype: str  # NumPy's name; "object" for text; "" for whatever comes
    dims: tuple[int | None, ...] | None  # None for a size that is free; None for all where the model does not say

    @property
    def batched(self) -> bool:
        """Its first axis may have any length."""
        return bool(self.dims) and self.dims is not None and self.dims[0] is None


@dataclass(frozen=True, slots=True)
class Given:
    """What a request asks: its tensors, and the form that it came in."""

    tensors: Tensors
    form: str  # "instances", "inputs" or "plain"


def read(body: bytes, content_type: str, ports: Sequence[Port]) -> Given:
    """The tensors of a body. Raises UnsupportedType or BadPayload, with the input at fault."""
    if not body:
        raise BadPayload("the body is empty")
    kind = codecs.media_type(content_type) or (NPY if body[:6] == b"\x93NUMPY" else codecs.guess_type(body))
    if kind == JSON:
        return _of_json(_load(body), ports)
    if kind == JSONLINES:
        return Given(_instances([_line(_load(line)) for line in body.splitlines() if line.strip()], ports), "plain")
    if kind == CSV:
        port = sole(ports, "CSV")
        rows = codecs.decode(body, content_type, RowShape(strings=port.dtype == "object"))
        return Given({port.name: array(rows, port)}, "plain")
    if kind == NPY:
        port = sole(ports, "an .npy array")
        return Given({port.name: fitted(codecs.read_npy(body, "biuf", DIMENSIONS_MAX), port)}, "plain")
    raise UnsupportedType(f"Content type {kind!r} is not supported. Supported content types are {', '.join(TYPES)}.")


def write(outputs: Tensors, form: str, kind: str) -> bytes:
    """The reply's body. Raises NotAcceptable for a type that cannot hold these outputs."""
    if kind == JSON:
        return json.dumps(_wrapped(outputs, form), default=_as_text).encode()
    if len(outputs) != 1:
        if kind == JSONLINES:
            return "".join(json.dumps(item, default=_as_text) + "\n" for item in _items(outputs)).encode()
        raise codecs.NotAcceptable(f"this model has {len(outputs)} outputs, which only {JSON} and {JSONLINES} can hold")
    (values,) = outputs.values()
    return codecs.encode_plain(np.atleast_1d(values), kind)


def sole(ports: Sequence[Port], what: str) -> Port:
    """The one input of a model, where a body cannot name several. Raises BadPayload."""
    if len(ports) != 1:
        raise BadPayload(f"this model has the inputs {_names(ports)}, which {what} cannot name: send JSON")
    return ports[0]


# --------------------------------------------------------------------------------------------------------------- JSON
def _load(body: bytes) -> Any:
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        raise BadPayload("the body is not JSON: it is not UTF-8 text") from None
    except ValueError as error:
        raise BadPayload(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadPayload("the JSON is nested too deeply") from None


def _of_json(value: Any, ports: Sequence[Port]) -> Given:
    if isinstance(value, dict):
        if "instances" in value and "inputs" in value:
            raise BadPayload('the JSON has both "instances" and "inputs"; one of them is wanted')
        if "instances" in value:
            return Given(_instances(value["instances"], ports), "instances")
        if "inputs" in value:
            return Given(_columns(value["inputs"], ports), "inputs")
        if {port.name for port in ports} <= value.keys():
            return Given(_columns(value, ports), "plain")
        raise BadPayload('the JSON object has neither "instances" nor "inputs"')
    return Given({(port := sole(ports, "a bare list")).name: array(value, port)}, "plain")


def _columns(value: Any, ports: Sequence[Port]) -> Tensors:
    """A whole tensor each: the one input's own, or an object by name."""
    named = isinstance(value, dict) and "b64" not in value
    if not named:
        port = sole(ports, 'an "inputs" without names')
        return {port.name: array(value, port)}
    _no_strangers(value, ports)
    missing = [port.name for port in ports if port.name not in value]
    if missing:
        raise BadPayload(f"the input {missing[0]!r} is missing")
    return {port.name: array(value[port.name], port) for port in ports}


def _instances(value: Any, ports: Sequence[Port]) -> Tensors:
    """One item of the batch after the other: values of the one input, or objects by name."""
    if not isinstance(value, list) or not value:
        raise BadPayload('"instances" must be a list that is not empty')
    if not isinstance(value[0], dict) or "b64" in value[0]:
        port = sole(ports, '"instances" without names')
        return {port.name: array(value, port)}
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise BadPayload(f"instance {number + 1} is no object by input name, as the first one is")
        _no_strangers(item, ports)
        missing = [port.name for port in ports if port.name not in item]
        if missing:
            raise BadPayload(f"instance {number + 1} lacks the input {missing[0]!r}")
    return {port.name: array([item[port.name] for item in value], port) for port in ports}


def _no_strangers(value: dict[str, Any], ports: Sequence[Port]) -> None:
    strangers = sorted(value.keys() - {port.name for port in ports})
    if strangers:
        raise BadPayload(f"the model has no input {strangers[0][:NAME_CHARS_MAX]!r}; it has {_names(ports)}")


def _line(value: Any) -> Any:
    """One line's item, out of the objects that lines come wrapped in."""
    if isinstance(value, dict):
        for key in ("features", "inputs", "instances", "data", "values"):
            if set(value) == {key}:
                inner = value[key]
                return inner[0] if key == "instances" and isinstance(inner, list) and len(inner) == 1 else inner
    return value


# -------------------------------------------------------------------------------------------------------------- arrays
def array(value: Any, port: Port) -> Array:
    """An input's array of a nested list, or of rows. Raises BadPayload where it does not fit the port."""
    if port.dtype == "object":
        value = _texts(value)
    try:
        if isinstance(value, np.ndarray):
            found = value
        elif port.dtype == "object":
            found = np.array(value, dtype=object)
        else:
            found = np.array(value)
    except (ValueError, OverflowError) as error:
        raise BadPayload(f"{port.name}: the lists do not make a tensor ({error})") from None
    return fitted(found, port)


def fitted(found: Array, port: Port) -> Array:
    """The array in the port's type; its shape must be the port's. Raises BadPayload."""
    kind = found.dtype.kind
    if port.dtype != "object" and (kind not in "biuf" or not found.size):
        raise BadPayload(f"{port.name}: {'numbers are wanted' if found.size else 'it holds nothing'}")
    if port.dtype and port.dtype != found.dtype.name:
        whole = np.dtype(port.dtype).kind in "iu"
        if whole and kind == "f" and not np.array_equal(found, np.trunc(found)):
            raise BadPayload(f"{port.name}: whole numbers are wanted")
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinity, as everywhere in this field
            found = found.astype(port.dtype)
    if port.dims is not None and not _fits(found.shape, port.dims):
        shown = ", ".join("any" if size is None else str(size) for size in port.dims)
        raise BadPayload(f"{port.name}: a tensor of shape {list(found.shape)} came where [{shown}] is wanted")
    return np.ascontiguousarray(found) if found.ndim else found


def _fits(shape: tuple[int, ...], dims: tuple[int | None, ...]) -> bool:
    return len(shape) == len(dims) and all(want is None or want == have for have, want in zip(shape, dims, strict=True))


def _texts(value: Any) -> Any:
    """Nested lists with `{"b64": ...}` decoded to bytes, and nothing in them but text."""
    if isinstance(value, list | np.ndarray):
        return [_texts(item) for item in value]
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise BadPayload('a "b64" does not hold base64') from None
    return value if isinstance(value, str) else str(value)


# -------------------------------------------------------------------------------------------------------------- answers
def _wrapped(outputs: Tensors, form: str) -> Any:
    if form == "instances":
        return {"predictions": _items(outputs)}
    whole: Any = {name: value.tolist() for name, value in outputs.items()}
    if len(outputs) == 1:
        (whole,) = whole.values()
    return {"outputs": whole} if form == "inputs" else whole


def _items(outputs: Tensors) -> list[Any]:
    """One item of the batch after the other; objects by name where there are several outputs."""
    if len(outputs) == 1:
        (values,) = outputs.values()
        return list(np.atleast_1d(values).tolist())
    columns = {name: np.atleast_1d(value).tolist() for name, value in outputs.items()}
    return [dict(zip(columns, item, strict=True)) for item in zip(*columns.values(), strict=False)]


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    return str(value)


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(repr(port.name[:NAME_CHARS_MAX]) for port in ports)

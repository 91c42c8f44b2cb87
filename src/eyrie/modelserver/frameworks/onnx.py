"""ONNX graphs through ONNX Runtime: graphs of rows are batched on the event loop, general tensors in threads.

A graph is one of rows where its input is a matrix (or a column an input) and its output a value, a vector or a label a
row, which is what converters of classic models write. Reached from `loader`; `predict` and `call` are on the path of
every invocation of such a model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, NPY, Array, BadPayload, RowShape
from eyrie.modelserver.frameworks import files, tensors
from eyrie.modelserver.frameworks.gather import Gather, Tensors, intra_op_threads, worker_threads
from eyrie.modelserver.frameworks.interface import (
    Answer,
    CallModel,
    Defaults,
    Framework,
    Invocation,
    LoadError,
    RowModel,
    Source,
)
from eyrie.modelserver.frameworks.selection import default_accept, records, selected_keys
from eyrie.modelserver.frameworks.tensors import Port

log = logging.getLogger("eyrie.modelserver")

USUAL = ("model.onnx", "model.ort")
TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
ROW_TYPES = ("float32", "float64", "float16", "int64", "int32", "object", "bool")


class OnnxRows:
    """A graph of rows, behind the RowModel interface."""

    empty_status = 400

    def __init__(self, session: Any, inputs: Sequence[Port], env: Mapping[str, str]) -> None:
        """`inputs` is one matrix, or one column each. Raises LoadError for a setting that does not fit."""
        self._session = session
        self._inputs = list(inputs)
        self._outputs = [output.name for output in session.get_outputs()]
        self._classifier = len(self._outputs) == 2
        self._keys = selected_keys(env)
        self.offers = (CSV, JSON, JSONLINES) if self._keys else (JSON, CSV, JSONLINES, NPY)
        self.default_accept = default_accept(env, self.offers, JSON)
        self._matrix = len(self._inputs) == 1 and _width(self._inputs[0]) != 1
        strings = any(port.dtype == "object" for port in self._inputs)
        exact = self._matrix and self._inputs[0].dtype in ("float32", "float64")
        self.shape = RowShape(
            width=_width(self._inputs[0]) if self._matrix else len(self._inputs),
            names=() if self._matrix else tuple(port.name for port in self._inputs),
            strings=strings,
            dtype=self._inputs[0].dtype if exact else "float64",
        )
        self._asks = self._outputs if self._keys else self._outputs[:1]
        self._plain = exact
        self.title = f"{_version()}, {'classifier' if self._classifier else 'rows'}, {self.shape.width or '?'} features"

    def predict(self, rows: Array) -> Array:
        """The graph's label or value of each row, or the chosen outputs."""
        feed = {self._inputs[0].name: rows} if self._plain else self._columns(rows)
        try:
            values = self._session.run(self._asks, feed)
        except Exception as error:  # the boundary to foreign code: its errors have no common type but this one
            raise BadPayload(f"Unable to evaluate payload provided: {_short(error)}") from error
        if self._keys:
            return records(self._keys, self._known(values), len(rows))
        first = np.asarray(values[0])
        return first[:, 0] if first.ndim == 2 and first.shape[1] == 1 else first

    def encode(self, values: Array, kind: str) -> bytes:
        """JSON, CSV, JSON lines or .npy, one prediction a row."""
        if self._keys:
            return codecs.encode_selected(values.tolist(), kind)
        return codecs.encode_plain(values, kind)

    def _columns(self, rows: Array) -> Tensors:
        """The inputs' arrays of rows that are not what the graph takes as they are."""
        if self._matrix:
            return {self._inputs[0].name: _cast(rows, self._inputs[0])}
        return {port.name: _cast(rows[:, i : i + 1], port) for i, port in enumerate(self._inputs)}

    def _known(self, values: list[Any]) -> dict[str, list[Any]]:
        """What the outputs tell, by key of SAGEMAKER_INFERENCE_OUTPUT."""
        first = np.asarray(values[0]).reshape(len(values[0]), -1)[:, 0].tolist()
        if not self._classifier:
            return {"predicted_score": first, "raw_score": first}
        chances, labels = _chances(values[1])
        best = chances[:, 1] if chances.shape[1] == 2 else chances.max(axis=1)
        known: dict[str, list[Any]] = {"predicted_label": first, "labels": [labels] * len(first)}
        return known | {"probability": best.tolist(), "probabilities": chances.tolist()}


class OnnxTensors:
    """A graph of general tensors, behind the CallModel interface."""

    def __init__(self, session: Any, inputs: Sequence[Port], source: Source) -> None:
        """Raises LoadError for a setting that does not fit."""
        self._session = session
        self._inputs = list(inputs)
        self._outputs = [output.name for output in session.get_outputs()]
        self._default_accept = default_accept(source.env, tensors.OFFERS, JSON)
        outputs = [_port(output) for output in session.get_outputs()]
        together = all(port is not None and port.batched for port in [*self._inputs, *outputs])
        self._gather = Gather(self._run, together)
        self.workers = worker_threads(source.env)
        self.title = f"{_version()}, tensors {_shown(self._inputs)} -> {', '.join(self._outputs)}"

    def call(self, invocation: Invocation) -> Answer:
        """Answer one request. Raises Refused for what the client did wrong."""
        kind = codecs.negotiate(invocation.accept, tensors.OFFERS, self._default_accept)
        given = tensors.read(invocation.body, invocation.content_type, self._inputs)
        return Answer(200, kind, tensors.write(self._gather(given.tensors), given.form, kind))

    def _run(self, feed: Tensors) -> Tensors:
        try:
            values = self._session.run(self._outputs, feed)
        except Exception as error:  # the boundary to foreign code: its errors have no common type but this one
            raise BadPayload(f"Unable to evaluate payload provided: {_short(error)}") from error
        return {
            name: value if isinstance(value, np.ndarray) else np.array(value, dtype=object)
            for name, value in zip(self._outputs, values, strict=True)
        }


def read(path: Path, source: Source) -> Any:
    """A session for a model file: weights that lie beside it are found by its path. Raises LoadError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads(source.env)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the core to others
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the boundary to foreign code: its errors have no common type but this one
        raise LoadError(f"ONNX Runtime {onnxruntime.__version__} cannot read {path.name}: {_short(error)}") from error


def serve(objects: Sequence[Any], source: Source) -> RowModel | CallModel:
    """One session: of rows where its inputs and outputs are, of tensors else."""
    if len(objects) > 1:
        raise LoadError(f"the folder holds several ONNX models: name one {USUAL[0]}, or choose in code/inference.py")
    (session,) = objects
    inputs = []
    for given in session.get_inputs():
        port = _port(given)
        if port is None:
            raise LoadError(f"the graph's input {given.name!r} is a {given.type}, which no request can hold")
        inputs.append(port)
    if _takes_rows(inputs) and _gives_rows(session.get_outputs()):
        return OnnxRows(session, inputs, source.env)
    return OnnxTensors(session, inputs, source)


def find(source: Source) -> list[Path]:
    """`model.onnx`, or every *.onnx and *.ort."""
    found = [path for path in files.visible(source.model_dir) if path.suffix.lower() in (".onnx", ".ort")]
    return [path for path in found if path.name in USUAL][:1] or found


def _takes_rows(inputs: Sequence[Port]) -> bool:
    """One matrix with any number of rows, or several columns of them."""
    if not inputs or not all(port.batched and len(port.dims or ()) == 2 for port in inputs):
        return False
    if any(port.dtype not in ROW_TYPES for port in inputs):
        return False
    return len(inputs) == 1 or all(_width(port) == 1 for port in inputs)


def _gives_rows(outputs: Sequence[Any]) -> bool:
    """A value or a vector a row; or a classifier's label, and its probabilities as a matrix or as maps."""
    first = _port(outputs[0])
    if first is None or not first.batched or len(first.dims or ()) > 2:
        return False
    if len(outputs) == 1:
        return True
    labels = len(outputs) == 2 and first.dtype in ("int64", "object") and len(first.dims or ()) == 1
    second = _port(outputs[1])
    maps = str(outputs[1].type).startswith("seq(map(") if len(outputs) == 2 else False
    return labels and (maps or (second is not None and second.batched and len(second.dims or ()) == 2))


def _port(given: Any) -> Port | None:
    """An input or output of a session; None for what is no tensor."""
    dtype = TYPES.get(given.type)
    if dtype is None:
        return None
    dims = tuple(size if isinstance(size, int) and size > 0 else None for size in given.shape)
    return Port(given.name, dtype, dims)


def _width(port: Port) -> int | None:
    return port.dims[1] if port.dims is not None and len(port.dims) == 2 else None


def _cast(rows: Array, port: Port) -> Array:
    """Rows in an input's type. Raises BadPayload for text or fractions where the graph wants numbers or whole ones."""
    if port.dtype == "object":
        return np.array([[_text(cell) for cell in row] for row in rows.tolist()], dtype=object)
    try:
        numbers = rows.astype("float64") if rows.dtype == object else rows
    except (ValueError, TypeError) as error:
        raise BadPayload(f"{port.name}: {error}") from None
    return tensors.fitted(numbers, port)


def _text(cell: Any) -> str:
    """A cell as text: a whole number, which a CSV or JSON reader has made a float of, without its point."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _chances(value: Any) -> tuple[Array, list[Any]]:
    """A matrix of probabilities and the labels of its columns, of a matrix or of a list of maps."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        labels = list(value[0])
        return np.array([[row[label] for label in labels] for row in value]), labels
    matrix = np.asarray(value)
    return matrix, list(range(matrix.shape[1]))


def _shown(ports: Sequence[Port]) -> str:
    return ", ".join(
        f"{port.name}[{', '.join('?' if size is None else str(size) for size in port.dims or ())}]" for port in ports
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def _version() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def defaults(load: Callable[[str], Any]) -> Defaults:
    """Handlers for a script: rows as float32, given to the graph's first input; its first output."""
    return Defaults(load, _decode, _predict)


def _decode(body: bytes, kind: str) -> Any:
    return tensors.read(body, kind, [Port("input", "float32", None)]).tensors["input"]


def _predict(value: Any, session: Any) -> Any:
    first = session.get_inputs()[0]
    return session.run(None, {first.name: np.asarray(value, dtype=TYPES.get(first.type, "float32"))})[0]


FRAMEWORK = Framework(
    name="onnx",
    library="onnxruntime",
    images=("onnx",),
    wanted="*.onnx",
    find=find,
    read=read,
    serve=serve,
    defaults=defaults,
)

"""What GET /eyrie/metadata tells of each container's model: what it is, its inputs and outputs, its content types.

Neutral: whoever speaks another protocol to clients (the Open Inference Protocol, say) translates it. A dtype is NumPy's
name, "object" where cells may be text, "" where the model does not say; a size is -1 where it is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, LIBSVM, NPY, X_LIBSVM
from eyrie.modelserver.frameworks.interface import Described, PortLike, RowModel
from eyrie.modelserver.hosting import Loaded

ROW_TYPES = (CSV, JSON, JSONLINES, NPY, LIBSVM, X_LIBSVM)
INPUT, OUTPUT = "input", "output"


def describe(hostname: str, loaded: Loaded) -> dict[str, Any]:
    """One container's model. `kind` is "rows" where requests are rows of one matrix, "calls" where the model reads
    bodies by itself.
    """
    model = loaded.model
    framework, _, rest = model.title.partition(" ")
    common = {"hostname": hostname, "title": model.title, "framework": framework, "version": _version(rest)}
    if isinstance(model, RowModel):
        shape = model.shape
        matrix = {
            "name": INPUT,
            "dtype": "object" if shape.strings else shape.dtype,
            "shape": [-1, shape.width if shape.width is not None else -1],
            "columns": list(shape.names),
        }
        types = {"reads": list(ROW_TYPES), "writes": list(model.offers), "default": model.default_accept}
        return common | {"kind": "rows", "inputs": [matrix], "outputs": [_output(loaded)]} | types
    ports = {"inputs": _ports(model.inputs), "outputs": _ports(model.outputs)} if isinstance(model, Described) else {}
    return common | {"kind": "calls", "inputs": [], "outputs": []} | ports


def _version(rest: str) -> str:
    word = rest.partition(" ")[0].strip(",;")
    return word if word[:1].isdigit() else ""


def _output(loaded: Loaded) -> dict[str, Any]:
    """Of one row of zeros, where the model took it; its shape is not known otherwise."""
    answer = loaded.pace.answer if loaded.pace is not None else None
    if answer is None:
        return {"name": OUTPUT, "dtype": "", "shape": [-1]}
    return {"name": OUTPUT, "dtype": answer.dtype, "shape": [-1, *answer.dims]}


def _ports(ports: Iterable[PortLike]) -> list[dict[str, Any]]:
    return [
        {
            "name": port.name,
            "dtype": port.dtype,
            "shape": [-1 if size is None else size for size in port.dims] if port.dims is not None else None,
        }
        for port in ports
    ]

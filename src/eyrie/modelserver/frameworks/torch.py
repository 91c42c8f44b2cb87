"""PyTorch: TorchScript and torch.export archives, and the handlers that scripts are given, as the PyTorch container has
them.

A model that takes rows (told by a torch.export archive's signature, found out by trying a TorchScript one) is batched
on the event loop; any other takes tensors in threads. Reached from `loader`; `predict` and `call` are on the path of
every invocation of such a model.
"""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from eyrie.modelserver.frameworks.selection import default_accept
from eyrie.modelserver.frameworks.tensors import Port

log = logging.getLogger("eyrie.modelserver")

USUAL = ("model.pt", "model.pth", "model.pt2")
SUFFIXES = (".pt", ".pth", ".pt2")
TRIED_ROWS = 5
WIDTH_MAX = 65_536
NEEDS_CODE = (
    "holds weights without the model's code: write a model_fn in code/inference.py that builds the model and loads "
    "them, or save the model with torch.export.save or torch.jit.script(model).save"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that can be called, and what is known about it."""

    module: Any
    kind: str  # "TorchScript" or "torch.export"
    inputs: tuple[Port, ...]
    width: int | None  # numbers in a row, where it takes rows
    together: bool  # whether the first axis of everything is a batch of any length, as far as the archive tells


class TorchRows:
    """A model of rows, behind the RowModel interface."""

    empty_status = 400
    offers = (JSON, CSV, JSONLINES, NPY)

    def __init__(self, loaded: Loaded, env: Mapping[str, str]) -> None:
        """Raises LoadError for a setting that does not fit."""
        import torch

        self._torch = torch
        self._module = loaded.module
        self.default_accept = default_accept(env, self.offers, JSON)
        self.shape = RowShape(width=loaded.width, dtype=loaded.inputs[0].dtype)
        self.title = f"torch {torch.__version__}, {loaded.kind}, {loaded.width} features"

    def predict(self, rows: Array) -> Array:
        """The model's output for each row; a column of one value is a value a row."""
        torch = self._torch
        try:
            with torch.inference_mode():
                values = self._module(torch.from_numpy(_writable(rows))).numpy()
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {_short(error)}") from error
        return np.asarray(values)

    def encode(self, values: Array, kind: str) -> bytes:
        """JSON, CSV, JSON lines or .npy."""
        return codecs.encode_plain(values, kind)


class TorchTensors:
    """A model of general tensors, behind the CallModel interface."""

    def __init__(self, loaded: Loaded, env: Mapping[str, str]) -> None:
        """Raises LoadError for a setting that does not fit."""
        import torch

        self._torch = torch
        self._module = loaded.module
        self._inputs = loaded.inputs
        self._arrays = tuple(replace(port, dtype="") if loaded.kind == "TorchScript" else port for port in self._inputs)
        self._default_accept = default_accept(env, tensors.OFFERS, JSON)
        self._gather = Gather(self._run, loaded.together)
        self.workers = worker_threads(env)
        names = ", ".join(port.name for port in self._inputs)
        self.title = f"torch {torch.__version__}, {loaded.kind}, tensors ({names})"

    def call(self, invocation: Invocation) -> Answer:
        """Answer one request: JSON and CSV become float32 where the archive does not say, .npy keeps its type."""
        kind = codecs.negotiate(invocation.accept, tensors.OFFERS, self._default_accept)
        ports = self._arrays if codecs.media_type(invocation.content_type) == NPY else self._inputs
        given = tensors.read(invocation.body, invocation.content_type, ports)
        return Answer(200, kind, tensors.write(self._gather(given.tensors), given.form, kind))

    def _run(self, inputs: Tensors) -> Tensors:
        torch = self._torch
        try:
            with torch.inference_mode():
                values = self._module(*(torch.from_numpy(_writable(inputs[port.name])) for port in self._inputs))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {_short(error)}") from error
        return _named(values)


# -------------------------------------------------------------------------------------------------------------- reading
def read(path: Path, source: Source) -> Loaded:
    """The model in a TorchScript or torch.export archive. Raises LoadError for one without code."""
    import torch

    torch.set_num_threads(intra_op_threads(source.env))
    names = _members(path)
    if any(name.endswith("/archive_format") or name == "archive_format" for name in names) or path.suffix == ".pt2":
        return _exported(path)
    if not any("/code/" in name for name in names):
        raise LoadError(f"{path.name} {NEEDS_CODE}")
    return _scripted(path)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        raise LoadError(f"{path.name} is no archive of PyTorch 1.6 or newer; a pickle {NEEDS_CODE}") from None


def _exported(path: Path) -> Loaded:
    """A torch.export program: its signature says what it takes and gives."""
    import torch

    try:
        program = torch.export.load(path)
    except (RuntimeError, ValueError, AssertionError, KeyError) as error:
        raise LoadError(f"torch {torch.__version__} cannot read {path.name}: {_short(error)}") from error
    wanted = {str(name) for name in program.graph_signature.user_inputs}
    nodes = list(program.graph.nodes)
    inputs = tuple(_exported_port(node) for node in nodes if node.op == "placeholder" and node.name in wanted)
    results = [value for node in nodes if node.op == "output" for value in node.args[0]]
    outputs = [_dims(value.meta["val"].shape) for value in results if hasattr(value, "meta")]
    free = all(str(limits.upper) in ("int_oo", "oo") for limits in program.range_constraints.values())
    together = free and all(port.batched for port in inputs) and all(dims[:1] == (None,) for dims in outputs)
    single = len(inputs) == len(results) == len(outputs) == 1 and len(outputs[0]) in (1, 2)
    rows = together and single and len(inputs[0].dims or ()) == 2 and inputs[0].dtype in ("float32", "float64")
    width = inputs[0].dims[1] if rows and inputs[0].dims else None
    module = program.module()
    quick = _quick(program, module, width, inputs[0].dtype) if width is not None else None
    return Loaded(quick or module, "torch.export", inputs, width, together)


def _quick(program: Any, module: Any, width: int, dtype: str) -> Callable[[Any], Any] | None:
    """The program's graph called with its weights, past the wrapper, which costs 130 of 160 us; None where that cannot
    be done or does not give the very same.
    """
    import torch

    signature = program.graph_signature
    kept = {**program.constants, **program.state_dict}
    targets = [spec.target for spec in signature.input_specs if spec.kind.name != "USER_INPUT"]
    if [spec.kind.name for spec in signature.output_specs] != ["USER_OUTPUT"] or not set(targets) <= kept.keys():
        return None
    forward, state = program.graph_module.forward, [kept[target] for target in targets]

    def call(rows: Any) -> Any:
        return forward(*state, rows)[0]

    tried = torch.from_numpy(np.random.default_rng(0).normal(size=(TRIED_ROWS, width)).astype(dtype))
    with torch.inference_mode():
        try:
            same = torch.equal(call(tried), module(tried))
        except Exception:  # the boundary to foreign code: any surprise means the ordinary way
            return None
    return call if same else None


def _exported_port(node: Any) -> Port:
    value = node.meta["val"]
    return Port(str(node.name), str(value.dtype).removeprefix("torch."), _dims(value.shape))


def _dims(shape: Any) -> tuple[int | None, ...]:
    """Sizes, None for those that the export left free."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _scripted(path: Path) -> Loaded:
    """A TorchScript module, in evaluation mode on the CPU."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself; nobody here can change that
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise LoadError(f"torch {torch.__version__} cannot read {path.name}: {_short(error)}") from error
    arguments = [argument for argument in module.forward.schema.arguments[1:] if not argument.has_default_value()]
    inputs = tuple(Port(str(argument.name), "float32", None) for argument in arguments)
    width = _row_width(module) if len(inputs) == 1 else None
    return Loaded(module, "TorchScript", inputs, width, together=True)


def _row_width(module: Any) -> int | None:
    """The width of the rows that a TorchScript module maps one by one; None for anything else.

    Its first parameter tells the width; made-up rows tell whether each has an output of its own that does not depend
    on its neighbours, and whether anything else than rows would mean something else to it.
    """
    import torch

    first = next(iter(module.parameters()), None)
    if first is None or first.ndim != 2 or first.dtype != torch.float32 or not 0 < first.shape[1] <= WIDTH_MAX:
        return None
    width = int(first.shape[1])
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(TRIED_ROWS, width)).astype(np.float32))
    try:
        with torch.inference_mode():
            whole = module(rows)
            if not isinstance(whole, torch.Tensor) or whole.ndim not in (1, 2) or len(whole) != TRIED_ROWS:
                return None
            apart = torch.cat([module(row) for row in rows.split(1)])
            deep = _or_none(module, rows.reshape(1, TRIED_ROWS, width))
    except Exception:  # the boundary to foreign code: a module that fails on rows does not take rows
        return None
    if whole.shape != apart.shape or not torch.allclose(whole, apart, 1e-4, 1e-5):
        return None
    same = deep is None or (deep.shape == (1, *whole.shape) and torch.allclose(deep[0], whole, 1e-4, 1e-5))
    return width if same else None


def _or_none(module: Any, value: Any) -> Any | None:
    """What a module makes of a tensor of three dimensions; None where it takes no such thing."""
    try:
        return module(value)
    except Exception:  # the boundary to foreign code: only whether it takes it is of interest
        return None


def _named(values: Any) -> Tensors:
    """The arrays of an output: `output`, or `output_0` and so on, or a dictionary's own names."""
    if isinstance(values, dict):
        return {str(name): _array(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return {f"output_{number}": _array(value) for number, value in enumerate(values)}
    return {"output": _array(values)}


def _array(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return np.asarray(value.numpy())
    return np.asarray(value)


def _writable(array: Array) -> Array:
    """The array itself, or a copy where it is a view of a request's bytes, which PyTorch does not take."""
    return array if array.flags.writeable else array.copy()


def _short(error: BaseException) -> str:
    """The message; of a TorchScript error the last line, which has it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines and "TorchScript" in str(error) else " ".join(lines))[:400]


# ---------------------------------------------------------------------------------------------------- the table's entry
def find(source: Source) -> list[Path]:
    """`model.pt`, `model.pth` or `model.pt2`, or every file that ends like them."""
    found = [path for path in files.visible(source.model_dir) if path.is_file() and path.suffix.lower() in SUFFIXES]
    return [path for path in found if path.name in USUAL][:1] or found


def serve(objects: Sequence[Any], source: Source) -> RowModel | CallModel:
    """One model: of rows where it takes rows, of tensors else."""
    if len(objects) > 1:
        raise LoadError(f"the folder holds several PyTorch models: name one {USUAL[0]}, or choose in code/inference.py")
    (loaded,) = objects
    return TorchRows(loaded, source.env) if loaded.width is not None else TorchTensors(loaded, source.env)


def defaults(load: Callable[[str], Any]) -> Defaults:
    """The PyTorch container's handlers: JSON and CSV become a float tensor, .npy keeps its type, and the model is
    called in evaluation mode.
    """
    return Defaults(lambda folder: load(folder).module, _decode, _predict, _array)


def _decode(body: bytes, kind: str) -> Any:
    import torch

    port = Port("input", "" if codecs.media_type(kind) == NPY else "float32", None)
    return torch.from_numpy(_writable(tensors.read(body, kind, [port]).tensors["input"]))


def _predict(value: Any, model: Any) -> Any:
    import torch

    if callable(getattr(model, "eval", None)) and getattr(model, "training", False):
        model.eval()
    with torch.inference_mode():
        return model(value)


FRAMEWORK = Framework(
    name="torch",
    library="torch",
    images=("pytorch", "eyrie/torch"),
    wanted="*.pt, *.pth or *.pt2 of PyTorch",
    find=find,
    read=read,
    serve=serve,
    defaults=defaults,
)

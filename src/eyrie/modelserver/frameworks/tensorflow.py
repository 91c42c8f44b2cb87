"""TensorFlow SavedModels in numbered version folders, spoken to as the TensorFlow container has it: the REST predict
API of TensorFlow Serving in JSON, or CSV and JSON lines, which are instances.

Reached from `loader`; `call` is on the path of every invocation of such a model.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.codecs import JSON, BadPayload
from eyrie.modelserver.frameworks import tensors
from eyrie.modelserver.frameworks.files import visible
from eyrie.modelserver.frameworks.gather import Gather, Tensors, intra_op_threads, worker_threads
from eyrie.modelserver.frameworks.interface import Answer, Defaults, Framework, Invocation, LoadError, Source
from eyrie.modelserver.frameworks.selection import default_accept
from eyrie.modelserver.frameworks.tensors import Given, Port

log = logging.getLogger("eyrie.modelserver")

GRAPH = "saved_model.pb"
DEPTH_MAX = 4  # of a version folder: export/Servo/1 is what training containers write
DEFAULT_MODEL = "SAGEMAKER_TFS_DEFAULT_MODEL_NAME"
DEFAULT_SIGNATURE = "serving_default"
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
KERAS = (".keras", ".h5", ".hdf5")


class Signature:
    """One signature of a SavedModel: named tensors in, named tensors out."""

    def __init__(self, function: Any) -> None:
        import tensorflow

        self._tensorflow = tensorflow
        self._function = function
        self.inputs = [_port(name, spec) for name, spec in sorted(function.structured_input_signature[1].items())]
        outputs = [_port(name, spec) for name, spec in sorted(function.structured_outputs.items())]
        together = all(port.batched for port in [*self.inputs, *outputs])
        self.gather = Gather(self._run, together)

    def _run(self, inputs: Tensors) -> Tensors:
        try:
            values = self._function(**{name: self._tensorflow.constant(value) for name, value in inputs.items()})
        except (self._tensorflow.errors.OpError, ValueError, TypeError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {_short(error)}") from error
        return {name: np.asarray(values[name].numpy()) for name in sorted(values)}


class SavedModel:
    """A SavedModel behind the CallModel interface."""

    def __init__(self, loaded: Any, source: Source) -> None:
        """Raises LoadError for a model without a signature to serve, or a setting that does not fit."""
        import tensorflow

        self._signatures = {name: Signature(function) for name, function in loaded.signatures.items()}
        if not self._signatures:
            raise LoadError("the SavedModel has no signatures: save it with model.export, or name some to save it")
        only = next(iter(self._signatures)) if len(self._signatures) == 1 else ""
        self._default = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in self._signatures else only
        self._default_accept = default_accept(source.env, tensors.OFFERS, JSON)
        self.workers = worker_threads(source.env)
        names = ", ".join(port.name for port in self._signatures[self._default].inputs) if self._default else ""
        self.title = f"tensorflow {tensorflow.__version__}, SavedModel, signature {self._default or '?'} ({names})"

    def call(self, invocation: Invocation) -> Answer:
        """Answer one predict request. Raises Refused for what the client did wrong."""
        _only_predict(invocation.headers)
        kind = codecs.negotiate(invocation.accept, tensors.OFFERS, self._default_accept)
        signature = self._signatures[self._named(invocation.body)]
        given = read_request(invocation.body, invocation.content_type, signature.inputs)
        return Answer(200, kind, tensors.write(signature.gather(given.tensors), given.form, kind))

    def _named(self, body: bytes) -> str:
        """The signature that a request asks for."""
        name = self._default
        if b'"signature_name"' in body:
            try:
                name = str(json.loads(body).get("signature_name", name))
            except (ValueError, AttributeError, RecursionError):
                name = self._default  # whoever reads the body says what is wrong with it
        if name not in self._signatures:
            raise BadPayload(f"the model has no signature {name[:80]!r}; it has {', '.join(sorted(self._signatures))}")
        return name


def read_request(body: bytes, content_type: str, inputs: Sequence[Port]) -> Given:
    """A request's tensors; what is not JSON with names of its own is taken for instances."""
    kind = codecs.media_type(content_type)
    given = tensors.read(body, codecs.JSONLINES if kind == "application/jsons" else content_type, inputs)
    return replace(given, form="instances") if given.form == "plain" else given


def _only_predict(headers: Mapping[str, str]) -> None:
    """Custom attributes may choose TensorFlow Serving's classify and regress, which take examples; not here."""
    for part in headers.get(ATTRIBUTES, "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "tfs-method" and value != "predict":
            raise BadPayload(f"tfs-method={value[:80]} is not served here, only predict")


def _port(name: str, spec: Any) -> Port:
    dims = tuple(spec.shape.as_list()) if spec.shape.rank is not None else None
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    return Port(str(name), "object" if dtype.kind == "O" else dtype.name, dims)


def _short(error: BaseException) -> str:
    return " ".join((getattr(error, "message", "") or str(error)).split())[:400]


# ---------------------------------------------------------------------------------------------------- the table's entry
def find(source: Source) -> list[Path]:
    """The folder of the SavedModel to serve: of one model the highest version. A Keras file where there is none."""
    versions = [path.parent for path in _graphs(source.model_dir)]
    wanted = source.env.get(DEFAULT_MODEL, "")
    named = [folder for folder in versions if wanted and wanted in (folder.name, folder.parent.name)]
    if versions:
        return _newest(named or versions)
    keras = [path for path in visible(source.model_dir) if path.suffix.lower() in KERAS]
    return keras if source.image_says(*FRAMEWORK.images) else []


def _graphs(folder: Path) -> list[Path]:
    """Every saved_model.pb down to a bounded depth; `code` is not looked into."""
    found: list[Path] = []
    level = [folder]
    for _ in range(DEPTH_MAX + 1):
        found += [path / GRAPH for path in level if (path / GRAPH).is_file()]
        level = [inner for path in level if path.is_dir() for inner in visible(path) if inner.is_dir()]
    return found


def _newest(folders: list[Path]) -> list[Path]:
    """The highest version of each model."""
    newest: dict[Path, Path] = {}
    for folder in folders:
        best = newest.get(folder.parent)
        if best is None or _number(folder) > _number(best):
            newest[folder.parent] = folder
    return [newest[parent] for parent in sorted(newest)]


def _number(folder: Path) -> int:
    return int(folder.name) if folder.name.isdecimal() else -1


def read(path: Path, source: Source) -> Any:
    """The SavedModel of a folder. Raises LoadError."""
    if path.suffix.lower() in KERAS:
        raise LoadError(f"{path.name} is a Keras file; TensorFlow Serving takes a SavedModel: model.export('NAME/1')")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    threads = intra_op_threads(source.env)
    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        log.info("TensorFlow's threads were set before")
    try:
        return tensorflow.saved_model.load(str(path))
    except (tensorflow.errors.OpError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise LoadError(f"TensorFlow {tensorflow.__version__} cannot read {path.name}: {_short(error)}") from error


def serve(objects: Sequence[Any], source: Source) -> SavedModel:
    """One SavedModel. Raises LoadError for several models that nothing chooses from."""
    if len(objects) > 1:
        raise LoadError(f"the archive holds several SavedModels: name one in the model's environment, {DEFAULT_MODEL}")
    return SavedModel(objects[0], source)


def defaults(load: Callable[[str], Any]) -> Defaults:
    """Handlers for a script: tensors by name, given to the default signature; its only output, or all by name."""
    return Defaults(load, _decode, _predict)


def _decode(body: bytes, kind: str) -> Any:
    return tensors.read(body, kind, [Port("inputs", "float32", None)]).tensors["inputs"]


def _predict(value: Any, loaded: Any) -> Any:
    signature = Signature(loaded.signatures[DEFAULT_SIGNATURE])
    given = value if isinstance(value, dict) else {tensors.sole(signature.inputs, "a bare tensor").name: value}
    outputs = signature.gather(given)
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


FRAMEWORK = Framework(
    name="tensorflow",
    library="tensorflow",
    images=("tensorflow",),
    wanted="NUMBER/saved_model.pb of TensorFlow",
    find=find,
    read=read,
    serve=serve,
    defaults=defaults,
)

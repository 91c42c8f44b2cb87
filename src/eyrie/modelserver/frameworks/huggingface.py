"""Hugging Face pipelines from local files, spoken to as the Hugging Face inference toolkit has it: JSON with `inputs`
and `parameters`, the pipeline's own result as JSON.

Nothing is fetched: the folder holds config.json, weights and tokenizer, as `save_pretrained` writes them. Reached from
`loader`; `call` is on the path of every invocation of such a model.
"""

from __future__ import annotations

import base64
import copy
import csv
import io
import json
import logging
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.codecs import CSV, JSON, NPY, BadPayload, UnsupportedType
from eyrie.modelserver.frameworks.gather import intra_op_threads, worker_threads
from eyrie.modelserver.frameworks.interface import Answer, Defaults, Framework, Invocation, LoadError, Source
from eyrie.modelserver.frameworks.selection import default_accept

log = logging.getLogger("eyrie.modelserver")

CONFIG = "config.json"
TASK, MODEL_ID, TRUST = "HF_TASK", "HF_MODEL_ID", "HF_TRUST_REMOTE_CODE"
OFFERS = (JSON, CSV, NPY)
TAKES = (JSON, CSV, "text/plain", "image/*", "audio/*", "application/octet-stream")
CONFIG_BYTES_MAX = 4_194_304
# The task of a model whose environment names none, by the end of its architecture's name: the first that fits.
TASKS = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForTableQuestionAnswering", "table-question-answering"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"),
    ("ForAudioClassification", "audio-classification"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("Model", "feature-extraction"),
)


class Pipelines:
    """A transformers pipeline behind the CallModel interface: one a worker, all of one set of weights."""

    def __init__(self, pipeline: Any, source: Source) -> None:
        """Raises LoadError for a setting that does not fit."""
        import transformers

        self.workers = worker_threads(source.env, otherwise=1)
        self._default_accept = default_accept(source.env, OFFERS, JSON)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle.put(pipeline)
        for _ in range(1, self.workers):
            self._idle.put(_twin(pipeline))
        named = type(getattr(pipeline, "model", pipeline)).__name__
        self.title = f"transformers {transformers.__version__}, {pipeline.task}, {named}"

    def call(self, invocation: Invocation) -> Answer:
        """Answer one request. Raises Refused for what the client did wrong."""
        kind = codecs.negotiate(invocation.accept, OFFERS, self._default_accept)
        asked = decode(invocation.body, invocation.content_type)
        pipeline = self._idle.get()
        try:
            result = predict(asked, pipeline)
        finally:
            self._idle.put(pipeline)
        return Answer(200, kind, encode(result, kind))


def _twin(pipeline: Any) -> Any:
    """A pipeline for another thread: the same weights, a tokenizer of its own, since those are not thread-safe."""
    twin = copy.copy(pipeline)
    for part in ("tokenizer", "feature_extractor", "image_processor", "processor"):
        if getattr(pipeline, part, None) is not None:
            setattr(twin, part, copy.deepcopy(getattr(pipeline, part)))
    return twin


def predict(asked: Mapping[str, Any], pipeline: Any) -> Any:
    """What a pipeline makes of a request's `inputs` and `parameters`. Raises BadPayload for what it refuses."""
    import torch

    given = dict(asked)
    inputs = given.pop("inputs", given)
    parameters = given.pop("parameters", None) or {}
    if not isinstance(parameters, dict):
        raise BadPayload('"parameters" must be an object')
    try:
        with torch.inference_mode():
            result = pipeline(inputs, **{str(name): value for name, value in parameters.items()})
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError) as error:
        raise BadPayload(f"Unable to evaluate payload provided: {' '.join(str(error).split())[:400]}") from error
    return plain(result)


# ---------------------------------------------------------------------------------------------------- bytes in and out
def decode(body: bytes, content_type: str) -> dict[str, Any]:
    """The request as the toolkit's JSON has it. Raises UnsupportedType or BadPayload."""
    kind = codecs.media_type(content_type) or JSON
    if kind == JSON:
        return _of_json(body)
    if kind == CSV:
        return {"inputs": _of_csv(body)}
    if kind == "text/plain":
        return {"inputs": _utf8(body)}
    if kind.startswith("image/"):
        return {"inputs": _image(body)}
    if kind.startswith("audio/") or kind == "application/octet-stream":
        return {"inputs": body}
    raise UnsupportedType(f"Content type {kind!r} is not supported. Supported content types are {', '.join(TAKES)}.")


def _of_json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadPayload(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadPayload('the JSON must be an object with "inputs"')
    return value


def _of_csv(body: bytes) -> list[Any]:
    """The column `inputs` as a list of texts, else one object a line by the header's names."""
    rows = list(csv.DictReader(io.StringIO(_utf8(body), newline="")))
    if not rows:
        raise BadPayload("the CSV must have a header row, such as inputs, and rows below it")
    return [row["inputs"] for row in rows] if "inputs" in rows[0] else rows


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadPayload("the body is not UTF-8 text") from None


def _image(body: bytes) -> Any:
    try:
        pillow = import_module("PIL.Image")
    except ImportError:
        raise UnsupportedType("images need pillow: name it in code/requirements.txt") from None
    try:
        return pillow.open(io.BytesIO(body)).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise BadPayload(f"the body is no image: {error}") from None


def encode(result: Any, kind: str) -> bytes:
    """The reply's body. Raises NotAcceptable for a result that the type cannot hold."""
    if kind == JSON:
        return json.dumps(result).encode()
    if kind == NPY:
        try:
            return codecs.encode_npy(np.asarray(result, dtype="float64"))
        except (ValueError, TypeError):
            raise codecs.NotAcceptable(f"only a result of numbers can be sent as {NPY}") from None
    rows = result if isinstance(result, list) else [result]
    if not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise codecs.NotAcceptable(f"this result is no table, which {CSV} must be")
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def plain(value: Any) -> Any:
    """A result as JSON can hold it: arrays and tensors as lists, images as base64 of their PNG."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "save") and hasattr(value, "getbands"):
        stream = io.BytesIO()
        value.save(stream, format="PNG")
        return base64.b64encode(stream.getvalue()).decode()
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)


# ---------------------------------------------------------------------------------------------------- the table's entry
def find(source: Source) -> list[Path]:
    """config.json of a transformers model at the top. Raises LoadError where only a hub's name is given."""
    path = source.model_dir / CONFIG
    if path.is_file() and "model_type" in _config(path):
        return [path]
    if source.env.get(MODEL_ID) and source.image_says(*FRAMEWORK.images):
        raise LoadError(
            f"{MODEL_ID} is {source.env[MODEL_ID]!r}, a model of a hub, which an instance cannot reach: put what "
            "save_pretrained writes at the top of model.tar.gz"
        )
    return []


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= CONFIG_BYTES_MAX else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def task_of(config: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """HF_TASK, else what the architecture is for. Raises LoadError when neither says."""
    if env.get(TASK):
        return env[TASK]
    names = [str(name) for name in config.get("architectures") or ()]
    for end, task in TASKS:
        if any(name.endswith(end) for name in names):
            return task
    raise LoadError(f"{CONFIG} does not say what the model is for: name a task in the model's environment, {TASK}")


def read(path: Path, source: Source) -> Any:
    """The pipeline of a folder. Raises LoadError."""
    for name, value in (("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ.setdefault(name, value)
    import transformers

    try:
        import torch
    except ModuleNotFoundError as error:  # the extra brings both
        raise ModuleNotFoundError("transformers without torch", name="transformers") from error
    torch.set_num_threads(intra_op_threads(source.env))
    task = task_of(_config(path), source.env)
    trusted = source.env.get(TRUST, "").lower() in ("true", "1")
    try:
        return transformers.pipeline(task, model=str(path.parent), device="cpu", trust_remote_code=trusted)
    except KeyError as error:
        raise LoadError(f"transformers {transformers.__version__} has no such task: {error.args[0]}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise LoadError(f"transformers {transformers.__version__} cannot load the model for {task}: {error}") from error


def serve(objects: Sequence[Any], source: Source) -> Pipelines:
    """The one pipeline."""
    return Pipelines(objects[0], source)


def defaults(load: Callable[[str], Any]) -> Defaults:
    """The toolkit's handlers: a dictionary with `inputs` and `parameters`, and the pipeline called with them."""
    return Defaults(load, decode, predict, _boxed)


def _boxed(value: Any) -> Any:
    """A result of any form as one object, which JSON writes as it is."""
    box = np.empty((), dtype=object)
    box[()] = plain(value)
    return box


FRAMEWORK = Framework(
    name="huggingface",
    library="transformers",
    images=("huggingface",),
    wanted="config.json and weights as transformers' save_pretrained writes them",
    find=find,
    read=read,
    serve=serve,
    defaults=defaults,
)

"""User code: `code/inference.py` with model_fn, input_fn, predict_fn and output_fn, or transform_fn, as the serving
toolkits run it.

What the module does not define is done as the framework's own container would. Each function may take one more
argument, the context. Reached from `loader`; `call` runs in a worker thread, one request at a time a thread.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, NPY, BadPayload
from eyrie.modelserver.frameworks.interface import Answer, Defaults, Invocation, LoadError
from eyrie.modelserver.frameworks.selection import default_accept
from eyrie.modelserver.scope import CURRENT
from eyrie.modelserver.streaming import drawn

log = logging.getLogger("eyrie.modelserver")

FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")
OFFERS = (JSON, CSV, NPY, JSONLINES)
TEXT_TYPES = (JSON, CSV)  # handed over as str, everything else as bytes: the toolkits' own rule


class Context:
    """The optional last argument of a user's function: what the serving toolkits' context offers of one request.

    An instance has one model, so the index that the toolkits' calls take is accepted and has no effect.
    """

    def __init__(self, model_dir: str, headers: Mapping[str, str] | None = None) -> None:
        self.system_properties: dict[str, Any] = {"model_dir": model_dir, "gpu_id": None}
        self.status = 200
        self.content_type = ""
        self.response_headers: dict[str, str] = {}
        self._headers = dict(headers or {})

    @property
    def request_processor(self) -> list[Context]:
        """The toolkits keep one a request of a batch; here it is this context."""
        return [self]

    def get_request_properties(self) -> dict[str, str]:
        """All request headers, names in lower case."""
        return dict(self._headers)

    def get_all_request_header(self, idx: int = 0) -> dict[str, str]:
        """All request headers, names in lower case."""
        return dict(self._headers)

    def get_request_header(self, idx: int, key: str) -> str | None:
        """One request header, whatever its case."""
        return self._headers.get(key.lower())

    def set_response_content_type(self, idx: int, value: str) -> None:
        """The content type of the reply, in place of what was negotiated."""
        self.content_type = value

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """A header of the reply; custom attributes are the one that reaches a client of InvokeEndpoint."""
        self.response_headers[key] = value

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """The HTTP status of the reply. Raises ValueError for what is none: 100 would leave the client waiting."""
        if not 200 <= int(code) <= 599:
            raise ValueError(f"set_response_status({code}): the status of a reply is from 200 to 599")
        self.status = int(code)


@dataclass(slots=True)
class Script:
    """The user's functions, each with whether it takes the context."""

    module: ModuleType
    functions: dict[str, tuple[Callable[..., Any], bool]] = field(default_factory=dict)

    def run(self, name: str, context: Context, *arguments: Any) -> Any:
        """Call one of them."""
        function, takes_context = self.functions[name]
        result = function(*arguments, context) if takes_context else function(*arguments)
        return asyncio.run(result) if inspect.iscoroutine(result) else result


def import_script(path: Path) -> Script:
    """Import the entry point and check its functions. Raises LoadError, and what the module itself raises."""
    with _staying(path.name):
        module = _import(path)
    script = Script(module)
    for name in FUNCTIONS:
        function = getattr(module, name, None)
        if function is not None:
            script.functions[name] = (function, _takes_context(function, name, path.name))
    if "transform_fn" in script.functions:
        both = [name for name in ("input_fn", "predict_fn", "output_fn") if name in script.functions]
        if both:
            raise LoadError(
                f"{path.name} defines transform_fn and {', '.join(both)}; transform_fn replaces those, so use one form"
            )
    return script


@contextmanager
def _staying(what: str) -> Iterator[None]:
    """User code that runs while the model is loaded: that it ends the process is why the model cannot be loaded."""
    try:
        yield
    except SystemExit as error:
        raise LoadError(f"{what} ends the process: sys.exit({'' if error.code is None else error.code!r})") from error


def _import(path: Path) -> ModuleType:
    name = path.stem
    scope = CURRENT.get()
    if scope is not None and name in scope.names:
        return scope.module(name)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that pickles and other modules find its classes
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


_ARGUMENTS = {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 2, "transform_fn": 4}


def _takes_context(function: Any, name: str, file: str) -> bool:
    """Whether a function wants the context after its usual arguments. Raises LoadError when it takes neither number."""
    if not callable(function):
        raise LoadError(f"{name} in {file} is not a function")
    usual = _ARGUMENTS[name]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    for count, context in ((usual + 1, True), (usual, False)):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        optional = [
            p
            for p in list(signature.parameters.values())[usual:]
            if p.default is not p.empty or p.kind == p.VAR_POSITIONAL
        ]
        if context and optional and "context" not in signature.parameters:
            continue  # an extra argument with a default of its own is the user's, not the context
        return context
    raise LoadError(f"{name} in {file} must take {usual} arguments, or {usual + 1} with the context")


class UserModel:
    """A script and the model that it loaded, behind the CallModel interface."""

    def __init__(self, script: Script, model_dir: str, env: Mapping[str, str], defaults: Defaults) -> None:
        """Loads the model: calls the user's model_fn. Raises what that raises."""
        self._script = script
        self._model_dir = model_dir
        self._defaults = defaults
        self._default_accept = (
            default_accept(env, OFFERS, JSON) if "output_fn" not in script.functions else _env_accept(env)
        )
        self.workers = _workers(env)
        context = Context(model_dir)
        if "model_fn" in script.functions:
            with _staying("model_fn"):
                self._model = script.run("model_fn", context, model_dir)
        else:
            self._model = defaults.load(model_dir)
        self.title = (
            f"user code {Path(script.module.__file__ or '?').name} ({', '.join(script.functions) or 'no functions'})"
        )

    def call(self, invocation: Invocation) -> Answer:
        """Run the request through the functions; what they raise goes to the caller."""
        context = Context(self._model_dir, invocation.headers)
        result, accept = self._transform(invocation, context)
        return self._answer(result, accept, context)

    def _transform(self, invocation: Invocation, context: Context) -> tuple[Any, str]:
        script = self._script
        kind = invocation.content_type or JSON
        accept = self._accept(invocation.accept)
        data = _as_text(invocation.body, kind)
        if "transform_fn" in script.functions:
            return script.run("transform_fn", context, self._model, data, kind, accept), accept
        if "input_fn" in script.functions:
            value = script.run("input_fn", context, data, kind)
        else:
            value = self._defaults.decode(invocation.body, kind)
        if "predict_fn" in script.functions:
            prediction = script.run("predict_fn", context, value, self._model)
        else:
            prediction = self._defaults.predict(value, self._model)
        if "output_fn" in script.functions:
            return script.run("output_fn", context, prediction, accept), accept
        if isinstance(prediction, Iterator | AsyncIterator):
            return prediction, accept
        accept = codecs.negotiate(accept, OFFERS, self._default_accept)
        return codecs.encode_plain(self._defaults.plain(prediction), accept), accept

    def _accept(self, accept: str) -> str:
        return self._default_accept if accept.strip() in ("", "*/*") else accept

    def _answer(self, result: Any, accept: str, context: Context) -> Answer:
        """A reply from what output_fn or transform_fn returned: a body, or a body with its content type."""
        kind = accept
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
            result, kind = result
        headers = tuple((name, value) for name, value in context.response_headers.items())
        kind = context.content_type or kind
        if isinstance(result, AsyncIterator):
            return Answer(context.status, kind, b"", headers, drawn(result))
        if isinstance(result, Iterator):
            return Answer(context.status, kind, b"", headers, result)
        return Answer(context.status, kind, _as_body(result), headers)


def _as_text(body: bytes, kind: str) -> bytes | str:
    if codecs.media_type(kind) not in TEXT_TYPES:
        return body
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise BadPayload(f"the body is not UTF-8 text, which {kind} must be") from None


def _as_body(result: Any) -> bytes:
    if isinstance(result, bytes):
        return result
    if isinstance(result, bytearray | memoryview):
        return bytes(result)
    if isinstance(result, str):
        return result.encode()
    if result is None:
        return b""
    return codecs.encode_plain(np.asarray(result, dtype=object if isinstance(result, dict) else None), JSON)


def _env_accept(env: Mapping[str, str]) -> str:
    return env.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "") or JSON


def _workers(env: Mapping[str, str]) -> int:
    text = env.get("SAGEMAKER_MODEL_SERVER_WORKERS", "") or "1"
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= 64:
        raise LoadError(f"SAGEMAKER_MODEL_SERVER_WORKERS is {text!r}; it must be a number from 1 to 64")
    return count

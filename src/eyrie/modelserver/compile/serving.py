"""A compiled model behind the RowModel interface: onnxruntime in place of the library that trained it, the same
answers.

`predict` is on the path of every invocation of a compiled model. Rows that the original refuses are refused in its
words; everything else is one call of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, NPY, Array, BadPayload
from eyrie.modelserver.compile import manifest as manifests
from eyrie.modelserver.compile.manifest import Manifest, Refusal
from eyrie.modelserver.frameworks import lightgbm, sklearn, xgboost
from eyrie.modelserver.frameworks.files import missing
from eyrie.modelserver.frameworks.interface import LoadError
from eyrie.modelserver.frameworks.selection import default_accept, records, selected_keys

FLOAT32_MAX = float(np.finfo(np.float32).max)
QUIET = 3  # onnxruntime's log: errors only


def load(folder: Path, env: Mapping[str, str]) -> CompiledModel:
    """The compiled model of a model folder. Raises LoadError."""
    manifest = manifests.read(folder)
    if manifest is None:
        raise LoadError(f"there is no {manifests.FOLDER}/{manifests.MANIFEST}")
    return CompiledModel(manifest, session(folder / manifests.FOLDER / manifests.GRAPH), env)


def session(graph: Path | bytes) -> Any:
    """An inference session with one thread, as the server calls it. Raises LoadError."""
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError:
        raise LoadError(missing("onnxruntime", "onnx")) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(graph) if isinstance(graph, Path) else graph, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the boundary to a native library: whatever it makes of the file is the reason
        raise LoadError(f"onnxruntime cannot load the graph: {' '.join(str(error).split())[:300]}") from error


class CompiledModel:
    """A graph and its manifest."""

    def __init__(self, manifest: Manifest, graph: Any, env: Mapping[str, str]) -> None:
        """`graph`: an onnxruntime session. Raises LoadError for settings that the original would not take."""
        self._manifest = manifest
        self._run: Callable[..., list[Array]] = graph.run
        self._dtype = np.dtype(manifest.dtype)
        self._keys = selected_keys(env)
        self._batch = env.get("SAGEMAKER_BATCH", "").lower() == "true"
        wanted = [manifest.output, manifest.probabilities] if self._keys else [manifest.output]
        self._wanted = [name for name in wanted if name]
        self._refusals = [_Refused(refusal, manifest.shape.width or 0) for refusal in manifest.refusals]
        self._known = [(known.column, frozenset(known.values), known.message) for known in manifest.known]
        self._plain = manifest.family == "sklearn"
        first = (JSON, CSV) if self._plain else (CSV, JSON)
        self.offers = (CSV, JSON, JSONLINES) if self._keys else (*first, JSONLINES, NPY)
        self.default_accept = default_accept(env, self.offers, JSON if self._plain else CSV)
        self.empty_status = 400 if self._plain else 204
        self.shape = manifest.shape
        self.title = f"compiled to ONNX (onnxruntime {_version()}): {manifest.title}"

    def predict(self, rows: Array) -> Array:
        """Predictions of the rows, in the form that the original gives them. Raises BadPayload."""
        try:
            for refused in self._refusals:
                refused.check(rows)
            feed = self._columns(rows) if self._manifest.columns else {"X": rows}
        except (ValueError, TypeError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {error}") from error
        found = self._run(self._wanted, feed)
        values = _formed(found[0], len(rows), self._manifest.ndim, self._dtype)
        return self._select(values, found[1:], len(rows)) if self._keys else values

    def encode(self, values: Array, kind: str) -> bytes:
        """The body that the original would have written."""
        if self._keys:
            return codecs.encode_selected(values.tolist(), kind)
        return codecs.encode_plain(values, kind) if self._plain else codecs.encode_scores(values, kind, self._batch)

    def probabilities(self, rows: Array) -> Array | None:
        """A column a class, where the graph has them: to compare with."""
        if not self._manifest.probabilities:
            return None
        feed = self._columns(rows) if self._manifest.columns else {"X": rows}
        return self._run([self._manifest.probabilities], feed)[0]

    def _columns(self, rows: Array) -> dict[str, Array]:
        """The graph's inputs, a column each. Raises BadPayload for a category that the original refuses."""
        for column, values, message in self._known:
            for value in rows[:, column]:
                if value not in values:
                    raise BadPayload(f"Unable to evaluate payload provided: {message}")
        feed = {}
        for place, (name, text) in enumerate(self._manifest.columns):
            cells = rows[:, place : place + 1]
            feed[name] = cells.astype(str).astype(object) if text else cells.astype(np.dtype(self.shape.dtype))
        return feed

    def _select(self, values: Array, more: list[Array], count: int) -> Array:
        m = self._manifest
        if m.family == "xgboost":
            return records(self._keys, xgboost.known(m.objective, m.num_class, values), count)
        if m.family == "lightgbm":
            return records(self._keys, lightgbm.known(m.objective, values), count)
        return records(self._keys, sklearn.known(values, m.classes, more[0] if more else None), count)


class _Refused:
    """A check for values that the original refuses."""

    def __init__(self, refusal: Refusal, width: int) -> None:
        whole = len(refusal.columns) == width
        self._columns = None if whole else np.array(refusal.columns, dtype=np.intp)
        self._what = refusal.what
        self._message = f"Unable to evaluate payload provided: {refusal.message}"

    def check(self, rows: Array) -> None:
        """Raise BadPayload when a row holds one."""
        part = rows if self._columns is None else rows[:, self._columns]
        if part.dtype == object:
            part = part.astype(np.float64)
        if self._what == "missing":
            bad = np.isnan(part).any()
        elif self._what == "infinite":
            bad = np.isinf(part).any()
        else:
            bad = (np.abs(part) > FLOAT32_MAX).any()
        if bad:
            raise BadPayload(self._message)


def _formed(found: Array, count: int, ndim: int, dtype: Any) -> Array:
    """What a graph gave, with the original's dimensions and type."""
    values = np.asarray(found)
    if values.ndim != ndim:
        values = values.reshape(count) if ndim == 1 else values.reshape(count, -1)
    return values if values.dtype == dtype else values.astype(dtype)


def _version() -> str:
    return str(import_module("onnxruntime").__version__)

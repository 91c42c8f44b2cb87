"""scikit-learn: any estimator or pipeline with `predict`, answered as the scikit-learn container's default handlers
would.

Reached from `loader`; `predict` is on the path of every invocation of such a model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import stack
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, NPY, Array, BadPayload, RowShape
from eyrie.modelserver.frameworks import files
from eyrie.modelserver.frameworks.interface import Defaults, Framework, LoadError, Source
from eyrie.modelserver.frameworks.selection import default_accept, records, selected_keys

log = logging.getLogger("eyrie.modelserver")

USUAL = ("model.joblib", "model.pkl", "model.skops")

VECTORIZERS = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")  # of a column of texts, not of a matrix

# Steps that make numbers of text. A model without one never sees text, so that a bad row is refused by its place.
TEXT_STEPS = (
    "OneHotEncoder",
    "OrdinalEncoder",
    "TargetEncoder",
    "FunctionTransformer",
    "FeatureHasher",
    *VECTORIZERS,
)


WRAPPED = ("estimator", "regressor")  # what searches, calibrations and transformed targets hold their model in


class SklearnModel:
    """One fitted estimator behind the RowModel interface."""

    empty_status = 400

    def __init__(self, estimator: Any, env: Mapping[str, str]) -> None:
        """Raises LoadError for something that cannot predict rows."""
        if not callable(getattr(estimator, "predict", None)):
            raise LoadError(f"the model is a {type(estimator).__name__}, which has no predict method")
        self._estimator = estimator
        self._keys = selected_keys(env)
        self.offers = (CSV, JSON, JSONLINES) if self._keys else (JSON, CSV, JSONLINES, NPY)
        self.default_accept = default_accept(env, self.offers, JSON)
        names = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
        width = getattr(estimator, "n_features_in_", None)
        steps = list(_steps(estimator))
        self._frame = _frame_type(names) if any(_selects_by_name(step) for step in steps) else None
        self._text = any(type(first).__name__ in VECTORIZERS for first in _first_steps(estimator))
        self.shape = RowShape(
            width=1 if self._text else int(width) if width is not None else None,
            names=names,
            absent=0.0,
            text=self._text,
            strings=any(type(step).__name__ in TEXT_STEPS or not _is_sklearn(step) for step in steps),
        )
        _use_one_job(estimator)
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        kind = " > ".join(type(step).__name__ for step in getattr(estimator, "named_steps", {}).values())
        self.title = f"scikit-learn {_version()}, {kind or type(estimator).__name__}, {width or '?'} features"

    def predict(self, rows: Array) -> Array:
        """`estimator.predict(rows)`, or the chosen outputs."""
        given: Any = rows
        if self._text:
            given = [str(text) for text in rows[:, 0]]
        elif self._frame is not None:
            given = self._frame(rows, columns=list(self.shape.names)).infer_objects()
        try:
            if self._keys:
                return self._selected(given, len(rows))
            return np.asarray(self._estimator.predict(given))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {error}") from error

    def encode(self, values: Array, kind: str) -> bytes:
        """JSON, CSV, JSON lines or .npy as the serving toolkit writes them."""
        if self._keys:
            return codecs.encode_selected(values.tolist(), kind)
        return codecs.encode_plain(values, kind)

    @property
    def estimator(self) -> Any:
        """What it is made of: to compile it."""
        return self._estimator

    def _selected(self, rows: Any, count: int) -> Array:
        labels = np.asarray(self._estimator.predict(rows))
        chances = self._estimator.predict_proba(rows) if hasattr(self._estimator, "predict_proba") else None
        return records(self._keys, known(labels, getattr(self._estimator, "classes_", None), chances), count)


def known(labels: Array, classes: Any, chances: Any) -> dict[str, list[Any]]:
    """What predictions tell, by key of SAGEMAKER_INFERENCE_OUTPUT: of a classifier its labels, classes, and a column of
    chances for each; of a regressor (classes None) its scores.
    """
    found: dict[str, list[Any]] = {"predicted_label": labels.tolist()}
    if isinstance(chances, list):  # a classifier of several labels: the chances of each, and its classes
        each = [[column.tolist() for column in row] for row in zip(*chances, strict=True)]
        known_of_each = [np.asarray(one).tolist() for one in classes or ()]
        return {**found, "probabilities": each, "labels": [known_of_each] * len(labels)}
    if classes is None:
        found = {"predicted_score": labels.tolist()}
    else:
        found["labels"] = [np.asarray(classes).tolist()] * len(labels)
    if chances is not None:
        given = np.asarray(chances)
        best = given[:, 1] if given.shape[1] == 2 else given.max(axis=1)
        found |= {"probability": best.tolist(), "probabilities": given.tolist()}
    return found


def _steps(estimator: Any) -> Iterator[Any]:
    """An estimator and everything that pipelines, unions and column transformers hold."""
    yield estimator
    for attribute in ("steps", "transformer_list", "transformers", "transformers_", "estimators"):
        for part in getattr(estimator, attribute, None) or ():
            inner = part[1] if isinstance(part, tuple) else part
            if inner is not None and not isinstance(inner, str):
                yield from _steps(inner)
    for attribute in WRAPPED:
        if hasattr(inner := getattr(estimator, attribute, None), "get_params"):
            yield from _steps(inner)


def _first_steps(estimator: Any) -> Iterator[Any]:
    """What is given the rows as they come: the first step of pipelines, each part of a union."""
    yield estimator
    parts = [part[1] for part in (getattr(estimator, "steps", None) or ())[:1]]
    parts += [part[1] for part in getattr(estimator, "transformer_list", None) or ()]
    parts += [getattr(estimator, attribute, None) for attribute in WRAPPED]
    for part in parts:
        if hasattr(part, "get_params"):
            yield from _first_steps(part)


def _is_sklearn(step: Any) -> bool:
    return type(step).__module__.partition(".")[0] in ("sklearn", "xgboost", "lightgbm", "catboost", "imblearn")


def _selects_by_name(step: Any) -> bool:
    """True for a column transformer that picks its columns by name, which works on data frames only."""
    for _, _, columns in getattr(step, "transformers", ()) if type(step).__name__ == "ColumnTransformer" else ():
        if isinstance(columns, str) or callable(columns):
            return True
        if isinstance(columns, list) and columns and isinstance(columns[0], str):
            return True
    return False


def _frame_type(names: tuple[str, ...]) -> Any:
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise LoadError(
            "the model picks its columns by name, which needs pandas: name it in code/requirements.txt"
        ) from None
    if not names:
        raise LoadError(
            "the model picks its columns by name but was not trained on a data frame, so its columns have no names"
        )
    return pandas.DataFrame


def _use_one_job(estimator: Any) -> None:
    """Predict in one thread: starting a pool for a row costs more than it gains, and requests come in parallel."""
    try:
        parameters = estimator.get_params(deep=True)
        jobs = {
            name: 1
            for name, value in parameters.items()
            if name.rpartition("__")[2] == "n_jobs" and value not in (None, 1)
        }
        if jobs:
            estimator.set_params(**jobs)
    except (AttributeError, TypeError, ValueError):
        return  # an estimator with ways of its own keeps them


def _version() -> str:
    import sklearn

    return str(sklearn.__version__)


# ---------------------------------------------------------------------------------------------------- the table's entry
def find(source: Source) -> list[Path]:
    """Pickles and skops archives; of several the one that is named as the container names it."""
    found = files.of_kind(source.model_dir, "pickle", "skops")
    usual = [path for path in found if path.name in USUAL]
    if len(found) > 1 and len(usual) == 1:
        log.warning("serving %s; not read: %s", usual[0].name, ", ".join(p.name for p in found if p != usual[0]))
        return usual
    return found


def read(path: Path, source: Source) -> Any:
    """The estimator in a file. Raises LoadError, or what unpickling raises."""
    return files.read_skops(path, source) if files.kind_of(path) == "skops" else files.read_pickle(path)


def serve(objects: Sequence[Any], source: Source) -> SklearnModel:
    """One estimator. Raises LoadError for several."""
    if len(objects) > 1:
        raise LoadError(
            "several models that are not XGBoost's cannot be served together; choose one in code/inference.py"
        )
    return SklearnModel(objects[0], source.env)


def defaults(load: Callable[[str], Any]) -> Defaults:
    """The scikit-learn container's handlers: text becomes float32, one row may come without its brackets,
    `model.predict`.
    """
    return Defaults(load, _decode_float32, _predict)


def _decode_float32(body: bytes, kind: str) -> Array:
    rows = codecs.decode(body, kind, RowShape(absent=0.0))
    array = stack([rows], RowShape())
    return array if codecs.media_type(kind) == NPY else array.astype(np.float32)


def _predict(value: Any, model: Any) -> Any:
    try:
        return model.predict(value)
    except ValueError as error:
        raise BadPayload(f"Unable to evaluate payload provided: {error}") from error


FRAMEWORK = Framework(
    name="sklearn",
    library="sklearn",
    images=("sklearn", "scikit"),
    wanted="*.joblib, *.pkl or *.skops of scikit-learn",
    find=find,
    read=read,
    serve=serve,
    defaults=defaults,
)

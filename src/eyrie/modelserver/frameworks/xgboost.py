"""XGBoost as its own container serves it in algorithm mode: boosters from model files, several of them as an
ensemble.

Scores leave as the container writes them (`encode_scores`), or chosen by SAGEMAKER_INFERENCE_OUTPUT. Reached from
`loader`; `predict` is on the path of every invocation of such a model.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import stack
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, NPY, RECORDIO, Array, BadPayload, RowShape
from eyrie.modelserver.frameworks import files
from eyrie.modelserver.frameworks.interface import Defaults, Framework, LoadError, Source
from eyrie.modelserver.frameworks.selection import default_accept, records, selected_keys
from eyrie.modelserver.frameworks.xgboost_direct import Predict, direct

VOTING = (
    "multi:softmax",
    "binary:hinge",
)  # their scores are classes: an ensemble takes the most frequent one, not the mean
MESSAGE_CHARS_MAX = 400
ENSEMBLE = "SAGEMAKER_INFERENCE_ENSEMBLE"
NATIVE = ("xgboost-json", "xgboost-ubj", "xgboost-binary")


def read_booster(path: Path) -> Any:
    """The booster of a model file in XGBoost's JSON or UBJSON form. Raises LoadError."""
    import xgboost

    booster = xgboost.Booster()
    told_by_name = path.suffix.lower() in (".json", ".ubj")
    try:
        booster.load_model(path if told_by_name else bytearray(path.read_bytes()))
    except (xgboost.core.XGBoostError, ValueError, UnicodeDecodeError) as error:
        raise LoadError(f"XGBoost {xgboost.__version__} cannot read {path.name}: {plain(error)}") from error
    return booster


def plain(error: Exception) -> str:
    """XGBoost's message without its time stamp, source line and native stack."""
    text = str(error).partition("Stack trace:")[0].strip()
    head, _, tail = text.partition(": ")
    if head.startswith("[") and tail:
        text = tail
    return " ".join(text.split())[:MESSAGE_CHARS_MAX]


class XGBoostModel:
    """One booster or an ensemble of several, behind the RowModel interface."""

    empty_status = 204

    def __init__(self, boosters: Sequence[Any], env: Mapping[str, str]) -> None:
        """Boosters must agree on their number of features. Raises LoadError."""
        import xgboost

        self._boosters = list(boosters)
        self._native_error = xgboost.core.XGBoostError
        self._matrix = xgboost.DMatrix
        self._lock = threading.Lock()  # predict() through a DMatrix is not documented as thread-safe for linear models
        for booster in self._boosters:
            booster.set_param({"nthread": 1})  # a second one makes small batches slower: 185 us to 300 us for 32 rows
        config = json.loads(self._boosters[0].save_config())["learner"]
        self.objective = str(config["objective"]["name"])
        self._classes = int(config["learner_model_param"].get("num_class", "0"))
        self._keys = selected_keys(env)
        self._batch = env.get("SAGEMAKER_BATCH", "").lower() == "true"
        self.offers = (CSV, JSON, JSONLINES, RECORDIO) if self._keys else (CSV, JSON, JSONLINES, NPY, RECORDIO)
        self.default_accept = default_accept(env, self.offers, CSV)
        self.shape = RowShape(
            width=_width(self._boosters), names=tuple(self._boosters[0].feature_names or ()), dtype="float32"
        )
        linear = config["gradient_booster"]["name"] == "gblinear"
        self._predictors = [self._predictor(booster, linear) for booster in self._boosters]
        several = f"{len(self._boosters)} models as an ensemble, " if len(self._boosters) > 1 else ""
        self.title = f"xgboost {xgboost.__version__}, {several}{self.objective}, {self.shape.width} features"

    def predict(self, rows: Array) -> Array:
        """Scores of the rows: `Booster.predict` of the same trees; of an ensemble their mean, or their vote where they
        are classes.
        """
        try:
            scores = [predict(rows) for predict in self._predictors]
        except (self._native_error, ValueError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {plain(error)}") from error
        raw = scores[0] if len(scores) == 1 else self._ensemble(np.array(scores))
        return self._select(raw) if self._keys else raw

    def encode(self, values: Array, kind: str) -> bytes:
        """The container's CSV, JSON or JSON lines."""
        if self._keys:
            return codecs.encode_selected(values.tolist(), kind)
        return codecs.encode_scores(values, kind, self._batch)

    def encode_each(self, values: Array, kind: str) -> list[bytes]:
        """The replies to requests of one row each."""
        if self._keys:
            return [self.encode(value, kind) for value in values[:, None]]
        return codecs.encode_scores_each(values, kind, self._batch)

    def _predictor(self, booster: Any, linear: bool) -> Predict:
        """How this booster predicts: directly where possible, else in place; linear ones through a DMatrix."""
        trees = rounds_of(booster)

        def through_matrix(rows: Array) -> Array:
            with self._lock:
                scores: Array = booster.predict(self._matrix(rows), iteration_range=trees, validate_features=False)
            return scores

        def in_place(rows: Array) -> Array:
            scores: Array = booster.inplace_predict(rows, iteration_range=trees, validate_features=False)
            return scores

        return through_matrix if linear else direct(booster, trees, self.shape.width or 0, in_place) or in_place

    def _ensemble(self, scores: Array) -> Array:
        if self.objective not in VOTING:
            return np.asarray(scores.mean(axis=0), dtype=scores.dtype)
        return np.array([_most_frequent(votes) for votes in scores.T])

    @property
    def boosters(self) -> list[Any]:
        """What it is made of: to compile it."""
        return list(self._boosters)

    @property
    def num_class(self) -> int:
        """The number of classes that it was trained with; 0 where that says nothing."""
        return self._classes

    def _select(self, raw: Array) -> Array:
        return records(self._keys, known(self.objective, self._classes, raw), len(raw))


def rounds_of(booster: Any) -> tuple[int, int]:
    """The boosting rounds to predict with: up to the best one where early stopping noted it, else all."""
    best = booster.attr("best_iteration")
    return (0, int(best) + 1) if best is not None else (0, 0)


def _width(boosters: Sequence[Any]) -> int:
    widths = sorted({int(booster.num_features()) for booster in boosters})
    if len(widths) > 1:
        raise LoadError(f"the models of this ensemble were trained on different numbers of features: {widths}")
    return widths[0]


def _most_frequent(votes: Array) -> float:
    values, counts = np.unique(votes, return_counts=True)
    return float(values[counts.argmax()])


def known(objective: str, classes: int, raw: Array) -> dict[str, list[Any]]:
    """What an objective's raw scores tell, by key of SAGEMAKER_INFERENCE_OUTPUT."""
    count = len(raw)
    if objective == "multi:softprob":
        best = raw.max(axis=1).tolist()
        known = {"predicted_label": raw.argmax(axis=1).tolist(), "probability": best, "raw_score": best}
        return {
            **known,
            "probabilities": raw.tolist(),
            "raw_scores": raw.tolist(),
            "labels": [list(range(classes))] * count,
        }
    scores = raw.tolist()
    if objective == "multi:softmax":
        return {"predicted_label": scores, "raw_score": scores, "labels": [list(range(classes))] * count}
    if objective == "binary:logistic" and raw.ndim == 2:  # a column a label, of which a row may have several
        found = dict.fromkeys(("probability", "probabilities", "raw_score", "raw_scores"), scores)
        labels = [list(range(raw.shape[1]))] * count
        return {**found, "predicted_label": (raw > 0.5).astype(int).tolist(), "labels": labels}
    if objective.startswith("binary:"):
        pairs = [[1.0 - score, score] for score in scores]
        known = {"raw_score": scores, "raw_scores": pairs, "labels": [[0, 1]] * count}
        if objective == "binary:logistic":
            return {
                **known,
                "predicted_label": (raw > 0.5).astype(int).tolist(),
                "probability": scores,
                "probabilities": pairs,
            }
        return {**known, "predicted_label": (raw > 0).astype(int).tolist()}
    return (
        {"predicted_score": scores} if objective.startswith(("reg:", "count:", "survival:")) else {"raw_score": scores}
    )


# ---------------------------------------------------------------------------------------------------- the table's entry
def find(source: Source) -> list[Path]:
    """XGBoost's own files, and the pickles beside them: an ensemble, unless those are off."""
    if not files.of_kind(source.model_dir, *NATIVE):
        return []
    found = files.of_kind(source.model_dir, *NATIVE, "pickle")
    return found[:1] if source.env.get(ENSEMBLE, "true").lower() in ("false", "0") else found


def read(path: Path, source: Source) -> Any:
    """The booster, or what was pickled, in a file. Raises LoadError, or what unpickling raises."""
    kind = files.kind_of(path)
    if kind == "pickle":
        return files.read_pickle(path)
    if kind == "xgboost-binary":
        raise LoadError(
            f"{path.name} is in XGBoost's old binary format, which XGBoost reads no more since 3.1: "
            "load it with XGBoost 3.0 or older and save it as model.json or model.ubj"
        )
    return read_booster(path)


def owns(value: Any, source: Source) -> bool:
    """A pickled booster; an estimator too, unless scikit-learn's container is asked for."""
    if _is_booster(value):
        return True
    as_sklearn = source.image_says("sklearn", "scikit") and not source.image_says("xgboost")
    return not as_sklearn and type(value).__module__.startswith("xgboost") and hasattr(value, "get_booster")


def _is_booster(value: Any) -> bool:
    xgboost = sys.modules.get("xgboost")
    return xgboost is not None and isinstance(value, xgboost.Booster)


def serve(objects: Sequence[Any], source: Source) -> XGBoostModel:
    """A booster, or an ensemble of them. Raises LoadError."""
    strange = next((value for value in objects if not _is_booster(value) and not hasattr(value, "get_booster")), None)
    if strange is not None:
        raise LoadError(f"a {type(strange).__name__} lies beside XGBoost models: write code/inference.py, or remove it")
    return XGBoostModel([value if _is_booster(value) else value.get_booster() for value in objects], source.env)


def defaults(load: Callable[[str], Any]) -> Defaults:
    """The XGBoost container's handlers in script mode: a DMatrix, and `model.predict` of it."""
    return Defaults(load, _decode_matrix, _predict_matrix)


def _decode_matrix(body: bytes, kind: str) -> Any:
    import xgboost

    return xgboost.DMatrix(stack([codecs.decode(body, kind, RowShape())], RowShape(dtype="float32")))


def _predict_matrix(value: Any, model: Any) -> Any:
    import xgboost

    if isinstance(model, xgboost.Booster):
        try:
            return model.predict(value, validate_features=False)
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {plain(error)}") from error
    if isinstance(value, xgboost.DMatrix) and hasattr(model, "get_booster"):
        return model.get_booster().predict(value, validate_features=False)
    return model.predict(value)


FRAMEWORK = Framework(
    name="xgboost",
    library="xgboost",
    images=("xgboost",),
    wanted="xgboost-model, *.json or *.ubj of XGBoost",
    find=find,
    read=read,
    serve=serve,
    defaults=defaults,
    owns=owns,
)

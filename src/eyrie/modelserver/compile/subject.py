"""What is to be compiled: a served model opened up, with the ways to convert it, the first the one to prefer.

A way is a function that makes a graph; `compiler` tries them until one agrees with the original.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array
from eyrie.modelserver.compile import columns, convert_sklearn, forest_lightgbm, forest_xgboost
from eyrie.modelserver.compile.columns import Boundaries, Column
from eyrie.modelserver.compile.errors import CannotConvert
from eyrie.modelserver.compile.forest import Scores
from eyrie.modelserver.compile.graph import SCORES, booster_graph
from eyrie.modelserver.frameworks.interface import RowModel
from eyrie.modelserver.frameworks.lightgbm import LightGBMModel
from eyrie.modelserver.frameworks.sklearn import SklearnModel
from eyrie.modelserver.frameworks.xgboost import XGBoostModel, rounds_of


@dataclass(frozen=True, slots=True)
class Graph:
    """A converted model."""

    onnx: bytes
    dtype: str  # of the rows that it takes
    columns: tuple[tuple[str, bool], ...]  # its inputs where it takes columns: name, and whether it is text
    probabilities: str  # the output with a column a class, or ""
    output: str  # the output with predictions


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be compiled."""

    family: str
    columns: Sequence[Column]
    boundaries: Boundaries | None
    ways: Sequence[tuple[str, Callable[[], Graph]]]  # a name for the report, and how
    chances: Callable[[Array], Array] | None = None  # a column a class
    classes: tuple[Any, ...] | None = None
    objective: str = ""
    num_class: int = 0


def subject_of(model: RowModel) -> Subject:
    """Open a served model up. Raises CannotConvert."""
    if isinstance(model, XGBoostModel):
        return _xgboost(model)
    if isinstance(model, LightGBMModel):
        return _booster("lightgbm", forest_lightgbm.scores_of(model.booster), model.objective)
    if isinstance(model, SklearnModel):
        return _sklearn(model)
    raise CannotConvert("models of this kind are served as they are: there is no compiled form of them here")


def _xgboost(model: XGBoostModel) -> Subject:
    if len(model.boosters) > 1:
        raise CannotConvert("an ensemble of several XGBoost models has no ONNX form here")
    booster = model.boosters[0]
    return _booster("xgboost", forest_xgboost.scores_of(booster, rounds_of(booster)), model.objective, model.num_class)


def _booster(family: str, scores: Scores, objective: str, num_class: int = 0) -> Subject:
    def graph() -> Graph:
        return Graph(booster_graph(scores), scores.forest.dtype, (), "", SCORES)

    thresholds = scores.forest.thresholds()
    boundaries = Boundaries(thresholds, scores.width) if thresholds else None
    ways = [(f"trees in {scores.forest.dtype}", graph)]
    return Subject(family, [Column()] * scores.width, boundaries, ways, objective=objective, num_class=num_class)


def _sklearn(model: SklearnModel) -> Subject:
    estimator, width = model.estimator, model.shape.width
    if width is None:
        raise CannotConvert("the model does not say how many columns it takes")
    if model.shape.text:
        raise CannotConvert("its rows are texts")
    for part in convert_sklearn.parts(estimator):
        if type(part).__name__ == "VotingClassifier":
            part.flatten_transform = False  # what it means for `transform` alone is all that stops skl2onnx
    known = columns.columns_of(estimator, width)
    text = [place for place, column in enumerate(known) if column.text]
    if model.shape.strings and not text and any(map(_takes_text, convert_sklearn.parts(estimator))):
        raise CannotConvert("which of its columns are text cannot be told")

    def way(precise: bool) -> Callable[[], Graph]:
        return lambda: _converted(estimator, width, text, precise)

    classes = getattr(estimator, "classes_", None)
    return Subject(
        "sklearn",
        known,
        columns.boundaries_of(estimator),
        [("float64, trees of our own", way(True)), ("float32, as skl2onnx converts", way(False))],
        chances=_chances(estimator),
        classes=None if classes is None else tuple(np.asarray(classes).tolist()),
    )


def _converted(estimator: Any, width: int, text: Sequence[int], precise: bool) -> Graph:
    onnx, inputs, outputs = convert_sklearn.convert(estimator, width, text, precise)
    probabilities = outputs[1] if len(outputs) > 1 and hasattr(estimator, "predict_proba") else ""
    dtype = "float64" if precise else "float32"
    return Graph(onnx, dtype, tuple((c.name, c.text) for c in inputs), probabilities, outputs[0])


def _chances(estimator: Any) -> Callable[[Array], Array] | None:
    return estimator.predict_proba if hasattr(estimator, "predict_proba") else None


def _takes_text(part: Any) -> bool:
    return type(part).__name__ in ("FeatureHasher", "TfidfVectorizer", "CountVectorizer", "FunctionTransformer")

"""What a fitted estimator tells about the columns that it takes: where their values lie, and which of them are text.

Scalers remember means, imputers what they fill in, encoders their categories, trees their thresholds. `rows` makes rows
of it that reach every part of the model; `convert_sklearn` needs to know which columns are text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array
from eyrie.modelserver.compile.errors import CannotConvert


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the rows that a model takes."""

    center: float = 0.0
    spread: float = 1.0
    values: tuple[Any, ...] = ()  # categories, where an encoder knows them
    text: bool = False


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Thresholds of a model's trees, and the way from the trees' columns back to the rows that the model is given."""

    thresholds: Mapping[int, Array]
    width: int
    back: Sequence[Any] = field(default_factory=tuple)  # transformers, the last one first

    def outer(self, rows: Array) -> Array:
        """Rows of the trees as rows of the model."""
        for transformer in self.back:
            rows = np.asarray(transformer.inverse_transform(rows))
        return rows


def columns_of(estimator: Any, width: int) -> list[Column]:
    """What is known of each column. Raises CannotConvert where it cannot be told which columns are text."""
    found = [Column() for _ in range(width)]
    _look(estimator, list(range(width)), found)
    return found


def boundaries_of(estimator: Any) -> Boundaries | None:
    """Thresholds of a tree model, or of a pipeline that ends in one and whose steps can be undone."""
    steps = [step for _, step in getattr(estimator, "steps", [("", estimator)])]
    back = [step for step in reversed(steps[:-1]) if type(step).__name__ != "SimpleImputer" and step != "passthrough"]
    if not all(callable(getattr(step, "inverse_transform", None)) for step in back):
        return None
    thresholds: dict[int, list[float]] = {}
    for feature, threshold in _thresholds(steps[-1]):
        thresholds.setdefault(int(feature), []).append(float(threshold))
    if not thresholds:
        return None
    ordered = {feature: np.unique(values) for feature, values in sorted(thresholds.items())}
    return Boundaries(ordered, int(steps[-1].n_features_in_), back)


def _thresholds(estimator: Any) -> Iterator[tuple[int, float]]:
    """Every (feature, threshold) of the trees in an estimator."""
    for members in (getattr(estimator, "estimators_", None), getattr(estimator, "estimators", None)):
        if members is not None:
            for member in np.asarray(members, dtype=object).ravel():
                yield from _thresholds(member)
            return
    if hasattr(estimator, "tree_"):
        tree = estimator.tree_
        yield from ((f, t) for f, t in zip(tree.feature, tree.threshold, strict=True) if f >= 0)
    for stage in getattr(estimator, "_predictors", ()):
        for part in stage:
            inner = part.nodes[part.nodes["is_leaf"] == 0]
            yield from zip(inner["feature_idx"], inner["num_threshold"], strict=True)


def _look(estimator: Any, places: Sequence[int], found: list[Column]) -> None:
    """Note what one transformer or estimator knows of its columns; `places` are theirs among the model's."""
    if hasattr(estimator, "steps"):
        _look_at_steps([step for _, step in estimator.steps], places, found)
    elif hasattr(estimator, "transformers_"):
        inputs = estimator._transformer_to_input_indices
        for name, transformer, _ in estimator.transformers_:
            if not isinstance(transformer, str):
                _look(transformer, [places[i] for i in inputs[name]], found)
    elif hasattr(estimator, "transformer_list"):
        for _, transformer in estimator.transformer_list:
            _look(transformer, places, found)
    elif hasattr(estimator, "categories_"):
        for place, categories in zip(places, estimator.categories_, strict=True):
            found[place] = _encoded(categories)
    else:
        _look_at_numbers(estimator, places, found)


def _look_at_steps(steps: Sequence[Any], places: Sequence[int], found: list[Column]) -> None:
    """Steps of a pipeline, as long as a column of theirs is still one of the model's."""
    for step in steps:
        if isinstance(step, str) or step is None:
            continue
        _look(step, places, found)
        if type(step).__name__ not in ("SimpleImputer", "FunctionTransformer") or getattr(step, "add_indicator", False):
            return


def _encoded(categories: Array) -> Column:
    kinds = {type(value) for value in categories.tolist()}
    if kinds <= {str}:
        return Column(values=tuple(categories.tolist()), text=True)
    if kinds & {str}:
        raise CannotConvert("a column that holds text and numbers has no ONNX form here")
    return Column(values=tuple(float(value) for value in categories.tolist()))


def _look_at_numbers(estimator: Any, places: Sequence[int], found: list[Column]) -> None:
    centers = _vector(estimator, ("mean_", "center_", "data_min_", "statistics_", "theta_"), len(places))
    spreads = _vector(estimator, ("scale_", "data_range_", "var_"), len(places))
    for i, place in enumerate(places):
        if centers is not None:
            found[place] = replace(found[place], center=float(centers[i]))
        if spreads is not None:
            spread = float(spreads[i])
            spread = 1.0 / spread if type(estimator).__name__ == "MinMaxScaler" and spread else spread
            found[place] = replace(found[place], spread=abs(spread) or 1.0)


def _vector(estimator: Any, names: Sequence[str], count: int) -> Array | None:
    """The first of these attributes that is a number a column; of one a class and column, the mean."""
    for name in names:
        value = getattr(estimator, name, None)
        if value is None:
            continue
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            continue
        array = array.mean(axis=0) if array.ndim == 2 else array
        if array.shape == (count,) and np.isfinite(array).all():
            return np.asarray(array)
    return None

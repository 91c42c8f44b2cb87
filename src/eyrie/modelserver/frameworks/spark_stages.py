"""Spark ML's common transformers and models over NumPy columns, from what Spark saved of them: no JVM.

A stage is made of its parameters (Spark's own names) and its rows of data, and maps columns to columns: numbers and
text are arrays of one dimension, vectors arrays of two. `spark` reads the files and puts stages in order; each stage is
held to Spark's own transform by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from eyrie.modelserver.codecs import Array, BadPayload
from eyrie.modelserver.frameworks.interface import LoadError

Columns: TypeAlias = dict[str, Array]
Stage: TypeAlias = Callable[[Columns], None]  # adds its columns to those given


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved of one stage."""

    kind: str  # the end of its class's name: StringIndexerModel
    params: Mapping[str, Any]  # those set over the defaults
    extra: Mapping[str, Any]  # other fields of its metadata, such as numClasses
    rows: Sequence[Mapping[str, Any]]  # of its data
    trees: Sequence[Mapping[str, Any]] = ()  # of an ensemble's metadata

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Input and output columns, for stages that take one or many."""
        if self.params.get("inputCols") and self.params.get("outputCols"):
            return list(zip(self.params["inputCols"], self.params["outputCols"], strict=True))
        return [(self.params["inputCol"], self.params["outputCol"])]


def build(saved: Saved) -> Stage:
    """The stage. Raises LoadError for a kind that is not known here, or a parameter that is not followed."""
    maker = MAKERS.get(saved.kind)
    if maker is None:
        raise LoadError(
            f"the Spark stage {saved.kind} has no converted form here; there are {', '.join(sorted(MAKERS))}"
        )
    try:
        return maker(saved)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LoadError(f"the Spark stage {saved.kind} was not saved as expected: {error!r}") from error


def column(columns: Columns, name: str) -> Array:
    """A column that a stage takes. Raises BadPayload."""
    if name not in columns:
        raise BadPayload(f"the column {name!r} is missing")
    return columns[name]


def numbers(columns: Columns, name: str) -> Array:
    """A column of numbers. Raises BadPayload for text."""
    found = column(columns, name)
    try:
        return found.astype(np.float64)
    except (ValueError, TypeError):
        raise BadPayload(f"the column {name!r} holds text where numbers are wanted") from None


def vector(value: Mapping[str, Any]) -> Array:
    """A vector as Spark writes it: type 1 is dense, 0 sparse."""
    if value["type"] == 1:
        return np.array(value["values"], dtype=np.float64)
    filled = np.zeros(value["size"])
    filled[np.array(value["indices"], dtype=int)] = value["values"]
    return filled


def matrix(value: Mapping[str, Any]) -> Array:
    """A matrix as Spark writes it: dense by columns, by rows where it is transposed; or sparse by columns."""
    shape = int(value["numRows"]), int(value["numCols"])
    if value["type"] == 1:
        return np.array(value["values"], dtype=np.float64).reshape(shape, order="C" if value["isTransposed"] else "F")
    filled = np.zeros(shape)
    starts, others = value["colPtrs"], value["rowIndices"]
    for line, (begin, end) in enumerate(pairwise(starts)):
        for other, number in zip(others[begin:end], value["values"][begin:end], strict=True):
            filled[(line, other) if value["isTransposed"] else (other, line)] = number
    return filled


# ------------------------------------------------------------------------------------------------------------- features
def string_indexer(saved: Saved) -> Stage:
    """Labels to their place in the order of training; `handleInvalid` keep gives the next number to what is new."""
    row = saved.rows[0]
    lists = row["labelsArray"] if "labelsArray" in row else [row["labels"]]
    tables = [{label: float(place) for place, label in enumerate(labels)} for labels in lists]
    keep = _keeps(saved)

    def stage(columns: Columns) -> None:
        for (given, made), table in zip(saved.pairs, tables, strict=True):
            values = column(columns, given)
            new = float(len(table)) if keep else None
            places = [table.get(text, new) for text in map(spark_text, values.tolist())]
            if None in places:
                shown = spark_text(values.tolist()[places.index(None)])
                raise BadPayload(f"the column {given!r} holds {shown!r}, which was not there in training")
            columns[made] = np.array(places, dtype=np.float64)

    return stage


def spark_text(value: Any) -> str | None:
    """A value as Spark's cast to a string has it; None stays."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _keeps(saved: Saved) -> bool:
    """True for handleInvalid keep. Raises LoadError for skip: a reply must have as many rows as its request."""
    how = saved.params.get("handleInvalid", "error")
    if how == "skip":
        raise LoadError(f"{saved.kind} has handleInvalid=skip, which drops rows; save it with keep or error")
    return bool(how == "keep")


def one_hot(saved: Saved) -> Stage:
    """A category to a vector with a one, the last category dropped where `dropLast` says so."""
    sizes = [int(size) for size in saved.rows[0]["categorySizes"]]
    keep, drop = _keeps(saved), bool(saved.params["dropLast"])

    def stage(columns: Columns) -> None:
        for (given, made), size in zip(saved.pairs, sizes, strict=True):
            values = numbers(columns, given)
            bad = ~((values >= 0) & (values < size))
            if bad.any() and not keep:
                raise BadPayload(f"the column {given!r} holds {values[bad][0]}, no category from 0 to {size - 1}")
            places = np.where(bad, size, values).astype(int)
            columns[made] = np.eye(size + keep)[places][:, : size + keep - drop]

    return stage


def imputer(saved: Saved) -> Stage:
    """Missing values to what was learned in training."""
    missing = float(saved.params.get("missingValue", "nan"))
    row = saved.rows[0]

    def stage(columns: Columns) -> None:
        for given, made in saved.pairs:
            values = numbers(columns, given)
            absent = np.isnan(values) | (values == missing)
            columns[made] = np.where(absent, float(row[given]), values)

    return stage


def assembler(saved: Saved) -> Stage:
    """Columns side by side in one vector."""
    keep = _keeps(saved)
    names, made = list(saved.params["inputCols"]), saved.params["outputCol"]

    def stage(columns: Columns) -> None:
        parts = []
        for name in names:
            values = numbers(columns, name)
            if not keep and np.isnan(values).any() and values.ndim == 1:
                raise BadPayload(f"the column {name!r} has no value, which VectorAssembler refuses")
            parts.append(values if values.ndim == 2 else values[:, None])
        columns[made] = np.concatenate(parts, axis=1)

    return stage


def standard_scaler(saved: Saved) -> Stage:
    """(x - mean) / std, each where its parameter says so; a std of zero gives zero."""
    row = saved.rows[0]
    mean = vector(row["mean"]) if saved.params["withMean"] else 0.0
    std = vector(row["std"])
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=std != 0) if saved.params["withStd"] else 1.0
    return _scaled(saved, lambda values: (values - mean) * scale)


def min_max_scaler(saved: Saved) -> Stage:
    """From the range of training to the one of the parameters; a range of zero gives its middle."""
    low, high = vector(saved.rows[0]["originalMin"]), vector(saved.rows[0]["originalMax"])
    floor, top = float(saved.params["min"]), float(saved.params["max"])
    flat = high == low
    spread = np.where(flat, 1.0, high - low)

    def scale(values: Array) -> Array:
        raw = np.where(flat, 0.5, (values - low) / spread)
        return np.asarray(raw * (top - floor) + floor)

    return _scaled(saved, scale)


def max_abs_scaler(saved: Saved) -> Stage:
    """Divided by the largest absolute value of training."""
    top = vector(saved.rows[0]["maxAbs"])
    return _scaled(saved, lambda values: values / np.where(top == 0, 1.0, top))


def _scaled(saved: Saved, scale: Callable[[Array], Array]) -> Stage:
    ((given, made),) = saved.pairs

    def stage(columns: Columns) -> None:
        columns[made] = scale(numbers(columns, given))

    return stage


def bucketizer(saved: Saved) -> Stage:
    """A number to the bucket between two splits; the last bucket holds its upper bound too."""
    many = saved.params.get("splitsArray")
    splits = [np.array([float(x) for x in one]) for one in (many if many else [saved.params["splits"]])]
    keep = _keeps(saved)

    def stage(columns: Columns) -> None:
        for (given, made), bounds in zip(saved.pairs, splits, strict=True):
            values = numbers(columns, given)
            buckets = len(bounds) - 1
            places = np.where(values == bounds[-1], buckets - 1, np.searchsorted(bounds, values, side="right") - 1)
            missing = np.isnan(values)
            outside = ~missing & ((values < bounds[0]) | (values > bounds[-1]))
            if outside.any() or (missing.any() and not keep):
                bad = values[outside | missing][0]
                raise BadPayload(f"the column {given!r} holds {bad}, which is in no bucket")
            columns[made] = np.where(missing, buckets, places).astype(np.float64)

    return stage


# --------------------------------------------------------------------------------------------------------------- models
def logistic_regression(saved: Saved) -> Stage:
    """Probabilities by the logistic function, or softmax where it was trained so."""
    row = saved.rows[0]
    weights, intercept = matrix(row["coefficientMatrix"]), vector(row["interceptVector"])
    multinomial, threshold = bool(row["isMultinomial"]), float(saved.params.get("threshold", 0.5))

    def raw(features: Array) -> Array:
        margins = features @ weights.T + intercept
        return margins if multinomial else np.concatenate([-margins, margins], axis=1)

    def chances(margins: Array) -> Array:
        if multinomial:
            lifted = np.exp(margins - margins.max(axis=1, keepdims=True))
            return np.asarray(lifted / lifted.sum(axis=1, keepdims=True))
        positive = _logistic(margins[:, 1])
        return np.column_stack([1.0 - positive, positive])

    return _classifier(saved, raw, chances, None if multinomial else threshold)


def _logistic(margins: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-margins)))


def _classifier(
    saved: Saved, raw: Callable[[Array], Array], chances: Callable[[Array], Array], threshold: float | None = None
) -> Stage:
    """Raw scores, probabilities and the label: the likeliest, or by the threshold of two classes."""
    given, many = saved.params["featuresCol"], saved.params.get("thresholds")

    def stage(columns: Columns) -> None:
        margins = raw(numbers(columns, given))
        likely = chances(margins)
        if many:
            best = np.argmax(likely / np.array(many, dtype=np.float64), axis=1)
        elif threshold is not None:
            best = (likely[:, 1] > threshold).astype(int)
        else:
            best = np.argmax(likely, axis=1)
        made = (("rawPredictionCol", margins), ("probabilityCol", likely), ("predictionCol", best.astype(np.float64)))
        columns.update({saved.params[name]: values for name, values in made if saved.params.get(name)})

    return stage


def linear_regression(saved: Saved) -> Stage:
    """The weighted sum and the intercept."""
    row = saved.rows[0]
    weights, intercept = vector(row["coefficients"]), float(row["intercept"])
    return _regressor(saved, lambda features: features @ weights + intercept)


def _regressor(saved: Saved, value: Callable[[Array], Array]) -> Stage:
    given, made = saved.params["featuresCol"], saved.params["predictionCol"]

    def stage(columns: Columns) -> None:
        columns[made] = value(numbers(columns, given))

    return stage


def kmeans(saved: Saved) -> Stage:
    """The nearest centre. Raises LoadError for a distance that is not Euclid's."""
    if saved.params["distanceMeasure"] != "euclidean":
        raise LoadError(f"KMeansModel of {saved.params['distanceMeasure']} distance has no converted form here")
    ordered = sorted(saved.rows, key=lambda row: int(row["clusterIdx"]))
    centres = np.array([vector(row["clusterCenter"]) for row in ordered])

    def nearest(features: Array) -> Array:
        return np.asarray(((features[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1))

    return _regressor(saved, nearest)


class Tree:
    """One decision tree as flat arrays; rows walk down it together."""

    def __init__(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        ordered = sorted(nodes, key=lambda node: int(node["id"]))
        if [int(node["id"]) for node in ordered] != list(range(len(ordered))):
            raise ValueError("the tree's nodes are not numbered from 0")
        self._left = np.array([int(node["leftChild"]) for node in ordered])
        self._right = np.array([int(node["rightChild"]) for node in ordered])
        self._feature = np.array([max(int(node["split"]["featureIndex"]), 0) for node in ordered])
        splits = [(int(n["split"]["numCategories"]), n["split"]["leftCategoriesOrThreshold"]) for n in ordered]
        self._threshold = np.array([values[0] if kind < 0 and len(values) else 0.0 for kind, values in splits])
        self._categories = {i: set(values) for i, (kind, values) in enumerate(splits) if kind >= 0}
        self.prediction = np.array([float(node["prediction"]) for node in ordered])
        self.stats = [np.array(node["impurityStats"], dtype=np.float64) for node in ordered]

    def leaves(self, features: Array) -> Array:
        """The leaf of each row."""
        place = np.zeros(len(features), dtype=int)
        rows = np.arange(len(features))
        while (inner := self._left[place] >= 0).any():
            values = features[rows, self._feature[place]]
            left = values <= self._threshold[place]
            for node, chosen in self._categories.items():
                here = place == node
                left[here] = np.isin(values[here], list(chosen))
            place = np.where(inner, np.where(left, self._left[place], self._right[place]), place)
        return place


def _forest(saved: Saved) -> tuple[list[Tree], Array]:
    """The trees of an ensemble and their weights."""
    nodes: dict[int, list[Any]] = {}
    for row in saved.rows:
        nodes.setdefault(int(row["treeID"]), []).append(row["nodeData"])
    weights = {int(tree.get("treeID", tree.get("_1", -1))): tree.get("weights", tree.get("_3")) for tree in saved.trees}
    order = sorted(nodes)
    return [Tree(nodes[number]) for number in order], np.array([float(weights[number]) for number in order])


def tree_classifier(saved: Saved) -> Stage:
    """One tree: the counts of its leaf."""
    tree = Tree(saved.rows)
    stats = np.array(tree.stats)
    return _classifier(saved, lambda features: stats[tree.leaves(features)], _shares)


def _shares(counts: Array) -> Array:
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(totals == 0, 1.0, totals))


def forest_classifier(saved: Saved) -> Stage:
    """Each tree votes with the shares of its leaf, by its weight."""
    trees, weights = _forest(saved)
    shares = [_shares(np.array(tree.stats)) for tree in trees]

    def votes(features: Array) -> Array:
        parts = [w * s[t.leaves(features)] for w, s, t in zip(weights, shares, trees, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    return _classifier(saved, votes, _shares)


def gbt_classifier(saved: Saved) -> Stage:
    """The weighted sum of the trees' values, twice of which goes through the logistic function."""
    trees, weights = _forest(saved)

    def raw(features: Array) -> Array:
        margin = _weighted(trees, weights, features)
        return np.column_stack([-margin, margin])

    def chances(margins: Array) -> Array:
        positive = _logistic(2.0 * margins[:, 1])
        return np.column_stack([1.0 - positive, positive])

    return _classifier(saved, raw, chances)


def _weighted(trees: Sequence[Tree], weights: Array, features: Array) -> Array:
    parts = [w * tree.prediction[tree.leaves(features)] for w, tree in zip(weights, trees, strict=True)]
    return np.asarray(np.sum(parts, axis=0))


def tree_regressor(saved: Saved) -> Stage:
    """One tree: the value of its leaf."""
    tree = Tree(saved.rows)
    return _regressor(saved, lambda features: tree.prediction[tree.leaves(features)])


def forest_regressor(saved: Saved) -> Stage:
    """The mean of the trees."""
    trees, weights = _forest(saved)
    return _regressor(saved, lambda features: _weighted(trees, weights, features) / weights.sum())


def gbt_regressor(saved: Saved) -> Stage:
    """The weighted sum of the trees."""
    trees, weights = _forest(saved)
    return _regressor(saved, lambda features: _weighted(trees, weights, features))


MAKERS: Mapping[str, Callable[[Saved], Stage]] = {
    "StringIndexerModel": string_indexer,
    "OneHotEncoderModel": one_hot,
    "ImputerModel": imputer,
    "VectorAssembler": assembler,
    "StandardScalerModel": standard_scaler,
    "MinMaxScalerModel": min_max_scaler,
    "MaxAbsScalerModel": max_abs_scaler,
    "Bucketizer": bucketizer,
    "LogisticRegressionModel": logistic_regression,
    "LinearRegressionModel": linear_regression,
    "KMeansModel": kmeans,
    "DecisionTreeClassificationModel": tree_classifier,
    "RandomForestClassificationModel": forest_classifier,
    "GBTClassificationModel": gbt_classifier,
    "DecisionTreeRegressionModel": tree_regressor,
    "RandomForestRegressionModel": forest_regressor,
    "GBTRegressionModel": gbt_regressor,
}
